"""Blocks from what was read, without asking twice whether it fits together.

The constructors of blocks and maps accept whatever a user may pass, which takes longer
than to read a small block. Here is asked what can still be wrong about what came from
a file. Where that is anything at all, the constructors are called after all: they have
the words, and the last one.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import numpy as np

from .._types.block import TensorBlock
from .._types.labels import Labels
from .._types.structure import BlockStructure
from .._types.tensor import TensorMap

#: up to so many integers, Python's ``min`` and ``max`` are faster than NumPy's
_FEW = 256


def make_block(
    values: np.ndarray,
    samples: Labels,
    components: Sequence[Labels],
    properties: Labels,
    gradients: Mapping[str, TensorBlock],
) -> TensorBlock:
    """A block, see :class:`TensorBlock`.

    :param values: numbers
    :param gradients: blocks that this function made
    """
    components = tuple(components)
    fits = _fits(values, samples, components, properties)
    for name, gradient in gradients.items():
        fits = fits and _gradient_fits(
            name, gradient, values, samples, components, properties
        )
    make = TensorBlock._make if fits else TensorBlock
    return make(values, samples, components, properties, gradients)


def make_map(
    keys: Labels, blocks: Sequence[TensorBlock], info: Mapping[str, str]
) -> TensorMap:
    """A map, see :class:`TensorMap`; its digest is made when it is asked for.

    :param blocks: one for each key, that :func:`make_block` made
    :param info: text
    """
    kinds = [(_kind(block._structure), block._leaves[0].dtype) for block in blocks]
    if kinds and kinds.count(kinds[0]) == len(kinds) == len(keys):
        return TensorMap._make(keys, blocks, tuple(sorted(info.items())))
    return TensorMap(keys, blocks, info)


def _kind(structure: BlockStructure) -> list:
    """What must be the same for all blocks of a map: all names."""
    return [
        (
            path,
            part.sample_names,
            part.properties._names,
            [labels._names for labels in part.components],
        )
        for path, part in structure.walk()
    ]


def _fits(
    values: np.ndarray,
    samples: Labels,
    components: tuple[Labels, ...],
    properties: Labels,
) -> bool:
    """Do all axes have their labels, and components a name each?"""
    axes = (samples, *components, properties)
    if values.shape != tuple([len(labels._values) for labels in axes]):
        return False
    if not components:
        return True
    names = [labels._names for labels in components]
    return len(set(names)) == len(names) and {1} == set(map(len, names))


def _gradient_fits(
    name: str,
    gradient: TensorBlock,
    values: np.ndarray,
    samples: Labels,
    components: tuple[Labels, ...],
    properties: Labels,
) -> bool:
    """Is this one a gradient of these values?"""
    structure = gradient._structure
    n = len(structure.components) - len(components)
    return (
        # other names, and other labels that are equal, are for the constructor
        name.isidentifier()
        and structure.sample_names[:1] == ("sample",)
        and structure.properties is properties
        and n >= 0
        and all(map(operator.is_, structure.components[n:], components))
        and gradient._leaves[0].dtype == values.dtype
        and _rows_fit(structure.samples, len(samples._values))
    )


def _rows_fit(samples: Labels | None, n: int) -> bool:
    """Do all entries point to one of ``n`` rows?"""
    if samples is None or samples._values.size > _FEW:
        return False
    rows = samples._values[:, 0].tolist()
    return not rows or (min(rows) >= 0 and max(rows) < n)
