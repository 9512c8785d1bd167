# SPDX-License-Identifier: Apache-2.0
"""The binding, between two processes."""

import array
import os
import time

import nvlxfer
from nvlxfer import Access, Backend, Engine, read, write
from support import Seed, content, itself, pattern, raises, run_tests

COUNT = 100_000


def test_two_processes():
    seed = Seed()
    with Engine(Backend.HOST, max_requests=64) as engine, engine.peer_open(seed.text) as peer:
        assert engine.backend == "host" and nvlxfer.version() and nvlxfer.gpu_count() >= 2
        assert nvlxfer.build_info()["version"] == nvlxfer.version() and nvlxfer.build_info()["max_requests"] == "4096"
        own = engine.alloc(1, 1 << 20)
        region = engine.register((own, 1 << 20), access=Access.NONE)
        address, length = peer.find("whole")
        assert length == 1 << 20
        raises(nvlxfer.Again, "NVLX_EAGAIN", "", engine.transfer, read(peer, own, address, 8), no_map=True)
        peer.map(1, address, length)
        with engine.transfer(read(peer, own, address + 77, 5000), no_map=True) as request:
            request.wait(30)
            assert request.test()
            info = request.info()
            assert (info.status, info.ops, info.bytes, info.error) == (0, 1, 5000, "")
        assert content(engine, own, 5000) == pattern(77, 5000)

        engine.memcpy(own, b"written by the target")
        with engine.transfer([write(peer, own, address + 100_000, 21), read(peer, own + 64, address, 64)]) as request:
            request.wait(30)
        assert seed.memory(99_990, 41) == pattern(99_990, 10) + b"written by the target" + pattern(100_021, 10)
        assert content(engine, own + 64, 64) == pattern(0, 64)

        with engine.prepare(read(peer, own, address + 500, 16)) as prepared:
            for letter in (b"a", b"b"):
                engine.memcpy(own, letter * 16)
                with prepared.post() as request:
                    request.wait(30)
                assert content(engine, own, 16) == pattern(500, 16)
            raises(nvlxfer.Busy, "NVLX_EBUSY", "prepared", peer.close)
            raises(nvlxfer.Busy, "NVLX_EBUSY", "", region.close, timeout=0)
            assert not peer.closed and not region.closed
        peer.update(seed.text)
        info = engine.info()
        assert (info.regions, info.mappings, info.requests) == (1, 1, 0), info
        stats, of_peer = engine.stats(), engine.stats(peer)
        assert stats["transfers"] == of_peer["transfers"] == 4 and stats["peers"] == 1 and stats["refused"] >= 1
        carried = sum(number for name, number in of_peer.items() if name.endswith("_bytes"))
        assert carried == 5000 + 21 + 64 + 2 * 16, of_peer
        lines = engine.stats_prometheus().splitlines()
        assert 'nvlxfer_submit_seconds_count{call="post"} 2' in lines and "nvlxfer_peers 1" in lines
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "", engine.stats, 7)
    assert region.closed and engine.closed
    seed.leave()


def test_errors():
    seed = Seed()
    engine = Engine()
    own = engine.alloc(0, 4096)
    region = engine.register((own, 4096), "own")
    peer = engine.peer_open(seed.text)
    address, length = peer.find("guarded")
    invalid = nvlxfer.InvalidArgument, "NVLX_EINVAL"
    raises(nvlxfer.NotFound, "NVLX_ENOENT", "nothing", peer.find, "nothing")
    raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "", engine.transfer, read(peer, own, address + 1, length))
    raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "", engine.transfer, read(peer, own - 1, address, 8))
    raises(nvlxfer.AccessDenied, "NVLX_EACCES", "", engine.transfer, write(peer, own, address, 8))
    raises(nvlxfer.Malformed, "NVLX_EFORMAT", "", engine.peer_open, "{")
    raises(nvlxfer.AlreadyExists, "NVLX_EEXIST", "own", engine.register, (own, 8), "own")
    raises(*invalid, "GPU 1000", engine.alloc, 1000, 8)
    raises(*invalid, "64 bits", engine.register, (own, 1 << 64))
    raises(*invalid, "64 bits", read, peer, own, address, 1 << 64)
    raises(*invalid, "does not fit", engine.transfer, read(peer, own, address, 8), max_sms=1 << 32)
    for misspelt in ({"mechanizm": 1}, {"max_sm": 3}):
        try:
            engine.transfer(read(peer, own, address, 8), **misspelt)
            raise AssertionError(f"{misspelt} was taken")
        except TypeError:
            pass
    raises(*invalid, "mechanism", engine.transfer, read(peer, own, address, 8), mechanism=9)
    raises(*invalid, "NUL", peer.find, "a\0b")
    raises(*invalid, "read-only", engine.memcpy, b"12", own)
    raises(*invalid, "9 bytes", engine.memcpy, own, b"12345678", 9)
    wrong_type = nvlxfer.InvalidType, "NVLX_EINVAL"
    raises(*wrong_type, "or what has", engine.register, "a tensor")
    raises(*wrong_type, "a CUDA stream", engine.transfer, read(peer, own, address, 8), stream="1")
    peer.close()
    region.close()
    peer.close()  # again: allowed
    raises(*invalid, "the Peer is closed", peer.find, "whole")
    engine.close()
    engine.close()
    raises(*invalid, "the Engine is closed", engine.export)
    seed.leave()


def test_timeout():
    engine, address, peer = itself(256 << 20)
    ops = read(peer, address, address + (128 << 20), 128 << 20)
    for _ in range(100):  # a busy machine may let it end before the wait begins
        with engine.transfer(ops) as request:
            try:
                request.wait(0)
            except TimeoutError as timeout:
                assert isinstance(timeout, nvlxfer.Timeout) and timeout.name == "NVLX_ETIMEDOUT"
                break
    else:
        raise AssertionError("a transfer of 128 MiB never took any time")
    engine.close()


def test_flat_lists():
    seed = Seed()
    with Engine() as engine:
        own = engine.alloc(0, 8 * COUNT)
        engine.register((own, 8 * COUNT), access=Access.NONE)
        peer = engine.peer_open(seed.text)
        address, length = peer.find("words")
        peer.map(0, address, length)
        local = array.array("Q", range(own + 8 * (COUNT - 1), own - 8, -8))
        remote = memoryview(array.array("q", range(address, address + 8 * COUNT, 8)))
        since = time.perf_counter()
        ops = read(peer, local, remote, 8)
        built = time.perf_counter()
        with engine.transfer(ops) as request:
            submitted = time.perf_counter()
            request.wait(30)
            assert request.info().ops == len(ops) == COUNT
        done = time.perf_counter()
        seen = array.array("Q", content(engine, own, 8 * COUNT))
        assert seen == array.array("Q", range(COUNT - 1, -1, -1))
        steps = f"built in {built - since:.4f} s, submitted in {submitted - built:.4f} s, done in {done - built:.4f} s"
        print(f"{COUNT} ops: {steps}")
        invalid = nvlxfer.InvalidArgument, "NVLX_EINVAL"
        raises(*invalid, "numbers of entries: [3, 100000]", read, peer, local, remote, array.array("Q", [8] * 3))
        raises(*invalid, "'I'", read, peer, local, array.array("I", [0] * COUNT), 8)
        raises(*invalid, "64-bit", read, peer, local[:2], memoryview(local)[:4:2], 8)
        engine.transfer(read(peer, array.array("Q"), array.array("Q"), 8)).wait(30)
        engine.transfer([]).wait(30)
        peer.close()
        raises(*invalid, "the Peer is closed", engine.transfer, ops)
    seed.leave()


def test_rendezvous():
    address = f"@nvlxfer-test-python-{os.getpid()}"
    seed = Seed(address)
    with Engine() as engine, engine.connect(address, 30) as peer:
        peer.test()
        own = engine.alloc(0, 4096)
        engine.register((own, 4096), access=Access.NONE)
        engine.transfer(read(peer, own, peer.find("whole")[0] + 9, 4000)).wait(30)
        assert content(engine, own, 4000) == pattern(9, 4000)
        raises(nvlxfer.AccessDenied, "NVLX_EACCES", "serve_options.stats", peer.stats_prometheus)
    seed.leave()
    with Engine() as owner, Engine() as engine:
        owner.serve(address, stats=True)
        with engine.connect(address, 30) as peer:
            assert "nvlxfer_regions 0" in peer.stats_prometheus().splitlines()


run_tests([test_two_processes, test_errors, test_timeout, test_flat_lists, test_rendezvous])
