#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# NIXL's check_xfer_state and transfer raise an exception when the peer has died, and return no "ERR".
#
# Versions: nixl-cu13 1.5.1, numpy 2.3.5; backend UCX over TCP, host memory, two processes.
# Expected: "ERR". The docstrings of both calls name three results, of which this is the one for a
#   failure, and no exception.
# Seen 2026-11-29: nixlRemoteDisconnectError, from check_xfer_state of a request that was in flight
#   when the peer was killed; from the next transfer of the prepared request; and from each later
#   check_xfer_state of it. UCX's default transports behave alike for the next transfer.
# Matters: a loop that waits for "DONE" or "ERR" is left by the exception. If nothing catches that, a
#   thread which serves many peers ends with the first peer that dies.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" nixl-cu13==1.5.1 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

cat >"$work/owner.py" <<'EOF'
import sys
import numpy as np
from nixl_cu13 import nixl_agent, nixl_agent_config

agent = nixl_agent("owner", nixl_agent_config(backends=["UCX"]))
block = np.ones(1 << 20, np.uint8)
agent.register_memory([(block.ctypes.data, block.nbytes, 0, "")], "DRAM")
print(agent.get_agent_metadata().hex(), block.ctypes.data, flush=True)
sys.stdin.read()  # until the reader is gone, or kills this process
EOF

cat >"$work/reader.py" <<'EOF'
import os
import signal
import subprocess
import sys
import time
import numpy as np
from nixl_cu13 import nixl_agent, nixl_agent_config

SIZE, RAISED = 1 << 20, "raised nixlRemoteDisconnectError"
STATED = {
    "peer alive: state": "DONE",
    "peer stopped: state": "PROC",
    "peer killed: state": RAISED,
    "next transfer": RAISED,
    "state after that": RAISED,
}

owner = subprocess.Popen(
    [sys.executable, "-s", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
seen = {}


def result(call):
    try:
        return call(request)
    except Exception as error:
        return f"raised {type(error).__name__}"


def settled(seconds):
    deadline = time.monotonic() + seconds
    while (state := result(agent.check_xfer_state)) == "PROC" and time.monotonic() < deadline:
        time.sleep(0.001)
    return state


def note(what, found):
    seen[what] = found
    print(f"{what}: {found}")


try:
    metadata, address = owner.stdout.readline().split()
    agent = nixl_agent("reader", nixl_agent_config(backends=["UCX"]))
    agent.add_remote_agent(bytes.fromhex(metadata))
    here = np.zeros(SIZE, np.uint8)
    agent.register_memory([(here.ctypes.data, SIZE, 0, "")], "DRAM")
    request = agent.initialize_xfer(
        "READ",
        agent.get_xfer_descs([(here.ctypes.data, SIZE, 0)], "DRAM"),
        agent.get_xfer_descs([(int(address), SIZE, 0)], "DRAM"),
        "owner",
    )
    agent.transfer(request)
    note("peer alive: state", settled(10))
    owner.send_signal(signal.SIGSTOP)
    os.waitpid(owner.pid, os.WUNTRACED)  # all its threads have stopped
    agent.transfer(request)
    note("peer stopped: state", settled(0.5))
    owner.kill()
    owner.wait()
    note("peer killed: state", settled(10))
    note("next transfer", result(agent.transfer))
    note("state after that", result(agent.check_xfer_state))
finally:
    owner.kill()
    owner.wait()
sys.exit(seen != STATED)
EOF

UCX_TLS=tcp UCX_LOG_LEVEL=fatal NIXL_LOG_LEVEL=FATAL PYTHONPATH="$work/site" \
  timeout 60 python3 -s "$work/reader.py" "$work/owner.py" || exit 1
