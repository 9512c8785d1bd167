# SPDX-License-Identifier: Apache-2.0
"""Calls of C, the threads in them, and the objects that they use."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ..errors import _ANY, _EBUSY, _ETIMEDOUT, Busy, NvlxError, _error, _invalid
from .native import _last_error, _library

if TYPE_CHECKING:
    import asyncio

    from ..engine import Engine

_Result = TypeVar("_Result")
_Self = TypeVar("_Self", bound="_Object")
Users = Sequence["_Object"]
_CALLS_END, _TRANSFERS_END = 2.0, 10.0  # seconds that calls and transfers in flight get when the program ends
_in_flight: dict[int, tuple[int, Users]] = {}  # calls, by the entry's id(): the thread, and what it uses


def _all_in_flight() -> list[tuple[int, Users]]:
    """Of this moment. A copy() of the dict is no single step: the garbage collector may run within, and change it."""
    return list(_in_flight.values())


class _Listener:
    """Who is told what the library logs: log.py has the real one."""

    def deliver(self, raised: NvlxError | None = None) -> None:
        """Tells the messages of calls that this thread made, of which the last one raises that."""


class _Program:
    """What there is once in a process."""

    def __init__(self) -> None:
        self.main = threading.main_thread().ident  # the thread that gets signals
        self.ender: int | None = None  # the thread that ends the program: others get no further
        self.forks = 0  # between the first process and this one
        self.log = _Listener()


_program = _Program()


class _Here:
    """What a thread is doing."""

    __slots__ = "caller", "ident", "in_c", "in_log", "interrupted", "messages"

    def __init__(self) -> None:
        self.ident = threading.get_ident()
        self.in_c = False  # Python code that runs meanwhile was called by the library, or by the collector within
        self.in_log = False
        self.interrupted = False
        self.caller = 0  # whose work this thread does, while that one waits; 0: its own
        self.messages: list[tuple[int, bytes]] = []  # of calls that it makes


class _EachThread(threading.local):
    """Where each thread has its own. To look here takes longer than to look at what is there."""

    def __init__(self) -> None:
        self.here = _Here()


_local = _EachThread()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """This thread's. To import asyncio takes longer than all else here: programs that do not use it do without."""
    get = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return None if get is None else get()


def _this_loop() -> asyncio.AbstractEventLoop:
    """The same, for who runs in one. RuntimeError: it is not one of asyncio."""
    import asyncio

    return asyncio.get_running_loop()


def _check_thread() -> None:
    """While the program ends, other threads that come here end without a word, as Python itself soon ends them."""
    if _program.ender is not None and _program.ender != threading.get_ident():
        _end_thread()
    if _local.here.in_log:
        raise _error(_EBUSY, "this thread is inside the library, which has called Python to log")


def _end_thread() -> None:
    for entry in _all_in_flight():
        if entry[0] == threading.get_ident():  # what it was about to call
            _in_flight.pop(id(entry), None)
    if _running_loop() is None:
        raise SystemExit
    time.sleep(_CALLS_END + _TRANSFERS_END)  # asyncio would complain of a task that ends so: the program's end is near
    raise SystemExit


def _run(function: str, *arguments: Any, also: Iterable[_Object] = (), passed: Container[int] = ()) -> int:
    """Calls C. It gets the handles of objects among the arguments, which, as those `also` used, nobody frees meanwhile.
    Returns 0 or a code of `passed`, and raises what other codes mean."""
    _check_thread()
    users = [*also, *(each for each in arguments if isinstance(each, _Object))]
    _refuse_closed(users)
    given = [each._live() if isinstance(each, _Object) else each for each in arguments]
    return _call(getattr(_library(), function), users, given, passed)


def _call(call: Any, users: Users, given: Sequence[Any], passed: Container[int] = ()) -> int:
    """What `_run` does, for who has the function and what it is given at hand. Each transfer comes here: it is brief.
    In this order:
    - The call is entered. Who frees a user refuses new calls first, then looks who has entered, and waits for them: so
      does the end of the program.
    - Other threads end here once the program does, and a user that is closed, or about to be, is refused.
    - What C logs meanwhile is kept, and told afterwards: only then may Python run that is not ours."""
    here = _local.here
    entry = (here.ident, users)
    key, failure = id(entry), None
    try:
        _in_flight[key] = entry
        if here.in_log or _program.ender is not None:
            _check_thread()
        if len(users) == 1:
            user = users[0]
            if user._handle is None or user._closing or user._core.closed:
                user._refuse()
        else:
            _refuse_closed(users)
        here.in_c = True
        try:
            code: int = call(*given)
            if code and code not in passed:
                failure = _last_error(code)
        finally:
            here.in_c = False
    finally:
        _in_flight.pop(key, None)
    if here.messages or here.interrupted:
        _program.log.deliver(failure)
    if failure is None:
        return code
    try:
        raise failure
    finally:
        del failure  # or it and this frame would keep each other, and what they name


def _refuse_closed(users: Users) -> None:
    """A function: Python 3.13 takes a signal at the end of a loop as if that were outside of the `try` around it."""
    for user in users:
        if user._handle is None or user._closing or user._core.closed:
            user._refuse()


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


def _told(struct: Any, function: str, whose: _Object, names: Sequence[str]) -> list[Any]:
    info = struct(ctypes.sizeof(struct))
    _run(function, whose, ctypes.byref(info))
    return [getattr(info, name) for name in names]


def _threads_inside(target: _Object) -> list[int]:
    """Of calls in flight that use the object, or what came from it."""
    found: list[int] = []
    if not _in_flight:  # as nearly always
        return found
    for thread, users in _all_in_flight():
        if any(target in (user, user._home) for user in users):
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
        self._caller = threading.get_ident()
        self._result: Any = None
        self._failure: BaseException | None = None

    def run(self) -> None:
        _local.here.caller = self._caller
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
    return _local.here.ident == _program.main and _program.ender is None


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


class _Core:
    """What of an engine outlives the object that users hold, until it is destroyed."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.closed = False  # nobody enters any more
        self.forks = _program.forks
        self.requests: set[int] = set()  # not freed yet
        self.relays: set[int] = set()  # likewise: they use memory of the engine
        self.dropped: collections.deque[int] = collections.deque()  # those of them that nobody holds any more
        self.watch: object = None  # tells when the engine goes; weakref.finalize fails where threads come at the end
        _cores[id(self)] = self

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that made it."""
        return self.forks != _program.forks

    def take(self) -> bool:
        """True once: whoever takes it destroys it, or gives it back."""
        taken = _cores.pop(id(self), None) is not None
        self.closed = self.closed or taken
        return taken

    def give_back(self) -> None:
        self.closed = False
        _cores[id(self)] = self

    def free_relays(self) -> bool:
        """Whether nobody reads from them any more; else the engine must stay."""
        free = [handle for handle in self.relays.copy() if not _library().nvlx_relay_free(handle, int(1e9))]
        self.relays.difference_update(free)
        return not self.relays

    def destroy(self, passed: Container[int] = ()) -> int:
        """Busy: it is still there."""
        if not self.free_relays():
            raise _error(_EBUSY, "others read from a relay of this engine")
        code = _run("nvlx_engine_destroy", self.handle, passed=passed)
        self.watch = None
        return code

    def destroy_quietly(self) -> None:
        try:
            busy = self.destroy(_ANY) == _EBUSY  # nothing is raised, so the log tells why
        except Busy:
            busy = True
        except (NvlxError, SystemExit):
            return
        if busy:
            self.give_back()  # the end of the program tries again


_cores: dict[int, _Core] = {}  # the open ones


class _Local:
    """What is of no use in another process."""

    _instead = ""  # what to send there

    def __reduce_ex__(self, protocol: Any) -> Any:  # what copy and pickle ask
        name = type(self).__name__
        raise TypeError(f"{name} cannot be copied or pickled: it is an object of this process. {self._instead}")


class _Object(_Local):
    """A handle of the library's, and the engine that it came from."""

    _core: _Core
    _handle: int | None = None  # not the object's own, or no more: None
    _pointer: ctypes.c_void_p  # the same, for _call: not to be read by others, as it stays when that goes
    _closing = False  # each has its own, which is found sooner: this is for those that were not made whole

    def __init__(self, engine: Engine, handle: int) -> None:
        self._engine, self._core, self._closing = engine, engine._core, False
        self._lock = threading.RLock()  # of those that close
        self._handle, self._pointer = handle, ctypes.c_void_p(handle)

    @property
    def _home(self) -> Engine:
        return self._engine

    @property
    def closed(self) -> bool:
        return self._handle is None or self._core.closed

    def __repr__(self) -> str:
        words = ", ".join(filter(None, (self._words(), "closed" if self.closed else "")))
        return f"<nvlxfer.{type(self).__name__}{words and ': '}{words}>"

    def _words(self) -> str:
        """What it is, in few words, without a call of C."""
        return ""

    def _live(self) -> int:
        """The handle."""
        handle = self._handle
        if handle is None or self._closing or self._core.closed:
            self._refuse()
        return handle

    def _refuse(self) -> NoReturn:
        if self._closing:
            raise _error(_EBUSY, f"another thread is closing the {type(self).__name__}")
        _check_thread()
        other = "" if self._home is self else ", or its engine is"
        raise _invalid(f"the {type(self).__name__} is closed{other}")

    def _closable(self) -> bool:
        """Whether there is something to close for this process, or to wait for: another thread that closes it."""
        if self._core.forked:
            self._handle = None  # it is the parent's
            return False
        if self.closed and self._is_over():
            return False
        self._refuse_from_inside()
        if self._core.closed:
            self._home._refuse_from_inside()
        return True

    def _is_over(self) -> bool:
        """Whether it is closed, and no thread is about to, nor to close its engine: such a thread may fail."""
        for lock in (self._lock, self._home._lock) if self._core.closed else (self._lock,):
            if not lock.acquire(blocking=False):
                return False
            lock.release()
        return self.closed

    def _refuse_from_inside(self) -> None:
        if threading.get_ident() in _threads_inside(self):
            raise _error(_EBUSY, f"this thread is inside a call on the {type(self).__name__} that it would close")

    def _free(self, function: str, *arguments: Any, passed: Container[int] = (), within: float = -1) -> int:
        """Frees it in C, once no other thread is inside a call on it. After a failure it is as it was. Who frees it
        already, or closes its engine, is waited for: `within` seconds, or for ever. Timeout: it still does."""
        code = 0
        if not self._lock.acquire(True, within):
            if self._handle is None and not self._closing and not self._core.closed:
                return 0  # another thread only looks whether it is closed
            self._tell_late()
        try:
            if self._closing:
                raise _error(_EBUSY, f"this thread is closing the {type(self).__name__} already")
            if not self.closed:
                code = self._free_alone(function, *arguments, passed=passed)
        finally:
            self._lock.release()
        self._wait_for_home(within)
        return code

    def _wait_for_home(self, within: float = -1) -> None:
        """Until no thread closes its engine. Not where such a thread waits for a call that this one is inside of, as
        when the garbage collector came in the middle of it."""
        if not self._core.closed or (_local.here.caller or threading.get_ident()) in _threads_inside(self._home):
            return
        if not self._home._lock.acquire(True, within):
            self._tell_late()
        self._home._lock.release()

    def _tell_late(self) -> NoReturn:
        raise _error(_ETIMEDOUT, f"another thread is closing the {type(self).__name__}, or its engine")

    def _free_alone(self, function: str, *arguments: Any, passed: Container[int]) -> int:
        code = 0
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


class _Owned(_Object):
    """One that its engine keeps until it is closed."""

    def __init__(self, engine: Engine, handle: int) -> None:
        super().__init__(engine, handle)
        engine._owned.add(self)

    def _free_alone(self, function: str, *arguments: Any, passed: Container[int]) -> int:
        code = super()._free_alone(function, *arguments, passed=passed)
        self._engine._owned.discard(self)
        self._drop()
        return code

    def _drop(self) -> None:
        self._handle = None
