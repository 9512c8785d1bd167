# SPDX-License-Identifier: Apache-2.0
"""What is withdrawn is gone, for who has read it before too. Neighbours, other calls and successors go on."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import types

from support import Owner, buffer, content, memory, pattern, run_tests, said, started, told

import nvlxfer.mooncake
from nvlxfer.mooncake import TransferOpcode

COUNT, LENGTH = 6, 1 << 14


def test_six_tensors(kind):
    """Tensors of one allocation, as a caching allocator carves them; then one of them is unregistered."""
    segment = owner(f"memory.alloc(1, {COUNT * LENGTH}, {kind})")
    tensors = [segment + i * LENGTH for i in range(COUNT)]
    for seed, tensor in enumerate(tensors):
        fill = f"bytes((i * 7 + {seed}) % 251 for i in range({LENGTH}))"
        owner(f"engine.write_bytes_to_buffer({tensor}, {fill}, {LENGTH})")
        assert owner(f"engine.register_memory({tensor}, {LENGTH})") == 0

    def readable(engine, mine):
        found = []
        for seed, tensor in enumerate(tensors):
            memory.memcpy(mine, bytes(LENGTH))
            if engine.transfer_sync_read(owner.session, mine, tensor, LENGTH) == 0:
                assert content(mine, LENGTH) == pattern(seed, LENGTH)
                found.append(seed)
            else:
                assert content(mine, LENGTH) == bytes(LENGTH)
        return found

    old = started()
    mine = buffer(old, LENGTH)
    assert readable(old, mine) == list(range(COUNT))
    assert owner(f"engine.unregister_memory({tensors[2]})") == 0
    new = started()
    theirs = buffer(new, LENGTH)
    assert readable(old, mine) == readable(new, theirs) == [0, 1, 3, 4, 5]
    assert old.transfer_sync_write(owner.session, mine, tensors[2] + 7, 1) == -1
    assert owner(f"engine.register_memory({tensors[2]}, {LENGTH})") == 0
    assert readable(old, mine) == readable(new, theirs) == list(range(COUNT))
    assert owner(f"engine.batch_unregister_memory({tensors})") == 0
    assert readable(old, mine) == readable(new, theirs) == []
    owner(f"memory.free({segment})")


def test_failed_batch():
    """Nothing of a refused list is done, nor later: whichever of its copies is wrong."""
    engine, count = started(), 50
    mine, theirs = buffer(engine, count * 100), owner.buffer(count * 100, 2)
    for wrong in (0, count // 2, count - 1):
        for side in range(2):
            places = [[mine + 100 * i for i in range(count)], [theirs + 100 * i for i in range(count)], [100] * count]
            places[side][wrong] += count * 100
            assert engine.batch_transfer_sync_read(owner.session, *places) == -1 and told(f"op {wrong}")
            assert engine.batch_transfer_async_read(owner.session, *places) == 0
            assert engine.batch_transfer_sync(owner.session, *places, TransferOpcode.Write) == -1
            assert content(mine, count * 100) == bytes(count * 100)
            assert owner.content(theirs, count * 100) == pattern(2, count * 100)
    assert engine.batch_transfer_sync_read(owner.session, [mine], [theirs, theirs], [1]) == -1
    assert engine.transfer_sync_read(owner.session, mine, theirs, 100) == 0


def test_registered_while_others_read():
    """What was registered a moment ago can be read at once, by who has been connected for long."""
    engine = started()
    mine = buffer(engine, 100)
    for seed in range(30):
        theirs = owner.buffer(100, seed)
        assert engine.transfer_sync_read(owner.session, mine, theirs, 100) == 0, said[-1]
        assert content(mine, 100) == pattern(seed, 100)
        assert owner(f"engine.unregister_memory({theirs})") == 0
        owner(f"memory.free({theirs})")


def test_freed_without_unregister():
    """Memory that comes again at an address that was not unregistered is registered, and read, as what it is."""
    engine = started()
    mine, theirs = buffer(engine, 4096), owner.buffer(4096, 1)
    assert engine.transfer_sync_read(owner.session, mine, theirs, 4096) == 0
    owner(f"memory.free({theirs})")
    again = owner("memory.alloc(1, 4096)")
    assert again == theirs  # else there is nothing to see
    assert owner(f"engine.register_memory({again}, 100)") == 0
    assert owner(f"engine.register_memory({again}, 4096)") == -7
    owner(f"engine.write_bytes_to_buffer({again}, b'new', 3)")
    assert engine.transfer_sync_read(owner.session, mine, again, 3) == 0 and content(mine, 3) == b"new"
    assert engine.transfer_sync_read(owner.session, mine, again + 100, 3) == -1
    assert owner(f"engine.unregister_memory({again})") == 0 and owner(f"engine.unregister_memory({again})") == -3


def test_reader_is_stopped():
    """A reader that does not let go: it is told, and the next call waits on."""
    with Owner() as reader:
        theirs, mine = owner.buffer(100, 3), reader.buffer(100)
        assert reader(f"engine.transfer_sync_read('{owner.session}', {mine}, {theirs}, 100)") == 0
        owner("setattr(engine._parts.memory, '_patience', 0.2)")
        reader.process.send_signal(signal.SIGSTOP)
        assert owner(f"engine.unregister_memory({theirs})") == -1
        assert owner(f"engine.register_memory({theirs}, 10)") == 0  # another one
        others = [owner.buffer(100) for _ in range(60)]
        since = time.monotonic()
        assert owner(f"engine.batch_unregister_memory({[theirs, *others]})") == -1
        assert time.monotonic() - since < 6  # 0.2 for all, not for each
        reader.process.send_signal(signal.SIGCONT)
        owner("setattr(engine._parts.memory, '_patience', 30.0)")
        assert owner(f"engine.unregister_memory({theirs})") == 0 and owner(f"engine.unregister_memory({theirs})") == -3
        assert reader(f"engine.transfer_sync_read('{owner.session}', {mine}, {theirs}, 100)") == -1


def test_unregister_by_threads():
    """While one thread waits for who uses the memory, nobody is told that it is free."""
    engine, codes = started(), []
    with Owner() as reader:
        mine, theirs = buffer(engine, 100, pattern(1, 100)), reader.buffer(100)
        itself = f"127.0.0.1:{engine.get_rpc_port()}"
        assert reader(f"engine.transfer_sync_read('{itself}', {theirs}, {mine}, 100)") == 0
        engine._parts.memory._patience = 0.5
        reader.process.send_signal(signal.SIGSTOP)
        threads = [threading.Thread(target=lambda: codes.append(engine.unregister_memory(mine))) for _ in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        reader.process.send_signal(signal.SIGCONT)
        assert codes == [-1, -1, -1]
        engine._parts.memory._patience = 30.0
        assert engine.unregister_memory(mine) == 0


def test_unregister_by_the_collector():
    """A tensor's end may unregister it, wherever the garbage collector comes."""

    class Collecting(dict):
        def get(self, *arguments):
            gc.collect()
            return super().get(*arguments)

        def __setitem__(self, *arguments):
            gc.collect()
            super().__setitem__(*arguments)

    class Tensor:
        def __init__(self, engine):
            self.address, self.engine, self.itself = buffer(engine, 100), engine, self

        def __del__(self):
            codes.append(self.engine.unregister_memory(self.address))

    def work():
        engine = started()
        engine._parts.memory._ranges = Collecting()
        for _ in range(2):
            Tensor(engine)
            address = buffer(engine, 100)
            Tensor(engine)
            codes.append(engine.unregister_memory(address))
        gc.collect()
        done.append(len(engine._parts.memory._starts))

    codes, done = [], []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert done == [0] and codes == [0] * 6, (done, codes)


def test_dead_peer():
    """A peer that dies is told at once; its memory is let go, others go on."""
    engine = started()
    with Owner() as other:
        mine, theirs = buffer(engine, 1 << 20), other.buffer(1 << 20)
        assert engine.transfer_sync_read(other.session, mine, theirs, 1 << 20) == 0
        stop, codes = threading.Event(), set()

        def read():
            while not stop.is_set():
                codes.add(engine.batch_transfer_sync_read(other.session, [mine], [theirs], [1 << 20]))

        thread = threading.Thread(target=read)
        thread.start()
        other.process.kill()
        other.process.wait()
        deadline = time.monotonic() + 30
        while -1 not in codes and time.monotonic() < deadline:
            time.sleep(1e-3)
        stop.set()
        thread.join()
        assert codes <= {0, -1} and -1 in codes
    assert engine.unregister_memory(mine) == 0
    again = owner.buffer(100)
    assert engine.transfer_sync_read(owner.session, buffer(engine, 100), again, 100) == 0
    assert [*engine._parts.sessions._entries] == [owner.session]


def test_successor():
    """Another process that serves at a session whose engine has died is what the session names from then on."""
    engine = started()
    mine = buffer(engine, 100)
    with Owner() as first:
        theirs = first.buffer(100, 1)
        assert engine.transfer_sync_read(first.session, mine, theirs, 100) == 0
        first.process.kill()
        first.process.wait()
        port = first.session.partition(":")[2]
    with Owner() as second:
        second(f"setattr(nvlxfer.mooncake._sessions, '_held_port', lambda: ({port}, __import__('os').dup(0)))")
        second("globals().update(engine=type(engine)())")
        assert second("engine.initialize('127.0.0.1', 'P2PHANDSHAKE', 'rdma', '')") == 0
        assert second("engine.get_rpc_port()") == int(port)
        theirs, deadline = second.buffer(100, 2), time.monotonic() + 20
        while content(mine, 100) != pattern(2, 100):  # as soon as it is known that the first one has died
            engine.transfer_sync_read(first.session, mine, theirs, 100)
            assert time.monotonic() < deadline


def test_in_place():
    """A program that is not changed, by PYTHONPATH; one that calls install(), and what it spawns."""
    place = subprocess.run([sys.executable, "-m", "nvlxfer.mooncake"], stdout=subprocess.PIPE, text=True, check=True)
    paths = os.pathsep.join([place.stdout.strip(), os.environ["PYTHONPATH"]])
    program = (
        "import importlib.util; assert importlib.util.find_spec('mooncake.engine')\n"
        "from mooncake.engine import TransferEngine\nimport mooncake.engine, nvlxfer.mooncake\n"
        "assert TransferEngine is nvlxfer.mooncake.TransferEngine is mooncake.engine.TransferEngine\n"
        "assert TransferEngine().initialize('127.0.0.1', 'P2PHANDSHAKE', 'rdma', '') == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, check=True, timeout=60)
    install = (
        "import nvlxfer.mooncake, multiprocessing\nnvlxfer.mooncake.install(), nvlxfer.mooncake.install()\n"
        + program
        + "child = multiprocessing.get_context('spawn').Process(target=exec, args=("
        + repr(program)
        + ",))\n"
        "child.start(), child.join()\nassert child.exitcode == 0\n"
    )
    subprocess.run([sys.executable, "-c", install], check=True, timeout=60)
    sys.modules["mooncake.engine"] = types.ModuleType("mooncake.engine")
    try:
        nvlxfer.mooncake.install()
    except ImportError as error:
        assert "imported before" in str(error)
    else:
        raise AssertionError("ImportError was not raised")


def test_six_tensors_of_chunks():
    test_six_tensors("nvlxfer.Alloc.VMM")


def test_six_tensors_of_cuda_malloc():
    test_six_tensors("nvlxfer.Alloc.CUDA_MALLOC")


with Owner() as owner:
    run_tests(
        [
            test_six_tensors_of_cuda_malloc,
            test_six_tensors_of_chunks,
            test_failed_batch,
            test_registered_while_others_read,
            test_freed_without_unregister,
            test_reader_is_stopped,
            test_unregister_by_threads,
            test_unregister_by_the_collector,
            test_dead_peer,
            test_successor,
            test_in_place,
        ]
    )
