# SPDX-License-Identifier: Apache-2.0
"""In the place of Mooncake's package: `engine` is nvlxfer's, all else is that of the package that is installed."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

__path__ = pkgutil.extend_path(__path__, __name__)


def __getattr__(name: str) -> Any:
    places = {"BufferPool": ".store", "RegisteredBufferPool": ".buffer_pool"}  # as Mooncake has it
    if name not in places:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(places[name], __name__), name)
