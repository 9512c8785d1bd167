#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# numpy's zero-copy pickle copies BF16 and FP8 arrays, and says nothing.
#
# Versions: numpy 2.3.5, ml_dtypes 0.6.0.
# Expected: with protocol 5 and a buffer_callback a contiguous array's bytes stay where they are and
#   travel as a buffer. The manual of pickle gives this as the way to move large data without
#   copies, and Ray's page on serialization builds on it: numpy arrays are shared on one node.
# Seen 2026-11-28: so it is for float16. For bfloat16, float8_e4m3fn and float8_e5m2 the callback is
#   not called: all bytes are copied into the stream, and the array made from it is another copy.
#   numpy offers these types in no buffer (memoryview raises ValueError), and its pickle falls back
#   without a word. A view of them as uint16 or uint8 travels as a buffer.
# Matters: most weights are BF16. A hand-over between processes that was tried with float32 and moved
#   nothing copies the real weights on both sides. Send the view, and the type's name.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" ml_dtypes==0.6.0 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import pickle
import sys
import ml_dtypes
import numpy as np

# type: memoryview, buffers beside the stream, data in the stream, result in the same memory
STATED = {
    "float16": ("works", 1, False, True),
    "bfloat16": ("ValueError", 0, True, False),
    "bfloat16 as uint16": ("works", 1, False, True),
    "float8_e4m3fn": ("ValueError", 0, True, False),
    "float8_e4m3fn as uint8": ("works", 1, False, True),
    "float8_e5m2": ("ValueError", 0, True, False),
    "float8_e5m2 as uint8": ("works", 1, False, True),
}
seen = {}


def view(array):
    try:
        memoryview(array)
        return "works"
    except ValueError:
        return "ValueError"


def look(name, array):
    buffers = []
    stream = pickle.dumps(array, protocol=5, buffer_callback=buffers.append)
    result = pickle.loads(stream, buffers=buffers)
    assert result.dtype == array.dtype and result.tobytes() == array.tobytes()
    seen[name] = (view(array), len(buffers), len(stream) >= array.nbytes,
                  result.ctypes.data == array.ctypes.data)
    print(f"{name}: memoryview {seen[name][0]}, {array.nbytes} bytes, {len(stream)} in the stream, "
          f"{len(buffers)} buffers, same memory {seen[name][3]}")


for kept, bits in ((np.float16, None), (ml_dtypes.bfloat16, np.uint16),
                   (ml_dtypes.float8_e4m3fn, np.uint8), (ml_dtypes.float8_e5m2, np.uint8)):
    weights = np.ones(1 << 20, kept)
    look(weights.dtype.name, weights)
    if bits:
        look(f"{weights.dtype.name} as {np.dtype(bits).name}", weights.view(bits))
sys.exit(seen != STATED)
EOF
