# SPDX-License-Identifier: Apache-2.0
"""Mooncake's Python interface, `mooncake.engine`, over nvlxfer: for programs that were written for Mooncake.

`TransferEngine` has the names, the order of arguments and the return values of mooncake-transfer-engine 0.3.14. A
program uses it in one of three ways:

    from nvlxfer.mooncake import TransferEngine            # in place of: from mooncake.engine import TransferEngine

    import nvlxfer.mooncake                                # before the program's own imports. Children that
    nvlxfer.mooncake.install()                             # multiprocessing spawns have it too

    # the program is not changed at all
    place=$(python -m nvlxfer.mooncake) && PYTHONPATH=$place${PYTHONPATH:+:$PYTHONPATH} vllm serve ...

The other modules of an installed Mooncake (`mooncake.store` ...) stay what they are.

What is different:

- Both sides use this module, on one node. All that Mooncake's protocols and devices are for is ignored: bytes move over
  NVLink, whatever `protocol` and `device_name` say. `metadata_server` is "P2PHANDSHAKE".
- A session is "host:port", as ever. The host is any name or address of this node, and the port is one that the engine
  holds in the network namespace: nobody listens on it. Engines of one network namespace and user find each other, at
  the abstract address "@nvlxfer-mooncake-PORT". For namespaces of their own, such as those of containers, set
  NVLX_MOONCAKE_FOLDER in all programs, to one folder that all see: an engine serves there in HOST-PORT.sock, and others
  must name the host as it did. No other user is let in, not even there.
- `initialize` warns of an address that this node has not, unless the folder is set. Names are not looked up for it.
- Between containers set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in the owner of the memory: CUDA refuses other
  memory between two processes with equal PIDs.
- Registered is memory of a GPU, of any allocator that nvlxfer.h lists under Kinds of memory. Host memory is refused.
- A list is carried out as a whole or refused as a whole, and nothing of it goes on after a synchronous call has
  returned, however it ended. So such a call has no timeout. What waits before it, and unregistering, takes up to
  MC_TRANSFER_TIMEOUT seconds (30; at least 5). Where it is no number, TransferEngine() raises InvalidArgument.
- Memory that is unregistered is gone for all peers when the call returns, those included that have read it before.
  Neighbours in its allocation stay. -1 means that a peer still uses it: call again.
- Memory that was freed without unregister_memory may be registered again.
- No call blocks a CPU on a CUDA stream. What is to be sent must be complete, or the stream is given to
  `transfer_write_on_cuda` and its like: these put the copies into the stream's order.
- A second `initialize` changes nothing.
- What Mooncake tells by a return value, such as -1, is told so here. Why, is in logging.getLogger("nvlxfer.mooncake").
  What is not here at all raises nvlxfer.NotSupported: managed buffers, `get_engine` (for the store, EP and process
  groups), shared segments, RPC, metadata servers.
"""

from __future__ import annotations

import importlib
import pathlib
import sys

from .engine import (
    ScatterTransferCompletionStatus,
    ScatterTransferTicket,
    TransferEngine,
    TransferNotify,
    TransferOpcode,
)

__all__ = [
    "ScatterTransferCompletionStatus",
    "ScatterTransferTicket",
    "TransferEngine",
    "TransferNotify",
    "TransferOpcode",
    "folder",
    "install",
]


def folder() -> str:
    """The folder that puts this module in the place of `mooncake.engine` where it comes first in PYTHONPATH."""
    return str(pathlib.Path(__file__).resolve().parent / "in_place")


def install() -> None:
    """From now on `mooncake.engine` is nvlxfer.mooncake.engine, for all that import it. ImportError: somebody has
    imported Mooncake's own before, and keeps it."""
    ours = importlib.import_module("nvlxfer.mooncake.engine")
    present = sys.modules.get("mooncake.engine", ours)
    if present is not ours:
        raise ImportError(f"{present!r} was imported before nvlxfer.mooncake.install()")
    if folder() not in sys.path:
        sys.path.insert(0, folder())
    package = sys.modules.get("mooncake") or importlib.import_module("mooncake")
    sys.modules["mooncake.engine"] = ours
    package.engine = ours  # type: ignore[attr-defined]
