"""Which system each row of a block belongs to."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.padding import is_padding, rows_or_padding


def check_systems(samples: Labels, system: str, n: int) -> None:
    """Raise unless each row says its system, and there are ``n`` of them."""
    if system not in samples.names:
        raise MetatensorError(
            f"there are {n} matrices, one for each system, but the samples "
            f"{samples.names} have no dimension '{system}': name the one that tells "
            "systems apart, `system=`, or give one matrix for all, with shape (3, 3)"
        )
    if not samples.is_static or len(samples) == 0:
        return
    numbers = samples.column(system)
    if numbers.min() < 0 or numbers.max() >= n:
        raise MetatensorError(
            f"there are {n} matrices, for the systems 0 to {n - 1}, but the numbers "
            f"of '{system}' go from {numbers.min()} to {numbers.max()}: give the "
            "matrix of system i at position i"
        )


def rows_of_systems(block: TensorBlock, system: str, n: int) -> list[Any]:
    """The system of each row of a block and of all gradients in it, in turn.

    That of a gradient row is that of the row that it belongs to. Padding has the number
    0, and a row of a system that is not there the number ``n``.
    """
    samples = block.samples
    column = samples.values[:, samples.names.index(system)]
    if not samples.is_static:
        column = jnp.asarray(column)
        column = jnp.where((column < 0) | (column >= n), n, column)
        column = jnp.where(is_padding(samples.values), 0, column)
    return _downwards(block, column, n)


def _downwards(block: TensorBlock, systems: Any, n: int) -> list[Any]:
    found = [systems]
    for _, gradient in block.gradients():
        parents = gradient.samples.values[:, 0]
        both_known = isinstance(systems, np.ndarray) and isinstance(parents, np.ndarray)
        if both_known:
            of_rows: Any = systems[parents]
        else:
            of_rows = rows_or_padding(jnp.asarray(systems), jnp.asarray(parents))
            of_rows = jnp.where(is_padding(of_rows), 0, of_rows)
        found += _downwards(gradient, of_rows, n)
    return found
