"""Tasks: math on rows, as a plan describes it, by JAX and by NumPy."""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from .._host.packing import is_inside, is_sorted, joined, run_starts
from .._types.arrays import aligned
from .._types.errors import MetatensorError

Index = Any  # integer array with one row number per row, of NumPy or JAX


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["array", "index"],
    meta_fields=["fill"],
)
@dataclass(eq=False)
class Rows:
    """Some rows of an array.

    :param array: the array
    :param index: which rows; None for all of them in order
    :param fill: the index may point past the end, to rows that are zero. Otherwise
        it is clipped, so that a padding row computes with real numbers.
    """

    array: Any
    index: Index | None = None
    fill: bool = False

    @property
    def n_rows(self) -> int:
        """How many rows these are."""
        return self.array.shape[0] if self.index is None else self.index.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self.array.shape[1:])

    def take(self, index: Index, fill: bool = False) -> Rows:
        """Rows of these rows."""
        if self.index is None:
            return Rows(self.array, index, fill)
        if not fill:
            return Rows(self.array, self.index[index], self.fill)
        missing = index >= self.n_rows
        composed = np.full(len(index), self.array.shape[0])
        composed[~missing] = self.index[index[~missing]]
        return Rows(self.array, composed, True)

    def trace(self, fill_value: Any = 0) -> Any:
        """These rows as a JAX array."""
        if self.index is None:
            return jnp.asarray(self.array)
        if self.array.shape[0] == 0:
            shape = (self.n_rows, *self.row_shape)
            return jnp.full(shape, fill_value, self.array.dtype)
        mode = "fill" if self.fill else "clip"
        return jnp.take(
            jnp.asarray(self.array), self.index, 0, mode=mode, fill_value=fill_value
        )

    def read(self, out: np.ndarray | None = None, fill_value: Any = 0) -> np.ndarray:
        """These rows as a NumPy array, without a copy where that is possible."""
        array = np.asarray(self.array)
        if self.index is None and out is None:
            return array
        if out is None:
            shape = (self.n_rows, *self.row_shape)
            out = aligned(shape, array.dtype, zero=False)
        if self.index is None:
            out[...] = array
        elif len(array) == 0:
            out[...] = fill_value
        else:
            index = np.asarray(self.index)
            np.take(array, index, axis=0, out=out, mode="clip")
            if self.fill:
                out[index >= len(array)] = fill_value
        return out


class Task(ABC):
    """Math on rows of some arrays, the pieces."""

    pieces: tuple[Rows, ...]

    def arrays(self) -> list[Any]:
        """The arrays that this reads."""
        return [piece.array for piece in self.pieces]

    def leaves(self) -> list[Any]:
        """All that is data."""
        indices = [piece.index for piece in self.pieces]
        return [*self.arrays(), *indices, *self.parameters()]

    def parameters(self) -> Sequence[Any]:
        """What is data besides the rows."""
        return ()

    @property
    def n_bytes(self) -> int:
        """About how much data other threads can move: as if all rows were alike."""
        array = self.pieces[0].array
        n_rows = sum([piece.n_rows for piece in self.pieces])
        return n_rows * math.prod(array.shape[1:]) * array.dtype.itemsize

    def of_slots(self, arrays: Sequence[Any]) -> Self:
        """The same with arrays in place of the slots of its pieces."""
        pieces = [
            Rows(arrays[piece.array.position], piece.index, piece.fill)
            for piece in self.pieces
        ]
        return dataclasses.replace(self, pieces=tuple(pieces))  # type: ignore[type-var]

    @property
    def only_moves(self) -> bool:
        """Is this no math, so that NumPy arrays can stay such?"""
        return True

    @abstractmethod
    def trace(self) -> Any:
        """The result, inside a program."""

    @abstractmethod
    def read(self) -> np.ndarray:
        """The result, by NumPy."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pieces", "args"],
    meta_fields=["function", "row_shape", "rearranges"],
)
@dataclass(eq=False)
class MapTask(Task):
    """A function of rows, for each row: ``function(*rows, *args)``.

    :param row_shape: the shape of a row of the result
    """

    function: Callable[..., Any]
    pieces: tuple[Rows, ...]
    args: tuple[Any, ...]
    row_shape: tuple[int, ...]
    #: the function only moves elements, on the last axes of any array: NumPy can do it
    rearranges: bool = False

    @property
    def only_moves(self) -> bool:
        return self.rearranges

    @property
    def n_bytes(self) -> int:
        """None: functions are not for other threads, where JAX has other settings."""
        return 0

    def parameters(self) -> Sequence[Any]:
        return jax.tree.leaves(self.args)

    def trace(self) -> Any:
        rows = [operand.trace() for operand in self.pieces]
        if self.rearranges:
            return self.checked(self.function(*rows, *self.args))
        return self.checked(map_over_rows(self.function, rows, self.args))

    def read(self) -> np.ndarray:
        """The result, by NumPy, of a function that rearranges."""
        rows = [operand.read() for operand in self.pieces]
        return self.checked(self.function(*rows, *self.args))

    def checked(self, result: Any) -> Any:
        """The result, which must fit to the labels that it gets."""
        if not hasattr(result, "shape"):
            raise TypeError(
                f"the row function must give one array, not {type(result).__name__}"
            )
        if tuple(result.shape[1:]) != self.row_shape:
            raise MetatensorError(
                f"the row function gives rows with shape {tuple(result.shape[1:])}, "
                "but the components and properties of the result have "
                f"{self.row_shape}: see `components=` and `properties=`"
            )
        return result

    def signature(self) -> Any:
        """Tasks with equal signatures can run as one program."""
        operands = [(rows.row_shape, rows.array.dtype) for rows in self.pieces]
        args = tuple(map(id, self.args))
        return self.function, tuple(operands), args, self.row_shape


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pieces", "order"],
    meta_fields=["axis", "fill_value"],
)
@dataclass(eq=False)
class GatherTask(Task):
    """Rows of several arrays, laid end to end (axis 0) or side by side (axis -1).

    :param order: then, the rows of the result in terms of the rows laid end to end
    """

    pieces: tuple[Rows, ...]
    axis: int = 0
    fill_value: Any = 0
    order: Index | None = None

    def parameters(self) -> Sequence[Any]:
        return (self.order,)

    def trace(self) -> Any:
        pieces = [piece.trace(self.fill_value) for piece in self.pieces]
        rows = jnp.concatenate(pieces, self.axis) if len(pieces) > 1 else pieces[0]
        return rows if self.order is None else rows[self.order]

    def read(self) -> np.ndarray:
        pieces = [piece.read(fill_value=self.fill_value) for piece in self.pieces]
        rows = _laid_out(pieces, self.axis) if len(pieces) > 1 else pieces[0]
        return rows if self.order is None else Rows(rows, self.order).read()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pieces", "destinations"],
    meta_fields=["n_rows", "axis", "fill_value"],
)
@dataclass(eq=False)
class PlaceTask(Task):
    """Rows that go to different places, which are known on the host.

    With axis 0, all rows together are the rows of the result. With axis -1, the rows of
    each piece are columns of the result, and places that nothing goes to are filled.
    NumPy writes each row once; a program had better gather, see :meth:`as_gather`.

    :param destinations: for each piece, the rows of the result; all in order if None
    """

    pieces: tuple[Rows, ...]
    destinations: tuple[np.ndarray | None, ...]
    n_rows: int
    axis: int
    fill_value: Any = 0

    def trace(self) -> Any:
        return self.as_gather().trace()

    def as_gather(self) -> GatherTask:
        """The same in terms of the rows of the result."""
        if self.axis == -1:
            pieces = [
                piece if index is None else self._placed(piece, index)
                for piece, index in zip(self.pieces, self.destinations, strict=True)
            ]
            return GatherTask(tuple(pieces), -1, self.fill_value)
        position = np.concatenate(self.destinations)  # type: ignore[arg-type]
        order = np.empty(self.n_rows, np.int64)
        order[position] = np.arange(self.n_rows)
        if len(self.pieces) == 1:
            return GatherTask((self.pieces[0].take(order),))
        return GatherTask(self.pieces, order=order)

    def _placed(self, piece: Rows, destination: np.ndarray) -> Rows:
        index = np.full(self.n_rows, piece.n_rows)
        index[destination] = np.arange(piece.n_rows)
        return piece.take(index, fill=len(destination) < self.n_rows)

    def read(self) -> np.ndarray:
        first = self.pieces[0]
        width = sum(piece.row_shape[-1] for piece in self.pieces)
        shape = first.row_shape if self.axis == 0 else (*first.row_shape[:-1], width)
        dtype = np.result_type(*(piece.array.dtype for piece in self.pieces))
        # all rows are written, but not all columns
        out = aligned((self.n_rows, *shape), dtype, zero=self.axis != 0)
        if self.axis != 0 and self.fill_value != 0:
            out[...] = self.fill_value
        start = 0
        for piece, index in zip(self.pieces, self.destinations, strict=True):
            rows = piece.read(fill_value=self.fill_value)
            if self.axis == 0:
                out[index] = rows
                continue
            if rows.size != 0:
                source = np.ascontiguousarray(rows, dtype)
                columns = _as_elements(out, start, rows.shape[-1])
                columns[slice(None) if index is None else index] = _as_elements(
                    source, 0, rows.shape[-1]
                )
            start += rows.shape[-1]
        return out


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pieces", "destinations"],
    meta_fields=["n_rows", "in_order"],
)
@dataclass(eq=False)
class ScatterTask(Task):
    """Rows of several arrays, each added to one row of the result.

    Rows whose destination is outside of the result are dropped.
    """

    pieces: tuple[Rows, ...]
    destinations: tuple[Index, ...]
    n_rows: int
    #: the destinations do not decrease
    in_order: bool

    def parameters(self) -> Sequence[Any]:
        return self.destinations

    def trace(self) -> Any:
        rows = [piece.trace() for piece in self.pieces]
        return jax.ops.segment_sum(
            rows[0] if len(rows) == 1 else jnp.concatenate(rows),
            _concatenate(self.destinations),
            self.n_rows,
            indices_are_sorted=self.in_order,
        )

    def read(self) -> np.ndarray:
        rows = joined([piece.read() for piece in self.pieces])
        destinations = joined([np.asarray(index) for index in self.destinations])
        if not is_inside(destinations, self.n_rows):
            inside = (destinations >= 0) & (destinations < self.n_rows)
            rows, destinations = rows[inside], destinations[inside]
        if not self.in_order:
            if math.prod(rows.shape[1:]) <= _FEW_COLUMNS:
                return _sum_unsorted(rows, destinations, self.n_rows)
            rows, destinations = _sorted_rows(rows, destinations)
        return _sum_runs(rows, destinations, self.n_rows)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pieces"],
    meta_fields=["start", "stop"],
)
@dataclass(eq=False)
class CutTask(Task):
    """A run of rows of one array."""

    pieces: tuple[Rows]
    start: int
    stop: int

    @property
    def n_bytes(self) -> int:
        """None: the run is a part of the array, where it is."""
        return 0

    def trace(self) -> Any:
        return self.pieces[0].trace()[self.start : self.stop]

    def read(self) -> np.ndarray:
        return self.pieces[0].read()[self.start : self.stop]


def map_over_rows(
    function: Callable[..., Any], rows: Sequence[Any], args: Sequence[Any]
) -> Any:
    """``function`` of each row."""
    in_axes = (0,) * len(rows) + (None,) * len(args)
    return jax.vmap(function, in_axes=in_axes)(*rows, *args)


def _laid_out(pieces: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Arrays end to end (axis 0) or side by side (axis -1)."""
    shape = list(pieces[0].shape)
    shape[axis] = sum([piece.shape[axis] for piece in pieces])
    dtype = np.result_type(*{piece.dtype for piece in pieces})
    return np.concatenate(pieces, axis, aligned(tuple(shape), dtype, zero=False))


def _as_elements(array: np.ndarray, start: int, width: int) -> np.ndarray:
    """Neighbouring columns as one: NumPy copies large elements faster than small ones.

    :param start: the first of these columns
    :param width: how many they are
    """
    element = f"V{width * array.itemsize}"
    offset, strides = start * array.itemsize, array.strides[:-1]
    return np.ndarray(array.shape[:-1], element, array, offset, strides)


def _concatenate(indices: Sequence[Index]) -> Any:
    # those from the host and traced ones can have different integer types
    indices = [jnp.asarray(index).astype(np.int32) for index in indices]
    return indices[0] if len(indices) == 1 else jnp.concatenate(indices)


def _sorted_rows(
    rows: np.ndarray, destinations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if is_sorted(destinations):
        return rows, destinations
    order = np.argsort(destinations, kind="stable")
    return rows.take(order, axis=0), destinations.take(order)


def _sum_runs(rows: np.ndarray, destinations: np.ndarray, n_rows: int) -> np.ndarray:
    """Sum the rows with the same destination; these are sorted, so it is fast."""
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
    """The same for rows in any order, which is an order of rounding: sums are wide."""
    shape, dtype = rows.shape[1:], rows.dtype
    wide = (
        np.result_type(dtype, np.float64)
        if jnp.issubdtype(dtype, np.inexact)
        else dtype
    )
    out = np.zeros((n_rows, math.prod(shape)), wide)
    rows = rows.reshape(len(rows), out.shape[1])
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        here = slice(start, start + _ROWS_AT_ONCE)
        some = rows[here].astype(wide, copy=False)
        for i in range(out.shape[1]):
            np.add.at(out[:, i], destinations[here], some[:, i])
    return out.astype(dtype, copy=False).reshape((n_rows, *shape))
