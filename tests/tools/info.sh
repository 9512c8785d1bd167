#!/usr/bin/env bash
# nvlx_info: what it tells on the host backend, of GPUs where a stub is the driver, and to wrong arguments.
# Usage: tests/tools/info.sh NVLX_INFO STUB_DRIVER STUB_NVML
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
info=$1 driver=$2 nvml=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$driver" "$work/libcuda.so.1"
cp "$nvml" "$work/libnvidia-ml.so.1"
unset CUDA_VISIBLE_DEVICES NVLX_HOST_GPUS NVLX_LOG_LEVEL
export NVLX_BACKEND=host

fail() {
    echo "$1"
    cat "$work/output" "$work/errors"
    exit 1
}

# run CODE ARGUMENT...: what it prints is in output and errors.
run() {
    local expected=$1 code=0
    shift
    "$info" "$@" >"$work/output" 2>"$work/errors" || code=$?
    [[ $code == "$expected" ]] || fail "nvlx_info $*: exit code $code, not $expected"
}

# says LINE...: each is a whole line of the output, without the blanks before it.
says() {
    local line
    for line in "$@"; do
        grep -qxE " *(- )?$line" "$work/output" || fail "no line '$line'"
    done
}

run 0 --version
says "nvlx_info of libnvlxfer [0-9.]+"
for option in --help -h; do
    run 0 $option
    says "usage: nvlx_info .*"
done
run 2 --jsn
grep -q -- "--jsn" "$work/errors" || fail "the wrong option is not named"
run 2 gpus
grep -q "'gpus'" "$work/errors" || fail "the wrong argument is not named"
[[ ! -s $work/output ]] || fail "a wrong argument goes to stdout"

NVLX_HOST_GPUS=3 run 0
says "version: [0-9.]+" "library: /.*libnvlxfer.so.*" "protocol: [0-9.]+" "gpus: 3" "backend: host" "kind: pool" \
    "works: yes" "max requests: 4096" "open files: [0-9u].*" "NVLX_HOST_GPUS=3 .*" "NVLX_LOG_LEVEL is not set .*"
NVLX_BACKEND=hst run 1
says 'why not: NVLX_BACKEND is "hst": .*' "memory: none"
NVLX_BACKEND=hst run 1 --json
grep -q '"memory": \[\]' "$work/output" || fail "no list of memory where no backend runs"
for arguments in '' --json '--doctor --check environment' --checks --version --help; do
    code=0
    # shellcheck disable=SC2086 # words
    "$info" $arguments >/dev/full 2>"$work/errors" || code=$?
    [[ $code == 4 ]] || fail "nvlx_info $arguments >/dev/full: exit code $code, not 4"
    grep -q "cannot be written to stdout: No space" "$work/errors" || fail "nvlx_info $arguments >/dev/full is silent"
done

LD_LIBRARY_PATH=$work${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} STUB_DOWN=1 CUDA_VISIBLE_DEVICES=1 run 0
says "version: 580.0.stub" "cuda: 13.0" "ordinal: 0" "name: Stub 1" "uuid: GPU-a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1" \
    "memory: 80 GiB" "memory used: 1 GiB" "to: NVSwitch" "links: 3" "nvlink down: 1" "name: Stub 0" "mig: no"
LD_LIBRARY_PATH=$work${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} STUB_ACCESS=0 run 0 --json
if command -v python3 >/dev/null; then
    python3 - "$work/output" <<'END' || fail "the JSON is not as it should be"
import json, sys
told = json.load(open(sys.argv[1]))
assert [gpu["name"] for gpu in told["gpus"]] == ["Stub 0", "Stub 1"] and told["hidden_gpus"] == []
assert told["gpus"][0]["peer_access"] == [{"to": 1, "allowed": False}]
assert told["gpus"][1]["nvlink"] == [{"to": "NVSwitch", "links": 4, "version": 4}]
assert told["gpus"][0]["memory"] == 80 << 30 and told["backend"] == "host"
assert {kind["kind"]: kind["works"] for kind in told["memory"]} == dict(cuda_malloc=True, vmm=True, pool=True, host=True)
assert {"name", "value", "meaning", "read_by"} == set(told["environment"][0])
END
fi

# Whatever bytes a text has, and however long it is, the JSON is one that a parser takes.
long=$(printf '%3000s' x)
TMPDIR=$'\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \xff\xc3(\xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82'"$long" run 0 --json
if command -v python3 >/dev/null; then
    python3 - "$work/output" <<'END' || fail "bytes that are no UTF-8, or a long text, are not told as they should"
import json, sys
told = json.loads(open(sys.argv[1], "rb").read().decode("utf-8"))
value, = [entry["value"] for entry in told["environment"] if entry["name"] == "TMPDIR"]
lost = "\ufffd"
assert value == "\u00e9\u20ac\U0001f600 " + 2 * lost + "(" + 3 * lost + " " + 4 * lost + " " + 2 * lost + 2999 * " " + "x", ascii(value)
END
fi
echo "nvlx_info tells what it should"
