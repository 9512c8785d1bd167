# SPDX-License-Identifier: Apache-2.0
"""One thread closes what others are inside calls on: nothing is freed under them, and their later calls are refused."""

import ctypes
import gc
import os
import random
import signal
import sys
import threading
import time

os.environ["NVLX_LIBRARY"] = os.environ["NVLX_WATCH"]
import nvlxfer
from nvlxfer import read, write
from support import itself, raises, run_tests

stuck = ctypes.c_int.in_dll(nvlxfer._c.native._library()._library, "nvlx_watch_hang")
REFUSED = (nvlxfer.InvalidArgument, nvlxfer.Busy, nvlxfer.NotFound)


def until(done):
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Beside:
    """Threads that do things again and again, until they are refused, with their failures."""

    def __init__(self, *jobs):
        self.failures, self.rounds = [], [0] * len(jobs)
        self.threads = [threading.Thread(target=self.run, args=each) for each in enumerate(jobs)]
        for thread in self.threads:
            thread.start()
        until(lambda: all(self.rounds))

    def run(self, index, job):
        while True:
            try:
                job()
            except REFUSED as failure:
                self.failures.append(failure)
                self.rounds[index] += 1
                return
            except BaseException as failure:
                self.failures.append(failure)
                raise
            self.rounds[index] += 1

    def join(self):
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()
        for failure in self.failures:
            assert isinstance(failure, REFUSED), repr(failure)
            assert "clos" in str(failure), failure


def test_engine():
    """Closed, by one or two threads, under all kinds of calls."""
    for index in range(30):
        engine, address, peer = itself(8192)
        ops = [read(peer, address, address + 4096, 64), write(peer, address, address + 4096, 64)]
        prepared, own = engine.prepare(ops), engine.alloc(0, 4096)
        beside = Beside(
            lambda: engine.transfer(ops).wait(10),
            lambda: prepared.post().close(),
            lambda: engine.register((own, 64)).close(),
            lambda: (peer.find("all"), peer.wake(), peer.test(), engine.info()),
            lambda: engine.export(),
            lambda: engine.peer_open(engine.export()).close(),
        )
        closers = [threading.Thread(target=engine.close) for _ in range(index % 2)]
        for closer in closers:
            closer.start()
        engine.close()
        assert engine.closed and peer.closed and prepared.closed
        beside.join()
        for closer in closers:
            closer.join(30)
        engine.close()


def test_children():
    """Each is closed while threads use it; the engine goes on."""
    engine, address, _ = itself(8192)
    text = engine.export()
    for _ in range(30):
        peer = engine.peer_open(text)
        ops = read(peer, address, address + 4096, 64)
        beside = Beside(lambda: peer.find("all"), lambda: engine.transfer(ops).close(), lambda: peer.map(0, address, 8))
        peer.close()
        beside.join()
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "the Peer is closed", engine.transfer, ops)
        peer = engine.peer_open(text)
        prepared = engine.prepare(read(peer, address, address + 4096, 64))
        beside = Beside(lambda: prepared.post().close(), lambda: prepared.post().wait(10))
        prepared.close()
        beside.join()
        request = engine.transfer(read(peer, address, address + 4096, 64))
        beside = Beside(request.test, request.wait, request.info)
        request.close()
        beside.join()
        peer.close()
    engine.close()


def test_while_waiting():
    """A wait without end is told when its engine is closed."""
    engine, address, peer = itself(4096)
    request = engine.transfer(read(peer, address, address + 64, 64))
    stuck.value = 1
    beside = Beside()
    failures = []

    def wait():
        try:
            request.wait()
        except nvlxfer.InvalidArgument as failure:
            failures.append(failure)

    waiters = [threading.Thread(target=wait) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    until(lambda: len(nvlxfer._c.calls._threads_inside(request)) == 3)
    closer = threading.Thread(target=engine.close)
    closer.start()
    for waiter in waiters:
        waiter.join(10)
    assert len(failures) == 3
    stuck.value = 0
    closer.join(30)
    assert engine.closed and not closer.is_alive()
    beside.join()


def test_same():
    """Threads that close one region, or one peer, free it once."""
    engine, address, _ = itself(4096)
    text, failures = engine.export(), []

    def close(each):
        try:
            each.close()
        except BaseException as failure:
            failures.append(failure)

    for _ in range(100):
        for each in (engine.register((address, 64), "once"), engine.peer_open(text)):
            closers = [threading.Thread(target=close, args=(each,)) for _ in range(4)]
            for closer in closers:
                closer.start()
            for closer in closers:
                closer.join(30)
            assert each.closed and not failures, failures
    assert engine.info().regions == 1
    engine.close()


def test_dropped_anywhere():
    """Objects die in any order, in any thread, in cycles."""

    class Node:
        pass

    def work(seed):
        dice = random.Random(seed)
        for _ in range(20):
            engine, address, peer = itself(4096)
            ops = read(peer, address, address + 64, 64)
            objects = [engine, peer, engine.prepare(ops), engine.transfer(ops), engine.register((address, 8)), ops]
            node = Node()
            node.objects = [node, *objects]
            del engine, peer, ops
            dice.shuffle(objects)
            while objects:
                objects.pop()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    gc.collect()
    until(lambda: not nvlxfer._c.calls._cores)


def test_handler():
    """A signal handler that closes what its own thread waits for is refused rather than stuck."""
    engine, address, peer = itself(4096)
    request = engine.transfer(read(peer, address, address + 64, 64))
    refusals = []

    def handler(number, frame):
        stuck.value = 0
        try:
            engine.close()
        except nvlxfer.Busy as refusal:
            refusals.append(str(refusal))

    signal.signal(signal.SIGALRM, handler)
    stuck.value = 1
    signal.setitimer(signal.ITIMER_REAL, 0.15)
    try:
        request.wait(30)
    except nvlxfer.InvalidArgument:  # the signal came between two calls, so that the handler could close
        assert engine.closed
    assert engine.closed or "inside a call" in refusals[0]
    engine.close()


sys.setswitchinterval(1e-4)
run_tests([test_engine, test_children, test_while_waiting, test_same, test_dropped_anywhere, test_handler])
print("the watch was asked", ctypes.c_long.in_dll(nvlxfer._c.native._library()._library, "nvlx_watch_checks").value, "times")
