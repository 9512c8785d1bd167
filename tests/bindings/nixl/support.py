# SPDX-License-Identifier: Apache-2.0
"""An agent of the NIXL wheel at hand with the backend NVLX, and memory for it.

That of the library's software GPUs counts as VRAM, a buffer of this process as DRAM. HOST is DRAM, too: chunks, which
GPUs reach."""

import ctypes
import hashlib
import importlib.metadata
import time

from nixl_cu12._api import nixl_agent, nixl_agent_config

from nvlxfer import Alloc, Backend, Engine

VERSION = tuple(int(word) for word in importlib.metadata.version("nixl_cu12").split("."))
LENGTH = 2 << 20
allocator = Engine(backend=Backend.HOST)


def make_agent(name):
    return nixl_agent(name, nixl_agent_config(backends=["NVLX"]))


class Memory:
    def __init__(self, kind, gpu=0):
        self.segment = "VRAM" if kind == "VRAM" else "DRAM"
        if kind == "DRAM":
            self.buffer = (ctypes.c_uint8 * LENGTH)()
            self.address = ctypes.addressof(self.buffer)
        else:
            self.address = allocator.alloc(gpu, LENGTH, Alloc.HOST if kind == "HOST" else Alloc.CUDA_MALLOC)
        self.range = (self.address, LENGTH, 0, "")

    def register(self, agent):
        return agent.register_memory([self.range], self.segment)

    def described(self, agent, pieces):
        return agent.get_xfer_descs(pieces, self.segment)

    def fill(self, seed):
        pattern = bytes((i * 7 + seed) % 251 for i in range(4096))
        for page in range(LENGTH // 4096):
            ctypes.memmove(self.address + page * 4096, pattern[page % 4096 :] + pattern[: page % 4096], 4096)

    def read(self, offset=0, length=LENGTH):
        return ctypes.string_at(self.address + offset, length)

    def digest(self):
        return hashlib.sha256(self.read()).hexdigest()

    def pieces(self, offsets, length):
        return [(self.address + offset, length, 0) for offset in offsets]


def wait(agent, request, state):
    end = time.monotonic() + 30
    while state == "PROC":
        assert time.monotonic() < end, "the transfer does not end"
        state = agent.check_xfer_state(request)
    assert state == "DONE", state


def finish(agent, request, *message):
    wait(agent, request, agent.transfer(request, *message))


def notices(agent, sender, count):
    got, end = [], time.monotonic() + 30
    while len(got) < count:
        assert time.monotonic() < end, f"{len(got)} of {count} messages have come"
        got += agent.get_new_notifs().get(sender, [])
    return got


def raises(names, function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        assert type(error).__name__ in names, repr(error)
        return
    raise AssertionError(f"none of {names} was raised")
