"""A store on a device: batches are gathered inside of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._types.arrays import is_tracer
from .._types.errors import MetatensorError
from .._types.labels import Labels
from ._flat import Rows
from ._gather import Recipe, Step
from ._layout import PaddedBatch


class StoreOnDevice:
    """All systems of a data set on a device: what :meth:`Store.on_device` gives.

    It is a pytree of arrays. Give it to a jitted function, and gather batches there, by
    positions of systems that are data: an epoch is one ``jax.lax.scan``.

    >>> import jax, jax.numpy as jnp
    >>> import metatensor_jax as mts
    >>> samples = Labels(["system", "atom"], [[0, 0], [0, 1], [1, 0], [2, 0]])
    >>> block = mts.TensorBlock(
    ...     np.arange(4.0, dtype="f4").reshape(4, 1), samples, [], Labels.range("p", 1)
    ... )
    >>> store = mts.Store.from_maps(mts.TensorMap(Labels.single(), [block]))
    >>> on_device = store.on_device(store.layout(systems=1))
    >>> @jax.jit
    ... def largest(store, order):
    ...     def step(carry, indices):
    ...         batch = store.batch(indices)
    ...         return jnp.maximum(carry, batch.tensors.block().values.max()), None
    ...
    ...     return jax.lax.scan(step, -jnp.inf, order)[0]
    >>> float(largest(on_device, jnp.array([[2], [0], [1]])))
    3.0
    """

    __slots__ = ("_own", "_recipe", "_rows")

    def __init__(self, recipe: Recipe, rows: Sequence[Rows], own: Any) -> None:
        self._recipe, self._rows, self._own = recipe, tuple(rows), own

    def __len__(self) -> int:
        return self._own.shape[0]

    def batch(self, indices: Any) -> PaddedBatch:
        """Some systems, padded: what ``store.batch`` gives, for the same layout.

        :param indices: positions of systems, at most as many as the layout is for, each
            of them once; -1 for none. They can be traced.
        :raises MetatensorError: more systems; and if they are not traced, a system that
            is there twice
        :raises IndexError: if they are not traced, a position that there is not
        :raises TypeError: what is no integer
        """
        recipe, n = self._recipe, self._recipe.n_systems
        indices = _checked(indices, len(self))
        if indices.ndim != 1 or indices.shape[0] > n:
            raise MetatensorError(
                f"`indices` must be at most {n} positions, as many as the layout is "
                f"for, got shape {indices.shape}"
            )
        missing = np.full(n - indices.shape[0], -1, np.int32)
        at = jnp.concatenate([indices, missing])
        is_there = at >= 0
        # those that are not there go last
        at = jnp.sort(jnp.where(is_there, at, len(self)))
        is_there = at < len(self)
        at = jnp.where(is_there, at, 0)
        parts = []
        for rows in self._rows:
            starts = rows.offsets[at]
            counts = jnp.where(is_there, rows.offsets[at + 1] - starts, 0)
            parts.append((starts, counts))
        leaves = []
        for step, rows, (starts, counts) in zip(
            recipe.steps, self._rows, parts, strict=True
        ):
            begins = None
            if step.parent is not None:
                of_parent = parts[step.parent][1]
                begins = _ends(of_parent) - of_parent
                if recipe.steps[step.parent].own_row:
                    begins = _count(n)
            leaves += _gathered(step, rows, starts, counts, begins)
        leaves.append(jnp.where(is_there, self._own[at], Labels.PADDING))
        leaves += [np.array(order, np.int32) for order in recipe.order]
        leaves += [
            jnp.stack([_came(parts[i][1]) for i in of_map])
            for of_map in recipe.own_rows
        ]
        return jax.tree.unflatten(recipe.structure, leaves)

    def __repr__(self) -> str:
        n = sum(len(rows.values) for rows in self._rows)
        return f"StoreOnDevice of {len(self)} systems, {n} rows"


jax.tree_util.register_pytree_node(
    StoreOnDevice,
    lambda store: ((store._rows, store._own), store._recipe),
    lambda recipe, leaves: StoreOnDevice(recipe, *leaves),
)


def _checked(indices: Any, n_systems: int) -> jax.Array:
    """Positions of systems; what is traced can not be looked at."""
    if not is_tracer(indices):
        known = np.asarray(indices)
        known = known.astype(np.int32) if known.size == 0 else known
        if known.dtype.kind in "iu" and known.size:
            if known.max() >= n_systems or known.min() < -1:
                raise IndexError(
                    f"there are {n_systems} systems, no system at "
                    f"{known.max() if known.max() >= n_systems else known.min()}"
                )
            there = known[known >= 0]
            if len(np.unique(there)) < len(there):
                raise MetatensorError(f"a system is there twice in {known.tolist()}")
        indices = known
    if not np.issubdtype(indices.dtype, np.integer):
        raise TypeError(f"`indices` must be positions of systems, not {indices.dtype}")
    return jnp.asarray(indices, jnp.int32)


def _gathered(
    step: Step, rows: Rows, starts: Any, counts: Any, begins: Any
) -> list[jax.Array]:
    """Values and samples of a block or a gradient.

    :param starts: where the rows of each system are
    :param counts: how many they are
    :param begins: where the parents' rows of each system begin in the batch
    """
    capacity = step.room[-1]
    if step.own_row:
        slot, is_row, source = _count(capacity), counts > 0, starts
    else:
        ends, at = _ends(counts), _count(capacity)
        slot = jnp.searchsorted(ends, at, side="right", method="compare_all")
        is_row, slot = at < ends[-1], jnp.minimum(slot, len(counts) - 1)
        slot = slot.astype(np.int32)
        source = at + (starts - (ends - counts))[slot]
    source = jnp.where(is_row, source, len(rows.values))
    values = _filled(rows.values, source, 0)
    samples = _filled(rows.samples, source, Labels.PADDING)
    if step.column is not None:
        own = jnp.where(is_row, slot, Labels.PADDING)
        samples = samples.at[:, step.column].set(own)
    if step.parent is not None:
        parents = jnp.where(is_row, samples[:, 0] + begins[slot], Labels.PADDING)
        samples = samples.at[:, 0].set(parents)
    return [values, samples]


def _filled(array: Any, source: Any, fill: Any) -> jax.Array:
    if array.shape[0] == 0:
        return jnp.full((source.shape[0], *array.shape[1:]), fill, array.dtype)
    return jnp.take(array, source, axis=0, mode="fill", fill_value=fill)


def _count(n: int) -> jax.Array:
    return jnp.arange(n, dtype=np.int32)


def _ends(counts: Any) -> jax.Array:
    return jnp.cumsum(counts, dtype=np.int32)


def _came(counts: Any) -> jax.Array:
    """Where the row of each system was before, in ascending order; -1 for none."""
    is_row = counts > 0
    return jnp.where(is_row, _ends(is_row) - 1, -1)
