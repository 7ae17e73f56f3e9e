"""One block cut into many, without a search for each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._host.packing import inverse, is_everything, with_parents
from .._run.ops import Cut
from .._run.program import Node
from .._types.errors import TracedLabelsError
from .._types.labels import Labels
from .draft import Draft, Rows


def plan_cut(block: Draft, lengths: Sequence[int]) -> list[Draft]:
    """Runs of rows, each a block with its gradients.

    This is a move to many blocks at once, in a time that does not grow with their
    number times the rows.

    :param lengths: how many rows each run has; all together as many as the block
    """
    labels = block.samples._host_values("cutting a block into runs")
    ends = np.cumsum(np.asarray(lengths, np.int64))
    return _cut(block, ends, labels, np.arange(len(labels)))


def _cut(
    x: Draft, ends: np.ndarray, labels: np.ndarray, order: np.ndarray
) -> list[Draft]:
    """Runs of the rows ``order``; ``labels`` are what they are called afterwards."""
    in_order = is_everything(order, x.rows.n_rows)
    gradients = {
        name: _cut_gradient(gradient, ends, order)
        for name, gradient in x.gradients.items()
    }
    node, row_shape = x.rows.as_node() if in_order else x.rows.node, x.rows.row_shape
    drafts, stops = [], ends.tolist()
    for i, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        if in_order:
            shape = (stop - start, *row_shape)
            rows = Rows(Node(shape, node.dtype, Cut(start, stop), (node,)))
        else:
            rows = x.rows.take(order[start:stop])
        samples = Labels._make(x.samples._names, labels[start:stop])
        own = {name: runs[i] for name, runs in gradients.items()}
        drafts.append(x._replace(rows=rows, samples=samples, gradients=own))
    return drafts


def _cut_gradient(x: Draft, ends: np.ndarray, order: np.ndarray) -> list[Draft]:
    if not x.samples.is_static:
        raise TracedLabelsError("cutting a block into runs", x.samples._names)
    # in the order in which the parents are cut
    parents = inverse(order)[x.samples.values[:, 0]]
    by_parent = np.argsort(parents, kind="stable")
    parents = parents[by_parent]
    run = np.searchsorted(ends, parents, side="right")
    in_run = parents - np.concatenate([[0], ends])[run]
    labels = with_parents(x.samples.values[by_parent], in_run)
    return _cut(x, np.searchsorted(parents, ends), labels, by_parent)
