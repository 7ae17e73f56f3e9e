"""Buffer and Standardize: what is not trained, and what is found in data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, enable_x64, tensor

import metatensor_jax as mts

eqx = pytest.importorskip("equinox")
optax = pytest.importorskip("optax")

from metatensor_jax.learn import Buffer, Standardize, nn, trainable  # noqa: E402

KEYS = mts.Labels(["o3_lambda", "o3_sigma"], [[0, 1], [1, 1], [0, -1]])


def inputs(dtype: Any = np.float64, seed: int = 0, **options: Any) -> mts.TensorMap:
    options.setdefault("keys", KEYS)
    x = tensor((4, 3, 5), (3,), 2, dtype=dtype, seed=seed, **options)
    return mts.TensorMap(x.keys, [b.with_values(b.values + 2) for b in x])


class Model(eqx.Module):
    standardize: Standardize
    linear: nn.Linear
    extra: Buffer
    steps: Any

    def __call__(self, x: mts.TensorMap) -> mts.TensorMap:
        return self.linear(self.standardize(x)) * self.extra.data


def model(dtype: Any = np.float64) -> Model:
    linear = nn.Linear(KEYS, 2, 1, dtype=dtype, key=jax.random.key(0))
    return Model(
        Standardize.fit(inputs(dtype)),
        linear,
        Buffer(jnp.ones((), dtype)),
        jnp.array(3),
    )


def test_weight_decay_leaves_buffers(x64: bool) -> None:
    dtype = np.float64 if x64 else np.float32
    before, x = model(dtype), inputs(dtype)
    params, rest = eqx.partition(before, trainable(before))
    optimizer = optax.chain(optax.add_decayed_weights(10.0), optax.sgd(0.1))

    @eqx.filter_jit
    def step(params: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            return sum(jnp.sum(b.values**2) for b in eqx.combine(params, rest)(x))

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return eqx.apply_updates(params, updates), state

    changed, _ = step(params, optimizer.init(params))
    after = eqx.combine(changed, rest)
    assert eqx.tree_equal(after.standardize, before.standardize)
    assert eqx.tree_equal(after.extra, before.extra)
    assert not eqx.tree_equal(after.linear, before.linear)


def test_trainable_is_a_mask_for_optax() -> None:
    with enable_x64(True):
        before = model()
        params = eqx.filter(before, eqx.is_inexact_array)
        optimizer = optax.add_decayed_weights(10.0, mask=trainable)
        zero = jax.tree.map(jnp.zeros_like, params)
        updates, _ = optimizer.update(zero, optimizer.init(params), params)
        assert not any(np.any(u) for u in jax.tree.leaves(updates.standardize))
        assert all(
            np.any(u)
            for u in jax.tree.leaves(updates.linear.module_map.modules[0].weight)
        )


def test_derivatives_by_buffers_are_zero() -> None:
    with enable_x64(True):
        x = inputs()
        gradient = eqx.filter_grad(lambda m: sum(jnp.sum(b.values) for b in m(x)))(
            model()
        )
        assert not any(np.any(g) for g in jax.tree.leaves(gradient.standardize))
        assert float(gradient.extra.value) == 0.0
        assert any(np.any(g) for g in jax.tree.leaves(gradient.linear))


def test_buffers_hold_anything() -> None:
    held = Buffer({"map": inputs(np.float32), "labels": KEYS, "n": 3})
    assert held.data["labels"] is KEYS
    assert held.data["n"] == 3
    assert mts.equal(held.data["map"], inputs(np.float32))
    assert not any(jax.tree.leaves(trainable(held)))
    assert jax.tree.structure(trainable(held)) == jax.tree.structure(held)


# --- standardize ----------------------------------------------------------------------


def test_invariants_are_shifted_and_scaled_and_others_only_scaled() -> None:
    """Against NumPy, over two maps."""
    maps = [inputs(seed=0), inputs(seed=5)]
    with enable_x64(True):
        standardize = Standardize.fit(iter(maps))
        y = standardize(maps[0])
        for i, (key, block) in enumerate(maps[0].items()):
            rows = np.concatenate([x[i].values.reshape(-1, 2) for x in maps])
            is_invariant = tuple(key) == (0, 1)
            mean = rows.mean(axis=0) if is_invariant else np.zeros(2)
            scale = np.sqrt(np.mean((rows - mean) ** 2, axis=0))
            np.testing.assert_allclose(y[i].values, (block.values - mean) / scale)
            assert y[i].properties == block.properties
        mts.allclose_raise(standardize.inverse(y), maps[0])


def test_gradients_are_scaled_both_ways() -> None:
    with enable_x64(True):
        x = inputs(gradients={"positions": Gradient(rows=[0, 2, 2])})
        standardize = Standardize.fit(x)
        y = standardize(x)
        for i, block in enumerate(y):
            scale = np.asarray(standardize.module_map.modules[i].scale.data)
            before = x[i].gradient("positions").values
            np.testing.assert_allclose(
                block.gradient("positions").values, before / scale
            )
        mts.allclose_raise(standardize.inverse(y), x)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_dtype_is_kept(dtype: str) -> None:
    with enable_x64(dtype == "float64"):
        x = inputs(dtype)
        standardize = Standardize.fit(x)
        y = standardize(x)
        assert {str(b.dtype) for t in (y, standardize.inverse(y)) for b in t} == {dtype}


def test_padding_does_not_count() -> None:
    x = inputs(np.float32)
    layout = mts.Layout.fit(
        [{"x": x}, {"x": tensor((9, 9, 9), (3,), keys=KEYS)}], systems=5
    )
    padded = layout.pad({"x": x})["x"]
    assert len(padded[0]) > len(x[0])
    assert eqx.tree_equal(Standardize.fit(padded), Standardize.fit(x))


def test_large_means_and_constants_lose_nothing() -> None:
    """Energies of systems are large, and differ by little."""
    values = np.array([[1e7, 5.0, 0.1], [1e7 + 1, 5.0, 0.1], [1e7 + 2, 5.0, 0.1]])
    parts = [values[:1], values[1:]]
    maps = [
        mts.TensorMap(mts.Labels.single(), [mts.block_from_array(v)]) for v in parts
    ]
    with enable_x64(True):
        standardize = Standardize.fit(maps)
        module = standardize.module_map.modules[0]
        np.testing.assert_allclose(module.mean.data, [1e7 + 1, 5.0, 0.1])
        np.testing.assert_allclose(module.scale.data, [np.sqrt(2 / 3), 1.0, 1.0])
        ends = [standardize(x).block().values for x in maps]
        assert np.abs(np.concatenate(ends)[:, 1:]).max() < 1e-14


def test_which_blocks_are_invariant() -> None:
    def shifted(x: mts.TensorMap, invariant_keys: Any = None) -> list[bool]:
        modules = Standardize.fit(x, invariant_keys).module_map.modules
        return [module.mean is not None for module in modules]

    assert shifted(inputs()) == [True, False, False]
    assert shifted(inputs(), mts.Labels("o3_lambda", [[0]])) == [True, False, True]
    types = mts.Labels("center_type", [[1], [6], [8]])
    assert shifted(inputs(keys=types)) == [False, False, False]
    scalars = tensor((2, 2, 2), keys=types, dtype=np.float64)
    assert shifted(scalars) == [True, True, True]


def test_keys_can_differ() -> None:
    x = inputs(np.float32)
    parts = [mts.filter_blocks(x, mts.Labels(KEYS.names, [row])) for row in KEYS.values]
    assert eqx.tree_equal(Standardize.fit(parts), Standardize.fit(x))


def nan() -> mts.TensorMap:
    x = inputs(np.float32)
    broken = np.array(x[1].values)
    broken[0, 0, 0] = np.nan
    return mts.TensorMap(x.keys, [x[0], x[1].with_values(broken), x[2]])


def other_properties() -> mts.TensorMap:
    return mts.rename_dimension(inputs(np.float32), "properties", "property", "n")


BAD = [
    (lambda: Standardize.fit([]), mts.MetatensorError, "at least one map, got none"),
    (
        lambda: Standardize.fit([inputs(), inputs(keys=mts.Labels.range("k", 3))]),
        mts.NotEqualError,
        r"\['o3_lambda', 'o3_sigma'\] and \['k'\]",
    ),
    (
        lambda: Standardize.fit([inputs(np.float32), other_properties()]),
        mts.NotEqualError,
        r"\(o3_lambda=0, o3_sigma=1\) must have the same properties",
    ),
    (
        lambda: Standardize.fit([inputs(np.float32), inputs()]),
        mts.NotEqualError,
        "is float32 in one map, and float64 in another",
    ),
    (
        lambda: Standardize.fit(tensor((1, 0, 2), keys=KEYS)),
        mts.MetatensorError,
        r"no samples of the block \(o3_lambda=1, o3_sigma=1\)",
    ),
    (lambda: Standardize.fit(nan()), mts.MetatensorError, "not finite: 1 of 18"),
    (
        lambda: Standardize.fit(tensor((2,), dtype=np.int32)),
        TypeError,
        "holds int32, but mean and scale",
    ),
    (
        lambda: Standardize.fit([1]),
        TypeError,
        "`maps` must be a metatensor_jax TensorMap",
    ),
    (
        lambda: Standardize.fit(inputs(np.float32))(other_properties()),
        mts.NotEqualError,
        r"other properties than those that this was fitted to",
    ),
    (
        lambda: Standardize.fit(inputs(np.float32)).inverse(
            inputs(np.float32, keys=mts.Labels(KEYS.names, [[0, 1], [5, 1], [1, 1]]))
        ),
        mts.MetatensorError,
        r"no module for the block \(o3_lambda=5, o3_sigma=1\)",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD)
def test_bad_input(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_a_model_as_labels_of_an_optimizer() -> None:
    """Optax calls whatever can be called (equinox #193, #794)."""
    keys = mts.Labels("center_type", [[1], [8]])
    model = nn.Linear(keys, 3, 1, key=jax.random.key(0))
    params = eqx.filter(model, eqx.is_array)
    labels = jax.tree.map(lambda a: "w" if a.ndim == 2 else "b", params)
    transforms = {"w": optax.sgd(0.1), "b": optax.set_to_zero()}
    with pytest.raises(TypeError, match="`lambda _: labels`"):
        optax.multi_transform(transforms, labels).init(params)
    optimizer = optax.multi_transform(transforms, lambda _: labels)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    for layer in updates.module_map.modules:
        assert float(layer.weight[0, 0]) == pytest.approx(-0.1)
        assert float(layer.bias[0]) == 0.0
