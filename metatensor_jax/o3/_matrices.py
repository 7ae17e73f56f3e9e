"""Orthogonal matrices: what is asked of them, and random ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .._types.arrays import Array, is_tracer
from .._types.conversion import check_not_narrowed
from .._types.errors import MetatensorError

#: how far the elements of R R^T may be from those of the identity: more than single
#: precision needs, less than what anybody would call a rotation by mistake
_TOLERANCE = 1e-5


def as_matrices(matrices: ArrayLike | jax.Array) -> Any:
    """Orthogonal matrices with shape (..., 3, 3); raises for anything else.

    :returns: those that are known as NumPy arrays of float64, whatever precision JAX
        has; those that are traced as they are
    """
    traced = is_tracer(matrices)
    array: Any = matrices if traced else np.asarray(matrices)
    if jnp.issubdtype(array.dtype, np.complexfloating) or array.dtype == bool:
        raise TypeError(f"`matrices` must be real numbers, not {array.dtype}")
    if array.ndim < 2 or array.shape[-2:] != (3, 3):
        raise MetatensorError(
            "`matrices` must be one 3 x 3 matrix or an array of them, with shape "
            f"(..., 3, 3), got the shape {tuple(array.shape)}"
        )
    if traced:
        is_float = jnp.issubdtype(array.dtype, np.floating)
        return array if is_float else array.astype(float)
    array = array.astype(np.float64)
    _check_orthogonal(array)
    return array


def _check_orthogonal(matrices: np.ndarray) -> None:
    errors = np.abs(matrices @ matrices.swapaxes(-1, -2) - np.eye(3))
    # written so that NaN is found
    if not np.all(errors <= _TOLERANCE):
        wrong = ~np.all(errors <= _TOLERANCE, axis=(-2, -1))
        where = np.argwhere(np.atleast_1d(wrong))[0].tolist()
        which = f"matrices{where}" if matrices.ndim > 2 else "matrix"
        raise MetatensorError(
            "rotations and reflections are orthogonal matrices, but elements of R R^T "
            f"differ from those of the identity by up to {np.max(errors):.2g} (at "
            f"most {_TOLERANCE:g} is rounding): the first {which} is\n"
            f"{matrices.reshape(-1, 3, 3)[np.flatnonzero(wrong)[0]]}\n"
            "Give rotation matrices, not angles or strains; `numpy.linalg.qr` makes a "
            "matrix orthogonal"
        )


def signs_of(matrices: Any) -> Any:
    """1 for proper matrices, -1 for improper ones, with the shape (...)."""
    xp = matrices.__array_namespace__()
    a, b, c = (matrices[..., i, :] for i in range(3))
    return xp.sign((xp.cross(a, b) * c).sum(axis=-1))


def random_matrices(
    key: jax.Array,
    n: int | None = None,
    *,
    improper: bool = False,
    dtype: DTypeLike | None = None,
) -> Array:
    """Random rotations, each as likely as any other (the Haar measure).

    :param key: a random key
    :param n: how many; a single matrix, without an axis for the number, if None
    :param improper: half of them are improper then: rotations times -1
    :param dtype: float32 or float64; JAX's default if None
    :returns: an array with shape (3, 3), or (n, 3, 3)
    :raises TypeError: float64 while JAX is in its 32-bit mode

    Works under ``jit`` and ``vmap``.

    >>> matrices = random_matrices(jax.random.key(0), 2)
    >>> jnp.linalg.det(matrices).round(5).tolist()
    [1.0, 1.0]
    """
    wanted = np.dtype(jnp.result_type(float) if dtype is None else dtype)
    check_not_narrowed(wanted)
    shape = () if n is None else (n,)
    matrices = jax.random.orthogonal(key, 3, shape, wanted)
    if improper:
        return matrices
    # R and -R are equally likely, and one of them is proper
    return matrices * signs_of(matrices)[..., None, None]
