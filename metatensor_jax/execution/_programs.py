"""Compiled programs of tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from .._types.arrays import aligned
from ._tasks import MapTask, Rows, Task, map_over_rows

Arrays = Sequence[Any]


class Batch:
    """Row functions with the same signature, which run as one call of one program.

    Rows of all tasks are laid end to end, filled up to a round number, and cut apart
    afterwards. What does not depend on the data is worked out here, once.
    """

    def __init__(self, tasks: Sequence[MapTask]) -> None:
        self._task = tasks[0]
        ends = np.cumsum([0, *(task.pieces[0].n_rows for task in tasks)]).tolist()
        self._runs = list(pairwise(ends))
        self._n_rows = ends[-1]
        self._capacity = round_up(self._n_rows)
        columns = zip(*(task.pieces for task in tasks), strict=True)
        self._columns = [_Column(column) for column in columns]

    def run(self, arrays: Sequence[Arrays], args: Sequence[Any]) -> list[np.ndarray]:
        """The results of all tasks.

        :param arrays: for each piece of a task, the array of each task
        :param args: what the function takes besides rows
        """
        operands = []
        for column, of_tasks in zip(self._columns, arrays, strict=True):
            buffer = aligned((self._capacity, *column.row_shape), column.dtype)
            column.read(of_tasks, buffer[: self._n_rows])
            # real rows, so that filling up gives no NaN that was not there before
            buffer[self._n_rows :] = buffer[:1] if self._n_rows else 1
            operands.append(buffer)
        dynamic, static = partition(args)
        rows = _map_program(self._task.function, operands, dynamic, static)
        result = np.asarray(self._task.checked(rows))
        return [result[start:stop] for start, stop in self._runs]


def round_up(n: int) -> int:
    """The next power of two, or three quarters, or five or seven eighths of one.

    So programs are compiled for few numbers of rows, and run on few rows too many.

    >>> [round_up(n) for n in (0, 3, 17, 33, 40, 49, 100)]
    [8, 8, 20, 40, 40, 56, 112]
    """
    step = 1 << max((n - 1).bit_length() - 3, 1)
    return max(-(-n // step) * step, 8)


class _Column:
    """One piece of each of many tasks: rows of many arrays, end to end."""

    def __init__(self, pieces: Sequence[Rows]) -> None:
        self.row_shape, self.dtype = pieces[0].row_shape, pieces[0].array.dtype
        #: the rows, in terms of those of all arrays; None for all in order
        self._where: np.ndarray | None = None
        #: those that are not there
        self._missing: np.ndarray | None = None
        if any(rows.index is not None for rows in pieces):
            self._find_rows(pieces)

    def _find_rows(self, pieces: Sequence[Rows]) -> None:
        sizes = [rows.array.shape[0] for rows in pieces]
        indices = [
            np.arange(size) if rows.index is None else np.asarray(rows.index)
            for rows, size in zip(pieces, sizes, strict=True)
        ]
        lengths = [len(index) for index in indices]
        index, n = np.concatenate(indices), np.repeat(sizes, lengths)
        offset = np.repeat(np.cumsum([0, *sizes[:-1]]), lengths)
        self._where = offset + np.clip(index, 0, np.maximum(n - 1, 0))
        if any(rows.fill for rows in pieces):
            self._missing = np.flatnonzero(index >= n)

    def read(self, arrays: Arrays, out: np.ndarray) -> None:
        """These rows, with a few calls of NumPy for all arrays."""
        arrays = [np.asarray(array) for array in arrays]
        if self._where is None:
            np.concatenate(arrays, out=out)
            return
        source = np.concatenate(arrays)
        if len(source) == 0:
            out[...] = 0
            return
        np.take(source, self._where, axis=0, out=out, mode="clip")
        if self._missing is not None:
            out[self._missing] = 0


@functools.partial(jax.jit, static_argnums=(0, 3))
def _map_program(
    function: Callable[..., Any], operands: list[Any], dynamic: list[Any], static: Any
) -> Any:
    return map_over_rows(function, operands, combine(dynamic, static))


@functools.partial(jax.jit, static_argnums=1, inline=True)
def trace_tasks(dynamic: list[Any], static: Any) -> list[Any]:
    """All tasks as one program; they are given by :func:`partition`."""
    tasks: list[Task] = combine(dynamic, static)
    return [task.trace() for task in tasks]


def partition(tree: Any) -> tuple[list[Any], Any]:
    """What a program takes as data, and the rest (hashable), such as functions."""
    leaves, structure = jax.tree.flatten(tree)
    is_data = [isinstance(x, _DATA) for x in leaves]
    dynamic = [x for x, data in zip(leaves, is_data, strict=True) if data]
    rest = [None if data else (x,) for x, data in zip(leaves, is_data, strict=True)]
    return dynamic, (structure, tuple(rest))


_DATA = (np.ndarray, np.generic, jax.Array, bool, int, float, complex)


def combine(dynamic: Sequence[Any], static: Any) -> Any:
    """The inverse of :func:`partition`."""
    structure, rest = static
    data = iter(dynamic)
    return structure.unflatten([next(data) if x is None else x[0] for x in rest])
