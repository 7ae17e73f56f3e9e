"""Programs: arrays that are yet to be computed, and in which order.

A planner writes down what it wants as nodes, each made from others. A program is these
nodes in order: for each one an operation, and the arrays that it reads. Nothing here
knows of labels, and nothing here holds an array of data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .functions import identity, partition
from .ops import Op, Slot, slot_in


class Node:
    """An array that is not there yet.

    :param shape: its shape
    :param dtype: its dtype; None if only a function of the caller knows
    :param op: what makes it; None for an array of data
    :param inputs: what the operation reads
    """

    __slots__ = ("dtype", "inputs", "op", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        op: Op | None = None,
        inputs: tuple[Node, ...] = (),
    ) -> None:
        self.shape, self.dtype, self.op, self.inputs = shape, dtype, op, inputs

    def __repr__(self) -> str:
        made = "data" if self.op is None else type(self.op).__name__
        return f"Node({self.dtype}[{','.join(map(str, self.shape))}], {made})"


class Level:
    """Operations that only read what levels before have made.

    :param moves: those that NumPy does, by their position in the program
    :param functions: functions of rows, several of which can run as one
    """

    __slots__ = ("functions", "moves")

    def __init__(self) -> None:
        self.moves: list[int] = []
        self.functions: list[int] = []


class Program:
    """What becomes of arrays, in order. See :func:`run`.

    The arrays have numbers: first the data, then the result of each
    operation.

    :param data: the arrays that the caller has, in order
    :param results: the arrays that are wanted
    """

    def __init__(self, data: Sequence[Node], results: Sequence[Node]) -> None:
        self.n_data = len(data)
        self.ops: list[Op] = []
        #: the numbers of the arrays that each operation reads
        self.reads: list[tuple[int, ...]] = []
        self.levels: list[Level] = []
        self._numbers = {id(node): i for i, node in enumerate(data)}
        self._levels = dict.fromkeys(self._numbers, 0)
        #: the numbers of the results
        self.results = [self._add(node) for node in results]
        #: some are functions of rows, which NumPy can not do
        self.has_functions = any(not op.by_numpy for op in self.ops)
        #: functions with equal ones, of equal rows, can run as one
        self.signatures = {i: _signature(self.ops[i]) for i in self._functions()}
        #: what is worked out for functions that run as one, when they first do
        self.batches: dict[Any, Any] = {}
        del self._numbers, self._levels

    def _functions(self) -> Iterator[int]:
        for level in self.levels:
            yield from level.functions

    def _add(self, node: Node) -> int:
        """The number of a node; it follows those that it reads."""
        number = self._numbers.get(id(node))
        if number is not None:
            return number
        if node.op is None:
            raise AssertionError(f"{node!r} is none of the arrays that the caller has")
        reads = tuple([self._add(x) for x in node.inputs])
        level = max([self._levels[id(x)] for x in node.inputs], default=0)
        if level == len(self.levels):
            self.levels.append(Level())
        at = len(self.ops)
        lists = self.levels[level]
        (lists.moves if node.op.by_numpy else lists.functions).append(at)
        self.ops.append(node.op)
        self.reads.append(reads)
        self._numbers[id(node)] = self.n_data + at
        self._levels[id(node)] = level + 1
        return self.n_data + at


def _signature(op: Any) -> tuple[Slot | None, Any]:
    """The slot of a function of rows, and all else that it does."""
    dynamic, static = partition(op.args)
    args = identity(dynamic), static
    slot = slot_in(op.function)
    function = op.function if slot is None else _without_slot(op.function)
    return slot, (function, args, op.row_shape)


def _without_slot(function: Any) -> Any:
    """What stays of a derivative of a slot: equal for the same of another slot."""
    if isinstance(function, Slot):
        return function.is_linear_part
    return type(function), function.active, function.n_extra, _without_slot(function.of)
