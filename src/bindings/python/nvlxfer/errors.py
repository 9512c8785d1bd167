# SPDX-License-Identifier: Apache-2.0
"""What calls raise: one class for each code that programs tell apart."""

from __future__ import annotations

import reprlib
from typing import Any


class NvlxError(Exception):
    """A call failed: `code` and `name` are those of nvlxfer.h, the text is nvlx_last_error's."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self._text = code, text
        self.name = f"NVLX_{_NAMES[-code]}" if 0 < -code < len(_NAMES) else f"error {code}"
        super().__init__(f"{self.name}: {text}")

    def __reduce__(self) -> tuple[Any, ...]:  # failures travel between processes
        return type(self), (self.code, self._text)


class InvalidArgument(NvlxError, ValueError): ...


class InvalidType(InvalidArgument, TypeError): ...


class Again(NvlxError): ...


class Timeout(NvlxError, TimeoutError): ...


class Busy(NvlxError): ...


class NotSupported(NvlxError): ...


class OutOfRange(NvlxError): ...


class AccessDenied(NvlxError): ...


class NotFound(NvlxError, LookupError): ...


class Stale(NvlxError): ...


class WrongDigest(NvlxError): ...


class Suspended(NvlxError): ...


_NAMES = (None, "EINVAL", "ENOMEM", "EDEVICE", "EFORK", "EAGAIN", "ETIMEDOUT", "EBUSY", "ENOTSUP", "ERANGE", "EACCES",
          "ENOENT", "EEXIST", "EFORMAT", "EVERSION", "EBACKEND", "ESTALE", "EDIGEST",
          "ESUSPENDED")  # fmt: skip
_CLASSES = {-1: InvalidArgument, -5: Again, -6: Timeout, -7: Busy, -8: NotSupported, -9: OutOfRange, -10: AccessDenied,
            -11: NotFound, -16: Stale, -17: WrongDigest, -18: Suspended}  # fmt: skip
_EINVAL, _ENOMEM, _EDEVICE, _EAGAIN, _ETIMEDOUT, _EBUSY, _ENOTSUP = -1, -2, -3, -5, -6, -7, -8
_ENOENT, _EEXIST, _EFORMAT, _EVERSION, _ESTALE = -11, -12, -13, -14, -16
_ANY = range(-99, 0)  # of the codes


def _error(code: int, text: str) -> NvlxError:
    return _CLASSES.get(code, NvlxError)(code, text)


def _invalid(text: str) -> NvlxError:
    return _error(_EINVAL, text)


def _listed(what: str, values: Any, right: str) -> list[Any]:
    """What is in an iterable. A str is none: it would be taken letter by letter."""
    try:
        if not isinstance(values, (str, bytes)):
            return list(values)
    except TypeError:
        pass
    raise _wrong_type(what, values, right) from None


def _check(what: str, value: object, kind: type | tuple[type, ...], right: str) -> None:
    if not isinstance(value, kind):
        raise _wrong_type(what, value, right)


def _wrong_type(what: str, value: object, right: str) -> InvalidType:
    return InvalidType(_EINVAL, f"{what} is {reprlib.repr(value)}, of type {type(value).__name__}: give {right}")
