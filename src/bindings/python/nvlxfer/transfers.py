# SPDX-License-Identifier: Apache-2.0
"""Transfers: their options, their completion, and lists that were prepared."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from _thread import RLock as _RLock  # threading's is a function around it
from collections.abc import Callable, Container, Generator
from ctypes import byref as _byref
from ctypes import c_void_p as _c_void_p
from typing import TYPE_CHECKING, Any

from ._c.arguments import Buffer, _integer, _message, _slices
from ._c.calls import (
    Users,
    _call,
    _in_flight,
    _in_main_thread,
    _interruptibly,
    _local,
    _Object,
    _Owned,
    _program,
    _run,
    _running_loop,
    _this_loop,
    _threads_inside,
    _told,
    _wait_for_calls,
)  # fmt: skip
from ._c.native import _DONE_EVENT, _NO_MAP, _P, _U32, _VERIFY, _plain, _RequestInfo, _TransferOptions
from ._c.values import STREAM_LEGACY, RequestInfo
from .errors import _ANY, _EAGAIN, _ETIMEDOUT, Busy, NvlxError, _error, _wrong_type
from .log import _log

if TYPE_CHECKING:
    import asyncio

    from .engine import Engine

_modules = sys.modules
_NOT_YET, _LATE = (_EAGAIN,), (_ETIMEDOUT,)
_SLICE = ctypes.c_int64(int(0.1 * 1e9))  # between two of them Python sees signals

_DEFAULT = 0  # compared by `is`: then it was not given, or is as good. A False, say, is to be refused
# By flags: options that have nothing else, for all calls that give no more. C only reads them.
_FLAGS = [ctypes.byref(_TransferOptions(ctypes.sizeof(_TransferOptions), flags))
          for flags in range(2 * max(_NO_MAP, _VERIFY, _DONE_EVENT))]  # fmt: skip


def _options(
    stream: Any, flags: int = 0, *, mechanism: int = 0, max_sms: int = 0, priority: int = 0, generation: int = 0
) -> Any:
    return _TransferOptions(
        ctypes.sizeof(_TransferOptions),
        flags,
        _stream(stream),
        _integer("mechanism", mechanism, _U32),
        _integer("max_sms", max_sms, _U32),
        _integer("priority", priority, ctypes.c_int32),
        _integer("generation", generation),
    )


def _noted() -> int:
    """Where a loop runs in this thread, a transfer shall tell it when it is complete."""
    return 0 if _running_loop() is None else _DONE_EVENT


def _with_message(options: Any, message: Buffer | None) -> Any:
    """The options, and what keeps the bytes until C has copied them."""
    if message is None:
        return None
    kept, length = _message(message)
    options.message = ctypes.cast(kept if length else ctypes.c_char_p(b""), _P)  # of no bytes is not none
    options.message_length = length
    return kept


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


class Prepared(_Owned):
    """A list of copies that was checked and mapped once."""

    _instead = "Prepare the list in the process that posts it"

    def __init__(self, engine: Engine, handle: int, count: int) -> None:
        super().__init__(engine, handle)
        self._count = count

    def _words(self) -> str:
        return f"{self._count} ops"

    def post(self, stream: Any = None, *, message: Buffer | None = None) -> Request:
        """Starts all copies of the list. The message comes after them. Stale: the peer has withdrawn or replaced memory
        of the list, or is gone, which `Peer.test` tells: find the names again and prepare anew, or connect again."""
        if self._core.dropped:
            self._engine._sweep()
        noted = _noted() if "asyncio.events" in _modules else 0
        if stream is message is None:
            return Request(self._engine, noted, _plain.post, (self,), (self._pointer, _FLAGS[noted]))
        options = _options(stream, noted)
        kept = _with_message(options, message)
        request = Request(self._engine, noted, _plain.post, (self,), (self._pointer, _byref(options)))
        del kept
        return request

    def capture(self, stream: Any) -> None:
        """Into the graph that a CUDA stream captures: each replay copies the list. The graph keeps what it uses until
        it is gone."""
        _run("nvlx_post", self, ctypes.byref(_options(stream)), None)

    def close(self) -> None:
        """Waits for its posts in flight."""
        if self._closable():
            _interruptibly(lambda stop: self._free("nvlx_prepared_free"))
            self._engine._shared.settle()


class Request(_Object):
    """The completion of one transfer: `wait`, `test`, or `await` it, from any number of threads."""

    _instead = "Wait for it in this process"
    _cancelled = False

    def __init__(
        self, engine: Engine, noted: int, call: Any, users: Users, given: tuple[Any, ...], passed: Container[int] = ()
    ) -> None:
        """Calls what makes its handle. That is its own as soon as C has written it, whatever comes between: who drops
        it sees to it. After a code of `passed` it has none."""
        self._core = core = engine._core
        self._pointer = pointer = _c_void_p()
        try:
            _call(call, users, (*given, _byref(pointer)), passed)
        finally:
            handle = self._handle = pointer.value
            if handle is not None:
                core.requests.add(handle)
        # While copies run:
        self._engine = engine
        self._lock, self._closing = _RLock(), False
        self._ended = False  # and, if it failed, somebody was told
        self._noted = noted  # its completion is an event

    def _words(self) -> str:
        return "complete" if self._ended else "in flight, as far as anybody has asked"

    def _ask(self, passed: Container[int], call: Any, *given: Any) -> bool:
        """True: complete; raises if the transfer failed."""
        try:
            if _call(call, (self,), (self._pointer, *given), passed):
                return False
        except NvlxError:
            self._note_failure()
            raise
        self._ended = True
        return True

    def _note_failure(self) -> None:
        """The transfer's own, unless the call was refused."""
        self._ended = not (self.closed or self._closing or _local.here.in_log)

    def test(self) -> bool:
        """Whether every byte is in place; raises if the transfer failed."""
        return self._ask(_NOT_YET, _plain.test)

    def wait(self, timeout: float | None = None) -> None:
        """Until every byte is in place; raises if the transfer failed. Timeout: it is still in flight after `timeout`
        seconds; wait again."""
        if timeout is not None or _log.explicit:
            self._wait_in_slices(timeout)
            return
        try:
            if not _call(_plain.wait, (self,), (self._pointer, _SLICE), _LATE):  # as nearly always
                self._ended = True
                return
        except NvlxError:
            self._note_failure()
            raise
        self._wait_in_slices(timeout)

    def _wait_in_slices(self, timeout: float | None) -> None:
        if _log.explicit and _in_main_thread() and not self.test():  # there, what logs would swallow Ctrl-C
            _interruptibly(lambda stop: self._wait(timeout, stop))
        else:
            self._wait(timeout, lambda: False)

    def _wait(self, timeout: float | None, stop: Callable[[], bool]) -> None:
        for nanoseconds in _slices(timeout, 0.1, 0.1):
            if self._ask(_LATE, _plain.wait, ctypes.c_int64(nanoseconds)) or stop():
                return
        raise _error(_ETIMEDOUT, f"the transfer is still in flight after {timeout} s")

    def __await__(self) -> Generator[Any, None, None]:
        return self._poll().__await__()

    async def _poll(self) -> None:
        import asyncio

        pause = 0.0
        self._cancelled = False
        try:
            if self._noted and not self._seen():
                await self._engine._hub.completion(self)
                self._noted = False  # it was told, or nobody can tell
            while not self._seen():
                await asyncio.sleep(pause)
                pause = min(1.5 * pause + 20e-6, 2e-3)
        except asyncio.CancelledError:
            self._give_up()
            raise

    def _seen(self) -> bool:
        """`test`, for who awaits it. False while another thread frees it: then it is closed, and the next tells so."""
        try:
            return self.test()
        except Busy:
            if self._ended:  # the transfer's own
                raise
            return False

    def _give_up(self) -> None:
        """Nobody awaits it any more: it is freed when it is complete, unless somebody holds it."""
        self._cancelled = True
        loop, engine, request = _this_loop(), self._engine, weakref.ref(self)
        if self.closed or not self._noted or not engine._hub.tell(self, _sweep_in, loop, engine, request, 1e-3):
            _sweep_in(loop, engine, request, 1e-3)

    def info(self) -> RequestInfo:
        """What is known of the transfer, in flight or complete."""
        *numbers, error = _told(_RequestInfo, "nvlx_request_get_info", self, RequestInfo._fields)
        return RequestInfo._make([*numbers, error.decode("utf-8", "replace")])

    def close(self) -> None:
        """Waits for the transfer and frees the request; raises how it failed, if nothing has raised that before. Waits
        for nothing if an `await` of it was cancelled: then it is freed once the transfer has ended."""
        if (self._ended and self._free_ended()) or not self._closable():
            return
        if self._cancelled and not self._ended and self._leave():
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
                    self._core.requests.discard(handle)  # first: C may give what is free to another transfer
                    try:
                        self._free("nvlx_request_free", passed=_ANY)  # its code is the transfer's
                    finally:
                        if self._handle is not None:
                            self._core.requests.add(handle)
                    self._engine._hub.wake(handle)  # who awaits it: an event of what is freed does not come
        self._wait_for_home()

    def _free_ended(self) -> bool:
        """What `close` does where nothing unusual is the case, in short: the steps are those of `_free_alone`, with the
        same lock. False: something is, and nothing was done. Nobody can tell whether C was called if an interrupt comes
        right before: then its engine's end frees it."""
        core = self._core
        if core.forks != _program.forks:  # then nobody may give the lock back
            return False
        with self._lock:
            handle = self._handle
            if handle is None or self._closing or core.closed:
                return False
            if _in_flight and threading.get_ident() in _threads_inside(self):
                return False
            self._closing = True  # new calls on it are refused from here on
            try:
                if _in_flight:
                    _wait_for_calls(self)
                self._handle = None
                core.requests.discard(handle)  # first: C may give what is free to another transfer
                try:
                    _call(_plain.request_free, (self._engine,), (self._pointer,), _ANY)
                except NvlxError:  # its engine was closed meanwhile, or this thread logs
                    core.requests.add(handle)
                    self._handle = handle
                    return False
            finally:
                self._closing = False
        hub = self._engine._hub
        if hub._waiting:  # who is not there yet sees by itself that it is closed
            hub.wake(handle)
        if core.closed:
            self._wait_for_home()
        return True

    def _complete(self) -> bool:
        return _run("nvlx_test", self, passed=_ANY) != _EAGAIN

    def _leave(self) -> bool:
        """Whether others see to it: who sweeps next, or another thread that is closing it."""
        try:
            if self._complete():
                return False
        except NvlxError:
            return True
        self._hand_over()
        return True

    def _hand_over(self) -> None:
        """To whoever sweeps next."""
        handle = self.__dict__.pop("_handle", None)
        if handle is not None and not self._core.closed:
            self._core.dropped.append(handle)

    def __exit__(self, kind: object = None, *exception: object) -> None:
        if kind is None:
            if self._ended and self._free_ended():
                return
        elif _is_cancellation(kind):
            self._give_up()
        self.close()

    def __del__(self) -> None:
        if self._handle is not None:
            self._hand_over()


def _is_cancellation(kind: object) -> bool:
    if _running_loop() is None:
        return False
    import asyncio

    return isinstance(kind, type) and issubclass(kind, asyncio.CancelledError)


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
