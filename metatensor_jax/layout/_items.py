"""The items of an array along its first axis, cut such that programs stay small."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from .._types.arrays import is_tracer


def items_of(array: Any) -> list[Any]:
    """The items of an array along its first axis, in a program or outside of one.

    Those of a ``jax.ShapeDtypeStruct`` are shapes.
    """
    if isinstance(array, jax.ShapeDtypeStruct):
        return [jax.ShapeDtypeStruct(array.shape[1:], array.dtype)] * array.shape[0]
    if is_tracer(array) and len(array) > 1:
        return _items(array)
    with jax.transfer_guard_host_to_device("allow"):  # of their numbers
        return [array[i] for i in range(len(array))]


@jax.custom_jvp
def _items(array: jax.Array) -> list[jax.Array]:
    """The items, by as few kernels as there can be.

    XLA compiles one kernel on a CPU for each item that is cut at a place that it knows:
    9 ms each, 11 s for a loss over 512 blocks of a ModuleMap and its derivative. It
    compiles one for all of them, 1.8 s, if it does not know the places.
    """
    return jax.lax.platform_dependent(array, cpu=_at_unknown_places, default=_split)


@_items.defjvp
def _items_jvp(primals: Any, tangents: Any) -> Any:
    return _items(*primals), _split(*tangents)


def _split(array: jax.Array) -> list[jax.Array]:
    """The items, by one operation, whose transpose lays them together again.

    That of an index would add up as many arrays, each as large as all of them.
    """
    return [jnp.squeeze(x, 0) for x in jax.lax.split(array, [1] * len(array))]


def _at_unknown_places(array: jax.Array) -> list[jax.Array]:
    n = len(array)
    width = math.isqrt(n - 1) + 1
    rows, columns = _unknown_numbers(-(-n // width), width), _unknown_numbers(width, 1)
    index = jax.lax.dynamic_index_in_dim
    return [
        index(array, rows[i // width] + columns[i % width], 0, keepdims=False)
        for i in range(n)
    ]


def _unknown_numbers(n: int, step: int) -> list[jax.Array]:
    """0 to n - 1 times ``step``, from a loop that XLA does not look through."""
    # signed numbers could count from the end, which costs a choice for each of them
    zero = jnp.uint32(0)

    def count(carry: Any) -> Any:
        return carry[0] + 1, [jnp.uint32(i * step) for i in range(n)]

    # a loop of one round would be taken apart
    _, numbers = jax.lax.while_loop(
        lambda carry: carry[0] < 2, count, (zero, [zero] * n)
    )
    return numbers
