"""Rotations of maps.

Every axis of a map that is a direction turns, and an array of a gradient has some more
of these than the values: its parameter turns as well. So all arrays of a map, of values
and of gradients alike, are rotated as rows of their own, axis by axis; and as labels
stay what they are, the results take the places of the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from numpy.typing import ArrayLike

from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError
from .._types.tensor import TensorMap
from ..operations.checks import check_not_batched, check_type
from ._axes import Turning, Turns, check_given, turns_of
from ._keys import check_degrees, check_not_moved, check_sigma, is_pseudo
from ._matrices import as_matrices
from ._systems import check_systems, rows_of_systems
from ._turning import Task, rotated_leaves


def rotate(
    tensor: TensorMap,
    matrices: ArrayLike | jax.Array,
    *,
    system: str = "system",
    components: Mapping[str, Turning] | None = None,
) -> TensorMap:
    r"""The map that there would be if systems were rotated, or reflected.

    Each component axis of the values turns by its name:

    - ``xyz``, ``xyz_1``, ``xyz_2``, ... as a vector, :math:`v' = R v`;
    - ``o3_mu``, ``o3_mu_1``, ... as real spherical harmonics of the degree
      :math:`\lambda` that its entries say, :math:`c' = D^\lambda(R) c`;
    - ``abc`` and ``cell_abc``, which number vectors of a cell, not at all.

    An improper matrix turns them with the parity :math:`(-1)^\lambda` that is their own
    (-1 for vectors), and multiplies blocks with ``o3_sigma = -1`` in their key by -1.

    Stored gradients follow: they turn as the values do, and by the axes of their
    parameter, because this turns too, :math:`\partial y' / \partial r' = D (\partial y
    / \partial r) R^T`. (Gradients by ``cell`` with the components ``[xyz, abc]`` are
    featomic's: there ``abc`` goes over directions, and ``xyz`` over cell vectors.)
    Labels stay what they are.

    :param tensor: a map of real or complex numbers. What does not turn stays as it is;
        the arrays of all else become JAX's
    :param matrices: an orthogonal matrix :math:`R` with shape (3, 3), or an array of
        them with shape (systems, 3, 3): system number ``i``, in the samples, turns by
        ``matrices[i]``. (The systems of a batch of a :class:`~metatensor_jax.Layout`
        are 0 to n - 1; padding stays padding.) They may be traced, and the result can
        be differentiated by them.
    :param system: the sample dimension with the number of the system. Gradient rows
        turn with the sample that they belong to
    :param components: how components turn whose names do not say it, or say something
        else: ``"vector"``, ``"spherical"`` or ``"invariant"`` by name
    :raises MetatensorError: matrices that are not orthogonal, or lack one for a system
        (if these are not traced: a traced system without a matrix has the values NaN);
        a component of which it is not known how it turns; degrees or parities that were
        moved from the keys or components to other axes
    :raises TypeError: integers or booleans with an axis that turns
    :raises ImportError: for degrees from 2 on, ``wigners`` is not installed

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> dipole = TensorBlock(
    ...     np.array([[[1.0], [2.0], [3.0]]], "f4"),
    ...     mts.Labels.range("system", 1),
    ...     [mts.Labels.range("xyz", 3)],
    ...     mts.Labels.range("dipole", 1),
    ... )
    >>> tensor = TensorMap(mts.Labels.single(), [dipole])
    >>> turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x to y, y to -x
    >>> rotate(tensor, turn).block().values.ravel().tolist()
    [-2.0, 1.0, 3.0]
    """
    check_type(tensor, "tensor", TensorMap)
    given = check_given(components)
    known = _check_shape(as_matrices(matrices))
    tasks = []
    for i, block in enumerate(tensor):
        key = tensor.keys.entry(i)
        with in_block(tensor.keys, i):
            check_not_moved(block)
            check_degrees(key, block, given)
            tasks += _tasks(
                block, turns_of(block, given), is_pseudo(key), known, system
            )
    parts = [part for block in tensor for _, part in block._walk()]
    return TensorMap._unflatten(tensor._structure, rotated_leaves(parts, tasks, known))


def rotate_block(
    block: TensorBlock,
    matrices: ArrayLike | jax.Array,
    *,
    o3_sigma: int = 1,
    system: str = "system",
    components: Mapping[str, Turning] | None = None,
) -> TensorBlock:
    """The same as :func:`rotate` for a block.

    :param block: a block
    :param matrices: as for :func:`rotate`
    :param o3_sigma: 1 for proper tensors, -1 for pseudotensors: what the key of a block
        in a map says
    :param system: as for :func:`rotate`
    :param components: as for :func:`rotate`
    :raises MetatensorError: as :func:`rotate`; a parity that is neither 1 nor -1
    :raises TypeError: as :func:`rotate`
    :raises ImportError: as :func:`rotate`

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> pseudoscalar = mts.block_from_array(np.ones((1, 1), "f4"))
    >>> rotate_block(pseudoscalar, -np.eye(3), o3_sigma=-1).values.tolist()
    [[-1.0]]
    """
    check_type(block, "block", TensorBlock)
    check_sigma("o3_sigma", o3_sigma)
    given = check_given(components)
    known = _check_shape(as_matrices(matrices))
    check_not_moved(block)
    tasks = _tasks(block, turns_of(block, given), o3_sigma == -1, known, system)
    parts = [part for _, part in block._walk()]
    return TensorBlock._unflatten(block._structure, rotated_leaves(parts, tasks, known))


def _check_shape(matrices: Any) -> Any:
    if matrices.ndim > 3:
        raise MetatensorError(
            "`matrices` must have the shape (3, 3), for all systems, or (systems, 3, "
            f"3), got {tuple(matrices.shape)}: use `jax.vmap` for more than one result"
        )
    return matrices


def _tasks(
    block: TensorBlock, turns: Turns, pseudo: bool, matrices: Any, system: str
) -> list[Task]:
    """For the values of a block and of all gradients in it, in the order of `_walk`."""
    check_not_batched("the block", block)
    tasks = [Task(axes, pseudo, None) for axes in turns.walk()]
    if matrices.ndim == 2 or all(task.does_nothing for task in tasks):
        return tasks
    check_systems(block.samples, system, len(matrices))
    systems = rows_of_systems(block, system, len(matrices))
    return [
        task._replace(systems=rows) for task, rows in zip(tasks, systems, strict=True)
    ]
