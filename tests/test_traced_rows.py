"""Rows with traced samples: the same as static ones, once the padding is gone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, enable_x64
from hypothesis import given, settings, strategies as st
from reference import add, assert_rows, empty_row, padded, real_rows, rows_of

import metatensor_jax as mts
from metatensor_jax.operations import Move, cut_rows, map_rows, move_rows

SEEDS = st.integers(0, 999)
#: how a function is called; inside of jit traced samples are tracers
CALLS = {"eager": lambda function: function, "jit": jax.jit}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))


def _random(n: int, seed: int, nested: bool = False) -> mts.TensorBlock:
    rng = np.random.default_rng(seed)

    def some(n, m):
        return rng.integers(0, n, m if n else 0).tolist()

    of_t = {"u": Gradient((2,), some(5, 4))} if nested else {}
    gradients = {
        "t": Gradient((3,), some(n, 5), of_t),
        "u": Gradient((), some(n, int(rng.integers(0, n + 1)))),
    }
    return block(n, (2,), 2, gradients, seed)


def _range(n: int) -> mts.Labels:
    return mts.Labels.range("moved", n)


# --- map_rows ----------------------------------------------------------------------


def _cube(x):
    return map_rows(_cube_row, x)


def _cube_row(a):
    return a**3 + a.sum()


def _product(x):
    return map_rows(jnp.multiply, x, map_rows(jnp.sin, x))


def _linear(x):
    return map_rows(_difference, x, map_rows(jnp.sin, x), linear=True)


def _difference(a, b):
    return a - 2 * b


def _turned(x):
    return map_rows(_turn, x, rearranges=True)


def _turn(a):
    return a[..., ::-1]


@calls
@pytest.mark.parametrize("function", [_cube, _product, _linear, _turned])
def test_map(function, call):
    for seed in range(3):
        x = _random(4, seed)
        result = call(function)(padded(x))
        assert not result.samples.is_static
        assert not result.gradient("t").samples.is_static
        assert_rows(real_rows(result), rows_of(function(x)), 20)


@calls
@pytest.mark.parametrize("options", [{"linear": True}, {"rearranges": True}])
def test_map_with_nested_gradients_where_no_rows_are_taken(options, call):
    x = _random(4, 1, nested=True)

    def function(x):
        return map_rows(_turn, x, **options)

    assert_rows(real_rows(call(function)(padded(x))), rows_of(function(x)))


def _double(a):
    return 2 * a


@calls
def test_map_with_nested_gradients_that_need_rows_taken(call):
    gradients = {"t": Gradient((), None, {"u": Gradient(())}), "u": Gradient(())}
    x = padded(block(3, gradients=gradients))
    with pytest.raises(mts.TracedLabelsError):
        call(_cube)(x)


@calls
def test_map_of_traced_samples_with_the_same_static_gradient_samples(call):
    x = _random(4, 0)
    samples = mts.Labels.traced(x.samples.names, x.samples.values)
    traced = mts.TensorBlock(
        x.values, samples, x.components, x.properties, dict(x.gradients())
    )
    assert_rows(rows_of(call(_product)(traced)), rows_of(_product(x)), 20)


@calls
def test_map_of_inputs_with_other_traced_gradient_samples(call):
    def multiply(a, b):
        return map_rows(jnp.multiply, a, b)

    a, b = _random(4, 0), _random(4, 1)
    actual = call(multiply)(padded(a), padded(b))
    assert_rows(real_rows(actual), rows_of(multiply(a, b)), 20)


def test_other_samples_do_not_compile_again():
    traces = []

    @jax.jit
    def function(x):
        traces.append(x)
        return _product(x)

    a = padded(block(4, gradients={"t": Gradient((3,), [0, 1, 2])}))
    other = block(4, gradients={"t": Gradient((3,), [3, 0, 3])}, first_system=5)
    function(a), function(padded(other))
    assert len(traces) == 1


# --- adding rows -------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("traced", [False, True], ids=["host", "traced"])
@settings(max_examples=5)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), SEEDS)
def test_add(nested, traced, destination, seed):
    x = _random(4, seed, nested)
    expected = move_rows([Move(x, None, np.array(destination))], _range(3))
    # Padding rows go nowhere: past the end.
    to = np.array([*destination, 3, 3], np.int32)

    def add_up(x, to):
        return move_rows([Move(x, None, to)], _range(3))

    if traced:
        results = [jax.jit(add_up)(padded(x), to), add_up(padded(x), jnp.asarray(to))]
    else:
        results = [jax.jit(lambda x: add_up(x, to))(padded(x)), add_up(padded(x), to)]
    for result in results:
        assert result.samples.is_static
        assert_rows(rows_of(result), rows_of(expected), 20)


@pytest.mark.parametrize("traced", [False, True], ids=["host", "traced"])
def test_rows_that_are_dropped_leave_padding_behind(traced):
    x = block(4, gradients={"t": Gradient((), [0, 1, 2, 3])})
    to = np.array([-1, 1, 2, 1], np.int32)  # two rows: -1 and 2 are outside

    def add_up(x, to):
        return move_rows([Move(x, None, to)], _range(2))

    labels = mts.Labels.traced(["sample", "other"], x.gradient("t").samples.values)
    t = mts.TensorBlock(x.gradient("t").values, labels, [], x.properties)
    of_traced = mts.TensorBlock(x.values, x.samples, [], x.properties, {"t": t})
    if traced:
        result = jax.jit(add_up)(of_traced, to)
    else:
        result = jax.jit(lambda x: add_up(x, to))(of_traced)
    expected = [empty_row(x), empty_row(x)]
    for row, i in zip(rows_of(x), to.tolist(), strict=True):
        if 0 <= i < 2:
            expected[i] = add(expected[i], row)
    padding = [[mts.Labels.PADDING] * 2] * 3
    assert result.gradient("t").samples.values.tolist() == [[1, 0], *padding]
    assert_rows(rows_of(result), expected, 4)


def test_static_samples_with_traced_destinations():
    x = _random(4, 3, nested=True)
    to = np.array([1, 0, 1, 1], np.int32)
    expected = move_rows([Move(x, None, to)], _range(2))
    result = jax.jit(lambda x, to: move_rows([Move(x, None, to)], _range(2)))(x, to)
    assert_rows(rows_of(result), rows_of(expected), 20)


@pytest.mark.parametrize("bits", [32, 64])
def test_traced_and_host_destinations_together(bits):
    a, b = _random(3, 1), _random(3, 2)
    host, traced = np.array([1, 0, 1]), np.array([0, 0, 1], np.int32)

    def add_up(to):
        return move_rows([Move(a, None, host), Move(b, None, to)], _range(2))

    with enable_x64(bits == 64):
        result = jax.jit(add_up)(traced)
    assert_rows(rows_of(result), rows_of(add_up(traced)), 20)


@calls
def test_gradients_of_a_block_without_rows(call):
    x = block(0, gradients={"t": Gradient((3,))})
    t = padded(x.gradient("t"))
    x = mts.TensorBlock(x.values, x.samples, [], x.properties, {"t": t})
    for to in (np.zeros(0, np.int32), jnp.zeros(0, jnp.int32)):
        result = call(lambda x, to=to: move_rows([Move(x, None, to)], _range(2)))(x)
        assert_rows(rows_of(result), [empty_row(x), empty_row(x)])


# --- end to end --------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
@calls
def test_end_to_end(call, nested):
    blocks = [_random(n, seed, nested) for seed, n in enumerate([3, 4, 2])]

    def join(blocks):
        numbered = [
            jnp.pad(x.samples.values, ((0, 0), (1, 0)), constant_values=i)
            for i, x in enumerate(blocks)
        ]
        rows = jnp.concatenate(numbered)
        rows = jnp.where(rows[:, -1:] < 0, mts.Labels.PADDING, rows)
        labels = mts.Labels.traced(["block", *blocks[0].samples.names], rows)
        return move_rows([Move(x) for x in blocks], labels)

    result = call(join)([padded(x) for x in blocks])
    assert_rows(real_rows(result), [row for x in blocks for row in rows_of(x)])


@calls
def test_end_to_end_of_static_and_traced_gradient_rows(call):
    a, b = _random(3, 1), padded(_random(3, 2))
    n = len(a) + len(b)

    def join(a, b):
        return move_rows([Move(a), Move(b)], _range(n))

    result = call(join)(a, b)
    padding = [empty_row(b, 1)] * 2
    assert_rows(rows_of(result), [*rows_of(a), *real_rows(b), *padding])


# --- what can not work -------------------------------------------------------------

TO = np.array([1, 0, 1, 0, 1, 0])
FAILURES = {
    "rows are taken": lambda x: move_rows([Move(x, np.array([1, 0]))], _range(2)),
    "rows are added after they are taken": lambda x: move_rows(
        [Move(x, TO[::-1] + 1, TO)], _range(2)
    ),
    "rows go side by side": lambda x: move_rows(
        [Move(x), Move(map_rows(_double, x), None, np.arange(6)[::-1])],
        _range(6),
        arrangement="side by side",
        properties=mts.Labels.range("all", 4),
    ),
    "rows are cut": lambda x: cut_rows(x, [2, 4]),
}


@calls
@pytest.mark.parametrize("function", FAILURES.values(), ids=list(FAILURES))
def test_what_needs_gradient_samples(function, call):
    x = padded(_random(4, 1))
    # Static samples, of which there are as many: only gradients are the problem.
    x = mts.TensorBlock(
        x.values, _range(6), x.components, x.properties, dict(x.gradients())
    )
    with pytest.raises(mts.TracedLabelsError, match="sample, other"):
        call(function)(x)


def test_what_needs_known_rows():
    x = _random(3, 1)
    index = jnp.array([2, 0, 1])
    for arrangement in ("end to end", "side by side"):
        for move in (lambda i: Move(x, i), lambda i: Move(x, i, np.array([1, 0, 2]))):

            def function(i, move=move, arrangement=arrangement):
                return move_rows([move(i)], _range(3), arrangement=arrangement)

            with pytest.raises(mts.TracedLabelsError):
                jax.jit(function)(index)


def test_side_by_side_needs_known_destinations():
    x = block(3)
    properties = mts.Labels.range("all", 4)

    def function(to):
        return move_rows(
            [Move(x), Move(x, None, to)],
            _range(3),
            arrangement="side by side",
            properties=properties,
        )

    with pytest.raises(mts.TracedLabelsError):
        jax.jit(function)(jnp.array([2, 0, 1]))


def test_labels_that_blocks_share_are_known_to_be_the_same() -> None:
    """Those of a map that is made in the program, from one array of labels."""

    @jax.jit
    def beside(values: jax.Array, rows: jax.Array) -> mts.TensorMap:
        samples = mts.Labels.traced(["s"], rows)
        p = mts.Labels.range("p", 2)
        blocks = [mts.TensorBlock(x, samples, [], p) for x in values]
        tensor = mts.TensorMap(mts.Labels.range("key", 2), blocks)
        return tensor.keys_to_properties("key")

    values = np.arange(12.0, dtype="f4").reshape(2, 3, 2)
    rows = np.array([[4], [2], [9]], np.int32)
    block = beside(values, rows).block()
    np.testing.assert_array_equal(block.values, np.concatenate(list(values), axis=1))
    np.testing.assert_array_equal(block.samples.values, rows)
