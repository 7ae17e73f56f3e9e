"""move_rows: rows gathered, added up, laid end to end or side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..block import TensorBlock
from ..errors import MetatensorError, NotEqualError, TracedLabelsError
from ..execution import (
    GatherTask,
    Index,
    PlaceTask,
    Rows,
    ScatterTask,
    execute,
    follow_traced,
    merge_traced,
)
from ..labels import Labels
from ..packing import distinct_rows, is_increasing, is_inside, is_sorted
from ..tensor import TensorMap
from ._operands import (
    Operand,
    end_to_end,
    is_everything,
    join_rows,
    parameters_of,
)


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
OrderOfRows = Callable[[np.ndarray], np.ndarray]


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
    options = (arrangement, fill_value, order_gradients)
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
) -> TensorBlock:
    """The plan of :func:`move_rows` for blocks: a block whose leaves are tasks."""
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
    if arrangement == "side by side":
        return _plan_beside(pieces, samples, columns, fill_value, order_gradients)
    return _plan_along(pieces, samples, columns, fill_value, order_gradients)


def _check_places(
    pieces: Sequence[_Piece], samples: Labels, arrangement: Arrangement
) -> None:
    """Raise unless the rows that are moved are those that the labels are for."""
    in_order = []
    for piece in pieces:
        if piece.destination is None:
            in_order.append(piece.n_rows)
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


def _known(index: Index | None) -> Index | None:
    """As a NumPy array, unless it is traced."""
    return index if index is None or isinstance(index, Tracer) else np.asarray(index)


def _plan_along(
    pieces: Sequence[_Piece],
    samples: Labels,
    properties: Labels,
    fill_value: Any,
    order: OrderOfRows | None,
) -> TensorBlock:
    """Rows end to end, or added to their destinations."""
    rows = tuple([_taken(piece) for piece in pieces])
    added = pieces[0].destination is not None
    if added:
        task = _added(rows, [piece.destination for piece in pieces], len(samples))
    elif len(rows) == 1 and rows[0].index is None:
        task = rows[0].array
    else:
        task = GatherTask(rows, fill_value=fill_value)
    gradients = {}
    for name in parameters_of(piece.operand for piece in pieces):
        followers, new_samples = _follow(name, pieces, len(samples))
        merged = end_to_end(new_samples)
        if added and not (merged.is_static and is_increasing(merged.values)):
            followers, merged = _merge(followers, new_samples)
        if order is not None:
            followers, merged = _reorder(followers, merged, order)
        gradients[name] = _plan_along(followers, merged, properties, 0, order)
    components = pieces[0].operand.components
    return TensorBlock._make(task, samples, components, properties, gradients)


def _plan_beside(
    pieces: Sequence[_Piece],
    samples: Labels,
    properties: Labels,
    fill_value: Any,
    order: OrderOfRows | None,
) -> TensorBlock:
    """Rows side by side: each piece is some columns of the result."""
    for piece in pieces:
        if _is_traced(piece.destination) or _is_traced(piece.source):
            what = "laying rows side by side at traced places"
            raise TracedLabelsError(what, piece.operand.samples._names)
    gradients = {}
    for name in parameters_of(piece.operand for piece in pieces):
        followers, merged = _follow_beside(name, pieces, len(samples))
        if order is not None:
            in_place = [_in_place(piece) for piece in followers]
            followers, merged = _reorder(in_place, merged, order)
        gradients[name] = _plan_beside(followers, merged, properties, 0, order)
    components = pieces[0].operand.components
    rows = tuple([_taken(piece) for piece in pieces])
    destinations = tuple([piece.destination for piece in pieces])
    task = PlaceTask(rows, destinations, len(samples), -1, fill_value)
    return TensorBlock._make(task, samples, components, properties, gradients)


def _follow_beside(
    name: str, pieces: Sequence[_Piece], n_rows: int
) -> tuple[list[_Piece], Labels]:
    """The gradient rows of each piece, on the rows of all of them."""
    if not all(name in piece.operand.gradients for piece in pieces):
        raise NotEqualError(
            f"blocks side by side must all have gradients with respect to '{name}'"
        )
    gradients = [piece.operand.gradients[name] for piece in pieces]
    as_they_are = all(p.source is None and p.destination is None for p in pieces)
    if as_they_are and _all_same([gradient.samples for gradient in gradients]):
        return [_Piece(x, None, None) for x in gradients], gradients[0].samples
    followers, samples = _follow(name, [_in_place(p) for p in pieces], n_rows)
    if _all_same(samples):
        return followers, samples[0]
    return _merge(followers, samples)


def _in_place(piece: _Piece) -> _Piece:
    """A piece with a destination for each row."""
    if piece.destination is not None:
        return piece
    return piece._replace(destination=np.arange(piece.n_rows))


def _taken(piece: _Piece) -> Rows:
    """The rows of a piece, in the order of its source."""
    rows, source = piece.operand.rows, piece.source
    if source is None:
        return rows
    past_the_end = _is_traced(source) or bool(np.any(source >= rows.n_rows))
    return rows.take(source, fill=past_the_end)


def _added(rows: tuple[Rows, ...], destinations: Sequence[Index], n: int) -> Any:
    """Rows added to their destinations; only placed there, if none is shared."""
    if not _is_one_to_one(destinations, n):
        if rows[0].array.dtype == bool:
            raise TypeError("can not add up bool values: convert them first")
        return ScatterTask(rows, tuple(destinations), n, _in_order(destinations))
    return PlaceTask(rows, tuple(destinations), n, axis=0)


def _is_one_to_one(destinations: Sequence[Index], n: int) -> bool:
    """Is it known that each of ``n`` rows is the destination of one row?"""
    if any(_is_traced(index) for index in destinations):
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


def _follow(
    name: str, pieces: Sequence[_Piece], n_rows: int
) -> tuple[list[_Piece], list[Labels]]:
    """The gradient rows that belong to the rows of each piece, and their new labels.

    The labels are those of each piece, or of all pieces end to end.
    """
    as_they_are = all(p.source is None and p.destination is None for p in pieces)
    gradients = [piece.operand.gradients.get(name) for piece in pieces]
    if as_they_are and all(g is None or g.samples.is_static for g in gradients):
        followers = [_Piece(g, None, None) for g in gradients if g is not None]
        return followers, [_shifted_samples(pieces, gradients)]
    offset = 0
    followers, new_samples = [], []
    for piece, gradient in zip(pieces, gradients, strict=True):
        if gradient is not None:
            source, samples = _follow_one(piece, gradient, offset, n_rows)
            followers.append(_Piece(gradient, source, None))
            new_samples.append(samples)
        offset += piece.n_rows
    return followers, new_samples


def _shifted_samples(
    pieces: Sequence[_Piece], gradients: Sequence[Operand | None]
) -> Labels:
    """The gradient samples of pieces that are laid end to end, all at once."""
    present = [g.samples for g in gradients if g is not None]
    lengths = [0 if g is None else len(g.samples) for g in gradients]
    offsets = np.cumsum([0, *(piece.n_rows for piece in pieces[:-1])])
    values = np.concatenate([samples.values for samples in present])
    values[:, 0] += np.repeat(offsets, lengths).astype(np.int32)
    return Labels._make(present[0]._names, values)


def _follow_one(
    piece: _Piece, gradient: Operand, offset: int, n_rows: int
) -> tuple[Index | None, Labels]:
    source, destination = piece.source, piece.destination
    names = gradient.samples._names
    n_parents = piece.operand.rows.n_rows
    if _is_traced(source) or _is_traced(destination) or not gradient.samples.is_static:
        if source is not None:
            raise TracedLabelsError("selecting rows with gradients", names)
        values = follow_traced(
            gradient.samples.values, n_parents, offset, destination, n_rows
        )
        return None, Labels._make(names, values, static=False)
    if source is None and destination is None:
        rows, parents = None, gradient.parents + np.int32(offset)
    else:
        target = np.arange(offset, offset + piece.n_rows)
        if destination is not None:
            target = destination
        rows, parents = _find_followers(source, target, gradient.parents, n_parents)
        if not is_inside(target, n_rows):
            inside = (parents >= 0) & (parents < n_rows)
            rows = np.flatnonzero(inside) if rows is None else rows[inside]
            parents = parents[inside]
    values = gradient.samples.values
    values = values.copy() if rows is None else values.take(rows, axis=0)
    values[:, 0] = parents
    return rows, Labels._make(names, values)


def _is_traced(index: Index | None) -> bool:
    return index is not None and not isinstance(index, np.ndarray)


def _find_followers(
    source: np.ndarray | None, target: np.ndarray, parents: np.ndarray, n_parents: int
) -> tuple[np.ndarray | None, np.ndarray]:
    """Which gradient rows follow their parents, and the new row of each parent."""
    if source is None:
        return None, target.take(parents)
    inside = source < n_parents
    source, target = source[inside], target[inside]
    new_row = np.full(n_parents, -1)
    new_row[source] = target
    if np.count_nonzero(new_row >= 0) == len(source):
        moved = new_row[parents]
        rows = np.flatnonzero(moved >= 0)
        return (None if len(rows) == len(parents) else rows), moved[rows]
    i, rows = join_rows(source, parents)  # some rows are there several times
    return rows, target[i]


def _all_same(samples: Sequence[Labels]) -> bool:
    return all(labels == samples[0] for labels in samples[1:])


def _merge(
    pieces: Sequence[_Piece], samples: Sequence[Labels]
) -> tuple[list[_Piece], Labels]:
    """Give rows with the same label the same destination."""
    names = samples[0]._names
    if all(labels.is_static for labels in samples):
        rows, destinations = distinct_rows([labels.values for labels in samples])
        merged = Labels._make(names, rows)
    else:
        rows = jnp.concatenate([labels.values for labels in samples])
        values, index = merge_traced(rows)
        merged = Labels._make(names, values, static=False)
        ends = np.cumsum([len(labels) for labels in samples])
        destinations = jnp.split(index, ends[:-1])
    moved = [
        piece._replace(destination=destination)
        for piece, destination in zip(pieces, destinations, strict=True)
    ]
    return moved, merged


def _reorder(
    pieces: Sequence[_Piece], samples: Labels, order_of: OrderOfRows
) -> tuple[list[_Piece], Labels]:
    """Pieces that go to rows which are in another order."""
    order = order_of(samples._host_values("ordering gradients"))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    offset, moved = 0, []
    for piece in pieces:
        destination = piece.destination
        if destination is None:
            destination = np.arange(offset, offset + piece.n_rows)
        moved.append(piece._replace(destination=position[destination]))
        offset += piece.n_rows
    return moved, Labels._make(samples._names, samples.values.take(order, axis=0))
