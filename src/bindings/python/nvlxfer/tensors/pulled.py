# SPDX-License-Identifier: Apache-2.0
"""`pull` brings the tensors of a model into this process: see named.py."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._c.arguments import _seconds, _text
from .._c.calls import _Local
from .._c.values import Access, RegionInfo
from ..engine import Engine
from ..errors import (
    _EFORMAT,
    _ENOENT,
    _ESTALE,
    _EVERSION,
    NotFound,
    NvlxError,
    OutOfRange,
    Stale,
    Timeout,
    WrongDigest,
    _check,
    _error,
    _invalid,
    _listed,
    _naming,
)
from ..lists import Ops, read
from ..memory import Array, _dims, _nbytes
from ..peers import Peer, Region
from .boxes import Box, _Entry, _overlap, _Runs, _Source
from .named import _FORMAT, Tensors, _by_name, _entry, _lies_in

if TYPE_CHECKING:
    from ..transfers import Prepared, Request

_ALIGNMENT = 512  # bytes, of arrays made here
_NAMED = 3  # tensors that a message names at most
_APPEARS = 10.0  # seconds, as for Engine.connect: until a model is there, where the caller does not say


def _is_withdrawn(failure: NvlxError) -> bool:
    """Whether it says that bytes of a peer are gone, or are others. A local range that is missing is our own fault."""
    return isinstance(failure, Stale) or (isinstance(failure, OutOfRange) and "the peer's range" in failure._text)


def _is_gone(peer: Peer) -> bool:
    try:
        peer.test()
    except Stale:
        return True
    return False


def _withdrawn(what: str, text: str) -> Stale:
    return Stale(_ESTALE, f"{what}: the owner has withdrawn or replaced it: pull again ({text})")


def _find_list(peer: Peer, name: str, deadline: float) -> RegionInfo:
    """The list of a model, once the peer has published it. A peer of a text learns nothing later, so nobody waits."""
    while True:
        known = peer.generation()  # before the look: what comes after it is waited for
        try:
            return peer.region(name)
        except NotFound as failure:
            left = max(0.0, deadline - time.monotonic())
            if not left or not peer.info().followed:
                peer.test()  # which is Stale if it is gone
                text = f"the peer {peer._origin} publishes no model {name!r}: {failure._text}"
                raise NotFound(failure.code, text) from None
        with contextlib.suppress(Timeout):
            peer.sync(known + 1, left)


def _read_list(engine: Engine, peer: Peer, name: str, gpu: int | None, deadline: float) -> tuple[int, list[Any]]:
    """The list of a model, and the generation of the peer that it is of."""
    info = _find_list(peer, name, deadline)
    with engine.empty([info.length], gpu=gpu) as room:
        with engine.register((room.address, info.length), access=Access.NONE):
            op = read(peer, room.address, info.address, info.length)
            try:
                with engine.transfer(op, generation=info.peer_generation, verify=info.digest is not None) as request:
                    request.wait()
            except (OutOfRange, Stale) as failure:
                if not _is_withdrawn(failure) or _is_gone(peer):
                    raise
                raise _withdrawn(f"the list of model {name!r}", failure._text) from None
        text = room.tobytes()
    try:
        told = json.loads(text)
        if told["nvlxfer"] != _FORMAT:
            raise _error(_EVERSION, f"the list of model {name!r} is of format {told['nvlxfer']!r}, not {_FORMAT}")
        tensors = told["tensors"]
        if not isinstance(tensors, list):
            raise TypeError("no list of tensors")
    except (ValueError, KeyError, TypeError) as failure:
        raise _error(_EFORMAT, f"region {name!r} of the peer is no list of a model: {failure}") from None
    return info.peer_generation, tensors


def _sources(
    peer: Peer, name: str, generation: int, told: list[Any], wanted: set[str] | None, names: set[str]
) -> dict[str, _Source]:  # fmt: skip
    """Of a peer's list of that generation, what is wanted, checked: its bytes come from another process. All names are
    added to `names`."""
    found: dict[str, _Source] = {}
    for index, entry in enumerate(told):
        try:
            key, dtype, shape, whole, start = entry
            dims = _dims(shape), _dims(whole), _dims(start)
            if not isinstance(key, str) or not _lies_in(dims[2], dims[0], dims[1]):
                raise ValueError("no tensor")
            length = _nbytes(dims[0], dtype)
        except (ValueError, TypeError, KeyError, NvlxError):
            raise _error(_EFORMAT, f"tensor {index} of model {name!r} is malformed: {entry!r:.200}") from None
        names.add(key)
        if wanted is not None and key not in wanted:
            continue
        try:
            info = peer.region(f"{name}/{index}")
        except NotFound as failure:
            raise _withdrawn(f"of model {name!r}, tensor {key!r}", failure._text) from None
        if info.generation > generation:
            text = f"the list is of generation {generation}, the tensor of {info.generation}"
            raise _withdrawn(f"of model {name!r}, tensor {key!r}", text)
        if info.length != length:
            raise _error(_EFORMAT, f"tensor {key!r} has {info.length} bytes, not {length} as {dtype} {dims[0]}")
        found[key] = _Source(info, dtype, *dims)
    return found


def _such_as(wanted: str, names: set[str]) -> str:
    if not names:
        return "there are none"
    near = difflib.get_close_matches(wanted, names, 1) or [min(names)]
    return f"there {'are' if names - set(near) else 'is'} {len(names)}, such as {near[0]!r}"


class _Feed:
    """What comes from one peer: tensors that are taken whole, which can be verified, and parts."""

    def __init__(self, engine: Engine, peer: Peer, model: str, generation: int, sources: dict[str, _Source]) -> None:
        self.engine, self.peer, self.generation = engine, peer, generation
        self.model, self.sources = model, sources
        self.verified, self.rest = _Runs(), _Runs()
        self.names: list[str] = []  # of the tensors in `verified`, an op for each
        self.lists: list[Ops] = []
        self.prepared: Prepared | None = None  # of all
        self.prepared_rest: Prepared | None = None

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Around what uses the peer's tensors: failures name them."""
        try:
            yield
        except (OutOfRange, Stale, WrongDigest) as failure:
            told = self.named(failure)
            if told is failure:
                raise
            raise told from None

    def prepare(self) -> None:
        with self.telling():
            self._prepare()

    def _prepare(self) -> None:
        self.lists, rest = self.verified.ops(self.peer), self.rest.ops(self.peer)
        if self.lists or rest:
            self.prepared = self.engine.prepare(self.lists + rest, generation=self.generation)
        if self.lists and rest:
            self.prepared_rest = self.engine.prepare(rest, generation=self.generation)

    def start(self, stream: Any, verify: bool) -> Iterator[Request]:
        if verify and self.lists:
            yield self.engine.transfer(self.lists, stream, generation=self.generation, verify=True)
            if self.prepared_rest is not None:
                yield self.prepared_rest.post(stream)
        elif self.prepared is not None:
            yield self.prepared.post(stream)

    def named(self, failure: NvlxError) -> NvlxError:
        """The same, which names the tensor and not only the op and the region; Stale where it says that the owner has
        withdrawn or replaced tensors."""
        if isinstance(failure, WrongDigest):
            return self._with_tensor(failure)
        if not _is_withdrawn(failure) or _is_gone(self.peer):
            return failure
        gone = [key for key, source in self.sources.items() if self._is_replaced(source.info)]
        if gone:
            listed = ", ".join(map(repr, gone[:_NAMED])) + (f" and {len(gone) - _NAMED} more" if gone[_NAMED:] else "")
            return _withdrawn(f"of model {self.model!r}, tensor{'s' if gone[1:] else ''} {listed}", failure._text)
        return failure if isinstance(failure, Stale) else _withdrawn(f"model {self.model!r}", failure._text)

    def _is_replaced(self, info: RegionInfo) -> bool:
        try:
            now = self.peer.region(info.name)
        except NotFound:
            return True
        return (now.generation, now.address, now.length) != (info.generation, info.address, info.length)

    def _with_tensor(self, failure: WrongDigest) -> WrongDigest:
        found = re.match(r"op (\d+): ", failure._text)
        index = int(found[1]) if found else len(self.names)
        if index >= len(self.names):
            return failure
        return WrongDigest(failure.code, f"tensor {self.names[index]!r}: {failure._text}")

    def close(self) -> None:
        for prepared in (self.prepared_rest, self.prepared):
            if prepared is not None:
                prepared.close()


def _is_complete(request: Request) -> bool:
    try:
        return request._complete()
    except NvlxError:  # closed, or about to be
        return True


class Pull(_Local):
    """Tensors of this process that come from peers: `tensors` by name, and `unverified`, the names of those of which no
    digest is known or a part is taken. `again` brings them anew, by lists that were prepared once."""

    _instead = "Pull in the process that wants the tensors"

    def __init__(self, engine: Engine, gpu: int | None) -> None:
        self.tensors: dict[str, Any] = {}
        self.unverified: list[str] = []
        self._engine, self._gpu = engine, gpu
        self._regions: list[Region] = []
        self._room: Array | None = None
        self._parts: list[Array] = []  # of it
        self._feeds: list[_Feed] = []
        self._started: set[Request] = set()  # and perhaps in flight: to be waited for, whoever drops them

    def __repr__(self) -> str:
        return f"<nvlxfer.Pull: {len(self.tensors)} tensors of {len(self._feeds)} peers>"

    def _make_room(self, found: list[dict[str, _Source]]) -> dict[str, Array]:
        """Arrays for all tensors, whole, in one allocation."""
        wholes = {key: source for sources in found for key, source in sources.items()}
        places, length = {}, 0
        for key, source in wholes.items():
            places[key] = length
            length += -(-_nbytes(source.whole, source.dtype) // _ALIGNMENT) * _ALIGNMENT
        self._room = room = self._engine.empty([length], gpu=self._gpu)
        self._regions.append(self._engine.register((room.address, room.nbytes), access=Access.NONE))
        made = {
            key: Array(self._engine, room.address + place, wholes[key].whole, wholes[key].dtype, room.gpu, owned=False)
            for key, place in places.items()
        }
        self._parts = list(made.values())
        return made

    def _register(self, entries: Mapping[str, _Entry]) -> None:
        for name, entry in entries.items():
            with _naming(f"tensor {name!r}"):
                self._regions.append(self._engine._shared.take(self._engine, entry.layout, self))

    def _connect(self, entries: Mapping[str, _Entry], found: list[dict[str, _Source]], names: set[str]) -> None:
        for key, entry in entries.items():
            box: Box = (entry.start, entry.layout.shape)
            taken: list[Box] = []
            for feed, sources in zip(self._feeds, found):
                if key in sources:
                    self._take(key, entry, box, feed, sources[key], taken)
            missing = math.prod(box[1]) - sum(math.prod(extents) for _, extents in taken)
            if key not in names:
                raise _error(_ENOENT, f"no peer publishes a tensor {key!r}; {_such_as(key, names)}")
            if missing:
                raise _error(_ENOENT, f"of tensor {key!r}, {missing} of {math.prod(box[1])} elements have no source")

    def _take(self, key: str, entry: _Entry, box: Box, feed: _Feed, source: _Source, taken: list[Box]) -> None:
        if (source.dtype, source.whole) != (entry.layout.dtype, entry.whole):
            theirs, ours = (source.dtype, source.whole), (entry.layout.dtype, entry.whole)
            raise _invalid(f"tensor {key!r} is {theirs} at the peer, and {ours} here")
        shared = _overlap(box, (source.start, source.shape))
        if shared is None or shared in taken:  # the same from another peer
            return
        if any(_overlap(shared, other) for other in taken):
            raise _invalid(f"tensor {key!r}: two peers have slices that overlap and are not the same")
        taken.append(shared)
        whole = shared == (source.start, source.shape) == box and source.info.digest is not None
        (feed.verified if whole else feed.rest).add(entry, source, shared)
        if whole:
            feed.names.append(key)
        elif key not in self.unverified:
            self.unverified.append(key)

    def start(self, stream: Any = None, *, verify: bool = True) -> list[Request]:
        """Starts to bring all tensors anew: await each request, or wait for it. With `stream` of CUDA, in its order.
        Their WrongDigest names the peer's region; that of `again` names the tensor. If one does not start, this raises
        why, Stale as `again` does; those that did go on, and `close` waits for them."""
        return [request for _, request in self._start(stream, verify)]

    def _start(self, stream: Any, verify: bool) -> Iterator[tuple[_Feed, Request]]:
        for request in list(self._started):
            if _is_complete(request):
                self._started.discard(request)
        for feed in self._feeds:
            with feed.telling():
                for request in feed.start(stream, verify):
                    self._started.add(request)
                    yield feed, request

    def again(self, generation: int | None = None, timeout: float | None = None, *, verify: bool = True) -> None:
        """Brings all tensors anew, and waits up to `timeout` seconds for each peer. `generation` is what the owner's
        `Published.generation` says after a change; it is waited for. WrongDigest: a tensor is not what its owner has
        told. Stale: the owner has withdrawn or replaced tensors, which the message names: close this, then pull again.
        Or the peer is gone: connect again. Timeout: transfers are still in flight."""
        if generation is not None:
            for feed in self._feeds:
                feed.peer.sync(generation, timeout)
        failures: list[NvlxError] = []
        started: list[tuple[_Feed, Request]] = []
        try:
            for each in self._start(None, verify):
                started.append(each)  # each at once: one that does not start leaves them in flight
        except NvlxError as failure:
            failures.append(failure)
        for feed, request in started:
            try:
                request.wait(timeout)
                request.close()
            except NvlxError as failure:  # none is in flight when this returns, unless it is a Timeout
                failures.append(feed.named(failure))
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Waits for what is in flight. Arrays that were made here are freed; tensors of others stay. Where a prepared
        list of others uses such a tensor, or another Pull does, it stays registered until they are closed. Busy: a
        consumer of DLPack has such an Array."""
        if self._engine._core.forked:  # all is the parent's
            return
        while self._started:
            request = self._started.pop()
            try:
                with contextlib.suppress(NvlxError):  # the transfer's own: who has the request is told by it
                    request.wait()
            except BaseException:
                self._started.add(request)
                raise
            del request
        with contextlib.suppress(NvlxError):  # the engine is closed, and they with it
            self._engine._sweep()
        for feed in self._feeds:
            feed.close()
        for region in reversed(self._regions):
            self._engine._shared.give(region, self)
        if self._room is not None:
            self._room.close()
        for part in self._parts:
            part.close()

    def __enter__(self) -> Pull:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def pull(
    peers: Peer | Iterable[Peer], into: Tensors | None = None, name: str = "model", *, gpu: int | None = None,
    verify: bool = True, timeout: float | None = None,
) -> Pull:  # fmt: skip
    """Brings the tensors of a model that one or more peers publish. Returns when all are in place, and with `verify`
    verified, except those in `Pull.unverified`: published without digests, or taken in part. Check that it is empty.

    `into`: a dict of tensors by name, or a module: their content is replaced, no other tensor of the model comes. Types
    and whole shapes must be those of the peers. A `Slice` in it takes its part of the whole, from whichever peers have
    it: so tensor parallelism of four becomes one of two. None: whole new Arrays. They, and the list of the names while
    it is read, are on the GPU `gpu`, else on the engine's first.
    `timeout`: a peer of `connect` may publish the model later. That is waited for, up to so many seconds for all peers.
    Then the bytes of each peer may take as long again. None: 10 seconds for the model, any time for the bytes. A peer
    of a text is not waited for.
    NotFound: a peer has no such model then, or part of a tensor has no source. Stale: the owner has withdrawn or
    replaced tensors meanwhile: pull again. Or it is gone. WrongDigest: see `Pull.again`. Close the Pull before its
    peers."""
    sources = [peers] if isinstance(peers, Peer) else _listed("peers", peers, "a Peer, or some of them")
    if not sources:
        raise _invalid("no peer is given")
    for index, peer in enumerate(sources):
        _check(f"peers[{index}]", peer, Peer, "a Peer")
    _text("name", name)
    deadline = time.monotonic() + (_APPEARS if timeout is None else _seconds(timeout))
    engine = sources[0]._engine
    given = None if into is None else _by_name(into)
    made = Pull(engine, gpu)
    try:
        found: list[dict[str, _Source]] = []
        names: set[str] = set()
        for peer in sources:
            generation, told = _read_list(engine, peer, name, gpu, deadline)
            found.append(_sources(peer, name, generation, told, None if given is None else set(given), names))
            made._feeds.append(_Feed(engine, peer, name, generation, found[-1]))
        made.tensors = dict(made._make_room(found)) if given is None else given
        entries = {key: _entry(key, value) for key, value in made.tensors.items()}
        made._connect(entries, found, names)
        if given is not None:
            made._register(entries)
        for feed in made._feeds:
            feed.prepare()
        made.again(timeout=timeout, verify=verify)
    except BaseException:
        with contextlib.suppress(NvlxError):  # what has failed first is told
            made.close()
        raise
    return made
