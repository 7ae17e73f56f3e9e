"""Gradient rows that follow the rows they belong to: labels and indices only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

from .._host.packing import (
    are_increasing,
    cut,
    distinct_rows,
    is_inside,
    joined,
    unique_columns,
)
from .._types.errors import TracedLabelsError
from .._types.labels import Labels
from ..execution import Index, follow_traced, merge_traced
from ._operands import end_to_end, join_rows

OrderOfRows = Callable[[np.ndarray], np.ndarray]


class Link(NamedTuple):
    """Rows of a block that move, and the labels of their gradient rows.

    :param n_parents: how many rows the block has
    :param source: which of them move; all of them if None
    :param destination: where each of these goes; after those before them if None
    :param gradients: None if the block has no gradient rows at all
    """

    n_parents: int
    source: Index | None
    destination: Index | None
    gradients: Labels | None

    @property
    def n_rows(self) -> int:
        """How many rows move."""
        return self.n_parents if self.source is None else len(self.source)

    @property
    def is_static(self) -> bool:
        """Is it known which rows these are, and where they go?"""
        known = self.gradients is None or self.gradients.is_static
        return known and not (is_traced(self.source) or is_traced(self.destination))


class Route(NamedTuple):
    """Which gradient rows of a block move, and where they go, as for :class:`Link`."""

    n_rows: int
    source: Index | None = None
    destination: Index | None = None


#: a route for each block that has gradient rows, and the labels of all these rows
Routes = tuple[list[Route], Labels]


def is_traced(index: Index | None) -> bool:
    """Is this an index that is data: an array of JAX?"""
    return index is not None and not isinstance(index, np.ndarray)


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


def _add_up(links: Sequence[Link], n_rows: int) -> Routes:
    """Rows that are added to others; those with the same label, to the same one."""
    pairs = [(link, link.gradients) for link in links if link.gradients is not None]
    moved = [_move_one(link, x, link.destination, n_rows) for link, x in pairs]
    routes = [Route(len(x.parents), x.source) for x in moved]
    rows = _Moved(
        None,
        joined([of_link.parents for of_link in moved]),
        joined([of_link.labels for of_link in moved]),
    )
    names = pairs[0][1]._names
    # their table is only made where it is the result
    columns, n = [rows.parents, *rows.labels.T[1:]], len(rows.parents)
    if are_increasing(columns, n):
        return routes, Labels._make(names, rows.table())
    first, places = unique_columns(columns, n)
    parts = cut(places, [route.n_rows for route in routes])
    return _to(parts, routes), Labels._make(names, rows.take(first))


def _to(destinations: Sequence[Index], routes: Sequence[Route]) -> list[Route]:
    """The routes, to these destinations."""
    return [
        route._replace(destination=destination)
        for route, destination in zip(routes, destinations, strict=True)
    ]


def follow_beside(
    links: Sequence[Link], n_rows: int, order: OrderOfRows | None
) -> Routes:
    """For rows that are laid side by side; all of the blocks have gradient rows."""
    samples = [link.gradients for link in links if link.gradients is not None]
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


def _follow(links: Sequence[Link], n_rows: int) -> tuple[list[Route], list[Labels]]:
    """The gradient rows that belong to the rows of each block, and their new labels.

    The labels are those of each block, or of all blocks end to end.
    """
    if all(x.source is x.destination is None and x.is_static for x in links):
        present = [x.gradients for x in links if x.gradients is not None]
        return [Route(len(labels)) for labels in present], [_shifted(links, present)]
    offset = 0
    routes, samples = [], []
    for link in links:
        if link.gradients is not None:
            route, labels = _follow_one(link, link.gradients, offset, n_rows)
            routes.append(route)
            samples.append(labels)
        offset += link.n_rows
    return routes, samples


def _shifted(links: Sequence[Link], present: Sequence[Labels]) -> Labels:
    """The gradient samples of blocks that are laid end to end, all at once."""
    lengths = [0 if x.gradients is None else len(x.gradients) for x in links]
    offsets = np.cumsum([0, *(x.n_rows for x in links[:-1])])
    values = np.concatenate([labels.values for labels in present])
    values[:, 0] += np.repeat(offsets, lengths).astype(np.int32)
    return Labels._make(present[0]._names, values)


def _follow_one(
    link: Link, samples: Labels, offset: int, n_rows: int
) -> tuple[Route, Labels]:
    source, destination = link.source, link.destination
    names = samples._names
    if not link.is_static:
        if source is not None:
            raise TracedLabelsError("selecting rows with gradients", names)
        values = follow_traced(
            samples.values, link.n_parents, offset, destination, n_rows
        )
        return Route(len(samples)), Labels._make(names, values, static=False)
    if source is None and destination is None:
        values = samples.values.copy()
        values[:, 0] += np.int32(offset)
        return Route(len(values)), Labels._make(names, values)
    if destination is None:
        destination = np.arange(offset, offset + link.n_rows)
    moved = _move_one(link, samples, destination, n_rows)
    labels = Labels._make(names, moved.table())
    return Route(len(labels), moved.source), labels


class _Moved(NamedTuple):
    """Gradient rows that moved.

    :param source: which ones they are; all if None
    :param parents: the rows that they belong to now
    :param labels: what they are called, with the rows that they belonged to before
    """

    source: np.ndarray | None
    parents: np.ndarray
    labels: np.ndarray

    def table(self) -> np.ndarray:
        """The values of their new labels."""
        # those that were taken out of others are nobody else's
        table = self.labels.copy() if self.source is None else self.labels
        table[:, 0] = self.parents
        return table

    def take(self, index: np.ndarray) -> np.ndarray:
        """Some rows of these."""
        table = self.labels.take(index, axis=0)
        table[:, 0] = self.parents.take(index)
        return table


def _move_one(link: Link, samples: Labels, target: Any, n_rows: int) -> _Moved:
    """The gradient rows that belong to rows which go to ``target``."""
    labels, n = samples.values, link.n_parents
    source, parents = _find_followers(link.source, target, labels[:, 0], n)
    if not is_inside(target, n_rows):
        inside = (parents >= 0) & (parents < n_rows)
        source = np.flatnonzero(inside) if source is None else source[inside]
        parents = parents[inside]
    if source is not None:
        labels = labels.take(source, axis=0)
    return _Moved(source, parents, labels)


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


def _merge(routes: Sequence[Route], samples: Sequence[Labels]) -> Routes:
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
    return _to(destinations, routes), merged


def _reorder(routes: Sequence[Route], samples: Labels, order_of: OrderOfRows) -> Routes:
    """Rows that go to places which are in another order."""
    order = order_of(samples._host_values("ordering gradients"))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    offset, moved = 0, []
    for route in routes:
        destination = route.destination
        if destination is None:
            destination = np.arange(offset, offset + route.n_rows)
        moved.append(route._replace(destination=position[destination]))
        offset += route.n_rows
    return moved, Labels._make(samples._names, samples.values.take(order, axis=0))
