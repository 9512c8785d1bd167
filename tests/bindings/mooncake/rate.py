# SPDX-License-Identifier: Apache-2.0
"""GB/s of one GPU's reads of another's memory, by whatever `mooncake.engine` is: 8192 scattered fragments a call.

    PYTHONPATH=...:$(python -m nvlxfer.mooncake) rate.py       # nvlxfer in its place
    MC_INTRANODE_NVLINK=1 PYTHONPATH=... rate.py               # Mooncake's own, if it and PyTorch are installed

On the backend host it tells only that it runs."""

import array
import importlib
import json
import random
import subprocess
import sys
import time

from mooncake.engine import TransferEngine

import nvlxfer

COUNT, SIZES, ROUNDS = 8192, (1 << 10, 1 << 12, 1 << 14, 1 << 16), 10
ROOM = COUNT * SIZES[-1]


def started(gpu):
    """An engine with all its memory, each word of which is its own address in the buffer."""
    if not TransferEngine.__module__.startswith("nvlxfer"):  # Mooncake's own wants a context that is current
        importlib.import_module("torch").zeros(1, device=f"cuda:{gpu}")
    memory, engine = nvlxfer.Engine(gpus=[gpu]), TransferEngine()
    address = memory.alloc(gpu, ROOM)
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "rdma", "") == 0 == engine.register_memory(address, ROOM)
    return memory, engine, address


def owner():
    memory, engine, address = started(0)
    memory.memcpy(address, array.array("Q", range(ROOM // 8)))
    print(json.dumps([engine.get_rpc_port(), address]), flush=True)
    sys.stdin.readline()


def reader(port, there):
    memory, engine, here = started(nvlxfer.gpu_count() - 1)
    print(f"{TransferEngine.__module__}, {memory.backend}")
    for size in SIZES:
        order = random.Random(size).sample(range(COUNT), COUNT)
        lists = [here + size * i for i in range(COUNT)], [there + size * i for i in order], [size] * COUNT
        times, used = [], time.process_time()
        for _ in range(ROUNDS):
            since = time.perf_counter()
            assert engine.batch_transfer_sync_read(f"127.0.0.1:{port}", *lists) == 0
            times.append(time.perf_counter() - since)
        used = (time.process_time() - used) / ROUNDS
        seen = array.array("Q", bytes(size * COUNT))
        memory.memcpy(seen, here)
        words = size // 8
        for i, place in enumerate(order):
            assert seen[i * words] == place * words and seen[(i + 1) * words - 1] == (place + 1) * words - 1
        best = min(times)
        print(f"{size:6} bytes: {COUNT * size / best / 1e9:6.1f} GB/s, {best * 1e6:.0f} us, CPU {used * 1e6:.0f} us")


if sys.argv[1:] == ["owner"]:
    owner()
else:
    other = subprocess.Popen([sys.executable, __file__, "owner"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        reader(*json.loads(other.stdout.readline()))
        other.stdin.close()
        assert other.wait(30) == 0
    finally:
        other.kill()
