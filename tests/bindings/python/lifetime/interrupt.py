# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends what waits, at once, and leaves all objects in order."""

import ctypes
import os
import random
import signal
import sys
import threading
import time

os.environ["NVLX_LIBRARY"] = os.environ["NVLX_WATCH"]
import nvlxfer
from nvlxfer import Access, Alloc, Engine, read
from support import content, itself, run_tests

stuck = ctypes.c_int.in_dll(nvlxfer._c.native._library()._library, "nvlx_watch_hang")
AFTER, AT_ONCE = 0.15, 2  # seconds


def interrupted(function, *arguments):
    """Ctrl-C comes while the call waits."""
    timer = threading.Timer(AFTER, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    since = time.monotonic()
    try:
        function(*arguments)
    except KeyboardInterrupt:
        took = time.monotonic() - since
        assert AFTER / 2 < took < AFTER + AT_ONCE, (function, took)
        return
    finally:
        timer.join()
    raise AssertionError(f"{function} ended by itself")


def quiet():
    """Nothing that was given up is still under way."""
    deadline = time.monotonic() + 30
    while nvlxfer._c.calls._in_flight:
        assert time.monotonic() < deadline, nvlxfer._c.calls._in_flight
        time.sleep(0.001)


def test_connect():
    engine, server = Engine(), Engine()
    address = f"@nvlxfer-test-interrupt-{os.getpid()}"
    for timeout in (None, 60, sys.maxsize):
        interrupted(engine.connect, address, timeout)
    server.serve(address)
    quiet()
    assert not engine._owned  # what connected all the same was closed
    engine.connect(address, 30).close()
    interrupted(engine.connect, "@nobody-serves-here", None)
    engine.close()
    server.close()


def test_wait():
    engine, address, peer = itself(4096)
    said = []
    for function in (None, lambda level, text: said.append(text)):
        if function:
            nvlxfer.set_log(nvlxfer.LogLevel.DEBUG, function)
        request = engine.transfer(read(peer, address, address + 64, 64))
        stuck.value = 1
        interrupted(request.wait)
        interrupted(request.wait, 60)
        interrupted(request.close)
        stuck.value = 0
        request.wait(30)
        request.close()
    nvlxfer.reset_log()
    engine.close()


def test_close():
    engine, address, peer = itself(4096)
    for timeout in (None, 60):
        region = engine.register((address, 64), "again")
        stuck.value = 1
        interrupted(region.close, timeout)
        stuck.value = 0
        quiet()
        region.close(30)
        assert region.closed
    prepared = engine.prepare(read(peer, address, address + 64, 64))
    for each in (prepared, peer, engine):
        stuck.value = 1
        interrupted(each.close)
        stuck.value = 0
        quiet()
        each.close()
        assert each.closed, each
    assert peer.closed and not nvlxfer._c.calls._cores


def serve_chunks(name, ready):
    engine = Engine()
    address = engine.alloc(0, 4 << 20, Alloc.VMM, 2 << 20)
    engine.memcpy(address, b"x" * (4 << 20))
    for index in range(2):
        engine.register((address + (index << 21), 2 << 20), str(index), Access.READ)
    engine.serve(name)
    os.write(ready, b"1")
    signal.pause()


def test_map():
    """The first mapping waits ten seconds for a process that does not answer. What is given up never starts."""
    name = f"@nvlxfer-test-interrupt-map-{os.getpid()}"
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        serve_chunks(name, there)
    try:
        os.read(here, 1)
        engine = Engine()
        own = engine.alloc(0, 4096)
        engine.register((own, 4096), access=Access.NONE)
        engine.memcpy(own, b"o" * 4096)
        peer = engine.connect(name, 30)
        (first, _), (second, _) = peer.find("0"), peer.find("1")
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)  # all its threads stand still
        ops = read(peer, own, second, 64)
        interrupted(peer.map, 0, first, 64)
        interrupted(engine.transfer, ops)
        interrupted(engine.prepare, ops)
        os.kill(child, signal.SIGCONT)
        quiet()
        assert content(engine, own, 4096) == b"o" * 4096 and not engine._core.requests
        peer.close()  # no prepared list is left, either
        peer = engine.connect(name, 30)
        engine.transfer(read(peer, own, peer.find("1")[0], 64)).wait(30)
        assert content(engine, own, 65) == b"x" * 64 + b"o"
        engine.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_other_threads():
    """They get no signals, and work without a helper."""
    engine, address, peer = itself(4096)
    done = []

    def work():
        engine.transfer(read(peer, address, address + 64, 64)).close()
        engine.register((address, 8)).close()
        try:
            engine.connect("@nobody-serves-here", 0.1)
        except nvlxfer.Timeout:
            done.append(threading.active_count())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert done == [2]
    engine.close()


def test_anywhere():
    """Ctrl-C at any moment while transfers begin, are waited for and freed: none is lost, and no call stays entered.
    Before 3.10 Python takes signals between any two instructions, those of a `finally` too: nothing can be said of that."""
    if sys.version_info < (3, 10):
        print("SKIP: test_anywhere: this Python is older than 3.10")
        return
    engine, address, peer = itself(4096)
    ops = read(peer, address, address + 64, 64)
    prepared = engine.prepare(ops)
    dice, came, kept = random.Random(5), 0, []  # within __del__ Python would swallow it

    def sweep():
        deadline = time.monotonic() + 30
        while engine._core.dropped and time.monotonic() < deadline:
            engine._sweep()

    def interrupt(number, frame):
        if armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    for start in (prepared.post, lambda: engine.transfer(ops)):
        for _ in range(2000):
            armed = True
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 60e-6))
                    for _ in range(20):
                        kept.append(start())
                        kept[-1].wait()
                        if len(kept) % 2:
                            kept[-1].close()
                finally:
                    armed = False
            except KeyboardInterrupt:
                came += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            kept.clear()
            sweep()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert came > 1000, came
    assert not nvlxfer._c.calls._in_flight
    assert engine.info().requests == 0 and not engine._core.requests, (engine.info(), len(engine._core.requests))
    prepared.close()
    engine.close()


def test_forked():
    """In a child that another thread forked, this one gets the signals."""
    codes = []

    def fork():
        assert not nvlxfer._c.calls._in_main_thread()
        child = os.fork()
        if child == 0:
            os._exit(42 if nvlxfer._c.calls._in_main_thread() else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join(30)
    assert codes == [42] and nvlxfer._c.calls._in_main_thread()


signal.signal(signal.SIGINT, signal.default_int_handler)
run_tests([test_map, test_connect, test_wait, test_close, test_anywhere, test_other_threads, test_forked])
