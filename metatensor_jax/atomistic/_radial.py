r"""Radial integrals of a Gaussian density, in a basis of radial functions.

A Gaussian at the distance :math:`d`, seen from the origin, has the coefficients

.. math:: I_{nl}(d) = \frac{4 \pi}{(\pi \sigma^2)^{3/4}} \int_0^\infty
    R_{nl}(r) \; e^{-(r^2 + d^2) / 2 \sigma^2} \; i_l(r d / \sigma^2) \; r^2 \, dr

with the modified spherical Bessel function :math:`i_l`. (The density is normalized such
that the integral of its square is 1, as in featomic.) The integrals are evaluated by
quadrature, once, in 64 bits; :math:`I_{nl}(d) / d^l`, which is smooth where d is zero,
becomes cubic polynomials between points that are evenly spaced.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import gamma, ive, spherical_jn

from .._types.errors import MetatensorError

#: how many polynomials: with these, values are good to 1e-11 of the largest
_N_POINTS = 1024
_N_NODES = 200


@dataclass(frozen=True)
class RadialBasis(abc.ABC):
    """Radial functions :math:`R_{nl}(r)`, for n from 0 to ``max_radial``.

    :param max_radial: the largest n
    """

    max_radial: int

    def __post_init__(self) -> None:
        if self.max_radial < 0:
            raise MetatensorError(
                f"`max_radial` must be at least 0, not {self.max_radial}"
            )

    @property
    def size(self) -> int:
        """How many there are."""
        return self.max_radial + 1

    @abc.abstractmethod
    def extent(self, cutoff: float) -> float:
        """Up to which r they are different from zero, in Å."""

    @abc.abstractmethod
    def values(self, r: np.ndarray, degree: int, cutoff: float) -> np.ndarray:
        """At r (in Å), with shape ``(len(r), size)``."""


@dataclass(frozen=True)
class Gto(RadialBasis):
    r"""Gaussian type orbitals, :math:`r^n e^{-r^2 / 2 \sigma_n^2}`, made orthonormal.

    The widths are :math:`\sigma_n = r_c \max(\sqrt n, 1) / (n_{max} + 1)`, and Löwdin's
    method makes them orthonormal: featomic's basis ``Gto``.

    >>> Gto(max_radial=3).values(np.array([1.0]), 0, 5.0).shape
    (1, 4)
    """

    def widths(self, cutoff: float) -> np.ndarray:
        """Of each function, in Å."""
        n = np.arange(self.size)
        return cutoff * np.maximum(np.sqrt(n), 1.0) / self.size

    def extent(self, cutoff: float) -> float:
        """Where the widest of them has become 1e-14 of what it was."""
        return cutoff + 8.5 * float(self.widths(cutoff).max())

    def values(self, r: np.ndarray, degree: int, cutoff: float) -> np.ndarray:
        """At r: the same for all degrees."""
        n, widths = np.arange(self.size), self.widths(cutoff)
        c = 0.5 / widths**2
        norms = np.sqrt(2 / (widths ** (2 * n + 3) * gamma(n + 1.5)))
        power = n[:, None] + n + 3
        overlap = 0.5 * gamma(power / 2) * (c[:, None] + c) ** (-power / 2)
        overlap *= norms[:, None] * norms
        eigenvalues, vectors = np.linalg.eigh(overlap)
        orthonormal = (vectors / np.sqrt(eigenvalues)) @ vectors.T
        primitive = norms * r[:, None] ** n * np.exp(-c * r[:, None] ** 2)
        return primitive @ orthonormal


@dataclass(frozen=True)
class LaplacianEigenstates(RadialBasis):
    r"""Spherical Bessel functions :math:`j_l(z_{nl} r / r_c)`, zero at the cutoff.

    They are the eigenstates of the Laplacian in a sphere, F. Bigi, K. K.
    Huguenin-Dumittan, M. Ceriotti and D. E. Manolopoulos, J. Chem. Phys. 157, 234101
    (2022), normalized.

    >>> basis = LaplacianEigenstates(max_radial=1)
    >>> bool(np.allclose(basis.values(np.array([5.0]), 2, 5.0), 0, atol=1e-12))
    True
    """

    def extent(self, cutoff: float) -> float:
        """The cutoff."""
        return cutoff

    def values(self, r: np.ndarray, degree: int, cutoff: float) -> np.ndarray:
        """At r, zero beyond the cutoff."""
        zeros = _bessel_zeros(degree, self.size)
        norms = np.sqrt(2 / cutoff**3) / np.abs(spherical_jn(degree + 1, zeros))
        inside = (r <= cutoff)[:, None]
        return norms * spherical_jn(degree, zeros * r[:, None] / cutoff) * inside


def _bessel_zeros(degree: int, n: int) -> np.ndarray:
    """The first zeros of a spherical Bessel function, each between two of the last."""
    zeros = np.pi * np.arange(1, n + degree + 1)
    for d in range(1, degree + 1):
        function = lambda x, d=d: spherical_jn(d, x)  # noqa: E731
        pairs = pairwise(zeros.tolist())
        zeros = np.array([brentq(function, a, b, xtol=1e-14) for a, b in pairs])
    return zeros[:n]


@dataclass(frozen=True)
class RadialTable:
    """The integrals as cubic polynomials: what an expansion looks up.

    :param coefficients: shape ``(points, 4, degrees * size)``, constant terms first
    :param step: how far points are apart, in Å
    """

    coefficients: np.ndarray
    step: float
    n_points: ClassVar[int] = _N_POINTS

    @classmethod
    def of(
        cls, basis: RadialBasis, cutoff: float, sigma: float, max_angular: int
    ) -> RadialTable:
        """For all degrees up to a largest.

        :param cutoff: up to which distance, in Å
        :param sigma: the width of the density, in Å
        """
        step = cutoff / _N_POINTS
        # derivatives by central differences of a smooth function, to fourth order
        d = step * np.arange(-2, _N_POINTS + 3)
        values = np.concatenate(
            [
                _integrals(basis, cutoff, sigma, l, np.abs(d))
                for l in range(max_angular + 1)
            ],
            axis=1,
        )
        slopes = (
            8 * (values[3:-1] - values[1:-3]) - (values[4:] - values[:-4])
        ) / 12  # times the step
        y, low, high = values[2:-2], slopes[:-1], slopes[1:]
        rise = y[1:] - y[:-1]
        cubic = [y[:-1], low, 3 * rise - 2 * low - high, low + high - 2 * rise]
        return cls(np.stack(cubic, axis=1), step)


def _integrals(
    basis: RadialBasis, cutoff: float, sigma: float, degree: int, d: np.ndarray
) -> np.ndarray:
    """:math:`I_{nl}(d) / d^l`, by Gauss-Legendre quadrature; d is not negative."""
    nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
    end = basis.extent(cutoff)
    r, weights = 0.5 * end * (nodes + 1), 0.5 * end * weights
    functions = basis.values(r, degree, cutoff) * (weights * r**2)[:, None]
    kernel = np.exp(-0.5 * (r - d[:, None]) ** 2 / sigma**2)
    kernel = kernel * _scaled_bessel(degree, r * d[:, None] / sigma**2, r / sigma**2, d)
    return 4 * np.pi / (np.pi * sigma**2) ** 0.75 * kernel @ functions


def _scaled_bessel(
    degree: int, x: np.ndarray, slope: np.ndarray, d: np.ndarray
) -> np.ndarray:
    r""":math:`e^{-x} i_l(x) / d^l`, with :math:`x = s \, d`; a series for small d."""
    small = x < 1e-2
    safe = np.where(small, 1.0, x)
    large = np.sqrt(np.pi / (2 * safe)) * ive(degree + 0.5, safe)
    with np.errstate(divide="ignore", invalid="ignore"):
        large = large / np.where(d > 0, d, 1.0)[:, None] ** degree
    leading = slope**degree / np.prod(np.arange(1.0, 2 * degree + 2, 2))
    b = 2 * degree + 3
    series = 1 + x**2 / (2 * b) * (1 + x**2 / (4 * (b + 2)))
    return np.where(small, leading * series * np.exp(-x), large)
