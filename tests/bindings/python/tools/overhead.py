# SPDX-License-Identifier: Apache-2.0
"""What the package adds to C for each transfer.

    NVLX_LIBRARY=... NVLX_BACKEND=host PYTHONPATH=src/bindings/python python3 overhead.py [rounds]

By hand, on any backend. Each round does the same transfer by the package and by bare calls of C (bare.py). The figures
are medians over all rounds, of the package, of the bare calls, and of the two's difference in a round. What the package
does while the copies run hides behind these.

    post       nvlx_post of 1 op of 64 bytes, nvlx_wait, nvlx_request_free
    transfer   nvlx_transfer of 8192 ops of 64 bytes, and the same two
"""

import array
import sys

from bare import Bare, compare
from nvlxfer import Engine, read

COUNT, LENGTH = 8192, 64
PITCH = 2 * LENGTH  # no op is joined with the next one


def tell(what, package, bare, rounds):
    ours, theirs, more = (ns / 1e3 for ns in compare(package, bare, rounds))
    print(f"{what:9} package {ours:7.2f} us, bare {theirs:7.2f} us, more {more:6.2f} us")


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
        bare = Bare()

        def post():
            with prepared.post() as request:
                request.wait()

        def transfer():
            with engine.transfer(many) as request:
                request.wait()

        print(f"backend {engine.backend}, Python {sys.version.split()[0]}, {rounds} rounds")
        tell("post", post, bare.poster(prepared), rounds)
        tell("transfer", transfer, bare.transferrer(engine, many), rounds)


main()
