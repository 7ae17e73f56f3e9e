"""Padding: rows that only fill up an array to its capacity.

A row of padding has the smallest ``int32`` in each dimension of its samples. This is
known here, and nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: stands in each dimension of the samples of a row of padding
PADDING = int(np.iinfo(np.int32).min)


def is_padding(samples: Any) -> Any:
    """Which rows are padding: one boolean each.

    :param samples: the values of labels, of NumPy or JAX; or one column of them

    >>> is_padding(np.array([[0, 1], [PADDING, PADDING]])).tolist()
    [False, True]
    """
    return (samples if samples.ndim == 1 else samples[:, 0]) == PADDING


def masked(samples: Any, real: Any) -> Any:
    """The samples, with padding in the place of rows that are not ``real``.

    >>> masked(np.array([[0, 1], [2, 3]]), np.array([True, False]))[0].tolist()
    [0, 1]
    """
    of_jax = real if isinstance(samples, np.ndarray) else samples
    where = of_jax.__array_namespace__().where
    return where(real.reshape((-1,) + (1,) * (samples.ndim - 1)), samples, PADDING)


def filled(n: int, n_columns: int) -> np.ndarray:
    """The samples of ``n`` rows of padding.

    >>> filled(1, 1).tolist() == [[PADDING]]
    True
    """
    return np.full((n, n_columns), PADDING, np.int32)


def rows_or_padding(samples: Any, at: Any) -> Any:
    """The rows with these numbers; padding for a number that is that of no row.

    :param samples: the values of labels, or one column of them
    :param at: row numbers, an array of the same library

    >>> rows_or_padding(np.array([[3], [4]]), np.array([1, 2]))[0].tolist()
    [4]
    """
    n, module = samples.shape[0], at.__array_namespace__()
    if n == 0:
        samples = module.zeros((1, *samples.shape[1:]), dtype=samples.dtype)
    rows = module.take(samples, module.clip(at, 0, max(n - 1, 0)), axis=0)
    return masked(rows, (at >= 0) & (at < n))


def holds_padding(samples: Any) -> Any:
    """Which rows have the number of padding in one of their dimensions.

    >>> holds_padding(np.array([[0, 1], [0, PADDING]])).tolist()
    [False, True]
    """
    return (samples == PADDING).any(axis=1)
