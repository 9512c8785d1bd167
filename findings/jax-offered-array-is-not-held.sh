#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# JAX's transfer server does not hold the array that it offers: the next donation takes it away.
#
# Versions: jax and jaxlib 0.10.2 (CPU), numpy 2.3.5, ml_dtypes 0.6.0, opt_einsum 3.4.0; two servers of
#   jax.experimental.transfer in one process. By hand also 0.12.0.1: the same.
# Expected: what was given to await_pull stays until it is pulled: its docstring says that it schedules
#   the arrays to be fetched. Other users of the memory are counted: an array of which a DLPack view
#   lives is not donated, and an array whose last name is gone can still be pulled.
# Seen 2026-11-29: a donation and delete() after await_pull go through at once, without an error or a
#   warning for the owner, and the donated memory is reused. pull returns an array, whose reading raises
#   JaxRuntimeError. An array of which no name is left is pulled right.
# Matters: a prefill worker offers its KV cache and goes on to the next step, which donates it. It sees
#   no error; the decode worker does, at the first use. Keep a copy until the pull is acknowledged.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" jax==0.10.2 jaxlib==0.10.2 ml_dtypes==0.6.0 \
  opt_einsum==3.4.0 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

JAX_PLATFORMS=cpu PYTHONPATH="$work/site" timeout 60 python3 -s - <<'EOF' 2>"$work/log" ||
import datetime
import os
import warnings
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import transfer

# after the offer: array deleted, its memory reused, pull, reading what was pulled
FAILS = ("an array", "JaxRuntimeError")
STATED = {
    "kept": (False, False, "an array", "right"),
    "no name left": (None, False, "an array", "right"),
    "a DLPack view held, donated": (False, False, "an array", "right"),
    "donated": (True, True, *FAILS),
    "deleted": (True, False, *FAILS),
}
COUNT = 1 << 16
device = jax.devices()[0]
update = jax.jit(lambda cache: cache.at[0].set(2), donate_argnums=0)
shape = jax.ShapeDtypeStruct((COUNT,), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device))


def server():
    return transfer.start_transfer_server(device.client, "127.0.0.1:0", ["127.0.0.1:0"])


def outcome(call):
    try:
        return call(), None
    except jax.errors.JaxRuntimeError as error:
        return None, type(error).__name__


owner, reader = server(), server()
connection, seen = reader.connect(owner.address()), {}
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    for uuid, name in enumerate(STATED, 1):
        cache = jnp.full(COUNT, 1.0).block_until_ready()
        address, reused, deleted, view, result = cache.unsafe_buffer_pointer(), False, None, None, None
        owner.await_pull(uuid, cache)
        if name.startswith("a DLPack view"):
            view = np.from_dlpack(cache)
        if name.endswith("donated"):
            result = update(cache).block_until_ready()
            reused = result.unsafe_buffer_pointer() == address
        elif name == "deleted":
            cache.delete()
        if name == "no name left":
            del cache
        else:
            deleted = cache.is_deleted()
        limit = datetime.datetime.now() + datetime.timedelta(seconds=8)
        pulled, error = outcome(lambda: connection.pull(uuid, shape, limit))
        got, wrong = outcome(lambda: np.asarray(pulled)) if error is None else (None, error)
        seen[name] = (deleted, reused, error or "an array",
                      wrong or ("right" if (got == 1).all() else "other numbers"))
        print(f"{name}: array deleted {deleted}, memory reused {reused}, pull gives {seen[name][2]}, "
              f"reading it: {seen[name][3]}", flush=True)
print(f"warnings: {len(warned)}", flush=True)
os._exit(seen != STATED or bool(warned))
EOF
  { tail -n 5 "$work/log"; exit 1; }
