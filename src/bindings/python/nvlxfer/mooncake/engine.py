# SPDX-License-Identifier: Apache-2.0
"""`mooncake.engine`, over nvlxfer: the help of nvlxfer.mooncake tells what is different."""

from __future__ import annotations

import array
import itertools
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import Access, Busy, Engine, EventKind, NvlxError, OutOfRange, Request, Stale, read, write
from ..errors import _invalid
from . import _lacking, _lists
from ._advice import told
from ._lacking import (
    InnerTransferEngine,
    ReceivedData,
    ReceivedTensor,
    RpcInterface,
    SharedSegment,
    create_rpc_client,
    create_rpc_server,
)
from ._lists import Copies
from ._memory import INVALID, Memory, Refused
from ._sessions import Sessions, bare_host, doubt, serve
from ._values import ScatterTransferCompletionStatus, ScatterTransferTicket, TransferNotify, TransferOpcode

__all__ = [
    "CoroRPCInterface",
    "InnerTransferEngine",
    "Read",
    "ReceivedData",
    "ReceivedTensor",
    "RpcInterface",
    "ScatterTransferCompletionStatus",
    "ScatterTransferTicket",
    "SharedSegment",
    "TransferEngine",
    "TransferNotify",
    "TransferOpcode",
    "Write",
    "create_rpc_client",
    "create_rpc_server",
]

SUPPORT_CUDA, SUPPORT_INTRA_NVLINK = True, True
SUPPORT_EFA = SUPPORT_HIP = SUPPORT_MNNVL = SUPPORT_MULTI_PROTOCOL = SUPPORT_MUSA = False
CoroRPCInterface = RpcInterface

_log = logging.getLogger("nvlxfer.mooncake")
_NO_ANSWER = -102  # Mooncake's code
_DONE, _RUNNING, _FAILED = 1, 0, -1  # of transfer_check_status


Read, Write = TransferOpcode.Read, TransferOpcode.Write
_TransferOpcode = TransferOpcode


class _Parts:
    """What an initialized engine consists of."""

    def __init__(self, host: str, patience: float) -> None:
        self.engine = Engine()
        self.port, held = serve(self.engine, host)
        weakref.finalize(self, os.close, held)
        self.sessions = Sessions(self.engine, host)
        self.memory = Memory(self.engine, patience)


class TransferEngine:
    """Reads and writes registered memory of other TransferEngines of this node. Any thread may call."""

    TransferOpcode = _TransferOpcode

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of initialize
        self._parts: _Parts | None = None
        self._patience = _patience()
        self._batches: dict[int, Request | None] = {}  # None: there was nothing to move
        self._ids = itertools.count(1)

    # ---- The engine

    def initialize(
        self, local_hostname: str, metadata_server: str, protocol: str, device_name: str, /,
    ) -> int:  # fmt: skip
        """Begins to serve. `metadata_server` is "P2PHANDSHAKE"; protocol and device are not used. 0, or -1: why, is
        logged. A host that peers may not find is warned of. NotSupported: another metadata server."""
        for what in (local_hostname, metadata_server, protocol, device_name):
            if not isinstance(what, str):
                raise TypeError(f"initialize() takes four strings, not {what!r}")
        if metadata_server != "P2PHANDSHAKE":
            instead = 'peers are found by their sessions alone: give "P2PHANDSHAKE"'
            _lacking.lacking(f"metadata server ({metadata_server!r})", instead)
        with self._lock:
            if self._parts is not None:
                _log.warning("initialize() was called before: the engine stays as it is")
                return 0
            host = bare_host(local_hostname)
            try:
                self._parts = _Parts(host, self._patience)
            except NvlxError as failure:
                return _failed("initialize", failure)
        _log.info("port %d, on %s; protocol %r and device %r are not used", self._parts.port,
                  self._parts.engine.backend, protocol, device_name)  # fmt: skip
        if (why := doubt(host)) is not None:
            _log.warning("initialize: %s", why)
        return 0

    def initialize_ext(
        self, local_hostname: str, metadata_server: str, protocol: str, device_name: str, metadata_type: str, /,
    ) -> int:  # fmt: skip
        """As `initialize`."""
        return self.initialize(local_hostname, metadata_server, protocol, device_name)

    def _ready(self) -> _Parts:
        if self._parts is None:
            raise _invalid("the TransferEngine is not initialized, or initialize() has failed")
        return self._parts

    def get_rpc_port(self) -> int:
        """The port of this engine's session."""
        return self._ready().port

    def get_local_topology(self, device_name: str | None = None) -> str:
        """No network device is used: none is told."""
        return "{}"

    def warmup_efa_segment(self, segment_name: str) -> int:
        """There is nothing to warm up."""
        return 0

    def get_engine(self) -> NoReturn:
        _lacking.lacking("get_engine()", "stores, EP and process groups need Mooncake's own engine")

    def get_engine_ptr(self) -> NoReturn:
        _lacking.lacking("get_engine_ptr()", "stores, EP and process groups need Mooncake's own engine")

    # ---- Memory

    def register_memory(
        self, buffer_addr: int, capacity: int, location: str = "*", remote_accessible: bool = True,
    ) -> int:  # fmt: skip
        """Registers GPU memory. 0, or -7: it overlaps what is registered, -1: it cannot be shared. `location` is not
        used: the driver knows it."""
        access = Access.READ_WRITE if remote_accessible else Access.NONE
        return self._register("register_memory", [buffer_addr], [capacity], access)

    def batch_register_memory(
        self, buffer_addresses: Sequence[int], capacities: Sequence[int], location: str = "*",
    ) -> int:  # fmt: skip
        """Registers all of them, or none."""
        return self._register("batch_register_memory", buffer_addresses, capacities, Access.READ_WRITE)

    def _register(self, what: str, addresses: Sequence[int], lengths: Sequence[int], access: Access) -> int:
        starts, sizes = _lists.numbers("addresses", addresses), _lists.numbers("capacities", lengths)
        try:
            if len(starts) != len(sizes):
                raise _invalid(f"{len(starts)} addresses have {len(sizes)} capacities")
            self._ready().memory.register(list(zip(starts, sizes)), access)
        except (NvlxError, Refused) as failure:
            return _failed(what, failure)
        return 0

    def unregister_memory(self, buffer_addr: int, /) -> int:
        """Withdraws what was registered at this address, and waits until nobody uses it. 0, or -3: there is nothing,
        -1: somebody still uses it; call again."""
        return self._unregister("unregister_memory", [buffer_addr])

    def batch_unregister_memory(self, buffer_addresses: Sequence[int], /) -> int:
        """Withdraws all that there are, then waits. The first failure's code."""
        return self._unregister("batch_unregister_memory", buffer_addresses)

    def _unregister(self, what: str, addresses: Sequence[int]) -> int:
        starts = _lists.numbers("addresses", addresses)
        try:
            self._ready().memory.unregister(starts)
        except (NvlxError, Refused) as failure:
            return _failed(what, failure)
        return 0

    def allocate_managed_buffer(self, length: int, /) -> NoReturn:
        _lacking.lacking("allocate_managed_buffer()", "register GPU memory of your own")

    def free_managed_buffer(self, user_tensor: int, length: int, /) -> NoReturn:
        _lacking.lacking("free_managed_buffer()", "register GPU memory of your own")

    def write_bytes_to_buffer(self, dest_address: int, src_ptr: bytes | str, length: int, /) -> int:
        """Copies to memory of this process, of a GPU or not."""
        source = src_ptr.encode() if isinstance(src_ptr, str) else bytes(src_ptr)
        if length > len(source):
            raise ValueError(f"there are {len(source)} bytes, not {length}")
        self._ready().engine.memcpy(dest_address, source, length)
        return 0

    def read_bytes_from_buffer(self, source_address: int, length: int, /) -> bytes:
        """Copies from memory of this process, of a GPU or not."""
        found = bytearray(length)
        self._ready().engine.memcpy(found, source_address, length)
        return bytes(found)

    # ---- Transfers

    def _start(
        self, session: str, opcode: _TransferOpcode, copies: Copies, notify: TransferNotify | None = None,
        stream: int | None = None,
    ) -> Request | None:  # fmt: skip
        """Starts a list: all of it, or none of it if this raises. None: there is nothing to move."""
        parts = self._ready()
        if not isinstance(session, str):
            raise TypeError(f'the session is {session!r}: give "host:port"')
        if len({len(column) for column in copies}) != 1:
            raise _invalid("buffers, peer_buffer_addresses and lengths have different lengths")
        message = None if notify is None else json.dumps([notify.name, notify.msg]).encode()
        deadline, caught_up = time.monotonic() + self._patience, False
        while True:
            peer = parts.sessions.peer(session)
            if not len(copies.local) and message is None:
                return None
            try:
                ops = (write if opcode is TransferOpcode.Write else read)(peer, *copies)
                return parts.engine.transfer(ops, stream, message=message)
            except Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1e-3)
            except NvlxError as failure:
                if caught_up or not (isinstance(failure, (OutOfRange, Stale)) or peer.closed):
                    raise
                parts.sessions.catch_up(session, peer)  # it may have registered more than is known here
                caught_up = True

    def _sync(
        self, what: str, session: str, opcode: _TransferOpcode, copies: Copies, notify: TransferNotify | None = None
    ) -> int:
        """Moves a list. 0: every byte is in place. -1: it has failed. Nothing of it goes on in either case."""
        try:
            request = self._start(session, opcode, copies, notify)
            if request is not None:
                with request:
                    request.wait()
        except NvlxError as failure:
            return _failed(f"{what} with {session}", failure)
        return 0

    def _async(self, what: str, session: str, opcode: _TransferOpcode, copies: Copies) -> int:
        """Starts a list. The number to ask for it, or 0: it has failed."""
        try:
            request = self._start(session, opcode, copies)
        except NvlxError as failure:
            _failed(f"{what} with {session}", failure)
            return 0
        number = next(self._ids)
        self._batches[number] = request
        return number

    def transfer_sync_write(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:  # fmt: skip
        """Copies own memory to the peer's. 0, or -1."""
        copies = _lists.from_sequences([buffer], [peer_buffer_address], [length])
        return self._sync("transfer_sync_write", target_hostname, Write, copies)

    def transfer_sync_read(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:  # fmt: skip
        """Copies the peer's memory to own memory. 0, or -1."""
        copies = _lists.from_sequences([buffer], [peer_buffer_address], [length])
        return self._sync("transfer_sync_read", target_hostname, Read, copies)

    def transfer_sync(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, opcode: _TransferOpcode,
        notify: TransferNotify | None = None, transport_hint: str = "", nic_hint: str = "",
    ) -> int:  # fmt: skip
        """As `batch_transfer_sync`, of one copy."""
        copies = _lists.from_sequences([buffer], [peer_buffer_address], [length])
        return self._sync("transfer_sync", target_hostname, _opcode(opcode), copies, notify)

    def batch_transfer_sync_write(
        self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int], transport_hint: str = "", nic_hint: str = "",
    ) -> int:  # fmt: skip
        """Copies own memory to the peer's, a list in one call. 0: every byte is there. -1: it has failed."""
        copies = _lists.from_sequences(buffers, peer_buffer_addresses, lengths)
        return self._sync("batch_transfer_sync_write", target_hostname, Write, copies)

    def batch_transfer_sync_read(
        self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int], transport_hint: str = "", nic_hint: str = "",
    ) -> int:  # fmt: skip
        """Copies the peer's memory to own memory, a list in one call. 0: every byte is here. -1: it has failed."""
        copies = _lists.from_sequences(buffers, peer_buffer_addresses, lengths)
        return self._sync("batch_transfer_sync_read", target_hostname, Read, copies)

    def batch_transfer_sync(
        self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int], opcode: _TransferOpcode, notify: TransferNotify | None = None, transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:  # fmt: skip
        """Copies a list. `notify` is at the peer when all bytes are in place, not before: its get_notifies gives it."""
        copies = _lists.from_sequences(buffers, peer_buffer_addresses, lengths)
        return self._sync("batch_transfer_sync", target_hostname, _opcode(opcode), copies, notify)

    # ---- Lists from arrays

    def batch_transfer_sync_write_arrays(
        self, target_hostname: str, buffers: Any, peer_buffer_addresses: Any, lengths: Any, transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:  # fmt: skip
        """As `batch_transfer_sync_write`, from contiguous arrays of 64-bit integers, such as NumPy's."""
        copies = _lists.from_arrays(buffers, peer_buffer_addresses, lengths)
        return self._sync("batch_transfer_sync_write_arrays", target_hostname, Write, copies)

    def batch_transfer_sync_read_arrays(
        self, target_hostname: str, buffers: Any, peer_buffer_addresses: Any, lengths: Any, transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:  # fmt: skip
        """As `batch_transfer_sync_read`, from contiguous arrays of 64-bit integers, such as NumPy's."""
        copies = _lists.from_arrays(buffers, peer_buffer_addresses, lengths)
        return self._sync("batch_transfer_sync_read_arrays", target_hostname, Read, copies)

    def batch_transfer_sync_write_pages(
        self, target_hostname: str, src_pages: Any, dst_pages: Any, fields: Any, max_batch_size: int = 0,
        transport_hint: str = "", nic_hint: str = "",
    ) -> int:  # fmt: skip
        """Copies pages: for each row (base, stride, peer's base, peer's stride, length) of `fields`, an array of 64-bit
        integers, and for each i, `length` bytes from base + src_pages[i] * stride to peer's base + dst_pages[i] *
        peer's stride. All go in one list, whatever `max_batch_size` is."""
        _lists.number("max_batch_size", max_batch_size)
        copies = _lists.from_pages(src_pages, dst_pages, fields)
        return self._sync("batch_transfer_sync_write_pages", target_hostname, Write, copies)

    def batch_transfer_sync_read_pages(
        self, target_hostname: str, src_pages: Any, dst_pages: Any, fields: Any, max_batch_size: int = 0,
        transport_hint: str = "", nic_hint: str = "",
    ) -> int:  # fmt: skip
        """As `batch_transfer_sync_write_pages`, in the other direction: `src_pages` and the first two columns are
        those of this process here too, as in Mooncake."""
        _lists.number("max_batch_size", max_batch_size)
        copies = _lists.from_pages(src_pages, dst_pages, fields)
        return self._sync("batch_transfer_sync_read_pages", target_hostname, Read, copies)

    # ---- Transfers that are asked for later

    def batch_transfer_async_write(
        self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int], transport_hint: str = "", nic_hint: str = "",
    ) -> int:  # fmt: skip
        """Starts a list. A number for `get_batch_transfer_status` and `transfer_check_status`, or 0: it has failed."""
        copies = _lists.from_sequences(buffers, peer_buffer_addresses, lengths)
        return self._async("batch_transfer_async_write", target_hostname, Write, copies)

    def batch_transfer_async_read(
        self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int], transport_hint: str = "", nic_hint: str = "",
    ) -> int:  # fmt: skip
        """As `batch_transfer_async_write`, in the other direction."""
        copies = _lists.from_sequences(buffers, peer_buffer_addresses, lengths)
        return self._async("batch_transfer_async_read", target_hostname, Read, copies)

    def batch_transfer_async(
        self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int], opcode: _TransferOpcode, transport_hint: str = "", nic_hint: str = "",
    ) -> int:  # fmt: skip
        """As `batch_transfer_async_write`, in either direction."""
        copies = _lists.from_sequences(buffers, peer_buffer_addresses, lengths)
        return self._async("batch_transfer_async", target_hostname, _opcode(opcode), copies)

    def batch_transfer_async_write_arrays(
        self, target_hostname: str, buffers: Any, peer_buffer_addresses: Any, lengths: Any, transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:  # fmt: skip
        """As `batch_transfer_async_write`, from contiguous arrays of 64-bit integers."""
        copies = _lists.from_arrays(buffers, peer_buffer_addresses, lengths)
        return self._async("batch_transfer_async_write_arrays", target_hostname, Write, copies)

    def batch_transfer_async_read_arrays(
        self, target_hostname: str, buffers: Any, peer_buffer_addresses: Any, lengths: Any, transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:  # fmt: skip
        """As `batch_transfer_async_read`, from contiguous arrays of 64-bit integers."""
        copies = _lists.from_arrays(buffers, peer_buffer_addresses, lengths)
        return self._async("batch_transfer_async_read_arrays", target_hostname, Read, copies)

    def transfer_submit_write(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:  # fmt: skip
        """Starts a copy to the peer's memory. A number for `transfer_check_status`, or 0: it has failed."""
        copies = _lists.from_sequences([buffer], [peer_buffer_address], [length])
        return self._async("transfer_submit_write", target_hostname, Write, copies)

    def transfer_check_status(self, batch_id: int, /) -> int:
        """1: complete, 0: in flight, -1: failed. After 1 and -1 the number is used up."""
        number = _lists.number("batch_id", batch_id)
        try:
            request = self._batch(number)
            if request is not None and not request.test():
                return _RUNNING
        except NvlxError as failure:
            self._batches.pop(number, None)
            _failed("transfer_check_status", failure)
            return _FAILED
        self._batches.pop(number, None)
        return _DONE

    def get_batch_transfer_status(self, batch_ids: Sequence[int], /) -> int:
        """Waits until all of them are over. 0: all are complete. -1: one has failed. The numbers are used up."""
        code = 0
        for number in _lists.numbers("batch_ids", batch_ids):
            try:
                request = self._batch(number)
                if request is not None:
                    request.wait()
            except NvlxError as failure:
                code = _failed("get_batch_transfer_status", failure)
            self._batches.pop(number, None)
        return code

    def _batch(self, number: int) -> Request | None:
        try:
            return self._batches[number]
        except KeyError:
            raise _invalid(f"{number} is no transfer's number, or is used up") from None

    # ---- Transfers in a stream's order

    def _on_cuda(self, session: str, opcode: _TransferOpcode, copies: Copies, stream: int) -> None:
        try:
            self._start(session, opcode, copies, stream=_lists.number("stream_ptr", stream))
        except NvlxError as failure:
            raise RuntimeError(told(failure)) from failure

    def transfer_write_on_cuda(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, stream_ptr: int = 0,
        transport_hint: str = "", nic_hint: str = "",
    ) -> None:  # fmt: skip
        """As `batch_transfer_write_on_cuda`, of one copy."""
        copies = _lists.from_sequences([buffer], [peer_buffer_address], [length])
        self._on_cuda(target_hostname, Write, copies, stream_ptr)

    def transfer_read_on_cuda(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, stream_ptr: int = 0,
        transport_hint: str = "", nic_hint: str = "",
    ) -> None:  # fmt: skip
        """As `batch_transfer_read_on_cuda`, of one copy."""
        copies = _lists.from_sequences([buffer], [peer_buffer_address], [length])
        self._on_cuda(target_hostname, Read, copies, stream_ptr)

    def batch_transfer_write_on_cuda(
        self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int], stream_ptr: int = 0, transport_hint: str = "", nic_hint: str = "",
    ) -> None:  # fmt: skip
        """Puts copies to the peer's memory into the order of a CUDA stream, and returns. RuntimeError: none is made."""
        copies = _lists.from_sequences(buffers, peer_buffer_addresses, lengths)
        self._on_cuda(target_hostname, Write, copies, stream_ptr)

    def batch_transfer_read_on_cuda(
        self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int], stream_ptr: int = 0, transport_hint: str = "", nic_hint: str = "",
    ) -> None:  # fmt: skip
        """Puts copies of the peer's memory into the order of a CUDA stream, and returns. RuntimeError: none is made."""
        copies = _lists.from_sequences(buffers, peer_buffer_addresses, lengths)
        self._on_cuda(target_hostname, Read, copies, stream_ptr)

    # ---- Fragments of ranges

    def _scatter(
        self, what: str, endpoint: str, opcode: _TransferOpcode, local: tuple[Any, Any, Any],
        remote: tuple[Any, Any, Any], lengths: Any,
    ) -> ScatterTransferTicket:  # fmt: skip
        sizes = array.array("Q", itertools.chain.from_iterable(lengths))
        try:
            copies = Copies(_lists.from_fragments(*local, lengths), _lists.from_fragments(*remote, lengths), sizes)
            request = self._start(endpoint, opcode, copies)
        except (NvlxError, ValueError) as failure:
            _failed(f"{what} with {endpoint}", failure)
            return ScatterTransferTicket(None, ScatterTransferCompletionStatus.FAILED_DRAINED)
        return ScatterTransferTicket(request, ScatterTransferCompletionStatus.COMPLETED)

    def submit_scatter_write(
        self, endpoint: str, local_base_addresses: Sequence[int], local_capacities: Sequence[int],
        remote_base_addresses: Sequence[int], remote_capacities: Sequence[int], local_offsets: Sequence[Sequence[int]],
        remote_offsets: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]],
    ) -> ScatterTransferTicket:  # fmt: skip
        """Starts copies of fragments: fragment j of range i is `lengths[i][j]` bytes at `local_offsets[i][j]` of the
        range here, and at `remote_offsets[i][j]` of the peer's, inside of its range. The ticket tells how it ends."""
        local = local_base_addresses, local_capacities, local_offsets
        remote = remote_base_addresses, remote_capacities, remote_offsets
        return self._scatter("submit_scatter_write", endpoint, Write, local, remote, lengths)

    def submit_scatter_read(
        self, endpoint: str, local_base_addresses: Sequence[int], local_capacities: Sequence[int],
        remote_base_addresses: Sequence[int], remote_capacities: Sequence[int], local_offsets: Sequence[Sequence[int]],
        remote_offsets: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]],
    ) -> ScatterTransferTicket:  # fmt: skip
        """As `submit_scatter_write`, in the other direction."""
        local = local_base_addresses, local_capacities, local_offsets
        remote = remote_base_addresses, remote_capacities, remote_offsets
        return self._scatter("submit_scatter_read", endpoint, Read, local, remote, lengths)

    def scatter_transfer_sync_write_with_ticket(
        self, endpoint: str, local_base_addresses: Sequence[int], local_capacities: Sequence[int],
        remote_base_addresses: Sequence[int], remote_capacities: Sequence[int], local_offsets: Sequence[Sequence[int]],
        remote_offsets: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]],
    ) -> ScatterTransferTicket:  # fmt: skip
        """As `submit_scatter_write`, and waits: it is over."""
        local = local_base_addresses, local_capacities, local_offsets
        remote = remote_base_addresses, remote_capacities, remote_offsets
        what = "scatter_transfer_sync_write_with_ticket"
        return self._scatter(what, endpoint, Write, local, remote, lengths)._over()

    def scatter_transfer_sync_read_with_ticket(
        self, endpoint: str, local_base_addresses: Sequence[int], local_capacities: Sequence[int],
        remote_base_addresses: Sequence[int], remote_capacities: Sequence[int], local_offsets: Sequence[Sequence[int]],
        remote_offsets: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]],
    ) -> ScatterTransferTicket:  # fmt: skip
        """As `submit_scatter_read`, and waits: it is over."""
        local = local_base_addresses, local_capacities, local_offsets
        remote = remote_base_addresses, remote_capacities, remote_offsets
        what = "scatter_transfer_sync_read_with_ticket"
        return self._scatter(what, endpoint, Read, local, remote, lengths)._over()

    # ---- Peers

    def send_probe(self, peer_server_name: str) -> int:
        """Asks the engine of this session. 0: it has answered."""
        try:
            self._ready().sessions.connect(peer_server_name).close()
        except NvlxError as failure:
            _failed(f"send_probe to {peer_server_name}", failure)
            return INVALID if self._parts is None else _NO_ANSWER
        return 0

    def get_first_buffer_address(self, segment_name: str, /) -> int:
        """The address of what the session's engine has registered first, of what is there now. 0: there is nothing."""
        try:
            with self._ready().sessions.connect(segment_name) as peer:
                found = min(peer.regions(), key=lambda info: (info.generation, info.address), default=None)
        except NvlxError as failure:
            _failed(f"get_first_buffer_address of {segment_name}", failure)
            return 0
        return 0 if found is None else found.address

    def get_notifies(self) -> list[TransferNotify]:
        """The messages that have come with transfers of others since the last call."""
        engine = self._ready().engine
        found = []
        while (event := engine.next_event()) is not None:
            if event.kind == EventKind.MESSAGE:
                found.append(TransferNotify(*json.loads(event.message)))
        return found


def _opcode(opcode: Any) -> TransferOpcode:
    if not isinstance(opcode, TransferOpcode):
        raise TypeError(f"opcode is {opcode!r}: give a TransferOpcode")
    return opcode


def _patience() -> float:
    """Seconds."""
    given = os.environ.get("MC_TRANSFER_TIMEOUT", "30")
    try:
        return float(max(5, int(given)))
    except (ValueError, OverflowError):
        raise _invalid(f"the environment variable MC_TRANSFER_TIMEOUT is {given!r:.100}: give whole seconds") from None


def _failed(what: str, failure: Exception) -> int:
    """Mooncake's code for it."""
    _log.error("%s: %s", what, told(failure))
    return failure.code if isinstance(failure, Refused) else INVALID
