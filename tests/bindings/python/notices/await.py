# SPDX-License-Identifier: Apache-2.0
"""Awaiting transfers, and giving up."""

import asyncio
import ctypes
import os
import time

os.environ["NVLX_LIBRARY"] = os.environ["NVLX_WATCH"]
import nvlxfer
from nvlxfer import read
from support import content, itself, run_tests

stuck = ctypes.c_int.in_dll(nvlxfer._c.native._library()._library, "nvlx_watch_hang")


class Stuck:
    """Nothing completes within."""

    def __enter__(self):
        stuck.value = 1

    def __exit__(self, *exception):
        stuck.value = 0


async def soon(done):
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_many():
    engine, address, peer = itself(64 << 20)
    half = 32 << 20
    engine.memcpy(address + half, b"x" * half)

    async def one(index):
        length = half // 8
        request = engine.transfer(read(peer, address + index * length, address + half + index * length, length))
        await request
        assert request.test()

    async def all_of_them():
        await asyncio.gather(*(asyncio.wait_for(one(index), 30) for index in range(8)))

    asyncio.run(all_of_them())
    assert content(engine, address, half) == b"x" * half
    engine.close()


def test_cancelled():
    """The loop goes on at once, and the request is freed later, by itself."""
    engine, address, peer = itself(4096)
    ops = read(peer, address, address + 64, 64)

    async def in_with():
        with engine.transfer(ops) as request:
            await request

    async def beside():
        with engine.transfer(ops):
            await asyncio.sleep(30)

    async def kept():
        request = engine.transfer(ops)
        try:
            await request
        finally:
            request.close()

    async def dropped():
        await engine.transfer(ops)

    async def cancel(job):
        with Stuck():
            task = asyncio.ensure_future(job())
            await asyncio.sleep(0.05)
            since = time.monotonic()
            task.cancel()
            try:
                await task
                raise AssertionError("it ended")
            except asyncio.CancelledError:
                pass
            assert time.monotonic() - since < 1, job
            del task
            await asyncio.sleep(0.05)
            assert len(engine._core.requests) == 1, job
        await soon(lambda: not engine._core.requests)  # nobody transfers meanwhile

    for job in (in_with, beside, kept, dropped):
        asyncio.run(cancel(job))
    engine.close()


def test_again():
    """After a timeout the same request can be awaited on."""
    engine, address, peer = itself(4096)

    async def run():
        request = engine.transfer(read(peer, address, address + 64, 64))
        with Stuck():
            try:
                await asyncio.wait_for(request, 0.05)
                raise AssertionError("it ended")
            except asyncio.TimeoutError:
                assert not request.closed
        await asyncio.wait_for(request, 30)
        request.close()
        assert request.closed and not engine._core.requests

    asyncio.run(run())
    engine.close()


def test_loop_ends():
    """What is left when the loop ends is freed by the next transfer."""
    engine, address, peer = itself(4096)
    ops = read(peer, address, address + 64, 64)

    async def give_up():
        with engine.transfer(ops) as request:
            await asyncio.wait_for(request, 0.01)

    with Stuck():
        try:
            asyncio.run(give_up())
            raise AssertionError("it ended")
        except asyncio.TimeoutError:
            assert len(engine._core.requests) == 1
    deadline = time.monotonic() + 30
    while engine._core.dropped and time.monotonic() < deadline:
        engine.transfer(ops).close()
    assert not engine._core.requests
    engine.close()


def test_closed_while_awaited():
    """Closing on the loop's own thread, or another, ends who awaits it: nobody waits for an event that never comes."""

    async def wait_for(request):
        await request

    async def closed(engine, request):
        request.close()

    async def ended(engine, request):
        """Closed when it has ended, before the loop reads its event."""
        request.wait()
        request.close()

    async def left(engine, request):
        with request:
            pass

    async def by_thread(engine, request):
        await asyncio.to_thread(request.close)

    async def engine_closed(engine, request):
        engine.close()

    async def one_cancelled(engine, request):
        """Closing hands it to whoever sweeps next, here before any loop reads its event."""
        with Stuck():
            task = asyncio.ensure_future(wait_for(request))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            request.close()
        while engine._core.dropped:
            engine._sweep()

    async def run(close):
        engine, address, peer = itself(64 << 20)
        request = engine.transfer(read(peer, address, address + (32 << 20), 32 << 20))
        tasks = [asyncio.ensure_future(wait_for(request)) for _ in range(2)]
        await asyncio.sleep(0)
        await close(engine, request)
        ended, _ = await asyncio.wait(tasks, timeout=20)
        assert len(ended) == 2, close.__name__
        for task in tasks:
            assert task.exception() is None or type(task.exception()) is nvlxfer.InvalidArgument, task.exception()
        if close in (closed, ended, left):
            assert all(task.exception() for task in tasks)
        if not engine.closed:
            assert not engine._hub._loops and not engine._hub._waiting
        engine.close()

    for close in (closed, ended, left, by_thread, engine_closed, one_cancelled):
        asyncio.run(run(close))


def test_being_closed():
    """Who begins to await while another thread frees it is told that it is closed, not that somebody is closing."""
    engine, address, peer = itself(4096)

    async def run(request):
        task = asyncio.ensure_future(asyncio.wait_for(request, 20))
        await asyncio.sleep(0.01)  # it asks meanwhile
        request._closing = False
        request.close()
        try:
            await task
            raise AssertionError("it ended well")
        except nvlxfer.InvalidArgument:
            pass

    for noted in (True, False):
        request = engine.transfer(read(peer, address, address + 64, 64))
        request._noted = noted
        request._closing = True  # as between the two halves of _free
        asyncio.run(run(request))
    engine.close()


def test_closed_around_it():
    """A list, a peer or an engine that is closed on the loop's thread: what uses it ends."""

    async def run():
        engine, address, peer = itself(64 << 20)
        prepared = engine.prepare(read(peer, address, address + (32 << 20), 32 << 20))

        async def post():
            await prepared.post()

        async def transfer():
            await engine.transfer(read(peer, address, address + (32 << 20), 32 << 20))

        async def events():
            return [event async for event in engine.events()]

        reader = asyncio.ensure_future(events())
        for begin, close in ((post, prepared.close), (transfer, peer.close)):
            task = asyncio.ensure_future(begin())
            await asyncio.sleep(0)
            close()
            await asyncio.wait_for(task, 20)
        engine.close()
        assert await asyncio.wait_for(reader, 20) == []

    asyncio.run(run())


run_tests([test_many, test_cancelled, test_again, test_loop_ends, test_closed_while_awaited, test_being_closed,
           test_closed_around_it])
