#!/usr/bin/env bash
# The Python binding on the host backend, between real processes: runs the programs of tests/bindings/python.
# Usage: tests/bindings/test_python.sh ROOT LIBRARY
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$1
here=$root/tests/bindings/python
export NVLX_TEST_ROOT=$root NVLX_LIBRARY=$2 NVLX_BACKEND=host NVLX_HOST_GPUS=2
export PYTHONDONTWRITEBYTECODE=1
if ! python3 -c 'import ctypes, sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "SKIP: there is no python3 of 3.9 or newer with ctypes"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Compiled once, as when it is installed: some of the tests start many processes.
cp -rL "$root/src/bindings/python/nvlxfer" "$work"
python3 -m compileall -q "$work/nvlxfer"
export PYTHONPATH=$work:$here:$root/examples/python # and what the tests share

python3 "$here/tools/layout.py" "$root/include/nvlxfer.h" >"$work/layout.c"
"${CC:-cc}" -std=c11 -o "$work/layout" "$work/layout.c"
"$work/layout"

# A library before the library, which hangs on demand and aborts where freed objects are used.
"${CC:-cc}" -std=gnu11 -Wall -Wextra -Werror -shared -fPIC -pthread -I"$root/include" -o "$work/watch.so" \
    "$root/tests/bindings/watch.c" -Wl,--no-as-needed \
    "$NVLX_LIBRARY" -Wl,-rpath,"$(dirname "$NVLX_LIBRARY")"
export NVLX_WATCH=$work/watch.so

timeout 120 python3 -W error::ResourceWarning "$here/support.py" transfers/{binding,models,withdrawn,rows,signals,blocks,relays,publish,words} \
    memory/{arrays,regions,sleep,tensors,digest} notices/metrics
for program in lifetime/{lifetimes,closing,interrupt,threads,end} notices/{await,events,log}; do
    timeout 120 python3 -W error::ResourceWarning "$here/$program.py"
done

# ---- What of the PyTorch example needs no PyTorch --------------------------------------------------------------------

output=$(python3 "$root/examples/python/quickstart.py")
echo "$output"
[[ $output == "hello from the other process"* ]]
timeout 60 python3 "$root/examples/python/weights.py" 3 4
timeout 60 python3 "$root/examples/python/kv_cache.py" 100
python3 "$here/tools/example.py"
code=0
output=$(python3 "$root/examples/python/torch_two_gpu.py" --tensors 2 --bytes 1 2>&1) || code=$?
if [[ $code != 1 || $output != *"2 tensors of 64 to"* ]]; then
    echo "torch_two_gpu.py accepted 2 tensors of 1 byte: exit code $code, $output"
    exit 1
fi
echo "ok: torch_two_gpu.py, without PyTorch"
