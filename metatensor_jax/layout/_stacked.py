"""Blocks of equal shape as one array: one large program step for many small ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._run.batch import round_up
from .._run.functions import combine, partition
from .._types.arrays import Array, is_jax
from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from .._types.display import in_treescope
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.structure import BlockStructure, MapStructure
from .._types.tensor import TensorMap
from ..operations.checks import check_type
from ..operations.rows import map_rows
from ._display import stacked_html, stacked_short, stacked_text
from ._items import items_of

Groups = tuple[tuple[int, ...], ...]


def stack_blocks(tensor: TensorMap) -> StackedMap:
    """Hold the blocks of equal shape of a map as one array.

    :param tensor: a map. Blocks go together if their components, properties and
        gradients have the same sizes, and their numbers of samples are similar: these
        are filled up to the largest of them.

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((4, 3), "f4"))
    >>> tensor = TensorMap(Labels.range("key", 2), [block, block])
    >>> stacked = stack_blocks(tensor)
    >>> [array.shape for array in jax.tree.leaves(stacked)]
    [(2, 4, 3)]
    >>> stacked.unstack() == tensor
    True
    """
    check_type(tensor, "tensor", TensorMap)
    together: defaultdict[Any, list[int]] = defaultdict(list)
    for i, block in enumerate(tensor):
        together[_shape_of(block)].append(i)
    groups = tuple(tuple(members) for members in together.values())
    blocks = tensor.blocks()
    leaves = [_stack([blocks[i] for i in members]) for members in groups]
    return StackedMap(tensor._structure, groups, leaves)


def _shape_of(block: TensorBlock) -> Any:
    """Blocks with the same go into one array."""
    shapes = []
    for path, part in block._walk():
        rows = round_up(len(part)) if part.samples.is_static else len(part)
        names = tuple(part.samples.names)
        shapes.append((path, rows, part.shape[1:], str(part.dtype), names))
    return tuple(shapes)


def _stack(blocks: Sequence[TensorBlock]) -> list[Any]:
    """The leaves of blocks with a new first axis; rows are filled up with zeros."""
    leaves = []
    for parts in zip(*[block._walk() for block in blocks], strict=True):
        values = [part.values for _, part in parts]
        samples = [part.samples for _, part in parts]
        n = max(map(len, samples))
        leaves.append(_stack_arrays(values, n, 0))
        if not samples[0].is_static:
            of_each = [labels.values for labels in samples]
            leaves.append(_stack_arrays(of_each, n, Labels.PADDING))
    return leaves


def _stack_arrays(arrays: Sequence[Any], n: int, fill: int) -> Any:
    module: Any = jnp if any(is_jax(array) for array in arrays) else np
    filled = [
        array
        if len(array) == n
        else module.pad(
            array,
            [(0, n - len(array)), *[(0, 0)] * (array.ndim - 1)],
            constant_values=fill,
        )
        for array in arrays
    ]
    return module.stack(filled)


class StackedMap:
    """A map whose blocks of equal shape are one array: made by :func:`stack_blocks`.

    It is a pytree, whose leaves are the arrays. The metadata is that of the map.
    """

    __slots__ = ("_groups", "_leaves", "_structure")

    def __init__(
        self, structure: MapStructure, groups: Groups, leaves: Sequence[list[Array]]
    ) -> None:
        self._structure, self._groups, self._leaves = structure, groups, list(leaves)

    @property
    def keys(self) -> Labels:
        """The key of each block."""
        return self._structure.keys

    @property
    def groups(self) -> Groups:
        """The positions of the blocks that each array holds."""
        return self._groups

    def row_of(self, block: int) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of one row of a block."""
        for members, leaves in zip(self._groups, self._leaves, strict=True):
            if block in members:
                return tuple(leaves[0].shape[2:]), leaves[0].dtype
        raise IndexError(f"there are {len(self)} blocks, no block {block}")

    def __len__(self) -> int:
        return len(self._structure.blocks)

    def __repr__(self) -> str:
        return stacked_text(self)

    def _repr_html_(self) -> str:
        return stacked_html(self)

    __treescope_repr__ = in_treescope(stacked_short)

    def unstack(self) -> TensorMap:
        """The map, with an array for each block."""
        blocks: list[Any] = [None] * len(self)
        for members, leaves in zip(self._groups, self._leaves, strict=True):
            for i, *own in zip(members, *map(items_of, leaves), strict=True):
                structure = self._structure.blocks[i]
                cut = _cut(structure, iter(own))
                blocks[i] = TensorBlock._unflatten(structure, cut)
        return TensorMap._make(self.keys, blocks, self._structure.info)

    def map_rows(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        properties: Sequence[Labels],
        groups: Groups | None = None,
    ) -> StackedMap:
        """:func:`map_rows` for all blocks of an array at once.

        :param function: takes a row of a block, then the arguments of that block
        :param args: for each group, a tuple of pytrees whose arrays have an item for
            each of its blocks as their first axis
        :param properties: of the result, for each block
        :param groups: finer groups than those of this map, one for each item of
            ``args``; those of this map if None
        """
        regrouped = self if groups is None else self._regroup(groups)
        if self._structure.order > 1:
            # the chain rule makes other rows of these, which differ between blocks
            return regrouped._map_each(function, args, properties)
        leaves, blocks = [], list(self._structure.blocks)
        for members, arrays, arg in zip(
            regrouped._groups, regrouped._leaves, args, strict=True
        ):
            sizes = {len(properties[i]) for i in members}
            if len(sizes) != 1:
                raise MetatensorError(
                    f"blocks of one group must get the same number of properties, got "
                    f"{sorted(sizes)}"
                )
            columns = Labels.range("_", sizes.pop())

            dynamic, static = partition(arg)
            for array in [*arrays, *dynamic]:
                check_not_narrowed(array.dtype)

            def of_block(
                block: TensorBlock,
                dynamic: Any,
                static: Any = static,
                columns: Labels = columns,
            ) -> TensorBlock:
                arg = combine(dynamic, static)
                return map_rows(function, block, args=arg, properties=columns)

            structures = [blocks[i] for i in members]
            together = _batched_block(structures, iter(arrays))
            result = jax.vmap(of_block)(together, dynamic)
            # a function whose result is an integer has no derivative
            names = result.gradients_list()
            for i in members:
                blocks[i] = _of_result(blocks[i], properties[i], names)
            kept = blocks[members[0]].leaves_are_data()
            leaves.append(_data_leaves(result, kept))
        structure = MapStructure(self.keys, tuple(blocks), self._structure.info)
        return StackedMap(structure, regrouped._groups, leaves)

    def _map_each(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        properties: Sequence[Labels],
    ) -> StackedMap:
        """Block by block."""
        each: list[Any] = [None] * len(self)
        for members, arg in zip(self._groups, args, strict=True):
            dynamic, static = partition(arg)
            for row, i in enumerate(members):
                each[i] = combine([x[row] for x in dynamic], static)
        tensor = map_rows(
            function, self.unstack(), args=each, properties=list(properties)
        )
        return stack_blocks(tensor)

    def _regroup(self, groups: Groups) -> StackedMap:
        """The same with finer groups."""
        where = {
            i: (g, row)
            for g, members in enumerate(self._groups)
            for row, i in enumerate(members)
        }
        leaves = []
        for members in groups:
            (g,) = {where[i][0] for i in members}
            if members == self._groups[g]:
                leaves.append(self._leaves[g])
            else:
                rows = np.array([where[i][1] for i in members])
                with jax.transfer_guard_host_to_device("allow"):  # of row numbers
                    leaves.append([leaf[rows] for leaf in self._leaves[g]])
        return StackedMap(self._structure, groups, leaves)


def _cut(structure: BlockStructure, leaves: Any) -> list[Any]:
    """The rows of a block, without those that it was filled up with."""
    own = []
    for _, part in structure.walk():
        if part.samples is not None:
            own.append(next(leaves)[: len(part.samples)])
        else:
            own += [next(leaves), next(leaves)]
    return own


def _batched_block(structures: Sequence[BlockStructure], leaves: Any) -> TensorBlock:
    """The blocks of a group as one, for ``vmap``."""
    first, values = structures[0], next(leaves)
    if first.samples is None:
        samples = Labels._make(first.sample_names, next(leaves), static=False)
    else:
        samples = _common_samples([s.samples for s in structures], values.shape[1])
    gradients = {
        name: _batched_block([s.gradients[i][1] for s in structures], leaves)
        for i, (name, _) in enumerate(first.gradients)
    }
    return TensorBlock._make(
        values, samples, first.components, first.properties, gradients
    )


def _common_samples(samples: Sequence[Any], n: int) -> Labels:
    """Labels that say for all blocks what a function of rows needs to know.

    That is how many rows there are, and which rows gradients belong to.
    """
    first = samples[0]
    if all(len(labels) == n for labels in samples):
        if first.names[0] != "sample":
            return Labels.range("_", n)
        parents = first.values[:, 0]
        if all(np.array_equal(labels.values[:, 0], parents) for labels in samples):
            return first
    tables = [labels.values for labels in samples]
    values = _stack_arrays(tables, n, Labels.PADDING)
    return Labels._make(first._names, values, static=False)


def _data_leaves(block: TensorBlock, kept: Sequence[bool]) -> list[Any]:
    """The leaves of a batched block; labels that are metadata stay so."""
    flags = block._structure.leaves_are_data()
    if len(flags) == len(kept):
        return list(block._leaves)
    return [x for x, data in zip(block._leaves, flags, strict=True) if data]


def _of_result(
    structure: BlockStructure, properties: Labels, names: Sequence[str]
) -> BlockStructure:
    """With the properties of the result, and the gradients that it has."""
    samples = structure.samples
    if samples is None:
        samples = Labels._make(structure.sample_names, None, static=False)
    gradients = tuple(
        (name, _of_result(gradient, properties, names))
        for name, gradient in structure.gradients
        if name in names
    )
    return BlockStructure(samples, structure.components, properties, gradients)


jax.tree_util.register_pytree_node(
    StackedMap,
    lambda stacked: (stacked._leaves, (stacked._structure, stacked._groups)),
    lambda static, leaves: StackedMap(*static, leaves),
)
