# SPDX-License-Identifier: Apache-2.0
"""Arrays of PyTorch, JAX, CuPy and Numba between two processes, each kind into and out of each.

    python3 frameworks.py [--tensors N] [--mib N] [GPU of the owner] [GPU of the reader]

By hand, on one GPU or two. Each framework has arrays of its own allocator in the owner. The reader reads them into
arrays of each framework, and writes into what the owner shares for that; both sides compare with their own framework's
means. JAX's arrays never change: where bytes arrive, it has an array of the engine by DLPack, without a copy.

Then a model's tensors go from PyTorch to JAX and back, N of them, in MiB together: the second time is given.
"""

import argparse
import importlib
import os
import random
import subprocess
import sys
import time

import numpy

import nvlxfer
from nvlxfer import Access, Engine, read, write

SHAPE = (257, 129)


def values(seed):
    return (numpy.arange(SHAPE[0] * SHAPE[1], dtype=numpy.float32) * 3 + seed).reshape(SHAPE)


class Changing:
    """Whose arrays can be written: bytes arrive in one of its own."""

    def target(self):
        return self.filled(0)

    def has(self, array, seed):
        return bool((array == self.filled(seed)).all())


class Torch(Changing):
    def __init__(self, engine, gpu):
        self.torch, self.engine, self.gpu = importlib.import_module("torch"), engine, gpu
        self.torch.cuda.set_device(gpu)

    def filled(self, seed):
        made = self.torch.from_numpy(values(seed)).to(f"cuda:{self.gpu}")
        self.torch.cuda.synchronize()
        return made


class Jax:
    def __init__(self, engine, gpu):
        self.jax, self.engine, self.gpu = importlib.import_module("jax"), engine, gpu
        self.device = self.jax.devices()[gpu]

    def filled(self, seed):
        return self.jax.block_until_ready(self.jax.device_put(values(seed), self.device))

    def target(self):
        return self.engine.empty(SHAPE, "float32", gpu=self.gpu)

    def has(self, array, seed):
        return bool((self.jax.dlpack.from_dlpack(array) == self.filled(seed)).all())


class Cupy(Changing):
    def __init__(self, engine, gpu):
        self.cupy, self.engine, self.gpu = importlib.import_module("cupy"), engine, gpu
        self.cupy.cuda.Device(gpu).use()

    def filled(self, seed):
        made = self.cupy.asarray(values(seed))
        self.cupy.cuda.Device(self.gpu).synchronize()
        return made


class Numba(Changing):
    def __init__(self, engine, gpu):
        self.cuda, self.engine, self.gpu = importlib.import_module("numba.cuda"), engine, gpu
        self.cuda.select_device(gpu)

    def filled(self, seed):
        made = self.cuda.to_device(values(seed))
        self.cuda.synchronize()
        return made

    def has(self, array, seed):
        return bool((array.copy_to_host() == values(seed)).all())


FRAMEWORKS = {"torch": Torch, "jax": Jax, "cupy": Cupy, "numba": Numba}


def seed_of(owner, reader):
    names = list(FRAMEWORKS)
    return 1000 * (1 + names.index(owner)) + 10 * (1 + names.index(reader))


def own(name, address, gpu):
    """Shares an array, and one to write into for each other framework; then says what has come."""
    with Engine(gpus=[gpu]) as engine:
        mine = FRAMEWORKS[name](engine, gpu)
        kept = mine.filled(seed_of(name, name))
        targets = {other: mine.target() for other in FRAMEWORKS}
        regions = [engine.register(kept, "kept", Access.READ)]
        regions += [engine.register(target, f"into.{other}") for other, target in targets.items()]
        engine.serve(address)
        print("serves", flush=True)
        for line in sys.stdin:
            other = line.strip()
            print(mine.has(targets[other], seed_of(name, other) + 1), flush=True)
        assert mine.has(kept, seed_of(name, name))
        for region in regions:
            region.close(10)


def one_op(engine, op):
    with engine.transfer(op) as request:
        request.wait(20)


def read_and_write(name, owner, address, gpu):
    with Engine(gpus=[gpu]) as engine, engine.connect(address, timeout=60) as peer:
        mine = FRAMEWORKS[name](engine, gpu)
        target, source = mine.target(), mine.filled(seed_of(owner, name) + 1)
        for array, access, op, theirs in (
            (target, Access.READ_WRITE, read, "kept"),
            (source, Access.READ, write, f"into.{name}"),
        ):
            remote, length = peer.find(theirs)
            assert length == SHAPE[0] * SHAPE[1] * 4
            with engine.register(array, "mine", access) as region:
                one_op(engine, op(peer, region.address, remote, length))
        assert mine.has(target, seed_of(owner, owner)), f"{name} has read other values than {owner} has"


def started(*arguments):
    return subprocess.Popen([sys.executable, __file__, "--role", *arguments], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip


def each_with_each(gpus):
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # two processes with JAX share the GPUs
    for owner in FRAMEWORKS:
        address = f"@nvlx-frameworks-{os.getpid()}-{owner}"
        process = started("own", owner, address, str(gpus[0]))
        assert process.stdout.readline() == "serves\n"
        readers = {name: started("read", name, owner, address, str(gpus[1])) for name in FRAMEWORKS}
        for name, reader in readers.items():
            reader.communicate(timeout=120)
            print(name, file=process.stdin, flush=True)
            written = process.stdout.readline().strip()
            assert reader.returncode == 0 and written == "True", (owner, name, reader.returncode, written)
        process.communicate(timeout=60)
        assert process.returncode == 0
        print(f"ok: arrays of {owner}, read and written by {', '.join(readers)}", flush=True)


# ---- A model, from PyTorch to JAX and back ---------------------------------------------------------------------


def model_sizes(tensors, mib):
    dice = random.Random(7)
    weights = [dice.lognormvariate(0, 2) for _ in range(tensors)]
    return [max(256, int(weight * mib * (1 << 20) / sum(weights)) // 512 * 256) for weight in weights]


def rate_of(name, pulled, nbytes):
    rates = []
    for _ in range(4):
        since = time.perf_counter()
        pulled.again(verify=False)
        rates.append(nbytes / (time.perf_counter() - since) / 1e9)
    print(f"{name}: {nbytes / 1e9:.1f} GB, again: {', '.join(f'{rate:.0f}' for rate in rates)} GB/s", flush=True)


def model_in_torch(address, gpu, tensors, mib):
    torch = importlib.import_module("torch")
    torch.cuda.set_device(gpu)
    sizes = model_sizes(tensors, mib)
    torch.manual_seed(7)
    mine = {f"t{i}": torch.randn(size, device="cuda", dtype=torch.bfloat16) for i, size in enumerate(sizes)}
    torch.cuda.synchronize()
    with Engine(gpus=[gpu]) as engine, nvlxfer.publish(mine, engine):
        engine.serve(address)
        print("serves", flush=True)
        back = {name: torch.zeros_like(tensor) for name, tensor in mine.items()}
        torch.cuda.synchronize()
        sys.stdin.readline()
        with engine.connect(address + "-back", timeout=60) as peer, nvlxfer.pull(peer, into=back) as pulled:
            rate_of("JAX to PyTorch", pulled, 2 * sum(sizes))
            pulled.again()
            torch.cuda.synchronize()
            wrong = [name for name, tensor in mine.items() if not torch.equal(tensor, back[name])]
        assert not wrong, wrong[:5]


def model_in_jax(address, gpu, process):
    jax = importlib.import_module("jax")
    assert process.stdout.readline() == "serves\n"
    with Engine(gpus=[gpu]) as engine, engine.connect(address, timeout=60) as peer:
        with nvlxfer.pull(peer) as pulled:
            nbytes = sum(array.nbytes for array in pulled.tensors.values())
            rate_of("PyTorch to JAX", pulled, nbytes)
            pulled.again()
            arrays = {name: jax.dlpack.from_dlpack(array) + 0 for name, array in pulled.tensors.items()}
            jax.block_until_ready(arrays)
        with nvlxfer.publish(arrays, engine):
            engine.serve(address + "-back")
            print(file=process.stdin, flush=True)
            sys.stdout.write(process.stdout.readline())
            process.communicate(timeout=60)
    assert process.returncode == 0
    print(f"ok: {len(arrays)} tensors from PyTorch to JAX and back are equal", flush=True)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--tensors", type=int, default=2000)
    options.add_argument("--mib", type=int, default=8192)
    options.add_argument("gpus", type=int, nargs="*", default=[0, 1])
    options = options.parse_args()
    each_with_each(options.gpus)
    del os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]
    address = f"@nvlx-frameworks-{os.getpid()}"
    process = started("model", address, str(options.gpus[0]), str(options.tensors), str(options.mib))
    model_in_jax(address, options.gpus[1], process)


if sys.argv[1:2] != ["--role"]:
    main()
elif sys.argv[2] == "own":
    own(sys.argv[3], sys.argv[4], int(sys.argv[5]))
elif sys.argv[2] == "read":
    read_and_write(sys.argv[3], sys.argv[4], sys.argv[5], int(sys.argv[6]))
else:
    model_in_torch(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
