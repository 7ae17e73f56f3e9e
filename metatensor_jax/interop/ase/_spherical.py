r"""Cartesian tensors as spherical ones.

Vectors are :math:`(y, z, x)` for :math:`\mu = -1, 0, 1`. Matrices are the sum of three
parts that rotations do not mix: the trace (:math:`\lambda = 0`), the antisymmetric part
as a pseudovector (:math:`\lambda = 1, \sigma = -1`), and the symmetric part without the
trace (:math:`\lambda = 2`), in the order of real spherical harmonics: xy, yz,
2zz - xx - yy, xz, xx - yy. All of them are orthonormal: squares add up to the same sum.
These are the conventions of metatomic.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: o3_lambda and o3_sigma
Irrep = tuple[int, int]


def _matrix(*entries: tuple[int, int, float]) -> np.ndarray:
    """One basis matrix, normalized."""
    matrix = np.zeros((3, 3))
    for i, j, value in entries:
        matrix[i, j] = value
    return matrix / np.linalg.norm(matrix)


X, Y, Z = 0, 1, 2

_VECTORS = {(1, 1): np.eye(3)[[Y, Z, X]]}
_MATRICES = {
    (0, 1): np.array([_matrix((X, X, 1), (Y, Y, 1), (Z, Z, 1))]),
    (1, -1): np.array(
        [
            _matrix((X, Z, 1), (Z, X, -1)),
            _matrix((Y, X, 1), (X, Y, -1)),
            _matrix((Z, Y, 1), (Y, Z, -1)),
        ]
    ),
    (2, 1): np.array(
        [
            _matrix((X, Y, 1), (Y, X, 1)),
            _matrix((Y, Z, 1), (Z, Y, 1)),
            _matrix((Z, Z, 2), (X, X, -1), (Y, Y, -1)),
            _matrix((X, Z, 1), (Z, X, 1)),
            _matrix((X, X, 1), (Y, Y, -1)),
        ]
    ),
}
#: for each rank and irreducible part, its basis: (2 lambda + 1, 3, 3, ...)
BASES: Mapping[int, Mapping[Irrep, np.ndarray]] = {
    0: {(0, 1): np.ones(1)},
    1: _VECTORS,
    2: _MATRICES,
}


def to_spherical(values: np.ndarray, irrep: Irrep) -> np.ndarray:
    """One part of tensors.

    :param values: with the shape (samples, 3, 3, ...)
    :returns: with the shape (samples, 2 lambda + 1)

    >>> to_spherical(np.array([[1.0, 2.0, 3.0]]), (1, 1)).tolist()
    [[2.0, 3.0, 1.0]]
    """
    rank = values.ndim - 1
    basis = BASES[rank][irrep]
    return values.reshape((len(values), 3**rank)) @ basis.reshape((-1, 3**rank)).T


def from_spherical(parts: Mapping[Irrep, np.ndarray], rank: int) -> np.ndarray:
    """The sum of parts as Cartesian tensors, with the shape (samples, 3, 3, ...).

    >>> from_spherical({(1, 1): np.array([[2.0, 3.0, 1.0]])}, 1).tolist()
    [[1.0, 2.0, 3.0]]
    """
    flat = sum(
        part @ BASES[rank][irrep].reshape((-1, 3**rank))
        for irrep, part in parts.items()
    )
    return np.asarray(flat).reshape((-1, *((3,) * rank)))
