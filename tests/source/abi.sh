#!/usr/bin/env bash
# The binary interface: programs that were built with the stored one run with this library. Functions, structs and their
# fields are compared by abidiff with src/api/interface/nvlxfer.abi, values of constants and structs that no function names with
# src/api/interface/nvlxfer.constants. New functions, new constants, and new fields at the end of structs with a size are no change.
#
# What is stored is the interface of the last release; before the first one, what was last stored on purpose. With a release,
# or with a change that programs must be told of (and a new soname, once there was a release), store it again:
#
# Usage: tests/source/abi.sh ROOT LIBRARY            compares; the library has debug information
#        tests/source/abi.sh --prove ROOT LIBRARY    breaks copies of what is stored, and fails if that is not noticed
#        tests/source/abi.sh --store ROOT LIBRARY    stores
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C
mode=compare
if [[ $1 == --* ]]; then
    mode=${1#--}
    shift
fi
root=$1 library=$2
stored=$root/src/api/interface/nvlxfer
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Of the public header alone. abidw and abidiff 2.2 crash on what else is in the library, so two dumps are compared.
dump() {
    abidw --headers-dir "$root/include" --drop-private-types --exported-interfaces-only --no-corpus-path --no-comp-dir-path \
        --no-show-locs --type-id-style hash --out-file "$1" "$library"
}

# Each constant and its value, and where the fields are of structs that no function has as an argument.
constants() {
    local header=$root/include/nvlxfer.h
    {
        echo '#include <nvlxfer.h>'
        echo '#include <stdio.h>'
        printf '%s\n' '#define TELL(name) printf("%s %lld\n", #name, (long long)(name));'
        echo 'int main(void) {'
        "${CC:-cc}" -E -P "$header" | tr '\n' ' ' | grep -oE '\benum *\{[^}]*\}' | grep -oE '\bNVLX_[A-Z0-9_]+' | sort -u |
            sed 's/.*/TELL(&)/'
        echo 'TELL(sizeof(struct nvlx_rows)) TELL(offsetof(struct nvlx_rows, count))'
        echo 'TELL(offsetof(struct nvlx_rows, local_pitch)) TELL(offsetof(struct nvlx_rows, remote_pitch))'
        echo '}'
    } >"$work/constants.c"
    "${CC:-cc}" -I"$root/include" "$work/constants.c" -o "$work/constants"
    "$work/constants" | sort
}

# A line for each field: its struct, offset, name and type. Versions of abidw differ in how they number types.
fields() {
    awk 'function get(key) { return match($0, " " key "=.[^\047]*") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : "" }
        function spell(id) { return id in name ? name[id] : shape[id] " of " spell(of[id]) }
        / id=/ { id = get("id"); if (get("name") != "") name[id] = get("name"); else { of[id] = get("type-id"); shape[id] = $1 (/<array/ ? get("size-in-bits") : "") } }
        /<class-decl/ { struct = get("name") }
        /<data-member/ { offset = get("layout-offset-in-bits") }
        /<var-decl/ && offset != "" { field[++count] = struct " " offset " " get("name"); type[count] = get("type-id"); offset = "" }
        END { for (i = 1; i <= count; i++) print field[i], spell(type[i]) }' "$1" | sort
}

# compare ABI CONSTANTS: what is stored with what is.
compare() {
    local failed=0
    abidiff --no-added-syms --suppressions "$root/tests/source/abi.suppr" "$1" "$work/now.abi" || failed=1
    comm -23 <(fields "$1") <(fields "$work/now.abi") | grep . && echo "these fields are not as they were" && failed=1
    comm -23 "$2" "$work/now.constants" | grep . && echo "these constants are not as they were" && failed=1
    return "$failed"
}

# prove NAME SED: a stored interface that is changed so differs from the one that is.
prove() {
    sed -E "$2" "$stored.abi" >"$work/broken.abi"
    sed -E "$2" "$stored.constants" >"$work/broken.constants"
    if cmp -s "$stored.abi" "$work/broken.abi" && cmp -s "$stored.constants" "$work/broken.constants"; then
        echo "$1: nothing was broken" && return 1
    fi
    if compare "$work/broken.abi" "$work/broken.constants" >"$work/log" 2>&1; then
        echo "$1: not noticed" && return 1
    fi
}

if ! command -v abidw >/dev/null; then
    echo "SKIP: abidw is not installed (Debian: abigail-tools)"
    exit 77
fi
if ! readelf --wide --section-headers "$library" | grep ' \.debug_info ' >/dev/null; then
    echo "SKIP: the library has no debug information"
    exit 77
fi
dump "$work/now.abi"
constants >"$work/now.constants"
if [[ $mode == store ]]; then
    cp "$work/now.abi" "$stored.abi"
    cp "$work/now.constants" "$stored.constants"
    exit
fi
architecture=$(sed -n "s/.*<abi-corpus .*architecture='\([^']*\)'.*/\1/p" "$stored.abi")
[[ -n $architecture ]] || { echo "$stored.abi is no interface" && exit 1; }
if ! grep -q "architecture='$architecture'" "$work/now.abi"; then
    echo "SKIP: the stored interface is that of $architecture"
    exit 77
fi
compare "$stored.abi" "$stored.constants" || {
    echo "programs that were built with src/api/interface/nvlxfer.abi do not run with this library: see tests/source/abi.sh"
    exit 1
}
if [[ $mode == prove ]]; then
    prove "a function that is gone" "s/nvlx_check\b/nvlx_checked/"
    prove "an argument of another type" "/'nvlx_gpu_count'/,/<\/function-decl/ s/(parameter type-id=')[0-9a-f]+(' name='backend')/\195e97e5e\2/"
    prove "a field that was moved" "s/layout-offset-in-bits='288'/layout-offset-in-bits='320'/"
    prove "a field of another type" "s/(var-decl name='max_sms' type-id=')[0-9a-f]+/\195e97e5e/"
    prove "a longer array element" "/class-decl name='nvlx_op' / s/size-in-bits='[0-9]+'/size-in-bits='320'/"
    prove "another soname" "s/soname='libnvlxfer.so.0'/soname='libnvlxfer.so.7'/"
    prove "a constant of another value" "s/^NVLX_ESTALE .*/NVLX_ESTALE -3/"
    prove "another struct that no function names" "s/^(sizeof\(struct nvlx_rows\)) .*/\1 32/"
    # What may come is no change.
    sed -E "/^NVLX_EVENT_MESSAGE /d" "$stored.constants" >"$work/older.constants"
    awk -v field="'list_memory'" '/class-decl name=.nvlx_config. / { sub(/size-in-bits=.[0-9]+/, "size-in-bits='\''320") }
        /<data-member/ { held = $0 "\n"; next } held != "" && index($0, field) { held = ""; getline; next } { printf "%s", held; held = ""; print }
        ' "$stored.abi" | sed "/elf-symbol name='nvlx_hold'/d; /<function-decl name='nvlx_hold'/,/<\/function-decl/d" >"$work/older.abi"
    if cmp -s "$stored.abi" "$work/older.abi"; then
        exit 1
    fi
    compare "$work/older.abi" "$work/older.constants" >"$work/log" 2>&1 || { cat "$work/log" && echo "what may come was refused" && exit 1; }
fi
echo "the interface is that of src/api/interface/nvlxfer.abi, or longer"
