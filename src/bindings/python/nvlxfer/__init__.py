# SPDX-License-Identifier: Apache-2.0
"""libnvlxfer from Python: a package over ctypes, nothing to compile, Python 3.9 or newer, no other package.

`pip install` puts the library inside the package. Else copy the folder beside your program. It loads the library that
the environment variable NVLX_LIBRARY names, else the one inside, else the libnvlxfer.so.0 that the loader finds, else
that of build/ in its own checkout. Nothing is loaded before the first call; no driver is needed to load it.

What is below has an example of each kind of call. Details tell, each on a page: help(nvlxfer.Engine), where all begins,
help(nvlxfer.Peer), help(nvlxfer.read), help(nvlxfer.Request), help(nvlxfer.Blocks), help(nvlxfer.publish),
help(nvlxfer.pull), help(nvlxfer.Relay), help(nvlxfer.Array), help(nvlxfer.NvlxError) and its classes. help(nvlxfer)
goes on with all.

    # process A (seed)                                     # process B (target)
    from nvlxfer import Access, Engine                     from nvlxfer import Access, Engine, read
    torch.cuda.synchronize()                               torch.cuda.synchronize()
    engine = Engine()                                      engine = Engine()
    engine.register(weight, "w0", Access.READ)             engine.register(mine, access=Access.NONE)
    engine.serve("@seed")                                  peer = engine.connect("@seed")
                                                           address, length = peer.find("w0")
                                                           op = read(peer, mine.data_ptr(), address, length)
                                                           engine.transfer(op).wait(timeout=10)

Many copies go in one call. `read` and `write` take a number for all of them, or an array with one for each:

    slots = array.array("Q", [0, 3, 1, 2])                 # block i goes to slot slots[i]
    local = array.array("Q", (mine.data_ptr() + slot * block for slot in slots))
    remote = array.array("Q", (address + i * block for i in range(len(slots))))
    engine.transfer(read(peer, local, remote, block)).wait(timeout=10)

A paged KV cache is tables of blocks, and a transfer names blocks by their ids, in all layers at once:

    layers = [BlockRegion(cache[i].data_ptr(), stride=block, length=block, blocks=count) for i in range(32)]
    blocks = engine.blocks(peer, layers, theirs)           # `theirs`: the same of the peer's addresses
    blocks.read(local_ids, remote_ids).wait(timeout=10)    # NumPy or PyTorch arrays of integers

What is registered is a tensor, or a tuple (address, length). `Engine.empty` makes memory that torch, JAX, CuPy, Numba
and, on the host backend, NumPy take as an array of theirs, without a copy. With `kind=Alloc.HOST` it is host memory,
which peers read and write, too: then the other side of an op is a GPU's. Without the rendezvous, take the text of
`engine.export()` by any channel to `engine.peer_open(text)`. What each call means is told in nvlxfer.h, which is
installed beside this file; here is only what Python adds:

- A failure is an NvlxError with .code, .name and the library's own text. Each code has a class, whose help tells what
  to do. An argument of a wrong type is InvalidType, a TypeError too, and no number is cut to what C can hold. Lengths
  are bytes, GPUs are CUDA's ordinals in this process. Times are seconds; None waits for ever.
- An engine keeps its regions, peers, blocks and prepared lists, and a region its tensor, until they are closed. A
  request that is dropped is freed once its transfer has ended. Closing an engine closes all that came from it.
- Any thread may call. What one thread closes while others are inside calls on it, is freed when they have left; their
  later calls are refused. Closing twice is allowed: who comes second waits for the first.
- Ctrl-C ends what waits: wait, connect, the first mapping of memory, close. Closing then goes on in the background.
- `async for event in engine.events()` tells of peers that are lost or have changed, and brings messages. Without
  asyncio an engine is what `selectors` takes, and `next_event` reads.
- `await request` polls nothing, if a loop ran when it was started and can watch descriptors. A cancelled one leaves the
  transfer alone: the request can be awaited again, and closing it waits for nothing. The copies go on, so their memory
  must stay. Every call releases the GIL.
- When the program ends, other threads that call end too (SystemExit). Calls in flight get two seconds, transfers ten.
  Then open engines are closed, or, if something is still in flight, left to the end of the process.
- A forked child cannot use its parent's objects: calls raise Forked, and closing does nothing.
- The log goes to logging.getLogger("nvlxfer"). `set_log` sends it elsewhere, or more of it.
- Many ops cost no Python object each: see `read` and `write`.
- `Engine.offer` and `Engine.join` bring the same tensors to many processes, each of which passes them on.
- `publish` lends the tensors of a model by name, `pull` brings them, whole or in slices, and verifies them.
"""

from ._c.values import (
    STREAM_LEGACY,
    STREAM_PER_THREAD,
    Access,
    Alloc,
    Backend,
    EngineInfo,
    EventKind,
    Kind,
    Mechanism,
    PeerInfo,
    RegionInfo,
    RelayInfo,
    RequestInfo,
)
from .blocks import BlockRegion, Blocks
from .engine import Engine, build_info, gpu_count, version
from .errors import (
    AccessDenied,
    Again,
    AlreadyExists,
    Busy,
    DeviceError,
    Forked,
    InvalidArgument,
    InvalidType,
    Malformed,
    NotFound,
    NotSupported,
    NvlxError,
    OutOfHostMemory,
    OutOfRange,
    Stale,
    Suspended,
    Timeout,
    WrongBackend,
    WrongDigest,
    WrongVersion,
)
from .events import Event
from .lists import Ops, read, signal, wait_ready, write
from .log import LogLevel, reset_log, set_log
from .memory import Array
from .metrics import Collector
from .peers import Peer, Region
from .relays import Relay
from .tensors.named import Slice
from .tensors.published import Published, publish
from .tensors.pulled import Pull, pull
from .transfers import Prepared, Request

__all__ = [
    "STREAM_LEGACY",
    "STREAM_PER_THREAD",
    "Access",
    "AccessDenied",
    "Again",
    "Alloc",
    "AlreadyExists",
    "Array",
    "Backend",
    "BlockRegion",
    "Blocks",
    "Busy",
    "Collector",
    "DeviceError",
    "Engine",
    "EngineInfo",
    "Event",
    "EventKind",
    "Forked",
    "InvalidArgument",
    "InvalidType",
    "Kind",
    "LogLevel",
    "Malformed",
    "Mechanism",
    "NotFound",
    "NotSupported",
    "NvlxError",
    "Ops",
    "OutOfHostMemory",
    "OutOfRange",
    "Peer",
    "PeerInfo",
    "Prepared",
    "Published",
    "Pull",
    "Region",
    "RegionInfo",
    "Relay",
    "RelayInfo",
    "Request",
    "RequestInfo",
    "Slice",
    "Stale",
    "Suspended",
    "Timeout",
    "WrongBackend",
    "WrongDigest",
    "WrongVersion",
    "build_info",
    "gpu_count",
    "publish",
    "pull",
    "read",
    "reset_log",
    "set_log",
    "signal",
    "version",
    "wait_ready",
    "write",
]
