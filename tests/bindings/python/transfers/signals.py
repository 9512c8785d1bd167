# SPDX-License-Identifier: Apache-2.0
"""Signals: in lists, and what CPUs see of them. The host backend has no streams of a program's."""

import os
import threading

import nvlxfer
from nvlxfer import Access, Backend, Engine, read, signal, wait_ready, write
from support import content, given_to_c, pattern, raises, run_tests


def test_signals():
    address = f"@nvlxfer-test-signals-{os.getpid()}"
    with Engine(Backend.HOST) as receiver, Engine(Backend.HOST) as sender:
        memory, counts, mine = receiver.alloc(0, 4096), receiver.alloc(0, 64), sender.alloc(0, 4096)
        receiver.memcpy(counts, bytes(64))
        receiver.register((memory, 4096), "data", Access.WRITE)
        receiver.register((counts, 64), "counts", Access.WRITE)
        sender.memcpy(mine, pattern(7, 4096))
        sender.register((mine, 4096), access=Access.NONE)
        sender.serve(address)
        receiver.serve(address + "r")
        peer, source = sender.connect(address + "r"), receiver.connect(address)
        waiter = threading.Thread(target=receiver.signal_wait, args=(counts, 1, source, 30))
        waiter.start()
        sender.transfer([write(peer, mine, memory, 4096), signal(peer, counts, 1)]).wait(30)
        waiter.join()
        assert content(receiver, memory, 4096) == pattern(7, 4096)
        with sender.prepare([write(peer, mine, memory, 8), signal(peer, counts + 8, 3, add=True)]) as prepared:
            for _ in range(5):
                prepared.post().wait(30)
            raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "stream", prepared.capture, 77)
            function, _, options, request = given_to_c(nvlxfer.transfers, lambda: prepared.capture(77))
            assert (function, options._obj.stream, request) == ("nvlx_post", 77, None)
        assert receiver.signal_read(counts) == 1 and receiver.signal_read(counts + 8) == 15
        raises(nvlxfer.Timeout, "NVLX_ETIMEDOUT", "not yet 2", receiver.signal_wait, counts, 2, timeout=0.01)
        raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "stream", receiver.stream_wait, 77, source, counts, 1)
        given = given_to_c(nvlxfer.engine, lambda: receiver.stream_wait(77, source, counts, 1, counts + 16,
                                                                         reached=counts + 8))  # fmt: skip
        function, _, stream, _, where, value, options, _ = given
        assert tuple(getattr(each, "value", each) for each in (function, stream, where, value)) == ("nvlx_stream_wait", 77, counts, 1), given
        assert (options._obj.mark, options._obj.reached) == (counts + 16, counts + 8)
        raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "stream", sender.stream_signal, 77, peer, counts, 1)
        sender.close()
        raises(nvlxfer.Stale, "NVLX_ESTALE", "not yet 2", receiver.signal_wait, counts, 2, source, 30)


def test_readiness():
    with Engine(Backend.HOST) as owner, Engine(Backend.HOST) as reader:
        memory, count, mine = owner.alloc(0, 4096), owner.alloc(0, 64), reader.alloc(0, 4096)
        owner.memcpy(count, bytes(64))
        owner.register((count, 8), "w.ready", Access.READ)
        region = owner.register((memory, 4096), "w", Access.READ, ready=count)
        plain = reader.register((mine, 4096))
        peer = reader.peer_open(owner.export())
        where, _ = peer.find("w.ready")
        ops = [wait_ready(peer, where, 1), read(peer, mine, memory, 4096)]
        raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "stream", region.ready, 77)
        raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "stream", reader.transfer, ops, stream=77)
        invalid = nvlxfer.InvalidArgument, "NVLX_EINVAL"
        raises(*invalid, "has a stream", reader.transfer, ops)
        raises(*invalid, "prepared", reader.prepare, ops)
        raises(*invalid, "without region_options.ready", plain.ready, 77)
        raises(*invalid, "multiple of 8", owner.register, (memory, 8), ready=count + 1)
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "a Peer", wait_ready, reader, where, 1)


def test_arguments():
    with Engine(Backend.HOST) as engine:
        counts = engine.alloc(0, 64)
        engine.register((counts, 64))
        peer = engine.peer_open(engine.export())
        invalid = nvlxfer.InvalidArgument, "NVLX_EINVAL"
        raises(*invalid, "multiple of 8", engine.signal_read, counts + 1)
        raises(*invalid, "multiple of 8", engine.transfer, signal(peer, counts + 1, 1))
        raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "", engine.signal_read, counts + 64)
        raises(nvlxfer.InvalidType, "NVLX_EINVAL", "a Peer", signal, engine, counts, 1)
        raises(*invalid, "64 bits", signal, peer, counts, 1 << 64)
        raises(*invalid, "number 9", engine.wait_test, 9)


run_tests([test_signals, test_readiness, test_arguments])
