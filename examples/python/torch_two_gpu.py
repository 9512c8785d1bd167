# SPDX-License-Identifier: Apache-2.0
"""Weights of PyTorch's from one process to another: a seed on GPU 0, a target on GPU 1.

    python3 torch_two_gpu.py [--tensors N] [--bytes N] [--allocator default|expandable|async] [--hide]

The seed makes thousands of tensors of 64 bytes to 300 MiB, registers and serves them. The target connects, pulls them
all into tensors of its own, twice, and compares every byte, which it can compute itself. Needs PyTorch with CUDA, and
the package nvlxfer: src/bindings/python on PYTHONPATH does. Exit code 0: all tensors are correct; 1: they are not, or
something failed; 2: the library refuses this kind of memory, as it must that of --allocator async.
"""

from __future__ import annotations

import argparse
import array
import importlib
import math
import os
import random
import secrets
import select
import subprocess
import sys
import time
from typing import Any

import nvlxfer

SMALLEST, LARGEST = 64, 300 << 20  # bytes of one tensor
PAGE = 1 << 40  # apart in the numbers of two tensors' first words, more than any tensor has
MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)  # odd, so that a product tells its factor, modulo 2^64
ALLOCATORS = {
    "default": "expandable_segments:False",
    "expandable": "expandable_segments:True",
    "async": "backend:cudaMallocAsync",
}
WAIT = 120  # seconds that anything may take
REFUSED = 2  # the exit code


def tensor_sizes(count: int, total: int) -> list[int]:
    """Bytes of each tensor: a wide mixture, always the same for the same arguments, `total` in sum."""
    if count < 1 or not SMALLEST * count <= total <= LARGEST * count:
        raise ValueError(f"{count} tensors of {SMALLEST} to {LARGEST} bytes cannot have {total} bytes")
    dice = random.Random(count)
    weights = [math.exp(dice.uniform(math.log(SMALLEST), math.log(LARGEST))) for _ in range(count)]
    weights[0] = math.inf if total >= 2 * LARGEST + SMALLEST * count else weights[0]  # at least one of the largest

    def scaled(scale: float) -> list[int]:
        return [int(min(max(weight * scale, SMALLEST), LARGEST)) for weight in weights]

    low, high = 1e-9, float(LARGEST)  # all as small as can be, all as large
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if sum(scaled(middle)) <= total else (low, middle)
    sizes = scaled(low)
    missing = total - sum(sizes)
    for index, size in enumerate(sizes):
        more = min(missing, LARGEST - size)
        sizes[index] += more
        missing -= more
    return sizes


def name_of(index: int) -> str:
    return f"tensor {index}"


def visible(gpu: int, setting: str | None) -> str:
    """CUDA_VISIBLE_DEVICES that leaves only this GPU of those that `setting` leaves."""
    return setting.split(",")[gpu] if setting else str(gpu)


def environment(gpu: int, options: argparse.Namespace) -> dict[str, str]:
    changed = dict(os.environ)
    changed.pop("PYTORCH_ALLOC_CONF", None)  # its newer name, which would win
    changed["PYTORCH_CUDA_ALLOC_CONF"] = ALLOCATORS[options.allocator]
    if options.hide:
        changed["CUDA_VISIBLE_DEVICES"] = visible(gpu, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return changed


def table_row(step: str, seconds: float, moved: int = 0) -> str:
    return f"{step:<20} {seconds * 1e3:>9.1f} ms" + (f" {moved / seconds / 1e9:>8.1f} GB/s" if moved else "")


def read_word(source: Any, seconds: float) -> bytes:
    """What comes next through a pipe; b"" at its end, or when the time is over."""
    return os.read(source.fileno(), 64) if select.select([source], [], [], max(0, seconds))[0] else b""


# ---- The two processes -----------------------------------------------------------------------------------------------


def content(torch: Any, index: int, length: int) -> Any:
    """The bytes that tensor `index` shall have: 64-bit words of which no two are alike in all tensors."""
    words = torch.arange((length + 7) // 8, dtype=torch.int64, device="cuda")
    words.add_(index * PAGE).mul_(MULTIPLIER)
    words.bitwise_xor_(words >> 29)
    return words.view(torch.uint8)[:length]


def start(gpu: int, role: str, sizes: list[int]) -> Any:
    torch = importlib.import_module("torch")  # not at the top: the process that starts the two does not need it
    torch.cuda.set_device(gpu)
    device = torch.cuda.get_device_name(gpu)
    print(f"{role + ':':<8}GPU {gpu} ({device}), {len(sizes)} tensors, {sum(sizes)} bytes", flush=True)
    return torch


def seed(options: argparse.Namespace, sizes: list[int]) -> int:
    torch = start(options.gpu, "seed", sizes)
    tensors = [torch.empty(size, dtype=torch.uint8, device="cuda") for size in sizes]
    for index, tensor in enumerate(tensors):
        tensor.copy_(content(torch, index, len(tensor)))
    torch.cuda.synchronize()  # the library orders nothing: what is served must be there
    with nvlxfer.Engine(nvlxfer.Backend.CUDA) as engine:
        for index, tensor in enumerate(tensors):
            engine.register(tensor, name_of(index), nvlxfer.Access.READ)
        engine.serve(options.address)
        os.write(options.ready, b"ready")
        read_word(sys.stdin, WAIT)  # until the target has ended
    return 0


def pull(torch: Any, engine: nvlxfer.Engine, ops: nvlxfer.Ops, tensors: list[Any], step: str) -> set[int]:
    """Fills the tensors, prints how fast, and returns which are correct."""
    for tensor in tensors:
        tensor.zero_()
    torch.cuda.synchronize()  # the transfer is not in the stream's order
    since = time.monotonic()
    engine.transfer(ops).wait(WAIT)
    print(table_row(step, time.monotonic() - since, sum(map(len, tensors))))
    return {i for i, tensor in enumerate(tensors) if torch.equal(tensor, content(torch, i, len(tensor)))}


def target(options: argparse.Namespace, sizes: list[int]) -> int:
    torch = start(options.gpu, "target", sizes)
    tensors = [torch.empty(size, dtype=torch.uint8, device="cuda") for size in sizes]
    torch.cuda.synchronize()
    if not read_word(sys.stdin, WAIT):  # the seed has failed, and said why
        return 1
    with nvlxfer.Engine(nvlxfer.Backend.CUDA) as engine:
        for tensor in tensors:
            engine.register(tensor, access=nvlxfer.Access.NONE)
        since = time.monotonic()
        peer = engine.connect(options.address, WAIT)
        print(table_row("connect", time.monotonic() - since))
        found = [peer.find(name_of(index)) for index in range(len(tensors))]
        if [length for _, length in found] != sizes:
            raise ValueError("the seed's tensors are not of the sizes that they should have")
        local = array.array("Q", [tensor.data_ptr() for tensor in tensors])
        remote = array.array("Q", [address for address, _ in found])
        ops = nvlxfer.read(peer, local, remote, array.array("Q", sizes))
        correct = pull(torch, engine, ops, tensors, "map and first pull")
        correct &= pull(torch, engine, ops, tensors, "second pull")
    print(f"{len(correct)}/{len(tensors)} tensors correct")
    return 0 if len(correct) == len(tensors) else 1


# ---- The process that starts them ------------------------------------------------------------------------------------


def spawn(role: str, gpu: int, options: argparse.Namespace, address: str, *files: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, os.path.abspath(__file__), "--role", role, "--address", address]
    command += ["--gpu", "0" if options.hide else str(gpu), "--ready", *map(str, files or [-1])]
    command += ["--tensors", str(options.tensors), "--bytes", str(options.bytes)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=files, env=environment(gpu, options))


def finish(process: subprocess.Popen[bytes], word: bytes, deadline: float) -> int:
    """Sends a last word, waits for the exit code, and ends by force what is late."""
    try:
        process.communicate(word, max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        print(f"a process was still busy after {WAIT} s", file=sys.stderr)
    return process.returncode


def run(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + WAIT
    gpus = nvlxfer.gpu_count(nvlxfer.Backend.CUDA)
    if gpus < 2:
        print("there is one GPU here: both processes use it")
    seen = "its own GPU only" if options.hide else "all GPUs"
    print(f"allocator: {options.allocator}; each process sees {seen}", flush=True)
    address = f"@torch_two_gpu-{secrets.token_hex(8)}"
    here, there = os.pipe()
    seeding = spawn("seed", 0, options, address, there)
    os.close(there)
    targeting = spawn("target", min(1, gpus - 1), options, address)
    with open(here, "rb") as ready:
        word = read_word(ready, deadline - time.monotonic())
    codes = {"target": finish(targeting, word, deadline), "seed": finish(seeding, b"", deadline)}
    for role, code in codes.items():
        if code not in (0, 1, REFUSED):  # those have told why
            print(f"the {role} died with exit code {code}", file=sys.stderr)
    return REFUSED if REFUSED in codes.values() else int(any(codes.values()))


ROLES = {"seed": seed, "target": target}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensors", type=int, default=2000, help="number of tensors (2000)")
    parser.add_argument("--bytes", type=int, default=8 << 30, help="their bytes in sum (8 GiB)")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="default", help="PyTorch's allocator, in both")
    parser.add_argument("--hide", action="store_true", help="each process sees only its own GPU")
    for option, kind in (("--role", str), ("--address", str), ("--ready", int), ("--gpu", int)):
        parser.add_argument(option, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    who = options.role or parser.prog
    try:
        sizes = tensor_sizes(options.tensors, options.bytes)
        return ROLES[options.role](options, sizes) if options.role else run(options)
    except nvlxfer.NotSupported as refusal:
        print(f"{who}: {refusal}", file=sys.stderr)
        return REFUSED
    except (nvlxfer.NvlxError, ImportError, OSError, ValueError) as failure:
        print(f"{who}: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
