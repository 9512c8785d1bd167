# SPDX-License-Identifier: Apache-2.0
"""Transfers: their options, their completion, and lists that were prepared."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ._c.arguments import Buffer, _integer, _message, _slices
from ._c.calls import (
    _in_main_thread,
    _interruptibly,
    _make,
    _Object,
    _Owned,
    _run,
    _running_loop,
    _this_loop,
    _told,
)  # fmt: skip
from ._c.native import _NO_MAP, _P, _U32, _VERIFY, _RequestInfo, _TransferOptions
from ._c.values import STREAM_LEGACY, RequestInfo
from .errors import _ANY, _EAGAIN, _ETIMEDOUT, Busy, NvlxError, _error, _wrong_type
from .log import _log

if TYPE_CHECKING:
    import asyncio

    from .engine import Engine


def _options(
    stream: Any, no_map: bool = False, verify: bool = False, *, mechanism: int = 0, max_sms: int = 0,
    priority: int = 0, generation: int = 0,
) -> Any:  # fmt: skip
    return _TransferOptions(
        ctypes.sizeof(_TransferOptions),
        (_NO_MAP if no_map else 0) | (_VERIFY if verify else 0),
        _stream(stream),
        _integer("mechanism", mechanism, _U32),
        _integer("max_sms", max_sms, _U32),
        _integer("priority", priority, ctypes.c_int32),
        _integer("generation", generation),
    )


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
        self._engine._sweep()
        options = _options(stream)
        kept, noted = _with_message(options, message), self._engine._note(options)
        made = _make(self._core.dropped.append, "nvlx_post", self, ctypes.byref(options))
        del kept
        return Request(self._engine, made, noted)

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
    _ended = False  # and, if it failed, somebody was told
    _cancelled = False

    def __init__(self, engine: Engine, handle: int, noted: bool = False) -> None:
        super().__init__(engine, handle)
        self._noted = noted  # its completion is an event
        engine._core.requests.add(handle)

    def _words(self) -> str:
        return "complete" if self._ended else "in flight, as far as anybody has asked"

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
        if _log.explicit and _in_main_thread() and not self.test():  # there, what logs would swallow Ctrl-C
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
        if not self._closable():
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
                    self._free("nvlx_request_free", passed=_ANY)  # its code is the transfer's
                    self._core.requests.discard(handle)
                    self._engine._hub.wake(handle)  # who awaits it: an event of what is freed does not come
        self._wait_for_home()

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

    def __exit__(self, *exception: object) -> None:
        if _running_loop() is not None and _is_cancellation(exception[0]):
            self._give_up()
        self.close()

    def __del__(self) -> None:
        self._hand_over()


def _is_cancellation(kind: object) -> bool:
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
