# SPDX-License-Identifier: Apache-2.0
"""What the tests of Mooncake's interface need: memory here, and another process that has some too."""

import contextlib
import functools
import json
import logging
import subprocess
import sys
from pathlib import Path

from nvlxfer import Backend, Engine
from nvlxfer.mooncake import TransferEngine

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from running import run_tests  # noqa: E402, F401

said: list[str] = []  # what the module logs


class _Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


logging.getLogger("nvlxfer.mooncake").addHandler(_Keep())
logging.getLogger("nvlxfer.mooncake").propagate = False
logging.getLogger("nvlxfer").setLevel(logging.ERROR)
memory = Engine(Backend.HOST)


@functools.cache
def pattern(seed, length):
    return bytes((i * 7 + seed) % 251 for i in range(length))


def started():
    engine = TransferEngine()
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "rdma", "") == 0
    return engine


def buffer(engine, length, content=None, gpu=0):
    """New memory of a GPU, registered."""
    address = memory.alloc(gpu, length)
    memory.memcpy(address, content or bytes(length))
    assert engine.register_memory(address, length) == 0
    return address


def content(address, length):
    seen = bytearray(length)
    memory.memcpy(seen, address)
    return bytes(seen)


def told(words):
    """The last call that failed said these words."""
    assert words in said[-1], said[-1]
    return True


class Owner:
    """The other process: `owner("engine.get_rpc_port()")` is what it is there. `before`: a command that runs it."""

    def __init__(self, *before):
        command = [*before, sys.executable, str(HERE / "owner.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.session = json.loads(self.process.stdout.readline())

    def __call__(self, expression):
        print(expression, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def buffer(self, length, seed=0, gpu=1):
        """New memory there, registered."""
        address = self(f"memory.alloc({gpu}, {length})")
        self(f"memory.memcpy({address}, bytes((i * 7 + {seed}) % 251 for i in range({length})))")
        assert self(f"engine.register_memory({address}, {length})") == 0
        return address

    def content(self, address, length):
        return bytes.fromhex(self(f"engine.read_bytes_from_buffer({address}, {length}).hex()"))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
