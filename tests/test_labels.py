"""Labels and LabelsEntry: the whole public surface, against plain Python."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from metatensor_jax import Labels, LabelsEntry, MetatensorError, TracedLabelsError

INT32 = np.iinfo(np.int32)
AB = ["a", "b"]


def make(values: Any = ((0, 0), (0, 2), (1, 0))) -> Labels:
    return Labels(AB, values)


def traced(values: Any = ((0, 0), (0, 2), (1, 0))) -> Labels:
    return Labels.traced(AB, jnp.array(values, jnp.int32))


def rows_of(labels: Labels) -> list[tuple[int, ...]]:
    return [tuple(row) for row in labels.values.tolist()]


# --- making labels -------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [[0, 1], [2, 3]],
        ((0, 1), (2, 3)),
        np.array([[0, 1], [2, 3]], np.int8),
        np.array([[0, 1], [2, 3]], np.int64),
        np.array([[0, 1], [2, 3]], np.uint64),
        np.array([[0, 1], [2, 3]], np.int32, order="F"),
        np.array([[0, 9, 1, 9], [2, 9, 3, 9]], ">i4")[:, ::2],
    ],
    ids=["lists", "tuples", "int8", "int64", "uint64", "fortran", "strided-big-endian"],
)
def test_all_integers_make_the_same_labels(values: Any) -> None:
    labels = Labels(AB, values)
    assert labels == Labels(AB, [[0, 1], [2, 3]])
    assert hash(labels) == hash(Labels(AB, [[0, 1], [2, 3]]))
    assert labels.values.dtype == np.int32
    assert labels.values.dtype.isnative
    assert labels.is_static


@pytest.mark.parametrize(
    ("labels", "names", "values"),
    [
        (Labels.single(), ["_"], [[0]]),
        (Labels.empty("a"), ["a"], []),
        (Labels.empty(AB), AB, []),
        (Labels("a", []), ["a"], []),
        (Labels(AB, np.zeros((0, 2))), AB, []),
        (Labels.range("a", 0), ["a"], []),
        (Labels.range("a", 3), ["a"], [[0], [1], [2]]),
        (Labels("a", [[INT32.min], [INT32.max]]), ["a"], [[INT32.min], [INT32.max]]),
        (Labels(("_a", "B9"), [[1, 2]]), ["_a", "B9"], [[1, 2]]),
    ],
)
def test_constructors(labels: Labels, names: list[str], values: list) -> None:
    assert labels.names == names
    assert labels.values.tolist() == values
    assert labels.values.shape == (len(values), len(names))
    assert labels.values.dtype == np.int32
    assert len(labels) == len(values)


def test_assume_unique_skips_the_check_only() -> None:
    assert len(Labels("a", [[1], [1]], assume_unique=True)) == 2
    with pytest.raises(MetatensorError):
        Labels("a", [[1, 1]], assume_unique=True)


def test_padding_is_a_valid_value() -> None:
    labels = Labels("a", [[INT32.min], [0]])
    assert labels.position((Labels.PADDING,)) == 0


# --- reading -------------------------------------------------------------------------


def test_reading() -> None:
    labels = make()
    assert len(labels) == 3
    assert labels.names == AB
    assert labels.device == "cpu"
    assert labels.column("b").tolist() == labels["b"].tolist() == [0, 2, 0]
    assert labels.entry(1) == labels[1] == labels[-2] == labels[np.int32(1)]
    assert labels[1] == LabelsEntry(AB, [0, 2])
    assert [tuple(entry) for entry in labels] == [(0, 0), (0, 2), (1, 0)]
    assert (0, 2) in labels
    assert [0, 2] in labels
    assert np.array([0, 2]) in labels
    assert labels[1] in labels
    assert (2, 0) not in labels
    assert labels.position((1, 0)) == labels.position(labels[2]) == 2
    assert labels.position((1, 1)) is None
    assert labels.position((2**40, -(2**40))) is None


def test_entry() -> None:
    entry = LabelsEntry(AB, [3, -4])
    assert entry.names == AB
    assert entry.values.tolist() == [3, -4]
    assert entry.values.dtype == np.int32
    assert entry.device == "cpu"
    assert len(entry) == 2
    assert tuple(entry) == (3, -4)
    assert {type(value) for value in (*entry, entry["a"], entry[0])} == {int}
    assert (entry["b"], entry[1], entry[-1]) == (-4, -4, -4)
    assert entry.print() == "(a=3, b=-4)"
    assert repr(entry) == "LabelsEntry(a=3, b=-4)"
    html = entry._repr_html_()
    assert "<th>a</th><td>3</td>" in html
    assert "<th>b</th><td>-4</td>" in html


def test_equality_of_entries() -> None:
    entry = LabelsEntry(AB, [3, 4])
    assert entry == LabelsEntry(("a", "b"), np.array([3, 4]))
    assert hash(entry) == hash(LabelsEntry(AB, [3, 4]))
    for other in (LabelsEntry(AB, [3, 5]), LabelsEntry(["a", "c"], [3, 4]), (3, 4), 3):
        assert entry != other
    for same in (pickle.loads(pickle.dumps(entry)), copy.copy(entry)):
        assert same == entry
        assert not same.values.flags.writeable


# --- immutability --------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        lambda labels: labels.values,
        lambda labels: labels["a"],
        lambda labels: labels[0].values,
        lambda labels: next(iter(labels)).values,
        lambda labels: copy.deepcopy(labels).values,
        lambda labels: pickle.loads(pickle.dumps(labels)).values,
        lambda labels: copy.deepcopy(labels[0]).values,
        lambda labels: labels.append("c", [1, 2, 3]).values,
        lambda labels: labels.insert(0, "c", [1, 2, 3]).values,
        lambda labels: labels.permute([1, 0]).values,
        lambda labels: labels.rename("a", "c").values,
        lambda labels: labels.append("c", [1, 2, 3]).remove("a").values,
        lambda labels: labels.union(make([[7, 7]])).values,
        lambda labels: labels.intersection(labels).values,
        lambda labels: labels.difference(make([[7, 7]])).values,
    ],
)
def test_values_are_read_only(array: Callable[[Labels], np.ndarray]) -> None:
    values = array(make())
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 9


def test_changes_of_the_given_array_do_not_reach_the_labels() -> None:
    array = np.array([[0, 0], [0, 2], [1, 0]], np.int32)
    labels, entry = Labels(AB, array), LabelsEntry(AB, array[0])
    array[:] = 7
    assert labels == make()
    assert tuple(entry) == (0, 0)


def test_names_can_not_be_changed() -> None:
    labels = make()
    labels.names.append("c")
    assert labels.names == AB
    for attribute in ("names", "values", "other"):
        with pytest.raises(AttributeError):
            setattr(labels, attribute, None)


def test_mappings_can_be_changed() -> None:
    # they are the caller's: a second call must not see what became of the first
    labels, other = make(), make([[1, 0], [5, 5]])
    for mapping in labels.union_and_mapping(other)[1:]:
        mapping[:] = -7
    union, first, second = labels.union_and_mapping(other)
    assert (len(union), first.tolist(), second.tolist()) == (4, [0, 1, 2], [2, 3])


# --- other dimensions ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "names", "values"),
    [
        (lambda x: x.append("c", [7, 8]), ["a", "b", "c"], [[0, 1, 7], [2, 3, 8]]),
        (lambda x: x.insert(0, "c", [7, 8]), ["c", "a", "b"], [[7, 0, 1], [8, 2, 3]]),
        (lambda x: x.insert(1, "c", [7, 8]), ["a", "c", "b"], [[0, 7, 1], [2, 8, 3]]),
        (lambda x: x.insert(-1, "c", [7, 8]), ["a", "c", "b"], [[0, 7, 1], [2, 8, 3]]),
        (lambda x: x.insert(2, "c", [7, 8]), ["a", "b", "c"], [[0, 1, 7], [2, 3, 8]]),
        (lambda x: x.permute([1, 0]), ["b", "a"], [[1, 0], [3, 2]]),
        (lambda x: x.permute([-1, 0]), ["b", "a"], [[1, 0], [3, 2]]),
        (lambda x: x.permute(np.array([0, 1])), AB, [[0, 1], [2, 3]]),
        (lambda x: x.rename("a", "c"), ["c", "b"], [[0, 1], [2, 3]]),
        (lambda x: x.rename("a", "a"), AB, [[0, 1], [2, 3]]),
        (lambda x: x.remove("a"), ["b"], [[1], [3]]),
        (lambda x: x.remove("b"), ["a"], [[0], [2]]),
    ],
)
@pytest.mark.parametrize("static", [True, False], ids=["static", "traced"])
def test_other_dimensions(
    change: Callable[[Labels], Labels], names: list[str], values: list, static: bool
) -> None:
    array = np.array([[0, 1], [2, 3]], np.int32)
    given = Labels(AB, array) if static else Labels.traced(AB, jnp.asarray(array))
    changed = change(given)
    assert changed.is_static == static
    assert changed.names == names
    assert changed.values.tolist() == values
    assert changed.values.dtype == np.int32
    if static:
        assert changed == Labels(names, values)
        assert hash(changed) == hash(Labels(names, values))
        assert changed.position(values[1]) == 1


def test_a_traced_dimension_makes_labels_traced() -> None:
    @jax.jit
    def append(column: jax.Array) -> Labels:
        labels = make().append("c", column)
        assert not labels.is_static
        return labels

    labels = append(jnp.array([7, 8, 9], jnp.int32))
    assert labels.values.tolist() == [[0, 0, 7], [0, 2, 8], [1, 0, 9]]


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint16", "int64", "bool"])
def test_arrays_of_jax_whose_values_are_known_make_static_labels(
    dtype: str, x64: bool
) -> None:
    labels = Labels("a", jnp.asarray(np.arange(2).astype(dtype)).reshape(2, 1))
    assert labels.is_static
    assert labels == Labels.range("a", 2)
    appended = labels.append("b", jnp.array([7, 8]))
    assert appended == Labels(["a", "b"], [[0, 7], [1, 8]])


# --- labels as sets, against plain Python --------------------------------------------

# few different values, so that sets overlap; the extremes make the ranges of several
# columns too large for 64 bits
VALUES = st.sampled_from([INT32.min, INT32.min + 1, -1, 0, 1, 2, INT32.max])


@st.composite
def row_lists(draw: st.DrawFn, n_lists: int, unique: tuple[bool, ...]) -> list:
    """Lists of rows with the same number of columns."""
    columns = draw(st.sampled_from([1, 2, 3, 5]))
    value = draw(st.sampled_from([VALUES, st.integers(-2, 3)]))
    row = st.tuples(*[value] * columns)
    return [draw(st.lists(row, max_size=20, unique=unique[i])) for i in range(n_lists)]


def as_labels(rows: list[tuple[int, ...]], columns: int) -> Labels:
    return Labels(
        [f"c{i}" for i in range(columns)], np.reshape(rows, (-1, columns)).astype(int)
    )


def mapping_onto(rows: list, target: list) -> list[int]:
    position = {row: i for i, row in enumerate(target)}
    return [position.get(row, -1) for row in rows]


def two_labels(lists: list) -> tuple[Labels, Labels]:
    columns = len((*lists[0], *lists[1], (0,))[0])
    return as_labels(lists[0], columns), as_labels(lists[1], columns)


@given(row_lists(2, (True, True)))
def test_union(lists: list) -> None:
    first, second = lists
    expected = list(dict.fromkeys([*first, *second]))
    one, two = two_labels(lists)
    union, of_first, of_second = one.union_and_mapping(two)
    assert rows_of(union) == expected
    assert of_first.tolist() == mapping_onto(first, expected)
    assert of_second.tolist() == mapping_onto(second, expected)
    assert one.union(two) == union
    assert union.values.dtype == np.int32


@given(row_lists(2, (True, True)))
def test_intersection(lists: list) -> None:
    first, second = lists
    expected = [row for row in first if row in set(second)]
    one, two = two_labels(lists)
    both, of_first, of_second = one.intersection_and_mapping(two)
    assert rows_of(both) == expected
    assert of_first.tolist() == mapping_onto(first, expected)
    assert of_second.tolist() == mapping_onto(second, expected)
    assert one.intersection(two) == both


@given(row_lists(2, (True, True)))
def test_difference(lists: list) -> None:
    first, second = lists
    expected = [row for row in first if row not in set(second)]
    one, two = two_labels(lists)
    rest, mapping = one.difference_and_mapping(two)
    assert rows_of(rest) == expected
    assert mapping.tolist() == mapping_onto(first, expected)
    assert one.difference(two) == rest


@given(row_lists(2, (True, False)))
def test_position(lists: list) -> None:
    rows, probes = lists
    columns = len((*rows, *probes, (0,))[0])
    labels = as_labels(rows, columns)
    for probe in [*probes, *rows]:
        expected = rows.index(probe) if probe in rows else None
        assert labels.position(probe) == expected
        assert labels.position(LabelsEntry(labels.names, probe)) == expected
        assert (probe in labels) == (expected is not None)


@given(row_lists(1, (False,)))
def test_duplicates_are_found(lists: list) -> None:
    (rows,) = lists
    columns = len((*rows, (0,))[0])
    if len(set(rows)) == len(rows):
        assert rows_of(as_labels(rows, columns)) == rows
    else:
        with pytest.raises(MetatensorError, match="the same entry multiple times"):
            as_labels(rows, columns)


@given(row_lists(2, (True, True)), st.data())
def test_select(lists: list, data: st.DataObject) -> None:
    rows, others = lists
    labels, _ = two_labels(lists)
    n = len(labels.names)
    columns = data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    wanted = list(dict.fromkeys(tuple(row[i] for i in columns) for row in others))
    names = [labels.names[i] for i in columns]
    selection = Labels(names, np.reshape(wanted, (-1, len(names))).astype(int))

    parts = [tuple(row[i] for i in columns) for row in rows]
    if len(columns) == n:
        expected = [parts.index(row) for row in wanted if row in parts]
    else:
        expected = [i for i, part in enumerate(parts) if part in wanted]
    selected = labels.select(selection)
    assert selected.tolist() == expected
    assert selected.dtype == np.int64
    if len(selection) == 1:
        assert labels.select(selection[0]).tolist() == expected


def test_mappings_are_int64() -> None:
    one, two = make(), make([[1, 0], [5, 5]])
    for n_labels, result in [
        (1, one.union_and_mapping(two)),
        (1, one.union_and_mapping(one)),
        (1, one.intersection_and_mapping(two)),
        (1, one.difference_and_mapping(two)),
        (0, [one.select(two)]),
    ]:
        assert {mapping.dtype for mapping in result[n_labels:]} == {np.dtype("int64")}


# --- parity with metatensor ----------------------------------------------------------


def random_pair(seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names and two overlapping sets of rows, of a size and range of their own."""
    rng = np.random.default_rng(seed)
    columns = int(rng.integers(1, 5))
    names = ["system", "atom", "species", "m"][:columns]
    low, high = [(0, 4), (-50, 50), (INT32.min, INT32.max)][seed % 3]
    rows = rng.integers(low, high, (int(rng.integers(0, 60)), columns), np.int32)
    rows = rng.permutation(np.unique(rows, axis=0))
    parts = rng.random((2, len(rows))) < 0.6
    return names, rows[parts[0]], rng.permutation(rows[parts[1]])


@pytest.mark.parametrize("seed", range(30))
def test_parity_with_metatensor(seed: int) -> None:
    metatensor = pytest.importorskip("metatensor")
    names, *arrays = random_pair(seed)
    one, two = (Labels(names, array) for array in arrays)
    their_one, their_two = (metatensor.Labels(names, array) for array in arrays)
    for operation in ("union", "intersection", "difference"):
        ours = getattr(one, f"{operation}_and_mapping")(two)
        theirs = getattr(their_one, f"{operation}_and_mapping")(their_two)
        only = getattr(their_one, operation)(their_two)
        if operation == "intersection" and len(two) < len(one):
            # metatensor has the order of the shorter one, we that of the first
            both, of_two, of_one = two.intersection_and_mapping(one)
            assert set(rows_of(both)) == set(rows_of(ours[0]))
            ours = both, of_one, of_two
        assert ours[0].names == theirs[0].names
        np.testing.assert_array_equal(ours[0].values, theirs[0].values)
        np.testing.assert_array_equal(ours[0].values, only.values)
        for mapping, their_mapping in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_array_equal(mapping, their_mapping)
    for row in [*arrays[0], *arrays[1]]:
        assert one.position(row) == their_one.position(row)
        assert (row in one) == (row in their_one)
    for n_columns in range(1, len(names) + 1):
        wanted = np.unique(arrays[1][:, :n_columns], axis=0)[::-1]
        np.testing.assert_array_equal(
            one.select(Labels(names[:n_columns], wanted)),
            their_one.select(metatensor.Labels(names[:n_columns], wanted)),
        )


@pytest.mark.parametrize("seed", range(5))
def test_parity_of_other_dimensions_with_metatensor(seed: int) -> None:
    metatensor = pytest.importorskip("metatensor")
    names, rows, _ = random_pair(seed)
    new = np.arange(len(rows), dtype=np.int32)
    ours, theirs = Labels(names, rows), metatensor.Labels(names, rows)
    for change in (
        # not append: metatensor's inserts before the dimension number len(labels)
        lambda labels: labels.insert(len(names), "new", new),
        lambda labels: labels.insert(0, "new", new),
        lambda labels: labels.insert(0, "new", new).remove(names[0]),
        lambda labels: labels.rename(names[-1], "other"),
        lambda labels: labels.permute(list(range(len(names)))[::-1]),
    ):
        assert change(ours).names == change(theirs).names
        np.testing.assert_array_equal(change(ours).values, change(theirs).values)


# --- identity ------------------------------------------------------------------------

DIFFERENT = [
    make(),
    make([[0, 2], [0, 0], [1, 0]]),
    make([[0, 0], [0, 2]]),
    make([[0, 0], [0, 2], [1, 1]]),
    Labels(["a", "c"], [[0, 0], [0, 2], [1, 0]]),
    Labels(["ab"], [[0], [2], [1]]),
    Labels.empty("a"),
    Labels.empty(AB),
    # the same bytes in another shape
    Labels("a", [[0], [1], [2], [3]]),
    Labels(["a", "b"], [[0, 1], [2, 3]]),
]


@pytest.mark.parametrize("hashed", [False, True])
def test_equality(hashed: bool) -> None:
    for i, one in enumerate(DIFFERENT):
        for j, two in enumerate(DIFFERENT):
            again = Labels(two.names, two.values)
            if hashed:
                assert (one.digest == again.digest) == (i == j)
                assert (hash(one) == hash(again)) == (i == j)
            assert (one == again) is (i == j)
            assert (one != again) is (i != j)


def test_equality_with_other_types_is_false() -> None:
    labels = make()
    for other in (None, 3, "a", rows_of(labels), labels[0], traced()):
        assert (labels == other) is False
        assert (labels != other) is True


def test_digest_is_made_once() -> None:
    labels = make()
    assert len(labels.digest) == 16
    assert labels.digest is labels.digest


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "labels", [make(), Labels.empty(AB), make().permute([1, 0]), traced()]
)
def test_pickle(labels: Labels, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(labels, protocol))
    assert again.is_static == labels.is_static
    assert again.names == labels.names
    np.testing.assert_array_equal(again.values, labels.values)
    if labels.is_static:
        assert again == labels
        assert hash(again) == hash(labels)


@pytest.mark.parametrize("labels", [make(), traced()])
def test_copies_are_the_labels_themselves(labels: Labels) -> None:
    assert copy.copy(labels) is labels
    assert copy.deepcopy(labels) is labels
    assert copy.deepcopy({"labels": [labels]})["labels"][0] is labels


def test_to() -> None:
    labels = make()
    for arguments in ([], ["cpu"], [np.float32], [jax.devices()[0]]):
        assert labels.to(*arguments) is labels
    device = jax.devices()[0]
    moved = traced().to(device=device)
    assert not moved.is_static
    assert moved.device == device
    assert moved.values.tolist() == traced().values.tolist()


# --- text ----------------------------------------------------------------------------


def test_print() -> None:
    labels = Labels(["n", "center_type"], [[i, 10 * i - 100] for i in range(25)])
    short = [
        "n   center_type",
        "0      -100",
        "1       -90",
        "   ...",
        "23      130",
        "24      140",
    ]
    # which side an odd blank goes to is not the point
    assert [line.split() for line in labels.print(4).splitlines()] == [
        line.split() for line in short
    ]
    assert len(labels.print(20).splitlines()) == 1 + 20 + 1
    assert (
        len(labels.print(25).splitlines()) == len(labels.print(-1).splitlines()) == 26
    )
    assert labels.print(1) == labels.print(0) == labels.print(2)
    indented = labels.print(3, indent=5).splitlines()
    assert [line[:5].strip() for line in indented[1:]] == [""] * 4
    assert labels.print(3).splitlines() == [indented[0]] + [x[5:] for x in indented[1:]]
    assert str(labels) == f"Labels\n    {labels.print(4, indent=4)}"
    assert repr(labels) == f"Labels\n    {labels.print(20, indent=4)}"


def test_columns_are_aligned() -> None:
    labels = Labels(["long_name", "b"], [[1, INT32.min], [-22, 333]])
    header, *lines = labels.print(-1).splitlines()
    assert header.split() == ["long_name", "b"]
    column = header.index("b")
    for line, row in zip(lines, rows_of(labels), strict=True):
        assert tuple(map(int, line.split())) == row
        assert "long_name".center(9) in header
        assert line[len("long_name") : column - 5].strip() == ""


def test_print_empty() -> None:
    assert repr(Labels.empty(AB)).split() == ["Labels", "a", "b"]
    assert "<td>" not in Labels.empty(AB)._repr_html_()


def test_html() -> None:
    html = Labels("a", [[i] for i in range(25)])._repr_html_()
    assert "<strong>Labels</strong>" in html
    in_sight, unfolding = html.split("<details>")
    assert [f"<td>{i}</td>" in in_sight for i in range(25)] == [True] * 12 + [
        False
    ] * 13
    assert all(f"<td>{i}</td>" in unfolding for i in range(25))
    assert "<summary>13 more</summary>" in unfolding


# --- traced labels -------------------------------------------------------------------


def test_traced_labels() -> None:
    labels = traced()
    assert not labels.is_static
    assert len(labels) == 3
    assert labels.names == AB
    assert isinstance(labels.column("b"), jax.Array)
    assert labels["b"].tolist() == [0, 2, 0]
    assert labels.entry(1)["b"] == 2
    assert labels.device == jax.devices()[0]
    assert repr(labels) == "Labels\n    [a, b], traced: int32[3,2]"
    assert "<th>b</th><td>0</td><td>2</td><td>0</td>" in labels._repr_html_()


def test_traced_labels_of_numpy() -> None:
    # a batch is padded on the host: its samples are data, although they are NumPy's
    values = np.full((3, 2), Labels.PADDING, np.int32)
    labels = Labels.traced(AB, values)
    assert not labels.is_static
    assert labels.device == "cpu"
    assert labels.append("c", [1, 2, 3]).is_static is False
    assert isinstance(labels.permute([1, 0]).values, np.ndarray)


def test_traced_labels_are_not_checked_for_duplicates() -> None:
    assert len(traced([[0, 0], [0, 0]])) == 2
    assert len(traced([[0, 0], [0, 1]]).remove("b")) == 2


NEEDS_VALUES = {
    "iterating over labels": list,
    "hashing labels": hash,
    "Labels.position": lambda labels: labels.position((0, 0)),
    "Labels.select": lambda labels: labels.select(Labels("a", [[0]])),
    "Labels.union": lambda labels: labels.union(make()),
    "Labels.intersection": lambda labels: labels.intersection(make()),
    "Labels.difference": lambda labels: labels.difference(make()),
    "comparing labels": lambda labels: labels == traced(),
}


@pytest.mark.parametrize("inside_jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("what", NEEDS_VALUES)
def test_what_needs_values_raises(what: str, inside_jit: bool) -> None:
    def function(labels: Labels) -> jax.Array:
        with pytest.raises(TracedLabelsError) as caught:
            NEEDS_VALUES[what](labels)
        assert str(caught.value) == (
            f"{what} needs the values of the labels [a, b], but these are traced (they "
            "are an array inside the program, not host metadata). Do this step before "
            "the labels are traced (before padding, and outside of `jax.jit`), or make "
            "them static with `Labels(labels.names, numpy.asarray(labels.values))`."
        )
        return labels.values

    (jax.jit(function) if inside_jit else function)(traced())


@pytest.mark.parametrize(
    ("what", "use"),
    [
        ("Labels.union", lambda other: make().union(other)),
        ("Labels.intersection", lambda other: make().intersection(other)),
        ("Labels.difference", lambda other: make().difference(other)),
        ("Labels.select", lambda other: make().select(other)),
        ("Labels.position", lambda other: (0, 0) in other),
    ],
)
def test_traced_arguments_raise(what: str, use: Callable[[Labels], Any]) -> None:
    with pytest.raises(TracedLabelsError, match=rf"^{what} needs the values of"):
        use(traced())


def test_the_advice_of_the_error_works() -> None:
    labels = traced()
    static = Labels(labels.names, np.asarray(labels.values))
    assert static.is_static
    assert static == make()


def test_a_program_serves_all_values_of_traced_labels(x64: bool) -> None:
    traces = []

    @jax.jit
    def function(labels: Labels) -> Labels:
        traces.append(labels)
        new = jnp.arange(len(labels), dtype=jnp.int32)
        return labels.rename("a", "x").permute([1, 0]).append("c", new).remove("x")

    for values in ([[0, 5], [1, 6]], [[2, 7], [3, 8]]):
        result = function(traced(values))
        assert result.names == ["b", "c"]
        assert result.values.tolist() == [[values[0][1], 0], [values[1][1], 1]]
        assert result.values.dtype == np.int32
    assert len(traces) == 1


def test_static_labels_are_structure() -> None:
    traces = []

    @jax.jit
    def function(labels: Labels, x: jax.Array) -> jax.Array:
        traces.append(labels)
        return x * len(labels.select(Labels("a", [[0]])))

    assert jax.tree.leaves(make()) == []
    one = jnp.ones(())
    assert function(make(), one) == function(make(), one) == 2
    assert len(traces) == 1
    assert function(make([[1, 0], [0, 0]]), one) == 1
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        (None, "NoneType"),
        (object(), "object"),
        (jax.ShapeDtypeStruct((7, 2), jnp.int32), "int32[7,2]"),
        (np.zeros((4, 3, 3), np.int32), None),
    ],
    ids=["None", "object", "ShapeDtypeStruct", "batched"],
)
def test_any_leaf_can_be_shown(leaf: Any, text: str | None) -> None:
    labels = jax.tree.map(lambda _: leaf, traced())
    assert isinstance(labels, Labels)
    assert labels.values is leaf or isinstance(leaf, np.ndarray)
    assert not labels.is_static
    for shown in (repr(labels), str(labels), labels._repr_html_()):
        assert text is None or f"traced: {text}" in shown


def test_paths_of_leaves() -> None:
    ((path, leaf),), _ = jax.tree_util.tree_flatten_with_path(traced())
    assert jax.tree_util.keystr(path) == ".values"
    assert leaf.shape == (3, 2)


# --- wrong input ---------------------------------------------------------------------

BAD_INPUT = {
    # shapes and names
    "1D values": (
        lambda: Labels("a", [1, 2]),
        MetatensorError,
        r"2D array with one column for each of the 1 names \['a'\], got shape \(2,\)",
    ),
    "3D values": (
        lambda: Labels("a", [[[1]]]),
        MetatensorError,
        r"2D array .* got shape \(1, 1, 1\)",
    ),
    "scalar": (lambda: Labels("a", 5), MetatensorError, r"2D array .* got shape \(\)"),
    "fewer names": (
        lambda: Labels("a", [[1, 2]]),
        MetatensorError,
        r"1 names \['a'\], got shape \(1, 2\)",
    ),
    "more names": (
        lambda: Labels(AB, [[1]]),
        MetatensorError,
        r"2 names \['a', 'b'\], got shape \(1, 1\)",
    ),
    "no rows, other columns": (
        lambda: Labels(AB, np.zeros((0, 3), int)),
        MetatensorError,
        r"2 names \['a', 'b'\], got shape \(0, 3\)",
    ),
    "duplicate rows": (
        lambda: make([[0, 1], [2, 3], [2, 3], [0, 1]]),
        MetatensorError,
        r"same entry multiple times: \(a=2, b=3\) is at row 2 and before it",
    ),
    "duplicate names": (
        lambda: Labels(["a", "b", "a"], [[1, 2, 3]]),
        MetatensorError,
        r"names .* must be unique, got 'a' multiple times in \['a', 'b', 'a'\]",
    ),
    "name is a number": (
        lambda: Labels(["a", 1], [[1, 2]]),
        TypeError,
        "strings, not int",
    ),
    "name is None": (lambda: Labels.empty([None]), TypeError, "strings, not NoneType"),
    **{
        f"name {name!r}": (
            lambda name=name: Labels(name, [[1]]),
            MetatensorError,
            rf"^'{name}' is not a valid label name",
        )
        for name in ("", "a b", "1a", "a-b", "ä", "a\n")
    },
    # values
    "floats": (lambda: Labels("a", [[1.0]]), TypeError, "integers, not float64: use"),
    "strings": (lambda: Labels("a", [["x"]]), TypeError, "integers, not <U1"),
    "None": (lambda: Labels("a", None), TypeError, "integers, not object"),
    "objects": (lambda: Labels("a", [[object()]]), TypeError, "integers, not object"),
    "complex": (lambda: Labels("a", [[1j]]), TypeError, "integers, not complex128"),
    "ragged": (lambda: Labels(AB, [[1, 2], [3]]), ValueError, "inhomogeneous"),
    **{
        f"{value} as {dtype.__name__}": (
            lambda value=value, dtype=dtype: Labels(
                "a", np.array([[0], [value]], dtype)
            ),
            MetatensorError,
            rf"value {value} is out of range.* from -2147483648 to 2147483647",
        )
        for value, dtype in [
            (2**31, np.int64),
            (-(2**31) - 1, np.int64),
            (2**31, np.uint32),
            (2**64 - 1, np.uint64),
        ]
    },
    "wrong in union": (
        lambda: make().append("c", [0, 1, 2**31]),
        MetatensorError,
        "value 2147483648 is out of range",
    ),
    # traced values
    "traced floats": (
        lambda: Labels.traced("a", jnp.zeros((1, 1), jnp.float32)),
        TypeError,
        "must be an int32 array, not float32",
    ),
    "traced int16": (
        lambda: Labels.traced("a", jnp.zeros((1, 1), jnp.int16)),
        TypeError,
        "must be an int32 array, not int16",
    ),
    "traced 1D": (
        lambda: Labels.traced("a", jnp.zeros(2, jnp.int32)),
        MetatensorError,
        r"got shape \(2,\)",
    ),
    "traced lists": (
        lambda: Labels.traced("a", [[1]]),
        TypeError,
        "must be an int32 array, not list",
    ),
    "traced NumPy int64": (
        lambda: Labels.traced("a", np.zeros((1, 1), np.int64)),
        TypeError,
        "must be an int32 array, not int64",
    ),
    "append traced floats": (
        lambda: traced().append("c", jnp.zeros(3, jnp.float32)),
        TypeError,
        "must be an int32 array, not float32",
    ),
    "append floats of JAX": (
        lambda: make().append("c", jnp.zeros(3, jnp.float32)),
        TypeError,
        "must be integers, not float32",
    ),
    # entries
    "entry of wrong length": (
        lambda: LabelsEntry(AB, [1]),
        MetatensorError,
        r"each of the names \['a', 'b'\], got values with shape \(1,\)",
    ),
    "entry of floats": (lambda: LabelsEntry("a", [0.5]), TypeError, "not float64"),
    "entry without such a name": (
        lambda: LabelsEntry(AB, [1, 2])["c"],
        MetatensorError,
        r"'c' not found in the dimensions of these labels: \['a', 'b'\]",
    ),
    "entry index out of range": (
        lambda: LabelsEntry(AB, [1, 2])[2],
        IndexError,
        "index 2 is out of bounds .* size 2",
    ),
    # looking things up
    "position of wrong length": (
        lambda: make().position((1, 2, 3)),
        MetatensorError,
        r"dimensions \['a', 'b'\] has 2 values, got 3: \(1, 2, 3\)",
    ),
    "position with other names": (
        lambda: make().position(LabelsEntry(["a", "c"], [0, 0])),
        MetatensorError,
        r"names of this entry, \['a', 'c'\], are not those of the labels, \['a', 'b'\]",
    ),
    "position of floats": (lambda: make().position((0.0, 1.5)), TypeError, "float"),
    "position of strings": (lambda: make().position("00"), TypeError, "str"),
    "select unknown dimension": (
        lambda: make().select(Labels("c", [[0]])),
        MetatensorError,
        r"'c' in the selection is not one of the dimensions \['a', 'b'\]",
    ),
    "unknown column": (
        lambda: make().column("c"),
        MetatensorError,
        r"'c' not found in the dimensions of these labels: \['a', 'b'\]",
    ),
    "entry out of range": (
        lambda: make().entry(3),
        IndexError,
        "entry 3 is out of range for labels with 3 entries",
    ),
    "negative entry out of range": (
        lambda: make()[-4],
        IndexError,
        "entry -4 is out of range for labels with 3 entries",
    ),
    "index by slice": (lambda: make()[0:1], TypeError, "not by slice"),
    "index by list": (lambda: make()[["a"]], TypeError, "not by list"),
    # sets
    **{
        f"{operation} with other names": (
            lambda operation=operation: getattr(make(), operation)(
                Labels(["b", "a"], [[0, 0]])
            ),
            MetatensorError,
            rf"the {operation} of .* dimensions: \['a', 'b'\] and \['b', 'a'\]",
        )
        for operation in ("union", "intersection", "difference")
    },
    # dimensions
    **{
        f"permute {indexes}": (
            lambda indexes=indexes: make().permute(indexes),
            MetatensorError,
            r"each index from 0 to 1 once, got \[.*\] for the dimensions \['a', 'b'\]",
        )
        for indexes in ([0, 0], [0], [], [0, 2], [0, 1, 1], [1, -1], [-3, 0])
    },
    "permute by floats": (lambda: make().permute([0, 1.7]), TypeError, "float"),
    **{
        f"insert at {index}": (
            lambda index=index: make().insert(index, "c", [1, 2, 3]),
            IndexError,
            f"insert a dimension at {index}: these labels have 2 dimensions",
        )
        for index in (3, -3)
    },
    "insert of wrong length": (
        lambda: make().insert(0, "c", [1, 2]),
        MetatensorError,
        r"'c' must be a 1D array .* the 3 entries, got shape \(2,\)",
    ),
    "append 2D": (
        lambda: make().append("c", [[1], [2], [3]]),
        MetatensorError,
        r"'c' must be a 1D array .* the 3 entries, got shape \(3, 1\)",
    ),
    "append floats": (lambda: make().append("c", [0.5] * 3), TypeError, "not float64"),
    "append an existing name": (
        lambda: make().append("a", [1, 2, 3]),
        MetatensorError,
        r"got 'a' multiple times in \['a', 'b', 'a'\]",
    ),
    "remove, and rows are equal": (
        lambda: make().remove("b"),
        MetatensorError,
        r"same entry multiple times: \(a=0\) is at row 1",
    ),
    "remove unknown": (lambda: make().remove("c"), MetatensorError, "'c' not found"),
    "rename to existing": (
        lambda: make().rename("a", "b"),
        MetatensorError,
        r"got 'b' multiple times in \['b', 'b'\]",
    ),
    "rename to invalid": (
        lambda: make().rename("a", "a b"),
        MetatensorError,
        "'a b' is not a valid label name",
    ),
    "rename unknown": (
        lambda: make().rename("c", "d"),
        MetatensorError,
        "'c' not found",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_wrong_input(case: str) -> None:
    call, error, text = BAD_INPUT[case]
    with pytest.raises(error, match=text) as caught:
        call()
    # the type of the table, or a MetatensorError where it asks for Python's own
    assert caught.type in (error, MetatensorError)


# --- speed ---------------------------------------------------------------------------


def python_lines(function: Callable[[], Any]) -> int:
    """How many lines of labels.py and packing.py a call executes."""
    modules = ("metatensor_jax._types.labels", "metatensor_jax._host.packing")
    files = {inspect.getsourcefile(sys.modules[module]) for module in modules}
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in files:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


# odd, so that modulo 2**31 different rows stay different
FACTORS = np.array([0x5851F42D, 0x4C957F2D, 0x2545F491])


@pytest.mark.parametrize("kind", ["small", "overflow"])
def test_no_python_loop_over_rows(kind: str) -> None:
    def use(n: int) -> None:
        row = np.random.default_rng(0).permutation(n)[:, None]
        rows = row * [1, 3, 5] if kind == "small" else row * FACTORS % 2**31
        labels, half = Labels(list("abc"), rows), Labels(list("abc"), rows[: n // 2])
        shifted = Labels(list("abc"), np.add(rows[::2], [0, 0, 1]) % 2**31)
        labels.union_and_mapping(shifted)
        labels.intersection_and_mapping(half)
        labels.difference_and_mapping(half)
        labels.select(half)
        labels.select(Labels("b", np.unique(half["b"])[:, None]))
        labels.position(rows[n // 2])
        assert labels != half
        hash(labels)

    few, many = (python_lines(lambda n=n: use(n)) for n in (20_000, 100_000))
    assert few > 50
    assert many <= few + 20  # a sort of large keys may need another pass


@pytest.mark.parametrize("method", ["union", "intersection", "difference"])
def test_set_operations_take_labels(method):
    with pytest.raises(TypeError, match="`other` must be Labels, not list: make them"):
        getattr(Labels("a", [[1]]), method)([[1]])


def test_selections_are_labels():
    with pytest.raises(TypeError, match="`selection` must be Labels, not int"):
        Labels("a", [[1]]).select(3)


def test_integers_that_are_too_large_for_numpy():
    with pytest.raises(MetatensorError, match=f"the value {2**70} is out of range"):
        Labels("a", [[2**70]])
