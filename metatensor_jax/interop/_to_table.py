"""Maps as the columns of tidy tables: what pandas and polars share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from .._evaluate import as_map
from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import Labels, first_difference
from .._types.tensor import TensorMap
from ..operations.checks import as_names
from ._axes import Axes
from ._checks import as_numpy, check_data
from ._entries import entry_names

Layout = Literal["long", "wide"]
Columns = dict[str, np.ndarray]


def to_columns(
    what: str,
    data: TensorMap | TensorBlock,
    layout: Layout,
    gradient: str | Sequence[str],
    value: str,
) -> Columns:
    """The columns of a table of a map, or of one of its gradients, in their order.

    The arguments are those of ``to_pandas``.

    :param what: the function that was called
    """
    check_layout(layout)
    check_data(what, data, (TensorMap, TensorBlock))
    tensor, wide = part_of(data, gradient), layout == "wide"
    axes = Axes.of(tensor)
    axes.check(wide, value)
    columns = {name: [np.zeros(0, np.int32)] for name in axes.columns(wide)}
    for key, block in zip(tensor.keys.values, tensor, strict=True):
        n_axes = block.values.ndim - wide
        shape = block.shape[:n_axes]
        for name, number in zip(axes.keys or [], key, strict=False):
            columns[name].append(np.full(np.prod(shape, dtype=int), number))
        for name, column in _label_columns(block, shape):
            if name in columns:
                columns[name].append(column)
    labels = {name: np.concatenate(parts) for name, parts in columns.items()}
    values = _wide_values(tensor, axes, value) if wide else {value: _values(tensor)}
    return {**labels, **values}


def check_layout(layout: str) -> None:
    """Raise unless it is one of the two."""
    if layout not in ("long", "wide"):
        raise MetatensorError(f"`layout` must be 'long' or 'wide', not {layout!r}")


def part_of(data: TensorMap | TensorBlock, gradient: str | Sequence[str]) -> TensorMap:
    """The map itself, or a map of its gradients.

    :param gradient: the parameters that lead to the gradient
    """
    tensor = as_map(data) if isinstance(data, TensorBlock) else data
    for parameter in as_names(gradient):
        blocks = [block.gradient(parameter) for block in tensor]
        tensor = TensorMap(tensor.keys, blocks, tensor.info())
    return tensor


def _label_columns(
    block: TensorBlock, shape: tuple[int, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Each dimension of the first axes of a block, with a number for each element."""
    axes = [block.samples, *block.components, block.properties]
    for axis in range(len(shape)):
        labels = axes[axis]
        broadcast = [1] * len(shape)
        broadcast[axis] = len(labels)
        for name in labels.names:
            column = labels.column(name).reshape(broadcast)
            yield name, np.broadcast_to(column, shape).reshape(-1)


def _values(tensor: TensorMap) -> np.ndarray:
    parts = [as_numpy("a table", block.values).reshape(-1) for block in tensor]
    return np.concatenate(parts) if parts else np.zeros(0)


def _wide_values(tensor: TensorMap, axes: Axes, value: str) -> Columns:
    """A column for each property."""
    if axes.properties is None:
        return {value: _values(tensor)}
    properties = _same_properties(tensor)
    parts = [
        as_numpy("a table", block.values).reshape((-1, len(properties)))
        if len(properties)
        else np.zeros((np.prod(block.shape[:-1], dtype=int), 0), block.dtype)
        for block in tensor
    ]
    names = entry_names(properties)
    return dict(zip(names, np.concatenate(parts).T, strict=True))


def _same_properties(tensor: TensorMap) -> Labels:
    first = tensor.block_by_id(0).properties
    for i, block in enumerate(tensor):
        if block.properties != first:
            raise MetatensorError(
                "a wide table has a column for each property, so all blocks must have "
                f"the same properties, but for those of the blocks "
                f"{tensor.keys.entry(0).print()} and {tensor.keys.entry(i).print()} "
                f"{first_difference(first, block.properties)}. Make a table of each "
                "block, or one with layout='long'"
            )
    return first
