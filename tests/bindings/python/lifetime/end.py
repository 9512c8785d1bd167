# SPDX-License-Identifier: Apache-2.0
"""The program ends while daemon threads are inside calls: exit code 0, nothing on stderr, no long wait.

end.py [ROUNDS]   runs all that follows
end.py load KIND  a program that ends under load of this kind
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.abspath(__file__)
ROUNDS = 64  # by fork of a process that has all modules: most of a new process's time goes into them


def load(kind):
    """Leaves eight daemon threads that use the library without end."""
    from nvlxfer import Engine, read, write

    engine = Engine()
    address = engine.alloc(0, 1 << 16)
    engine.register((address, 1 << 16), "all")
    name = f"@nvlxfer-test-end-{os.getpid()}"
    engine.serve(name)
    peer = engine.connect(name, 30)
    private = engine.alloc(0, 4096)
    ops = [read(peer, address, address + 4096, 64), write(peer, address, address + 4096, 64)]
    prepared = engine.prepare(ops[0])
    rounds = {}

    def poll():
        peer.test()
        engine.info()
        peer.find("all")

    def connect():
        with engine.connect(name, 30) as made:
            made.find("all")

    async def awaits():
        while True:
            await asyncio.gather(*(engine.transfer(ops) for _ in range(4)))
            rounds["await"] = True

    def ops_of_dropped():
        for _ in range(10):
            engine.transfer(ops)
        engine.transfer(ops).close()

    jobs = {
        "register": lambda: engine.register((private, 64)).close(),
        "poll": poll,
        "transfer": lambda: engine.transfer(ops).wait(),
        "post": lambda: prepared.post().wait(10),
        "connect": connect,
        "export": lambda: engine.peer_open(engine.export()).close(),
        "engines": lambda: Engine().close(),
        "drop": ops_of_dropped,
        "await": lambda: asyncio.run(awaits()),
    }
    names = list(jobs) if kind == "all" else [kind] * 8

    def run(name):
        while True:
            jobs[name]()
            rounds[name] = True

    for each in names:
        threading.Thread(target=run, args=(each,), daemon=True).start()
    deadline = time.monotonic() + 30
    while len(rounds) < len(set(names)) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(rounds) == len(set(names)), rounds


def check(code, stderr, what):
    if code or stderr:
        raise AssertionError(f"{what}: exit code {code}, {stderr!r}")


def programs(kinds, *command):
    """Runs one for each kind, all at the same time."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    started = {kind: subprocess.Popen([sys.executable, *command, kind], **pipes) for kind in kinds}
    for kind, process in started.items():
        said = process.communicate(timeout=60)[0]
        check(process.returncode, said, kind)


def test_fresh():
    """New processes, so that all is loaded and unloaded."""
    programs(("register", "poll", "transfer", "all"), HERE, "load")


STUCK = """
import ctypes, os, sys, threading, time
os.environ["NVLX_LIBRARY"] = os.environ["NVLX_WATCH"]
import nvlxfer
from nvlxfer import Engine, read
engine = Engine()
address = engine.alloc(0, 4096)
engine.register((address, 4096))
peer = engine.peer_open(engine.export())
peer.map(0, address, 64)
calls = {"memcpy": lambda: engine.memcpy(address, b"x"), "wait": lambda: engine.transfer(ops).wait(),
         "connect": lambda: engine.connect("@nobody-serves-here", None), "none": lambda: time.sleep(60),
         "close": lambda: engine.close()}
ops = read(peer, address, address + 64, 64)
request = engine.transfer(ops) if sys.argv[1] == "none" else None
hang = sys.argv[1] != "connect"  # whose slices end by themselves
ctypes.c_int.in_dll(nvlxfer._c.native._library()._library, "nvlx_watch_hang").value = hang
nvlxfer._c.calls._TRANSFERS_END = 1.0
threading.Thread(target=calls[sys.argv[1]], daemon=True).start()
time.sleep(0.2)
"""


def test_stuck():
    """What does not come back is left alone after a while."""
    since = time.monotonic()
    programs(("memcpy", "wait", "connect", "none", "close"), "-c", STUCK)
    assert time.monotonic() - since < 30


AFTERWARDS = """
import atexit, os, sys, threading, time
@atexit.register
def last():  # after the binding's own
    thread.join(20)
    assert not thread.is_alive() and engine.closed and not seen
    for call in (engine.export, lambda: peer.find("x"), nvlxfer.Engine):
        try:
            call()
        except nvlxfer.NvlxError:
            continue
        os._exit(9)
    engine.close()
    region.close()
    os.write(1, b"so far")
import nvlxfer
engine = nvlxfer.Engine()
address = engine.alloc(0, 4096)
region, peer = engine.register((address, 64)), engine.peer_open(engine.export())
seen = []
def run():
    try:
        while True:
            engine.info()
    except Exception as failure:
        seen.append(failure)
thread = threading.Thread(target=run, daemon=True)
thread.start()
def work():  # not a daemon: the end waits for it, and it works undisturbed
    time.sleep(0.3)
    engine.register((address, 128)).close()
    engine.connect("@nobody-serves-here", 0.1) if len(sys.argv) > 2 else None
threading.Thread(target=work).start()
"""


def test_afterwards():
    """Other handlers of the end can join threads, and are told that all is closed."""
    left = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, timeout=60)
    check(left.returncode, left.stderr, "handlers")
    assert left.stdout == b"so far"


FORKED = """
import multiprocessing, os, sys
import nvlxfer
from nvlxfer import Engine, read
def child(engine, peer):
    with engine:
        pass
    own = Engine()
    address = own.alloc(0, 4096)
    own.register((address, 64)).close()
    sys.exit(0)
if __name__ == "__main__":
    engine = Engine()
    address = engine.alloc(0, 4096)
    engine.register((address, 4096), "all")
    peer = engine.peer_open(engine.export())
    request = engine.transfer(read(peer, address, address + 64, 64))
    process = multiprocessing.get_context("fork").Process(target=child, args=(engine, peer))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    pid = os.fork()
    if pid == 0:
        with request, peer, engine:
            sys.exit(0)  # closes nothing of the parent's
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    request.wait(30)
    assert peer.find("all") == (address, 4096) and engine.info().regions == 1
    engine.close()
"""


def test_forked():
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(FORKED)
        script.flush()
        quiet = "ignore::DeprecationWarning"  # Python 3.12 warns of any fork beside threads
        left = subprocess.run([sys.executable, "-W", quiet, script.name], capture_output=True, timeout=60)
    check(left.returncode, left.stdout + left.stderr, "fork")


class Round:
    """A forked process under load; in it, making one tells so, and the caller lets it end as any program ends."""

    def __init__(self, index):
        self.kind = ("all", "register", "poll", "transfer", "post", "connect", "drop", "await")[index % 8]
        self.output = tempfile.TemporaryFile()
        self.child = os.fork()
        if self.child == 0:
            os.dup2(self.output.fileno(), 1)
            os.dup2(self.output.fileno(), 2)
            self.output.close()
            load(self.kind)

    def finish(self):
        code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        self.output.seek(0)
        check(code, self.output.read(), self.kind)
        self.output.close()


def rounds(count):
    """Returns in each child, after its work; and in the parent."""
    since = time.monotonic()
    running = []
    for index in range(count):
        running.append(Round(index))
        if running[-1].child == 0:
            for other in running:
                other.output.close()
            return
        if len(running) == 3:
            running.pop(0).finish()
    for last in running:
        last.finish()
    print(f"ok: the program ended {count} times under load ({time.monotonic() - since:.1f} s)")


if sys.argv[1:2] == ["load"]:
    load(sys.argv[2])
else:
    from support import run_tests

    run_tests([test_fresh, test_stuck, test_afterwards, test_forked])
    rounds(int((sys.argv[1:] or [ROUNDS])[0]))
