# SPDX-License-Identifier: Apache-2.0
"""The library: where it is found, its functions, structs and constants, by ctypes."""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

from ..errors import _EBUSY, _ENOTSUP, NvlxError, _error, _name
from .values import EngineInfo, PeerInfo, RelayInfo, RequestInfo

_I, _U32, _U64, _I64 = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
_SIZE, _S, _P = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
_LETTERS = {"i": _I, "u": _U32, "q": _U64, "t": _I64, "z": _SIZE, "s": _S, "p": _P, "v": None}
_FUNCTIONS = dict(  # noqa: C408 - the result's type, then the arguments'
    version="s", build_info="s", strerror="si", last_error="s", gpu_count="iup", engine_create="ipp",
    engine_destroy="ip", engine_get_info="ipp", backend_name="sp", alloc="ipizpp", free="ipp", memcpy="ipppz",
    digest="ippzp",
    register="ippzpp", unregister="ipt", export="ippp", text_free="vp", serve="ipsp", connect="ipstp",
    peer_open="ipszp", peer_update="ipsz", peer_find="ipspp", peer_map="ipiqq", peer_wake="ip", peer_test="ip",
    peer_close="ip",
    transfer="ippzpp", prepare="ippzpp", post="ippp", prepared_free="ip", test="ip", wait="ipt", request_get_info="ipp",
    request_free="ip", set_log="iipp", hold="ip", publish="ipp", peer_sync="ipqt", check="ip",
    peer_region="ippp", peer_region_by_name="ipsp", peer_generation="ipp", peer_get_info="ipp", region_set_digest="ipp",
    event_fd="ipp", next_event="ipp", send="ippz",
    suspend="ipzt", resume="ipzp", stream_signal="ipppqqu", stream_wait="ippppqpp",
    region_ready="ipp", stream_wait_status="ipq", signal_read="ippp", signal_wait="ipppqt",
    stats="ippp", stats_prometheus="ippzp", peer_stats="iptpp",
    relay_offer="ipspzpp", relay_join="ipspzptp", relay_wait="ipt", relay_hold="ip", relay_next="ip",
    relay_get_info="ipp", relay_free="ipt",
    blocks_create="ippppzpp", blocks_transfer="ipppp", blocks_free="ip",
)  # fmt: skip
_SIGNAL, _ADD, _WAIT_READY = 3, 2, 4
_READ, _WRITE, _ROWS, _NO_MAP, _VERIFY, _DONE_EVENT, _REQUEST_DONE, _IDS_ON_GPU = 1, 2, 1, 1, 2, 4, 4, 1


class _Library:
    """The library's functions, each bound at its first use: a library that lacks some serves for the rest."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        result, *arguments = [_LETTERS[letter] for letter in _FUNCTIONS[name[len("nvlx_") :]]]
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise _error(_ENOTSUP, f"{self._library._name} has no {name}: use a newer libnvlxfer") from None
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)
        return function


class _Plain:
    """Those that each transfer calls, once more. These convert and check nothing, so they must be given objects of
    ctypes, of the right types. A Python int would be cut to 32 bits."""

    post: Any
    transfer: Any
    blocks_transfer: Any
    test: Any
    wait: Any
    request_free: Any

    def bind(self, library: _Library) -> None:
        for name in _Plain.__annotations__:
            setattr(self, name, self._bound(library, f"nvlx_{name}"))

    def _bound(self, library: _Library, name: str) -> Any:
        try:
            function = library._library[name]
        except AttributeError:
            return lambda *given: getattr(library, name)  # which tells that there is none
        function.restype = _I
        return function


_plain = _Plain()
_when_loaded: list[Callable[[_Library], None]] = [_plain.bind]


@functools.cache
def _library() -> _Library:
    named = os.environ.get("NVLX_LIBRARY")
    here = pathlib.Path(__file__).resolve().parents[1]
    inside, built = here / "libnvlxfer.so.0", here / "../../../../build/libnvlxfer.so.0"
    failures = []
    for path in [named] if named else [str(inside)] * inside.exists() + ["libnvlxfer.so.0", str(built)]:
        try:
            loaded = _Library(ctypes.CDLL(path))
        except OSError as failure:
            failures.append(str(failure))
            continue
        for begin in _when_loaded:
            begin(loaded)
        return loaded
    raise OSError(f"libnvlxfer was not found ({'; '.join(failures)}): set NVLX_LIBRARY to its path")


def _last_error(code: int) -> NvlxError:
    """What the library says of the last failure of this thread, whose code it is."""
    told = _library().nvlx_last_error() or _library().nvlx_strerror(code)
    text = told.decode("utf-8", "replace").removeprefix(f"{_name(code)}: ")  # nvlx_strerror begins with it
    if code == _EBUSY and "a prepared list" in text:
        text += ". In Python that is a Pull, Prepared or Blocks: close it before. Dropped ones live on until then"
    return _error(code, text)


class _Config(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("backend", _U32), ("max_requests", _U32), ("gpus", ctypes.POINTER(_I))]
    _fields_ += [("gpu_count", _SIZE), ("mechanism", _U32), ("max_sms", _U32), ("list_memory", _SIZE)]


class _AllocOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("flags", _U32), ("chunk_length", _SIZE)]


class _RegionOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("name", ctypes.c_char_p), ("access", _U32), ("ready", _P)]


class _TransferOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("flags", _U32), ("stream", _P), ("mechanism", _U32), ("max_sms", _U32)]
    _fields_ += [("priority", ctypes.c_int32), ("generation", _U64)]
    _fields_ += [("message", _P), ("message_length", _SIZE), ("user", _P)]


class _ServeOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("users", ctypes.POINTER(_U32)), ("user_count", _SIZE)]
    _fields_ += [("groups", ctypes.POINTER(_U32)), ("group_count", _SIZE), ("mode", _U32), ("max_connections", _U32)]
    _fields_ += [("stats", _U32), ("reserved", _U32)]


class _RequestInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("status", ctypes.c_int32), ("sms", _U32)]
    _fields_ += [(name, _U64) for name in RequestInfo._fields[2:-1]] + [("error", ctypes.c_char * 256)]


class _RegionInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("address", _U64), ("length", _U64), ("generation", _U64), ("peer_generation", _U64)]
    _fields_ += [("digest", _U64), ("has_digest", _U32), ("access", _U32), ("name", ctypes.c_char * 256)]
    _fields_ += [("suspended", _U32), ("kind", _U32), ("gpu", ctypes.c_char * 48)]


class _PeerInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE)] + [(name, _U64) for name in PeerInfo._fields[:5]]
    _fields_ += [("same_process", _U32), ("followed", _U32), ("engine", ctypes.c_char * 40)]
    _fields_ += [("backend", ctypes.c_char * 16), ("address", ctypes.c_char * 112)]


class _EngineInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE)] + [(name, _U64) for name in EngineInfo._fields]


_COUNTS = (
    "transfers", "failed", "refused", "in_flight", "queued", "submit_ns", "transfer_ns", "engine_read_bytes",
    "engine_write_bytes", "kernel_read_bytes", "kernel_write_bytes", "engine_read_fragments",
    "engine_write_fragments", "kernel_read_fragments", "kernel_write_fragments", "mappings_opened",
    "mappings_closed", "mappings_failed", "mappings_revoked", "revocations", "revocation_ns", "revocations_late",
    "peers", "peers_lost", "graph_faults",
)  # fmt: skip


class _Counts(ctypes.Structure):
    _fields_ = [("size", _SIZE)] + [(name, _U64) for name in _COUNTS]


class _Event(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("kind", _U32), ("status", ctypes.c_int32), ("peer", _P), ("generation", _U64)]
    _fields_ += [("unconfirmed", _U64), ("request", _P), ("user", _P), ("message", _P), ("message_length", _SIZE)]
    _fields_ += [("pid", _I64), ("engine", ctypes.c_char * 40), ("reason", ctypes.c_char * 256)]
    _fields_ += [("wait", _U64)]


class _WaitOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("mark", _P), ("reached", _P)]


class _Op(ctypes.Structure):
    _fields_ = [("opcode", _U32), ("flags", _U32), ("peer", _P), ("local", _P), ("remote", _U64), ("length", _U64)]
    _fields_ += [("arg", _U64)]


class _Rows(ctypes.Structure):
    _fields_ = [("count", _U64), ("local_pitch", _U64), ("remote_pitch", _U64)]


class _BlockRegion(ctypes.Structure):
    _fields_ = [(name, _U64) for name in ("base", "stride", "offset", "length", "blocks")]
    _fields_ += [("group", _U32), ("flags", _U32)]


class _BlocksOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("flags", _U32), ("access", _U32), ("generation", _U64)]


class _BlockIds(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("opcode", _U32), ("group", _U32), ("local", _P), ("remote", _P), ("count", _SIZE)]
    _fields_ += [(name, _U32) for name in ("width", "flags", "first_region", "regions")]


class _RelayPart(ctypes.Structure):
    _fields_ = [("name", _S), ("address", _P), ("length", _U64)]


class _RelayOptions(ctypes.Structure):
    _fields_ = [("size", _SIZE), ("piece_bytes", _U64), ("patience_ns", _I64), ("readers", _U32), ("reserved", _U32)]
    _fields_ += [("serve", ctypes.POINTER(_ServeOptions))]


class _RelayInfo(ctypes.Structure):
    _fields_ = [("size", _SIZE)] + [(name, _U64) for name in RelayInfo._fields[:5]]
    _fields_ += [(name, _U32) for name in RelayInfo._fields[5:9]] + [("parent", ctypes.c_char * 112)]
