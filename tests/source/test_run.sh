#!/usr/bin/env bash
# ./tests/run with arguments that fit no test says so, and fails. Tried with a folder that has one test.
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
