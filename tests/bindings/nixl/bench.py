# SPDX-License-Identifier: Apache-2.0
"""How fast NIXL moves scattered fragments between two processes with a backend: the same program for NVLX and UCX.

    bench.py [--here DRAM] [--there DRAM] BACKEND [FRAGMENTS] [SIZE...]

Memory is cudaMalloc's, of GPU 0 here and of GPU 1 in the other process; with NVLX_BACKEND=host it is that of software
GPUs. A side that is DRAM has host memory instead, which GPUs reach, near to its GPU. Each fragment goes to another
place than it comes from, and the bytes are looked at. `request`: making one from prepared lists, posting it, waiting.
`again`: posting that request again, and waiting; `post`: the post of it alone.
The exit code is 1 if bytes were wrong, or either process has failed."""

import argparse
import random
import statistics
import subprocess
import sys
import time

try:
    from nixl_cu13 import nixl_agent, nixl_agent_config
except ImportError:
    from nixl_cu12 import nixl_agent, nixl_agent_config

import numpy as np

from nvlxfer import Alloc, Engine

KINDS = {"VRAM": Alloc.CUDA_MALLOC, "DRAM": Alloc.HOST}
MOST = 512 << 20
TOLD = "owner:"  # begins the line by which the owner says where its memory is; NIXL logs to the same place


def words(length):
    return np.random.default_rng(7).integers(0, 256, length, np.uint8)


def make(name, backend, kind, gpu, length):
    engine = Engine()
    address = engine.alloc(gpu, length, KINDS[kind])
    agent = nixl_agent(name, nixl_agent_config(backends=[backend]))
    agent.register_memory([(address, length, number(kind, gpu), "")], kind)
    return engine, address, agent


def number(kind, gpu):
    """What NIXL calls the device's ID."""
    return gpu if kind == "VRAM" else 0


def own(backend, kind, length):
    engine, address, agent = make("owner", backend, kind, 1, length)
    engine.memcpy(address, bytearray(words(length).tobytes()))
    print(TOLD, address, agent.get_agent_metadata().hex(), flush=True)
    sys.stdin.read()


def rows(address, order, size, gpu):
    return np.array([(address + i * size, size, gpu) for i in order], dtype=np.uint64)


def timed(agent, request):
    begin = time.perf_counter()
    state = agent.transfer(request)
    posted = time.perf_counter()
    while state == "PROC":
        state = agent.check_xfer_state(request)
    assert state == "DONE", state
    return posted - begin, time.perf_counter() - begin


def moves_right(agent, engine, address, order, size, make):
    """Reads what the owner has; writes other bytes, and reads those back. Every byte of the list is looked at."""
    length = len(order) * size

    def read():
        engine.memcpy(address, bytearray(length))
        timed(agent, make("READ"))
        seen = bytearray(length)
        engine.memcpy(seen, address)
        return bytes(seen)

    def write(content):
        engine.memcpy(address, bytearray(content))
        timed(agent, make("WRITE"))

    before = words(length).reshape(len(order), size)[order].tobytes()
    after = words(length)[::-1].tobytes()
    right = read() == before
    write(after)
    right = read() == after and right
    write(before)
    return right


def measure(backend, agent, operation, size, make):
    """Prints the figures."""
    request, count = make(operation), make.count
    timed(agent, request)
    again = [timed(agent, request) for _ in range(20)]
    whole = []
    for _ in range(10):
        begin = time.perf_counter()
        timed(agent, make(operation))
        whole.append(time.perf_counter() - begin)
    rate = [count * size / 1e9 / statistics.median(times) for times in (whole, [end for _, end in again])]
    post = statistics.median(posted for posted, _ in again) * 1e6
    print(
        f"{backend:5} {operation:5} {count} x {size:8}: request {rate[0]:7.1f} GB/s, again {rate[1]:7.1f} GB/s,"
        f" post {post:9.1f} us",
        flush=True,
    )


class Maker:
    """Makes requests of one list of fragments, from prepared lists."""

    def __init__(self, agent, here, there, kinds):
        self.agent, self.count = agent, len(here)
        self.every = np.arange(self.count, dtype=np.int32)
        self.here = agent.prep_xfer_dlist("NIXL_INIT_AGENT", here, kinds[0])
        self.there = agent.prep_xfer_dlist("owner", there, kinds[1])

    def __call__(self, operation):
        return self.agent.make_prepped_xfer(operation, self.here, self.every, self.there, self.every)


def main(backend, kinds, count, sizes):
    """False: something has failed."""
    length = max(min(MOST, count * size) for size in sizes)
    command = [sys.executable, __file__, "--own", backend, kinds[1], str(length)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        engine, address, agent = make("reader", backend, kinds[0], 0, length)
        told = next((line for line in owner.stdout if line.startswith(TOLD)), None)
        if told is None:
            print("the owner has told nothing", file=sys.stderr)
            return False
        remote, metadata = told.split()[1:]
        agent.add_remote_agent(bytes.fromhex(metadata))
        right = True
        for size in sizes:
            fragments = min(count, MOST // size)
            order = random.Random(5).sample(range(fragments), fragments)
            there = rows(int(remote), order, size, number(kinds[1], 1))
            maker = Maker(agent, rows(address, range(fragments), size, 0), there, kinds)
            if not moves_right(agent, engine, address, order, size, maker):
                print(f"{backend} has moved WRONG BYTES: {fragments} x {size}", file=sys.stderr)
                right = False
            for operation in "READ", "WRITE":
                measure(backend, agent, operation, size, maker)
        owner.communicate()
    return right and owner.returncode == 0


if sys.argv[1:2] == ["--own"]:
    own(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    parser = argparse.ArgumentParser()
    for side in "--here", "--there":
        parser.add_argument(side, choices=KINDS, default="VRAM")
    parser.add_argument("backend")
    parser.add_argument("fragments", nargs="?", type=int, default=8192)
    parser.add_argument("sizes", nargs="*", type=int, default=[1024, 4096, 16384, 65536])
    asked = parser.parse_args()
    done = main(asked.backend, (asked.here, asked.there), asked.fragments, asked.sizes)
    sys.exit(0 if done else 1)
