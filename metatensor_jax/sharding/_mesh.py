"""Which devices there are, and which of them are of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._types.arrays import is_array
from .._types.conversion import check_not_narrowed
from .._types.errors import MetatensorError
from .._types.foreign import type_of


def data_mesh(
    devices: Sequence[jax.Device] | None = None,  # type: ignore[reportInvalidTypeForm]
) -> Mesh:
    """Devices along one axis, ``"data"``.

    :param devices: those of all processes if None

    >>> data_mesh().axis_names
    ('data',)
    """
    # not jax.make_mesh: the axes of that are explicit in JAX 0.9 and later
    return Mesh(np.array(jax.devices() if devices is None else devices), ("data",))


def positions(mesh: Mesh, axis: str = "data") -> list[int]:
    """The positions along an axis of a mesh that have a device of this process.

    With one process, these are all.

    :raises MetatensorError: an axis that the mesh does not have, or that is explicit

    >>> positions(data_mesh()) == list(range(len(jax.devices())))
    True
    """
    n = axis_size(mesh, axis)
    indices = along(mesh, axis).addressable_devices_indices_map((n,)).values()
    return sorted({first(index) for index in indices})


def axis_size(mesh: Mesh, axis: str) -> int:
    """How many positions an axis has; raise if data can not be placed along it."""
    if axis not in mesh.axis_names:
        raise MetatensorError(
            f"the mesh has the axes {list(mesh.axis_names)}, but no {axis!r}: give "
            "`axis=`"
        )
    # without `axis_types` (JAX 0.4), or with those of its time, none is explicit
    if any(getattr(x, "name", "") == "Explicit" for x in mesh.axis_types or ()):
        raise MetatensorError(
            "the axes of the mesh are explicit, and JAX would ask for a sharding at "
            "each gather: make it by `metatensor_jax.sharding.data_mesh()`, or give "
            "`axis_types=(jax.sharding.AxisType.Auto,)` to `jax.make_mesh`"
        )
    return mesh.shape[axis]


def along(mesh: Mesh, axis: str | None) -> NamedSharding:
    """Cut along the first axis of an array; the same on all devices if None."""
    return NamedSharding(mesh, PartitionSpec() if axis is None else PartitionSpec(axis))


def first(index: Any) -> int:
    """Where the part of an array begins that a device has."""
    return index[0].start or 0


def place(
    shape: tuple[int, ...],
    dtype: Any,
    sharding: NamedSharding,
    part: Callable[[Any], Any],
) -> jax.Array:
    """An array on the devices of all processes, made of the parts of this one.

    :param part: gives the part at an index, a tuple of slices
    """
    check_not_narrowed(dtype)
    return jax.make_array_from_callback(shape, sharding, part)


def check_arrays(leaves: Sequence[Any]) -> None:
    """Raise unless all leaves of a batch are arrays."""
    for leaf in leaves:
        if not is_array(leaf):
            raise TypeError(
                f"batches must be pytrees of arrays, but there is {type_of(leaf)}"
            )
