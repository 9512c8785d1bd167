# SPDX-License-Identifier: Apache-2.0
"""Regions of this process, and other processes with theirs."""

from __future__ import annotations

import array
import ctypes
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._c.arguments import Buffer, _in_slices, _integer, _message, _seconds, _slices, _text
from ._c.calls import _interruptibly, _Owned, _run
from ._c.native import _I, _P, _SIZE, _U64, _last_error, _library, _PeerInfo, _RegionInfo
from ._c.values import Access, Kind, PeerInfo, RegionInfo
from .errors import _EDEVICE, _ENOENT, _ETIMEDOUT, Timeout, _listed
from .transfers import _stream

if TYPE_CHECKING:
    from .engine import Engine


class Region(_Owned):
    """A registered byte range, `address` and `length` in bytes; it keeps its tensor alive until it is closed, or
    resumed elsewhere."""

    _instead = "Send the text of Engine.export(), or the address it serves at: Peer.find tells address and length"

    def __init__(
        self, engine: Engine, handle: int, address: int, length: int, memory: Any, name: str | None = None
    ) -> None:
        super().__init__(engine, handle)
        self.name = name
        self.address, self.length, self._memory = address, length, memory

    def _words(self) -> str:
        named = "no name" if self.name is None else repr(self.name)
        return f"{named}, {self.length} bytes at {self.address:#x}"

    def ready(self, stream: Any) -> None:
        """The count that `Engine.register` was given grows by 1 when the CUDA stream has come so far."""
        _run("nvlx_region_ready", self, _stream(stream))

    def set_digest(self) -> int:
        """Digests the region, as `Engine.digest` does, and tells peers, until its bytes change: then call it again."""
        value = _U64()
        _interruptibly(lambda stop: _run("nvlx_region_set_digest", self, ctypes.byref(value)))
        return value.value

    def close(self, timeout: float | None = None) -> None:
        """Unregisters: withdraws it at once, then waits until no own transfer and no process that follows uses it.
        After `timeout` seconds, or Ctrl-C, it raises: Timeout says who does. It stays withdrawn; close it again. Busy,
        at once: a prepared list of this engine names it, and it stays."""
        seconds = _seconds(timeout)
        if not self._closable():
            return
        try:
            self._free("nvlx_unregister", 0, within=0)
        except Timeout:
            if seconds == 0:
                raise
            slices = _slices(seconds, 0.1, 0.1)
            _interruptibly(lambda stop: _in_slices(slices, stop, self._unregister))

    def _unregister(self, nanoseconds: int) -> None:
        self._free("nvlx_unregister", nanoseconds, within=nanoseconds / 1e9)

    def _drop(self) -> None:
        self._handle = self._memory = None


def _handles(regions: Sequence[Region]) -> Any:
    return (_P * len(regions))(*(region._live() for region in regions))


class Peer(_Owned):
    """Another process, as known from its descriptor.

    When it withdraws memory and lives, `test` raises nothing: `find` raises NotFound, `Engine.transfer` OutOfRange, or
    Stale if other memory is there and `generation` was given, and `Prepared.post` Stale. When it is gone, `test` and
    transfers raise Stale: close it, and connect again. `Pull` raises Stale in both cases."""

    _instead = "Send the text of its descriptor or the address it serves at, and open a Peer there"

    def __init__(self, engine: Engine, handle: int, origin: str) -> None:
        super().__init__(engine, handle)
        self._key, self._origin = handle, origin
        engine._peers[handle] = self

    def _drop(self) -> None:
        if self._engine._peers.get(self._key) is self:
            self._engine._peers.pop(self._key, None)  # another thread may have closed the engine meanwhile
        super()._drop()

    def _words(self) -> str:
        return self._origin

    def find(self, name: str) -> tuple[int, int]:
        """Address and length, in bytes, of the peer's region of this name. NotFound: there is none."""
        address, length = _U64(), _U64()
        _run("nvlx_peer_find", self, _text("name", name), ctypes.byref(address), ctypes.byref(length))
        return address.value, length.value

    def find_all(self, names: Iterable[str]) -> tuple[array.array[int], array.array[int], int]:
        """Addresses and lengths in bytes of many regions, as arrays of "Q" that `read`, `write` and NumPy take, and the
        peer's generation that all of them are of: for `generation` of transfers. NotFound: there is none of a name."""
        encoded = [_text(f"names[{i}]", name) for i, name in enumerate(_listed("names", names, "a sequence of str"))]
        function = "nvlx_peer_region_by_name"
        while True:
            found = [self._region(function, name)[1] for name in encoded]
            generation = self.generation()
            if {info.peer_generation for info in found} <= {generation}:
                addresses = array.array("Q", [info.address for info in found])
                return addresses, array.array("Q", [info.length for info in found]), generation

    def region(self, name: str) -> RegionInfo:
        """What is known of the peer's region of this name. NotFound: there is none."""
        return self._region("nvlx_peer_region_by_name", _text("name", name))[1]

    def regions(self) -> list[RegionInfo]:
        """All regions of the peer, in any order, of one state of it, whatever it changes meanwhile."""
        while True:
            found: list[RegionInfo] = []
            place, code = _SIZE(), 0
            while code == 0:
                code, info = self._region("nvlx_peer_region", ctypes.byref(place), passed=(_ENOENT,))
                found += [info] if code == 0 else []
            if {info.peer_generation for info in found} <= {self.generation()}:
                return found

    def _region(self, function: str, which: Any, passed: Container[int] = ()) -> tuple[int, RegionInfo]:
        made = _RegionInfo(ctypes.sizeof(_RegionInfo))
        code = _run(function, self, which, ctypes.byref(made), passed=passed)
        return code, RegionInfo(made.name.decode(), made.address, made.length, Access(made.access), made.generation,
                                made.peer_generation, made.digest if made.has_digest else None,
                                made.suspended != 0, Kind(made.kind), made.gpu.decode())  # fmt: skip

    def info(self) -> PeerInfo:
        """Who the peer is, and what is known of it."""
        made = _PeerInfo(ctypes.sizeof(_PeerInfo))
        _run("nvlx_peer_get_info", self, ctypes.byref(made))
        return PeerInfo(made.generation, made.regions, made.segments, made.pid, made.pid_namespace,
                        made.same_process != 0, made.followed != 0, made.engine.decode(), made.backend.decode(),
                        made.address.decode())  # fmt: skip

    def generation(self) -> int:
        """The peer's generation that is known. It grows with every change of what the peer has registered."""
        generation = _U64()
        _run("nvlx_peer_generation", self, ctypes.byref(generation))
        return generation.value

    def map(self, gpu: int, address: int, length: int) -> None:
        """Maps the peer's memory there on an own GPU ahead of the first transfer."""
        where = _integer("gpu", gpu, _I), _integer("address", address), _integer("length", length)
        _interruptibly(lambda stop: _run("nvlx_peer_map", self, *where))

    def wake(self) -> None:
        """Wakes NVLink to the peer's GPUs, 0.2 ms or more before a transfer: it sleeps after 50 ms without use. Map the
        peer's memory first. Lists of 4,096 ops and more, of Engine.transfer, do it themselves. Stale."""
        _run("nvlx_peer_wake", self)

    def update(self, text: str) -> None:
        """Replaces what is known of the peer by a newer text of its Engine.export()."""
        encoded = _text("text", text, nul=True)
        _run("nvlx_peer_update", self, encoded, len(encoded))

    def sync(self, generation: int, timeout: float | None = None) -> None:
        """Until what is known of the peer is as new as what its `Engine.publish` returned. Timeout, Stale."""
        wanted, slices = _integer("generation", generation), _slices(_seconds(timeout), 0.1, 0.1)
        _interruptibly(lambda stop: _in_slices(slices, stop, lambda ns: _run("nvlx_peer_sync", self, wanted, ns)))

    def stats_prometheus(self, timeout: float | None = 10.0) -> str:
        """The text of the peer's own `Engine.stats_prometheus`, if it serves with `stats`; else AccessDenied."""
        slices = _slices(_seconds(timeout), 0.1, 0.1)

        def ask(nanoseconds: int) -> str:
            text, length = ctypes.c_void_p(), ctypes.c_size_t()
            _run("nvlx_peer_stats", self, nanoseconds, ctypes.byref(text), ctypes.byref(length))
            try:
                return ctypes.string_at(text, length.value).decode()
            finally:
                _library().nvlx_text_free(text)

        return _interruptibly(lambda stop: _in_slices(slices, stop, ask))

    def test(self) -> None:
        """Raises what is wrong with a peer from `Engine.connect`: Stale, if it is gone. One that has withdrawn memory,
        or is stopped, is not gone."""
        _run("nvlx_peer_test", self)

    def send(self, message: Buffer) -> None:
        """Sends up to 64 KiB, which come as an event in the engine that serves there, in the order of the calls. Busy:
        too much was not taken yet. Stale: the peer is gone."""
        kept, length = _message(message)
        _run("nvlx_send", self, kept, length)

    def close(self) -> None:
        """Waits for transfers with the peer, and up to a second until it has taken all messages: Timeout, if it has
        not, and it is closed all the same, as where CUDA fails to close a mapping. Busy: a prepared list names it in an
        op that moves bytes."""
        if self._closable():
            _interruptibly(lambda stop: self._close())

    def _close(self) -> None:
        code = self._free("nvlx_peer_close", passed=(_ETIMEDOUT, _EDEVICE))
        if code:
            raise _last_error(code)
