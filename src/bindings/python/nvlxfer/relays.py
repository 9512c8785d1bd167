# SPDX-License-Identifier: Apache-2.0
"""Relays: the same bytes from one process to many, each of which passes them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._c.arguments import _in_slices, _seconds, _slices, _text
from ._c.calls import _interruptibly, _Owned, _run, _told
from ._c.native import _RelayInfo, _RelayPart
from ._c.values import RelayInfo
from .errors import _check, _naming
from .tensors.arrays import Memory, _locate

if TYPE_CHECKING:
    from .engine import Engine


def _parts(memories: Mapping[str, Memory]) -> tuple[Any, list[Any]]:
    """An array of C's, and what keeps it and the memory alive."""
    _check("tensors", memories, Mapping, "a dict of tensors, or pairs (address, length), by name")
    located = []
    for name, memory in memories.items():
        encoded = _text("a tensor's name", name)
        with _naming(f"tensor {name!r}"):
            located.append((encoded, *_locate(memory)))
    parts = (_RelayPart * len(located))(*(_RelayPart(name, address, length) for name, address, length, _ in located))
    return parts, [(name, kept) for name, _, _, kept in located]


class Relay(_Owned):
    """One end of a relay: its source, or a reader. It keeps its tensors until it is closed."""

    _instead = "Call Engine.offer in one process, and Engine.join in each of the others"

    def __init__(self, engine: Engine, handle: int, address: str, kept: list[Any]) -> None:
        super().__init__(engine, handle)
        self._address, self._kept = address, kept
        engine._core.relays.add(handle)

    def _words(self) -> str:
        return f"at {self._address!r}"

    def wait(self, timeout: float | None = None) -> None:
        """A reader: until all bytes of a generation are in place, and right. They stay so, and must not be changed,
        until `next`. The source: until as many readers as `offer` was told have them, or all that have joined; those
        that were lost are not waited for. Timeout says what is missing. WrongDigest, Stale: a reader's bytes are wrong,
        or the source is gone."""
        slices = _slices(_seconds(timeout), 0.1, 0.1)
        _interruptibly(lambda stop: _in_slices(slices, stop, lambda ns: _run("nvlx_relay_wait", self, ns)))

    def hold(self) -> None:
        """Of the source: its bytes are to be changed, so nobody begins to read them. Busy: a reader is at them."""
        _run("nvlx_relay_hold", self)

    def next(self) -> None:
        """The source: new bytes are in place. A reader: its bytes may be overwritten by them. Busy: not done."""
        _run("nvlx_relay_next", self)

    def info(self) -> RelayInfo:
        """What is known of it now."""
        told = dict(zip(RelayInfo._fields, _told(_RelayInfo, "nvlx_relay_get_info", self, RelayInfo._fields)))
        return RelayInfo(**{**told, "source": told["source"] != 0, "parent": told["parent"].decode()})

    def close(self, timeout: float | None = None) -> None:
        """Ends it, then waits until nobody reads its tensors. After `timeout` seconds, or Ctrl-C, it raises: Timeout
        says who does. Then only close it again."""
        seconds = _seconds(timeout)
        if not self._closable():
            return
        slices = _slices(seconds, 0.1, 0.1)
        _interruptibly(lambda stop: _in_slices(slices, stop, self._end))

    def _end(self, nanoseconds: int) -> None:
        handle = self._handle
        if handle is not None:  # before: another relay may come to the address of one that is freed
            self._core.relays.discard(handle)
        try:
            self._free("nvlx_relay_free", nanoseconds, within=nanoseconds / 1e9)
        finally:
            if handle is not None and self._handle == handle:
                self._core.relays.add(handle)

    def _drop(self) -> None:
        self._handle = None
        self._kept = []


def _close_all(engine: Engine) -> None:
    """Before the engine goes, and with it memory that they read."""
    for relay in [owned for owned in list(engine._owned) if isinstance(owned, Relay)]:
        relay.close(10.0)
