"""Several maps, or several blocks of one, laid end to end or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._host.packing import distinct_rows
from .._types.block import TensorBlock
from .._types.entry import saying_where
from .._types.errors import MetatensorError, NotEqualError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..checks import (
    check_axis,
    check_same_metadata,
    check_type,
    different_keys as keys_differ,
    in_operation,
)
from ..collector import collection_paused
from ..execution import execute
from ..rows import Move, end_to_end, plan_move


@collection_paused()
def join(
    tensors: Sequence[TensorMap],
    axis: str,
    different_keys: str = "error",
    add_dimension: str | None = None,
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
    keys, per_key = _match_keys(tensors, different_keys)
    plans = []
    for key, (indices, blocks) in zip(keys, per_key, strict=True):
        with saying_where(key):
            plans.append(_plan_join(blocks, axis, add_dimension, indices))
    return execute(TensorMap._make(keys, plans, tensors[0]._structure.info))


def join_blocks(
    blocks: Sequence[TensorBlock], axis: str, add_dimension: str | None = None
) -> TensorBlock:
    r"""Join blocks along samples or properties, see :func:`join`.

    .. math:: y_i = x_{s(i)} \qquad \nabla y_i = \nabla x_{s(i)}

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((1, 2)))
    >>> join_blocks([x, x], "samples", add_dimension="block").shape
    (2, 2)
    """
    _check_sequence(blocks, "blocks", TensorBlock)
    key = Labels.single()
    tensors = [TensorMap._make(key, [block]) for block in blocks]
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


def _match_keys(
    tensors: Sequence[TensorMap], different_keys: str
) -> tuple[Labels, list[tuple[list[int], list[TensorBlock]]]]:
    """The keys of the result; for each, which maps have a block, and these blocks."""
    first = tensors[0].keys
    if all(t.keys is first or t.keys == first for t in tensors[1:]):
        indices = list(range(len(tensors)))
        columns = zip(*(tensor.blocks() for tensor in tensors), strict=True)
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
    matched: list[tuple[list[int], list[TensorBlock]]] = [([], []) for _ in keys]
    order: dict[int, None] = {}  # in which keys first appear
    for index, (tensor, rows) in enumerate(zip(tensors, positions, strict=True)):
        for row, block in zip(rows.tolist(), tensor.blocks(), strict=True):
            order.setdefault(row)
            matched[row][0].append(index)
            matched[row][1].append(block)
    n_needed = len(tensors) if different_keys == "intersection" else 1
    kept = [row for row in order if counts[row] >= n_needed]
    return Labels._make(first._names, keys[kept]), [matched[row] for row in kept]


def _plan_join(
    blocks: Sequence[TensorBlock],
    axis: str,
    add_dimension: str | None,
    indices: Sequence[int],
) -> TensorBlock:
    first = blocks[0]
    same = ("components", "properties" if axis == "samples" else "samples")
    for other in blocks[1:]:
        if other._structure is not first._structure:
            check_same_metadata(first, other, "join", same)
    moves = [Move(block) for block in blocks]
    if axis == "samples":
        samples = [block.samples for block in blocks]
        return plan_move(moves, _join_labels(samples, add_dimension, indices, axis))
    properties = [block.properties for block in blocks]
    joined = _join_labels(properties, add_dimension, indices, axis)
    with in_operation("join"):
        return plan_move(moves, first.samples, joined, "side by side")


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
        ranges = np.concatenate([np.arange(n) for n in lengths])
        values = np.column_stack([np.repeat(indices, lengths), ranges])
        return Labels(["joined_index", "property"], values)
    if not all(part.is_static for part in labels):
        if add_dimension is not None:
            labels = [
                part.append(add_dimension, np.full(len(part), index))
                for part, index in zip(labels, indices, strict=True)
            ]
        return end_to_end(labels)
    values = np.concatenate([part.values for part in labels])
    if add_dimension is not None:
        values = np.column_stack([values, np.repeat(indices, lengths)])
        names = [*names, add_dimension]
    try:
        return Labels(names, values)
    except MetatensorError as error:
        hint = "use `add_dimension=`" if add_dimension is None else "use another name"
        what = f"can not join along {axis}: {error}; {hint} to tell the inputs apart"
        raise MetatensorError(what) from None
