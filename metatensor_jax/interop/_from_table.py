"""Columns of tidy tables as maps: what pandas and polars share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._host.packing import RowIndex, cut, first_duplicate, unique_rows
from .._types import display
from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..operations.checks import check_same_keys, checked_fill
from ._axes import SINGLE, Axes
from ._checks import check_data
from ._rows import Rows, Table, read_rows
from ._to_table import check_layout, part_of


class _Axis(NamedTuple):
    """The labels of one axis, and which of them each row of the table has."""

    labels: Labels
    at: np.ndarray


def from_columns(
    what: str,
    table: Table,
    named: Axes,
    like: TensorMap | TensorBlock | None,
    layout: str,
    gradient: str | Sequence[str],
    value: str,
    fill_value: Any,
) -> TensorMap:
    """A map of the rows of a table.

    The arguments are those of ``from_pandas``.

    :param what: the function that was called
    :param named: the names that the user gave
    """
    check_layout(layout)
    axes, like = _expected(what, named, like, gradient)
    wide = layout == "wide"
    axes.check(wide, value)
    rows = read_rows(table, axes, wide, value)
    keys, groups = _keys(rows, axes, None if like is None else like.keys)
    blocks = []
    for i, group in enumerate(groups):
        with in_block(keys, i):
            known = None if like is None else like.block_by_id(i)
            blocks.append(_block(rows, group, axes, known, fill_value))
    return TensorMap(keys, blocks, None if like is None else like.info())


def with_gradients(
    what: str, tensor: TensorMap, gradients: Mapping[str, TensorMap]
) -> TensorMap:
    """A map with gradients that are the blocks of other maps with the same keys."""
    for parameter, gradient in gradients.items():
        if not isinstance(gradient, TensorMap):
            raise TypeError(
                f"gradients['{parameter}'] must be a TensorMap, as {what} makes one of "
                f"a table, not {type(gradient).__name__}"
            )
        check_same_keys(tensor, gradient, what)
        blocks = []
        for i, (key, block) in enumerate(tensor.items()):
            with in_block(tensor.keys, i):
                blocks.append(block.with_gradient(parameter, gradient.block(key)))
        tensor = TensorMap(tensor.keys, blocks, tensor.info())
    return tensor


def _expected(
    what: str,
    named: Axes,
    like: TensorMap | TensorBlock | None,
    gradient: str | Sequence[str],
) -> tuple[Axes, TensorMap | None]:
    """The axes of the table, and the map that has its labels if there is one."""
    if like is None:
        if gradient:
            raise MetatensorError(
                "`gradient` says which gradient of `like` the table is of, so it needs "
                "`like`. Without it, name the axes of the gradient as those of any map"
            )
        return named, None
    if named != Axes.named(None, None, (), None):
        raise MetatensorError(
            "the names of the axes are those of `like`: give `like`, or the names"
        )
    check_data(what, like, (TensorMap, TensorBlock), "like")
    part = part_of(like, gradient)
    return Axes.of(part), part


def _keys(
    rows: Rows, axes: Axes, known: Labels | None
) -> tuple[Labels, list[np.ndarray]]:
    """The keys, and the rows of each block in their order."""
    keys, at = _axis(rows, axes.keys, known, "keys")
    order = np.argsort(at, kind="stable")
    return keys, cut(order, np.bincount(at, minlength=len(keys)).tolist())


def _axis(
    rows: Rows, names: Sequence[str] | None, known: Labels | None, what: str
) -> _Axis:
    """The labels of an axis: those that are known, or those of the rows."""
    entries = rows.of(names)
    if known is None and not names:
        known = SINGLE if names is None else Labels([], np.zeros((1, 0), np.int32))
    if known is None:
        return _in_order(entries, names or [])
    if names:
        at = RowIndex(known.values).find(entries)
    else:  # no column says which: it is the only one, if there is one
        at = np.full(len(entries), len(known) - 1)
    if bool(np.any(at < 0)):
        entry = display.entry(known.names, entries[int(np.argmax(at < 0))])
        raise MetatensorError(f"{entry} of the table is not among the {what} of `like`")
    return _Axis(known, at)


def _in_order(entries: np.ndarray, names: Sequence[str]) -> _Axis:
    """The distinct entries, in the order in which they come."""
    first, inverse = unique_rows(entries)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(first), np.int64)
    place[order] = np.arange(len(first))
    return _Axis(Labels(names, entries[first[order]], True), place[inverse])


def _block(
    rows: Rows,
    group: np.ndarray,
    axes: Axes,
    known: TensorBlock | None,
    fill_value: Any,
) -> TensorBlock:
    own = rows.take(group)
    if own.properties is not None and known is not None:
        own = _with_properties(own, own.properties, known.properties)
    wanted = [
        ("samples", axes.samples),
        *(("components", [c]) for c in axes.components),
    ]
    labels = [] if known is None else [known.samples, *known.components]
    if own.properties is None:
        wanted.append(("properties", axes.properties))
        labels += [] if known is None else [known.properties]
    found = [
        _axis(own, names, labels[i] if labels else None, what)
        for i, (what, names) in enumerate(wanted)
    ]
    values = _dense(own.values, group, found, fill_value)
    samples, *others = [axis.labels for axis in found]
    properties = others.pop() if own.properties is None else own.properties
    return TensorBlock(values, samples, others, properties)


def _with_properties(rows: Rows, own: Labels, known: Labels) -> Rows:
    """The columns of a wide table in the order of the properties of ``like``."""
    order = own.select(known)
    if not len(order) == len(own) == len(known):
        raise MetatensorError(
            f"the columns of the table are the properties\n{own}\nbut those of `like` "
            f"are\n{known}"
        )
    return Rows(rows.labels, rows.values[:, order], known)


def _dense(
    values: np.ndarray, group: np.ndarray, axes: Sequence[_Axis], fill_value: Any
) -> np.ndarray:
    """The values of all elements of a block, where the labels of the rows put them."""
    shape = tuple([len(axis.labels) for axis in axes])
    size = int(np.prod(shape, dtype=int))
    flat = np.zeros(len(values), np.int64)
    for axis, n in zip(axes, shape, strict=True):
        flat = flat * n + axis.at
    repeated = first_duplicate(flat[:, None])
    if repeated is not None:
        raise MetatensorError(
            f"row {group[repeated]} of the table is of the same element as one before "
            f"it: {_element(axes, int(flat[repeated]))}"
        )
    dense = np.empty((size, *values.shape[1:]), values.dtype)
    if len(flat) < size:
        dense[...] = _fill(values.dtype, axes, flat, size, fill_value)
    dense[flat] = values
    return dense.reshape((*shape, *values.shape[1:]))


def _fill(
    dtype: Any, axes: Sequence[_Axis], flat: np.ndarray, size: int, fill_value: Any
) -> Any:
    """What stands where the table has no row."""
    if fill_value is not None:
        return checked_fill(fill_value, dtype)
    is_there = np.zeros(size, bool)
    is_there[flat] = True
    raise MetatensorError(
        f"the table has no row for {size - len(flat)} of the {size} elements of a "
        f"block, the first is {_element(axes, int(np.argmin(is_there)))}: give "
        "`fill_value=` to fill them"
    )


def _element(axes: Sequence[_Axis], index: int) -> str:
    """In words: which element of a block this is."""
    at = np.unravel_index(index, [len(axis.labels) for axis in axes])
    names = [name for axis in axes for name in axis.labels.names]
    rows = [axis.labels.values[i] for axis, i in zip(axes, at, strict=True)]
    return display.entry(names, np.concatenate(rows))
