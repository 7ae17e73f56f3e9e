"""What the leaf of a pytree is, in words: dtype, kind, size.

Nothing is known of a leaf: JAX puts tracers, None, shapes without data, and arrays of
other shapes there. What can't be shown is described.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..arrays import is_jax, is_tracer

#: as much is copied from an accelerator for a picture: bytes
_MOST_TO_COPY = 2**24


def leaf(value: Any) -> str:
    """What a leaf is: ``float32[3,4]`` for arrays, otherwise its type."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or shape is None:
        return type(value).__name__
    return f"{dtype}[{','.join(map(str, shape))}]"


def shape(value: Any) -> str:
    """The shape of a leaf, or what it is if it has none."""
    shape = getattr(value, "shape", None)
    return leaf(value) if shape is None else str(tuple(shape))


def kind(value: Any) -> str:
    """Whose array this is: NumPy's, JAX's (and where), or of a program being traced.

    >>> kind(np.zeros(3)), kind(None)
    ('NumPy', 'NoneType')
    """
    if isinstance(value, np.ndarray):
        return "NumPy"
    if is_tracer(value):
        # JAX has no public name for these; without it they are traced, which is true
        is_batched = type(value).__name__ == "BatchTracer"
        return "batched by vmap" if is_batched else "traced"
    return _kind_of_jax(value) if is_jax(value) else type(value).__name__


def _kind_of_jax(value: Any) -> str:
    if value.is_deleted():
        return "JAX, deleted"
    devices = value.sharding.device_set
    if len(devices) > 1:
        where = "the same on" if value.sharding.is_fully_replicated else "sharded over"
        return f"JAX, {where} {len(devices)} devices"
    (device,) = devices
    return "JAX" if device.platform == "cpu" else f"JAX on {device}"


def describe(value: Any, n_axes: int | None = None) -> str:
    """The dtype of a leaf, and what kind of an array it is.

    :param n_axes: how many axes there are labels for. More of them are those that
        ``jax.vmap`` takes away.

    >>> describe(np.zeros((5, 3)))
    'float64, NumPy'
    >>> describe(np.zeros((5, 3)), n_axes=1)
    'float64, NumPy, a batch of 5'
    """
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or shape is None:
        return type(value).__name__
    text = f"{dtype}, {kind(value)}"
    if n_axes is not None and len(shape) > n_axes:
        of = " x ".join(map(str, shape[: len(shape) - n_axes]))
        text += f", a batch of {of}"
    return text


def describe_all(described: Iterable[str]) -> str:
    """What several arrays are, each thing said once.

    >>> describe_all(["float32, JAX", "float32, NumPy", "float32, JAX"])
    'float32, JAX; float32, NumPy'
    """
    different = list(dict.fromkeys(described))
    if len(different) > _MOST_KINDS:
        different[_MOST_KINDS:] = ["..."]
    return "; ".join(different)


_MOST_KINDS = 3


def n_bytes(value: Any) -> int:
    """The size of an array; 0 for a leaf that is none.

    >>> n_bytes(np.zeros((2, 3))), n_bytes(None)
    (48, 0)
    """
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    # sizes can be symbols, and the dtypes of random keys are JAX's own
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
        return 0
    if not all(isinstance(n, int) for n in shape):
        return 0
    return math.prod(shape) * dtype.itemsize


def on_host(value: Any) -> np.ndarray | None:
    """The data of an array, to be looked at; None if there is none, or too much of it.

    >>> on_host(np.zeros(3)).shape, on_host(None)
    ((3,), None)
    """
    if isinstance(value, np.ndarray):
        return value
    if not is_jax(value) or is_tracer(value):
        return None
    if value.is_deleted() or not value.is_fully_addressable:
        return None
    is_far = any(device.platform != "cpu" for device in value.sharding.device_set)
    if is_far and n_bytes(value) > _MOST_TO_COPY:
        return None
    # JAX has been imported by whoever made the array. This way to copy is let through
    # by its guards: somebody asked to see it.
    return np.asarray(sys.modules["jax"].device_get(value))
