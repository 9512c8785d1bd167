# SPDX-License-Identifier: Apache-2.0
"""The end of the program, and of engines that were dropped; forked children."""

from __future__ import annotations

import _thread
import atexit
import os
import threading
import time

from ..errors import _ANY, _ETIMEDOUT
from ..events import _hubs
from ..log import _log
from . import calls as _calls
from .calls import _all_in_flight, _Core, _cores, _in_flight, _local, _program, _run
from .native import _library


def _collected(core: _Core, watch: object = None) -> None:
    """An engine was dropped; what it keeps is still there. Where this thread is inside the library, or is one of its
    own, another one destroys it."""
    if _program.ender is not None or not core.take():
        return
    if _local.here.in_c or _local.here.in_log or threading.get_ident() not in getattr(threading, "_active", ()):
        try:
            _thread.start_new_thread(core.destroy_quietly, ())
        except RuntimeError:  # there can be no more threads: the end of the program destroys it
            core.give_back()
    else:
        core.destroy_quietly()


def _calls_end(deadline: float) -> bool:
    """Whether no other thread is inside the library any more."""
    me = threading.get_ident()
    while any(thread != me for thread, _ in _all_in_flight()):
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


def _destroy_all(cores: list[_Core], deadline: float) -> None:
    """In another thread, if Python lets one start now: destroying waits for kernels, which may never end."""

    def work() -> None:
        for core in cores:
            if core.free_relays():
                _library().nvlx_engine_destroy(core.handle)

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
    _program.ender = threading.get_ident()
    cores = [core for core in list(_cores.values()) if core.take()]
    deadline = time.monotonic() + _calls._TRANSFERS_END
    if _calls_end(time.monotonic() + _calls._CALLS_END) and all(_transfers_end(core, deadline) for core in cores):
        _destroy_all(cores, deadline)
    _log.end()


def _after_fork() -> None:
    """In the child, where of the threads only this one is left, and the engines are the parent's."""
    _program.forks += 1  # what was made before is the parent's
    _program.main = threading.main_thread().ident  # the thread that forked
    for hub in list(_hubs):
        hub.after_fork()
    _cores.clear()
    _in_flight.clear()
    _log.after_fork()


os.register_at_fork(after_in_child=_after_fork)
