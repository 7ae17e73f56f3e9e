"""Models are saved and restored with what their labels say."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metatensor_jax as mts
from metatensor_jax import Labels, TensorMap, learn

KEYS = Labels(["center_type", "o3_lambda"], [[1, 0], [6, 0], [8, 1]])
OTHER_ORDER = Labels(KEYS.names, KEYS.values[[2, 0, 1]])


class Model(eqx.Module):
    """Maps and labels, numbers and functions, arrays of NumPy and JAX."""

    linear: learn.Linear
    mlps: learn.ModuleMap
    composition: TensorMap
    properties: Labels
    scale: np.ndarray
    half: jax.Array
    dropout: eqx.nn.Dropout
    power: float
    key: jax.Array

    def __init__(self, seed: int, keys: Labels = KEYS, power: float = 2.0) -> None:
        key = jax.random.key(seed)
        self.linear = learn.Linear(keys, 3, 2, key=key)
        order = KEYS.select(keys)
        mlps = [eqx.nn.MLP(2, 1, 4, 1, key=k) for k in jax.random.split(key, 3)]
        self.mlps = learn.ModuleMap(keys, [mlps[i] for i in order])
        block = mts.block_from_array(np.full((2, 1), seed, "f8"))
        self.composition = TensorMap(Labels.range("k", 1), [block])
        self.properties = Labels.range("energy", 1)
        self.scale = np.arange(3, dtype=">i2") + np.int16(seed)
        self.half = jnp.full(2, seed, jnp.bfloat16)
        self.dropout = eqx.nn.Dropout(0.1 * seed, inference=bool(seed % 2))
        self.power = power
        self.key = key


def assert_equal(a: Any, b: Any) -> None:
    first, second = (
        jax.tree.map(
            lambda x: (
                jax.random.key_data(x)
                if isinstance(x, jax.Array)
                and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
                else x
            ),
            tree,
        )
        for tree in (a, b)
    )
    assert bool(eqx.tree_equal(first, second, typematch=True))


@pytest.fixture
def standard() -> Any:
    """Optax mixes types of numbers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("as_struct", [False, True])
def test_round_trip(tmp_path: Path, as_struct: bool) -> None:
    model = Model(3)
    learn.save(tmp_path / "model.mjm", model)
    like = Model(4)
    if as_struct:
        like = eqx.tree_at(
            lambda m: m.half, like, jax.ShapeDtypeStruct((2,), jnp.bfloat16)
        )
    before = jax.tree.leaves(like)
    restored = learn.load(tmp_path / "model.mjm", like)
    assert_equal(restored, model)
    assert all(a is b for a, b in zip(jax.tree.leaves(like), before, strict=True))
    assert isinstance(restored.scale, np.ndarray)
    assert isinstance(restored.half, jax.Array)


def test_keys_in_another_order(tmp_path: Path) -> None:
    model = Model(3)
    learn.save(tmp_path / "model.mjm", model)
    restored = learn.load(tmp_path / "model.mjm", Model(7, OTHER_ORDER))
    assert restored.mlps.in_keys == OTHER_ORDER
    for key, module in zip(OTHER_ORDER, restored.mlps.modules, strict=True):
        position = KEYS.position(key)
        assert position is not None
        assert_equal(module, model.mlps.modules[position])
    block = mts.block_from_array(np.ones((2, 3), "f4"))
    x = TensorMap(KEYS, [block] * 3)
    assert mts.allclose(restored.linear(x), model.linear(x))


def test_other_keys_raise(tmp_path: Path) -> None:
    learn.save(tmp_path / "model.mjm", Model(3))
    keys = Labels(KEYS.names, [[1, 0], [6, 0], [7, 1]])
    with pytest.raises(mts.MetatensorError, match="in_keys are") as caught:
        learn.load(tmp_path / "model.mjm", with_keys(keys))
    assert "8" in str(caught.value)
    assert "7" in str(caught.value)
    assert "model.mjm" in caught.value.__notes__[0]


def with_keys(keys: Labels) -> Any:
    return eqx.tree_at(
        lambda m: (m.linear, m.mlps),
        Model(3),
        (
            learn.Linear(keys, 3, 2, key=jax.random.key(0)),
            learn.ModuleMap(keys, Model(3).mlps.modules),
        ),
    )


CHANGED: dict[str, tuple[Any, str]] = {
    "shape": (
        lambda m: eqx.tree_at(lambda m: m.half, m, jnp.ones(3, jnp.bfloat16)),
        r"bfloat16\[3\] in the model, but bfloat16\[2\]",
    ),
    "dtype": (
        lambda m: eqx.tree_at(lambda m: m.half, m, jnp.ones(2)),
        r"float32\[2\] in the model, but bfloat16",
    ),
    "labels": (
        lambda m: eqx.tree_at(
            lambda m: m.properties,
            m,
            Labels.range("e", 1),
            is_leaf=lambda x: isinstance(x, Labels),
        ),
        r"\.properties are",
    ),
    "less": (lambda m: eqx.tree_at(lambda m: m.linear, m, None), "has besides"),
    "more": (lambda m: {"model": m}, "lacks"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_another_model_raises(tmp_path: Path, name: str) -> None:
    change, match = CHANGED[name]
    learn.save(tmp_path / "model.mjm", Model(3))
    with pytest.raises(mts.MetatensorError, match=match):
        learn.load(tmp_path / "model.mjm", change(Model(3)))


@pytest.mark.usefixtures("standard")
def test_the_state_of_an_optimizer_and_a_layout_go_along(tmp_path: Path) -> None:
    def everything(seed: int, keys: Labels = KEYS) -> dict[str, Any]:
        model = learn.Linear(keys, 3, 2, key=jax.random.key(seed))
        optimizer = optax.adamw(optax.linear_schedule(1e-2, 0, 10))
        params = eqx.filter(model, eqx.is_array)
        state = optimizer.init(params)
        for _ in range(seed):
            _, state = optimizer.update(params, state, params)
        block = mts.block_from_array(np.ones((2 * seed, 3), "f4"), ["system"])
        layout = mts.Layout.fit(TensorMap(KEYS, [block] * 3), systems=seed)
        return {"model": model, "optimizer": state, "layout": layout, "step": seed}

    saved = everything(3)
    learn.save(tmp_path / "all.mjm", saved)
    restored = learn.load(tmp_path / "all.mjm", everything(1))
    assert restored["step"] == 3
    assert restored["layout"].to_json() == saved["layout"].to_json()
    assert_equal(restored["optimizer"], saved["optimizer"])
    # the moments of each weight go with its key, too
    turned = learn.load(tmp_path / "all.mjm", everything(1, OTHER_ORDER))
    moments = [x["optimizer"][0].mu.module_map.modules for x in (turned, saved)]
    assert_equal(moments[0][0], moments[1][2])


def test_modules_that_are_held_together_go_to_their_keys(tmp_path: Path) -> None:
    def model(keys: Labels, together: bool, seed: int = 0) -> learn.ModuleMap:
        layers = list(
            learn.Linear(keys, 3, 2, key=jax.random.key(seed)).module_map.modules
        )
        return learn.ModuleMap(
            keys, learn.StackedModules(layers) if together else layers
        )

    saved = model(KEYS, True)
    learn.save(tmp_path / "model.mjm", saved)
    for as_one in (True, False):
        restored = learn.load(tmp_path / "model.mjm", model(OTHER_ORDER, as_one, 1))
        assert isinstance(restored.modules, learn.StackedModules) == as_one
        for key, module in zip(OTHER_ORDER, restored.modules, strict=True):
            assert_equal(module, saved.modules[KEYS.position(key)])
    shapes = eqx.filter_eval_shape(model, KEYS, True)
    assert_equal(learn.load(tmp_path / "model.mjm", shapes), saved)


def of_labels(**changed: Labels) -> TensorMap:
    """A map with a gradient, of which some labels are others."""
    labels = {
        "keys": Labels("k", [[1], [2]]),
        "samples": Labels.range("system", 2),
        "components": Labels.range("xyz", 3),
        "properties": Labels.range("n", 2),
        "of_gradient": Labels(["sample", "atom"], [[0, 5], [1, 6]]),
        **changed,
    }
    properties = labels["properties"]
    gradient = mts.TensorBlock(
        np.ones((2, 3, 2), "f4"),
        labels["of_gradient"],
        [labels["components"]],
        properties,
    )
    samples, components = labels["samples"], [labels["components"]]
    values = np.ones((2, 3, 2), "f4")
    block = mts.TensorBlock(values, samples, components, properties, {"x": gradient})
    return TensorMap(labels["keys"], [block, block])


OTHER_LABELS: dict[str, tuple[Labels, str]] = {
    "keys": (Labels("k", [[1], [3]]), r"\.keys are"),
    "order of keys": (Labels("k", [[2], [1]]), r"\.keys are"),
    "samples": (Labels("system", [[0], [7]]), r"\.samples are"),
    "components": (Labels("xyz", [[0], [2], [1]]), r"\.components\[0\] are"),
    "properties": (Labels("n", [[1], [0]]), r"\.properties are"),
    "of_gradient": (
        Labels(["sample", "atom"], [[0, 5], [1, 7]]),
        r"\.gradient\('x'\)\.samples are",
    ),
}


HELD: dict[str, Any] = {
    "map": lambda tensor: tensor,
    "block": lambda tensor: tensor.block_by_id(0),
    "stacked": mts.stack_blocks,
}


@pytest.mark.parametrize(
    ("held", "name"),
    [(x, y) for x in HELD for y in OTHER_LABELS if x != "block" or "keys" not in y],
)
def test_labels_inside_of_maps(tmp_path: Path, held: str, name: str) -> None:
    """Only values were compared: weights went to the rows of other labels."""

    def model(**changed: Labels) -> Any:
        return [learn.Buffer(HELD[held](of_labels(**changed)))]

    labels, match = OTHER_LABELS[name]
    learn.save(tmp_path / "model.mjm", model())
    assert_equal(learn.load(tmp_path / "model.mjm", model()), model())
    other = model(**{name.removeprefix("order of "): labels})
    with pytest.raises(mts.MetatensorError, match=match) as caught:
        learn.load(tmp_path / "model.mjm", other)
    assert str(labels) in str(caught.value)


def test_the_info_of_maps(tmp_path: Path) -> None:
    tensor = of_labels()
    learn.save(tmp_path / "model.mjm", {"x": tensor.with_info("unit", "eV")})
    match = (
        r"\['x'\]\.info is \(\('unit', 'kcal'\),\) in the model, but "
        r"\(\('unit', 'eV'\),\) in the file"
    )
    with pytest.raises(mts.MetatensorError, match=match):
        learn.load(tmp_path / "model.mjm", {"x": tensor.with_info("unit", "kcal")})


def layout(systems: int) -> mts.Layout:
    return mts.Layout.fit(of_labels(), systems=systems)


class Static(eqx.Module):
    """A module without any leaf."""

    value: Any = eqx.field(static=True)


@pytest.mark.parametrize(
    ("saved", "other"),
    [
        (2, 3),
        (1, True),
        (1, 1.0),
        (1e-5, 1e-6),
        ("a", None),
        ((3, ("same", 1)), (3, ("same", 2))),
        (layout(2), layout(3)),
    ],
)
def test_static_fields(tmp_path: Path, saved: Any, other: Any) -> None:
    path = tmp_path / "model.mjm"
    learn.save(path, [Static(saved)])
    assert learn.load(path, [Static(saved)]) == [Static(saved)]
    with pytest.raises(mts.MetatensorError, match=r"\[0\]\.value is") as caught:
        learn.load(path, [Static(other)])
    assert f"is {other!r} in the model, but {saved!r} in" in str(caught.value)


def test_static_fields_that_are_the_same(tmp_path: Path) -> None:
    """Functions are left alone, and NaN is NaN."""
    path = tmp_path / "model.mjm"
    learn.save(path, [Static(jnp.tanh), Static(float("nan")), Static(KEYS)])
    like = [Static(jnp.sin), Static(float("nan")), Static(KEYS)]
    assert learn.load(path, like)[0].value is jnp.sin
    like[2] = Static(OTHER_ORDER)
    with pytest.raises(mts.MetatensorError, match=r"the labels \[2\]\.value are"):
        learn.load(path, like)


def test_running_averages(tmp_path: Path) -> None:
    """A state is saved with its model; it is in the order of the keys."""

    class Normed(eqx.Module):
        norms: learn.ModuleMap

        def __init__(self, keys: Labels) -> None:
            norms = [eqx.nn.BatchNorm(2, "samples", mode="ema") for _ in keys]
            self.norms = learn.ModuleMap(keys, norms)

    def everything(keys: Labels) -> dict[str, Any]:
        model, state = eqx.nn.make_with_state(Normed)(keys)
        return {"model": model, "state": state}

    path = tmp_path / "model.mjm"
    saved = everything(KEYS)
    index = saved["model"].norms.modules[1].ema_state_index
    averages = jnp.ones(2), jnp.full(2, 3.0, jnp.float32)
    learn.save(path, {**saved, "state": saved["state"].set(index, averages)})
    restored = learn.load(path, everything(KEYS))
    index = restored["model"].norms.modules[1].ema_state_index
    assert_equal(restored["state"].get(index), averages)
    with pytest.raises(mts.MetatensorError, match="marker is"):
        learn.load(path, everything(OTHER_ORDER))


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.mjm"
    learn.save(path, Model(3))
    content = path.read_bytes()

    def in_program(x: jax.Array) -> jax.Array:
        with pytest.raises(mts.MetatensorError, match="being traced"):
            learn.save(path, {"x": x})
        return x

    jax.jit(in_program)(jnp.ones(1))
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["model.mjm"]


def test_labels_and_maps_are_printed_in_one_line() -> None:
    class Holder(eqx.Module):
        keys: Labels
        one: Labels
        tensor: TensorMap
        block: mts.TensorBlock

    block = mts.block_from_array(np.ones((2, 1), "f4"))
    holder = Holder(KEYS, Labels.single(), TensorMap(KEYS, [block] * 3), block)
    assert str(holder).partition("Holder(")[2] == (
        "\n"
        "  keys=Labels(center_type, o3_lambda: 3 entries),\n"
        "  one=Labels(_=0),\n"
        "  tensor=TensorMap(center_type, o3_lambda: 3 blocks),\n"
        "  block=TensorBlock([2,1])\n"
        ")"
    )


@pytest.mark.parametrize("damage", ["cut", "text", "other", "newer", "member"])
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.mjm"
    learn.save(path, {"x": jnp.ones(2)})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:40])
    elif damage == "text":
        path.write_text("not a model")
    else:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read("model.json"))
        if damage == "other":
            header["format"] = "something"
        elif damage == "newer":
            header["version"] = 99
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.json", json.dumps(header))
    with pytest.raises(ValueError, match=r"model\.mjm|version 99|no file that"):
        learn.load(path, {"x": jnp.zeros(2)})
