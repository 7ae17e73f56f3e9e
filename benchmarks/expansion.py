"""keys_to_properties and keys_to_samples of a spherical expansion: times and targets.

By hand means copies of bare arrays, with NumPy or under jit, where the rows that go
together are known already. See ``operations.py``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import metatensor
import numpy as np
from timing import (
    WALL,
    Bare,
    Times,
    Variant,
    build,
    heading,
    measure,
    report,
    with_gradient,
)

import metatensor_jax as ours

N_TYPES, MAX_LAMBDA, N_ATOMS, N_RADIAL = 4, 4, 2_000, 4
KEY_NAMES = ["o3_lambda", "center_type", "neighbor_type"]


def keys() -> None:
    """A spherical expansion. By hand: copies, where the index arrays are known.

    Eager calls see labels for the first time, or again: then there is a plan.
    """
    n_blocks = (MAX_LAMBDA + 1) * N_TYPES**2
    for per_row in (0, 3):
        expansion = _expansion(per_row)
        with_or_without = "with gradients" if per_row else "no gradients"
        heading(f"keys of {n_blocks} blocks, {N_ATOMS:,} atoms, {with_or_without}")
        for method, moved in (
            ("keys_to_properties", "neighbor_type"),
            ("keys_to_samples", "center_type"),
        ):
            for how, times in _measure_keys(expansion, method, moved):
                report(f"{method}, {how}", times, speedup=5 if per_row else 2)
            times = _measure_jitted_keys(expansion, method, moved)
            report(f"{method}, under jit", times, overhead=1.5)


Expansion = dict[tuple[int, int, int], Bare]


def _expansion(gradient_rows: int) -> Expansion:
    """Blocks whose samples overlap, but differ between types of neighbours."""
    rng = np.random.default_rng(0)
    atom = np.arange(N_ATOMS, dtype=np.int32)
    samples = np.stack([atom // 20, atom % 20], 1)
    center = rng.integers(N_TYPES, size=N_ATOMS)
    has_neighbor = rng.random((N_TYPES, N_ATOMS)) < 0.8
    blocks = {}
    for o3_lambda in range(MAX_LAMBDA + 1):
        for pair in np.ndindex(N_TYPES, N_TYPES):
            rows = samples[(center == pair[0]) & has_neighbor[pair[1]]]
            bare = Bare(rng.random((len(rows), 2 * o3_lambda + 1, N_RADIAL)), rows)
            if gradient_rows:
                bare = with_gradient(bare, 20, gradient_rows)
            blocks[o3_lambda, *pair] = bare
    return blocks


def _measure_keys(
    expansion: Expansion, method: str, moved: str
) -> Iterator[tuple[str, Times]]:
    copies = _copies(expansion, method)

    def by_hand(_: Any) -> Any:
        return [copy(np) for copy in copies]

    def call(tensor: Any) -> Any:
        return getattr(tensor, method)(moved)

    def theirs() -> Any:
        return build(metatensor, KEY_NAMES, list(expansion), list(expansion.values()))

    systems = itertools.count(step=1_000)

    def new() -> Any:
        first = next(systems)
        bares = [_renumbered(bare, first) for bare in expansion.values()]
        return build(ours, KEY_NAMES, list(expansion), bares)

    def seen(arrays: str) -> Any:
        tensor = new().to(arrays=arrays)
        call(tensor)
        return tensor

    first = measure(
        Variant(call, new, fresh=True),
        Variant(call, theirs, fresh=True),
        Variant(by_hand),
        clock=WALL,
    )
    yield "new labels", first
    for arrays in ("numpy", "jax"):
        setup = functools.partial(seen, arrays)
        again = measure(Variant(call, setup), clock=WALL, rounds=25)
        yield f"again, {arrays}", first._replace(ours=again.ours)


def _renumbered(bare: Bare, first_system: int) -> Bare:
    """The same with other systems, so that nobody has seen these labels before."""
    samples, rows = bare.samples.copy(), bare.gradient_samples
    samples[:, 0] += first_system
    if rows is not None:
        rows = rows.copy()
        rows[:, 1] += first_system
    return bare._replace(samples=samples, gradient_samples=rows)


def _measure_jitted_keys(expansion: Expansion, method: str, moved: str) -> Any:
    copies = _copies(expansion, method)
    bares = list(expansion.values())
    program = jax.jit(lambda tensor: getattr(tensor, method)(moved))

    @jax.jit
    def by_hand(arrays: Any) -> Any:
        return [copy(jnp, arrays) for copy in copies]

    def tensor() -> Any:
        return build(ours, KEY_NAMES, list(expansion), bares).to(arrays="jax")

    return measure(
        Variant(program, tensor),
        None,
        Variant(
            by_hand,
            lambda: {
                id(array): jnp.asarray(array) for bare in bares for array in bare.arrays
            },
        ),
        clock=WALL,
        rounds=15,
    )


class _Copy:
    """One array of the result: rows of several arrays.

    :param beside: the arrays are columns of the result, otherwise rows
    :param places: where the rows of each array go; the last of them is the number of
        rows of the result
    """

    def __init__(
        self, arrays: list[np.ndarray], rows: list[np.ndarray], beside: bool
    ) -> None:
        self.arrays, self.beside = arrays, beside
        together = np.concatenate(rows).astype(np.int64)
        width = together.max(axis=0) + 1
        keys = np.zeros(len(together), np.int64)
        for i in range(together.shape[1]):
            keys = keys * width[i] + together[:, i]
        entries, inverse = np.unique(keys, return_inverse=True)
        self.n = len(entries)
        self.places = np.split(inverse, np.cumsum([len(r) for r in rows])[:-1])

    def __call__(self, module: Any, on_device: Any = None) -> Any:
        if on_device is None:
            return self._by_numpy()
        arrays = [on_device[id(array)] for array in self.arrays]
        if not self.beside:
            order = np.argsort(np.concatenate(self.places))
            return jnp.concatenate(arrays)[order]
        columns = []
        for array, places in zip(arrays, self.places, strict=True):
            source = np.full(self.n, len(array))
            source[places] = np.arange(len(array))
            columns.append(jnp.take(array, source, 0, mode="fill", fill_value=0))
        return jnp.concatenate(columns, -1)

    def _by_numpy(self) -> np.ndarray:
        first = self.arrays[0]
        if not self.beside:
            out = np.empty((self.n, *first.shape[1:]))
            for array, places in zip(self.arrays, self.places, strict=True):
                out[places] = array
            return out
        out = np.zeros((self.n, *first.shape[1:-1], N_RADIAL * len(self.arrays)))
        for i, (array, places) in enumerate(zip(self.arrays, self.places, strict=True)):
            out[places, ..., i * N_RADIAL : (i + 1) * N_RADIAL] = array
        return out


def _copies(expansion: Expansion, method: str) -> list[_Copy]:
    beside = method == "keys_to_properties"
    moved = 2 if beside else 1
    groups: dict[Any, list[Any]] = {}
    for key, bare in expansion.items():
        left = tuple(k for i, k in enumerate(key) if i != moved)
        groups.setdefault(left, []).append((key[moved], bare))
    copies = []
    for members in groups.values():
        bares = [bare for _, bare in members]
        rows = [bare.samples for bare in bares]
        if not beside:
            rows = [
                np.insert(r, 2, k, axis=1)
                for (k, _), r in zip(members, rows, strict=True)
            ]
        values = _Copy([bare.values for bare in bares], rows, beside)
        copies.append(values)
        if bares[0].gradient is not None:
            gradient_rows = [
                np.column_stack([places[bare.gradient_samples[:, 0]], r[:, 1:]])
                for bare, places, r in (
                    (b, p, b.gradient_samples)
                    for b, p in zip(bares, values.places, strict=True)
                )
            ]
            gradients = [bare.gradient for bare in bares]
            copies.append(_Copy(gradients, gradient_rows, beside))
    return copies
