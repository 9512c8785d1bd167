#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# JAX does not donate an array whose memory somebody looks at by DLPack, and says nothing.
#
# Versions: jax and jaxlib 0.10.2 (CPU), numpy 2.3.5, ml_dtypes 0.6.0, opt_einsum 3.4.0. By hand also
#   0.12.0.1: the same.
# Expected: the result lies in the donated memory, or there is a warning or an error. JAX's page on
#   buffer donation promises a warning where a donated buffer is not used, and an error where the array
#   is used again; the docstring of jit says that it is marked deleted.
# Seen 2026-11-29: while a DLPack capsule, an array made of one, or numpy.asarray of the array lives, the
#   result of a function with donate_argnums lies elsewhere. The array is not deleted and can be read,
#   the view shows the old numbers, and no warning comes. With the address alone taken
#   (unsafe_buffer_pointer), with a copy, or with the view gone, the memory is reused. The next step,
#   of which there is no view, is donated, and stays at the new address.
# Matters: a KV cache that is updated by donation keeps its address, so it is exported once, and
#   registered. An export that is kept moves it at the next step, to memory that nobody registered, and
#   needs twice the memory; who reads the registered range gets the cache of before.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" jax==0.10.2 jaxlib==0.10.2 ml_dtypes==0.6.0 \
  opt_einsum==3.4.0 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

JAX_PLATFORMS=cpu PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' || exit 1
import sys
import warnings
import jax
import jax.numpy as jnp
import numpy as np

# held: donated into the same memory, array deleted, what the view shows after a 2 took the place of 1
REUSED, MOVED = (True, True), (False, False)
STATED = {
    "nothing": (*REUSED, None),
    "the address": (*REUSED, None),
    "a copy": (*REUSED, 1.0),
    "a DLPack capsule": (*MOVED, None),
    "numpy.from_dlpack": (*MOVED, 1.0),
    "jax.dlpack.from_dlpack": (*MOVED, 1.0),
    "numpy.asarray": (*MOVED, 1.0),
    "numpy.from_dlpack, let go": (*REUSED, None),
}


def let_go(cache):
    np.from_dlpack(cache)


update = jax.jit(lambda cache: cache.at[0].set(2), donate_argnums=0)
looks = {
    "nothing": lambda cache: None,
    "the address": lambda cache: cache.unsafe_buffer_pointer(),
    "a copy": np.array,
    "a DLPack capsule": lambda cache: cache.__dlpack__(),
    "numpy.from_dlpack": np.from_dlpack,
    "jax.dlpack.from_dlpack": jax.dlpack.from_dlpack,
    "numpy.asarray": np.asarray,
    "numpy.from_dlpack, let go": let_go,
}
seen = {}
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    for name, look in looks.items():
        cache = jnp.full(1 << 16, 1.0).block_until_ready()
        held, address = look(cache), cache.unsafe_buffer_pointer()
        result = update(cache).block_until_ready()
        shown = float(held[0]) if hasattr(held, "shape") else None
        seen[name] = (result.unsafe_buffer_pointer() == address, cache.is_deleted(), shown)
        print(f"held: {name}: same memory {seen[name][0]}, array deleted {seen[name][1]}"
              + (f", held shows {shown}, result {float(result[0])}" if shown else ""))
        del held, cache, result

    cache = jnp.full(1 << 16, 1.0).block_until_ready()
    view, addresses = np.from_dlpack(cache), [cache.unsafe_buffer_pointer()]
    for _ in range(3):
        cache = update(cache).block_until_ready()
        addresses.append(cache.unsafe_buffer_pointer())
steps = [addresses[i + 1] == addresses[i] for i in range(3)]
print(f"view of the first cache held, three steps: same memory as before {steps}")
print(f"warnings: {len(warned)}")
sys.exit(seen != STATED or steps != [False, True, True] or bool(warned))
EOF
