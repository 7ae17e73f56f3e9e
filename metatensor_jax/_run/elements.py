"""Functions of rows that move elements along the last axes, by NumPy or by JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def take_columns(row: Any, index: np.ndarray) -> Any:
    """Some columns."""
    return row[..., index]


def take_columns_or(row: Any, index: np.ndarray, missing: np.ndarray, fill: Any) -> Any:
    """Some columns, and ``fill`` in the place of those that are not there."""
    xp = row.__array_namespace__()
    value = xp.asarray(fill, dtype=row.dtype)
    if row.shape[-1] == 0:
        return xp.broadcast_to(value, (*row.shape[:-1], len(index)))
    return xp.where(missing, value, row[..., index])


@dataclass(frozen=True)
class TakeAlong:
    """Some elements along an axis that is counted from the end."""

    axis: int

    def __call__(self, row: Any, index: np.ndarray) -> Any:
        return row.__array_namespace__().take(row, index, axis=self.axis)


@dataclass(frozen=True)
class MergeIntoLast:
    """One axis, counted from the end, becomes the slow part of the last one."""

    axis: int

    def __call__(self, row: Any) -> Any:
        moved = row.__array_namespace__().moveaxis(row, self.axis, -2)
        *others, n_components, n_properties = moved.shape
        return moved.reshape((*others, n_components * n_properties))
