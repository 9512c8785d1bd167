#!/usr/bin/env bash
# The example must be able to fail: told to lose the offsets, it finds 2 of 6 tensors correct and exits with 1.
# Usage: tests/tools/two_gpu_naive.sh TWO_GPU
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
code=0
output=$("$1" --naive) || code=$?
echo "$output"
last=${output##*$'\n'}
if [[ $code != 1 || $last != "2/6 tensors correct" ]]; then
    echo "exit code $code and last line '$last'; expected 1 and '2/6 tensors correct'"
    exit 1
fi
