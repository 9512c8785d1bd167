#!/usr/bin/env bash
# The header compiles alone, included twice, as C11 and as C++11, by gcc and by clang, without a warning. In C++ no struct
# is hidden by a function of its name: each can be named without `struct`. That for C++ beside it compiles as C++17 and
# C++20, with exceptions and without, in its test and alone. It calls every function, and warns of a result that nobody
# looks at. The comments of both are plain English: no sentence has more than 30 words. A line of a list of errors counts
# as a sentence.
# Usage: tests/source/header.sh HEADER TEST_OF_CXX
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
header=$(realpath "$1")
objects=${header%.h}.hpp
test=$(realpath "$2")
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

printf '#include "%s"\n#include "%s"\nint main() {}\n' "$objects" "$objects" >"$work/objects.cc"
compile g++ -std=c++17 -Wshadow -Wconversion -I"${header%/*}" "$work/objects.cc"
compile clang++ -std=c++17 -fno-exceptions -fno-rtti -I"${header%/*}" "$test" # by gcc the build does that
compile clang++ -std=c++20 -I"${header%/*}" "$test"
echo 'int main() { nvlx::engine().check(); }' | cat "$work/objects.cc" - | sed 's/^int main() {}$//' >"$work/dropped.cc"
if g++ -std=c++17 -Werror -fsyntax-only -I"${header%/*}" "$work/dropped.cc" 2>"$work/log" || ! grep -q nodiscard "$work/log"; then
    cat "$work/log"
    echo "a result that nobody looks at was not warned of"
    exit 1
fi
# Those of C that need nothing around them; comments are no calls.
g++ -fpreprocessed -dD -E -P "$objects" 2>/dev/null | sed '1,/^#define NVLXFER_HPP/d' >"$work/calls"
for name in $(grep -oE '\bnvlx_[a-z0-9_]+\(' "$header" | tr -d '(' | sort -u); do
    case $name in nvlx_version | nvlx_build_info) continue ;; esac
    grep -qw "$name" "$work/calls" || { echo "nvlxfer.hpp has no $name" && exit 1; }
done

# Comments are texts; an empty line, a point of a list or an indented line begins a new one.
sentences() {
    awk 'function flush() { gsub(/\.\.\./, "", text); gsub(/[.?!][)"]* /, "&\n", text); print text; text = "" }
         !inside { if (!(at = index($0, "/*"))) next; $0 = substr($0, at + 3); inside = 1 }
         { last = index($0, "*/"); line = last ? substr($0, 1, last - 1) : $0
           if (sub(/^ \* ?/, "", line)) { if (line ~ /^(-|Errors:|    |$)/) flush() } else sub(/^ +/, "", line)
           text = text line " "
           if (last) { flush(); inside = 0 } }' "$1"
}
count_words() {
    awk -v limit="$1" '{ words = 0; for (i = 1; i <= NF; i++) words += $i ~ /[A-Za-z0-9]/ }
                       words > limit { print words " words: " $0; long = 1 } END { exit long }'
}
{ sentences "$header" && sentences "$objects"; } >"$work/sentences"
[[ $(wc -l <"$work/sentences") -gt 300 ]] || { echo "no more than $(wc -l <"$work/sentences") sentences were found"; exit 1; }
count_words 30 <"$work/sentences"
if count_words 30 < <(printf '/* one%s. */\n' "$(printf ' word%.0s' {1..30})" | sentences /dev/stdin) >/dev/null; then
    echo "a sentence of 31 words was not seen"
    exit 1
fi
if grep -nwE 'anew|but for|the very|is of' "$header" "$objects"; then
    echo "plain words: again, except, ... itself, belongs to"
    exit 1
fi
echo "ok: no sentence has more than 30 words"
