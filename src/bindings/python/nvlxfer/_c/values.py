# SPDX-License-Identifier: Apache-2.0
"""The enumerations of nvlxfer.h, and what its structs tell."""

from __future__ import annotations

import enum
from typing import NamedTuple


class _Brief(type):
    """Of such a class dir, and so help, tells what this package says, not what Exception brings."""

    def __dir__(cls) -> list[str]:
        return sorted({name for each in cls.__mro__ if isinstance(each, _Brief) for name in vars(each)})


class _BriefEnum(enum.EnumMeta):
    """Of such an enumeration its members, not what int brings: that is a page for each."""

    def __dir__(cls) -> list[str]:
        return list(cls.__members__)


class _Enum(enum.IntEnum, metaclass=_BriefEnum):
    """An enumeration of nvlxfer.h."""


class Backend(_Enum):
    """Where an Engine works. AUTO: what the environment variable NVLX_BACKEND names, else CUDA where a driver and a GPU
    answer, else HOST."""

    AUTO, CUDA, HOST = range(3)


class Mechanism(_Enum):
    """What carries the copies. DEFAULT: as the Engine was told."""

    DEFAULT, AUTO, COPY_ENGINE, KERNEL = range(4)


class Access(_Enum):
    """What peers may do with a region. NONE: it is for this process's own transfers."""

    NONE, READ, WRITE, READ_WRITE = range(4)


class Alloc(_Enum):
    """How memory is made. CUDA_MALLOC reaches processes of one PID namespace, VMM (chunks) others, too."""

    CUDA_MALLOC, VMM, POOL = range(3)
    HOST = 4


class Kind(_Enum):
    """How a peer's memory is shared."""

    UNKNOWN, CUDA_MALLOC, VMM, POOL, FABRIC, HOST = range(6)


class EventKind(_Enum):
    """What an Event tells."""

    PEER_LOST, PEER_CHANGED, MESSAGE = range(1, 4)
    WAIT_FAILED = 5


STREAM_LEGACY, STREAM_PER_THREAD = 1, 2


class RequestInfo(NamedTuple):
    status: int
    sms: int
    ops: int
    bytes: int
    submit_ns: int
    elapsed_ns: int
    engine_bytes: int
    engine_fragments: int
    kernel_bytes: int
    kernel_fragments: int
    error: str


class RegionInfo(NamedTuple):
    name: str  # "" if it has none
    address: int
    length: int
    access: Access
    generation: int  # that the region came with
    peer_generation: int  # of the peer, that is known: for `generation` of transfers
    digest: int | None  # of its bytes, if the peer told it
    suspended: bool  # it sleeps, until the peer resumes it
    kind: Kind  # how its memory is shared
    gpu: str  # UUID of the peer's GPU; "" if it has no memory


class PeerInfo(NamedTuple):
    generation: int
    regions: int
    segments: int
    pid: int  # as the peer itself sees it
    pid_namespace: int
    same_process: bool
    followed: bool  # made by connect
    engine: str
    backend: str
    address: str  # at which it serves, or ""


class EngineInfo(NamedTuple):
    segments: int
    regions: int
    handles_exported: int
    mappings: int
    requests: int


class RelayInfo(NamedTuple):
    generation: int  # of the source: that is offered. Of a reader: that it has, or is at
    bytes: int  # of all parts
    arrived: int  # of them are in place
    elapsed_ns: int  # until all was in place and right; 0: not yet
    parents: int  # whom a reader has read from, in this generation
    source: bool
    readers: int  # of the source: that are at the generation, or have it
    done: int  # of them have it
    lost: int  # that have died, left or failed since it began, without it
    parent: str  # the address of whom a reader reads from; "": of the source
