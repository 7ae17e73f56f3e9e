"""Sorted maps, and the distinct entries of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._host.packing import row_keys, sort_keys, unique_rows
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..checks import (
    AXES,
    as_names,
    axis_labels,
    block_form,
    check_axis,
    check_type,
    in_operation,
)
from ..once import for_each
from ..rows import map_rows, take_properties, take_samples
from .selection import keep_blocks

_ALL = ("keys", *AXES)


def sort(
    tensor: TensorMap, axes: str | Sequence[str] = "all", descending: bool = False
) -> TensorMap:
    r"""Sort keys, and the rows and columns of each block, by their labels.

    Row, or column, :math:`i` of the result is :math:`s(i)` of the map:

    .. math:: y_i = x_{s(i)} \qquad \nabla y_i = \nabla x_{s(i)}

    :param tensor: a map
    :param axes: ``"all"``, or some of ``"keys"``, ``"samples"``, ``"components"``,
        ``"properties"``. Sorting samples sorts those of gradients as well.
    :param descending: from the largest to the smallest

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.array([[1.0], [2.0]]))
    >>> x = mts.slice_block(x, "samples", [1, 0])
    >>> sort(TensorMap(Labels.single(), [x])).block().values.tolist()
    [[1.0], [2.0]]
    """
    check_type(tensor, "tensor", TensorMap)
    names = list(_ALL) if axes == "all" else as_names(axes)
    for name in names:
        if name not in _ALL:
            raise MetatensorError(
                f"`axes` must be 'all' or some of {_ALL}, not '{name}'"
            )

    def order_of(rows: np.ndarray) -> np.ndarray:
        order = sort_keys(row_keys(rows))[1]
        return order[::-1] if descending else order

    def order_of_labels(labels: Labels) -> np.ndarray:
        return order_of(labels._host_values("sorting samples"))

    if "keys" in names:
        tensor = keep_blocks(tensor, order_of(tensor.keys.values))
    if "samples" in names:
        with in_operation("sort"):
            samples = [block.samples for block in tensor]
            tensor = take_samples(tensor, for_each(order_of_labels, samples), order_of)
    if "components" in names:
        tensor = _sort_components(tensor, order_of)
    if "properties" in names:
        orders = [order_of(block.properties.values) for block in tensor]
        tensor = take_properties(tensor, orders)
    return tensor


sort_block = block_form(sort)


def _sort_components(tensor: TensorMap, order_of: Any) -> TensorMap:
    for i in range(len(tensor.component_names)):
        axis = i - len(tensor.component_names) - 1
        args, components = [], []
        for block in tensor:
            labels = block.components
            order = order_of(labels[i].values)
            labels[i] = Labels._make(labels[i]._names, labels[i].values[order])
            args.append((order,))
            components.append(labels)
        tensor = map_rows(
            _Take(axis), tensor, args=args, rearranges=True, components=components
        )
    return tensor


@dataclass(frozen=True)
class _Take:
    """Row function: some elements along an axis that is counted from the end."""

    axis: int

    def __call__(self, row: Any, index: np.ndarray) -> Any:
        return row.__array_namespace__().take(row, index, axis=self.axis)


def unique_metadata(
    tensor: TensorMap,
    axis: str,
    names: str | Sequence[str],
    gradient: str | None = None,
) -> Labels:
    """The distinct entries of some dimensions, over all blocks, sorted.

    :param tensor: a map
    :param axis: ``"samples"`` or ``"properties"``
    :param names: the dimensions to look at
    :param gradient: look at the gradients with respect to this parameter instead

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((2, 2, 1)), sample_names=["system", "atom"])
    >>> unique_metadata(TensorMap(Labels.single(), [x]), "samples", "system")
    Labels
        system
          0
          1
    """
    check_type(tensor, "tensor", TensorMap)
    check_axis(axis)
    names = as_names(names)
    tables = [np.zeros((0, len(names)), np.int32)]
    for block in tensor:
        inner = block if gradient is None else block.gradient(gradient)
        labels = axis_labels(inner, axis)[0]
        labels._host_values("unique_metadata")
        columns = [labels.column(name) for name in names]
        rows = np.stack(columns, axis=1) if columns else tables[0]
        tables.append(rows[unique_rows(rows)[0]])
    rows = np.concatenate(tables)
    return Labels(names, rows[unique_rows(rows)[0]], assume_unique=True)


unique_metadata_block = block_form(unique_metadata)
