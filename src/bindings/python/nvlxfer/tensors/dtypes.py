# SPDX-License-Identifier: Apache-2.0
"""Types of elements: by name, as in torch, JAX and NumPy, with their DLPack codes and NumPy's letters."""

from __future__ import annotations

from ..errors import _ENOTSUP, _error

_INT, _UINT, _FLOAT, _BFLOAT, _COMPLEX, _BOOL = 0, 1, 2, 4, 5, 6  # of DLPack
_DTYPES = {"bool": (_BOOL, 8), "bfloat16": (_BFLOAT, 16)}  # name: DLPack's code, bits
_DTYPES.update({f"int{bits}": (_INT, bits) for bits in (8, 16, 32, 64)})
_DTYPES.update({f"uint{bits}": (_UINT, bits) for bits in (8, 16, 32, 64)})
_DTYPES.update({f"float{bits}": (_FLOAT, bits) for bits in (16, 32, 64)})
_DTYPES.update({f"complex{bits}": (_COMPLEX, bits) for bits in (64, 128)})
_DTYPES.update(float8_e4m3fn=(10, 8), float8_e4m3fnuz=(11, 8), float8_e5m2=(12, 8), float8_e5m2fnuz=(13, 8))
_DTYPES.update(float8_e8m0fnu=(14, 8))
_NAMES_OF = {code_and_bits: name for name, code_and_bits in _DTYPES.items()}
_KINDS = {"b": _BOOL, "i": _INT, "u": _UINT, "f": _FLOAT, "c": _COMPLEX}  # NumPy's letters


def _typestr(name: str) -> str | None:
    """NumPy's word for a type, or None: it has no such type."""
    code, bits = _DTYPES[name]
    for letter, kind in _KINDS.items():
        if kind == code:
            return f"{'|' if bits == 8 else '<'}{letter}{bits // 8}"
    return None


def _name_of_typestr(typestr: str) -> str | None:
    """The name of what NumPy calls so; None, if it has another order of bytes, or is no number."""
    code = _KINDS.get(typestr[1:2])
    if code is None or typestr[0] not in "<|" or not typestr[2:].isdecimal():
        return None
    return _NAMES_OF.get((code, 8 * int(typestr[2:])))


def _refuse_swapped(what: str, order: str) -> None:
    """`order` is NumPy's letter, or a word that begins with it. Names of types mean little-endian elements."""
    if order[:1] in (">", "!"):
        raise _error(_ENOTSUP, f"{what}: the byte order is big-endian ({order!r}): give little-endian elements")
