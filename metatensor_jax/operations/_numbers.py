"""Functions of rows that reductions over samples and over properties share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from .._types.errors import MetatensorError
from .._types.tensor import TensorMap
from .checks import as_names

Names = str | Sequence[str]


def names_left(
    names: list[str], reduced: Names, axis: str, tensor: TensorMap
) -> tuple[str, ...]:
    """The dimensions of an axis that are not reduced over."""
    reduced = as_names(reduced)
    for name in reduced:
        if len(tensor) and name not in names:
            raise MetatensorError(f"'{name}' is not one of the {axis} names {names}")
    return tuple([name for name in names if name not in reduced])


def check_countable(dtype: Any) -> None:
    """Raise for booleans: whether their sum is a number is for the user to say."""
    if dtype.kind == "b":
        raise TypeError("can not add up bool values: convert them first")


def real_product(a: Any, b: Any) -> Any:
    """The product of real numbers, the real part of that of complex ones."""
    return (a.conj() * b).real if jnp.iscomplexobj(a) else a * b


def inexact(x: Any) -> Any:
    """As division gives it: float32 for int32."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x / 1


def square(x: Any) -> Any:
    """The square of the absolute value."""
    return real_product(x, x)


def safe_sqrt(x: Any) -> Any:
    """The square root, with derivative 0 at 0; a NaN stays a NaN."""
    is_zero = x == 0
    return jnp.where(is_zero, x, jnp.sqrt(jnp.where(is_zero, jnp.ones_like(x), x)))
