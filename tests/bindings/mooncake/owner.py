# SPDX-License-Identifier: Apache-2.0
"""The other process: has memory, registers it by Mooncake's interface, and does what each line of stdin says."""

import json
import sys

import nvlxfer
from nvlxfer import Backend, Engine
from nvlxfer.mooncake import TransferEngine

memory = Engine(Backend.HOST)
engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "rdma", "mlx5_0") == 0
known = {"engine": engine, "memory": memory, "nvlxfer": nvlxfer}
print(json.dumps(f"127.0.0.1:{engine.get_rpc_port()}"), flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line, known)), flush=True)
