"""Some rows, or some columns, of a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._run.elements import take_columns, take_columns_or
from .._types.labels import Labels
from .draft import Draft, DraftMap, Rows
from .follow import OrderOfRows
from .map import plan_map
from .move import Piece, plan_move
from .once import Once
from .push import RowFunction
from .rows import traced_labels


def pick_labels(labels: Labels, positions: np.ndarray) -> Labels:
    """Some of the entries of labels."""
    if labels.is_static:
        return Labels._make(labels._names, labels.values[positions])
    rows = Rows(labels.values).take(positions)
    return traced_labels(labels._names, rows.as_node())


def plan_take_samples(
    tensor: DraftMap, positions: Sequence[np.ndarray], order: OrderOfRows | None = None
) -> DraftMap:
    """Rows of each block, with the gradient rows that belong to them.

    :param order: of the gradient rows, see :func:`plan_move`
    """
    once, blocks = Once(), []
    for block, index in zip(tensor.blocks, positions, strict=True):
        samples = once(pick_labels, block.samples, index)
        piece = Piece(block, source=index)
        blocks.append(plan_move([piece], samples, order=order, once=once))
    return tensor._replace(blocks=blocks)


def plan_take_columns(
    block: Draft,
    positions: np.ndarray,
    properties: Labels | None = None,
    fill_value: Any = 0,
) -> Draft:
    """Columns of a block; a position past the end is a column that is filled.

    :param properties: labels of the columns; those at the positions if None
    :param fill_value: for values; gradients are zero there
    """
    if properties is None:
        properties = pick_labels(block.properties, positions)
    missing = positions >= len(block.properties)
    if not missing.any():
        f = RowFunction(take_columns, (positions,), rearranges=True)
        return plan_map(f, [block], properties=properties)
    index = np.where(missing, 0, positions)

    def filled_with(value: Any) -> RowFunction:
        return RowFunction(take_columns_or, (index, missing, value), rearranges=True)

    taken = plan_map(filled_with(0), [block], properties=properties)
    if fill_value == 0:
        return taken
    alone = block._replace(gradients={})
    values = plan_map(filled_with(fill_value), [alone], properties=properties)
    return taken._replace(rows=values.rows)
