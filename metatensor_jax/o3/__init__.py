r"""Rotations and reflections of maps: the group O(3).

- :func:`rotate`: what a map would be if the systems that it is about were rotated.
- :func:`random_matrices`: uniformly distributed rotations, and reflections.
- :func:`cartesian_to_spherical`, :func:`spherical_to_cartesian`: vectors and 3 x 3
  tensors as spherical components, and back.
- :func:`wigner_d`, :func:`clebsch_gordan`, :func:`spherical_components`: what these are
  made of.

The conventions are those of metatensor and featomic. A matrix :math:`R` rotates column
vectors, :math:`r' = R r`. Real spherical harmonics of degree ``o3_lambda`` have the
component ``o3_mu`` from :math:`-\lambda` to :math:`\lambda`, so those of degree 1 are
:math:`(y, z, x)`. The parity of a block is :math:`(-1)^\lambda \sigma`, where
``o3_sigma`` is 1 for proper tensors and -1 for pseudotensors.

Degrees from 2 on need the extra ``o3``, for the coefficients of ``wigners``.
"""

from ._coefficients import (
    clebsch_gordan as clebsch_gordan,
    spherical_components as spherical_components,
)
from ._matrices import random_matrices as random_matrices
from ._rotate import rotate as rotate, rotate_block as rotate_block
from ._to_cartesian import spherical_to_cartesian as spherical_to_cartesian
from ._to_spherical import cartesian_to_spherical as cartesian_to_spherical
from ._wigner import wigner_d as wigner_d

__all__ = [
    "cartesian_to_spherical",
    "clebsch_gordan",
    "random_matrices",
    "rotate",
    "rotate_block",
    "spherical_components",
    "spherical_to_cartesian",
    "wigner_d",
]


def __dir__() -> list[str]:
    return __all__
