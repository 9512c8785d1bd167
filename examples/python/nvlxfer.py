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

Many copies go in one call. `read` and `write` take a number for all of them, or an array with one for each:

    slots = array.array("Q", [0, 3, 1, 2])                 # block i goes to slot slots[i]
    local = array.array("Q", (mine.data_ptr() + slot * block for slot in slots))
    remote = array.array("Q", (address + i * block for i in range(len(slots))))
    engine.transfer(read(peer, local, remote, block)).wait(timeout=10)

What is registered is a tensor, or a tuple (address, length). Without the rendezvous, take the text of
`engine.export()` by any channel to `engine.peer_open(text)`. What each call means is told in nvlxfer.h; here is only
what Python adds:

- A failure is an NvlxError with .code, .name and the library's own text. An argument of a wrong type is InvalidType, a
  TypeError too, and no number is cut to what C can hold. Lengths are bytes, GPUs are CUDA's ordinals in this process.
  Times are seconds; None waits for ever.
- An engine keeps its regions, peers and prepared lists, and a region its tensor, until they are closed. A request that
  is dropped is freed once its transfer has ended. Closing an engine closes all that came from it.
- Any thread may call. What one thread closes while others are inside calls on it, is freed when they have left; their
  later calls are refused. Closing twice is allowed.
- Ctrl-C ends what waits: wait, connect, the first mapping of memory, close. Closing then goes on in the background.
- `async for event in engine.events()` tells of peers that are lost or have changed, and brings messages. Without
  asyncio an engine is what `selectors` takes, and `next_event` reads.
- `await request` polls nothing, if a loop ran when it was started and can watch descriptors. A cancelled one leaves the
  transfer alone: the request can be awaited again, and closing it waits for nothing. The copies go on, so their memory
  must stay. Every call releases the GIL.
- When the program ends, other threads that call end too (SystemExit). Calls in flight get two seconds, transfers ten.
  Then open engines are closed, or, if something is still in flight, left to the end of the process.
- A forked child cannot use its parent's objects: calls fail with NVLX_EFORK, and closing does nothing.
- The log goes to stderr unless `set_log` sends it to Python's logging, or to a function.
- Many ops cost no Python object each: see `read` and `write`.
"""

from __future__ import annotations

import _thread
import array
import asyncio
import atexit
import collections
import contextlib
import ctypes
import enum
import functools
import logging  # before atexit.register: what is logged at the end then finds it open
import math
import operator
import os
import pathlib
import queue
import reprlib
import sys
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Container, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar, Union

Buffer = Union[bytes, bytearray, memoryview]
Numbers = Any  # an int, or a buffer of 64-bit integers: array.array("Q"), a memoryview, a NumPy array
Rows = Any  # (count, local pitch, remote pitch): each as Numbers
Memory = Any  # (address, length), or a tensor: an object with __cuda_array_interface__ or __dlpack__
_Result = TypeVar("_Result")

# ---- Errors ----------------------------------------------------------------------------------------------------------


class NvlxError(Exception):
    """A call failed: `code` and `name` are those of nvlxfer.h, the text is nvlx_last_error's."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self._text = code, text
        self.name = f"NVLX_{_NAMES[-code]}" if 0 < -code < len(_NAMES) else f"error {code}"
        super().__init__(f"{self.name}: {text}")

    def __reduce__(self) -> tuple[Any, ...]:  # failures travel between processes
        return type(self), (self.code, self._text)


class InvalidArgument(NvlxError, ValueError): ...


class InvalidType(InvalidArgument, TypeError): ...


class Again(NvlxError): ...


class Timeout(NvlxError, TimeoutError): ...


class Busy(NvlxError): ...


class NotSupported(NvlxError): ...


class OutOfRange(NvlxError): ...


class AccessDenied(NvlxError): ...


class NotFound(NvlxError, LookupError): ...


class Stale(NvlxError): ...


class WrongDigest(NvlxError): ...


class Suspended(NvlxError): ...


_NAMES = (None, "EINVAL", "ENOMEM", "EDEVICE", "EFORK", "EAGAIN", "ETIMEDOUT", "EBUSY", "ENOTSUP", "ERANGE", "EACCES",
          "ENOENT", "EEXIST", "EFORMAT", "EVERSION", "EBACKEND", "ESTALE", "EDIGEST",
          "ESUSPENDED")  # fmt: skip
_CLASSES = {-1: InvalidArgument, -5: Again, -6: Timeout, -7: Busy, -8: NotSupported, -9: OutOfRange, -10: AccessDenied,
            -11: NotFound, -16: Stale, -17: WrongDigest, -18: Suspended}  # fmt: skip
_EINVAL, _ENOMEM, _EDEVICE, _EAGAIN, _ETIMEDOUT, _EBUSY, _ENOTSUP, _ENOENT = -1, -2, -3, -5, -6, -7, -8, -11
_ANY = range(-99, 0)  # of the codes


def _error(code: int, text: str | None = None) -> NvlxError:
    if text is None:
        told = _library().nvlx_last_error() or _library().nvlx_strerror(code)
        text = told.decode("utf-8", "replace")
    return _CLASSES.get(code, NvlxError)(code, text)


def _invalid(text: str) -> NvlxError:
    return _error(_EINVAL, text)


def _wrong_type(what: str, value: object, right: str) -> InvalidType:
    return InvalidType(_EINVAL, f"{what} is {reprlib.repr(value)}, of type {type(value).__name__}: give {right}")


# ---- The library -----------------------------------------------------------------------------------------------------

_I, _U32, _U64, _I64 = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
_SIZE, _S, _P = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
_LETTERS = {"i": _I, "u": _U32, "q": _U64, "t": _I64, "z": _SIZE, "s": _S, "p": _P, "v": None}
_FUNCTIONS = dict(  # the result's type, then the arguments'
    version="s", strerror="si", last_error="s", gpu_count="iup", engine_create="ipp",
    engine_destroy="ip", engine_get_info="ipp", backend_name="sp", alloc="ipizpp", free="ipp", memcpy="ipppz", digest="ippzp",
    register="ippzpp", unregister="ipt", export="ippp", text_free="vp", serve="ipsp", connect="ipstp",
    peer_open="ipszp", peer_update="ipsz", peer_find="ipspp", peer_map="ipiqq", peer_test="ip", peer_close="ip",
    transfer="ippzpp", prepare="ippzpp", post="ippp", prepared_free="ip", test="ip", wait="ipt", request_get_info="ipp",
    request_free="ip", set_log="iipp", hold="ip", publish="ipp", peer_sync="ipqt", check="ip",
    peer_region="ippp", peer_region_by_name="ipsp", peer_generation="ipp", region_set_digest="ipp",
    event_fd="ipp", next_event="ipp", send="ippz",
    suspend="ipzt", resume="ipzp",
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


@functools.cache
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


# ---- Arguments -------------------------------------------------------------------------------------------------------


def _range_of(kind: Any) -> tuple[int, int]:
    bits = 8 * ctypes.sizeof(kind)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if kind(-1).value < 0 else (0, (1 << bits) - 1)


_RANGES = {kind: _range_of(kind) for kind in (_I, _U32, _U64, _SIZE, ctypes.c_int32)}


def _integer(what: str, value: Any, kind: Any = _U64) -> int:
    """A number that C can hold, which ctypes would cut in silence. NumPy's integers are as good as Python's."""
    if isinstance(value, bool):
        raise _wrong_type(what, value, "an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise _wrong_type(what, value, "an integer") from None
    low, high = _RANGES[kind]
    if not low <= number <= high:
        raise _invalid(f"{what} {number} does not fit: it has {8 * ctypes.sizeof(kind)} bits, from {low} to {high}")
    return number


def _integers(what: str, values: Iterable[int], kind: Any) -> Any:
    """An array of C's."""
    try:
        listed = list(values)
    except TypeError:
        raise _wrong_type(what, values, "a sequence of integers") from None
    return (kind * len(listed))(*(_integer(f"{what}[{i}]", value, kind) for i, value in enumerate(listed)))


def _seconds(timeout: float | None) -> float:
    """None: for ever."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not (hasattr(timeout, "__float__") or hasattr(timeout, "__index__")):
        raise _wrong_type("timeout", timeout, "seconds, or None to wait for ever")
    try:
        seconds = float(timeout)
    except OverflowError:  # an int of more than 1023 bits
        seconds = math.inf if timeout > 0 else -math.inf
    except (TypeError, ValueError):
        raise _wrong_type("timeout", timeout, "seconds, or None to wait for ever") from None
    if not seconds >= 0:  # or not a number
        raise _invalid(f"timeout {reprlib.repr(timeout)} is no time: give seconds from 0, or None to wait for ever")
    return seconds


def _slices(timeout: float | None, first: float, longest: float) -> Iterator[int]:
    """Cuts a time into nanoseconds for calls of C, between which signals and the end of the program are seen."""
    deadline = time.monotonic() + _seconds(timeout)
    length = first
    while True:
        left = max(0.0, deadline - time.monotonic())
        yield int(min(left, length) * 1e9)
        if left <= length:
            return
        length = min(2 * length, longest)


def _in_slices(slices: Iterable[int], stop: Callable[[], bool], call: Callable[[int], _Result]) -> _Result:
    """What `call` gives in one of the slices of time, or its last Timeout."""
    for nanoseconds in slices:
        try:
            return call(nanoseconds)
        except Timeout as failure:
            late = failure
            if stop():
                break
    try:
        raise late
    finally:
        del late  # as in _run


def _text(what: str, text: str, *, nul: bool = False) -> bytes:
    if not isinstance(text, str):
        raise _wrong_type(what, text, "a str")
    if "\0" in text and not nul:
        raise _invalid(f"{what} {text!r} has a NUL in it")
    try:
        return text.encode()
    except UnicodeEncodeError as failure:
        raise _invalid(f"{what} {reprlib.repr(text)} is not UTF-8: {failure.reason}") from None


# ---- Calls of C, and threads -----------------------------------------------------------------------------------------

_calls: dict[int, tuple[int, tuple[Any, ...]]] = {}  # those in flight, by any key: the thread, and what it uses
_ender: int | None = None  # the thread that ends the program: others get no further


class _Here(threading.local):
    """What a thread is doing."""

    in_c = False  # Python code that runs meanwhile was called by the library, or by the garbage collector within
    in_log = False
    interrupted = False

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes]] = []  # of calls that it makes


_here = _Here()


def _check_thread() -> None:
    """While the program ends, other threads that come here end without a word, as Python itself soon ends them."""
    if _ender is not None and _ender != threading.get_ident():
        _end_thread()
    if _here.in_log:
        raise _error(_EBUSY, "this thread is inside the library, which has called Python to log")


def _end_thread() -> None:
    for key, (thread, _) in _calls.copy().items():
        if thread == threading.get_ident():  # what it was about to call
            _calls.pop(key, None)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise SystemExit from None
    time.sleep(_CALLS_END + _TRANSFERS_END)  # asyncio would complain of a task that ends so: the program's end is near
    raise SystemExit


def _run(function: str, *arguments: Any, also: Iterable[_Object] = (), passed: Container[int] = ()) -> int:
    """Calls C. It gets the handles of objects among the arguments, which, as those `also` used, nobody frees meanwhile.
    Returns 0 or a code of `passed`, and raises what other codes mean."""
    call = getattr(_library(), function)
    entry = (threading.get_ident(), (*arguments, *also))
    failure, logged = None, _log.used  # without, no Python runs inside C
    try:
        _calls[id(entry)] = entry
        if _ender is not None or logged:
            _check_thread()
        for user in also:
            user._live()
        given = [each._live() if isinstance(each, _Object) else each for each in arguments]
        if logged:
            _here.in_c = True
        code: int = call(*given)
        if code and code not in passed:
            failure = _error(code)
    finally:
        if logged:
            _here.in_c = False
        _calls.pop(id(entry), None)
    if logged:
        _log.deliver()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # or it and this frame would keep each other, and what they name
    return code


def _make(
    undo: Callable[[int], Any],
    function: str,
    *arguments: Any,
    also: Iterable[_Object] = (),
    passed: Container[int] = (),
) -> int:
    """The handle that C makes; `undo` gets it if an interrupt comes between. 0 after a code of `passed`."""
    made = ctypes.c_void_p()
    try:
        _run(function, *arguments, ctypes.byref(made), also=also, passed=passed)
    except BaseException:
        if made.value:
            with contextlib.suppress(NvlxError):
                undo(made.value)
        raise
    return made.value or 0


def _threads_inside(target: _Object) -> list[int]:
    """Of calls in flight that use the object, or what came from it."""
    found: list[int] = []
    for thread, users in _calls.copy().values():
        if any(isinstance(user, _Object) and target in (user, user._home) for user in users):
            found.append(thread)
    return found


def _wait_for_calls(target: _Object) -> None:
    """Until no thread is inside a call on what is about to be freed. New calls are refused already."""
    pause = 10e-6
    while _threads_inside(target):
        _check_thread()
        time.sleep(pause)
        pause = min(2 * pause, 2e-3)


class _Job:
    """Work that the main thread, which alone gets signals, has done by another thread while it waits."""

    def __init__(self, work: Callable[[Callable[[], bool]], Any], undo: Callable[[Any], Any] | None) -> None:
        self._work, self._undo, self._abandoned = work, undo, False
        self._lock, self._done = threading.Lock(), threading.Event()
        self._result: Any = None
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._work(lambda: self._abandoned)
        except BaseException as failure:
            self._failure = failure
        with self._lock:
            self._done.set()
            abandoned = self._abandoned
        if abandoned:
            self._take_back()

    def wait(self) -> Any:
        self._done.wait()
        if self._failure is None:
            return self._result
        try:
            raise self._failure
        finally:
            self._failure = None  # as in _run

    def abandon(self) -> None:
        with self._lock:
            self._abandoned, done = True, self._done.is_set()
        if done:
            self._take_back()

    def _take_back(self) -> None:
        result, self._result = self._result, None
        if result is not None and self._undo is not None:
            with contextlib.suppress(NvlxError, SystemExit):
                self._undo(result)


def _in_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident and _ender is None


def _interruptibly(
    work: Callable[[Callable[[], bool]], _Result], undo: Callable[[_Result], Any] | None = None
) -> _Result:
    """Does the work so that Ctrl-C ends the waiting for it at once. The work is told whether that happened, and what it
    gives all the same is undone."""
    if not _in_main_thread():
        return work(lambda: False)
    job = _Job(work, undo)
    thread = threading.Thread(target=job.run, name="nvlxfer-call", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there can be no more threads
        return work(lambda: False)
    except BaseException:
        job.abandon()
        raise
    try:
        result: _Result = job.wait()
    except BaseException:
        job.abandon()
        raise
    return result


# ---- The log ---------------------------------------------------------------------------------------------------------


class LogLevel(enum.IntEnum):
    ERROR, WARNING, INFO, DEBUG = range(4)


LogFunction = Callable[[LogLevel, str], Any]
_LOGGING = {LogLevel.ERROR: logging.ERROR, LogLevel.WARNING: logging.WARNING, LogLevel.INFO: logging.INFO,
            LogLevel.DEBUG: logging.DEBUG}  # fmt: skip
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, _P, _I, _S)


def _to_logging(level: LogLevel, message: str) -> None:
    logging.getLogger("nvlxfer").log(_LOGGING[level], "%s", message)


def _passes(failure: BaseException) -> bool:
    """Whether it is none of a log function's own: Ctrl-C, or the end of this thread with the program."""
    me = threading.get_ident()
    if isinstance(failure, SystemExit):
        return _ender is not None and _ender != me
    return isinstance(failure, KeyboardInterrupt) and threading.main_thread().ident == me


def _complain() -> None:
    try:
        sys.excepthook(*sys.exc_info())
    except BaseException as failure:
        if _passes(failure):
            raise
        sys.__excepthook__(*sys.exc_info())


class _Log:
    """Where messages go. The library may hold a lock while it logs, so its callback only keeps the message. The thread
    that made the call tells it when it is back in Python; what the library's own threads log, a thread here tells."""

    def __init__(self) -> None:
        self.used = False
        self._function: LogFunction | None = None
        self._callback: Any = None  # once made, it lives as long as the process
        self._queue: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # of those that set: no function runs under it, as it may wait for who sets

    def set(self, level: int, function: LogFunction | None) -> None:
        call = _library().nvlx_set_log
        _check_thread()
        with self._lock:
            if function is not None:
                self._start()
                self._callback = self._callback or _LOG_CALLBACK(self._keep)
                self._function, self.used = function, True
            code = call(level, ctypes.cast(self._callback, _P) if function is not None else None, None)
            if code:
                raise _error(code)
            if function is not None:
                return
            thread, self._thread, self.used = self._thread, None, False
            self._end_queue()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2)  # not for ever: the function may hang
        with self._lock:
            if not self.used:  # nobody has set it meanwhile
                self._function = None

    def _keep(self, context: int | None, level: int, message: bytes) -> None:
        try:
            in_c = _here.in_c
            _here.in_log = True
            _here.messages.append((level, message)) if in_c else self._queue.put((level, message))
        except KeyboardInterrupt:  # ctypes would drop it
            _here.interrupted = True
        finally:
            _here.in_log = False

    def _tell(self, level: int, message: bytes) -> None:
        function = self._function
        try:
            if function is not None:
                function(LogLevel(level), message.decode("utf-8", "replace"))
        except BaseException as failure:
            if _passes(failure):
                raise
            _complain()

    def deliver(self) -> None:
        """Tells the messages of calls that this thread made."""
        while _here.messages:
            self._tell(*_here.messages.pop(0))
        if _here.interrupted:
            _here.interrupted = False
            raise KeyboardInterrupt

    def _start(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._tell_all, args=(self._queue,), name="nvlxfer-log", daemon=True)
        try:
            thread.start()
        except BaseException as failure:
            self._end_queue()  # it may run all the same
            if isinstance(failure, RuntimeError):
                raise _error(_ENOMEM, f'the thread "nvlxfer-log" does not start: {failure}') from None
            raise
        self._thread = thread

    def _tell_all(self, messages: queue.SimpleQueue[tuple[int, bytes] | None]) -> None:
        for message in iter(messages.get, None):
            self._tell(*message)

    def _end_queue(self) -> None:
        """The thread ends after what has come so far. A later one has a queue of its own."""
        self._queue.put(None)
        self._queue = queue.SimpleQueue()

    def end(self) -> None:
        """Nothing of Python is called any more: what is left in flight must not find an interpreter that is gone."""
        if self.used:
            self.set(LogLevel.ERROR, None)

    def after_fork(self) -> None:
        self._thread, self._queue, self._lock = None, queue.SimpleQueue(), threading.RLock()
        _here.messages.clear()
        if self.used:
            with contextlib.suppress(NvlxError):  # without, calls still tell their own
                self._start()


_log = _Log()


def set_log(level: int = LogLevel.WARNING, function: LogFunction | None = None) -> None:
    """Sends the log of the whole process to `function(level, text)`, without one to logging.getLogger("nvlxfer"). What
    is above `level` is dropped. A call's own messages come in its thread before it returns, others in a thread
    "nvlxfer-log"; the function may be called by several threads at once, and may itself call the library. What it
    raises goes to sys.excepthook, SystemExit too; only Ctrl-C comes out of the call. Ends with the program."""
    if function is not None and not callable(function):
        raise _wrong_type("function", function, "a function of a LogLevel and a str, or None for logging")
    _log.set(_log_level(level), _to_logging if function is None else function)


def reset_log(level: int = LogLevel.WARNING) -> None:
    """Gives the log back to the library, which writes it to stderr, or where the program's glog does."""
    _log.set(_log_level(level), None)


def _log_level(level: int) -> int:
    number = _integer("level", level, _I)
    if number not in _LOGGING:
        raise _invalid(f"level {number} is none: give a LogLevel, from 0 (ERROR) to 3 (DEBUG)")
    return number


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


class EventKind(enum.IntEnum):
    PEER_LOST, PEER_CHANGED, MESSAGE = range(1, 4)


class Event(NamedTuple):
    """What has happened, as in struct nvlx_event. `peer` is a Peer of this engine, or None."""

    kind: EventKind
    peer: Peer | None
    generation: int
    unconfirmed: int
    message: bytes
    pid: int
    engine: str
    reason: str


_READ, _WRITE, _ROWS, _NO_MAP, _VERIFY, _DONE_EVENT, _REQUEST_DONE = 1, 2, 1, 1, 2, 4, 4
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


class RegionInfo(NamedTuple):
    name: str  # "" if it has none
    address: int
    length: int
    access: Access
    generation: int  # that the region came with
    peer_generation: int  # of the peer, that is known: for `generation` of transfers
    digest: int | None  # of its bytes, if the peer told it
    suspended: bool  # it sleeps, until the peer resumes it


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
    _fields_ += [("priority", ctypes.c_int32), ("generation", _U64)]
    _fields_ += [("message", _P), ("message_length", _SIZE), ("user", _P)]


class _ServeOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("users", ctypes.POINTER(_U32)), ("user_count", _SIZE)]
    _fields_ += [("groups", ctypes.POINTER(_U32)), ("group_count", _SIZE), ("mode", _U32), ("max_connections", _U32)]


class _RequestInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("status", ctypes.c_int32), ("sms", _U32)]
    _fields_ += [(name, _U64) for name in RequestInfo._fields[2:-1]] + [("error", ctypes.c_char * 256)]


class _RegionInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("address", _U64), ("length", _U64), ("generation", _U64), ("peer_generation", _U64)]
    _fields_ += [("digest", _U64), ("has_digest", _U32), ("access", _U32), ("name", ctypes.c_char * 256)]
    _fields_ += [("suspended", _U32), ("reserved", _U32)]


class _EngineInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE)] + [(name, _U64) for name in EngineInfo._fields]


class _Event(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("kind", _U32), ("status", ctypes.c_int32), ("peer", _P), ("generation", _U64)]
    _fields_ += [("unconfirmed", _U64), ("request", _P), ("user", _P), ("message", _P), ("message_length", _SIZE)]
    _fields_ += [("pid", _I64), ("engine", ctypes.c_char * 40), ("reason", ctypes.c_char * 256)]


class _Op(ctypes.Structure):
    _fields_ = [("opcode", _U32), ("flags", _U32), ("peer", _P), ("local", _P), ("remote", _U64), ("length", _U64)]
    _fields_ += [("arg", _U64)]


class _Rows(ctypes.Structure):
    _fields_ = [("count", _U64), ("local_pitch", _U64), ("remote_pitch", _U64)]


@functools.cache
def _kinds(struct: type[ctypes.Structure]) -> dict[str, Any]:
    return {name: kind for name, kind, *_ in struct._fields_}


_Struct = TypeVar("_Struct", bound=ctypes.Structure)


def _filled(struct: type[_Struct], **fields: Any) -> _Struct:
    """As the struct's init function does it in C: its size, zeros, and the numbers that are set here."""
    made = struct()
    made.size = ctypes.sizeof(struct)
    kinds = _kinds(struct)
    for name, value in fields.items():
        setattr(made, name, _integer(name, value, kinds[name]))
    return made


def _told(struct: Any, function: str, whose: _Object, names: Sequence[str]) -> list[Any]:
    info = struct(ctypes.sizeof(struct))
    _run(function, whose, ctypes.byref(info))
    return [getattr(info, name) for name in names]


def gpu_count(backend: Backend = Backend.AUTO) -> int:
    """The number of GPUs that a backend sees in this process; makes no context."""
    count = ctypes.c_int()
    _run("nvlx_gpu_count", _integer("backend", backend, _U32), ctypes.byref(count))
    return count.value


# ---- Where the memory of a tensor lies -------------------------------------------------------------------------------


def _dense(shape: Sequence[int], strides: Sequence[int] | None, step: int) -> int:
    """The number of elements of a tensor, which must follow each other `step` apart."""
    if min(shape, default=0) < 0 or (strides is not None and len(strides) != len(shape)):
        raise _invalid(f"a tensor of shape {tuple(shape)} with strides {strides} is malformed")
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
        if tensor.ndim < 0:
            raise _invalid(f"a DLPack tensor of {tensor.ndim} dimensions is malformed")
        count = _dense(tensor.shape[: tensor.ndim], tensor.strides[: tensor.ndim] if tensor.strides else None, 1)
        address, length = (tensor.data or 0) + tensor.byte_offset, (count * tensor.bits * tensor.lanes + 7) // 8
        return _integer("the address in DLPack", address), _integer("its length", length, _SIZE)

    def __del__(self) -> None:
        if self._tensor is not None and self._tensor.deleter:
            _deleter(self._tensor.deleter)(self._address)


def _locate(memory: Memory) -> tuple[int, int, Any]:
    """Address and length of what shall be registered, and what keeps it alive."""
    if isinstance(memory, tuple):
        if len(memory) != 2:
            raise _invalid(f"memory {reprlib.repr(memory)} is not a pair of an address and a length: (address, length)")
        return _integer("address", memory[0]), _integer("length", memory[1], _SIZE), None
    interface = _array_interface(memory)
    if interface is not None:
        return (*_located(interface), memory)
    if not hasattr(memory, "__dlpack__"):
        raise _wrong_type(
            "memory", memory, "a tuple (address, length), or what has __cuda_array_interface__ or __dlpack__"
        )
    try:
        borrowed = _borrow(memory)
        return (*borrowed.locate(), borrowed)
    except NvlxError:
        raise
    except Exception as failure:  # of the tensor's methods, or of ctypes, which did not find what it shall
        raise _invalid(f"DLPack fails for a {type(memory).__name__}: {failure!r}") from failure


def _array_interface(memory: Any) -> Any:
    try:
        return memory.__cuda_array_interface__
    except AttributeError:
        return None
    except Exception as failure:  # there is none for this type of element, say: DLPack knows more of them
        if hasattr(memory, "__dlpack__"):
            return None
        raise _invalid(f"__cuda_array_interface__ fails for a {type(memory).__name__}: {failure!r}") from failure


def _borrow(memory: Any) -> _Borrowed:
    device, ordinal = map(operator.index, memory.__dlpack_device__())
    if device != 2:  # kDLCUDA
        raise _error(_ENOTSUP, f"a tensor on DLPack device ({device}, {ordinal}) is not CUDA memory")
    return _Borrowed(memory.__dlpack__(stream=-1))  # -1: its content is not looked at, so nothing is waited for


def _located(interface: Any) -> tuple[int, int]:
    try:
        size, address = interface["typestr"][2:], interface["data"][0]
        if not (isinstance(size, str) and size.isdecimal()):  # int() takes signs, blanks and underscores, too
            raise ValueError
        step, strides = int(size), interface.get("strides")
        shape = tuple(map(operator.index, interface["shape"]))
        strides = None if strides is None else tuple(map(operator.index, strides))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise _invalid(f"a malformed __cuda_array_interface__: {reprlib.repr(interface)}") from None
    length = step * _dense(shape, strides, step)
    return _integer("the address in __cuda_array_interface__", address), _integer("its length", length, _SIZE)


def _buffer(data: Any) -> memoryview | None:
    """What a buffer gives; None for a number, such as one of NumPy's, which is a buffer of no dimension."""
    try:
        view = memoryview(data)
    except TypeError:
        return None
    return view if view.ndim else None


def _host(what: str, data: int | Buffer, written: bool) -> tuple[Any, int | None]:
    """What C gets for an address or a buffer, and the buffer's length."""
    view = _buffer(data)
    if view is None:
        if not hasattr(data, "__index__"):
            raise _wrong_type(what, data, "an address, or a buffer")
        return _integer(what, data), None
    if written and view.readonly:
        raise _invalid(f"the {what} is read-only")
    if not view.c_contiguous:
        raise _invalid(f"the {what} is not contiguous")
    if not view.nbytes:
        return None, 0
    view = view.cast("B")
    if view.readonly:
        return data if isinstance(data, bytes) else bytes(view), len(view)
    return (ctypes.c_char * len(view)).from_buffer(view), len(view)


# ---- Lists of ops ----------------------------------------------------------------------------------------------------


class Ops:
    """Copies in the library's own layout. They name peers of this process, so they cannot be sent to another."""

    def __init__(self, buffer: bytearray, peers: set[Peer], rows: tuple[array.array[int], ...] = ()) -> None:
        self._buffer = buffer
        self._peers = peers
        self._rows = rows  # what the ops point to

    def __len__(self) -> int:
        return len(self._buffer) // ctypes.sizeof(_Op)

    def _arguments(self, engine: Engine) -> tuple[Any, int]:
        for peer in self._peers:
            if peer._engine is not engine:
                raise _invalid("ops name a Peer of another Engine")
        return (ctypes.c_char * len(self._buffer)).from_buffer(self._buffer), len(self)


def read(peer: Peer, local: Numbers, remote: Numbers, length: Numbers, rows: Rows | None = None) -> Ops:
    """Copies from the peer's address `remote` to the own address `local`, `length` bytes. Buffers of 64-bit integers,
    such as array.array("Q") or NumPy's uint64 arrays, give as many ops at once; an int beside them holds for each.
    With rows=(count, local pitch, remote pitch), integers or buffers too, each op is so many rows of `length` bytes."""
    return _ops(_READ, peer, local, remote, length, rows)


def write(peer: Peer, local: Numbers, remote: Numbers, length: Numbers, rows: Rows | None = None) -> Ops:
    """Copies from the own address `local` to the peer's address `remote`; otherwise as `read`."""
    return _ops(_WRITE, peer, local, remote, length, rows)


def _ops(opcode: int, peer: Peer, local: Numbers, remote: Numbers, length: Numbers, rows: Rows | None) -> Ops:
    if not isinstance(peer, Peer):
        raise _wrong_type("peer", peer, "a Peer")
    columns = [_column("local", local), _column("remote", remote), _column("length", length)]
    pitches = _pitches(rows)
    counts = {len(column) for column in columns + pitches if not isinstance(column, int)}
    if not counts and not pitches:
        return Ops(bytearray(_Op(opcode, 0, peer._live(), *columns)), {peer})
    if len(counts) > 1:
        what = "local, remote, length and rows" if pitches else "local, remote and length"
        raise _invalid(f"{what} have different numbers of entries: {sorted(counts)}")
    count = counts.pop() if counts else 1
    buffer = bytearray(bytes(_Op(opcode, _ROWS if pitches else 0, peer._live())) * count)
    words = memoryview(buffer).cast("Q")
    if not pitches:
        _put_columns(words, _Op, 2, columns)  # local, remote, length
        return Ops(buffer, {peer})
    table = array.array("Q", bytes(ctypes.sizeof(_Rows) * count))
    start = table.buffer_info()[0]
    places = range(start, start + ctypes.sizeof(_Rows) * count, ctypes.sizeof(_Rows))
    _put_columns(words, _Op, 2, columns + [memoryview(array.array("Q", places))])  # and arg
    _put_columns(memoryview(table), _Rows, 0, pitches)
    return Ops(buffer, {peer}, (table,))


def _put_columns(words: memoryview, struct: type[ctypes.Structure], first: int, columns: list[Any]) -> None:
    """Puts columns into the words of structs, from their word `first` on."""
    width = ctypes.sizeof(struct) // 8
    count = len(words) // width
    for place, column in enumerate(columns, first):
        words[place::width] = memoryview(array.array("Q", [column]) * count) if isinstance(column, int) else column


def _pitches(rows: Rows | None) -> list[int | memoryview]:
    if rows is None:
        return []
    try:
        count, here, there = rows
    except (TypeError, ValueError):
        raise _wrong_type("rows", rows, "(count, local pitch, remote pitch)") from None
    return [_column("count", count), _column("local pitch", here), _column("remote pitch", there)]


def _column(what: str, column: Numbers) -> int | memoryview:
    view = None if isinstance(column, int) else _buffer(column)
    if view is None:
        if not hasattr(column, "__index__"):
            raise _wrong_type(what, column, 'an integer, or a buffer of 64-bit integers such as array.array("Q")')
        return _integer(what, column)
    whole = view.format.lstrip("@=<") in ("Q", "q", "L", "l") and view.itemsize == 8
    if view.ndim != 1 or not view.contiguous or not whole:
        raise _invalid(f"{what}: a buffer of format {view.format!r} is not of 64-bit integers one after the other")
    return view.cast("B").cast("Q") if view.nbytes else memoryview(array.array("Q"))


def _joined(ops: Ops | Iterable[Ops]) -> Ops:
    if isinstance(ops, Ops):
        return ops
    try:
        parts = list(ops)
    except TypeError:
        raise _wrong_type("ops", ops, "what read and write give, or some of that") from None
    for index, part in enumerate(parts):
        if not isinstance(part, Ops):
            raise _wrong_type(f"ops[{index}]", part, "what read and write give")
    rows = tuple(table for part in parts for table in part._rows)
    return Ops(bytearray().join(part._buffer for part in parts), {peer for part in parts for peer in part._peers}, rows)


def _options(stream: Any, no_map: bool = False, verify: bool = False, **fields: int) -> Any:
    made = _filled(_TransferOptions, **fields)
    made.flags, made.stream = (_NO_MAP if no_map else 0) | (_VERIFY if verify else 0), _stream(stream)
    return made


def _with_message(options: Any, message: Buffer | None) -> Any:
    """The options, and what keeps the bytes until C has copied them."""
    if message is None:
        return None
    kept, length = _message(message)
    options.message = ctypes.cast(kept if length else ctypes.c_char_p(b""), _P)  # of no bytes is not none
    options.message_length = length
    return kept


def _message(message: Buffer) -> tuple[Any, int]:
    view = _buffer(message)
    if view is None:
        raise _wrong_type("message", message, "bytes, or another buffer")
    if not view.c_contiguous:
        raise _invalid("the message is not contiguous")
    return (ctypes.c_char * view.nbytes).from_buffer_copy(view.cast("B") if view.nbytes else b""), view.nbytes


def _stream(stream: Any) -> int:
    """A stream's number. CUDA's stream 0 is the legacy one, which nvlxfer.h calls 1, since its 0 stands for none."""
    if stream is None:
        return 0
    number = stream
    if not hasattr(stream, "__index__"):
        number = getattr(stream, "cuda_stream", getattr(stream, "ptr", None))
    if number is None:
        raise _wrong_type("stream", stream, "a CUDA stream, or its number")
    return _integer("stream", number) or STREAM_LEGACY


# ---- The objects -----------------------------------------------------------------------------------------------------

_Self = TypeVar("_Self", bound="_Object")


class _Core:
    """What of an engine outlives the object that users hold, until it is destroyed."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.closed = False  # nobody enters any more
        self.forked = False  # this process is a child of the one that made it
        self.requests: set[int] = set()  # not freed yet
        self.dropped: collections.deque[int] = collections.deque()  # those of them that nobody holds any more
        _cores[id(self)] = self

    def take(self) -> bool:
        """True once: whoever takes it destroys it, or gives it back."""
        taken = _cores.pop(id(self), None) is not None
        self.closed = self.closed or taken
        return taken

    def give_back(self) -> None:
        self.closed = False
        _cores[id(self)] = self

    def destroy(self) -> None:
        _run("nvlx_engine_destroy", self.handle)

    def destroy_quietly(self) -> None:
        with contextlib.suppress(NvlxError, SystemExit):
            self.destroy()


_cores: dict[int, _Core] = {}  # the open ones


class _Object:
    """A handle of the library's, and the engine that it came from."""

    _core: _Core
    _handle: int | None = None
    _closing = False
    _instead = ""  # what to send to another process

    def __init__(self, engine: Engine, handle: int) -> None:
        self._engine, self._core = engine, engine._core
        self._lock = threading.RLock()  # of those that close
        self._handle = handle

    @property
    def _home(self) -> Engine:
        return self._engine

    @property
    def closed(self) -> bool:
        return self._handle is None or self._core.closed

    def _live(self) -> int:
        """The handle, for a call that is entered in _calls."""
        handle = self._handle
        if handle is None or self._closing or self._core.closed:
            self._refuse()
        return handle

    def _refuse(self) -> NoReturn:
        if self._closing:
            raise _error(_EBUSY, f"another thread is closing the {type(self).__name__}")
        _check_thread()
        other = "" if isinstance(self, Engine) else ", or its engine is"
        raise _invalid(f"the {type(self).__name__} is closed{other}")

    def _closable(self) -> bool:
        """Whether there is something to close for this process."""
        if self._handle is not None and self._core.forked:
            self._handle = None  # it is the parent's
        if self.closed:
            return False
        self._refuse_from_inside()
        return True

    def _refuse_from_inside(self) -> None:
        if threading.get_ident() in _threads_inside(self):
            raise _error(_EBUSY, f"this thread is inside a call on the {type(self).__name__} that it would close")

    def _free(self, function: str, *arguments: Any, passed: Container[int] = ()) -> int:
        """Frees it in C, once no other thread is inside a call on it. After a failure it is as it was."""
        code = 0
        with self._lock:
            if self.closed:
                return code
            self._closing = True
            try:
                _wait_for_calls(self)
                handle, self._handle = self._handle, None  # first: nothing may use it again, whatever comes between
                try:
                    code = _run(function, handle, *arguments, also=(self._home,), passed=passed)
                except NvlxError:
                    self._handle = handle
                    if not self.closed:  # by its engine meanwhile
                        raise
            finally:
                self._closing = False
        return code

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:  # what copy and pickle ask
        name = type(self).__name__
        raise TypeError(f"{name} cannot be copied or pickled: it is an object of this process. {self._instead}")


class _Owned(_Object):
    """One that its engine keeps until it is closed."""

    def __init__(self, engine: Engine, handle: int) -> None:
        super().__init__(engine, handle)
        engine._owned.add(self)

    def _free(self, function: str, *arguments: Any, passed: Container[int] = ()) -> int:
        code = super()._free(function, *arguments, passed=passed)
        self._engine._owned.discard(self)
        self._drop()
        return code

    def _drop(self) -> None:
        self._handle = None


class Region(_Owned):
    """A registered byte range, `address` and `length` in bytes; it keeps its tensor alive until it is closed, or
    resumed elsewhere."""

    _instead = "Send the text of Engine.export(), or the address it serves at: Peer.find tells address and length"

    def __init__(self, engine: Engine, handle: int, address: int, length: int, memory: Any) -> None:
        super().__init__(engine, handle)
        self.address, self.length, self._memory = address, length, memory

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
            self._free("nvlx_unregister", 0)
        except Timeout:
            if seconds == 0:
                raise
            slices = _slices(seconds, 0.1, 0.1)
            _interruptibly(lambda stop: _in_slices(slices, stop, lambda ns: self._free("nvlx_unregister", ns)))

    def _drop(self) -> None:
        self._handle = self._memory = None


def _handles(regions: Sequence[Region]) -> Any:
    return (_P * len(regions))(*(region._live() for region in regions))


class Peer(_Owned):
    """Another process, as known from its descriptor."""

    _instead = "Send the text of its descriptor or the address it serves at, and open a Peer there"

    def __init__(self, engine: Engine, handle: int) -> None:
        super().__init__(engine, handle)
        self._key = handle
        engine._peers[handle] = self

    def _drop(self) -> None:
        if self._engine._peers.get(self._key) is self:
            del self._engine._peers[self._key]
        super()._drop()

    def find(self, name: str) -> tuple[int, int]:
        """Address and length, in bytes, of the peer's region of this name. NotFound: there is none."""
        address, length = _U64(), _U64()
        _run("nvlx_peer_find", self, _text("name", name), ctypes.byref(address), ctypes.byref(length))
        return address.value, length.value

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
                                made.suspended != 0)  # fmt: skip

    def generation(self) -> int:
        """The peer's generation that is known. It grows with every change of what the peer has registered."""
        generation = _U64()
        _run("nvlx_peer_generation", self, ctypes.byref(generation))
        return generation.value

    def map(self, gpu: int, address: int, length: int) -> None:
        """Maps the peer's memory there on an own GPU ahead of the first transfer."""
        where = _integer("gpu", gpu, _I), _integer("address", address), _integer("length", length)
        _interruptibly(lambda stop: _run("nvlx_peer_map", self, *where))

    def update(self, text: str) -> None:
        """Replaces what is known of the peer by a newer text of its Engine.export()."""
        encoded = _text("text", text, nul=True)
        _run("nvlx_peer_update", self, encoded, len(encoded))

    def sync(self, generation: int, timeout: float | None = None) -> None:
        """Until what is known of the peer is as new as what its `Engine.publish` returned. Timeout, Stale."""
        wanted, slices = _integer("generation", generation), _slices(_seconds(timeout), 0.1, 0.1)
        _interruptibly(lambda stop: _in_slices(slices, stop, lambda ns: _run("nvlx_peer_sync", self, wanted, ns)))

    def test(self) -> None:
        """Raises what is wrong with a peer from `Engine.connect`: Stale, if it is gone."""
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
            raise _error(code)


class Prepared(_Owned):
    """A list of copies that was checked and mapped once."""

    _instead = "Prepare the list in the process that posts it"

    def post(self, stream: Any = None, *, message: Buffer | None = None) -> Request:
        """Starts all copies of the list. The message comes after them."""
        self._engine._sweep()
        options = _options(stream)
        kept, noted = _with_message(options, message), self._engine._note(options)
        made = _make(self._core.dropped.append, "nvlx_post", self, ctypes.byref(options))
        del kept
        return Request(self._engine, made, noted)

    def close(self) -> None:
        """Waits for its posts in flight."""
        if self._closable():
            _interruptibly(lambda stop: self._free("nvlx_prepared_free"))


class Request(_Object):
    """The completion of one transfer: `wait`, `test`, or `await` it, from any number of threads."""

    _instead = "Wait for it in this process"
    _ended = False  # and, if it failed, somebody was told
    _cancelled = False

    def __init__(self, engine: Engine, handle: int, noted: bool = False) -> None:
        super().__init__(engine, handle)
        self._noted = noted  # its completion is an event
        engine._core.requests.add(handle)

    def _ask(self, function: str, *arguments: Any, passed: int) -> bool:
        """True: complete; raises if the transfer failed."""
        try:
            ended = _run(function, self, *arguments, passed=(passed,)) == 0
        except NvlxError:
            self._ended = not self.closed and not self._closing
            raise
        self._ended = self._ended or ended
        return ended

    def test(self) -> bool:
        """Whether every byte is in place; raises if the transfer failed."""
        return self._ask("nvlx_test", passed=_EAGAIN)

    def wait(self, timeout: float | None = None) -> None:
        """Until every byte is in place; raises if the transfer failed. Timeout: it is still in flight after `timeout`
        seconds; wait again."""
        if _log.used and _in_main_thread() and not self.test():  # there, what logs would swallow Ctrl-C
            _interruptibly(lambda stop: self._wait(timeout, stop))
        else:
            self._wait(timeout, lambda: False)

    def _wait(self, timeout: float | None, stop: Callable[[], bool]) -> None:
        for nanoseconds in _slices(timeout, 0.1, 0.1):
            if self._ask("nvlx_wait", nanoseconds, passed=_ETIMEDOUT) or stop():
                return
        raise _error(_ETIMEDOUT, f"the transfer is still in flight after {timeout} s")

    def __await__(self) -> Generator[Any, None, None]:
        return self._poll().__await__()

    async def _poll(self) -> None:
        pause = 0.0
        self._cancelled = False
        try:
            if self._noted and not self.test():
                await self._engine._hub.completion(self)
            while not self.test():
                await asyncio.sleep(pause)
                pause = min(1.5 * pause + 20e-6, 2e-3)
        except asyncio.CancelledError:
            self._cancelled = True
            _sweep_in(asyncio.get_running_loop(), self._engine, weakref.ref(self), 1e-3)
            raise

    def info(self) -> RequestInfo:
        """What is known of the transfer, in flight or complete."""
        *numbers, error = _told(_RequestInfo, "nvlx_request_get_info", self, RequestInfo._fields)
        return RequestInfo._make([*numbers, error.decode("utf-8", "replace")])

    def close(self) -> None:
        """Waits for the transfer and frees the request; raises how it failed, if nothing has raised that before. Waits
        for nothing if an `await` of it was cancelled: then it is freed once the transfer has ended."""
        if not self._closable():
            return
        if self._cancelled and not self._ended and not self.test():
            self._hand_over()
            return
        with self._lock:
            try:
                if not self._ended:
                    self.wait()
            except NvlxError:
                if not self.closed:  # by another thread meanwhile
                    raise
            finally:
                if not self.closed and (self._ended or self._complete()):  # otherwise the wait was interrupted
                    handle = self._live()
                    self._free("nvlx_request_free", passed=_ANY)  # its code is the transfer's
                    self._core.requests.discard(handle)

    def _complete(self) -> bool:
        return _run("nvlx_test", self, passed=_ANY) != _EAGAIN

    def _hand_over(self) -> None:
        """To whoever sweeps next."""
        handle = self.__dict__.pop("_handle", None)
        if handle is not None and not self._core.closed:
            self._core.dropped.append(handle)

    def __exit__(self, *exception: object) -> None:
        if isinstance(exception[0], type) and issubclass(exception[0], asyncio.CancelledError):
            self._cancelled = True
            _sweep_in(asyncio.get_running_loop(), self._engine, weakref.ref(self), 1e-3)
        self.close()

    def __del__(self) -> None:
        self._hand_over()


class _Hub:
    """Reads the events of an engine for who waits for some: loops, each by a descriptor of its own, and callers. Of
    requests it wakes up those who await them; all else it keeps for who reads events. As nobody may, it keeps so many,
    then reads no more: awaiting polls then, and senders are held up."""

    KEPT_MAX = 1024

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        self._lock = threading.RLock()
        self._loops: dict[asyncio.AbstractEventLoop, list[int]] = {}  # a descriptor, and how many wait there
        self._kept: collections.deque[Event] = collections.deque()
        self._waiting: dict[Any, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}  # None: any event
        self.full = False
        _hubs.add(self)

    def _live(self) -> Engine:
        engine = self._engine()
        if engine is None or engine.closed:
            raise _invalid("the Engine is closed")
        return engine

    def fd(self) -> int:
        fd = _I()
        _run("nvlx_event_fd", self._live(), ctypes.byref(fd))
        return fd.value

    # ---- Loops

    def join(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if loop not in self._loops:
                fd = os.dup(self.fd())  # to be taken out of the loop after the engine has closed its own
                try:
                    self._live()  # or it is a copy of something else by now
                    loop.add_reader(fd, self._drain)
                except BaseException:
                    os.close(fd)
                    raise
                self._loops[loop] = [fd, 0]
            self._loops[loop][1] += 1

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            entry = self._loops.get(loop)
            if entry is None:
                return
            entry[1] -= 1
            if entry[1] <= 0:
                del self._loops[loop]
                self._forget(loop, entry[0])

    def _forget(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        if not loop.is_closed():
            loop.remove_reader(fd)
        os.close(fd)

    def stop(self) -> None:
        """In all loops: each waiter finds out why."""
        with self._lock:
            entries, self._loops = self._loops, {}
            self._wake(list(self._waiting))
        for loop, (fd, _) in entries.items():
            try:
                loop.call_soon_threadsafe(self._forget, loop, fd)
            except RuntimeError:  # it is closed
                os.close(fd)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        for fd, _ in self._loops.values():
            os.close(fd)
        self._loops.clear()
        self._waiting.clear()

    # ---- Events

    def _drain(self) -> None:
        try:
            while self._read():
                pass
        except (NvlxError, SystemExit):  # closed by another thread
            self.stop()

    def _read(self) -> bool:
        """One event, if there is one, and room for it."""
        told = _Event(ctypes.sizeof(_Event))
        engine = self._engine()
        with self._lock:
            if engine is None:
                return False
            self.full = len(self._kept) >= self.KEPT_MAX
            if self.full:
                self.stop()
                return False
            if _run("nvlx_next_event", engine, ctypes.byref(told), passed=(_EAGAIN,)) == _EAGAIN:
                return False
            if told.kind == _REQUEST_DONE:
                self._wake([told.request])
            else:
                self._kept.append(_event(engine, told))
                self._wake([None])
        return True

    def _wake(self, keys: Iterable[Any]) -> None:
        for key in keys:
            for loop, future in self._waiting.pop(key, ()):
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(_resolve, future)

    def next(self) -> Event | None:
        with self._lock:
            while not self._kept and self._read():
                pass
            return self._kept.popleft() if self._kept else None

    async def _wait(self, key: Any, ready: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        entry = (loop, future)
        with self._lock:
            self._waiting.setdefault(key, []).append(entry)
        try:
            if not ready():  # what has happened before is no news
                await future
        finally:
            with self._lock:
                entries = self._waiting.get(key, [])
                if entry in entries:
                    entries.remove(entry)
                if not entries:
                    self._waiting.pop(key, None)

    async def completion(self, request: Request) -> None:
        """Returns when the request has told that it is complete, or when nobody can tell."""
        loop = asyncio.get_running_loop()
        try:
            self.join(loop)
        except (NotImplementedError, OSError, NvlxError):  # a loop that watches no descriptors, say
            return
        try:
            await self._wait(request._live(), lambda: self.full or loop not in self._loops or request.test())
        finally:
            self.leave(loop)

    async def events(self) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        self.join(loop)
        try:
            while True:
                event = self.next()
                if event is not None:
                    yield event
                    continue
                if loop not in self._loops:  # there was no room
                    self.join(loop)
                await self._wait(None, lambda: bool(self._kept) or loop not in self._loops)
        except InvalidArgument:
            with contextlib.suppress(InvalidArgument):
                self._live()
                raise
        finally:
            self.leave(loop)


_hubs: weakref.WeakSet[_Hub] = weakref.WeakSet()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _event(engine: Engine, told: Any) -> Event:
    message = ctypes.string_at(told.message, told.message_length) if told.message else b""
    engine_id, reason = told.engine.decode("ascii", "replace"), told.reason.decode("utf-8", "replace")
    peer = engine._peers.get(told.peer)
    return Event(EventKind(told.kind), peer, told.generation, told.unconfirmed, message, told.pid, engine_id, reason)


def _sweep_in(loop: asyncio.AbstractEventLoop, engine: Engine, request: weakref.ref[Request], pause: float) -> None:
    """Asks now and then, in the loop, until the request is complete, and frees it if nobody holds it any more."""
    try:
        engine._sweep()
        held = request()
        waiting = engine._core.dropped or (held is not None and not held.closed and not held._complete())
    except (NvlxError, SystemExit):
        return
    if waiting:
        loop.call_later(pause, _sweep_in, loop, engine, request, min(2 * pause, 0.1))


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
        if _ender is not None:
            raise _error(_EBUSY, "the program is ending: there is no new Engine")
        self._lock = threading.RLock()
        self._owned: set[_Owned] = set()
        self._peers: dict[int, Peer] = {}
        handle = _make(lambda made: _run("nvlx_engine_destroy", made), "nvlx_engine_create", ctypes.byref(config))
        self._core = _Core(handle)
        self._handle = handle
        self._hub = _Hub(self)
        self._backend = str(_library().nvlx_backend_name(handle).decode())
        weakref.finalize(self, _collected, self._core).atexit = False  # before the finalizers of what it keeps

    @property
    def _home(self) -> Engine:
        return self

    @property
    def backend(self) -> str:
        """The backend that it runs on: "cuda" or "host"."""
        self._live()
        return self._backend

    def info(self) -> EngineInfo:
        """Counts of what it holds."""
        return EngineInfo._make(_told(_EngineInfo, "nvlx_engine_get_info", self, EngineInfo._fields))

    def alloc(self, gpu: int, length: int, kind: Alloc = Alloc.CUDA_MALLOC, chunk_length: int = 0) -> int:
        """The address of `length` bytes of new device memory, which lives until `free` or the engine's end."""
        options = _filled(_AllocOptions, flags=kind, chunk_length=chunk_length)
        where = _integer("gpu", gpu, _I), _integer("length", length, _SIZE)
        return _make(self.free, "nvlx_alloc", self, *where, ctypes.byref(options))

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

    def register(self, memory: Memory, name: str | None = None, access: Access = Access.READ_WRITE) -> Region:
        """Registers a contiguous tensor, or (address, length). Its content must be complete before a peer reads it."""
        address, length, kept = _locate(memory)
        options = _filled(_RegionOptions, access=access)
        options.name = None if name is None else _text("name", name)
        handle = _make(self._unregister, "nvlx_register", self, address, length, ctypes.byref(options))
        return Region(self, handle, address, length, kept)

    def _unregister(self, handle: int) -> None:
        _run("nvlx_unregister", handle, 0, also=(self,))

    def digest(self, memory: Memory) -> int:
        """The digest of a contiguous tensor, or (address, length), all of it registered. nvlxfer.h defines the value."""
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
        """From now on peers are told nothing of what is registered and closed here, until `publish` tells all at once."""
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
        moved = [None] * len(listed) if addresses is None else list(addresses)
        if len(moved) != len(listed):
            raise _invalid(f"{len(listed)} regions have {len(moved)} addresses")
        where = [0 if address is None else _integer("address", address) for address in moved]
        _run("nvlx_resume", _handles(listed), len(listed), (_P * len(where))(*where), also=(self, *listed))
        for region, address in zip(listed, where):
            if address and address != region.address:
                region.address, region._memory = address, None

    def _list_regions(self, regions: Iterable[Region]) -> list[Region]:
        listed = list(regions)
        for region in listed:
            if not isinstance(region, Region):
                raise _wrong_type("a region", region, "what Engine.register returned")
        return listed

    def peer_open(self, text: str) -> Peer:
        """A peer, from the text of its Engine.export()."""
        encoded = _text("text", text, nul=True)
        return Peer(self, _make(self._leave, "nvlx_peer_open", self, encoded, len(encoded)))

    def _leave(self, handle: int) -> None:
        _run("nvlx_peer_close", handle, also=(self,))

    def serve(
        self, address: str, users: Sequence[int] = (), groups: Sequence[int] = (), *, mode: int = 0,
        max_connections: int = 0,
    ) -> None:  # fmt: skip
        """Lets peers connect at a path or an "@abstract" address, beside the own user those of `users` and `groups`."""
        options = _filled(_ServeOptions, mode=mode, max_connections=max_connections)
        user_ids, group_ids = _integers("users", users, _U32), _integers("groups", groups, _U32)
        options.users, options.user_count = user_ids, len(user_ids)
        options.groups, options.group_count = group_ids, len(group_ids)
        _run("nvlx_serve", self, _text("address", address), ctypes.byref(options))

    def connect(self, address: str, timeout: float | None = 10.0) -> Peer:
        """A peer that serves at the address, or will within `timeout` seconds. It follows what the peer registers."""
        encoded = _text("address", address)
        slices = _slices(_seconds(timeout), 0.05, 12.8)  # longer and longer: a busy server may need that

        def connect(nanoseconds: int) -> Peer:
            return Peer(self, _make(self._leave, "nvlx_connect", self, encoded, nanoseconds))

        return _interruptibly(lambda stop: _in_slices(slices, stop, connect), Peer.close)

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

    def _note(self, options: Any) -> bool:
        """Where a loop runs in this thread, a transfer shall tell it when it is complete."""
        if asyncio._get_running_loop() is None:
            return False
        options.flags |= _DONE_EVENT
        return True

    def transfer(
        self, ops: Ops | Iterable[Ops], stream: Any = None, no_map: bool = False, *, mechanism: int = 0,
        max_sms: int = 0, priority: int = 0, generation: int = 0, verify: bool = False, message: Buffer | None = None,
    ) -> Request:  # fmt: skip
        """Starts copies: all, or none if it raises. Without `stream`, one of CUDA's (PyTorch's, CuPy's, or its number),
        the sources' content must be complete. With the `generation` at which the peer's addresses were learned, bytes
        that came later are Stale. `verify` compares what has arrived with the digests that the peer told of its
        regions: awaiting the request raises WrongDigest. The message goes to the one peer of all ops when they are
        complete. The rest is as in struct nvlx_transfer_options."""
        self._sweep()
        joined = _joined(ops)
        careful = _in_main_thread()  # there, mapping is left to another thread, as Ctrl-C shall end it
        options = _options(stream, no_map or careful, verify, mechanism=mechanism, max_sms=max_sms, priority=priority,
                           generation=generation)  # fmt: skip
        kept, noted = _with_message(options, message), self._note(options)
        while True:
            passed = () if no_map or not careful else (_EAGAIN,)
            made = _make(self._core.dropped.append, "nvlx_transfer", self, *joined._arguments(self),
                         ctypes.byref(options), also=joined._peers, passed=passed)  # fmt: skip
            if made:
                del kept
                return Request(self, made, noted)
            careful = _interruptibly(lambda stop: self._map(joined))
            options.flags &= ~(0 if careful else _NO_MAP)

    def _map(self, ops: Ops) -> bool:
        """Maps what a list needs, but starts nothing. False: there is no room for such a list."""
        try:
            self._unprepare(self._prepare(ops, _options(None, mechanism=Mechanism.COPY_ENGINE)))
            return True
        except (Busy, NotSupported):  # rows that copy engines do not take
            return False

    def prepare(
        self, ops: Ops | Iterable[Ops], no_map: bool = False, *, mechanism: int = 0, max_sms: int = 0,
        priority: int = 0, generation: int = 0,
    ) -> Prepared:  # fmt: skip
        """Checks and maps copies that are to be started many times."""
        joined = _joined(ops)
        options = _options(None, no_map, mechanism=mechanism, max_sms=max_sms, priority=priority,
                           generation=generation)  # fmt: skip
        return _interruptibly(lambda stop: Prepared(self, self._prepare(joined, options)), Prepared.close)

    def _prepare(self, ops: Ops, options: Any) -> int:
        arguments = (*ops._arguments(self), ctypes.byref(options))
        return _make(self._unprepare, "nvlx_prepare", self, *arguments, also=ops._peers)

    def _unprepare(self, handle: int) -> None:
        _run("nvlx_prepared_free", handle, also=(self,))

    def _sweep(self) -> None:
        """Frees dropped requests whose transfers have ended."""
        core = self._core
        for _ in range(len(core.dropped)):
            try:
                handle = core.dropped.popleft()
            except IndexError:  # another thread was here
                return
            if _run("nvlx_test", handle, also=(self,), passed=_ANY) == _EAGAIN:
                core.dropped.append(handle)
            else:
                _run("nvlx_request_free", handle, also=(self,), passed=_ANY)
                core.requests.discard(handle)

    def close(self) -> None:
        """Waits for all calls and transfers in flight, then frees all that came from this engine."""
        if self._handle is not None and self._core.forked:
            self._handle = None
        if self._handle is not None and (not self._core.closed or not self._lock.acquire(blocking=False)):
            self._refuse_from_inside()
            _interruptibly(lambda stop: self._close())
        elif self._handle is not None:
            self._lock.release()

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
            finally:
                while self._owned:
                    self._owned.pop()._drop()


# ---- The end ---------------------------------------------------------------------------------------------------------

_CALLS_END, _TRANSFERS_END = 2.0, 10.0  # seconds that calls and transfers in flight get when the program ends


def _collected(core: _Core) -> None:
    """An engine was dropped. Where this thread is inside the library, or is one of its own, another one destroys it."""
    if _ender is not None or not core.take():
        return
    if _here.in_c or threading.get_ident() not in getattr(threading, "_active", ()):
        try:
            _thread.start_new_thread(core.destroy_quietly, ())
        except RuntimeError:  # there can be no more threads: the end of the program destroys it
            core.give_back()
    else:
        core.destroy_quietly()


def _calls_end(deadline: float) -> bool:
    """Whether no other thread is inside the library any more."""
    me = threading.get_ident()
    while any(thread != me for thread, _ in _calls.copy().values()):
        if time.monotonic() > deadline:
            return False
        time.sleep(1e-3)
    return True


def _transfers_end(core: _Core, deadline: float) -> bool:
    for handle in core.requests.copy():
        while _run("nvlx_wait", handle, int(0.1 * 1e9), passed=_ANY) == _ETIMEDOUT:
            if time.monotonic() > deadline:
                return False
    return True


def _destroy_all(handles: list[int], deadline: float) -> None:
    """In another thread, if Python lets one start now: destroying waits for kernels, which may never end."""

    def work() -> None:
        for handle in handles:
            _library().nvlx_engine_destroy(handle)

    thread = threading.Thread(target=work, name="nvlxfer-end", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        work()
    else:
        thread.join(max(0.0, deadline - time.monotonic()))


@atexit.register
def _end() -> None:
    """Threads that Python does not wait for may be inside calls: what they use is freed when they have left, or not."""
    global _ender
    _ender = threading.get_ident()
    cores = [core for core in list(_cores.values()) if core.take()]
    deadline = time.monotonic() + _TRANSFERS_END
    if _calls_end(time.monotonic() + _CALLS_END) and all(_transfers_end(core, deadline) for core in cores):
        _destroy_all([core.handle for core in cores], deadline)
    _log.end()


def _after_fork() -> None:
    """In the child, where of the threads only this one is left, and the engines are the parent's."""
    for core in _cores.values():
        core.forked = True
    for hub in list(_hubs):
        hub.after_fork()
    _cores.clear()
    _calls.clear()
    _log.after_fork()


os.register_at_fork(after_in_child=_after_fork)
