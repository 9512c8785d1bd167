# SPDX-License-Identifier: Apache-2.0
"""Digests: the values that the xxHash library gives, by the definition in nvlxfer.h."""

import nvlxfer
from nvlxfer import Access, Engine
from support import raises, run_tests

try:
    import xxhash
except ImportError:
    xxhash = None

LENGTHS = (0, 1, 5, 32, 100, 16383, 16384, 16385, 100_000)
KNOWN = {0: 0xEF46DB3751D8E999, 1: 0x36979D78F232250A, 16384: 0xD79BDCBF657C6AAC, 16385: 0x593F08419D49CE22}
PATTERN = bytes((i * 131 + (i >> 8) * 17 + (i >> 16) * 29) % 256 for i in range(max(LENGTHS)))


def defined(data):
    leaves = [xxhash.xxh64_intdigest(data[i : i + 16384]) for i in range(0, len(data), 16384)]
    return xxhash.xxh64_intdigest(b"".join(leaf.to_bytes(8, "little") for leaf in leaves))


class Tensor:
    def __init__(self, address, length):
        self.__cuda_array_interface__ = dict(data=(address, False), shape=(length,), strides=None, typestr="|u1")


def test_digest():
    with Engine() as engine:
        own = engine.alloc(0, len(PATTERN) + 8)
        raises(nvlxfer.OutOfRange, "NVLX_ERANGE", hex(own), engine.digest, (own, 1))
        engine.register((own, len(PATTERN) + 8), access=Access.NONE)
        for shift in (0, 1, 8):
            engine.memcpy(own + shift, PATTERN)
            for length in LENGTHS:
                value = engine.digest((own + shift, length))
                assert value == engine.digest(Tensor(own + shift, length))
                assert value == KNOWN.get(length, value), (length, hex(value))
                assert xxhash is None or value == defined(PATTERN[:length]), (length, hex(value))
        engine.memcpy(own + 8 + 77_777, b"?")
        assert engine.digest((own + 8, len(PATTERN))) != value
        raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "", engine.digest, (own + 9, len(PATTERN)))
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "", engine.digest, (own,))
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "address", engine.digest, (0, 8))
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "", engine.digest, b"host memory")
    if xxhash is None:
        print("SKIP: the package xxhash is not installed; the values of a few lengths were compared")


run_tests([test_digest])
