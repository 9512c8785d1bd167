# SPDX-License-Identifier: Apache-2.0
"""vLLM's NixlPullConnector and NixlPushConnector, a scheduler and a worker of each, in one process."""

import contextlib
import enum
import hashlib
import json
import logging
import os
import pickle
import types

from engine_parts import Logger, Memory, Wheel, content, fill, plain, settle

LAYERS, HEADS, TOKENS, WIDTH = 4, 4, 16, 32
LEASE = 6  # seconds
NIXL = "distributed.kv_transfer.kv_connector.v1.nixl"
REAL = (
    "distributed.kv_transfer.kv_connector.utils", "distributed.kv_transfer.kv_connector.v1.base",
    "distributed.kv_transfer.kv_connector.v1.metrics", "distributed.nixl_utils", NIXL,
    *(f"{NIXL}.{each}" for each in ("base_scheduler", "base_worker", "connector", "metadata", "pull_scheduler",
        "pull_worker", "push_scheduler", "push_worker", "scheduler", "stats", "tp_mapping", "utils", "worker")),
    "envs", "utils.import_utils", "utils.math_utils", "utils.network_utils", "v1.attention.backends.registry",
    "v1.kv_cache_interface", "v1.kv_cache_layout", "v1.kv_cache_spec_registry", "v1.metrics.cache_hit_source",
)  # fmt: skip


class Platform:
    device_type = "cuda"

    def __init__(self, torch):
        self.torch = torch

    def get_nixl_supported_devices(self):
        return {}

    def get_nixl_memory_type(self):
        return None

    def set_device(self, gpu):
        if self.torch.cuda.is_available():
            self.torch.cuda.set_device(gpu)

    def is_rocm(self):
        return False


class Attention:
    """A backend of vLLM's attention, as far as the connector asks it."""

    @staticmethod
    def get_name():
        return "FLASH_ATTN"

    @staticmethod
    def full_cls_name():
        return "vllm", "FlashAttentionBackend"

    @staticmethod
    def get_supported_kernel_block_sizes(spec=None):
        return [TOKENS]


class Status(enum.Enum):
    FINISHED_STOPPED = 1
    FINISHED_LENGTH_CAPPED = 2


class Request:
    def __init__(self, name, tokens, params):
        self.request_id, self.kv_transfer_params, self.status = name, params, Status.FINISHED_LENGTH_CAPPED
        self.prompt_token_ids, self.num_prompt_tokens, self.num_computed_tokens = list(range(tokens)), tokens, 0


class Blocks:
    """vLLM's KVCacheBlocks of a request that finds nothing in the prefix cache."""

    def __init__(self, ids):
        self.ids = ids
        self.blocks = ([types.SimpleNamespace(block_hash=None, is_null=False) for _ in ids],)

    def get_unhashed_block_ids_all_groups(self):
        return (self.ids,)


class Vllm:
    """A process of an instance: rank `tp_rank` of `tp_size`, and on rank 0 the scheduler too."""

    def __init__(self, folder, kind, gpu, mode, tp_rank, tp_size, how):
        os.environ["VLLM_NIXL_SIDE_CHANNEL_HOST"] = "127.0.0.1"
        self.memory = Memory(kind, gpu)
        self.tp_rank, self.tp_size, how = tp_rank, tp_size, types.SimpleNamespace(**json.loads(how))
        self.blocks, self.tokens = how.blocks, how.tokens
        torch = self.memory.torch
        logging.setLoggerClass(Logger)
        group = types.SimpleNamespace(rank_in_group=0)
        wheel = Wheel(folder, "vllm", REAL, **{
            "": {"__version__": "0.33.0"},
            "logger": {"init_logger": logging.getLogger},
            "platforms": {"current_platform": Platform(torch)},
            "config": {"get_layers_from_vllm_config": lambda *_: {"layer": Attention},
                       "set_current_vllm_config": lambda config: None},
            "distributed.parallel_state": {"get_tensor_model_parallel_rank": lambda: tp_rank,
                                           "get_tensor_model_parallel_world_size": lambda: tp_size,
                                           "get_pcp_group": lambda: group},
            "utils.gpu_sync_debug": {"gpu_sync_allowed": contextlib.nullcontext},
            "v1.request": {"RequestStatus": Status},
            "v1.worker.utils": {"select_common_block_size": lambda size, *_: size},
        })  # fmt: skip
        Attention.get_attn_backend = Attention
        device = "cuda" if torch.cuda.is_available() else "cpu"
        import vllm.config.utils
        import vllm.utils.torch_utils

        vllm.config.utils.hash_factors = wheel.part("config/utils.py", "hash_factors", hashlib=hashlib, json=json)
        vllm.utils.torch_utils.async_tensor_h2d = lambda data, _, dtype: torch.tensor(data, dtype=dtype, device=device)
        vllm.utils.torch_utils.get_dtype_size = wheel.part("utils/torch_utils.py", "get_dtype_size", torch=torch)
        self.wheel, self.requests, self.scheduled = wheel, {}, []
        self.start(mode, how)

    def start(self, mode, how):
        from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
        from vllm.distributed.kv_transfer.kv_connector.v1.nixl import NixlPullConnector, NixlPushConnector

        self.allocate(how)
        settings = self.settings(how)
        connector = NixlPushConnector if mode == "push" else NixlPullConnector
        self.worker = connector(settings, KVConnectorRole.WORKER, self.config)
        self.worker.register_kv_caches(self.caches)
        self.worker.set_host_xfer_buffer_ops(copy_blocks)
        if not self.tp_rank:
            self.scheduler = connector(settings, KVConnectorRole.SCHEDULER, self.config)

    def allocate(self, how):
        import vllm.v1.kv_cache_interface as caches

        torch = self.memory.torch
        self.layout, names = caches.KVCacheLayout[how.layout], [f"model.layers.{i}.attn" for i in range(LAYERS)]
        Spec, heads = caches.FullAttentionSpec, HEADS // self.tp_size
        if how.model == "mla":
            Spec, heads = caches.MLAAttentionSpec, 1
        spec = Spec(self.tokens, num_kv_heads=heads, head_size=WIDTH, dtype=torch.bfloat16)
        page = spec.page_size_bytes
        strides = (page, page * LAYERS) if self.layout.is_block_outermost else (page * self.blocks, page)
        place = caches.KVCacheTensor(page * self.blocks * LAYERS, names, *strides)
        self.config = caches.KVCacheConfig(self.blocks, [place], [caches.KVCacheGroupSpec(names, spec)])
        zeros = types.SimpleNamespace(zeros=self.zeros, int8=torch.int8)
        uses = {**vars(caches), "torch": zeros, "current_platform": Platform(torch)}
        allocate = self.wheel.part("v1/worker/utils.py", "allocate_kv_cache", **uses)
        self.caches = allocate(self.config, None, self.layout)

    def settings(self, how):
        """vLLM's configuration, as far as the connector asks it."""
        extra = {"backends": ["NVLX"], "kv_lease_duration": LEASE}
        transfer = types.SimpleNamespace(
            engine_id=os.environ["ENGINE"], kv_role=os.environ["ROLE"], kv_buffer_device=how.buffer,
            enable_permute_local_kv=False, kv_connector_extra_config=extra, is_kv_producer=False,
            get_from_extra_config=extra.get)  # fmt: skip
        model = types.SimpleNamespace(
            model="a/model", dtype=self.memory.torch.bfloat16, use_mla=how.model == "mla", enable_sleep_mode=False,
            get_total_num_kv_heads=lambda: HEADS, get_head_size=lambda: WIDTH,
            get_total_num_hidden_layers=lambda: LAYERS)  # fmt: skip
        cache = types.SimpleNamespace(
            block_size=self.tokens, cache_dtype="auto", enable_prefix_caching=True,
            get_resolved_kv_cache_layout=lambda: self.layout)  # fmt: skip
        parallel = types.SimpleNamespace(
            tensor_parallel_size=self.tp_size, pipeline_parallel_size=1, decode_context_parallel_size=1,
            prefill_context_parallel_size=1, data_parallel_index=0)  # fmt: skip
        return types.SimpleNamespace(
            kv_transfer_config=transfer, model_config=model, cache_config=cache, parallel_config=parallel,
            scheduler_config=types.SimpleNamespace(disable_hybrid_kv_cache_manager=False),
            speculative_config=None, num_prefill_lookahead_tokens=0)  # fmt: skip

    def zeros(self, size, **_):
        self.backing = self.memory.bytes(size)
        return self.backing

    def bounds(self):
        """Of the backing: its size, from layer to layer, from block to block, a block's length."""
        place = self.config.kv_cache_tensors[0]
        page = self.config.kv_cache_groups[0].kv_cache_spec.page_size_bytes
        return place.size, place.layer_stride, place.block_stride, page

    def fill(self, seed):
        fill(self.backing, seed)

    def content(self):
        self.memory.check_guards()
        return content(self.backing).hex()

    # ---- The core: what it asks workers for, and gives the scheduler

    def handshake(self):
        return pickled(self.worker.get_handshake_metadata())

    def publish(self, handshakes):
        ranks = {(0, rank): unpickled(handshake) for rank, handshake in enumerate(handshakes)}
        self.scheduler.set_xfer_handshake_metadata_pp_aware(ranks)

    def prefill(self, name, ids):
        """A request is computed."""
        request = Request(name, len(ids) * self.tokens, {"do_remote_decode": True})
        self.scheduler.on_new_request(request)
        assert self.scheduler.get_num_new_matched_tokens(request, 0) == (0, False)
        self.scheduler.update_state_after_alloc(request, Blocks(ids), 0)
        self.requests[name] = request, ids
        self.scheduled.append(types.SimpleNamespace(req_id=name, block_ids=(ids,)))

    def prefilled(self, name):
        """Its blocks wait for who takes them. The router gives the answer to decode."""
        request, ids = self.requests.pop(name)
        request.num_computed_tokens = request.num_prompt_tokens
        kept, params = self.scheduler.request_finished_all_groups(request, (ids,))
        assert kept
        return params

    def queue(self, name, params, count):
        self.requests[name] = Request(name, count * self.tokens, params)
        self.scheduler.on_new_request(self.requests[name])

    def decode(self, name, params, ids, cached=0):
        """The blocks of a request wait for what PARAMS tell of. Its first CACHED are in the prefix cache."""
        if name not in self.requests:
            self.queue(name, params, cached + len(ids))
        request = self.requests.pop(name)
        tokens, later = self.scheduler.get_num_new_matched_tokens(request, cached * self.tokens)
        assert (tokens, later) == (len(ids) * self.tokens, bool(ids))
        self.scheduler.update_state_after_alloc(request, Blocks(ids), tokens)
        return tokens

    def schedule(self):
        cached = types.SimpleNamespace(req_ids=[], new_block_ids=[], resumed_req_ids=set())
        tokens = {each.req_id: len(each.block_ids[0]) * self.tokens for each in self.scheduled}
        output = types.SimpleNamespace(
            scheduled_new_reqs=self.scheduled, scheduled_cached_reqs=cached, num_scheduled_tokens=tokens
        )
        self.scheduled = []
        return pickled(self.scheduler.build_connector_meta(output))

    def step(self, metadata):
        """What is sent, received and failed, and blocks that could not be loaded."""
        self.worker.bind_connector_metadata(unpickled(metadata))
        self.worker.start_load_kv(None)
        self.worker.wait_for_save()
        done = self.worker.get_transfer_results(set())
        self.worker.clear_connector_metadata()
        lost = self.worker.get_block_ids_with_load_errors()
        return [*map(sorted, (done.finished_sending, done.finished_recving, done.failed_recving, lost))]

    def output(self, sent, received):
        self.scheduler.update_connector_output(
            types.SimpleNamespace(finished_sending=set(sent), finished_recving=set(received))
        )

    # ---- Around sleep

    def sleep(self):
        self.worker.unregister_kv_caches()

    def wake(self):
        self.worker.restore_kv_caches()

    def registered(self):
        """What decode has asked for by a message, in push mode."""
        return len(self.worker.connector_worker._pending_d_registrations)

    def figures(self):
        stats = self.worker.get_kv_connector_stats()
        return {name: sum(values) for name, values in stats.data.items()} if stats else {}

    def end(self):
        worker = self.worker.connector_worker
        self.worker.shutdown()
        if not self.tp_rank:
            self.scheduler.shutdown()
        left = [worker._remote_agents, worker._registered_descs, worker.dst_xfer_side_handles,
                worker.src_xfer_handles_by_block_size, worker._recving_transfers, worker._recving_metadata]  # fmt: skip
        assert not any(left), left
        self.memory.check_guards()


def copy_blocks(source, target, source_ids, target_ids, direction):
    """A platform's copies between the caches and their buffers on the host."""
    for name in target:
        to = plain(target[name])
        to[target_ids] = plain(source[name])[source_ids].to(to.device)
    settle()


def pickled(what):
    return pickle.dumps(what).hex()


def unpickled(what):
    return pickle.loads(bytes.fromhex(what))
