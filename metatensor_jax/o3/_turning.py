"""Arrays that turn, as rows: which matrices they take, and how these act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._run.sums import wide_dtype
from .._types.arrays import is_tracer
from .._types.block import TensorBlock
from .._types.conversion import is_inexact
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..operations.rows import map_rows
from ._axes import Axes, Turn
from ._matrices import signs_of
from ._wigner import wigner_matrices


class Task(NamedTuple):
    """How the rows of one array turn.

    :param axes: how each component does
    :param is_pseudo: an improper matrix changes their sign
    :param systems: the number of the matrix of each row; None if there is one for all
    """

    axes: Axes
    is_pseudo: bool
    systems: Any

    @property
    def does_nothing(self) -> bool:
        """Does every axis stay, and the sign?"""
        return not self.is_pseudo and all(turn == "invariant" for turn in self.axes)


def rotated_leaves(
    parts: Sequence[TensorBlock], tasks: Sequence[Task], matrices: Any
) -> list[Any]:
    """The leaves of these arrays and their samples, rotated."""
    turning = [i for i, task in enumerate(tasks) if not task.does_nothing]
    results = dict(zip(turning, _turned(parts, tasks, turning, matrices), strict=True))
    leaves = []
    for i, part in enumerate(parts):
        leaves.append(results.get(i, part.values))
        if not part.samples.is_static:
            leaves.append(part.samples.values)
    return leaves


def _turned(
    parts: Sequence[TensorBlock],
    tasks: Sequence[Task],
    turning: Sequence[int],
    matrices: Any,
) -> list[Any]:
    if not turning:
        return []
    for i in turning:
        if not is_inexact(parts[i].dtype):
            raise TypeError(
                f"can not rotate {parts[i].dtype} values: convert them with "
                "`.to(dtype=float)`"
            )
    # a map of all arrays, so that those that turn alike run together
    blocks = [
        TensorBlock._make(p.values, p.samples, tuple(p.components), p.properties)
        for p in (parts[i] for i in turning)
    ]
    arrays = TensorMap._make(Labels.range("array", len(blocks)), blocks)
    degrees = [x for i in turning for x in tasks[i].axes if isinstance(x, int)]
    stack = _Matrices(matrices, max(degrees, default=0), blocks[0].dtype)
    functions = [_TurnRow.of(tasks[i]) for i in turning]
    args = [stack.of(tasks[i]) for i in turning]
    others: list[Any] = []
    if matrices.ndim == 3:
        others.append([tasks[i].systems for i in turning])
    turned = map_rows(functions, arrays, *others, args=args, linear=True)  # type: ignore[arg-type]
    return [block.values for block in turned]


class _Matrices:
    """The matrices of all degrees, in the precision of the values.

    :param degree: the highest one
    """

    def __init__(self, matrices: Any, degree: int, dtype: Any) -> None:
        real = np.dtype(wide_dtype(np.zeros(0, dtype).real.dtype))
        if is_tracer(matrices):
            matrices = matrices.astype(jnp.promote_types(matrices.dtype, real))
        self._matrices, self._real = matrices, real
        self._by_degree = wigner_matrices(degree, matrices)
        self._made: dict[tuple[Turn, bool], Any] = {}

    def of(self, task: Task) -> tuple[Any, ...]:
        """A matrix for each axis that turns, but for no axis at all the sign.

        The first of them has the sign of pseudotensors. Those that are alike are one
        array, so that arrays that turn alike can run together.
        """
        turning: Axes = tuple(turn for turn in task.axes if turn != "invariant")
        first, *others = turning or ("invariant",)
        rest = [self._one(turn, False) for turn in others]
        return (self._one(first, task.is_pseudo), *rest)

    def _one(self, turn: Turn, is_pseudo: bool) -> Any:
        if (turn, is_pseudo) not in self._made:
            self._made[turn, is_pseudo] = self._make(turn, is_pseudo)
        return self._made[turn, is_pseudo]

    def _make(self, turn: Turn, is_pseudo: bool) -> Any:
        degree = turn if isinstance(turn, int) else 0
        found = self._matrices if turn == "vector" else self._by_degree[degree]
        if is_pseudo:
            found = found * signs_of(self._matrices)[..., None, None]
        found = found.astype(self._real)
        if found.ndim == 3:  # one more, for rows of systems that have none
            xp = found.__array_namespace__()
            found = xp.concat([found, xp.full_like(found[:1], np.nan)])
        return found


@dataclass(frozen=True)
class _TurnRow:
    """Turns a row along some of its axes.

    :param axes: which ones; there is a matrix for each of them. Without any, there is
        one with a single element, for all of the row
    :param by_system: there is a matrix for each system; the row comes with a number
    """

    axes: tuple[int, ...]
    by_system: bool

    @classmethod
    def of(cls, task: Task) -> _TurnRow:
        """The function for the rows of one array."""
        axes = [i for i, turn in enumerate(task.axes) if turn != "invariant"]
        return cls(tuple(axes), task.systems is not None)

    def __call__(self, row: Any, *inputs: Any) -> Any:
        if self.by_system:
            system, *stacks = inputs
            inputs = tuple([jnp.take(x, system, axis=0, mode="clip") for x in stacks])
        wide = wide_dtype(row.dtype)
        matrices = [jnp.asarray(x).astype(wide) for x in inputs]
        turned = row.astype(wide)
        if not self.axes:
            return (turned * matrices[0][0, 0]).astype(row.dtype)
        for axis, matrix in zip(self.axes, matrices, strict=True):
            turned = jnp.tensordot(matrix, turned, axes=(1, axis), precision="highest")
            turned = jnp.moveaxis(turned, 0, axis)
        return turned.astype(row.dtype)
