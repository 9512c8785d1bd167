#!/usr/bin/env bash
# The Python binding on the host backend, between real processes; and what of the PyTorch example needs no PyTorch.
# Usage: tests/test_python.sh ROOT LIBRARY
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$1
export NVLX_LIBRARY=$2 NVLX_BACKEND=host NVLX_HOST_GPUS=2
export PYTHONPATH=$root/examples/python PYTHONDONTWRITEBYTECODE=1
if ! python3 -c 'import ctypes, sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "SKIP: there is no python3 of 3.9 or newer with ctypes"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- Structs, codes and constants are those of the header ------------------------------------------------------------

cat >"$work/layout.py" <<'EOPY'
import ctypes
import sys
import nvlxfer as n

path = sys.argv[1]
header = open(path).read()
structs = {
    "nvlx_config": n._Config, "nvlx_alloc_options": n._AllocOptions, "nvlx_region_options": n._RegionOptions,
    "nvlx_transfer_options": n._TransferOptions, "nvlx_serve_options": n._ServeOptions,
    "nvlx_request_info": n._RequestInfo, "nvlx_engine_info": n._EngineInfo, "nvlx_op": n._Op,
}
constants = {f"NVLX_{name}": -index for index, name in enumerate(n._NAMES) if name}
constants.update({f"NVLX_BACKEND_{value.name}": value for value in n.Backend})
constants.update({f"NVLX_MECHANISM_{value.name}": value for value in n.Mechanism})
constants.update({f"NVLX_ACCESS_{value.name}": value for value in n.Access})
constants.update(NVLX_ALLOC_VMM=n.Alloc.VMM, NVLX_ALLOC_POOL=n.Alloc.POOL, NVLX_NO_MAP=n._NO_MAP)
constants.update(NVLX_OP_READ=n._READ, NVLX_OP_WRITE=n._WRITE)
constants.update({"(uintptr_t)NVLX_STREAM_LEGACY": n.STREAM_LEGACY})
constants.update({"(uintptr_t)NVLX_STREAM_PER_THREAD": n.STREAM_PER_THREAD})
equal = {name: int(value) for name, value in constants.items()}
for name, struct in structs.items():
    if f"struct {name} {{" not in header:
        assert name == "nvlx_serve_options", name
        continue
    for field, *_ in struct._fields_:
        place = getattr(struct, field)
        equal[f"offsetof(struct {name}, {field})"] = place.offset
        equal[f"sizeof ((struct {name} *)0)->{field}"] = place.size
    equal[f"sizeof(struct {name})"] = ctypes.sizeof(struct)
print(f'#include "{path}"\n#include <stdio.h>\nint main(void) {{\nint wrong = 0;')
for what, value in equal.items():
    print(f'if ((long long)({what}) != {value}) wrong = 1, printf("%s is not {value}\\n", "{what}");')
print("int codes = 0;\n#define COUNT(name, value, text) codes++;\nNVLX_ERRORS(COUNT)")
print(f'if (codes != {len(n._NAMES) - 1}) wrong = 1, printf("there are %d codes\\n", codes);')
print(f'return wrong || printf("{len(equal)} layouts and constants are those of nvlxfer.h\\n") < 0;\n}}')
EOPY
python3 "$work/layout.py" "$root/include/nvlxfer.h" >"$work/layout.c"
"${CC:-cc}" -std=c11 -o "$work/layout" "$work/layout.c"
"$work/layout"

# ---- The binding -----------------------------------------------------------------------------------------------------

cat >"$work/seed.py" <<'EOPY'
"""Shares memory, then answers on stdout what stdin asks, and leaves with everything open."""
import array
import json
import sys
from nvlxfer import Access, Backend, Engine

count = 100_000
engine = Engine(Backend.HOST)
address = engine.alloc(0, 1 << 20)
engine.memcpy(address, bytes(i % 251 for i in range(1 << 20)))
engine.register((address, 1 << 20), "whole")
engine.register((address + 4096, 4096), "read only", Access.READ)
words = engine.alloc(1, 8 * count)
engine.memcpy(words, array.array("Q", range(count)))
engine.register((words, 8 * count), "words", Access.READ)
guarded = engine.alloc(0, 4096)
engine.register((guarded, 4096), "guarded", Access.READ)
if sys.argv[1]:
    engine.serve(sys.argv[1])
print(json.dumps(engine.export()), flush=True)
for line in sys.stdin:
    offset, length = map(int, line.split())
    seen = bytearray(length)
    engine.memcpy(seen, address + offset)
    print(seen.hex(), flush=True)
EOPY

cat >"$work/leave.py" <<'EOPY'
"""Leaves the interpreter with all kinds of objects open, one transfer in flight, some of it in a cycle."""
import atexit
import sys

# Registered before the binding's own, so called after it.
atexit.register(lambda: print([each.closed for each in (engine, region, peer, prepared)]))
from nvlxfer import Engine, read

engine = Engine()
length = 64 << 20
buffer = engine.alloc(0, 2 * length)
region = engine.register((buffer, 2 * length), "all")
peer = engine.peer_open(engine.export())
prepared = engine.prepare(read(peer, buffer, buffer + length, 8))
requests = [prepared.post(), engine.transfer(read(peer, buffer, buffer + length, length))]
requests.append(requests)
second = Engine()
second.cycle = [second, second.register((second.alloc(0, 4096), 4096))]
del second
sys.exit(3)
EOPY

cat >"$work/binding.py" <<'EOPY'
import array
import asyncio
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
import weakref
import nvlxfer
from nvlxfer import Access, Backend, Engine, read, write

work, has_serve = sys.argv[1], sys.argv[2] == "yes"
COUNT = 100_000


def raises(kind, code, text, function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except nvlxfer.NvlxError as error:
        assert type(error) is kind and error.name == code and text in str(error), repr(error)
        assert error.name in str(error) and error.code == -nvlxfer._NAMES.index(code[5:])
        return
    raise AssertionError(f"{code} was not raised")


def pattern(offset, length):
    return bytes(i % 251 for i in range(offset, offset + length))


def content(engine, address, length):
    seen = bytearray(length)
    engine.memcpy(seen, address)
    return bytes(seen)


class Seed:
    """The other process."""

    def __init__(self, address=""):
        command = [sys.executable, f"{work}/seed.py", address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.text = json.loads(self.process.stdout.readline())

    def memory(self, offset, length):
        print(offset, length, file=self.process.stdin, flush=True)
        return bytes.fromhex(self.process.stdout.readline())

    def leave(self):
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0


def test_two_processes():
    seed = Seed()
    with Engine(Backend.HOST, max_requests=64) as engine, engine.peer_open(seed.text) as peer:
        assert engine.backend == "host" and nvlxfer.version() and nvlxfer.gpu_count() >= 2
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
    raises(nvlxfer.NvlxError, "NVLX_EFORMAT", "", engine.peer_open, "{")
    raises(nvlxfer.NvlxError, "NVLX_EEXIST", "own", engine.register, (own, 8), "own")
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
    raises(*invalid, "a str has neither", engine.register, "a tensor")
    raises(*invalid, "not a CUDA stream", engine.transfer, read(peer, own, address, 8), stream="1")
    peer.close()
    region.close()
    peer.close()  # again: allowed
    raises(*invalid, "the Peer is closed", peer.find, "whole")
    engine.close()
    engine.close()
    raises(*invalid, "the Engine is closed", engine.export)
    if not has_serve:
        raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "nvlx_peer_test", getattr, nvlxfer._library(), "nvlx_peer_test")
    seed.leave()


def itself(length):
    """An engine that is its own peer."""
    engine = Engine()
    address = engine.alloc(0, length)
    engine.register((address, length), "all")
    return engine, address, engine.peer_open(engine.export())


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


def test_asyncio():
    engine, address, peer = itself(64 << 20)
    half = 32 << 20
    engine.memcpy(address + half, b"x" * half)

    async def one(index):
        length = half // 8
        request = engine.transfer(read(peer, address + index * length, address + half + index * length, length))
        await request
        assert request.test()

    async def all_of_them():
        await asyncio.gather(*(asyncio.wait_for(one(index), 30) for index in range(8)))

    asyncio.run(all_of_them())
    assert content(engine, address, half) == b"x" * half
    engine.close()


# ---- Tensors of others -----------------------------------------------------------------------------------------------


class ArrayInterface:
    def __init__(self, address, shape, strides=None, typestr="<f4"):
        self.__cuda_array_interface__ = dict(data=(address, False), shape=shape, strides=strides, typestr=typestr)


class Tensor:
    """A producer of DLPack capsules."""

    def __init__(self, address, shape, strides=None, offset=0, bits=32, device=2):
        self.given, self.device, self.released = (address, shape, strides, offset, bits), device, 0

    def __dlpack_device__(self):
        return self.device, 0

    def __dlpack__(self, *, stream=None):
        assert stream == -1
        address, shape, strides, offset, bits = self.given
        dims = ctypes.c_int64 * len(shape)
        self.kept = dims(*shape), dims(*strides) if strides else None
        self.deleter = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self.free)
        self.managed = nvlxfer._DLManagedTensor(address, self.device, 0, len(shape), 2, bits, 1, *self.kept, offset)
        self.managed.deleter = ctypes.cast(self.deleter, ctypes.c_void_p)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        self.capsule = make(ctypes.addressof(self.managed), b"dltensor", None)
        return self.capsule

    def free(self, managed):
        assert managed == ctypes.addressof(self.managed)
        self.released += 1


def test_tensors():
    engine = Engine()
    base = engine.alloc(0, 4096)
    invalid = nvlxfer.InvalidArgument, "NVLX_EINVAL"
    for kind in (ArrayInterface, Tensor):
        unit = 4 if kind is ArrayInterface else 1  # of strides
        for shape, strides, length in (
            ((6, 4), None, 96),
            ((6, 4), (4, 1), 96),
            ((6, 1, 4), (4, 999, 1), 96),
            ((), None, 4),
            ((3, 0), (7, 9), 0),
        ):
            given = strides and tuple(unit * stride for stride in strides)
            with engine.register(kind(base + 8, shape, given)) as region:
                assert (region.address, region.length) == (base + 8, length), (shape, strides, region.length)
        for shape, strides in (((4, 6), (1, 4)), ((6, 4), (8, 1)), ((8,), (2,))):
            tensor = kind(base, shape, tuple(unit * stride for stride in strides))
            raises(*invalid, "is not contiguous", engine.register, tensor)
            assert kind is ArrayInterface or tensor.released == 1

    tensor = Tensor(base, (5,), offset=12, bits=4)
    region = engine.register(tensor, "half bytes")
    assert (region.address, region.length, tensor.released) == (base + 12, 3, 0)
    assert "used_dltensor" in repr(tensor.capsule)
    region.close()
    assert tensor.released == 1
    refused = Tensor(base, (4096,))
    raises(nvlxfer.OutOfRange, "NVLX_ERANGE", "", engine.register, refused)
    assert refused.released == 1
    raises(nvlxfer.NotSupported, "NVLX_ENOTSUP", "(1, 0)", engine.register, Tensor(base, (1,), device=1))

    tensor, last = ArrayInterface(base, (4,)), Tensor(base, (4,))
    alive = weakref.ref(tensor)
    engine.register(tensor, "kept")  # by the engine, though the region was dropped
    region = engine.register(last)
    del tensor
    gc.collect()
    assert alive() and engine.peer_open(engine.export()).find("kept") == (base, 16)
    engine.close()
    gc.collect()
    assert not alive() and last.released == 1 and region.closed


# ---- Lifetimes -------------------------------------------------------------------------------------------------------


def test_dropped():
    engine, address, peer = itself(1 << 20)
    ops = read(peer, address, address + 4096, 4096)
    prepared = engine.prepare(ops)
    for start in (prepared.post, lambda: engine.transfer(ops)):
        for _ in range(100):
            start()
        assert engine._dropped
        deadline = time.monotonic() + 30
        while engine._dropped and time.monotonic() < deadline:
            start().close()  # any start frees what was dropped before
        assert not engine._dropped and engine.info().requests == 0
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
    itself(4096)  # dropped open
    gc.collect()
    assert not nvlxfer._open_engines


def test_fork():
    engine, address, peer = itself(4096)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        raises(nvlxfer.NvlxError, "NVLX_EFORK", "", engine.export)
        sys.exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    engine.export()
    engine.close()


def test_leaving():
    command = [sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", f"{work}/leave.py"]
    for _ in range(5):
        left = subprocess.run(command, capture_output=True, timeout=60)
        assert (left.returncode, left.stdout, left.stderr) == (3, b"[True, True, True, True]\n", b""), left


def test_rendezvous():
    address = f"@nvlxfer-test-python-{os.getpid()}"
    seed = Seed(address)
    with Engine() as engine, engine.connect(address, 30) as peer:
        peer.test()
        own = engine.alloc(0, 4096)
        engine.register((own, 4096), access=Access.NONE)
        engine.transfer(read(peer, own, peer.find("whole")[0] + 9, 4000)).wait(30)
        assert content(engine, own, 4000) == pattern(9, 4000)
    seed.leave()


tests = [test_two_processes, test_errors, test_timeout, test_flat_lists, test_asyncio, test_tensors, test_dropped]
tests += [test_fork, test_leaving] + ([test_rendezvous] if has_serve else [])
for test in tests:
    test()
    print(f"ok: {test.__name__}", flush=True)
EOPY
serve=no
if grep -q '^int nvlx_serve(' "$root/include/nvlxfer.h"; then
    serve=yes
fi
python3 -W error::ResourceWarning "$work/binding.py" "$work" "$serve"

# ---- What of the PyTorch example needs no PyTorch --------------------------------------------------------------------

cat >"$work/example.py" <<'EOPY'
import argparse
import os
import torch_two_gpu as example

for count, total in ((2000, 8 << 30), (10, 10**6), (1, 64), (7, 7 * (300 << 20)), (3, 192), (5000, 64 << 30)):
    sizes = example.tensor_sizes(count, total)
    assert sizes == example.tensor_sizes(count, total) and len(sizes) == count and sum(sizes) == total
    assert min(sizes) >= 64 and max(sizes) <= 300 << 20
sizes = example.tensor_sizes(2000, 8 << 30)
assert min(sizes) == 64 and max(sizes) == 300 << 20 and len(set(sizes)) > 1000
assert max(sizes) <= 8 * example.PAGE
for count, total in ((0, 0), (10, 639), (2, (600 << 20) + 1)):
    try:
        example.tensor_sizes(count, total)
    except ValueError:
        continue
    raise AssertionError((count, total))

assert [example.visible(gpu, None) for gpu in (0, 1)] == ["0", "1"]
assert [example.visible(gpu, "5,GPU-1234") for gpu in (0, 1)] == ["5", "GPU-1234"]
os.environ.update(CUDA_VISIBLE_DEVICES="3,6", PYTORCH_ALLOC_CONF="backend:native")
made = example.environment(1, argparse.Namespace(allocator="expandable", hide=True))
assert made["CUDA_VISIBLE_DEVICES"] == "6" and "PYTORCH_ALLOC_CONF" not in made
assert made["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
made = example.environment(1, argparse.Namespace(allocator="async", hide=False))
assert made["CUDA_VISIBLE_DEVICES"] == "3,6" and made["PYTORCH_CUDA_ALLOC_CONF"] == "backend:cudaMallocAsync"
assert example.table_row("second pull", 0.025, 10**10).split() == ["second", "pull", "25.0", "ms", "400.0", "GB/s"]
assert example.table_row("connect", 0.001).split() == ["connect", "1.0", "ms"]

here, there = os.pipe()
with open(here, "rb") as source:
    assert example.read_word(source, 0.01) == b""
    os.write(there, b"ready")
    assert example.read_word(source, 10) == b"ready"
    os.close(there)
    assert example.read_word(source, 10) == b""
EOPY
python3 "$work/example.py"
code=0
output=$(python3 "$root/examples/python/torch_two_gpu.py" --tensors 2 --bytes 1 2>&1) || code=$?
if [[ $code != 1 || $output != *"2 tensors of 64 to"* ]]; then
    echo "torch_two_gpu.py accepted 2 tensors of 1 byte: exit code $code, $output"
    exit 1
fi
echo "ok: torch_two_gpu.py, without PyTorch"
