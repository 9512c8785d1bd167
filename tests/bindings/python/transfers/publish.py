# SPDX-License-Identifier: Apache-2.0
"""Changes that are held back, published as one, and awaited."""

import os

import nvlxfer
from nvlxfer import Access, Backend, Engine
from support import raises, run_tests


def test_swap():
    address = f"@nvlxfer-test-publish-{os.getpid()}"
    with Engine(Backend.HOST) as owner, Engine(Backend.HOST) as reader:
        memory = owner.alloc(0, 4096)
        old = owner.register((memory, 100), "w", Access.READ)
        owner.serve(address)
        peer = reader.connect(address)
        for version in range(1, 20):
            owner.hold()
            raises(nvlxfer.Busy, "NVLX_EBUSY", "held back", owner.hold)
            raises(nvlxfer.Timeout, "NVLX_ETIMEDOUT", "nvlx_publish", old.close, timeout=0)
            new = owner.register((memory + 100 * version, 100), "w", Access.READ)
            generation = owner.publish()
            peer.sync(generation, 30)
            assert peer.find("w") == (memory + 100 * version, 100)
            old.close(30)
            old = new
        raises(nvlxfer.Timeout, "NVLX_ETIMEDOUT", "not yet", peer.sync, generation + 1, timeout=0.01)
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "generation", peer.sync, "1")
        assert owner.publish() >= generation


def test_check():
    with Engine(Backend.HOST) as owner:
        memory = owner.alloc(0, 4096)
        region = owner.register((memory, 100), "w", Access.READ)
        owner.check()
        assert '"w"' in owner.export()
        owner.free(memory)
        owner.check()
        assert '"w"' not in owner.export()
        region.close()


run_tests([test_swap, test_check])
