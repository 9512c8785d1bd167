# SPDX-License-Identifier: Apache-2.0
"""The engine: memory, regions, peers and transfers of a process."""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ._c.arguments import (
    Buffer,
    _filled,
    _host,
    _in_slices,
    _integer,
    _integers,
    _seconds,
    _slices,
    _text,
)  # fmt: skip
from ._c.calls import (
    _check_thread,
    _Core,
    _in_main_thread,
    _interruptibly,
    _make,
    _Object,
    _Owned,
    _program,
    _run,
    _told,
    _wait_for_calls,
)  # fmt: skip
from ._c.end import _collected
from ._c.native import (
    _ADD,
    _COUNTS,
    _I,
    _NO_MAP,
    _P,
    _SIZE,
    _U32,
    _U64,
    _VERIFY,
    _AllocOptions,
    _BlocksOptions,
    _Config,
    _Counts,
    _EngineInfo,
    _library,
    _plain,
    _RegionOptions,
    _RelayOptions,
    _ServeOptions,
    _WaitOptions,
)  # fmt: skip
from ._c.values import Access, Alloc, Backend, EngineInfo, Mechanism
from .blocks import BlockRegion, Blocks, _block_regions
from .errors import (
    _ANY,
    _EAGAIN,
    _EBUSY,
    _EINVAL,
    Busy,
    NotSupported,
    _check,
    _error,
    _invalid,
    _listed,
)
from .events import Event, _Hub
from .lists import Ops, _joined
from .memory import Array, _dims, _dtype_name, _nbytes
from .peers import Peer, Region, _handles
from .relays import Relay, _close_all, _parts
from .tensors.arrays import Memory, _locate
from .tensors.shared import _Shared
from .transfers import _DEFAULT, _FLAGS, _NOT_YET, Prepared, Request, _modules, _noted, _options, _stream, _with_message


def version() -> str:
    """The version of the library that is running."""
    return str(_library().nvlx_version().decode())


def build_info() -> dict[str, str]:
    """How that library was built, and its limits: "cuda", "protocol", "max_requests" and others."""
    return dict(word.split("=", 1) for word in _library().nvlx_build_info().decode().split())


def gpu_count(backend: Backend = Backend.AUTO) -> int:
    """The number of GPUs that a backend sees in this process; makes no context."""
    count = ctypes.c_int()
    _run("nvlx_gpu_count", _integer("backend", backend, _U32), ctypes.byref(count))
    return count.value


class Engine(_Object):
    """This process's instance of the library. It keeps what came from it; close it, or let it go with all of that."""

    _instead = "Make one in each process, and send the text of export(), or the address it serves at"

    def __init__(
        self, backend: Backend = Backend.AUTO, *, gpus: Sequence[int] | None = None, max_requests: int = 0,
        mechanism: int = 0, max_sms: int = 0, list_memory: int = 0,
    ) -> None:  # fmt: skip
        """The arguments are the fields of struct nvlx_config."""
        config = _filled(_Config, backend=backend, max_requests=max_requests, mechanism=mechanism, max_sms=max_sms,
                         list_memory=list_memory)  # fmt: skip
        if gpus is not None:
            numbers = _integers("gpus", gpus, _I)
            config.gpus, config.gpu_count = numbers, len(numbers)
        _check_thread()
        if _program.ender is not None:
            raise _error(_EBUSY, "the program is ending: there is no new Engine")
        self._lock, self._closing = threading.RLock(), False
        self._first_gpu: int = config.gpus[0] if config.gpu_count else 0
        self._owned: set[_Owned] = set()
        self._peers: dict[int, Peer] = {}
        self._serves = False
        self._shared = _Shared()
        handle = _make(lambda made: _run("nvlx_engine_destroy", made), "nvlx_engine_create", ctypes.byref(config))
        self._core = _Core(handle)
        self._handle, self._pointer = handle, ctypes.c_void_p(handle)
        self._hub = _Hub(self)
        self._backend = str(_library().nvlx_backend_name(handle).decode())
        self._core.watch = weakref.ref(self, functools.partial(_collected, self._core))

    @property
    def _home(self) -> Engine:
        return self

    def _words(self) -> str:
        return f"{self._backend}, {len(self._owned)} regions, peers and prepared lists"

    @property
    def backend(self) -> str:
        """The backend that it runs on: "cuda" or "host"."""
        self._live()
        return self._backend

    def info(self) -> EngineInfo:
        """Counts of what it holds."""
        return EngineInfo._make(_told(_EngineInfo, "nvlx_engine_get_info", self, EngineInfo._fields))

    def stats(self, peer: Peer | None = None) -> dict[str, int]:
        """Counts since it was made, by the names of struct nvlx_counts; with a peer those that concern this peer."""
        _check("peer", peer, (Peer, type(None)), "a Peer, or None for all")
        counts = _Counts(ctypes.sizeof(_Counts))
        _run("nvlx_stats", self, peer, ctypes.byref(counts))
        return {name: getattr(counts, name) for name in _COUNTS}

    def stats_prometheus(self) -> str:
        """All counts, and histograms of times, in Prometheus' text format."""
        room, length = ctypes.c_size_t(), ctypes.c_size_t()
        while True:
            _run("nvlx_stats_prometheus", self, None, 0, ctypes.byref(room))
            text = ctypes.create_string_buffer(room.value)
            where = text, room.value, ctypes.byref(length)
            if not _run("nvlx_stats_prometheus", self, *where, passed=(_EINVAL,)):  # else a peer came meanwhile
                return text.raw[: length.value].decode()

    def alloc(self, gpu: int, length: int, kind: Alloc = Alloc.CUDA_MALLOC, chunk_length: int = 0) -> int:
        """The address of `length` bytes of new device memory, which lives until `free` or the engine's end. It makes
        the GPU's context where this process has none: hundreds of MiB, until the engine's end."""
        options = _filled(_AllocOptions, chunk_length=chunk_length)
        options.flags = _integer("kind", kind, _U32)
        where = _integer("gpu", gpu, _I), _integer("length", length, _SIZE)
        return _make(self.free, "nvlx_alloc", self, *where, ctypes.byref(options))

    def empty(
        self, shape: int | Sequence[int], dtype: Any = "uint8", gpu: int | None = None, kind: Alloc = Alloc.CUDA_MALLOC
    ) -> Array:
        """A new Array: memory of the engine that others take without a copy. Its content is not set. `dtype` is a name,
        or a type of torch, JAX or NumPy. `gpu`: else it is the engine's first. `kind` HOST is host memory near to that
        GPU, which peers read and write too. It is not registered yet. Errors are those of `alloc`."""
        dims, name = _dims(shape), _dtype_name(dtype)
        where = self._first_gpu if gpu is None else _integer("gpu", gpu, _I)
        address = self.alloc(where, max(1, _nbytes(dims, name)), kind)
        return Array(self, address, dims, name, where, on_host=kind == Alloc.HOST)

    def free(self, address: int) -> None:
        """Frees what `alloc` gave. Busy: a transfer in flight or a prepared list uses it."""
        _run("nvlx_free", self, _integer("address", address))

    def memcpy(self, destination: int | Buffer, source: int | Buffer, length: int | None = None) -> None:
        """Copies between addresses and buffers and waits for it; without `length` as much as the smaller buffer has."""
        (to, to_room), (origin, from_room) = _host("destination", destination, True), _host("source", source, False)
        room = min((size for size in (to_room, from_room) if size is not None), default=None)
        if length is None and room is None:
            raise _invalid("a copy between two addresses needs a length")
        count = room if length is None else _integer("length", length, _SIZE)
        if room is not None and count is not None and count > room:
            raise _invalid(f"a copy of {count} bytes, with buffers of {room}")
        _run("nvlx_memcpy", self, to, origin, count)

    def register(
        self, memory: Memory, name: str | None = None, access: Access = Access.READ_WRITE, ready: int = 0
    ) -> Region:
        """Registers a contiguous tensor, or (address, length). Its content must be complete before a peer reads it, or
        until the peer's `wait_ready` ends. `ready` is the address of the count that Region.ready changes."""
        address, length, kept = _locate(memory)
        options = _filled(_RegionOptions, access=access)
        options.ready = _integer("ready", ready)
        options.name = None if name is None else _text("name", name)
        try:
            handle = _make(self._unregister, "nvlx_register", self, address, length, ctypes.byref(options))
        except NotSupported as failure:
            if "nvlx_alloc" not in failure._text:
                raise
            text = f"{failure._text}. In Python: Engine.empty makes memory, and fill of its Array copies into it"
            raise _error(failure.code, text) from None
        return Region(self, handle, address, length, kept, name)

    def _unregister(self, handle: int) -> None:
        _run("nvlx_unregister", handle, 0, also=(self,))

    def digest(self, memory: Memory) -> int:
        """The digest of a contiguous tensor, or (address, length), all of it registered. nvlxfer.h defines it."""
        address, length, kept = _locate(memory)
        value = _U64()
        _interruptibly(lambda stop: (_run("nvlx_digest", self, address, length, ctypes.byref(value)), kept))
        return value.value

    def export(self) -> str:
        """The descriptor, which lets its readers open this process's memory: a secret."""
        text, length = ctypes.c_void_p(), ctypes.c_size_t()
        _run("nvlx_export", self, ctypes.byref(text), ctypes.byref(length))
        try:
            return ctypes.string_at(text, length.value).decode()
        finally:
            _library().nvlx_text_free(text)

    def hold(self) -> None:
        """From now on peers are told nothing of what is registered and closed here. `publish` tells all at once."""
        _run("nvlx_hold", self)

    def publish(self) -> int:
        """Tells peers what was held back. The generation that it returns is for `Peer.sync`."""
        generation = _U64()
        _run("nvlx_publish", self, ctypes.byref(generation))
        return generation.value

    def check(self) -> None:
        """Withdraws the regions of memory that was freed before they were closed."""
        _run("nvlx_check", self)

    def suspend(self, regions: Iterable[Region], timeout: float | None = None) -> None:
        """Withdraws the bytes of these regions at once, and keeps their names. Then waits until nobody uses them: their
        memory may go. After `timeout` seconds, or Ctrl-C, it raises: Timeout says who does. They stay withdrawn."""
        listed = self._list_regions(regions)
        slices = _slices(_seconds(timeout), 0.1, 0.1)

        def suspend(nanoseconds: int) -> int:
            return _run("nvlx_suspend", _handles(listed), len(listed), nanoseconds, also=(self, *listed))

        _interruptibly(lambda stop: _in_slices(slices, stop, suspend))

    def resume(self, regions: Iterable[Region], addresses: Iterable[int | None] | None = None) -> None:
        """Tells peers these regions again, with the memory that is there now: where they were, or at `addresses`."""
        listed = self._list_regions(regions)
        moved = [None] * len(listed) if addresses is None else _listed("addresses", addresses, "a sequence of integers")
        if len(moved) != len(listed):
            raise _invalid(f"{len(listed)} regions have {len(moved)} addresses")
        where = [0 if address is None else _integer(f"addresses[{i}]", address) for i, address in enumerate(moved)]
        _run("nvlx_resume", _handles(listed), len(listed), (_P * len(where))(*where), also=(self, *listed))
        for region, address in zip(listed, where):
            if address and address != region.address:
                region.address, region._memory = address, None

    def _list_regions(self, regions: Iterable[Region]) -> list[Region]:
        listed = _listed("regions", regions, "a sequence of what Engine.register returned")
        for index, region in enumerate(listed):
            _check(f"regions[{index}]", region, Region, "what Engine.register returned")
        return listed

    def peer_open(self, text: str) -> Peer:
        """A peer, from the text of its Engine.export()."""
        encoded = _text("text", text, nul=True)
        return Peer(self, _make(self._leave, "nvlx_peer_open", self, encoded, len(encoded)), "from a text")

    def _leave(self, handle: int) -> None:
        _run("nvlx_peer_close", handle, also=(self,))

    def serve(
        self, address: str, users: Sequence[int] = (), groups: Sequence[int] = (), *, mode: int = 0,
        max_connections: int = 0, stats: bool = False,
    ) -> None:  # fmt: skip
        """Lets peers connect at a path or an "@abstract" address, beside the own user those of `users` and `groups`.
        `stats`: they may read all counts, by `Peer.stats_prometheus`."""
        options = _filled(_ServeOptions, mode=mode, max_connections=max_connections, stats=int(bool(stats)))
        user_ids, group_ids = _integers("users", users, _U32), _integers("groups", groups, _U32)
        options.users, options.user_count = user_ids, len(user_ids)
        options.groups, options.group_count = group_ids, len(group_ids)
        _run("nvlx_serve", self, _text("address", address), ctypes.byref(options))
        self._serves = True

    def connect(self, address: str, timeout: float | None = 10.0) -> Peer:
        """A peer that serves at the address, or will within `timeout` seconds. It follows what the peer registers."""
        encoded = _text("address", address)
        slices = _slices(_seconds(timeout), 0.05, 12.8)  # longer and longer: a busy server may need that

        def connect(nanoseconds: int) -> Peer:
            return Peer(self, _make(self._leave, "nvlx_connect", self, encoded, nanoseconds), f"at {address!r}")

        return _interruptibly(lambda stop: _in_slices(slices, stop, connect), Peer.close)

    def offer(
        self, address: str, tensors: Mapping[str, Memory], *, piece_bytes: int = 0, patience: float = 0.0,
        readers: int = 0,
    ) -> Relay:  # fmt: skip
        """Offers tensors, or pairs (address, length), by name, to all that `join` at this address. They need not be
        registered. `piece_bytes`: what is passed on at a time, at least 65,536; 0: 1 to 128 MiB, the longer the more
        bytes there are. `patience`: seconds after which nobody waits for a reader that says nothing, at least 0.01; 0:
        half a second. `readers`: how many `Relay.wait` waits for, of each generation; 0: all that have joined."""
        return self._relay("nvlx_relay_offer", address, tensors, piece_bytes, patience, readers)

    def join(self, address: str, tensors: Mapping[str, Memory], timeout: float | None = 10.0) -> Relay:
        """Brings what the source at this address offers into tensors of the same names and lengths, and passes it on.
        It waits up to `timeout` seconds for the source."""
        slices = _slices(_seconds(timeout), 5.0, 20.0)  # each try makes an engine
        return self._relay("nvlx_relay_join", address, tensors, 0, 0.0, 0, slices)

    def _relay(
        self, function: str, address: str, tensors: Mapping[str, Memory], piece_bytes: int, patience: float,
        readers: int, slices: Iterator[int] | None = None,
    ) -> Relay:  # fmt: skip
        parts, kept = _parts(tensors)
        options = _filled(_RelayOptions, piece_bytes=piece_bytes, readers=readers)
        options.patience_ns = int(min(_seconds(patience), 1e9) * 1e9)
        where = _text("address", address), parts, len(parts), ctypes.byref(options)

        def make(*limit: int) -> Relay:
            return Relay(self, _make(self._unrelay, function, self, *where, *limit), address, kept)

        return _interruptibly(lambda stop: make() if slices is None else _in_slices(slices, stop, make), Relay.close)

    def _unrelay(self, handle: int) -> None:
        _run("nvlx_relay_free", handle, int(1e9), also=(self,))

    def fileno(self) -> int:
        """Readable as long as there is an event: for select, poll and selectors, which take the Engine itself."""
        self._live()
        return self._hub.fd()

    def next_event(self) -> Event | None:
        """The oldest event, or None. It never waits."""
        self._live()
        return self._hub.next()

    def events(self) -> AsyncGenerator[Event, None]:
        """What happens to peers, and messages that come, until the engine is closed: for `async for`."""
        return self._hub.events()

    def transfer(
        self, ops: Ops | Iterable[Ops], stream: Any = None, no_map: bool = False, *, mechanism: int = 0,
        max_sms: int = 0, priority: int = 0, generation: int = 0, verify: bool = False, message: Buffer | None = None,
    ) -> Request:  # fmt: skip
        """Starts copies: all, or none if it raises. Without `stream`, one of CUDA's (PyTorch's, CuPy's, or its number),
        the sources' content must be complete. With the `generation` at which the peer's addresses were learned, bytes
        that came later are Stale, as is a peer that is gone. OutOfRange: a "local range" is not registered here,
        or "the peer's range" is not there any more: find the name again. `verify` compares what has arrived with the
        digests that the peer told of its regions: awaiting the request raises WrongDigest. The message goes to the one
        peer of all ops when they are complete. The rest is as in struct nvlx_transfer_options."""
        if self._core.dropped:
            self._sweep()
        if not isinstance(ops, Ops):
            ops = _joined(ops)
        careful = not no_map and _in_main_thread()  # there, mapping is left to another thread, as Ctrl-C shall end it
        noted = _noted() if "asyncio.events" in _modules else 0
        flags = noted | (_NO_MAP if careful or no_map else 0) | (_VERIFY if verify else 0)
        options = kept = None
        if not (stream is message is None and mechanism is max_sms is priority is generation is _DEFAULT):
            options = _options(stream, flags, mechanism=mechanism, max_sms=max_sms, priority=priority,
                               generation=generation)  # fmt: skip
            kept = _with_message(options, message)
        engine, users, (table, count) = ops._given or ops._for(self)
        if engine is not self:
            _, users, (table, count) = ops._for(self)
        given = self._pointer, table, count, _FLAGS[flags] if options is None else ctypes.byref(options)
        request = Request(self, noted, _plain.transfer, users, given, _NOT_YET if careful else ())
        if request._handle is None:
            request = self._mapped(noted, ops, options or _options(None, flags))
        del kept
        return request

    def _mapped(self, noted: int, ops: Ops, options: Any) -> Request:
        """For `transfer`, where not all is mapped, and these options forbid to map: first it is, if there is room."""
        _, users, listed = ops._for(self)
        given = self._pointer, *listed, ctypes.byref(options)
        while _interruptibly(lambda stop: self._map(ops)):
            request = Request(self, noted, _plain.transfer, users, given, _NOT_YET)
            if request._handle is not None:
                return request
        options.flags &= ~_NO_MAP
        return Request(self, noted, _plain.transfer, users, given)

    def stream_signal(self, stream: Any, peer: Peer, address: int, value: int, add: bool = False) -> None:
        """Behind what is in a CUDA stream, the peer's count becomes `value`, or grows by it."""
        _check("peer", peer, Peer, "a Peer")
        what = _stream(stream), peer, _integer("address", address), _integer("value", value)
        _run("nvlx_stream_signal", self, *what, _ADD if add else 0)

    def stream_wait(
        self, stream: Any, peer: Peer, address: int, value: int, mark: int | None = None, *, reached: int | None = None
    ) -> int:
        """Lets a CUDA stream wait until this process's count at `address` has reached `value`, which the peer shall
        signal, or until nobody signals any more. Returns a number for `wait_test`. A wait that fails sets the 64 bits
        at `mark`, registered memory of the same GPU, to the code before the stream goes on. Of a stream that captures a
        graph, each replay waits; with `reached`, such memory too, for `value` more than before."""
        _check("peer", peer, Peer, "a Peer")
        number = _U64()
        options = _WaitOptions(ctypes.sizeof(_WaitOptions), None if mark is None else _integer("mark", mark),
                               None if reached is None else _integer("reached", reached))  # fmt: skip
        where = _integer("address", address), _integer("value", value)
        _run("nvlx_stream_wait", self, _stream(stream), peer, *where, ctypes.byref(options), ctypes.byref(number))
        return number.value

    def wait_test(self, number: int) -> bool:
        """Whether the stream of a `stream_wait` has gone on; raises why the wait failed: Stale, Suspended."""
        return _run("nvlx_stream_wait_status", self, _integer("number", number), passed=(_EAGAIN,)) == 0

    def signal_read(self, address: int) -> int:
        """This process's count of 64 bits at `address`, of registered memory."""
        value = _U64()
        _run("nvlx_signal_read", self, _integer("address", address), ctypes.byref(value))
        return value.value

    def signal_wait(self, address: int, value: int, peer: Peer | None = None, timeout: float | None = None) -> None:
        """Until this process's count has reached `value`. Timeout. Stale: the peer, who shall signal, is gone."""
        _check("peer", peer, (Peer, type(None)), "a Peer, or None")
        where, slices = (_integer("address", address), _integer("value", value)), _slices(_seconds(timeout), 0.1, 0.1)
        _interruptibly(
            lambda stop: _in_slices(slices, stop, lambda ns: _run("nvlx_signal_wait", self, peer, *where, ns))
        )

    def _map(self, ops: Ops) -> bool:
        """Maps what a list needs, but starts nothing. False: there is no room for such a list."""
        try:
            self._unprepare(self._prepare(ops, _options(None, 0, mechanism=Mechanism.COPY_ENGINE)))
            return True
        except (Busy, NotSupported):  # rows that copy engines do not take
            return False

    def prepare(
        self, ops: Ops | Iterable[Ops], no_map: bool = False, *, mechanism: int = 0, max_sms: int = 0,
        priority: int = 0, generation: int = 0,
    ) -> Prepared:  # fmt: skip
        """Checks and maps copies that are to be started many times."""
        joined = _joined(ops)
        options = _options(None, _NO_MAP if no_map else 0, mechanism=mechanism, max_sms=max_sms, priority=priority,
                           generation=generation)  # fmt: skip
        return _interruptibly(lambda stop: Prepared(self, self._prepare(joined, options), len(joined)), Prepared.close)

    def _prepare(self, ops: Ops, options: Any) -> int:
        _, users, listed = ops._for(self)
        return _make(self._unprepare, "nvlx_prepare", self, *listed, ctypes.byref(options), also=users)

    def _unprepare(self, handle: int) -> None:
        _run("nvlx_prepared_free", handle, also=(self,))

    def blocks(
        self, peer: Peer, local: Sequence[BlockRegion], remote: Sequence[BlockRegion], access: int = Access.READ,
        no_map: bool = False, *, generation: int = 0,
    ) -> Blocks:  # fmt: skip
        """Checks and maps two tables of regions that consist of blocks, here and there. Region i of one is region i of
        the other. `access` tells what transfers shall do."""
        _check("peer", peer, Peer, "a Peer")
        here, there = _block_regions("local", local), _block_regions("remote", remote)
        if len(here) != len(there):
            raise _invalid(f"there are {len(here)} local and {len(there)} remote regions")
        options = _filled(_BlocksOptions, access=access, generation=generation, flags=_NO_MAP if no_map else 0)

        def create(stop: Callable[[], bool]) -> Blocks:
            return Blocks(self, _make(self._unblock, "nvlx_blocks_create", self, peer, here, there, len(here),
                                      ctypes.byref(options)))  # fmt: skip

        return _interruptibly(create, Blocks.close)

    def _unblock(self, handle: int) -> None:
        _run("nvlx_blocks_free", handle, also=(self,))

    def _sweep(self) -> None:
        """Frees dropped requests whose transfers have ended. One that an interrupt leaves behind is freed with the
        engine."""
        core = self._core
        for _ in range(len(core.dropped)):
            try:
                handle = core.dropped.popleft()
            except IndexError:  # another thread was here
                return
            try:
                ended = _run("nvlx_test", handle, also=(self,), passed=_ANY) != _EAGAIN
            except BaseException:  # an interrupt, say
                core.dropped.append(handle)
                raise
            if not ended:
                core.dropped.append(handle)
                continue
            core.requests.discard(handle)  # first, as in Request.close
            _run("nvlx_request_free", handle, also=(self,), passed=_ANY)
            self._hub.wake(handle)  # an event of what is freed does not come

    def close(self) -> None:
        """Waits for all calls and transfers in flight, then frees all that came from this engine. Timeout: for 10
        seconds others read from a relay of it, which is to be closed before. Busy: a CUDA graph has a part of it, and
        is to be destroyed first. Then the engine is still there, without its relays, and `events` has ended."""
        if self._closable():
            _interruptibly(lambda stop: self._close_with_relays())

    def _close_with_relays(self) -> None:
        _close_all(self)
        self._close()

    def _close(self) -> None:
        with self._lock:
            if not self._core.take():
                return
            try:
                _wait_for_calls(self)
            except BaseException:
                self._core.give_back()
                raise
            self._hub.stop()
            try:
                self._core.destroy()
            except Busy:  # a CUDA graph has a part of it, or others read from a relay: it is still there
                self._core.give_back()
                raise
            except BaseException:
                self._drop_owned()
                raise
            self._drop_owned()

    def _drop_owned(self) -> None:
        while self._owned:
            self._owned.pop()._drop()
