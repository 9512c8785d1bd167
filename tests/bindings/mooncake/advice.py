# SPDX-License-Identifier: Apache-2.0
"""What is logged names a cure that a program of Mooncake's can reach. Each failure is a real one."""

import contextlib
import logging
import os
import shutil
import subprocess
import tempfile

from support import Owner, buffer, memory, run_tests, said, started, told

import nvlxfer
from nvlxfer.mooncake import ScatterTransferCompletionStatus, TransferEngine, _sessions

OTHER_USER = 54321
PIDS = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@contextlib.contextmanager
def folder():
    """NVLX_MOONCAKE_FOLDER is a folder that all users may write in."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o777)
        os.environ["NVLX_MOONCAKE_FOLDER"] = path
        try:
            yield path
        finally:
            del os.environ["NVLX_MOONCAKE_FOLDER"]


def can(*command):
    """Whether this user may run it; else what it is for is skipped."""
    there = os.geteuid() == 0 and shutil.which(command[0])
    if there and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
        return True
    print(f"SKIP: {command[0]}: namespaces and other users need root and the right to unshare")
    return False


def test_network_namespaces():
    engine = started()
    cure = "In nvlxfer.mooncake: if the peer runs, set NVLX_MOONCAKE_FOLDER in both programs"
    assert engine.send_probe("127.0.0.1:1") == -102 and told(cure)
    try:
        engine.transfer_read_on_cuda("127.0.0.1:1", 4096, 4096, 1)
    except RuntimeError as error:
        assert cure in str(error), error
    else:
        raise AssertionError("RuntimeError was not raised")
    assert engine.send_probe("192.0.2.7:1") == -102 and told("set NVLX_MOONCAKE_FOLDER in both programs")
    if can("unshare", "--net"):
        with Owner("unshare", "--net") as owner:
            assert engine.send_probe(owner.session) == -102 and told("in this network namespace") and told(cure)
        with folder(), Owner("unshare", "--net") as owner:
            assert started().send_probe(owner.session) == 0


def test_one_side_has_the_folder():
    cure = "set NVLX_MOONCAKE_FOLDER in both programs"
    without = started()
    with Owner() as owner_without, folder() as path, Owner() as owner:
        assert started().send_probe(owner_without.session) == -102
        assert told(f'"{path}" has no such file') and told(cure) and told("the host that the peer gave to initialize()")
        del os.environ["NVLX_MOONCAKE_FOLDER"]
        assert without.send_probe(owner.session) == -102 and told(cure)
        os.environ["NVLX_MOONCAKE_FOLDER"] = path


def test_other_user():
    cure = "In nvlxfer.mooncake: run both programs as one user"
    if not can("setpriv", f"--reuid={OTHER_USER}"):
        return
    with folder(), Owner() as owner:
        engine = started()
        owner(f"os.setresuid({OTHER_USER}, {OTHER_USER}, {OTHER_USER})")
        mine = f"127.0.0.1:{engine.get_rpc_port()}"
        assert owner(f"engine.send_probe('{mine}')") == -102
        last = owner("said[-1]")
        assert f"user {OTHER_USER} may not write to the socket file" in last and cure in last, last
        owner("globals().update(engine=type(engine)())")
        assert owner("engine.initialize('127.0.0.1', 'P2PHANDSHAKE', '', '')") == 0
        theirs = f"127.0.0.1:{owner('engine.get_rpc_port()')}"
        assert engine.send_probe(theirs) == -102 and told("user 0 with group") and told(cure)


def test_pid_namespaces():
    engine = started()
    if not can(*PIDS):
        return
    with Owner(*PIDS) as owner:
        mine, theirs = buffer(engine, 100), owner.buffer(100)
        assert engine.transfer_sync_read(owner.session, mine, theirs, 100) == -1
        assert told("call nvlx_serve") and told("In nvlxfer.mooncake: the engine serves already")
        assert told("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True")
        chunks = owner("memory.alloc(1, 100, nvlxfer.Alloc.VMM)")
        assert owner(f"engine.register_memory({chunks}, 100)") == 0
        assert engine.transfer_sync_read(owner.session, mine, chunks, 100) == 0


def test_withdrawn():
    engine, cure = started(), "In nvlxfer.mooncake: ask the peer for its address again"
    with Owner() as owner:
        mine, theirs = buffer(engine, 100), owner.buffer(100)
        assert owner(f"engine.unregister_memory({theirs})") == 0
        assert engine.transfer_sync_read(owner.session, mine, theirs, 100) == -1
        assert told("find the name again") and told(cure) and told("get_first_buffer_address()")


def test_ticket_fails_later():
    """Of a scattered transfer that fails while it is under way, the same is told."""
    engine, wait = started(), nvlxfer.Request.wait
    own, session = buffer(engine, 100), f"127.0.0.1:{engine.get_rpc_port()}"

    def fail(request, timeout=None):
        raise nvlxfer.NotSupported(-8, "it must call nvlx_serve before it exports")

    ticket = engine.submit_scatter_read(session, [own], [9], [own + 50], [9], [[0]], [[0]], [[9]])
    nvlxfer.Request.wait = fail
    try:
        assert ticket.status == ScatterTransferCompletionStatus.FAILED_DRAINED
    finally:
        nvlxfer.Request.wait = wait
    assert told("a scattered transfer has failed") and told("expandable_segments:True")


def test_nothing_to_add():
    engine, session = started(), "127.0.0.1:0"
    assert engine.send_probe(session) == -102 and told("is not") and "In nvlxfer.mooncake" not in said[-1]
    own = buffer(engine, 100)
    assert engine.register_memory(own, 100) == -7 and "In nvlxfer.mooncake" not in said[-1]
    assert engine.transfer_sync_read(f"127.0.0.1:{engine.get_rpc_port()}", memory.alloc(0, 100), own, 1) == -1
    assert told("local range") and "In nvlxfer.mooncake" not in said[-1]


def warned(host, resolve=None):
    """What initialize() with this host warns of."""
    before, log, looked_up = len(said), logging.getLogger("nvlxfer.mooncake"), _sessions.socket.getaddrinfo
    log.setLevel(logging.WARNING)
    if resolve is not None:
        _sessions.socket.getaddrinfo = resolve
    try:
        engine = TransferEngine()
        assert engine.initialize(host, "P2PHANDSHAKE", "rdma", "") == 0
    finally:
        _sessions.socket.getaddrinfo = looked_up
        log.setLevel(logging.NOTSET)
    return said[before:]


def test_host_of_another_node():
    def never(*_, **__):
        raise AssertionError("a name is looked up")

    for host in ("10.9.8.7", "10.9.8.7:1234", "[2001:db8::7]:1234", "2001:DB8::7", "0.0.0.0"):
        (warning,) = warned(host)
        address = host.rpartition(":")[0] if host.endswith(":1234") else host
        assert f"'{address.strip('[]').lower()}' is no address of this node" in warning, warning
        assert "NVLX_MOONCAKE_FOLDER" in warning and "on another node" in warning
    for host in ("127.0.0.1", "127.3.2.1:80", "::1", "[::1]:17000"):
        assert warned(host) == [], host
    for host in ("localhost", "localhost:17000", "pod-1", "pod-1.svc.invalid:80", "", "fe80", "1.2.3"):
        assert warned(host, never) == [], host
    with folder():
        for host in ("10.9.8.7", "[2001:db8::7]:1234", "pod-1"):
            assert warned(host, never) == [], host


def test_host_of_this_node():
    """Any spelling of an address that an interface has."""
    if not can("unshare", "--net"):
        return
    script = 'ip link set lo up && ip addr add 10.9.8.7/32 dev lo && ip addr add fd00::7/128 dev lo && exec "$@"'
    before = ["unshare", "--net", "sh", "-c", script, "-"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        print("SKIP: test_host_of_this_node: there is no ip, or no IPv6")
        return
    with Owner(*before) as owner:
        owner("__import__('logging').getLogger('nvlxfer.mooncake').setLevel('WARNING')")
        for host in ("10.9.8.7", "10.9.8.7:80", "fd00::7", "[FD00:0::0007]:80"):
            assert owner(f"type(engine)().initialize('{host}', 'P2PHANDSHAKE', '', '')") == 0
            assert owner("said") == [], host
        assert owner("type(engine)().initialize('10.9.8.6', 'P2PHANDSHAKE', '', '')") == 0
        assert "'10.9.8.6' is no address of this node" in owner("said")[-1]


def test_port_is_taken_in_the_folder():
    """Two containers of one host name draw the same port: the second takes another one."""
    held_port = _sessions._held_port
    with folder(), Owner() as owner:
        port = int(owner.session.rpartition(":")[2])
        drawn = iter([port] * 3)

        def draw():
            taken = next(drawn, None)
            return held_port() if taken is None else (taken, os.dup(0))

        _sessions._held_port = draw
        try:
            engine = started()
            assert engine.get_rpc_port() != port and engine.send_probe(owner.session) == 0
            _sessions._held_port = lambda: (port, os.dup(0))
            assert TransferEngine().initialize("127.0.0.1", "P2PHANDSHAKE", "rdma", "") == -1
            assert told("another process serves there") and told("In nvlxfer.mooncake: give initialize() another host")
        finally:
            _sessions._held_port = held_port


run_tests(
    [
        test_network_namespaces,
        test_one_side_has_the_folder,
        test_other_user,
        test_pid_namespaces,
        test_withdrawn,
        test_ticket_fails_later,
        test_nothing_to_add,
        test_host_of_another_node,
        test_host_of_this_node,
        test_port_is_taken_in_the_folder,
    ]
)
