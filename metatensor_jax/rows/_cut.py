"""cut_rows: one block into many, without a search for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._types.block import TensorBlock
from .._types.errors import TracedLabelsError
from .._types.labels import Labels
from ..execution import CutTask, GatherTask, execute
from ._operands import Operand, is_everything


def cut_rows(block: TensorBlock, lengths: Sequence[int]) -> list[TensorBlock]:
    """Cut a block into runs of rows: each run is a block, with its gradients.

    This is :func:`move_rows` to many blocks at once, in a time that does not grow with
    their number times the rows.

    :param lengths: how many rows each run has; all together as many as the block

    >>> p = Labels.range("p", 1)
    >>> x = TensorBlock(np.arange(3.0).reshape(3, 1), Labels.range("s", 3), [], p)
    >>> [run.values.tolist() for run in cut_rows(x, [1, 2])]
    [[[0.0]], [[1.0], [2.0]]]
    """
    return [execute(plan) for plan in plan_cut(block, lengths)]


def plan_cut(block: TensorBlock, lengths: Sequence[int]) -> list[TensorBlock]:
    """The plan of :func:`cut_rows`: blocks whose leaves are tasks."""
    labels = block.samples._host_values("cutting a block into runs")
    ends = np.cumsum(np.asarray(lengths, np.int64))
    return _plan_cut(Operand.of(block), ends, labels, np.arange(len(block)))


def _plan_cut(
    x: Operand, ends: np.ndarray, labels: np.ndarray, order: np.ndarray
) -> list[TensorBlock]:
    """Runs of the rows ``order``; ``labels`` are what they are called afterwards."""
    in_order = is_everything(order, x.rows.n_rows)
    gradients = {
        name: _plan_cut_gradient(gradient, ends, order)
        for name, gradient in x.gradients.items()
    }
    plans = []
    stops = ends.tolist()
    for i, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        if in_order and isinstance(x.rows.array, np.ndarray):
            task: Any = x.rows.array[start:stop]
        elif in_order:
            task = CutTask((x.rows,), start, stop)
        else:
            task = GatherTask((x.rows.take(order[start:stop]),))
        samples = Labels._make(x.samples._names, labels[start:stop])
        own = {name: runs[i] for name, runs in gradients.items()}
        plans.append(TensorBlock._make(task, samples, x.components, x.properties, own))
    return plans


def _plan_cut_gradient(
    x: Operand, ends: np.ndarray, order: np.ndarray
) -> list[TensorBlock]:
    if not x.samples.is_static:
        raise TracedLabelsError("cutting a block into runs", x.samples._names)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    parents = position[x.parents]  # in the order in which the parents are cut
    by_parent = np.argsort(parents, kind="stable")
    parents = parents[by_parent]
    run = np.searchsorted(ends, parents, side="right")
    labels = x.samples.values[by_parent]
    labels[:, 0] = parents - np.concatenate([[0], ends])[run]
    return _plan_cut(x, np.searchsorted(parents, ends), labels, by_parent)
