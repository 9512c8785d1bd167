# SPDX-License-Identifier: Apache-2.0
"""Lists of copies, in the library's own layout."""

from __future__ import annotations

import array
import ctypes
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._c.arguments import _buffer, _integer
from ._c.native import _ADD, _READ, _ROWS, _SIGNAL, _WAIT_READY, _WRITE, _Op, _Rows
from .errors import _check, _invalid, _wrong_type
from .peers import Peer

if TYPE_CHECKING:
    from ._c.calls import _Object
    from .engine import Engine

Numbers = Any  # an int, or a buffer of 64-bit integers: array.array("Q"), a memoryview, a NumPy array
Rows = Any  # (count, local pitch, remote pitch): each as Numbers


class Ops:
    """Copies in the library's own layout. They name peers of this process, so they cannot be sent to another."""

    def __init__(
        self, buffer: bytearray | memoryview, peers: set[Peer], rows: tuple[array.array[int], ...] = ()
    ) -> None:
        self._buffer = buffer
        self._peers = peers
        self._rows = rows  # what the ops point to
        self._given: tuple[Engine, Sequence[_Object], tuple[Any, Any]] | None = None  # what _for gave

    def __repr__(self) -> str:
        return f"<nvlxfer.Ops: {len(self)} ops>"

    def __len__(self) -> int:
        return len(self._buffer) // ctypes.sizeof(_Op)

    def _for(self, engine: Engine) -> tuple[Engine, Sequence[_Object], tuple[Any, Any]]:
        """The engine, what a call on the list uses, and the list as C gets it. Made once: it does not change. A peer in
        use stands for its engine, too."""
        given = self._given
        if given is None or given[0] is not engine:
            for peer in self._peers:
                if peer._engine is not engine:
                    raise _invalid("ops name a Peer of another Engine")
            ops = (ctypes.c_char * len(self._buffer)).from_buffer(self._buffer)
            users = tuple(self._peers) or (engine,)
            self._given = given = engine, users, (ctypes.byref(ops), ctypes.c_size_t(len(self)))
        return given


def read(peer: Peer, local: Numbers, remote: Numbers, length: Numbers, rows: Rows | None = None) -> Ops:
    """Copies from the peer's address `remote` to the own address `local`, `length` bytes. Buffers of 64-bit integers,
    such as array.array("Q") or NumPy's uint64 arrays, give as many ops at once; an int beside them holds for each.
    With rows=(count, local pitch, remote pitch), integers or buffers too, each op is so many rows of `length` bytes."""
    return _ops(_READ, peer, local, remote, length, rows)


def write(peer: Peer, local: Numbers, remote: Numbers, length: Numbers, rows: Rows | None = None) -> Ops:
    """Copies from the own address `local` to the peer's address `remote`; otherwise as `read`."""
    return _ops(_WRITE, peer, local, remote, length, rows)


def signal(peer: Peer, remote: int, value: int, add: bool = False) -> Ops:
    """The peer's count of 64 bits at `remote` becomes `value`, or grows by it, when all bytes of the list are in
    place."""
    _check("peer", peer, Peer, "a Peer")
    flags, where = _ADD if add else 0, _integer("remote", remote)
    return Ops(bytearray(_Op(_SIGNAL, flags, peer._live(), None, where, 0, _integer("value", value))), {peer})


def wait_ready(peer: Peer, remote: int, value: int) -> Ops:
    """The list, which has a stream, begins when the peer's count of 64 bits at `remote` has reached `value`."""
    _check("peer", peer, Peer, "a Peer")
    where = _integer("remote", remote)
    return Ops(bytearray(_Op(_WAIT_READY, 0, peer._live(), None, where, 0, _integer("value", value))), {peer})


def _ops(opcode: int, peer: Peer, local: Numbers, remote: Numbers, length: Numbers, rows: Rows | None) -> Ops:
    _check("peer", peer, Peer, "a Peer")
    columns = [_column("local", local), _column("remote", remote), _column("length", length)]
    pitches = _pitches(rows)
    counts = {len(column) for column in columns + pitches if not isinstance(column, int)}
    if not counts and not pitches:
        return Ops(bytearray(_Op(opcode, 0, peer._live(), *columns)), {peer})
    if len(counts) > 1:
        what = "local, remote, length and rows" if pitches else "local, remote and length"
        raise _invalid(f"{what} have different numbers of entries: {sorted(counts)}")
    count = counts.pop() if counts else 1
    template = bytes(_Op(opcode, _ROWS if pitches else 0, peer._live()))
    if not pitches:
        return Ops(_bytes(_repeated(template, 2, columns, count)), {peer})  # local, remote, length
    table = _repeated(bytes(_Rows()), 0, pitches, count)
    start, width = table.buffer_info()[0], ctypes.sizeof(_Rows)
    places = memoryview(array.array("Q", range(start, start + width * count, width)))
    return Ops(_bytes(_repeated(template, 2, [*columns, places], count)), {peer}, (table,))  # and arg


def _repeated(template: bytes, first: int, columns: list[int | memoryview], count: int) -> array.array[int]:
    """So many structs as the template, with columns in their words from `first` on."""
    one = array.array("Q", template)
    for place, column in enumerate(columns, first):
        if isinstance(column, int):
            one[place] = column
    made = one * count
    words = memoryview(made)
    for place, column in enumerate(columns, first):
        if not isinstance(column, int):
            words[place :: len(one)] = column
    return made


def _bytes(words: array.array[int]) -> memoryview:
    return memoryview(words).cast("B")


def _pitches(rows: Rows | None) -> list[int | memoryview]:
    if rows is None:
        return []
    try:
        count, here, there = rows
    except (TypeError, ValueError):
        raise _wrong_type("rows", rows, "(count, local pitch, remote pitch)") from None
    return [_column("count", count), _column("local pitch", here), _column("remote pitch", there)]


def _column(what: str, column: Numbers) -> int | memoryview:
    view = None if isinstance(column, int) else _buffer(column)
    if view is None or not view.ndim:  # a number of NumPy's, say
        try:
            number = operator.index(column)
        except TypeError:
            right = 'an integer, or a buffer of 64-bit integers such as array.array("Q")'
            if hasattr(column, "data_ptr"):
                right = f"{right}. The address of this one is its data_ptr()"
            raise _wrong_type(what, column, right) from None
        return _integer(what, number if view is not None else column)
    whole = view.format.lstrip("@=<") in ("Q", "q", "L", "l") and view.itemsize == 8
    if view.ndim != 1 or not view.contiguous or not whole:
        raise _invalid(f"{what}: a buffer of format {view.format!r} is not of 64-bit integers one after the other")
    return view.cast("B").cast("Q") if view.nbytes else memoryview(array.array("Q"))


def _joined(ops: Ops | Iterable[Ops]) -> Ops:
    if isinstance(ops, Ops):
        return ops
    try:
        parts = list(ops)
    except TypeError:
        raise _wrong_type("ops", ops, "what read and write give, or some of that") from None
    for index, part in enumerate(parts):
        if not isinstance(part, Ops):
            raise _wrong_type(f"ops[{index}]", part, "what read and write give")
    rows = tuple(table for part in parts for table in part._rows)
    return Ops(bytearray().join(part._buffer for part in parts), {peer for part in parts for peer in part._peers}, rows)
