"""move_rows: rows gathered, added up, laid end to end or side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jax.core import Tracer

from .._host.packing import is_inside, is_sorted
from .._types.block import TensorBlock
from .._types.errors import MetatensorError, NotEqualError, TracedLabelsError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..execution import (
    GatherTask,
    Index,
    PlaceTask,
    Rows,
    ScatterTask,
    execute,
)
from ..once import Once
from ._follow import (
    Link,
    OrderOfRows,
    Routes,
    follow_along,
    follow_beside,
    is_traced,
)
from ._operands import Operand, is_everything, parameters_of


class Move(NamedTuple):
    """Where rows of a block go.

    :param block: the block, or a map
    :param source: its rows, in the order in which they are moved; all of them if None.
        A row past the end stands for a row that is not there. (For a map: one index
        per block.)
    :param destination: which row of the result each of these is added to; if None,
        they follow those of the move before. (For a map: one index per block.)
    """

    block: Any
    source: Any = None
    destination: Any = None


class _Piece(NamedTuple):
    operand: Operand
    source: Index | None
    destination: Index | None

    @property
    def n_rows(self) -> int:
        rows = self.operand.rows
        return rows.n_rows if self.source is None else len(self.source)


Arrangement = Literal["end to end", "side by side"]

#: calls a function: an object of :class:`Once`, or one without a memory
_Once = Callable[..., Any]


def _directly(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def move_rows(
    moves: Sequence[Move],
    samples: Any,
    *,
    properties: Any = None,
    arrangement: Arrangement = "end to end",
    fill_value: float = 0.0,
    order_gradients: OrderOfRows | None = None,
) -> Any:
    r"""Gather rows, add rows up, lay rows end to end or side by side.

    With :math:`y_i = \sum_{j \to i} x_j`, the stored gradients of the result are
    :math:`\partial y_i / \partial r = \sum_{j \to i} \partial x_j / \partial r`:
    gradient rows go where the rows they belong to go, and those that end up with the
    same label are added up.

    :param moves: the rows, and where they go, see :class:`Move`. Either each of them
        has a destination, or none.
    :param samples: labels of the rows of the result (for maps: one per block)
    :param properties: properties of the result, those of the first block if None (for
        maps: one per block)
    :param arrangement: ``"end to end"``: the rows of all moves are rows of the result.
        ``"side by side"``: the rows of each move are columns (properties) of the
        result, and different moves may go to the same rows.
    :param fill_value: for values of the result that no row goes to, when side by side
        or with sources past the end. Gradients are zero there.
    :param order_gradients: gives the order of gradient rows from the values of their
        labels. If None, they are in the order of the input, or sorted if added up.

    NumPy arrays are moved by NumPy and give NumPy arrays, JAX arrays give JAX arrays.

    >>> p = Labels.range("p", 1)
    >>> x = TensorBlock(np.array([[1.0], [2.0], [4.0]]), Labels.range("s", 3), [], p)
    >>> taken = move_rows([Move(x, source=np.array([2, 0]))], Labels("s", [[2], [0]]))
    >>> taken.values.tolist()
    [[4.0], [1.0]]
    >>> added = move_rows(
    ...     [Move(x, destination=np.array([0, 1, 0]))], Labels.range("t", 2)
    ... )
    >>> added.values.tolist()
    [[5.0], [2.0]]
    """
    if len(moves) == 0:
        raise MetatensorError("give at least one Move: there are no rows to move")
    first = moves[0].block
    if isinstance(first, TensorBlock):
        plan = plan_move(
            moves, samples, properties, arrangement, fill_value, order_gradients
        )
        return execute(plan)
    options = (arrangement, fill_value, order_gradients, Once())
    plans = []
    for i in range(len(first)):
        of_block = [
            Move(
                move.block.block_by_id(i),
                None if move.source is None else move.source[i],
                None if move.destination is None else move.destination[i],
            )
            for move in moves
        ]
        columns = None if properties is None else properties[i]
        plans.append(plan_move(of_block, samples[i], columns, *options))
    return execute(TensorMap._make(first.keys, plans, first._structure.info))


def plan_move(
    moves: Sequence[Move],
    samples: Labels,
    properties: Labels | None = None,
    arrangement: Arrangement = "end to end",
    fill_value: float = 0.0,
    order_gradients: OrderOfRows | None = None,
    once: _Once = _directly,
) -> TensorBlock:
    """The plan of :func:`move_rows` for blocks: a block whose leaves are tasks.

    :param once: shared by blocks of one map, so that those with equal labels share
        what is worked out from these; not worth it for a single block
    """
    pieces = []
    for block, source, destination in moves:
        operand = Operand.of(block)
        source, destination = _known(source), _known(destination)
        if isinstance(source, np.ndarray):
            if len(source) and source.min() < 0:
                raise IndexError(f"rows to move can not be negative: {source.min()}")
            if is_everything(source, operand.rows.n_rows):
                source = None
        pieces.append(_Piece(operand, source, destination))
    _check_places(pieces, samples, arrangement)
    columns = pieces[0].operand.properties if properties is None else properties
    plan = _plan_beside if arrangement == "side by side" else _plan_along
    return plan(pieces, samples, columns, fill_value, order_gradients, once)


def _check_places(
    pieces: Sequence[_Piece], samples: Labels, arrangement: Arrangement
) -> None:
    """Raise unless the rows that are moved are those that the labels are for."""
    in_order = []
    for piece in pieces:
        if piece.destination is None:
            in_order.append(piece.n_rows)
        elif arrangement == "side by side" and not _is_room(piece.destination, samples):
            raise IndexError(
                f"rows {piece.destination.min()} to {piece.destination.max()} can not "
                f"all be filled: the result has {len(samples)} rows"
            )
        elif len(piece.destination) != piece.n_rows:
            raise MetatensorError(
                f"there are {piece.n_rows} rows to move, but {len(piece.destination)} "
                "destinations"
            )
    if arrangement == "end to end" and in_order:
        if len(in_order) < len(pieces):
            raise MetatensorError("either each Move has a destination, or none")
        in_order = [sum(in_order)]
    for n in in_order:
        if n != len(samples):
            raise MetatensorError(
                f"there are {n} rows to move, but {len(samples)} samples of the result"
            )


def _is_room(destination: Index, samples: Labels) -> bool:
    return is_traced(destination) or is_inside(destination, len(samples))


def _known(index: Index | None) -> Index | None:
    """As a NumPy array, unless it is traced."""
    return index if index is None or isinstance(index, Tracer) else np.asarray(index)


def _plan_along(
    pieces: Sequence[_Piece],
    samples: Labels,
    properties: Labels,
    fill_value: Any,
    order: OrderOfRows | None,
    once: _Once,
) -> TensorBlock:
    """Rows end to end, or added to their destinations."""
    rows = tuple([_taken(piece) for piece in pieces])
    if pieces[0].destination is not None:
        destinations = tuple([piece.destination for piece in pieces])
        task = _added(rows, destinations, len(samples), once)
    elif len(rows) == 1 and rows[0].index is None:
        task = rows[0].array
    else:
        task = GatherTask(rows, fill_value=fill_value)
    gradients = {}
    for name in parameters_of(piece.operand for piece in pieces):
        followers, merged = _followers(
            follow_along, name, pieces, len(samples), order, once
        )
        gradients[name] = _plan_along(followers, merged, properties, 0, order, once)
    components = pieces[0].operand.components
    return TensorBlock._make(task, samples, components, properties, gradients)


def _plan_beside(
    pieces: Sequence[_Piece],
    samples: Labels,
    properties: Labels,
    fill_value: Any,
    order: OrderOfRows | None,
    once: _Once,
) -> TensorBlock:
    """Rows side by side: each piece is some columns of the result."""
    for piece in pieces:
        if is_traced(piece.destination) or is_traced(piece.source):
            what = "laying rows side by side at traced places"
            raise TracedLabelsError(what, piece.operand.samples._names)
    gradients = {}
    for name in parameters_of(piece.operand for piece in pieces):
        if not all(name in piece.operand.gradients for piece in pieces):
            raise NotEqualError(
                f"blocks side by side must all have gradients with respect to '{name}'"
            )
        followers, merged = _followers(
            follow_beside, name, pieces, len(samples), order, once
        )
        gradients[name] = _plan_beside(followers, merged, properties, 0, order, once)
    components = pieces[0].operand.components
    rows = tuple([_taken(piece) for piece in pieces])
    destinations = tuple([piece.destination for piece in pieces])
    task = PlaceTask(rows, destinations, len(samples), -1, fill_value)
    return TensorBlock._make(task, samples, components, properties, gradients)


def _followers(
    follow: Callable[..., Routes],
    name: str,
    pieces: Sequence[_Piece],
    n_rows: int,
    order: OrderOfRows | None,
    once: _Once,
) -> tuple[list[_Piece], Labels]:
    """The gradient rows that follow the rows of each piece, and their new labels."""
    links = []
    for operand, source, destination in pieces:
        gradient = operand.gradients.get(name)
        labels = None if gradient is None else gradient.samples
        links.append(Link(operand.rows.n_rows, source, destination, labels))
    routes, samples = once(follow, links, n_rows, order)
    present = [p.operand.gradients for p in pieces if name in p.operand.gradients]
    followers = [
        _Piece(gradients[name], route.source, route.destination)
        for gradients, route in zip(present, routes, strict=True)
    ]
    return followers, samples


def _taken(piece: _Piece) -> Rows:
    """The rows of a piece, in the order of its source."""
    rows, source = piece.operand.rows, piece.source
    if source is None:
        return rows
    past_the_end = is_traced(source) or bool(np.any(source >= rows.n_rows))
    return rows.take(source, fill=past_the_end)


def _added(
    rows: tuple[Rows, ...], destinations: tuple[Any, ...], n: int, once: _Once
) -> Any:
    """Rows added to their destinations; only placed there, if none is shared."""
    if once(_is_one_to_one, destinations, n):
        return PlaceTask(rows, destinations, n, axis=0)
    if rows[0].array.dtype == bool:
        raise TypeError("can not add up bool values: convert them first")
    return ScatterTask(rows, destinations, n, once(_in_order, destinations))


def _is_one_to_one(destinations: Sequence[Index], n: int) -> bool:
    """Is it known that each of ``n`` rows is the destination of one row?"""
    if any(is_traced(index) for index in destinations):
        return False
    if sum(map(len, destinations)) != n:
        return False
    taken = np.zeros(n, bool)
    for index in destinations:
        if not is_inside(index, n):
            return False
        taken[index] = True
    return bool(taken.all())


def _in_order(destinations: Sequence[Index]) -> bool:
    """Is it known that the destinations do not decrease?"""
    last = -1
    for index in destinations:
        if not isinstance(index, np.ndarray):
            return False
        if len(index) == 0:
            continue
        if index[0] < last or not is_sorted(index):
            return False
        last = index[-1]
    return True
