r"""The two orders of a second derivative, :math:`\partial_a \partial_b` both.

It is stored as a gradient with respect to ``b`` in the one with respect to ``a``, or
the other way round. What is stored one way is turned into what it is the other way:
only labels and the order of axes change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._host.packing import RowIndex
from .._run.traced import find_rows as find_traced
from .._types.block import TensorBlock
from .._types.labels import Labels
from .._types.padding import masked, rows_or_padding
from ._components import find_components, free_components, match_components, names_of

#: a parameter, and the gradient with respect to it; first the values, without one
Levels = tuple[tuple[str, TensorBlock], ...]


def derivative_of(
    levels: Levels, name: str, parameter: TensorBlock
) -> TensorBlock | None:
    """The gradient of the last of these levels with respect to a parameter.

    That is the one that is stored there, or the same derivative in another order. None
    if neither is known.

    :param levels: the values, a gradient of them, a gradient of this, ...
    """
    *above, (last, block) = levels
    if block.has_gradient(name):
        return block.gradient(name)
    if not above:
        return None
    other = derivative_of(tuple(above), name, parameter)
    if other is None or not other.has_gradient(last):
        return None
    return _swapped(above[-1][1], (last, block), (name, other), parameter)


def _swapped(
    values: TensorBlock,
    first: tuple[str, TensorBlock],
    second: tuple[str, TensorBlock],
    parameter: TensorBlock,
) -> TensorBlock | None:
    """The gradient of the first gradient with respect to the second's parameter.

    :param values: what both are gradients of
    :param second: the gradient that the second derivative is stored in
    :returns: None if labels do not fit, or rows of the first gradient are not there
    """
    (last, block), (name, other) = first, second
    mixed = other.gradient(last)
    moved = _moved_axes(values, block, name, other, mixed, parameter)
    rows = _rows(len(values), block.samples, other.samples, mixed.samples)
    if moved is None or rows is None:
        return None
    samples, is_known = rows
    return TensorBlock._make(
        moved.values if is_known is None else _if_known(moved.values, is_known),
        samples,
        tuple(moved.components),
        moved.properties,
        dict(moved.gradients()),
    )


def _if_known(values: Any, is_known: Any) -> Any:
    """In a program that can not raise, all or nothing."""
    return values * jnp.where(is_known, 1, jnp.nan).astype(values.dtype)


# --- axes ----------------------------------------------------------------------------


def _moved_axes(
    values: TensorBlock,
    block: TensorBlock,
    name: str,
    other: TensorBlock,
    mixed: TensorBlock,
    parameter: TensorBlock,
) -> TensorBlock | None:
    """The mixed gradient with the components of the two parameters exchanged."""
    own = values.components
    of_block = block.components[: len(block.components) - len(own)]
    n_first, n_second = len(of_block), len(other.components) - len(own)
    if len(mixed.components) != n_first + n_second + len(own):
        return None
    found = None
    for original in _originals(of_block, own):
        there = free_components(original, other.components)
        found = found or find_components(there, mixed.components[:n_first])
    if found is None:
        return None
    order = match_components(name, parameter, other, own)
    renamed = free_components(parameter.components, block.components)
    components = (*[renamed[i] for i in order], *block.components)
    outer = range(n_first, n_first + n_second)
    inner = range(n_first + n_second, len(components))
    return _with_axes(mixed, (*outer, *found, *inner), components)


def _originals(
    components: Sequence[Labels], taken: Sequence[Labels]
) -> Iterator[tuple[Labels, ...]]:
    """What a parameter's components may be called, without the values' names."""
    yield tuple(components)
    taken_names, bare = names_of(taken), []
    for labels in components:
        name, _, number = labels.names[0].rpartition("_")
        has_suffix = name in taken_names and number.isdigit()
        bare.append(labels.rename(labels.names[0], name) if has_suffix else labels)
    if names_of(bare) != names_of(components) and len(set(names_of(bare))) == len(bare):
        yield tuple(bare)


def _with_axes(
    block: TensorBlock, order: tuple[int, ...], components: tuple[Labels, ...]
) -> TensorBlock:
    """The last components in another order, those of all gradients as well."""
    more = len(block.components) - len(order)
    axes = (*range(1 + more), *(1 + more + i for i in order), block.values.ndim - 1)
    return TensorBlock._make(
        block.values.transpose(axes),
        block.samples,
        (*block.components[:more], *components),
        block.properties,
        {name: _with_axes(g, order, components) for name, g in block.gradients()},
    )


# --- rows ----------------------------------------------------------------------------


def _rows(
    n: int, block: Labels, other: Labels, mixed: Labels
) -> tuple[Labels, Any] | None:
    """The samples of the mixed gradient, as a gradient of the first.

    A row of the mixed gradient says the row of the second, which says the sample of
    the values, and the entry of the first parameter: these two make a row of the first.

    :param n: how many values there are
    :returns: these samples, and with traced labels if each row was found
    """
    if sorted(mixed.names) != sorted(block.names):
        return None
    columns = [mixed.names.index(name) for name in block.names[1:]]
    if not (block.is_static and other.is_static and mixed.is_static):
        return _rows_in_program(n, block, other, mixed, columns)
    above = other.values[mixed.values[:, 0]]
    wanted = np.column_stack([above[:, 0], mixed.values[:, columns]])
    found = RowIndex(block.values).find(wanted)
    if len(found) and found.min() < 0:
        return None  # of a row that is zero and so not there, but does not stay zero
    values = np.column_stack([found, above[:, 1:]]).astype(np.int32)
    return Labels._make(other._names, values), None


def _rows_in_program(
    n: int, block: Labels, other: Labels, mixed: Labels, columns: list[int]
) -> tuple[Labels, Any]:
    rows, parents = jnp.asarray(mixed.values), jnp.asarray(other.values)
    at = rows[:, 0]
    inside = (at >= 0) & (at < len(other))
    above = rows_or_padding(parents, at)
    inside = inside & (above[:, 0] >= 0) & (above[:, 0] < n)
    wanted = jnp.concatenate([above[:, :1], rows[:, np.array(columns, int)]], axis=1)
    found = find_traced(jnp.asarray(block.values), wanted)
    values = jnp.concatenate([found[:, None], above[:, 1:]], axis=1)
    values = masked(values, inside)
    is_known = ~jnp.any(inside & (found < 0))
    return Labels._make(other._names, values, static=False), is_known
