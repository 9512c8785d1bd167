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

from engine_parts import Logger, Memory, Process, Wheel, content, fill, free_port, until

LAYERS, HEADS, PAGE, WIDTH, ITEM = 3, 4, 8, 16, 2  # PAGE: tokens. ITEM: bytes of an element
SLOTS, HIDDEN = 8, 64  # requests in the auxiliary buffers
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

    def __init__(self, folder, kind, gpu, role, rank, size, port, pages, pool):
        self.memory = Memory(kind, gpu)
        import_sglang(folder, self.memory.torch, rank, size, port)
        self.rank, self.pages, self.pool, self.requests = rank, pages, pool, {}
        self.start(role, rank, size, port)

    def start(self, role, rank, size, port):
        from sglang.srt.disaggregation.base.conn import KVArgs, StateType
        from sglang.srt.disaggregation.nixl.conn import NixlKVManager
        from sglang.srt.disaggregation.utils import DisaggregationMode, MetadataBuffers

        torch = self.memory.torch
        length = HEADS // size * WIDTH * ITEM * PAGE
        self.length = length
        make = self.memory.bytes if self.pool == "VRAM" else self.memory.pinned
        self.kv = [make(length * self.pages) for _ in range(2 * LAYERS)]
        self.state = [self.memory.bytes(length * self.pages) for _ in range(2)]
        self.metadata = MetadataBuffers(SLOTS, HIDDEN, torch.bfloat16, 16)
        args = KVArgs()
        args.engine_rank, args.gpu_id, args.ib_device = rank, self.memory.gpu, ""
        args.pp_rank, args.system_dp_rank = 0, 0
        args.kv_data_ptrs, args.kv_data_lens, args.kv_item_lens = lists(self.kv, length)
        args.kv_data_mem_kinds = [self.pool] * len(self.kv)
        args.aux_data_ptrs, args.aux_data_lens, args.aux_item_lens = self.metadata.get_buf_infos()
        args.state_types, args.swa_kv_cache_layout = [StateType.SWA], "nhd"
        state = lists(self.state, length)
        args.state_data_ptrs, args.state_data_lens, args.state_item_lens = ([each] for each in state)
        args.state_layer_ids, args.state_dim_per_tensor, args.kv_layer_ids = [], [], []
        args.is_hybrid_mla_backend, args.kv_cache_dtype_str, args.page_size = False, "auto", PAGE
        args.kv_head_num, args.total_kv_head_num = HEADS // size, HEADS
        args.prefill_start_layer, args.prefill_end_layer, args.rust_http_port = 0, LAYERS, None
        self.manager = NixlKVManager(args, DisaggregationMode(role), types.SimpleNamespace(), False)
        self.address = f"127.0.0.1:{port}"

    # ---- Memory

    def everything(self):
        """Every tensor that a transfer may reach, by its name."""
        names = [*(f"layer{i}" for i in range(len(self.kv))), *(f"state{i}" for i in range(len(self.state)))]
        Tensor = self.memory.torch.Tensor
        aux = {name: value for name, value in vars(self.metadata).items() if isinstance(value, Tensor)}
        return dict(zip(names, [*self.kv, *self.state])) | aux

    def sizes(self):
        return {
            name: [tensor.nbytes, tensor.nbytes // (SLOTS if is_auxiliary(name) else self.pages)]
            for name, tensor in self.everything().items()
        }

    def fill(self, seed):
        for name, tensor in self.everything().items():
            fill(tensor, seed_of(seed, self.rank, name))

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
        state = [np.array(pages[-2:], dtype=np.int32)]
        receiver.send_metadata(np.array(pages, dtype=np.int32), slot, state)

    def send_begin(self, room, count, slot):
        from sglang.srt.disaggregation.nixl.conn import NixlKVSender

        sender = self.requests[room] = NixlKVSender(self.manager, self.address, room)
        sender.init(count, slot)

    def send(self, room, pages, state_pages):
        """The next chunk of a request, and with its last one the pages of the state."""
        import numpy as np

        state = [np.array(state_pages, dtype=np.int32)] if state_pages else None
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


def seed_of(seed, rank, name):
    """All ranks have the same in their auxiliary buffers."""
    return f"{seed} {0 if is_auxiliary(name) else rank} {name}"


def lists(tensors, item):
    return [each.data_ptr() for each in tensors], [each.nbytes for each in tensors], [item] * len(tensors)


# ---- The coordinator's side

FAILED, BOOTSTRAPPING, WAITING, TRANSFERRING, SUCCESS = range(5)


class Instance:
    """The processes of one instance, that share its heads."""

    def __init__(self, folder, kind, role, port, size=1, pages=40, pool="VRAM"):
        self.size, self.pages, self.port = size, pages, port
        words = "sglang", folder, int(kind), int(role == "decode"), role
        self.server = Process("sglang server", folder, port) if role == "prefill" else None
        self.processes = [Process(*words, rank, size, port, pages, pool) for rank in range(size)]
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
                name: random.Random(seed_of(seed, rank, name)).randbytes(size) for name, (size, _) in self.sizes.items()
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
    """What decode must have then. A token's heads lie one behind the other, and a rank has an equal share of them."""
    for name in decode.sizes:
        if is_auxiliary(name):
            for rank in range(decode.size):
                decode.item(rank, name, slots[1])[:] = prefill.item(0, name, slots[0])
            continue
        for there, here in list(zip(theirs, ours))[-2 if name.startswith("state") else 0 :]:
            rows = [prefill.item(rank, name, there) for rank in range(prefill.size)]
            row = len(rows[0]) // PAGE
            whole = b"".join(bytes(part[t * row : (t + 1) * row]) for t in range(PAGE) for part in rows)
            token = len(whole) // PAGE
            share = token // decode.size
            for rank in range(decode.size):
                mine = b"".join(whole[t * token + rank * share :][:share] for t in range(PAGE))
                decode.item(rank, name, here)[:] = mine


def whole_request(prefill, decode, room, theirs, ours, slots, chunk=2):
    begin(prefill, decode, room, theirs, ours, slots)
    prefill.until_all(room, WAITING)
    for start in range(0, len(theirs), chunk):
        part = theirs[start : start + chunk]
        prefill.all("send", room, part, theirs[-2:] if start + chunk >= len(theirs) else [])
    decode.until_all(room, SUCCESS)
    prefill.until_all(room, SUCCESS)
    for instance in prefill, decode:
        instance.all("clear", room)
    hand_over(prefill, decode, theirs, ours, slots)
    prefill.check(f"room {room}: prefill")
    decode.check(f"room {room}: decode")


def pair(folder, kind, ranks, pool="VRAM"):
    port = free_port()
    prefill = Instance(folder, kind, "prefill", port, ranks[0])
    decode = Instance(folder, kind, "decode", port, ranks[1], pages=32, pool=pool)
    prefill.ready("prefill")
    decode.ready("decode")
    return prefill, decode


def requests(folder, kind, ranks, pool="VRAM"):
    """With a pool of DRAM, as of HiSparse, the prefill's VRAM goes to host memory of the decode."""
    prefill, decode = pair(folder, kind, ranks, pool)
    whole_request(prefill, decode, 7, [3, 17, 5, 6, 39, 0], [7, 2, 30, 31, 11, 0], (2, 5))
    prefill.fill("prefill again")
    whole_request(prefill, decode, 8, [17, 4, 5], [8, 30, 1], (7, 0))
    whole_request(prefill, decode, 9, [20], [12], (0, 7))
    decode.end()
    prefill.end()
    print(f"ok: sglang, {ranks[0]} -> {ranks[1]} ranks, pool in {pool}", flush=True)


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


def handing_over(folder, kind):
    for ranks in ((1, 1), (1, 2), (2, 1)):
        requests(folder, kind, ranks)
    requests(folder, kind, (1, 1), "DRAM")
    at_once(folder, kind)


def lives(folder, kind):
    prefill_killed(folder, kind)
    decode_killed(folder, kind)
    decode_stopped(folder, kind)


PARTS = {"requests": handing_over, "lives": lives}
