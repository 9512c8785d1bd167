# SPDX-License-Identifier: Apache-2.0
"""SGLang's NixlKVManager, its senders, receivers and bootstrap server, as its schedulers drive them."""

import logging
import os
import random
import signal
import socket
import threading
import time
import types
from dataclasses import dataclass

from engine_parts import Logger, Memory, Process, Wheel, content, fill, free_port, until

LAYERS, HEADS, PAGE, WIDTH, ITEM = 3, 4, 8, 16, 2  # PAGE: tokens. ITEM: bytes of an element
SLOTS, HIDDEN = 8, 64  # requests in the auxiliary buffers, and in states of which each has one
LATENT, INDEX = 36, 20  # elements of a token in MLA's cache, and in that of its indexer
TOKEN = HEADS * WIDTH * ITEM
DIMS, CONVOLUTION, RECURRENT = 8, 6, 32  # bytes of a dimension of Mamba's two states


@dataclass(frozen=True)
class Group:
    """Tensors of one kind. Ranks share each row of an item, or each has all of it."""

    name: str
    sizes: tuple  # bytes of an item, all ranks' together: of each tensor
    rows: int  # in an item
    shared: bool = True

    def item(self, tensor, ranks):
        return self.sizes[tensor] // (ranks if self.shared else 1)


@dataclass(frozen=True)
class Model:
    cache: Group
    state: Group
    kind: str  # of StateType

    def count(self, name, pages):
        """Items in a tensor."""
        return SLOTS if is_auxiliary(name) or (name.startswith("state") and self.kind == "MAMBA") else pages

    def state_of(self, pages, slot):
        """Which items of the state belong to a request."""
        return {"SWA": pages[-2:], "DSA": pages, "MAMBA": [slot]}[self.kind]


HEADED = Group("layer", (PAGE * TOKEN,) * 2 * LAYERS, PAGE)
MODELS = {
    "heads": Model(HEADED, Group("state", (PAGE * TOKEN,) * 2, PAGE), "SWA"),
    "MLA": Model(Group("layer", (PAGE * LATENT * ITEM,) * LAYERS, PAGE, shared=False),
                 Group("state", (PAGE * INDEX,) * LAYERS, PAGE, shared=False), "DSA"),
    "Mamba": Model(HEADED, Group("state", (DIMS * CONVOLUTION,) * 2 + (DIMS * RECURRENT,) * 2, 1), "MAMBA"),
}  # fmt: skip
REAL = (
    "srt.disaggregation.base", "srt.disaggregation.base.conn", "srt.disaggregation.common.bootstrap",
    "srt.disaggregation.common.conn", "srt.disaggregation.common.staging_handler", "srt.disaggregation.common.utils",
    "srt.disaggregation.nixl", "srt.disaggregation.nixl.conn", "srt.disaggregation.utils",
    "srt.distributed.communication_tags", "srt.environ", "srt.utils.network",
)  # fmt: skip


class NoTrace:
    def trace_req_start(self):
        pass

    def trace_req_finish(self):
        pass

    def abort(self, abort_info=None):
        pass

    def copy_for_thread(self):
        return self


def import_sglang(folder, torch, rank, size, port):
    """Its modules, in a process that is this rank."""
    os.environ |= {"SGLANG_DISAGGREGATION_NIXL_BACKEND": "NVLX", "SGLANG_DISAGGREGATION_HEARTBEAT_INTERVAL": "2"}
    logging.setLoggerClass(Logger)
    bag = types.SimpleNamespace(
        host="127.0.0.1", port=0, device="cuda", disaggregation_bootstrap_port=port, enable_trace=False,
        disaggregation_decode_allocation_policy="early", dist_init_addr=None, nnodes=1, attn_tp_size=size,
        attn_tp_rank=rank, attn_cp_size=1, attn_cp_rank=0, attn_dcp_size=1, attn_dcp_rank=0, attn_dp_size=1,
        attn_dp_rank=0, dp_size=1, num_dp_ranks=1, pp_size=1, pp_group=None, enable_kv_cache_sharding=False,
        enable_dsa_cache_layer_split=False, enable_cp_tp_group_sharing=False, speculative_algorithm=None,
        load_balance_method="follow_bootstrap_room")  # fmt: skip
    getters = "device", "schedule", "disagg", "observability", "parallel", "serving", "spec"
    wheel = Wheel(folder, "sglang", REAL, **{
        "srt.runtime_context": {f"get_{name}": lambda: bag for name in getters} | {"linear_attn_tp_size": lambda: size},
        "srt.utils": {"is_npu": lambda: False},
        "srt.observability.trace": {"TraceNullContext": NoTrace},
    })  # fmt: skip
    import sglang.srt.utils.common as common

    uses = {"threading": threading, "socket": socket}
    common.run_with_deadline = wheel.part("srt/utils/common.py", "run_with_deadline", **uses)
    if not torch.cuda.is_available():
        torch.get_device_module = lambda device: types.SimpleNamespace(set_device=lambda gpu: None)
    import sglang.srt.disaggregation.common.staging_buffer as staging

    for name in "compute_head_slice_params", "resolve_total_kv_heads":
        setattr(staging, name, wheel.part("srt/disaggregation/common/staging_buffer.py", name))


class Sglang:
    """A process of an instance: rank `rank` of `size` that share the heads."""

    def __init__(self, folder, kind, gpu, role, rank, size, port, pages, pool, model):
        self.memory = Memory(kind, gpu)
        import_sglang(folder, self.memory.torch, rank, size, port)
        self.rank, self.pages, self.pool, self.model, self.requests = rank, pages, pool, MODELS[model], {}
        self.start(role, rank, size, port)

    def start(self, role, rank, size, port):
        from sglang.srt.disaggregation.base.conn import KVArgs, StateType
        from sglang.srt.disaggregation.nixl.conn import NixlKVManager
        from sglang.srt.disaggregation.utils import DisaggregationMode, MetadataBuffers

        torch, model = self.memory.torch, self.model
        make = self.memory.bytes if self.pool == "VRAM" else self.memory.pinned
        self.kv, kv = self.tensors(make, model.cache, size)
        self.state, state = self.tensors(self.memory.bytes, model.state, size)
        self.metadata = MetadataBuffers(SLOTS, HIDDEN, torch.bfloat16, 16)
        args = KVArgs()
        args.engine_rank, args.gpu_id, args.ib_device = rank, self.memory.gpu, ""
        args.pp_rank, args.system_dp_rank = 0, 0
        args.kv_data_ptrs, args.kv_data_lens, args.kv_item_lens = kv
        args.kv_data_mem_kinds = [self.pool] * len(self.kv)
        args.aux_data_ptrs, args.aux_data_lens, args.aux_item_lens = self.metadata.get_buf_infos()
        args.state_types, args.swa_kv_cache_layout = [StateType[model.kind]], "nhd"
        args.state_data_ptrs, args.state_data_lens, args.state_item_lens = ([each] for each in state)
        args.state_layer_ids, args.kv_layer_ids = [], []
        args.state_dim_per_tensor = [[DIMS // size] * len(self.state)] if model.kind == "MAMBA" else []
        args.is_hybrid_mla_backend, args.kv_cache_dtype_str, args.page_size = False, "auto", PAGE
        args.kv_head_num, args.total_kv_head_num = HEADS // size, HEADS
        args.prefill_start_layer, args.prefill_end_layer, args.rust_http_port = 0, LAYERS, None
        whole = not model.cache.shared
        self.manager = NixlKVManager(args, DisaggregationMode(role), types.SimpleNamespace(), whole)
        self.address = f"127.0.0.1:{port}"

    # ---- Memory

    def tensors(self, make, group, size):
        """And where they are, how long they and their items are, as SGLang has it."""
        items = [group.item(i, size) for i in range(len(group.sizes))]
        made = [make(item * self.model.count(group.name, self.pages)) for item in items]
        return made, ([each.data_ptr() for each in made], [each.nbytes for each in made], items)

    def everything(self):
        """Every tensor that a transfer may reach, by its name."""
        names = [*(f"layer{i}" for i in range(len(self.kv))), *(f"state{i}" for i in range(len(self.state)))]
        Tensor = self.memory.torch.Tensor
        aux = {name: value for name, value in vars(self.metadata).items() if isinstance(value, Tensor)}
        return dict(zip(names, [*self.kv, *self.state])) | aux

    def sizes(self):
        return {
            name: [tensor.nbytes, tensor.nbytes // self.model.count(name, self.pages)]
            for name, tensor in self.everything().items()
        }

    def fill(self, seed):
        for name, tensor in self.everything().items():
            fill(tensor, seed_of(seed, self.rank, name, self.model))

    def content(self):
        self.memory.check_guards()
        return {name: content(tensor).hex() for name, tensor in self.everything().items()}

    # ---- The scheduler

    def reach(self):
        return self.manager.try_ensure_parallel_info(self.address)

    def receive(self, room, pages, slot):
        import numpy as np
        from sglang.srt.disaggregation.nixl.conn import NixlKVReceiver

        receiver = self.requests[room] = NixlKVReceiver(self.manager, self.address, room)
        receiver.init(0)
        state = [np.array(self.model.state_of(pages, slot), dtype=np.int32)]
        receiver.send_metadata(np.array(pages, dtype=np.int32), slot, state)

    def send_begin(self, room, count, slot):
        from sglang.srt.disaggregation.nixl.conn import NixlKVSender

        sender = self.requests[room] = NixlKVSender(self.manager, self.address, room)
        sender.init(count, slot)

    def send(self, room, pages, state_items):
        """The next chunk of a request, and with its last one what belongs to it of the state."""
        import numpy as np

        state = [np.array(state_items, dtype=np.int32)] if state_items else None
        self.requests[room].send(np.array(pages, dtype=np.int32), state)

    def poll(self, room):
        return int(self.requests[room].poll())

    def clear(self, room):
        self.requests.pop(room).clear()

    def abort(self, room):
        self.requests[room].abort()

    def why(self, room):
        """Of a request that has failed. It is cleared."""
        from sglang.srt.disaggregation.common.conn import KVTransferError

        try:
            self.requests.pop(room).failure_exception()
        except KVTransferError as error:
            return str(error)

    def end(self):
        """What SGLang leaves to the process's end: each piece of memory is withdrawn."""
        manager = self.manager
        assert not manager.request_status and not getattr(manager, "transfer_infos", None)
        for descriptions in (*manager.kv_descs, manager.aux_descs, manager.state_descs):
            manager.agent.deregister_memory(descriptions)
        self.memory.check_guards()


class Server:
    """SGLang's bootstrap server, of a prefill instance."""

    def __init__(self, folder, port):
        import torch

        import_sglang(folder, torch, 0, 1, port)
        from sglang.srt.disaggregation.nixl.conn import NixlKVBootstrapServer

        self.server = NixlKVBootstrapServer("127.0.0.1", port)
        until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))

    def ready(self):
        return True

    def end(self):
        self.server.close()


def is_auxiliary(name):
    return not name.startswith(("layer", "state"))


def seed_of(seed, rank, name, model):
    """All ranks have the same in their auxiliary buffers, and in what they do not share."""
    same = is_auxiliary(name) or not (model.state if name.startswith("state") else model.cache).shared
    return f"{seed} {0 if same else rank} {name}"


# ---- The coordinator's side

FAILED, BOOTSTRAPPING, WAITING, TRANSFERRING, SUCCESS = range(5)


class Instance:
    """The processes of one instance, that share its heads."""

    def __init__(self, folder, kind, role, port, size=1, pages=40, pool="VRAM", model="heads"):
        self.size, self.port, self.model = size, port, MODELS[model]
        words = "sglang", folder, int(kind), int(role == "decode"), role
        self.server = Process("sglang server", folder, port) if role == "prefill" else None
        self.processes = [Process(*words, rank, size, port, pages, pool, model) for rank in range(size)]
        self.sizes = {}

    def ready(self, seed):
        if self.server:
            self.server("ready")
        self.sizes = self.all("sizes")[0]
        self.fill(seed)

    def all(self, *words):
        return [process(*words) for process in self.processes]

    def fill(self, seed):
        self.expected = []
        self.all("fill", seed)
        for rank in range(self.size):
            made = {
                name: random.Random(seed_of(seed, rank, name, self.model)).randbytes(size)
                for name, (size, _) in self.sizes.items()
            }
            self.expected.append({name: bytearray(data) for name, data in made.items()})

    def item(self, rank, name, index):
        length = self.sizes[name][1]
        return memoryview(self.expected[rank][name])[index * length : (index + 1) * length]

    def check(self, what):
        for rank, process in enumerate(self.processes):
            for name, data in process("content").items():
                seen, length = bytes.fromhex(data), self.sizes[name][1]
                wrong = [i for i in range(len(seen) // length)
                         if seen[i * length :][:length] != self.item(rank, name, i)]  # fmt: skip
                assert not wrong, f"{what}: rank {rank}: {name} is wrong in {wrong}"

    def until_all(self, room, state):
        def seen():
            states = self.all("poll", room)
            assert state == FAILED or FAILED not in states, f"room {room} has failed: {self.all('why', room)}"
            return all(each == state for each in states)

        until(seen)

    def signal(self, number):
        for process in self.processes:
            process.process.send_signal(number)

    def kill(self):
        for process in self.processes + ([self.server] if self.server else []):
            process.kill()

    def end(self):
        for process in self.processes + ([self.server] if self.server else []):
            process.end()


def hand_over(prefill, decode, theirs, ours, slots):
    """What decode must have then."""
    model = prefill.model
    for name in decode.sizes:
        if is_auxiliary(name):
            for rank in range(decode.size):
                decode.item(rank, name, slots[1])[:] = prefill.item(0, name, slots[0])
        elif name.startswith("state"):
            items = zip(model.state_of(theirs, slots[0]), model.state_of(ours, slots[1]))
            hand_over_tensor(prefill, decode, name, model.state, items)
        else:
            hand_over_tensor(prefill, decode, name, model.cache, zip(theirs, ours))


def hand_over_tensor(prefill, decode, name, group, items):
    """Of a row, a rank has an equal share."""
    for there, here in items:
        sources = prefill.size if group.shared else 1
        parts = [prefill.item(rank, name, there) for rank in range(sources)]
        rows = [b"".join(bytes(cut(part, group.rows, row)) for part in parts) for row in range(group.rows)]
        for rank in range(decode.size):
            mine = [bytes(cut(row, decode.size, rank)) if group.shared else row for row in rows]
            decode.item(rank, name, here)[:] = b"".join(mine)


def cut(data, parts, i):
    length = len(data) // parts
    return data[i * length :][:length]


def whole_request(prefill, decode, room, theirs, ours, slots, chunk=2):
    begin(prefill, decode, room, theirs, ours, slots)
    prefill.until_all(room, WAITING)
    for start in range(0, len(theirs), chunk):
        part = theirs[start : start + chunk]
        last = start + chunk >= len(theirs)
        prefill.all("send", room, part, prefill.model.state_of(theirs, slots[0]) if last else [])
    decode.until_all(room, SUCCESS)
    prefill.until_all(room, SUCCESS)
    for instance in prefill, decode:
        instance.all("clear", room)
    hand_over(prefill, decode, theirs, ours, slots)
    prefill.check(f"room {room}: prefill")
    decode.check(f"room {room}: decode")


def pair(folder, kind, ranks, pool="VRAM", model="heads"):
    port = free_port()
    prefill = Instance(folder, kind, "prefill", port, ranks[0], model=model)
    decode = Instance(folder, kind, "decode", port, ranks[1], pages=32, pool=pool, model=model)
    prefill.ready("prefill")
    decode.ready("decode")
    return prefill, decode


def requests(folder, kind, ranks, pool="VRAM", model="heads"):
    """With a pool of DRAM, as of HiSparse, the prefill's VRAM goes to host memory of the decode."""
    prefill, decode = pair(folder, kind, ranks, pool, model)
    whole_request(prefill, decode, 7, [3, 17, 5, 6, 39, 0], [7, 2, 30, 31, 11, 0], (2, 5))
    prefill.fill("prefill again")
    whole_request(prefill, decode, 8, [17, 4, 5], [8, 30, 1], (7, 0))
    whole_request(prefill, decode, 9, [20], [12], (0, 7))
    decode.end()
    prefill.end()
    print(f"ok: sglang, {model}, {ranks[0]} -> {ranks[1]} ranks, pool in {pool}", flush=True)


def at_once(folder, kind):
    """Several requests of two decodes, that the prefill's threads send at once."""
    prefill, decode = pair(folder, kind, (1, 1))
    other = Instance(folder, kind, "decode", prefill.port, pages=32)
    other.ready("other")
    for turn in range(3):
        rooms = {}
        for room in range(SLOTS):
            theirs = [(room * 5 + turn + i) % 40 for i in (3, 0, 1, 2)]
            ours = [room // 2 * 8 + i for i in (1, 7, 4, 2)]
            rooms[room] = (decode, other)[room % 2], theirs, ours, (room, SLOTS - 1 - room)
        for room, (instance, *request) in rooms.items():
            begin(prefill, instance, room, *request)
        for room in rooms:
            prefill.until_all(room, WAITING)
        for room, (_, theirs, *_) in rooms.items():
            prefill.all("send", room, theirs[:1], [])
            prefill.all("send", room, theirs[1:], theirs[-2:])
        for room, (instance, *request) in rooms.items():
            instance.until_all(room, SUCCESS)
            prefill.until_all(room, SUCCESS)
            instance.all("clear", room)
            prefill.all("clear", room)
            hand_over(prefill, instance, *request)
        for instance in prefill, decode, other:
            instance.check("at once")
    for instance in decode, other, prefill:
        instance.end()
    print(f"ok: sglang, {SLOTS} requests at once", flush=True)


def begin(prefill, decode, room, theirs, ours, slots):
    """A request as far as both know of each other."""
    prefill.all("send_begin", room, len(theirs), slots[0])
    assert all(decode.all("reach"))
    decode.all("receive", room, ours, slots[1])


def lost(instance, room):
    """A request has failed, and the instance tells why. Its memory is as it was."""
    until(lambda: FAILED in instance.all("poll", room))
    reasons = instance.all("why", room)
    instance.check(f"room {room}")
    return reasons[0]


def prefill_killed(folder, kind):
    """Decode sees that the prefill is gone, and is served by the one that takes its place."""
    prefill, decode = pair(folder, kind, (1, 1))
    whole_request(prefill, decode, 7, [3, 17], [7, 2], (2, 5))
    begin(prefill, decode, 8, [4, 5], [8, 9], (0, 1))
    prefill.kill()
    reason = lost(decode, 8)
    assert "Lost connection with prefill instance" in reason, reason
    other = Instance(folder, kind, "prefill", prefill.port)
    other.ready("other")
    whole_request(other, decode, 9, [20, 21], [12, 13], (0, 7))
    decode.end()
    other.end()
    print("ok: sglang, a prefill that is killed", flush=True)


def decode_killed(folder, kind):
    """The prefill fails what a dead decode waits for, also one that was never reached, and serves others."""
    prefill, decode = pair(folder, kind, (1, 1))
    whole_request(prefill, decode, 7, [3, 17], [7, 2], (2, 5))
    begin(prefill, decode, 8, [4, 5], [8, 9], (0, 1))
    prefill.until_all(8, WAITING)
    decode.kill()
    prefill.all("send", 8, [4, 5], [4, 5])
    reason = lost(prefill, 8)  # when it posts, or when it asks how that went: NIXL's check_xfer_state raises
    assert "REMOTE_DISCONNECT" in reason or "left a handle running" in reason, reason
    early = Instance(folder, kind, "decode", prefill.port, pages=32)
    early.ready("early")
    assert all(early.all("reach"))
    prefill.all("send_begin", 10, 2, 6)
    prefill.signal(signal.SIGSTOP)
    early.all("receive", 10, [8, 9], 1)
    time.sleep(0.2)  # the message is on its way
    early.kill()
    prefill.signal(signal.SIGCONT)
    other = Instance(folder, kind, "decode", prefill.port, pages=32)
    other.ready("other")
    whole_request(prefill, other, 9, [20, 21], [12, 13], (0, 7))
    prefill.all("abort", 10)
    assert "Aborted" in lost(prefill, 10)
    other.end()
    prefill.end()
    print("ok: sglang, a decode that is killed", flush=True)


def decode_stopped(folder, kind):
    """A decode that is silent when it is first reached loses a request, and has the next one."""
    prefill, decode = pair(folder, kind, (1, 1))
    begin(prefill, decode, 8, [4, 5], [8, 9], (0, 1))
    prefill.until_all(8, WAITING)
    decode.signal(signal.SIGSTOP)
    prefill.all("send", 8, [4, 5], [4, 5])
    reason = lost(prefill, 8)
    assert "REMOTE_DISCONNECT" in reason, reason
    decode.signal(signal.SIGCONT)
    reason = lost(decode, 8)
    assert "REMOTE_DISCONNECT" in reason, reason
    whole_request(prefill, decode, 9, [20, 21], [12, 13], (0, 7))
    decode.end()
    prefill.end()
    print("ok: sglang, a decode that is silent at first", flush=True)


RANKS = (1, 1), (1, 2), (2, 1)


def handing_over(folder, kind):
    for ranks in RANKS:
        requests(folder, kind, ranks)
    requests(folder, kind, (1, 1), "DRAM")
    at_once(folder, kind)


def models(folder, kind):
    """MLA's latent cache and its indexer's, of which each rank has all; Mamba's states, one of each a request."""
    for ranks in RANKS:
        requests(folder, kind, ranks, model="MLA")
        requests(folder, kind, ranks, model="Mamba")


def lives(folder, kind):
    prefill_killed(folder, kind)
    decode_killed(folder, kind)
    decode_stopped(folder, kind)


PARTS = {"requests": handing_over, "models": models, "lives": lives}
