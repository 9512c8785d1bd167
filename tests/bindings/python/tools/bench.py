# SPDX-License-Identifier: Apache-2.0
"""What the package costs: a model of 2,000 tensors between two processes, and lists of 8192 fragments.

    python3 bench.py [GiB of the model] [GPU of the owner] [GPU of the reader]

By hand, on two GPUs. Lists are medians of 301 rounds, pulls the best of 7. Of what is pulled, one tensor in twenty is
checked, each byte of it. overhead.py has what the package adds to a single transfer.

A list has 8192 fragments in random slots of an arena of 8192 slots, on both sides. It goes by the package and by bare
calls of C (bare.py), in turn, from the same memory. A program in C has the like of it by

    nvlx_perf --fragment=1K --arena=8M --bytes=8M --count=8192 --baseline=none --prepared
    nvlx_perf --fragment=4K --arena=32M --bytes=32M --count=8192 --baseline=none --prepared
    nvlx_perf --fragment=16K --arena=128M --bytes=128M --count=8192 --baseline=none --prepared
    nvlx_perf --fragment=64K --arena=512M --bytes=512M --count=8192 --baseline=none --prepared
"""

import array
import os
import random
import statistics
import subprocess
import sys
import time

import nvlxfer
from bare import Bare, compare
from nvlxfer import Access, Array, Engine, read

TENSORS, COUNT, SIZES = 2000, 8192, (1 << 10, 4 << 10, 16 << 10, 64 << 10)
LIST_ROUNDS, PULL_ROUNDS = 301, 7


def model(engine, gib, gpu):
    """Tensors of 512 bytes to many MiB in a few large allocations, as a caching allocator places them."""
    dice = random.Random(7)
    weights = [dice.lognormvariate(0, 2) for _ in range(TENSORS)]
    unit = gib * (1 << 30) / sum(weights)
    tensors, room, used = {}, None, 0
    for index, weight in enumerate(weights):
        rows = max(1, int(weight * unit / 512))
        if room is None or used + 512 * rows > room.nbytes:
            room, used = engine.empty(max(1 << 30, 512 * rows), gpu=gpu), 0
        tensors[f"tensor.{index}"] = Array(engine, room.address + used, (rows, 256), "bfloat16", gpu, owned=False)
        used += 512 * rows
    return tensors


def content(index, length):
    return random.Random(index).randbytes(4096) * (length // 4096 + 1)


def own(address, gib, gpu):
    with Engine(gpus=[gpu]) as engine:
        tensors = model(engine, gib, gpu)
        for index, tensor in enumerate(tensors.values()):
            tensor.fill(memoryview(content(index, tensor.nbytes))[: tensor.nbytes])
        since = time.perf_counter()
        with nvlxfer.publish(tensors, engine):
            print(f"publish: {1e3 * (time.perf_counter() - since):.1f} ms with digests", flush=True)
            blocks = engine.empty((COUNT, SIZES[-1]), gpu=gpu)
            engine.register(blocks, "blocks", Access.READ)
            engine.serve(address)
            print("ready", flush=True)
            sys.stdin.read()


def timed(work, rounds):
    took = []
    for _ in range(rounds):
        since = time.perf_counter()
        work()
        took.append(time.perf_counter() - since)
    return took


def pull_model(peer, gpu):
    since = time.perf_counter()
    with nvlxfer.pull(peer, gpu=gpu) as got:
        total = sum(tensor.nbytes for tensor in got.tensors.values())
        print(f"pull, first, verified: {len(got.tensors)} tensors, {total} bytes, {1e3 * (time.perf_counter() - since):.1f} ms")
        for index, tensor in enumerate(got.tensors.values()):
            if index % 20 == 0 and tensor.tobytes() != content(index, tensor.nbytes)[: tensor.nbytes]:
                sys.exit(f"tensor {index} is wrong")
        for verify in (False, True):
            best = min(timed(lambda: got.again(verify=verify), PULL_ROUNDS))
            print(f"pull, again, verify={verify}: {1e3 * best:.2f} ms, {total / best / 1e9:.1f} GB/s")


def tell(what, size, package, bare):
    ours, theirs, more = compare(package, bare, LIST_ROUNDS)
    print(f"    {what}: package {COUNT * size / ours:.1f} GB/s, bare {COUNT * size / theirs:.1f} ({theirs / ours:.3f}), "
          f"more {more / 1e3:.1f} us")  # fmt: skip


def lists(engine, peer, gpu):
    there, _ = peer.find("blocks")
    mine, bare = engine.empty((COUNT, SIZES[-1]), gpu=gpu), Bare()
    engine.register(mine, access=Access.NONE)
    for size in SIZES:
        slots = random.Random(size).sample(range(COUNT), COUNT)
        local = array.array("Q", (mine.address + size * slot for slot in slots))
        remote = array.array("Q", (there + size * slot for slot in random.Random(1).sample(range(COUNT), COUNT)))
        built = statistics.median(timed(lambda: read(peer, local, remote, size), LIST_ROUNDS))
        ops = read(peer, local, remote, size)

        def call():
            with engine.transfer(ops) as request:
                request.wait()

        def post():
            with prepared.post() as request:
                request.wait()

        with engine.transfer(ops) as request:
            request.wait()
            submit = request.info().submit_ns / 1e3
        print(f"{COUNT} x {size}: list built in {1e6 * built:.0f} us, C's part of the first call {submit:.0f} us")
        tell("one call", size, call, bare.transferrer(engine, ops))
        with engine.prepare(ops) as prepared:
            tell("prepared", size, post, bare.poster(prepared))


def main():
    gib, gpus = float((sys.argv[1:] or ["4"])[0]), [int(gpu) for gpu in (sys.argv[2:] + ["0", "1"])[:2]]
    address = f"@nvlxfer-bench-{os.getpid()}"
    command = [sys.executable, __file__, "--own", address, str(gib), str(gpus[0])]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in iter(other.stdout.readline, "ready\n"):
        print(line, end="")
        assert line, "the owner has ended"
    with Engine(gpus=[gpus[1]]) as engine, engine.connect(address, 30) as peer:
        print(f"backend {engine.backend}, GPU {gpus[0]} -> GPU {gpus[1]}")
        pull_model(peer, gpus[1])
        lists(engine, peer, gpus[1])
    other.communicate(timeout=60)


if sys.argv[1:2] == ["--own"]:
    own(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
else:
    main()
