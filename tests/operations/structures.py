"""Inputs for the operations: small maps that are known functions of parameters.

Each block is ``x(t) = x + first t + t second t / 2``, so the derivatives that are
stored in a map, and the values of the map anywhere else, come from the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from reference import Smooth, Tree

import metatensor_jax as mts

# (system, atom) and (n, l), in no order; a block has some that follow each other
SAMPLES = [(1, 0), (0, 2), (1, 2), (0, 0), (0, 1), (1, 1), (2, 1)]
PROPERTIES = [(1, 0), (0, 1), (0, 0), (1, 1), (0, 2), (1, 2)]
KEYS = [(0, 0), (1, 0), (0, 1), (1, 1)]
COMPONENTS = [[1, -1, 0], [2, 0]]


class Size(NamedTuple):
    """The axes of one block: how many labels, and the first of them."""

    n_samples: int
    n_properties: int
    first_sample: int = 0
    first_property: int = 0


class Part(NamedTuple):
    """One block as a function of parameters."""

    smooth: Smooth
    samples: mts.Labels
    components: tuple[mts.Labels, ...]
    properties: mts.Labels

    def stored(self) -> mts.TensorBlock:
        """The block at zero, with its derivatives as gradients."""
        return self._labelled(self.smooth.block(), self.samples, len(self.components))

    def _labelled(
        self, block: mts.TensorBlock, samples: mts.Labels, n_own: int
    ) -> mts.TensorBlock:
        extra = block.components[: len(block.components) - n_own]
        gradients = {
            name: self._labelled(gradient, gradient.samples, n_own)
            for name, gradient in block.gradients()
        }
        axes = [*extra, *self.components]
        return mts.TensorBlock(block.values, samples, axes, self.properties, gradients)

    def at(self, theta: np.ndarray) -> mts.TensorBlock:
        """The block somewhere else, without gradients."""
        x = self.smooth
        curved = np.tensordot(theta, np.tensordot(theta, x.second, 1), 1)
        values = x.values + np.tensordot(theta, x.first, 1) + curved / 2
        return mts.TensorBlock(values, self.samples, self.components, self.properties)


class Input(NamedTuple):
    """A map as a function of parameters."""

    keys: mts.Labels
    parts: list[Part]
    tree: Tree

    def stored(self) -> mts.TensorMap:
        """The map at zero, with its derivatives as gradients."""
        return mts.TensorMap(self.keys, [part.stored() for part in self.parts])

    def at(self, theta: np.ndarray) -> mts.TensorMap:
        """The map somewhere else, without gradients."""
        return mts.TensorMap(self.keys, [part.at(theta) for part in self.parts])

    def change(self, function: Callable[[Part], Part]) -> Input:
        """The same with other blocks."""
        return self._replace(parts=[function(part) for part in self.parts])

    def positive(self) -> Input:
        """The same with positive values."""
        return self.change(
            lambda part: part._replace(
                smooth=part.smooth._replace(values=_positive(part.smooth.values))
            )
        )


class Structure(NamedTuple):
    """What a map is like."""

    name: str
    sizes: Sequence[Size]
    components: Sequence[int] = ()
    tree: Tree = {}  # noqa: RUF012 (never changed)
    density: float = 0.5
    dtype: str = "float64"

    def input(self, seed: int = 0) -> Input:
        """A map like this, with gradient rows and values that depend on the seed."""
        names = [f"component_{i}" for i, _ in enumerate(self.components)]
        axes = tuple(
            mts.Labels(name, np.reshape(COMPONENTS[i][:n], (-1, 1)))
            for i, (name, n) in enumerate(zip(names, self.components, strict=True))
        )
        parts = [self._part(size, axes, 10 * seed + i) for i, size in self._numbered()]
        keys = np.array(KEYS[: len(parts)], np.int32).reshape(-1, 2)
        return Input(mts.Labels(["a", "b"], keys), parts, self.tree)

    def _numbered(self) -> list[tuple[int, Size]]:
        return list(enumerate(self.sizes))

    def _part(self, size: Size, axes: tuple[mts.Labels, ...], seed: int) -> Part:
        shape = (*map(len, axes), size.n_properties)
        smooth = Smooth.random(
            size.n_samples, shape, self.tree, self.density, seed, self.dtype
        )
        values = smooth.values
        # away from zero, where division, the absolute value and powers are singular
        values = values + np.where(values.real < 0, -1, 1).astype(values.dtype)
        rows = SAMPLES[size.first_sample :][: size.n_samples]
        columns = PROPERTIES[size.first_property :][: size.n_properties]
        return Part(
            smooth._replace(values=values),
            _labels(["system", "atom"], rows),
            axes,
            _labels(["n", "l"], columns),
        )

    @property
    def smallest(self) -> int:
        """The smallest number of samples or properties; 0 if there is no block."""
        return min((min(size[:2]) for size in self.sizes), default=0)

    @property
    def is_nested(self) -> bool:
        """Are there gradients of gradients?"""
        return any(self.tree.values())


def _positive(values: np.ndarray) -> np.ndarray:
    return np.abs(values).astype(values.dtype)


def _labels(names: Sequence[str], rows: Sequence[tuple[int, int]]) -> mts.Labels:
    return mts.Labels(names, np.array(rows, np.int32).reshape(-1, 2))


TWO = (Size(4, 3), Size(3, 3, 2))
SEVERAL = (Size(3, 3, 1), Size(5, 2, 0, 1), Size(2, 3))
PLAIN: Tree = {"positions": (), "strain": ()}

STRUCTURES: Mapping[str, Structure] = {
    s.name: s
    for s in [
        Structure("no_gradients", TWO),
        Structure("dense", TWO, (), PLAIN, 1.0),
        Structure("sparse", TWO, (), {"positions": ()}, 0.3),
        Structure("several", SEVERAL, (2,), {"cell": (), "positions": ()}),
        Structure("two_components", [Size(3, 2)], (3, 2), {"cell": ()}),
        Structure(
            "nested",
            [Size(4, 3)],
            (2,),
            {"positions": ("positions", "strain"), "strain": ("positions",)},
        ),
        Structure("complex", [Size(4, 3)], (), PLAIN, dtype="complex128"),
        Structure(
            "no_samples",
            [Size(0, 3), Size(2, 3)],
            (),
            {"positions": ("cell",), "cell": ()},
        ),
        Structure("no_properties", [Size(3, 0), Size(3, 2)], (2,), {"strain": ()}),
        Structure("no_blocks", []),
        # all of it: an empty block, a component, gradients, some of them nested
        Structure(
            "mixed",
            [Size(4, 3), Size(0, 2), Size(3, 2, 2, 1)],
            (2,),
            {"positions": ("strain",), "strain": ()},
        ),
        Structure("small", [Size(3, 3), Size(2, 3, 3)], (), {"strain": ()}),
        Structure("one_component", [Size(3, 2)], (3,), {"strain": ()}),
        Structure("plain_component", [Size(3, 2)], (3,)),
        # no gradient row is missing, and all groups have at least three members
        Structure("groups", [Size(6, 6)], (), {"strain": ()}, 1.0),
        Structure("complete", SEVERAL, (2,), {"strain": ()}, 1.0),
        # the same samples everywhere; as many equations as unknowns
        Structure("square", [Size(3, 3), Size(3, 3)]),
        Structure("square_with_gradient", [Size(1, 3)], (), {"strain": ()}, 1.0),
    ]
}


def convert(tensor: mts.TensorMap, dtype: Any, arrays: str = "numpy") -> mts.TensorMap:
    """The map with another dtype; integers are not all zero."""
    if np.dtype(dtype).kind == "i":
        # not by rounding: sums of groups must not become zero by chance
        tensor = jax.tree.map(lambda x: np.rint(7 * x), tensor)
    return tensor.to(dtype=dtype, arrays=arrays)


def traced(tensor: mts.TensorMap) -> mts.TensorMap:
    """The map with samples that are data, in gradients as well."""
    return mts.TensorMap(tensor.keys, [traced_block(block) for block in tensor])


def traced_block(block: mts.TensorBlock) -> mts.TensorBlock:
    """A block with samples that are data, in gradients as well."""
    samples = mts.Labels.traced(block.samples.names, jnp.asarray(block.samples.values))
    gradients = {name: traced_block(gradient) for name, gradient in block.gradients()}
    return mts.TensorBlock(
        block.values, samples, block.components, block.properties, gradients
    )


def blocks_of(result: Any) -> list[mts.TensorBlock]:
    """All blocks in the result of an operation: a map, a block, or a list of these."""
    if isinstance(result, mts.TensorBlock):
        return [result]
    if isinstance(result, mts.TensorMap):
        return result.blocks()
    return [block for part in result for block in blocks_of(part)]
