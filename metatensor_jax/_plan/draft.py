"""Drafts: blocks and maps as planners see them, with nodes in the place of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._run import traced
from .._run.ops import ALL, Compute, Constant, Gather, Pick, Take
from .._run.program import Node
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.structure import BlockStructure, MapStructure

#: row numbers: known on the host, or data
Index = np.ndarray | Node


def compute(
    function: Callable[..., Any],
    shape: tuple[int, ...],
    dtype: Any,
    inputs: Sequence[Node],
    *options: Any,
) -> Node:
    """An array that a function of arrays gives, see :class:`Compute`."""
    return Node(shape, np.dtype(dtype), Compute(function, options), tuple(inputs))


def constant(array: np.ndarray) -> Node:
    """An array that is known."""
    return Node(array.shape, array.dtype, Constant(array))


def parents_of(samples: Labels) -> Index:
    """For gradient samples: the rows of the values that they belong to."""
    if samples.is_static:
        return samples.values[:, 0]
    node = samples.values
    return compute(traced.parents_of, node.shape[:1], node.dtype, [node])


class Rows(NamedTuple):
    """Some rows of an array that is not there yet."""

    node: Node
    pick: Pick = ALL

    @property
    def n_rows(self) -> int:
        """How many rows these are."""
        return self.pick.n_rows(self.node)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self.node.shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all of them."""
        return (self.n_rows, *self.row_shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the array."""
        return self.node.dtype

    def take(self, index: Index, fill: bool = False) -> Rows:
        """Rows of these rows; ``fill`` is that of :class:`Pick`."""
        if isinstance(index, np.ndarray):
            return Rows(self.node, self.pick.take(index, self.node.shape[0], fill))
        shape = (index.shape[0], *self.row_shape)
        return Rows(Node(shape, self.dtype, Take(fill), (self.as_node(), index)))

    def as_node(self) -> Node:
        """These rows as an array of their own."""
        if self.pick.index is None:
            return self.node
        return Node(self.shape, self.dtype, Gather((self.pick,)), (self.node,))


class Draft(NamedTuple):
    """A block whose values are yet to be computed.

    :param rows: the values
    :param samples: static labels, or traced ones whose values are a node
    :param gradients: drafts themselves, by parameter
    :param is_constant: rows of a plain array: a coefficient of functions that are
        linear in the rows of blocks
    """

    rows: Rows
    samples: Labels
    components: tuple[Labels, ...]
    properties: Labels
    gradients: Mapping[str, Draft]
    is_constant: bool = False

    def structure(self) -> BlockStructure:
        """The static half of the block."""
        gradients = sorted(self.gradients.items())
        return BlockStructure(
            self.samples,
            self.components,
            self.properties,
            tuple([(name, gradient.structure()) for name, gradient in gradients]),
        )

    def leaves(self) -> Iterator[Node]:
        """What is to be computed, in the order of the leaves of a block."""
        yield self.rows.as_node()
        if not self.samples.is_static:
            yield self.samples.values
        for _, gradient in sorted(self.gradients.items()):
            yield from gradient.leaves()


class DraftMap(NamedTuple):
    """A map of drafts."""

    keys: Labels
    blocks: Sequence[Draft]
    info: tuple[tuple[str, str], ...] = ()

    def structure(self) -> MapStructure:
        """The static half of the map."""
        blocks = tuple([block.structure() for block in self.blocks])
        return MapStructure(self.keys, blocks, self.info)

    def leaves(self) -> Iterator[Node]:
        """What is to be computed, in the order of the leaves of a map."""
        for block in self.blocks:
            yield from block.leaves()


def draft_map(structure: MapStructure, leaves: Iterator[Node]) -> DraftMap:
    """A map whose arrays are these nodes."""
    blocks = [draft_block(block, leaves) for block in structure.blocks]
    return DraftMap(structure.keys, blocks, structure.info)


def draft_block(structure: BlockStructure, leaves: Iterator[Node]) -> Draft:
    """A block whose arrays are the next of these nodes."""
    rows, samples = Rows(next(leaves)), structure.samples
    check_axes(rows.node, structure)
    if samples is None:
        samples = Labels._make(structure.sample_names, next(leaves), static=False)
    gradients = {name: draft_block(x, leaves) for name, x in structure.gradients}
    return Draft(rows, samples, structure.components, structure.properties, gradients)


def draft_array(node: Node, samples: Labels) -> Draft:
    """One row of a plain array for each sample."""
    return Draft(Rows(node), samples, (), samples, {}, is_constant=True)


def check_axes(values: Any, structure: BlockStructure) -> None:
    """Raise if values have other axes than labels: outside of ``vmap``, say.

    :param values: anything with a shape
    """
    n_axes = 2 + len(structure.components)
    if len(values.shape) != n_axes:
        raise MetatensorError(
            f"the values have shape {tuple(values.shape)}, but there are labels for "
            f"{n_axes} axes: maps that are stacked, for `jax.vmap` or by it, can only "
            "be used inside of it. Call the function through `jax.vmap`, or take one "
            "map with `jax.tree.map(lambda x: x[i], tensor)`"
        )
