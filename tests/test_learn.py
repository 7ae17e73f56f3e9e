"""ModuleMap and Linear: one module per block, right for stored gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, enable_x64, tensor

import metatensor_jax as mts

eqx = pytest.importorskip("equinox")

from metatensor_jax.learn import Linear, ModuleMap  # noqa: E402

KEYS = mts.Labels("center_type", [[1], [8]])


def features(
    components: tuple[int, ...] = (), dtype: Any = np.float32
) -> mts.TensorMap:
    gradients = {"positions": Gradient(rows=[0, 2, 2]), "strain": Gradient((3, 3))}
    return tensor((3, 4), components, gradients=gradients, dtype=dtype, keys=KEYS)


def mlps(n_in: int, n_out: Any, dtype: Any = None) -> list[Any]:
    keys = jax.random.split(jax.random.key(0), 2)
    return [
        eqx.nn.MLP(n_in, n_out, 8, 1, jnp.tanh, dtype=dtype, key=key) for key in keys
    ]


def test_modules_see_one_row() -> None:
    x = features(components=(3,))
    modules = mlps(2, 4)
    y = ModuleMap(KEYS, modules)(x)
    for module, before, after in zip(modules, x, y, strict=True):
        assert after.properties == mts.Labels.range("_", 4)
        assert after.samples is before.samples
        assert after.components == before.components
        for i, c in np.ndindex(before.shape[:2]):
            expected = module(jnp.asarray(before.values[i, c]))
            np.testing.assert_allclose(after.values[i, c], expected, rtol=1e-5)


@pytest.mark.parametrize("components", [(), (2,)])
def test_gradients_follow_from_the_chain_rule(components: tuple[int, ...]) -> None:
    """Against finite differences along each stored gradient row."""
    with enable_x64(True):
        x = features(components, np.float64)
        module_map = ModuleMap(KEYS, mlps(2, 3, jnp.float64))
        y = module_map(x)
        step = 1e-5
        for key, block in x.items():
            module = module_map.modules[KEYS.position(key)]
            for name, gradient in block.gradients():
                moved = y.block(key).gradient(name)
                assert moved.samples is gradient.samples
                extra = gradient.shape[1 : gradient.values.ndim - block.values.ndim + 1]
                for row in np.ndindex(len(gradient), *extra):
                    at = block.values[gradient.samples.values[row[0], 0]]
                    tangent = gradient.values[row]
                    apply = module
                    for _ in components:
                        apply = jax.vmap(apply)
                    difference = apply(at + step * tangent) - apply(at - step * tangent)
                    np.testing.assert_allclose(
                        moved.values[row], difference / (2 * step), atol=1e-8
                    )


def test_a_module_that_gives_a_scalar_gives_one_property() -> None:
    energy = mts.Labels.range("energy", 1)
    y = ModuleMap(KEYS, mlps(2, "scalar"), [energy, energy])(features())
    assert [block.properties for block in y] == [energy, energy]
    assert y.block(0).gradient("positions").properties == energy


def test_training_under_jit_changes_parameters_and_compiles_once() -> None:
    x = features()
    model = Linear(KEYS, 2, 1, key=jax.random.key(1))
    traces = []

    @eqx.filter_jit
    def step(model: Any, x: mts.TensorMap) -> tuple[Any, Any]:
        traces.append(1)
        loss, gradient = eqx.filter_value_and_grad(
            lambda model: sum(jnp.sum(block.values**2) for block in model(x))
        )(model)
        return eqx.apply_updates(
            model, jax.tree.map(lambda g: -0.01 * g, gradient)
        ), loss

    losses = []
    for _ in range(5):
        model, loss = step(model, x)
        losses.append(float(loss))
    assert losses == sorted(losses, reverse=True)
    assert len(traces) == 1
    step(model, mts.TensorMap(mts.Labels("center_type", [[1], [8]]), x.blocks()))
    assert len(traces) == 1


def test_eager_equals_jit() -> None:
    x = features()
    module_map = ModuleMap(KEYS, mlps(2, 3))
    mts.allclose_raise(module_map(x), eqx.filter_jit(module_map)(x))


def test_models_go_through_files(tmp_path: Any) -> None:
    model = ModuleMap(KEYS, mlps(2, 3))
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", model)
    other = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf) if eqx.is_array(leaf) else leaf, model
    )
    loaded = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", other)
    assert mts.equal(loaded(features()), model(features()))


def test_modules_are_found_by_key_and_can_be_more_than_needed() -> None:
    x = features()
    first, second = mlps(2, 3)
    swapped = ModuleMap(
        mts.Labels("center_type", [[8], [6], [1]]), [second, first, first]
    )
    assert mts.equal(swapped(x), ModuleMap(KEYS, [first, second])(x))


def test_linear_has_one_layer_per_key() -> None:
    x = features()
    layer = Linear(KEYS, [2, 2], [3, 3], bias=[True, False], key=jax.random.key(0))
    biases = [module.bias is None for module in layer.module_map.modules]
    assert biases == [False, True]
    weights = [module.weight for module in layer.module_map.modules]
    assert not np.array_equal(weights[0], weights[1])
    expected = x.block(1).values @ weights[1].T
    np.testing.assert_allclose(layer(x).block(1).values, expected, rtol=1e-5)
    energy = [mts.Labels.range("energy", 2)] * 2
    by_properties = Linear(KEYS, 2, out_properties=energy, key=jax.random.key(0))
    assert by_properties(x).block(0).properties == energy[0]


BAD = [
    (lambda: ModuleMap(KEYS, mlps(2, 3)[:1]), r"each of the 2 keys, got 1"),
    (lambda: ModuleMap(KEYS, mlps(2, 3), []), r"each of the 2 keys, got 0"),
    (
        lambda: ModuleMap(KEYS, mlps(2, 3), [mts.Labels.range("p", 2)] * 2)(features()),
        r"gives 3 properties, but its `out_properties` are 2",
    ),
    (
        lambda: ModuleMap(mts.Labels("center_type", [[1], [6]]), mlps(2, 3))(
            features()
        ),
        r"no module for the block \(center_type=8\)",
    ),
    (lambda: Linear(KEYS, 2, key=jax.random.key(0)), r"got None and None"),
    (lambda: Linear(KEYS, [2], 3, key=jax.random.key(0)), r"`in_features` .* got 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(mts.MetatensorError, match=message):
        make()
