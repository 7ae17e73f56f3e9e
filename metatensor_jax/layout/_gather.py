"""From the flat rows of a store to padded batches, by NumPy."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.structure import MapStructure
from .._types.tensor import TensorMap
from ._capacity import ALONE, BlockRoom, below, where
from ._fit import check_same_room
from ._flat import Rows, no_rows
from ._folded import Fold, Folded
from ._layout import Layout, PaddedBatch
from ._pad import check_same_kind


class Step(NamedTuple):
    """One block or gradient of a padded batch.

    :param what: which one, in words
    :param room: how many rows there are room for, in each bucket
    :param row: shape and dtype of a row of the values
    :param n_columns: how many sample dimensions there are
    :param column: which of them is the system; None if none is
    :param parent: the step that this is a gradient of; None for a block
    :param own_row: the row of a system has the place of the system
    """

    what: str
    room: tuple[int, ...]
    row: tuple[tuple[int, ...], str]
    n_columns: int
    column: int | None
    parent: int | None
    own_row: bool


class Recipe(NamedTuple):
    """What all batches of a layout have in common; none of it is data.

    :param steps: the blocks and gradients, in the order of the leaves of a batch
    :param order: for each map, where each block is in the store; -1 for nowhere
    :param own_rows: for each map whose systems have a row each, the steps of its blocks
    :param n_systems: for how many systems there is room
    :param structure: of a :class:`PaddedBatch`
    """

    steps: tuple[Step, ...]
    order: tuple[tuple[int, ...], ...]
    own_rows: tuple[tuple[int, ...], ...]
    n_systems: int
    structure: Any


class Filling:
    """Fills the batches of a layout; what does not depend on the batch is done once."""

    def __init__(
        self,
        layout: Layout,
        structures: Mapping[str, MapStructure],
        rows: Mapping[str, Sequence[Sequence[Rows]]],
        dtypes: Mapping[str, str],
        n_systems: int,
    ) -> None:
        missing = sorted(set(layout.rooms) - set(structures))
        if missing:
            raise MetatensorError(
                f"the layout is for the maps {sorted(layout.rooms)}, but the store has "
                f"{sorted(structures)}"
            )
        self._layout = layout
        self.rows: list[Rows] = []
        steps: list[Step] = []
        order: dict[str, list[int]] = {}
        own_rows: dict[str, list[int]] = {}
        for name in sorted(layout.rooms):
            room, structure = layout.rooms[name], structures[name]
            check_same_kind(structure.info, dtypes[name], room)
            order[name] = _order(name, room.keys, structure.keys)
            alone = all(b.sample_names == (layout.system,) for b in room.blocks)
            if alone:
                own_rows[name] = []
            for at, key, block in zip(order[name], room.keys, room.blocks, strict=True):
                what, there = where(name, key.print()), None
                if at >= 0:
                    check_same_room(what, block.structure(), structure.blocks[at])
                    there = iter(rows[name][at])
                if alone:
                    own_rows[name].append(len(steps))
                for step in _steps(
                    what, block, layout.system, room.dtype, alone, len(steps)
                ):
                    steps.append(step)
                    of_step = no_rows(step.row, step.n_columns, n_systems)
                    self.rows.append(of_step if there is None else next(there))
        n = layout.systems
        self._folds = {
            bucket: self._fold(steps, order, own_rows, bucket)
            for bucket in range(len(layout.fractions))
        }
        self.recipe = Recipe(
            tuple(steps),
            tuple(map(tuple, order.values())),
            tuple(map(tuple, own_rows.values())),
            n,
            self._folds[0].structure,
        )
        shape = (len(steps), n_systems + 1)
        self._offsets = np.array([x.offsets for x in self.rows]).reshape(shape)
        n_buckets = len(layout.fractions)
        self._room = np.array([x.room for x in steps]).reshape(len(steps), n_buckets)

    def _fold(
        self, steps: Any, order: Mapping[str, Any], own_rows: Mapping[str, Any], i: int
    ) -> Fold:
        """Where the arrays of a batch are, in this bucket."""
        layout = self._layout
        spec: Any = jax.ShapeDtypeStruct
        shapes = iter([x for step in steps for x in _shapes(step, i)])
        tensors = {
            name: TensorMap._unflatten(
                structure, [next(shapes) for _ in range(structure.offsets[-1])]
            )
            for name, structure in sorted(layout._structures.items())
        }
        n = layout.systems
        batch = PaddedBatch(
            tensors.get(ALONE, tensors),
            spec((n,), np.int32),
            {name: spec((len(at),), np.int32) for name, at in order.items()},
            layout.system,
            {name: spec((len(x), n), np.int32) for name, x in own_rows.items()},
        )
        specs, structure = jax.tree.flatten(batch)
        return Fold.of(structure, specs)

    def batch(
        self, systems: np.ndarray, at: np.ndarray
    ) -> tuple[Folded, list[np.ndarray]]:
        """The systems at these positions, in ascending order.

        :param systems: the own number of each system of the store
        :returns: the batch, and its leaves, which are views of its buffers
        """
        if len(at) > self._layout.systems:
            raise MetatensorError(
                f"the batch has {len(at)} systems, but the layout has room for "
                f"{self._layout.systems}"
            )
        starts = self._offsets[:, at]
        counts = self._offsets[:, at + 1] - starts
        fold = self._folds[self._bucket(counts)]
        begins = counts.cumsum(axis=1) - counts
        buffers = fold.empty()
        leaves = fold.arrays(buffers)
        arrays = iter(leaves)
        rows = _Gathered(starts, counts)
        for i, (step, store) in enumerate(
            zip(self.recipe.steps, self.rows, strict=True)
        ):
            values, samples = next(arrays), next(arrays)
            if step.own_row:
                there = counts[i].nonzero()[0]
                values[...], samples[...] = 0, Labels.PADDING
                values[there] = store.values[starts[i, there]]
                samples[there, 0] = there
                continue
            source, slot = rows.of(i)
            n = len(source)
            if n:
                store.values.take(source, 0, values[:n], "clip")
                store.samples.take(source, 0, samples[:n], "clip")
            values[n:], samples[n:] = 0, Labels.PADDING
            if step.column is not None:
                samples[:n, step.column] = slot
            if step.parent is not None:
                of_one = self.recipe.steps[step.parent].own_row
                samples[:n, 0] += slot if of_one else begins[step.parent][slot]
        own = next(arrays)
        own[: len(at)], own[len(at) :] = systems[at], Labels.PADDING
        for positions in self.recipe.order:
            next(arrays)[...] = positions
        for of_map in self.recipe.own_rows:
            came = next(arrays)
            for row, i in zip(came, of_map, strict=True):
                there = np.flatnonzero(counts[i])
                row[...] = -1
                row[there] = np.arange(len(there))
        for array in (*buffers, *leaves):
            array.flags.writeable = False
        return Folded(fold, buffers), leaves

    def _bucket(self, counts: np.ndarray) -> int:
        """The smallest that so many rows of each system fit into."""
        total = counts.sum(axis=1)
        for bucket, room in enumerate(self._room.T):
            if (total <= room).all():
                return bucket
        i = int((total > self._room[:, -1]).argmax())
        raise MetatensorError(
            f"{self.recipe.steps[i].what} has {total[i]} rows, but the layout has room "
            f"for {self._room[i, -1]}: make it with more room, such as "
            f"`store.layout(systems={counts.shape[1]}, headroom=1.2)`, or make smaller "
            "batches"
        )

    def overhead(self, batches: Sequence[np.ndarray]) -> float:
        """Rows with padding over those without, of the systems of these batches."""
        sizes = np.diff(self._offsets, axis=1)
        counts = [sizes[:, batch] for batch in batches]
        padded = sum(int(self._room[:, self._bucket(x)].sum()) for x in counts)
        return padded / max(sum(int(x.sum()) for x in counts), 1)

    def check_largest(self) -> None:
        """Raise unless any systems fit, as many as a batch has."""
        counts = np.sort(np.diff(self._offsets, axis=1), axis=1)
        self._bucket(counts[:, -self._layout.systems :])


def _order(name: str, wanted: Labels, there: Labels) -> list[int]:
    """Where each block is in the store; -1 for those that are not."""
    for key in there:
        if wanted.position(key) is None:
            raise MetatensorError(
                f"the layout has no room for the {where(name, key.print())}, only for\n"
                f"{wanted}\nmake one with `store.layout`"
            )
    found = [there.position(key) for key in wanted]
    return [-1 if at is None else at for at in found]


def _steps(
    what: str,
    room: BlockRoom,
    system: str,
    dtype: str,
    own_row: bool,
    n_before: int,
    parent: int | None = None,
    path: str = "samples",
) -> Iterator[Step]:
    """A block, and its gradients, as ``BlockStructure.walk``."""
    row = (*map(len, room.components), len(room.properties))
    names = room.sample_names
    column = names.index(system) if system in names else None
    own_row = own_row and parent is None
    named = what if parent is None else f"{what}, gradient '{path}'"
    yield Step(named, room.rows, (row, dtype), len(names), column, parent, own_row)
    at = n_before + 1
    for name, inner in room.gradients:
        inside = below(path, name)
        of_gradient = list(
            _steps(what, inner, system, dtype, False, at, n_before, inside)
        )
        yield from of_gradient
        at += len(of_gradient)


def _shapes(step: Step, bucket: int) -> list[jax.ShapeDtypeStruct]:
    n, (row, dtype) = step.room[bucket], step.row
    return [
        jax.ShapeDtypeStruct((n, *row), np.dtype(dtype)),
        jax.ShapeDtypeStruct((n, step.n_columns), np.int32),
    ]


@functools.lru_cache
def _slots(n_steps: int, n_systems: int) -> np.ndarray:
    """The number of each system in the batch, for each step."""
    return np.tile(np.arange(n_systems, dtype=np.int32), n_steps)


class _Gathered:
    """Where the rows of all steps are, and which system each is of: worked out at once.

    :param starts: where the rows of each system begin, for each step
    :param counts: how many they are
    """

    def __init__(self, starts: np.ndarray, counts: np.ndarray) -> None:
        n_steps, n_systems = counts.shape
        flat = counts.ravel()
        self._ends = [0, *counts.sum(axis=1).cumsum().tolist()]
        # from the number of each row among those of all steps to where it is
        shift = starts.ravel() - (flat.cumsum() - flat)
        self._source = shift.repeat(flat) + np.arange(self._ends[-1])
        self._slot = _slots(n_steps, n_systems).repeat(flat)

    def of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Of one step."""
        rows = slice(self._ends[step], self._ends[step + 1])
        return self._source[rows], self._slot[rows]
