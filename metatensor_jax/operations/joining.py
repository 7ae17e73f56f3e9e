"""Several maps, or several blocks of one, laid end to end or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._evaluate import as_map, evaluate
from .._host.packing import distinct_rows
from .._plan.draft import Draft, DraftMap
from .._plan.move import Piece, plan_move
from .._plan.rows import append_columns, end_to_end
from .._types.block import TensorBlock
from .._types.context import in_block, noting
from .._types.errors import MetatensorError, NotEqualError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import (
    check_axis,
    check_same_metadata,
    check_type,
    different_keys as keys_differ,
)
from .dimensions import replace_dimension


def join(
    tensors: Sequence[TensorMap],
    axis: str,
    different_keys: str = "error",
    add_dimension: str | None = None,
    *,
    renumber: str | None = None,
) -> TensorMap:
    r"""Join maps along samples or properties.

    Each row, or column, :math:`i` of the result is one of a map, :math:`s(i)`:

    .. math:: y_i = x_{s(i)} \qquad \nabla y_i = \nabla x_{s(i)}

    :param tensors: maps whose blocks agree in all but ``axis``
    :param axis: ``"samples"`` or ``"properties"``
    :param different_keys: ``"error"``: all maps must have the same keys;
        ``"intersection"``: keep the keys that are in all of them; ``"union"``: keep all
        keys
    :param add_dimension: add a last dimension of this name to the joined labels, the
        position of the map that an entry comes from. This makes labels unique that
        would not be.
    :param renumber: number the values of this sample dimension anew, ``"system"`` say:
        those of the first map from 0, those of each map after those of the map before,
        in ascending order within a map. Samples and the samples of gradients get the
        same numbers. So systems that were computed one by one are joined.
    :raises NotEqualError: maps that differ in their keys, or in another axis
    :raises MetatensorError: joined labels that are not unique

    Properties with different names are replaced by the dimensions ``joined_index`` and
    ``property``.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.ones((1, 1)))])
    >>> join([x, x], "samples", add_dimension="map").block().samples
    Labels
        sample  map
          0      0
          0      1
    """
    _check_sequence(tensors, "tensors", TensorMap)
    check_axis(axis)
    options = ("error", "intersection", "union")
    if different_keys not in options:
        raise MetatensorError(
            f"`different_keys` must be one of {options}, not '{different_keys}'"
        )
    if renumber is not None:
        tensors = _renumbered(tensors, axis, renumber)
    return evaluate(
        _plan_join,
        *tensors,
        axis=axis,
        different_keys=different_keys,
        add_dimension=add_dimension,
    )


def _renumbered(tensors: Sequence[TensorMap], axis: str, name: str) -> list[TensorMap]:
    """The values of a sample dimension one after the other, over all maps."""
    if axis != "samples":
        raise MetatensorError(f"`renumber='{name}'` is for joining samples, not {axis}")
    renumbered, start = [], 0
    for tensor in tensors:
        columns = [
            inner.samples._host_values("join with `renumber`")[:, i]
            for block in tensor
            for _, inner in block._walk()
            for i, dimension in enumerate(inner.samples.names)
            if dimension == name
        ]
        own = np.unique(np.concatenate(columns)).tolist() if columns else []
        numbers = {old: start + i for i, old in enumerate(own)}
        renumbered.append(replace_dimension(tensor, "samples", name, numbers))
        start += len(own)
    return renumbered


def join_blocks(
    blocks: Sequence[TensorBlock], axis: str, add_dimension: str | None = None
) -> TensorBlock:
    r"""Join blocks along samples or properties.

    Each row, or column, :math:`i` of the result is one of a block, :math:`s(i)`:

    .. math:: y_i = x_{s(i)} \qquad \nabla y_i = \nabla x_{s(i)}

    :param blocks: blocks that agree in all but ``axis``
    :param axis: ``"samples"`` or ``"properties"``
    :param add_dimension: add a last dimension of this name to the joined labels, the
        position of the block that an entry comes from
    :raises NotEqualError: blocks that differ in another axis
    :raises MetatensorError: joined labels that are not unique

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((1, 2)))
    >>> join_blocks([x, x], "samples", add_dimension="block").shape
    (2, 2)
    """
    _check_sequence(blocks, "blocks", TensorBlock)
    tensors = [as_map(block) for block in blocks]
    return join(tensors, axis, add_dimension=add_dimension).block_by_id(0)


def _check_sequence(values: Any, name: str, kind: type) -> None:
    if not isinstance(values, (list, tuple)):
        raise TypeError(
            f"`{name}` must be a list or a tuple, not {type(values).__name__}"
        )
    if len(values) == 0:
        raise MetatensorError(f"provide at least one {kind.__name__} for joining")
    for i, value in enumerate(values):
        check_type(value, f"{name}[{i}]", kind)


def _plan_join(
    *tensors: DraftMap, axis: str, different_keys: str, add_dimension: str | None
) -> DraftMap:
    keys, per_key = _match_keys(tensors, different_keys)
    blocks = []
    for i, (indices, parts) in enumerate(per_key):
        with in_block(keys, i):
            blocks.append(_plan_block(parts, axis, add_dimension, indices))
    return DraftMap(keys, blocks, tensors[0].info)


#: for each key of the result: which maps have a block, and these blocks
_PerKey = list[tuple[list[int], list[Draft]]]


def _match_keys(
    tensors: Sequence[DraftMap], different_keys: str
) -> tuple[Labels, _PerKey]:
    first = tensors[0].keys
    if all(t.keys is first or t.keys == first for t in tensors[1:]):
        indices = list(range(len(tensors)))
        columns = zip(*(tensor.blocks for tensor in tensors), strict=True)
        return first, [(indices, list(blocks)) for blocks in columns]
    hint = ": see `different_keys=`"
    for other in tensors[1:]:
        if other.keys.names != first.names:
            raise keys_differ(first, other.keys, "join", hint)
    keys, positions = distinct_rows([tensor.keys.values for tensor in tensors])
    counts = np.bincount(np.concatenate(positions), minlength=len(keys))
    if different_keys == "error" and np.any(counts != len(tensors)):
        other = next(t.keys for t in tensors if set(t.keys) != set(first))
        raise keys_differ(first, other, "join", hint)
    matched: _PerKey = [([], []) for _ in keys]
    order: dict[int, None] = {}  # in which keys first appear
    for index, (tensor, rows) in enumerate(zip(tensors, positions, strict=True)):
        for row, block in zip(rows.tolist(), tensor.blocks, strict=True):
            order.setdefault(row)
            matched[row][0].append(index)
            matched[row][1].append(block)
    n_needed = len(tensors) if different_keys == "intersection" else 1
    kept = [row for row in order if counts[row] >= n_needed]
    return Labels._make(first._names, keys[kept]), [matched[row] for row in kept]


def _plan_block(
    blocks: Sequence[Draft],
    axis: str,
    add_dimension: str | None,
    indices: Sequence[int],
) -> Draft:
    first = blocks[0]
    same = ("components", "properties" if axis == "samples" else "samples")
    for other in blocks[1:]:
        check_same_metadata(first, other, "join", same)
    pieces = [Piece(block) for block in blocks]
    if axis == "samples":
        samples = [block.samples for block in blocks]
        return plan_move(pieces, _join_labels(samples, add_dimension, indices, axis))
    properties = [block.properties for block in blocks]
    joined = _join_labels(properties, add_dimension, indices, axis)
    with noting("in 'join'"):
        return plan_move(pieces, first.samples, joined, "side by side")


def _join_labels(
    labels: Sequence[Labels],
    add_dimension: str | None,
    indices: Sequence[int],
    axis: str,
) -> Labels:
    names = labels[0].names
    lengths = [len(part) for part in labels]
    if any(part.names != names for part in labels):
        if axis == "samples":
            raise NotEqualError(
                "inputs to 'join' should have the same sample names, but they have "
                f"{[part.names for part in labels]}"
            )
        if add_dimension is not None:
            raise MetatensorError(
                f"`add_dimension='{add_dimension}'` is for properties with the same "
                f"names, but they have {[part.names for part in labels]}: these "
                "get the dimension 'joined_index'"
            )
        ranges = np.concatenate([np.arange(n) for n in lengths])
        values = np.column_stack([np.repeat(indices, lengths), ranges])
        return Labels(["joined_index", "property"], values)
    if not all(part.is_static for part in labels):
        if add_dimension is not None:
            labels = [
                append_columns(part, [add_dimension], [index])
                for part, index in zip(labels, indices, strict=True)
            ]
        return end_to_end(labels)
    values = np.concatenate([part.values for part in labels])
    if add_dimension is not None:
        values = np.column_stack([values, np.repeat(indices, lengths)])
        names = [*names, add_dimension]
    hint = "`add_dimension=`" if add_dimension is None else "another name"
    if axis == "samples" and add_dimension is None:
        hint += ", or `renumber=` for systems computed one by one,"
    with noting(f"joining along {axis}: use {hint} to tell the inputs apart"):
        return Labels(names, values)
