r"""Moving keys into samples and properties, and components into properties.

These are methods of :class:`TensorMap`, which documents them: blocks are laid end to
end, or side by side on the samples of all of them. Each row, or column, is one of a
block, and so is its gradient; the gradients of what is filled are zero:

.. math:: y_i = x_{s(i)} \qquad \nabla y_i = \nabla x_{s(i)}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._host.packing import cut, distinct_rows, is_increasing, unique_rows
from ._types.block import TensorBlock
from ._types.entry import saying_where
from ._types.errors import MetatensorError
from ._types.facade import implements
from ._types.labels import Labels
from ._types.tensor import TensorMap
from .checks import as_names, check_same_axes, in_operation
from .execution import kept
from .once import Once
from .rows import Move, end_to_end, map_rows, plan_move, take_properties


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
    moved = tuple(as_names(keys_to_move))
    if not moved:
        return tensor
    tensor = _same_properties(tensor, moved, fill_value)
    return _blocks_along(tensor, moved, sort_samples)


@kept
def _blocks_along(
    tensor: TensorMap, moved: Sequence[str], sort_samples: bool
) -> TensorMap:
    """The plan: the blocks of each new key end to end."""
    groups = _group_keys(tensor, moved)
    stack, once = _stack_sorted if sort_samples else _stack, Once()
    plans = []
    for members in groups.members:
        blocks = tensor.blocks_by_id(members)
        _check_same_components(tensor, members, "keys_to_samples")
        entries = [tuple(groups.moved.values[i].tolist()) for i in members]
        samples, places = once(stack, [b.samples for b in blocks], moved, entries)
        moves = [Move(b, destination=p) for b, p in zip(blocks, places, strict=True)]
        plans.append(plan_move(moves, samples, once=once))
    return TensorMap._make(groups.keys, plans, tensor._structure.info)


class _KeyGroups:
    """Keys without the dimensions that are moved, and the blocks of each of them."""

    def __init__(self, tensor: TensorMap, moved: Sequence[str]) -> None:
        names, values = tensor.keys.names, tensor.keys.values
        left = [name for name in names if name not in moved]
        rows = values[:, [names.index(name) for name in left]]
        first, group = unique_rows(rows)
        # in the order in which they first appear
        order = np.argsort(first, kind="stable")
        rank = np.argsort(order, kind="stable")
        self.keys = Labels(left, rows[first[order]]) if left else Labels.single()
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


def _check_same_components(
    tensor: TensorMap, members: Sequence[int], what: str
) -> None:
    first, *others = tensor.blocks_by_id(members)
    for i, other in zip(members[1:], others, strict=True):
        if other._structure.components != first._structure.components:
            keys = [tensor.keys.entry(at).print() for at in (members[0], i)]
            with saying_where(inside=f" in the blocks for keys {' and '.join(keys)}"):
                check_same_axes(first, other, what, ["components"])


#: the samples of several blocks, and where those of each block are among them; None:
#: after those of the block before, or, side by side, where they are
_Placed = tuple[Labels, Sequence[np.ndarray | None]]


def _stack(
    samples: Sequence[Labels], names: Sequence[str], entries: Sequence[tuple[int, ...]]
) -> _Placed:
    """The samples of all blocks end to end, each with an entry in new columns."""
    parts = [
        _append_columns(labels, names, entry)
        for labels, entry in zip(samples, entries, strict=True)
    ]
    return end_to_end(parts), [None] * len(parts)


def _stack_sorted(
    samples: Sequence[Labels], names: Sequence[str], entries: Sequence[tuple[int, ...]]
) -> _Placed:
    """The same, sorted if the samples are known."""
    stacked, places = _stack(samples, names, entries)
    if not stacked.is_static:
        return stacked, places
    rows, (places,) = distinct_rows([stacked.values])
    lengths = [len(labels) for labels in samples]
    return Labels._make(stacked._names, rows), cut(places, lengths)


def _append_columns(
    labels: Labels, names: Sequence[str], entry: tuple[int, ...]
) -> Labels:
    for name, value in zip(names, entry, strict=True):
        labels = labels.append(name, np.full(len(labels), value, np.int32))
    return labels


def _same_properties(
    tensor: TensorMap, moved: Sequence[str], fill_value: float
) -> TensorMap:
    """Give all blocks of a group the properties of all of them."""
    properties = [block.properties for block in tensor._structure.blocks]
    if all(mine == properties[0] for mine in properties):
        return tensor
    for members in _group_keys(tensor, moved).members:
        union = properties[members[0]]
        for i in members[1:]:
            union = union if properties[i] == union else union.union(properties[i])
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
    moved = tuple(as_names(wanted.names if wanted is not None else keys_to_move))  # type: ignore[arg-type]
    if not moved:
        return tensor
    if wanted is not None and len(wanted) == 0:
        wanted = None
    if isinstance(fill_value, (float, np.floating)) and np.isnan(fill_value):
        fill_value = np.nan  # the same one each time: else its plan is not found again
    return _blocks_beside(tensor, moved, wanted, fill_value, sort_samples)


@kept
def _blocks_beside(
    tensor: TensorMap,
    moved: Sequence[str],
    wanted: Labels | None,
    fill_value: float,
    sort_samples: bool,
) -> TensorMap:
    """The plan: the blocks of each new key side by side."""
    groups = _group_keys(tensor, moved)
    options = (groups.moved, wanted, fill_value)
    with in_operation("keys_to_properties"):
        once = Once()
        plans = [
            _plan_columns(tensor, members, sort_samples, once, *options)
            for members in groups.members
        ]
    return TensorMap._make(groups.keys, plans, tensor._structure.info)


def _plan_columns(
    tensor: TensorMap,
    members: Sequence[int],
    sort_samples: bool,
    once: Once,
    moved: Labels,
    wanted: Labels | None,
    fill_value: float,
) -> TensorBlock:
    """The blocks of one new key side by side, on the samples of all of them."""
    blocks = tensor.blocks_by_id(members)
    _check_same_components(tensor, members, "keys_to_properties")
    samples, places = once(_all_samples, [b.samples for b in blocks], sort_samples)
    moves = [Move(b, destination=p) for b, p in zip(blocks, places, strict=True)]
    entries = Labels._make(moved._names, moved.values[np.array(members)])
    if wanted is None:
        wanted = entries
    chosen, parts = [], []
    for entry in wanted.values:
        at = entries.position(entry)
        chosen.append(_nothing(blocks, len(samples)) if at is None else moves[at])
        parts.append(blocks[at or 0].properties)
    properties = _with_entries(wanted, parts)
    return plan_move(chosen, samples, properties, "side by side", fill_value, once=once)


def _with_entries(entries: Labels, parts: Sequence[Labels]) -> Labels:
    """Labels end to end, each with one of the entries in front."""
    columns = np.concatenate([part.values for part in parts])
    rows = np.repeat(entries.values, [len(part) for part in parts], axis=0)
    names = (*entries._names, *parts[0]._names)
    return Labels(names, np.concatenate([rows, columns], axis=1), assume_unique=True)


def _all_samples(of_blocks: Sequence[Labels], sort_samples: bool) -> _Placed:
    """The samples of all blocks, for columns side by side."""
    first = of_blocks[0]
    if all(labels is first or labels == first for labels in of_blocks[1:]):
        places = [None] * len(of_blocks)
        if not (sort_samples and first.is_static) or is_increasing(first.values):
            return first, places
        rows, places = distinct_rows([first.values])
        return Labels._make(first._names, rows), places * len(of_blocks)
    if sort_samples:
        tables = [labels._host_values("keys_to_properties") for labels in of_blocks]
        rows, places = distinct_rows(tables)
        return Labels._make(first._names, rows), places
    union = first
    for labels in of_blocks[1:]:
        union = union.union(labels)
    return union, [union.select(labels) for labels in of_blocks]


def _nothing(blocks: Sequence[TensorBlock], n_samples: int) -> Move:
    """Columns for a key that no block has: rows that are all past the end."""
    past_the_end = np.full(n_samples, len(blocks[0].samples))
    return Move(blocks[0], past_the_end, np.arange(n_samples))


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
    for name in as_names(dimensions):
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
        *others, n_components, n_properties = moved.shape
        return moved.reshape((*others, n_components * n_properties))
