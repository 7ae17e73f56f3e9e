"""Hard numbers: narrow floats, values close to each other, what is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap

ONE, P = Labels.single(), Labels.range("p", 1)


def make(
    values: Any, gradient: Any = None, rows: Any = None, systems: Any = None
) -> TensorMap:
    """One column of values, with gradients by the atoms of one parameter.

    :param gradient: of shape (rows, xyz)
    :param rows: (sample, atom) of each gradient row
    """
    values = np.asarray(values)
    n = len(values)
    systems = [0] * n if systems is None else systems
    samples = Labels(["system", "atom"], list(zip(systems, range(n), strict=True)))
    gradients = {}
    if gradient is not None:
        labels = Labels(["sample", "atom"], np.asarray(rows))
        xyz = [Labels.range("xyz", 3)]
        array = np.asarray(gradient, values.dtype)[..., None]
        gradients["x"] = TensorBlock(array, labels, xyz, P)
    return TensorMap(ONE, [TensorBlock(values[:, None], samples, [], P, gradients)])


WAYS: dict[str, Callable[..., Any]] = {
    "eager, NumPy": lambda f, x: f(x),
    "eager, JAX": lambda f, x: f(x.to(arrays="jax")),
    "jit": lambda f, x: jax.jit(f)(x),
}


# --- narrow floats -------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_narrow_sums_are_wide(dtype: str, order: str, way: str) -> None:
    n = 3000
    x = np.linspace(0.5, 1.5, n).astype(jnp.dtype(dtype))
    systems = np.arange(n) % 3 if order == "shuffled" else np.sort(np.arange(n) % 3)
    rows = [(i, i % 2) for i in range(n)]
    tensor = make(x, np.stack([x] * 3, 1), rows, systems)
    result = WAYS[way](lambda t: mts.sum_over_samples(t, "atom"), tensor).block()
    expected = [float(x[systems == s].astype("f8").sum()) for s in range(3)]
    eps = float(jnp.finfo(dtype).eps)
    assert result.dtype == jnp.dtype(dtype)
    got = np.asarray(result.values, "f8")[:, 0]
    np.testing.assert_allclose(got, expected, rtol=eps)
    gradient = result.gradient("x")
    for (s, atom), row in zip(
        gradient.samples.values, np.asarray(gradient.values, "f8"), strict=True
    ):
        chosen = x[(systems == s) & (np.arange(n) % 2 == atom)].astype("f8")
        np.testing.assert_allclose(row[:, 0], chosen.sum(), rtol=eps)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("axis", ["samples", "properties"])
@pytest.mark.parametrize("name", ["mean", "var", "std"])
def test_narrow_means_and_spreads_that_fit_do_not_overflow(
    name: str, axis: str, way: str
) -> None:
    # the sum of these, and the squares of their distances, are beyond float16
    x = np.array([60000.0, 59000.0, 60500.0, 59500.0] * 50, np.float16)
    if name == "var":
        x = (x / 100).astype(np.float16)
    block = mts.block_from_array(x[:, None] if axis == "samples" else x[None, :])
    reduce, names = getattr(mts, f"{name}_over_{axis}"), axis[:-1]
    names = "sample" if axis == "samples" else "property"
    result = WAYS[way](lambda t: reduce(t, names), TensorMap(ONE, [block]))
    expected = getattr(np, name)(x.astype("f8"))
    got = result.block().values
    assert got.dtype == np.float16
    np.testing.assert_allclose(np.asarray(got, "f8"), expected, rtol=2e-3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_sums_over_properties_and_dots_are_wide(dtype: str, way: str) -> None:
    x = np.full((2, 4000), 0.75).astype(jnp.dtype(dtype))
    tensor = TensorMap(ONE, [mts.block_from_array(x)])
    total = WAYS[way](lambda t: mts.sum_over_properties(t, "property"), tensor)
    expected = np.asarray(np.float64(3000)).astype(jnp.dtype(dtype)).astype("f8")
    np.testing.assert_array_equal(np.asarray(total.block().values, "f8"), expected)
    square = WAYS[way](lambda t: mts.dot(t, t), tensor)
    expected = np.asarray(np.float64(2250)).astype(jnp.dtype(dtype)).astype("f8")
    np.testing.assert_array_equal(np.asarray(square.block().values, "f8"), expected)


# --- values close to each other ------------------------------------------------------


def _by_jvp(name: str, x: Any, dx: Any, systems: Any) -> np.ndarray:
    """The derivative by each (atom, xyz) that `jax.jvp` gives, all rows written out."""
    n = int(systems.max()) + 1

    def reduce(x: Any) -> Any:
        count = jax.ops.segment_sum(jnp.ones_like(x), systems, n)
        mean = jax.ops.segment_sum(x, systems, n) / count
        var = jax.ops.segment_sum((x - mean[systems]) ** 2, systems, n) / count
        return var if name == "var" else jnp.sqrt(var)

    def push(t: Any) -> Any:
        return jax.jvp(reduce, (x,), (t,))[1]

    return np.asarray(jax.jit(jax.vmap(jax.vmap(push)))(dx))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("offsets", [(0, 0), (1000, 0), (1000, 1000), (0, 1000)])
def test_spread_of_close_values(
    name: str, density: float, offsets: Any, way: str
) -> None:
    rng = np.random.default_rng(0)
    n, n_atoms = 40, 5
    systems = np.sort(rng.integers(0, 3, n))
    x = (rng.normal(size=n) + offsets[0]).astype(np.float32)
    dense = (rng.normal(size=(n_atoms, 3, n)) + offsets[1]).astype(np.float32)
    present = rng.random((n, n_atoms)) < density
    dense *= present.T[:, None, :]
    rows = np.argwhere(present)
    gradient = dense[rows[:, 1], :, rows[:, 0]]
    tensor = make(x, gradient, rows, systems)
    reduce = getattr(mts, f"{name}_over_samples")
    result = WAYS[way](lambda t: reduce(t, "atom"), tensor).block().gradient("x")
    expected = _by_jvp(name, x, dense, systems)
    with enable_x64(True):
        exact = _by_jvp(name, x.astype("f8"), dense.astype("f8"), systems)
    allowed = 10 * np.abs(expected - exact).max() + 2e-6 * np.abs(exact).max()
    found = np.zeros_like(exact)
    for (s, atom), row in zip(
        result.samples.values, np.asarray(result.values), strict=True
    ):
        found[atom, :, s] = row[:, 0]
    np.testing.assert_allclose(found, exact, rtol=0, atol=allowed)


# --- what is not stored is not zero --------------------------------------------------


def nested(second: bool) -> TensorMap:
    """exp(r) at r = 0.3, with its first derivative, and perhaps its second one."""
    e = np.exp(np.array([[0.3]]))
    below = {}
    if second:
        below["r"] = TensorBlock(e, Labels("sample", [[0]]), [], P)
    first = TensorBlock(e, Labels("sample", [[0]]), [], P, below)
    return TensorMap(ONE, [TensorBlock(e, Labels.range("s", 1), [], P, {"r": first})])


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": mts.add,
    "subtract": mts.subtract,
    "multiply": mts.multiply,
    "divide": mts.divide,
    "map_rows": lambda a, b: mts.map_rows(jnp.arctan2, a, b),
    "linear": lambda a, b: mts.map_rows(jnp.add, a, b, linear=True),
    "join samples": lambda a, b: mts.join([a, b], "samples", add_dimension="map"),
    "join properties": lambda a, b: mts.join([a, b], "properties", add_dimension="map"),
    "move": lambda a, b: mts.move_rows(
        [mts.Move(a), mts.Move(b)], [Labels.range("s", 2)]
    ),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", OPERATIONS)
def test_second_derivatives_that_one_input_lacks_are_not_known(
    name: str, first: bool
) -> None:
    with enable_x64(True):
        a, b = nested(first), nested(not first)
        try:
            result = OPERATIONS[name](a, b)
        except mts.NotEqualError:
            return
        gradient = result.block().gradient("r")
        assert gradient.gradients_list() == []
        both = OPERATIONS[name](nested(True), nested(True)).block().gradient("r")
        assert both.gradients_list() == ["r"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", [lambda x: x > 0, lambda x: x.astype(np.int32)])
def test_integer_results_have_no_gradients(function: Any, way: str) -> None:
    tensor = make(np.float32([1, -2]), np.ones((2, 3)), [(0, 0), (1, 1)])
    result = WAYS[way](lambda t: mts.map_rows(function, t), tensor)
    assert result.block().gradients_list() == []
    assert result.block().dtype in (bool, np.int32)
    mts.io.load_buffer(result.to(arrays="numpy").save_buffer())


# --- the 64-bit rule -----------------------------------------------------------------


@pytest.mark.parametrize("n", [16_385, 32_769])
def test_many_rows_of_a_small_product(n: int) -> None:
    # jaxlib 0.10.2 computes half of these rows wrong (jax-ml/jax #39103)
    with enable_x64(True):
        rng = np.random.default_rng(0)
        matrix, x = rng.normal(size=(3, 3)), rng.normal(size=(n, 3))
        tensor = TensorMap(ONE, [mts.block_from_array(x)])
        right = ((x @ matrix.T) ** 2).sum(1)
        for way in WAYS.values():
            result = way(
                lambda t: mts.map_rows(
                    lambda row: jnp.sum((matrix @ row) ** 2, keepdims=True),
                    t,
                    properties=ONE,
                ),
                tensor,
            )
            np.testing.assert_allclose(result.block().values[:, 0], right, rtol=1e-12)


@pytest.mark.parametrize("B", [2, 2.0, np.float32(2), 3, 1, 0])
def test_third_derivatives_of_powers_at_zero(B: Any) -> None:
    block = TensorBlock(np.float32([[0.0]]), Labels.range("s", 1), [], P)
    one = np.float32([[1.0]])
    # r itself: its first derivative is one, all others zero
    third = TensorBlock(0 * one, Labels("sample", [[0]]), [], P)
    second = TensorBlock(0 * one, Labels("sample", [[0]]), [], P, {"r": third})
    first = TensorBlock(one, Labels("sample", [[0]]), [], P, {"r": second})
    result = mts.pow(TensorMap(ONE, [block.with_gradient("r", first)]), B).block()
    expected = 6.0 if B == 3 else 0.0
    found = result.gradient("r").gradient("r").gradient("r").values
    assert found.item() == expected


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [1000, 100_000])
def test_many_numbers_of_one_group(n: int, way: str) -> None:
    x = (1e5 + np.random.default_rng(0).random(n)).astype(np.float32)
    tensor = TensorMap(ONE, [mts.block_from_array(x[:, None])])
    exact = x.astype("f8")
    for name, right in (("mean", exact.mean()), ("var", exact.var())):
        reduce = getattr(mts, f"{name}_over_samples")
        result = WAYS[way](lambda t, f=reduce: f(t, "sample"), tensor)
        found = np.asarray(result.block().values).item()
        np.testing.assert_allclose(found, right, rtol=1e-5 if name == "mean" else 1e-4)
