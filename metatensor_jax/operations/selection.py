"""Parts of a map: some rows, some columns, some blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..block import TensorBlock
from ..checks import axis_labels, block_form, check_axis, check_type
from ..errors import MetatensorError
from ..labels import Labels
from ..packing import unique_rows
from ..rows import Move, cut_rows, join_rows, map_rows, move_rows
from ..tensor import TensorMap

Selection = Labels | Sequence[int] | np.ndarray


def slice(tensor: TensorMap, axis: str, selection: Selection) -> TensorMap:
    """Keep some samples, or some properties, of each block.

    Gradient rows stay with the samples they belong to.

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
    positions = [_positions(axis_labels(b, axis)[0], selection, axis) for b in tensor]
    if axis == "samples":
        samples = [_pick(b.samples, p) for b, p in zip(tensor, positions, strict=True)]
        return move_rows([Move(tensor, source=positions)], samples)
    return take_properties(tensor, positions)


slice_block = block_form(slice)


def split(
    tensor: TensorMap, axis: str, selections: Sequence[Selection]
) -> list[TensorMap]:
    """Split a map into several, along samples or properties.

    The time grows with the rows and with the number of selections, not with their
    product.

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
            f"{type(selections).__name__}"
        )
    if axis == "properties":
        return [slice(tensor, axis, selection) for selection in selections]
    runs = _split_samples(tensor, selections)
    info = tensor._structure.info
    return [
        TensorMap._make(tensor.keys, [of_block[i] for of_block in runs], info)
        for i in range(len(selections))
    ]


def split_block(
    block: TensorBlock, axis: str, selections: Sequence[Selection]
) -> list[TensorBlock]:
    """One block, see :func:`split`."""
    check_type(block, "block", TensorBlock)
    parts = split(TensorMap._make(Labels.single(), [block]), axis, selections)
    return [part.block_by_id(0) for part in parts]


def filter_blocks(tensor: TensorMap, keys: Labels, copy: bool = False) -> TensorMap:
    """Keep the blocks whose key agrees with an entry of ``keys``.

    :param tensor: a map
    :param keys: labels with some of the dimensions of the keys
    :param copy: copy the arrays; never needed, as blocks can not be changed

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.zeros((1, 1)))
    >>> tensor = TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> filter_blocks(tensor, Labels("center_type", [[8]])).keys
    Labels
        center_type
             8
    """
    check_type(tensor, "tensor", TensorMap)
    check_type(keys, "keys", Labels)
    return _keep_blocks(tensor, tensor.keys.select(keys), copy)


def drop_blocks(tensor: TensorMap, keys: Labels, copy: bool = False) -> TensorMap:
    """Drop the blocks whose key agrees with an entry of ``keys``.

    The arguments are those of :func:`filter_blocks`.
    """
    check_type(tensor, "tensor", TensorMap)
    check_type(keys, "keys", Labels)
    kept = np.setdiff1d(np.arange(len(tensor)), tensor.keys.select(keys))
    return _keep_blocks(tensor, kept, copy)


def drop_empty_blocks(tensor: TensorMap, copy: bool = False) -> TensorMap:
    """Drop the blocks without samples, components or properties.

    The arguments are those of :func:`filter_blocks`.
    """
    check_type(tensor, "tensor", TensorMap)
    kept = [i for i, block in enumerate(tensor) if 0 not in block.shape]
    return _keep_blocks(tensor, np.array(kept, int), copy)


def _keep_blocks(tensor: TensorMap, kept: np.ndarray, copy: bool) -> TensorMap:
    keys = Labels(tensor.keys.names, tensor.keys.values[kept], assume_unique=True)
    blocks = [block.copy() if copy else block for block in tensor.blocks_by_id(kept)]
    return TensorMap._make(keys, blocks, tensor._structure.info)


# --- rows --------------------------------------------------------------------------


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


def _pick(labels: Labels, positions: np.ndarray) -> Labels:
    return Labels._make(labels._names, labels.values[positions], labels.is_static)


def _split_samples(
    tensor: TensorMap, selections: Sequence[Selection]
) -> list[list[TensorBlock]]:
    """For each block, its runs of rows."""
    positions, lengths = [], []
    for block in tensor:
        all_positions, counts = _all_positions(block.samples, selections)
        positions.append(all_positions)
        lengths.append(counts)
    samples = [_pick(b.samples, p) for b, p in zip(tensor, positions, strict=True)]
    in_order = move_rows([Move(tensor, source=positions)], samples)
    return [cut_rows(b, counts) for b, counts in zip(in_order, lengths, strict=True)]


def _all_positions(
    labels: Labels, selections: Sequence[Selection]
) -> tuple[np.ndarray, np.ndarray]:
    """The positions in all selections, end to end, and how many each one has."""
    by_name = {s._names if isinstance(s, Labels) else None for s in selections}
    if len(by_name) == 1 and None not in by_name and len(selections) > 1:
        names = selections[0].names  # type: ignore[union-attr]
        if all(name in labels.names for name in names):
            return _match_all(labels, names, selections)
    each = [_positions(labels, selection, "samples") for selection in selections]
    positions = np.concatenate(each) if each else np.zeros(0, np.int64)
    return positions, np.array([len(p) for p in each], int)


def _match_all(
    labels: Labels, names: list[str], selections: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
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
    return positions, np.bincount(run[i], minlength=len(selections))


# --- columns -----------------------------------------------------------------------


def take_properties(
    tensor: TensorMap, positions: Sequence[np.ndarray], properties: Any = None
) -> TensorMap:
    """Columns of each block; a position past the end is a column of zeros.

    :param properties: labels of the columns; those at the positions if None
    """
    if properties is None:
        properties = [
            _pick(block.properties, index)
            for block, index in zip(tensor, positions, strict=True)
        ]
    widths = [len(block.properties) for block in tensor]
    columns = zip(positions, widths, strict=True)
    missing = [index >= n for index, n in columns]
    if not any(bool(m.any()) for m in missing):
        args = [(index,) for index in positions]
        return _rearrange(_take_columns, tensor, args, properties)
    args = [
        (np.where(m, 0, index), m) for index, m in zip(positions, missing, strict=True)
    ]
    return _rearrange(_take_columns_or_zero, tensor, args, properties)


def _rearrange(
    function: Any, tensor: TensorMap, args: list[Any], properties: list[Labels]
) -> TensorMap:
    return map_rows(function, tensor, args=args, rearranges=True, properties=properties)


def _take_columns(row: Any, index: np.ndarray) -> Any:
    return row[..., index]


def _take_columns_or_zero(row: Any, index: np.ndarray, missing: np.ndarray) -> Any:
    xp = row.__array_namespace__()
    zero = xp.zeros((), dtype=row.dtype)
    if row.shape[-1] == 0:
        return xp.broadcast_to(zero, (*row.shape[:-1], len(index)))
    return xp.where(missing, zero, row[..., index])
