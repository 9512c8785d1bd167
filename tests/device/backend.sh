#!/usr/bin/env bash
# Who asks for no backend and gets software GPUs is told so once, and why: with no driver, with one that does not load, is
# too old or does not answer, and with a library that was built without CUDA.
# Usage: tests/device/backend.sh BACKEND_PROGRAM FAKE_DRIVER ON|OFF (whether the library was built with CUDA)
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
program=$1 driver=$2 with_cuda=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/fake" "$work/broken"
cp "$driver" "$work/fake/libcuda.so.1"
echo "not a library" >"$work/broken/libcuda.so.1"
unset NVLX_BACKEND NVLX_LOG_LEVEL

fail() {
    echo "$1:"
    cat "$work/output"
    exit 1
}

# expect WORDS [NAME=VALUE...]: the program gets the host backend, and one warning with the words.
expect() {
    local words=$1
    shift
    env "$@" "$program" >"$work/output" || fail "the program failed"
    [[ $(grep -c '^backend host$' "$work/output") == 2 ]] || fail "not the host backend"
    [[ $(grep -c '^log ' "$work/output") == 1 ]] || fail "not one message in the log"
    grep -q "^log 1: .*the cuda backend.*$words" "$work/output" || fail "the log does not say '$words'"
    grep -q '^a foreign pointer: .*not memory of the host backend' "$work/output" || fail "a pointer's refusal does not name the backend"
    [[ $(grep -c '^last error: ""$' "$work/output") == 2 ]] || fail "a call that succeeded left an error"
    echo "told: $words"
}

# Who asked for it is told nothing.
NVLX_BACKEND=host "$program" >"$work/output" || fail "the program failed"
if grep '^log ' "$work/output"; then
    fail "a message in the log, though NVLX_BACKEND says host"
fi

# A level that is none is told, once; nothing is said of one, or of none at all.
levels() {
    NVLX_BACKEND=host NVLX_LOG_LEVEL=$1 "$program" glog >"$work/output" 2>&1 || fail "the program failed"
    [[ $(grep -c 'NVLX_LOG_LEVEL is ' "$work/output") == "$2" ]] || fail "NVLX_LOG_LEVEL=$1 is not told $2 times"
}
for level in 9 4 -1 12 warning; do
    levels $level 1
    grep -q "NVLX_LOG_LEVEL is \"$level\"" "$work/output" || fail "the warning does not tell the value"
done
for level in 0 1 2 3 ''; do
    levels "$level" 0
done

if [[ $with_cuda != ON ]]; then
    expect "built without the cuda backend"
    exit
fi
if ! ldconfig -p | grep 'libcuda\.so\.1' >/dev/null; then
    expect "no NVIDIA driver found" LD_LIBRARY_PATH=
fi
expect "the NVIDIA driver's library does not load.*broken" LD_LIBRARY_PATH="$work/broken"
expect "the NVIDIA driver is for CUDA 11.4, older than" LD_LIBRARY_PATH="$work/fake" FAKE_DRIVER_VERSION=11040
expect "the cuda backend cannot run: unknown error" LD_LIBRARY_PATH="$work/fake" FAKE_DRIVER_VERSION=99000
