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

stuck = ctypes.c_int.in_dll(nvlxfer._library()._library, "nvlx_watch_hang")


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


run_tests([test_many, test_cancelled, test_again, test_loop_ends])
