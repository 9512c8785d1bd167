#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# NIXL's two wheels understand each other's metadata, but not each other's descriptors.
#
# Versions: nixl-cu12 and nixl-cu13 1.5.1, numpy 2.3.5; backend UCX, host memory, two processes.
# Expected: get_serialized_descs of one peer, deserialize_descs of the other. Their docstrings speak of
#   a serialized NIXL list, and NIXL's example of two peers sends one over.
# Seen 2026-11-29: between nixl-cu12 and nixl-cu13 of one version deserialize_descs raises
#   ModuleNotFoundError, either way: what was sent names the module of its own wheel. With both
#   installed, as the package nixl does, it raises ImportError: the second wheel cannot be loaded
#   beside the first. Metadata and a read from the same peer work.
# Matters: an engine on CUDA 12 and a store of KV cache on CUDA 13 on one node connect, and stop at the
#   first list of blocks. Send addresses and lengths as plain numbers.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for package in nixl-cu12==1.5.1 nixl-cu13==1.5.1 numpy==2.3.5; do
  timeout 50 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
    --target "$work/${package%%=*}" "$package" >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }
done

cat >"$work/owner.py" <<'EOF'
import importlib
import sys
import numpy as np

nixl = importlib.import_module(sys.argv[1])
agent = nixl.nixl_agent("owner", nixl.nixl_agent_config(backends=["UCX"]))
block = np.full(4096, 7, np.uint8)
agent.register_memory([(block.ctypes.data, 4096, 0, "")], "DRAM")
descriptors = agent.get_xfer_descs([(block.ctypes.data, 4096, 0)], "DRAM")
print(block.ctypes.data, agent.get_agent_metadata().hex(),
      agent.get_serialized_descs(descriptors).hex(), flush=True)
sys.stdin.read()  # until the reader has all it wants
EOF

cat >"$work/reader.py" <<'EOF'
import importlib
import os
import subprocess
import sys
import time
import numpy as np

mine, theirs, their_path, program = sys.argv[1:]
nixl = importlib.import_module(mine)
owner = subprocess.Popen([sys.executable, "-s", program, theirs], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True,
                         env={**os.environ, "PYTHONPATH": their_path})
try:
    address, metadata, descriptors = owner.stdout.readline().split()
    plain, sent = (int(address), 4096, 0), bytes.fromhex(descriptors)
    agent = nixl.nixl_agent("reader", nixl.nixl_agent_config(backends=["UCX"]))
    agent.add_remote_agent(bytes.fromhex(metadata))
    try:
        received = agent.deserialize_descs(sent)[0] == plain
    except ImportError as error:
        received = type(error).__name__

    here = np.zeros(4096, np.uint8)
    agent.register_memory([(here.ctypes.data, 4096, 0, "")], "DRAM")
    request = agent.initialize_xfer("READ", agent.get_xfer_descs([(here.ctypes.data, 4096, 0)], "DRAM"),
                                    agent.get_xfer_descs([plain], "DRAM"), "owner")
    state, end = agent.transfer(request), time.monotonic() + 10
    while state == "PROC" and time.monotonic() < end:
        state = agent.check_xfer_state(request)
    print(f"descriptors {received}, read by plain numbers {state}, bytes right {bool((here == 7).all())}")
finally:
    owner.kill()
    owner.wait()
EOF

# look READER OWNER [BESIDE]: a reader with one wheel, and another installed beside it if named
look() {
  echo -n "$1 reads from $2${3:+, $3 installed too}: "
  PYTHONPATH="$work/$1:${3:+$work/$3:}$work/numpy" timeout 30 python3 -s "$work/reader.py" "${1/-/_}" \
    "${2/-/_}" "$work/$2:$work/numpy" "$work/owner.py" 2>"$work/log" || tail -n 3 "$work/log"
}

export NIXL_LOG_LEVEL=FATAL UCX_LOG_LEVEL=fatal
{
  look nixl-cu13 nixl-cu13
  look nixl-cu13 nixl-cu12
  look nixl-cu12 nixl-cu13
  look nixl-cu13 nixl-cu12 nixl-cu12
} | tee "$work/seen"

rest="read by plain numbers DONE, bytes right True"
diff "$work/seen" - <<EOF || exit 1
nixl-cu13 reads from nixl-cu13: descriptors True, $rest
nixl-cu13 reads from nixl-cu12: descriptors ModuleNotFoundError, $rest
nixl-cu12 reads from nixl-cu13: descriptors ModuleNotFoundError, $rest
nixl-cu13 reads from nixl-cu12, nixl-cu12 installed too: descriptors ImportError, $rest
EOF
