#!/usr/bin/env bash
# ./tests/run with arguments that fit no test, or that ctest does not heed, says so, and fails. Tried with a folder that
# has one test. Both it and ./examples/run leave the choice of CUDA to the build folder, unless NVLX_CUDA is set.
# Usage: tests/source/test_run.sh ROOT
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
source "$1/tests/ctest.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'add_test(one true)' >"$work/CTestTestfile.cmake"

run_ctest "$work" -R one >"$work/output" || { cat "$work/output" && exit 1; }
if run_ctest "$work" -R typo >"$work/output"; then
    echo "succeeded, though there is no such test:"
    cat "$work/output"
    exit 1
fi
grep 'No tests were found' "$work/output"

for words in one 'one -R one' '-R one two' '--verbose two' '--timeout=9 two'; do
    # shellcheck disable=SC2086 # words
    if run_ctest "$work" $words >"$work/output" 2>&1; then
        echo "'$words' is taken, which ctest does not heed"
        exit 1
    fi
    grep -e "is no option of ctest: -R" "$work/output"
done
for words in '-R one -j 2' '-V -R one' '-R one --timeout 9 --output-on-failure' '-E two' ''; do
    # shellcheck disable=SC2086 # words
    run_ctest "$work" $words >"$work/output" 2>&1 || { cat "$work/output" && exit 1; }
done

# A tree with these scripts alone, and a cmake that notes its arguments.
tree=$work/tree
mkdir -p "$tree/bin" "$tree/build/examples" "$tree/cmake" "$tree/examples" "$tree/tests"
cp "$1/tests/run" "$1/tests/ctest.sh" "$tree/tests"
cp "$1/examples/run" "$tree/examples"
cp "$1/cmake/prepare.sh" "$tree/cmake"
echo 'install_missing() { :; }' >>"$tree/cmake/prepare.sh"
cp "$work/CTestTestfile.cmake" "$tree/build"
printf '#!/bin/sh\necho "$@" >>"%s"\n' "$work/arguments" >"$tree/bin/cmake"
printf '#!/bin/sh\n' >"$tree/build/examples/two_gpu"
chmod +x "$tree/bin/cmake" "$tree/build/examples/two_gpu"
for script in tests/run examples/run; do
    for chosen in '' OFF; do
        : >"$work/arguments"
        env -u NVLX_CUDA ${chosen:+NVLX_CUDA="$chosen"} PATH="$tree/bin:$PATH" "$tree/$script" >"$work/output" 2>&1 || { cat "$work/output" && exit 1; }
        found=$(grep -o -- '-DNVLX_CUDA=[A-Z]*' "$work/arguments" || true)
        [[ $found == "${chosen:+-DNVLX_CUDA=$chosen}" ]] && continue
        echo "./$script with NVLX_CUDA='$chosen' configures with '$found'"
        exit 1
    done
done
