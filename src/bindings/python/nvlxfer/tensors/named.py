# SPDX-License-Identifier: Apache-2.0
"""The tensors of a model, by name, as `publish` and `pull` are given them.

A publisher registers each tensor, and one region more: its bytes are a list of all, with types and shapes. Readers find
that region by the model's name. It comes last, so who finds it finds all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union

from .._c.arguments import _text
from ..errors import _invalid, _naming, _wrong_type
from ..memory import _dims
from .arrays import _layout
from .boxes import _Entry
from .dtypes import _DTYPES

Tensors = Union[Mapping[str, Any], Any]  # name: tensor, or such mappings in it; or a module with state_dict()
_FORMAT = 1  # of the list


class Slice(NamedTuple):
    """A tensor that is part of a larger one: whole[start : start + its shape], in each dimension."""

    tensor: Any
    whole: Sequence[int]  # the shape of the larger one
    start: Sequence[int]


def _flat(tensors: Tensors, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and tensors; those of mappings in it with a dot between."""
    if hasattr(tensors, "state_dict"):
        tensors = tensors.state_dict()
    if not isinstance(tensors, Mapping):
        raise _wrong_type("tensors", tensors, "a dict of tensors by name, or a module with state_dict()")
    for key, value in tensors.items():
        _text("a tensor's name", key)
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _by_name(tensors: Tensors) -> dict[str, Any]:
    """Each once: "a.b" and the "b" of "a" are one name."""
    found: dict[str, Any] = {}
    for name, tensor in _flat(tensors):
        if name in found:
            raise _invalid(f"tensor {name!r} is given twice")
        found[name] = tensor
    return found


def _entry(name: str, given: Any) -> _Entry:
    tensor = given.tensor if isinstance(given, Slice) else given
    with _naming(f"tensor {name!r}"):
        layout = _layout(f"tensor {name!r}", tensor)
    if layout.dtype not in _DTYPES:
        raise _invalid(f"tensor {name!r} is of type {layout.dtype!r}, which is none of {', '.join(sorted(_DTYPES))}")
    if not isinstance(given, Slice):
        return _Entry(layout, layout.shape, (0,) * len(layout.shape))
    whole, start = _dims(given.whole), _dims(given.start)
    if not _lies_in(start, layout.shape, whole):
        raise _invalid(f"tensor {name!r} of shape {layout.shape} at {start} is no slice of one of shape {whole}")
    return _Entry(layout, whole, start)


def _lies_in(start: tuple[int, ...], shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return len(start) == len(shape) == len(whole) and all(
        first + extent <= all_ for first, extent, all_ in zip(start, shape, whole)
    )
