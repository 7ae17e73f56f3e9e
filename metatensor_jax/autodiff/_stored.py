"""The stored gradients of a block as arrays, for the program that contracts them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from .._types.block import TensorBlock
from ._components import match_components
from ._entries import Known, find_entries
from ._swap import Levels, derivative_of


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "parents", "entries", "nested"],
    meta_fields=["order", "is_static"],
)
@dataclass(frozen=True)
class StoredGradient:
    """A stored gradient, by rows.

    :param values: of the gradient block
    :param parents: for each row, the row of the values
    :param entries: for each row, the row of the parameter
    :param nested: the gradients of this gradient
    :param order: for each of its components, which one of the parameter it is
    :param is_static: are the entries known to be rows of the parameter?
    """

    values: Any
    parents: Any
    entries: Any
    nested: StoredGradients
    order: tuple[int, ...]
    is_static: bool


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["by"],
    meta_fields=["path", "is_kept"],
)
@dataclass(frozen=True)
class StoredGradients:
    """All that is known of the derivatives of one array.

    :param by: by parameter
    :param path: the parameters of the gradients that the array is of
    :param is_kept: is it, or does it belong to, a gradient that stays stored?
    """

    by: dict[str, StoredGradient]
    path: tuple[str, ...]
    is_kept: bool


def stored_gradients(
    levels: Levels,
    parameters: Mapping[str, TensorBlock],
    known: Known,
    system: str,
    is_kept: bool = False,
) -> StoredGradients:
    """The derivatives of the last of these levels with respect to the parameters.

    :param levels: the values, a gradient of them, a gradient of this, ...
    :param known: of the rows of the last
    """
    block, by = levels[-1][1], {}
    for name, parameter in parameters.items():
        gradient = derivative_of(levels, name, parameter)
        if gradient is None:
            continue
        order = match_components(name, parameter, gradient, block.components)
        below = known.below(name, gradient.samples, system)
        below_levels = (*levels, (name, gradient))
        by[name] = StoredGradient(
            values=gradient.values,
            parents=gradient.samples.values[:, 0],
            entries=find_entries(name, parameter.samples, gradient.samples, below),
            nested=stored_gradients(below_levels, parameters, below, system, is_kept),
            order=order,
            is_static=below.is_static and parameter.samples.is_static,
        )
    path = tuple(name for name, _ in levels[1:])
    return StoredGradients(by, path, is_kept)
