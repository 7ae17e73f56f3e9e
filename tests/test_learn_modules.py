"""All modules of `learn.nn` are asked the same questions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, enable_x64

import metatensor_jax as mts

eqx = pytest.importorskip("equinox")

from modules import (  # noqa: E402 (needs equinox)
    CASES,
    EQUIVARIANT,
    KEYS,
    YZX,
    N,
    features,
    made,
    positions,
)

from metatensor_jax.learn import nn, trainable  # noqa: E402

every = pytest.mark.parametrize("name", CASES)


def inputs(
    dtype: Any = np.float32,
    gradients: Any = None,
    sizes: Sequence[int] = (4, 3, 5, 2),
    **options: Any,
) -> mts.TensorMap:
    """Random blocks, with as many components as their keys say."""
    if gradients is None:
        gradients = {"positions": Gradient(rows=[0, 2, 2])}
    blocks = []
    for i, (key, n) in enumerate(zip(KEYS, sizes, strict=True)):
        components = (2 * key["o3_lambda"] + 1,)
        x = block(n, components, N, gradients, seed=i, dtype=dtype, **options)
        blocks.append(x)
    tensor = mts.TensorMap(KEYS, blocks)
    return mts.rename_dimension(tensor, "properties", "property", "n")


@every
def test_eager_equals_jit(name: str, x64: bool) -> None:
    dtype = np.float64 if x64 else np.float32
    x, module = inputs(dtype), made(name, dtype)
    mts.allclose_raise(module(x), eqx.filter_jit(module)(x))


@every
def test_arrays_of_numpy_and_of_jax_are_the_same(name: str) -> None:
    module = made(name)
    mts.allclose_raise(module(inputs()), module(inputs().to(arrays="jax")))


@every
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_dtype_is_kept(name: str, dtype: str) -> None:
    with enable_x64(dtype == "float64"):
        module = made(name, dtype)
        y = module(inputs(dtype))
        assert {str(part.dtype) for b in y for _, part in b._walk()} == {dtype}
    if dtype == "float16":  # and its numbers are those of the others, but for rounding
        widened = jax.tree.map(_wide, module)(inputs(dtype).to(dtype="float32"))
        mts.allclose_raise(y.to(dtype="float32"), widened, rtol=0.05, atol=0.05)


def _wide(leaf: Any) -> Any:
    return leaf.astype(np.float32) if eqx.is_inexact_array(leaf) else leaf


@every
def test_blocks_without_samples(name: str) -> None:
    x = inputs(sizes=(0, 3, 0, 0))
    y = made(name)(x)
    assert [len(b) for b in y] == [0, 3, 0, 0]
    assert all(b.gradients_list() == ["positions"] for b in y)


@every
def test_padded_batches(name: str) -> None:
    x, module = inputs(), made(name)
    layout = mts.Layout.fit([{"x": x}, {"x": inputs(sizes=(6, 6, 6, 6))}], systems=4)
    batch = layout.pad({"x": x})
    y = eqx.filter_jit(module)(batch["x"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(y))
    mts.allclose_raise(layout.unpad(y, batch.systems), module(x))


@every
def test_vmap(name: str) -> None:
    x, module = inputs(arrays="jax"), made(name)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), x)
    module = eqx.filter_jit(module)
    stacked = jax.jit(jax.vmap(module))(both)
    half = jax.tree.map(lambda leaf: 0.5 * leaf, x)
    for i, single in enumerate((x, half)):
        mts.allclose_raise(jax.tree.map(lambda y, i=i: y[i], stacked), module(single))


@every
def test_derivatives_by_weights(name: str) -> None:
    """Along a random direction, against finite differences; of gradients as well."""
    with enable_x64(True):
        x = inputs(np.float64)
        module = made(name, np.float64)
        params, rest = eqx.partition(module, trainable(module))
        if not jax.tree.leaves(params):
            assert not jax.tree.leaves(eqx.filter(rest, trainable(rest)))
            return

        @jax.jit
        def loss(params: Any) -> jax.Array:
            y = eqx.combine(params, rest)(x)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y))

        rng = np.random.default_rng(0)
        direction = jax.tree.map(
            lambda p: jnp.asarray(rng.normal(size=p.shape)), params
        )

        def along(h: float) -> jax.Array:
            return loss(jax.tree.map(lambda p, d: p + h * d, params, direction))

        slopes = jax.tree.map(
            lambda g, d: jnp.sum(g * d), jax.grad(loss)(params), direction
        )
        slope = sum(jax.tree.leaves(slopes))
        np.testing.assert_allclose(
            slope, (along(1e-5) - along(-1e-5)) / 2e-5, rtol=1e-6
        )


@every
def test_stored_gradients_along_their_rows(name: str) -> None:
    """Sparse rows, and components of their own, against finite differences."""
    with enable_x64(True):
        gradients = {"positions": Gradient(rows=[0, 2, 2]), "strain": Gradient((3, 3))}
        x, step = inputs(np.float64, gradients), 1e-5
        module = eqx.filter_jit(made(name, np.float64))
        y = module(x)
        for parameter in ("positions", "strain"):
            up, down = (module(_along(x, parameter, h)) for h in (step, -step))
            for i, after in enumerate(y):
                gradient = after.gradient(parameter)
                assert gradient.samples == x[i].gradient(parameter).samples
                difference = (up[i].values - down[i].values) / (2 * step)
                np.testing.assert_allclose(
                    gradient.values.reshape(difference.shape), difference, atol=1e-7
                )


def _along(x: mts.TensorMap, parameter: str, step: float) -> mts.TensorMap:
    """The rows of ``x``, each moved along one of its gradients."""
    blocks = []
    for b in x:
        gradient = b.gradient(parameter)
        at = b.values[gradient.samples.column("sample")]
        n_extra = gradient.values.ndim - b.values.ndim
        at = np.expand_dims(at, tuple(range(1, 1 + n_extra)))
        rows = (at + step * gradient.values).reshape(-1, *b.shape[1:])
        samples = mts.Labels.range("row", len(rows))
        blocks.append(mts.TensorBlock(rows, samples, b.components, b.properties))
    return mts.TensorMap(x.keys, blocks)


@functools.cache
def second_order() -> mts.TensorMap:
    return mts.compute_gradients(features, positions=positions(), order=2)


@every
def test_first_and_second_stored_gradients(name: str) -> None:
    """By positions of the atoms of each system, against finite differences."""
    with enable_x64(True):
        module = made(name, np.float64)

        @jax.jit
        def first_order(positions: mts.TensorBlock) -> mts.TensorMap:
            return module(mts.compute_gradients(features, positions=positions))

        at = positions()
        y = eqx.filter_jit(module)(second_order())
        # norms have an edge at zero, which no pseudoscalar may cross within a step
        report = mts.check_gradients(y, first_order, positions=at, atol=1e-7, step=1e-4)
        assert len(report.checks) == 2 * len(KEYS)


def rotated(x: mts.TensorMap, matrix: np.ndarray) -> mts.TensorMap:
    """Components of blocks and gradients turned: for l up to 1, written out."""
    turn = matrix[np.ix_(YZX, YZX)]
    blocks = []
    for key, b in x.items():
        sign = np.linalg.det(matrix) if key["o3_sigma"] == -1 else 1.0
        own = sign * (turn if key["o3_lambda"] == 1 else np.eye(1))
        slope = b.gradient("positions")
        turned = np.einsum("ab,mn,sbnp->samp", matrix, own, slope.values)
        values = np.einsum("mn,snp->smp", own, b.values)
        gradient = slope.with_values(turned)
        blocks.append(b.with_values(values).with_gradient("positions", gradient))
    return mts.TensorMap(x.keys, blocks)


@pytest.mark.parametrize("sign", [1, -1], ids=["proper", "improper"])
@pytest.mark.parametrize("name", EQUIVARIANT)
def test_commutes_with_rotations(name: str, sign: int) -> None:
    """What the module gives of turned atoms is what it gave before, turned."""
    with enable_x64(True):
        matrix, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
        matrix *= sign * np.linalg.det(matrix)
        module, at = made(name, np.float64), positions()
        turned = at.with_values(np.einsum("ab,sbp->sap", matrix, at.values))
        x, y = (mts.compute_gradients(features, positions=p) for p in (at, turned))
        mts.allclose_raise(rotated(x, matrix), y, rtol=1e-9, atol=1e-9)
        expected = rotated(module(x), matrix)
        mts.allclose_raise(module(y), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["Linear", "LayerNorm", "Tanh"])
def test_the_others_do_not(name: str) -> None:
    """So that the test above is known to see it."""
    with pytest.raises((AssertionError, mts.NotEqualError)):
        test_commutes_with_rotations(name, -1)


def test_features_are_what_they_should_be() -> None:
    """Their second gradients are right, and none of them is zero."""
    with enable_x64(True):

        @jax.jit
        def first_order(positions: mts.TensorBlock) -> mts.TensorMap:
            return mts.compute_gradients(features, positions=positions)

        x = second_order()
        mts.check_gradients(x, first_order, positions=positions(), atol=1e-7)
        assert all(np.abs(b.values).min(axis=1).max() > 1e-3 for b in x)


@every
def test_a_key_without_a_module(name: str) -> None:
    x = inputs()
    keys = mts.Labels(KEYS.names, [[0, 1], [1, 1], [1, -1], [2, 1]])
    with pytest.raises(mts.MetatensorError) as error:
        made(name)(mts.TensorMap(keys, x.blocks()))
    assert "(o3_lambda=2, o3_sigma=1)" in str(error.value)
    assert str(KEYS) in str(error.value)


def test_norms_are_differentiable_at_zero() -> None:
    """A padded row is zero, and its NaN would leak into every gradient."""
    x = jax.tree.map(jnp.zeros_like, inputs(np.float32))

    @eqx.filter_jit
    @eqx.filter_grad
    def slopes_of(given: Any) -> jax.Array:
        module, x = given
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(module(x)))

    slopes = slopes_of((made("EquivariantTransformation"), x))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    hessian = jax.hessian(lambda row: nn._equivariant._norms(row).sum())(
        jnp.zeros((3, 2))
    )
    assert not hessian.any()


def test_sequential_finds_modules_by_key() -> None:
    backwards = mts.Labels(KEYS.names, KEYS.values[::-1])
    first = made("EquivariantLinear")
    second = nn.ModuleMap(
        backwards, [lambda x, f=f: f * x for f in (1.0, 2.0, 3.0, 4.0)]
    )
    model = nn.Sequential(KEYS, first, second)
    mts.allclose_raise(model(inputs()), second(first(inputs())))
    with pytest.raises(mts.MetatensorError, match="no module"):
        nn.Sequential(mts.Labels(KEYS.names, [[5, 1]]), first)
    with pytest.raises(mts.MetatensorError, match="at least one"):
        nn.Sequential(KEYS)
    with pytest.raises(TypeError, match=r"`Sequential` must .*from_module"):
        nn.Sequential(KEYS, jnp.tanh)  # type: ignore[arg-type]


TYPES = mts.Labels("center_type", [[1]])
BAD = [
    (
        lambda: nn.InvariantReLU(TYPES),
        r"dimensions \['center_type'\], but .* \['o3_lambda', 'o3_sigma'\]: say",
    ),
    (lambda: nn.LayerNorm(KEYS, [2, 2]), r"`in_features` .* 4 keys, got 2"),
    (
        lambda: nn.InvariantLayerNorm(KEYS, N, eps=[1.0, 1.0]),
        r"`eps` must be .* 1 invariant keys, got 2",
    ),
    (
        lambda: nn.EquivariantLinear(
            KEYS, N, 2, bias=[True] * 2, key=jax.random.key(0)
        ),
        r"`bias` must be .* 1 invariant keys, got 2",
    ),
    (lambda: nn.LayerNorm(KEYS, 7)(inputs()), r"for 7 properties, .* block has 3"),
    (
        lambda: nn.EquivariantTransformation([jnp.tanh] * 4, KEYS, 7)(inputs()),
        r"for 7 properties, .* block has 3",
    ),
    (
        lambda: nn.EquivariantTransformation([lambda x: x[:2]] * 4, KEYS, N)(inputs()),
        r"factors for its 3 properties, so 3 or one of them, but it gives \(2,\)",
    ),
    (
        lambda: nn.EquivariantTransformation([jnp.tanh] * 3, KEYS, N),
        r"each of the 4 keys, got 3",
    ),
    (
        lambda: nn.EquivariantTransformation([jnp.tanh] * 4, KEYS, N, 2)(inputs()),
        r"gives 3 properties, but its `out_properties` are 2",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(mts.MetatensorError, match=message):
        make()


ABSENT = [
    ("Module", "equinox.Module"),
    ("requires_grad", r"jax\.grad"),
    ("Dropout", r"equinox\.nn\.Dropout"),
    ("GELU", r"jax\.nn\.gelu"),
    ("LeakyReLU", r"jax\.nn\.leaky_relu"),
]


@pytest.mark.parametrize(("name", "instead"), ABSENT)
def test_absent_names_say_what_to_use(name: str, instead: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}': use .*{instead}"):
        getattr(nn, name)


def test_absent_members_say_what_to_use() -> None:
    linear = made("Linear")
    for module in (linear, linear.module_map):
        with pytest.raises(AttributeError, match=r"'forward': use the module itself"):
            module.forward(inputs())
        assert not hasattr(module, "something_else")
    with pytest.raises(AttributeError, match=r"'something_else'$"):
        nn.something_else  # noqa: B018
