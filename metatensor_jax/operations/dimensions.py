"""Operations on the dimensions of labels; the data stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..checks import check_axis, check_type
from ..once import for_each
from ..rows import Move, map_rows, move_rows

_AXES = ("keys", "samples", "properties")


def append_dimension(tensor: TensorMap, axis: str, name: str, values: Any) -> TensorMap:
    r"""Add a dimension at the end of keys, samples or properties.

    .. math:: y_i = x_i \qquad \nabla y_i = \nabla x_i

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
    return _relabel(tensor, axis, lambda x: x.append(name, _spread(values, x)))


def insert_dimension(
    tensor: TensorMap, axis: str, index: int, name: str, values: Any
) -> TensorMap:
    r"""Add a dimension before the one at ``index``, see :func:`append_dimension`.

    .. math:: y_i = x_i \qquad \nabla y_i = \nabla x_i

    :param index: position of the new dimension

    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> insert_dimension(tensor, "properties", 0, "l", 3).block().properties.names
    ['l', 'property']
    """
    return _relabel(tensor, axis, lambda x: x.insert(index, name, _spread(values, x)))


def permute_dimensions(
    tensor: TensorMap, axis: str, dimensions_indexes: Sequence[int]
) -> TensorMap:
    r"""Put dimensions in another order: :math:`y = x`, :math:`\nabla y = \nabla x`.

    The other arguments are those of :func:`append_dimension`.

    :param dimensions_indexes: the index of each dimension once, in the new order

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((2, 1)))
    >>> tensor = TensorMap(Labels(["a", "b"], [[0, 1]]), [block])
    >>> permute_dimensions(tensor, "keys", [1, 0]).keys[0]
    LabelsEntry(b=1, a=0)
    """
    return _relabel(tensor, axis, lambda labels: labels.permute(dimensions_indexes))


def remove_dimension(tensor: TensorMap, axis: str, name: str) -> TensorMap:
    r"""Remove a dimension; the labels must be unique without it.

    The arguments are those of :func:`append_dimension`, and so are values and gradients
    of the result: :math:`y = x`, :math:`\nabla y = \nabla x`.

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((2, 1)))
    >>> tensor = TensorMap(Labels(["a", "b"], [[0, 1]]), [block])
    >>> remove_dimension(tensor, "keys", "b").keys.names
    ['a']
    """
    return _relabel(tensor, axis, lambda labels: labels.remove(name))


def rename_dimension(tensor: TensorMap, axis: str, old: str, new: str) -> TensorMap:
    r"""Give a dimension another name; of samples, also where gradients have it.

    Values and gradients stay the same: :math:`y = x`, :math:`\nabla y = \nabla x`.

    :param old: name of the dimension
    :param new: its new name

    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> rename_dimension(tensor, "samples", "sample", "atom").sample_names
    ['atom']
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
        samples = for_each(change, [block.samples for block in tensor])
        return move_rows([Move(tensor)], samples)
    properties = for_each(change, [block.properties for block in tensor])
    return map_rows(_as_it_is, tensor, rearranges=True, properties=properties)


def _as_it_is(row: Any) -> Any:
    return row
