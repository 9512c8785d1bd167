# SPDX-License-Identifier: Apache-2.0
"""Where the memory of arrays and tensors lies, and what is in it."""

from __future__ import annotations

import ctypes
import math
import operator
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._c.arguments import _integer
from .._c.native import _I, _I64, _P, _S, _SIZE, _U64
from ..errors import _ENOTSUP, NvlxError, _error, _invalid, _wrong_type
from .dtypes import _NAMES_OF, _name_of_typestr, _refuse_swapped

# (address, length), or a tensor: an object with __cuda_array_interface__, __array_interface__ or __dlpack__
Memory = Any


class Layout(NamedTuple):
    """A contiguous tensor. `address` and `length` are in bytes, `shape` in elements of `dtype` ("bfloat16", say)."""

    address: int
    length: int
    dtype: str
    shape: tuple[int, ...]
    kept: Any  # keeps the memory alive


def _dense(shape: Sequence[int], strides: Sequence[int] | None, step: int) -> int:
    """The number of elements of a tensor, which must follow each other `step` apart."""
    if min(shape, default=0) < 0 or (strides is not None and len(strides) != len(shape)):
        raise _invalid(f"a tensor of shape {tuple(shape)} with strides {strides} is malformed")
    expected = step
    if strides is not None and 0 not in shape:
        for extent, stride in zip(reversed(shape), reversed(strides)):
            if extent != 1 and stride != expected:
                where = f"a tensor of shape {tuple(shape)} with strides {tuple(strides)}"
                raise _invalid(f"{where} is not contiguous: register what its contiguous() gives, or its storage")
            expected *= extent
    return math.prod(shape)


class _DLManagedTensor(ctypes.Structure):
    _fields_ = [("data", _P), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32)]
    _fields_ += [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]
    _fields_ += [("shape", ctypes.POINTER(_I64)), ("strides", ctypes.POINTER(_I64))]
    _fields_ += [("byte_offset", _U64), ("context", _P), ("deleter", _P)]


# Prototypes of its own: what other modules set on ctypes.pythonapi's functions stays as it is.
_capsule_pointer = ctypes.PYFUNCTYPE(_P, ctypes.py_object, _S)(("PyCapsule_GetPointer", ctypes.pythonapi))
_capsule_rename = ctypes.PYFUNCTYPE(_I, ctypes.py_object, _S)(("PyCapsule_SetName", ctypes.pythonapi))
_deleter = ctypes.PYFUNCTYPE(None, _P)  # called with the GIL, which some producers need
_USED = b"used_dltensor"  # lives as long as any capsule: those keep the pointer, not the text


class _Borrowed:
    """A DLPack tensor, taken out of its capsule; its producer gets it back when this is dropped."""

    _tensor: Any = None

    def __init__(self, capsule: Any) -> None:
        self._address = _capsule_pointer(capsule, b"dltensor")
        _capsule_rename(capsule, _USED)
        self._tensor = _DLManagedTensor.from_address(self._address)

    def locate(self) -> tuple[int, int]:
        tensor = self._tensor
        if tensor.ndim < 0:
            raise _invalid(f"a DLPack tensor of {tensor.ndim} dimensions is malformed")
        count = _dense(tensor.shape[: tensor.ndim], tensor.strides[: tensor.ndim] if tensor.strides else None, 1)
        address, length = (tensor.data or 0) + tensor.byte_offset, (count * tensor.bits * tensor.lanes + 7) // 8
        return _integer("the address in DLPack", address), _integer("its length", length, _SIZE)

    def describe(self) -> tuple[tuple[int, ...], str | None]:
        """Shape, and the name of the type, or None: it has none here."""
        tensor = self._tensor
        name = _NAMES_OF.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
        return tuple(tensor.shape[: tensor.ndim]), name

    def __del__(self) -> None:
        if self._tensor is not None and self._tensor.deleter:
            _deleter(self._tensor.deleter)(self._address)


def _locate(memory: Memory) -> tuple[int, int, Any]:
    """Address and length of what shall be registered, and what keeps it alive."""
    if isinstance(memory, tuple):
        if len(memory) != 2:
            raise _invalid(f"memory {reprlib.repr(memory)} is not a pair of an address and a length: (address, length)")
        return _integer("address", memory[0]), _integer("length", memory[1], _SIZE), None
    if hasattr(memory, "_nvlxfer_layout"):
        return (*memory._nvlxfer_layout()[:2], memory)
    if getattr(memory, "requires_grad", False) is True and hasattr(memory, "detach"):  # torch: a parameter of a model
        memory = memory.detach()  # the same memory, which it gives to others
    interface = _array_interface(memory)
    if interface is not None:
        return (*_located(interface), memory)
    borrowed = _dlpack(memory)
    return (*borrowed.locate(), borrowed)


def _dlpack(memory: Any) -> _Borrowed:
    if not hasattr(memory, "__dlpack__"):
        raise _wrong_type(
            "memory",
            memory,
            "a tuple (address, length), or what has __cuda_array_interface__, __array_interface__ or __dlpack__",
        )
    try:
        borrowed = _borrow(memory)
        borrowed.locate()
        return borrowed
    except NvlxError:
        raise
    except Exception as failure:  # of the tensor's methods, or of ctypes, which did not find what it shall
        raise _invalid(f"DLPack fails for a {type(memory).__name__}: {failure!r}") from failure


def _layout(what: str, tensor: Any) -> Layout:
    """Where a tensor lies, and what is in it."""
    if hasattr(tensor, "_nvlxfer_layout"):  # an Array
        own: Layout = tensor._nvlxfer_layout()
        return own
    if hasattr(tensor, "data_ptr") and hasattr(tensor, "is_contiguous"):  # torch: also what its DLPack refuses
        if not tensor.is_contiguous():
            raise _invalid(f"{what} is not contiguous: take its contiguous()")
        length = tensor.numel() * tensor.element_size()
        name = str(tensor.dtype).rpartition(".")[2]
        return Layout(_integer("data_ptr()", tensor.data_ptr()), length, name, tuple(tensor.shape), tensor)
    interface = _array_interface(tensor)
    if interface is not None:
        named = _name_of_typestr(interface.get("typestr", "")) if isinstance(interface, dict) else None
        address, length = _located(interface)
        if named is not None:
            return Layout(address, length, named, tuple(map(operator.index, interface["shape"])), tensor)
        _refuse_swapped(what, interface["typestr"])
        if not hasattr(tensor, "__dlpack__"):
            raise _error(_ENOTSUP, f"{what} has elements of type {interface['typestr']!r}, of which there is no name")
    borrowed = _dlpack(tensor)
    shape, named = borrowed.describe()
    if named is None:
        raise _error(_ENOTSUP, f"{what}: DLPack's type of its elements has no name here")
    return Layout(*borrowed.locate(), named, shape, borrowed)


def _array_interface(memory: Any) -> Any:
    """CUDA's, else that of CPU memory: the library itself refuses what is not its backend's."""
    found = _cuda_array_interface(memory)
    if found is None and not hasattr(memory, "data_ptr"):
        found = getattr(memory, "__array_interface__", None)
    return found


def _cuda_array_interface(memory: Any) -> Any:
    try:
        return memory.__cuda_array_interface__
    except AttributeError:
        return None
    except Exception as failure:  # there is none for this type of element, say: DLPack knows more of them
        if hasattr(memory, "__dlpack__"):
            return None
        raise _invalid(f"__cuda_array_interface__ fails for a {type(memory).__name__}: {failure!r}") from failure


def _borrow(memory: Any) -> _Borrowed:
    device, ordinal = map(operator.index, memory.__dlpack_device__())
    if device != 2:  # kDLCUDA
        raise _error(_ENOTSUP, f"a tensor on DLPack device ({device}, {ordinal}) is not CUDA memory")
    # Its content is not looked at: -1 would tell that nothing has to wait. JAX 0.11.2 takes that for a stream.
    return _Borrowed(memory.__dlpack__(stream=None))


def _located(interface: Any) -> tuple[int, int]:
    try:
        size, address = interface["typestr"][2:], interface["data"][0]
        if not (isinstance(size, str) and size.isdecimal()):  # int() takes signs, blanks and underscores, too
            raise ValueError
        step, strides = int(size), interface.get("strides")
        shape = tuple(map(operator.index, interface["shape"]))
        strides = None if strides is None else tuple(map(operator.index, strides))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise _invalid(f"a malformed array interface: {reprlib.repr(interface)}") from None
    length = step * _dense(shape, strides, step)
    return _integer("the address in the array interface", address), _integer("its length", length, _SIZE)
