#!/usr/bin/env bash
# What README.md, src/README.md and the pages of src/doc say is there: README quotes examples/quickstart.c to the letter;
# names, files, links, options and environment variables exist; programs compile. Both READMEs stay short, and the index
# of the pages has all of them.
# Usage: tests/source/readme.sh ROOT            checks the tree
#        tests/source/readme.sh --prove ROOT    breaks copies of the pages, and fails if that is not noticed
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

check_quote() {
    diff -u --label README.md --label examples/quickstart.c <(sed -n '/^```c$/,/^```$/ { /^```/!p }' README.md) \
        examples/quickstart.c
}

check_length() {
    local page=$1 lines
    lines=$(wc -l <"$page")
    ((lines < $2)) || { echo "$page has $lines lines: it must have fewer than $2" && return 1; }
}

# Every name in the source.
find_names() {
    grep -rhoE '[a-z0-9]+_[a-z0-9_]+' src include --include=*.{h,c,cc,cu} | sort -u
}

find_functions() {
    grep -rhoE '^[a-z].*[ *][a-z0-9_]+\(' src --include=*.{c,cc,cu} | sed -E 's/\($//; s/.*[ *]//' | sort -u
}

# Environment variables: environment.sh compares this page with the source.
find_variables() {
    sed -nE 's/^\| `(NVLX_[A-Z_]+)` \|.*/\1/p' src/doc/environment.md | sort -u
}

# Each parameter of the NIXL backend, and its variable, and the other way round.
check_nixl() {
    diff -u --label "src/bindings/nixl/README.md" --label "read" \
        <(grep -oE '`NVLX_NIXL_[A-Z_]+`' src/bindings/nixl/README.md | tr -d '`' | sort -u) \
        <({
            sed -n '/default_parameters() {/,/^}/p' src/bindings/nixl/entry/settings.cc | grep -oE '\{"[a-z_]+"' | tr -d '{"' |
                sed 's/.*/NVLX_NIXL_\U&/'
            grep -rhoE 'getenv\("NVLX_NIXL_[A-Z_]+"' src/bindings | grep -oE 'NVLX_[A-Z_]+'
        } | sort -u)
}

# Functions and structs are the header's, or tools; constants are the header's or options of CMake, errors its errors.
find_public_names() {
    {
        grep -oE '\bnvlx_[a-z0-9_]+( ?\(|;| \{)' include/nvlxfer.h | grep -oE '^[a-z0-9_]+'
        find src/tools -name 'nvlx_*.c' -exec basename {} .c \;
        grep -ohwE 'NVLX_([A-DF-Z][A-Z0-9_]*|EVENT_[A-Z_]+)' include/nvlxfer.h CMakeLists.txt
        sed -nE 's/^ *X\((E[A-Z]+),.*/NVLX_\1/p' include/nvlxfer.h
        cat "$work/variables"
    } | sort -u
}

check_names() {
    local page=$1 name missing=0
    while read -r name; do
        echo "$page names $name, which the header, CMakeLists.txt and the tools do not know"
        missing=1
    done < <(grep -oE '\b(nvlx_[a-z0-9_]+|NVLX_[A-Z0-9_]+)(\.\.\.)?' "$page" | grep -v '\.\.\.' | sort -u | comm -23 - "$work/public")
    return "$missing"
}

check_links() {
    local page=$1 file missing=0
    for file in $(grep -oE '\]\([^)]*\)' "$page" | tr -d '])(' | sed 's/#.*//'); do
        [[ -e $(dirname "$page")/$file ]] || { echo "$page links $file, which is not there" && missing=1; }
    done
    return "$missing"
}

# What stands in backticks, a line each, in lines from stdin.
quoted() {
    grep -oE '`[^`]+`' | tr -d '`'
}

# stands_in NAME FILE...: a function is defined in one of the files, any other name is in one of them.
stands_in() {
    local name=$1 definition="^[a-z].*[ *]$1\("
    shift
    if grep -qx "$name" "$work/functions"; then
        grep -qsE "$definition" "$@"
    else
        grep -qsw "$name" "$@"
    fi
}

# In src/README.md each file is there; what a table gives to files, or a text says to be in one, stands in it; any other
# name is in src.
check_source_names() {
    local name line words file files missing=0
    while read -r name; do
        [[ -e src/$name || -e $name || -n $(find src -name "$name") ]] ||
            { echo "src/README.md names the file $name, which is not there" && missing=1; }
    done < <(quoted <src/README.md | grep -E '^[a-z0-9_/]+(/[a-z0-9_.]+|\.[a-z]+)$' | sort -u)
    while IFS= read -r line; do
        words=$(quoted <<<"$line" | sed -nE 's/^(ops->)?([a-z0-9_]+)$/\2/p')
        mapfile -t files < <(quoted <<<"${line##* | }" | sed 's,^,src/,')
        for name in $words; do
            stands_in "$name" "${files[@]}" ||
                { echo "src/README.md looks for $name in ${files[*]}" && missing=1; }
        done
    done < <(sed -n '/^## The way/,/^## /p' src/README.md | grep -E '^\| .*`[a-z_/]+\.[a-z]+` \|$' | sed 's/ |$//')
    while read -r name file; do
        stands_in "$name" "src/$file" || { echo "src/README.md looks for $name in $file" && missing=1; }
    done < <(tr '\n' ' ' <src/README.md | grep -oE '`[a-z0-9_]+` in `[a-z0-9_/]+\.[a-z]+`' | tr -d '`' | sed 's/ in / /')
    while read -r name; do
        echo "src/README.md names $name, which is not in src"
        missing=1
    done < <(quoted <src/README.md | sed -nE 's/^(ops->)?([a-z0-9]+_[a-z0-9_]+)$/\2/p' | sort -u | comm -23 - "$work/names")
    return "$missing"
}

# What is in C or C++ compiles, in Python is Python, in JSON is JSON.
check_programs() {
    local page=$1 language number command code=0
    for language in c cpp python json; do
        case $language in
        c) command=(gcc -std=c11 -Wall -Wextra -Werror -fsyntax-only -Iinclude -xc -) ;;
        cpp) command=(g++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude -xc++ -) ;;
        python) command=(python3 -c 'import ast, sys; ast.parse(sys.stdin.read())') ;;
        json) command=(python3 -c 'import json, sys; json.load(sys.stdin)') ;;
        esac
        while read -r number; do
            if command -v "${command[0]}" >/dev/null && ! sed -n "$((number + 1)),\$ { /^\`\`\`\$/q; p }" "$page" | "${command[@]}" 2>"$work/said"; then
                echo "$page, line $number: what is $language there is not right: $(tail -n 3 "$work/said")"
                code=1
            fi
        done < <(grep -nx "\`\`\`$language" "$page" | cut -d : -f 1)
    done
    return "$code"
}

check_index() {
    local page missing=0
    for page in src/doc/*.md; do
        [[ $page == src/doc/README.md ]] || grep -qF "(${page##*/})" src/doc/README.md ||
            { echo "src/doc/README.md does not name ${page##*/}" && missing=1; }
    done
    return "$missing"
}

# Options of the programs that src/doc/performance.md tells of.
check_options() {
    local option missing=0
    while read -r option; do
        grep -qwE -- "\"?${option#--}\"?" src/tools/nvlx_perf.c examples/python/torch_two_gpu.py ||
            { echo "src/doc/performance.md names the option $option, which no program has" && missing=1; }
    done < <(grep -oE '(^|[ `(])--[a-z][a-z-]+' src/doc/performance.md | tr -d ' `(' | sort -u)
    return "$missing"
}

check() {
    local page failed=0
    check_quote || failed=1
    check_length README.md 200 || failed=1
    check_length src/README.md 120 || failed=1
    check_nixl || failed=1
    check_source_names || failed=1
    check_options || failed=1
    check_index || failed=1
    for page in "${pages[@]}"; do
        [[ -f $page ]] || { echo "there is no $page" && return 1; }
        check_names "$page" || failed=1
        check_links "$page" || failed=1
        check_programs "$page" || failed=1
    done
    ((failed)) || echo "what the READMEs quote and name is there"
    return "$failed"
}

# Changes a page in a copy of the tree by a sed command, which must make the check fail and name `words`.
prove() {
    local page=$1 change=$2 words=$3
    cp "$page" "$copy/$page"
    sed -i "$change" "$copy/$page"
    if (cd "$copy" && pages=("$page") && check) >"$work/output" || ! grep -qF -- "$words" "$work/output"; then
        echo "not noticed in $page: $change"
        failed=1
    fi
    cp "$page" "$copy/$page"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "${!#}"
pages=(README.md src/README.md src/doc/*.md)
find_names >"$work/names"
find_functions >"$work/functions"
find_variables >"$work/variables"
find_public_names >"$work/public"
check
if [[ $1 != --prove ]]; then
    exit
fi
failed=0
copy=$work/copy
mkdir "$copy"
cp -r README.md LICENSE CMakeLists.txt include examples findings src tests "$copy"
prove README.md 's/hello, GPU!/hello/' '+    char address'
prove README.md '1r LICENSE' 'fewer than 200'
prove README.md 's/nvlx_prepare/nvlx_prepares/' 'names nvlx_prepares'
prove README.md 's/NVLX_ESTALE/NVLX_EOLD/' 'names NVLX_EOLD'
prove README.md 's/NVLX_ALLOC_VMM/NVLX_VMM/' 'names NVLX_VMM'
prove README.md 's|(include/nvlxfer.h)|(include/nvlx.h)|' 'links include/nvlx.h'
prove src/bindings/nixl/README.md 's/`NVLX_NIXL_FOLDER`/none/' '+NVLX_NIXL_FOLDER'
prove src/doc/README.md 's/(order.md)/(tools.md)/' 'does not name order.md'
if command -v g++ >/dev/null; then
    prove src/doc/from_mooncake.md 's/nvlx::read_op/nvlx::make_read/' "'make_read' is not a member"
fi
prove src/doc/peers_die.md 's/event.kind/event.type/' "'struct nvlx_event' has no member named 'type'"
if command -v python3 >/dev/null; then
    prove src/doc/tensors.md 's/engine = Engine()/engine = Engine(/' 'what is python there'
    prove src/doc/formats.md 's/"suspended": \[\[/"suspended": [/' 'what is json there'
fi
prove src/doc/environment.md 's/`NVLX_EBACKEND`/`NVLX_EBACKENDS`/' 'names NVLX_EBACKENDS'
prove src/doc/tools.md 's|(environment.md)|(environments.md)|' 'links environments.md'
prove src/README.md '1r LICENSE' 'fewer than 120'
prove src/README.md 's/`nvlxi_validate_op` and `validate_sides`/`nvlxi_validate_ops` and `validate_sides`/' 'looks for nvlxi_validate_ops'
prove src/README.md 's|`device/cuda/kernel.c`|`device/cuda/lane.c`|' 'looks for nvlxi_cuda_copy_kernel'
prove src/README.md '/^| marked/s|transfer/submit.c|transfer/transfer.c|' 'looks for nvlxi_submit_end' # which only calls it
prove src/README.md 's|in `remote/mapping.c`|in `remote/peer.c`|' 'looks for close_mapping'
prove src/README.md 's/`drop_segment`/`drop_segments`/' 'names drop_segments'
prove src/README.md 's|`transfer/plan/plan.c`|`transfer/plans.c`|' 'names the file transfer/plans.c'
prove src/README.md 's|(../include/nvlxfer.h)|(include/nvlxfer.h)|' 'links include/nvlxfer.h'
prove src/doc/performance.md 's/--bidirectional/--both-ways/' 'option --both-ways'
prove src/doc/performance.md 's|(figures/speed.svg)|(speed.svg)|' 'links speed.svg'
prove src/doc/performance.md 's/nvlx_peer_map/nvlx_map/' 'names nvlx_map'
((failed)) || echo "every broken copy was noticed"
exit "$failed"
