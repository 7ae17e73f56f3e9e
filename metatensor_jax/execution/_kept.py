"""Plans that are kept: run again on other data, and compiled once that pays.

Eager calls often see the same labels again, frame by frame or epoch by epoch. To plan
what happens to each block then takes longer than to do it, so plans are kept. And what
no single call is worth, a program for exactly these shapes, pays off some time: it is
compiled once all calls before have lost as much time as that takes. So nobody loses
more than half, and whoever calls often gets nearly all there is to gain.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..collector import collection_paused
from ..structure import MapStructure
from ..tensor import TensorMap
from ._programs import Batch, combine, partition
from ._run import (
    CLOSES_OVER_TRACER,
    check_wide,
    execute,
    groups_of,
    holds_tracer,
    is_on_host,
    is_staying_on_host,
    outside_of_programs,
)
from ._tasks import PlaceTask, Task


@dataclass(frozen=True)
class Slot:
    """The place of an array that is given later."""

    position: int
    shape: tuple[int, ...]
    dtype: Any


#: the shape and dtype of each leaf of some maps
Arrays = tuple[tuple[tuple[int, ...], Any], ...]


def arrays_of(leaves: Sequence[Any]) -> Arrays:
    """All that a plan needs to know of the data."""
    return tuple([(leaf.shape, leaf.dtype) for leaf in leaves])


def with_slots(structures: Sequence[MapStructure], arrays: Arrays) -> list[TensorMap]:
    """Maps with slots for their arrays, all numbered in a row."""
    slots = iter([Slot(i, *array) for i, array in enumerate(arrays)])
    return [
        TensorMap._unflatten(structure, [next(slots) for _ in range(n)])
        for structure in structures
        for n in [structure.offsets[-1]]
    ]


def is_hashable(value: Any) -> bool:
    """Can this be a part of the key that a plan is kept by?"""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def is_repeatable(function: Any, leaves: Sequence[Any], args: Sequence[Any]) -> bool:
    """Can a plan for this be kept, and is it worth that?"""
    kinds = {type(x) for x in [*leaves, *jax.tree.leaves(args)]}
    if any(issubclass(kind, Tracer) for kind in kinds):
        return False
    if not all(isinstance(x, (np.ndarray, jax.Array)) for x in leaves):
        return False
    # planning takes a time for each block, which does not matter for large ones
    if sum(leaf.shape[0] for leaf in leaves) > _MANY_ROWS:
        return False
    return is_on_host(leaves) and not holds_tracer(function)


_MANY_ROWS = 200_000


class KeptFunctions:
    """A plan of row functions.

    :param plan: a map whose leaves are tasks, and the arrays of these are slots
    """

    def __init__(self, plan: TensorMap) -> None:
        self._structure = plan._structure
        self._n_leaves = len(plan._leaves)
        self._batches = [
            (at, Batch(group), [[slot.position for slot in column] for column in slots])
            for at, group, slots in groups_of(dict(enumerate(plan._leaves)))
        ]
        self._n_runs = 0
        # one for each plan, so that its programs are forgotten along with it
        self._give_back = jax.jit(lambda arrays: arrays)

    @collection_paused()
    def run(self, leaves: Sequence[Any], args: Sequence[Any]) -> TensorMap | None:
        """The map, from the arrays in the order of their slots.

        None if a row function closes over a tracer: it has to be traced.
        """
        check_wide(leaves)
        with outside_of_programs():
            try:
                results = self._put(self._results(leaves, args))
            except CLOSES_OVER_TRACER:
                return None
        return TensorMap._unflatten(self._structure, results)

    def _put(self, arrays: list[Any]) -> list[Any]:
        """These arrays as JAX arrays, as fast as this plan is worth it.

        A program that gives back what it is given takes 3 µs for each array, and
        `jax.device_put` takes 16; but the program has to be compiled for these shapes.
        """
        if is_staying_on_host():
            return arrays
        self._n_runs += 1
        if len(arrays) < _MANY_ARRAYS or self._n_runs <= _RUNS_TO_PAY:
            return jax.device_put(arrays)
        given = self._give_back(arrays)
        return given if _is_as_put(given) else jax.device_put(arrays)

    def _results(self, leaves: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        results: list[Any] = [None] * self._n_leaves
        for at, batch, positions in self._batches:
            columns = [[leaves[i] for i in column] for column in positions]
            for i, array in zip(at, batch.run(columns, args), strict=True):
                results[i] = array
        return results


#: a compilation takes as long as is gained in so many runs, for so many arrays or more
_RUNS_TO_PAY, _MANY_ARRAYS = 20, 32


def _is_as_put(arrays: Sequence[Any]) -> bool:
    """Are results of a program where `jax.device_put` puts arrays?

    They are somewhere else under `jax.set_mesh`, and there is no program under
    `jax.disable_jit`.
    """
    usual = jax.device_put(np.zeros(())).sharding
    return getattr(arrays[0], "sharding", None) == usual


def kept(plan: Callable[..., TensorMap]) -> Callable[..., TensorMap]:
    """Decorator: from the plan of a map of moved rows, the map.

    :param plan: takes a map and hashable options. It reads nothing of the arrays but
        their shapes and dtypes.
    """

    @functools.wraps(plan)
    def call(tensor: TensorMap, *options: Any) -> TensorMap:
        structure, leaves = tensor._structure, tensor._leaves
        can_keep = structure.is_static and is_hashable(options)
        if not (can_keep and is_repeatable(plan, leaves, ())):
            return execute(plan(tensor, *options))
        return _keep(plan, structure, arrays_of(leaves), *options).run(leaves)

    return call


# typed, as `fill_value=1` is not `True`; few, as index arrays and labels can be large
@functools.lru_cache(maxsize=16, typed=True)
def _keep(
    plan: Callable[..., TensorMap],
    structure: MapStructure,
    arrays: Arrays,
    *options: Any,
) -> KeptMoves:
    return KeptMoves(plan(*with_slots([structure], arrays), *options))


class KeptMoves:
    """A plan of moves.

    :param plan: a map whose leaves are tasks, and the arrays of these are slots
    """

    def __init__(self, plan: TensorMap) -> None:
        self._plan = plan
        self._tasks = [leaf for leaf in plan._leaves if isinstance(leaf, Task)]
        self._program: Callable[..., list[Any]] | None = None
        self._n_runs, self._runs_to_pay = 0, _runs_to_pay(self._tasks)

    @collection_paused()
    def run(self, leaves: Sequence[Any]) -> TensorMap:
        """The map, from the arrays in the order of their slots."""
        self._n_runs += 1
        if self._n_runs > self._runs_to_pay and _is_plain(leaves):
            arrays = self._run_program(leaves)
            if arrays is not None:
                return self._with(lambda leaf: next(arrays), leaves)
        return execute(self._with(lambda task: task.of_slots(leaves), leaves))

    def _with(self, function: Callable[[Task], Any], leaves: Sequence[Any]) -> Any:
        """The plan, with ``function`` of each task in its place."""
        plan = self._plan
        filled = [
            function(leaf) if isinstance(leaf, Task) else leaves[leaf.position]
            for leaf in plan._leaves
        ]
        return TensorMap._unflatten(plan._structure, filled)

    def _run_program(self, leaves: Sequence[Any]) -> Any:
        """The results of all tasks, one by one; None if they are somewhere else."""
        if self._program is None:
            self._program = _compiled(self._tasks)
        with outside_of_programs():
            arrays = self._program(leaves)
            if isinstance(leaves[0], np.ndarray):
                return iter([np.asarray(array) for array in arrays])
            return iter(arrays) if _is_as_put(arrays) else None


def _runs_to_pay(tasks: Sequence[Task]) -> float:
    """After how many runs by NumPy a program pays off: it moves data on all cores."""
    pieces = [piece for task in tasks for piece in task.pieces]
    n_bytes = sum(
        math.prod((piece.n_rows, *piece.row_shape)) * piece.array.dtype.itemsize
        for piece in pieces
    )
    return len(pieces) * _BYTES_TO_PAY / n_bytes if n_bytes else math.inf


#: so much data moves 10 ms faster, which is the time to compile one piece of a task
_BYTES_TO_PAY = 30_000_000


def _is_plain(leaves: Sequence[Any]) -> bool:
    """Does a program for these give what NumPy gives: dtypes, devices, no errors?"""
    if jax.config.jax_debug_nans or jax.config.jax_debug_infs:  # type: ignore[attr-defined]
        return False
    if len({leaf.dtype for leaf in leaves}) != 1 or not _is_held(leaves[0].dtype):
        return False
    if isinstance(leaves[0], np.ndarray):
        return all(isinstance(leaf, np.ndarray) for leaf in leaves)
    return all(isinstance(leaf, jax.Array) and not leaf.committed for leaf in leaves)


def _is_held(dtype: Any) -> bool:
    """Has JAX this dtype, and does not narrow it?"""
    try:
        return jax.eval_shape(jnp.asarray, np.zeros((), dtype)).dtype == dtype
    except TypeError:
        return False


def _compiled(tasks: Sequence[Task]) -> Callable[..., list[Any]]:
    """A program for all tasks, of the arrays for their slots."""
    gathers = [t.as_gather() if isinstance(t, PlaceTask) else t for t in tasks]
    indices, static = partition(gathers)
    indices = jax.device_put(indices)

    @jax.jit
    def program(leaves: Sequence[Any], indices: Any) -> list[Any]:
        return [t.of_slots(leaves).trace() for t in combine(indices, static)]

    return lambda leaves: program(leaves, indices)
