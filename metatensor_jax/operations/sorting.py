"""Sorted maps, and the distinct entries of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._evaluate import as_map, evaluate, only_block
from .._host.packing import row_keys, sort_keys, unique_rows
from .._plan.draft import Draft, DraftMap
from .._plan.map import plan_map
from .._plan.once import Once
from .._plan.push import RowFunction
from .._plan.take import pick_labels, plan_take_columns, plan_take_samples
from .._run.elements import TakeAlong
from .._types.block import TensorBlock
from .._types.context import noting
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import AXES, as_names, axis_labels, check_axis, check_type

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

    with noting("in 'sort'"):
        return evaluate(_plan_sort, tensor, axes=tuple(names), descending=descending)


def sort_block(
    block: TensorBlock, axes: str | Sequence[str] = "all", descending: bool = False
) -> TensorBlock:
    """Sort the rows and columns of a block by their labels.

    Gradients, and what is raised, are those of :func:`sort`.

    :param block: a block
    :param axes: ``"all"``, or some of ``"samples"``, ``"components"``, ``"properties"``
    :param descending: from the largest to the smallest

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.array([[1.0], [2.0]]))
    >>> sort_block(block, "samples", descending=True).values.tolist()
    [[2.0], [1.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(sort(as_map(block), axes, descending))


def _ascending(rows: np.ndarray) -> np.ndarray:
    return sort_keys(row_keys(rows))[1]


def _descending(rows: np.ndarray) -> np.ndarray:
    return _ascending(rows)[::-1]


def _plan_sort(tensor: DraftMap, axes: Sequence[str], descending: bool) -> DraftMap:
    order_of, once = _descending if descending else _ascending, Once()

    def order_of_labels(labels: Labels) -> np.ndarray:
        return order_of(labels._host_values("sorting samples"))

    if "keys" in axes:
        order = order_of(tensor.keys.values)
        blocks = [tensor.blocks[i] for i in order.tolist()]
        tensor = DraftMap(pick_labels(tensor.keys, order), blocks, tensor.info)
    if "samples" in axes:
        orders = [once(order_of_labels, block.samples) for block in tensor.blocks]
        tensor = plan_take_samples(tensor, orders, order_of)
    blocks = tensor.blocks
    if "components" in axes:
        blocks = [_sort_components(block, order_of) for block in blocks]
    if "properties" in axes:
        orders = [once(order_of_labels, block.properties) for block in blocks]
        pairs = zip(blocks, orders, strict=True)
        blocks = [plan_take_columns(block, order) for block, order in pairs]
    return tensor._replace(blocks=blocks)


def _sort_components(block: Draft, order_of: Any) -> Draft:
    for i, labels in enumerate(block.components):
        order = order_of(labels.values)
        components = list(block.components)
        components[i] = pick_labels(labels, order)
        take = TakeAlong(i - len(components) - 1)
        f = RowFunction(take, (order,), rearranges=True)
        block = plan_map(f, [block], components)
    return block


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


def unique_metadata_block(
    block: TensorBlock,
    axis: str,
    names: str | Sequence[str],
    gradient: str | None = None,
) -> Labels:
    """The distinct entries of some dimensions of a block, sorted.

    :param block: a block
    :param axis: ``"samples"`` or ``"properties"``
    :param names: the dimensions to look at
    :param gradient: look at the gradients with respect to this parameter instead

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((2, 2, 1)), ["system", "atom"])
    >>> unique_metadata_block(block, "samples", "atom").values.tolist()
    [[0], [1]]
    """
    check_type(block, "block", TensorBlock)
    return unique_metadata(as_map(block), axis, names, gradient)
