#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Mooncake's store takes a float32 array, returns 0, and keeps a quarter of its bytes.
#
# Versions: mooncake-transfer-engine-non-cuda 0.3.13.post1, with Debian 12's libibverbs1, libnl-3 and
#   libnuma1; protocol tcp with P2PHANDSHAKE, mooncake_master and one client on 127.0.0.1.
# Expected: the bytes of the buffer, or an error. The signatures of put, upsert, put_batch and
#   upsert_batch name the type Buffer, which in Python may have elements of any size. The
#   documentation says bytes there, and bytes-like for put_parts.
# Seen 2026-11-29: each returns 0 and keeps as many bytes as the buffer has elements: 8 of the 32 of
#   eight float32, 8 of the 16 of eight 16-bit integers. put_parts raises RuntimeError for elements
#   above one byte. memoryview(buffer).cast("B") is stored right. By hand: numpy arrays alike, two
#   dimensions too.
# Matters: KV blocks and weights are put as arrays of 16 and 32 bits. Nothing is reported; the reader
#   finds an object that is too short. Cast to bytes, or use put_from.
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
chmod +x "$work/site/mooncake/mooncake_master"

LD_LIBRARY_PATH="$work/root/usr/lib/$machine:$work/root/lib/$machine" PYTHONPATH="$work/site" \
  timeout 40 python3 -s - "$work" <<'PROGRAM' 2>"$work/log" || { tail -n 5 "$work/log"; exit 1; }
import array
import os
import socket
import subprocess
import sys
import time
from mooncake.store import MooncakeDistributedStore

# call: for each value the code or the exception, the bytes kept, and whether they are right
WHOLE, REFUSED = (0, 8, True), ("RuntimeError", 0, False)
COUNTED = {"bytes": WHOLE, "float32": (0, 8, False), "int16": (0, 8, False),
           "float32 as bytes": (0, 32, True)}
STATED = {"put": COUNTED, "upsert": COUNTED, "put_batch": COUNTED, "upsert_batch": COUNTED,
          "put_parts": {**COUNTED, "float32": REFUSED, "int16": REFUSED}}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(port, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


numbers = array.array("f", range(8))
values = {"bytes": bytes(range(8)), "float32": numbers, "int16": array.array("h", range(8)),
          "float32 as bytes": memoryview(numbers).cast("B")}
port, metrics = free_ports(2)
store, seen = MooncakeDistributedStore(), {}
master = subprocess.Popen(
    [f"{sys.argv[1]}/site/mooncake/mooncake_master", "--rpc_address=127.0.0.1", f"--rpc_port={port}",
     "--metrics_host=127.0.0.1", f"--metrics_port={metrics}"], stdout=sys.stderr)
try:
    assert answers(port, 10), "the master does not listen"
    code = store.setup("127.0.0.1", "P2PHANDSHAKE", 32 << 20, 16 << 20, "tcp", "", f"127.0.0.1:{port}")
    assert code == 0, f"setup returned {code}"
    calls = {"put": store.put, "upsert": store.upsert,
             "put_batch": lambda key, value: store.put_batch([key], [value]),
             "upsert_batch": lambda key, value: store.upsert_batch([key], [value]),
             "put_parts": store.put_parts}
    for call, function in calls.items():
        seen[call] = {}
        for name, value in values.items():
            key = f"{call} {name}"
            try:
                result = function(key, value)
            except RuntimeError as error:
                result = type(error).__name__
            kept, wanted = store.get(key), memoryview(value).tobytes()
            seen[call][name] = (result, len(kept), kept == wanted)
            print(f"{call} of {name}: {len(wanted)} bytes given, result {result}, {len(kept)} kept, "
                  f"right {kept == wanted}", flush=True)
finally:
    master.kill()
    master.wait()
os._exit(seen != STATED)
PROGRAM
