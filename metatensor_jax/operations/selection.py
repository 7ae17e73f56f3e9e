"""Parts of a map: some rows, some columns, some blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._evaluate import as_map, evaluate, only_block
from .._host.packing import join_rows, unique_rows
from .._plan.cut import plan_cut
from .._plan.draft import DraftMap
from .._plan.once import Once
from .._plan.take import plan_take_columns, plan_take_samples
from .._types.block import TensorBlock
from .._types.context import noting
from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import as_names, axis_labels, check_axis, check_ours, check_type

Selection = Labels | Sequence[int] | np.ndarray


def slice(tensor: TensorMap, axis: str, selection: Selection) -> TensorMap:
    r"""Keep some samples, or some properties, of each block.

    Row, or column, :math:`i` of the result is :math:`s(i)` of the map:

    .. math:: y_i = x_{s(i)} \qquad \nabla y_i = \nabla x_{s(i)}

    :param tensor: a map
    :param axis: ``"samples"`` or ``"properties"``
    :param selection: labels with some of the dimensions of this axis, any entry that
        agrees is kept; or the positions to keep, in this order
    :raises MetatensorError: another axis, unknown dimensions, a position twice
    :raises IndexError: positions out of range

    >>> import metatensor_jax as mts
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(x)])
    >>> slice(tensor, "properties", Labels("property", [[1]])).block().values
    array([[2.],
           [4.]])
    """
    check_type(tensor, "tensor", TensorMap)
    check_axis(axis)
    check_ours(selection, "selection")
    with noting("in 'slice'"):
        return evaluate(_plan_slice, tensor, axis=axis, selection=selection)


def _plan_slice(tensor: DraftMap, axis: str, selection: Selection) -> DraftMap:
    once = Once()
    positions = [
        once(_positions, axis_labels(block, axis)[0], selection, axis)
        for block in tensor.blocks
    ]
    if axis == "samples":
        return plan_take_samples(tensor, positions)
    pairs = zip(tensor.blocks, positions, strict=True)
    return tensor._replace(blocks=[plan_take_columns(*pair) for pair in pairs])


def split(
    tensor: TensorMap, axis: str, selections: Sequence[Selection]
) -> list[TensorMap]:
    r"""Split a map into several, along samples or properties.

    Each of them is what :func:`slice` gives, :math:`\nabla y_i = \nabla x_{s(i)}`; but
    gradient rows are in the order of the samples that they belong to. The time
    grows with the rows and with the number of selections, not with their product.

    :param tensor: a map
    :param axis: ``"samples"`` or ``"properties"``
    :param selections: what each of the results has, see :func:`slice`. Selections may
        overlap, and need not cover all.

    >>> import metatensor_jax as mts
    >>> x = np.array([[1.0], [2.0], [3.0]])
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(x)])
    >>> parts = split(tensor, "samples", [[0], [2, 1]])
    >>> [part.block().values.tolist() for part in parts]
    [[[1.0]], [[3.0], [2.0]]]
    """
    check_type(tensor, "tensor", TensorMap)
    check_axis(axis)
    if isinstance(selections, Labels) or not isinstance(selections, Sequence):
        raise TypeError(
            f"`selections` must be a list of Labels or of positions, not "
            f"{type_of(selections)}"
        )
    for i, selection in enumerate(selections):
        check_ours(selection, f"selections[{i}]")
    if axis == "properties":
        return [slice(tensor, axis, selection) for selection in selections]
    with noting("in 'split'"):
        return evaluate(_plan_split, tensor, selections=list(selections))


def _plan_split(tensor: DraftMap, selections: Sequence[Selection]) -> list[DraftMap]:
    once = Once()
    pairs = [once(_all_positions, b.samples, selections) for b in tensor.blocks]
    in_order = plan_take_samples(tensor, [positions for positions, _ in pairs])
    runs = [
        plan_cut(block, lengths)
        for block, (_, lengths) in zip(in_order.blocks, pairs, strict=True)
    ]
    return [
        tensor._replace(blocks=[of_block[i] for of_block in runs])
        for i in range(len(selections))
    ]


def slice_block(block: TensorBlock, axis: str, selection: Selection) -> TensorBlock:
    """Keep some samples, or some properties, of a block.

    Gradients, and what is raised, are those of :func:`slice`.

    :param block: a block
    :param axis: ``"samples"`` or ``"properties"``
    :param selection: labels with some of the dimensions of this axis, or the positions
        to keep, in this order

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.array([[1.0], [2.0]]))
    >>> slice_block(block, "samples", [1]).values.tolist()
    [[2.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(slice(as_map(block), axis, selection))


def split_block(
    block: TensorBlock, axis: str, selections: Sequence[Selection]
) -> list[TensorBlock]:
    """Split a block into several, along samples or properties.

    Gradients, and what is raised, are those of :func:`split`.

    :param block: a block
    :param axis: ``"samples"`` or ``"properties"``
    :param selections: what each of the results has, see :func:`slice_block`

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.array([[1.0], [2.0]]))
    >>> [part.values.tolist() for part in split_block(block, "samples", [[1], [0]])]
    [[[2.0]], [[1.0]]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(split(as_map(block), axis, selections))


def split_keys(tensor: TensorMap, names: str | Sequence[str]) -> list[TensorMap]:
    """Split a map by some of its key dimensions: a map for each of their entries.

    :param tensor: a map
    :param names: key dimensions
    :returns: maps in the order in which their entries first appear; each keeps all
        dimensions of the keys, and its blocks as they are
    :raises MetatensorError: a name that is no dimension of the keys

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.zeros((1, 1)))
    >>> keys = Labels(["o3_lambda", "center_type"], [[0, 1], [1, 1], [0, 8]])
    >>> parts = split_keys(TensorMap(keys, [block, block, block]), "center_type")
    >>> [part.keys.values.tolist() for part in parts]
    [[[0, 1], [1, 1]], [[0, 8]]]
    """
    check_type(tensor, "tensor", TensorMap)
    names = as_names(names)
    for name in names:
        if name not in tensor.keys.names:
            raise MetatensorError(
                f"'{name}' is not one of the dimensions {tensor.keys.names} of the keys"
            )
    columns = [tensor.keys.names.index(name) for name in names]
    first, group = unique_rows(tensor.keys.values[:, columns])
    return [keep_blocks(tensor, np.flatnonzero(group == g)) for g in np.argsort(first)]


def filter_blocks(tensor: TensorMap, keys: Labels, copy: bool = False) -> TensorMap:
    """Keep the blocks whose key agrees with an entry of ``keys``, as they are.

    :param tensor: a map
    :param keys: labels with some of the dimensions of the keys
    :param copy: copy the arrays; never needed, as blocks can not be changed

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.zeros((1, 1)))
    >>> tensor = TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> filter_blocks(tensor, Labels("center_type", [[8]])).keys.values.tolist()
    [[8]]
    """
    check_type(tensor, "tensor", TensorMap)
    check_type(keys, "keys", Labels)
    return keep_blocks(tensor, tensor.keys.select(keys), copy)


def drop_blocks(tensor: TensorMap, keys: Labels, copy: bool = False) -> TensorMap:
    """Drop the blocks whose key agrees with an entry of ``keys``.

    :param tensor: a map
    :param keys: labels with some of the dimensions of the keys
    :param copy: copy the arrays; never needed, as blocks can not be changed

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.zeros((1, 1)))
    >>> tensor = TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> drop_blocks(tensor, Labels("center_type", [[8]])).keys.values.tolist()
    [[1]]
    """
    check_type(tensor, "tensor", TensorMap)
    check_type(keys, "keys", Labels)
    kept = np.setdiff1d(np.arange(len(tensor)), tensor.keys.select(keys))
    return keep_blocks(tensor, kept, copy)


def drop_empty_blocks(tensor: TensorMap, copy: bool = False) -> TensorMap:
    """Drop the blocks without samples, components or properties.

    :param tensor: a map
    :param copy: copy the arrays; never needed, as blocks can not be changed

    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.zeros((0, 1)))])
    >>> len(drop_empty_blocks(tensor))
    0
    """
    check_type(tensor, "tensor", TensorMap)
    kept = [i for i, block in enumerate(tensor) if 0 not in block.shape]
    return keep_blocks(tensor, np.array(kept, int), copy)


def keep_blocks(tensor: TensorMap, kept: np.ndarray, copy: bool = False) -> TensorMap:
    """The blocks at these positions."""
    keys = Labels(tensor.keys.names, tensor.keys.values[kept], assume_unique=True)
    blocks = [block.copy() if copy else block for block in tensor.blocks_by_id(kept)]
    return TensorMap._make(keys, blocks, tensor._structure.info)


def _positions(labels: Labels, selection: Selection, axis: str) -> np.ndarray:
    """The positions that a user asked for, by labels or by positions."""
    if isinstance(selection, Labels):
        for name in selection.names:
            if name not in labels.names:
                raise MetatensorError(
                    f"invalid selection: '{name}' is not one of the {axis} dimensions "
                    f"{labels.names}"
                )
        return labels.select(selection)
    positions = np.asarray(selection)
    if positions.size == 0:
        positions = positions.astype(np.int64)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise TypeError(
            "a selection must be Labels, or a list or 1D array of positions, not "
            f"{type(selection).__name__} of {positions.dtype} with shape "
            f"{positions.shape}; for a mask use `numpy.flatnonzero(mask)`"
        )
    n = len(labels)
    if positions.size and (positions.min() < -n or positions.max() >= n):
        outside = positions[(positions < -n) | (positions >= n)][0]
        raise IndexError(f"position {outside} is out of range for {n} {axis}")
    positions = np.where(positions < 0, positions + n, positions)
    if len(np.unique(positions)) != len(positions):
        raise MetatensorError(f"positions in a selection must be unique: {positions}")
    return positions


def _all_positions(
    labels: Labels, selections: Sequence[Selection]
) -> tuple[np.ndarray, list[int]]:
    """The positions in all selections, end to end, and how many each one has."""
    by_name = {s._names if isinstance(s, Labels) else None for s in selections}
    if len(by_name) == 1 and None not in by_name and len(selections) > 1:
        names = selections[0].names  # type: ignore[union-attr]
        if all(name in labels.names for name in names):
            return _match_all(labels, names, selections)
    each = [_positions(labels, selection, "samples") for selection in selections]
    positions = np.concatenate(each) if each else np.zeros(0, np.int64)
    return positions, [len(p) for p in each]


def _match_all(
    labels: Labels, names: list[str], selections: Sequence[Any]
) -> tuple[np.ndarray, list[int]]:
    """Many selections by the same dimensions, with one search for all of them."""
    wanted = np.concatenate([selection.values for selection in selections])
    run = np.repeat(np.arange(len(selections)), [len(s) for s in selections])
    rows = labels._host_values("splitting samples")
    rows = rows[:, [labels.names.index(name) for name in names]]
    _, ids = unique_rows(np.concatenate([wanted, rows]))
    i, positions = join_rows(ids[: len(wanted)], ids[len(wanted) :])
    if names != labels.names:  # in the order of the labels, as `select` does
        order = np.lexsort((positions, run[i]))
        i, positions = i[order], positions[order]
    return positions, np.bincount(run[i], minlength=len(selections)).tolist()
