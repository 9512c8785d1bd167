# SPDX-License-Identifier: Apache-2.0
"""Numbers that do not fit, wrong types, and odd times: each is refused by a word about the argument, none is cut."""

import array
import copy
import math
import os
import pickle
import pydoc
import re
import sys
import textwrap
import threading
import time
from pathlib import Path

import nvlxfer
from nvlxfer import Access, Backend, Engine, InvalidArgument, InvalidType, read
from support import content, itself, raises, run_tests

INVALID = InvalidArgument, "NVLX_EINVAL"


class Index:
    """An integer of another library, such as NumPy's."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number


def refuses(kind, argument, function, *arguments, **keywords):
    """The text names the argument and its value."""
    try:
        made = function(*arguments, **keywords)
    except InvalidArgument as error:
        assert type(error) is kind and argument in str(error), repr(error)
        assert isinstance(error, TypeError) == (kind is InvalidType)
        return
    raise AssertionError(f"{argument}: {arguments} {keywords} gave {made}")


def test_memory():
    engine, a, _ = itself(4096)
    for memory in ([a, 64], b"abc", a, None):
        refuses(InvalidType, f"of type {type(memory).__name__}: give a tuple (address, length)", engine.register,
                memory)
    for memory in ((a,), (a, 64, 1)):
        refuses(InvalidArgument, "not a pair of an address and a length: (address, length)", engine.register, memory)
    region = engine.register((a, 64))
    engine.close()
    for closed, text in ((engine, "the Engine is closed"), (region, "the Region is closed, or its engine is")):
        try:
            closed.register((a, 64)) if closed is engine else closed._live()
        except InvalidArgument as error:
            assert str(error).endswith(text), error
        else:
            raise AssertionError(text)


def test_introduction_of_many_ops():
    """The example in the module's own words does what it says."""
    engine, a, peer = itself(4096)
    block, mine = 64, type("Tensor", (), {"data_ptr": lambda self: a + 2048})()
    engine.memcpy(a, bytes(i % 251 for i in range(4 * block)))
    example = textwrap.dedent(nvlxfer.__doc__.split("Many copies go in one call")[1].split("\n\n")[1])
    names = {"array": array, "read": read, "engine": engine, "peer": peer, "mine": mine, "address": a, "block": block}
    exec(example, names)
    source, target = content(engine, a, 4 * block), content(engine, a + 2048, 4 * block)
    for i, slot in enumerate(names["slots"]):
        assert target[slot * block : (slot + 1) * block] == source[i * block : (i + 1) * block]
    engine.close()


def test_repr():
    """Each object says what it is, also when it is closed."""
    engine, a, peer = itself(4096)
    with engine.register((a, 64), "w0") as region, engine.prepare(read(peer, a, a + 64, 8)) as prepared:
        request = prepared.post()
        request.wait()
        said = {repr(each) for each in (region, peer, prepared, request, read(peer, a, a, 8))}
    assert said == {
        f"<nvlxfer.Region: 'w0', 64 bytes at {a:#x}>",
        "<nvlxfer.Peer: from a text>",
        "<nvlxfer.Prepared: 1 ops>",
        "<nvlxfer.Request: complete>",
        "<nvlxfer.Ops: 1 ops>",
    }, said
    assert repr(engine) == "<nvlxfer.Engine: host, 2 regions, peers and prepared lists>", repr(engine)
    request.close()
    engine.close()
    assert repr(prepared) == "<nvlxfer.Prepared: 1 ops, closed>"
    assert repr(peer) == "<nvlxfer.Peer: from a text, closed>"
    assert repr(engine) == "<nvlxfer.Engine: host, 0 regions, peers and prepared lists, closed>", repr(engine)


def test_integers():
    engine, a, peer = itself(4096)
    wide = [
        ("gpu", 32, lambda value: engine.alloc(value, 64)),
        ("length", 64, lambda value: engine.alloc(0, value)),
        ("kind", 32, lambda value: engine.alloc(0, 64, value)),
        ("chunk_length", 64, lambda value: engine.alloc(0, 64, 1, value)),
        ("address", 64, engine.free),
        ("gpu", 32, lambda value: peer.map(value, a, 64)),
        ("address", 64, lambda value: peer.map(0, value, 64)),
        ("length", 64, lambda value: peer.map(0, a, value)),
        ("destination", 64, lambda value: engine.memcpy(value, b"abc")),
        ("source", 64, lambda value: engine.memcpy(bytearray(3), value)),
        ("length", 64, lambda value: engine.memcpy(a, a, value)),
        ("address", 64, lambda value: engine.register((value, 64))),
        ("length", 64, lambda value: engine.register((a, value))),
        ("access", 32, lambda value: engine.register((a, 64), access=value)),
        ("gpus[1]", 32, lambda value: Engine(gpus=[0, value])),
        ("backend", 32, Engine),
        ("backend", 32, nvlxfer.gpu_count),
        ("max_requests", 32, lambda value: Engine(max_requests=value)),
        ("list_memory", 64, lambda value: Engine(list_memory=value)),
        ("users[0]", 32, lambda value: engine.serve("@words", [value])),
        ("groups[0]", 32, lambda value: engine.serve("@words", groups=[value])),
        ("mode", 32, lambda value: engine.serve("@words", mode=value)),
        ("local", 64, lambda value: read(peer, value, a, 8)),
        ("remote", 64, lambda value: read(peer, a, value, 8)),
        ("length", 64, lambda value: read(peer, a, a, value)),
        ("mechanism", 32, lambda value: engine.transfer([], mechanism=value)),
        ("max_sms", 32, lambda value: engine.prepare([], max_sms=value)),
        ("priority", 32, lambda value: engine.transfer([], priority=value)),
        ("stream", 64, lambda value: engine.transfer([], stream=value)),
    ]
    for argument, bits, call in wide:
        for value in (1 << bits, (1 << 64) + a, 1 << 200, -(1 << 200), Index(1 << bits)):
            refuses(InvalidArgument, argument, call, value)
        for value in (True, False, 1.0, math.nan, 1j, "1", "x" * 10_000):
            refuses(InvalidType, argument, call, value)
        if argument not in ("priority", "gpu", "gpus[1]"):
            refuses(InvalidArgument, argument, call, -1)
    for call in (wide[0][2], wide[5][2], wide[14][2]):
        refuses(InvalidArgument, "-1", call, -1)
    assert engine.info().regions == 1
    other = engine.alloc(Index(1), Index(64), Index(0), Index(0))
    engine.memcpy(Index(other), b"as NumPy's", Index(10))
    with engine.register((Index(other), Index(64)), access=Index(Access.NONE)):
        engine.transfer(read(peer, Index(other), Index(a), Index(8)), priority=Index(-1)).wait()
    engine.free(Index(other))
    engine.close()


def test_types():
    engine, a, peer = itself(4096)
    for argument, call, right in (
        ("name", lambda value: engine.register((a, 8), value), "str"),
        ("name", peer.find, "str"),
        ("text", engine.peer_open, "str"),
        ("text", peer.update, "str"),
        ("address", engine.serve, "str"),
        ("address", engine.connect, "str"),
        ("peer", lambda value: read(value, a, a, 8), "Peer"),
        ("ops", engine.transfer, "read and write"),
        ("ops", engine.prepare, "read and write"),
        ("gpus", lambda value: Engine(gpus=value), "sequence"),
        ("users", lambda value: engine.serve("@words", value), "sequence"),
        ("destination", lambda value: engine.memcpy(value, b"1"), "buffer"),
        ("source", lambda value: engine.memcpy(a, value), "buffer"),
        ("local", lambda value: read(peer, value, a, 8), "buffer"),
        ("function", lambda value: nvlxfer.set_log(1, value), "function"),
    ):
        values = (object(), 1.5) + (() if right in ("buffer",) else (5,))
        for value in values:
            refuses(InvalidType, argument, call, value)
            refuses(InvalidType, right, call, value)
    tensors = {"t": (a, 8)}
    for argument, call in (
        ("peers", lambda value: nvlxfer.pull(value)),
        ("peers[0]", lambda value: nvlxfer.pull([value])),
        ("peers[1]", lambda value: nvlxfer.pull([peer, value])),
        ("tensors", lambda value: nvlxfer.pull(peer, [value])),
        ("tensors", lambda value: nvlxfer.publish(value, engine)),
        ("engine", lambda value: nvlxfer.publish(tensors, value)),
        ("name", lambda value: nvlxfer.publish({}, engine, value)),
        ("name", lambda value: nvlxfer.pull(peer, name=value)),
        ("names", peer.find_all),
        ("names[0]", lambda value: peer.find_all([value])),
        ("peer", engine.stats),
        ("peer", lambda value: nvlxfer.signal(value, a, 1)),
        ("peer", lambda value: nvlxfer.wait_ready(value, a, 1)),
        ("peer", lambda value: engine.stream_signal(1, value, a, 1)),
        ("peer", lambda value: engine.stream_wait(1, value, a, 1)),
        ("peer", lambda value: engine.signal_wait(a, 1, value, timeout=0)),
        ("peer", lambda value: engine.blocks(value, [], [])),
        ("local", lambda value: engine.blocks(peer, value, [])),
        ("remote[0]", lambda value: engine.blocks(peer, [], [value])),
        ("regions", engine.suspend),
        ("regions[0]", lambda value: engine.suspend([value])),
        ("regions", engine.resume),
        ("addresses", lambda value: engine.resume([], value)),
        ("addresses[0]", lambda value: engine.resume([engine.register((a, 8))], [value])),
        ("tensors", lambda value: engine.offer("@words", value)),
        ("tensors", lambda value: engine.join("@words", value)),
        ("a tensor's name", lambda value: engine.offer("@words", {value: (a, 8)})),
        ("content", engine.empty(8).fill),
        ("message", peer.send),
        ("message", lambda value: engine.transfer([], message=value)),
        ("memory", engine.digest),
        ("backend", nvlxfer.gpu_count),
        ("backend", nvlxfer.Engine),
        ("level", nvlxfer.reset_log),
    ):
        texts = () if argument in ("name", "a tensor's name", "names[0]") else ("@words",)
        for value in (object(), 1.5, *texts):
            refuses(InvalidType, f"{argument} is ", call, value)
    with nvlxfer.publish({}, engine, "words") as published:
        refuses(InvalidType, "timeout", published.close, "1")
        assert not published._regions[0].closed
    refuses(InvalidType, "ops[1]", engine.transfer, [read(peer, a, a, 8), 7])
    refuses(InvalidType, "remote", read, peer, a, [1, 2, 3], 8)
    for memory in (None, 5, "x", b"x", [a, 4], object()):
        refuses(InvalidType, "memory", engine.register, memory)
    for stream in (object(), [], type("Stream", (), {"cuda_stream": "x"})(), type("Stream", (), {"ptr": None})()):
        refuses(InvalidType, "stream", engine.transfer, read(peer, a, a, 8), stream)
    refuses(InvalidArgument, "UTF-8", peer.find, "\udc80")
    refuses(InvalidArgument, "pair", engine.register, (a,))
    refuses(InvalidArgument, "level 4", nvlxfer.set_log, 4)
    refuses(InvalidArgument, "needs a length", engine.memcpy, a, a)
    refuses(InvalidArgument, "source is not contiguous", engine.memcpy, a, memoryview(b"12345678")[::2])
    refuses(InvalidArgument, "destination is read-only", engine.memcpy, b"12", a)
    for words in (memoryview(b"12345678").cast("d"), array.array("I", [1]), memoryview(b"12345678").cast("Q", (1, 1))):
        refuses(InvalidArgument, "local", read, peer, words, a, 8)
    tensor = type("Tensor", (), {"__cuda_array_interface__": dict(typestr="<f4", shape=(2,), data=(-a, False))})()
    refuses(InvalidArgument, "the address", engine.register, tensor)
    other = Engine(Backend.HOST)
    ops = read(peer, a, a + 64, 8)
    for _ in range(2):
        engine.transfer(ops).close()
        refuses(InvalidArgument, "another Engine", other.transfer, ops)
    for keyword in ("mechanism", "max_sms", "priority", "generation"):
        refuses(InvalidType, f"{keyword} is False, of type bool", engine.transfer, ops, **{keyword: False})
    for misspelt, call in (
        ("max_sm", engine.transfer),
        ("size", Engine),
        ("gpu_count", Engine),
        ("flags", engine.prepare),
    ):
        try:
            call(*[[]] * (call is not Engine), **{misspelt: 3})
            raise AssertionError(f"{misspelt} was taken")
        except TypeError as error:
            assert misspelt in str(error)
    engine.memcpy(a, b"")
    engine.memcpy(bytearray(), a)
    other.close()
    engine.close()


def test_hints():
    """What to give instead is told in Python's words."""
    engine, a, peer = itself(4096)
    for right, call in (
        ("a Backend, such as nvlxfer.Backend.HOST", Engine),
        ("a Backend, such as nvlxfer.Backend.HOST", nvlxfer.gpu_count),
        ("an Access, such as nvlxfer.Access.READ", lambda value: engine.register((a, 8), access=value)),
        ("an Alloc, such as nvlxfer.Alloc.VMM", lambda value: engine.empty(8, kind=value)),
        ("a Mechanism, such as nvlxfer.Mechanism.KERNEL", lambda value: engine.transfer([], mechanism=value)),
        ("a LogLevel, such as nvlxfer.LogLevel.INFO", nvlxfer.reset_log),
    ):
        refuses(InvalidType, f"is 'host', of type str: give {right}", call, "host")
    made = engine.empty(8)
    refuses(InvalidType, "of type Array: give an integer", read, peer, made, a, 8)
    for each in (made, type("Tensor", (), {"data_ptr": None, "__index__": lambda self: int("x" and {})})()):
        refuses(InvalidType, "The address of this one is its data_ptr()", read, peer, each, a, 8)
    engine.close()


def test_busy():
    """What Python's users have instead of a prepared list, wherever it is in the way."""
    engine, a, peer = itself(4096)
    prepared, region = engine.prepare(read(peer, a, a + 64, 8)), engine.register((a, 4096))
    for call in (peer.close, region.close, lambda: engine.free(a)):
        raises(nvlxfer.Busy, "NVLX_EBUSY", "In Python that is a Pull, Prepared or Blocks: close it before", call)
    prepared.close()
    peer.close()
    region.close()
    engine.close()


def test_times():
    engine, a, peer = itself(4096)
    calls = [lambda value: engine.connect("@nobody-serves-here", value), engine.register((a, 8)).close]
    calls.append(engine.transfer(read(peer, a, a, 8)).wait)
    for call in calls:
        for value in (-1, -1e-9, math.nan, -math.inf, -(10**400)):
            refuses(InvalidArgument, "timeout", call, value)
        for value in ("1", b"1", [], True, 1j, object()):
            refuses(InvalidType, "timeout", call, value)
    assert [nvlxfer._c.arguments._seconds(value) for value in (None, 0, Index(2), 10**400)] == [math.inf, 0, 2, math.inf]
    for value in (sys.maxsize, 2**64 / 1e9, 1e300, 1e12, math.inf, None, 10**400):
        slices = nvlxfer._c.arguments._slices(value, 1, 1e9)
        assert [next(slices) for _ in range(3)] == [10**9, 2 * 10**9, 4 * 10**9]
        engine.transfer(read(peer, a, a, 8)).wait(value)
        engine.register((a, 8)).close(value)
    address = f"@nvlxfer-test-words-{id(engine)}-{time.time_ns()}"
    late = Engine(Backend.HOST)
    threading.Timer(0.5, late.serve, [address]).start()
    engine.connect(address, sys.maxsize).close()
    since = time.monotonic()
    try:
        engine.connect("@nobody-serves-here", 0.3)
        raise AssertionError("connected")
    except nvlxfer.Timeout:
        assert 0.3 <= time.monotonic() - since < 5
    engine.close()
    late.close()


def test_classes():
    """Each code has one, which is public and tells what to do; the README's table has all of them."""
    errors = nvlxfer.errors
    assert len(errors._CLASSES) == len(errors._NAMES)
    for number, name in enumerate(errors._NAMES[1:], 1):
        failure = errors._error(-number, "so")
        kind = type(failure)
        assert kind is not nvlxfer.NvlxError and getattr(nvlxfer, kind.__name__) is kind, failure
        assert kind.__name__ in nvlxfer.__all__ and (failure.name, failure.code) == (f"NVLX_{name}", -number)
        assert kind.__doc__.startswith(f"NVLX_{name}. "), kind
        assert pickle.loads(pickle.dumps(failure)).code == -number
    assert InvalidType.__doc__.startswith("NVLX_EINVAL. ")
    assert type(errors._error(-99, "so")) is nvlxfer.NvlxError
    told = []
    thread = threading.Thread(target=lambda: told.append(nvlxfer._c.native._last_error(-7)))  # without a last error
    thread.start()
    thread.join()
    assert str(told[0]).count("NVLX_EBUSY") == 1, told
    header, package = (Path(os.environ["NVLX_TEST_ROOT"]) / f for f in ("include/nvlxfer.h", "src/bindings/python/README.md"))
    codes = re.findall(r"    X\((E[A-Z]+), -(\d+),", header.read_text())
    assert [name for name, _ in codes] == list(errors._NAMES[1:])
    told = re.findall(r"^\| `NVLX_(E[A-Z]+)` \| `(\w+)` \|", package.read_text(), re.M)
    assert told == [(name, errors._CLASSES[number].__name__) for number, name in enumerate(errors._NAMES[1:], 1)], told


def test_help():
    """It says what this package says, and where to go on: with all of int in each enumeration it was twice as long."""
    assert len(pydoc.plain(pydoc.render_doc(nvlxfer)).splitlines()) < 3600
    named = re.findall(r"help\(nvlxfer\.(\w+)\)", nvlxfer.__doc__)
    assert len(named) > 5 and set(named) <= set(nvlxfer.__all__), named
    for name in nvlxfer.__all__:
        each = getattr(nvlxfer, name)
        if isinstance(each, type):
            assert each.__doc__, name
            if issubclass(each, (int, nvlxfer.NvlxError)):
                assert len(pydoc.plain(pydoc.render_doc(each)).splitlines()) < 60, name
    assert {"CUDA", "HOST"} <= set(dir(nvlxfer.Backend)) and "code" in dir(nvlxfer.Busy(-7, ""))


def test_copies():
    engine, a, peer = itself(4096)
    ops = read(peer, a, a, 8)
    request, prepared, region = engine.transfer(ops), engine.prepare(ops), engine.register((a, 8))
    for each, hint in ((engine, "export"), (region, "Peer.find"), (peer, "descriptor"), (request, "Wait"),
                       (prepared, "Prepare")):  # fmt: skip
        for take in (copy.copy, copy.deepcopy, pickle.dumps):
            try:
                take(each)
                raise AssertionError(f"{take} took {each}")
            except TypeError as error:
                assert hint in str(error) and type(each).__name__ in str(error)
    failures = [error(-1, "so") for error in (nvlxfer.NvlxError, nvlxfer.Stale, InvalidType)]
    for failure in failures:
        for again in (pickle.loads(pickle.dumps(failure)), copy.copy(failure)):
            assert (type(again), again.code, str(again)) == (type(failure), failure.code, str(failure))
    assert pickle.loads(pickle.dumps(engine.info())) == engine.info()
    engine.memcpy(a, b"12345678")
    assert content(engine, a, 8) == b"12345678"
    engine.close()


run_tests([test_memory, test_introduction_of_many_ops, test_repr, test_integers, test_types, test_hints, test_busy, test_times, test_classes, test_help, test_copies])
