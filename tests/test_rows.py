"""map_rows: the stored gradients of a result are the derivatives of the function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from builders import Gradient, block, enable_x64
from hypothesis import given, settings, strategies as st
from jax.test_util import check_grads
from reference import Smooth, assert_close, assert_derivatives

import metatensor_jax as mts
from metatensor_jax.operations import map_rows


@pytest.fixture(autouse=True)
def _double():
    with enable_x64(True):
        yield


# --- functions of rows -------------------------------------------------------------


def _tanh(a):
    return jnp.tanh(a) + jnp.square(a).sum()


def _gram(a):
    rows = a.reshape(-1, a.shape[-1])
    return rows.T @ jnp.sin(rows)


def _mixed(a, b):
    return jnp.tanh(a) * b + (a * b).sum()


def _contract(a, b):
    return a.reshape(-1, a.shape[-1]).T @ jnp.exp(b.reshape(-1, b.shape[-1]))


def _weighted(a, b):
    return 2 * a - 3 * b[..., ::-1]


def _moments(a, b):
    """Linear in the rows together; no components remain."""
    return a.sum(tuple(range(a.ndim - 1))) - b.sum(tuple(range(b.ndim - 1)))


def _flip(a):
    return a[..., ::-1]


def _scaled(a, factor, weights):
    return factor * jnp.tanh(a @ weights)


SAME = "same"  # the result has the axes of the input
ROWS = {
    _tanh: SAME,
    _mixed: SAME,
    _weighted: SAME,
    _gram: "square",
    _contract: "square",
    _moments: "none",
}


def _axes(function: Any, n_properties: int) -> dict[str, Any]:
    """The components and properties of the result."""
    if ROWS[function] == SAME:
        return {}
    if ROWS[function] == "none":
        return {"components": []}
    return {
        "components": [mts.Labels.range("left", n_properties)],
        "properties": mts.Labels.range("right", n_properties),
    }


PARAMETERS = sorted(reference.PARAMETERS)


def _unordered(pairs):
    return [{p, q} for p, q in sorted({(min(x), max(x)) for x in pairs})]


@st.composite
def _trees(draw, n):
    """The gradients of ``n`` inputs, and gradients of these.

    All inputs store a mixed derivative in the same places, or it would be zero in one
    place and something else in another. The same parameter twice in a row is the
    subject of a test of its own.
    """
    pairs = [(p, q) for p in PARAMETERS for q in PARAMETERS if p != q]
    places = draw(st.sets(st.sampled_from(pairs)))
    trees = []
    for _ in range(n):
        parameters = draw(st.sets(st.sampled_from(PARAMETERS)))
        mixed = {
            (p, q)
            for p, q in places
            if p in parameters and ((q, p) not in places or q in parameters)
        }
        kept = [pair for pair in _unordered(mixed) if draw(st.integers(0, 3))]
        trees.append(
            {
                p: [q for q in PARAMETERS if (p, q) in mixed and {p, q} in kept]
                for p in sorted(parameters)
            }
        )
    return trees


SHAPES = st.sampled_from([(2,), (2, 2), (3, 1, 2)])
DENSITIES = st.sampled_from([0.0, 0.4, 1.0])
SEEDS = st.integers(0, 99)


# --- gradients ---------------------------------------------------------------------


@settings(max_examples=8)
@given(
    st.sampled_from([_tanh, _gram]),
    SHAPES,
    _trees(1),
    DENSITIES,
    st.sampled_from([0, 1, 4]),
    SEEDS,
)
def test_one_input(function, shape, trees, density, n, seed):
    x = Smooth.random(n, shape, trees[0], density, seed)
    result = map_rows(function, x.block(), **_axes(function, shape[-1]))
    assert_derivatives(result, function, [x])
    reference.validate(result)


@settings(max_examples=10)
@given(
    st.sampled_from([_mixed, _contract]),
    SHAPES,
    _trees(2),
    st.tuples(DENSITIES, DENSITIES),
    SEEDS,
)
def test_two_inputs(function, shape, trees, density, seed):
    a, b = (
        Smooth.random(4, shape, tree, d, seed + 100 * i)
        for i, (tree, d) in enumerate(zip(trees, density, strict=True))
    )
    result = map_rows(function, a.block(), b.block(), **_axes(function, shape[-1]))
    assert_derivatives(result, function, [a, b])
    reference.validate(result)


@pytest.mark.parametrize("p", PARAMETERS)
@pytest.mark.parametrize("function", [_tanh, _gram])
def test_second_derivative_with_respect_to_one_parameter(p, function):
    # Its components can not have the same names at both levels of a block.
    x = Smooth.random(4, (2, 2), {p: [p]}, seed=1)
    result = map_rows(function, x.block(), **_axes(function, 2))
    assert_derivatives(result, function, [x])
    reference.validate(result)
    names = [labels.names for labels in result.gradient(p).gradient(p).components]
    extra = len(reference.PARAMETERS[p].components)
    expected = x.block().gradient(p).gradient(p).components
    assert names[: 2 * extra] == [labels.names for labels in expected][: 2 * extra]


def test_second_derivatives_of_two_inputs_with_respect_to_all():
    tree = dict.fromkeys(PARAMETERS, PARAMETERS)
    a, b = (Smooth.random(3, (2,), tree, 0.5, seed) for seed in (1, 2))
    result = map_rows(_mixed, a.block(), b.block())
    assert_derivatives(result, _mixed, [a, b])


@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_gradients_against_finite_differences(shape):
    tree = {"positions": ["cell"], "cell": ["positions"]}
    a = Smooth.random(4, shape, tree, 0.7, 1)
    b = Smooth.random(4, shape, tree, 0.7, 2)
    result = map_rows(_mixed, a.block(), b.block())
    step = 1e-3
    steps = step * np.eye(reference.SIZE)

    def y(theta):
        return np.asarray(jax.vmap(_mixed)(a.at(theta), b.at(theta)))

    def slope(function, p):
        steps_p = steps[reference.WHERE[p]]
        return np.stack([function(s) - function(-s) for s in steps_p]) / (2 * step)

    for p, q in [("positions", "cell"), ("cell", "positions")]:
        first = reference.by_label(slope(y, p), p)
        error = np.abs(reference.densify(result, p) - first).max()
        assert error < 20 * step**2
        steps_p = steps[reference.WHERE[p]]
        second = np.stack(
            [
                slope(lambda t, s=s: (y(t + s) - y(t - s)) / (2 * step), q)
                for s in steps_p
            ]
        )
        second = reference.by_labels(second, p, q)
        assert np.abs(reference.densify(result, p, q) - second).max() < 50 * step**2


@settings(max_examples=6)
@given(st.sampled_from([_weighted, _moments]), SHAPES, _trees(2), DENSITIES, SEEDS)
def test_linear_gives_the_same(function, shape, trees, density, seed):
    a = Smooth.random(3, shape, trees[0], density, seed)
    b = Smooth.random(3, shape, trees[1], 0.6, seed + 100)
    axes = _axes(function, shape[-1])
    result = map_rows(function, a.block(), b.block(), linear=True, **axes)
    assert_derivatives(result, function, [a, b], linear=True)
    reference.validate(result)


@pytest.mark.parametrize("p", ["strain", "positions"])
def test_linear_with_nested_gradients_of_one_parameter(p):
    a = Smooth.random(3, (2,), {p: [p]}, 0.6, 1)
    b = Smooth.random(3, (2,), {p: [p]}, 0.6, 2)
    result = map_rows(_weighted, a.block(), b.block(), linear=True)
    assert_derivatives(result, _weighted, [a, b], linear=True)


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_rearranging_keeps_the_arrays(arrays, shape):
    x = Smooth.random(3, shape, {"positions": ["positions", "cell"], "cell": []}, 0.6)
    result = map_rows(_flip, x.block().to(arrays=arrays), rearranges=True)
    assert_derivatives(result, _flip, [x], linear=True)
    kind = np.ndarray if arrays == "numpy" else jax.Array
    assert all(isinstance(leaf, kind) for leaf in jax.tree.leaves(result))


def test_gradient_rows_in_another_order_are_lined_up():
    tree = {"positions": ["cell"], "cell": []}
    a = Smooth.random(4, (2,), tree, 1.0, seed=1)
    b = a._replace(seed=2)  # the same coefficients, stored in another order
    rows_a = a.block().gradient("positions").samples
    rows_b = b.block().gradient("positions").samples
    assert rows_a != rows_b
    assert {tuple(r) for r in rows_a.values} == {tuple(r) for r in rows_b.values}
    result = map_rows(_mixed, a.block(), b.block())
    assert_derivatives(result, _mixed, [a, b])
    assert result.gradient("positions").samples == rows_a


@pytest.mark.parametrize("number", [float, np.float64, jnp.asarray])
def test_args_are_passed_to_the_function(number):
    x = Smooth.random(3, (2,), {"positions": [], "strain": ["strain"]})
    weights = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])
    properties = mts.Labels.range("out", 3)
    args = (number(2.0), weights)
    result = map_rows(_scaled, x.block(), args=args, properties=properties)
    assert_derivatives(result, _scaled, [x], args)


def test_an_equinox_module_is_an_argument():
    eqx = pytest.importorskip("equinox")
    module = eqx.nn.MLP(2, 3, 4, 1, jnp.tanh, key=jax.random.key(0))
    x = Smooth.random(3, (2,), {"positions": [], "strain": ["strain"]})
    args, properties = (module,), mts.Labels.range("out", 3)
    result = map_rows(_apply, x.block(), args=args, properties=properties)
    params, static = eqx.partition(module, eqx.is_array)
    expected = reference.derivatives(
        lambda row, params: eqx.combine(params, static)(row), [x], (params,)
    )
    assert_close(result.values, expected[0])
    first = expected[1][reference.WHERE["positions"]]
    actual = reference.densify(result, "positions")
    assert_close(actual, reference.by_label(first, "positions"))


def _apply(row, module):
    return module(row)


# --- data --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_dtypes(dtype):
    tree = {"positions": ["cell"], "cell": []}
    a, b = (Smooth.random(3, (2, 2), tree, 0.6, seed, dtype) for seed in (1, 2))
    assert_derivatives(map_rows(_mixed, a.block(), b.block()), _mixed, [a, b])
    result = map_rows(_weighted, a.block(), b.block(), linear=True)
    assert_derivatives(result, _weighted, [a, b], linear=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_go_through_linear_functions_only(dtype):
    x = block(3, gradients={"t": Gradient(rows=[2, 0, 2])}, dtype=dtype)
    result = map_rows(_double_row, x, linear=True)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result.values, 2 * x.values)
    gradient = result.gradient("t")
    np.testing.assert_array_equal(gradient.values, 2 * x.gradient("t").values)
    # the square of integers is an integer, and has no derivative
    assert map_rows(jnp.square, x).gradients_list() == []
    with enable_x64(dtype == "int64"), pytest.raises(TypeError, match=f"'t'.*{dtype}"):
        map_rows(jnp.sin, x)


def test_integers_without_gradients_go_through_any_function():
    x = block(3, dtype=np.int32)
    np.testing.assert_array_equal(map_rows(jnp.square, x).values, x.values**2)


def _double_row(a):
    return 2 * a


def test_nan_stays_where_it_is():
    x = block(4, gradients={"t": Gradient((), [0, 1, 2, 3])}, dtype=np.float64)
    values = x.values.copy()
    values[0, 0] = values[2, 1] = np.nan
    result = map_rows(jnp.square, x.with_values(values))
    np.testing.assert_array_equal(np.isnan(result.values), np.isnan(values))
    derivative = 2 * values * x.gradient("t").values
    np.testing.assert_allclose(result.gradient("t").values, derivative, rtol=1e-15)


@pytest.mark.parametrize(
    "sizes",
    [(0, (), 2), (3, (), 0), (3, (0,), 2), (0, (), 0)],
    ids=["no samples", "no properties", "no components", "nothing"],
)
@pytest.mark.parametrize("rows", [None, []])
def test_empty_axes(sizes, rows):
    gradients = {
        "t": Gradient((3,), rows, {"u": Gradient((2,), rows)}),
        "u": Gradient((2,), rows),
    }
    x = block(*sizes, gradients, dtype=np.float64)
    for options in ({}, {"linear": True}):
        result = map_rows(jnp.square, x, **options)
        assert jax.tree.structure(result) == jax.tree.structure(x)
        shapes = [leaf.shape for leaf in jax.tree.leaves(result)]
        assert shapes == [leaf.shape for leaf in jax.tree.leaves(x)]


def test_a_plain_array_is_an_input_without_gradients():
    x = Smooth.random(3, (2,), {"positions": ["cell"], "cell": []})
    factors = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    result = map_rows(_mixed, x.block(), factors)
    constant = Smooth.random(3, (2,), {})._replace(values=factors)
    assert_derivatives(result, _mixed, [x, constant], n_constants=1)


# --- transformations ---------------------------------------------------------------


def _example(x):
    return map_rows(_mixed, x, map_rows(_tanh, x))


TREE = {"positions": ["cell", "strain"], "cell": [], "strain": []}


def test_compiled_equals_eager():
    for arrays in ("numpy", "jax"):
        x = Smooth.random(4, (3, 2), TREE).block().to(arrays=arrays)
        eager, compiled = _example(x), jax.jit(_example)(x)
        assert jax.tree.structure(eager) == jax.tree.structure(compiled)
        for one, two in zip(
            jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True
        ):
            assert_close(one, two)


def test_vmap_equals_a_loop():
    first = Smooth.random(4, (3, 2), TREE).block()
    leaves, structure = jax.tree.flatten(first)
    rng = np.random.default_rng(0)
    stack = [rng.normal(size=(3, *leaf.shape)) for leaf in leaves]
    result = jax.vmap(_example)(structure.unflatten(stack))
    for i in range(3):
        expected = _example(structure.unflatten([leaf[i] for leaf in stack]))
        for one, two in zip(
            jax.tree.leaves(result), jax.tree.leaves(expected), strict=True
        ):
            assert_close(one[i], two)


@pytest.mark.parametrize("options", [{}, {"linear": True}])
def test_differentiable(options):
    a = Smooth.random(3, (2,), TREE, 0.5, 1).block()
    b = Smooth.random(3, (2,), TREE, 0.5, 2).block()
    function = _weighted if options else _mixed
    check_grads(
        jax.jit(lambda a, b: jax.tree.leaves(map_rows(function, a, b, **options))),
        (a, b),
        order=1,
        modes=("fwd", "rev"),
    )


def test_inputs_that_are_no_blocks():
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        map_rows(jnp.sin)  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match="must be a TensorMap or a TensorBlock, not int"
    ):
        map_rows(jnp.sin, 3)
    with pytest.raises(TypeError, match="must give one array, not tuple"):
        map_rows(lambda row: (row, row), mts.block_from_array(np.ones((2, 1), "f4")))
