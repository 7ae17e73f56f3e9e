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
        self._by_turn: dict[Turn, Any] = {"vector": matrices.astype(real)}
        for l, found in enumerate(wigner_matrices(degree, matrices)):
            self._by_turn[l] = found.astype(real)
        signs = signs_of(matrices).astype(real)
        self._signs = {True: signs, False: abs(signs)}

    def of(self, task: Task) -> tuple[Any, ...]:
        """What a function of rows takes besides these: a factor, and matrices."""
        matrices = [self._by_turn[x] for x in task.axes if x != "invariant"]
        return (self._signs[task.is_pseudo], *matrices)


@dataclass(frozen=True)
class _TurnRow:
    """Turns a row along some of its axes.

    :param axes: which ones; there is a matrix for each of them
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
        factor, *matrices = inputs[1:] if self.by_system else inputs
        if self.by_system:
            take = [jnp.asarray(x).at[inputs[0]] for x in (factor, *matrices)]
            factor, *matrices = [x.get(mode="fill", fill_value=np.nan) for x in take]
        wide = wide_dtype(row.dtype)
        turned = row.astype(wide) * jnp.asarray(factor, wide)
        for axis, matrix in zip(self.axes, matrices, strict=True):
            matrix = jnp.asarray(matrix, wide)
            turned = jnp.tensordot(matrix, turned, axes=(1, axis), precision="highest")
            turned = jnp.moveaxis(turned, 0, axis)
        return turned.astype(row.dtype)
