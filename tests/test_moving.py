"""move_rows and cut_rows against rows moved one by one, gradients included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, assert_same, block, enable_x64, tensor
from hypothesis import given, settings, strategies as st
from jax.test_util import check_grads
from reference import (
    Row,
    add,
    assert_close,
    assert_rows,
    beside,
    empty_row,
    rows_of,
    validate,
)

import metatensor_jax as mts
from metatensor_jax.operations import Move, cut_rows, move_rows


def _random_gradients(n: int, rng: np.random.Generator) -> dict[str, Gradient]:
    """Sparse gradients in any order, one of them with gradients of its own."""

    def some(n, m):
        return rng.integers(0, n, m if n else 0).tolist()

    size = int(rng.integers(0, 2 * n + 1))
    return {
        "t": Gradient((3,), some(n, size), {"u": Gradient((2,), some(size, 4))}),
        "u": Gradient((), some(n, int(rng.integers(0, n + 1)))),
    }


def _random(n: int, seed: int, components=(), **options) -> mts.TensorBlock:
    rng = np.random.default_rng(seed)
    gradients = _random_gradients(n, rng)
    return block(n, components, 2, gradients, seed, **options)


def _check(result: mts.TensorBlock, expected: list[Row], eps: float = 0) -> None:
    validate(result)
    assert_rows(rows_of(result), expected, eps)


def _range(n: int) -> mts.Labels:
    return mts.Labels.range("moved", n)


SEEDS = st.integers(0, 999)
COMPONENTS = st.sampled_from([(), (2,), (2, 3)])
ARRAYS = st.sampled_from(["numpy", "jax"])


# --- gathering ---------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 5), COMPONENTS, ARRAYS, SEEDS, st.data())
def test_gather(n, components, arrays, seed, data):
    x = _random(n, seed, components, arrays=arrays)
    source = data.draw(st.lists(st.integers(0, n + 1), max_size=8))
    index = np.array(source, int)
    result = move_rows([Move(x, index)], _range(len(source)), fill_value=7)
    rows = [*rows_of(x), empty_row(x, 7), empty_row(x, 7)]
    _check(result, [rows[i] for i in source])


def test_gather_keeps_the_order_of_gradient_rows():
    x = block(4, gradients={"t": Gradient((), [3, 1, 0, 3, 2])})
    result = move_rows([Move(x, np.array([3, 0, 1]))], _range(3))
    labels = result.gradient("t").samples.values.tolist()
    assert labels == [[0, 0], [2, 0], [1, 0], [0, 1]]


def test_taking_all_rows_costs_nothing():
    x = block(3, gradients={"t": Gradient((3,), [2, 0])})
    for move in (Move(x), Move(x, np.arange(3))):
        result = move_rows([move], _range(3))
        assert np.shares_memory(result.values, x.values)
        assert np.shares_memory(result.gradient("t").values, x.gradient("t").values)


@pytest.mark.parametrize("source", [None, np.array([2, 0])])
def test_gradient_rows_can_be_ordered(source):
    x = block(3, gradients={"t": Gradient((3,), [2, 0, 2, 1], {"u": Gradient(())})})
    n = 3 if source is None else 2

    def backwards(rows):
        return np.lexsort(rows.T[::-1])[::-1]

    result = move_rows([Move(x, source)], _range(n), order_gradients=backwards)
    rows = rows_of(x)
    _check(result, [rows[i] for i in (range(3) if source is None else source)])
    for gradient in (result.gradient("t"), result.gradient("t").gradient("u")):
        labels = gradient.samples.values.tolist()
        assert labels == sorted(labels, reverse=True)


@pytest.mark.parametrize("n_moves", [1, 2])
@pytest.mark.parametrize("destination", [None, np.array([1, 0, 1])])
def test_gradient_rows_can_be_ordered_in_any_arrangement(n_moves, destination):
    x = block(3, gradients={"t": Gradient((3,), [2, 0, 2, 1])})

    def backwards(rows):
        return np.lexsort(rows.T[::-1])[::-1]

    n = 3 * n_moves if destination is None else 2
    moves = [Move(x, None, destination)] * n_moves
    result = move_rows(moves, _range(n), order_gradients=backwards)
    _check(result, rows_of(move_rows(moves, _range(n))), 4)
    labels = result.gradient("t").samples.values.tolist()
    assert labels == sorted(labels, reverse=True)


# --- adding ------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    COMPONENTS,
    ARRAYS,
    st.booleans(),
    SEEDS,
    st.data(),
)
def test_add(sizes, components, arrays, in_order, seed, data):
    n = data.draw(st.integers(1, 5))
    blocks = [
        _random(m, seed + i, components, arrays=arrays) for i, m in enumerate(sizes)
    ]
    expected = [empty_row(blocks[0]) for _ in range(n)]
    moves = []
    for x in blocks:
        # Rows that go nowhere, before and past the end, are dropped.
        anywhere = st.lists(st.integers(-1, n), min_size=len(x), max_size=len(x))
        destination = data.draw(anywhere)
        if in_order:
            destination = sorted(destination)
        for row, to in zip(rows_of(x), destination, strict=True):
            if 0 <= to < n:
                expected[to] = add(expected[to], row)
        moves.append(Move(x, None, np.array(destination, int)))
    result = move_rows(moves, _range(n))
    _check(result, expected, 20)
    for gradient in (result.gradient("t"), result.gradient("u")):
        labels = gradient.samples.values.tolist()
        assert labels == sorted(labels)


@settings(max_examples=30)
@given(st.integers(1, 5), ARRAYS, SEEDS, st.data())
def test_add_chosen_rows(n, arrays, seed, data):
    x = _random(n, seed, arrays=arrays)
    source = data.draw(st.lists(st.integers(0, n), max_size=8))
    destination = [data.draw(st.integers(0, 2)) for _ in source]
    move = Move(x, np.array(source, int), np.array(destination, int))
    result = move_rows([move], _range(3))
    rows = [*rows_of(x), empty_row(x)]
    expected = [empty_row(x) for _ in range(3)]
    for i, to in zip(source, destination, strict=True):
        expected[to] = add(expected[to], rows[i])
    _check(result, expected, 20)


def test_a_permutation_of_destinations_moves_without_adding():
    # Adding would turn -0.0 into 0.0.
    x = block(3).with_values(np.array([[-0.0, 1], [2, -0.0], [3, 4]], np.float32))
    result = move_rows([Move(x, None, np.array([2, 0, 1]))], _range(3))
    np.testing.assert_array_equal(np.signbit(result.values)[[0, 2], [1, 0]], True)
    np.testing.assert_array_equal(result.values, x.values[[1, 2, 0]])


# --- end to end --------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    COMPONENTS,
    ARRAYS,
    SEEDS,
    st.data(),
)
def test_end_to_end(sizes, components, arrays, seed, data):
    expected, moves = [], []
    for i, n in enumerate(sizes):
        x = _random(n, seed + i, components, arrays=arrays)
        rows = [*rows_of(x), empty_row(x, -1)]
        source = data.draw(st.none() | st.lists(st.integers(0, n), max_size=5))
        moves.append(Move(x, None if source is None else np.array(source, int)))
        expected += rows[:-1] if source is None else [rows[j] for j in source]
    _check(move_rows(moves, _range(len(expected)), fill_value=-1), expected)


def test_end_to_end_with_gradients_in_some_blocks_only():
    x = block(2, gradients={"t": Gradient((3,), [1, 0])})
    y = block(2, seed=1)
    # of the gradients that one of the blocks does not have, nothing is known
    result = move_rows([Move(y), Move(x)], _range(4))
    assert result.gradients_list() == []


# --- side by side ------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    COMPONENTS,
    ARRAYS,
    SEEDS,
    st.data(),
)
def test_side_by_side(sizes, components, arrays, seed, data):
    n = data.draw(st.integers(max(sizes), 5))
    blocks, moves, columns = [], [], []
    for i, m in enumerate(sizes):
        x = _random(m, seed + i, components, arrays=arrays)
        where = data.draw(st.permutations(range(n)))[:m]
        blocks.append(x)
        moves.append(Move(x, None, np.array(where, int)))
        rows = dict(zip(where, rows_of(x), strict=True))
        columns.append([rows.get(row) for row in range(n)])
    widths = [x.shape[-1] for x in blocks]
    nothing = empty_row(move_rows(moves[:1], _range(n)), 9)
    expected = []
    for of_row in zip(*columns, strict=True):
        if any(row is not None for row in of_row):
            expected.append(beside(of_row, widths, 9))
        else:
            values = np.concatenate([nothing.values] * len(widths), -1)
            expected.append(nothing._replace(values=values))
    result = move_rows(
        moves,
        _range(n),
        properties=mts.Labels.range("all", sum(widths)),
        arrangement="side by side",
        fill_value=9,
    )
    _check(result, expected)


@pytest.mark.parametrize("same_gradient_rows", [True, False])
def test_side_by_side_in_the_rows_that_all_have(same_gradient_rows):
    rows = [[0, 2, 2], [0, 2, 2] if same_gradient_rows else [1, 2, 0, 0]]
    a, b = (
        block(3, (2,), 2, {"t": Gradient((3,), r, {"u": Gradient(())})}, seed)
        for seed, r in enumerate(rows)
    )
    result = move_rows(
        [Move(a), Move(b, np.array([0, 1, 2]))],
        a.samples,
        properties=mts.Labels.range("all", 4),
        arrangement="side by side",
    )
    pairs = zip(rows_of(a), rows_of(b), strict=True)
    _check(result, [beside(pair, [2, 2], 0) for pair in pairs])


def test_side_by_side_of_chosen_rows():
    a = block(3, gradients={"t": Gradient((3,), [2, 0, 0])})
    b = block(2, gradients={"t": Gradient((3,), [1, 0])}, seed=1)
    source = np.array([2, 3, 0, 2])
    result = move_rows(
        [Move(a, source), Move(b, np.array([1, 0]), np.array([3, 1]))],
        _range(4),
        properties=mts.Labels.range("all", 4),
        arrangement="side by side",
        fill_value=5,
    )
    rows = [*rows_of(a), empty_row(a, 5)]
    of_b = rows_of(b)
    columns = zip(
        [rows[i] for i in source], [None, of_b[0], None, of_b[1]], strict=True
    )
    _check(result, [beside(row, [2, 2], 5) for row in columns])


def test_side_by_side_needs_gradients_in_all_blocks():
    x, y = block(2, gradients={"t": Gradient()}), block(2)
    with pytest.raises(mts.NotEqualError, match="'t'"):
        move_rows([Move(x), Move(y)], _range(2), arrangement="side by side")


# --- cutting -----------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=5), COMPONENTS, ARRAYS, SEEDS)
def test_cutting_is_gathering_each_run(lengths, components, arrays, seed):
    x = _random(sum(lengths), seed, components, arrays=arrays)
    runs = cut_rows(x, lengths)
    assert len(runs) == len(lengths)
    start = 0
    for run, length in zip(runs, lengths, strict=True):
        index = np.arange(start, start + length)
        gathered = move_rows([Move(x, index)], run.samples)
        _check(run, rows_of(gathered))
        assert run.samples.names == x.samples.names
        np.testing.assert_array_equal(run.samples.values, x.samples.values[index])
        kind = np.ndarray if arrays == "numpy" else jax.Array
        assert all(isinstance(leaf, kind) for leaf in jax.tree.leaves(run))
        start += length


def test_cutting_numpy_arrays_copies_nothing():
    x = block(4, gradients={"t": Gradient((3,), [0, 1, 3])})
    for run in cut_rows(x, [1, 3]):
        assert np.shares_memory(run.values, x.values)
        assert np.shares_memory(run.gradient("t").values, x.gradient("t").values)


# --- arrays ------------------------------------------------------------------------

PROPERTIES = mts.Labels.range("all", 4)
TO = np.array([1, 0, 1])
MOVES = {
    "gather": lambda x: move_rows([Move(x, np.array([2, 0, 5]))], _range(3)),
    "permute": lambda x: move_rows([Move(x, np.array([2, 0, 1]))], _range(3)),
    "add": lambda x: move_rows([Move(x, None, TO)], _range(2)),
    "end to end": lambda x: move_rows([Move(x), Move(x)], _range(6)),
    "side by side": lambda x: move_rows(
        [Move(x), Move(x, None, np.array([2, 0, 1]))],
        _range(3),
        properties=PROPERTIES,
        arrangement="side by side",
    ),
    "cut": lambda x: cut_rows(x, [1, 2]),
}
GRADIENTS = {"t": Gradient((3,), [2, 0, 2, 1], {"u": Gradient((), [3, 0, 1])})}


@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "int64", "int8"])
def test_numpy_gives_numpy_of_the_same_dtype(move, dtype, x64):
    x = block(3, gradients=GRADIENTS, dtype=dtype)
    for leaf in jax.tree.leaves(move(x)):
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == dtype
        assert not leaf.flags.writeable


@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
def test_jax_gives_jax(move):
    x = block(3, gradients=GRADIENTS, arrays="jax")
    for leaf in jax.tree.leaves(move(x)):
        assert isinstance(leaf, jax.Array)
        assert leaf.dtype == np.float32


@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
def test_compiled_equals_eager(move):
    x = block(3, (2,), gradients=GRADIENTS)
    eager, compiled = move(x), jax.jit(move)(x)
    assert jax.tree.structure(eager) == jax.tree.structure(compiled)
    for one, two in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        assert_close(one, two, 4)


@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
def test_vmap_equals_a_loop(move):
    leaves, structure = jax.tree.flatten(block(3, (2,), gradients=GRADIENTS))
    rng = np.random.default_rng(0)
    stack = [rng.normal(size=(4, *leaf.shape)).astype("f4") for leaf in leaves]
    result = jax.jit(jax.vmap(move))(structure.unflatten(stack))
    for i in range(4):
        expected = move(structure.unflatten([leaf[i] for leaf in stack]))
        for one, two in zip(
            jax.tree.leaves(result), jax.tree.leaves(expected), strict=True
        ):
            assert_close(one[i], two, 4)


@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
def test_differentiable(move):
    with enable_x64(True):
        x = block(3, (), gradients=GRADIENTS, dtype=np.float64)
        function = jax.jit(lambda x: jax.tree.leaves(move(x)))
        check_grads(function, (x,), order=1, modes=("fwd", "rev"))


def test_indices_may_be_jax_arrays():
    x = block(3, gradients=GRADIENTS)
    taken = move_rows([Move(x, jnp.array([2, 0]))], _range(2))
    assert_rows(
        rows_of(taken), rows_of(move_rows([Move(x, np.array([2, 0]))], _range(2)))
    )


# --- whole maps --------------------------------------------------------------------


def test_maps_move_block_by_block():
    sizes = (3, 0, 4)
    x = tensor(sizes, gradients={"t": Gradient((3,), [2, 0, 2])}, info={"a": "b"})
    sources = [np.array([1, 1]), np.array([], int), np.array([3, 0, 2])]
    samples = [_range(len(source)) for source in sources]
    result = move_rows([Move(x, sources)], samples)
    assert result.keys == x.keys
    assert result.info() == x.info()
    for i, source in enumerate(sources):
        expected = move_rows([Move(x.block_by_id(i), source)], samples[i])
        assert_same(result.block_by_id(i), expected)


def test_maps_add_block_by_block():
    x = tensor((3, 2), gradients={"t": Gradient((3,), [1, 0, 1])})
    destinations = [np.array([1, 0, 1]), np.array([0, 0])]
    samples = [_range(2), _range(1)]
    result = move_rows([Move(x, None, destinations)] * 2, samples)
    for i, to in enumerate(destinations):
        expected = move_rows([Move(x.block_by_id(i), None, to)] * 2, samples[i])
        assert_same(result.block_by_id(i), expected)


def test_blocks_with_equal_labels_share_those_of_the_result():
    one = block(4, (2,), gradients={"t": Gradient((3,), [0, 2, 2])})
    other = block(4, (5,), gradients={"t": Gradient((3,), [0, 2, 2])}, seed=1)
    x = mts.TensorMap(mts.Labels.range("key", 2), [one, other])
    for summed in (
        mts.sum_over_samples(x, "atom"),
        mts.slice(x, "samples", mts.Labels("system", [[0]])),
        mts.sort(x, descending=True),
    ):
        a, b = summed
        assert a.samples is b.samples
        assert a.gradient("t").samples is b.gradient("t").samples


def test_a_map_without_blocks():
    x = mts.TensorMap(mts.Labels.empty("k"), [], {"name": "empty"})
    assert_same(move_rows([Move(x, [])], []), x)


@pytest.mark.parametrize(
    ("moves", "text"),
    [
        ([], "give at least one Move: there are no rows to move"),
        ([{}], "there are 2 rows to move, but 3 samples of the result"),
        ([{}, {}], "there are 4 rows to move, but 3 samples of the result"),
        ([{"destination": [0]}], "there are 2 rows to move, but 1 destinations"),
        ([{"destination": [0, 1]}, {}], "either each Move has a destination, or none"),
    ],
)
def test_rows_that_do_not_fit(moves, text):
    x = mts.block_from_array(np.ones((2, 3)))
    moves = [Move(x, **{k: np.array(v) for k, v in m.items()}) for m in moves]
    with pytest.raises(mts.MetatensorError, match=f"^{text}$"):
        move_rows(moves, mts.Labels.range("s", 3))


@pytest.mark.parametrize("n_columns", [0, 3])
@pytest.mark.parametrize("destination", [[0, 5], [-1, 1]])
def test_columns_in_rows_that_are_not_there(destination, n_columns):
    x = mts.block_from_array(np.ones((2, n_columns)))
    with pytest.raises(
        IndexError, match="can not all be filled: the result has 2 rows"
    ):
        move_rows(
            [Move(x, None, np.array(destination))],
            mts.Labels.range("s", 2),
            arrangement="side by side",
        )
