"""Which systems each batch of an epoch has: the same everywhere, from the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._types.errors import MetatensorError

#: so many batches are filled at a time: more would be fuller, but less random
_OPEN = 16


@dataclass(frozen=True)
class Plan:
    """Which systems each batch of an epoch has.

    It depends on nothing but these numbers and the epoch: all processes of a run make
    the same one, each of them takes its share, and a run that goes on makes it again.

    :param n_systems: how many there are
    :param batch_size: how many systems a batch has at most
    :param shuffle: in another order in each epoch
    :param seed: of the order
    :param drop_last: leave out batches with fewer systems, or less of the budget
    :param budget: how much a batch has at most of what is counted by ``sizes``
    :param sizes: of each system, such as its number of atoms, pairs or rows
    :param shard: this process and how many there are: each has as many batches, so that
        some may be left out
    :raises MetatensorError: a system that is larger than the budget, numbers that are
        too small

    >>> plan = Plan(5, batch_size=2)
    >>> [batch.tolist() for batch in plan.batches(epoch=0)]
    [[0, 1], [2, 3], [4]]
    >>> plan = Plan(4, batch_size=4, budget=6, sizes=[5, 2, 4, 1])
    >>> [batch.tolist() for batch in plan.batches(epoch=0)]
    [[0, 3], [1, 2]]
    """

    n_systems: int
    batch_size: int = 1
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    budget: int | None = None
    sizes: Any = None
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise MetatensorError(
                f"`batch_size` must be at least 1, not {self.batch_size}"
            )
        if self.seed < 0:
            raise MetatensorError(f"`seed` must be at least 0, not {self.seed}")
        index, count = self.shard
        if not 0 <= index < count:
            raise MetatensorError(
                f"`shard` is this process and how many there are, not {self.shard}"
            )
        if (self.budget is None) != (self.sizes is None):
            raise MetatensorError(
                "give both `budget` and what it counts, or none of them, got "
                f"{self.budget} and {self.sizes}"
            )
        if self.budget is not None:
            self._check_sizes()

    def _check_sizes(self) -> None:
        sizes = np.asarray(self.sizes)
        if sizes.shape != (self.n_systems,):
            raise MetatensorError(
                f"sizes must be one for each of the {self.n_systems} systems, got "
                f"shape {sizes.shape}"
            )
        if len(sizes) and sizes.max() > self.budget:
            i = int(sizes.argmax())
            raise MetatensorError(
                f"system {i} has a size of {sizes[i]}, but the budget of a batch is "
                f"{self.budget}: make it larger, or leave this system out"
            )

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The systems of each batch that this process has in an epoch."""
        whole = self.all_batches(epoch)
        index, count = self.shard
        n_each = len(whole) // count if count > 1 else len(whole)
        return whole[index : n_each * count : count]

    def all_batches(self, epoch: int) -> list[np.ndarray]:
        """The systems of each batch of all processes."""
        order = np.arange(self.n_systems)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        return self._cut(order) if self.budget is None else self._packed(order)

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        n = self.batch_size
        stop = len(order) - len(order) % n if self.drop_last else len(order)
        return [order[i : i + n] for i in range(0, stop, n)]

    def _packed(self, order: np.ndarray) -> list[np.ndarray]:
        """Each system goes to the first open batch that has room for it."""
        budget: Any = self.budget
        sizes = np.asarray(self.sizes)[order].tolist()
        batches: list[list[int]] = []
        rooms: list[int] = []
        still_open: list[int] = []
        for system, size in zip(order.tolist(), sizes, strict=True):
            at = next((b for b in still_open if rooms[b] >= size), None)
            if at is None:
                at = len(batches)
                batches.append([])
                rooms.append(budget)
                still_open.append(at)
            batches[at].append(system)
            rooms[at] -= size
            if rooms[at] == 0 or len(batches[at]) == self.batch_size:
                still_open.remove(at)
            elif len(still_open) > _OPEN:
                still_open.remove(min(still_open, key=rooms.__getitem__))
        left = set(still_open) if self.drop_last else set()
        return [np.array(x) for i, x in enumerate(batches) if i not in left]

    def fill(self, batches: Sequence[np.ndarray]) -> float:
        """How much of the room of these batches is used, from 0 to 1."""
        if not batches:
            return 1.0
        if self.budget is None:
            return float(np.mean([len(batch) for batch in batches]) / self.batch_size)
        sizes = np.asarray(self.sizes)
        return float(np.mean([sizes[batch].sum() for batch in batches]) / self.budget)
