# SPDX-License-Identifier: Apache-2.0
"""Blocks by id: ids as Python has them, between two processes."""

import array
import nvlxfer
from nvlxfer import Access, BlockRegion, Engine
from support import Seed, content, given_to_c, pattern, raises, run_tests

LAYERS, BLOCKS, EACH = 4, 16, 1000


class Tensor:
    """What PyTorch's tensors in host memory have."""

    def __init__(self, ids):
        self._ids = ids

    def numpy(self):
        return self._ids


def tables(base, **fields):
    return [BlockRegion(base + i * BLOCKS * EACH, EACH, blocks=BLOCKS, **fields) for i in range(LAYERS)]


class GpuArray:
    """What PyTorch's and CuPy's arrays on a GPU have."""

    def __init__(self, engine, kind, ids):
        self._address = engine.alloc(0, 4096)
        engine.memcpy(self._address, array.array({"<i4": "i", "<i8": "q", "<f4": "f"}[kind], ids))
        self.__cuda_array_interface__ = {
            "data": (self._address, False),
            "shape": (len(ids),),
            "strides": None,
            "typestr": kind,
            "version": 2,
        }


class Both:
    """An engine with memory of its own, and a seed."""

    def __init__(self):
        self.seed = Seed()
        self.engine = Engine()
        self.size = LAYERS * BLOCKS * EACH
        self.own = self.engine.alloc(0, self.size)
        self.region = self.engine.register((self.own, self.size), access=Access.NONE)
        self.peer = self.engine.peer_open(self.seed.text)
        self.address, _ = self.peer.find("whole")

    def close(self):
        self.engine.close()
        self.seed.leave()

    def expect(self, local, remote, offset, length):
        """All bytes of the own memory, which had been zero."""
        wanted = bytearray(self.size)
        for layer in range(LAYERS):
            for mine, theirs in zip(local, remote):
                at = (layer * BLOCKS + mine) * EACH
                there = (layer * BLOCKS + theirs) * EACH + offset
                wanted[at : at + length] = pattern(there, length)
        assert content(self.engine, self.own, self.size) == bytes(wanted)


def kinds_of_ids():
    yield lambda ids: array.array("I", ids)
    yield lambda ids: array.array("i", ids)
    yield lambda ids: array.array("q", ids)
    yield lambda ids: memoryview(array.array("Q", [id for each in ids for id in (each, 99)]))[::2]
    yield lambda ids: list(ids)
    yield lambda ids: Tensor(array.array("i", ids))
    try:
        import numpy
    except ImportError:
        return
    for kind in (numpy.int32, numpy.uint32, numpy.int64, numpy.uint64):
        yield lambda ids, kind=kind: numpy.array(ids, dtype=kind)
    yield lambda ids: numpy.array([ids, ids], dtype=numpy.int64).T[:, 0]


def test_ids():
    both = Both()
    here, there = tables(both.own, length=300), tables(both.address, length=300, offset=77)
    local, remote = [3, 0, 15, 7], [1, 1, 0, 14]
    with both.engine.blocks(both.peer, here, there) as blocks:
        for kind in kinds_of_ids():
            both.engine.memcpy(both.own, bytes(both.size))
            with blocks.read(kind(local), kind(remote)) as request:
                request.wait(30)
                assert request.info().bytes == LAYERS * 4 * 300
            both.expect(local, remote, 77, 300)
        blocks.read([], []).wait(30)
        raises(nvlxfer.Busy, "NVLX_EBUSY", "", both.region.close, timeout=0)
    both.close()


def test_ids_on_the_gpu():
    both = Both()
    here, there = tables(both.own, length=EACH), tables(both.address, length=EACH)
    with both.engine.blocks(both.peer, here, there) as blocks:
        for kind in ("<i4", "<i8"):
            both.engine.memcpy(both.own, bytes(both.size))
            mine, theirs = GpuArray(both.engine, kind, [2, 9]), GpuArray(both.engine, kind, [1, 3])
            blocks.read(mine, theirs).wait(30)
            both.expect([2, 9], [1, 3], 0, EACH)
        bad = blocks.read(mine, GpuArray(both.engine, kind, [1, -1]))
        raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "remote id 1, which was on the GPU", bad.wait, 30)
        invalid = nvlxfer.InvalidArgument, "NVLX_EINVAL"
        raises(*invalid, "'<f4'", blocks.read, mine, GpuArray(both.engine, "<f4", [1, 2]))
        raises(*invalid, "on a GPU: True and False", blocks.read, mine, [1, 2])
    both.close()


def test_regions_and_writes():
    both = Both()
    here, there = tables(both.own, length=EACH), tables(both.address, length=EACH)
    there[2:] = [region._replace(group=9) for region in there[2:]]
    here[2:] = [region._replace(group=9) for region in here[2:]]
    blocks = both.engine.blocks(both.peer, here, there, Access.READ_WRITE)
    both.engine.memcpy(both.own, b"w" * both.size)
    blocks.write([5], [6], group=9, first_region=1, regions=1, max_sms=2).wait(30)
    at = (3 * BLOCKS + 6) * EACH
    assert both.seed.memory(at - 1, EACH + 2) == pattern(at - 1, 1) + b"w" * EACH + pattern(at + EACH, 1)
    before = (2 * BLOCKS + 6) * EACH
    assert both.seed.memory(before, EACH) == pattern(before, EACH)
    for capture, opcode in (blocks.capture_read, 1), (blocks.capture_write, 2):
        function, _, ids, options, request = given_to_c(nvlxfer.blocks, lambda: capture([5, 7], [6, 8], stream=77))
        assert (function, ids._obj.opcode, ids._obj.count, options._obj.stream, request) == (
            "nvlx_blocks_transfer", opcode, 2, 77, None)  # fmt: skip
    blocks.close()
    blocks.close()
    raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "the Blocks is closed", blocks.read, [0], [0])
    both.close()


def test_refusals():
    both = Both()
    here, there = tables(both.own, length=EACH), tables(both.address, length=EACH)
    invalid = nvlxfer.InvalidArgument, "NVLX_EINVAL"
    blocks = both.engine.blocks(both.peer, here, there)
    raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "local id 1 of group 0 is 16", blocks.read, [0, 16], [0, 0])
    minus = array.array("i", [-1])
    raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "remote id 0", blocks.read, array.array("i", [0]), minus)
    raises(nvlxfer.AccessDenied, "NVLX_EACCES", "reading alone", blocks.write, [0], [0])
    raises(*invalid, "there are 1 and 2", blocks.read, [0], [0, 1])
    raises(*invalid, "ids have bytes: 4 and 8", blocks.read, array.array("i", [0]), [0])
    raises(*invalid, "format 'd'", blocks.read, array.array("d", [0]), [0])
    raises(*invalid, "no region of the tables is of group 5", blocks.read, [0], [0], group=5)
    raises(nvlxfer.InvalidType, "NVLX_EINVAL", "local[0]", blocks.read, ["x"], [0])
    raises(*invalid, "4 local and 3 remote regions", both.engine.blocks, both.peer, here, there[1:])
    raises(*invalid, "does not fit", both.engine.blocks, both.peer, here, [there[0]._replace(base=-1)] * LAYERS)
    far = [region._replace(base=region.base + (1 << 30)) for region in there]
    raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "region 0", both.engine.blocks, both.peer, here, far)
    both.close()


run_tests([test_ids, test_ids_on_the_gpu, test_regions_and_writes, test_refusals])
