#!/usr/bin/env bash
# nvlx_ping visits an engine on the host backend: what it tells, that it writes nothing unless told, its exit codes; and
# links, where a stub is NVML.
# Usage: tests/tools/ping.sh NVLX_PING TESTS_FOLDER    (which has served, libstub_driver.so, libstub_nvml.so)
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
ping=$1 folder=$2
work=$(mktemp -d)
owner='' shut=''
trap '[[ -z $owner$shut ]] || kill -KILL ${owner:+"$owner"} ${shut:+"$shut"} 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/stub"
cp "$folder/libstub_driver.so" "$work/stub/libcuda.so.1"
cp "$folder/libstub_nvml.so" "$work/stub/libnvidia-ml.so.1"
unset "${!NVLX_@}" CUDA_VISIBLE_DEVICES
export NVLX_BACKEND=host
at=$work/socket

fail() {
    echo "FAILED: $1"
    cat "$work/output" "$work/errors"
    exit 1
}

# run CODE ARGUMENT...: what it prints is in output and errors.
run() {
    local expected=$1 code=0
    shift
    timeout 60 "$ping" "$@" >"$work/output" 2>"$work/errors" || code=$?
    [[ $code == "$expected" ]] || fail "nvlx_ping $*: exit code $code, not $expected"
}

# says LINE...: each is a whole line of the output, without the blanks before it.
says() {
    local line
    for line in "$@"; do
        grep -qxE " *(- )?$line" "$work/output" || fail "no line '$line'"
    done
}

# names WORDS: they are in the errors.
names() {
    grep -q -- "$1" "$work/errors" || fail "the errors do not say '$1'"
}

run 0 --version
says "nvlx_ping of libnvlxfer [0-9.]+"
run 0 -h
says "usage: nvlx_ping .*"
run 2
names "no address"
run 2 --bites 3 "$at"
names "--bites"
run 2 --bytes 3X "$at"
names "--bytes cannot be '3X'"
run 2 "$at" more
names "'more'"
run 2 --timeout 0 nobody
names 'nobody: .*"nobody" is neither an absolute path'
run 2 --gpu 7 --timeout 0 "$at"
names "--gpu: .*is 7, but there are 2 GPUs"
NVLX_BACKEND=hst run 5 --timeout 0 "$at"
names 'no engine can be made here: NVLX_BACKEND is "hst"'
NVLX_HOST_GPUS=99 run 5 --timeout 0 "$at"
run 1 --timeout 0 "$at"
names "nvlx_info --doctor --peer $at"

coproc OWNER { exec "$folder/served" "$at" 2>&1; }
owner=$OWNER_PID
exec 7<&"${OWNER[0]}" 8>&"${OWNER[1]}"
read -r line <&7
[[ $line == ready ]] || fail "the owner: $line"
changed() { # the owner tells whether any byte of its memory is another one than at first
    echo >&8
    read -r line <&7
    [[ $line == "$1" ]] || fail "the owner says '$line', not '$1'"
}

run 0 "$at"
says "address: $at" "pid: $owner" "backend: host" "engine: [0-9a-f]{32}" "weights: cuda_malloc, read, 1048576 bytes, GPU-.*" \
    "cache: vmm, read_write, 2097152 bytes, .*" "inbox: cuda_malloc, write, 4096 bytes, .*" "measured: cache" "mechanism: auto" \
    "by kernels: 2 MiB" "by engines: 2 MiB" "digest right: -" "why no digest: the peer has told none.*" "why not: NVML does not tell.*" "median us: [0-9.]+"
changed "0 bytes changed"
for arguments in --json --list --version; do
    code=0
    timeout 60 "$ping" "$arguments" --bytes 4K "$at" >/dev/full 2>"$work/errors" || code=$?
    [[ $code == 6 ]] || fail "nvlx_ping $arguments >/dev/full: exit code $code, not 6"
    names "cannot be written to stdout"
done
run 0 --region weights --bytes 2M "$at"
says "measured: weights" "digest right: yes"
run 0 --region weights --bytes 4K "$at"
says "digest right: -" "why no digest: 4096 bytes are read of the 1048576 .*"
run 3 --region inbox "$at"
names '"inbox" cannot be read: it does not grant reading'
run 3 --region none "$at"
names '"none"'
run 3 --write weights "$at"
names '"weights" does not grant'
run 0 --write cache --bytes 1M "$at"
says "writes:" "nvlink written:"
changed "0 bytes changed" # it has written what was there
run 0 --list "$at"
if grep -q "reads:" "$work/output"; then
    fail "--list measures"
fi

run 0 --stats "$at"
says 'nvlxfer_engine_info\{.*backend="host".*\} 1' "nvlxfer_regions 3"
if grep -qvE '^(#|nvlxfer_)' "$work/output"; then
    fail "--stats writes more than counts"
fi

export LD_LIBRARY_PATH=$work/stub${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
run 0 --bytes 4K "$at"
says "path: NVLink" "counted: 288 MiB" # 72 looks a question, at four links
STUB_TRAFFIC=0 run 0 --bytes 4K "$at"
says "path: not NVLink: .*" "counted: 0 bytes"
STUB_CRASH=1 run 0 --bytes 4K "$at"
says "why not: NVML does not tell.*"
run 0 --json "$at"
if command -v python3 >/dev/null; then
    python3 - "$work/output" <<'END' || fail "the JSON is not as it should be"
import json, sys
told = json.load(open(sys.argv[1]))
assert {region["name"]: region["access"] for region in told["regions"]} == dict(weights="read", cache="read_write", inbox="write")
assert [way["mechanism"] for way in told["reads"]] == ["auto", "copy_engine", "kernel"]
assert all(way["gb_per_s"] > 0 and way["bytes"] == 2 << 20 for way in told["reads"])
assert told["latency"]["median_us"] > 0 and told["nvlink_read"]["counted"] > 0
END
fi

# Where nothing may be read, it says so.
mkfifo "$work/input"
"$folder/served" "$at.shut" shut <>"$work/input" >"$work/shut" 2>&1 &
shut=$!
run 0 "$at.shut" # it waits for a server
says "measured: -" "why not measured: no region grants reading"
run 3 --stats "$at.shut"
names "--stats: .*does not tell"
kill -KILL "$shut"
wait "$shut" 2>/dev/null || true
shut=

# Wrong bytes: the owner changes them, and does not tell a new digest.
echo spoil >&8
read -r line <&7
run 4 --region weights "$at"
says "digest right: no"
kill -KILL "$owner"
wait "$owner" 2>/dev/null || true
owner=
run 1 --timeout 0 "$at"
echo "nvlx_ping tells what it should"
