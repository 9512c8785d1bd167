#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# JAX asked for a copy hands out the same memory when the address is a multiple of 64.
#
# Versions: jax and jaxlib 0.10.2 (CPU), numpy 2.3.5, ml_dtypes 0.6.0, opt_einsum 3.4.0.
# Expected: jax.dlpack.from_dlpack(copy=True) and jax.device_put(may_alias=False) copy. Both
#   docstrings say that they do: the first even for the device that the data already lies on.
# Seen 2026-11-28: for a numpy array at a multiple of 64 both return an array over the caller's own
#   memory, and a later write of the caller shows in it. 16 bytes further the same calls copy, and
#   so does from_dlpack without `copy`. So the address decides, not the argument.
#   jax.numpy.array copies in both cases. (jax PR 38086, open in June, is about device_put alone.)
# Matters: a snapshot of a receive buffer, or of weights before the next pull lands in the buffer,
#   changes under its holder, depending on the allocator. Buffers made for transfers are aligned.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" jax==0.10.2 jaxlib==0.10.2 ml_dtypes==0.6.0 \
  opt_einsum==3.4.0 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

JAX_PLATFORMS=cpu PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import sys
import jax
import jax.numpy as jnp
import numpy as np

# The first number is what the array shows at a multiple of 64 after the buffer went from 1 to 2,
# the second one 16 bytes further. 1 means copied, 2 means shared.
STATED = {
    "from_dlpack(copy=True)": (2, 1),
    "from_dlpack()": (2, 1),
    "device_put(may_alias=False)": (2, 1),
    "jax.numpy.array": (1, 1),
}


def buffer(beyond):
    room = np.zeros(4096, np.uint8)
    start = -room.ctypes.data % 64 + beyond
    return room[start:start + 1024].view(np.float32)


def shown(make, beyond):
    mine = buffer(beyond)
    mine[:] = 1
    array = make(mine).block_until_ready()
    mine[:] = 2
    return int(array[0])


calls = {
    "from_dlpack(copy=True)": lambda a: jax.dlpack.from_dlpack(a, copy=True),
    "from_dlpack()": jax.dlpack.from_dlpack,
    "device_put(may_alias=False)": lambda a: jax.device_put(a, may_alias=False),
    "jax.numpy.array": jnp.array,
}
seen = {}
for name, call in calls.items():
    seen[name] = (shown(call, 0), shown(call, 16))
    print(f"{name}: written 1, then 2; shows {seen[name]}")
sys.exit(seen != STATED)
EOF
