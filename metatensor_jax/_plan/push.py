r"""The chain rule: gradients of functions of rows. It stands here, and nowhere else.

With :math:`y_i = f(x_i)`, a gradient row of the result is

.. math:: \frac{\partial y_i}{\partial a} =
    \mathrm{d}f(x_i) \left[ \frac{\partial x_i}{\partial a} \right]
    =: g\left(x_i, \frac{\partial x_i}{\partial a}\right),

where :math:`g` is ``jax.jvp`` of :math:`f`, mapped over the components that :math:`a`
has. So the gradient rows of the result are a function of rows as well, namely of the
rows that they belong to (the primals, gathered by the column ``"sample"``) and of the
stored gradient rows (the tangents). The gradient of this function :math:`g`, of the two
with their own gradients, is the second derivative,

.. math:: \frac{\partial^2 y_i}{\partial a \partial b} =
    \mathrm{d}^2 f \left[ \frac{\partial x_i}{\partial a},
    \frac{\partial x_i}{\partial b} \right]
    + \mathrm{d}f \left[ \frac{\partial^2 x_i}{\partial a \partial b} \right],

and so on, to any order: :func:`plan_function` calls itself. The primals keep gradients
one level shallower than the tangents have them, so it comes to an end.

For several inputs, :math:`f(x_i, z_i)`, the gradient rows of all of them are aligned
first; a row that one of them does not have is zero there. A function that is linear in
all rows together needs no primals: :math:`g` is :math:`f` of the tangents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._host.packing import join_rows
from .._run import traced
from .._run.derivatives import Pushed, PushedLinear
from .._run.ops import MapRows
from .._run.program import Node
from .._types.conversion import is_inexact
from .._types.errors import TracedLabelsError
from .._types.labels import Labels
from .align import align, extra_components
from .draft import Draft, Index, Rows, compute, parents_of
from .rows import common_parameters, reparented


class RowFunction(NamedTuple):
    """A function of rows, as planners know it.

    :param function: of a module, or the slot of one that the caller gives
    :param args: what it takes besides rows
    :param linear: it is linear in the rows of all blocks together; for an affine
        function, its linear part
    :param rearranges: it only moves elements
    :param dtype: of its result, if that is known
    """

    function: Any
    args: tuple[Any, ...] = ()
    linear: Any = False
    rearranges: bool = False
    dtype: Any = None

    @property
    def has_derivative(self) -> bool:
        """Not if its result is boolean or integer; but moves and sums have one."""
        moves = self.rearranges or self.linear is not False
        return moves or self.dtype is None or is_inexact(self.dtype)


def plan_function(
    f: RowFunction,
    operands: Sequence[Draft],
    samples: Labels,
    components: tuple[Labels, ...],
    properties: Labels,
) -> Draft:
    """The values, and the gradients with respect to each parameter."""
    rows = [x.rows for x in operands]
    if not (samples.is_static or f.rearranges):
        rows = [_real_rows(x, samples) for x in rows]
    row_shape = tuple([len(labels) for labels in (*components, properties)])
    picks = tuple([x.pick for x in rows])
    op = MapRows(f.function, picks, row_shape, f.args, f.rearranges)
    inputs = tuple([x.node for x in rows])
    values = Node((len(samples), *row_shape), f.dtype, op, inputs)
    names = common_parameters(operands) if f.has_derivative else []
    gradients = {
        name: _push(name, f, operands, components, properties) for name in names
    }
    return Draft(Rows(values), samples, components, properties, gradients)


def _push(
    name: str,
    f: RowFunction,
    operands: Sequence[Draft],
    components: tuple[Labels, ...],
    properties: Labels,
) -> Draft:
    """The gradient with respect to one parameter."""
    blocks = [x for x in operands if not x.is_constant]
    extra = extra_components(name, blocks)
    tangents, samples = align(name, [x.gradients[name] for x in blocks])
    active = tuple([not x.is_constant for x in operands])
    if f.rearranges:
        g, inputs = f, tangents
    elif f.linear is not False:
        linear = f.function if f.linear is True else f.linear
        g = f._replace(function=PushedLinear(linear, active, len(extra)), linear=True)
        constants = [x for x in operands if x.is_constant]
        inputs = [*tangents, *_primals(constants, samples, {})]
    else:
        _check_differentiable(name, blocks)
        g = f._replace(function=Pushed(f.function, active, len(extra)))
        inputs = [*_primals(operands, samples, _parameter_tree(tangents)), *tangents]
    return plan_function(g, inputs, samples, (*extra, *components), properties)


def _real_rows(rows: Rows, samples: Labels) -> Rows:
    """Rows without padding, which functions shall not see."""
    inputs = [rows.as_node(), samples.values]
    return Rows(compute(traced.real_rows, rows.shape, rows.dtype, inputs))


def _primals(
    operands: Sequence[Draft], samples: Labels, kept: Mapping[str, Any]
) -> list[Draft]:
    """The rows that gradient rows belong to."""
    parents = parents_of(samples)
    return [_take(x, parents, kept) for x in operands]


def _take(x: Draft, index: Index, kept: Mapping[str, Any]) -> Draft:
    """Some rows of a block, with those of its gradients that are in ``kept``."""
    gradients = {
        name: _take_gradient(x.gradients[name], index, kept[name])
        for name in kept
        if name in x.gradients
    }
    return x._replace(rows=x.rows.take(index), gradients=gradients)


def _take_gradient(x: Draft, index: Index, kept: Mapping[str, Any]) -> Draft:
    if not x.samples.is_static or not isinstance(index, np.ndarray):
        raise TracedLabelsError(
            "taking rows with gradients of gradients", x.samples._names
        )
    parents, rows = join_rows(index, x.samples.values[:, 0])
    labels = Labels._make(x.samples._names, x.samples.values[rows])
    return _take(x, rows, kept)._replace(samples=reparented(labels, parents))


def _check_differentiable(name: str, blocks: Sequence[Draft]) -> None:
    for block in blocks:
        if not is_inexact(block.rows.dtype):
            raise TypeError(
                f"can not push the gradients with respect to '{name}' through a "
                f"function of {block.rows.dtype} values: convert them with "
                "`.to(dtype=float)`"
            )


def _parameter_tree(blocks: Sequence[Draft]) -> dict[str, Any]:
    """The parameters that there are gradients for, all the way down.

    Primals need their own gradients for these only: otherwise each level would give
    rise to one more, without an end.
    """
    return {
        name: _parameter_tree([x.gradients[name] for x in blocks])
        for name in common_parameters(blocks)
    }
