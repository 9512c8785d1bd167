#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# After NIXL's Python package is imported, a program's own mistakes in logging calls are no longer told.
#
# Versions: nixl-cu13 1.5.1, numpy 2.3.5, Python's own logging.
# Expected: an import leaves the program's logging as it is. Python's logging HOWTO asks libraries not to configure
#   it, but for their own loggers; logging.raiseExceptions, True at first, is one setting for all of a process.
# Seen 2026-11-30: the import sets logging.raiseExceptions to False, unless NIXL_DEBUG_LOGGING is "true", "1" or
#   "yes". A call whose arguments do not fit its format told "--- Logging error ---" and a traceback before;
#   after the import the record is gone without a word.
# Matters: an engine that loads NIXL as one of its connectors loses log lines of its own, in whatever module,
#   and nothing says so: neither the line, nor that it was lost, nor that NIXL has to do with it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" nixl-cu13==1.5.1 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

cat >"$work/program.py" <<'EOP'
import logging
import sys

logging.basicConfig(stream=sys.stdout, format="line: %(message)s")
own = logging.getLogger("program.scheduler")


def told():
    own.warning("%d blocks are free", "many")
    return logging.raiseExceptions


before = told()
import nixl_cu13  # noqa: E402
print("import", file=sys.stderr, flush=True)
after = told()
print("raiseExceptions:", before, after)
EOP

lines() { # of standard error that tell of a mistake, before and after the import
  awk '/^--- Logging error ---/ { n[seen + 0]++ } /^import$/ { seen = 1 } END { print n[0] + 0, n[1] + 0 }' "$1"
}

failed=0
expect() {
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { echo "  stated: $3"; failed=1; }
}

PYTHONPATH="$work/site" timeout 60 python3 -s "$work/program.py" >"$work/out" 2>"$work/err"
expect "logging.raiseExceptions, before and after the import" "$(sed -n 's/^raiseExceptions: //p' "$work/out")" "True False"
expect "mistakes that were told, before and after" "$(lines "$work/err")" "1 0"

NIXL_DEBUG_LOGGING=1 PYTHONPATH="$work/site" timeout 60 python3 -s "$work/program.py" >"$work/out" 2>"$work/err"
expect "the same with NIXL_DEBUG_LOGGING=1" "$(lines "$work/err")" "1 1"
exit $failed
