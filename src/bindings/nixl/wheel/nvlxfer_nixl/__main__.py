# SPDX-License-Identifier: Apache-2.0
"""Tells whether NIXL finds the backend NVLX in this environment, and why not. Exit code 0: it does."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import sys
from pathlib import Path

FILE = "libplugin_NVLX.so"


def wrong(plugin: Path) -> str:
    """Why NIXL cannot load that file; "" if it can."""
    if not plugin.exists():
        return f"{plugin} is not there: is nvlxfer-nixl in the same environment?"
    try:
        ctypes.CDLL(str(plugin))
    except OSError as error:
        return f"{plugin} cannot be loaded: {error}"
    return ""


def look(package: str) -> bool | None:
    """Whether the backend is found there, with a line about it; None if the package is not installed."""
    try:
        nixl = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = os.environ.get("NIXL_PLUGIN_DIR")
    default = Path(str(nixl.locate_file("."))) / f".{package.replace('-', '_')}.mesonpy.libs" / "plugins"
    plugin = Path(folder or default) / FILE
    why = wrong(plugin)
    if why and folder:
        why += " (NIXL looks in NIXL_PLUGIN_DIR, and nowhere else)"
    known = re.match(r"1\.[0-5]\.", nixl.version)
    if not why and not known and os.environ.get("NVLX_NIXL_ANY_VERSION") != "1":
        why = "this version is not known to the backend: 1.0 to 1.5 are (NVLX_NIXL_ANY_VERSION=1 tries others)"
    print(f"{package} {nixl.version}: {'NVLX is not found: ' + why if why else f'NVLX is found: {plugin}'}")
    return not why


def main() -> int:
    seen = [look(package) for package in ("nixl-cu12", "nixl-cu13")]
    if seen == [None, None]:
        print("NIXL is not installed here: neither nixl-cu12 nor nixl-cu13")
    return 0 if True in seen else 1


sys.exit(main())
