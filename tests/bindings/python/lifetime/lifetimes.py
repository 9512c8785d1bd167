# SPDX-License-Identifier: Apache-2.0
"""Objects that are dropped, copied, forked, and left open."""

import gc
import os
import subprocess
import sys
import time
import weakref

import nvlxfer
from nvlxfer import read
from support import HERE, itself, raises, run_tests


def test_dropped():
    engine, address, peer = itself(1 << 20)
    ops = read(peer, address, address + 4096, 4096)
    prepared = engine.prepare(ops)
    for start in (prepared.post, lambda: engine.transfer(ops)):
        for _ in range(100):
            start()
        assert engine._core.dropped
        deadline = time.monotonic() + 30
        while engine._core.dropped and time.monotonic() < deadline:
            start().close()  # any start frees what was dropped before
        assert not engine._core.dropped and engine.info().requests == 0
    request = engine.transfer(ops)
    gone = weakref.ref(engine)
    engine.close()
    assert request.closed and prepared.closed and peer.closed
    raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "the Request is closed", request.test)
    raises(nvlxfer.InvalidArgument, "NVLX_EINVAL", "the Prepared is closed", prepared.post)
    request.close()
    del engine, request, prepared, peer, ops, start
    gc.collect()
    assert not gone()
    watched = len(weakref.finalize._registry)  # at the end Python fails if a thread changes it meanwhile
    itself(4096)  # dropped open
    assert len(weakref.finalize._registry) == watched
    gc.collect()
    assert not nvlxfer._c.calls._cores


def test_peer_that_closes_badly():
    """The driver fails to close a mapping: the peer is closed all the same, and not closed again."""
    engine, address, peer = itself(4096)
    library, closed = nvlxfer._c.native._library(), []
    real = library.nvlx_peer_close

    def fails(handle):
        closed.append(real(handle))
        return -3  # NVLX_EDEVICE

    library.nvlx_peer_close = fails
    try:
        raises(nvlxfer.DeviceError, "NVLX_EDEVICE", "", peer.close)
        assert peer.closed and closed == [0]
        peer.close()
        assert closed == [0]
    finally:
        library.nvlx_peer_close = real
    engine.close()


def test_fork():
    engine, address, peer = itself(4096)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        raises(nvlxfer.Forked, "NVLX_EFORK", "", engine.export)
        sys.exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    engine.export()
    engine.close()


def test_leaving():
    command = [sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", str(HERE / "lifetime/leave.py")]
    for _ in range(2):
        left = subprocess.run(command, capture_output=True, timeout=60)
        assert (left.returncode, left.stdout, left.stderr) == (3, b"[True, True, True, True]\n", b""), left


run_tests([test_dropped, test_peer_that_closes_badly, test_fork, test_leaving])
