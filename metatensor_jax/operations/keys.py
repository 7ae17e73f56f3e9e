r"""Moving keys into samples and properties, and components into properties.

Blocks are laid end to end, or side by side on the samples of all of them. Each row, or
column, is one of a block, and so is its gradient; the gradients of what is filled are
zero:

.. math:: y_i = x_{s(i)} \qquad \nabla y_i = \nabla x_{s(i)}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._evaluate import evaluate
from .._host.packing import (
    RowIndex,
    cut,
    distinct_rows,
    inverse,
    is_increasing,
    unique_rows,
)
from .._plan.draft import Draft, DraftMap
from .._plan.map import plan_map
from .._plan.move import Piece, plan_move
from .._plan.once import Once
from .._plan.push import RowFunction
from .._plan.rows import append_columns, are_same, end_to_end
from .._plan.take import plan_take_columns
from .._run.elements import MergeIntoLast
from .._types.attach import attach
from .._types.context import noting
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import as_names, check_ours, check_same_axes, check_type, checked_fill


def keys_to_samples(
    tensor: TensorMap,
    keys_to_move: str | Sequence[str] | Labels,
    *,
    fill_value: float = 0.0,
    sort_samples: bool = True,
) -> TensorMap:
    r"""Merge blocks along their samples; key dimensions become sample dimensions.

    .. math:: y_i = x_{s(i)} \qquad \nabla y_i = \nabla x_{s(i)}

    where :math:`s(i)` is the sample, of one of the blocks, that goes to :math:`i`.

    :param tensor: a map
    :param keys_to_move: names of the key dimensions to move. Labels without
        entries work as well.
    :param fill_value: for values that no block has, where the properties of merged
        blocks differ
    :param sort_samples: sort the samples of the new blocks, rather than keep the
        order of the blocks. Traced samples are never sorted.

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((1, 1)), ["system"])
    >>> tensor = TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> tensor.keys_to_samples("center_type").block().samples
    Labels
        system  center_type
          0          1
          0          8
    """
    check_type(tensor, "tensor", TensorMap)
    check_ours(keys_to_move, "keys_to_move")
    if isinstance(keys_to_move, Labels):
        if len(keys_to_move) != 0:
            raise MetatensorError(
                "`keys_to_move` of keys_to_samples must not contain entries, got "
                f"{len(keys_to_move)}: all keys are moved"
            )
        keys_to_move = keys_to_move.names
    moved = tuple(as_names(keys_to_move))
    with noting("in 'keys_to_samples'"):
        return evaluate(
            _blocks_along,
            tensor,
            moved=moved,
            fill_value=checked_fill(fill_value, tensor.dtype),
            sort_samples=sort_samples,
        )


def _blocks_along(
    tensor: DraftMap, moved: Sequence[str], fill_value: Any, sort_samples: bool
) -> DraftMap:
    """The plan: the blocks of each new key end to end."""
    groups = _group_keys(tensor.keys, moved)
    stack, once = _stack_sorted if sort_samples else _stack, Once()
    drafts = []
    for members in groups.members:
        _check_same_components(tensor, members, "keys_to_samples")
        blocks = _same_properties([tensor.blocks[i] for i in members], fill_value)
        entries = [tuple(groups.moved[i].tolist()) for i in members]
        samples, places = once(stack, [b.samples for b in blocks], moved, entries)
        pieces = [Piece(b, None, p) for b, p in zip(blocks, places, strict=True)]
        drafts.append(plan_move(pieces, samples, once=once))
    return DraftMap(groups.keys, drafts, tensor.info)


class _KeyGroups(NamedTuple):
    """Keys without the dimensions that are moved, and the blocks of each of them.

    :param keys: the new keys
    :param members: the blocks of each new key
    :param moved: what the moved dimensions are for each block
    """

    keys: Labels
    members: list[list[int]]
    moved: np.ndarray


def _group_keys(keys: Labels, moved: Sequence[str]) -> _KeyGroups:
    names, values = keys.names, keys.values
    for name in moved:
        if name not in names:
            raise MetatensorError(
                f"'{name}' is not part of the keys of this map: {names}"
            )
    if len(keys) == 0 and moved:
        raise MetatensorError("there are no keys to move in a map without blocks")
    left = [name for name in names if name not in moved]
    rows = values[:, [names.index(name) for name in left]]
    first, group = unique_rows(rows)
    order = np.argsort(first, kind="stable")  # in which they first appear
    new_keys = Labels(left, rows[first[order]]) if left else Labels.single()
    members: list[list[int]] = [[] for _ in first]
    for i, g in enumerate(inverse(order)[group].tolist()):
        members[g].append(i)
    columns = values[:, [names.index(name) for name in moved]]
    return _KeyGroups(new_keys, members, columns)


def _check_same_components(tensor: DraftMap, members: Sequence[int], what: str) -> None:
    first = tensor.blocks[members[0]]
    for i in members[1:]:
        other = tensor.blocks[i]
        if other.components != first.components:
            keys = [tensor.keys.entry(at).print() for at in (members[0], i)]
            with noting(f"in the blocks for keys {' and '.join(keys)}"):
                check_same_axes(first, other, what, ["components"])


#: the samples of several blocks, and where those of each block are among them; None:
#: after those of the block before, or, side by side, where they are
_Placed = tuple[Labels, Sequence[np.ndarray | None]]


def _stack(
    samples: Sequence[Labels], names: Sequence[str], entries: Sequence[tuple[int, ...]]
) -> _Placed:
    """The samples of all blocks end to end, each with an entry in new columns."""
    parts = [
        append_columns(labels, names, entry)
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


def _same_properties(blocks: Sequence[Draft], fill_value: Any) -> Sequence[Draft]:
    """Blocks with the properties of all of them."""
    union = blocks[0].properties
    for block in blocks[1:]:
        union = union if block.properties == union else union.union(block.properties)
    return [_with_properties(block, union, fill_value) for block in blocks]


def _with_properties(block: Draft, wanted: Labels, fill_value: Any) -> Draft:
    own = block.properties
    if own is wanted or own == wanted:
        return block
    index = np.full(len(wanted), len(own))
    index[wanted.select(own)] = np.arange(len(own))
    return plan_take_columns(block, index, wanted, fill_value)


def keys_to_properties(
    tensor: TensorMap,
    keys_to_move: str | Sequence[str] | Labels,
    *,
    fill_value: float = 0.0,
    sort_samples: bool = True,
) -> TensorMap:
    r"""Merge blocks along properties; key dimensions become property dimensions.

    .. math:: y_{iq} = x_{s(i) c(q)} \qquad \nabla y_{iq} = \nabla x_{s(i) c(q)}

    where :math:`c(q)` is the column, of one of the blocks, that goes to :math:`q`.
    What no block has is filled, with gradients of zero.

    :param tensor: a map
    :param keys_to_move: names of the key dimensions to move, or labels with the
        entries that should become properties, so that several maps can get the
        same properties
    :param fill_value: for values of a sample that a block does not have. Missing
        gradients are zero always.
    :param sort_samples: sort the samples of the new blocks, rather than keep the
        order of the blocks

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((1, 1)), property_names=["p"])
    >>> tensor = TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> tensor.keys_to_properties("center_type").block().properties
    Labels
        center_type  p
             1       0
             8       0
    """
    check_type(tensor, "tensor", TensorMap)
    check_ours(keys_to_move, "keys_to_move")
    wanted = keys_to_move if isinstance(keys_to_move, Labels) else None
    moved = tuple(as_names(wanted.names if wanted is not None else keys_to_move))  # type: ignore[arg-type]
    if wanted is not None and len(wanted) == 0:
        wanted = None
    with noting("in 'keys_to_properties'"):
        return evaluate(
            _blocks_beside,
            tensor,
            moved=moved,
            wanted=wanted,
            fill_value=checked_fill(fill_value, tensor.dtype),
            sort_samples=sort_samples,
        )


def _blocks_beside(
    tensor: DraftMap,
    moved: Sequence[str],
    wanted: Labels | None,
    fill_value: Any,
    sort_samples: bool,
) -> DraftMap:
    """The plan: the blocks of each new key side by side."""
    groups = _group_keys(tensor.keys, moved)
    once, drafts = Once(), []
    for members in groups.members:
        _check_same_components(tensor, members, "keys_to_properties")
        entries = Labels._make(tuple(moved), groups.moved[np.array(members)])
        blocks = [tensor.blocks[i] for i in members]
        columns = entries if wanted is None else wanted
        drafts.append(
            _side_by_side(blocks, entries, columns, sort_samples, fill_value, once)
        )
    return DraftMap(groups.keys, drafts, tensor.info)


def _side_by_side(
    blocks: Sequence[Draft],
    entries: Labels,
    wanted: Labels,
    sort: bool,
    fill_value: Any,
    once: Once,
) -> Draft:
    """The blocks of one new key, on the samples of all of them.

    :param entries: what the moved dimensions are for each block
    :param wanted: what they are in the result
    """
    samples, places = once(_all_samples, [b.samples for b in blocks], sort)
    at = RowIndex(entries.values).find(wanted.values).tolist()  # -1: no block
    pieces = [
        _nothing(blocks[0], len(samples))
        if i < 0
        else Piece(blocks[i], destination=places[i])
        for i in at
    ]
    parts = [blocks[max(i, 0)].properties for i in at]
    properties = _with_entries(parts, wanted)
    how = "side by side"
    return plan_move(pieces, samples, properties, how, fill_value, once=once)


def _with_entries(parts: Sequence[Labels], entries: Labels) -> Labels:
    """Labels end to end, each with one of the entries in front."""
    columns = np.concatenate([part.values for part in parts])
    rows = np.repeat(entries.values, [len(part) for part in parts], axis=0)
    names = (*entries._names, *parts[0]._names)
    return Labels(names, np.concatenate([rows, columns], axis=1), True)


def _all_samples(of_blocks: Sequence[Labels], sort_samples: bool) -> _Placed:
    """The samples of all blocks, for columns side by side."""
    first = of_blocks[0]
    if all(are_same(labels, first) for labels in of_blocks[1:]):
        places = [None] * len(of_blocks)
        if not (sort_samples and first.is_static) or is_increasing(first.values):
            return first, places
        rows, places = distinct_rows([first.values])
        return Labels._make(first._names, rows), places * len(of_blocks)
    tables = [labels._host_values("keys_to_properties") for labels in of_blocks]
    if sort_samples:
        rows, places = distinct_rows(tables)
        return Labels._make(first._names, rows), places
    union = first
    for labels in of_blocks[1:]:
        union = union.union(labels)
    return union, [union.select(labels) for labels in of_blocks]


def _nothing(block: Draft, n_samples: int) -> Piece:
    """Columns for a key that no block has: rows that are all past the end."""
    past_the_end = np.full(n_samples, len(block.samples))
    return Piece(block, past_the_end, np.arange(n_samples))


def components_to_properties(
    tensor: TensorMap, dimensions: str | Sequence[str]
) -> TensorMap:
    r"""Move component dimensions to the front of the properties.

    .. math:: y_{i (m q)} = x_{i m q} \qquad \nabla y_{i (m q)} = \nabla x_{i m q}

    :param tensor: a map
    :param dimensions: names of the components to move; each goes before those that
        were moved before it

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((1, 3, 2)), component_names=["xyz"])
    >>> tensor = TensorMap(Labels.single(), [block])
    >>> tensor.components_to_properties("xyz").block().shape
    (1, 6)
    """
    check_type(tensor, "tensor", TensorMap)
    names = tuple(as_names(dimensions))
    for i, name in enumerate(names):
        if name in names[:i]:
            raise MetatensorError(f"'{name}' is there twice: {list(names)}")
        if name not in tensor.component_names:
            raise MetatensorError(
                f"'{name}' is not one of the components {tensor.component_names}"
            )
    return evaluate(_components_moved, tensor, names=names)


def _components_moved(tensor: DraftMap, names: Sequence[str]) -> DraftMap:
    blocks = []
    for block in tensor.blocks:
        for name in names:
            block = _component_moved(block, name)
        blocks.append(block)
    return tensor._replace(blocks=blocks)


def _component_moved(block: Draft, name: str) -> Draft:
    at = [labels._names[0] for labels in block.components].index(name)
    labels, left = block.components[at], list(block.components)
    del left[at]
    columns = np.column_stack(
        [
            np.repeat(labels.values, len(block.properties), axis=0),
            np.tile(block.properties.values, (len(labels), 1)),
        ]
    )
    properties = Labels((name, *block.properties._names), columns, True)
    axis = at - len(block.components) - 1  # from the end: gradients have more
    f = RowFunction(MergeIntoLast(axis), rearranges=True)
    return plan_map(f, [block], left, properties)


attach(
    TensorMap,
    keys_to_samples=keys_to_samples,
    keys_to_properties=keys_to_properties,
    components_to_properties=components_to_properties,
)
