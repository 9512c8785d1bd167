# SPDX-License-Identifier: Apache-2.0
"""`publish` lends the tensors of a model: see named.py."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping

from .._c.arguments import _seconds, _text
from .._c.calls import _interruptibly, _Local, _run
from .._c.values import Access, Alloc
from ..engine import Engine
from ..errors import AlreadyExists, NotSupported, NvlxError, _check, _naming
from ..memory import Array
from ..peers import Region
from .boxes import _Entry
from .named import _FORMAT, Tensors, _by_name, _entry


class Published(_Local):
    """A model that peers may pull, until `close`. `generation` is for `Pull.again` of a reader."""

    _instead = "Send the address that its engine serves at, and the model's name"

    def __init__(self, engine: Engine, name: str, digest: bool, gpu: int | None) -> None:
        self.name, self.generation = name, 0
        self._engine, self._digest, self._gpu = engine, digest, gpu
        self._regions: list[Region] = []
        self._list: Array | None = None

    def __repr__(self) -> str:
        count = sum(not region.closed for region in self._regions)
        return f"<nvlxfer.Published {self.name!r}: {max(0, count - 1)} tensors>"

    def _tell(self, entries: Mapping[str, _Entry]) -> None:
        told = []
        for index, (name, entry) in enumerate(entries.items()):
            layout = entry.layout
            try:
                with _naming(f"tensor {name!r}"):
                    memory = layout.address, layout.length
                    region = self._engine.register(memory, f"{self.name}/{index}", Access.READ)
            except AlreadyExists as failure:
                text = f"a model {self.name!r} is published already: close it, or give another name"
                raise AlreadyExists(failure.code, text) from None
            region._memory = layout.kept
            self._regions.append(region)
            told.append([name, layout.dtype, layout.shape, entry.whole, entry.start])
        self._set_digests()
        content = json.dumps({"nvlxfer": _FORMAT, "tensors": told}, separators=(",", ":")).encode()
        self._list = self._room(len(content))
        self._list.fill(content)
        try:
            region = self._engine.register((self._list.address, len(content)), self.name, Access.READ)
        except AlreadyExists as failure:
            what = f"a model or a region {self.name!r} is there already"
            raise AlreadyExists(failure.code, f"{what}: close it, or give another name") from None
        self._regions.append(region)
        self._regions[-1].set_digest()
        self.generation = self._engine.publish()

    def _room(self, length: int) -> Array:
        """For the list, in memory that reaches as far as the tensors do: chunks, where the engine gives them to peers.
        Peers of texts get no chunks of an engine that does not serve. There the tensors' kind decides."""
        if self._engine._serves or self._has_chunks():
            with contextlib.suppress(NotSupported):  # a GPU without chunks
                return self._engine.empty([length], gpu=self._gpu, kind=Alloc.VMM)
        return self._engine.empty([length], gpu=self._gpu)

    def _has_chunks(self) -> bool:
        told = json.loads(self._engine.export())
        by_file = {str(index) for index, segment in enumerate(told["segments"]) if segment.get("file")}
        own = {region.name for region in self._regions}
        return any(words.split()[0] in by_file for name, words in told["regions"] if name in own)

    def _set_digests(self) -> None:
        regions = self._regions if self._digest else []
        _interruptibly(lambda stop: [_run("nvlx_region_set_digest", each, None) for each in regions if not stop()])

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Around a change of the tensors' content, which must be complete at its end: then peers are told the digests
        and `generation` grows. What they read meanwhile does not pass for verified."""
        self._engine.hold()
        try:
            yield
            self._set_digests()
        finally:
            self.generation = self._engine.publish()

    def close(self, timeout: float | None = None) -> None:
        """Withdraws all tensors at once, then waits until no peer uses one: the memory may go. After `timeout` seconds,
        for each of them, Timeout says who does; close it again. Busy: a prepared list uses a tensor, as an open Pull
        into it does: nobody finds the model any more; close that, then this again."""
        _seconds(timeout)  # before anything is withdrawn
        for region in self._regions:
            with contextlib.suppress(NvlxError):
                region.close(0)
        for region in reversed(self._regions):
            region.close(timeout)
        if self._list is not None:
            self._list.close()

    def __enter__(self) -> Published:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def publish(
    tensors: Tensors, engine: Engine, name: str = "model", *, digest: bool = True, gpu: int | None = None
) -> Published:
    """Lends the tensors to peers of the engine, for reading: a dict by name, or a module of torch (its state_dict()).

    Each is contiguous, of any shape, in memory that the engine can register, and complete. It is not copied. A `Slice`
    says that it is part of a larger tensor, as with tensor parallelism. With `digest`, readers verify what they pull.
    `name` is at most 240 bytes. The list of the names takes some memory: on the GPU `gpu`, else the engine's first. It
    is chunks (`Alloc.VMM`) where the engine serves or a tensor is shared by file descriptor, else the default,
    which a GPU without chunks takes as well.
    Errors: those of `Engine.register` (AlreadyExists: there is such a model)."""
    _check("engine", engine, Engine, "an Engine")
    _text("name", name)
    entries = {key: _entry(key, value) for key, value in _by_name(tensors).items()}
    made = Published(engine, name, digest, gpu)
    try:
        made._tell(entries)
    except BaseException:
        with contextlib.suppress(NvlxError):  # what has failed first is told
            made.close()
        raise
    return made
