# SPDX-License-Identifier: Apache-2.0
"""`mooncake.engine` is nvlxfer.mooncake.engine."""

import sys

import nvlxfer.mooncake.engine

sys.modules[__name__] = nvlxfer.mooncake.engine
