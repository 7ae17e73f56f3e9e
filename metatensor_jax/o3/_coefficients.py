"""Real spherical harmonics: their labels, and how products of them are coupled."""

from __future__ import annotations

import functools
import operator
from types import ModuleType

import numpy as np

from .._types.arrays import read_only
from .._types.errors import MetatensorError
from .._types.labels import Labels


def spherical_components(o3_lambda: int) -> Labels:
    """The component ``o3_mu`` of spherical harmonics of one degree.

    :param o3_lambda: the degree, 0 or more
    :raises MetatensorError: a negative degree

    >>> spherical_components(1).values.ravel().tolist()
    [-1, 0, 1]
    """
    degree = as_degree("o3_lambda", o3_lambda)
    return Labels("o3_mu", np.arange(-degree, degree + 1, dtype=np.int32)[:, None])


def clebsch_gordan(l1: int, l2: int, l3: int) -> np.ndarray:
    r"""The Clebsch-Gordan coefficients of real spherical harmonics.

    They couple two spherical tensors to a third one,

    .. math:: c_{m_3} = \sum_{m_1 m_2} C_{m_1 m_2 m_3} a_{m_1} b_{m_2}

    which is a pseudotensor if :math:`l_1 + l_2 + l_3` is odd. Each :math:`m_3` has norm
    1, and different ones are orthogonal. (For complex harmonics the coefficients are
    those of Condon and Shortley. Of the real ones, those of odd sums are imaginary;
    these are divided by :math:`i`, as in featomic.)

    :param l1: a degree
    :param l2: a degree
    :param l3: a degree
    :returns: an array of float64 with shape (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), that can
        not be written to; all zero unless ``abs(l1 - l2) <= l3 <= l1 + l2``
    :raises MetatensorError: a negative degree
    :raises ImportError: ``wigners`` is not installed

    Vectors as :math:`(y, z, x)` are coupled to their scalar product times
    :math:`-1 / \sqrt{3}`, and to their cross product over :math:`\sqrt{2}`:

    >>> (np.diagonal(clebsch_gordan(1, 1, 0)[..., 0]) * np.sqrt(3)).round(6).tolist()
    [-1.0, -1.0, -1.0]
    >>> (clebsch_gordan(1, 1, 1)[0, 1, 2] * np.sqrt(2)).round(6)
    np.float64(1.0)
    """
    degrees = [as_degree(name, x) for name, x in zip(_NAMES, (l1, l2, l3), strict=True)]
    return _clebsch_gordan(*degrees)


_NAMES = ("l1", "l2", "l3")


@functools.lru_cache(maxsize=512)
def _clebsch_gordan(l1: int, l2: int, l3: int) -> np.ndarray:
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        return read_only(np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)))
    of_complex = _wigners().clebsch_gordan_array(l1, l2, l3)
    to_real = [_real_from_complex(degree) for degree in (l1, l2, l3)]
    real = np.einsum(
        "ax,by,cz,xyz->abc",
        to_real[0].conj(),
        to_real[1].conj(),
        to_real[2],
        of_complex,
    )
    is_odd = (l1 + l2 + l3) % 2 == 1
    return read_only(np.ascontiguousarray(real.imag if is_odd else real.real))


def _real_from_complex(degree: int) -> np.ndarray:
    """Real harmonics in terms of complex ones with the phase of Condon and Shortley."""
    n, half = 2 * degree + 1, np.sqrt(0.5)
    matrix = np.zeros((n, n), complex)
    matrix[degree, degree] = 1
    for m in range(1, degree + 1):
        sign = (-1) ** m
        plus, minus = degree + m, degree - m
        matrix[plus, [plus, minus]] = sign * half, half
        matrix[minus, [plus, minus]] = -1j * sign * half, 1j * half
    return matrix


def as_degree(name: str, value: int) -> int:
    """A degree of spherical harmonics, or an error that names the argument."""
    try:
        degree = operator.index(value)
    except TypeError as error:
        raise TypeError(
            f"`{name}` must be an integer, not {type(value).__name__}"
        ) from error
    if degree < 0:
        raise MetatensorError(f"`{name}` must be 0 or more, got {degree}")
    return degree


def _wigners() -> ModuleType:
    try:
        import wigners
    except ImportError as error:
        raise ImportError(
            "Clebsch-Gordan coefficients need the package `wigners`, the extra `o3`: "
            "pip install 'metatensor-jax[o3]'"
        ) from error
    return wigners
