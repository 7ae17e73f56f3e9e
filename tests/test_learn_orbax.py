"""Models, maps and batches go through Orbax, and their labels are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, learn

KEYS = Labels("center_type", [[1], [8]])


@pytest.fixture
def standard() -> Any:
    """Optax mixes types of numbers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def maps() -> dict[str, mts.TensorMap]:
    samples = Labels(["system", "atom"], [[0, 0], [0, 1], [1, 0]])
    rows = Labels(["sample", "atom"], [[0, 0], [2, 0]])
    p = Labels.range("p", 2)
    gradient = mts.TensorBlock(np.ones((2, 3, 2)), rows, [Labels.range("xyz", 3)], p)
    values = np.arange(6.0).reshape(3, 2)
    block = mts.TensorBlock(values, samples, [], p, {"positions": gradient})
    return {"x": mts.TensorMap(Labels.single(), [block]).to(dtype="float32")}


def run(seed: int, keys: Labels = KEYS, n: int = 3) -> Any:
    """A model, the state of its optimizer, a map, a batch, a key, and the position."""
    model = learn.Linear(keys, n, 2, key=jax.random.key(seed))
    return {
        "model": model,
        "state": optax.adam(0.1).init(eqx.filter(model, eqx.is_array)),
        "map": mts.multiply(maps()["x"], float(seed)),
        "batch": mts.Layout.fit(maps(), systems=3).pad(maps()),
        "key": jax.random.key(seed),
        "step": np.array(seed),
    }


@pytest.fixture
def manager(tmp_path: Path) -> Any:
    orbax = pytest.importorskip("orbax.checkpoint")
    options = orbax.CheckpointManagerOptions(
        max_to_keep=2, best_fn=lambda metrics: metrics["loss"], best_mode="min"
    )
    with orbax.CheckpointManager(tmp_path / "orbax", options=options) as manager:
        yield manager


def save_with_orbax(manager: Any, step: int, tree: Any, loss: float) -> None:
    args = pytest.importorskip("orbax.checkpoint").args
    both = args.Composite(
        arrays=args.StandardSave(eqx.filter(tree, eqx.is_array)),
        metadata=args.JsonSave(learn.metadata(tree)),
    )
    manager.save(step, args=both, metrics={"loss": loss})


def restore_with_orbax(manager: Any, step: int, like: Any) -> Any:
    args = pytest.importorskip("orbax.checkpoint").args
    arrays, static = eqx.partition(like, eqx.is_array)
    metadata = manager.restore(step, args=args.Composite(metadata=args.JsonRestore()))
    learn.check_metadata(like, metadata.metadata)
    found = manager.restore(
        step, args=args.Composite(arrays=args.StandardRestore(arrays))
    )
    return eqx.combine(found.arrays, static)


@pytest.mark.usefixtures("x64", "standard")
def test_models_maps_and_batches_go_through_orbax(manager: Any) -> None:
    for step, loss in [(1, 0.3), (2, 0.1), (3, 0.2)]:
        save_with_orbax(manager, step, run(step), loss)
    manager.wait_until_finished()
    assert (manager.best_step(), manager.latest_step()) == (2, 3)
    assert sorted(manager.all_steps()) == [2, 3]
    found, expected = restore_with_orbax(manager, 2, run(9)), run(2)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if eqx.is_array(b):
            assert a.dtype == b.dtype
            if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
                a, b = map(jax.random.key_data, (a, b))
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("standard")
def test_other_keys_are_found_with_orbax(manager: Any) -> None:
    save_with_orbax(manager, 1, run(1), 0.1)
    manager.wait_until_finished()
    turned = Labels("center_type", [[8], [1]])
    with pytest.raises(MetatensorError, match=r"in_keys.* is .*\[8\], \[1\].* but"):
        restore_with_orbax(manager, 1, run(1, turned))
    with pytest.raises(MetatensorError, match="in_features is 4 here, but 3 in the"):
        restore_with_orbax(manager, 1, run(1, n=4))


def test_metadata_is_json_and_all_of_it_is_compared() -> None:
    layout = mts.Layout.fit(maps(), systems=2)
    tree = {"model": run(1)["model"], "map": maps()["x"], "layout": layout}
    saved = json.loads(json.dumps(learn.metadata(tree)))
    learn.check_metadata(tree, saved)
    for name, value in saved.items():
        other = {**saved, name: "something else"}
        with pytest.raises(MetatensorError, match="something else") as caught:
            learn.check_metadata(tree, other)
        assert json.dumps(value) in str(caught.value)
        del other[name]
        with pytest.raises(MetatensorError, match="but missing in the checkpoint"):
            learn.check_metadata(tree, other)
    with pytest.raises(MetatensorError, match=r"more is missing here, but \[1\] in"):
        learn.check_metadata(tree, {**saved, "more": [1]})
