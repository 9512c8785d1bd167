#!/usr/bin/env bash
# The manual pages say what the header and the tools say: each function and struct has a page, each word of the header is in one, and
# each option of a tool in its own. mandoc, where it is there, finds no error and nothing to warn of.
# Usage: tests/tools/man.sh ROOT FOLDER_WITH_PAGES TOOL...
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C
root=$1 pages=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

words() {
    grep -oE '[A-Za-z_][A-Za-z0-9_]{2,}' | tr '[:upper:]' '[:lower:]' | sort -u
}

# check_pages FOLDER: of section 3.
check_pages() {
    local name missing
    while read -r name; do
        grep -qE "^\.SS (.*, )?$name(,|$)" "$1/$name.3" || { echo "$name has no page" && return 1; }
    done < <(sed -n '/global:/,/local:/ s/^ *\([a-z_0-9]*\);$/\1/p' "$root/src/api/interface/nvlxfer.map")
    while read -r name; do
        grep -qE "struct $name|^The struct of this name" "$1/$name.3" || { echo "struct $name has no page" && return 1; }
    done < <(sed -n 's/^struct \(nvlx_[a-z_]*\) {$/\1/p' "$root/include/nvlxfer.h")
    # What follows the last section, and the frame of the file, are no part of the manual.
    missing=$(comm -23 <(sed -e '/^#ifndef NVLXFER_H$/,/^\/\* ==== Simple/d' -e '/^#ifdef __GNUC__$/,$d' -e '/SPDX/d' \
        -e '/^\/\* ==== /d' -e '/^static inline /,/^}/d' "$root/include/nvlxfer.h" | words) \
        <(cat "$1"/*.3 | sed 's/\\-/-/g' | words))
    [[ -z $missing ]] || { echo "in no page: ${missing//$'\n'/ }" && return 1; }
}

check_pages "$pages/man3"
for tool in "$@"; do
    page=$pages/man1/${tool##*/}.1
    options=$("$tool" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u)
    for option in $options; do
        sed 's/\\-/-/g' "$page" | grep -wE -- "$option" >/dev/null || { echo "$page has not $option" && failed=1; }
    done
    grep -q '^\.SH EXIT STATUS' "$page" || { echo "$page tells no exit codes" && failed=1; }
done

# What is not noticed would be a function without a comment's text, or a help of another form.
mkdir "$work/man3"
sed 's/^int nvlx_hold(/int nvlx_held(/' "$root/include/nvlxfer.h" >"$work/nvlxfer.h"
awk -v folder="$work/man3" -v date=2000-01-01 -v version=0 -f "$root/cmake/man3.awk" "$work/nvlxfer.h"
if check_pages "$work/man3" >"$work/log" 2>&1 || ! grep -q 'nvlx_hold' "$work/log"; then
    echo "a function without a page was not noticed" && failed=1
fi
if echo "nvlx_info: try it" | awk -v name=nvlx_info -v date=2000-01-01 -v version=0 -f "$root/cmake/man1.awk" >/dev/null 2>&1; then
    echo "a help that is none was taken for one" && failed=1
fi

if command -v mandoc >/dev/null; then
    mandoc -Tlint -Wwarning "$pages"/man1/*.1 "$pages"/man3/*.3 || failed=1
else
    echo "SKIP: mandoc is not installed; it did not look at the pages"
fi
((failed)) || echo "$(find "$pages" -name '*.[13]' | wc -l) pages say what the header and the tools say"
exit "$failed"
