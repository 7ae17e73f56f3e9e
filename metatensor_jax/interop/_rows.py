"""The columns of a table, read and checked: labels, and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._types.context import noting
from .._types.entry import as_int32
from .._types.errors import MetatensorError
from .._types.labels import Labels
from ._axes import Axes
from ._entries import named_entries


class Table(NamedTuple):
    """The columns of a table, of which library it may be.

    :param names: of all columns
    :param read: a column as an array, given its name
    """

    names: Sequence[Any]
    read: Callable[[str], np.ndarray]


class Rows(NamedTuple):
    """The rows of a table: labels by the name of their dimension, and values.

    :param values: with the shape ``(rows,)``, or ``(rows, properties)`` of wide tables
    :param properties: those of wide tables
    """

    labels: Mapping[str, np.ndarray]
    values: np.ndarray
    properties: Labels | None

    def of(self, names: Sequence[str] | None) -> np.ndarray:
        """The entries of some dimensions, a row each."""
        columns = [self.labels[name] for name in names or []]
        n = len(self.values)
        return np.stack(columns, 1) if columns else np.zeros((n, 0), np.int32)

    def take(self, rows: np.ndarray) -> Rows:
        """Some of these rows."""
        labels = {name: column[rows] for name, column in self.labels.items()}
        return Rows(labels, self.values[rows], self.properties)


def read_rows(table: Table, axes: Axes, wide: bool, value: str) -> Rows:
    named = axes.columns(wide)
    if not wide or axes.properties is None:
        _check_columns(table.names, [*named, value], only=True)
        labels = {name: _integers(name, table.read(name)) for name in named}
        return Rows(labels, _numbers(value, table.read(value)), None)
    _check_columns(table.names, named, only=False)
    rest = [name for name in table.names if name not in named]
    labels = {name: _integers(name, table.read(name)) for name in named}
    properties = named_entries(rest, axes.properties, "column")
    return Rows(labels, _stacked(table, rest), properties)


def _check_columns(names: Sequence[Any], wanted: Sequence[str], only: bool) -> None:
    """Raise unless these columns are there, once each, and ``only`` these."""
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise MetatensorError(f"the table has several columns called {repeated[0]!r}")
    missing = [name for name in wanted if name not in set(names)]
    if missing:
        raise MetatensorError(
            f"the table has no column '{missing[0]}', its columns are {list(names)} "
            "(an index is no column: `reset_index()`)"
        )
    unknown = [name for name in names if name not in wanted] if only else []
    if unknown:
        raise MetatensorError(
            f"the columns {unknown} are neither labels nor values: name them among "
            "`keys`, `samples`, `components` or `properties`, or drop them"
        )


def _integers(name: str, column: np.ndarray) -> np.ndarray:
    with noting(f"in the column '{name}'"):
        return as_int32(column)


def _numbers(name: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind not in "biufc":
        raise TypeError(
            f"the column '{name}' must be numbers, not {column.dtype}: convert it "
            "first, `.astype('float64')`; what is missing in it may be NaN"
        )
    return column


def _stacked(table: Table, names: Sequence[str]) -> np.ndarray:
    columns = [_numbers(name, table.read(name)) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column.dtype != columns[0].dtype:
            raise MetatensorError(
                "all columns of values must have one dtype, but "
                f"{names[0]!r} has {columns[0].dtype} and {name!r} has {column.dtype}"
            )
    if not columns:
        raise MetatensorError("the table has no columns of values")
    return np.stack(columns, 1)
