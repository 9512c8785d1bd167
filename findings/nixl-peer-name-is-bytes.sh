#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The name that NIXL gives for a new peer fits every call but the one that waits for its message.
#
# Versions: nixl-cu13 1.5.1, numpy 2.3.5; backend UCX, host memory, two agents in one process.
# Expected: a name, as a string. add_remote_agent is annotated so, and its docstring says that it
#   returns the name of the peer; check_remote_xfer_done asks for the name of the peer.
# Seen 2026-11-29: add_remote_agent returns bytes. initialize_xfer, check_remote_metadata and send_notif
#   take them, but messages are kept under strings: check_remote_xfer_done is False for ever, without an
#   error, though the message is there, and the dictionary of get_new_notifs lacks that key. With
#   name.decode() both find it.
# Matters: whoever passes on the name that came back waits for "blocks were read" until a time-out, and
#   frees no block meanwhile. The transfers themselves work, so nothing points to the name.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" nixl-cu13==1.5.1 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

NIXL_LOG_LEVEL=FATAL PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import sys
import time
import numpy as np
from nixl_cu13 import nixl_agent, nixl_agent_config

STATED = {
    "annotated": "str",
    "returned": "bytes",
    "a read with it": "DONE",
    "its metadata known": True,
    "done, by the name": False,
    "messages kept under": ["str"],
    "done, by name.decode()": True,
}
seen = {"annotated": str(nixl_agent.add_remote_agent.__annotations__["return"])}

reader = nixl_agent("reader", nixl_agent_config(backends=["UCX"]))
owner = nixl_agent("owner", nixl_agent_config(backends=["UCX"]))
here, there = np.zeros(64, np.uint8), np.zeros(64, np.uint8)
reader.register_memory([(here.ctypes.data, 64, 0, "")], "DRAM")
owner.register_memory([(there.ctypes.data, 64, 0, "")], "DRAM")
local = reader.get_xfer_descs([(here.ctypes.data, 64, 0)], "DRAM")
remote = reader.get_xfer_descs([(there.ctypes.data, 64, 0)], "DRAM")


def settled(agent, request):
    state, end = agent.transfer(request), time.monotonic() + 10
    while state == "PROC" and time.monotonic() < end:
        state = agent.check_xfer_state(request)
    return state


def done(agent, name, seconds):
    end = time.monotonic() + seconds
    while not (found := agent.check_remote_xfer_done(name, b"read")) and time.monotonic() < end:
        time.sleep(0.01)
    return found


name = owner.add_remote_agent(reader.get_agent_metadata())
peer = reader.add_remote_agent(owner.get_agent_metadata())
seen["returned"] = type(name).__name__
seen["a read with it"] = settled(reader, reader.initialize_xfer("READ", local, remote, peer, b"read"))
seen["its metadata known"] = owner.check_remote_metadata(name)
seen["done, by the name"] = done(owner, name, 3)
seen["messages kept under"] = [type(key).__name__ for key in owner.notifs]
seen["done, by name.decode()"] = done(owner, name.decode(), 3)
for what, found in seen.items():
    print(f"{what}: {found}")
sys.exit(seen != STATED)
EOF
