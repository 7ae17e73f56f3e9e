"""What is done to arrays: by JAX, in a program, and by NumPy, on the host.

Operations hold index arrays, which are arguments of a compiled program, never
constants in it. What they read comes from :class:`Program`.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._host.packing import inverse, joined
from .._types.arrays import aligned
from .._types.errors import MetatensorError
from .functions import Given
from .sums import sum_rows, trace_sums, wide_dtype

_Kind = TypeVar("_Kind", bound=type)


def _op(data: Sequence[str], meta: Sequence[str]) -> Callable[[_Kind], _Kind]:
    """Register an operation as a pytree: ``data`` are arguments of a program."""

    def register(kind: _Kind) -> _Kind:
        return jax.tree_util.register_dataclass(kind, list(data), list(meta))

    return register


@_op(["index"], ["fill"])
@dataclass(frozen=True, eq=False)
class Pick:
    """Which rows of an array are read.

    :param index: their numbers; None for all of them in order
    :param fill: the index may point past the end, to rows that are filled. Otherwise
        it is clipped.
    """

    index: np.ndarray | None = None
    fill: bool = False

    def n_rows(self, array: Any) -> int:
        """How many rows these are."""
        return array.shape[0] if self.index is None else self.index.shape[0]

    def take(self, index: np.ndarray, n_rows: int, fill: bool = False) -> Pick:
        """Some of these rows.

        :param n_rows: how many rows the array has
        """
        if self.index is None:
            return Pick(index, fill)
        if not fill:
            return Pick(self.index[index], self.fill)
        missing = index >= len(self.index)
        composed = np.full(len(index), n_rows)
        composed[~missing] = self.index[index[~missing]]
        return Pick(composed, True)

    def trace(self, array: Any, fill_value: Any = 0) -> Any:
        """The rows, in a program."""
        if self.index is None:
            return jnp.asarray(array)
        return take_rows(array, self.index, self.fill, fill_value)

    def read(
        self, array: np.ndarray, out: np.ndarray | None = None, fill_value: Any = 0
    ) -> np.ndarray:
        """The rows, by NumPy, without a copy where that is possible."""
        if out is None:
            if self.index is None:
                return array
            shape = (len(self.index), *array.shape[1:])
            out = aligned(shape, array.dtype, zero=False)
        if self.index is None:
            out[...] = array
        elif len(array) == 0:
            out[...] = fill_value
        else:
            np.take(array, self.index, axis=0, out=out, mode="clip")
            if self.fill:
                out[self.index >= len(array)] = fill_value
        return out


ALL = Pick()


def take_rows(array: Any, index: Any, fill: bool, fill_value: Any = 0) -> Any:
    """Rows of an array, in a program; ``fill`` is that of :class:`Pick`."""
    if array.shape[0] == 0:
        return jnp.full((index.shape[0], *array.shape[1:]), fill_value, array.dtype)
    mode = "fill" if fill else "clip"
    return jnp.take(jnp.asarray(array), index, 0, mode=mode, fill_value=fill_value)


class Op(ABC):
    """What makes one array from others."""

    #: NumPy can do it, so that its arrays stay what they are
    by_numpy: ClassVar[bool] = True

    def in_program(self) -> Op:
        """The same, as a compiled program had better do it."""
        return self

    @abstractmethod
    def trace(self, *arrays: Any) -> Any:
        """The result, in a program."""

    @abstractmethod
    def read(self, *arrays: np.ndarray) -> np.ndarray:
        """The result, by NumPy."""


@_op(["picks", "order"], ["axis", "fill_value"])
@dataclass(frozen=True, eq=False)
class Gather(Op):
    """Rows of several arrays, laid end to end (axis 0) or side by side (axis -1).

    :param order: then, the rows of the result in terms of the rows laid end to end
    """

    picks: tuple[Pick, ...]
    axis: int = 0
    fill_value: Any = 0
    order: np.ndarray | None = None

    def trace(self, *arrays: Any) -> Any:
        parts = [
            pick.trace(array, self.fill_value)
            for pick, array in zip(self.picks, arrays, strict=True)
        ]
        rows = jnp.concatenate(parts, self.axis) if len(parts) > 1 else parts[0]
        return rows if self.order is None else rows[self.order]

    def read(self, *arrays: np.ndarray) -> np.ndarray:
        parts = [
            pick.read(array, fill_value=self.fill_value)
            for pick, array in zip(self.picks, arrays, strict=True)
        ]
        # what else there is belongs to programs, see :meth:`Place.in_program`
        assert self.axis == 0
        assert self.order is None
        return _end_to_end(parts) if len(parts) > 1 else parts[0]


def _end_to_end(parts: Sequence[np.ndarray]) -> np.ndarray:
    shape = (sum([len(part) for part in parts]), *parts[0].shape[1:])
    dtype = np.result_type(*{part.dtype for part in parts})
    return np.concatenate(parts, 0, aligned(shape, dtype, zero=False))


@_op(["picks", "destinations"], ["sizes", "n_rows", "axis", "fill_value"])
@dataclass(frozen=True, eq=False)
class Place(Op):
    """Rows that go to different places.

    With axis 0, all rows together are the rows of the result. With axis -1, the rows of
    each array are columns of the result, and places that nothing goes to are filled.
    NumPy writes each row once; a program had better gather.

    :param destinations: for each array, the rows of the result; all in order if None
    :param sizes: how many rows each array has
    """

    picks: tuple[Pick, ...]
    destinations: tuple[np.ndarray | None, ...]
    sizes: tuple[int, ...]
    n_rows: int
    axis: int
    fill_value: Any = 0

    def trace(self, *arrays: Any) -> Any:
        return self.in_program().trace(*arrays)

    def in_program(self) -> Gather:
        """The same in terms of the rows of the result."""
        if self.axis == -1:
            columns = zip(self.picks, self.destinations, self.sizes, strict=True)
            picks = [self._placed(*column) for column in columns]
            return Gather(tuple(picks), -1, self.fill_value)
        position = np.concatenate(self.destinations)  # type: ignore[arg-type]
        order = inverse(position)
        if len(self.picks) == 1:
            return Gather((self.picks[0].take(order, self.sizes[0]),))
        return Gather(self.picks, order=order)

    def _placed(self, pick: Pick, destination: np.ndarray | None, n: int) -> Pick:
        if destination is None:
            return pick
        n_moved = len(destination)
        index = np.full(self.n_rows, n_moved)
        index[destination] = np.arange(n_moved)
        return pick.take(index, n, fill=n_moved < self.n_rows)

    def read(self, *arrays: np.ndarray) -> np.ndarray:
        first = arrays[0].shape[1:]
        width = sum([array.shape[-1] for array in arrays])
        shape = first if self.axis == 0 else (*first[:-1], width)
        dtype = np.result_type(*{array.dtype for array in arrays})
        # all rows are written, but not all columns
        out = aligned((self.n_rows, *shape), dtype, zero=self.axis != 0)
        if self.axis != 0 and self.fill_value != 0:
            out[...] = self.fill_value
        start = 0
        for pick, index, array in zip(
            self.picks, self.destinations, arrays, strict=True
        ):
            rows = pick.read(array, fill_value=self.fill_value)
            if self.axis == 0:
                out[index] = rows
                continue
            if rows.size != 0:
                _write_columns(out, start, index, np.ascontiguousarray(rows, dtype))
            start += rows.shape[-1]
        return out


def _write_columns(
    out: np.ndarray, start: int, index: np.ndarray | None, rows: np.ndarray
) -> None:
    """Neighbouring columns as one element: NumPy copies large elements faster."""
    width = rows.shape[-1]
    columns = _as_elements(out, start, width)
    columns[slice(None) if index is None else index] = _as_elements(rows, 0, width)


def _as_elements(array: np.ndarray, start: int, width: int) -> np.ndarray:
    element = f"V{width * array.itemsize}"
    offset, strides = start * array.itemsize, array.strides[:-1]
    return np.ndarray(array.shape[:-1], element, array, offset, strides)


@_op(["picks", "destinations"], ["n_rows", "in_order", "dtype"])
@dataclass(frozen=True, eq=False)
class Add(Op):
    """Rows of several arrays, each added to one row of the result.

    Rows whose destination is outside of the result are dropped. Narrow floats are added
    up in float32.

    :param destinations: for each array; None if it is data, which is read after them
    :param in_order: the destinations do not decrease
    :param dtype: of the result
    """

    picks: tuple[Pick, ...]
    destinations: tuple[np.ndarray | None, ...]
    n_rows: int
    in_order: bool
    dtype: Any

    def trace(self, *arrays: Any) -> Any:
        rows, destinations = self._pair(arrays)
        parts = [p.trace(a) for p, a in zip(self.picks, rows, strict=True)]
        parts = [part.astype(wide_dtype(part.dtype)) for part in parts]
        # those from the host and traced ones can have different integer types
        places = [jnp.asarray(index).astype(np.int32) for index in destinations]
        summed = trace_sums(
            parts[0] if len(parts) == 1 else jnp.concatenate(parts),
            places[0] if len(places) == 1 else jnp.concatenate(places),
            self.n_rows,
            self.in_order,
        )
        return summed.astype(self.dtype)

    def read(self, *arrays: np.ndarray) -> np.ndarray:
        rows, destinations = self._pair(arrays)
        parts = [p.read(a) for p, a in zip(self.picks, rows, strict=True)]
        summed = sum_rows(
            joined(parts), joined(destinations), self.n_rows, self.in_order
        )
        return summed.astype(self.dtype, copy=False)

    def _pair(self, arrays: Sequence[Any]) -> tuple[Sequence[Any], list[Any]]:
        """The arrays of rows, and where their rows go."""
        data = iter(arrays[len(self.picks) :])
        places = [next(data) if x is None else x for x in self.destinations]
        return arrays[: len(self.picks)], places


@_op([], ["start", "stop"])
@dataclass(frozen=True, eq=False)
class Cut(Op):
    """A run of rows of one array."""

    start: int
    stop: int

    def trace(self, *arrays: Any) -> Any:
        return jnp.asarray(arrays[0])[self.start : self.stop]

    def read(self, *arrays: np.ndarray) -> np.ndarray:
        return arrays[0][self.start : self.stop]


@_op(["array"], [])
@dataclass(frozen=True, eq=False)
class Constant(Op):
    """An array that is known to the planner."""

    array: np.ndarray

    def trace(self, *arrays: Any) -> Any:
        return jnp.asarray(self.array)

    def read(self, *arrays: np.ndarray) -> np.ndarray:
        return self.array


@_op([], ["fill"])
@dataclass(frozen=True, eq=False)
class Take(Op):
    """Rows of the first array, whose numbers are the second one: they are data.

    :param fill: as for :class:`Pick`
    """

    fill: bool = False

    def trace(self, *arrays: Any) -> Any:
        array, index = arrays[0], jnp.asarray(arrays[1])
        # negative numbers would count from the end
        index = jnp.where(index < 0, array.shape[0] if self.fill else 0, index)
        return take_rows(array, index, self.fill)

    def read(self, *arrays: np.ndarray) -> np.ndarray:
        array, index = arrays
        n = len(array)
        if not self.fill:
            return Pick(np.clip(index, 0, max(n - 1, 0))).read(array)
        return Pick(np.where(index < 0, n, index), fill=True).read(array)


@_op([], ["function", "options"])
@dataclass(frozen=True, eq=False)
class Compute(Op):
    """A function of whole arrays, for NumPy's as well as for JAX's.

    :param function: a function of a module, called with the arrays and the options
    """

    function: Callable[..., Any]
    options: tuple[Any, ...] = ()

    def trace(self, *arrays: Any) -> Any:
        return self.function(*map(jnp.asarray, arrays), *self.options)

    def read(self, *arrays: np.ndarray) -> np.ndarray:
        return self.function(*arrays, *self.options)


@dataclass(frozen=True)
class Slot:
    """Stands for a function that the caller gives, see :class:`Given`.

    :param index: of which part of the call
    :param is_linear_part: the linear part of an affine function, rather than all of it
    """

    index: int
    is_linear_part: bool = False


@_op(["picks", "args"], ["function", "row_shape", "rearranges"])
@dataclass(frozen=True, eq=False)
class MapRows(Op):
    """A function of rows, for each row: ``function(*rows, *args)``.

    :param function: a function of a module, a :class:`Slot`, or a derivative of these
    :param row_shape: the shape of a row of the result
    :param args: what it takes besides rows, none for a slot: it comes with its own
    :param rearranges: the function only moves elements, on the last axes of any array
    """

    function: Any
    picks: tuple[Pick, ...]
    row_shape: tuple[int, ...]
    args: tuple[Any, ...] = ()
    rearranges: bool = False

    @property
    def by_numpy(self) -> bool:  # type: ignore[override]
        return self.rearranges

    def bind(self, given: Sequence[Given], as_given: bool = False) -> MapRows:
        """The same with what the caller gives in the place of a slot.

        :param as_given: with the arguments as they came, to be parted into data and
            constants: a :class:`Number` is data
        """
        slot = slot_in(self.function)
        if slot is None:
            return self
        own = given[slot.index]
        function = filled_in(self.function, own)
        args = own.given_args if as_given else own.args
        return dataclasses.replace(self, function=function, args=args)

    def trace(self, *arrays: Any) -> Any:
        rows = [p.trace(a) for p, a in zip(self.picks, arrays, strict=True)]
        if self.rearranges:
            return self.checked(self.function(*rows, *self.args))
        return self.checked(map_over_rows(self.function, rows, self.args))

    def read(self, *arrays: np.ndarray) -> np.ndarray:
        """The result, by NumPy, of a function that rearranges."""
        rows = [p.read(a) for p, a in zip(self.picks, arrays, strict=True)]
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


def slot_in(function: Any) -> Slot | None:
    """The slot in a function, below any derivatives."""
    while function is not None and not isinstance(function, Slot):
        function = getattr(function, "of", None)
    return function


def filled_in(function: Any, given: Given) -> Any:
    """A function with what the caller gives in the place of a slot."""
    if isinstance(function, Slot):
        return given.linear_part if function.is_linear_part else given.function
    if slot_in(function) is None:
        return function
    return dataclasses.replace(function, of=filled_in(function.of, given))


def map_over_rows(
    function: Callable[..., Any], rows: Sequence[Any], args: Sequence[Any]
) -> Any:
    """``function`` of each row. The arguments are what they are, in the function."""
    return jax.vmap(functools.partial(_apply, function, args))(*rows)


def _apply(function: Callable[..., Any], args: Sequence[Any], *rows: Any) -> Any:
    return function(*rows, *args)
