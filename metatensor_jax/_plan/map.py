"""A function of each row of blocks that share their samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._run.functions import row_type
from .._run.ops import Slot, slot_in
from .._run.program import Node
from .._types.context import in_block
from .._types.errors import NotEqualError
from .._types.labels import Labels, first_difference
from .draft import Draft, DraftMap, draft_array
from .push import RowFunction, plan_function

#: labels for the result of each block; None for those that the block has
PerBlock = tuple[Any, ...] | None


def plan_map_rows(
    *inputs: DraftMap | Sequence[Node],
    f: RowFunction,
    components: PerBlock = None,
    properties: PerBlock = None,
    one_slot: bool = True,
) -> DraftMap:
    """A map of functions of rows, see :func:`metatensor_jax.map_rows`.

    :param inputs: maps with the same keys; or arrays with one row per sample, as many
        as there are blocks
    :param one_slot: the caller gives one function for all blocks, not one for each
    """
    first = inputs[0]
    assert isinstance(first, DraftMap)
    drafts = []
    for i, blocks in enumerate(match_blocks(*inputs)):
        own = f if one_slot else _of_slot(f, i)
        with in_block(first.keys, i):
            drafts.append(
                plan_map(
                    own,
                    blocks,
                    None if components is None else components[i],
                    None if properties is None else properties[i],
                )
            )
    return DraftMap(first.keys, drafts, first.info)


def _of_slot(f: RowFunction, i: int) -> RowFunction:
    linear = f.linear
    if isinstance(linear, Slot):
        linear = Slot(i, is_linear_part=True)
    return f._replace(function=Slot(i), linear=linear)


def plan_map(
    f: RowFunction,
    blocks: Sequence[Draft | Node],
    components: Sequence[Labels] | None = None,
    properties: Labels | None = None,
) -> Draft:
    """A function of the rows of blocks."""
    first = blocks[0]
    assert isinstance(first, Draft)
    operands = [first]
    for block in blocks[1:]:
        if isinstance(block, Node):
            operands.append(draft_array(block, first.samples))
        else:
            operands.append(block)
            _check_same_samples(first.samples, block.samples)
    if f.dtype is None and slot_in(f.function) is None:
        f = f._replace(dtype=_dtype_of(f, operands))
    axes = first.components if components is None else tuple(components)
    columns = first.properties if properties is None else properties
    return plan_function(f, operands, first.samples, axes, columns)


def _dtype_of(f: RowFunction, operands: Sequence[Draft]) -> Any:
    """What a function that the planner knows gives."""
    if f.rearranges:
        return operands[0].rows.dtype
    rows = tuple([(x.rows.row_shape, x.rows.dtype) for x in operands])
    return row_type(f.function, rows, f.args).dtype


def match_blocks(*tensors: Any) -> list[tuple[Any, ...]]:
    """The blocks of several maps with the same keys, in the order of the first.

    :param tensors: maps, or drafts of maps. A list in the place of a map has its items
        in that order already.
    """
    keys = tensors[0].keys
    columns = []
    for other in tensors:
        if isinstance(other, (list, tuple)) and not isinstance(other, DraftMap):
            columns.append(list(other))
            continue
        blocks = other.blocks if isinstance(other, DraftMap) else other.blocks()
        columns.append([blocks[i] for i in key_order(keys, other.keys)])
    return list(zip(*columns, strict=True))


def key_order(keys: Labels, others: Labels) -> Sequence[int]:
    """Where each of ``keys`` stands in ``others``, which must have the same entries."""
    if others is keys or others == keys:
        return range(len(keys))
    if keys.names == others.names and len(keys) == len(others):
        order = others.select(keys)
        if len(order) == len(keys):
            return order.tolist()
    raise NotEqualError(
        f"inputs should have the same keys, but they differ:\n{keys}\nand\n{others}"
    )


def _check_same_samples(a: Labels, b: Labels) -> None:
    if a is b:
        return
    if a.is_static and b.is_static:
        if a == b:
            return
        difference = first_difference(a, b)
    else:  # a layout lines them up; their values can not be compared here
        if a.names == b.names and len(a) == len(b):
            return
        difference = f"there are {len(a)} and {len(b)}, of {a.names} and {b.names}"
    raise NotEqualError(
        f"inputs should have the same samples in the same order, but {difference}"
    )
