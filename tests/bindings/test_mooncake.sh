#!/usr/bin/env bash
# Mooncake's Python interface on the host backend, between real processes: runs the programs of tests/bindings/mooncake.
# Usage: tests/bindings/test_mooncake.sh ROOT LIBRARY
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$1
here=$root/tests/bindings/mooncake
export NVLX_LIBRARY=$2 NVLX_BACKEND=host NVLX_HOST_GPUS=2
export PYTHONPATH=$root/src/bindings/python PYTHONDONTWRITEBYTECODE=1
if ! python3 -c 'import ctypes, sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "SKIP: there is no python3 of 3.9 or newer with ctypes"
    exit 77
fi
for program in signatures calls lifetimes advice; do
    timeout 120 python3 -W error::ResourceWarning "$here/$program.py"
done

# The page's own line, where PYTHONPATH is what finds the package, as in a checkout.
line=$(grep -oE '^place=\$\(python -m nvlxfer.mooncake\) && PYTHONPATH=[^ ]*' "$root/src/bindings/python/README.md")
eval "${line/python -m/python3 -m} python3 -c 'import mooncake.engine, nvlxfer; assert nvlxfer.mooncake.engine is mooncake.engine'"
echo "ok: the line of the page"
