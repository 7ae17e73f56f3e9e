"""Gradient rows of several inputs, on the rows of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._run import traced
from .._types.errors import NotEqualError
from .._types.labels import Labels
from .draft import Draft, Index, compute
from .rows import are_same, merge, moved_labels


def align(name: str, gradients: Sequence[Draft]) -> tuple[list[Draft], Labels]:
    """The gradients of several inputs, with the rows of all of them."""
    samples = gradients[0].samples
    for x in gradients[1:]:
        if x.samples.names != samples.names:
            raise NotEqualError(
                f"gradients with respect to '{name}' should have the same sample names "
                f"in all inputs, but they have {samples.names} and {x.samples.names}"
            )
    if all(are_same(x.samples, samples) for x in gradients):
        return list(gradients), samples
    if not all(x.samples.is_static for x in gradients):
        places, samples = merge([x.samples for x in gradients])
    else:
        for x in gradients[1:]:
            samples = samples.union(x.samples)
        places = [samples.select(x.samples) for x in gradients]
    pairs = zip(gradients, places, strict=True)
    return [_spread(x, at, samples) for x, at in pairs], samples


def _spread(x: Draft, places: Index, samples: Labels) -> Draft:
    """A gradient whose rows are at ``places`` of ``samples``, zero for the others."""
    n, n_rows = len(x.samples), len(samples)
    gradients = {
        name: gradient._replace(
            samples=moved_labels(gradient.samples, n, places, n_rows)
        )
        for name, gradient in x.gradients.items()
    }
    index: Index
    if isinstance(places, np.ndarray):
        index = np.full(n_rows, n)
        index[places] = np.arange(n)
    else:
        index = compute(traced.sources, (n_rows,), np.int32, [places], n_rows)
    return x._replace(
        rows=x.rows.take(index, fill=True), samples=samples, gradients=gradients
    )


def extra_components(name: str, blocks: Sequence[Draft]) -> tuple[Labels, ...]:
    """The components that the gradients of all inputs have before their own.

    They have the same entries everywhere. Their names can differ between gradients of
    another depth, as ``xyz``, ``xyz_2`` and ``xyz_3`` do: a gradient of a gradient can
    not have the names that are taken. Those of the deepest are free in the result.
    """
    extras = []
    for x in blocks:
        components = x.gradients[name].components
        extras.append(components[: len(components) - len(x.components)])
    depth = max([len(x.components) for x in blocks])
    deepest = [
        extra
        for x, extra in zip(blocks, extras, strict=True)
        if len(x.components) == depth
    ]
    if all([extra == deepest[0] for extra in extras]):  # noqa: C419 - nearly always
        return deepest[0]
    same_names = all(extra == deepest[0] for extra in deepest)
    if not (same_names and all(_same_entries(x, deepest[0]) for x in extras)):
        shown = [[(labels.names[0], len(labels)) for labels in x] for x in extras]
        raise NotEqualError(
            f"gradients with respect to '{name}' should have the same components in "
            f"all inputs, but they have {shown}"
        )
    return deepest[0]


def _same_entries(a: Sequence[Labels], b: Sequence[Labels]) -> bool:
    return [x.values.tolist() for x in a] == [x.values.tolist() for x in b]
