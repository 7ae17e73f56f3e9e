"""The device half: tasks, which are math on rows, and how they run.

A plan (``rows``) is a block or map whose leaves are tasks. :func:`execute` replaces
each task by its array, in one of three ways:

- Inside a user's program (some leaf is a tracer) a task is traced, like any JAX code.
- Called eagerly on host data, row functions of many blocks run as few programs: rows
  that want the same function and have the same shape are laid end to end, filled up to
  a power of two, and cut apart afterwards. So new labels of similar sizes compile
  nothing new. Moving rows is NumPy's, and gives NumPy arrays for NumPy arrays.
- Called eagerly on an accelerator, all tasks are one compiled program.

Index arrays and scalars are arguments of these programs, never constants in them.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_context
from jax.errors import TracerArrayConversionError, UnexpectedTracerError

from .arrays import read_only
from .block import TensorBlock
from .conversion import check_not_narrowed
from .errors import MetatensorError
from .labels import Labels
from .packing import run_starts
from .tensor import TensorMap

Index = Any  # integer array with one row number per row, of NumPy or JAX

_Tree = TypeVar("_Tree", TensorBlock, TensorMap)


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
            out = np.empty((self.n_rows, *self.row_shape), array.dtype)
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


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["operands", "args"],
    meta_fields=["function", "row_shape", "rearranges"],
)
@dataclass(eq=False)
class MapTask:
    """A function of rows, for each row: ``function(*rows, *args)``.

    :param row_shape: the shape of a row of the result
    """

    function: Callable[..., Any]
    operands: tuple[Rows, ...]
    args: tuple[Any, ...]
    row_shape: tuple[int, ...]
    #: the function only moves elements, on the last axes of any array: NumPy can do it
    rearranges: bool = False

    def arrays(self) -> list[Any]:
        """The arrays that this reads."""
        return [operand.array for operand in self.operands]

    def leaves(self) -> list[Any]:
        """All that is data."""
        indices = [operand.index for operand in self.operands]
        return [*self.arrays(), *indices, *jax.tree.leaves(self.args)]

    def trace(self) -> Any:
        """The result, inside a program."""
        rows = [operand.trace() for operand in self.operands]
        if self.rearranges:
            return self.checked(self.function(*rows, *self.args))
        return self.checked(_map(self.function, rows, self.args))

    def read(self) -> np.ndarray:
        """The result, by NumPy, of a function that rearranges."""
        rows = [operand.read() for operand in self.operands]
        return self.checked(self.function(*rows, *self.args))

    def checked(self, result: Any) -> Any:
        """The result, which must fit to the labels that it gets."""
        if tuple(result.shape[1:]) != self.row_shape:
            raise MetatensorError(
                f"the row function gives rows with shape {tuple(result.shape[1:])}, "
                "but the components and properties of the result have "
                f"{self.row_shape}: see `components=` and `properties=`"
            )
        return result

    def signature(self) -> Any:
        """Tasks with equal signatures can run as one program."""
        operands = [(rows.row_shape, rows.array.dtype) for rows in self.operands]
        args = tuple(map(id, self.args))
        return self.function, tuple(operands), args, self.row_shape


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pieces", "order"],
    meta_fields=["axis", "fill_value"],
)
@dataclass(eq=False)
class GatherTask:
    """Rows of several arrays, laid end to end (axis 0) or side by side (axis -1).

    :param order: then, the rows of the result in terms of the rows laid end to end
    """

    pieces: tuple[Rows, ...]
    axis: int = 0
    fill_value: Any = 0
    order: Index | None = None

    def arrays(self) -> list[Any]:
        """The arrays that this reads."""
        return [piece.array for piece in self.pieces]

    def leaves(self) -> list[Any]:
        """All that is data."""
        return [*self.arrays(), *(piece.index for piece in self.pieces), self.order]

    def trace(self) -> Any:
        """The result, inside a program."""
        pieces = [piece.trace(self.fill_value) for piece in self.pieces]
        joined = jnp.concatenate(pieces, self.axis) if len(pieces) > 1 else pieces[0]
        return joined if self.order is None else joined[self.order]

    def read(self) -> np.ndarray:
        """The result, by NumPy."""
        pieces = [piece.read(fill_value=self.fill_value) for piece in self.pieces]
        joined = np.concatenate(pieces, self.axis) if len(pieces) > 1 else pieces[0]
        return joined if self.order is None else joined[self.order]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pieces", "destinations"],
    meta_fields=["n_rows", "axis", "fill_value"],
)
@dataclass(eq=False)
class PlaceTask:
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

    def arrays(self) -> list[Any]:
        """The arrays that this reads."""
        return [piece.array for piece in self.pieces]

    def leaves(self) -> list[Any]:
        """All that is data."""
        return [*self.arrays(), *(piece.index for piece in self.pieces)]

    def trace(self) -> Any:
        """The result, inside a program."""
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
        """The result, by NumPy."""
        first = self.pieces[0]
        width = sum(piece.row_shape[-1] for piece in self.pieces)
        shape = first.row_shape if self.axis == 0 else (*first.row_shape[:-1], width)
        dtype = np.result_type(*(piece.array.dtype for piece in self.pieces))
        out = np.full((self.n_rows, *shape), self.fill_value, dtype)
        start = 0
        for piece, index in zip(self.pieces, self.destinations, strict=True):
            rows = piece.read(fill_value=self.fill_value)
            if self.axis == 0:
                out[index] = rows
                continue
            stop = start + piece.row_shape[-1]
            columns = out[..., start:stop]
            columns[slice(None) if index is None else index] = rows
            start = stop
        return out


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["pieces", "destinations"],
    meta_fields=["n_rows", "in_order"],
)
@dataclass(eq=False)
class ScatterTask:
    """Rows of several arrays, each added to one row of the result.

    Rows whose destination is outside of the result are dropped.
    """

    pieces: tuple[Rows, ...]
    destinations: tuple[Index, ...]
    n_rows: int
    #: the destinations do not decrease
    in_order: bool

    def arrays(self) -> list[Any]:
        """The arrays that this reads."""
        return [piece.array for piece in self.pieces]

    def leaves(self) -> list[Any]:
        """All that is data."""
        return [
            *self.arrays(),
            *(piece.index for piece in self.pieces),
            *self.destinations,
        ]

    def trace(self) -> Any:
        """The result, inside a program."""
        rows = [piece.trace() for piece in self.pieces]
        return jax.ops.segment_sum(
            rows[0] if len(rows) == 1 else jnp.concatenate(rows),
            _concatenate(self.destinations),
            self.n_rows,
            indices_are_sorted=self.in_order,
        )

    def read(self) -> np.ndarray:
        """The result, by NumPy."""
        pieces = [piece.read() for piece in self.pieces]
        rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        indices = [np.asarray(index) for index in self.destinations]
        destinations = indices[0] if len(indices) == 1 else np.concatenate(indices)
        if not self.in_order:
            rows, destinations = _sorted_rows(rows, destinations)
        return _sum_runs(rows, destinations, self.n_rows)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["array"],
    meta_fields=["start", "stop"],
)
@dataclass(eq=False)
class CutTask:
    """A run of rows of one array."""

    array: Any
    start: int
    stop: int

    def arrays(self) -> list[Any]:
        """The arrays that this reads."""
        return [self.array]

    leaves = arrays

    def trace(self) -> Any:
        """The result, inside a program."""
        return jnp.asarray(self.array)[self.start : self.stop]

    def read(self) -> np.ndarray:
        """The result, by NumPy, without a copy."""
        return np.asarray(self.array)[self.start : self.stop]


def _concatenate(indices: Sequence[Index]) -> Any:
    # those from the host and traced ones can have different integer types
    indices = [jnp.asarray(index).astype(np.int32) for index in indices]
    return indices[0] if len(indices) == 1 else jnp.concatenate(indices)


def _sorted_rows(
    rows: np.ndarray, destinations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not bool(np.any(destinations[1:] < destinations[:-1])):
        return rows, destinations
    order = np.argsort(destinations, kind="stable")
    return rows[order], destinations[order]


def _sum_runs(rows: np.ndarray, destinations: np.ndarray, n_rows: int) -> np.ndarray:
    """Sum the rows with the same destination; these are sorted, so it is fast."""
    if len(rows) and (destinations[0] < 0 or destinations[-1] >= n_rows):
        start, stop = np.searchsorted(destinations, [0, n_rows])
        rows, destinations = rows[start:stop], destinations[start:stop]
    out = np.zeros((n_rows, *rows.shape[1:]), rows.dtype)
    if rows.size != 0:
        starts = run_starts(destinations)
        out[destinations[starts]] = np.add.reduceat(rows, starts, axis=0)
    return out


Task = MapTask | GatherTask | PlaceTask | ScatterTask | CutTask


def execute(plan: _Tree) -> _Tree:
    """The map or block of a plan: each leaf that is a task becomes its array."""
    leaves = list(plan._leaves)
    at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Task)]
    for i, array in zip(at, run([leaves[i] for i in at]), strict=True):
        leaves[i] = array
    return type(plan)._unflatten(plan._structure, leaves)  # type: ignore[arg-type]


def run(tasks: Sequence[Task]) -> list[Any]:
    """The results of these tasks."""
    results: list[Any] = [None] * len(tasks)
    others = []
    for i, task in enumerate(tasks):
        if _only_moves(task) and _all_numpy(task):
            results[i] = read_only(task.read())
        else:
            others.append(i)
    if others:
        arrays = _run_with_jax([tasks[i] for i in others])
        for i, array in zip(others, arrays, strict=True):
            results[i] = array
    return results


def _only_moves(task: Task) -> bool:
    return not isinstance(task, MapTask) or task.rearranges


def _all_numpy(task: Task) -> bool:
    return not any(isinstance(leaf, jax.Array) for leaf in task.leaves())


def _run_with_jax(tasks: Sequence[Task]) -> list[Any]:
    arrays = [array for task in tasks for array in task.arrays()]
    leaves = [leaf for task in tasks for leaf in task.leaves()]
    # index arrays can be narrowed, other arrays among the arguments can not
    in_args = (x for x in leaves if isinstance(x, np.ndarray) and x.ndim)
    dtypes = {array.dtype for array in arrays}
    dtypes |= {x.dtype for x in in_args if x.dtype.kind in "fc"}
    for dtype in dtypes:
        check_not_narrowed(dtype)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return _trace(tasks)
    # data that is known stays known, also while a program around this is traced
    with eval_context():
        try:
            return _run_on_host(tasks) if _is_on_host(arrays) else _trace(tasks)
        except (UnexpectedTracerError, TracerArrayConversionError):
            pass  # a row function closes over a tracer: its result is one as well
    return [task.trace() for task in tasks]


def _is_on_host(arrays: Sequence[Any]) -> bool:
    """Can NumPy read all of this without moving it?"""
    if jax.default_backend() != "cpu":
        return False
    devices = jax.devices()
    if len(devices) == 1:
        return True
    default = {devices[0]}
    return all(
        isinstance(array, np.ndarray) or array.devices() == default for array in arrays
    )


def _trace(tasks: Sequence[Task]) -> list[Any]:
    """All tasks as one program, which is a part of the one that is being traced."""
    tasks = [t.as_gather() if isinstance(t, PlaceTask) else t for t in tasks]
    if any(isinstance(t, MapTask) and _holds_tracer(t.function) for t in tasks):
        return [task.trace() for task in tasks]  # what is cached would hold it as well
    return _trace_tasks(*_partition(tasks))


def _holds_tracer(function: Any) -> bool:
    """Does a row function close over a tracer of the program around it?"""
    while not hasattr(function, "__code__") and hasattr(function, "function"):
        function = function.function  # a derivative of the row function
    cells = getattr(function, "__closure__", None) or ()
    contents = [cell.cell_contents for cell in cells]
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(contents))


@functools.partial(jax.jit, static_argnums=1, inline=True)
def _trace_tasks(dynamic: list[Any], static: Any) -> list[Any]:
    return [task.trace() for task in _combine(dynamic, static)]


def _run_on_host(tasks: Sequence[Task]) -> list[Any]:
    """Moves by NumPy, and math on many tasks as one program."""
    results: list[Any] = [None] * len(tasks)
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for i, task in enumerate(tasks):
        if _only_moves(task):
            results[i] = task.read()
        else:
            groups[task.signature()].append(i)  # type: ignore[union-attr]
    for group in groups.values():
        arrays = _run_as_one([tasks[i] for i in group])  # type: ignore[misc]
        for i, array in zip(group, arrays, strict=True):
            results[i] = array
    return jax.device_put(results)


def _run_as_one(tasks: Sequence[MapTask]) -> list[np.ndarray]:
    """The results of tasks with the same signature, by one call of one program."""
    starts = np.cumsum([0, *(task.operands[0].n_rows for task in tasks)]).tolist()
    n_rows = starts[-1]
    capacity = 1 << max(n_rows - 1, 0).bit_length()
    operands = []
    for column in zip(*(task.operands for task in tasks), strict=True):
        array = column[0].array
        buffer = np.empty((capacity, *array.shape[1:]), array.dtype)
        _read_all(column, buffer[:n_rows])
        # real rows, so that filling up gives no NaN that was not there before
        buffer[n_rows:] = buffer[:1] if n_rows else 1
        operands.append(buffer)
    dynamic, static = _partition(tasks[0].args)
    program = _map_program(tasks[0].function, operands, dynamic, static)
    result = np.asarray(tasks[0].checked(program))
    return [result[start:stop] for start, stop in pairwise(starts)]


def _read_all(column: Sequence[Rows], out: np.ndarray) -> None:
    """Rows of many arrays end to end, with a few calls of NumPy for all of them."""
    arrays = [np.asarray(rows.array) for rows in column]
    if all(rows.index is None for rows in column):
        np.concatenate(arrays, out=out)
        return
    sizes = [len(array) for array in arrays]
    indices = [
        np.arange(size) if rows.index is None else np.asarray(rows.index)
        for rows, size in zip(column, sizes, strict=True)
    ]
    lengths = [len(index) for index in indices]
    index, n = np.concatenate(indices), np.repeat(sizes, lengths)
    offset = np.repeat(np.cumsum([0, *sizes[:-1]]), lengths)
    where = offset + np.clip(index, 0, np.maximum(n - 1, 0))
    source = np.concatenate(arrays)
    if len(source) == 0:
        out[...] = 0
        return
    np.take(source, where, axis=0, out=out, mode="clip")
    if any(rows.fill for rows in column):
        out[index >= n] = 0


@functools.partial(jax.jit, static_argnums=(0, 3))
def _map_program(
    function: Callable[..., Any], operands: list[Any], dynamic: list[Any], static: Any
) -> Any:
    return _map(function, operands, _combine(dynamic, static))


def _map(function: Callable[..., Any], rows: Sequence[Any], args: Sequence[Any]) -> Any:
    in_axes = (0,) * len(rows) + (None,) * len(args)
    return jax.vmap(function, in_axes=in_axes)(*rows, *args)


def _partition(tree: Any) -> tuple[list[Any], Any]:
    """What a program takes as data, and the rest (hashable), such as functions."""
    leaves, structure = jax.tree.flatten(tree)
    is_data = [
        isinstance(x, (np.ndarray, np.generic, jax.Array, *_SCALARS)) for x in leaves
    ]
    dynamic = [x for x, data in zip(leaves, is_data, strict=True) if data]
    rest = [None if data else (x,) for x, data in zip(leaves, is_data, strict=True)]
    return dynamic, (structure, tuple(rest))


_SCALARS = (bool, int, float, complex)


def _combine(dynamic: Sequence[Any], static: Any) -> Any:
    structure, rest = static
    data = iter(dynamic)
    return structure.unflatten([next(data) if x is None else x[0] for x in rest])


# --- traced labels -----------------------------------------------------------------


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
