"""The training loop, losses and metrics."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap, learn

P = Labels.range("p", 2)
KEYS = Labels("k", [[3], [1]])


def random_map(seed: int, keys: Labels = KEYS) -> TensorMap:
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in keys:
        samples = Labels(["system", "atom"], [[0, 0], [0, 1], [1, 0]])
        rows = Labels(["sample", "atom"], [[0, 0], [2, 1]])
        gradient = rng.normal(size=(2, 3, 2)).astype("f4")
        xyz = [Labels.range("xyz", 3)]
        block = TensorBlock(rng.normal(size=(3, 2)).astype("f4"), samples, [], P)
        blocks.append(block.with_gradient("x", TensorBlock(gradient, rows, xyz, P)))
    return TensorMap(keys, blocks)


def off(name: str = "values", per: Any = 1.0) -> np.ndarray:
    """All differences between two of these maps."""
    a, b = random_map(0), random_map(1)
    parts = [
        (x, y) if name == "values" else (x.gradient(name), y.gradient(name))
        for x, y in zip(a, b, strict=True)
    ]
    return np.concatenate([np.ravel((x.values - y.values) / per) for x, y in parts])


def test_losses_are_means_over_elements() -> None:
    a, b = random_map(0), random_map(1)
    d, g = off(), off("x")
    np.testing.assert_allclose(learn.mean_squared(a, b), np.mean(d**2), rtol=1e-6)
    np.testing.assert_allclose(learn.mean_absolute(a, b), np.mean(abs(d)), rtol=1e-6)
    expected = np.mean(d**2) + 0.3 * np.mean(g**2)
    loss = learn.mean_squared(a, b, gradients={"x": 0.3})
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    loss = learn.huber(a, b, 0.5)
    np.testing.assert_allclose(
        loss, np.mean(optax.losses.huber_loss(d, delta=0.5)), rtol=1e-6
    )
    weighted = learn.mean_squared(a, b, key_weights=[2.0, 0.0])
    np.testing.assert_allclose(weighted, 2 * np.sum(d[:6] ** 2) / 12, rtol=1e-6)
    n = np.array([1.0, 2.0, 4.0], "f4")
    for per in (n, [n, n]):
        loss = learn.mean_absolute(a, b, per=per)
        np.testing.assert_allclose(loss, np.mean(abs(off(per=n[:, None]))), rtol=1e-6)


def test_metrics() -> None:
    found = learn.errors(random_map(0), random_map(1), gradients=["x"])
    for name, of_name in found.items():
        d = off(name)
        expected = {
            "rmse": np.sqrt(np.mean(d**2)),
            "mae": np.mean(abs(d)),
            "max": abs(d).max(),
        }
        for kind, value in expected.items():
            assert of_name[kind] == pytest.approx(value, rel=1e-5)
    assert sorted(found) == ["values", "x"]


def test_keys_in_any_order() -> None:
    a, b = random_map(0), random_map(1)
    turned = TensorMap(Labels("k", [[1], [3]]), [a.block(k=1), a.block(k=3)])
    assert learn.mean_squared(turned, b) == learn.mean_squared(a, b)


@pytest.mark.parametrize("jit", [False, True])
def test_padding_does_not_count(jit: bool) -> None:
    a, b = random_map(0), random_map(1)
    layout = mts.Layout.fit({"a": a, "b": b}, systems=5)
    batch = layout.pad({"a": a, "b": b})
    loss = lambda x, y: learn.mean_squared(x, y, gradients={"x": 0.3})  # noqa: E731
    padded = (jax.jit(loss) if jit else loss)(batch["a"], batch["b"])
    np.testing.assert_allclose(padded, loss(a, b), rtol=1e-6)
    # an atom of padding is divided by nothing
    n = jnp.where(batch["a"].block(0).mask, 2.0, 0.0)
    of_a = lambda a: learn.mean_absolute(a, batch["b"], per=[n, n])  # noqa: E731
    assert all(
        bool(jnp.isfinite(x).all())
        for x in jax.tree.leaves(jax.grad(of_a, allow_int=True)(batch["a"]))
        if x.dtype == jnp.float32
    )


def test_derivatives_of_losses() -> None:
    a, b = random_map(0), random_map(1)

    def loss(values: Any) -> Any:
        blocks = [x.with_values(v) for x, v in zip(a, values, strict=True)]
        return learn.huber(TensorMap(KEYS, blocks), b, 0.7) + learn.mean_squared(
            TensorMap(KEYS, blocks), b
        )

    check_grads(
        loss, ([x.values for x in a],), order=1, modes=["rev"], eps=1e-2, rtol=0.05
    )


def test_what_does_not_fit_raises() -> None:
    a, b = random_map(0), random_map(1)
    other = mts.rename_dimension(b, "samples", "atom", "ion")
    with pytest.raises(mts.NotEqualError):
        learn.mean_squared(a, other)
    with pytest.raises(mts.MetatensorError, match="one for each of the 2 keys, got 1"):
        learn.mean_squared(a, b, key_weights=[1.0])
    with pytest.raises(
        mts.MetatensorError, match=r"each of the 3 samples, got shape \(2,\)"
    ):
        learn.mean_squared(a, b, per=np.ones(2))
    with pytest.raises(mts.MetatensorError, match="gradients with respect to 'y'"):
        learn.mean_squared(a, b, gradients={"y": 1.0})
    with pytest.raises(TypeError, match="`target` must be"):
        learn.mean_squared(a, 3.0)  # type: ignore[arg-type]


X = jnp.linspace(-1, 1, 16).reshape(-1, 1)


def line(model: Any, batch: Any) -> jax.Array:
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


@pytest.fixture
def standard() -> Any:
    """Optax mixes types of numbers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def linear() -> eqx.nn.Linear:
    return eqx.nn.Linear(1, 1, key=jax.random.key(0))


@pytest.mark.usefixtures("standard")
def test_the_loop_is_what_its_page_says() -> None:
    batches = [(X[:8], 3 * X[:8]), (X[8:], 3 * X[8:])]
    optimizer = optax.adam(0.05)
    fitted = learn.fit(linear(), batches, line, optimizer, epochs=3, progress=False)
    params = linear()
    state = optimizer.init(eqx.filter(params, eqx.is_array))
    for _ in range(3):
        for batch in batches:
            grads = eqx.filter_grad(line)(params, batch)
            updates, state = optimizer.update(grads, state)
            params = eqx.apply_updates(params, updates)
    np.testing.assert_allclose(fitted.model.weight, params.weight, rtol=1e-5)
    assert len(fitted.history) == 3


@pytest.mark.usefixtures("standard")
def test_the_best_model_is_kept_and_patience_ends() -> None:
    # the learning rate is so large that all steps after the first make it worse
    fitted = learn.fit(
        linear(),
        [(X, 3 * X)],
        line,
        optax.sgd(optax.piecewise_constant_schedule(0.5, {1: 40.0})),
        epochs=50,
        validation=[(X, 3 * X)],
        patience=3,
        progress=False,
    )
    values = [epoch.validation for epoch in fitted.history]
    assert len(values) == 1 + int(np.argmin(values)) + 3
    assert line(fitted.model, (X, 3 * X)) == pytest.approx(min(values), rel=1e-5)
    assert line(fitted.last, (X, 3 * X)) == pytest.approx(values[-1], rel=1e-5)


@pytest.mark.usefixtures("standard")
def test_training_goes_on_from_a_state() -> None:
    def run(*epochs: int) -> Any:
        model, state = linear(), None
        for n in epochs:
            fitted = learn.fit(
                model,
                [(X, 3 * X)],
                line,
                optax.adam(0.1),
                epochs=n,
                state=state,
                progress=False,
            )
            model, state = fitted.last, fitted.state
        return model.weight

    np.testing.assert_allclose(run(2, 3), run(5), rtol=1e-6)


@pytest.mark.usefixtures("standard")
def test_the_rate_is_in_the_history() -> None:
    schedule = optax.exponential_decay(0.1, 1, 0.5)
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
    fitted = learn.fit(linear(), [(X, X)], line, optimizer, epochs=2, progress=False)
    rates = [epoch.rate for epoch in fitted.history]
    assert rates[1] == pytest.approx(rates[0] / 2)


OF_THE_LOSS: dict[str, Any] = {
    "lbfgs": optax.lbfgs(),
    "backtracking": optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(20)),
    "polyak": optax.polyak_sgd(),
    "several steps": optax.MultiSteps(optax.lbfgs(), 1),
}


@pytest.mark.usefixtures("standard")
@pytest.mark.parametrize("name", OF_THE_LOSS)
def test_optimizers_that_look_at_the_loss(name: str, x64: bool) -> None:
    """Linear least squares, which NumPy solves as well."""
    dtype = np.float64 if x64 else np.float32
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(40, n)).astype(dtype) for n in (5, 2))
    with_one = np.concatenate([x, np.ones((40, 1))], 1)
    wanted = np.linalg.lstsq(with_one, y.astype("f8"))[0]
    fitted = learn.fit(
        eqx.nn.Linear(5, 2, key=jax.random.key(0), dtype=dtype),
        [(x, y)],
        line,
        OF_THE_LOSS[name],
        epochs=30,
        progress=False,
    )
    atol = 1e-6 if x64 else 2e-4
    np.testing.assert_allclose(fitted.model.weight.T, wanted[:5], atol=atol)
    np.testing.assert_allclose(fitted.model.bias, wanted[5], atol=atol)


@pytest.mark.usefixtures("standard")
def test_a_plateau_lowers_the_rate() -> None:
    """Of a loss that stays as it is; without its value there would be no plateau."""
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2)
    optimizer = optax.chain(optax.sgd(0.1), plateau)
    fitted = learn.fit(
        linear(),
        [(X, X)],
        lambda model, _: 0.0 * model.weight.sum() + 1.0,
        optimizer,
        epochs=5,
        progress=False,
    )
    assert float(optax.tree_utils.tree_get(fitted.state, "scale")) == 0.25


def test_epochs_by_number_and_one_program() -> None:
    seen, traced = [], []

    def batches(epoch: int) -> Any:
        seen.append(epoch)
        return iter([(X, X), (X, 2 * X)])

    def loss(model: Any, batch: Any) -> jax.Array:
        traced.append(1)
        return line(model, batch)

    learn.fit(linear(), batches, loss, optax.sgd(0.1), epochs=4, progress=False)
    assert seen == [0, 1, 2, 3]
    assert len(traced) == 1


def test_errors_of_the_loop() -> None:
    def run(batches: Any, **options: Any) -> Any:
        return learn.fit(
            linear(), batches, line, optax.sgd(0.1), epochs=2, progress=False, **options
        )

    with pytest.raises(mts.MetatensorError, match="no batch in epoch 1"):
        run(iter([(X, X)]))
    with pytest.raises(mts.MetatensorError, match=r"array of shape \(16, 1\)"):
        learn.fit(
            linear(),
            [(X, X)],
            lambda model, batch: jax.vmap(model)(batch[0]),
            optax.sgd(0.1),
            epochs=1,
            progress=False,
        )
    with pytest.raises(mts.MetatensorError, match="patience"):
        run([(X, X)], patience=2)
    with pytest.raises(FloatingPointError, match="the loss of epoch 0 is nan"):
        run([(X, X * jnp.nan)])


def test_a_bar_and_a_plot(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    fitted = learn.fit(
        linear(), [(X, X)], line, optax.sgd(0.1), epochs=2, validation=[(X, X)]
    )
    assert "validation" in capsys.readouterr().err
    assert len(fitted.plot().get_lines()) == 2


@pytest.mark.usefixtures("standard")
def test_buffers_are_not_trained() -> None:
    class WithBuffer(eqx.Module):
        weight: jax.Array
        mean: learn.Buffer

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.weight * (x - self.mean.data)

    model = WithBuffer(jnp.ones(1), learn.Buffer(jnp.full(1, 0.5)))
    fitted = learn.fit(
        model, [(X, 3 * X)], line, optax.adamw(0.1), epochs=3, progress=False
    )
    assert fitted.model.mean.value.tolist() == [0.5]
    assert fitted.model.weight.tolist() != [1.0]
