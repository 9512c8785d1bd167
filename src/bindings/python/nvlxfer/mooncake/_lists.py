# SPDX-License-Identifier: Apache-2.0
"""Lists of copies, from what callers give: sequences of integers, arrays, and pages."""

from __future__ import annotations

import array
import functools
import importlib
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Union

Words = Union["array.array[int]", memoryview]


class Copies(NamedTuple):
    local: Words
    remote: Words
    lengths: Words


@functools.cache
def _numpy() -> Any:
    """When it is first of use: importing it takes long. None: pages are counted by Python."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def number(what: str, value: Any) -> int:
    """One of 64 bits."""
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} is {value!r}: give an integer") from None
    if not 0 <= found < 1 << 64:
        raise TypeError(f"{what} is {found}: give an integer from 0 to 2^64 - 1")
    return found


def numbers(what: str, values: Any) -> Words:
    if isinstance(values, (str, bytes, bytearray)) or not hasattr(values, "__len__"):
        raise TypeError(f"{what} is {values!r}: give a sequence of integers")
    try:
        return array.array("Q", values)
    except (TypeError, OverflowError):
        return array.array("Q", [number(f"{what}[{place}]", value) for place, value in enumerate(values)])


def words(what: str, values: Any) -> memoryview:
    """The 64-bit integers of an array, as they are: nothing is copied."""
    try:
        view = memoryview(values)
    except TypeError:
        raise TypeError(f"{what} is {type(values).__name__}: give an array of 64-bit integers") from None
    if view.itemsize != 8 or view.format.lstrip("@=<") not in ("Q", "q", "L", "l"):
        raise TypeError(f"{what} must hold 64-bit integers (uint64 or int64), not of format {view.format!r}")
    if not view.c_contiguous:
        raise TypeError(f"{what} must be contiguous")
    return view


def from_sequences(local: Sequence[int], remote: Sequence[int], lengths: Sequence[int]) -> Copies:
    return Copies(numbers("buffers", local), numbers("peer_buffer_addresses", remote), numbers("lengths", lengths))


def from_arrays(local: Any, remote: Any, lengths: Any) -> Copies:
    made = Copies(words("buffers", local), words("peer_buffer_addresses", remote), words("lengths", lengths))
    if len({column.nbytes for column in made if isinstance(column, memoryview)}) != 1:
        raise ValueError("buffers, peer_buffer_addresses and lengths must have the same length")
    return Copies(*(flat(column) for column in made))


def flat(view: Words) -> Words:
    return array.array("Q") if not len(view) else memoryview(view).cast("B").cast("Q")


def from_pages(local_pages: Any, remote_pages: Any, fields: Any) -> Copies:
    """For each field (local base, local stride, remote base, remote stride, length) one copy a page."""
    local, remote, table = words("src_pages", local_pages), words("dst_pages", remote_pages), words("fields", fields)
    if local.nbytes != remote.nbytes:
        raise ValueError("src_pages and dst_pages must have the same length")
    if table.ndim != 2 or table.shape is None or table.shape[1] != 5:
        raise TypeError("fields must be a [rows, 5] array")
    if not local.nbytes or not table.nbytes:
        return Copies(*(array.array("Q") for _ in range(3)))
    rows: list[Any] = table.tolist()
    if any(row[1] < 0 or row[3] < 0 or row[4] <= 0 for row in rows):
        raise ValueError("fields rows need a positive length and non-negative strides")
    ids = flat(local), flat(remote)
    return Copies(
        _places(ids[0], [(row[0], row[1]) for row in rows]),
        _places(ids[1], [(row[2], row[3]) for row in rows]),
        _repeated([row[4] for row in rows], len(ids[0])),
    )


def _places(pages: Words, fields: Iterable[tuple[int, int]]) -> Words:
    """base + page * stride for each field and page, as far as 64 bits go."""
    made = array.array("Q")
    numpy = _numpy()
    ids = None if numpy is None else numpy.frombuffer(pages, dtype="uint64")
    for base, stride in fields:
        if ids is not None:
            made.frombytes(memoryview(ids * numpy.uint64(stride) + numpy.uint64(base % (1 << 64))).cast("B"))
        else:
            made.extend((base + page * stride) % (1 << 64) for page in pages)
    return made


def _repeated(lengths: Iterable[int], count: int) -> Words:
    made = array.array("Q")
    for length in lengths:
        made.extend(array.array("Q", [length]) * count)
    return made


def from_fragments(
    bases: Sequence[int], capacities: Sequence[int], offsets: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]]
) -> Words:
    """The addresses of fragments: each lies in its range. ValueError: one does not, or the lists do not fit."""
    if not len(bases) == len(capacities) == len(offsets) == len(lengths):
        raise ValueError("the ranges' lists have different lengths")
    made = array.array("Q")
    for place, (base, capacity) in enumerate(zip(numbers("bases", bases), numbers("capacities", capacities))):
        within, sizes = numbers("offsets", offsets[place]), numbers("lengths", lengths[place])
        if len(within) != len(sizes):
            raise ValueError(f"range {place} has {len(within)} offsets and {len(sizes)} lengths")
        for fragment, (offset, size) in enumerate(zip(within, sizes)):
            if offset + size > capacity:
                raise ValueError(f"fragment {fragment} of range {place} is [{offset}, +{size}) of {capacity} bytes")
            made.append((base + offset) % (1 << 64))
    return made
