"""The rows of blocks, one system after the other: what a store is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .._host.packing import inverse
from .._types.block import TensorBlock
from .._types.labels import Labels
from .._types.structure import BlockStructure


class Rows(NamedTuple):
    """The rows of a block, or of a gradient, one system after the other.

    :param values: as in the block
    :param samples: the values of the labels. Of gradients, the dimension ``"sample"``
        counts from the first row of the system, and that of systems has no meaning.
    :param offsets: where the rows of each system begin, and the end
    """

    values: np.ndarray
    samples: np.ndarray
    offsets: np.ndarray


def flat_rows(
    block: TensorBlock, systems: np.ndarray, n_systems: int
) -> Iterator[Rows]:
    """The rows of a block, and those of its gradients, as ``BlockStructure.walk``.

    :param systems: the position of the system of each row
    """
    yield from _flat(
        block, block.samples._host_values("a store").copy(), systems, n_systems
    )


def _flat(
    block: TensorBlock, samples: np.ndarray, systems: np.ndarray, n_systems: int
) -> Iterator[Rows]:
    counts = np.bincount(systems, minlength=n_systems)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    order = np.argsort(systems, kind="stable")
    yield Rows(np.asarray(block.values)[order], samples[order], offsets)
    within = (inverse(order) - offsets[systems]).astype(np.int32)
    for name, _ in block._structure.gradients:
        gradient = block.gradient(name)
        rows = gradient.samples._host_values("a store").copy()
        parents = rows[:, 0]
        own = systems[parents]
        rows[:, 0] = within[parents]
        yield from _flat(gradient, rows, own, n_systems)


def no_rows(row: tuple[tuple[int, ...], str], n_columns: int, n_systems: int) -> Rows:
    """Those of a block that is not there.

    :param row: shape and dtype of a row of the values
    """
    shape, dtype = row
    return Rows(
        np.zeros((0, *shape), dtype),
        np.zeros((0, n_columns), np.int32),
        np.zeros(n_systems + 1, np.int64),
    )


def traced(structure: BlockStructure) -> BlockStructure:
    """The same with samples that are data."""
    samples = Labels._make(structure.sample_names, None, static=False)
    gradients = tuple((name, traced(inner)) for name, inner in structure.gradients)
    return BlockStructure(
        samples, structure.components, structure.properties, gradients
    )
