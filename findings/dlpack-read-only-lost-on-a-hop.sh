#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Memory that must not be written arrives writable when DLPack takes one hop more.
#
# Versions: pyarrow 26.0.1, apache-tvm-ffi 0.1.15.post2, numpy 2.3.5.
# Expected: an Arrow array over immutable bytes stays read-only for each consumer, or a consumer
#   that cannot be told so gets an error. DLPack has had a read-only flag since 1.0, and numpy
#   refuses to export a read-only array to a consumer that asks without a version.
# Seen 2026-11-28: numpy from pyarrow: read-only. numpy from tvm_ffi from pyarrow: writable, at the
#   same address. tvm_ffi asks without a version, pyarrow then hands out an unflagged capsule, and
#   tvm_ffi exports it in the versioned form with no flag. The same path begun by a read-only numpy
#   array raises BufferError. (Nothing is written here.)
# Matters: who writes received bytes into an array that came by DLPack cannot rely on the flag: it
#   says what the last library was told. Read-only mappings of a peer's memory need it most.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" pyarrow==26.0.1 apache-tvm-ffi==0.1.15.post2 \
  typing_extensions==4.16.0 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import sys
import numpy as np
import pyarrow as pa
import tvm_ffi

STATED = {
    "arrow buffer mutable": False,
    "numpy from pyarrow writable": False,
    "numpy from tvm_ffi from pyarrow writable": True,
    "the same address": True,
    "tvm_ffi from read-only numpy": "BufferError",
}

memory = pa.py_buffer(np.arange(4, dtype=np.float64).tobytes())
arrow = pa.Array.from_buffers(pa.float64(), 4, [None, memory])
direct = np.from_dlpack(arrow)
hop = np.from_dlpack(tvm_ffi.from_dlpack(arrow))
seen = {
    "arrow buffer mutable": memory.is_mutable,
    "numpy from pyarrow writable": direct.flags.writeable,
    "numpy from tvm_ffi from pyarrow writable": hop.flags.writeable,
    "the same address": hop.ctypes.data == memory.address,
}
frozen = np.arange(4.0)
frozen.flags.writeable = False
try:
    tvm_ffi.from_dlpack(frozen)
    seen["tvm_ffi from read-only numpy"] = "taken"
except BufferError:
    seen["tvm_ffi from read-only numpy"] = "BufferError"
for name, what in seen.items():
    print(f"{name}: {what}")
sys.exit(seen != STATED)
EOF
