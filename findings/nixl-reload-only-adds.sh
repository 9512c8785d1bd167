#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Loading a NIXL peer's metadata again only adds ranges: what the peer withdrew stays known.
#
# Versions: nixl-cu13 1.5.1, numpy 2.3.5; backend UCX, host memory, two agents in one process.
# Expected: after add_remote_agent with the peer's newest metadata, which names one range, the
#   withdrawn one is unknown. The docstring of check_remote_metadata says that it tells whether
#   the descriptors' metadata is there; nothing says that a reload keeps the old ones.
# Seen 2026-11-28: the withdrawn range is reported as present after the reload, and a request on it
#   can be made (it is not posted here). remove_remote_agent, then add_remote_agent, forgets it.
# Matters: a reload is how an engine follows a peer whose buffers were freed or moved (sleep, wake,
#   new weights). To follow withdrawals it must remove the peer first, which also ends its requests.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" nixl-cu13==1.5.1 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

NIXL_LOG_LEVEL=FATAL PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import sys
import numpy as np
from nixl_cu13 import nixl_agent, nixl_agent_config

STATED = {
    "both registered": (True, True),
    "second withdrawn, metadata loaded again": (True, True),
    "peer removed, same metadata loaded": (True, False),
}

reader = nixl_agent("reader", nixl_agent_config(backends=["UCX"]))
owner = nixl_agent("owner", nixl_agent_config(backends=["UCX"]))
blocks = [np.zeros(4096, np.uint8) for _ in range(2)]
held = [owner.register_memory([(b.ctypes.data, 4096, 0, "")], "DRAM") for b in blocks]
ranges = [reader.get_xfer_descs([(b.ctypes.data, 4096, 0)], "DRAM") for b in blocks]
seen = {}


def look(when):
    seen[when] = tuple(reader.check_remote_metadata("owner", r) for r in ranges)
    print(f"{when}: known {seen[when]}")


reader.add_remote_agent(owner.get_agent_metadata())
look("both registered")

owner.deregister_memory(held[1])
newest = owner.get_agent_metadata()
reader.add_remote_agent(newest)
look("second withdrawn, metadata loaded again")

here = np.zeros(4096, np.uint8)
reader.register_memory([(here.ctypes.data, 4096, 0, "")], "DRAM")
local = reader.get_xfer_descs([(here.ctypes.data, 4096, 0)], "DRAM")
reader.initialize_xfer("READ", local, ranges[1], "owner").release()

reader.remove_remote_agent("owner")
reader.add_remote_agent(newest)
look("peer removed, same metadata loaded")
sys.exit(seen != STATED)
EOF
