"""Stored gradients and autodiff as one thing.

- :func:`connect_gradients`: from stored gradients to autodiff.
- :func:`compute_gradients`: from autodiff to stored gradients.
- :func:`check_gradients`: either of them against finite differences.

Parameters (positions, strain, anything else) are blocks with a single property: their
samples say which entry is which, so everything lines up by labels.
"""

from ._check import (
    GradientCheck as GradientCheck,
    GradientReport as GradientReport,
    check_gradients as check_gradients,
)
from ._compute import compute_gradients as compute_gradients
from ._connect import connect_gradients as connect_gradients

__all__ = [
    "check_gradients",
    "compute_gradients",
    "connect_gradients",
    "GradientCheck",
    "GradientReport",
]


def __dir__() -> list[str]:
    return __all__
