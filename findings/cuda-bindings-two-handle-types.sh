#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# cuda-bindings: properties that ask for two kinds of handle can be written, but not read.
#
# Version: cuda-bindings 13.5.0, cuda-pathfinder 1.9.1; no driver needed.
# Expected: what was put into the field comes out. The docstrings call the values of
#   CUmemAllocationHandleType flags, speak of a pool's handle types in the plural, and call the same
#   values in CUmulticastObjectProp a bitmask. ncclMemAlloc asks for both kinds in one number.
# Seen 2026-11-28: CUmemAllocationProp, CUmemPoolProps and cudaMemPoolProps take "descriptor or
#   fabric", and the memory holds 9. Reading the field raises ValueError, as 9 is no member of the
#   enumeration, and str() shows <ValueError> there. CUmulticastObjectProp gives 9.
# Matters: who asks imported memory for its properties, to see how it can be shared further, gets the
#   exception only where the exporter asked for fabric as well, and not on a machine without it. Read
#   the number at getPtr() + 4.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" cuda-bindings==13.5.0 cuda-pathfinder==1.9.1 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import ctypes
import sys
from cuda.bindings import driver, runtime

# structure: what the field gives after one kind and after both, the number in memory, str()
STATED = {
    "CUmemAllocationProp": (8, "ValueError", 9, "<ValueError>"),
    "CUmemPoolProps": (8, "ValueError", 9, "<ValueError>"),
    "cudaMemPoolProps": (8, "ValueError", 9, "<ValueError>"),
    "CUmulticastObjectProp": (8, 9, 9, "9"),
}
DRIVER, RUNTIME = driver.CUmemAllocationHandleType, runtime.cudaMemAllocationHandleType
DESCRIPTOR = DRIVER.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
FABRIC = DRIVER.CU_MEM_HANDLE_TYPE_FABRIC
assert DESCRIPTOR == RUNTIME.cudaMemHandleTypePosixFileDescriptor
assert FABRIC == RUNTIME.cudaMemHandleTypeFabric


def read(properties, field):
    try:
        return int(getattr(properties, field))
    except ValueError:
        return "ValueError"


seen = {}
for kind, field, offset in ((driver.CUmemAllocationProp, "requestedHandleTypes", 4),
                            (driver.CUmemPoolProps, "handleTypes", 4),
                            (runtime.cudaMemPoolProps, "handleTypes", 4),
                            (driver.CUmulticastObjectProp, "handleTypes", 16)):
    properties = kind()
    setattr(properties, field, FABRIC)
    one = read(properties, field)
    setattr(properties, field, DESCRIPTOR | FABRIC)
    memory = ctypes.c_uint32.from_address(int(properties.getPtr()) + offset).value
    shown = dict(line.split(" : ") for line in str(properties).splitlines() if " : " in line)[field]
    seen[kind.__name__] = (one, read(properties, field), memory, shown)
    print(f"{kind.__name__}: one kind gives {one}, both give {seen[kind.__name__][1]}, "
          f"in memory {memory}, str() shows {shown}")
sys.exit(seen != STATED)
EOF
