#!/usr/bin/env bash
# The plugin in NIXL's own wheels, on the host backend, between real processes: program.py with each version that is
# given. A version that the plugin does not know must be refused with words.
# Usage: tests/bindings/nixl/wheels.sh ROOT LIBRARY PLUGIN CACHE VERSION...
#   CACHE  where wheels are unpacked, and looked for. Without a network and without them nothing is tried: exit code 77.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$1 library=$2 plugin=$3 cache=$4
shift 4
here=$root/tests/bindings/nixl
source "$root/tests/bindings/fetch.sh"
known='^1\.[0-5]\.[0-9]+$'

# with VERSION: the program, in that wheel.
with() {
    PYTHONPATH=$cache/$1:$cache/numpy:$cache/torch:$root/src/bindings/python \
        LD_PRELOAD=$preload timeout 100 python3 -s "$here/program.py" 2>&1
}

# try VERSION
try() {
    local code=0 output
    output=$(with "$1") || code=$?
    if [[ $1 =~ $known ]]; then
        [[ $code == 0 ]] || { printf '%s\nNIXL %s: exit code %s\n' "$output" "$1" "$code" && return 1; }
        tail -n 1 <<<"$output"
    else
        [[ $code == 1 && $output == *"NIXL $1 ("*") is not one that this plugin knows"* ]] ||
            { printf '%s\nNIXL %s was not refused\n' "$output" "$1" && return 1; }
        echo "ok: NIXL $1 is refused"
    fi
}

# bench VERSION: the benchmark, in that wheel; and in one that moves nothing, where its exit code must tell.
bench() {
    local packages=$cache/$1:$cache/numpy:$cache/torch:$root/src/bindings/python program=$here/bench.py code=0 there output
    [[ ! $1 =~ $known ]] && return
    for there in VRAM DRAM; do
        output=$(PYTHONPATH=$packages LD_PRELOAD=$preload timeout 100 python3 -s "$program" --there $there NVLX 64 1024 2>&1) ||
            { printf '%s\nthe benchmark in NIXL %s: exit code %s\n' "$output" "$1" "$?" && return 1; }
    done
    output=$(PYTHONPATH=$cache/idle:$packages LD_PRELOAD=$preload timeout 100 python3 -s "$program" NVLX 64 1024 2>&1) ||
        code=$?
    [[ $code == 1 && $output == *"WRONG BYTES"* ]] ||
        { printf '%s\nthe benchmark has not noticed wrong bytes: exit code %s\n' "$output" "$code" && return 1; }
}

# each COMMAND WORD...: COMMAND WORD of all, as many at a time as there are cores.
each() {
    printf '%s\n' "${@:2}" | xargs -P "$(nproc)" -I{} bash -c "set -euo pipefail; $1"
}

mkdir -p "$cache/torch" "$cache/plugins" "$cache/idle"
cp "$here/idle.py" "$cache/idle/nixl_cu13.py" # which the benchmark takes before nixl_cu12
echo 'class Tensor: ...' >"$cache/torch/torch.py" # NIXL before 1.4 imports it, and needs no more of it
ln -sf "$plugin" "$cache/plugins/libplugin_NVLX.so"
export root cache here known
export -f fetch with try bench
if ! prepare_fetch; then
    echo "SKIP: NIXL was not tried, there is no venv: $(tail -n 1 "$cache/python.log")"
    exit 77
fi
if ! fetch numpy numpy || ! each 'fetch {} nixl-cu12=={}' "$@"; then
    echo "SKIP: NIXL was not tried, its wheels cannot be had: $(grep -hi error "$cache"/*.log | tail -n 1)"
    exit 77
fi

# A plugin that is built with AddressSanitizer needs its runtime first. Python itself leaks.
preload=$(ldd "$plugin" | awk '/libasan/ { print $3 }')
[[ -z $preload ]] || preload="$preload $(ldd "$plugin" | awk '/libstdc\+\+/ { print $3 }')"
export NVLX_BACKEND=host NVLX_LIBRARY=$library NIXL_PLUGIN_DIR=$cache/plugins NIXL_LOG_LEVEL=FATAL PYTHONDONTWRITEBYTECODE=1
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1

export preload
each 'try {}' "$@"
bench "${!#}"
