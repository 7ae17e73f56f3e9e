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
