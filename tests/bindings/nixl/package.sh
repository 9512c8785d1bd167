#!/usr/bin/env bash
# The wheel nvlxfer-nixl beside NIXL's: NIXL finds the backend by its name alone, and does not without it.
# Usage: tests/bindings/nixl/package.sh ROOT BUILD CACHE VERSION
#   BUILD  where library and plugin were built
#   CACHE  wheels.sh has unpacked that version of NIXL there; where it has not, nothing is tried: exit code 77
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$1 build=$2 cache=$3 version=$4
if [[ ! -d $cache/$version ]]; then
    echo "SKIP: the wheel nvlxfer-nixl was not tried, NIXL $version is not there"
    exit 77
fi
work=$(mktemp -d "$cache/package.XXXXXX")
trap 'rm -rf "$work"' EXIT
unset NIXL_PLUGIN_DIR LD_LIBRARY_PATH

# in_site FOLDER WORD...: python3 WORD..., with the packages of that folder
in_site() {
    PYTHONPATH=$1:$cache/numpy PYTHONDONTWRITEBYTECODE=1 NVLX_BACKEND=host NIXL_LOG_LEVEL=FATAL timeout 60 python3 -s "${@:2}"
}

find_backend='
from nixl_cu12._api import nixl_agent, nixl_agent_config
agent = nixl_agent("agent", nixl_agent_config(backends=[]))
agent.create_backend("NVLX")
assert sorted(agent.get_backend_mem_types("NVLX")) == ["DRAM_SEG", "VRAM_SEG"]
assert "/nvlxfer_nixl/libnvlxfer.so.0" in open("/proc/self/maps").read()'

if in_site "$cache/$version" -c "$find_backend" >"$work/said" 2>&1 || ! grep -q NotFound "$work/said"; then
    cat "$work/said"
    echo "without the wheel, NIXL did not say that there is no such backend"
    exit 1
fi
wheel=$(python3 "$root/src/bindings/nixl/wheel/wheel.py" "$build" "$work")
"$cache/python/bin/pip" install --quiet --disable-pip-version-check --no-index --no-compile --target "$work/site" "$wheel"
cp -rl "$cache/$version/." "$work/site"
in_site "$work/site" -c "$find_backend"
in_site "$work/site" -m nvlxfer_nixl
code=0
NIXL_PLUGIN_DIR=$work in_site "$work/site" -m nvlxfer_nixl >"$work/said" || code=$?
[[ $code == 1 ]] && grep -q 'NIXL looks in NIXL_PLUGIN_DIR, and nowhere else' "$work/said"
echo "ok: ${wheel##*/}"
