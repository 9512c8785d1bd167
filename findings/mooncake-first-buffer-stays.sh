#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# get_first_buffer_address of a Mooncake engine answers for ever what it answered first, 0 included.
#
# Versions: mooncake-transfer-engine-non-cuda 0.3.13.post1, with Debian 12's libibverbs1, libnl-3 and
#   libnuma1; protocol tcp with P2PHANDSHAKE, host memory, engines in one process. By hand also 0.3.14
#   (mooncake-transfer-engine-cuda13, over tcp): the same.
# Expected: the address of the peer's first buffer as it is now. Its documentation tells the address of
#   the first buffer in a segment, and of no moment.
# Seen 2026-11-28: asked before the peer has registered a buffer, it gives 0, and goes on to give 0 when
#   the peer has one, though the same engine reads that buffer. Asked after, it gives the address, and
#   goes on to give it when the peer has unregistered that buffer and registered another one.
# Matters: a reader that starts first and polls until the peer is ready waits for ever. One that asks
#   after the peer has replaced its buffer gets the address of what is gone.
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
import time
from mooncake.engine import TransferEngine

STATED = {
    "asked before": 0,
    "asked after": 0,
    "read of that address": 0,
    "asked after the read": 0,
    "asked for 5 s": 0,
    "asked by a new engine": "the address",
    "asked by it after another buffer took its place": "the old address",
    "write to the old address": -1,
    "and then": "the old address",
}


def started():
    engine = TransferEngine()
    engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "")
    return engine


def poll(engine, session, seconds):
    until = time.monotonic() + seconds
    while not (found := engine.get_first_buffer_address(session)) and time.monotonic() < until:
        time.sleep(0.1)
    return found


mine, theirs, other = (ctypes.create_string_buffer(4096) for _ in range(3))
local, first = ctypes.addressof(mine), ctypes.addressof(theirs)
owner, reader = started(), started()
session = f"127.0.0.1:{owner.get_rpc_port()}"
reader.register_memory(local, 4096)

seen = {"asked before": reader.get_first_buffer_address(session)}
owner.register_memory(first, 4096)
seen["asked after"] = reader.get_first_buffer_address(session)
seen["read of that address"] = reader.transfer_sync_read(session, local, first, 64)
seen["asked after the read"] = reader.get_first_buffer_address(session)
seen["asked for 5 s"] = poll(reader, session, 5)

late = started()
late.register_memory(local, 4096)
seen["asked by a new engine"] = late.get_first_buffer_address(session)
owner.unregister_memory(first)
owner.register_memory(ctypes.addressof(other), 4096)
seen["asked by it after another buffer took its place"] = late.get_first_buffer_address(session)
seen["write to the old address"] = late.transfer_sync_write(session, local, first, 64)
seen["and then"] = late.get_first_buffer_address(session)
for name, what in seen.items():
    if what == first:
        seen[name] = "the address" if name.endswith("engine") else "the old address"
    print(f"{name}: {seen[name]}", flush=True)
os._exit(seen != STATED)
PROGRAM
