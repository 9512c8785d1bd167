# SPDX-License-Identifier: Apache-2.0
"""The log goes to Python, from whichever thread it comes, and harms nobody."""

import asyncio
import contextlib
import gc
import io
import logging
import os
import subprocess
import sys
import threading
import time

import nvlxfer
from nvlxfer import Engine, LogLevel, read
from support import itself, raises, run_tests


def refused(engine):
    try:
        engine.alloc(1000, 8)
    except nvlxfer.InvalidArgument:
        return
    raise AssertionError("GPU 1000 is there")


def test_function():
    """A call's own messages come before it returns, in its thread."""
    engine, said = Engine(), []
    nvlxfer.set_log(LogLevel.WARNING, lambda level, text: said.append((level, text, threading.get_ident())))
    for _ in range(3):
        said.clear()
        refused(engine)
        assert len(said) == 1, said
        level, text, thread = said[0]
        assert level is LogLevel.WARNING and "GPU 1000" in text and thread == threading.get_ident()
    nvlxfer.set_log(LogLevel.ERROR, lambda level, text: said.append(text))
    said.clear()
    refused(engine)
    assert not said
    nvlxfer.set_log(LogLevel.DEBUG, lambda level, text: said.append(text))
    Engine().close()
    assert any("on backend host" in text for text in said)
    nvlxfer.reset_log(LogLevel.ERROR)
    said.clear()
    refused(engine)
    assert not said
    engine.close()


def test_logging():
    seen = []
    handler = logging.Handler()
    handler.emit = seen.append
    logger = logging.getLogger("nvlxfer")
    logger.addHandler(handler)
    logger.propagate = False
    nvlxfer.set_log()
    engine = Engine()
    refused(engine)
    assert [(record.levelno, record.name) for record in seen] == [(logging.WARNING, "nvlxfer")]
    assert "GPU 1000" in seen[0].getMessage()
    nvlxfer.reset_log(LogLevel.ERROR)
    logger.removeHandler(handler)
    engine.close()


def test_calling_back():
    """The function may call the library, be it in the thread that logged, and may fail."""
    engine, said = Engine(), []

    def function(level, text):
        said.append((text, engine.info().regions))
        raise ValueError("a function's own failure")

    complaints, hook = [], sys.excepthook
    sys.excepthook = lambda kind, value, trace: complaints.append(value)
    nvlxfer.set_log(LogLevel.WARNING, function)
    refused(engine)
    nvlxfer.reset_log(LogLevel.ERROR)
    sys.excepthook = hook
    assert len(said) == 1 and [str(complaint) for complaint in complaints] == ["a function's own failure"]
    engine.close()


def test_service_thread():
    """What the library's own thread logs comes, too."""
    came = threading.Event()
    engine, server = Engine(), Engine()
    address = f"@nvlxfer-test-log-{os.getpid()}"
    server.serve(address)
    threads = []

    def function(level, text):
        if threading.current_thread().name == "nvlxfer-log":
            with open("/proc/thread-self/comm") as file:
                threads.append(file.read())
            came.set()

    nvlxfer.set_log(LogLevel.DEBUG, function)
    peer = engine.connect(address, 30)
    server.close()
    assert came.wait(30), "the service thread says nothing of the server's end"
    assert set(threads) == {"nvlxfer-log\n"}, threads
    nvlxfer.reset_log(LogLevel.ERROR)
    peer.close()
    engine.close()


def test_collected_meanwhile():
    """An engine that the garbage collector finds while another logs is destroyed all the same."""
    nvlxfer.set_log(LogLevel.DEBUG, lambda level, text: gc.collect())
    gc.disable()
    for _ in range(20):
        engine, address, peer = itself(4096)
        engine.serve(f"@nvlxfer-test-log-{os.getpid()}-{id(engine)}")
        engine.cycle = engine
        other = Engine()
        del engine, peer
        refused(other)
        other.close()
    gc.enable()
    gc.collect()
    nvlxfer.reset_log(LogLevel.ERROR)
    deadline = time.monotonic() + 30
    while nvlxfer._c.calls._cores or nvlxfer._c.calls._in_flight:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_collected_by_who_logs():
    """Within the callback, also of a call that began before there was one, another thread destroys it."""
    address = f"@nvlxfer-test-log-collected-{os.getpid()}"
    engine, other = Engine(), Engine()
    engine.serve(address)
    nvlxfer.set_log(LogLevel.ERROR)
    nvlxfer._c.calls._local.here.in_log = True
    del engine
    nvlxfer._c.calls._local.here.in_log = False
    deadline = time.monotonic() + 30
    while True:
        try:
            other.serve(address)
            break
        except nvlxfer.NvlxError:  # it is still there
            assert time.monotonic() < deadline
            time.sleep(0.001)
    nvlxfer.reset_log(LogLevel.ERROR)
    other.close()


def test_within_the_callback():
    """What the garbage collector runs there can neither start a transfer nor end one, and breaks nothing."""
    engine, address, peer = itself(4096)
    ops = read(peer, address, address + 64, 64)
    prepared, request, other = engine.prepare(ops), engine.transfer(ops), engine.transfer(ops)
    request.wait()
    nvlxfer._c.calls._local.here.in_log = True
    try:
        raises(nvlxfer.Busy, "NVLX_EBUSY", "inside the library", other.wait)
        assert "in flight" in repr(other)  # it has not failed
        for call in (prepared.post, lambda: engine.transfer(ops), request.wait, request.close):
            raises(nvlxfer.Busy, "NVLX_EBUSY", "inside the library", call)
    finally:
        nvlxfer._c.calls._local.here.in_log = False
    assert not request.closed and request.test()
    for each in (request, other):
        each.close()
    assert not engine._core.requests
    engine.close()


DEFAULT = """
import logging, os, sys, threading, time
logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s", level=logging.DEBUG)
import nvlxfer
engine = nvlxfer.Engine()
assert threading.active_count() == 1
try:
    engine.alloc(1000, 8)
except nvlxfer.InvalidArgument:
    pass
server = nvlxfer.Engine()
server.serve("@nvlxfer-default-%d" % os.getpid())
peer = engine.connect("@nvlxfer-default-%d" % os.getpid(), 30)
server.close()  # the service thread of the other engine tells that
deadline = time.monotonic() + 30
while "nvlxfer-log" not in [thread.name for thread in threading.enumerate()]:
    assert time.monotonic() < deadline
    time.sleep(0.001)
nvlxfer.reset_log()  # when all has been told
"""


def test_default():
    """Without a word of the program, the log is logging's, and a thread tells only what no call does."""
    for level, told in ((None, ["GPU 1000"]), ("0", []), ("7", ["NVLX_LOG_LEVEL", "GPU 1000"]), ("2", None)):
        environment = {key: value for key, value in os.environ.items() if key != "NVLX_LOG_LEVEL"}
        environment.update({} if level is None else {"NVLX_LOG_LEVEL": level})
        script = DEFAULT if level == "2" else DEFAULT.split("server =")[0]
        left = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, env=environment, text=True)
        assert left.returncode == 0 and left.stderr == "", left
        lines = left.stdout.splitlines()
        assert all(line.startswith("nvlxfer ") for line in lines), left
        if told is None:
            assert any(" INFO " in line and "its engine was destroyed" in line for line in lines), left
        else:
            assert len(lines) == len(told) and all(f in line for f, line in zip(told, lines)), left


OWNER = """
import nvlxfer, sys
engine = nvlxfer.Engine()
engine.serve(sys.argv[1])
print("serves", flush=True)
sys.stdin.read()
"""
UNCONFIGURED = """
import logging, nvlxfer, subprocess, sys
address, owner, *silent = sys.argv[1:]
if silent:
    logging.getLogger("nvlxfer").addHandler(logging.NullHandler())
owner = subprocess.Popen([sys.executable, "-c", owner, address], stdin=-1, stdout=-1)
owner.stdout.readline()
engine = nvlxfer.Engine()
peer = engine.connect(address, 30)
array = engine.empty(8)
engine.register(array, "w0")
for call in (lambda: engine.alloc(1000, 8), lambda: engine.register(array, "w0"), lambda: engine.register((5, 5)),
             lambda: engine.transfer(nvlxfer.read(peer, array.address, 8, 8)), lambda: engine.serve("no")):
    try:
        call()
        raise AssertionError
    except nvlxfer.NvlxError as failure:
        print(failure)
with nvlxfer.publish({"a": array}, engine), engine.peer_open(engine.export()) as itself, nvlxfer.pull(itself) as got:
    array.fill(b"changed!")
    try:
        got.again()
        raise AssertionError
    except nvlxfer.WrongDigest as failure:
        print(failure)
owner.kill()
owner.communicate()
while nvlxfer.log._log._thread is None:  # which tells that the peer is gone
    try:
        peer.test()
    except nvlxfer.Stale:
        pass
nvlxfer.reset_log()  # when all has been told
"""


def test_unconfigured():
    """Where the program has no handler, what it can catch is not printed, too; a peer's death, which it may not see,
    is."""
    environment = {key: value for key, value in os.environ.items() if key != "NVLX_LOG_LEVEL"}
    command = [sys.executable, "-c", UNCONFIGURED, f"@nvlxfer-unconfigured-{os.getpid()}", OWNER]
    for silent in ([], ["silent"]):
        left = subprocess.run(command + silent, capture_output=True, timeout=60, env=environment, text=True)
        assert left.returncode == 0 and len(left.stdout.splitlines()) == 6, left
        assert len(left.stderr.splitlines()) == (not silent) and ("gone" in left.stderr) == (not silent), left


END = """
import logging, sys, threading
import nvlxfer
from nvlxfer import Engine, LogLevel
logging.basicConfig(filename=sys.argv[1], level=logging.DEBUG)
nvlxfer.set_log(LogLevel.DEBUG)
engine = Engine()
engine.serve(sys.argv[2])
def poll():
    while True:
        try:
            engine.connect(sys.argv[2]).close()
            engine.alloc(1000, 8)
        except nvlxfer.InvalidArgument:
            pass
for _ in range(4):
    threading.Thread(target=poll, daemon=True).start()
while "GPU 1000" not in open(sys.argv[1]).read():
    pass
"""


def test_end():
    """Threads that log when the program ends."""
    path = f"/tmp/nvlxfer-test-log-{os.getpid()}"
    try:
        for index in range(2):
            command = [sys.executable, "-c", END, path, f"@{path}-{index}"]
            left = subprocess.run(command, capture_output=True, timeout=60)
            assert (left.returncode, left.stdout, left.stderr) == (0, b"", b""), left
    finally:
        os.remove(path)


def test_fork():
    """In the child it still works."""
    said = []
    nvlxfer.set_log(LogLevel.WARNING, lambda level, text: said.append(text))
    child = os.fork()
    if child == 0:
        engine = Engine()
        refused(engine)
        os._exit(len(said) == 1 and nvlxfer.log._log._thread.is_alive())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    nvlxfer.reset_log(LogLevel.ERROR)


def log_threads():
    return sum(thread.name == "nvlxfer-log" for thread in threading.enumerate())


def test_setters():
    """Several threads set and reset the log, and functions do, too; the last one counts."""
    failures = []

    def change(function):
        try:
            for index in range(1000):
                nvlxfer.set_log(LogLevel.ERROR, function) if index % 2 else nvlxfer.reset_log(LogLevel.ERROR)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=change, args=(lambda level, text: None,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures, failures
    said = []
    nvlxfer.set_log(LogLevel.WARNING, lambda level, text: said.append(text))
    assert log_threads() == 1
    with Engine() as engine:
        refused(engine)
    assert len(said) == 1
    nvlxfer.reset_log(LogLevel.ERROR)
    assert log_threads() == 0 and not nvlxfer.log._log.used


def test_setting_from_inside():
    """A function may wait for a thread that sets the log."""
    said = []

    def other():
        nvlxfer.set_log(LogLevel.WARNING, lambda level, text: said.append("later"))

    def function(level, text):
        nvlxfer.set_log(LogLevel.WARNING, function)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
        said.append(thread.is_alive())

    with Engine() as engine:
        nvlxfer.set_log(LogLevel.WARNING, function)
        refused(engine)
        refused(engine)
    assert said == [False, "later"], said
    nvlxfer.reset_log(LogLevel.ERROR)


@contextlib.contextmanager
def no_threads():
    def start(*arguments):
        raise RuntimeError("can't start new thread")

    kept, threading.Thread.start = threading.Thread.start, start
    kept_low, nvlxfer._c.end._thread = nvlxfer._c.end._thread, type("Low", (), {"start_new_thread": start})
    try:
        yield
    finally:
        threading.Thread.start, nvlxfer._c.end._thread = kept, kept_low


def test_no_thread():
    """Where no thread can be started, the log stays as it was."""
    said = []
    with Engine() as engine:
        with no_threads():
            raises(nvlxfer.OutOfHostMemory, "NVLX_ENOMEM", "nvlxfer-log", nvlxfer.set_log, 1, lambda *told: said.append(told))
        assert not nvlxfer.log._log.used and log_threads() == 0
        refused(engine)
        assert not said
        nvlxfer.set_log(LogLevel.WARNING, lambda *told: said.append(told))
        refused(engine)
        assert len(said) == 1 and log_threads() == 1
        with no_threads():
            child = os.fork()
            if child == 0:
                said.clear()
                refused(Engine())
                os._exit(len(said))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
            nvlxfer.reset_log(LogLevel.ERROR)
    assert log_threads() == 0


def test_no_thread_to_destroy():
    """An engine that is collected inside the library is destroyed by another thread, else when the program ends."""
    engine = Engine()
    with no_threads():
        nvlxfer._c.calls._local.here.in_c = True
        del engine
        nvlxfer._c.calls._local.here.in_c = False
    assert len(nvlxfer._c.calls._cores) == 1
    for core in list(nvlxfer._c.calls._cores.values()):
        nvlxfer._c.end._collected(core)
    assert not nvlxfer._c.calls._cores


def test_raising():
    """Whatever a function raises, the call says its own, and the thread goes on. So if the hook raises, too."""
    kinds, complaints, hook = [asyncio.CancelledError, SystemExit, GeneratorExit, MemoryError], [], sys.excepthook
    told = threading.Event()

    def function(level, text):
        if text == "go on":
            told.set()
            return
        raise kinds[0]("a function's own")

    def complain(kind, value, trace):
        complaints.append(kind)
        if kind is MemoryError:
            raise kind("the hook's own")

    sys.excepthook = complain
    shown, sys.stderr = sys.stderr, io.StringIO()
    with Engine() as engine:
        nvlxfer.set_log(LogLevel.WARNING, function)
        while kinds:
            refused(engine)
            nvlxfer.log._log._queue.put((LogLevel.WARNING, b"of the service thread"))
            nvlxfer.log._log._queue.put((LogLevel.WARNING, b"go on"))
            assert told.wait(30), kinds[0]
            assert complaints == [kinds.pop(0)] * 2
            told.clear()
            complaints.clear()
        kinds.append(KeyboardInterrupt)  # which is Ctrl-C in the main thread, and nothing else
        try:
            engine.alloc(1000, 8)
            raise AssertionError("Ctrl-C was lost")
        except KeyboardInterrupt:
            pass
        nvlxfer.reset_log(LogLevel.ERROR)
    shown, sys.stderr = sys.stderr, shown
    sys.excepthook = hook
    assert "the hook's own" in shown.getvalue() and "a function's own" in shown.getvalue()


run_tests([test_default, test_unconfigured, test_function, test_logging, test_calling_back, test_service_thread,
           test_collected_meanwhile, test_collected_by_who_logs, test_within_the_callback, test_end])  # fmt: skip
run_tests([test_setters, test_setting_from_inside, test_no_thread, test_no_thread_to_destroy, test_raising])
run_tests([test_fork])
