"""How tasks run: traced, by NumPy, or as few programs on the host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.core import Tracer, eval_context
from jax.errors import TracerArrayConversionError, UnexpectedTracerError

from ..arrays import read_only
from ..block import TensorBlock
from ..collector import collection_paused
from ..conversion import check_not_narrowed
from ..tensor import TensorMap
from ._programs import Batch, partition, trace_tasks
from ._tasks import MapTask, PlaceTask, Task

_Tree = TypeVar("_Tree", TensorBlock, TensorMap)

_stay = ContextVar("stay_on_host", default=False)


@contextmanager
def staying_on_host() -> Iterator[None]:
    """Results of math stay NumPy arrays, for steps in the middle of an operation.

    Nobody sees these arrays, and to make JAX arrays of them takes half of the time.
    """
    token = _stay.set(True)
    try:
        yield
    finally:
        _stay.reset(token)


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
        if task.only_moves and _all_numpy(task):
            results[i] = read_only(task.read())
        else:
            others.append(i)
    if others:
        arrays = _run_with_jax([tasks[i] for i in others])
        for i, array in zip(others, arrays, strict=True):
            results[i] = array
    return results


def _all_numpy(task: Task) -> bool:
    return not any(isinstance(leaf, jax.Array) for leaf in task.leaves())


def _run_with_jax(tasks: Sequence[Task]) -> list[Any]:
    arrays = [array for task in tasks for array in task.arrays()]
    leaves = [leaf for task in tasks for leaf in task.leaves()]
    _check_wide([*arrays, *_floats(leaves)])
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return _trace(tasks)
    # data that is known stays known, also while a program around this is traced
    with eval_context():
        try:
            return _run_on_host(tasks) if is_on_host(arrays) else _trace(tasks)
        except _CLOSES_OVER_TRACER:
            pass  # its result is a tracer as well
    return [task.trace() for task in tasks]


#: what a row function that closes over a tracer raises outside of its program
_CLOSES_OVER_TRACER = (UnexpectedTracerError, TracerArrayConversionError)


def _floats(leaves: Iterable[Any]) -> list[np.ndarray]:
    """Arrays that can not be narrowed, other than those of indices."""
    arrays = (x for x in leaves if isinstance(x, np.ndarray) and x.ndim)
    return [x for x in arrays if x.dtype.kind in "fc"]


def _check_wide(arrays: Iterable[Any]) -> None:
    for dtype in {array.dtype for array in arrays}:
        check_not_narrowed(dtype)


def is_on_host(arrays: Sequence[Any]) -> bool:
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
    return trace_tasks(*partition(tasks))


def _holds_tracer(function: Any) -> bool:
    """Does a row function close over a tracer of the program around it?"""
    while not hasattr(function, "__code__") and hasattr(function, "function"):
        function = function.function  # a derivative of the row function
    cells = getattr(function, "__closure__", None) or ()
    contents = [cell.cell_contents for cell in cells]
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(contents))


class Slot(NamedTuple):
    """The place of an array that is given later."""

    position: int
    shape: tuple[int, ...]
    dtype: Any


class Recipe:
    """A plan of row functions on host data, to be run on other data again and again.

    :param plan: a map whose leaves are tasks, and the arrays of these are slots
    """

    def __init__(self, plan: TensorMap) -> None:
        self._structure = plan._structure
        self._n_leaves = len(plan._leaves)
        self._batches = [
            (at, Batch(group), [[slot.position for slot in column] for column in slots])
            for at, group, slots in _groups(dict(enumerate(plan._leaves)))
        ]
        self._n_runs = 0
        # one for each recipe, so that its programs are forgotten along with it
        self._give_back = jax.jit(lambda arrays: arrays)

    @collection_paused()
    def run(self, leaves: Sequence[Any], args: Sequence[Any]) -> TensorMap | None:
        """The map, from the arrays in the order of their slots.

        None if a row function closes over a tracer: it has to be traced.
        """
        _check_wide(leaves)
        # as in `_run_with_jax`: data that is known stays known
        with eval_context():
            try:
                results = self._put(self._results(leaves, args))
            except _CLOSES_OVER_TRACER:
                return None
        return TensorMap._unflatten(self._structure, results)

    def _put(self, arrays: list[Any]) -> list[Any]:
        """These arrays as JAX arrays, as fast as this recipe is worth it.

        A program that gives back what it is given takes 3 µs for each array, and
        `jax.device_put` takes 16; but the program has to be compiled for these shapes.
        """
        if _stay.get():
            return arrays
        self._n_runs += 1
        if len(arrays) < _MANY_ARRAYS or self._n_runs <= _RUNS_TO_PAY:
            return jax.device_put(arrays)
        first, given = jax.device_put(arrays[0]), self._give_back(arrays)
        # it is another one under `jax.set_mesh`, and none under `jax.disable_jit`
        if getattr(given[0], "sharding", None) == first.sharding:
            return given
        return jax.device_put(arrays)

    def _results(self, leaves: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        results: list[Any] = [None] * self._n_leaves
        for at, batch, positions in self._batches:
            columns = [[leaves[i] for i in column] for column in positions]
            for i, array in zip(at, batch.run(columns, args), strict=True):
                results[i] = array
        return results


#: a compilation takes as long as is gained in so many runs, for so many arrays or more
_RUNS_TO_PAY, _MANY_ARRAYS = 20, 32


def is_repeatable(function: Any, leaves: Sequence[Any], args: Sequence[Any]) -> bool:
    """Can this be run by a :class:`Recipe`, and is it worth to keep one?"""
    kinds = {type(x) for x in [*leaves, *jax.tree.leaves(args)]}
    if any(issubclass(kind, Tracer) for kind in kinds):
        return False
    if not all(isinstance(x, (np.ndarray, jax.Array)) for x in leaves):
        return False
    # planning takes a time for each block, which does not matter for large ones
    if sum(leaf.shape[0] for leaf in leaves) > _MANY_ROWS:
        return False
    return is_on_host(leaves) and not _holds_tracer(function)


_MANY_ROWS = 200_000


def _run_on_host(tasks: Sequence[Task]) -> list[Any]:
    """Moves by NumPy, and math on many tasks as one program."""
    results: list[Any] = [None] * len(tasks)
    functions: dict[int, MapTask] = {}
    for i, task in enumerate(tasks):
        if isinstance(task, MapTask) and not task.rearranges:
            functions[i] = task
        else:
            results[i] = task.read()
    for at, group, columns in _groups(functions):
        arrays = Batch(group).run(columns, group[0].args)
        for i, array in zip(at, arrays, strict=True):
            results[i] = array
    return results if _stay.get() else jax.device_put(results)


def _groups(tasks: Mapping[int, Any]) -> Iterator[tuple[list[int], list[MapTask], Any]]:
    """Tasks that run as one: where they are, these tasks, and the arrays they read."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for i, task in tasks.items():
        groups[task.signature()].append(i)
    for at in groups.values():
        group = [tasks[i] for i in at]
        yield at, group, list(zip(*(task.arrays() for task in group), strict=True))
