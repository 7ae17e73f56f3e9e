"""Plans that are kept, to be run again on other data.

Eager calls often see the same labels again, frame by frame or epoch by epoch. To plan
what happens to each block then takes longer than to do it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jax
import numpy as np

from .._types.structure import MapStructure
from .._types.tensor import TensorMap
from ..collector import collection_paused
from ._programs import Batch
from ._run import (
    CLOSES_OVER_TRACER,
    check_wide,
    execute,
    groups_of,
    is_on_host,
    is_staying_on_host,
    outside_of_programs,
)
from ._tasks import Task


@dataclass(frozen=True)
class Slot:
    """The place of an array that is given later."""

    position: int
    shape: tuple[int, ...]
    dtype: Any


#: the shape and dtype of each leaf of some maps
ArrayTypes = tuple[tuple[tuple[int, ...], Any], ...]


def types_of(leaves: Sequence[Any]) -> ArrayTypes:
    """All that a plan needs to know of the data."""
    return tuple([(leaf.shape, leaf.dtype) for leaf in leaves])


def with_slots(
    structures: Sequence[MapStructure], types: ArrayTypes
) -> list[TensorMap]:
    """Maps with slots for their arrays, all numbered in a row."""
    slots = iter([Slot(i, *array) for i, array in enumerate(types)])
    return [
        TensorMap._unflatten(structure, islice(slots, structure.offsets[-1]))
        for structure in structures
    ]


def is_hashable(value: Any) -> bool:
    """Can this be a part of the key that a plan is kept by?"""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def is_repeatable(leaves: Sequence[Any]) -> bool:
    """Is this data that a plan can be kept for, and is it worth that?"""
    kinds = {type(x) for x in leaves}
    # tracers are instances of `jax.Array`, but their class is no subclass
    if not all(issubclass(kind, (np.ndarray, jax.Array)) for kind in kinds):
        return False
    return sum(leaf.shape[0] for leaf in leaves) <= _MANY_ROWS and is_on_host(leaves)


#: planning takes a time for each block, which matters little for large ones; and the
#: labels and indices of these take memory
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


def kept(plan: Callable[..., TensorMap]) -> Callable[..., TensorMap]:
    """Decorator: from the plan of a map of moved rows, the map.

    :param plan: takes a map and hashable options. It reads nothing of the arrays but
        their shapes and dtypes.
    """

    @functools.wraps(plan)
    def call(tensor: TensorMap, *options: Any) -> TensorMap:
        structure, leaves = tensor._structure, tensor._leaves
        can_keep = structure.is_static and is_hashable(options)
        if not (can_keep and is_repeatable(leaves)):
            return execute(plan(tensor, *options))
        return execute(
            _filled(_keep(plan, structure, types_of(leaves), *options), leaves)
        )

    return call


# typed, as `fill_value=1` is not `True`; few, as index arrays and labels can be large
@functools.lru_cache(maxsize=16, typed=True)
def _keep(
    plan: Callable[..., TensorMap],
    structure: MapStructure,
    types: ArrayTypes,
    *options: Any,
) -> TensorMap:
    return plan(*with_slots([structure], types), *options)


def _filled(plan: TensorMap, arrays: Sequence[Any]) -> TensorMap:
    """A plan with arrays in place of its slots."""
    leaves = [
        leaf.of_slots(arrays) if isinstance(leaf, Task) else arrays[leaf.position]
        for leaf in plan._leaves
    ]
    return TensorMap._unflatten(plan._structure, leaves)
