# SPDX-License-Identifier: Apache-2.0
"""New weights from one process to several, as a trainer gives them to its inference engines.

    python3 weights.py [readers] [rounds]

The trainer publishes its tensors once. In each round it changes them in place and says their generation; each reader
brings all of them by the list that it prepared in the first round, and verifies every byte by the trainer's digests.
With PyTorch and CUDA the tensors are torch's, else the package's own arrays: also without a GPU.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from typing import Any

import nvlxfer

try:
    torch: Any = importlib.import_module("torch")
except ImportError:
    torch = None

SHAPES = {f"layers.{i}.{part}": shape for i in range(8) for part, shape in (("w", (512, 512)), ("b", (512,)))}


def make_tensors(engine: nvlxfer.Engine) -> dict[str, Any]:
    if torch is not None and engine.backend == "cuda":
        return {name: torch.zeros(shape, dtype=torch.bfloat16, device="cuda:0") for name, shape in SHAPES.items()}
    return {name: engine.empty(shape, "bfloat16") for name, shape in SHAPES.items()}


def train(tensors: dict[str, Any], step: int) -> None:
    for tensor in tensors.values():
        if isinstance(tensor, nvlxfer.Array):
            tensor.fill(bytes([step]) * tensor.nbytes)
        else:
            tensor.fill_(step)
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()  # peers read what is complete


def trainer(readers: int, rounds: int) -> int:
    address = f"@nvlxfer-weights-{os.getpid()}"
    with nvlxfer.Engine() as engine:
        tensors = make_tensors(engine)
        train(tensors, 0)
        with nvlxfer.publish(tensors, engine) as published:
            engine.serve(address)
            command = [sys.executable, __file__, "--read", address]
            children = [
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(readers)
            ]
            for step in range(1, rounds + 1):
                for child in children:
                    assert child.stdout and child.stdout.readline(), "a reader has ended"  # it has the last weights
                with published.changing():
                    train(tensors, step)
                for child in children:
                    print(published.generation, file=child.stdin, flush=True)
            for child in children:
                child.communicate(timeout=60)
            return any(child.returncode for child in children)


def reader(address: str) -> int:
    with nvlxfer.Engine() as engine, engine.connect(address, timeout=30) as peer, nvlxfer.pull(peer) as weights:
        total = sum(tensor.nbytes for tensor in weights.tensors.values())
        print("ready", flush=True)
        for line in sys.stdin:
            since = time.perf_counter()
            weights.again(int(line), timeout=30)
            took = time.perf_counter() - since
            print(f"reader {os.getpid()}: {total} bytes, verified, in {1e3 * took:.1f} ms", file=sys.stderr)
            print("ready", flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        sys.exit(reader(sys.argv[2]))
    counts = [int(argument) for argument in sys.argv[1:]] + [2, 3][len(sys.argv) - 1 :]
    sys.exit(trainer(*counts))
