"""Element by element: add, subtract, multiply, divide, pow, abs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._types import display
from .._types.arrays import is_array
from .._types.entry import saying_where
from .._types.facade import implements
from .._types.tensor import TensorMap
from ..checks import (
    check_same_keys,
    check_same_metadata,
    check_type,
    in_operation,
)
from ..rows import map_rows, match_blocks

Scalar = Any  # a number, or an array without axes


def _first(a: Any, b: Any) -> Any:
    return a.astype((a + b).dtype)  # the dtype that the values get


@implements("TensorMap.__add__")
def add(A: TensorMap, B: TensorMap | Scalar) -> TensorMap:
    r"""Add two maps, or a number to a map.

    .. math:: \nabla (A + B) = \nabla A + \nabla B

    with :math:`\nabla B = 0` for numbers.

    :param A: a map
    :param B: a number, or a map with the same metadata. Gradient samples may differ:
        rows that are not there are zero.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> add(x, 2.0).block().values.tolist()
    [[5.0]]
    """
    return _binary("add", operator.add, A, B, linear=True, scalar_linear=_first)


@implements("TensorMap.__sub__")
def subtract(A: TensorMap, B: TensorMap | Scalar) -> TensorMap:
    r"""Subtract a map, or a number, from a map.

    .. math:: \nabla (A - B) = \nabla A - \nabla B

    The arguments are those of :func:`add`.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> subtract(x, 1.0).block().values.tolist()
    [[2.0]]
    """
    return _binary("subtract", operator.sub, A, B, linear=True, scalar_linear=_first)


@implements("TensorMap.__mul__")
def multiply(A: TensorMap, B: TensorMap | Scalar) -> TensorMap:
    r"""Multiply two maps, or a map with a number, element by element.

    .. math:: \nabla (A B) = B \nabla A + A \nabla B

    The arguments are those of :func:`add`.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> multiply(x, x).block().values.tolist()
    [[9.0]]
    """
    return _binary("multiply", operator.mul, A, B, scalar_linear=True)


@implements("TensorMap.__truediv__")
def divide(A: TensorMap, B: TensorMap | Scalar) -> TensorMap:
    r"""Divide a map by another one, or by a number, element by element.

    .. math:: \nabla \frac{A}{B} = \frac{\nabla A}{B} - \frac{A \nabla B}{B^2}

    The arguments are those of :func:`add`.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> divide(x, 2.0).block().values.tolist()
    [[1.5]]
    """
    return _binary("divide", operator.truediv, A, B, scalar_linear=True)


@implements("TensorMap.__pow__")
def pow(A: TensorMap, B: Scalar) -> TensorMap:
    r"""Raise each element of a map to a power.

    .. math:: \nabla A^B = B A^{B - 1} \nabla A

    :param A: a map
    :param B: a number

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> pow(x, 2).block().values.tolist()
    [[9.0]]
    """
    check_type(A, "A", TensorMap)
    _check_scalar(B, "`B` must be a number")
    with in_operation("pow"):
        return map_rows(operator.pow, A, args=(B,))


def abs(A: TensorMap) -> TensorMap:
    r"""The absolute value of each element.

    .. math:: \nabla |A| = \frac{\mathrm{Re}(\bar{A} \nabla A)}{|A|}

    and zero where :math:`A = 0`. The result of complex values is real.

    :param A: a map

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[-3]]))])
    >>> abs(x).block().values.tolist()
    [[3.0]]
    """
    check_type(A, "A", TensorMap)
    with in_operation("abs"):
        return map_rows(_abs, A)


def _abs(x: Any) -> Any:
    # the derivative of JAX's is 1 at zero
    return jnp.where(x == 0, jnp.abs(jnp.zeros_like(x)), jnp.abs(x))


def _binary(
    name: str,
    function: Callable[[Any, Any], Any],
    A: TensorMap,
    B: TensorMap | Scalar,
    linear: bool | Callable[[Any, Any], Any] = False,
    scalar_linear: bool | Callable[[Any, Any], Any] = False,
) -> TensorMap:
    check_type(A, "A", TensorMap)
    args: tuple[Any, ...] = ()
    maps = [A]
    if not isinstance(B, TensorMap):
        _check_scalar(B, "`B` must be a metatensor_jax TensorMap or a number")
        args, linear = (B,), scalar_linear
    else:
        maps.append(B)
        if A._structure != B._structure:
            check_same_keys(A, B, name)
            for key, (a, b) in zip(A.keys, match_blocks(A, B), strict=True):
                with saying_where(key):
                    check_same_metadata(a, b, name)
    with in_operation(name):
        return map_rows(function, *maps, args=args, linear=linear)


def _check_scalar(value: Any, what: str) -> None:
    number = isinstance(value, (bool, int, float, complex, np.generic))
    if not number and not (is_array(value) and value.ndim == 0):
        raise TypeError(
            f"{what}, not {type(value).__module__}.{type(value).__name__}"
            f"{display.shape(value) if is_array(value) else ''}"
        )
