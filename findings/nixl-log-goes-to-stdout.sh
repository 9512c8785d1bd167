#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# NIXL's Python package logs to standard output, and its lowest level cannot be reached.
#
# Versions: nixl-cu13 1.5.1, numpy 2.3.5; an agent without backends.
# Expected: what a library says of itself goes to standard error, as Python's StreamHandler does if it is not
#   told otherwise, and as NIXL's own C++ part does. NIXL_LOG_LEVEL=DEBUG shows messages of the level DEBUG.
# Seen 2026-11-30: making an agent prints a line of the level INFO to standard output, before the program's own.
#   With NIXL_LOG_LEVEL=DEBUG the logger is at DEBUG, but its only handler stays at INFO: a message of
#   that level is nowhere. WARNING and CRITICAL, Python's names, are refused, by a line on standard output,
#   and INFO stays; WARN and FATAL are taken.
# Matters: a process whose output is data (JSON, a ready line, metadata for a peer) is misread by who parses
#   it, as soon as it makes an agent: our own benchmark's was.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" nixl-cu13==1.5.1 numpy==2.3.5 \
  >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

cat >"$work/program.py" <<'EOP'
import logging
from nixl_cu13 import nixl_agent, nixl_agent_config

agent = nixl_agent("x", nixl_agent_config(backends=[]))
logging.getLogger("nixl").debug("of the lowest level")
print("my data")
EOP

failed=0
expect() {
  printf '%s: %s\n' "$1" "$2"
  [ "$2" = "$3" ] || { echo "  stated: $3"; failed=1; }
}

# Which of the lines that are looked for stand in a stream.
has() {
  local found=""
  grep -q 'NIXL INFO .*Initialized NIXL agent' "$1" && found+="info "
  grep -q 'NIXL DEBUG .*of the lowest level' "$1" && found+="debug "
  grep -q 'NIXL WARNING .*Invalid NIXL_LOG_LEVEL' "$1" && found+="refused "
  grep -q '^my data$' "$1" && found+="mine "
  printf '%s' "${found% }"
}

run() { # with a level, or none
  env -u NIXL_LOG_LEVEL ${1:+NIXL_LOG_LEVEL=$1} PYTHONPATH="$work/site" timeout 60 python3 -s "$work/program.py" \
    >"$work/out" 2>"$work/err"
}

run ""
expect "standard output" "$(has "$work/out")" "info mine"
expect "standard error" "$(has "$work/err")" ""
run DEBUG
expect "standard output, NIXL_LOG_LEVEL=DEBUG" "$(has "$work/out")" "info mine"
expect "standard error, NIXL_LOG_LEVEL=DEBUG" "$(has "$work/err")" ""
for level in WARNING CRITICAL; do
  run $level
  expect "standard output, NIXL_LOG_LEVEL=$level" "$(has "$work/out")" "info refused mine"
done
for level in WARN FATAL; do
  run $level
  expect "standard output, NIXL_LOG_LEVEL=$level" "$(has "$work/out")" "mine"
done
exit $failed
