# SPDX-License-Identifier: Apache-2.0
"""Each method of Mooncake's TransferEngine, between two processes: what it moves, and what it returns."""

import array
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from support import Owner, buffer, content, memory, pattern, run_tests, started, told

import nvlxfer
import nvlxfer.mooncake.engine as module
from nvlxfer.mooncake import ScatterTransferCompletionStatus, TransferEngine, TransferNotify, TransferOpcode


def raises(kind, words, function, *arguments):
    try:
        function(*arguments)
    except kind as error:
        assert words in str(error), error
        return
    raise AssertionError(f"{kind} was not raised")


def test_patience():
    """MC_TRANSFER_TIMEOUT: what is no number of seconds is told, with the variable's name."""
    try:
        for value in ("abc", "", "1.5", "9" * 400):
            os.environ["MC_TRANSFER_TIMEOUT"] = value
            raises(nvlxfer.InvalidArgument, f"MC_TRANSFER_TIMEOUT is '{value[:99]}", TransferEngine)
        for value, seconds in (("7", 7), ("1", 5), (" 60 ", 60)):
            os.environ["MC_TRANSFER_TIMEOUT"] = value
            assert TransferEngine()._patience == seconds
    finally:
        del os.environ["MC_TRANSFER_TIMEOUT"]
    assert TransferEngine()._patience == 30


def test_initialize():
    engine = TransferEngine()
    raises(nvlxfer.InvalidArgument, "not initialized", engine.get_rpc_port)
    assert engine.send_probe("127.0.0.1:80") == -1 and engine.register_memory(4096, 1) == -1
    for server in ("http://m:80/m", "etcd://x", ""):
        raises(nvlxfer.NotSupported, "metadata server", engine.initialize, "127.0.0.1", server, "tcp", "")
    raises(TypeError, "four strings", engine.initialize, "127.0.0.1", "P2PHANDSHAKE", "rdma", None)
    assert engine.initialize("localhost:17000", "P2PHANDSHAKE", "rdma", "mlx5_0,mlx5_1") == 0
    port, address = engine.get_rpc_port(), buffer(engine, 4096)
    assert engine.initialize_ext("127.0.0.1", "P2PHANDSHAKE", "rdma", "", "") == 0  # changes nothing
    assert engine.get_rpc_port() == port and engine.unregister_memory(address) == 0
    others = [started() for _ in range(3)]
    assert len({port, *(other.get_rpc_port() for other in others)}) == 4
    assert engine.get_local_topology() == engine.get_local_topology("mlx5_0") == "{}"
    assert engine.warmup_efa_segment("any") == 0


def test_register():
    engine, length = started(), 1 << 16
    address = memory.alloc(0, length)
    assert engine.register_memory(address, length // 2) == 0
    for start, size in ((0, length // 2), (0, 1), (64, 64), (length // 2 - 1, 2)):
        assert engine.register_memory(address + start, size) == -7 and told("overlaps")
    assert engine.register_memory(address + length // 2, 0) == -1 and told("no bytes")
    assert engine.register_memory(address + length // 2, length // 2, location="cuda:0", remote_accessible=False) == 0
    assert engine.register_memory(address + length, 1) == -1
    host = array.array("Q", range(8))
    assert engine.register_memory(host.buffer_info()[0], 64) == -1
    assert engine.unregister_memory(address + 1) == -3 and told("not where")
    assert engine.unregister_memory(address) == 0 and engine.unregister_memory(address) == -3
    assert engine.batch_register_memory([address, address + 10], [10, 10]) == 0
    assert engine.batch_register_memory([address + 100, address + 15], [10, 1]) == -7  # none of them
    assert engine.unregister_memory(address + 100) == -3
    assert engine.batch_register_memory([], []) == 0 == engine.batch_unregister_memory([])
    assert engine.batch_register_memory([address + 100], []) == -1
    assert engine.batch_unregister_memory([address, 1, address + 10]) == -3  # all that there are
    assert engine.unregister_memory(address + 10) == -3
    for wrong in (-1, "1", 1.5, 1 << 64, None):
        raises(TypeError, "addresses", engine.register_memory, wrong, 1)
        raises(TypeError, "capacities", engine.batch_register_memory, [address], [wrong])
        raises(TypeError, "addresses", engine.unregister_memory, wrong)
    assert engine.unregister_memory(address + length // 2) == 0


def test_sync():
    engine, length = started(), 1 << 16
    mine, theirs, session = buffer(engine, length, pattern(1, length)), owner.buffer(length, 2), owner.session
    assert engine.transfer_sync_write(session, mine + 1, theirs + 3, 1000) == 0
    assert owner.content(theirs, 1010) == pattern(2, 3) + pattern(1, 1001)[1:] + pattern(2, 1010)[1003:]
    assert engine.transfer_sync_read(session, buffer=mine, peer_buffer_address=theirs + 3, length=1000) == 0
    assert content(mine, 1000) == pattern(1, 1001)[1:]
    places = [64 * i for i in range(100)]
    lists = [mine + place for place in reversed(places)], [theirs + place for place in places], [64] * len(places)
    memory.memcpy(mine, pattern(3, length))
    assert engine.batch_transfer_sync_write(session, *lists, "", "") == 0
    data = pattern(3, length)
    want = b"".join(data[place : place + 64] for place in reversed(places))
    assert owner.content(theirs, 6400) == want
    memory.memcpy(mine, bytes(length))
    assert engine.batch_transfer_sync_read(session, *lists, transport_hint="", nic_hint="") == 0
    assert content(mine, 6400) == pattern(3, 6400)
    assert engine.batch_transfer_sync_read(session, [], [], []) == 0
    assert engine.transfer_sync_read(session, mine, theirs, 0) == 0
    for opcode in (TransferOpcode.Read, module.Write):
        assert engine.transfer_sync(session, mine, theirs, 10, opcode) == 0
        assert engine.batch_transfer_sync(session, [mine], [theirs], [10], opcode) == 0
    raises(TypeError, "TransferOpcode", engine.batch_transfer_sync, session, [mine], [theirs], [10], 0)
    assert str(module.Read) == "TransferOpcode.Read" and TransferEngine.TransferOpcode is TransferOpcode
    bare = engine.transfer_sync_read(session.replace("127.0.0.1", "localhost"), mine, theirs, 10)
    assert bare == 0 == engine.transfer_sync_read(session.replace("127.0.0.1", "[::1]"), mine, theirs, 10)


def test_arrays_and_pages():
    engine, length = started(), 1 << 16
    mine, theirs, session = buffer(engine, length, pattern(1, length)), owner.buffer(length, 2), owner.session
    columns = [array.array("q", column) for column in ([mine, mine + 500], [theirs + 9, theirs + 100], [50, 60])]
    assert engine.batch_transfer_sync_write_arrays(session, *columns) == 0
    assert owner.content(theirs + 9, 50) == pattern(1, 50) and owner.content(theirs + 100, 60) == pattern(1, 560)[500:]
    memory.memcpy(mine, bytes(length))
    assert engine.batch_transfer_sync_read_arrays(session, *columns) == 0
    assert content(mine, 51) == pattern(1, 50) + b"\0" and content(mine + 500, 60) == pattern(1, 560)[500:]
    wrong = array.array("i", [1, 2])
    raises(TypeError, "lengths must hold", engine.batch_transfer_sync_read_arrays, session, *columns[:2], wrong)
    raises(TypeError, "lengths is list", engine.batch_transfer_sync_read_arrays, session, *columns[:2], [1, 2])
    raises(ValueError, "same length", engine.batch_transfer_sync_read_arrays, session, *columns[:2], columns[2][:1])
    empty = array.array("Q")
    assert engine.batch_transfer_sync_read_arrays(session, empty, empty, empty) == 0

    pages = array.array("q", [3, 0, 7]), array.array("q", [1, 2, 5])
    rows = array.array("q", [mine, 1000, theirs, 2000, 300, mine + 500, 1000, theirs + 900, 2000, 77])
    fields = memoryview(rows).cast("B").cast("q", [2, 5])
    memory.memcpy(mine, pattern(5, length))
    assert engine.batch_transfer_sync_write_pages(session, *pages, fields, 1) == 0
    for here, there in zip(*pages):
        for base, remote, size in ((0, 0, 300), (500, 900, 77)):
            start = base + 1000 * here
            assert owner.content(theirs + remote + 2000 * there, size) == pattern(5, length)[start : start + size]
    memory.memcpy(mine, bytes(length))
    assert engine.batch_transfer_sync_read_pages(session, *pages, fields) == 0
    assert content(mine + 3000, 300) == pattern(5, 3300)[3000:] and content(mine + 7500, 77) == pattern(5, 7577)[7500:]
    assert content(mine + 300, 200) == bytes(200)
    raises(ValueError, "same length", engine.batch_transfer_sync_read_pages, session, pages[0], pages[1][:1], fields)
    raises(TypeError, "[rows, 5]", engine.batch_transfer_sync_read_pages, session, *pages, rows)
    raises(TypeError, "max_batch_size", engine.batch_transfer_sync_read_pages, session, *pages, fields, -1)
    rows[4] = 0
    raises(ValueError, "positive length", engine.batch_transfer_sync_read_pages, session, *pages, fields)


def test_async():
    engine, length = started(), 1 << 16
    mine, theirs, session = buffer(engine, length, pattern(1, length)), owner.buffer(length, 2), owner.session
    number = engine.transfer_submit_write(session, mine, theirs, 100)
    while (code := engine.transfer_check_status(number)) == 0:
        time.sleep(1e-3)
    assert code == 1 and owner.content(theirs, 100) == pattern(1, 100)
    assert engine.transfer_check_status(number) == -1 and told("used up")
    lists, columns = ([mine], [theirs], [500]), [array.array("Q", [each]) for each in (mine, theirs, 500)]
    numbers = [
        engine.batch_transfer_async_write(session, *lists),
        engine.batch_transfer_async_write_arrays(session, *columns),
        engine.batch_transfer_async(session, *lists, TransferOpcode.Write),
        engine.batch_transfer_async_write(session, [], [], []),
    ]
    assert 0 not in numbers and len(set(numbers)) == 4
    assert engine.get_batch_transfer_status(numbers) == 0 and owner.content(theirs, 500) == pattern(1, 500)
    reads = [
        engine.batch_transfer_async_read(session, [mine + 1000], [theirs], [100]),
        engine.batch_transfer_async_read_arrays(session, *(array.array("Q", [n]) for n in (mine + 2000, theirs, 100))),
    ]
    assert engine.get_batch_transfer_status([*reads, 12345]) == -1 and told("12345")
    assert content(mine + 1000, 100) == content(mine + 2000, 100) == pattern(1, 100)
    assert engine.get_batch_transfer_status([]) == 0
    for failed in (
        engine.batch_transfer_async_read(session, [mine], [4096], [1]),
        engine.batch_transfer_async_read(session, [mine], [theirs], []),
        engine.transfer_submit_write("127.0.0.1:1", mine, theirs, 1),
    ):
        assert failed == 0


def test_scatter():
    engine, length, status = started(), 1 << 12, ScatterTransferCompletionStatus
    mine, theirs, session = buffer(engine, length, pattern(1, length)), owner.buffer(length, 2), owner.session
    ranges = [mine, mine + 2000], [100, 100], [theirs + 1000, theirs], [50, 100]
    ticket = engine.submit_scatter_write(session, *ranges, [[0, 90], [7]], [[40, 0], [1]], [[10, 5], [3]])
    assert ticket.drain(10_000) == status.COMPLETED == ticket.status and ticket.drained
    assert owner.content(theirs + 1040, 10) == pattern(1, 10) and owner.content(theirs + 1000, 5) == pattern(1, 95)[90:]
    assert owner.content(theirs + 1, 3) == pattern(1, 2010)[2007:]
    ticket = engine.scatter_transfer_sync_read_with_ticket(session, *ranges, [[0], []], [[40], []], [[9], []])
    assert ticket.drained and ticket.status == status.COMPLETED and content(mine, 9) == pattern(1, 9)
    for offsets in (
        ([[0, 90], [7]], [[40, 46], [1]], [[10, 5], [3]]),
        ([[0]], [[0]], [[1]]),
        ([[0], []], [[], []], [[1], []]),
    ):
        for call in (engine.submit_scatter_read, engine.scatter_transfer_sync_write_with_ticket):
            ticket = call(session, *ranges, *offsets)
            assert ticket.status == status.FAILED_DRAINED and ticket.drained, ticket.status
    ticket = engine.submit_scatter_write(session, *ranges, [[0, 90], [7]], [[40, 0], [1]], [[10, 5], [3]])
    assert ticket.drain(-1) in (status.COMPLETED, status.COMPLETION_UNKNOWN)  # it waits for nothing
    raises(TypeError, "integer", ticket.drain, 0.5)
    assert ticket.drain(10_000) == status.COMPLETED == ticket.drain(-1)


def test_scatter_is_interrupted():
    """Ctrl-C ends a call only when nothing of its list goes on."""
    engine, interrupted, wait = started(), [], nvlxfer.Request.wait

    def wait_once(request, timeout=None):
        nvlxfer.Request.wait = wait
        interrupted.append(request)
        raise KeyboardInterrupt

    ranges = [buffer(engine, 100)], [100], [owner.buffer(100, 2)], [100]
    nvlxfer.Request.wait = wait_once
    raises(KeyboardInterrupt, "", engine.scatter_transfer_sync_read_with_ticket, owner.session, *ranges,
           [[0]], [[0]], [[100]])  # fmt: skip
    assert interrupted[0].closed and content(ranges[0][0], 100) == pattern(2, 100)


def test_numpy_when_it_is_needed():
    """To import it takes longer than all else here."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "numpy.py").write_text("raise AssertionError('NumPy is imported')")
        paths = os.pathsep.join([folder, os.environ["PYTHONPATH"]])
        program = "import nvlxfer.mooncake.engine"
        subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, check=True, timeout=60)


def test_peers():
    with Owner() as other:
        engine = started()
        assert engine.get_first_buffer_address(other.session) == 0
        first = other.buffer(4096)
        second = other.buffer(4096)
        assert engine.get_first_buffer_address(other.session) == first
        assert other(f"engine.unregister_memory({first})") == 0
        assert engine.get_first_buffer_address(other.session) == second
        first = second
        assert engine.send_probe(other.session) == 0 == engine.send_probe(f"127.0.0.1:{engine.get_rpc_port()}")
        mine = buffer(engine, 4096)
        assert engine.transfer_sync_read(other.session, mine, first, 10) == 0
        for session, words in (
            ("127.0.0.1:1", "no engine of nvlxfer.mooncake is reached at"),
            ("192.0.2.7:12345", "is on another node"),
            ("nobody.invalid:12345", "is on another node"),
            ("127.0.0.1", 'is not "host:port"'),
            ("127.0.0.1:0", 'is not "host:port"'),
            ("", 'is not "host:port"'),
        ):
            since = time.monotonic()
            assert engine.send_probe(session) == -102 and told(words)
            assert engine.transfer_sync_read(session, mine, first, 10) == -1 and told(words)
            assert engine.get_first_buffer_address(session) == 0
            assert time.monotonic() - since < 20
        assert [*engine._parts.sessions._entries] == [other.session]  # of those that failed nothing is kept
        other.process.send_signal(signal.SIGKILL)
        other.process.wait()
        itself = f"127.0.0.1:{engine.get_rpc_port()}"
        assert engine.send_probe(other.session) == -102 and engine.send_probe(itself) == 0
        deadline = time.monotonic() + 20  # the news comes within milliseconds
        while engine.transfer_sync_read(other.session, mine, first, 10) == 0:
            assert time.monotonic() < deadline
        assert engine.unregister_memory(mine) == 0


def test_itself():
    """An engine's own session is one like any other, and so is that of another engine of this process."""
    one, two = started(), started()
    ones, twos = buffer(one, 200, pattern(1, 200)), buffer(two, 100)
    assert one.transfer_sync_read(f"127.0.0.1:{one.get_rpc_port()}", ones + 100, ones, 100) == 0
    assert content(ones + 100, 100) == pattern(1, 100)
    assert one.transfer_sync_write(f"127.0.0.1:{two.get_rpc_port()}", ones, twos, 100) == 0
    assert content(twos, 100) == pattern(1, 100)
    assert two.unregister_memory(twos) == 0 == one.unregister_memory(ones)


def test_notifies():
    engine = started()
    mine, theirs = buffer(engine, 4096, pattern(1, 4096)), owner.buffer(4096)
    seen = "[(each.name, each.msg) for each in engine.get_notifies()]"
    assert owner(seen) == []
    note = TransferNotify("request 7", "ü")
    assert engine.transfer_sync(owner.session, mine, theirs, 100, TransferOpcode.Write, note) == 0
    note.msg = "two"
    assert engine.batch_transfer_sync(owner.session, [mine], [theirs], [9], module.Write, notify=note) == 0
    assert owner(seen) == [["request 7", "ü"], ["request 7", "two"]] and owner(seen) == []
    assert engine.transfer_sync(owner.session, mine, 4096, 1, TransferOpcode.Write, note) == -1
    assert owner(seen) == [] and engine.get_notifies() == []
    assert TransferNotify().name == TransferNotify().msg == ""


def test_lacking():
    engine = started()
    for call in (
        engine.get_engine,
        engine.get_engine_ptr,
        lambda: engine.allocate_managed_buffer(1),
        lambda: engine.free_managed_buffer(1, 1),
        module.InnerTransferEngine,
        module.RpcInterface,
        module.CoroRPCInterface,
        module.ReceivedData,
        module.ReceivedTensor,
        module.create_rpc_client,
        module.create_rpc_server,
        lambda: module.SharedSegment.create("name", 1, 1, 0),
    ):
        raises(nvlxfer.NotSupported, "nvlxfer.mooncake has no ", call)
    assert not module.SharedSegment.supported()
    own = memory.alloc(0, 100)
    assert engine.write_bytes_to_buffer(own, "hello", 5) == 0 and engine.read_bytes_from_buffer(own, 5) == b"hello"
    raises(ValueError, "5 bytes, not 6", engine.write_bytes_to_buffer, own, b"hello", 6)
    mine, theirs = buffer(engine, 100), owner.buffer(100)
    for call in (engine.transfer_write_on_cuda, engine.transfer_read_on_cuda):
        raises(RuntimeError, "NVLX_ENOTSUP", call, owner.session, mine, theirs, 10, 1)
    for call in (engine.batch_transfer_write_on_cuda, engine.batch_transfer_read_on_cuda):
        raises(RuntimeError, "NVLX_ENOTSUP", lambda call=call: call(owner.session, [mine], [theirs], [10], 7))


def test_threads():
    """Many threads, sessions of their own and one in common, while others run Python."""
    engine, length = started(), 1 << 16
    theirs, failures = owner.buffer(length, 2), []

    def work(seed):
        mine = buffer(engine, length)
        for _ in range(20):
            if engine.batch_transfer_sync_read(owner.session, [mine], [theirs], [length]) != 0:
                failures.append(seed)
        if content(mine, length) != pattern(2, length) or engine.unregister_memory(mine) != 0:
            failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_folder():
    """Engines of several network namespaces find each other in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NVLX_MOONCAKE_FOLDER"] = folder
        try:
            one, two = TransferEngine(), TransferEngine()
            assert one.initialize("pod-1", "P2PHANDSHAKE", "rdma", "") == 0
            assert two.initialize("fd00::2", "P2PHANDSHAKE", "rdma", "") == 0
            mine, theirs = buffer(one, 100), buffer(two, 100, pattern(4, 100))
            assert one.transfer_sync_read(f"[fd00::2]:{two.get_rpc_port()}", mine, theirs, 100) == 0
            assert content(mine, 100) == pattern(4, 100)
            assert two.send_probe(f"pod-1:{one.get_rpc_port()}") == 0
            assert two.send_probe(f"pod-2:{one.get_rpc_port()}") == -102
            assert sorted(os.listdir(folder)) == sorted(
                [f"pod-1-{one.get_rpc_port()}.sock", f"fd00%3A%3A2-{two.get_rpc_port()}.sock"]
            )
        finally:
            del os.environ["NVLX_MOONCAKE_FOLDER"]


with Owner() as owner:
    run_tests(
        [
            test_patience,
            test_initialize,
            test_register,
            test_sync,
            test_arrays_and_pages,
            test_async,
            test_scatter,
            test_scatter_is_interrupted,
            test_numpy_when_it_is_needed,
            test_peers,
            test_itself,
            test_notifies,
            test_lacking,
            test_threads,
            test_folder,
        ]
    )
