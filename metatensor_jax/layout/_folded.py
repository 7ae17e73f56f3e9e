"""Many arrays as one buffer for each dtype: few arrays travel faster than many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types.arrays import aligned, is_jax, read_only
from .._types.display import in_treescope
from ._display import folded_html

#: an array begins a cache line, so that JAX can read it where it is
_LINE = 64


class Place(NamedTuple):
    """Where an array is: the dtype of its buffer, its elements there, its shape."""

    dtype: str
    start: int
    stop: int
    shape: tuple[int, ...]


class Fold(NamedTuple):
    """How a pytree of arrays lies in its buffers: all of it that is no data.

    :param structure: of the pytree
    :param places: where each of its leaves is
    :param sizes: how many elements there are of each dtype, by its name
    """

    structure: Any
    places: tuple[Place, ...]
    sizes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, structure: Any, specs: Sequence[Any]) -> Fold:
        """For leaves with these shapes and dtypes."""
        ends: dict[str, int] = {}
        places = []
        for spec in specs:
            dtype = np.dtype(spec.dtype)
            start = ends.get(dtype.name, 0)
            stop = start + math.prod(spec.shape)
            places.append(Place(dtype.name, start, stop, tuple(spec.shape)))
            line = max(_LINE // dtype.itemsize, 1)
            ends[dtype.name] = -(-stop // line) * line
        return cls(structure, tuple(places), tuple(sorted(ends.items())))

    def empty(self) -> list[np.ndarray]:
        """Buffers of anything."""
        return [aligned((n,), np.dtype(name), zero=False) for name, n in self.sizes]

    def arrays(self, buffers: Sequence[Any]) -> list[Any]:
        """Views of NumPy's buffers; in a program, static slices."""
        of = {name: x for (name, _), x in zip(self.sizes, buffers, strict=True)}
        return [
            of[dtype][start:stop].reshape(shape)
            for dtype, start, stop, shape in self.places
        ]


class Folded:
    """A pytree of arrays as one buffer for each dtype; a pytree itself.

    A transfer to a device and a call of a jitted function take time for each array,
    however small: some 15 µs and 5 µs. A padded batch of many blocks is hundreds of
    them. Give a jitted function the folded batch, and call :meth:`unfold` inside.

    >>> import jax
    >>> from metatensor_jax.layout._folded import fold
    >>> folded = fold({"a": np.ones((2, 3)), "b": np.zeros(4), "c": np.arange(2)})
    >>> len(jax.tree.leaves(folded))
    2
    >>> folded.unfold()["c"].tolist()
    [0, 1]
    """

    __slots__ = ("_buffers", "_fold")

    def __init__(self, fold: Fold, buffers: Iterable[Any]) -> None:
        self._fold, self._buffers = fold, tuple(buffers)

    @property
    def structure(self) -> Any:
        """Of the pytree."""
        return self._fold.structure

    def unfold(self) -> Any:
        """The pytree. Outside of a program, NumPy's arrays are views of the buffers."""
        arrays = self._fold.arrays(self._buffers)
        return jax.tree.unflatten(self._fold.structure, arrays)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}[{n}]" for name, n in self._fold.sizes)
        return f"Folded({len(self._fold.places)} arrays in {sizes})"

    def _repr_html_(self) -> str:
        return folded_html(self)

    __treescope_repr__ = in_treescope(repr)


jax.tree_util.register_pytree_node(
    Folded, lambda folded: (folded._buffers, folded._fold), Folded
)


def fold(tree: Any) -> Folded:
    """Lay the arrays of a pytree into one buffer for each dtype.

    :param tree: any pytree of arrays, such as a :class:`PaddedBatch`
    """
    leaves, structure = jax.tree.flatten(tree)
    how = Fold.of(structure, leaves)
    if any(map(is_jax, leaves)):
        return Folded(how, _traced_buffers(how, leaves))
    buffers = how.empty()
    for array, leaf in zip(how.arrays(buffers), leaves, strict=True):
        array[...] = leaf
    return Folded(how, map(read_only, buffers))


def _traced_buffers(how: Fold, leaves: Sequence[Any]) -> list[jax.Array]:
    """The buffers by JAX: arrays end to end, with what is between them."""
    buffers = []
    for name, size in how.sizes:
        parts, end = [], 0
        for place, leaf in zip(how.places, leaves, strict=True):
            if place.dtype == name:
                parts += [jnp.zeros(place.start - end, name), jnp.ravel(leaf)]
                end = place.stop
        buffers.append(jnp.concatenate([*parts, jnp.zeros(size - end, name)]))
    return buffers
