"""The algorithms on rows of integers, on keys that fit in 64 bits and on others."""

from __future__ import annotations

import numpy as np
import pytest

from metatensor_jax._host.packing import (
    RowIndex,
    _hash,
    first_duplicate,
    is_among,
    is_increasing,
    is_inside,
    is_sorted,
    row_keys,
    sort_keys,
    unique_rows,
)

INT32 = np.iinfo(np.int32)
CORNERS = np.array([INT32.min, -1, 0, 1, INT32.max], np.int32)


def random_rows(kind: str, n: int, columns: int, seed: int = 0) -> np.ndarray:
    """Rows with duplicates; what is special about a kind is the range of its keys."""
    rng = np.random.default_rng(seed)
    if kind == "dense":  # hardly more possible keys than rows
        return rng.integers(-2, 3, (n, columns), np.int32)
    if kind == "sparse":  # many more keys than rows, one 64-bit integer holds them
        choices = rng.integers(0, 1000, 7, np.int32)
        return rng.choice(choices, (n, columns))
    if kind == "ordered":  # the first columns are in order, and far apart
        rows = rng.integers(0, 4, (n, columns), np.int32)
        if columns > 1:
            runs = rng.integers(0, max(n // 8, 1), n)
            rows[:, 0] = np.sort(runs) * 100_000
            rows[:, 1:-1] = rows[:, :1] - 7
        return rows
    # more keys than a 64-bit integer holds
    return rng.choice(CORNERS, (n, columns))


@pytest.fixture(params=["dense", "sparse", "ordered", "overflow"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("columns", [1, 2, 3, 6])
@pytest.mark.parametrize("n", [0, 1, 2, 200])
def test_unique_rows_are_those_of_numpy(kind: str, n: int, columns: int) -> None:
    rows = random_rows(kind, n, columns)
    first, inverse = unique_rows(rows)
    expected, expected_first, expected_inverse = np.unique(
        rows, axis=0, return_index=True, return_inverse=True
    )
    np.testing.assert_array_equal(rows[first], expected)
    np.testing.assert_array_equal(first, expected_first)
    np.testing.assert_array_equal(inverse, expected_inverse)


@pytest.mark.parametrize("columns", [1, 3, 6])
def test_keys_are_ordered_as_the_rows(kind: str, columns: int) -> None:
    rows = random_rows(kind, 100, columns)
    keys = row_keys(rows)
    tuples = [tuple(row) for row in rows.tolist()]
    for i in range(1, len(rows)):
        assert (keys[i] < keys[0]) == (tuples[i] < tuples[0])
        assert (keys[i] == keys[0]) == (tuples[i] == tuples[0])


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [3],
        [1, 1, 2],
        [2, 1, 2, 1, 0],
        [2**62, 0, 2**62 - 1, 2**61, 2**62, 0],
    ],
)
def test_sort_keys(keys: list[int]) -> None:
    array = np.array(keys, np.int64)
    in_order, order = sort_keys(array)
    assert in_order.tolist() == sorted(keys)
    # Python's sort is stable
    assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)
    assert array.tolist() == keys


@pytest.mark.parametrize("largest", [10, 2**40, 2**50, 2**62])
def test_sort_keys_is_stable(largest: int) -> None:
    rng = np.random.default_rng(1)
    keys = rng.choice(rng.integers(0, largest, 300, endpoint=True), 5000)
    in_order, order = sort_keys(keys)
    np.testing.assert_array_equal(order, np.argsort(keys, kind="stable"))
    np.testing.assert_array_equal(in_order, np.sort(keys))


@pytest.mark.parametrize("n", [0, 1, 2, 30, 300])
def test_first_duplicate(kind: str, n: int) -> None:
    for seed in range(20):
        rows = random_rows(kind, n, 3, seed)
        seen: set[tuple[int, ...]] = set()
        expected = None
        for i, row in enumerate(map(tuple, rows.tolist())):
            if row in seen:
                expected = i
                break
            seen.add(row)
        assert first_duplicate(rows) == expected
        assert first_duplicate(np.unique(rows, axis=0)) is None


@pytest.mark.parametrize("step", [1, 3, 2**16, 2**24, [2**24, 1, 2**16]])
def test_regular_rows_have_different_hashes(step: int | list[int]) -> None:
    # searching is slow where many hashes are equal
    axes = np.meshgrid(*[np.arange(-20, 20)] * 3)
    rows = np.stack([axis.ravel() for axis in axes], axis=1) * step
    assert len(np.unique(_hash(rows))) == len(rows)


def test_equal_hashes_of_different_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def bad_hash(rows: np.ndarray) -> np.ndarray:
        return rows[:, 0] % np.int64(3)

    monkeypatch.setattr("metatensor_jax._host.packing._hash", bad_hash)
    assert first_duplicate(np.array([[2, 0], [1, 0], [0, 0]])) is None
    assert first_duplicate(np.array([[2, 0], [1, 0], [2, 0]])) == 2

    rows = np.unique(random_rows("overflow", 60, 3), axis=0)
    index = RowIndex(rows[::2])
    expected = [i // 2 if i % 2 == 0 else -1 for i in range(len(rows))]
    assert index.find(rows).tolist() == expected
    found = [index.position(tuple(row)) for row in rows.tolist()]
    assert found == [i if i >= 0 else None for i in expected]


@pytest.mark.parametrize("columns", [1, 2, 3, 6])
@pytest.mark.parametrize("n", [0, 1, 3, 200])
def test_row_index(kind: str, n: int, columns: int) -> None:
    rng = np.random.default_rng(n)
    rows = rng.permutation(np.unique(random_rows(kind, n, columns), axis=0))
    expected = {tuple(row): i for i, row in enumerate(rows.tolist())}
    # rows of the table, their neighbours, and rows far outside; many come repeatedly
    corners = rng.choice(CORNERS, (100, columns))
    neighbours = rows[:50] + rng.integers(0, 2, (len(rows[:50]), columns), np.int32)
    probes = rng.permutation(np.concatenate([rows, rows, corners, neighbours]))
    tuples = [tuple(row) for row in probes.tolist()]

    index = RowIndex(rows)
    assert index.find(probes).tolist() == [expected.get(row, -1) for row in tuples]
    assert [index.position(row) for row in tuples] == [expected.get(t) for t in tuples]
    assert index.find(probes[:0]).shape == (0,)
    assert index.position((2**40,) * columns) is None
    assert is_among(probes, rows).tolist() == [row in expected for row in tuples]


def test_row_index_on_rows_whose_ranges_overflow_twice() -> None:
    rng = np.random.default_rng(0)
    limits = (INT32.min, INT32.max, (2000, 6), np.int32)
    rows = rng.integers(*limits, endpoint=True)
    strangers = rng.integers(*limits, endpoint=True)
    # the same but for one column: found, if a column were lost
    strangers[::2, :5] = rows[::2, :5]
    strangers[1::2, 1:] = rows[1::2, 1:]
    index = RowIndex(rows)
    np.testing.assert_array_equal(index.find(rows[::-1]), np.arange(2000)[::-1])
    assert index.find(strangers).max() == -1


@pytest.mark.parametrize("n", [0, 1, 2, 999, 1_000, 1_001, 5_000])
def test_order_of_long_columns(n: int) -> None:
    values = np.arange(n) // 2
    rows = np.stack([values, np.arange(n) % 2], 1)
    assert is_sorted(values)
    assert is_increasing(rows)
    for at in {1, n // 2, n - 1} - {0, -1}:
        if at >= n:
            continue
        swapped = np.arange(n)
        swapped[[at - 1, at]] = at, at - 1
        assert not is_sorted(swapped)
        assert not is_increasing(rows[swapped])
        swapped[at - 1] = at
        assert not is_increasing(rows[swapped])  # twice the same


def test_is_inside() -> None:
    assert is_inside(np.array([0, 2]), 3)
    assert is_inside(np.array([], int), 0)
    assert not is_inside(np.array([0, 3]), 3)
    assert not is_inside(np.array([-1, 2]), 3)
