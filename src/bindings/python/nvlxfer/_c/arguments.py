# SPDX-License-Identifier: Apache-2.0
"""Arguments of calls: checked here, as ctypes would cut numbers in silence."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import numbers
import operator
import reprlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, Union

from ..errors import Timeout, _invalid, _listed, _wrong_type
from .native import _I, _SIZE, _U32, _U64

Buffer = Union[bytes, bytearray, memoryview]
_Result = TypeVar("_Result")
_Struct = TypeVar("_Struct", bound=ctypes.Structure)


def _range_of(kind: Any) -> tuple[int, int]:
    bits = 8 * ctypes.sizeof(kind)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if kind(-1).value < 0 else (0, (1 << bits) - 1)


_RANGES = {kind: _range_of(kind) for kind in (_I, _U32, _U64, _SIZE, ctypes.c_int32)}


_ENUMS = {
    "access": "an Access, such as nvlxfer.Access.READ",
    "backend": "a Backend, such as nvlxfer.Backend.HOST",
    "kind": "an Alloc, such as nvlxfer.Alloc.VMM",
    "level": "a LogLevel, such as nvlxfer.LogLevel.INFO",
    "mechanism": "a Mechanism, such as nvlxfer.Mechanism.KERNEL",
}


def _integer(what: str, value: Any, kind: Any = _U64) -> int:
    """A number that C can hold, which ctypes would cut in silence. NumPy's integers are as good as Python's."""
    number: int = value
    if type(value) is not int:
        if isinstance(value, bool):
            raise _wrong_type(what, value, _ENUMS.get(what, "an integer"))
        try:
            number = operator.index(value)
        except TypeError:
            raise _wrong_type(what, value, _ENUMS.get(what, "an integer")) from None
    low, high = _RANGES[kind]
    if not low <= number <= high:
        raise _invalid(f"{what} {number} does not fit: it has {8 * ctypes.sizeof(kind)} bits, from {low} to {high}")
    return number


def _integers(what: str, values: Iterable[int], kind: Any) -> Any:
    """An array of C's."""
    listed = _listed(what, values, "a sequence of integers")
    return (kind * len(listed))(*(_integer(f"{what}[{i}]", value, kind) for i, value in enumerate(listed)))


def _seconds(timeout: float | None) -> float:
    """None: for ever."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not (hasattr(timeout, "__float__") or hasattr(timeout, "__index__")):
        raise _wrong_type("timeout", timeout, "seconds, or None to wait for ever")
    try:
        seconds = float(timeout)
    except OverflowError:  # an int of more than 1023 bits
        seconds = math.inf if timeout > 0 else -math.inf
    except (TypeError, ValueError):
        raise _wrong_type("timeout", timeout, "seconds, or None to wait for ever") from None
    if not seconds >= 0:  # or not a number
        raise _invalid(f"timeout {reprlib.repr(timeout)} is no time: give seconds from 0, or None to wait for ever")
    return seconds


def _slices(timeout: float | None, first: float, longest: float) -> Iterator[int]:
    """Cuts a time into nanoseconds for calls of C, between which signals and the end of the program are seen."""
    if timeout is None and first == longest:
        return itertools.repeat(int(longest * 1e9))
    return _cut(time.monotonic() + _seconds(timeout), first, longest)


def _cut(deadline: float, length: float, longest: float) -> Iterator[int]:
    while True:
        left = max(0.0, deadline - time.monotonic())
        yield int(min(left, length) * 1e9)
        if left <= length:
            return
        length = min(2 * length, longest)


def _in_slices(slices: Iterable[int], stop: Callable[[], bool], call: Callable[[int], _Result]) -> _Result:
    """What `call` gives in one of the slices of time, or its last Timeout."""
    for nanoseconds in slices:
        try:
            return call(nanoseconds)
        except Timeout as failure:
            late = failure
            if stop():
                break
    try:
        raise late
    finally:
        del late  # as in _run


def _text(what: str, text: str, *, nul: bool = False) -> bytes:
    if not isinstance(text, str):
        raise _wrong_type(what, text, "a str")
    if "\0" in text and not nul:
        raise _invalid(f"{what} {text!r} has a NUL in it")
    try:
        return text.encode()
    except UnicodeEncodeError as failure:
        raise _invalid(f"{what} {reprlib.repr(text)} is not UTF-8: {failure.reason}") from None


@functools.cache
def _kinds(struct: type[ctypes.Structure]) -> dict[str, Any]:
    return {name: kind for name, kind, *_ in struct._fields_}


def _filled(struct: type[_Struct], **fields: Any) -> _Struct:
    """As the struct's init function does it in C: its size, zeros, and the numbers that are set here."""
    made = struct()
    made.size = ctypes.sizeof(struct)
    kinds = _kinds(struct)
    for name, value in fields.items():
        setattr(made, name, _integer(name, value, kinds[name]))
    return made


def _buffer(data: Any) -> memoryview | None:
    """What a buffer gives, of any number of dimensions; None: it is none."""
    try:
        return memoryview(data)
    except (TypeError, ValueError):  # NumPy gives none of its datetime64, nor of bfloat16
        return None


def _host(what: str, data: int | Buffer, written: bool) -> tuple[Any, int | None]:
    """What C gets for an address or a buffer, and the buffer's length. NumPy's integers are both: they are addresses.
    An array of no dimension is data."""
    view = None if isinstance(data, numbers.Integral) else _buffer(data)
    if view is None:
        if not hasattr(data, "__index__"):
            raise _wrong_type(what, data, "an address, or a buffer")
        return _integer(what, data), None
    if written and view.readonly:
        raise _invalid(f"the {what} is read-only")
    if not view.c_contiguous:
        raise _invalid(f"the {what} is not contiguous")
    if not view.nbytes:
        return None, 0
    view = view.cast("B")
    if view.readonly:
        return data if isinstance(data, bytes) else bytes(view), len(view)
    return (ctypes.c_char * len(view)).from_buffer(view), len(view)


def _message(message: Buffer) -> tuple[Any, int]:
    view = _buffer(message)
    if view is None:
        raise _wrong_type("message", message, "bytes, or another buffer")
    if not view.c_contiguous:
        raise _invalid("the message is not contiguous")
    return (ctypes.c_char * view.nbytes).from_buffer_copy(view.cast("B") if view.nbytes else b""), view.nbytes
