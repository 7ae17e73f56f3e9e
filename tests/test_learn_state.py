"""Random keys, states and inference mode: what Equinox's modules take besides rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, enable_x64, tensor

import metatensor_jax as mts

eqx = pytest.importorskip("equinox")

from metatensor_jax.learn import ModuleMap, nn  # noqa: E402

KEYS = mts.Labels("center_type", [[1], [8]])
#: what modules with a state reduce over
ROWS = ("samples", "components")
KEY = jax.random.key(7)


def inputs(dtype: Any = np.float32, sizes: Any = (4, 3), **options: Any) -> Any:
    options.setdefault("gradients", {"positions": Gradient(rows=[0, 2, 2])})
    return tensor(sizes, (3,), 4, dtype=dtype, keys=KEYS, **options)


def values_only(dtype: Any = np.float32, **options: Any) -> Any:
    return inputs(dtype, gradients={}, **options)


# --- random keys ----------------------------------------------------------------------


def dropout() -> ModuleMap:
    return ModuleMap.from_module(KEYS, eqx.nn.Dropout(0.5))


def test_gradients_have_the_mask_of_their_values() -> None:
    x = inputs()
    y = dropout()(x, key=KEY)
    for before, after in zip(x, y, strict=True):
        factors = after.values / before.values
        assert set(np.unique(factors).round(4)) == {0.0, 2.0}
        gradient = after.gradient("positions")
        parents = gradient.samples.column("sample")
        expected = before.gradient("positions").values * factors[parents][:, None]
        np.testing.assert_allclose(gradient.values, expected, rtol=1e-5)


def test_components_share_a_mask_and_rows_do_not() -> None:
    """So that dropout commutes with rotations."""
    x = tensor((40, 40), (3,), 4, keys=KEYS)
    masks = [np.asarray(block.values != 0) for block in dropout()(x, key=KEY)]
    for mask in masks:
        assert (mask == mask[:, :1]).all()
        assert (mask[0] != mask).any(axis=(1, 2)).sum() > 20
    assert (masks[0] != masks[1]).any()


def test_masks_depend_on_nothing_else() -> None:
    """Neither on other blocks and rows, nor on padding, nor on the kind of the key."""
    x, module = inputs(), dropout()
    y = module(x, key=KEY)
    last = mts.TensorMap(mts.Labels("center_type", [[8]]), [x[1]])
    assert mts.equal_block(module(last, key=KEY)[0], y[1])
    mts.equal_raise(eqx.filter_jit(module)(x, key=KEY), y)
    mts.equal_raise(module(x, key=jax.random.key_data(KEY)), y)
    mts.equal_raise(module(x.to(arrays="jax"), key=KEY), y)
    layout = mts.Layout.fit([{"x": x}, {"x": inputs(sizes=(9, 9))}], systems=5)
    batch = layout.pad({"x": x})
    mts.equal_raise(layout.unpad(module(batch["x"], key=KEY), batch.systems), y)
    other = module(x, key=jax.random.key(8))
    assert not mts.equal(other, y)


def test_second_derivatives_have_the_mask() -> None:
    """The derivative of a loss with stored gradients, against finite differences."""
    with enable_x64(True):
        x = inputs(np.float64)
        layers = [
            eqx.nn.MLP(4, 4, 8, 1, jnp.tanh, key=key) for key in jax.random.split(KEY)
        ]
        model = nn.Sequential(KEYS, ModuleMap(KEYS, layers), dropout())
        params, rest = eqx.partition(model, nn.trainable(model))

        @jax.jit
        def loss(params: Any) -> jax.Array:
            y = eqx.combine(params, rest)(x, key=KEY)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y))

        def along(h: float) -> jax.Array:
            return loss(jax.tree.map(lambda p: p + h, params))

        slope = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(jax.grad(loss)(params)))
        np.testing.assert_allclose(
            slope, (along(1e-5) - along(-1e-5)) / 2e-5, rtol=1e-6
        )


def test_without_a_key() -> None:
    with pytest.raises(RuntimeError, match="requires a key") as error:
        dropout()(inputs())
    assert any("(center_type=1)" in note for note in error.value.__notes__)
    several = jax.random.split(KEY)
    with pytest.raises(mts.MetatensorError, match=r"one random key, .* shape \(2,\)"):
        dropout()(inputs(), key=several)


def test_inference_mode_needs_no_key() -> None:
    model = nn.Sequential(KEYS, nn.Tanh(KEYS), dropout())
    x = inputs()
    mts.allclose_raise(eqx.nn.inference_mode(model)(x), nn.Tanh(KEYS)(x))


def test_modules_that_take_no_key_get_none() -> None:
    x = inputs()
    model = ModuleMap(KEYS, [jnp.tanh, lambda row: 2 * row])
    mts.allclose_raise(model(x, key=KEY), model(x))


def test_each_module_of_a_sequence_has_its_own_key() -> None:
    twice = nn.Sequential(KEYS, dropout(), dropout())
    x = tensor((200, 200), (1,), 4, keys=KEYS)
    kept = np.mean([np.mean(block.values != 0) for block in twice(x, key=KEY)])
    assert 0.2 < kept < 0.3


# --- states ---------------------------------------------------------------------------


def batch_norms(n: int = 4, mode: str = "batch") -> ModuleMap:
    return ModuleMap(
        KEYS, [eqx.nn.BatchNorm(n, ROWS, mode=mode, momentum=0.5) for _ in range(2)]
    )


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_batch_norm_is_that_of_all_rows_and_components(mode: str) -> None:
    """By NumPy: of the values, and of the running statistics that it keeps."""
    model, state = eqx.nn.make_with_state(batch_norms)(mode=mode)
    x = values_only()
    y, state = model(x, state)
    _, state = model(x, state)
    inferred, same = eqx.nn.inference_mode(model)(x, state)
    for before, after, known in zip(x, y, inferred, strict=True):
        mean = before.values.mean(axis=(0, 1))
        variance = before.values.var(axis=(0, 1))
        expected = (before.values - mean) / np.sqrt(variance + 1e-5)
        np.testing.assert_allclose(after.values, expected, rtol=1e-4, atol=1e-5)
        assert after.samples is before.samples
        assert after.properties == mts.Labels.range("_", 4)
        if mode == "ema":  # of the same batch twice
            np.testing.assert_allclose(known.values, expected, rtol=1e-4, atol=1e-5)
    assert jax.tree.all(jax.tree.map(np.array_equal, state, same))


def test_the_state_that_was_given_can_be_used_again() -> None:
    model, state = eqx.nn.make_with_state(batch_norms)()
    x = values_only()
    first, _ = model(x, state)
    again, _ = eqx.filter_jit(model)(x, state)
    mts.allclose_raise(first, again)


def test_gradients_go_through_what_does_not_mix_rows() -> None:
    """In inference mode a batch norm is an affine function of each row."""
    model, state = eqx.nn.make_with_state(batch_norms)()
    _, state = model(values_only(), state)
    x = inputs()
    y, _ = eqx.nn.inference_mode(model)(x, state)
    index = model.modules[0].batch_state_index
    _, variance = state.get(index)
    counted = 1 - 0.5 ** float(state.get(model.modules[0].batch_counter))
    slope = x[0].gradient("positions").values / np.sqrt(variance / counted + 1e-5)
    np.testing.assert_allclose(y[0].gradient("positions").values, slope, rtol=1e-4)


class Counter(eqx.Module):
    """Its state does not depend on the rows."""

    count: eqx.nn.StateIndex

    def __init__(self) -> None:
        self.count = eqx.nn.StateIndex(jnp.array(1.0))

    def __call__(self, row: Any, state: Any) -> Any:
        count = state.get(self.count)
        return row * count.astype(row.dtype), state.set(self.count, count + 1)


def test_gradients_go_through_modules_with_a_state_of_their_own() -> None:
    def make() -> Any:
        counters = ModuleMap(KEYS, [Counter(), jnp.tanh])
        return nn.Sequential(KEYS, counters, dropout())

    model, state = eqx.nn.make_with_state(make)()
    x = inputs()
    y, state = model(x, state, key=KEY)
    z, state = eqx.filter_jit(model)(x, state, key=KEY)
    factor = [2.0, 1.0]  # the count, of the first block only
    for i in range(2):
        np.testing.assert_allclose(z[i].values, factor[i] * y[i].values, rtol=1e-6)
        slopes = [t[i].gradient("positions").values for t in (y, z)]
        np.testing.assert_allclose(slopes[1], factor[i] * slopes[0], rtol=1e-6)
        parents = x[i].gradient("positions").samples.column("sample")
        kept = np.asarray(y[i].values != 0)[parents][:, None]
        assert np.array_equal(slopes[0] != 0, np.broadcast_to(kept, slopes[0].shape))
    assert [float(count) for count in jax.tree.leaves(state)] == [3.0]


def test_training_and_state_go_through_jit_once() -> None:
    def make() -> Any:
        linear = nn.Linear(KEYS, 4, 4, key=KEY)
        return nn.Sequential(
            KEYS, linear, batch_norms(), nn.Linear(KEYS, 4, 1, key=KEY)
        )

    model, state = eqx.nn.make_with_state(make)()
    x, traces, losses = values_only(), [], []

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        traces.append(1)

        def loss(model: Any) -> Any:
            y, new = model(x, state)
            return sum(jnp.mean((b.values - 1) ** 2) for b in y), new

        grad = eqx.filter_value_and_grad(loss, has_aux=True)
        (value, new), gradient = grad(model)
        return (
            eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, gradient)),
            new,
            value,
        )

    for _ in range(4):
        model, state, value = step(model, state)
        losses.append(float(value))
    assert losses == sorted(losses, reverse=True)
    assert len(traces) == 1


def test_blocks_without_rows_leave_the_state() -> None:
    model, state = eqx.nn.make_with_state(batch_norms)()
    y, new = model(values_only(sizes=(4, 0)), state)
    assert y[1].shape == (0, 3, 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new))
    counters = [m.batch_counter for m in model.modules]
    assert [int(new.get(counter)) for counter in counters] == [1, 0]


def test_copies_have_states_of_their_own() -> None:
    def make() -> Any:
        return ModuleMap.from_module(KEYS, eqx.nn.BatchNorm(4, ROWS, mode="batch"))

    _, state = eqx.nn.make_with_state(make)()
    assert len(jax.tree.leaves(state)) == 2 * 3


def test_bad_input() -> None:
    model, state = eqx.nn.make_with_state(batch_norms)()
    with pytest.raises(mts.MetatensorError, match=r"mixes its rows, .*\['positions'\]"):
        model(inputs(), state)
    with pytest.raises(
        mts.MetatensorError, match="BatchNorm has a state: make it with"
    ):
        model(values_only())
    other = eqx.nn.State(eqx.nn.BatchNorm(4, ROWS, mode="batch"))
    with pytest.raises(mts.MetatensorError, match=r"nothing for .* \(center_type=1\)"):
        model(values_only(), other)
    x = values_only()
    layout = mts.Layout.fit([{"x": x}], systems=2)
    with pytest.raises(mts.MetatensorError, match="padding"):
        model(layout.pad({"x": x})["x"], state)
    inference = eqx.nn.inference_mode(model)
    inference(layout.pad({"x": x})["x"], state)


def test_statistics_of_the_samples_alone_say_what_to_do() -> None:
    norm = eqx.nn.BatchNorm(4, "samples", mode="batch")
    model, state = eqx.nn.make_with_state(lambda: ModuleMap(KEYS, [norm, norm]))()
    with pytest.raises(ValueError, match="out_axes") as error:
        model(values_only(), state)
    assert any("('samples', 'components')" in note for note in error.value.__notes__)
    # without components, they are all rows
    model(tensor((4, 3), (), 4, keys=KEYS), state)
