#!/usr/bin/env bash
# The names that the library exports, the list in src/api/interface/nvlxfer.map and the functions that the header declares are the same.
# Usage: tests/source/exports.sh ROOT LIBRARY
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C
root=$1 library=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The version node itself is listed as an absolute symbol.
nm -D --defined-only "$library" | awk '$(NF - 1) != "A" { sub(/@.*/, "", $NF); print $NF }' | sort >"$work/library"
sed -n '/global:/,/local:/ s/^ *\([A-Za-z_0-9*?]*\);$/\1/p' "$root/src/api/interface/nvlxfer.map" | sort >"$work/map"
# Without what is compiled into the caller.
"${CC:-cc}" -E -P "$root/include/nvlxfer.h" | tr '\n' ' ' | sed 's/static inline [^{]*{[^}]*}//g' | grep -o '\bnvlx_[a-z0-9_]* *(' | tr -d ' (' | sort >"$work/header"

failed=0
for list in library map header; do
    [[ -s $work/$list ]] || { echo "no name was found in the $list" && failed=1; }
done
for list in map library; do
    diff -u --label header --label "$list" "$work/header" "$work/$list" || failed=1
done
((failed)) || echo "$(wc -l <"$work/map") names, the same in header, map and library"
exit "$failed"
