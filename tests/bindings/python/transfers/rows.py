# SPDX-License-Identifier: Apache-2.0
"""Ops with rows."""

import array
import gc

import nvlxfer
from nvlxfer import Engine, read, write
from support import raises, run_tests

SIZE = 65536
INVALID = nvlxfer.InvalidArgument, "NVLX_EINVAL"


class World:
    """Two pieces of memory of one engine, which is its own peer."""

    def __init__(self):
        self.engine = Engine()
        self.places = [self.engine.alloc(0, SIZE) for _ in range(2)]
        self.bytes = [bytearray((i * (7 + side) + i // 256) % 251 for i in range(SIZE)) for side in range(2)]
        for place, content in zip(self.places, self.bytes):
            self.engine.memcpy(place, content, SIZE)
            self.engine.register((place, SIZE))
        self.peer = self.engine.peer_open(self.engine.export())

    def move(self, to, source, length, count=1, pitch_to=0, pitch_from=0):
        for row in range(count):
            begin, end = to + row * pitch_to, source + row * pitch_from
            self.bytes[0][begin : begin + length] = self.bytes[1][end : end + length]

    def check(self):
        for place, content in zip(self.places, self.bytes):
            got = bytearray(SIZE)
            self.engine.memcpy(got, place, SIZE)
            assert got == content


def test_one_op():
    world = World()
    here, there = world.places
    world.engine.transfer(read(world.peer, here + 5, there + 9, 100, rows=(30, 333, 200))).wait(timeout=10)
    world.move(5, 9, 100, 30, 333, 200)
    world.check()
    world.engine.transfer(write(world.peer, there + 9, here + 7, 50, rows=[20, 60, 70])).wait(timeout=10)
    world.move(7, 9, 50, 20, 70, 60)
    world.check()
    world.engine.close()


def test_many_ops():
    world = World()
    here, there = world.places
    starts = array.array("Q", range(here, here + 8 * 4096, 4096))
    counts, pitches = array.array("Q", range(8)), array.array("Q", range(64, 72))
    ops = [read(world.peer, starts, there, 64, rows=(counts, pitches, 100)), read(world.peer, here + 60000, there, 10)]
    prepared = world.engine.prepare(ops)
    del ops
    gc.collect()
    prepared.post().wait(timeout=10)
    for i in range(8):
        world.move(i * 4096, 0, 64, i, 64 + i, 100)
    world.move(60000, 0, 10)
    world.check()
    world.engine.close()


def test_refusals():
    world = World()
    here, there = world.places
    for rows in (7, (1, 2), (1, 2, 3, 4)):
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "rows", read, world.peer, here, there, 8, rows=rows)
    raises(*INVALID, "local pitch", read, world.peer, here, there, 8, rows=(2, -1, 8))
    two, three = array.array("Q", [1, 1]), array.array("Q", [1, 1, 1])
    raises(*INVALID, "different numbers of entries", read, world.peer, here, there, 8, rows=(two, three, 8))
    overlapping = read(world.peer, here, there, 8, rows=(2, 7, 8))
    raises(*INVALID, "the pitch is 7", world.engine.transfer, overlapping)
    world.engine.close()


run_tests([test_one_op, test_many_ops, test_refusals])
