# SPDX-License-Identifier: Apache-2.0
"""Boxes: parts of tensors, and the ops that copy them between contiguous tensors."""

from __future__ import annotations

import array
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from .._c.values import RegionInfo
from ..lists import Ops, read
from ..peers import Peer
from .arrays import Layout
from .dtypes import _DTYPES

Box = tuple[tuple[int, ...], tuple[int, ...]]  # where it begins in the whole tensor, and its extents


class _Entry(NamedTuple):
    """A tensor where it lies, and which part of a whole it is."""

    layout: Layout
    whole: tuple[int, ...]
    start: tuple[int, ...]


class _Source(NamedTuple):
    """A tensor of a peer."""

    info: RegionInfo
    dtype: str
    shape: tuple[int, ...]
    whole: tuple[int, ...]
    start: tuple[int, ...]


def _overlap(a: Box, b: Box) -> Box | None:
    """What two boxes share, unless that is nothing."""
    start = tuple(map(max, a[0], b[0]))
    extents = tuple(min(p + n, q + m) - s for p, n, q, m, s in zip(*a, *b, start))
    return (start, extents) if min(extents, default=1) > 0 else None


class _Runs:
    """Columns of ops that copy boxes between contiguous tensors."""

    def __init__(self) -> None:
        self.plain = [array.array("Q") for _ in range(3)]  # local, remote, length
        self.rows = [array.array("Q") for _ in range(6)]  # and count, local pitch, remote pitch

    def add(self, entry: _Entry, source: _Source, box: Box) -> None:
        item = _DTYPES[source.dtype][1] // 8
        start, extents = box
        here, there = entry.layout.shape, source.shape
        local, pitches = _offset(start, entry.start, here, item)
        remote, remote_pitches = _offset(start, source.start, there, item)
        local, remote = local + entry.layout.address, remote + source.info.address
        depth, length = len(extents) - 1, item
        while depth >= 0:  # what lies together on both sides
            length *= extents[depth]
            depth -= 1
            if not extents[depth + 1] == here[depth + 1] == there[depth + 1]:
                break
        if depth < 0:
            _append(self.plain, local, remote, length)
            return
        for place in itertools.product(*map(range, extents[:depth])):
            first = local + sum(i * pitch for i, pitch in zip(place, pitches))
            second = remote + sum(i * pitch for i, pitch in zip(place, remote_pitches))
            _append(self.rows, first, second, length, extents[depth], pitches[depth], remote_pitches[depth])

    def ops(self, peer: Peer) -> list[Ops]:
        parts = []
        if self.plain[0]:
            local, remote, length = self.plain
            parts.append(read(peer, local, remote, length))
        if self.rows[0]:
            local, remote, length, *rows = self.rows
            parts.append(read(peer, local, remote, length, rows))
        return parts


def _append(columns: list[array.array[int]], *values: int) -> None:
    for column, value in zip(columns, values):
        column.append(value)


def _offset(start: Sequence[int], own: Sequence[int], shape: Sequence[int], item: int) -> tuple[int, list[int]]:
    """Bytes from the start of a contiguous tensor to an element of the whole, and from one step to the next."""
    pitches = [item * math.prod(shape[depth + 1 :]) for depth in range(len(shape))]
    return sum((s - o) * pitch for s, o, pitch in zip(start, own, pitches)), pitches
