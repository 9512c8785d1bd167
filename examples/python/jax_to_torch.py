# SPDX-License-Identifier: Apache-2.0
"""A model's parameters from JAX in one process to PyTorch in another, and back.

    python3 jax_to_torch.py

JAX publishes its arrays from GPU 0. PyTorch pulls them into tensors of its own on the last GPU, publishes these, and
JAX pulls them back into arrays that it takes by DLPack, without a copy, and compares. Needs both with CUDA.
XLA_PYTHON_CLIENT_ALLOCATOR must not be cuda_async, whose memory cannot be shared.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import Any

import nvlxfer

SHAPES = {"embed": (1000, 256), "layer.0.w": (256, 1024), "layer.0.b": (1024,), "layer.1.w": (1024, 256)}


def in_jax(address: str) -> int:
    jax: Any = importlib.import_module("jax")
    keys = jax.random.split(jax.random.key(1), len(SHAPES))
    params = {
        name: jax.random.normal(key, shape).astype("bfloat16") for key, (name, shape) in zip(keys, SHAPES.items())
    }
    jax.block_until_ready(params)  # peers read what is complete
    with nvlxfer.Engine() as engine, nvlxfer.publish(params, engine):
        engine.serve(address)
        other = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE)
        with engine.connect(address + "-back", timeout=120) as peer, nvlxfer.pull(peer) as back:
            wrong = [name for name, made in back.tensors.items() if not equal(jax, made, params[name])]
        other.communicate()
        print(f"not equal: {wrong}" if wrong else "all equal")
        return other.returncode or bool(wrong)


def equal(jax: Any, made: nvlxfer.Array, param: Any) -> bool:
    return bool((jax.dlpack.from_dlpack(made) == param).all())  # and JAX lets go of it


def in_torch(address: str) -> int:
    torch: Any = importlib.import_module("torch")
    gpu = f"cuda:{torch.cuda.device_count() - 1}"
    mine = {name: torch.empty(shape, dtype=torch.bfloat16, device=gpu) for name, shape in SHAPES.items()}
    with nvlxfer.Engine() as engine, engine.connect(address, timeout=30) as peer, nvlxfer.pull(peer, into=mine):
        published = nvlxfer.publish(mine, engine)
        engine.serve(address + "-back")
        sys.stdin.read()  # until the other process has them
        published.close()
    return 0


if __name__ == "__main__":
    sys.exit(in_torch(sys.argv[1]) if len(sys.argv) > 1 else in_jax(f"@nvlxfer-jax-{os.getpid()}"))
