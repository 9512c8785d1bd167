#!/usr/bin/env bash
# Builds with NVLX_STATIC_DEPS where glog cannot be fetched, or is another file: what to do instead ends the output.
# Usage: tests/consumer/fetch.sh ROOT CMAKE
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$1 cmake=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "int main(void) { return 0; }" >"$work/uthash.h"
cat >"$work/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(fetch LANGUAGES NONE)
include($root/cmake/dependencies.cmake)
END

# refused URL WORDS: it ends with words on why, and on what to do.
refused() {
    local code=0 output
    rm -rf "$work/build"
    output=$(timeout 50 "$cmake" -S "$work" -B "$work/build" -DNVLX_STATIC_DEPS=ON -DUTHASH_INCLUDE_DIR="$work" \
        -DNVLX_GLOG_URL="$1" 2>&1) || code=$?
    # CMake breaks lines where it likes.
    output=$(grep -A 99 "CMake Error" <<<"$output" | tail -n 25 | tr -s '[:space:]' ' ' || true)
    if [[ $code != 1 || $output != *"Cannot get $1"*"$2"*NVLX_STATIC_DEPS=OFF*NVLX_GLOG_URL=FILE*pip\ install* ]]; then
        echo "glog from $1: exit code $code, $output"
        exit 1
    fi
}

unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
refused http://127.0.0.1:1/glog.tar.gz "onnect"
refused "file://$work/CMakeLists.txt" "SHA256"
refused "file://$work/none" "ould"
echo "ok: what cannot be fetched is told with what to do"
