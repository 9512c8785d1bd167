#!/usr/bin/env bash
# kv_stream --no-wait: decode does not wait for the signals, and must find that every word is wrong.
# Usage: tests/tools/kv_stream_red.sh KV_STREAM
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
code=0
output=$("$1" --no-wait --layers 4 --blocks 10 --block-kib 4 --rounds 1) || code=$?
echo "$output"
words=$((4 * 4 * 10 * 4 * 1024 / 4)) # of 4 layers in each of 4 passes
if [[ $code != 1 || $output != *"decode: 16 layers in 4 passes, $words words are wrong"* ]]; then
    echo "exit code $code: that $words words are wrong was to be found"
    exit 1
fi
