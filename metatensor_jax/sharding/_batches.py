"""One batch for each device, stacked along a new first axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from .._types.errors import MetatensorError
from ..layout import Folded, Layout, Store
from ._mesh import along, axis_size, check_arrays, first, place, positions

T = TypeVar("T")


def shard(batches: Sequence[T], mesh: Mesh, axis: str = "data") -> T:
    """One batch for each device, as one pytree with a new first axis.

    Each array is cut along this axis, so that each device has its own batch. Under
    ``jax.vmap`` it is a batch again: write a step for one, and call it by ``jax.vmap``
    inside of ``jax.jit``. Outside of that, maps of the result are stacked, and no
    operation takes them.

    :param batches: pytrees of arrays, with one structure and the same shapes, such as
        ``layout.pad`` and ``store.folded`` give: one for each of :func:`positions`, in
        this order. With one process, that is one for each device. Few large arrays
        travel faster than many: fold batches.
    :param mesh: the devices, of all processes
    :param axis: of the mesh. Along others, each device has the same batch.
    :raises MetatensorError: too few or too many batches, batches that differ in their
        structure, shapes or dtypes
    :raises TypeError: leaves that are not arrays, 64-bit data that JAX would narrow

    >>> from metatensor_jax.sharding import data_mesh
    >>> mesh = data_mesh()
    >>> batches = [np.full(3, i, np.float32) for i in range(len(jax.devices()))]
    >>> total = jax.jit(lambda batches: jax.vmap(lambda x: x.sum())(batches).sum())
    >>> float(total(shard(batches, mesh))) == sum(float(x.sum()) for x in batches)
    True
    """
    n, own = axis_size(mesh, axis), positions(mesh, axis)
    if len(batches) != len(own):
        raise MetatensorError(
            f"`batches` must be one for each of the {len(own)} positions along "
            f"{axis!r} that have a device of this process, got {len(batches)}"
        )
    flat = [jax.tree.flatten(batch) for batch in batches]
    structure = flat[0][1]
    _check_same(batches, flat)
    sharding, row_of = along(mesh, axis), {at: row for row, at in enumerate(own)}

    def stacked(leaves: tuple[Any, ...]) -> jax.Array:
        shape, dtype = (n, *leaves[0].shape), leaves[0].dtype
        return place(shape, dtype, sharding, lambda i: leaves[row_of[first(i)]][None])

    each = zip(*(leaves for leaves, _ in flat), strict=True)
    return jax.tree.unflatten(structure, [stacked(leaves) for leaves in each])


def unshard(stacked: T, mesh: Mesh, axis: str = "data") -> list[T]:
    """The batches of this process, or what was computed from each, by NumPy.

    :param stacked: what :func:`shard` gave, or what ``jax.vmap`` of a function gave for
        it: arrays whose first axis is the devices
    :param mesh: the devices, of all processes
    :param axis: of the mesh
    :returns: one for each position in :func:`positions`
    :raises MetatensorError: arrays that have no such axis

    >>> from metatensor_jax.sharding import data_mesh
    >>> mesh = data_mesh()
    >>> batches = [np.full(1, i, np.float32) for i in range(len(jax.devices()))]
    >>> [float(x[0]) for x in unshard(shard(batches, mesh), mesh)] == list(
    ...     range(len(batches))
    ... )
    True
    """
    n, own = axis_size(mesh, axis), positions(mesh, axis)
    leaves, structure = jax.tree.flatten(stacked)
    check_arrays(leaves)
    for leaf in leaves:
        if leaf.shape[:1] != (n,):
            raise MetatensorError(
                f"the first axis of each array must be the {n} positions along "
                f"{axis!r}, but one has the shape {leaf.shape}"
            )
    # the compiler may have placed results in another way
    arrays = _placed_by(leaves, along(mesh, axis))
    parts = [
        {first(part.index): np.asarray(part.data)[0] for part in x.addressable_shards}
        for x in arrays
    ]
    return [
        jax.tree.unflatten(structure, [of_leaf[at] for of_leaf in parts]) for at in own
    ]


def shard_batch(
    store: Store,
    systems: np.ndarray,
    layout: Layout,
    mesh: Mesh,
    axis: str = "data",
) -> Folded:
    """One batch for each device, gathered from a store: those of this process alone.

    :param store: the data set, the same in each process
    :param systems: which systems each device gets, by their positions in the store: a
        row for each device of all processes, -1 for none. See :func:`deal` and
        :func:`plan_epoch`.
    :param layout: the room on each device, of one size only, as a process can not know
        which size the batches of others need
    :param mesh: the devices, of all processes
    :param axis: of the mesh
    :returns: folded batches; under ``jax.vmap``, ``unfold`` gives a ``PaddedBatch``
    :raises MetatensorError: systems that are not one row for each device, more of them
        or more rows than the layout has room for, a layout with several buckets

    >>> import metatensor_jax as mts
    >>> from metatensor_jax.sharding import data_mesh, deal
    >>> mesh, n = data_mesh(), len(jax.devices())
    >>> samples = mts.Labels.range("system", n)
    >>> block = mts.TensorBlock(
    ...     np.ones((n, 1), "f4"), samples, [], mts.Labels.range("energy", 1)
    ... )
    >>> store = Store.from_maps(mts.TensorMap(mts.Labels.single(), [block]))
    >>> layout = store.layout(systems=1)
    >>> batches = shard_batch(store, deal(range(n), n), layout, mesh)
    >>> def energy(batch):
    ...     return batch.unfold().tensors.block().values.sum()
    >>> float(jax.jit(jax.vmap(energy))(batches).sum()) == n
    True
    """
    n, table = axis_size(mesh, axis), np.asarray(systems)
    if table.ndim != 2 or table.shape[0] != n or table.dtype.kind not in "iu":
        raise MetatensorError(
            f"`systems` must be positions, one row for each of the {n} devices along "
            f"{axis!r}, got {table.dtype} with the shape {table.shape}: see "
            "`metatensor_jax.sharding.deal`"
        )
    if len(layout.fractions) > 1:
        raise MetatensorError(
            f"the layout has {len(layout.fractions)} buckets, but all devices need the "
            f"same room: make it with one, `store.layout(systems={layout.systems})`"
        )
    own = [table[at] for at in positions(mesh, axis)]
    return shard([store.folded(row[row >= 0], layout) for row in own], mesh, axis)


def _placed_by(leaves: list[Any], sharding: Any) -> list[jax.Array]:
    """By a program, as it is the one thing that moves data between processes."""
    if not leaves or all(
        isinstance(x, jax.Array) and x.sharding.is_equivalent_to(sharding, x.ndim)
        for x in leaves
    ):
        return leaves
    return jax.jit(_same, out_shardings=sharding)(leaves)


def _same(leaves: list[Any]) -> list[Any]:
    return leaves


def _check_same(batches: Sequence[Any], flat: Sequence[tuple[list[Any], Any]]) -> None:
    """Raise unless all batches have the same structure, shapes and dtypes."""
    leaves, structure = flat[0]
    check_arrays(leaves)
    for i, (others, other) in enumerate(flat[1:], 1):
        if other != structure:
            raise MetatensorError(
                f"batches 0 and {i} differ in more than their data, such as in labels: "
                "pad both by one Layout (`metatensor_jax.explain_retrace` tells what "
                "is different)"
            )
        check_arrays(others)
        for at, (mine, its) in enumerate(zip(leaves, others, strict=True)):
            if (mine.shape, mine.dtype) != (its.shape, its.dtype):
                path = jax.tree_util.tree_flatten_with_path(batches[i])[0][at][0]
                raise MetatensorError(
                    f"batch 0 has {mine.dtype} of shape {mine.shape} where batch {i} "
                    f"has {its.dtype} of shape {its.shape}, at "
                    f"`{jax.tree_util.keystr(path)}`: pad both by one Layout, with one "
                    "bucket"
                )
