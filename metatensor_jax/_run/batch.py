"""Functions of rows that run as one: rows of many arrays, end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from .._types.arrays import aligned, is_tracer
from .caches import compiled
from .functions import Given, combine
from .ops import MapRows, Pick, filled_in, map_over_rows, slot_in

Arrays = Sequence[np.ndarray]


class Batch:
    """Functions of rows with the same signature, which run as one call.

    Rows of all of them are laid end to end, filled up to a round number, and cut apart
    afterwards, so that few numbers of rows are ever compiled. What does not depend on
    the data is worked out here, once.

    :param ops: the functions
    :param arrays: what each of them reads, for its sizes and dtypes
    """

    def __init__(self, ops: Sequence[MapRows], arrays: Sequence[Arrays]) -> None:
        first = [op.picks[0].n_rows(a[0]) for op, a in zip(ops, arrays, strict=True)]
        ends = np.cumsum([0, *first]).tolist()
        self._runs = list(pairwise(ends))
        self._n_rows = ends[-1]
        self._capacity = round_up(self._n_rows) if self._n_rows else 0
        columns = zip(*arrays, strict=True)
        picks = zip(*(op.picks for op in ops), strict=True)
        self._columns = [_Column(*pair) for pair in zip(picks, columns, strict=True)]
        self._op = op = ops[0]
        is_known = slot_in(op.function) is None
        self._own = Given(op.function, op.args) if is_known else None

    def run(self, given: Given | None, arrays: Sequence[Arrays]) -> list[Any]:
        """The results of all functions.

        :param given: what the caller gives for their slot, if they have one
        :param arrays: what each of them reads
        """
        operands = []
        for column, of_ops in zip(
            self._columns, zip(*arrays, strict=True), strict=True
        ):
            buffer = aligned((self._capacity, *column.row_shape), column.dtype)
            column.read(of_ops, buffer[: self._n_rows])
            # real rows, so that filling up gives no NaN that was not there before
            buffer[self._n_rows :] = buffer[:1]
            operands.append(buffer)
        own: Any = self._own or given
        function = filled_in(self._op.function, own)
        rows = self._op.checked(run_function(function, operands, own))
        # a function of the caller may close over tracers
        rows = rows if is_tracer(rows) else np.asarray(rows)
        return [rows[start:stop] for start, stop in self._runs]


def round_up(n: int) -> int:
    """The next power of two, or three quarters, or five or seven eighths of one.

    So programs are compiled for few numbers of rows, and run on few rows too many.

    >>> [round_up(n) for n in (0, 3, 17, 33, 40, 49, 100)]
    [8, 8, 20, 40, 40, 56, 112]
    """
    step = 1 << max((n - 1).bit_length() - 3, 1)
    return max(-(-n // step) * step, 8)


class _Column:
    """One piece of each of many functions: rows of many arrays, end to end."""

    def __init__(self, picks: Sequence[Pick], arrays: Arrays) -> None:
        self.row_shape, self.dtype = arrays[0].shape[1:], arrays[0].dtype
        #: the rows, in terms of those of all arrays; None for all in order
        self._where: np.ndarray | None = None
        #: those that are not there
        self._missing: np.ndarray | None = None
        if any(pick.index is not None for pick in picks):
            self._find_rows(picks, [len(array) for array in arrays])

    def _find_rows(self, picks: Sequence[Pick], sizes: Sequence[int]) -> None:
        indices = [
            np.arange(size) if pick.index is None else pick.index
            for pick, size in zip(picks, sizes, strict=True)
        ]
        lengths = [len(index) for index in indices]
        index, n = np.concatenate(indices), np.repeat(sizes, lengths)
        offset = np.repeat(np.cumsum([0, *sizes[:-1]]), lengths)
        self._where = offset + np.clip(index, 0, np.maximum(n - 1, 0))
        if any(pick.fill for pick in picks):
            self._missing = np.flatnonzero(index >= n)

    def read(self, arrays: Arrays, out: np.ndarray) -> None:
        """These rows, with a few calls of NumPy for all arrays."""
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


def run_function(
    function: Callable[..., Any], rows: Sequence[Any], given: Given
) -> Any:
    """A function of each row: compiled if that is safe, see ``functions.py``.

    :param function: the function of ``given``, or a derivative of it
    """
    if given.is_fixed:
        # a function may want to know an argument, such as a number of repetitions: then
        # it can not be compiled. What else is wrong is wrong once more below.
        with suppress(TypeError):
            return _compiled(function, list(rows), given.dynamic, given.static)
    # put there on purpose: a guard of the user is for transfers that nobody meant
    rows = jax.device_put(list(rows))
    return map_over_rows(function, rows, given.args)


@partial(compiled, static_argnums=(0, 3))
def _compiled(
    function: Callable[..., Any], rows: list[Any], dynamic: list[Any], static: Any
) -> Any:
    return map_over_rows(function, rows, combine(dynamic, static))
