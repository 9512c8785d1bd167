#!/usr/bin/env bash
# README quotes examples/quickstart.c to the letter, and each name and each file that it mentions exists.
# Usage: tests/source/readme.sh ROOT            checks the tree
#        tests/source/readme.sh --prove ROOT    breaks copies of README, and fails if that is not noticed
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

check_quote() {
    diff -u --label README.md --label examples/quickstart.c <(sed -n '/^```c$/,/^```$/ { /^```/!p }' README.md) \
        examples/quickstart.c
}

# Functions and constants are the header's; options are CMake's; variables are the scripts'; tools are programs.
check_names() {
    local name missing=0
    while read -r name; do
        if [[ $name == *... ]]; then
            continue
        elif [[ $name == nvlx_* && ! -f src/tools/$name.c ]] && ! grep -qE "\b$name( ?\(|;| \{)" include/nvlxfer.h; then
            echo "README.md names $name, which is neither in the header nor a tool"
        elif [[ $name == NVLX_E* ]] && ! grep -qE "\bX\(${name#NVLX_}," include/nvlxfer.h; then
            echo "README.md names $name, which is no error of the header's"
        elif [[ $name == NVLX_[!E]* ]] && ! grep -qwE "$name" include/nvlxfer.h CMakeLists.txt; then
            echo "README.md names $name, which neither the header nor CMakeLists.txt knows"
        else
            continue
        fi
        missing=1
    done < <(grep -oE '\b(nvlx_[a-z0-9_]+|NVLX_[A-Z0-9_]+)(\.\.\.)?' README.md | sort -u)
    return "$missing"
}

check_links() {
    local file missing=0
    for file in $(grep -oE '\]\([^)]*\)' README.md | tr -d '])('); do
        [[ -e $file ]] || { echo "README.md links $file, which is not there" && missing=1; }
    done
    return "$missing"
}

# Changes a copy of README by a sed command, which must make the check fail.
prove() {
    local copy
    copy=$(mktemp -d)
    cp -r README.md LICENSE CMakeLists.txt include examples src tests "$copy"
    sed -i "$1" "$copy/README.md"
    if cmp -s README.md "$copy/README.md" || "$self" "$copy" >/dev/null; then
        echo "not noticed: $1"
        failed=1
    fi
    rm -rf "$copy"
}

self=$(realpath "${BASH_SOURCE[0]}")
failed=0
if [[ $1 == --prove ]]; then
    cd "$2"
    "$self" .
    prove 's/hello, GPU!/hello/'
    prove 's/nvlx_export/nvlx_exports/'
    prove 's/NVLX_ESTALE/NVLX_EOLD/'
    prove 's/NVLX_NO_MAP/NVLX_MAP/'
    prove 's|(include/nvlxfer.h)|(include/nvlx.h)|'
    ((failed)) || echo "every broken copy was noticed"
else
    cd "$1"
    check_quote || failed=1
    check_names || failed=1
    check_links || failed=1
    ((failed)) || echo "what README quotes and names is there"
fi
exit "$failed"
