#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# NIXL repeats the last notification of a request when that is posted again without one.
#
# Versions: nixl-cu13 1.5.1, numpy 2.3.5; backend UCX, host memory, two agents in one process.
# Expected: a post without a message sends none, or the message given when the request was made.
#   The docstring of nixl_agent.transfer calls the message optional and says that a call can set or
#   change it; it does not say that the change stays.
# Seen 2026-11-28: a message given to one post replaces the request's own for good. A request made
#   with "made" and posted plainly, with "once" and plainly again sends made, once, once. A request
#   made without a message sends one at every later post after a single post that had one.
# Matters: readers reuse requests, and owners free or overwrite blocks by these messages. A second
#   "request 7 is done" can free blocks that already belong to somebody else.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" nixl-cu13==1.5.1 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

NIXL_LOG_LEVEL=FATAL PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import sys, time
import numpy as np
from nixl_cu13 import nixl_agent, nixl_agent_config

STATED = {
    "made with a message": [[b"made"], [b"once"], [b"once"]],
    "made without a message": [[], [b"once"], [b"once"]],
}

reader = nixl_agent("reader", nixl_agent_config(backends=["UCX"]))
owner = nixl_agent("owner", nixl_agent_config(backends=["UCX"]))
here, there = np.zeros(64, np.uint8), np.zeros(64, np.uint8)
reader.register_memory([(here.ctypes.data, 64, 0, "")], "DRAM")
owner.register_memory([(there.ctypes.data, 64, 0, "")], "DRAM")
reader.add_remote_agent(owner.get_agent_metadata())
local = reader.get_xfer_descs([(here.ctypes.data, 64, 0)], "DRAM")
remote = reader.get_xfer_descs([(there.ctypes.data, 64, 0)], "DRAM")


def post(request, *message):
    state = reader.transfer(request, *message)
    while state == "PROC":
        state = reader.check_xfer_state(request)
    assert state == "DONE", state
    arrived, end = [], time.monotonic() + 1.5
    while time.monotonic() < end:
        arrived += owner.get_new_notifs().get("reader", [])
        time.sleep(0.01)
    return arrived


seen = {}
for name, message in (("made with a message", b"made"), ("made without a message", b"")):
    request = reader.initialize_xfer("READ", local, remote, "owner", message)
    seen[name] = [post(request), post(request, b"once"), post(request)]
    print(f"{name}: plain, with 'once', plain -> {seen[name]}")
sys.exit(seen != STATED)
EOF
