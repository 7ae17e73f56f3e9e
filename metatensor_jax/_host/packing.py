"""Rows of integers as single 64-bit keys: the algorithms under ``Labels``.

Sorting, searching and comparing rows of several columns is slow; the same on one
64-bit integer per row is fast. Columns are combined by their range, most significant
first, so the keys sort like the rows. Where the product of the ranges does not fit,
sorting replaces the keys so far by their ranks, which always fit, and searching takes
hashes, and compares the rows that it finds. Where there are hardly more possible keys
than rows, a table with one place for each key needs no sorting at all. Everything here
is NumPy, close to linear in the number of rows, and has no Python loop over rows. (One
function, ``with_parents``, works for arrays of JAX as well.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

_MAX_KEY = 2**62
#: an odd number without a pattern in its bits: 2**64 times the golden ratio
_HASH_FACTOR = 0x9E3779B97F4A7C15 - 2**64
#: use a table with a place for each possible key up to this many places for each row
_PLACES_PER_ROW = 4
#: rows that are not in order rarely hide it for so long
_SAMPLE = 1_000
#: up to this many rows are looked for one after the other
_FEW = 8


class _Column(NamedTuple):
    """How one column enters the keys: its smallest value, and its range."""

    low: int
    width: int

    @classmethod
    def of(cls, values: np.ndarray) -> _Column:
        low, high = int(values.min()), int(values.max())
        return cls(low, high - low + 1)

    def add_to(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add the column to the keys in place: fresh memory costs more than math."""
        if self.width > 1:
            keys *= self.width
            keys += values
            if self.low != 0:
                keys -= self.low


def row_keys(rows: np.ndarray) -> np.ndarray:
    """One ``int64`` per row of ``rows`` (n, d): equal and ordered as the rows are.

    >>> row_keys(np.array([[0, 5], [1, 4], [0, 4], [1, 4]])).tolist()
    [1, 2, 0, 2]
    """
    return _pack_columns(rows.T, len(rows))[0]


def _pack_columns(columns: Iterable[np.ndarray], n: int) -> tuple[np.ndarray, int]:
    """The keys of ``n`` rows, and a number that is greater than all of them."""
    keys, n_keys = np.zeros(n, np.int64), 1
    for values in columns if n else ():
        column = _Column.of(values)
        if column.width == 1:
            continue
        if n_keys == 1:  # the first one that counts
            keys = np.subtract(values, column.low, dtype=np.int64)
            n_keys = column.width
            continue
        if n_keys * column.width > _MAX_KEY:
            first, keys = _distinct(keys, n_keys)
            n_keys = len(first)
        elif n_keys > n and is_sorted(keys):
            # ranks are cheap here, and smaller: maybe a table of all keys is enough
            first, keys = _runs(keys)
            n_keys = len(first)
        column.add_to(keys, values)
        n_keys *= column.width
    return keys, n_keys


def sort_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted ``keys`` (none is negative), and the stable order that sorts them."""
    order = _order_of_high_bits(keys)
    in_order = keys.take(order)
    if not is_sorted(in_order):
        # some keys differ in low bits only: sort by these, then, stably, by the others
        free = 62 - len(keys).bit_length()
        order = _order_of_high_bits(keys & ((1 << free) - 1))
        order = order[_order_of_high_bits(keys.take(order) >> free)]
        in_order = keys.take(order)
    return in_order, order


def is_sorted(values: np.ndarray) -> bool:
    """Does no value follow a greater one?"""
    if len(values) > 2 * _SAMPLE and not is_sorted(values[:_SAMPLE]):
        return False
    return bool(np.all(values[1:] >= values[:-1]))


def is_inside(index: np.ndarray, n: int) -> bool:
    """Are all of these indices of ``n`` rows?"""
    return len(index) == 0 or bool(index.min() >= 0 and index.max() < n)


def _order_of_high_bits(keys: np.ndarray) -> np.ndarray:
    """The stable order that sorts the highest bits of ``keys``, all if they are few.

    NumPy sorts integers several times faster than it finds their order, so the order
    travels in the lowest bits.
    """
    n = len(keys)
    if is_sorted(keys):
        return np.arange(n)
    bits = n.bit_length()
    packed = keys >> max(0, int(keys.max()).bit_length() + bits - 62)
    packed <<= bits
    packed |= np.arange(n)
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def first_duplicate(rows: np.ndarray) -> int | None:
    """The index of a row that stands in ``rows`` before, or None if all are unique.

    >>> first_duplicate(np.array([[0, 1], [2, 3], [0, 1]]))
    2
    """
    if is_increasing(rows):
        return None
    hashes = _hash(rows)
    hashes.sort()
    if not bool(np.any(hashes[1:] == hashes[:-1])):
        return None
    # equal rows or, very rarely, equal hashes of other rows: only the keys can tell
    in_order, order = sort_keys(row_keys(rows))
    repeated = order[1:][in_order[1:] == in_order[:-1]]
    return int(repeated.min()) if len(repeated) else None


def _hash(rows: np.ndarray) -> np.ndarray:
    """A key per row (62 bits): equal for equal rows, and hardly ever for others."""
    hashes = np.zeros(len(rows), np.int64)
    bits = hashes.view(np.uint64)  # a signed shift would map x and ~x to the same
    for i in range(rows.shape[1]):
        hashes += rows[:, i]
        hashes *= _HASH_FACTOR
        bits ^= bits >> 32
    hashes &= _MAX_KEY - 1
    return hashes


def is_increasing(rows: np.ndarray) -> bool:
    """Is each row greater than the one before?"""
    return are_increasing(rows.T, len(rows))


def are_increasing(columns: Sequence[np.ndarray] | np.ndarray, n: int) -> bool:
    """:func:`is_increasing` of ``n`` rows that are given as their columns."""
    if n > 2 * _SAMPLE and not are_increasing([c[:_SAMPLE] for c in columns], _SAMPLE):
        return False
    undecided = np.ones(max(n - 1, 0), bool)
    for column in columns:
        before, after = column[:-1], column[1:]
        if bool(np.any((after < before) & undecided)):
            return False
        undecided &= after == before
    return not bool(undecided.any())


def unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows in lexicographic order, and where each row went.

    :returns: ``first`` and ``inverse``: ``rows[first]`` are the distinct rows, and
        ``rows[first][inverse]`` are the rows again

    >>> first, inverse = unique_rows(np.array([[2, 0], [1, 0], [2, 0]]))
    >>> first.tolist(), inverse.tolist()
    ([1, 0], [1, 0, 1])
    """
    return unique_columns(rows.T, len(rows))


def unique_columns(
    columns: Sequence[np.ndarray] | np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`unique_rows` of ``n`` rows that are given as their columns."""
    if len(columns) == 1 and is_sorted(columns[0]):
        return _runs(columns[0])
    return _distinct(*_pack_columns(columns, n))


def distinct_rows(tables: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The distinct rows of several tables in lexicographic order.

    :returns: these rows, and where those of each table are among them

    >>> rows, places = distinct_rows([np.array([[5], [3]]), np.array([[3], [4]])])
    >>> rows.tolist(), [place.tolist() for place in places]
    ([[3], [4], [5]], [[2, 0], [0, 1]])
    """
    rows = joined(tables)
    first, inverse = unique_rows(rows)
    return rows.take(first, axis=0), cut(inverse, [len(table) for table in tables])


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays end to end; one alone is not copied.

    >>> joined([np.array([0]), np.array([1, 2])]).tolist()
    [0, 1, 2]
    """
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def cut(array: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    """Runs of an array, one after the other.

    >>> [run.tolist() for run in cut(np.arange(3), [1, 2])]
    [[0], [1, 2]]
    """
    ends = np.cumsum(lengths).tolist()
    return [array[end - n : end] for end, n in zip(ends, lengths, strict=True)]


def inverse(order: np.ndarray) -> np.ndarray:
    """Where each row went that was put in this order: the inverse of a permutation.

    >>> inverse(np.array([2, 0, 1])).tolist()
    [1, 2, 0]
    """
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    return position


def join_rows(index: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs ``(i, j)`` with ``index[i] == parents[j]``, in order of ``i``.

    >>> [x.tolist() for x in join_rows(np.array([7, 5]), np.array([5, 7, 7]))]
    [[0, 0, 1], [1, 2, 0]]
    """
    order = np.argsort(parents, kind="stable")
    starts = np.searchsorted(parents, index, "left", order)
    counts = np.searchsorted(parents, index, "right", order) - starts
    i = np.repeat(np.arange(len(index)), counts)
    steps = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    return i, order[np.repeat(starts, counts) + steps]


def is_everything(index: np.ndarray, n: int) -> bool:
    """Are these all of ``n`` rows, in order?

    >>> is_everything(np.array([0, 1]), 2), is_everything(np.array([1, 0]), 2)
    (True, False)
    """
    if len(index) != n or (n and index[0] != 0):
        return False
    return bool(np.all(index == np.arange(n)))


def with_parents(rows: Any, parents: Any) -> Any:
    """Gradient samples that belong to other rows: a new column ``"sample"``.

    The one function that writes this column. For arrays of NumPy and of JAX.

    >>> with_parents(np.array([[0, 7], [1, 8]]), np.array([5, 4])).tolist()
    [[5, 7], [4, 8]]
    """
    if isinstance(rows, np.ndarray) and isinstance(parents, np.ndarray):
        rows = rows.copy()
        rows[:, 0] = parents
        return rows
    parents = parents.astype(np.int32)[:, None]
    module = (
        rows if isinstance(parents, np.ndarray) else parents
    ).__array_namespace__()
    return module.concat([parents, rows[:, 1:]], axis=1)


def _distinct(keys: np.ndarray, n_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`unique_rows` for keys, all of them smaller than ``n_keys``."""
    if is_sorted(keys):
        return _runs(keys)
    if n_keys <= _PLACES_PER_ROW * len(keys):
        return _ranks(keys, n_keys)
    in_order, order = sort_keys(keys)
    first, run = _runs(in_order)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = run
    return order[first], inverse


def _ranks(keys: np.ndarray, n_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`_distinct` with a table of all possible keys, without sorting."""
    is_there = np.zeros(n_keys, bool)
    is_there[keys] = True
    present = np.flatnonzero(is_there)
    rank = np.empty(n_keys, np.int64)
    rank[present] = np.arange(len(present))
    inverse = rank.take(keys)
    first = np.empty(len(present), np.int64)
    # the last one written counts; half as much memory that is new is faster
    backwards = np.arange(len(keys) - 1, -1, -1, dtype=np.int32)
    first[inverse[::-1]] = backwards
    return first, inverse


def _runs(in_order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal keys starts, and the run that each key is in."""
    starts = run_starts(in_order)
    counts = np.diff(starts, append=len(in_order))
    return starts, np.repeat(np.arange(len(starts)), counts)


def run_starts(in_order: np.ndarray) -> np.ndarray:
    """Where each run of equal values starts.

    >>> run_starts(np.array([3, 3, 5, 7, 7])).tolist()
    [0, 2, 3]
    """
    if len(in_order) == 0:
        return np.zeros(0, np.int64)
    changes = np.flatnonzero(in_order[1:] != in_order[:-1])
    return np.concatenate([[0], changes + 1])


def is_among(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of ``rows`` are also in ``wanted`` (``bool``, one for each row).

    >>> is_among(
    ...     np.array([[0, 5], [1, 4], [0, 4]]), np.array([[0, 4], [0, 5]])
    ... ).tolist()
    [True, False, True]
    """
    if len(wanted) > _FEW:
        return _look_up(rows, wanted)
    # comparing is faster than packing the rows
    found = np.zeros(len(rows), bool)
    for row in wanted:
        found |= _equal_rows(rows, row)
    return found


def _look_up(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    index = RowIndex(wanted, n_probes=len(rows))
    if index.is_table:
        return index.find(rows) >= 0
    # a small table of hashes tells, for nearly all rows, that they are not there
    bits = (16 * len(wanted)).bit_length()
    table = np.zeros(1 << bits, bool)
    table[_hash(wanted) >> (62 - bits)] = True
    candidates = np.flatnonzero(table[_hash(rows) >> (62 - bits)])
    found = np.zeros(len(rows), bool)
    found[candidates] = index.find(rows[candidates]) >= 0
    return found


class RowIndex:
    """Finds rows in a table of rows, by their keys.

    >>> index = RowIndex(np.array([[0, 5], [1, 4], [0, 4]]))
    >>> index.position((1, 4)), index.position((1, 5))
    (1, None)
    >>> index.find(np.array([[0, 4], [7, 7], [0, 5]])).tolist()
    [2, -1, 0]
    """

    def __init__(self, rows: np.ndarray, n_probes: int = 0) -> None:
        n_columns = rows.shape[1] if len(rows) else 0
        self._rows = rows
        self._columns = [_Column.of(rows[:, i]) for i in range(n_columns)]
        self._n_keys = prod(column.width for column in self._columns)
        self.is_table = self._n_keys <= _PLACES_PER_ROW * (len(rows) + n_probes)
        self._is_hashed = self._n_keys > _MAX_KEY
        keys = self._pack(rows)
        if self.is_table:
            # for each possible key its position; the last place is for all others
            self._positions = np.full(self._n_keys + 1, -1, np.int32)
            self._positions[keys] = np.arange(len(rows))
        else:
            self._keys, self._positions = sort_keys(keys)

    def position(self, row: tuple[int, ...]) -> int | None:
        """Where ``row`` stands in the table, or None."""
        key = 0
        for value, column in zip(row, self._columns, strict=False):
            if not 0 <= value - column.low < column.width:
                return None
            key = key * column.width + value - column.low
        if self._is_hashed:
            at = int(self.find(np.array([row]))[0])
        elif self.is_table:
            at = int(self._positions[key])
        else:
            i = int(self._keys.searchsorted(key))
            found = i < len(self._keys) and self._keys[i] == key
            at = int(self._positions[i]) if found else -1
        return at if at >= 0 else None

    def find(self, rows: np.ndarray) -> np.ndarray:
        """Where each of ``rows`` stands in the table, or -1 (``int64``)."""
        keys = self._pack(rows)
        if self.is_table:
            return self._positions.take(keys).astype(np.int64)
        positions = np.full(len(rows), -1, np.int64)
        if len(self._keys) != 0:
            # probes that are nearly sorted walk through the table in order: this takes
            # a tenth of the time where the table does not fit in the caches
            order = _order_of_high_bits(keys)
            probes = keys.take(order)
            at = np.searchsorted(self._keys, probes)
            found = self._keys.take(at, mode="clip") == probes
            positions[order] = np.where(
                found, self._positions.take(at, mode="clip"), -1
            )
        if self._is_hashed:
            self._correct(positions, keys, rows)
        return positions

    def _correct(
        self, positions: np.ndarray, keys: np.ndarray, rows: np.ndarray
    ) -> None:
        """Look again where a row was found that has the same hash but is another."""
        there = self._rows.take(positions, axis=0, mode="clip")
        wrong = np.flatnonzero((positions >= 0) & ~_equal_rows(there, rows))
        at = np.searchsorted(self._keys, keys[wrong])
        while len(wrong) != 0:
            at += 1  # the next place, if it has the same hash
            found = (at < len(self._keys)) & (
                self._keys.take(at, mode="clip") == keys[wrong]
            )
            candidates = np.where(found, self._positions.take(at, mode="clip"), -1)
            positions[wrong] = candidates
            found &= ~_equal_rows(self._rows[candidates], rows[wrong])
            wrong, at = wrong[found], at[found]

    def _pack(self, rows: np.ndarray) -> np.ndarray:
        """The keys of ``rows``; one past the last for those that have none."""
        if self._is_hashed:
            return _hash(rows)
        keys = np.zeros(len(rows), np.int64)
        inside = np.ones(len(rows), bool)
        for i, column in enumerate(self._columns):
            values = rows[:, i]
            inside &= values >= column.low
            inside &= values < column.low + column.width
            column.add_to(keys, values)
        if not inside.all():
            keys[~inside] = self._n_keys
        return keys


def _equal_rows(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    equal = np.ones(len(rows), bool)
    for i in range(rows.shape[1]):
        equal &= rows[:, i] == others[..., i]
    return equal
