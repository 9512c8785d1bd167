# SPDX-License-Identifier: Apache-2.0
"""The first example: a word from one process to another. On a GPU, or where there is none, on the host backend.

python3 quickstart.py
"""

from __future__ import annotations

import os
import subprocess
import sys

from nvlxfer import Access, Engine, read

WORD = b"hello from the other process's memory"


def lend(address: str) -> int:
    """The process that has the memory."""
    with Engine() as engine, engine.empty(len(WORD)) as buffer:
        buffer.fill(WORD)
        with engine.register(buffer, "greeting", Access.READ):
            engine.serve(address)
            return subprocess.run([sys.executable, __file__, address], timeout=60).returncode


def fetch(address: str) -> int:
    """The process that reads it."""
    with Engine() as engine, engine.connect(address, timeout=30) as peer:
        remote, length = peer.find("greeting")
        with engine.empty(length) as buffer, engine.register(buffer, access=Access.NONE):
            with engine.transfer(read(peer, buffer.address, remote, length)) as request:
                request.wait(timeout=10)
            print(buffer.tobytes().decode())
            return buffer.tobytes() != WORD


if __name__ == "__main__":
    sys.exit(fetch(sys.argv[1]) if len(sys.argv) > 1 else lend(f"@nvlxfer-quickstart-{os.getpid()}"))
