"""Derivatives of functions of rows, which are functions of rows again.

See ``_plan/push.py`` for where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Pushed:
    """``g(x, dx) = df(x)[dx]``: the derivative of a function, along gradient rows.

    :param of: the function, of as many rows as ``active`` is long
    :param active: which of the rows have a gradient
    :param n_extra: how many component axes the gradients have before the rows' own
    """

    of: Callable[..., Any]
    active: tuple[bool, ...]
    n_extra: int

    def __call__(self, *inputs: Any) -> Any:
        n = len(self.active)
        primals, tangents = inputs[:n], inputs[n : n + sum(self.active)]
        args = inputs[n + len(tangents) :]

        def of_active(*rows: Any) -> Any:
            return self.of(*_interleaved(self.active, rows, primals), *args)

        at = tuple([x for x, is_in in zip(primals, self.active, strict=True) if is_in])
        push = _over_extra(lambda *rows: jax.jvp(of_active, at, rows)[1], self.n_extra)
        return push(*tangents)


@dataclass(frozen=True)
class PushedLinear:
    """``g(dx, c) = f(dx, c)``: a function that is linear is its own derivative.

    The parameters are those of :class:`Pushed`; the rows without a gradient, the
    coefficients, come after the others.
    """

    of: Callable[..., Any]
    active: tuple[bool, ...]
    n_extra: int

    def __call__(self, *inputs: Any) -> Any:
        n = sum(self.active)
        tangents, coefficients = inputs[:n], inputs[n : len(self.active)]
        args = inputs[len(self.active) :]

        def push(*rows: Any) -> Any:
            others = iter(coefficients)
            all_rows = [None if is_in else next(others) for is_in in self.active]
            return self.of(*_interleaved(self.active, rows, all_rows), *args)

        return _over_extra(push, self.n_extra)(*tangents)


def _interleaved(
    active: Sequence[bool], rows: Sequence[Any], others: Sequence[Any]
) -> list[Any]:
    """``rows`` where there is a gradient, and the others where there is none."""
    moving = iter(rows)
    pairs = zip(active, others, strict=True)
    return [next(moving) if is_in else other for is_in, other in pairs]


def _over_extra(function: Callable[..., Any], n_extra: int) -> Callable[..., Any]:
    for _ in range(n_extra):
        function = jax.vmap(function)
    return function
