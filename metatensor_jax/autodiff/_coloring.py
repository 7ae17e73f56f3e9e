"""Which derivatives can be taken together.

A Jacobian whose pattern of nonzero elements is known needs fewer passes than it has
rows: rows that share no column can be added up, and told apart afterwards (Curtis,
Powell and Reid, 1974, https://doi.org/10.1093/imamat/13.1.117). A coloring says which.
"""

from __future__ import annotations

import numpy as np


def color_rows(rows: np.ndarray, columns: np.ndarray, n_rows: int) -> np.ndarray:
    """A color for each row, such that rows with a column in common differ in it.

    Independent rows are taken at random until no more can be added (Luby, 1986,
    https://doi.org/10.1137/0215074): these get one color, and so on. That needs a few
    passes over the pattern for each color, and no loop over rows. Rows that are not in
    the pattern have the color 0.

    :param rows: the rows of the nonzero elements
    :param columns: their columns
    :param n_rows: how many rows there are

    >>> color_rows(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3)[:2].tolist()
    [0, 1]
    """
    colors = np.zeros(n_rows, np.int64)
    _, columns = np.unique(columns, return_inverse=True)
    n_columns = int(columns.max()) + 1 if len(columns) else 0
    rank = np.random.default_rng(0).permutation(n_rows)
    # rows that meet many others come first: they are hard to place later
    order = np.lexsort((rank, -np.bincount(rows, minlength=n_rows)))
    rank[order] = np.arange(n_rows)
    left, color = np.ones(len(rows), bool), 0
    while left.any():
        free = left.copy()
        while free.any():
            chosen = _first_everywhere(rank, rows[free], columns[free], n_columns)
            colors[chosen] = color
            taken = np.zeros(n_rows, bool)
            taken[chosen] = True
            left &= ~taken[rows]
            used = np.zeros(n_columns, bool)
            used[columns[taken[rows]]] = True
            # rows that touch a used column wait for the next color
            blocked = np.zeros(n_rows, bool)
            blocked[rows[used[columns]]] = True
            free &= ~blocked[rows]
        color += 1
    return colors


def _first_everywhere(
    rank: np.ndarray, rows: np.ndarray, columns: np.ndarray, n_columns: int
) -> np.ndarray:
    """The rows that have the lowest rank among those of each of their columns."""
    lowest = np.full(n_columns, len(rank))
    np.minimum.at(lowest, columns, rank[rows])
    beaten = np.zeros(len(rank), bool)
    beaten[rows[rank[rows] > lowest[columns]]] = True
    touched = np.unique(rows)
    return touched[~beaten[touched]]
