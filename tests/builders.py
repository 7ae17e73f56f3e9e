"""Blocks and maps for tests: random values from a seed, gradients as asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import metatensor_jax as mts

try:
    from jax import enable_x64
except ImportError:  # older versions of JAX
    from jax.experimental import enable_x64

__all__ = ["Gradient", "assert_same", "block", "enable_x64", "names_of", "tensor"]


class Gradient(NamedTuple):
    """What a gradient should look like.

    :param components: sizes of the components that come before those of the values
    :param rows: the row of the values for each of its rows, in any order and as often
        as it comes (rows that the values do not have are left out); None: all of
        them, twice
    :param gradients: gradients of this gradient
    """

    components: Sequence[int] = (3,)
    rows: Sequence[int] | None = None
    gradients: Mapping[str, Gradient] | None = None


def block(
    n_samples: int = 4,
    components: Sequence[int] = (),
    n_properties: int = 2,
    gradients: Mapping[str, Gradient] | None = None,
    seed: int = 0,
    dtype: Any = np.float32,
    *,
    arrays: str = "numpy",
    traced: bool = False,
    first_system: int = 0,
) -> mts.TensorBlock:
    """A block with random values.

    :param components: sizes of the components, which are named component_0, ...
    :param gradients: the gradients, by parameter
    :param arrays: ``"numpy"`` or ``"jax"``
    :param traced: make the samples of the block and of all gradients traced
    :param first_system: the samples are two atoms for each system from here on
    """
    rows = np.arange(n_samples)
    samples = np.stack([first_system + rows // 2, rows % 2], axis=1)
    return _Builder(np.random.default_rng(seed), np.dtype(dtype), arrays, traced).block(
        _labels(["system", "atom"], samples),
        [mts.Labels.range(f"component_{i}", n) for i, n in enumerate(components)],
        mts.Labels.range("property", n_properties),
        gradients or {},
    )


def tensor(
    sizes: Sequence[int] = (3, 1, 4),
    components: Sequence[int] = (),
    n_properties: int | Sequence[int] = 2,
    gradients: Mapping[str, Gradient] | None = None,
    seed: int = 0,
    dtype: Any = np.float32,
    *,
    keys: mts.Labels | None = None,
    info: Mapping[str, str] | None = None,
    **options: Any,
) -> mts.TensorMap:
    """A map with random values: a block for each number of samples in ``sizes``.

    :param n_properties: for each block, or for all of them
    :param keys: by default o3_lambda = 0, 1, 0, ... and center_type = 0, 0, 1, ...
    :param options: the other options of :func:`block`
    """
    if isinstance(n_properties, int):
        n_properties = [n_properties] * len(sizes)
    if keys is None:
        rows = np.arange(len(sizes))
        keys = _labels(["o3_lambda", "center_type"], np.stack([rows % 2, rows // 2], 1))
    blocks = [
        block(n, components, p, gradients, seed + i, dtype, **options)
        for i, (n, p) in enumerate(zip(sizes, n_properties, strict=True))
    ]
    return mts.TensorMap(keys, blocks, info)


class _Builder(NamedTuple):
    rng: np.random.Generator
    dtype: np.dtype
    arrays: str
    traced: bool

    def block(
        self,
        samples: mts.Labels,
        components: list[mts.Labels],
        properties: mts.Labels,
        gradients: Mapping[str, Gradient],
        depth: int = 0,
    ) -> mts.TensorBlock:
        shape = (len(samples), *map(len, components), len(properties))
        built = {
            name: self.gradient(name, gradient, samples, components, properties, depth)
            for name, gradient in gradients.items()
        }
        if self.traced:
            samples = mts.Labels.traced(samples.names, jnp.asarray(samples.values))
        return mts.TensorBlock(
            self.values(shape), samples, components, properties, built
        )

    def gradient(
        self,
        name: str,
        gradient: Gradient,
        samples: mts.Labels,
        components: list[mts.Labels],
        properties: mts.Labels,
        depth: int,
    ) -> mts.TensorBlock:
        rows = gradient.rows
        if rows is None:
            rows = [row for row in range(len(samples)) for _ in range(2)]
        rows = [row for row in rows if row < len(samples)]
        # The second column tells rows with the same parent apart.
        seen = [rows[:i].count(row) for i, row in enumerate(rows)]
        # The depth keeps the names apart in gradients of gradients.
        extra = [
            mts.Labels.range(f"{name}_{depth}_{i}", n)
            for i, n in enumerate(gradient.components)
        ]
        return self.block(
            _labels(["sample", "other"], np.stack([np.array(rows, int), seen], 1)),
            [*extra, *components],
            properties,
            gradient.gradients or {},
            depth + 1,
        )

    def values(self, shape: tuple[int, ...]) -> Any:
        values = self.rng.normal(size=shape)
        if self.dtype.kind == "c":
            values = values + 1j * self.rng.normal(size=shape)
        if self.dtype.kind in "iub":
            values = self.rng.integers(
                0, 2 if self.dtype.kind == "b" else 10, size=shape
            )
        values = values.astype(self.dtype)
        return jnp.asarray(values) if self.arrays == "jax" else values


def _labels(names: list[str], values: Any) -> mts.Labels:
    return mts.Labels(names, np.asarray(values, np.int32).reshape(-1, len(names)))


def assert_same(actual: Any, expected: Any) -> None:
    """The same type, structure and labels, and the same arrays bit for bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def names_of(tree: Any) -> list[str]:
    """How JAX names each leaf."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in paths]
