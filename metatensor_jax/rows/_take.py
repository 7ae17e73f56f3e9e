"""Some rows, or some columns, of each block of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..once import for_each
from ._map import map_rows
from ._move import Move, move_rows


def take_samples(
    tensor: TensorMap, positions: Sequence[np.ndarray], order_gradients: Any = None
) -> TensorMap:
    """Rows of each block, with the gradient rows that belong to them.

    :param order_gradients: see :func:`move_rows`
    """
    samples = for_each(_pick, [block.samples for block in tensor], positions)
    move = Move(tensor, source=positions)
    return move_rows([move], samples, order_gradients=order_gradients)


def take_properties(
    tensor: TensorMap, positions: Sequence[np.ndarray], properties: Any = None
) -> TensorMap:
    """Columns of each block; a position past the end is a column of zeros.

    :param properties: labels of the columns; those at the positions if None
    """
    if properties is None:
        properties = for_each(_pick, [b.properties for b in tensor], positions)
    missing = [i >= len(b.properties) for i, b in zip(positions, tensor, strict=True)]
    function: Any = _take_columns
    args: list[Any] = [(index,) for index in positions]
    if any(bool(m.any()) for m in missing):
        function = _take_columns_or_zero
        pairs = zip(positions, missing, strict=True)
        args = [(np.where(m, 0, index), m) for index, m in pairs]
    return map_rows(function, tensor, args=args, rearranges=True, properties=properties)


def _take_columns(row: Any, index: np.ndarray) -> Any:
    return row[..., index]


def _take_columns_or_zero(row: Any, index: np.ndarray, missing: np.ndarray) -> Any:
    xp = row.__array_namespace__()
    zero = xp.zeros((), dtype=row.dtype)
    if row.shape[-1] == 0:
        return xp.broadcast_to(zero, (*row.shape[:-1], len(index)))
    return xp.where(missing, zero, row[..., index])


def _pick(labels: Labels, positions: np.ndarray) -> Labels:
    return Labels._make(labels._names, labels.values[positions], labels.is_static)
