"""Tensors of rank 1 and 2: their spherical parts, and the basis of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._run.sums import wide_dtype
from .._types.block import TensorBlock
from .._types.conversion import is_inexact
from .._types.errors import MetatensorError
from .._types.structure import in_words
from ._coefficients import clebsch_gordan

#: the harmonics of degree 1 are y, z and x
_Y_Z_X = np.array([1, 2, 0])
#: for each rank, the degrees and the parities of the parts of a tensor
PARTS = {1: [(1, 1)], 2: [(0, 1), (1, -1), (2, 1)]}


def check_rank(names: list[str]) -> list[str]:
    """The names of components, if they are those of a vector or a 3 x 3 tensor."""
    if len(names) not in PARTS or len(set(names)) != len(names):
        raise MetatensorError(
            "`components` must be the name of one component, or two names (tensors of "
            f"rank 1 and 2), got {names}"
        )
    return names


def basis(degree: int, rank: int, dtype: Any) -> np.ndarray:
    """Spherical components in terms of Cartesian ones: the first axis is ``o3_mu``.

    :param dtype: of the values, whose products are added up in the dtype of the result
    """
    if rank == 1:
        matrix = np.eye(3)[_Y_Z_X]
    else:
        coupling = np.zeros((3, 3, 2 * degree + 1))
        coupling[np.ix_(_Y_Z_X, _Y_Z_X)] = clebsch_gordan(1, 1, degree)
        # the second axis is coupled first, as in featomic: the sign of the pseudovector
        matrix = coupling.transpose(2, 1, 0)
    return matrix.astype(wide_dtype(np.zeros(0, dtype).real.dtype))


def check_free(block: TensorBlock, names: Sequence[str]) -> None:
    """Raise if components of a block, or of its gradients, have these names already."""
    for path, part in block._walk():
        has = [labels.names[0] for labels in part.components]
        taken = [name for name in names if name in has]
        if taken:
            raise MetatensorError(
                f"the components{in_words(path)} are {has}, so {taken} can not be the "
                "name of another one: rename it, or give other names"
            )


def check_inexact(block: TensorBlock) -> None:
    """Raise for integers and booleans."""
    if not is_inexact(block.dtype):
        raise TypeError(
            f"can not change the basis of {block.dtype} values: convert them with "
            "`.to(dtype=float)`"
        )


def contracted(coefficients: Any, row: Any, axes: Any, place: int, n_axes: int) -> Any:
    """A sum over axes, with the new axes at one place."""
    wide = wide_dtype(row.dtype)
    coefficients = jnp.asarray(coefficients).astype(wide)
    found = jnp.tensordot(coefficients, row.astype(wide), axes, precision="highest")
    new = tuple(range(n_axes))
    return jnp.moveaxis(found, new, tuple(place + i for i in new)).astype(row.dtype)
