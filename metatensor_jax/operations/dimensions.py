"""Operations on the dimensions of labels; the data stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._plan.once import for_each
from .._types.arrays import LabelsLike
from .._types.block import TensorBlock
from .._types.entry import as_int32, column_index
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import check_axis, check_type

_AXES = ("keys", "samples", "properties")
_AXES_WITH_COMPONENTS = ("keys", "samples", "components", "properties")


def append_dimension(
    tensor: TensorMap, axis: str, name: str, values: LabelsLike
) -> TensorMap:
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
    tensor: TensorMap, axis: str, index: int, name: str, values: LabelsLike
) -> TensorMap:
    r"""Add a dimension before the one at ``index`` of keys, samples or properties.

    .. math:: y_i = x_i \qquad \nabla y_i = \nabla x_i

    New sample dimensions are not added to the samples of gradients.

    :param tensor: a map
    :param axis: ``"keys"``, ``"samples"`` or ``"properties"``
    :param index: position of the new dimension
    :param name: name of the new dimension
    :param values: its values: one for each entry, or one integer for all of them

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

    :param tensor: a map
    :param axis: ``"keys"``, ``"samples"`` or ``"properties"``
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

    Values and gradients stay the same: :math:`y = x`, :math:`\nabla y = \nabla x`.

    :param tensor: a map
    :param axis: ``"keys"``, ``"samples"`` or ``"properties"``
    :param name: name of the dimension
    :raises MetatensorError: labels that are not unique without it

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

    :param tensor: a map
    :param axis: ``"keys"``, ``"samples"``, ``"components"`` or ``"properties"``
    :param old: name of the dimension
    :param new: its new name

    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> rename_dimension(tensor, "samples", "sample", "atom").sample_names
    ['atom']
    """
    check_type(tensor, "tensor", TensorMap)
    check_axis(axis, _AXES_WITH_COMPONENTS)
    if axis in ("keys", "properties"):
        return _relabel(tensor, axis, lambda labels: labels.rename(old, new))
    if axis == "components" and len(tensor) and old not in tensor.component_names:
        raise MetatensorError(
            f"'{old}' is not one of the components {tensor.component_names}"
        )

    def of_samples(labels: Labels, is_gradient: bool) -> Labels:
        # gradient samples need not have the dimension
        absent = is_gradient and old not in labels.names
        return labels if absent else labels.rename(old, new)

    def of_component(labels: Labels) -> Labels:
        return labels.rename(old, new) if labels.names == [old] else labels

    if axis == "samples":
        return _map_blocks(tensor, lambda b: b._map_labels(samples=of_samples))
    return _map_blocks(tensor, lambda b: b._map_labels(component=of_component))


def replace_dimension(
    tensor: TensorMap, axis: str, name: str, values: LabelsLike | Mapping[int, int]
) -> TensorMap:
    r"""Give a dimension other values; of samples, also where gradients have it.

    Values and gradients of the map stay the same: :math:`y = x`, :math:`\nabla y =
    \nabla x`. To number systems anew that were computed one by one, see also ``join``.

    :param tensor: a map
    :param axis: ``"keys"``, ``"samples"`` or ``"properties"``
    :param name: name of the dimension
    :param values: a dict from old values to new ones (others stay); or the new values,
        one for each entry, or one integer for all of them
    :raises MetatensorError: labels that are not unique then; or gradient samples with
        this dimension, of which one old value would become two new ones

    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> renumbered = replace_dimension(tensor, "samples", "sample", {1: 7})
    >>> renumbered.block().samples.values.tolist()
    [[0], [7]]
    """
    check_type(tensor, "tensor", TensorMap)
    check_axis(axis, _AXES)
    if axis != "samples":
        return _relabel(tensor, axis, lambda x: _replaced(x, name, values))

    def change(block: TensorBlock) -> TensorBlock:
        replaced = _replaced(block.samples, name, values)

        def of_samples(labels: Labels, is_gradient: bool) -> Labels:
            if not is_gradient:
                return replaced
            if name not in labels.names:
                return labels
            is_rule = isinstance(values, Mapping)
            rule = values if is_rule else _rule(block.samples, replaced, name)
            return _replaced(labels, name, rule)

        return block._map_labels(samples=of_samples)

    return _map_blocks(tensor, change)


def _replaced(labels: Labels, name: str, values: Any) -> Labels:
    table = labels._host_values("replace_dimension").copy()
    index = column_index(labels._names, name)
    if isinstance(values, Mapping):
        values = _mapped(table[:, index], values)
    new = as_int32(_spread(values, labels))
    if new.shape != (len(labels),):
        raise MetatensorError(
            f"the new values of '{name}' must be one for each of the {len(labels)} "
            f"entries, got shape {new.shape}"
        )
    table[:, index] = new
    return Labels(labels.names, table)


def _mapped(column: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    old, inverse = np.unique(column, return_inverse=True)
    new = [int(values.get(int(x), int(x))) for x in old]
    return np.array(new, np.int64)[inverse]


def _rule(before: Labels, after: Labels, name: str) -> dict[int, int]:
    """What became of each value of a dimension of samples, for those of gradients."""
    rule: dict[int, int] = {}
    columns = before.column(name).tolist(), after.column(name).tolist()
    for old, new in zip(*columns, strict=True):
        if rule.setdefault(old, new) != new:
            raise MetatensorError(
                f"gradient samples have the dimension '{name}', and {name}={old} "
                f"would become both {rule[old]} and {new} there: give each value one "
                "new value, or remove the gradients before"
            )
    return rule


def _spread(values: Any, labels: Labels) -> Any:
    if isinstance(values, (int, np.integer)):
        return np.full(len(labels), values)
    return values


def _relabel(
    tensor: TensorMap, axis: str, change: Callable[[Labels], Labels]
) -> TensorMap:
    """The map with other labels on one axis; that of gradients, for properties."""
    check_type(tensor, "tensor", TensorMap)
    check_axis(axis, _AXES)
    if axis == "keys":
        keys, info = change(tensor.keys), tensor._structure.info
        return TensorMap._make(keys, tensor.blocks(), info)
    blocks = tensor.blocks()
    if axis == "samples":
        new = for_each(change, [block.samples for block in blocks])
        changed = [b._with_samples(x) for b, x in zip(blocks, new, strict=True)]
    else:
        new = for_each(change, [block.properties for block in blocks])
        changed = [
            b._map_labels(properties=lambda _, x=x: x)
            for b, x in zip(blocks, new, strict=True)
        ]
    return TensorMap._make(tensor.keys, changed, tensor._structure.info)


def _map_blocks(
    tensor: TensorMap, change: Callable[[TensorBlock], TensorBlock]
) -> TensorMap:
    blocks = [change(block) for block in tensor]
    return TensorMap._make(tensor.keys, blocks, tensor._structure.info)
