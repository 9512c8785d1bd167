# SPDX-License-Identifier: Apache-2.0
"""The other process: has memory, registers it by Mooncake's interface, and does what each line of stdin says."""

import json
import os
import sys

from support import memory, said

import nvlxfer
from nvlxfer.mooncake import TransferEngine

engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "rdma", "mlx5_0") == 0
known = {"engine": engine, "memory": memory, "nvlxfer": nvlxfer, "os": os, "said": said}
print(json.dumps(f"127.0.0.1:{engine.get_rpc_port()}"), flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line, known)), flush=True)
