"""Gradient rows of several inputs, on the rows of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from .._types.errors import NotEqualError
from .._types.labels import Labels
from ..execution import Index, follow_traced, merge_traced
from ._operands import Operand


def align(name: str, gradients: Sequence[Operand]) -> tuple[list[Operand], Labels]:
    """The gradients of several inputs, with the rows of all of them."""
    samples = gradients[0].samples
    for x in gradients[1:]:
        if x.samples.names != samples.names:
            raise NotEqualError(
                f"gradients with respect to '{name}' should have the same sample names "
                f"in all inputs, but they have {samples.names} and {x.samples.names}"
            )
    if not all(x.samples.is_static for x in gradients):
        return _align_traced(gradients)
    if all(x.samples is samples or x.samples == samples for x in gradients[1:]):
        return list(gradients), samples
    for x in gradients[1:]:
        samples = samples.union(x.samples)
    aligned = [_spread(x, samples.select(x.samples), samples) for x in gradients]
    return aligned, samples


def _align_traced(gradients: Sequence[Operand]) -> tuple[list[Operand], Labels]:
    """The same for rows that are data: there is room for all of them to differ."""
    samples = gradients[0].samples
    if all(x.samples.values is samples.values for x in gradients[1:]):
        return list(gradients), samples
    rows = jnp.concatenate([x.samples.values for x in gradients])
    values, places = merge_traced(rows)
    samples = Labels._make(samples._names, values, static=False)
    ends = np.cumsum([len(x.samples) for x in gradients])
    parts = jnp.split(places, ends[:-1])
    return [
        _spread(x, p, samples) for x, p in zip(gradients, parts, strict=True)
    ], samples


def _spread(x: Operand, places: Index, samples: Labels) -> Operand:
    """A gradient whose rows are at ``places`` of ``samples``, zero for the others."""
    n = len(x.samples)
    gradients = {
        name: gradient._replace(
            samples=_move_parents(gradient.samples, places, n, samples)
        )
        for name, gradient in x.gradients.items()
    }
    if samples.is_static:
        index = np.full(len(samples), n)
        index[places] = np.arange(n)
    else:
        index = jnp.full(len(samples), n, np.int32)
        index = index.at[places].set(jnp.arange(n, dtype=np.int32), mode="drop")
    rows = x.rows.take(index, fill=True)
    return x._replace(rows=rows, samples=samples, gradients=gradients)


def _move_parents(nested: Labels, places: Index, n: int, samples: Labels) -> Labels:
    if not samples.is_static:
        values = follow_traced(nested.values, n, 0, places, len(samples))
        return Labels._make(nested._names, values, static=False)
    values = nested.values.copy()
    values[:, 0] = places[values[:, 0]]
    return Labels._make(nested._names, values)


def extra_components(
    name: str, operands: Sequence[Operand], n_primals: int
) -> tuple[Labels, ...]:
    """The components that the gradients of all inputs have before their own.

    Those of primals have the same entries, and can have other names: one block can not
    have the names of its gradients in gradients of these again.
    """
    extras = []
    for x in operands:
        components = x.gradients[name].components
        extras.append(components[: len(components) - len(x.components)])
    primals, tangents = extras[:n_primals], extras[n_primals:]
    same_names = all(extra == tangents[0] for extra in tangents[1:])
    if not (same_names and all(_same_entries(x, tangents[0]) for x in primals)):
        shown = [[(labels.names[0], len(labels)) for labels in x] for x in extras]
        raise NotEqualError(
            f"gradients with respect to '{name}' should have the same components in "
            f"all inputs, but they have {shown}"
        )
    return tangents[0]


def _same_entries(a: Sequence[Labels], b: Sequence[Labels]) -> bool:
    return [x.values.tolist() for x in a] == [x.values.tolist() for x in b]
