#!/usr/bin/env bash
# src/doc/environment.md has every environment variable that is read, and no other; so has the list that nvlx_info prints.
# src/doc/tools.md has every check of the doctor.
# Usage: tests/source/environment.sh ROOT            checks the tree
#        tests/source/environment.sh --prove ROOT    breaks copies of it, and fails if that is not noticed
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

# What the source, the Python package and the two commands read. All are named where they are read, except those of the
# backend for NIXL: each of its parameters has one.
find_variables() {
    {
        grep -rhoE 'getenv\("[A-Z_]+"' src --include=*.{c,cc,h}
        sed -n '/default_parameters() {/,/^}/p' src/bindings/nixl/entry/settings.cc | grep -oE '\{"[a-z_]+"' | tr -d '{"' |
            sed 's/.*/NVLX_NIXL_\U&/'
        grep -rhoE '(environ\.get\(|environ\[|getenv\()"[A-Z_]+"' src/bindings/python --include=*.py
        grep -hoE '\$\{NVLX_[A-Z_]+:[-+]' examples/run tests/run
    } | grep -oE '[A-Z_]{3,}' | sort -u
}

check() {
    local failed=0
    find_variables >"$work/read"
    sed -nE 's/^\| `([A-Z_]+)` \|.*/\1/p' src/doc/environment.md | sort >"$work/page"
    sed -nE 's/^ *\{"([A-Z_]+)", READER_.*/\1/p' src/tools/info/variables.c | sort >"$work/list"
    diff -u --label "read" --label "src/doc/environment.md" "$work/read" "$work/page" || failed=1
    diff -u --label "read" --label "src/tools/info/variables.c" "$work/read" "$work/list" || failed=1
    grep -hzoE '\{"[a-z_]+",[^}]*, check_' src/tools/doctor/*.c | tr '\0' '\n' | grep -oE '^\{"[a-z_]+' | tr -d '{"' | sort >"$work/checks"
    sed -n '/^## nvlx_info --doctor/,/^## /p' src/doc/tools.md | sed -nE 's/^\| `([a-z_]+)` \|.*/\1/p' | sort >"$work/told"
    diff -u --label "checks of the doctor" --label "src/doc/tools.md" "$work/checks" "$work/told" || failed=1
    ((failed)) || echo "$(wc -l <"$work/read") variables are read, and all are told"
    return "$failed"
}

# Changes a file in a copy of the tree by a sed command, which must make the check fail and name `words`.
prove() {
    cp "$1" "$copy/$1"
    sed -i "$2" "$copy/$1"
    if (cd "$copy" && check) >"$work/output" || ! grep -qF -- "$3" "$work/output"; then
        echo "not noticed in $1: $2"
        failed=1
    fi
    cp "$1" "$copy/$1"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "${!#}"
check
if [[ $1 != --prove ]]; then
    exit
fi
failed=0
copy=$work/copy
mkdir -p "$copy"
cp -r src examples tests "$copy"
prove src/doc/environment.md '/^| `NVLX_HOST_GPUS`/d' '-NVLX_HOST_GPUS'
prove src/doc/environment.md 's/^| `NVLX_BACKEND`/| `NVLX_BACKENDS`/' '+NVLX_BACKENDS'
prove src/tools/info/variables.c '/"NVLX_LOG_LEVEL"/d' '-NVLX_LOG_LEVEL'
prove src/device/host/host.c 's/getenv("NVLX_HOST_GPUS")/getenv("NVLX_SOFTWARE_GPUS")/' '-NVLX_SOFTWARE_GPUS'
prove src/bindings/nixl/entry/settings.cc 's/{"folder"/{"place"/' '-NVLX_NIXL_PLACE'
prove src/bindings/python/nvlxfer/_c/native.py 's/"NVLX_LIBRARY"/"NVLX_FILE"/' '-NVLX_FILE'
prove src/bindings/python/nvlxfer/mooncake/_sessions.py 's/environ.get("NVLX_MOONCAKE_FOLDER")/environ["NVLX_MOONCAKE_PLACE"]/' \
    '-NVLX_MOONCAKE_PLACE'
prove src/bindings/python/nvlxfer/mooncake/engine.py 's/"MC_TRANSFER_TIMEOUT"/"MC_PATIENCE"/' '-MC_PATIENCE'
prove src/doc/tools.md '/^| `nvlink`/d' '-nvlink'
((failed)) || echo "every broken copy was noticed"
exit "$failed"
