"""Gradient rows that follow the rows they belong to: labels and row numbers only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .._host.packing import (
    are_increasing,
    cut,
    distinct_rows,
    inverse,
    is_inside,
    join_rows,
    joined,
    unique_columns,
    with_parents,
)
from .._types.errors import TracedLabelsError
from .._types.labels import Labels
from .draft import Index
from .rows import end_to_end, merge, moved_labels, reparented

#: gives the order of gradient rows from the values of their labels
OrderOfRows = Callable[[np.ndarray], np.ndarray]


class Link(NamedTuple):
    """Rows of a block that move, and the labels of their gradient rows.

    That is a ``Piece`` without its arrays: equal for blocks with equal labels, which
    share what follows from it.

    :param n_parents: how many rows the block has
    :param source: which of them move; all of them if None
    :param destination: where each of these goes; after those before them if None
    """

    n_parents: int
    source: Index | None
    destination: Index | None
    gradients: Labels

    @property
    def n_rows(self) -> int:
        """How many rows move."""
        return self.n_parents if self.source is None else self.source.shape[0]

    @property
    def is_static(self) -> bool:
        """Is it known which rows these are, and where they go?"""
        known = is_known(self.source) and is_known(self.destination)
        return known and self.gradients.is_static


class Route(NamedTuple):
    """Which gradient rows of a block move, and where they go, as for :class:`Link`."""

    n_rows: int
    source: Index | None = None
    destination: Index | None = None


#: a route for each block, and the labels of all their gradient rows
Routes = tuple[list[Route], Labels]


def is_known(index: Index | None) -> bool:
    """Is it known on the host which rows these are (None: all of them)?"""
    return index is None or isinstance(index, np.ndarray)


def follow_along(
    links: Sequence[Link], n_rows: int, order: OrderOfRows | None
) -> Routes:
    """For rows that are laid end to end, or added up to ``n_rows`` rows."""
    is_added = links[0].destination is not None
    if is_added and all(link.is_static for link in links):
        routes, labels = _add_up(links, n_rows)
    else:
        routes, samples = _follow(links, n_rows)
        labels = end_to_end(samples)
        if is_added:
            routes, labels = _merge(routes, samples)
    return (routes, labels) if order is None else _reorder(routes, labels, order)


def follow_beside(
    links: Sequence[Link], n_rows: int, order: OrderOfRows | None
) -> Routes:
    """For rows that are laid side by side."""
    samples = [link.gradients for link in links]
    as_they_are = all(x.source is None and x.destination is None for x in links)
    if as_they_are and _all_same(samples):
        routes, labels = [Route(len(samples[0])) for _ in samples], samples[0]
    else:
        routes, samples = _follow([_in_place(link) for link in links], n_rows)
        labels = samples[0]
        if not _all_same(samples):
            routes, labels = _merge(routes, samples)
    if order is None:
        return routes, labels
    return _reorder([_in_place(route) for route in routes], labels, order)


_Rows = TypeVar("_Rows", Link, Route)


def _in_place(rows: _Rows) -> _Rows:
    """With a destination for each row."""
    if rows.destination is not None:
        return rows
    return rows._replace(destination=np.arange(rows.n_rows))


def _all_same(samples: Sequence[Labels]) -> bool:
    return all(labels == samples[0] for labels in samples[1:])


# --- rows that stay apart ------------------------------------------------------------


def _follow(links: Sequence[Link], n_rows: int) -> tuple[list[Route], list[Labels]]:
    """The gradient rows that belong to the rows of each block, and their new labels.

    The labels are those of each block, or of all blocks end to end.
    """
    if all(x.source is x.destination is None and x.is_static for x in links):
        return [Route(len(x.gradients)) for x in links], [_shifted(links)]
    offset = 0
    routes, samples = [], []
    for link in links:
        route, labels = _follow_one(link, offset, n_rows)
        routes.append(route)
        samples.append(labels)
        offset += link.n_rows
    return routes, samples


def _shifted(links: Sequence[Link]) -> Labels:
    """The gradient samples of blocks that are laid end to end, all at once."""
    lengths = [len(x.gradients) for x in links]
    offsets = np.cumsum([0, *(x.n_rows for x in links[:-1])])
    labels = end_to_end([x.gradients for x in links])
    parents = labels.values[:, 0] + np.repeat(offsets, lengths).astype(np.int32)
    return reparented(labels, parents)


def _follow_one(link: Link, offset: int, n_rows: int) -> tuple[Route, Labels]:
    source, destination, samples = link.source, link.destination, link.gradients
    if not link.is_static and source is not None:
        raise TracedLabelsError("selecting rows with gradients", samples._names)
    if not link.is_static or (source is None and destination is None):
        to = offset if destination is None else destination
        return Route(len(samples)), moved_labels(samples, link.n_parents, to, n_rows)
    if destination is None:
        destination = np.arange(offset, offset + link.n_rows)
    moved = _move_one(link, destination, n_rows)
    labels = Labels._make(samples._names, moved.table())
    return Route(len(labels), moved.source), labels


def _merge(routes: Sequence[Route], samples: Sequence[Labels]) -> Routes:
    """Give rows with the same label the same destination."""
    if not all(labels.is_static for labels in samples):
        destinations, merged = merge(samples)
        return _to(destinations, routes), merged
    rows, places = distinct_rows([labels.values for labels in samples])
    return _to(places, routes), Labels._make(samples[0]._names, rows)


def _to(destinations: Sequence[Index], routes: Sequence[Route]) -> list[Route]:
    """The routes, to these destinations."""
    return [
        route._replace(destination=destination)
        for route, destination in zip(routes, destinations, strict=True)
    ]


# --- rows that are added to others ---------------------------------------------------


def _add_up(links: Sequence[Link], n_rows: int) -> Routes:
    """Those with the same label go to the same row."""
    moved = [_move_one(link, link.destination, n_rows) for link in links]
    routes = [Route(len(x.parents), x.source) for x in moved]
    rows = _Moved(
        joined([of_link.labels for of_link in moved]),
        joined([of_link.parents for of_link in moved]),
    )
    names = links[0].gradients._names
    # their table is only made where it is the result
    columns, n = [rows.parents, *rows.labels.T[1:]], len(rows.parents)
    if are_increasing(columns, n):
        return routes, Labels._make(names, rows.table())
    first, places = unique_columns(columns, n)
    parts = cut(places, [route.n_rows for route in routes])
    return _to(parts, routes), Labels._make(names, rows.take(first).table())


class _Moved(NamedTuple):
    """Gradient rows that moved.

    :param labels: what they are called, with the rows that they belonged to before
    :param parents: the rows that they belong to now
    :param source: which ones they are; all if None
    """

    labels: np.ndarray
    parents: np.ndarray
    source: np.ndarray | None = None

    def table(self) -> np.ndarray:
        """The values of their new labels."""
        return with_parents(self.labels, self.parents)

    def take(self, index: np.ndarray) -> _Moved:
        """Some rows of these."""
        return _Moved(self.labels.take(index, axis=0), self.parents.take(index))


def _move_one(link: Link, target: Any, n_rows: int) -> _Moved:
    """The gradient rows that belong to rows which go to ``target``."""
    labels, n = link.gradients.values, link.n_parents
    known: Any = link.source
    source, parents = _find_followers(known, target, labels[:, 0], n)
    if not is_inside(target, n_rows):
        inside = (parents >= 0) & (parents < n_rows)
        source = np.flatnonzero(inside) if source is None else source[inside]
        parents = parents[inside]
    if source is not None:
        labels = labels.take(source, axis=0)
    return _Moved(labels, parents, source)


def _find_followers(
    source: np.ndarray | None, target: np.ndarray, parents: np.ndarray, n_parents: int
) -> tuple[np.ndarray | None, np.ndarray]:
    """Which gradient rows follow their parents, and the new row of each parent."""
    if source is None:
        return None, target.astype(np.int32).take(parents)  # as the labels are
    inside = source < n_parents
    source, target = source[inside], target[inside]
    new_row = np.full(n_parents, -1)
    new_row[source] = target
    if np.count_nonzero(new_row >= 0) == len(source):
        moved = new_row.take(parents)
        rows = np.flatnonzero(moved >= 0)
        if len(rows) == len(parents):
            return None, moved
        return rows, moved.take(rows)
    i, rows = join_rows(source, parents)  # some rows are there several times
    return rows, target[i]


def _reorder(routes: Sequence[Route], samples: Labels, order_of: OrderOfRows) -> Routes:
    """Rows that go to places which are in another order."""
    order = order_of(samples._host_values("ordering gradients"))
    position = inverse(order)
    offset, moved = 0, []
    for route in routes:
        destination: Any = route.destination
        if destination is None:
            destination = np.arange(offset, offset + route.n_rows)
        moved.append(route._replace(destination=position[destination]))
        offset += route.n_rows
    return moved, Labels._make(samples._names, samples.values.take(order, axis=0))
