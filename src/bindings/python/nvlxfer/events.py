# SPDX-License-Identifier: Apache-2.0
"""Events of an engine, for loops of asyncio and for callers."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ._c.calls import _run, _this_loop
from ._c.native import _I, _REQUEST_DONE, _Event
from ._c.values import EventKind
from .errors import _EAGAIN, InvalidArgument, NvlxError, _invalid

if TYPE_CHECKING:
    import asyncio

    from .engine import Engine
    from .peers import Peer
    from .transfers import Request


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
    wait: int  # WAIT_FAILED: what Engine.stream_wait returned


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

    async def _wait(self, key: Any, ready: Callable[[], bool], request: Request | None = None) -> None:
        loop = _this_loop()
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
                elif request is not None:  # also if it was cancelled at the same moment
                    request._noted = False
                if not entries:
                    self._waiting.pop(key, None)

    async def completion(self, request: Request) -> None:
        """Returns when the request has told that it is complete, or when nobody can tell."""
        loop, handle = _this_loop(), request._handle
        if handle is None:  # closed
            return
        try:
            self.join(loop)
        except (NotImplementedError, OSError, NvlxError):  # a loop that watches no descriptors, say
            return
        try:
            await self._wait(handle, lambda: self.cannot_tell(loop) or request._seen(), request)
        finally:
            self.leave(loop)

    def tell(self, request: Request, function: Callable[..., Any], *arguments: Any) -> bool:
        """Calls the function in this loop when the request is complete or the engine closed. False: who can tell?"""
        loop = _this_loop()
        try:
            self.join(loop)
        except (NotImplementedError, OSError, NvlxError):
            return False
        future: asyncio.Future[None] = loop.create_future()

        def tell(done: asyncio.Future[None]) -> None:
            self.leave(loop)
            function(*arguments)

        future.add_done_callback(tell)
        with self._lock:
            self._waiting.setdefault(request._handle, []).append((loop, future))
        if self.cannot_tell(loop) or request._complete():  # what has happened before is no news
            self.wake(request._handle)
        return True

    def cannot_tell(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self.full or loop not in self._loops

    def wake(self, key: Any) -> None:
        """Who waits for this now. Who begins to afterwards sees by itself that it has happened, as `_wait` asks."""
        with self._lock:
            self._wake([key])

    async def events(self) -> AsyncGenerator[Event, None]:
        loop = _this_loop()
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
    return Event(
        EventKind(told.kind), peer, told.generation, told.unconfirmed, message, told.pid, engine_id, reason, told.wait
    )
