"""Operations on the dimensions of labels; the data stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..checks import check_axis, check_type
from ..labels import Labels
from ..rows import Move, map_rows, move_rows
from ..tensor import TensorMap

_AXES = ("keys", "samples", "properties")


def append_dimension(tensor: TensorMap, axis: str, name: str, values: Any) -> TensorMap:
    """Add a dimension at the end of keys, samples or properties.

    New sample dimensions are not added to the samples of gradients.

    :param tensor: a map
    :param axis: ``"keys"``, ``"samples"`` or ``"properties"``
    :param name: name of the new dimension
    :param values: its values: one for each entry, or one integer for all of them

    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> append_dimension(tensor, "samples", "atom", 7).block().samples.values.tolist()
    [[0, 7], [1, 7]]
    """

    def change(labels: Labels) -> Labels:
        return labels.append(name, _spread(values, labels))

    return _relabel(tensor, axis, change)


def insert_dimension(
    tensor: TensorMap, axis: str, index: int, name: str, values: Any
) -> TensorMap:
    """Add a dimension before the one at ``index``.

    :param index: position of the new dimension; see :func:`append_dimension` for the
        other arguments
    """

    def change(labels: Labels) -> Labels:
        return labels.insert(index, name, _spread(values, labels))

    return _relabel(tensor, axis, change)


def permute_dimensions(
    tensor: TensorMap, axis: str, dimensions_indexes: Sequence[int]
) -> TensorMap:
    """Put the dimensions of keys, samples or properties in another order.

    :param dimensions_indexes: the index of each dimension once, in the new order
    """
    return _relabel(tensor, axis, lambda labels: labels.permute(dimensions_indexes))


def remove_dimension(tensor: TensorMap, axis: str, name: str) -> TensorMap:
    """Remove a dimension; the labels must be unique without it.

    :param name: name of the dimension
    """
    return _relabel(tensor, axis, lambda labels: labels.remove(name))


def rename_dimension(tensor: TensorMap, axis: str, old: str, new: str) -> TensorMap:
    """Give a dimension another name; of samples, also where gradients have it.

    :param old: name of the dimension
    :param new: its new name
    """
    if axis == "samples":
        check_type(tensor, "tensor", TensorMap)
        blocks = [block._rename_samples(old, new) for block in tensor]
        return TensorMap._make(tensor.keys, blocks, tensor._structure.info)
    return _relabel(tensor, axis, lambda labels: labels.rename(old, new))


def _spread(values: Any, labels: Labels) -> Any:
    if isinstance(values, (int, np.integer)):
        return np.full(len(labels), values)
    return values


def _relabel(
    tensor: TensorMap, axis: str, change: Callable[[Labels], Labels]
) -> TensorMap:
    check_type(tensor, "tensor", TensorMap)
    check_axis(axis, _AXES)
    if axis == "keys":
        info = tensor._structure.info
        return TensorMap._make(change(tensor.keys), tensor.blocks(), info)
    if axis == "samples":
        return move_rows([Move(tensor)], [change(block.samples) for block in tensor])
    properties = [change(block.properties) for block in tensor]
    return map_rows(_as_it_is, tensor, rearranges=True, properties=properties)


def _as_it_is(row: Any) -> Any:
    return row
