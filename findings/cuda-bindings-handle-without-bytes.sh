#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# cuda-bindings: an IPC handle, made to be sent elsewhere, has no bytes, no pickle and no equality.
#
# Version: cuda-bindings 13.5.0, cuda-pathfinder 1.9.1; no driver needed.
# Expected: the type offers its 64 bytes as CUmemFabricHandle does with `data`. The C header has one
#   field of 64 bytes in either; the docstrings list `data` for one and only getPtr for the other.
# Seen 2026-11-28: CUipcMemHandle, CUipcEventHandle and cudaIpcMemHandle_t have only getPtr().
#   bytes() and pickle raise TypeError, and two objects with the same 64 bytes are unequal. The bytes
#   can be had by reading 64 of them at getPtr(). CUmemFabricHandle has `data`, the rest is alike.
# Matters: a cache of mappings keyed by the handle object never hits, so the peer's memory is opened
#   once more at each look; multiprocessing cannot send the object. Key and send the bytes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" cuda-bindings==13.5.0 cuda-pathfinder==1.9.1 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import ctypes
import pickle
import sys
from cuda.bindings import driver, runtime

STATED = {
    "CUipcMemHandle": (["getPtr"], "TypeError", "TypeError", False, True),
    "CUipcEventHandle": (["getPtr"], "TypeError", "TypeError", False, True),
    "cudaIpcMemHandle_t": (["getPtr"], "TypeError", "TypeError", False, True),
    "CUmemFabricHandle": (["data", "getPtr"], "TypeError", "TypeError", False, True),
}


def outcome(call, handle):
    try:
        call(handle)
        return "works"
    except TypeError:
        return "TypeError"


def filled(kind):
    handle = kind()
    ctypes.memmove(handle.getPtr(), bytes(range(64)), 64)
    return handle


seen = {}
for kind in (driver.CUipcMemHandle, driver.CUipcEventHandle, runtime.cudaIpcMemHandle_t,
             driver.CUmemFabricHandle):
    one, other = filled(kind), filled(kind)
    same = ctypes.string_at(one.getPtr(), 64) == ctypes.string_at(other.getPtr(), 64)
    members = [name for name in dir(one) if not name.startswith("_")]
    seen[kind.__name__] = (members, outcome(bytes, one), outcome(pickle.dumps, one),
                           one == other, same)
    print(f"{kind.__name__}: members {members}, bytes() {seen[kind.__name__][1]}, "
          f"pickle {seen[kind.__name__][2]}, equal {one == other}, same 64 bytes {same}")
sys.exit(seen != STATED)
EOF
