"""Several maps, or several blocks of one, laid end to end or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..block import TensorBlock
from ..errors import MetatensorError, NotEqualError
from ..execution import execute
from ..facade import implements
from ..labels import Labels
from ..packing import unique_rows
from ..rows import Move, map_rows, move_rows, plan_move
from ..tensor import TensorMap
from ._checks import (
    as_names,
    check_axis,
    check_same_axes,
    check_same_parameters,
    check_type,
)
from .selection import take_properties


def join(
    tensors: Sequence[TensorMap],
    axis: str,
    different_keys: str = "error",
    add_dimension: str | None = None,
) -> TensorMap:
    """Join maps along samples or properties.

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
    _check_options(axis, different_keys)
    keys = _joined_keys(tensors, different_keys)
    columns = [tensor.keys.select(keys) for tensor in tensors]
    if any(len(column) != len(keys) for column in columns):
        per_key = _present_blocks(tensors, keys)
    else:
        blocks = [t.blocks_by_id(c) for t, c in zip(tensors, columns, strict=True)]
        indices = list(range(len(tensors)))
        per_key = [(indices, list(of_key)) for of_key in zip(*blocks, strict=True)]
    plans = [
        _plan_join("join", blocks, axis, add_dimension, indices)
        for indices, blocks in per_key
    ]
    return execute(TensorMap._make(keys, plans, tensors[0]._structure.info))


def join_blocks(
    blocks: Sequence[TensorBlock], axis: str, add_dimension: str | None = None
) -> TensorBlock:
    """Join blocks along samples or properties, see :func:`join`."""
    _check_sequence(blocks, "blocks", TensorBlock)
    _check_options(axis, "error")
    indices = range(len(blocks))
    return execute(_plan_join("join_blocks", blocks, axis, add_dimension, indices))


def _check_sequence(values: Any, name: str, kind: type) -> None:
    if not isinstance(values, (list, tuple)):
        raise TypeError(
            f"`{name}` must be a list or a tuple, not {type(values).__name__}"
        )
    if len(values) == 0:
        raise MetatensorError(f"provide at least one {kind.__name__} for joining")
    for i, value in enumerate(values):
        check_type(value, f"{name}[{i}]", kind)


def _check_options(axis: str, different_keys: str) -> None:
    check_axis(axis)
    options = ("error", "intersection", "union")
    if different_keys not in options:
        raise MetatensorError(
            f"`different_keys` must be one of {options}, not '{different_keys}'"
        )


def _joined_keys(tensors: Sequence[TensorMap], different_keys: str) -> Labels:
    keys = tensors[0].keys
    for other in tensors[1:]:
        if other.keys is keys or other.keys == keys:
            continue
        if different_keys == "error":
            if keys.names != other.keys.names or set(keys) != set(other.keys):
                raise NotEqualError(
                    "inputs to 'join' should have the same keys, but they have\n"
                    f"{keys}\nand\n{other.keys}\nsee `different_keys=`"
                )
        elif different_keys == "intersection":
            keys = keys.intersection(other.keys)
        else:
            keys = keys.union(other.keys)
    return keys


def _present_blocks(
    tensors: Sequence[TensorMap], keys: Labels
) -> list[tuple[list[int], list[TensorBlock]]]:
    """For each key: which maps have a block for it, and these blocks."""
    result: list[tuple[list[int], list[TensorBlock]]] = [([], []) for _ in keys]
    for index, tensor in enumerate(tensors):
        for key, block in tensor.items():
            position = keys.position(key)
            if position is not None:
                result[position][0].append(index)
                result[position][1].append(block)
    return result


def _plan_join(
    name: str,
    blocks: Sequence[TensorBlock],
    axis: str,
    add_dimension: str | None,
    indices: Sequence[int],
) -> TensorBlock:
    first = blocks[0]
    others = ("samples", "properties")
    same = ("components", others[1] if axis == "samples" else others[0])
    for other in blocks[1:]:
        if other._structure is not first._structure:
            check_same_axes(first, other, name, same)
            check_same_parameters(first, other, name)
    moves = [Move(block) for block in blocks]
    if axis == "samples":
        samples = [block.samples for block in blocks]
        return plan_move(moves, _join_labels(samples, add_dimension, indices, axis))
    properties = [block.properties for block in blocks]
    joined = _join_labels(properties, add_dimension, indices, axis)
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
        return _join_traced(labels, add_dimension, indices)
    values = np.concatenate([part.values for part in labels])
    if add_dimension is not None:
        values = np.column_stack([values, np.repeat(indices, lengths)])
        names = [*names, add_dimension]
    try:
        return Labels(names, values)
    except MetatensorError as error:
        hint = "use `add_dimension=` to tell the inputs apart"
        raise MetatensorError(f"can not join along {axis}: {error}; {hint}") from None


def _join_traced(
    labels: Sequence[Labels], add_dimension: str | None, indices: Sequence[int]
) -> Labels:
    if add_dimension is not None:
        labels = [
            part.append(add_dimension, np.full(len(part), index))
            for part, index in zip(labels, indices, strict=True)
        ]
    concat = next(p.values for p in labels if not p.is_static).__array_namespace__()
    values = concat.concat([part.values for part in labels])
    return Labels.traced(labels[0].names, values)


# --- keys --------------------------------------------------------------------------


@implements("TensorMap.keys_to_samples")
def keys_to_samples(
    tensor: TensorMap,
    keys_to_move: str | Sequence[str] | Labels,
    *,
    fill_value: float = 0.0,
    sort_samples: bool = True,
) -> TensorMap:
    """See :meth:`TensorMap.keys_to_samples`."""
    if isinstance(keys_to_move, Labels):
        if len(keys_to_move) != 0:
            raise MetatensorError(
                "`keys_to_move` of keys_to_samples must not contain entries, got "
                f"{len(keys_to_move)}: all keys are moved"
            )
        keys_to_move = keys_to_move.names
    moved = as_names(keys_to_move)
    if not moved:
        return tensor
    groups = _group_keys(tensor, moved)
    tensor = _same_properties(tensor, groups, fill_value)
    plans = []
    for members in groups.members:
        blocks = tensor.blocks_by_id(members)
        for other in blocks[1:]:
            check_same_axes(blocks[0], other, "keys_to_samples", ["components"])
        parts = [
            _append_columns(block.samples, moved, groups.moved.values[i])
            for block, i in zip(blocks, members, strict=True)
        ]
        samples = _end_to_end(parts)
        plans.append(_plan_stack(blocks, samples, sort_samples))
    return execute(TensorMap._make(groups.keys, plans, tensor._structure.info))


class _KeyGroups:
    """Keys without the dimensions that are moved, and the blocks of each of them."""

    def __init__(self, tensor: TensorMap, moved: Sequence[str]) -> None:
        names, values = tensor.keys.names, tensor.keys.values
        kept = [name for name in names if name not in moved]
        rows = values[:, [names.index(name) for name in kept]]
        first, group = unique_rows(rows)
        # in the order in which they first appear
        order = np.argsort(first, kind="stable")
        rank = np.argsort(order, kind="stable")
        self.keys = Labels(kept, rows[first[order]]) if kept else Labels.single()
        self.members: list[list[int]] = [[] for _ in first]
        for i, g in enumerate(rank[group].tolist()):
            self.members[g].append(i)
        columns = values[:, [names.index(name) for name in moved]]
        self.moved = Labels._make(tuple(moved), columns)


def _group_keys(tensor: TensorMap, moved: Sequence[str]) -> _KeyGroups:
    for name in moved:
        if name not in tensor.keys.names:
            raise MetatensorError(
                f"'{name}' is not part of the keys of this map: {tensor.keys.names}"
            )
    if len(tensor) == 0:
        raise MetatensorError("there are no keys to move in a map without blocks")
    return _KeyGroups(tensor, moved)


def _append_columns(labels: Labels, names: Sequence[str], row: np.ndarray) -> Labels:
    for name, value in zip(names, row.tolist(), strict=True):
        labels = labels.append(name, np.full(len(labels), value, np.int32))
    return labels


def _end_to_end(parts: Sequence[Labels]) -> Labels:
    if all(part.is_static for part in parts):
        values = np.concatenate([part.values for part in parts])
        return Labels._make(parts[0]._names, values)
    return _join_traced(parts, None, range(len(parts)))


def _plan_stack(
    blocks: Sequence[TensorBlock], samples: Labels, sort_samples: bool
) -> TensorBlock:
    """Blocks end to end, with sorted samples if these are known."""
    if not (sort_samples and samples.is_static):
        return plan_move([Move(block) for block in blocks], samples)
    _, position = unique_rows(samples.values)
    ordered = np.empty_like(samples.values)
    ordered[position] = samples.values
    ends = np.cumsum([len(block) for block in blocks])
    moves = [
        Move(block, destination=position[end - len(block) : end])
        for block, end in zip(blocks, ends, strict=True)
    ]
    return plan_move(moves, Labels._make(samples._names, ordered))


def _same_properties(
    tensor: TensorMap, groups: _KeyGroups, fill_value: float
) -> TensorMap:
    """Give all blocks of a group the properties of all of them."""
    properties: list[Labels] = [block.properties for block in tensor]
    for members in groups.members:
        union = properties[members[0]]
        for i in members[1:]:
            union = union.union(properties[i])
        if any(union != properties[i] for i in members):
            order = np.lexsort(union.values.T[::-1])
            union = Labels._make(union._names, union.values[order])
        for i in members:
            properties[i] = union
    pairs = list(zip(properties, tensor, strict=True))
    if all(
        mine is block.properties or mine == block.properties for mine, block in pairs
    ):
        return tensor
    positions = []
    for mine, block in pairs:
        index = np.full(len(mine), len(block.properties))
        index[mine.select(block.properties)] = np.arange(len(block.properties))
        positions.append(index)
    wide = take_properties(tensor, positions, properties)
    if fill_value == 0:
        return wide
    blocks = [
        _fill_columns(block, index >= len(old.properties), fill_value)
        for block, index, old in zip(wide, positions, tensor, strict=True)
    ]
    return TensorMap._make(tensor.keys, blocks, tensor._structure.info)


def _fill_columns(block: TensorBlock, missing: np.ndarray, value: float) -> TensorBlock:
    """Fill columns of the values; their gradients stay zero."""
    values = block.values
    where = values.__array_namespace__().where
    return block.with_values(where(missing, values.dtype.type(value), values))


@implements("TensorMap.keys_to_properties")
def keys_to_properties(
    tensor: TensorMap,
    keys_to_move: str | Sequence[str] | Labels,
    *,
    fill_value: float = 0.0,
    sort_samples: bool = True,
) -> TensorMap:
    """See :meth:`TensorMap.keys_to_properties`."""
    wanted = keys_to_move if isinstance(keys_to_move, Labels) else None
    moved = as_names(wanted.names if wanted is not None else keys_to_move)  # type: ignore[arg-type]
    if not moved:
        return tensor
    groups = _group_keys(tensor, moved)
    if wanted is not None and len(wanted) == 0:
        wanted = None
    plans = [
        _plan_columns(tensor, members, groups.moved, wanted, fill_value, sort_samples)
        for members in groups.members
    ]
    return execute(TensorMap._make(groups.keys, plans, tensor._structure.info))


def _plan_columns(
    tensor: TensorMap,
    members: Sequence[int],
    moved: Labels,
    wanted: Labels | None,
    fill_value: float,
    sort_samples: bool,
) -> TensorBlock:
    """The blocks of one new key side by side, on the samples of all of them."""
    blocks = tensor.blocks_by_id(members)
    for other in blocks[1:]:
        check_same_axes(blocks[0], other, "keys_to_properties", ["components"])
    samples, destinations = _all_samples(blocks, sort_samples)
    moves = [
        Move(block, destination=index)
        for block, index in zip(blocks, destinations, strict=True)
    ]
    entries = Labels._make(moved._names, moved.values[np.array(members)])
    if wanted is None:
        order = np.lexsort(entries.values.T[::-1])
        wanted = Labels._make(entries._names, entries.values[order])
    chosen, parts = [], []
    for entry in wanted.values:
        at = entries.position(entry)
        chosen.append(moves[at] if at is not None else _nothing(blocks, len(samples)))
        properties = blocks[at if at is not None else 0].properties
        parts.append(_prepend_columns(properties, wanted._names, entry))
    values = np.concatenate([part.values for part in parts])
    properties = Labels(parts[0].names, values, assume_unique=True)
    return plan_move(chosen, samples, properties, "side by side", fill_value)


def _all_samples(
    blocks: Sequence[TensorBlock], sort_samples: bool
) -> tuple[Labels, list[Any]]:
    """The samples of all blocks, and where those of each block are among them."""
    samples = blocks[0].samples
    if all(b.samples is samples or b.samples == samples for b in blocks[1:]):
        rows = [None] * len(blocks)
        if not (sort_samples and samples.is_static):
            return samples, rows
        _, position = unique_rows(samples.values)
        if bool(np.all(position == np.arange(len(position)))):
            return samples, rows
        ordered = np.empty_like(samples.values)
        ordered[position] = samples.values
        return Labels._make(samples._names, ordered), [position] * len(blocks)
    for block in blocks[1:]:
        samples = samples.union(block.samples)
    if sort_samples:
        order = np.lexsort(samples.values.T[::-1])
        samples = Labels._make(samples._names, samples.values[order])
    return samples, [samples.select(block.samples) for block in blocks]


def _nothing(blocks: Sequence[TensorBlock], n_samples: int) -> Move:
    """Columns for a key that no block has: rows that are all past the end."""
    empty = move_rows(
        [Move(blocks[0], source=np.zeros(0, int))], _no_samples(blocks[0])
    )
    return Move(empty, np.zeros(n_samples, int), np.arange(n_samples))


def _no_samples(block: TensorBlock) -> Labels:
    return Labels.empty(block.samples.names)


def _prepend_columns(labels: Labels, names: Sequence[str], row: np.ndarray) -> Labels:
    values = np.column_stack([np.tile(row, (len(labels), 1)), labels.values])
    return Labels._make((*names, *labels._names), values.astype(np.int32))


@implements("TensorMap.components_to_properties")
def components_to_properties(
    tensor: TensorMap, dimensions: str | Sequence[str]
) -> TensorMap:
    """See :meth:`TensorMap.components_to_properties`."""
    for name in as_names(dimensions):
        if name not in tensor.component_names:
            raise MetatensorError(
                f"'{name}' is not one of the components {tensor.component_names}"
            )
    for name in reversed(as_names(dimensions)):
        tensor = _component_to_properties(tensor, name)
    return tensor


def _component_to_properties(tensor: TensorMap, name: str) -> TensorMap:
    if len(tensor) == 0:
        return tensor
    at = tensor.component_names.index(name)
    axis = at - len(tensor.component_names) - 1  # from the end: gradients have more
    components, properties = [], []
    for block in tensor:
        labels = block.components[at]
        components.append([c for c in block.components if c is not labels])
        values = np.column_stack(
            [
                np.repeat(labels.values, len(block.properties), axis=0),
                np.tile(block.properties.values, (len(labels), 1)),
            ]
        )
        names = (name, *block.properties._names)
        properties.append(Labels(names, values, assume_unique=True))
    return map_rows(
        _MergeIntoLast(axis),
        tensor,
        rearranges=True,
        components=components,
        properties=properties,
    )


@dataclass(frozen=True)
class _MergeIntoLast:
    """Row function: one axis becomes the slow part of the last one."""

    axis: int

    def __call__(self, row: Any) -> Any:
        moved = row.__array_namespace__().moveaxis(row, self.axis, -2)
        return moved.reshape((*moved.shape[:-2], -1))
