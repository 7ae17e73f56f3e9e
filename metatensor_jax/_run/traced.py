"""Samples that are data: where rows go is worked out from arrays.

Each function takes arrays of NumPy or of JAX, and uses the one or the other.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._host.packing import RowIndex, distinct_rows, with_parents
from .._types.padding import PADDING, filled, is_padding, masked


def follow(samples: Any, destination: Any, n_parents: int, n_rows: int) -> Any:
    """Gradient samples whose parents moved.

    Rows whose parent is outside of the values, or is dropped, become padding.

    :param samples: the first column is the parent's row
    :param destination: where each parent goes
    :param n_parents: how many rows the parent has
    :param n_rows: how many rows there are afterwards
    """
    module = samples.__array_namespace__()
    sample = samples[:, 0]
    if n_parents == 0:
        return masked(samples, module.zeros_like(sample, bool))
    inside = (sample >= 0) & (sample < n_parents)
    moved = module.take(destination, module.clip(sample, 0, n_parents - 1))
    inside &= (moved >= 0) & (moved < n_rows)
    return masked(with_parents(samples, moved.astype(np.int32)), inside)


def follow_shifted(samples: Any, n_parents: int, offset: int, n_rows: int) -> Any:
    """:func:`follow` of parents that are shifted, all by as much."""
    sample = samples[:, 0]
    inside = (sample >= 0) & (sample < min(n_parents, n_rows - offset))
    return masked(with_parents(samples, sample + np.int32(offset)), inside)


def real_rows(array: Any, samples: Any) -> Any:
    """These rows, with a real one in the place of each row of padding.

    So a function of rows sees nothing that is not there in the data: what a padding row
    holds can not become a NaN, in the result or in a derivative. (With no real row at
    all they are one.)

    :param samples: the labels of these rows
    """
    if array.shape[0] == 0:
        return array
    module = array.__array_namespace__()
    real = ~is_padding(samples)
    first = array[module.argmax(real)]
    stand_in = module.where(module.any(real), first, module.ones_like(first))
    if module is jnp:
        stand_in = jax.lax.stop_gradient(stand_in)
    return module.where(real.reshape((-1,) + (1,) * (array.ndim - 1)), array, stand_in)


def merged(*samples: Any) -> Any:
    """The distinct rows of several tables in order, then padding."""
    rows = _end_to_end(samples)
    if isinstance(rows, np.ndarray):
        distinct = distinct_rows([rows[~is_padding(rows)]])[0]
        filling = filled(len(rows) - len(distinct), rows.shape[1])
        return np.concatenate([distinct, filling])
    return _merge(rows)[0]


def places(*samples: Any) -> Any:
    """Where each row of these tables is among :func:`merged`; padding, nowhere."""
    rows = _end_to_end(samples)
    if isinstance(rows, np.ndarray):
        found = np.full(len(rows), len(rows))
        real = ~is_padding(rows)
        found[real] = distinct_rows([rows[real]])[1][0]
        return found
    return _merge(rows)[1]


def _end_to_end(tables: Any) -> Any:
    if len(tables) == 1:
        return tables[0]
    return tables[0].__array_namespace__().concat(tables)


def _merge(rows: Any) -> tuple[Any, Any]:
    n = rows.shape[0]
    if n == 0:
        return rows, jnp.zeros(0, np.int32)
    # rows of padding are the smallest there are: they are put last
    columns = [rows[:, i] for i in reversed(range(rows.shape[1]))]
    order = jnp.lexsort((*columns, is_padding(rows)))
    ordered = rows[order]
    changes = jnp.any(ordered[1:] != ordered[:-1], axis=1)
    groups = jnp.concatenate(
        [jnp.zeros(1, np.int32), jnp.cumsum(changes, dtype=np.int32)]
    )
    groups = groups.astype(np.int32)
    groups = jnp.where(is_padding(ordered), n, groups)
    destinations = jnp.zeros(n, np.int32).at[order].set(groups)
    merged = jnp.full_like(rows, PADDING).at[groups].set(ordered, mode="drop")
    return merged, destinations


def sources(places: Any, n_rows: int) -> Any:
    """Which of the rows is at each of ``n_rows`` places; past the end for none."""
    n = places.shape[0]
    if isinstance(places, np.ndarray):
        index = np.full(n_rows, n)
        inside = places < n_rows
        index[places[inside]] = np.flatnonzero(inside)
        return index
    index = jnp.full(n_rows, n, np.int32)
    return index.at[places].set(jnp.arange(n, dtype=np.int32), mode="drop")


def parents_of(samples: Any) -> Any:
    """The row of the values that each gradient row is a gradient of."""
    return samples[:, 0]


def column_of(samples: Any, index: int) -> Any:
    """One dimension of samples."""
    return samples[:, index]


def to_one_group(samples: Any) -> Any:
    """The destination 0 for each row that is no padding."""
    module = samples.__array_namespace__()
    return module.where(is_padding(samples), np.int32(PADDING), np.int32(0))


def counts(destination: Any, n: int, dtype: Any) -> Any:
    """How many rows go to each of ``n`` places, at least 1: nothing by 1 is nothing."""
    if isinstance(destination, np.ndarray):
        inside = destination[(destination >= 0) & (destination < n)]
        return np.maximum(np.bincount(inside, minlength=n), 1).astype(dtype)
    found = jnp.zeros(n, jnp.int32).at[_drop_negative(destination, n)]
    return jnp.maximum(found.add(1, mode="drop"), 1).astype(dtype)


def _drop_negative(index: Any, n: int) -> Any:
    """Negative numbers count from the end in JAX, too: they are put past the end."""
    return jnp.where(index < 0, n, index)


def find_rows(rows: Any, wanted: Any) -> Any:
    """Where each of the ``wanted`` rows is among ``rows``; -1 if it is not there."""
    if isinstance(rows, np.ndarray) and isinstance(wanted, np.ndarray):
        return RowIndex(rows).find(wanted)
    return _search(jnp.asarray(rows), jnp.asarray(wanted))


def _search(rows: Any, wanted: Any) -> Any:
    """A binary search that compares column by column, so that nothing can overflow."""
    n = rows.shape[0]
    order = jnp.lexsort(tuple(rows[:, i] for i in reversed(range(rows.shape[1]))))
    ordered = rows[order]
    before = jnp.zeros(wanted.shape[0], np.int32)  # so many rows are known to be less
    step = 1 << max(n.bit_length() - 1, 0)
    while step and n:
        last = before + (step - 1)
        probe = ordered[jnp.minimum(last, n - 1)]
        before = jnp.where((last < n) & _is_less(probe, wanted), last + 1, before)
        step >>= 1
    if n == 0:
        return jnp.full(wanted.shape[0], -1, np.int32)
    at = jnp.minimum(before, n - 1)
    found = jnp.all(ordered[at] == wanted, axis=1)
    return jnp.where(found, order[at], -1).astype(np.int32)


def _is_less(a: Any, b: Any) -> Any:
    """Is each row of ``a`` before that of ``b``, in lexicographic order?"""
    less = jnp.zeros(b.shape[0], bool)
    for i in reversed(range(b.shape[1])):
        less = (a[:, i] < b[:, i]) | ((a[:, i] == b[:, i]) & less)
    return less


def appended(samples: Any, *entry: int) -> Any:
    """Samples with more columns, of one value each; padding is so in each of them."""
    module = samples.__array_namespace__()
    row = module.asarray(entry, dtype=np.int32)[None, :]
    columns = module.broadcast_to(row, (samples.shape[0], len(entry)))
    real = ~is_padding(samples)
    return module.concat([samples, masked(columns, real)], axis=1)
