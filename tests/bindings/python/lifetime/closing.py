# SPDX-License-Identifier: Apache-2.0
"""Who returns from close() knows that it is closed, also where another thread was closing it already."""

import ctypes
import functools
import gc
import os
import sys
import threading
import time

os.environ["NVLX_LIBRARY"] = os.environ["NVLX_WATCH"]
import nvlxfer
from nvlxfer import read
from support import itself, raises, run_tests

stuck = ctypes.c_int.in_dll(nvlxfer._c.native._library()._library, "nvlx_watch_hang")


def until(done):
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def begun(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def of_each_kind(engine, address, peer):
    """Objects, and what closes them."""
    ops = read(peer, address, address + 64, 64)
    request = engine.transfer(ops)
    request.wait()
    yield request, request.close
    for timeout in (None, 60):
        region = engine.register((address, 8))
        yield region, functools.partial(region.close, timeout)
    for each in (engine.prepare(ops), peer, engine):
        yield each, each.close


def test_second():
    """The second closer returns when the first has done it."""
    engine, address, peer = itself(4096)
    for each, close in of_each_kind(engine, address, peer):
        stuck.value = 1
        first = begun(close)
        until(lambda each=each: each.closed)
        second = begun(close)
        second.join(0.05)
        assert second.is_alive(), each
        if isinstance(each, nvlxfer.Region):
            raises(nvlxfer.Timeout, "NVLX_ETIMEDOUT", "", each.close, 0)
        stuck.value = 0
        for thread in (first, second):
            thread.join(30)
            assert not thread.is_alive(), each
        assert each.closed


def test_of_an_engine():
    """What comes from an engine is closed when that is."""
    engine, address, peer = itself(4096)
    region = engine.register((address, 8))
    array = engine.empty(8)
    request = engine.transfer([nvlxfer.read(peer, address, address, 8)])
    stuck.value = 1
    first = begun(engine.close)
    until(lambda: engine.closed)
    others = [begun(each.close) for each in (region, peer, array, request)]
    time.sleep(0.05)
    assert all(each.is_alive() for each in others)
    raises(nvlxfer.Timeout, "NVLX_ETIMEDOUT", "or its engine", region.close, 0)
    stuck.value = 0
    for thread in (first, *others):
        thread.join(30)
        assert not thread.is_alive()


def test_no_time():
    """Closing once more, by many threads at once and with no time, is no reason to fail."""
    engine, address, _ = itself(4096)
    failures = []

    def close(region):
        try:
            for _ in range(20):
                region.close(0)
        except nvlxfer.Timeout as failure:
            failures.append(failure)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for _ in range(40):
        one, other = engine.register((address, 64)), engine.register((address + 64, 64))
        one.close()
        other.close()
        threads = [threading.Thread(target=close, args=(region,)) for region in (one, other, one, one)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    sys.setswitchinterval(interval)
    assert not failures, failures[0]


def test_inside_of_a_call():
    """A finalizer that closes in the middle of a call of this thread does not wait for who closes the engine, which
    waits for this call."""
    engine, address, _ = itself(4096)
    region, calls = engine.register((address, 64)), nvlxfer._c.calls
    entry = (threading.get_ident(), (engine,))
    calls._in_flight[id(entry)] = entry  # as if the garbage collector came within a call
    closer = []

    def closes_in_between(*arguments, **keywords):
        code = type(region)._free_alone(region, *arguments, **keywords)
        closer.append(begun(engine.close))
        until(lambda: engine.closed)
        return code

    region._free_alone = closes_in_between
    region.close()
    calls._in_flight.pop(id(entry))
    closer[0].join(30)
    assert not closer[0].is_alive()


def test_ended():
    """Where a request has ended, too: who closes it in the middle of a call on it is refused, and it stays; and another
    thread's call is waited for."""
    engine, address, peer = itself(4096)
    calls, me = nvlxfer._c.calls, threading.get_ident()
    request = engine.transfer(read(peer, address, address + 64, 64))
    request.wait()
    for thread in (me, 0):
        entry = (thread, (request,))
        calls._in_flight[id(entry)] = entry
        if thread == me:
            raises(nvlxfer.Busy, "NVLX_EBUSY", "inside a call on the Request", request.close)
            assert request.test()
        else:
            closer = begun(request.close)
            until(lambda: request._closing)
            assert closer.is_alive()
            raises(nvlxfer.Busy, "NVLX_EBUSY", "another thread is closing", request.test)
        calls._in_flight.pop(id(entry))
    closer.join(30)
    assert not closer.is_alive() and request.closed and not engine._core.requests
    engine.close()


def test_first_fails():
    """Then the second tries."""
    engine, address, _ = itself(4096)
    region = engine.register((address, 8))
    gc.collect()  # what other tests left: else it may be freed while calls hang
    stuck.value = 1
    failures = []

    def close():
        try:
            region.close(0.15)
        except nvlxfer.Timeout as failure:
            failures.append(failure)

    first, second = begun(close), begun(region.close)
    first.join(30)
    assert len(failures) == 1 and second.is_alive()
    stuck.value = 0
    second.join(30)
    assert region.closed
    engine.close()


def test_forked():
    """In a child whose parent was closing an engine, or what came from it, nobody waits for the parent's thread."""
    engine, address, peer = itself(4096)
    prepared = engine.prepare(read(peer, address, address + 64, 64))
    request = prepared.post()
    request.wait()
    for each in (request, prepared, engine):
        stuck.value = 1
        thread = begun(each.close)
        until(lambda each=each: each.closed)
        if each is request:
            request._handle, request._closing = 1, False  # as just before, under the lock
        child = os.fork()
        if child == 0:
            for _ in range(4):  # whose numbers are those of the parent's threads
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            request.close()
            prepared.close()
            engine.close()
            os._exit(0)
        if each is request:
            request._handle = None
        stuck.value = 0
        deadline = time.monotonic() + 20
        while not (left := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, 9)
            time.sleep(0.001)
        thread.join(30)
        assert left[1] == 0, left


def test_collector_in_between():
    """What the garbage collector ends while somebody looks at the calls in flight does no harm."""
    engine, _, _ = itself(4096)
    calls = nvlxfer._c.calls

    class Cycle:
        def __init__(self, key):
            self.key, self.itself = key, self

        def __del__(self):
            calls._in_flight.pop(self.key, None)

    before, kept = gc.get_threshold(), []
    try:
        for allocations in range(40):
            for key in range(8):
                calls._in_flight[key] = (0, ())
            gc.disable()
            kept.extend({} for _ in range(100))  # of those that Python has ready, none is left
            for key in range(8):
                Cycle(key)
            gc.set_threshold(gc.get_count()[0] + allocations)
            gc.enable()
            assert calls._threads_inside(engine) == []
    finally:
        gc.set_threshold(*before)
        gc.enable()
    engine.close()


run_tests([test_second, test_of_an_engine, test_no_time, test_inside_of_a_call, test_ended, test_first_fails, test_forked,
           test_collector_in_between])  # fmt: skip
