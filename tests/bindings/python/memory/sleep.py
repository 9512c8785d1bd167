# SPDX-License-Identifier: Apache-2.0
"""Memory that sleeps, and wakes where it was or elsewhere."""

import os

import nvlxfer
from nvlxfer import Access, Backend, Engine, read
from support import content, pattern, raises, run_tests


def test_sleep():
    address = f"@nvlxfer-test-sleep-{os.getpid()}"
    with Engine(Backend.HOST) as owner, Engine(Backend.HOST) as reader:
        memory, mine = owner.alloc(0, 4096), reader.alloc(0, 4096)
        region = owner.register((memory, 4096), "w", Access.READ)
        rest = owner.register((memory, 16), "rest", Access.READ)
        reader.register((mine, 4096), access=Access.NONE)
        owner.serve(address)
        peer = reader.connect(address)
        prepared = reader.prepare(read(peer, mine, memory, 4096))
        for version in range(1, 10):
            owner.suspend([region, rest], 30)
            raises(nvlxfer.Suspended, "NVLX_ESUSPENDED", "suspended", prepared.post)
            raises(nvlxfer.Suspended, "NVLX_ESUSPENDED", "op 0", reader.transfer, read(peer, mine, memory, 10))
            raises(nvlxfer.Suspended, "NVLX_ESUSPENDED", "sleeps", owner.digest, (memory, 4096))
            assert peer.find("w") == (memory, 4096) and peer.region("w").suspended
            assert all(info.suspended for info in peer.regions())
            owner.memcpy(memory, pattern(version, 4096))  # of the sleeper's memory, which the owner kept here
            owner.resume([region, rest])
            peer.sync(owner.publish(), 30)
            assert not any(info.suspended for info in peer.regions())
            prepared.post().wait(30)
            assert content(reader, mine, 4096) == pattern(version, 4096)
        owner.suspend([region, rest], 30)
        elsewhere = owner.alloc(0, 8192)
        owner.memcpy(elsewhere, pattern(0, 8192))
        owner.free(memory)
        owner.resume([region, rest], [elsewhere + 4096, elsewhere])
        assert region.address == elsewhere + 4096
        peer.sync(owner.publish(), 30)
        assert peer.find("w") == (elsewhere + 4096, 4096)
        raises(nvlxfer.Stale, "NVLX_ESTALE", "another address", prepared.post)
        reader.transfer(read(peer, mine, elsewhere + 4096, 4096)).wait(30)
        assert content(reader, mine, 4096) == pattern(4096, 4096)


def test_arguments():
    with Engine(Backend.HOST) as owner:
        memory = owner.alloc(0, 4096)
        region = owner.register((memory, 4096))
        owner.suspend([])
        owner.resume([])
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "is not suspended", owner.resume, [region])
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "regions[0]", owner.suspend, [memory])
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "1 regions have 2", owner.resume, [region], [None, memory])
        owner.suspend([region])
        owner.resume([region], [None])
        owner.hold()
        raises(nvlxfer.Timeout, "NVLX_ETIMEDOUT", "nvlx_publish", owner.suspend, [region], timeout=0)
        owner.publish()
        owner.suspend([region])
        region.close()
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "closed", owner.suspend, [region])


run_tests([test_sleep, test_arguments])
