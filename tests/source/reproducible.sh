#!/usr/bin/env bash
# The library has the same bytes in whatever folders the tree and its build lie: no path of them is in it, and files compiled
# in a copy of both, elsewhere, give the same objects as here.
# Usage: tests/source/reproducible.sh ROOT BUILD LIBRARY
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$1 build=$2 library=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy=$work/another/tree

# object TREE BUILD FILE: compiles a file there as the build does here, with the paths of there.
object() {
    local command
    command=$(awk -v file="\"file\": \"$root/$3\"" '/"command": / { command = $0 } index($0, file) && !found { found = 1; print command }' \
        "$build/compile_commands.json" | sed -e 's/^ *"command": "//' -e 's/",$//' -e 's/\\"/"/g' -e 's/\\\\/\\/g')
    [[ -n $command ]] || { echo "$3 is not compiled here" >&2 && return 1; }
    command=${command//"$build"/"@build@"}
    command=${command//"$root"/"$1"}
    command=${command//"@build@"/"$2"}
    # What keeps objects is not asked.
    command=$(sed -E 's/^[^ ]*ccache //; s/ -o [^ ]+( |$)/ -o object.o\1/' <<<"$command")
    (cd "$2" && bash -c "$command" && cat object.o && rm object.o)
}

if grep -aqF "$root/" "$library"; then
    echo "the library names files of $root"
    exit 1
fi
mkdir -p "$copy" "$copy/of/a/build"
cp -r "$root/include" "$root/src" "$copy"
for file in src/api/stats_text.c src/base/log.cc; do
    object "$root" "$build" "$file" >"$work/here"
    object "$copy" "$copy/of/a/build" "$file" >"$work/there"
    [[ -s $work/here ]]
    cmp "$work/here" "$work/there" || { echo "$file gives another object in another folder" && exit 1; }
done
echo "objects are the same in another folder"
