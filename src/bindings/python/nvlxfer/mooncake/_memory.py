# SPDX-License-Identifier: Apache-2.0
"""What an engine has registered, by address."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Iterable, Sequence

from .. import Access, Engine, Region
from ..errors import _ENOMEM, NvlxError, OutOfRange, Stale, Timeout, _invalid

# Mooncake's codes.
INVALID, NOT_REGISTERED, OVERLAPPED, NO_MEMORY = -1, -3, -7, -302


class Refused(Exception):
    """A call fails with this code of Mooncake's."""

    def __init__(self, code: int, cause: object) -> None:
        super().__init__(str(cause))
        self.code = code


class Memory:
    """Ranges that do not overlap, as Mooncake has them: each is known by the address where it begins."""

    def __init__(self, engine: Engine, patience: float) -> None:
        self._engine, self._patience = engine, patience
        self._lock = threading.RLock()  # a tensor's finalizer may unregister it while this thread is in here
        self._starts: list[int] = []  # sorted; for moments there is one without a range, or none for a range
        self._ranges: dict[int, tuple[int, Region | None]] = {}  # length, and the region once it is registered
        self._withdrawn: dict[int, list[Region]] = {}  # which somebody still uses

    def register(self, ranges: Sequence[tuple[int, int]], access: Access) -> None:
        """Registers all of them, or none and raises Refused."""
        done: list[int] = []
        try:
            for address, length in ranges:
                self._reserve(address, length)
                done.append(address)
                region = self._engine.register((address, length), access=access)
                with self._lock:
                    self._ranges[address] = (length, region)
        except BaseException as failure:
            for address in done:
                self._take(address, reserved=True)
            self._finish(done)
            if isinstance(failure, NvlxError):
                raise Refused(NO_MEMORY if failure.code == _ENOMEM else INVALID, failure) from None
            raise

    def unregister(self, addresses: Iterable[int]) -> None:
        """Withdraws all of them that there are, then waits until nobody uses one; raises the first Refused."""
        failures: list[Refused] = []
        known = []
        for address in addresses:
            if self._take(address) or self._is_withdrawn(address):
                known.append(address)
            else:
                failures.append(Refused(NOT_REGISTERED, f"{address:#x} is not where something registered begins"))
        failures += self._finish(known)
        if failures:
            raise failures[0]

    def _reserve(self, address: int, length: int) -> None:
        if not length:
            raise Refused(INVALID, _invalid(f"the range at {address:#x} has no bytes"))
        while True:
            with self._lock:
                other = self._overlapping(address, length)
                if other is None:
                    self._ranges[address] = (length, None)
                    bisect.insort(self._starts, address)
                    return
                other_length, region = self._ranges.get(other, (0, None))
                if not other_length:  # the garbage collector was here
                    continue
            if region is None or not self._is_freed(region):
                raise Refused(OVERLAPPED, f"[{address:#x}, +{length}) overlaps [{other:#x}, +{other_length}), which is"
                              " registered")  # fmt: skip
            self._take(other, only=region)  # unless another thread did
            self._finish([other])

    def _overlapping(self, address: int, length: int) -> int | None:
        place = bisect.bisect_left(self._starts, address + length)
        if not place:
            return None
        start = self._starts[place - 1]
        length, _ = self._ranges.get(start, (0, None))
        return start if start + length > address else None

    def _is_freed(self, region: Region) -> bool:
        """Whether the memory was freed without unregister_memory: something else may be there by now."""
        self._engine.check()
        try:
            self._engine.digest((region.address, 1))
        except (OutOfRange, Stale):
            return True
        except NvlxError:
            return False
        return False

    def _take(self, address: int, reserved: bool = False, only: Region | None = None) -> bool:
        """From now on there is room for another one. False: there is none, or only another thread's `reserved` one, or
        not that region."""
        with self._lock:
            length, region = self._ranges.get(address, (0, None))
            if not length or (region is None and not reserved) or only not in (None, region):
                return False
            if self._ranges.pop(address, None) is None:  # the garbage collector was here
                return False
            self._starts.remove(address)
            if region is not None:
                self._withdrawn.setdefault(address, []).append(region)
            return True

    def _is_withdrawn(self, address: int) -> bool:
        with self._lock:
            return address in self._withdrawn

    def _finish(self, addresses: Sequence[int]) -> list[Refused]:
        """Withdraws regions at once, then waits for who uses them, all together no longer than it has patience."""
        deadline = time.monotonic() + self._patience
        with self._lock:
            regions = [(address, region) for address in addresses for region in self._withdrawn.get(address, ())]
        failures = []
        for wait in (False, True):
            left = []
            for address, region in regions:
                try:
                    region.close(max(0.0, deadline - time.monotonic()) if wait else 0.0)
                except Timeout as failure:
                    left.append((address, region))
                    if wait:
                        failures.append(Refused(INVALID, f"what was registered at {address:#x} is withdrawn, but still"
                                                f" in use: unregister it again ({failure})"))  # fmt: skip
                    continue
                self._forget(address, region)
            regions = left
        return failures

    def _forget(self, address: int, region: Region) -> None:
        with self._lock:
            there = self._withdrawn.get(address, [])
            if region in there:
                there.remove(region)
            if not there:
                self._withdrawn.pop(address, None)
