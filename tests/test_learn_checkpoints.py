"""Checkpoints: what is kept, what is damaged, and training that is killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metatensor_jax import Labels, MetatensorError, learn

SCRIPT = Path(__file__).parent / "kill_training.py"
KEYS = Labels("center_type", [[1], [8]])
LIKE = {"weight": np.zeros(3), "step": 0}


def tree(step: int) -> dict[str, Any]:
    return {"weight": np.full(3, float(step)), "step": step}


def filled(folder: Path, metrics: list[float | None], **options: Any) -> Any:
    checkpoints = learn.Checkpoints(folder, **options)
    for step, metric in enumerate(metrics):
        checkpoints.save(step, tree(step), metric)
    return checkpoints


def test_the_last_ones_and_the_best_one_are_kept(tmp_path: Path) -> None:
    metrics = [5.0, 1.0, 1.0, 3.0, np.nan, None, 2.0]
    least = filled(tmp_path / "min", metrics, best="min", keep=2)
    assert least.steps == [1, 5, 6]
    assert least.best(LIKE).step == 1
    assert least.best(LIKE).metric == 1.0
    assert least.latest(LIKE).tree["step"] == 6
    most = filled(tmp_path / "max", metrics, best="max", keep=1)
    assert most.steps == [0, 6]
    plain = filled(tmp_path / "plain", metrics)
    assert plain.steps == [4, 5, 6]
    with pytest.raises(MetatensorError, match="see `best=`"):
        plain.best(LIKE)
    # what is there is all that is known
    again = learn.Checkpoints(tmp_path / "min", best="min", keep=2)
    assert again.best(LIKE).step == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("metric", [1e-30, -0.1, np.inf, np.float32(0.1), jnp.ones(())])
def test_metrics_are_kept_exactly(tmp_path: Path, metric: Any) -> None:
    checkpoints = filled(tmp_path, [metric], best="min")
    assert checkpoints.latest(LIKE).metric == float(metric)


def test_a_step_can_be_saved_again_but_not_before_others(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, [1.0, 2.0], best="min")
    checkpoints.save(1, tree(7), 0.5)
    assert checkpoints.steps == [0, 1]
    assert checkpoints.latest(LIKE).tree["step"] == 7
    assert checkpoints.best(LIKE).step == 1
    with pytest.raises(MetatensorError, match="step 0 comes before step 1, which is"):
        checkpoints.save(0, tree(0))
    assert checkpoints.restore(0, LIKE).tree["step"] == 0
    with pytest.raises(MetatensorError, match=r"no step 5 in .*, only \[0, 1\]"):
        checkpoints.restore(5, LIKE)


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    checkpoints = learn.Checkpoints(tmp_path / "none", best="max")
    assert checkpoints.latest(LIKE) is checkpoints.best(LIKE) is None
    assert checkpoints.steps == []
    assert not (tmp_path / "none").exists()
    for name in ("step-1.mjm", "step-00000001-metric-x.mjm", "step-00000001.mjm.bak"):
        (tmp_path / name).touch()
    assert learn.Checkpoints(tmp_path).steps == []


def test_options_that_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(MetatensorError, match="`keep` must be at least 1, not 0"):
        learn.Checkpoints(tmp_path, keep=0)
    with pytest.raises(MetatensorError, match=r"`best` must be .*, not 'least'"):
        learn.Checkpoints(tmp_path, best="least")  # type: ignore[arg-type]
    with pytest.raises(MetatensorError, match="must not be negative, got -1"):
        learn.Checkpoints(tmp_path).save(-1, LIKE)
    with pytest.raises(TypeError):
        learn.Checkpoints(tmp_path).save(1.5, LIKE)  # type: ignore[arg-type]


def test_other_keys_raise(tmp_path: Path) -> None:
    """They are no damage: no older one is tried."""
    checkpoints = learn.Checkpoints(tmp_path)
    checkpoints.save(0, learn.Linear(KEYS, 2, 1, key=jax.random.key(0)))
    other = Labels("center_type", [[1], [6]])
    with pytest.raises(MetatensorError, match="in_keys are"):
        checkpoints.latest(learn.Linear(other, 2, 1, key=jax.random.key(0)))


def test_damaged_files_are_not_chosen(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, [3.0, 2.0, 1.0], best="min")
    newest = tmp_path / "step-00000002-metric-1.0.mjm"
    newest.write_bytes(newest.read_bytes()[:-100])
    for find in (checkpoints.latest, checkpoints.best):
        with pytest.warns(UserWarning, match="step-00000002.* no file that"):
            assert find(LIKE).tree["step"] == 1
    with pytest.raises(ValueError, match="no file that"):
        checkpoints.restore(2, LIKE)
    # the run goes on from step 1, and comes to step 2 again
    checkpoints.save(1, tree(1), 2.5)
    checkpoints.save(2, tree(2), 1.5)
    assert sorted(x.name[14:] for x in tmp_path.iterdir()) == [
        "metric-1.5.mjm",
        "metric-2.5.mjm",
        "metric-3.0.mjm",
    ]
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match=r"no checkpoint in .* can be read"),
    ):
        checkpoints.latest(LIKE)


def test_any_damage_is_found(tmp_path: Path) -> None:
    """Bits that are turned, and files that are cut: never other numbers."""
    model = {"model": learn.Linear(KEYS, 3, 2, key=jax.random.key(0)), "step": 3}
    learn.save(tmp_path / "good.mjm", model)
    good, chance = (tmp_path / "good.mjm").read_bytes(), random.Random(0)
    refused = 0
    for _ in range(600):
        data = bytearray(good)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        else:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (tmp_path / "bad.mjm").write_bytes(data)
        try:
            found = learn.load(tmp_path / "bad.mjm", model)
        except ValueError as error:
            refused += not isinstance(error, MetatensorError)
        else:
            assert bool(eqx.tree_equal(found, model, typematch=True))
    assert refused > 400


# --- training that is killed ---------------------------------------------------------


def outcome(folder: Path, how: str, kills: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), how]
    done = subprocess.run(
        [*command, str(kills)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9")
@pytest.mark.parametrize(("how", "kills"), [("by_hand", 12), ("fit", 8)])
def test_training_that_is_killed_ends_as_if_it_was_not(
    tmp_path: Path, how: str, kills: int
) -> None:
    expected = outcome(tmp_path / "whole", how, 0)
    found = outcome(tmp_path / "killed", how, kills)
    assert (expected["kills"], found["kills"]) == (0, kills)
    # each kill costs what was done since the last checkpoint, and no more
    at_most = {"by_hand": 3, "fit": 8}[how]
    lost = found["steps"] - expected["steps"]
    assert 0 < lost <= kills * at_most
    assert found["result"] == expected["result"]


@pytest.fixture
def standard() -> Any:
    """Optax mixes types of numbers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


X = jnp.linspace(-1, 1, 16).reshape(-1, 1)


def line(model: Any, batch: Any) -> jax.Array:
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


def fit(folder: Path, epochs: int, seen: list[int] | None = None, **given: Any) -> Any:
    def batches(epoch: int) -> Any:
        if seen is not None:
            seen.append(epoch)
        order = np.random.default_rng([0, epoch]).permutation(16)
        return [(X[order[:8]], 3 * X[order[:8]]), (X[order[8:]], 3 * X[order[8:]])]

    options = {
        "optimizer": optax.inject_hyperparams(optax.adam)(0.1),
        "validation": [(X, 3 * X)],
        **given,
    }
    model = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    checkpoints = learn.Checkpoints(folder, best="min")
    return learn.fit(
        model,
        batches,
        line,
        epochs=epochs,
        checkpoints=checkpoints,
        progress=False,
        **options,
    )


def without_times(fitted: Any) -> Any:
    return fitted._replace(history=[x._replace(seconds=0) for x in fitted.history])


@pytest.mark.usefixtures("standard", "x64")
def test_fit_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[int] = []
    whole = fit(tmp_path / "whole", 7)
    fit(tmp_path / "parts", 3, seen)
    parts = fit(tmp_path / "parts", 7, seen)
    assert seen == list(range(7))
    assert bool(eqx.tree_equal(without_times(parts), without_times(whole)))
    # nothing is left to do
    again = fit(tmp_path / "parts", 7, seen)
    assert seen == list(range(7))
    assert bool(eqx.tree_equal(again, parts))


@pytest.mark.usefixtures("standard")
def test_fit_does_not_go_on_when_its_patience_was_over(tmp_path: Path) -> None:
    worse = optax.piecewise_constant_schedule(0.5, {3: 40.0})
    given: Any = {"optimizer": optax.sgd(worse), "patience": 2}
    first = fit(tmp_path, 50, **given)
    assert len(first.history) < 50
    second = fit(tmp_path, 50, **given)
    assert bool(eqx.tree_equal(second, first))
    checkpoints = learn.Checkpoints(tmp_path, best="min")
    assert checkpoints.steps[-1] == len(first.history)


@pytest.mark.usefixtures("standard")
def test_fit_does_not_go_on_from_another_model(tmp_path: Path) -> None:
    fit(tmp_path, 1)
    with pytest.raises(MetatensorError, match="the model in the file is another one"):
        fit(tmp_path, 2, optimizer=optax.sgd(0.1))
