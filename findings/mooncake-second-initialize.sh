#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A second initialize() of a Mooncake engine returns 0 and throws away its port and registrations.
#
# Versions: mooncake-transfer-engine-non-cuda 0.3.13.post1, with Debian 12's libibverbs1, libnl-3 and
#   libnuma1; protocol tcp with P2PHANDSHAKE, host memory, two engines in one process.
# Expected: an error, or nothing happens. Its docstring gives only the types.
# Seen 2026-11-28: the call returns 0. The engine then listens on another port, unregister_memory of
#   what was registered before returns -3, and a peer that knows the old "host:port" gets -1.
# Matters: two parts of one program that share an engine (KV cache and weights) each start it. The
#   second one cuts off the first one's peers and still reports success.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 80 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" mooncake-transfer-engine-non-cuda==0.3.13.post1 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }
# The wheel leaves these libraries to the system.
(
  cd "$work" && timeout 30 apt-get download libibverbs1=44.0-2 libnl-3-200=3.7.0-0.2+b1 \
    libnl-route-3-200=3.7.0-0.2+b1 libnuma1=2.0.16-1 || exit
  for package in *.deb; do dpkg -x "$package" root || exit; done
) >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }
machine=$(uname -m)-linux-gnu

LD_LIBRARY_PATH="$work/root/usr/lib/$machine:$work/root/lib/$machine" PYTHONPATH="$work/site" \
  timeout 60 python3 -s - <<'PROGRAM' 2>"$work/log" || { tail -n 5 "$work/log"; exit 1; }
import ctypes
import os
from mooncake.engine import TransferEngine

STATED = {
    "first initialize": 0,
    "peer's write": 0,
    "second initialize": 0,
    "the same port": False,
    "peer's write again": -1,
    "unregister_memory": -3,
}


def start(engine):
    return engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "")


mine, theirs = (ctypes.create_string_buffer(4096) for _ in range(2))
owner, peer = TransferEngine(), TransferEngine()
start(peer)
peer.register_memory(ctypes.addressof(theirs), 4096)

seen = {"first initialize": start(owner)}
owner.register_memory(ctypes.addressof(mine), 4096)
port = owner.get_rpc_port()


def write():
    return peer.transfer_sync_write(f"127.0.0.1:{port}", ctypes.addressof(theirs),
                                    ctypes.addressof(mine), 64)


seen["peer's write"] = write()
seen["second initialize"] = start(owner)
seen["the same port"] = owner.get_rpc_port() == port
seen["peer's write again"] = write()
seen["unregister_memory"] = owner.unregister_memory(ctypes.addressof(mine))
for name, what in seen.items():
    print(f"{name}: {what}", flush=True)
os._exit(seen != STATED)
PROGRAM
