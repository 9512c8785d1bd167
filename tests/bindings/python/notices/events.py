# SPDX-License-Identifier: Apache-2.0
"""Events, messages, and awaiting without polling."""

import asyncio
import os
import select
import threading

import nvlxfer
from nvlxfer import Access, Engine, EventKind, read, write
from support import content, itself, raises, run_tests

SIZE = 1 << 20


class Pair:
    """An owner that serves, and a reader that follows it."""

    def __init__(self):
        self.name = f"@nvlxfer-events-{os.getpid()}-{id(self)}"
        self.owner, self.reader = Engine(), Engine()
        self.theirs, self.mine = self.owner.alloc(0, SIZE), self.reader.alloc(1, SIZE)
        self.owner.register((self.theirs, SIZE), "all")
        self.reader.register((self.mine, SIZE), access=Access.NONE)
        self.owner.serve(self.name)
        self.peer = self.reader.connect(self.name)
        self.there = self.peer.find("all")[0]
        self.peer.map(1, self.there, SIZE)

    def close(self):
        self.reader.close()
        self.owner.close()


async def take(engine, count):
    """So many events."""
    taken = []
    async for event in engine.events():
        taken.append(event)
        if len(taken) == count:
            return taken


def within(coroutine):
    async def limited():
        return await asyncio.wait_for(coroutine, 30)

    return asyncio.run(limited())


def test_peers():
    pair = Pair()

    async def run():
        pair.owner.register((pair.theirs, 16), "more")
        (changed,) = await take(pair.reader, 1)
        assert changed.kind == EventKind.PEER_CHANGED and changed.peer is pair.peer and changed.generation > 0
        pair.peer.sync(changed.generation, 0)
        pair.owner.close()
        (lost,) = await take(pair.reader, 1)
        assert lost.kind == EventKind.PEER_LOST and lost.peer is pair.peer and "gone" in lost.reason

    within(run())
    pair.close()


def test_messages():
    pair = Pair()

    async def run():
        receiver = asyncio.ensure_future(take(pair.owner, 40))
        for i in range(10):
            pair.reader.memcpy(pair.mine, bytes([i]) * 4096)
            pair.peer.send(b"before %d" % i)
            await pair.reader.transfer(write(pair.peer, pair.mine, pair.there + i * 4096, 4096), message=b"with %d" % i)
            pair.peer.send(memoryview(bytearray(b"after %d" % i)))
            pair.peer.send(b"")
        events = await receiver
        for i in range(10):
            texts = [event.message for event in events[4 * i : 4 * i + 4]]
            assert texts == [b"before %d" % i, b"with %d" % i, b"after %d" % i, b""], texts
            assert content(pair.owner, pair.theirs + i * 4096, 4096) == bytes([i]) * 4096
        assert all(event.pid == os.getpid() and event.peer is None and len(event.engine) == 32 for event in events)

    within(run())
    with pair.reader.prepare(write(pair.peer, pair.mine, pair.there, 64)) as prepared:
        with prepared.post(message=b"") as request:
            request.wait(30)
    assert pair.owner.next_event().message == b"" and pair.owner.next_event() is None
    raises(nvlxfer.InvalidType, "NVLX_EINVAL", "bytes", pair.peer.send, "text")
    raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "at most 65536", pair.peer.send, bytes(65537))
    op = write(pair.peer, pair.mine, pair.there, 64)
    raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "at most", pair.reader.transfer, op, message=bytes(65537))
    by_text = pair.reader.peer_open(pair.owner.export())
    raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "text", by_text.send, b"x")
    pair.close()


def test_awaiting_polls_nothing():
    pair = Pair()
    asked = 0
    test = nvlxfer.Request.test

    def counted(request):
        nonlocal asked
        asked += 1
        return test(request)

    async def run():
        ops = read(pair.peer, pair.mine, pair.there, SIZE)
        await asyncio.gather(*(one(ops) for _ in range(200)))

    async def one(ops):
        with pair.reader.transfer(ops) as request:
            await request

    nvlxfer.Request.test = counted
    try:
        within(run())
    finally:
        nvlxfer.Request.test = test
    assert asked <= 200 * 3, asked
    assert not pair.reader._hub._loops and not pair.reader._hub._waiting
    pair.close()


def test_loops_of_several_threads():
    pair = Pair()
    failures = []

    async def run(place):
        for _ in range(200):
            await pair.reader.transfer(read(pair.peer, pair.mine + place, pair.there + place, 4096))

    def thread(place):
        try:
            within(run(place))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=thread, args=(i * 4096,)) for i in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures, failures
    pair.close()


def test_nobody_reads():
    """Awaiting goes on beside messages that nobody reads; none is lost."""
    pair = Pair()
    count = 3000
    pair.reader.serve(pair.name + "-back")
    back = pair.owner.connect(pair.name + "-back")

    async def run():
        for i in range(count):
            back.send(b"%d" % i)
            if i % 100 == 0:
                await pair.reader.transfer(read(pair.peer, pair.mine, pair.there, 4096))
        await pair.reader.transfer(read(pair.peer, pair.mine, pair.there, 4096))
        assert len(pair.reader._hub._kept) <= pair.reader._hub.KEPT_MAX
        events = await take(pair.reader, count)
        assert [event.message for event in events] == [b"%d" % i for i in range(count)]
        assert all(event.peer is pair.peer for event in events)

    within(run())
    pair.close()


def test_closing_ends_events():
    pair = Pair()

    async def run():
        async def all_of_them():
            return [event async for event in pair.reader.events()]

        reader = asyncio.ensure_future(all_of_them())
        await asyncio.sleep(0.02)
        await asyncio.get_running_loop().run_in_executor(None, pair.reader.close)
        assert await reader == []

    within(run())
    raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "closed", pair.reader.next_event)
    pair.close()


def test_cancelled():
    pair = Pair()

    async def run():
        task = asyncio.ensure_future(take(pair.reader, 1))
        await asyncio.sleep(0.02)
        task.cancel()
        try:
            await task
            raise AssertionError("it ended")
        except asyncio.CancelledError:
            pass

    within(run())
    assert not pair.reader._hub._loops and not pair.reader._hub._waiting
    pair.close()


def test_cancelled_polls_nothing():
    """A transfer that nobody awaits any more is freed when it is complete; until then nobody asks."""
    engine, address, peer = itself(64 << 20)
    swept = []
    sweep = Engine._sweep

    def counted(self):
        swept.append(len(engine._core.dropped))
        sweep(self)

    async def run():
        job = asyncio.ensure_future(one())
        await asyncio.sleep(0.001)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        while engine._core.requests:
            await asyncio.sleep(0.001)

    async def one():
        with engine.transfer(read(peer, address, address + (32 << 20), 32 << 20)) as request:
            await request

    Engine._sweep = counted
    try:
        for _ in range(5):
            within(run())
    finally:
        Engine._sweep = sweep
    assert len(swept) <= 5 * 3, len(swept)  # once by the transfer, once or twice when it was complete
    assert not engine._hub._loops and not engine._hub._waiting
    engine.close()


def test_select():
    pair = Pair()
    assert select.select([pair.owner], [], [], 0) == ([], [], []) and pair.owner.next_event() is None
    pair.peer.send(b"hello")
    assert select.select([pair.owner], [], [], 30)[0] == [pair.owner]
    assert pair.owner.next_event().message == b"hello"
    assert select.select([pair.owner], [], [], 0) == ([], [], [])
    pair.close()


run_tests([test_peers, test_messages, test_awaiting_polls_nothing, test_loops_of_several_threads, test_nobody_reads,
           test_closing_ends_events, test_cancelled, test_cancelled_polls_nothing, test_select])  # fmt: skip
