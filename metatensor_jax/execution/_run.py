"""How tasks run: traced, by NumPy, or as few programs on the host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import numpy as np
from jax.core import Tracer, eval_context
from jax.errors import TracerArrayConversionError, UnexpectedTracerError

from .._types.arrays import read_only
from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from .._types.tensor import TensorMap
from ._programs import Batch, partition, trace_tasks
from ._tasks import MapTask, PlaceTask, Task
from ._workers import read_all

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


def is_staying_on_host() -> bool:
    """Is this a step in the middle of an operation, see :func:`staying_on_host`?"""
    return _stay.get()


@contextmanager
def outside_of_programs() -> Iterator[None]:
    """For math on data that is known, also while a program around it is traced.

    It stays known. And `jax.transfer_guard` does not hold here: it is for transfers
    that the user does not know of, while moves and row functions take their indices
    from the host, whoever calls them.
    """
    with eval_context(), jax.transfer_guard_host_to_device("allow"):
        yield


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
    by_numpy, others = [], []
    for i, task in enumerate(tasks):
        (by_numpy if task.only_moves and _all_numpy(task) else others).append(i)
    arrays = read_all([tasks[i] for i in by_numpy])
    for i, array in zip(by_numpy, arrays, strict=True):
        results[i] = read_only(array)
    if others:
        arrays = _run_with_jax([tasks[i] for i in others])
        for i, array in zip(others, arrays, strict=True):
            results[i] = array
    return results


def _all_numpy(task: Task) -> bool:
    kinds = {type(leaf) for leaf in task.leaves()}
    return not any(issubclass(kind, (jax.Array, Tracer)) for kind in kinds)


def _run_with_jax(tasks: Sequence[Task]) -> list[Any]:
    arrays = [array for task in tasks for array in task.arrays()]
    leaves = [leaf for task in tasks for leaf in task.leaves()]
    check_wide([*arrays, *_floats(leaves)])
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return _trace(tasks)
    with outside_of_programs():
        try:
            return _run_on_host(tasks) if is_on_host(arrays) else _trace(tasks)
        except CLOSES_OVER_TRACER:
            pass  # its result is a tracer as well
    return [task.trace() for task in tasks]


#: what a row function that closes over a tracer raises outside of its program
CLOSES_OVER_TRACER = (UnexpectedTracerError, TracerArrayConversionError)


def _floats(leaves: Iterable[Any]) -> list[np.ndarray]:
    """Arrays that can not be narrowed, other than those of indices."""
    arrays = (x for x in leaves if isinstance(x, np.ndarray) and x.ndim)
    return [x for x in arrays if x.dtype.kind in "fc"]


def check_wide(arrays: Iterable[Any]) -> None:
    """Raise if JAX would narrow one of these."""
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
    if any(isinstance(t, MapTask) and holds_tracer(t.function) for t in tasks):
        return [task.trace() for task in tasks]  # what is cached would hold it as well
    return trace_tasks(*partition(tasks))


def holds_tracer(function: Any) -> bool:
    """Does a row function close over a tracer of the program around it?"""
    while not hasattr(function, "__code__") and hasattr(function, "function"):
        function = function.function  # a derivative of the row function
    cells = getattr(function, "__closure__", None) or ()
    contents = [cell.cell_contents for cell in cells]
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(contents))


def _run_on_host(tasks: Sequence[Task]) -> list[Any]:
    """Moves by NumPy, and math on many tasks as one program."""
    results: list[Any] = [None] * len(tasks)
    functions: dict[int, MapTask] = {}
    moves = []
    for i, task in enumerate(tasks):
        if isinstance(task, MapTask) and not task.rearranges:
            functions[i] = task
        else:
            moves.append(i)
    for i, array in zip(moves, read_all([tasks[i] for i in moves]), strict=True):
        results[i] = array
    for at, group, columns in groups_of(functions):
        arrays = Batch(group).run(columns, group[0].args)
        for i, array in zip(at, arrays, strict=True):
            results[i] = array
    return results if is_staying_on_host() else jax.device_put(results)


def groups_of(
    tasks: Mapping[int, Any],
) -> Iterator[tuple[list[int], list[MapTask], Any]]:
    """Tasks that run as one: where they are, these tasks, and the arrays they read."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for i, task in tasks.items():
        groups[task.signature()].append(i)
    for at in groups.values():
        group = [tasks[i] for i in at]
        yield at, group, list(zip(*(task.arrays() for task in group), strict=True))
