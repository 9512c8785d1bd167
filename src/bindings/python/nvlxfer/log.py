# SPDX-License-Identifier: Apache-2.0
"""Where the log of the process goes: to `logging`, or to a function."""

from __future__ import annotations

import contextlib
import ctypes
import logging  # before atexit.register: what is logged at the end then finds it open
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from ._c.arguments import _integer
from ._c.calls import _check_thread, _Listener, _local, _program
from ._c.native import _I, _P, _S, _last_error, _library, _when_loaded
from ._c.values import _Enum
from .errors import _ENOMEM, NvlxError, _error, _invalid, _wrong_type


class LogLevel(_Enum):
    """Up to which the log tells."""

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
        return _program.ender is not None and _program.ender != me
    return isinstance(failure, KeyboardInterrupt) and threading.main_thread().ident == me


def _complain() -> None:
    try:
        sys.excepthook(*sys.exc_info())
    except BaseException as failure:
        if _passes(failure):
            raise
        sys.__excepthook__(*sys.exc_info())


class _Log(_Listener):
    """Where messages go. The library may hold a lock while it logs, so its callback only keeps the message. The thread
    that made the call tells it when it is back in Python; what the library's own threads log, a thread here tells."""

    def __init__(self) -> None:
        self.used = False
        self.explicit = False  # a program has said where to
        self._function: LogFunction | None = None
        self._callback: Any = None  # once made, it lives as long as the process
        self._queue: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # of those that set: no function runs under it, as it may wait for who sets

    def begin(self, library: Any) -> None:
        """To `logging`, until a program says where to. The thread that tells starts when there is something to tell."""
        asked = os.environ.get("NVLX_LOG_LEVEL", "")
        level = int(asked) if asked in ("0", "1", "2", "3") else LogLevel.WARNING
        self._callback = self._callback or _LOG_CALLBACK(self._keep)
        with contextlib.suppress(NvlxError):  # a library that is too old
            if library.nvlx_set_log(level, ctypes.cast(self._callback, _P), None) == 0:
                self._function, self.used = _to_logging, True
        if asked and str(int(level)) != asked:
            _to_logging(LogLevel.WARNING, f"NVLX_LOG_LEVEL is {asked!r:.40}, not 0, 1, 2 or 3: 1 (warnings) is taken")

    def set(self, level: int, function: LogFunction | None) -> None:
        call = _library().nvlx_set_log
        _check_thread()
        with self._lock:
            if function is not None:
                self._start_or_raise()
                self._callback = self._callback or _LOG_CALLBACK(self._keep)
                self._function, self.used, self.explicit = function, True, True
            code = call(level, ctypes.cast(self._callback, _P) if function is not None else None, None)
            if code:
                raise _last_error(code)
            if function is not None:
                return
            thread, self._thread, self.used, self.explicit = self._thread, None, False, False
            self._end_queue()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2)  # not for ever: the function may hang
        with self._lock:
            if not self.used:  # nobody has set it meanwhile
                self._function = None

    def _keep(self, context: int | None, level: int, message: bytes) -> None:
        try:
            here = _local.here
            in_c = here.in_c
            here.in_log = True
            if in_c:
                here.messages.append((level, message))
            else:
                self._queue.put((level, message))
                if self._thread is None:
                    self._start_quietly()
        except KeyboardInterrupt:  # ctypes would drop it
            _local.here.interrupted = True
        finally:
            _local.here.in_log = False

    def _tell(self, level: int, message: bytes) -> None:
        function = self._function
        try:
            if function is not None:
                function(LogLevel(level), message.decode("utf-8", "replace"))
        except BaseException as failure:
            if _passes(failure):
                raise
            _complain()

    def deliver(self, raised: NvlxError | None = None) -> None:
        here = _local.here
        while here.messages:
            level, message = here.messages.pop(0)
            if raised is None or not self._is_enough(raised, message):
                self._tell(level, message)
        if here.interrupted:
            here.interrupted = False
            raise KeyboardInterrupt

    def _is_enough(self, raised: NvlxError, message: bytes) -> bool:
        """Whether the exception tells it, and only `logging.lastResort` would, on stderr: then a program that catches
        the one should not see the other. What no exception tells, such as a peer's death, is printed there."""
        if self._function is not _to_logging or logging.getLogger("nvlxfer").hasHandlers():
            return False
        return raised._text in message.decode("utf-8", "replace")

    def _start(self) -> None:
        """The thread that tells, unless it runs. Under the lock."""
        if self._thread is None:
            thread = threading.Thread(target=self._tell_all, args=(self._queue,), name="nvlxfer-log", daemon=True)
            thread.start()
            self._thread = thread

    def _start_quietly(self) -> None:
        """For a thread of the library's, which waits for nobody: what it logged is told later, if not now."""
        if self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(RuntimeError):  # there can be no more threads
                    self._start()
            finally:
                self._lock.release()

    def _start_or_raise(self) -> None:
        try:
            self._start()
        except BaseException as failure:
            self._end_queue()  # it may run all the same
            if isinstance(failure, RuntimeError):
                raise _error(_ENOMEM, f'the thread "nvlxfer-log" does not start: {failure}') from None
            raise

    def _tell_all(self, messages: queue.SimpleQueue[tuple[int, bytes] | None]) -> None:
        ctypes.CDLL(None).prctl(15, b"nvlxfer-log")  # PR_SET_NAME: else it has the name of who started it
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
        _local.here.messages.clear()
        if self.explicit:  # else when there is something to tell
            self._start_quietly()


_log = _Log()
_program.log = _log
_when_loaded.append(_log.begin)


def set_log(level: int = LogLevel.WARNING, function: LogFunction | None = None) -> None:
    """Sends the log of the whole process to `function(level, text)`, without one to logging.getLogger("nvlxfer"). There
    it goes from the start, up to the level that the environment variable NVLX_LOG_LEVEL says, or warnings. Where that
    logger has no handler, warnings go to stderr, except those that an exception tells. What is above `level` is
    dropped. A call's own messages come in its thread before it returns, others in a thread
    "nvlxfer-log"; the function may be called by several threads at once, and may itself call the library. What it
    raises goes to sys.excepthook, SystemExit too; only Ctrl-C comes out of the call. Ends with the program."""
    if function is not None and not callable(function):
        raise _wrong_type("function", function, "a function of a LogLevel and a str, or None for logging")
    _log.set(_log_level(level), _to_logging if function is None else function)


def reset_log(level: int = LogLevel.WARNING) -> None:
    """Gives the log back to the library, which writes it to stderr. Only one that shares the program's glog, as with
    NVLX_STATIC_DEPS=OFF, writes it where that does."""
    _log.set(_log_level(level), None)


def _log_level(level: int) -> int:
    number = _integer("level", level, _I)
    if number not in _LOGGING:
        raise _invalid(f"level {number} is none: give a LogLevel, from 0 (ERROR) to 3 (DEBUG)")
    return number
