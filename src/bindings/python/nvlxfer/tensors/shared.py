# SPDX-License-Identifier: Apache-2.0
"""What this package registers of tensors that are not its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .._c.values import Access
from ..errors import Busy
from ..peers import Region
from .arrays import Layout

if TYPE_CHECKING:
    from ..engine import Engine


class _Shared:
    """Of one engine: each range once, however many use it. C refuses to unregister bytes that a prepared list uses,
    also where another region has them: then it is tried again when a list is closed."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # never held across a call of C; the garbage collector may close lists within
        self._used: dict[tuple[int, int], tuple[Region, set[object]]] = {}  # by address and length; with its users
        self._left: set[Region] = set()  # nobody's any more
        self._settled = 0  # how often

    def take(self, engine: Engine, layout: Layout, user: object) -> Region:
        """A region of it that peers may not use, until the user gives it back."""
        found = self._join(layout, user)
        if found is None:
            made = engine.register((layout.address, layout.length), access=Access.NONE)
            made._memory = layout.kept
            found = self._join(layout, user, made) or made
            if found is not made:  # another thread was here
                self._close(made)
        return found

    def _join(self, layout: Layout, user: object, made: Region | None = None) -> Region | None:
        key = layout.address, layout.length
        with self._lock:
            while True:
                entry = self._used.get(key)
                if entry is None or entry[0].closed:
                    if made is None:
                        return None
                    entry = self._used[key] = made, set()
                entry[1].add(user)
                if self._used.get(key) is entry:  # or the garbage collector has ended its last user before
                    return entry[0]

    def give(self, region: Region, user: object) -> None:
        """The user is done with it. Once more does no harm."""
        key = region.address, region.length
        with self._lock:
            entry = self._used.get(key)
            if entry is not None and entry[0] is region:
                entry[1].discard(user)
                if entry[1]:
                    return
                self._used.pop(key, None)  # the garbage collector may have been here
        self._close(region)

    def _close(self, region: Region) -> None:
        """Or leaves it. While one thread tries, the region seems closed to others, which call `settle` meanwhile."""
        while True:
            with self._lock:
                settled = self._settled
            try:
                region.close()
            except Busy:
                with self._lock:
                    self._left.add(region)
                    if settled == self._settled:
                        return
            else:
                with self._lock:
                    if region.closed:
                        self._left.discard(region)
                return

    def settle(self) -> None:
        """A prepared list was closed."""
        with self._lock:
            self._settled += 1
            left = list(self._left)
        for region in left:
            self._close(region)
