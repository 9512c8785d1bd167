#!/usr/bin/env bash
# Takes this project into another one by add_subdirectory: that must get the library, and not a build type, tools, tests,
# examples or installed files that it has not asked for; whatever it sets for its own files.
# Usage: tests/consumer/embed.sh ROOT CMAKE
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$1 cmake=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build=$work/build

# Shows what a command printed only if it fails.
quietly() {
    "$@" >"$work/log" 2>&1 || { cat "$work/log" && echo "failed: $*" && return 1; }
}

# installed PATTERN...: what is installed is one file for each pattern, and nothing else.
installed() {
    local pattern files
    rm -rf "$work/prefix"
    quietly "$cmake" --install "$build" --prefix "$work/prefix"
    files=$(cd "$work/prefix" && find . ! -type d | sort)
    for pattern in "$@"; do
        grep -q "$pattern" <<<"$files" || { echo "$pattern is not installed" && return 1; }
        files=$(grep -v "$pattern" <<<"$files" || true)
    done
    [[ -z $files ]] || { echo "installed without being asked for: $files" && return 1; }
}

quietly "$cmake" -S "$root/tests/consumer/embedding" -B "$build" -DNVLXFER_SOURCE="$root" -DNVLX_CUDA=OFF \
    -DCMAKE_UNITY_BUILD=ON -DCMAKE_C_EXTENSIONS=OFF -DCMAKE_CXX_EXTENSIONS=OFF
if grep '^CMAKE_BUILD_TYPE:.*=.' "$build/CMakeCache.txt"; then
    echo "the build type is forced on the project"
    exit 1
fi
quietly "$cmake" --build "$build" --parallel 2
if find "$build" -type f -executable ! -name '*.so*' ! -path '*/CMakeFiles/*' ! -name embedding | grep .; then
    echo "built without being asked for"
    exit 1
fi
"$build/embedding"
installed '^./bin/embedding$'
echo "the library alone, by default"

quietly "$cmake" -S "$root/tests/consumer/embedding" -B "$build" -DNVLX_TOOLS=ON -DNVLX_INSTALL=ON
quietly "$cmake" --build "$build" --parallel 2
installed '^./bin/embedding$' '^./bin/nvlx_info$' '^./bin/nvlx_perf$' '^./bin/nvlx_ping$' 'nvlxfer.h$' 'nvlxfer.hpp$' 'libnvlxfer\.so' 'cmake/nvlxfer/' 'nvlxfer.pc$' '/man/man1/' \
    '/man/man3/' '/doc/nvlxfer/'
echo "tools and installation, when asked for"

# A compiler for CUDA that is not there, or is none, is told by name.
printf '#!/bin/sh\nexit 3\n' >"$work/nvcc"
chmod +x "$work/nvcc"
for compiler in /nowhere/nvcc "$work/nvcc"; do
    if "$cmake" -S "$root" -B "$work/cuda" -DNVLX_TESTS=OFF -DCMAKE_CUDA_COMPILER="$compiler" >"$work/log" 2>&1 ||
        ! tr -s ' \n' ' ' <"$work/log" | grep "CMAKE_CUDA_COMPILER is '$compiler', which does not run" >/dev/null; then
        cat "$work/log"
        echo "CMAKE_CUDA_COMPILER=$compiler is not refused by name"
        exit 1
    fi
    rm -rf "$work/cuda"
done
echo "a compiler for CUDA that does not run is named"
