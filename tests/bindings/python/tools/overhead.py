# SPDX-License-Identifier: Apache-2.0
"""What the package adds to C for each transfer.

    NVLX_LIBRARY=... NVLX_BACKEND=host PYTHONPATH=src/bindings/python python3 overhead.py [rounds]

By hand, on any backend. Each round does the same transfer by the package and by bare calls of C, one right after the
other, of the same list; which is first changes. The figures are medians over all rounds, of the package, of the bare
calls, and of the two's difference in a round. The bare part is the leanest that ctypes offers: functions without
argtypes, bound once, with arguments that are objects of ctypes already. So what three calls by ctypes cost, some 1 us,
is in the bare part, and not in the difference. What the package does while the copies run hides behind these.

    post       nvlx_post of 1 op of 64 bytes, nvlx_wait, nvlx_request_free
    transfer   nvlx_transfer of 8192 ops of 64 bytes, and the same two
"""

import array
import ctypes
import statistics
import sys
import time

from nvlxfer import Engine, read
from nvlxfer._c.native import _library

COUNT, LENGTH = 8192, 64
PITCH = 2 * LENGTH  # no op is joined with the next one


class Bare:
    """The same calls, without options: the package's have NVLX_NO_MAP at most."""

    def __init__(self, library):
        functions = [library[name] for name in ("nvlx_post", "nvlx_transfer", "nvlx_wait", "nvlx_request_free")]
        for function in functions:
            function.restype = ctypes.c_int
        self._post, self._transfer, self._wait, self._free = functions

    def _common(self, handle):
        request = ctypes.c_void_p()
        return ctypes.c_void_p(handle), ctypes.c_void_p(), ctypes.byref(request), request, ctypes.c_int64(-1)

    def poster(self, handle):
        post, wait, free = self._post, self._wait, self._free
        prepared, none, made, request, for_ever = self._common(handle)

        def work():
            if post(prepared, none, made) or wait(request, for_ever) or free(request):
                sys.exit("a bare call failed")

        return work

    def transferrer(self, handle, ops, count):
        transfer, wait, free = self._transfer, self._wait, self._free
        engine, none, made, request, for_ever = self._common(handle)
        table, number = ctypes.byref(ops), ctypes.c_size_t(count)

        def work():
            if transfer(engine, table, number, none, made) or wait(request, for_ever) or free(request):
                sys.exit("a bare call failed")

        return work


def timed(work):
    since = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - since


def compare(what, package, bare, rounds):
    for _ in range(100):
        package()
        bare()
    pairs = []
    for index in range(rounds):
        if index % 2:
            pairs.append((timed(package), timed(bare)))
        else:
            pairs.append((timed(bare), timed(package))[::-1])
    ours, theirs = zip(*pairs)
    more = statistics.median(one - other for one, other in pairs)
    print(f"{what:9} package {statistics.median(ours) / 1e3:7.2f} us, bare {statistics.median(theirs) / 1e3:7.2f} us, "
          f"more {more / 1e3:6.2f} us")  # fmt: skip


def lists(engine):
    """Of one op, and of many, in memory that this process is its own peer for."""
    half = COUNT * PITCH
    memory = engine.empty(2 * half)
    engine.register(memory)
    memory.fill(bytes(range(256)) * (2 * half // 256))
    peer = engine.peer_open(engine.export())
    peer.map(0, memory.address, memory.nbytes)
    local = array.array("Q", range(memory.address, memory.address + half, PITCH))
    remote = array.array("Q", range(memory.address + half, memory.address + 2 * half, PITCH))
    return read(peer, local[0], remote[0], LENGTH), read(peer, local, remote, LENGTH)


def main():
    rounds = int((sys.argv[1:] or ["4001"])[0])
    with Engine() as engine:
        one, many = lists(engine)
        prepared = engine.prepare(one)
        bare = Bare(_library()._library)

        def post():
            with prepared.post() as request:
                request.wait()

        def transfer():
            with engine.transfer(many) as request:
                request.wait()

        table = (ctypes.c_char * len(many._buffer)).from_buffer(many._buffer)
        print(f"backend {engine.backend}, Python {sys.version.split()[0]}, {rounds} rounds")
        compare("post", post, bare.poster(prepared._handle), rounds)
        compare("transfer", transfer, bare.transferrer(engine._handle, table, COUNT), rounds)


main()
