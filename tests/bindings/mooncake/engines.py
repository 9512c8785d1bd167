# SPDX-License-Identifier: Apache-2.0
"""Engines' own code that calls Mooncake, from their wheels, over nvlxfer.mooncake in its place, between two processes.

    engines.py FOLDER...    each: where a wheel of sglang (0.5.23), vllm (0.33.0) or checkpoint-engine (0.4.2) lies

Their code runs as it is. What it needs of PyTorch stands here, over memory of the backend host: tensors that lie in
segments as a caching allocator has them. With NVLX_BACKEND=cuda the tensors are PyTorch's own, on one GPU or two.
SGLang's runtime context and its HTTP route are stand-ins, and what cannot be imported without a GPU gives single
methods. checkpoint-engine's pool is pinned host memory in its own program, and here not. It is no part of the suite: it
needs the wheels, requests, pyzmq, psutil, and PyTorch on cuda.
"""

import ast
import http.server
import importlib.machinery
import importlib.util
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
import types
import urllib.parse
from pathlib import Path

from support import memory

import nvlxfer.mooncake

nvlxfer.mooncake.install()
SEGMENT = 1 << 17
SHAPES = {"embed": 50_000, "norm.0": 64, "qkv.0": 30_000, "norm.1": 64, "qkv.1": 30_001, "bias": 3, "head": 50_000}


def module(name, **names):
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    made.__dict__.update(names)
    sys.modules[name] = made
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], last, made)
    return made


def package(name, folder):
    """Of a wheel, without what its __init__ imports."""
    module(name).__path__ = [str(folder)]


def one_of(path, place, **names):
    """A function, or a class's method, of a file that cannot be imported here."""
    found = ast.parse(path.read_text())
    *_, name = path_of = place.split(".")
    for step in path_of:
        found = next(each for each in ast.walk(found) if getattr(each, "name", None) == step)
    future = ast.ImportFrom("__future__", [ast.alias("annotations")], 0)
    code = compile(ast.fix_missing_locations(ast.Module([future, found], [])), str(path), "exec")
    exec(code, names)
    return names[name]


class Tensor:
    def __init__(self, address, count, size):
        self.address, self.count, self.size, self.nbytes = address, count, size, count * size
        self.shape, self.dtype = (count,), "bfloat16"

    def data_ptr(self):
        return self.address

    def numel(self):
        return self.count

    def element_size(self):
        return self.size


def fill(tensor, seed):
    data = bytearray(random.Random(seed).randbytes(tensor.nbytes))
    if isinstance(tensor, Tensor):
        memory.memcpy(tensor.address, data)
    else:
        torch = sys.modules["torch"]
        tensor.view(torch.uint8).copy_(torch.frombuffer(data, dtype=torch.uint8))
        torch.cuda.synchronize()


def content(tensor):
    if not isinstance(tensor, Tensor):
        return tensor.view(sys.modules["torch"].uint8).cpu().numpy().tobytes()
    seen = bytearray(tensor.nbytes)
    memory.memcpy(seen, tensor.address)
    return bytes(seen)


class Allocator:
    """Blocks of 512 bytes and more, one behind the other in segments, with holes."""

    def __init__(self, kind, gpu):
        self.kind, self.gpu, self.segments, self.used = kind, gpu, [], SEGMENT

    def tensor(self, count, size=2):
        room = -(-count * size // 512) * 512
        if self.used + room > SEGMENT:
            self.segments.append({"address": memory.alloc(self.gpu, max(room, SEGMENT), self.kind), "blocks": []})
            self.used = 0
        segment = self.segments[-1]
        address = segment["address"] + self.used
        segment["blocks"].append({"address": address, "size": room, "state": "active_allocated"})
        segment["blocks"].append({"address": address + room, "size": 512, "state": "inactive"})
        self.used += room + 512 * (len(segment["blocks"]) % 4 == 0)
        return Tensor(address, count, size)


class OnGpu:
    """The same by PyTorch."""

    def __init__(self, kind, gpu):
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = f"expandable_segments:{kind is nvlxfer.Alloc.VMM}"
        self.torch = importlib.import_module("torch")
        self.torch.cuda.set_device(gpu % self.torch.cuda.device_count())

    @property
    def segments(self):
        return self.torch.cuda.memory.memory_snapshot()

    def tensor(self, count):
        return self.torch.empty(count, dtype=self.torch.bfloat16, device="cuda")


class Model:
    def __init__(self, allocator):
        self.tensors = {name: allocator.tensor(count) for name, count in SHAPES.items()}

    def named_parameters(self):
        return self.tensors.items()


def allocator_of(kind, gpu):
    """And what is `torch` from now on."""
    if os.environ.get("NVLX_BACKEND") == "cuda":
        return OnGpu(kind, gpu)
    allocator = Allocator(kind, gpu)
    module("torch", Tensor=Tensor)
    module("torch.nn", Module=object)
    module("torch.cuda")
    module("torch.cuda.memory", memory_snapshot=lambda: allocator.segments)
    return allocator


# ---- SGLang


class Info(http.server.BaseHTTPRequestHandler):
    """Where a seed tells, and others ask, what it has: SGLang's bootstrap server and its HTTP route, in one."""

    def do_PUT(self):
        self.server.told.update(
            json.loads(self.rfile.read(int(self.headers["Content-Length"])))["transfer_engine_info"]
        )
        self.answer({})

    def do_GET(self):
        assert urllib.parse.urlsplit(self.path).path == "/get_remote_instance_transfer_engine_info", self.path
        told = self.server.told
        self.answer({"remote_instance_transfer_engine_info": [told["session_id"], told["weights_info_dict"]]})

    def answer(self, what):
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def sglang_in(folder, port):
    srt = folder / "sglang" / "srt"
    for name in ("", ".srt", ".srt.utils", ".srt.model_loader", ".srt.distributed",
                 ".srt.distributed.device_communicators", ".srt.model_executor",
                 ".srt.model_executor.model_runner_components"):  # fmt: skip
        package("sglang" + name, srt.parent / name[1:].replace(".", "/"))
    bag = types.SimpleNamespace(tp_rank=0, dist_init_addr=None, engine_info_bootstrap_port=port,
                                remote_instance_weight_loader_backend="transfer_engine")  # fmt: skip
    getters = ("get_model", "get_parallel", "get_disagg", "get_exec", "get_memory")
    module("sglang.srt.runtime_context", **{name: lambda: bag for name in getters},
           remote_instance_transfer_engine_enabled=lambda: True)  # fmt: skip
    deadline = one_of(srt / "utils/common.py", "run_with_deadline", threading=threading)
    module("sglang.srt.utils.common", run_with_deadline=deadline)
    from sglang.srt.distributed.device_communicators.mooncake_transfer_engine import init_mooncake_transfer_engine
    from sglang.srt.model_executor.model_runner_components import remote_instance_weight_transporter as weights
    from sglang.srt.model_loader import remote_instance_weight_loader_utils as utils

    load = one_of(srt / "model_loader/loader.py", "load_model_from_remote_instance_by_transfer_engine",
                  logger=logging.getLogger("loader"), post_load_weights=lambda model: None,
                  get_remote_instance_transfer_engine_info_per_rank=utils.get_remote_instance_transfer_engine_info_per_rank,
                  )  # fmt: skip
    return weights.RemoteInstanceWeightTransporter, utils, load, init_mooncake_transfer_engine


def sglang_seed(folder, kind):
    """The instance that has the weights; its KV side too."""
    allocator = allocator_of(kind, 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Info)
    server.told = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Transporter, _, _, init = sglang_in(folder, server.server_port)
    model = Model(allocator)
    for seed, tensor in enumerate(model.tensors.values()):
        fill(tensor, seed)
    transporter = Transporter(get_model=lambda: model, gpu_id=0)
    transporter.init_engine()
    transporter.maybe_register_and_publish_weight_info()
    engine, cache = init("127.0.0.1", 0, "mlx5_0"), allocator.tensor(4096)
    assert engine.batch_register([cache.data_ptr()], [cache.nbytes]) == 0
    print(json.dumps([server.server_port, engine.get_session_id(), cache.data_ptr(), cache.nbytes]), flush=True)
    for line in sys.stdin:
        print(json.dumps(content(cache).hex() if line.strip() == "cache" else eval(line)), flush=True)


def sglang(folder, kind, other):
    port, session, there, length = other()
    allocator = allocator_of(kind, 1)
    Transporter, utils, load, init = sglang_in(folder, port)
    model = Model(allocator)
    transporter = Transporter(get_model=lambda: model, gpu_id=0)
    transporter.init_engine()
    for register in (utils.register_memory_region, None):  # the second load finds all registered
        for tensor in model.tensors.values():
            fill(tensor, "other")
        if register:
            register(model, transporter.engine)
        assert load(None, model, transporter.engine, f"http://127.0.0.1:{port}", 0) is True
        for seed, (name, tensor) in enumerate(model.named_parameters()):
            assert content(tensor) == random.Random(seed).randbytes(tensor.nbytes), name
    print(f"ok: sglang, weights of a remote instance: {len(SHAPES)} tensors in {len(allocator.segments)} segments")

    engine, page = init("127.0.0.1", 0, None), allocator.tensor(2048)
    fill(page, "page")
    engine.register(page.data_ptr(), page.nbytes)
    assert engine.send_probe(session) == 0 and engine.send_probe("127.0.0.1:1") != 0
    half = page.nbytes // 2
    lists = [page.data_ptr() + half, page.data_ptr()], [there, there + half], [half, half]
    assert engine.batch_transfer_sync(session, *lists) == 0
    assert bytes.fromhex(other("cache"))[: page.nbytes] == content(page)[half:] + content(page)[:half]
    assert engine.transfer_sync(session, page.data_ptr(), there, 100) == 0
    assert bytes.fromhex(other("cache"))[:100] == content(page)[:100]
    assert engine.transfer_sync(session, page.data_ptr(), there + length, 100) < 0
    assert engine.batch_register([page.data_ptr()], [8]) != 0
    engine.deregister(page.data_ptr())
    assert engine.batch_deregister([page.data_ptr()]) != 0
    print("ok: sglang, MooncakeTransferEngine")


# ---- checkpoint-engine


def checkpoint_in(folder):
    os.environ["RANK"] = "0"
    quiet = types.SimpleNamespace(info=lambda text: None, warning=lambda text: None)
    module("loguru", logger=quiet)
    package("checkpoint_engine", folder / "checkpoint_engine")
    module("checkpoint_engine.device_utils", DeviceManager=object, get_ip=lambda: "127.0.0.1")
    from checkpoint_engine.p2p_store import P2PStore

    gpus = types.SimpleNamespace(device_count=lambda: 1, synchronize=lambda: None)
    manager = types.SimpleNamespace(
        device_module=gpus, rdma_device=lambda rank: "mlx5_0", transfer_engine_protocol="rdma"
    )
    return P2PStore(manager), manager


def checkpoint_seed(folder, kind):
    allocator = allocator_of(kind, 0)
    store, _ = checkpoint_in(folder)
    pool = {f"memory_pool_{i}": allocator.tensor(count) for i, count in enumerate(SHAPES.values())}
    for seed, tensor in enumerate(pool.values()):
        fill(tensor, seed)
    store.register_named_tensors(pool)
    print(json.dumps([store.addr, [[each.data_ptr(), each.nbytes] for each in pool.values()]]), flush=True)
    for line in sys.stdin:
        print(json.dumps(store.unregister_named_tensors(json.loads(line))), flush=True)


def checkpoint(folder, kind, other):
    address, pool = other()
    allocator = allocator_of(kind, 1)
    store, manager = checkpoint_in(folder)
    copy = one_of(folder / "checkpoint_engine/ps.py", "_copy_to_buffer")
    metas = types.SimpleNamespace(
        p2p_store_addr=address,
        memory_buffer_metas_list=[types.SimpleNamespace(ptr=ptr, size=size) for ptr, size in pool],
    )
    this = types.SimpleNamespace(_p2p_store=store, device_manager=manager, _current_global_parameter_metas={1: metas})
    find = one_of(folder / "checkpoint_engine/ps.py", "_get_addr_ptrs")
    this._get_addr_ptrs = lambda owner: find(this, owner)
    halves = [
        (i, part * size // 2, size - size // 2 if part else size // 2)
        for i, (_, size) in enumerate(pool)
        for part in (0, 1)
    ]
    ranges = [types.SimpleNamespace(idx=idx, offset=offset, size=size) for idx, offset, size in halves]
    total = sum(each.size for each in ranges)
    buffer = allocator.tensor(total // 2)
    store.register_named_tensors({"__ipc_buffer__": buffer})
    copy(this, "", types.SimpleNamespace(ranges=ranges, size=total), buffer, 1)
    assert content(buffer) == b"".join(random.Random(seed).randbytes(size) for seed, (_, size) in enumerate(pool))
    assert other(json.dumps(["memory_pool_2"])) == 1
    for i, (start, size) in enumerate(pool):
        try:
            store.batch_transfer_sync_read(address, [buffer.data_ptr()], [start], [size])
            assert i != 2
        except AssertionError:
            assert i == 2
    assert store.unregister_named_tensors(["__ipc_buffer__"]) == 1
    print(
        f"ok: checkpoint-engine, P2PStore: a bucket of {len(ranges)} ranges, {total} bytes; 1 of {len(pool)} withdrawn"
    )


# ---- vLLM


def vllm_in(folder):
    ec = folder / "vllm/distributed/ec_transfer/ec_connector/mooncake"
    package("vllm", folder / "vllm")
    module("vllm.logger", init_logger=logging.getLogger)
    package("vllm_ec", ec)  # its own package imports all connectors
    from vllm_ec.transfer import MooncakeTransfer

    names = "_send_blocks", "unregister_kv_caches", "restore_kv_caches"
    path = folder / "vllm/distributed/kv_transfer/kv_connector/v1/mooncake/mooncake_connector.py"
    methods = {
        name: one_of(path, f"MooncakeConnectorWorker.{name}", time=time, logger=logging.getLogger("vllm"))
        for name in names
    }
    return MooncakeTransfer("127.0.0.1", "rdma"), type("Worker", (), methods)


def vllm_seed(folder, kind):
    """The consumer: an encoder cache, and a KV cache that others fill."""
    allocator = allocator_of(kind, 0)
    transfer, Worker = vllm_in(folder)
    cache, layers = allocator.tensor(8192), [allocator.tensor(4096) for _ in range(3)]
    assert transfer.register_memory(cache) == 0
    worker = Worker()
    worker.engine, worker._kv_unregistered = transfer._ensure_engine(), True
    worker.seen_base_addresses, worker._kv_data_lens = [each.data_ptr() for each in layers], [8192] * 3
    worker.restore_kv_caches()
    print(json.dumps([transfer.local_session(), cache.data_ptr(), worker.seen_base_addresses]), flush=True)
    for line in sys.stdin:
        if line.strip() in ("unregister_kv_caches", "restore_kv_caches"):
            getattr(worker, line.strip())()
        print(json.dumps([content(each).hex() for each in (cache, *layers)]), flush=True)
    assert transfer.unregister_memory(cache)


def vllm(folder, kind, other):
    session, cache, layers = other()
    allocator = allocator_of(kind, 1)
    transfer, Worker = vllm_in(folder)
    parts = [allocator.tensor(count) for count in (100, 2000, 5)]
    for seed, part in enumerate(parts):
        fill(part, seed)
    sources = transfer.acquire_sources([*parts, parts[0]])
    lengths = [part.nbytes for part in parts]
    offsets = [sum(lengths[:place]) for place in range(3)]
    transfer.write(session, sources, [cache + offset for offset in offsets], lengths)
    assert bytes.fromhex(other("")[0])[: sum(lengths)] == b"".join(content(part) for part in parts)
    try:
        transfer.write(session, sources, [cache, cache, 4096], lengths)
        raise AssertionError("a batch with a wrong address was written")
    except RuntimeError as error:
        assert "status -1" in str(error)
    assert transfer.release_sources(sources)
    print("ok: vllm, MooncakeTransfer of its encoder cache")

    blocks = [allocator.tensor(4096) for _ in layers]
    worker, done = Worker(), []
    worker.engine, worker._kv_unregistered = transfer._ensure_engine(), True
    worker.seen_base_addresses, worker._kv_data_lens = [each.data_ptr() for each in blocks], [8192] * 3
    worker.xfer_stats = types.SimpleNamespace(
        record_transfer=lambda **what: done.append(what["num_descs"]), record_failed_transfer=lambda: done.append(-1)
    )
    worker.restore_kv_caches()
    ids = [(0, 5), (7, 1), (3, 3)]  # of blocks of 1 KiB, here and there
    lists = [[], [], []]
    for here, there in zip(worker.seen_base_addresses, layers):
        for local, remote in ids:
            for column, value in zip(lists, (here + 1024 * local, there + 1024 * remote, 1024)):
                column.append(value)
    for seed in range(2):
        for block in blocks:
            fill(block, seed)
        assert worker._send_blocks(session, *lists) == 0
        for layer, block in zip(other("")[1:], blocks):
            for local, remote in ids:
                there = bytes.fromhex(layer)[1024 * remote :][:1024]
                assert there == content(block)[1024 * local :][:1024]
        other("unregister_kv_caches")  # as around sleep
        assert worker._send_blocks(session, *lists) == -1
        other("restore_kv_caches")
    worker.unregister_kv_caches()
    assert worker._send_blocks(session, *lists) == -1 and done == [9, -1, 9, -1, -1]
    print("ok: vllm, MooncakeConnector's sending of blocks, and its KV caches around sleep")


ENGINES = {
    "vllm": (vllm_seed, vllm),
    "sglang": (sglang_seed, sglang),
    "checkpoint_engine": (checkpoint_seed, checkpoint),
}


def run(folder, name, kind):
    command = [sys.executable, __file__, "--seed", str(folder), name, str(int(kind))]
    seed = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def other(line=None):
        if line is not None:
            print(line, file=seed.stdin, flush=True)
        return json.loads(seed.stdout.readline())

    try:
        ENGINES[name][1](folder, kind, other)
        seed.stdin.close()
        assert seed.wait(30) == 0
    finally:
        seed.kill()


if sys.argv[1:2] == ["--seed"]:
    ENGINES[sys.argv[3]][0](Path(sys.argv[2]), nvlxfer.Alloc(int(sys.argv[4])))
elif sys.argv[1:2] == ["--one"]:
    run(Path(sys.argv[2]), sys.argv[3], nvlxfer.Alloc(int(sys.argv[4])))
else:
    for folder in sys.argv[1:]:
        name = next(name for name in ENGINES if Path(folder, name).is_dir())
        for kind in (nvlxfer.Alloc.CUDA_MALLOC, nvlxfer.Alloc.VMM):  # PyTorch's default, and expandable segments
            print(f"{name}, {kind.name}:", flush=True)
            subprocess.run([sys.executable, __file__, "--one", folder, name, str(int(kind))], check=True, timeout=120)
