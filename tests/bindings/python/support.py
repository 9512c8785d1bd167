# SPDX-License-Identifier: Apache-2.0
"""What several tests need. As a program: runs the tests that are named, one after the other, in this process."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import nvlxfer
from nvlxfer import Engine

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from running import run_tests  # noqa: E402, F401


def given_to_c(module, call):
    """What C would be given: the host backend has no streams."""
    calls = []
    kept, module._run = module._run, lambda *arguments, **_: calls.append(arguments)
    try:
        call()
    finally:
        module._run = kept
    (given,) = calls
    return given


def raises(kind, code, text, function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except nvlxfer.NvlxError as error:
        assert type(error) is kind and error.name == code and text in str(error), repr(error)
        assert error.name in str(error) and error.code == -nvlxfer.errors._NAMES.index(code[5:])
        return
    raise AssertionError(f"{code} was not raised")


def pattern(offset, length):
    return bytes(i % 251 for i in range(offset, offset + length))


def content(engine, address, length):
    seen = bytearray(length)
    engine.memcpy(seen, address)
    return bytes(seen)


class Seed:
    """The other process."""

    def __init__(self, address=""):
        command = [sys.executable, str(HERE / "seed.py"), address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.text = json.loads(self.process.stdout.readline())

    def memory(self, offset, length):
        print(offset, length, file=self.process.stdin, flush=True)
        return bytes.fromhex(self.process.stdout.readline())

    def leave(self):
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0


def itself(length):
    """An engine that is its own peer, mapped."""
    engine = Engine()
    address = engine.alloc(0, length)
    engine.register((address, length), "all")
    peer = engine.peer_open(engine.export())
    peer.map(0, address, length)
    return engine, address, peer


if __name__ == "__main__":
    for name in sys.argv[1:]:
        runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
