# SPDX-License-Identifier: Apache-2.0
"""Packs the wheel nvlxfer-nixl of a build: the plugin, twice, where the wheels nixl-cu12 and nixl-cu13 look for theirs,
and the library, once. Needs cmake, and of Python nothing but the standard library.

    wheel.py BUILD FOLDER    writes FOLDER/nvlxfer_nixl-VERSION-py3-none-linux_MACHINE.whl, and prints its path

For other systems than this one, the build is one with -DNVLX_STATIC_DEPS=ON, and `auditwheel repair` goes over it."""

from __future__ import annotations

import base64
import hashlib
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]


def version() -> str:
    header = (ROOT / "include/nvlxfer.h").read_text()
    major, minor, patch = re.findall(r"NVLX_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header)
    return f"{major}.{minor}.{patch}"


def metadata(tag: str) -> dict[str, str]:
    return {
        "METADATA": f"Metadata-Version: 2.1\nName: nvlxfer-nixl\nVersion: {version()}\n"
        "Summary: A backend for NIXL: GPU memory between the processes of one node over NVLink\n"
        "License: Apache-2.0\nRequires-Python: >=3.9\nDescription-Content-Type: text/markdown\n\n"
        + (HERE.parent / "README.md").read_text(),
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: wheel.py\nRoot-Is-Purelib: false\nTag: {tag}\n",
        "LICENSE": (ROOT / "LICENSE").read_text(),
    }


def contents(build: str, stage: str, tag: str) -> dict[str, tuple[bytes, int]]:
    """Bytes and mode of all files, by their names in the wheel."""
    subprocess.run(
        ["cmake", "--install", build, "--component", "nixl_wheel", "--prefix", stage, "--strip"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    files = {str(file.relative_to(stage)): (file.read_bytes(), 0o755) for file in sorted(Path(stage).rglob("*.so*"))}
    if len(files) != 3:
        raise SystemExit(f"{build} is no build with NVLX_NIXL=ON and NVLX_INSTALL=ON")
    for source in sorted((HERE / "nvlxfer_nixl").glob("*.py")):
        files[f"nvlxfer_nixl/{source.name}"] = source.read_bytes(), 0o644
    for name, text in metadata(tag).items():
        files[f"nvlxfer_nixl-{version()}.dist-info/{name}"] = text.encode(), 0o644
    return files


def main(build: str, folder: str) -> None:
    tag = f"py3-none-linux_{platform.machine()}"
    path = Path(folder) / f"nvlxfer_nixl-{version()}-{tag}.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = f"nvlxfer_nixl-{version()}.dist-info/RECORD"
    lines = []
    with tempfile.TemporaryDirectory() as stage, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, (content, mode) in contents(build, stage, tag).items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100000 | mode) << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}\n")
        wheel.writestr(record, "".join([*lines, f"{record},,\n"]))
    print(path)


main(*sys.argv[1:])
