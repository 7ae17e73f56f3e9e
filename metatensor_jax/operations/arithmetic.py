"""Element by element: add, subtract, multiply, divide, pow, abs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._evaluate import as_map
from .._plan.map import match_blocks
from .._run.functions import Number
from .._types import display
from .._types.arrays import Scalar, is_array
from .._types.attach import attach
from .._types.context import in_block, noting
from .._types.conversion import is_inexact, is_narrowed
from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import check_same_keys, check_same_metadata, check_type
from .creation import zeros_like
from .rows import map_rows


def add(
    A: TensorMap, B: TensorMap | Scalar, *, different_keys: str = "error"
) -> TensorMap:
    r"""Add two maps, or a number to a map.

    .. math:: \nabla (A + B) = \nabla A + \nabla B

    with :math:`\nabla B = 0` for numbers.

    :param A: a map
    :param B: a number, or a map with the same metadata. Gradient samples may differ:
        rows that are not there are zero.
    :param different_keys: ``"error"``: both maps must have the same keys, in any order;
        ``"union"``: a block that one of them does not have counts as zero;
        ``"intersection"``: the result has the keys that both have
    :raises NotEqualError: maps that differ in their keys or metadata

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> add(x, 2.0).block().values.tolist()
    [[5.0]]
    """
    A, B = _with_same_keys(A, B, different_keys)
    return _binary("add", operator.add, A, B, linear=True, scalar_linear=_first)


def subtract(
    A: TensorMap, B: TensorMap | Scalar, *, different_keys: str = "error"
) -> TensorMap:
    r"""Subtract a map, or a number, from a map.

    .. math:: \nabla (A - B) = \nabla A - \nabla B

    :param A: a map
    :param B: a number, or a map with the same metadata. Gradient samples may differ:
        rows that are not there are zero.
    :param different_keys: ``"error"``: both maps must have the same keys, in any order;
        ``"union"``: a block that one of them does not have counts as zero;
        ``"intersection"``: the result has the keys that both have
    :raises NotEqualError: maps that differ in their keys or metadata

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> subtract(x, 1.0).block().values.tolist()
    [[2.0]]
    """
    A, B = _with_same_keys(A, B, different_keys)
    return _binary("subtract", operator.sub, A, B, linear=True, scalar_linear=_first)


def multiply(
    A: TensorMap, B: TensorMap | Scalar, *, different_keys: str = "error"
) -> TensorMap:
    r"""Multiply two maps, or a map with a number, element by element.

    .. math:: \nabla (A B) = B \nabla A + A \nabla B

    :param A: a map
    :param B: a number, or a map with the same metadata. Gradient samples may differ:
        rows that are not there are zero.
    :param different_keys: ``"error"``: both maps must have the same keys, in any order;
        ``"intersection"``: the result has the keys that both have
    :raises NotEqualError: maps that differ in their keys or metadata

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> multiply(x, x).block().values.tolist()
    [[9.0]]
    """
    A, B = _with_same_keys(A, B, different_keys, can_fill=False)
    return _binary("multiply", operator.mul, A, B, scalar_linear=True)


def divide(
    A: TensorMap, B: TensorMap | Scalar, *, different_keys: str = "error"
) -> TensorMap:
    r"""Divide a map by another one, or by a number, element by element.

    .. math:: \nabla \frac{A}{B} = \frac{\nabla A}{B} - \frac{A \nabla B}{B^2}

    :param A: a map
    :param B: a number, or a map with the same metadata. Gradient samples may differ:
        rows that are not there are zero.
    :param different_keys: ``"error"``: both maps must have the same keys, in any order;
        ``"intersection"``: the result has the keys that both have
    :raises NotEqualError: maps that differ in their keys or metadata

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> divide(x, 2.0).block().values.tolist()
    [[1.5]]
    """
    A, B = _with_same_keys(A, B, different_keys, can_fill=False)
    return _binary("divide", operator.truediv, A, B, scalar_linear=True)


def pow(A: TensorMap, B: Scalar) -> TensorMap:
    r"""Raise each element of a map to a power.

    .. math:: \nabla A^B = B A^{B - 1} \nabla A

    For whole numbers :math:`B \ge 0` this holds to any order where :math:`A = 0`.

    :param A: a map
    :param B: a number

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.float32([[3]]))])
    >>> pow(x, 2).block().values.tolist()
    [[9.0]]
    """
    check_type(A, "A", TensorMap)
    _check_scalar(B, "`B` must be a number")
    _check_fits(A, B)
    if _is_whole(A.dtype) and _is_whole(np.asarray(B).dtype) and np.asarray(B) < 0:
        raise MetatensorError(
            f"integers to the power of {B} are no integers: convert them with "
            "`.to(dtype=float)`"
        )
    with noting("in 'pow'"):
        n = _whole_number(B, A.dtype)
        if n is not None:
            return map_rows(_WholePower(n), A)
        return map_rows(operator.pow, A, args=(_argument(B, A.dtype),))


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
    with noting("in 'abs'"):
        return map_rows(_abs, A)


# --- functions of rows ---------------------------------------------------------------


def _first(a: Any, b: Any) -> Any:
    return a.astype((a + b).dtype)  # the dtype that the values get


def _abs(x: Any) -> Any:
    # the derivative of JAX's is 1 at zero
    return jnp.where(x == 0, jnp.abs(jnp.zeros_like(x)), jnp.abs(x))


@dataclass(frozen=True)
class _WholePower:
    """A whole power, as products: its derivatives hold at zero, too."""

    n: int

    def __call__(self, x: Any) -> Any:
        return x**self.n


def _whole_number(value: Any, dtype: Any) -> int | None:
    """The exponent as an integer that changes no dtype, if it is a small one."""
    if dtype is None or isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, np.generic):
        if value.dtype != dtype:
            return None
        value = value.item()
    is_float = jnp.issubdtype(dtype, np.inexact)
    if isinstance(value, int) or (isinstance(value, float) and is_float):
        is_whole = -_MAX_POWER <= value <= _MAX_POWER and int(value) == value
        if is_whole and (is_float or value >= 0):
            return int(value)
    return None


_MAX_POWER = 64


def _argument(value: Scalar, dtype: Any) -> Any:
    """What a program takes for a number: its value is no constant in it.

    :param dtype: of the map. A whole number that is too large for JAX's integers is a
        float for it, if the map is.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        if not is_narrowed(value.dtype):
            return np.asarray(value)
        value = value.item()
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, int) and dtype is not None and is_inexact(dtype):
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(int))
        value = value if limits.min <= value <= limits.max else float(value)
    return Number(value)


def _minus(a: Any, b: Any) -> Any:
    return b - a


def _divided(a: Any, b: Any) -> Any:
    return b / a


def _power(a: Any, b: Any) -> Any:
    return b**a


# --- operands ------------------------------------------------------------------------


def _binary(
    name: str,
    function: Callable[[Any, Any], Any],
    A: TensorMap,
    B: TensorMap | Scalar,
    linear: bool | Callable[[Any, Any], Any] = False,
    scalar_linear: bool | Callable[[Any, Any], Any] = False,
) -> TensorMap:
    check_type(A, "A", TensorMap)
    if not isinstance(B, TensorMap):
        _check_scalar(B, "`B` must be a metatensor_jax TensorMap or a number")
        _check_fits(A, B)
        with noting(f"in '{name}'"):
            return map_rows(
                function, A, args=(_argument(B, A.dtype),), linear=scalar_linear
            )
    if A._structure != B._structure:
        check_same_keys(A, B, name)
        for i, (a, b) in enumerate(match_blocks(A, B)):
            with in_block(A.keys, i):
                check_same_metadata(a, b, name)
    with noting(f"in '{name}'"):
        return map_rows(function, A, B, linear=linear)


def _with_same_keys(
    A: TensorMap, B: Any, different_keys: str, can_fill: bool = True
) -> tuple[TensorMap, Any]:
    """Both maps, with the keys that they shall have."""
    options = ("error", "intersection", "union")
    if different_keys not in options:
        raise MetatensorError(
            f"`different_keys` must be one of {options}, not '{different_keys}'"
        )
    if different_keys == "union" and not can_fill:
        raise MetatensorError(
            "`different_keys='union'` is for sums: a block that is not there counts as "
            "zero, and a product with it would be zero. Use 'intersection'"
        )
    both_maps = isinstance(A, TensorMap) and isinstance(B, TensorMap)
    if different_keys == "error" or not both_maps or A.keys == B.keys:
        return A, B
    if different_keys == "intersection":
        keys = A.keys.intersection(B.keys)
        return _at_keys(A, keys, A), _at_keys(B, keys, B)
    keys = A.keys.union(B.keys)
    return _at_keys(A, keys, B), _at_keys(B, keys, A)


def _at_keys(tensor: TensorMap, keys: Labels, other: TensorMap) -> TensorMap:
    """The blocks for these keys; zeros where only the other map has a block."""
    blocks = []
    for entry in keys:
        at = tensor.keys.position(entry)
        if at is None:
            of_other = other.block(entry)
            zero = zeros_like(as_map(of_other))
            blocks.append(zero.block_by_id(0))
        else:
            blocks.append(tensor.block_by_id(at))
    return TensorMap(keys, blocks, tensor.info())


def _check_scalar(value: Any, what: str) -> None:
    if not _is_number(value):
        raise TypeError(
            f"{what}, not {type_of(value, qualified=True)}"
            f"{display.shape(value) if is_array(value) else ''}"
        )


def _is_whole(dtype: Any) -> bool:
    return dtype is not None and np.dtype(dtype).kind in "iu"


def _check_fits(tensor: TensorMap, value: Any) -> None:
    """Raise for a number that the dtype of a map can not hold."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.item()
    if isinstance(value, int) and _is_whole(tensor.dtype):
        limits = np.iinfo(tensor.dtype)
        low, high = limits.min, limits.max
    elif isinstance(value, (int, float)) and tensor.dtype is not None:
        if not is_inexact(tensor.dtype) or value in (np.inf, -np.inf):
            return
        high = float(jnp.finfo(tensor.dtype).max)
        low = -high
    else:
        return
    if not (value != value or low <= value <= high):
        raise MetatensorError(
            f"{value} does not fit into {tensor.dtype}, which goes from {low} to "
            f"{high}: convert the map with `.to(dtype=...)`"
        )


# --- operators -----------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    is_scalar = isinstance(value, (bool, int, float, complex, np.generic))
    return is_scalar or (is_array(value) and value.ndim == 0)


def _from_left(
    function: Callable[[Any, Any], Any], linear: Any = False
) -> Callable[[TensorMap, Any], Any]:
    """An operator with a number on its left."""

    def operation(tensor: TensorMap, number: Any) -> Any:
        if not _is_number(number):
            return NotImplemented
        _check_fits(tensor, number)
        return map_rows(
            function, tensor, args=(_argument(number, tensor.dtype),), linear=linear
        )

    return operation


def _raised(tensor: TensorMap, number: Any) -> Any:
    """The power of a number."""
    if _is_number(number) and _is_whole(tensor.dtype):
        raise MetatensorError(
            "integer powers of a number may be fractions: convert the map with "
            "`.to(dtype=float)`"
        )
    return _from_left(_power)(tensor, number)


def _negated(tensor: TensorMap) -> TensorMap:
    return map_rows(operator.neg, tensor, linear=True)


def _minus_first(a: Any, b: Any) -> Any:
    return -_first(a, b)


attach(
    TensorMap,
    __add__=add,
    __sub__=subtract,
    __mul__=multiply,
    __truediv__=divide,
    __pow__=pow,
    __neg__=_negated,
    __abs__=abs,
    __radd__=_from_left(operator.add, _first),
    __rsub__=_from_left(_minus, _minus_first),
    __rmul__=_from_left(operator.mul, True),
    __rtruediv__=_from_left(_divided),
    __rpow__=_raised,
)
