# SPDX-License-Identifier: Apache-2.0
"""A relay: what one process offers, others have, and pass on."""

import gc
import os
import subprocess
import sys

import nvlxfer
from nvlxfer import Backend, Engine
from support import pattern, raises, run_tests

LENGTH = 1 << 20
READER = """
import sys
from nvlxfer import Backend, Engine, InvalidArgument
from support import content, pattern, raises
with Engine(Backend.HOST) as engine:
    tensor = engine.empty(1 << 20, gpu=1)
    with engine.join(sys.argv[1], {"w": tensor}, timeout=30) as relay:
        for generation in range(1, 4):
            relay.wait(30)
            assert content(engine, tensor.address, 1 << 20) == pattern(generation, 1 << 20)
            assert relay.info().generation == generation and relay.info().arrived == 1 << 20
            raises(InvalidArgument, "NVLX_EINVAL", "holds nothing", relay.hold)
            relay.next()
        sys.stdin.read()
"""


def start(address):
    return subprocess.Popen([sys.executable, "-c", READER, address], stdin=subprocess.PIPE)


def test_generations():
    address = f"@nvlxfer-test-relays-{os.getpid()}"
    with Engine(Backend.HOST) as engine:
        tensor = engine.empty(LENGTH)
        readers = [start(address) for _ in range(2)]
        for generation in range(1, 4):
            engine.memcpy(tensor.address, pattern(generation, LENGTH))
            if generation == 1:
                relay = engine.offer(address, {"w": tensor}, piece_bytes=1 << 16, readers=2)
            else:
                relay.next()
            relay.wait(60)
            info = relay.info()
            assert (info.source, info.generation, info.done, info.lost) == (True, generation, 2, 0), info
            relay.hold()
        for reader in readers:
            reader.communicate(timeout=60)
            assert reader.returncode == 0
        relay.close(30)
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "the Relay is closed", relay.info)


def test_errors():
    address = f"@nvlxfer-test-relays-{os.getpid()}"
    with Engine(Backend.HOST) as engine:
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "not one byte", engine.offer, address, {})
        raises(nvlxfer.Timeout, "NVLX_ETIMEDOUT", "", engine.join, address, {"w": engine.empty(10)}, timeout=0.01)
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "readers", engine.offer, address, {}, readers="1")
        tensor = engine.empty(10)
        relay = engine.offer(address, {"w": tensor})
        relay.wait(30)
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "\"w\" has 9 bytes here and 10 at the source", engine.join,
               address, {"w": (engine.empty(9).address, 9)})
        assert repr(relay) == f"<nvlxfer.Relay: at {address!r}>"


def test_engine_ends():
    """Its relays end before its memory goes, also where nobody closes them."""
    address = f"@nvlxfer-test-relays-{os.getpid()}"
    for _ in range(3):
        engine = Engine(Backend.HOST)
        relay = engine.offer(address, {"w": engine.empty(LENGTH)})
        relay.wait(30)
        del relay, engine
        gc.collect()
    engine = Engine(Backend.HOST)
    relay = engine.offer(address, {"w": engine.empty(LENGTH)})
    engine.close()
    assert relay.closed
    with Engine(Backend.HOST) as engine:
        engine.offer(address, {"w": engine.empty(LENGTH)}).close()  # nobody serves there any more


def test_end_of_the_program():
    """What it offers ends with it, also where nobody closes it."""
    program = f"""
import os
from nvlxfer import Engine
engine = Engine()
relay = engine.offer("@nvlxfer-test-relays-" + str(os.getpid()), {{"w": engine.empty({LENGTH})}})
relay.wait(30)
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


run_tests([test_generations, test_errors, test_engine_ends, test_end_of_the_program])
