"""Samples of gradients: which rows they belong to, and what follows when these move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .._host.packing import with_parents
from .._run import traced
from .._run.ops import ALL, Cut, Gather
from .._run.program import Node
from .._types.entry import check_names
from .._types.labels import Labels
from .draft import Draft, Index, compute, constant


def values_of(labels: Labels) -> Node:
    """The values of labels as an array that is computed."""
    if not labels.is_static:
        return labels.values
    return constant(labels.values)


def are_same(a: Labels, b: Labels) -> bool:
    """Are these the same labels, as far as a planner can know?"""
    if a is b:
        return True
    if a.is_static and b.is_static:
        return a == b
    return a.values is b.values  # the same data


def traced_labels(names: tuple[str, ...], values: Node) -> Labels:
    """Labels whose values are data."""
    return Labels._make(names, values, static=False)


def reparented(samples: Labels, parents: np.ndarray) -> Labels:
    """Known gradient samples that belong to other rows."""
    return Labels._make(samples._names, with_parents(samples.values, parents))


def end_to_end(parts: Sequence[Labels]) -> Labels:
    """Labels one after the other; if some are traced, nothing can be checked."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if all(part.is_static for part in parts):
        values = np.concatenate([part.values for part in parts])
        return Labels._make(first._names, values)
    nodes = [values_of(part) for part in parts]
    shape = (sum([len(part) for part in parts]), len(first._names))
    op = Gather((ALL,) * len(nodes))
    return traced_labels(first._names, Node(shape, np.dtype(np.int32), op, (*nodes,)))


def merge(samples: Sequence[Labels]) -> tuple[list[Index], Labels]:
    """Where rows go if those with the same label are to be one; and their labels.

    For traced rows there is room for all of them to differ.
    """
    names, nodes = samples[0]._names, [values_of(labels) for labels in samples]
    n, dtype = sum([len(labels) for labels in samples]), np.dtype(np.int32)
    values = compute(traced.merged, (n, len(names)), dtype, nodes)
    places = compute(traced.places, (n,), dtype, nodes)
    ends = np.cumsum([len(labels) for labels in samples]).tolist()
    destinations: list[Index] = [
        Node((stop - start,), dtype, Cut(start, stop), (places,))
        for start, stop in zip([0, *ends], ends, strict=False)
    ]
    return destinations, traced_labels(names, values)


def common_parameters(operands: Iterable[Draft]) -> list[str]:
    """The parameters that all blocks have gradients for.

    A gradient row that is not stored is zero, but of gradients that are not stored at
    all nothing is known: so nothing is known of the result.
    """
    known = [set(x.gradients) for x in operands if not x.is_constant]
    return sorted(set.intersection(*known)) if known else []


def moved_labels(
    samples: Labels, n_parents: int, destination: Index | int, n_rows: int
) -> Labels:
    """Gradient samples whose parents moved to other rows.

    :param samples: of the gradient; all of their parents are still there
    :param n_parents: how many rows these were
    :param destination: where each parent goes, or by how much all are shifted
    :param n_rows: how many rows there are afterwards
    """
    if samples.is_static and isinstance(destination, int):
        return reparented(samples, samples.values[:, 0] + np.int32(destination))
    if samples.is_static and isinstance(destination, np.ndarray):
        return reparented(samples, destination[samples.values[:, 0]])
    values = values_of(samples)
    options = (n_parents, n_rows)
    if isinstance(destination, int):
        inputs, function = [values], traced.follow_shifted
        options = (n_parents, destination, n_rows)
    else:
        known = isinstance(destination, np.ndarray)
        inputs = [values, constant(destination) if known else destination]
        function = traced.follow
    node = compute(function, values.shape, np.int32, inputs, *options)
    return traced_labels(samples._names, node)


def append_columns(
    labels: Labels, names: Sequence[str], entry: Sequence[int]
) -> Labels:
    """Labels with more dimensions at the end, which have one value each."""
    all_names = check_names((*labels._names, *names))
    if labels.is_static:
        columns = np.broadcast_to(np.array(entry, np.int32), (len(labels), len(entry)))
        return Labels._make(all_names, np.concatenate([labels.values, columns], 1))
    shape = (len(labels), len(all_names))
    inputs = [labels.values]
    return traced_labels(
        all_names, compute(traced.appended, shape, np.int32, inputs, *entry)
    )
