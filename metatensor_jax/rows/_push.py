"""The chain rule: functions of rows, and of the gradient rows that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types.block import TensorBlock
from .._types.labels import Labels
from ..execution import MapTask, real_rows
from ._align import align, extra_components
from ._operands import Operand, parameters_of, take_rows


class Mapping(NamedTuple):
    """What stays the same while ``map_rows`` walks down the gradients."""

    args: tuple[Any, ...]
    linear: bool | Callable[..., Any]
    rearranges: bool
    properties: Labels

    def plan(
        self,
        function: Callable[..., Any],
        operands: Sequence[Operand],
        samples: Labels,
        components: tuple[Labels, ...],
        n_primals: int = 0,
    ) -> TensorBlock:
        """The values, and the gradients with respect to each parameter.

        :param n_primals: so many of the operands are there as primals, for the
            gradients that come after them
        """
        rows = tuple([x.rows for x in operands])
        if not (samples.is_static or self.rearranges):
            rows = tuple([real_rows(x, samples.values) for x in rows])
        axes = [*components, self.properties]
        row_shape = tuple([len(labels) for labels in axes])
        task = MapTask(function, rows, self.args, row_shape, self.rearranges)
        gradients = {
            name: self.push(name, function, operands, components, n_primals)
            for name in parameters_of(operands)
        }
        return TensorBlock._make(task, samples, components, self.properties, gradients)

    def push(
        self,
        name: str,
        function: Callable[..., Any],
        operands: Sequence[Operand],
        components: tuple[Labels, ...],
        n_primals: int,
    ) -> TensorBlock:
        """The gradient with respect to one parameter, by the chain rule."""
        active = tuple(name in x.gradients for x in operands)
        moving = [x for x in operands if name in x.gradients]
        extra = extra_components(name, moving, sum(active[:n_primals]))
        tangents, samples = align(name, [x.gradients[name] for x in moving])
        n_primals = 0
        if self.rearranges:
            pushed: Callable[..., Any] = function
            inputs = tangents
        elif self.linear is not False:
            linear_part = function if self.linear is True else self.linear
            inputs, kinds = _linear_inputs(name, operands, tangents, samples)
            pushed = _PushedLinear(linear_part, kinds, len(extra))
        else:
            _check_differentiable(name, moving)
            parents, kept = samples.values[:, 0], _parameter_tree(tangents)
            primals = [take_rows(x, parents, kept) for x in operands]
            pushed = _Pushed(function, active, len(extra))
            inputs = [*primals, *tangents]
            n_primals = len(primals)
        below = self._replace(linear=True) if callable(self.linear) else self
        return below.plan(pushed, inputs, samples, (*extra, *components), n_primals)


@dataclass(frozen=True)
class _Pushed:
    """The derivative of a row function, in the direction of gradient rows.

    :param function: of as many rows as ``active`` is long
    :param active: which of the rows have a gradient
    :param n_extra: how many component axes the gradients have before the rows' own
    """

    function: Callable[..., Any]
    active: tuple[bool, ...]
    n_extra: int

    def __call__(self, *inputs: Any) -> Any:
        n = len(self.active)
        primals, tangents = inputs[:n], inputs[n : n + sum(self.active)]
        args = inputs[n + len(tangents) :]

        def of_active(*rows: Any) -> Any:
            moving = iter(rows)
            return self.function(
                *(
                    next(moving) if active else primal
                    for active, primal in zip(self.active, primals, strict=True)
                ),
                *args,
            )

        at = tuple(x for x, active in zip(primals, self.active, strict=True) if active)
        push = _over_extra(lambda *rows: jax.jvp(of_active, at, rows)[1], self.n_extra)
        return push(*tangents)


@dataclass(frozen=True)
class _PushedLinear:
    """The same for a function that is linear in its rows: it is its own derivative.

    :param kinds: of each row, what it is in the derivative: ``"moving"`` if it has a
        gradient, ``"constant"`` for coefficients, otherwise the shape and dtype of zero
    """

    function: Callable[..., Any]
    kinds: tuple[Any, ...]
    n_extra: int

    def __call__(self, *inputs: Any) -> Any:
        n_moving, n_constant = map(self.kinds.count, ("moving", "constant"))
        tangents, rest = inputs[:n_moving], inputs[n_moving:]
        constants, args = rest[:n_constant], rest[n_constant:]

        def push(*rows: Any) -> Any:
            given = {"moving": iter(rows), "constant": iter(constants)}
            all_rows = (
                next(given[kind]) if kind in given else jnp.zeros(*kind)
                for kind in self.kinds
            )
            return self.function(*all_rows, *args)

        return _over_extra(push, self.n_extra)(*tangents)


def _linear_inputs(
    name: str,
    operands: Sequence[Operand],
    tangents: Sequence[Operand],
    samples: Labels,
) -> tuple[list[Operand], tuple[Any, ...]]:
    """What the derivative of a linear function takes, and what each input is there."""
    parents = samples.values[:, 0]
    constants = [take_rows(x, parents, {}) for x in operands if x.is_constant]
    kinds = [
        "moving"
        if name in x.gradients
        else "constant"
        if x.is_constant
        else (x.rows.row_shape, x.rows.array.dtype)
        for x in operands
    ]
    return [*tangents, *constants], tuple(kinds)


def _over_extra(function: Callable[..., Any], n_extra: int) -> Callable[..., Any]:
    for _ in range(n_extra):
        function = jax.vmap(function)
    return function


def _check_differentiable(name: str, operands: Sequence[Operand]) -> None:
    for operand in operands:
        dtype = operand.rows.array.dtype
        if not jnp.issubdtype(dtype, np.inexact):
            raise TypeError(
                f"can not push the gradients with respect to '{name}' through a "
                f"function of {dtype} values: convert them with `.to(dtype=float)`"
            )


def _parameter_tree(operands: Sequence[Operand]) -> dict[str, Any]:
    """The parameters that there are gradients for, all the way down.

    The rows that gradients are pushed along need their own gradients for these only:
    otherwise each level would give rise to one more, without an end.
    """
    return {
        name: _parameter_tree(
            [x.gradients[name] for x in operands if name in x.gradients]
        )
        for name in parameters_of(operands)
    }
