"""A derivative that is not known: an error when it is needed, and only then.

A stored gradient that stays stored may depend on the parameters in a way that nobody
has stored. That matters only to those who differentiate it. JAX asks for the derivative
of everything, needed or not, and whether it is needed shows when a reverse pass gets
there: the transpose of this primitive raises. Forward mode never tells, so there the
derivative is NaN.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .._types.errors import MetatensorError


def unknown_derivative(
    direction: Any, shape: tuple[int, ...], dtype: Any, message: str
) -> Any:
    """What an unknown linear function gives.

    :param direction: what it is a function of
    :param message: of the error
    """
    return _unknown.bind(
        direction, shape=tuple(shape), dtype=np.dtype(dtype), message=message
    )


_unknown = Primitive("unknown_derivative")


@_unknown.def_impl
def _run(_direction: Any, *, shape: Any, dtype: Any, message: str) -> Any:
    return jnp.full(shape, np.nan, dtype)


@_unknown.def_abstract_eval
def _abstract(_direction: Any, *, shape: Any, dtype: Any, message: str) -> Any:
    return ShapedArray(shape, dtype)


def _transpose(_cotangent: Any, _direction: Any, *, message: str, **_: Any) -> Any:
    raise MetatensorError(message)


def _batch(args: Any, axes: Any, *, shape: Any, **options: Any) -> Any:
    n = args[0].shape[axes[0]]
    return _unknown.bind(args[0], shape=(n, *shape), **options), 0


ad.deflinear2(_unknown, _transpose)
batching.primitive_batchers[_unknown] = _batch
mlir.register_lowering(_unknown, mlir.lower_fun(_run, multiple_results=False))
