"""The plans of reductions over samples: groups of rows, their sums, and what follows.

The mean is a sum that is divided, the variance a mean of squares of what is centred,
the deviation its root: all of them one plan, with their gradients.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._host.packing import RowIndex, unique_rows
from .._plan.draft import (
    Draft,
    DraftMap,
    Index,
    Rows,
    compute,
    constant,
    draft_array,
    parents_of,
)
from .._plan.follow import Link, follow_along
from .._plan.map import plan_map
from .._plan.move import Piece, plan_move
from .._plan.once import Once
from .._plan.push import RowFunction
from .._run import traced
from .._run.ops import Add
from .._run.program import Node
from .._run.sums import wide_dtype
from .._types.context import in_block
from .._types.conversion import is_inexact
from .._types.errors import MetatensorError, TracedLabelsError
from .._types.labels import Labels
from ._numbers import (
    check_countable,
    inexact,
    real_product,
    safe_sqrt,
    square,
)


class _Groups(NamedTuple):
    """The samples of the result of one block, and where each of its samples goes."""

    samples: Labels
    destination: Index

    def counts(self, dtype: Any) -> Node:
        """How many samples go to each group, at least 1."""
        return _counts(self.destination, len(self.samples), dtype)


def plan_over_samples(
    tensor: DraftMap, kind: str, kept: Sequence[str], out_samples: Labels | None
) -> DraftMap:
    """The plan of a reduction.

    :param kind: ``"sum"``, ``"mean"``, ``"var"`` or ``"std"``
    :param kept: the names of the sample dimensions that are left
    """
    blocks, once = [], Once()
    for i, block in enumerate(tensor.blocks):
        with in_block(tensor.keys, i):
            groups = _Groups(*once(_group, block.samples, kept, out_samples))
            blocks.append(_reduce(kind, block, groups, once))
    return tensor._replace(blocks=blocks)


def _group(
    samples: Labels, kept: Sequence[str], out_samples: Labels | None
) -> tuple[Labels, Index]:
    names = list(kept)
    if out_samples is not None and out_samples.names != (names or ["_"]):
        raise MetatensorError(
            f"`out_samples` must have the names that are left, {names or ['_']}, not "
            f"{out_samples.names}"
        )
    if not samples.is_static:
        return _group_traced(samples, out_samples)
    rows = samples.values[:, [samples.names.index(name) for name in names]]
    if not names:  # one group, which is the entry 0 of `Labels.single()`
        names, rows = ["_"], np.zeros((len(samples), 1), np.int32)
        out_samples = Labels.single() if out_samples is None else out_samples
    if out_samples is None:
        first, inverse = unique_rows(rows)
        return Labels(names, rows[first], assume_unique=True), inverse
    inverse = RowIndex(out_samples.values).find(rows)
    if len(inverse) and inverse.min() < 0:
        missing = Labels(names, rows[inverse < 0][:1])
        raise MetatensorError(
            f"{missing[0].print()} is not one of the `out_samples`:\n{out_samples}"
        )
    return out_samples, inverse


def _group_traced(samples: Labels, out_samples: Labels | None) -> tuple[Labels, Index]:
    if out_samples is None:
        what = (
            "a reduction over samples without `out_samples=` (that of a padded batch "
            "is `batch.out_samples`)"
        )
        raise TracedLabelsError(what, samples.names)
    name = out_samples.names[0]
    if len(out_samples.names) != 1 or out_samples != Labels.range(
        name, len(out_samples)
    ):
        raise MetatensorError(
            "`out_samples` of traced samples must be like `Labels.range(name, n)`, got "
            f"\n{out_samples}"
        )
    node, shape = samples.values, (len(samples),)
    if name == "_":
        return out_samples, compute(traced.to_one_group, shape, np.int32, [node])
    i = samples.names.index(name)
    return out_samples, compute(traced.column_of, shape, np.int32, [node], i)


def _counts(destination: Index, n: int, dtype: Any) -> Node:
    """How many rows go to each of ``n`` places, at least 1: nothing by 1 is nothing."""
    if isinstance(destination, np.ndarray):
        return constant(traced.counts(destination, n, dtype))
    return compute(traced.counts, (n,), dtype, [destination], n, np.dtype(dtype))


def _reduce(kind: str, x: Draft, groups: _Groups, once: Once) -> Draft:
    """One block. Sums of narrow types may not fit, where means and variances do."""
    dtype = x.rows.dtype
    check_countable(dtype)
    if kind == "sum":
        return _sum(x, groups, once)
    function = {"mean": _mean, "var": _var, "std": _std}[kind]
    result = function(_wide(x, kind), groups, once)
    narrow = is_inexact(dtype) and wide_dtype(dtype) != dtype
    return _cast(result, dtype) if narrow else result


def _wide(x: Draft, kind: str) -> Draft:
    dtype = x.rows.dtype
    if is_inexact(dtype):
        return _cast(x, wide_dtype(dtype))
    if kind == "mean":
        return _cast(x, np.dtype(np.int32)) if dtype.itemsize < 4 else x
    return plan_map(RowFunction(inexact, linear=True), [x])


def _cast(x: Draft, dtype: Any) -> Draft:
    if x.rows.dtype == dtype:
        return x
    return plan_map(RowFunction(_Cast(np.dtype(dtype)), linear=True), [x])


def _sum(x: Draft, groups: _Groups, once: Once) -> Draft:
    piece = Piece(x, destination=groups.destination)
    return plan_move([piece], groups.samples, once=once)


def _mean(x: Draft, groups: _Groups, once: Once) -> Draft:
    total = _sum(x, groups, once)
    counts = draft_array(groups.counts(total.rows.dtype), groups.samples)
    f = RowFunction(operator.truediv, linear=True)
    return plan_map(f, [total, counts])


def _var(x: Draft, groups: _Groups, once: Once) -> Draft:
    """The mean of squared distances to the mean.

    Distances are taken of the gradient rows as well, before anything is multiplied: so
    nothing that all samples share is left in them, however large it is.
    """
    mean = _mean(x, groups, once)
    if _order(x) > 1:
        source = groups.destination
        of_each = plan_move([Piece(mean, source)], x.samples, once=once)
    else:
        of_each = _of_each(x, mean, groups.destination, once)
    centered = _recentered(
        plan_map(RowFunction(operator.sub, linear=True), [x, of_each]), groups, once
    )
    variance = _mean(plan_map(RowFunction(square), [centered]), groups, once)
    if _order(x) != 1:
        return variance
    return _with_missing_rows(variance, x, mean, centered, groups, once)


def _recentered(centered: Draft, groups: _Groups, once: Once) -> Draft:
    """Without what rounding of the mean has left in the values."""
    left = _mean(centered._replace(gradients={}), groups, once)
    destination = groups.destination
    rows = left.rows.take(destination, fill=isinstance(destination, Node))
    constant_rows = draft_array(rows.as_node(), centered.samples)
    f = RowFunction(operator.sub, linear=_first)
    return plan_map(f, [centered, constant_rows])


def _order(x: Draft) -> int:
    return max([1 + _order(gradient) for gradient in x.gradients.values()], default=0)


def _of_each(x: Draft, mean: Draft, destination: Index, once: Once) -> Draft:
    """The mean of its group at each sample, with the gradient rows that this has."""
    gradients = {}
    for name, gradient in x.gradients.items():
        route = _route(x, name, destination, mean, once)
        gradients[name] = _of_each(gradient, mean.gradients[name], route, once)
    rows = mean.rows.take(destination, fill=isinstance(destination, Node))
    return x._replace(rows=rows, gradients=gradients)


def _route(x: Draft, name: str, destination: Index, mean: Draft, once: Once) -> Index:
    """Where the gradient rows of samples go that are added up."""
    gradient = x.gradients[name].samples
    link = Link(len(x.samples), None, destination, gradient)
    (route,), _ = once(follow_along, [link], len(mean.samples), None)
    return np.arange(len(gradient)) if route.destination is None else route.destination


def _with_missing_rows(
    variance: Draft,
    x: Draft,
    mean: Draft,
    centered: Draft,
    groups: _Groups,
    once: Once,
) -> Draft:
    r"""The variance, with what samples add that have no gradient row of their own.

    Their :math:`\nabla x_i` is zero, but :math:`\nabla (x_i - \bar{x})` is not. With
    the sums over all samples of a group and over those with a row, they add

    .. math:: -\frac{2}{|I|} \mathrm{Re} \left[ \overline{\left(
        \sum_{i \in I} (x_i - \bar{x}) - \sum_{i \in \mathrm{rows}} (x_i - \bar{x})
        \right)} \nabla \bar{x} \right]

    which is not computed, but zero, where all samples have a row.
    """
    gradients = {}
    alone = centered._replace(gradients={})
    for name, gradient in variance.gradients.items():
        of_mean = mean.gradients[name]
        own = x.gradients[name].samples
        route, n = _route(x, name, groups.destination, mean, once), len(of_mean.samples)
        parents = parents_of(of_mean.samples)
        n_all = Rows(groups.counts(np.float32)).take(parents)
        n_rows = _counts(route, n, np.float32)
        if isinstance(route, np.ndarray) and _are_all(groups, parents, route, n):
            gradients[name] = gradient
            continue
        total = _sum(alone, groups, once).rows.take(parents)
        with_row = alone.rows.take(parents_of(own))
        present = _added(with_row, route, n)
        arrays = [total.as_node(), present, n_all.as_node(), n_rows]
        operands = [draft_array(node, of_mean.samples) for node in arrays]
        slope = of_mean._replace(gradients={})
        missing = plan_map(RowFunction(_of_missing), [slope, *operands])
        f = RowFunction(operator.add, linear=True)
        gradients[name] = plan_map(f, [gradient, missing])
    return variance._replace(gradients=gradients)


def _are_all(groups: _Groups, parents: Any, route: np.ndarray, n: int) -> bool:
    """Is it known that each sample has each gradient row of its group?"""
    assert isinstance(groups.destination, np.ndarray)
    n_all = np.bincount(groups.destination, minlength=len(groups.samples))
    return bool(np.all(np.bincount(route, minlength=n) == n_all[parents]))


def _added(rows: Rows, destination: Index, n: int) -> Node:
    known = destination if isinstance(destination, np.ndarray) else None
    inputs = (rows.node,) if known is not None else (rows.node, destination)
    op = Add((rows.pick,), (known,), n, False, rows.dtype)
    return Node((n, *rows.row_shape), rows.dtype, op, inputs)  # type: ignore[arg-type]


def _std(x: Draft, groups: _Groups, once: Once) -> Draft:
    return plan_map(RowFunction(safe_sqrt), [_var(x, groups, once)])


# --- functions of rows ---------------------------------------------------------------


@dataclass(frozen=True)
class _Cast:
    """To another dtype."""

    dtype: Any

    def __call__(self, x: Any) -> Any:
        return x.astype(self.dtype)


def _first(a: Any, _: Any) -> Any:
    return a


def _of_missing(slope: Any, total: Any, present: Any, n_all: Any, n_rows: Any) -> Any:
    # with the shape of the gradient row, which has more components in front
    left = jnp.broadcast_to(total - present, slope.shape)
    added = -2 * real_product(left, slope) / n_all.astype(left.real.dtype)
    return jnp.where(n_rows == n_all, jnp.zeros_like(added), added)
