# SPDX-License-Identifier: Apache-2.0
"""What is known of a peer's regions, and addresses that outlive none of them."""

import array
import os
import threading

import nvlxfer
from nvlxfer import Access, Backend, Engine, read
from support import raises, run_tests

NAMES = [f"w{i}" for i in range(20)]


def pair(test):
    address = f"@nvlxfer-test-regions-{os.getpid()}-{test}"
    owner, reader = Engine(Backend.HOST), Engine(Backend.HOST)
    owner.serve(address)
    return owner, reader, reader.connect(address)


def test_regions():
    owner, reader, peer = pair("all")
    with owner, reader:
        assert peer.regions() == []
        memory = owner.alloc(0, 100 * len(NAMES))
        kept = [owner.register((memory + 100 * i, 100), name, Access.READ) for i, name in enumerate(NAMES)]
        kept.append(owner.register((memory, 7), access=Access.WRITE))
        peer.sync(owner.publish(), 30)
        assert peer.generation() == owner.publish()
        found = {info.name: info for info in peer.regions()}
        assert set(found) == {*NAMES, ""} and found[""][1:4] == (memory, 7, Access.WRITE)
        for i, name in enumerate(NAMES):
            info = peer.region(name)
            assert info == found[name] and info[:4] == (name, memory + 100 * i, 100, Access.READ)
            assert peer.find(name) == (info.address, info.length) and info.peer_generation == peer.generation()
            assert info.digest is None and not info.suspended
            assert info.kind == nvlxfer.Kind.CUDA_MALLOC and info.gpu.startswith("GPU-")
        who = peer.info()
        assert (who.regions, who.segments, who.backend, who.followed) == (len(found), 1, "host", True)
        assert who.same_process and who.pid == os.getpid() and who.address and who.generation == peer.generation()
        assert len({info.generation for info in found.values()}) == len(NAMES) + 1
        addresses, lengths, generation = peer.find_all(reversed(NAMES))
        assert [*addresses] == [memory + 100 * i for i in reversed(range(len(NAMES)))] and set(lengths) == {100}
        own = reader.empty((len(NAMES), 100))
        reader.register(own, access=Access.NONE)
        ops = read(peer, array.array("Q", range(own.address, own.address + own.nbytes, 100)), addresses, lengths)
        reader.transfer(ops, generation=generation).wait(30)
        raises(nvlxfer.NotFound, "NVLX_ENOENT", '"w20"', peer.find_all, [NAMES[0], "w20"])
        raises(nvlxfer.NotFound, "NVLX_ENOENT", '"w20"', peer.region, "w20")
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "name", peer.region, 3)


def test_digests():
    owner, reader, peer = pair("digests")
    with owner, reader:
        memory = owner.alloc(0, 4096)
        told, private = owner.register((memory, 4096), "w"), owner.register((memory, 4096), access=Access.NONE)
        value = told.set_digest()
        assert value == owner.digest((memory, 4096))
        peer.sync(owner.publish(), 30)
        assert peer.region("w").digest == value
        owner.hold()
        owner.memcpy(memory + 77, b"other bytes")
        assert told.set_digest() != value and peer.region("w").digest == value
        peer.sync(owner.publish(), 30)
        assert peer.region("w").digest == told.set_digest()
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "private", private.set_digest)


def test_changing_regions():
    owner, reader, peer = pair("changing")
    with owner, reader:
        memory, stop = owner.alloc(0, 4096), threading.Event()
        whole = owner.register((memory, 4096), "stays", Access.READ)
        peer.sync(owner.publish(), 30)

        def change():
            while not stop.is_set():
                with owner.register((memory, 10), "comes and goes", Access.READ):
                    owner.publish()

        thread = threading.Thread(target=change)
        thread.start()
        for _ in range(300):
            names = [info.name for info in peer.regions()]
            assert names.count("stays") == 1 and names.count("comes and goes") <= 1 and len(names) <= 2, names
        stop.set()
        thread.join()
        assert whole.address == memory


def test_generation():
    owner, reader, peer = pair("generation")
    with owner, reader:
        memory, mine = owner.alloc(0, 4096), reader.alloc(0, 4096)
        reader.register((mine, 4096), access=Access.NONE)
        old = owner.register((memory, 4096), "old", Access.READ)
        peer.sync(owner.publish(), 30)
        info = peer.region("old")
        op = read(peer, mine, info.address, info.length)
        reader.transfer(op, generation=info.peer_generation).wait(30)
        old.close(30)
        stranger = owner.register((memory, 4096), "stranger", Access.READ)
        peer.sync(owner.publish(), 30)
        for call in (reader.transfer, reader.prepare):
            raises(nvlxfer.Stale, "NVLX_ESTALE", "op 0", call, op, generation=info.peer_generation)
            raises(nvlxfer.InvalidType, "NVLX_EINVAL", "generation", call, op, generation="1")
        reader.transfer(op).wait(30)
        reader.transfer(op, generation=peer.region("stranger").generation).wait(30)
        stranger.close(30)


def test_verify():
    owner, reader, peer = pair("verify")
    with owner, reader:
        memory, mine = owner.alloc(0, 100_000), reader.alloc(0, 100_000)
        reader.register((mine, 100_000), access=Access.NONE)
        owner.memcpy(memory, bytes(range(250)) * 400)
        for name, start in (("first", 0), ("second", 50_000), ("third", 0)):
            region = owner.register((memory + start, 50_000), name)
            if name != "third":
                region.set_digest()
        peer.sync(owner.publish(), 30)
        infos = [peer.region(name) for name in ("first", "second")]
        both = [read(peer, mine + info.address - memory, info.address, info.length) for info in infos]
        whole = read(peer, mine, memory, 100_000)
        for _ in range(2):
            reader.transfer(both, verify=True).wait(30)
            with reader.transfer(whole, verify=True, generation=infos[0].peer_generation) as request:
                request.wait(30)
        owner.memcpy(memory + 99_999, b"?")
        request = reader.transfer(both, verify=True)
        words = 'op 1: what has arrived of the peer\'s region "second"'
        raises(nvlxfer.WrongDigest, "NVLX_EDIGEST", words, request.wait, 30)
        assert hex(reader.digest((mine + 50_000, 50_000)))[2:] in request.info().error
        request.close()
        reader.transfer(both).wait(30)
        part = read(peer, mine, memory, 10)
        raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "op 0 cannot be verified", reader.transfer, part, verify=True)


run_tests([test_verify, test_regions, test_digests, test_changing_regions, test_generation])
