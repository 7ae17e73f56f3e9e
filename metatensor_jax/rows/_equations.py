"""Rows as equations: those of a block and of its gradients, end to end."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from ..execution import is_on_host, round_up


def equations(block: TensorBlock) -> Any:
    """All components of all rows, with shape (equations, properties).

    Padding is the equation 0 = 0. The result is a NumPy array if all is known on the
    host.
    """
    check_not_narrowed(block.dtype)
    is_known = not any(isinstance(leaf, Tracer) for leaf in block._leaves)
    xp: Any = np if is_known and is_on_host(block._leaves) else jnp
    return xp.concatenate([_rows(inner, xp) for _, inner in block._walk()])


def _rows(block: TensorBlock, xp: Any) -> Any:
    values = xp.asarray(block.values)
    if not block.samples.is_static:
        mask = xp.asarray(block.mask).reshape((-1,) + (1,) * (values.ndim - 1))
        values = xp.where(mask, values, 0)
    return values.reshape(-1, values.shape[-1])


def filled_up(rows: Any) -> Any:
    """With equations 0 = 0 up to a round number: few programs serve many blocks.

    In a program that is being traced this would only be more to do.
    """
    if not isinstance(rows, np.ndarray):
        return rows
    out = np.zeros((round_up(len(rows)), *rows.shape[1:]), rows.dtype)
    out[: len(rows)] = rows
    return out
