# SPDX-License-Identifier: Apache-2.0
"""What calls raise: one class for each code."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator
from typing import Any

from ._c.values import _Brief


class NvlxError(Exception, metaclass=_Brief):
    """A call failed: `code` and `name` are those of nvlxfer.h, the text is nvlx_last_error's. Each code has a class.
    This one itself comes only for a code that is newer than the package."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self._text = code, text
        self.name = _name(code)
        super().__init__(f"{self.name}: {text}")

    def __reduce__(self) -> tuple[Any, ...]:  # failures travel between processes
        return type(self), (self.code, self._text)


class InvalidArgument(NvlxError, ValueError):
    """NVLX_EINVAL. An argument is wrong, or an object is closed: mend the call."""


class InvalidType(InvalidArgument, TypeError):
    """NVLX_EINVAL. An argument is of a wrong type, which the text names, with what to give."""


class OutOfHostMemory(NvlxError):
    """NVLX_ENOMEM. No host memory, address space, file descriptor or thread is left. A full GPU is a DeviceError."""


class DeviceError(NvlxError):
    """NVLX_EDEVICE. The driver refused, and the text has its words. "out of memory": a GPU is full. If a kernel of this
    process broke its CUDA context, all that needs the GPU fails: end the process."""


class Forked(NvlxError):
    """NVLX_EFORK. The object belongs to the parent of this forked process: make an Engine of its own here."""


class Again(NvlxError):
    """NVLX_EAGAIN. Not yet: call again. With no_map=True: something is not mapped yet."""


class Timeout(NvlxError, TimeoutError):
    """NVLX_ETIMEDOUT. The time is over, and the text says what is missing. Nothing is lost: call again to wait on."""


class Busy(NvlxError):
    """NVLX_EBUSY. Something is in use, and the text says by what: close that before. Or there are as many as are
    allowed, such as transfers in flight: wait for some, then call again."""


class NotSupported(NvlxError):
    """NVLX_ENOTSUP. This memory, type of element or option cannot be used here. The text says what can."""


class OutOfRange(NvlxError):
    """NVLX_ERANGE. Not all of the address range is registered. A "local range": register it in this Engine. "The peer's
    range": its owner has withdrawn it, or the address is wrong: find the name again."""


class AccessDenied(NvlxError):
    """NVLX_EACCES. The owner has not granted this access to the memory, or to its address: it has to."""


class NotFound(NvlxError, LookupError):
    """NVLX_ENOENT. There is no such name, now: look at the spelling, or wait until its owner registers it."""


class AlreadyExists(NvlxError):
    """NVLX_EEXIST. The name is taken, or the address served at, or the Engine serves already: take another."""


class Malformed(NvlxError):
    """NVLX_EFORMAT. A text or list of a peer is not whole, or is none: the text tells where. Get it again."""


class WrongVersion(NvlxError):
    """NVLX_EVERSION. The peer's version of the library is too new or too old for this one: use the same in both."""


class WrongBackend(NvlxError):
    """NVLX_EBACKEND. The backend cannot run here, and the text has the cause. Or the peer uses another one: set
    NVLX_BACKEND alike in both. `nvlx_info --doctor` looks for causes."""


class Stale(NvlxError):
    """NVLX_ESTALE. The peer has withdrawn or replaced the memory: find the names again, or pull again. Or the peer is
    gone, which `Peer.test` tells: close it, and connect again."""


class WrongDigest(NvlxError):
    """NVLX_EDIGEST. The bytes that came are not those that the peer's digest tells: it changed them meanwhile, or they
    broke. Do not use them. Transfer again, after the owner has told its digests."""


class Suspended(NvlxError):
    """NVLX_ESUSPENDED. The memory sleeps: its owner has suspended it. Try again after it resumes."""


_NAMES = (None, "EINVAL", "ENOMEM", "EDEVICE", "EFORK", "EAGAIN", "ETIMEDOUT", "EBUSY", "ENOTSUP", "ERANGE", "EACCES",
          "ENOENT", "EEXIST", "EFORMAT", "EVERSION", "EBACKEND", "ESTALE", "EDIGEST",
          "ESUSPENDED")  # fmt: skip
_CLASSES = (NvlxError, InvalidArgument, OutOfHostMemory, DeviceError, Forked, Again, Timeout, Busy, NotSupported,
            OutOfRange, AccessDenied, NotFound, AlreadyExists, Malformed, WrongVersion, WrongBackend, Stale,
            WrongDigest, Suspended)  # fmt: skip
_EINVAL, _ENOMEM, _EDEVICE, _EAGAIN, _ETIMEDOUT, _EBUSY, _ENOTSUP = -1, -2, -3, -5, -6, -7, -8
_ENOENT, _EEXIST, _EFORMAT, _EVERSION, _ESTALE = -11, -12, -13, -14, -16
_ANY = range(-99, 0)  # of the codes


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Around what concerns one of many: failures begin with its name."""
    try:
        yield
    except NvlxError as failure:
        if failure._text.startswith(what):
            raise
        raise type(failure)(failure.code, f"{what}: {failure._text}") from None


def _name(code: int) -> str:
    return f"NVLX_{_NAMES[-code]}" if 0 < -code < len(_NAMES) else f"error {code}"


def _error(code: int, text: str) -> NvlxError:
    kind: type[NvlxError] = _CLASSES[-code] if 0 < -code < len(_CLASSES) else NvlxError
    return kind(code, text)


def _invalid(text: str) -> NvlxError:
    return _error(_EINVAL, text)


def _listed(what: str, values: Any, right: str) -> list[Any]:
    """What is in an iterable. A str is none: it would be taken letter by letter."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise _wrong_type(what, values, right)
    return list(values)


def _check(what: str, value: object, kind: type | tuple[type, ...], right: str) -> None:
    if not isinstance(value, kind):
        raise _wrong_type(what, value, right)


def _wrong_type(what: str, value: object, right: str) -> InvalidType:
    return InvalidType(_EINVAL, f"{what} is {reprlib.repr(value)}, of type {type(value).__name__}: give {right}")
