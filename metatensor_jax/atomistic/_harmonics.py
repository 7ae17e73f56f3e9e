r"""Real solid harmonics, by a recursion over polynomials of x, y and z.

.. math:: r^l Y_l^m(\hat r) = F_l^{|m|} Q_l^{|m|}(z, r^2) \cdot
    \{s_{|m|},\; 1 / \sqrt 2,\; c_m\} \;\text{for}\; m < 0,\; m = 0,\; m > 0

as in F. Bigi, G. Fraux, N. J. Browning and M. Ceriotti, J. Chem. Phys. 159, 064802
(2023). They are polynomials, and so are all of their derivatives: nothing is divided by
the length of a vector, which may be zero.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def solid_harmonics(vectors: jax.Array, max_angular: int) -> list[jax.Array]:
    r"""The solid harmonics :math:`r^l Y_l^m` of vectors, up to a largest degree.

    :param vectors: shape ``(..., 3)``
    :param max_angular: the largest degree :math:`l`
    :returns: for each degree, an array with shape ``(..., 2 l + 1)``, with :math:`m`
        from :math:`-l` to :math:`l`: the degree 1 is :math:`(y, z, x)`

    >>> l0, l1 = solid_harmonics(jnp.array([3.0, 4.0, 5.0]), 1)
    >>> (l1 / jnp.sqrt(3 / (4 * jnp.pi))).round(5).tolist()
    [4.0, 5.0, 3.0]
    """
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    square = x * x + y * y + z * z
    cosines, sines = [jnp.ones_like(x)], [jnp.zeros_like(x)]
    for _ in range(max_angular):
        c, s = cosines[-1], sines[-1]
        cosines.append(x * c - y * s)
        sines.append(x * s + y * c)
    columns: list[list[jax.Array]] = []
    for l in range(max_angular + 1):
        columns.append([_legendre(l, m, z, square, columns) for m in range(l + 1)])
    harmonics = []
    for l, of_degree in enumerate(columns):
        scaled = [_factor(l, m) * q for m, q in enumerate(of_degree)]
        negative = [scaled[m] * sines[m] for m in range(l, 0, -1)]
        positive = [scaled[m] * cosines[m] for m in range(1, l + 1)]
        zero = [scaled[0] * math.sqrt(0.5)]
        harmonics.append(jnp.stack([*negative, *zero, *positive], axis=-1))
    return harmonics


def _legendre(
    l: int,
    m: int,
    z: jax.Array,
    square: jax.Array,
    before: list[list[jax.Array]],
) -> jax.Array:
    """The associated Legendre function, times powers of r, from lower degrees."""
    if m == l:
        return jnp.full_like(z, math.prod(range(1, 2 * l, 2)))
    lower = (2 * l - 1) * z * before[l - 1][m]
    if m == l - 1:
        return lower
    return (lower - (l + m - 1) * square * before[l - 2][m]) / (l - m)


def _factor(l: int, m: int) -> float:
    ratio = math.factorial(l - m) / math.factorial(l + m)
    return math.sqrt((2 * l + 1) / (2 * math.pi) * ratio)
