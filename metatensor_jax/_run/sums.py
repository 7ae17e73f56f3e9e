"""Sums of rows with the same destination, by JAX and by NumPy."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._host.packing import is_inside, is_sorted, run_starts
from .._types.arrays import aligned


def wide_dtype(dtype: Any) -> Any:
    """In which dtype numbers are added up: float32 for narrow floats."""
    dtype = np.dtype(dtype)
    is_narrow = dtype.itemsize < 4 and jnp.issubdtype(dtype, np.floating)
    return np.dtype(np.float32) if is_narrow else dtype


#: a sum of so many rows or more on average is a sum of sums: one after the other, a
#: million numbers of 0.1 in single precision give 100,958
_MANY, _IN_PART, _MOST_PARTS = 4096, 1024, 1024


def trace_sums(rows: Any, destinations: Any, n_rows: int, in_order: bool) -> Any:
    """Each row added to its destination, in a program; those outside are dropped."""
    n = rows.shape[0]
    if n < _MANY * max(n_rows, 1) or not jnp.issubdtype(rows.dtype, np.inexact):
        return jax.ops.segment_sum(
            rows, destinations, n_rows, indices_are_sorted=in_order
        )
    n_parts = min(n // _IN_PART, _MOST_PARTS)
    part = np.arange(n, dtype=np.int32) // -(-n // n_parts)
    inside = (destinations >= 0) & (destinations < n_rows)
    places = jnp.where(inside, part * n_rows + destinations, n_parts * n_rows)
    of_parts = jax.ops.segment_sum(rows, places, n_parts * n_rows)
    return of_parts.reshape((n_parts, n_rows, *rows.shape[1:])).sum(axis=0)


def sum_rows(
    rows: np.ndarray, destinations: np.ndarray, n_rows: int, in_order: bool
) -> np.ndarray:
    """Each row added to its destination; those outside are dropped."""
    rows = rows.astype(wide_dtype(rows.dtype), copy=False)
    if not is_inside(destinations, n_rows):
        inside = (destinations >= 0) & (destinations < n_rows)
        rows, destinations = rows[inside], destinations[inside]
    if not in_order and not is_sorted(destinations):
        if math.prod(rows.shape[1:]) <= _FEW_COLUMNS:
            return _sum_unsorted(rows, destinations, n_rows)
        order = np.argsort(destinations, kind="stable")
        rows, destinations = rows.take(order, axis=0), destinations.take(order)
    return _sum_runs(rows, destinations, n_rows)


def _sum_runs(rows: np.ndarray, destinations: np.ndarray, n_rows: int) -> np.ndarray:
    """:func:`sum_rows` for destinations that do not decrease, which is fast."""
    out = aligned((n_rows, *rows.shape[1:]), rows.dtype)
    if rows.size != 0:
        starts = run_starts(destinations)
        out[destinations[starts]] = np.add.reduceat(rows, starts, axis=0)
    return out


#: up to this many columns are summed one by one, rather than to sort the rows first
_FEW_COLUMNS = 8
#: rows that stay in the caches while their columns are summed
_ROWS_AT_ONCE = 1 << 14


def _sum_unsorted(
    rows: np.ndarray, destinations: np.ndarray, n_rows: int
) -> np.ndarray:
    """:func:`sum_rows` in the order of the rows. Sums are wide, as rounding adds up."""
    shape, dtype = rows.shape[1:], rows.dtype
    is_float = jnp.issubdtype(dtype, np.inexact)
    wide = np.result_type(dtype, np.float64) if is_float else dtype
    out = np.zeros((n_rows, math.prod(shape)), wide)
    rows = rows.reshape(len(rows), out.shape[1])
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        here = slice(start, start + _ROWS_AT_ONCE)
        some = rows[here].astype(wide, copy=False)
        for i in range(out.shape[1]):
            np.add.at(out[:, i], destinations[here], some[:, i])
    return out.astype(dtype, copy=False).reshape((n_rows, *shape))
