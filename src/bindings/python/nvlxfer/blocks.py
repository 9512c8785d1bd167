# SPDX-License-Identifier: Apache-2.0
"""Blocks by id: the layout of a paged KV cache, told once."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, NamedTuple

from ._c.arguments import Buffer, _buffer, _filled, _integer, _integers
from ._c.calls import _interruptibly, _Owned, _run
from ._c.native import _IDS_ON_GPU, _P, _READ, _U64, _WRITE, _BlockIds, _BlockRegion, _plain
from .errors import _invalid, _listed, _wrong_type
from .tensors.arrays import _located
from .transfers import Request, _noted, _options, _with_message

Ids = Any  # a buffer of 32-bit or 64-bit integers, a tensor of them, or a sequence of ints


class BlockRegion(NamedTuple):
    """Blocks of a paged cache at equal distances, in bytes: block i begins at `base` + i * `stride`, for i below
    `blocks`, and of each `length` bytes from `offset` on are moved. `base` is an own address, as of data_ptr(), or one
    of the peer. Regions of one `group` have the same ids."""

    base: int
    stride: int
    length: int
    blocks: int
    offset: int = 0
    group: int = 0


def _block_regions(what: str, regions: Iterable[BlockRegion]) -> Any:
    listed = []
    for i, given in enumerate(_listed(what, regions, "a sequence of BlockRegion")):
        fields = _listed(f"{what}[{i}]", given, "a BlockRegion")
        try:
            listed.append(BlockRegion(*fields))
        except TypeError:  # too few, or too many
            raise _wrong_type(f"{what}[{i}]", given, "a BlockRegion") from None
    made = (_BlockRegion * len(listed))()
    for i, region in enumerate(listed):
        for name, kind, *_ in _BlockRegion._fields_[:-1]:
            setattr(made[i], name, _integer(f"{name} of {what} region {i}", getattr(region, name), kind))
    return made


class _IdList(NamedTuple):
    place: Any  # bytes, or an address on a GPU
    number: int
    width: int
    on_gpu: bool


def _ids(what: str, ids: Ids) -> _IdList:
    """Integers of 32 or 64 bits, one after the other."""
    interface = getattr(ids, "__cuda_array_interface__", None)
    if interface is not None:
        return _gpu_ids(what, interface)
    view = _buffer(ids)
    if view is None and hasattr(ids, "numpy"):  # a tensor
        view = _buffer(ids.numpy())
    if view is None:
        numbers = _integers(what, ids, _U64)
        return _IdList(bytes(numbers), len(numbers), 8, False)
    if view.ndim != 1 or view.format.lstrip("@=<") not in ("i", "I", "l", "L", "q", "Q") or view.itemsize not in (4, 8):
        raise _invalid(f"{what}: a buffer of format {view.format!r} is not of 32-bit or 64-bit integers in a row")
    return _IdList(view.tobytes(), len(view), view.itemsize, False)


def _gpu_ids(what: str, interface: dict[str, Any]) -> _IdList:
    address, length = _located(interface)
    kind = interface["typestr"]
    if kind not in ("<i4", "<u4", "<i8", "<u8") or len(interface["shape"]) != 1:
        raise _invalid(f"{what}: an array of {kind!r} is not of 32-bit or 64-bit integers in a row")
    return _IdList(address, length // int(kind[-1]), int(kind[-1]), True)


class Blocks(_Owned):
    """Two tables of block regions, checked and mapped once; transfers name blocks by their ids."""

    _instead = "Create the blocks in the process that transfers them"

    def read(self, local: Ids, remote: Ids, **how: Any) -> Request:
        """Copies block remote[i] of the peer to block local[i] here, in each region of a group. The ids are buffers of
        32-bit or 64-bit integers, such as NumPy's arrays, tensors of PyTorch, or sequences. Those on a GPU are read
        when the copies run, in the order of `stream`: they must stay until the request is complete. Keywords:
        `group`, `first_region` and `regions` (of the group's; 0: all that follow), `stream`, `mechanism`, `max_sms`,
        `priority` and `message`, as of Engine.transfer."""
        return self._transfer(_READ, local, remote, **how)

    def write(self, local: Ids, remote: Ids, **how: Any) -> Request:
        """Copies block local[i] here to block remote[i] of the peer; otherwise as `read`."""
        return self._transfer(_WRITE, local, remote, **how)

    def capture_read(self, local: Ids, remote: Ids, *, stream: Any, **how: Any) -> None:
        """As `read`, into the graph that a CUDA stream captures: each replay copies. Ids on a GPU are read by each, and
        must stay as long as the graph; others are those of now. Pairs with an id out of range are left out: the log
        says so, and graph_faults of Engine.stats() counts it."""
        self._start(_READ, local, remote, True, stream=stream, **how)

    def capture_write(self, local: Ids, remote: Ids, *, stream: Any, **how: Any) -> None:
        """As `write`, and as `capture_read`."""
        self._start(_WRITE, local, remote, True, stream=stream, **how)

    def _transfer(self, opcode: int, local: Ids, remote: Ids, **how: Any) -> Request:
        request = self._start(opcode, local, remote, False, **how)
        assert request is not None
        return request

    def _start(
        self, opcode: int, local: Ids, remote: Ids, captures: bool, *, group: int = 0, first_region: int = 0,
        regions: int = 0, stream: Any = None, mechanism: int = 0, max_sms: int = 0, priority: int = 0,
        message: Buffer | None = None,
    ) -> Request | None:  # fmt: skip
        self._engine._sweep()
        here, there = _ids("local", local), _ids("remote", remote)
        for what, one, other in zip(("there are", "ids have bytes:", "on a GPU:"), here[1:], there[1:]):
            if one != other:
                raise _invalid(f"local and remote ids differ: {what} {one} and {other}")
        ids = _filled(_BlockIds, opcode=opcode, group=group, count=here.number, width=here.width,
                      flags=_IDS_ON_GPU if here.on_gpu else 0, first_region=first_region, regions=regions)  # fmt: skip
        ids.local, ids.remote = (
            each.place if each.on_gpu else ctypes.cast(ctypes.c_char_p(each.place), _P) for each in (here, there)
        )
        noted, request = 0 if captures else _noted(), None
        options = _options(stream, noted, mechanism=mechanism, max_sms=max_sms, priority=priority)
        kept = _with_message(options, message)
        given = ctypes.byref(ids), ctypes.byref(options)
        if captures:
            _run("nvlx_blocks_transfer", self, *given, None)
        else:
            request = Request(self._engine, noted, _plain.blocks_transfer, (self,), (self._pointer, *given))
        del kept, here, there
        return request

    def close(self) -> None:
        """Waits for its transfers in flight."""
        if self._closable():
            _interruptibly(lambda stop: self._free("nvlx_blocks_free"))
            self._engine._shared.settle()
