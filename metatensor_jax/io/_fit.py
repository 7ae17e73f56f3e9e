"""Blocks from what was read, without asking twice whether it fits together.

The constructors of blocks and maps accept whatever a user may pass, which takes longer
than to read a small block. Here is asked what can still be wrong about what came from
a file. Where that is anything at all, the constructors are called after all: they have
the words, and the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._types.block import TensorBlock
from .._types.labels import Labels

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
    parts = values, samples, components, properties
    if _fits(*parts) and all(
        [_gradient_fits(*item, *parts) for item in gradients.items()]
    ):
        return TensorBlock._make(*parts, gradients)
    return TensorBlock(*parts, gradients)


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
        and all(
            own is labels
            for own, labels in zip(structure.components[n:], components, strict=True)
        )
        and gradient._leaves[0].dtype == values.dtype
        and _rows_fit(structure.samples, len(samples._values))
    )


def _rows_fit(samples: Labels | None, n: int) -> bool:
    """Do all entries point to one of ``n`` rows?"""
    if samples is None or samples._values.size > _FEW:
        return False
    rows = samples._values[:, 0].tolist()
    return not rows or (min(rows) >= 0 and max(rows) < n)
