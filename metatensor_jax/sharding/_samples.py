"""One map over several devices: each has some of the samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import Mesh

from .._types.block import TensorBlock
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..layout import PaddedBatch
from ..operations.checks import check_not_batched, check_ours
from ._mesh import along, axis_size, place

M = TypeVar("M", TensorMap, PaddedBatch)


def shard_samples(tensor: M, mesh: Mesh, axis: str = "data") -> M:
    """Cut a map along its samples, so that each device has some of them.

    This is for one system that is too large for a device. Values and samples of each
    block, and of each gradient, are cut into equal parts. As JAX cuts only what can be
    divided, rows of padding are put at their ends, and samples become data, as in a
    padded batch. Inside of ``jax.jit`` this is a map like any other: reductions give
    the numbers of one device to rounding, and JAX sends between the devices what they
    need. They take ``out_samples=Labels.range("system", n)``, so systems are numbered
    from 0 on, which ``Layout.pad`` does.

    :param tensor: a map; or a padded batch, so that ``batch.out_samples`` and
        ``layout.unpad`` are as for one device. Of a batch, values of maps with one row
        per system are the same on all devices; gradients of these are cut, as others.
        With several processes, it is the same in each of them.
    :param mesh: the devices, of all processes
    :param axis: of the mesh
    :raises MetatensorError: maps that are stacked for ``jax.vmap``
    :raises TypeError: 64-bit data that JAX would narrow, or something else than these

    >>> import metatensor_jax as mts
    >>> mesh = mts.sharding.data_mesh()
    >>> samples = Labels(["system", "atom"], [[0, i] for i in range(5)])
    >>> block = TensorBlock(
    ...     np.arange(5, dtype="f4").reshape(5, 1), samples, [], Labels.range("p", 1)
    ... )
    >>> sharded = shard_samples(TensorMap(Labels.single(), [block]), mesh)
    >>> total = mts.sum_over_samples(
    ...     sharded, "atom", out_samples=Labels.range("system", 1)
    ... )
    >>> float(total.block().values[0, 0])
    10.0
    """
    n = axis_size(mesh, axis)
    if isinstance(tensor, TensorMap):
        return cast(M, _cut_map(tensor, _Cut(mesh, axis, n)))
    check_ours(tensor, "tensor")
    if not isinstance(tensor, PaddedBatch):
        raise TypeError(
            "`tensor` must be a TensorMap or a PaddedBatch of metatensor_jax, not "
            f"{type_of(tensor)}"
        )
    cut = _Cut(mesh, axis, n)
    maps = tensor.tensors
    if isinstance(maps, TensorMap):
        # a map that comes alone has no name
        tensors: Any = _cut_map(maps, cut, "" in tensor.rows)
    else:
        tensors = {k: _cut_map(x, cut, k in tensor.rows) for k, x in maps.items()}
    rest = tensor.systems, tensor.order, tensor.rows
    systems, order, rows = jax.tree.map(cut.everywhere, rest)
    return cast(
        M, replace(tensor, tensors=tensors, systems=systems, order=order, rows=rows)
    )


class _Cut:
    """How arrays are cut.

    :param n: into so many parts
    """

    def __init__(self, mesh: Mesh, axis: str, n: int) -> None:
        self._mesh, self._axis, self._n = mesh, axis, n

    def rows(self, array: Any, fill: int) -> jax.Array:
        """Some of the rows on each device, with rows of ``fill`` at the end."""
        array = np.asarray(array)
        n_rows = -(-len(array) // self._n) * self._n

        def part(index: Any) -> np.ndarray:
            rows = array[index[0]]
            missing = len(range(n_rows)[index[0]]) - len(rows)
            if not missing:
                return rows
            filling = np.full((missing, *rows.shape[1:]), fill, rows.dtype)
            return np.concatenate([rows, filling])

        sharding = along(self._mesh, self._axis)
        return place((n_rows, *array.shape[1:]), array.dtype, sharding, part)

    def everywhere(self, array: Any) -> jax.Array:
        """All of it on each device."""
        array = np.asarray(array)
        sharding = along(self._mesh, None)
        return place(array.shape, array.dtype, sharding, lambda index: array[index])


def _cut_map(tensor: TensorMap, cut: _Cut, of_systems: bool = False) -> TensorMap:
    """A map.

    :param of_systems: it has one row per system, in the same place in all maps
    """
    blocks = []
    for key, block in tensor.items():
        check_not_batched(f"the block {key.print()}", block)
        blocks.append(_cut_block(block, cut, of_systems))
    return TensorMap(tensor.keys, blocks, tensor.info())


def _cut_block(block: TensorBlock, cut: _Cut, whole: bool) -> TensorBlock:
    if whole:
        values = cut.everywhere(block.values)
        samples = cut.everywhere(block.samples.values)
    else:
        values = cut.rows(block.values, 0)
        samples = cut.rows(block.samples.values, Labels.PADDING)
    gradients = {name: _cut_block(x, cut, False) for name, x in block.gradients()}
    labels = Labels.traced(block.samples.names, samples)
    return TensorBlock(values, labels, block.components, block.properties, gradients)
