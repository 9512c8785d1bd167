# SPDX-License-Identifier: Apache-2.0
"""What `mooncake.engine` has and this module has not: it says so at the first use."""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import _ENOTSUP, _error


def lacking(what: str, instead: str = "use Mooncake's own engine for it") -> NoReturn:
    raise _error(_ENOTSUP, f"nvlxfer.mooncake has no {what}: {instead}")


class InnerTransferEngine:
    def __init__(self) -> None:
        lacking("InnerTransferEngine")


class SharedSegment:
    @staticmethod
    def create(*arguments: Any, **keywords: Any) -> NoReturn:
        lacking("SharedSegment", "register memory, and let others read and write it")

    @staticmethod
    def supported(mmap: bool = True, host_register: bool = False) -> bool:
        """Not here."""
        return False


class ReceivedData:
    def __init__(self) -> None:
        lacking("ReceivedData")


class ReceivedTensor:
    def __init__(self) -> None:
        lacking("ReceivedTensor")


class RpcInterface:
    def __init__(self) -> None:
        lacking("RpcInterface")


def create_rpc_client(local_rank: int = 0, world_size: int = 1) -> NoReturn:
    lacking("create_rpc_client")


def create_rpc_server(local_rank: int = 0, world_size: int = 1) -> NoReturn:
    lacking("create_rpc_server")
