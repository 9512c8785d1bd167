#!/usr/bin/env bash
# The plugin exports the two functions that NIXL looks for, and nothing else.
# Usage: tests/bindings/nixl/exports.sh PLUGIN
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
diff -u --label wanted --label exported <(printf '%s\n' nixl_plugin_fini nixl_plugin_init) \
    <(nm -D --defined-only "$1" | awk '{ print $NF }' | sort)
