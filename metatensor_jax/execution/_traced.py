"""Labels that are data: where rows go is computed in the program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._types.labels import Labels
from ._tasks import Index, Rows


def follow_traced(
    samples: Any, n_parents: int, offset: int, destination: Index | None, n_rows: int
) -> Any:
    """Gradient samples whose parents moved: the "sample" column, rewritten.

    Rows whose parent is outside of the values, or is dropped, become padding.

    :param samples: traced values, the first column is the parent's row
    :param n_parents: how many rows the parent has
    :param offset: by how much the parents are shifted
    :param destination: or where each of them goes
    :param n_rows: how many rows there are afterwards
    """
    sample = samples[:, 0]
    inside = (sample >= 0) & (sample < n_parents)
    moved = sample + offset
    if destination is not None and n_parents != 0:
        moved = jnp.asarray(destination)[jnp.clip(sample, 0, n_parents - 1)]
    inside &= (moved >= 0) & (moved < n_rows)
    moved = moved.astype(np.int32)
    rows = jnp.concatenate([moved[:, None], samples[:, 1:]], 1)
    return jnp.where(inside[:, None], rows, Labels.PADDING)


def real_rows(rows: Rows, samples: Any) -> Rows:
    """These rows, with a real one in the place of each row of padding.

    So a function of rows sees nothing that is not there in the data: what a padding row
    holds can not become a NaN, in the result or in a derivative. (With no real row at
    all they are one.)

    :param samples: traced values of the labels of these rows
    """
    array = rows.trace()
    if array.shape[0] == 0:
        return Rows(array)
    real = jnp.asarray(samples)[:, 0] != Labels.PADDING
    stand_in = jnp.where(
        jnp.any(real), array[jnp.argmax(real)], jnp.ones_like(array[0])
    )
    real = real.reshape((-1,) + (1,) * (array.ndim - 1))
    return Rows(jnp.where(real, array, jax.lax.stop_gradient(stand_in)))


def merge_traced(rows: Any) -> tuple[Any, Any]:
    """The distinct rows in order, then padding; and where each row went.

    Padding rows go nowhere: their destination is outside.
    """
    n = rows.shape[0]
    order = jnp.lexsort(tuple(rows[:, i] for i in reversed(range(rows.shape[1]))))
    ordered = rows[order]
    real = ordered[:, 0] >= 0
    starts = jnp.any(ordered[1:] != ordered[:-1], axis=1)
    starts = real & jnp.concatenate([jnp.ones(min(n, 1), bool), starts])
    groups = jnp.where(real, jnp.cumsum(starts) - 1, n)
    destinations = jnp.zeros(n, groups.dtype).at[order].set(groups)
    merged = jnp.full_like(rows, Labels.PADDING).at[groups].set(ordered, mode="drop")
    return merged, destinations


def find_traced(rows: Any, wanted: Any) -> Any:
    """Where each of the ``wanted`` rows is among ``rows``; -1 if it is not there.

    A binary search that compares column by column, so that nothing can overflow.
    """
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
