#!/usr/bin/env bash
# The examples with PyTorch and Transformers, on the host backend: values and tokens are right, and wrong without waiting.
# Usage: tests/bindings/test_torch.sh ROOT LIBRARY stream|handover
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export NVLX_LIBRARY=$2 NVLX_BACKEND=host NVLX_HOST_GPUS=2 PYTHONPATH=$1/src/bindings/python
export PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
if ! python3 -c 'import ctypes, sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "SKIP: there is no python3 of 3.9 or newer with ctypes"
    exit 77
fi
less=()
case $3 in
    stream)
        command=(timeout 100 python3 "$1/examples/python/kv_stream_torch.py" --layers 4 --mib 1 --rounds 3)
        right="decode on cpu: 32 layers, 0 words are wrong"
        wrong="decode on cpu: 32 layers, $((32 << 18)) words are wrong"
        ;;
    handover)
        command=(timeout 180 python3 "$1/examples/python/kv_handover_transformers.py")
        right="prompt 1 of 101 tokens: 64 of 64 tokens are those of one process"
        wrong="of 8 tokens are those of one process"
        less=(--tokens 8)
        ;;
    *) exit 2 ;;
esac
code=0
output=$("${command[@]}") || code=$?
echo "$output"
((code != 77)) || exit 77
if [[ $code != 0 || $output != *"$right"* ]]; then
    echo "exit code $code: '$right' was expected"
    exit 1
fi
code=0
output=$("${command[@]}" --no-wait "${less[@]}") || code=$?
echo "$output"
if [[ $code != 1 || $output != *"$wrong"* || $output == *"8 of 8"* ]]; then
    echo "exit code $code: without waiting, what was not there should have been found wrong"
    exit 1
fi
