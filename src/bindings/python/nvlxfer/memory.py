# SPDX-License-Identifier: Apache-2.0
"""Arrays in memory of an engine, which others take without a copy."""

from __future__ import annotations

import contextlib
import ctypes
import math
import operator
import re
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ._c.arguments import _buffer
from ._c.calls import _Local
from ._c.native import _I64, _P, _S
from .errors import _EBUSY, _ENOTSUP, NvlxError, _error, _invalid, _wrong_type
from .tensors.arrays import Layout, _DLManagedTensor
from .tensors.dtypes import _DTYPES, _refuse_swapped, _typestr

if TYPE_CHECKING:
    from .engine import Engine

_CPU, _CUDA, _CUDA_HOST = 1, 2, 3  # devices of DLPack
_CAPSULE = b"dltensor"  # lives as long as any capsule
_capsule_new = ctypes.PYFUNCTYPE(ctypes.py_object, _P, _S, _P)(("PyCapsule_New", ctypes.pythonapi))
_capsule_is = ctypes.PYFUNCTYPE(ctypes.c_int, _P, _S)(("PyCapsule_IsValid", ctypes.pythonapi))
_capsule_get = ctypes.PYFUNCTYPE(_P, _P, _S)(("PyCapsule_GetPointer", ctypes.pythonapi))
# By address: what consumers of DLPack have. They give it back in any thread, at any moment, as the garbage collector
# comes in the middle of what a thread does. So no lock is taken, and each use is a single step.
_lent: dict[int, tuple[_DLManagedTensor, Any, Array]] = {}


def _given_back(managed: int) -> None:
    _lent.pop(managed, None)


def _dropped(capsule: int) -> None:
    if _capsule_is(capsule, _CAPSULE):  # nobody has taken what is in it
        _given_back(_capsule_get(capsule, _CAPSULE))


# They take the GIL: consumers call the first from any thread. Both live as long as the process.
_deleter = ctypes.CFUNCTYPE(None, _P)(_given_back)
_destructor = ctypes.PYFUNCTYPE(None, _P)(_dropped)


class Array(_Local):
    """Memory of an engine as a contiguous array: `shape` in elements of `dtype`, a name such as "bfloat16".

    torch.as_tensor, torch.from_dlpack, cupy.asarray, numba.cuda.as_cuda_array, jax.dlpack.from_dlpack and, of host
    memory (`Alloc.HOST`, or the backend host), numpy.asarray take it as it is: no byte is copied. It lives until
    `close` or the engine's end, and nobody may use it longer: consumers of DLPack are counted, and `close` is Busy as
    long as there are some. Who took its address by an array interface, as numpy.asarray, is not: to use that later
    ends the process (SIGSEGV). Its content is not set."""

    _instead = "Register it, or publish it: others read it"

    def __init__(
        self,
        engine: Engine,
        address: int,
        shape: tuple[int, ...],
        dtype: str,
        gpu: int,
        owned: bool = True,
        on_host: bool = False,
    ) -> None:
        self.address, self.shape, self.dtype, self.gpu = address, shape, dtype, gpu
        self.nbytes = _nbytes(shape, dtype)
        self._engine, self._owned = engine, owned
        # Where CUDA has it in host memory, its kind of device in DLPack is that of pinned memory.
        cuda = engine.backend == "cuda"
        self._device = (_CUDA_HOST, 0) if cuda and on_host else (_CUDA, gpu) if cuda else (_CPU, 0)
        self._closed = self._freed = False
        self._lock = threading.RLock()  # of those that close, and of those that copy

    @property
    def closed(self) -> bool:
        return self._closed or self._engine.closed

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"<nvlxfer.Array {self.dtype} {self.shape} at {self.address:#x} of GPU {self.gpu}{state}>"

    def _nvlxfer_layout(self) -> Layout:
        if self.closed:
            raise _invalid("the Array is closed")
        return Layout(self.address, self.nbytes, self.dtype, self.shape, self)

    def data_ptr(self) -> int:
        """The address, as tensors of torch tell theirs."""
        return self._nvlxfer_layout().address

    def _interface(self, on_gpu: bool, name: str) -> dict[str, Any]:
        if self.closed:
            raise AttributeError(f"{name}: the Array is closed")
        if on_gpu != (self._device[0] == _CUDA):
            raise AttributeError(f"{name}: it is host memory" if on_gpu else f"{name}: it is memory of a GPU")
        typestr = _typestr(self.dtype)
        if typestr is None:
            raise AttributeError(f"{name}: NumPy has no {self.dtype}; DLPack has, or make a view of uint8")
        return {"shape": self.shape, "typestr": typestr, "data": (self.address, False), "strides": None, "version": 3}

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self._interface(True, "__cuda_array_interface__"), "stream": None}

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._interface(False, "__array_interface__")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """What from_dlpack asks for. No stream is waited for: what wrote the array must be complete. BufferError: a
        copy, or another device, is asked for."""
        if self.closed:
            raise BufferError("the Array is closed")
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("an Array is given as it is, where it is: not copied")
        device, ordinal = self.__dlpack_device__()
        dims = (_I64 * max(1, len(self.shape)))(*self.shape)
        managed = _DLManagedTensor(self.address, device, ordinal, len(self.shape), *_DTYPES[self.dtype], 1, dims)
        managed.deleter = ctypes.cast(_deleter, _P)
        address = ctypes.addressof(managed)
        _lent[address] = managed, dims, self
        if self.closed:  # meanwhile: who closes it may have looked already
            _given_back(address)
            raise BufferError("the Array is closed")
        return _capsule_new(address, _CAPSULE, ctypes.cast(_destructor, _P))

    def fill(self, content: Any) -> None:
        """Copies a contiguous buffer of as many bytes into the array (bytes, an array or a number of NumPy), and waits
        for it."""
        view = _buffer(content)
        if view is None:
            raise _wrong_type("content", content, "a buffer")
        if view.nbytes != self.nbytes:
            raise _invalid(f"the content has {view.nbytes} bytes, the Array {self.nbytes}")
        kinds = re.sub(":[^:]*:", "", view.format)  # without the names of a struct's fields
        if "O" in kinds:
            raise _error(_ENOTSUP, f"the content is of Python's objects (format {view.format!r}): give numbers")
        if _DTYPES[self.dtype][1] > 8 and view.itemsize > 1:  # else they are no more than bytes
            _refuse_swapped("the content", kinds[max(kinds.find(">"), kinds.find("!"), 0) :])
        with self._held() as address:
            self._engine.memcpy(address, content if view.ndim else view.cast("B"), self.nbytes)

    def tobytes(self) -> bytes:
        """A copy of the content."""
        with self._held() as address:
            content = bytearray(self.nbytes)
            self._engine.memcpy(content, address)
            return bytes(content)

    @contextlib.contextmanager
    def _held(self) -> Iterator[int]:
        """Its memory: a thread that closes it meanwhile waits. A forked child, in which the lock may be another
        thread's for ever, is refused by the engine."""
        with contextlib.nullcontext() if self._engine._core.forked else self._lock:
            yield self.data_ptr()

    def close(self) -> None:
        """Frees the memory. Regions in it are withdrawn first, but peers are not waited for. On CUDA, to free what a
        peer has mapped is undefined: close the regions before, which waits until peers have let go. See nvlx_free in
        the header. Busy: a transfer in flight or a prepared list uses it, or a consumer of DLPack has it, or has an
        Array that lies in it."""
        if not self._owned or self._engine._core.forked:  # another's memory: of an Array, or of the parent
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True  # first: no consumer gets it any more
            try:
                self._free()
            except BaseException:  # Ctrl-C too: else it would be the engine's end that frees it
                self._closed = self._freed
                raise

    def _free(self) -> None:
        try:
            if not self._engine.closed:
                self._refuse_if_lent()
                self._engine.free(self.address)
                self._freed = True
        except NvlxError:
            if not self._engine.closed:  # by another thread meanwhile
                raise
        if self._engine.closed:
            self._engine.close()  # waits for that thread

    def _refuse_if_lent(self) -> None:
        lent = [array for _, _, array in list(_lent.values()) if self._overlaps(array)]
        if lent:
            what = f"{len(lent)} consumers of DLPack have the array at {self.address:#x}, or a part of it"
            raise _error(_EBUSY, f"{what}: drop theirs first")

    def _overlaps(self, other: Array) -> bool:
        end, other_end = (array.address + max(1, array.nbytes) for array in (self, other))
        return other._engine is self._engine and self.address < other_end and other.address < end

    def __enter__(self) -> Array:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _dtype_name(dtype: Any) -> str:
    """The name of a type, of which torch, JAX and NumPy have objects."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", str(dtype))
    name = str(name).rpartition(".")[2]
    _refuse_swapped(f"dtype {dtype!r}", str(getattr(dtype, "byteorder", "")))
    if name not in _DTYPES:
        raise _error(_ENOTSUP, f"dtype {dtype!r} is none of {', '.join(sorted(_DTYPES))}")
    return name


def _nbytes(shape: Sequence[int], dtype: str) -> int:
    return math.prod(shape) * _DTYPES[dtype][1] // 8


def _dims(shape: int | Sequence[int]) -> tuple[int, ...]:
    try:
        dims = tuple(map(operator.index, [shape] if hasattr(shape, "__index__") else shape))
    except TypeError:
        raise _wrong_type("shape", shape, "a sequence of integers") from None
    if min(dims, default=0) < 0:
        raise _invalid(f"shape {dims} has a negative extent")
    return dims
