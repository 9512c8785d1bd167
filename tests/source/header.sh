#!/usr/bin/env bash
# The header compiles alone, included twice, as C11 and as C++11, by gcc and by clang, without a warning. In C++ no struct
# is hidden by a function of its name: each can be named without `struct`.
# Usage: tests/source/header.sh HEADER
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
header=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A program without a declaration of its own is pedantically wrong in C, hence the last line.
printf '#include "%s"\n#include "%s"\nint main(void) { return NVLX_OK; }\n' "$header" "$header" >"$work/alone.c"
cp "$work/alone.c" "$work/alone.cc"
grep -oE 'struct nvlx_[a-z_]+' "$header" | sort -u | sed 's/^struct \(.*\)$/extern \1 *pointer_to_\1;/' >>"$work/alone.cc"

compile() {
    if ! command -v "$1" >/dev/null; then
        echo "SKIP: $1 is not installed; the header was not tried with it"
        return
    fi
    "$@" -Wall -Wextra -Wpedantic -Werror -fsyntax-only
    echo "ok: $*"
}
compile gcc -std=c11 "$work/alone.c"
compile g++ -std=c++11 "$work/alone.cc"
compile clang -std=c11 "$work/alone.c"
compile clang++ -std=c++11 "$work/alone.cc"
