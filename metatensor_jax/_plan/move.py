"""Rows gathered, added up, laid end to end or side by side.

That is linear, so gradient rows move along with the rows they belong to; only the rows
that they name as their parents are others then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from .._host.packing import is_everything, is_inside, is_sorted
from .._run.ops import Add, Gather, Place
from .._run.program import Node
from .._types.errors import MetatensorError, NotEqualError, TracedLabelsError
from .._types.labels import Labels
from .draft import Draft, Index, Rows
from .follow import (
    Link,
    OrderOfRows,
    Routes,
    follow_along,
    follow_beside,
    is_known,
)
from .once import Once
from .rows import common_parameters

Arrangement = Literal["end to end", "side by side"]


class Piece(NamedTuple):
    """Rows of a block that go somewhere.

    :param block: the block
    :param source: its rows, in the order in which they are moved; all of them if None.
        A row past the end stands for a row that is not there.
    :param destination: which row of the result each of these is added to; if None,
        they follow those of the piece before
    """

    block: Draft
    source: Index | None = None
    destination: Index | None = None

    @property
    def n_rows(self) -> int:
        """How many rows move."""
        return self.block.rows.n_rows if self.source is None else self.source.shape[0]

    def rows(self) -> Rows:
        """These rows, in the order of the source."""
        rows, source = self.block.rows, self.source
        if source is None:
            return rows
        known = isinstance(source, np.ndarray)
        past_the_end = not known or bool(np.any(source >= rows.n_rows))
        return rows.take(source, fill=past_the_end)


class _Options(NamedTuple):
    """What stays the same while a move follows the gradients.

    :param properties: of the result
    :param fill_value: for values that no row goes to; their gradients are zero
    :param order: of gradient rows; if None, they are in the order of the input, or
        sorted if added up
    :param once: shared by blocks of one map, so that those with equal labels share
        what is worked out from these
    """

    properties: Labels
    fill_value: Any
    order: OrderOfRows | None
    once: Once

    def of_gradients(self) -> _Options:
        """The same for the gradients of the rows."""
        return self._replace(fill_value=0)


def plan_move(
    pieces: Sequence[Piece],
    samples: Labels,
    properties: Labels | None = None,
    arrangement: Arrangement = "end to end",
    fill_value: Any = 0,
    order: OrderOfRows | None = None,
    once: Once | None = None,
) -> Draft:
    """A block of moved rows, see :func:`metatensor_jax.move_rows`."""
    pieces = [_simplified(piece) for piece in pieces]
    _check_places(pieces, samples, arrangement)
    if properties is None:
        properties = pieces[0].block.properties
    how = _Options(properties, fill_value, order, once or Once())
    plan = _beside if arrangement == "side by side" else _along
    return plan(pieces, samples, how)


def _simplified(piece: Piece) -> Piece:
    source = piece.source
    if not isinstance(source, np.ndarray):
        return piece
    if len(source) and source.min() < 0:
        raise IndexError(f"rows to move can not be negative: {source.min()}")
    if is_everything(source, piece.block.rows.n_rows):
        return piece._replace(source=None)
    return piece


def _check_places(
    pieces: Sequence[Piece], samples: Labels, arrangement: Arrangement
) -> None:
    """Raise unless the rows that are moved are those that the labels are for."""
    in_order = []
    for piece in pieces:
        destination = piece.destination
        if destination is None:
            in_order.append(piece.n_rows)
        elif arrangement == "side by side" and not (
            isinstance(destination, Node) or is_inside(destination, len(samples))
        ):
            raise IndexError(
                f"rows {destination.min()} to {destination.max()} can not "
                f"all be filled: the result has {len(samples)} rows"
            )
        elif destination.shape[0] != piece.n_rows:
            raise MetatensorError(
                f"there are {piece.n_rows} rows to move, but {destination.shape[0]} "
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


def _along(pieces: Sequence[Piece], samples: Labels, how: _Options) -> Draft:
    """Rows end to end, or added to their destinations."""
    gradients = {}
    for name in common_parameters([piece.block for piece in pieces]):
        followers, merged = _followers(follow_along, name, pieces, len(samples), how)
        gradients[name] = _along(followers, merged, how.of_gradients())
    components = pieces[0].block.components
    rows = _rows_along(pieces, len(samples), how)
    return Draft(rows, samples, components, how.properties, gradients)


def _rows_along(pieces: Sequence[Piece], n: int, how: _Options) -> Rows:
    rows = [piece.rows() for piece in pieces]
    picks, nodes = tuple([x.pick for x in rows]), [x.node for x in rows]
    sizes = tuple([node.shape[0] for node in nodes])
    dtype = np.result_type(*{x.dtype for x in rows})
    shape = (n, *rows[0].row_shape)
    destinations = [piece.destination for piece in pieces]
    if destinations[0] is None:
        if len(rows) == 1 and rows[0].pick.index is None:
            return rows[0]
        op: Any = Gather(picks, fill_value=how.fill_value)
    elif how.once(_is_one_to_one, destinations, n):
        op = Place(picks, tuple(destinations), sizes, n, axis=0)  # type: ignore[arg-type]
    else:
        if dtype.kind == "b":
            raise TypeError("can not add up bool values: convert them first")
        known = tuple([x if isinstance(x, np.ndarray) else None for x in destinations])
        nodes += [x for x in destinations if isinstance(x, Node)]
        op = Add(picks, known, n, how.once(_in_order, destinations), dtype)
    return Rows(Node(shape, dtype, op, tuple(nodes)))


def _beside(pieces: Sequence[Piece], samples: Labels, how: _Options) -> Draft:
    """Rows side by side: each piece is some columns of the result."""
    for piece in pieces:
        if not (is_known(piece.destination) and is_known(piece.source)):
            what = "laying rows side by side at traced places"
            raise TracedLabelsError(what, piece.block.samples._names)
    gradients = {}
    for name in sorted({name for piece in pieces for name in piece.block.gradients}):
        if not all(name in piece.block.gradients for piece in pieces):
            raise NotEqualError(
                f"blocks side by side must all have gradients with respect to '{name}'"
            )
        followers, merged = _followers(follow_beside, name, pieces, len(samples), how)
        gradients[name] = _beside(followers, merged, how.of_gradients())
    rows = [piece.rows() for piece in pieces]
    width = sum([x.row_shape[-1] for x in rows])
    shape = (len(samples), *rows[0].row_shape[:-1], width)
    dtype = np.result_type(*{x.dtype for x in rows})
    picks = tuple([x.pick for x in rows])
    destinations: Any = tuple([piece.destination for piece in pieces])
    sizes = tuple([x.node.shape[0] for x in rows])
    op = Place(picks, destinations, sizes, len(samples), -1, how.fill_value)
    values = Rows(Node(shape, dtype, op, tuple([x.node for x in rows])))
    components = pieces[0].block.components
    return Draft(values, samples, components, how.properties, gradients)


def _followers(
    follow: Callable[..., Routes],
    name: str,
    pieces: Sequence[Piece],
    n_rows: int,
    how: _Options,
) -> tuple[list[Piece], Labels]:
    """The gradient rows that follow the rows of each piece, and their new labels."""
    links = []
    for block, source, destination in pieces:
        labels = block.gradients[name].samples
        links.append(Link(block.rows.n_rows, source, destination, labels))
    routes, samples = how.once(follow, links, n_rows, how.order)
    followers = [
        Piece(piece.block.gradients[name], route.source, route.destination)
        for piece, route in zip(pieces, routes, strict=True)
    ]
    return followers, samples


def _is_one_to_one(destinations: Sequence[Index], n: int) -> bool:
    """Is it known that each of ``n`` rows is the destination of one row?"""
    known = [index for index in destinations if isinstance(index, np.ndarray)]
    if len(known) < len(destinations) or sum(map(len, known)) != n:
        return False
    taken = np.zeros(n, bool)
    for index in known:
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
