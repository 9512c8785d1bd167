# SPDX-License-Identifier: Apache-2.0
"""libnvlxfer from Python: one file over ctypes, nothing to compile, Python 3.9 or newer, no other package.

To install it, copy this file beside your program or into site-packages. It loads the library that the environment
variable NVLX_LIBRARY names, else the libnvlxfer.so.0 that the loader finds, else ../../build/libnvlxfer.so.0 beside it.

    # process A (seed)                                     # process B (target)
    from nvlxfer import Access, Engine                     from nvlxfer import Access, Engine, read
    torch.cuda.synchronize()                               torch.cuda.synchronize()
    engine = Engine()                                      engine = Engine()
    engine.register(weight, "w0", Access.READ)             engine.register(mine, access=Access.NONE)
    engine.serve("@seed")                                  peer = engine.connect("@seed")
                                                           address, length = peer.find("w0")
                                                           op = read(peer, mine.data_ptr(), address, length)
                                                           engine.transfer(op).wait(timeout=10)

Without the rendezvous, take the text of `engine.export()` by any channel to `engine.peer_open(text)`. What each call
means is told in nvlxfer.h; here is only what Python adds:

- A failure is an NvlxError with .code, .name and the library's own text. Times are seconds; None waits for ever.
- An engine keeps its regions, peers and prepared lists, and a region its tensor, until they are closed. A request that
  is dropped is freed once its transfer has ended. Closing an engine closes all that came from it; one that is open
  at the interpreter's exit is closed then. No thread may be inside a call on what another thread closes.
- `await request` polls. `wait` can be interrupted. Every call releases the GIL.
- Many ops cost no Python object each: see `read` and `write`.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import collections
import ctypes
import enum
import functools
import math
import os
import pathlib
import sys
import time
import weakref
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar, Union

Buffer = Union[bytes, bytearray, memoryview]
Numbers = Any  # an int, or a buffer of 64-bit integers: array.array("Q"), a memoryview, a NumPy array
Memory = Any  # (address, length), or a tensor: an object with __cuda_array_interface__ or __dlpack__

# ---- Errors ----------------------------------------------------------------------------------------------------------


class NvlxError(Exception):
    """A call failed: `code` and `name` are those of nvlxfer.h, the text is nvlx_last_error's."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.name = f"NVLX_{_NAMES[-code]}" if 0 < -code < len(_NAMES) else f"error {code}"
        super().__init__(f"{self.name}: {text}")


class InvalidArgument(NvlxError, ValueError): ...
class Again(NvlxError): ...
class Timeout(NvlxError, TimeoutError): ...
class Busy(NvlxError): ...
class NotSupported(NvlxError): ...
class OutOfRange(NvlxError): ...
class AccessDenied(NvlxError): ...
class NotFound(NvlxError, LookupError): ...
class Stale(NvlxError): ...


_NAMES = (None, "EINVAL", "ENOMEM", "EDEVICE", "EFORK", "EAGAIN", "ETIMEDOUT", "EBUSY", "ENOTSUP", "ERANGE", "EACCES",
          "ENOENT", "EEXIST", "EFORMAT", "EVERSION", "EBACKEND", "ESTALE")  # fmt: skip
_CLASSES = {-1: InvalidArgument, -5: Again, -6: Timeout, -7: Busy, -8: NotSupported, -9: OutOfRange, -10: AccessDenied,
            -11: NotFound, -16: Stale}  # fmt: skip
_EINVAL, _EAGAIN, _ETIMEDOUT, _ENOTSUP = -1, -5, -6, -8


def _error(code: int, text: str | None = None) -> NvlxError:
    if text is None:
        told = _library().nvlx_last_error() or _library().nvlx_strerror(code)
        text = told.decode("utf-8", "replace")
    return _CLASSES.get(code, NvlxError)(code, text)


def _invalid(text: str) -> NvlxError:
    return _error(_EINVAL, text)


# ---- The library -----------------------------------------------------------------------------------------------------

_I, _U32, _U64, _I64 = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
_SIZE, _S, _P = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
_LETTERS = {"i": _I, "u": _U32, "q": _U64, "t": _I64, "z": _SIZE, "s": _S, "p": _P, "v": None}
_FUNCTIONS = dict(  # the result's type, then the arguments'
    version="s", strerror="si", last_error="s", gpu_count="iup", engine_create="ipp",
    engine_destroy="ip", engine_get_info="ipp", backend_name="sp", alloc="ipizpp", free="ipp", memcpy="ipppz",
    register="ippzpp", unregister="ipt", export="ippp", text_free="vp", serve="ipsp", connect="ipstp",
    peer_open="ipszp", peer_update="ipsz", peer_find="ipspp", peer_map="ipiqq", peer_test="ip", peer_close="ip",
    transfer="ippzpp", prepare="ippzpp", post="ippp", prepared_free="ip", test="ip", wait="ipt", request_get_info="ipp",
    request_free="ip",
)  # fmt: skip


class _Library:
    """The library's functions, each bound at its first use: a library that lacks some serves for the rest."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        result, *arguments = [_LETTERS[letter] for letter in _FUNCTIONS[name[len("nvlx_") :]]]
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise _error(_ENOTSUP, f"{self._library._name} has no {name}: use a newer libnvlxfer") from None
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)
        return function


@functools.lru_cache(maxsize=None)
def _library() -> _Library:
    named = os.environ.get("NVLX_LIBRARY")
    built = pathlib.Path(__file__).resolve().parent / "../../build/libnvlxfer.so.0"
    failures = []
    for path in [named] if named else ["libnvlxfer.so.0", str(built)]:
        try:
            return _Library(ctypes.CDLL(path))
        except OSError as failure:
            failures.append(str(failure))
    raise OSError(f"libnvlxfer was not found ({'; '.join(failures)}): set NVLX_LIBRARY to its path")


def _call(function: str, *arguments: Any) -> None:
    code = getattr(_library(), function)(*arguments)
    if code:
        raise _error(code)


def _make(function: str, *arguments: Any) -> int:
    made = ctypes.c_void_p()
    _call(function, *arguments, ctypes.byref(made))
    return made.value or 0


def _ns(seconds: float | None) -> int:
    """None and infinity: for ever."""
    return -1 if seconds is None or seconds == math.inf else max(0, int(seconds * 1e9))


def _word(number: int) -> int:
    """An address or length, which ctypes would cut to 64 bits in silence."""
    if not 0 <= number < 1 << 64:
        raise _invalid(f"{number} is not a number of 64 bits")
    return number


def _text(text: str) -> bytes:
    if "\0" in text:
        raise _invalid(f"{text!r} has a NUL in it")
    return text.encode()


def version() -> str:
    """The version of the library that is running."""
    return str(_library().nvlx_version().decode())


# ---- The structs and constants of nvlxfer.h --------------------------------------------------------------------------


class Backend(enum.IntEnum):
    AUTO, CUDA, HOST = range(3)


class Mechanism(enum.IntEnum):
    DEFAULT, AUTO, COPY_ENGINE, KERNEL = range(4)


class Access(enum.IntEnum):
    NONE, READ, WRITE, READ_WRITE = range(4)


class Alloc(enum.IntEnum):
    CUDA_MALLOC, VMM, POOL = range(3)


_READ, _WRITE, _NO_MAP = 1, 2, 1
STREAM_LEGACY, STREAM_PER_THREAD = 1, 2


class RequestInfo(NamedTuple):
    status: int
    sms: int
    ops: int
    bytes: int
    submit_ns: int
    elapsed_ns: int
    engine_bytes: int
    engine_fragments: int
    kernel_bytes: int
    kernel_fragments: int
    error: str


class EngineInfo(NamedTuple):
    segments: int
    regions: int
    handles_exported: int
    mappings: int
    requests: int


class _Config(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("backend", _U32), ("max_requests", _U32), ("gpus", ctypes.POINTER(_I))]
    _fields_ += [("gpu_count", _SIZE), ("mechanism", _U32), ("max_sms", _U32), ("list_memory", _SIZE)]


class _AllocOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("flags", _U32), ("chunk_length", _SIZE)]


class _RegionOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("name", ctypes.c_char_p), ("access", _U32)]


class _TransferOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("flags", _U32), ("stream", _P), ("mechanism", _U32), ("max_sms", _U32)]
    _fields_ += [("priority", ctypes.c_int32)]


class _ServeOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("users", ctypes.POINTER(_U32)), ("user_count", _SIZE)]
    _fields_ += [("groups", ctypes.POINTER(_U32)), ("group_count", _SIZE), ("mode", _U32), ("max_connections", _U32)]


class _RequestInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("status", ctypes.c_int32), ("sms", _U32)]
    _fields_ += [(name, _U64) for name in RequestInfo._fields[2:-1]] + [("error", ctypes.c_char * 256)]


class _EngineInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE)] + [(name, _U64) for name in EngineInfo._fields]


class _Op(ctypes.Structure):
    _fields_ = [("opcode", _U32), ("flags", _U32), ("peer", _P), ("local", _P), ("remote", _U64), ("length", _U64)]
    _fields_ += [("arg", _U64)]


_Struct = TypeVar("_Struct", bound=ctypes.Structure)


def _filled(struct: type[_Struct], **fields: Any) -> _Struct:
    """As the struct's init function does it in C: its size, zeros, and what is set here."""
    made = struct()
    made.size = ctypes.sizeof(struct)
    known = {name for name, *_ in struct._fields_}
    for name, value in fields.items():
        if name not in known:
            raise TypeError(f"there is no option {name}")
        setattr(made, name, value)
        if isinstance(value, int) and (getattr(made, name) or 0) != value:
            raise _invalid(f"{name} {value} does not fit")
    return made


def _told(struct: Any, function: str, handle: int, names: Sequence[str]) -> list[Any]:
    info = struct(ctypes.sizeof(struct))
    _call(function, handle, ctypes.byref(info))
    return [getattr(info, name) for name in names]


def gpu_count(backend: Backend = Backend.AUTO) -> int:
    """The number of GPUs that a backend sees in this process; makes no context."""
    count = ctypes.c_int()
    _call("nvlx_gpu_count", backend, ctypes.byref(count))
    return count.value


# ---- Where the memory of a tensor lies -------------------------------------------------------------------------------


def _dense(shape: Sequence[int], strides: Sequence[int] | None, step: int) -> int:
    """The number of elements of a tensor, which must follow each other `step` apart."""
    expected = step
    if strides is not None and 0 not in shape:
        for extent, stride in zip(reversed(shape), reversed(strides)):
            if extent != 1 and stride != expected:
                where = f"a tensor of shape {tuple(shape)} with strides {tuple(strides)}"
                raise _invalid(f"{where} is not contiguous: register what its contiguous() gives, or its storage")
            expected *= extent
    return math.prod(shape)


class _DLManagedTensor(ctypes.Structure):
    _fields_ = [("data", _P), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32)]
    _fields_ += [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]
    _fields_ += [("shape", ctypes.POINTER(_I64)), ("strides", ctypes.POINTER(_I64))]
    _fields_ += [("byte_offset", _U64), ("context", _P), ("deleter", _P)]


# Prototypes of its own: what other modules set on ctypes.pythonapi's functions stays as it is.
_capsule_pointer = ctypes.PYFUNCTYPE(_P, ctypes.py_object, _S)(("PyCapsule_GetPointer", ctypes.pythonapi))
_capsule_rename = ctypes.PYFUNCTYPE(_I, ctypes.py_object, _S)(("PyCapsule_SetName", ctypes.pythonapi))
_deleter = ctypes.PYFUNCTYPE(None, _P)  # called with the GIL, which some producers need
_USED = b"used_dltensor"  # lives as long as any capsule: those keep the pointer, not the text


class _Borrowed:
    """A DLPack tensor, taken out of its capsule; its producer gets it back when this is dropped."""

    _tensor: Any = None

    def __init__(self, capsule: Any) -> None:
        self._address = _capsule_pointer(capsule, b"dltensor")
        _capsule_rename(capsule, _USED)
        self._tensor = _DLManagedTensor.from_address(self._address)

    def locate(self) -> tuple[int, int]:
        tensor = self._tensor
        count = _dense(tensor.shape[: tensor.ndim], tensor.strides[: tensor.ndim] if tensor.strides else None, 1)
        return (tensor.data or 0) + tensor.byte_offset, (count * tensor.bits * tensor.lanes + 7) // 8

    def __del__(self) -> None:
        if self._tensor is not None and self._tensor.deleter:
            _deleter(self._tensor.deleter)(self._address)


def _locate(memory: Memory) -> tuple[int, int, Any]:
    """Address and length of what shall be registered, and what keeps it alive."""
    if isinstance(memory, tuple):
        address, length = (_word(number) for number in memory)
        return address, length, None
    try:
        interface = memory.__cuda_array_interface__
    except (AttributeError, KeyError, TypeError):  # none, or none for this type of element: DLPack knows more of them
        interface = None
    if interface is not None:
        step = int(interface["typestr"][2:])
        return interface["data"][0], step * _dense(interface["shape"], interface.get("strides"), step), memory
    if not hasattr(memory, "__dlpack__"):
        raise _invalid(f"a {type(memory).__name__} has neither __cuda_array_interface__ nor __dlpack__")
    device, ordinal = memory.__dlpack_device__()
    if device != 2:  # kDLCUDA
        raise _error(_ENOTSUP, f"a tensor on DLPack device ({int(device)}, {ordinal}) is not CUDA memory")
    borrowed = _Borrowed(memory.__dlpack__(stream=-1))  # -1: its content is not looked at, so nothing is waited for
    return (*borrowed.locate(), borrowed)


def _host(data: int | Buffer) -> tuple[Any, int | None]:
    """What C gets for an address or a buffer, and the buffer's length."""
    if isinstance(data, int):
        return data, None
    view = memoryview(data).cast("B")
    return bytes(view) if view.readonly else (ctypes.c_char * len(view)).from_buffer(view), len(view)


# ---- Lists of ops ----------------------------------------------------------------------------------------------------


class Ops:
    """Copies in the library's own layout."""

    def __init__(self, buffer: bytearray, peers: set[Peer]) -> None:
        self._buffer = buffer
        self._peers = peers

    def __len__(self) -> int:
        return len(self._buffer) // ctypes.sizeof(_Op)

    def _arguments(self) -> tuple[Any, int]:
        for peer in self._peers:
            peer._live()
        return (ctypes.c_char * len(self._buffer)).from_buffer(self._buffer), len(self)


def read(peer: Peer, local: Numbers, remote: Numbers, length: Numbers) -> Ops:
    """Copies from the peer's address `remote` to the own address `local`. Buffers of 64-bit integers, such as
    array.array("Q") or NumPy's uint64 arrays, give as many ops at once; an int beside them holds for each."""
    return _ops(_READ, peer, local, remote, length)


def write(peer: Peer, local: Numbers, remote: Numbers, length: Numbers) -> Ops:
    """Copies from the own address `local` to the peer's address `remote`; otherwise as `read`."""
    return _ops(_WRITE, peer, local, remote, length)


def _ops(opcode: int, peer: Peer, *columns: Numbers) -> Ops:
    columns = tuple(_word(column) if isinstance(column, int) else column for column in columns)
    counts = {len(column) for column in columns if not isinstance(column, int)}
    if not counts:
        return Ops(bytearray(_Op(opcode, 0, peer._live(), *columns)), {peer})
    if len(counts) > 1:
        raise _invalid(f"local, remote and length have different numbers of entries: {sorted(counts)}")
    count = counts.pop()
    buffer = bytearray(bytes(_Op(opcode, 0, peer._live())) * count)
    words, width = memoryview(buffer).cast("Q"), ctypes.sizeof(_Op) // 8
    for place, column in zip((2, 3, 4), columns):  # local, remote, length
        words[place::width] = _words(array.array("Q", [column]) * count if isinstance(column, int) else column)
    return Ops(buffer, {peer})


def _words(column: Any) -> memoryview:
    view = memoryview(column)
    if view.ndim != 1 or not view.contiguous or view.format.lstrip("@=<") not in ("Q", "q", "L", "l"):
        raise _invalid(f"a buffer of format {view.format!r} is not of 64-bit integers one after the other")
    return view.cast("B").cast("Q")


def _joined(ops: Ops | Iterable[Ops]) -> Ops:
    if isinstance(ops, Ops):
        return ops
    parts = list(ops)
    return Ops(bytearray().join(part._buffer for part in parts), {peer for part in parts for peer in part._peers})


def _options(stream: Any, no_map: bool = False, **tuning: int) -> Any:
    flags = _NO_MAP if no_map else 0
    return _filled(_TransferOptions, flags=flags, stream=_stream(stream), **tuning)


def _stream(stream: Any) -> int:
    """A stream's number. CUDA's stream 0 is the legacy one, which nvlxfer.h calls 1, since its 0 stands for none."""
    if stream is None:
        return 0
    number = stream if isinstance(stream, int) else getattr(stream, "cuda_stream", getattr(stream, "ptr", None))
    if number is None:
        raise _invalid(f"a {type(stream).__name__} is not a CUDA stream")
    return int(number) or STREAM_LEGACY


# ---- The objects -----------------------------------------------------------------------------------------------------

_Self = TypeVar("_Self", bound="_Object")


class _Object:
    """A handle of the library's and the engine that it came from."""

    _handle: int | None = None

    def __init__(self, engine: Engine, handle: int) -> None:
        self._engine = engine
        self._handle = handle

    @property
    def closed(self) -> bool:
        return self._handle is None or self._engine.closed

    def _live(self) -> int:
        if self._handle is None or self.closed:
            raise _invalid(f"the {type(self).__name__} is closed, or its engine is")
        return self._handle

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Owned(_Object):
    """One that its engine keeps until it is closed."""

    def __init__(self, engine: Engine, handle: int) -> None:
        super().__init__(engine, handle)
        engine._owned.add(self)

    def _close(self, function: str, *arguments: Any) -> None:
        if not self.closed:
            _call(function, self._live(), *arguments)
            self._engine._owned.discard(self)
            self._drop()

    def _drop(self) -> None:
        self._handle = None


class Region(_Owned):
    """A registered byte range; it keeps its tensor alive until it is closed."""

    def __init__(self, engine: Engine, handle: int, address: int, length: int, memory: Any) -> None:
        super().__init__(engine, handle)
        self.address, self.length, self._memory = address, length, memory

    def close(self, timeout: float | None = None) -> None:
        """Unregisters. Waits for own transfers in flight on it; after `timeout` it raises Busy and the region stays."""
        self._close("nvlx_unregister", _ns(timeout))

    def _drop(self) -> None:
        self._handle = self._memory = None


class Peer(_Owned):
    """Another process, as known from its descriptor."""

    def find(self, name: str) -> tuple[int, int]:
        """Address and length of the peer's region of this name."""
        address, length = _U64(), _U64()
        _call("nvlx_peer_find", self._live(), _text(name), ctypes.byref(address), ctypes.byref(length))
        return address.value, length.value

    def map(self, gpu: int, address: int, length: int) -> None:
        _call("nvlx_peer_map", self._live(), gpu, address, length)

    def update(self, text: str) -> None:
        encoded = text.encode()
        _call("nvlx_peer_update", self._live(), encoded, len(encoded))

    def test(self) -> None:
        """Raises what is wrong with a peer from `Engine.connect`."""
        _call("nvlx_peer_test", self._live())

    def close(self) -> None:
        """Waits for transfers with the peer. Busy: a prepared list names it."""
        self._close("nvlx_peer_close")


class Prepared(_Owned):
    """A list of copies that was checked and mapped once."""

    def post(self, stream: Any = None) -> Request:
        self._engine._sweep()
        return Request(self._engine, _make("nvlx_post", self._live(), ctypes.byref(_options(stream))))

    def close(self) -> None:
        """Waits for its posts in flight."""
        self._close("nvlx_prepared_free")


class Request(_Object):
    """The completion of one transfer: `wait`, `test`, or `await` it."""

    _raised = False

    def test(self) -> bool:
        """Whether every byte is in place; raises if the transfer failed."""
        code = _library().nvlx_test(self._live())
        if code not in (0, _EAGAIN):
            self._raised = True
            raise _error(code)
        return bool(code == 0)

    def wait(self, timeout: float | None = None) -> None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:  # in slices, between which the interpreter sees signals
            left = deadline - time.monotonic()
            code = _library().nvlx_wait(self._live(), _ns(min(left, 0.1)))
            if code != _ETIMEDOUT:
                break
            if left <= 0.1:
                raise _error(code, f"the transfer is still in flight after {timeout} s")
        if code:
            self._raised = True
            raise _error(code)

    def __await__(self) -> Generator[Any, None, None]:
        return self._poll().__await__()

    async def _poll(self) -> None:
        pause = 0.0
        while not self.test():
            await asyncio.sleep(pause)
            pause = min(1.5 * pause + 20e-6, 2e-3)

    def info(self) -> RequestInfo:
        *numbers, error = _told(_RequestInfo, "nvlx_request_get_info", self._live(), RequestInfo._fields)
        return RequestInfo._make([*numbers, error.decode("utf-8", "replace")])

    def close(self) -> None:
        """Waits for the transfer and frees the request; raises how it failed, if nothing has raised that before."""
        if self.closed:
            return
        try:
            if not self._raised:
                self.wait()
        finally:
            if self._raised or self.test():  # otherwise the wait was interrupted
                _library().nvlx_request_free(self._live())
                self._handle = None

    def __del__(self) -> None:
        if not self.closed:
            self._engine._dropped.append(self._live())


class Engine(_Object):
    """This process's instance of the library."""

    def __init__(self, backend: Backend = Backend.AUTO, *, gpus: Sequence[int] | None = None, **config: int) -> None:
        """`config`: max_requests, mechanism, max_sms and list_memory of struct nvlx_config."""
        filled = _filled(_Config, backend=backend, **config)
        if gpus is not None:
            filled.gpus, filled.gpu_count = (_I * len(gpus))(*gpus), len(gpus)
        self._owned: set[_Owned] = set()
        self._dropped: collections.deque[int] = collections.deque()  # requests that nobody holds any more
        self._handle = _make("nvlx_engine_create", ctypes.byref(filled))
        _open_engines.add(self)

    @property
    def closed(self) -> bool:
        return self._handle is None

    @property
    def backend(self) -> str:
        return str(_library().nvlx_backend_name(self._live()).decode())

    def info(self) -> EngineInfo:
        return EngineInfo._make(_told(_EngineInfo, "nvlx_engine_get_info", self._live(), EngineInfo._fields))

    def alloc(self, gpu: int, length: int, kind: Alloc = Alloc.CUDA_MALLOC, chunk_length: int = 0) -> int:
        """The address of new device memory, which lives until `free` or the engine's end."""
        options = _filled(_AllocOptions, flags=kind, chunk_length=chunk_length)
        return _make("nvlx_alloc", self._live(), gpu, length, ctypes.byref(options))

    def free(self, address: int) -> None:
        _call("nvlx_free", self._live(), address)

    def memcpy(self, destination: int | Buffer, source: int | Buffer, length: int | None = None) -> None:
        """Copies between addresses and buffers; without `length` as much as the smaller buffer has."""
        if not isinstance(destination, int) and memoryview(destination).readonly:
            raise _invalid("the destination is read-only")
        (to, to_room), (origin, from_room) = _host(destination), _host(source)
        room = min((size for size in (to_room, from_room) if size is not None), default=length)
        length = room if length is None else length
        if room is None or length is None or length > room:
            raise _invalid(f"a copy of {length} bytes, with buffers of {room}")
        _call("nvlx_memcpy", self._live(), to, origin, length)

    def register(self, memory: Memory, name: str | None = None, access: Access = Access.READ_WRITE) -> Region:
        """Registers a contiguous tensor, or (address, length). Its content must be complete before a peer reads it."""
        address, length, kept = _locate(memory)
        options = _filled(_RegionOptions, access=access)
        options.name = None if name is None else _text(name)
        handle = _make("nvlx_register", self._live(), address, length, ctypes.byref(options))
        return Region(self, handle, address, length, kept)

    def export(self) -> str:
        text, length = ctypes.c_void_p(), ctypes.c_size_t()
        _call("nvlx_export", self._live(), ctypes.byref(text), ctypes.byref(length))
        try:
            return ctypes.string_at(text, length.value).decode()
        finally:
            _library().nvlx_text_free(text)

    def peer_open(self, text: str) -> Peer:
        encoded = text.encode()
        return Peer(self, _make("nvlx_peer_open", self._live(), encoded, len(encoded)))

    def serve(self, address: str, users: Sequence[int] = (), groups: Sequence[int] = (), **options: int) -> None:
        """Lets peers connect at a path or an "@abstract" address; `options`: mode and max_connections."""
        filled = _filled(_ServeOptions, **options)
        filled.users, filled.user_count = (_U32 * len(users))(*users), len(users)
        filled.groups, filled.group_count = (_U32 * len(groups))(*groups), len(groups)
        _call("nvlx_serve", self._live(), _text(address), ctypes.byref(filled))

    def connect(self, address: str, timeout: float | None = 10.0) -> Peer:
        return Peer(self, _make("nvlx_connect", self._live(), _text(address), _ns(timeout)))

    def transfer(self, ops: Ops | Iterable[Ops], stream: Any = None, no_map: bool = False, **tuning: int) -> Request:
        """Starts copies. Without `stream` the sources' content must be complete. `tuning`: mechanism, max_sms and
        priority of struct nvlx_transfer_options."""
        self._sweep()
        options = ctypes.byref(_options(stream, no_map, **tuning))
        return Request(self, _make("nvlx_transfer", self._live(), *_joined(ops)._arguments(), options))

    def prepare(self, ops: Ops | Iterable[Ops], no_map: bool = False, **tuning: int) -> Prepared:
        options = ctypes.byref(_options(None, no_map, **tuning))
        return Prepared(self, _make("nvlx_prepare", self._live(), *_joined(ops)._arguments(), options))

    def _sweep(self) -> None:
        """Frees dropped requests whose transfers have ended."""
        for _ in range(len(self._dropped) if self._handle is not None else 0):
            try:
                handle = self._dropped.popleft()
            except IndexError:  # another thread was here
                return
            if _library().nvlx_test(handle) == _EAGAIN:
                self._dropped.append(handle)
            else:
                _library().nvlx_request_free(handle)

    def close(self) -> None:
        """Waits for all transfers in flight, then frees all that came from this engine."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        _open_engines.discard(self)
        try:
            _call("nvlx_engine_destroy", handle)
        finally:
            while self._owned:
                self._owned.pop()._drop()

    def __del__(self) -> None:
        if self._handle is not None and not sys.is_finalizing():
            _close_quietly(self)


def _close_quietly(engine: Engine) -> None:
    try:
        engine.close()
    except NvlxError:  # of a forked child, say
        pass


_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_open_engines):
        _close_quietly(engine)
