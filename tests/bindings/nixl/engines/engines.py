# SPDX-License-Identifier: Apache-2.0
"""Engines' own code that uses NIXL, from their wheels, over the backend NVLX, between real processes.

    engines.py FOLDER...    each: where a wheel of vllm (0.33.0) or sglang (0.5.23) lies

A prefill hands the KV blocks of requests over to a decode. Every byte of both is looked at afterwards: blocks that
nobody asked for, and memory beside the caches, are as they were. Their code runs as it is: it describes the memory,
shakes hands, prepares lists, posts, polls, notifies, releases.

- vLLM: the connectors NixlPullConnector and NixlPushConnector whole, scheduler and worker, with the side channel. Its
  configuration, its platform, the ranks of torch.distributed, attention backends, requests and their lists of blocks
  are stand-ins. Processes of an instance are told by this program what vLLM's core tells its workers.
- SGLang: NixlKVManager, NixlKVSender, NixlKVReceiver and NixlKVBootstrapServer whole, and its MetadataBuffers. Its
  runtime context, server arguments, tracing and schedulers are stand-ins.
- Any other module of theirs is one of empty names (engine_parts.Nothing), or gives single functions (Wheel.part).

Not driven: hybrid models of vLLM with states of Mamba and its like, pipeline and context parallel ranks, and SGLang's
staging buffer, which needs Triton.

Tensors are PyTorch's, over memory of the backend host; with NVLX_BACKEND=cuda they are on one GPU or two. It is no part
of the suite: it needs the wheels, NIXL 1.5.1, msgspec, pyzmq, psutil, requests, aiohttp, prometheus_client, regex,
packaging and PyTorch, and NIXL_PLUGIN_DIR as ../wheels.sh has it.
"""

import subprocess
import sys
from pathlib import Path

import engine_parts
import engine_sglang
import engine_vllm
import engine_vllm_cases

from nvlxfer import Alloc

ENGINES = {"vllm": engine_vllm_cases.PARTS, "sglang": engine_sglang.PARTS}
SERVED = {"vllm": engine_vllm.Vllm, "sglang": engine_sglang.Sglang, "sglang server": engine_sglang.Server}


def number(word):
    return int(word) if word.isdigit() else word


if sys.argv[1:2] == ["--serve"]:
    engine_parts.serve(SERVED[sys.argv[2]], *map(number, sys.argv[3:]))
elif sys.argv[1:2] == ["--one"]:
    folder, name, kind, part = sys.argv[2:]
    ENGINES[name][part](folder, Alloc(int(kind)))
else:
    for folder in sys.argv[1:]:
        name = next(name for name in ENGINES if Path(folder, name).is_dir())
        for kind in (Alloc.CUDA_MALLOC, Alloc.VMM):  # PyTorch's default, and expandable segments
            for part in ENGINES[name]:
                print(f"{name}, {kind.name}, {part}:", flush=True)
                command = [sys.executable, __file__, "--one", folder, name, str(int(kind)), part]
                subprocess.run(command, check=True, timeout=400)
