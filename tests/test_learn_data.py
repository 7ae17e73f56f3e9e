"""Data sets and loaders: metatensor-learn's surface, and batches that come in order."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import assert_same
from hypothesis import given, settings, strategies as st
from test_layout import SYSTEMS, batch

import metatensor_jax as mts
from metatensor_jax import Layout, MetatensorError, Store

pytest.importorskip("equinox")

from metatensor_jax.learn.data import (
    DataLoader,
    Dataset,
    IndexedDataset,
    Plan,
    group,
    group_and_join,
)

needs_grain = pytest.mark.skipif(
    pytest.importorskip("importlib.util").find_spec("grain") is None, reason="no grain"
)

DATA = batch(SYSTEMS)
MANY = [s._replace(number=i) for i, s in enumerate(SYSTEMS * 5)]
STORE = Store.from_maps(batch(MANY))


# --- data sets -----------------------------------------------------------------------


def test_a_dataset_has_named_fields() -> None:
    called = []
    dataset = Dataset(x=[1, 2], y=lambda i: called.append(i) or 10 * i)
    assert len(dataset) == 2
    assert called == []
    assert dataset[1] == (2, 10)
    assert dataset[1].y == 10
    assert dataset[0]["x"] == 1
    assert list(dataset) == [(1, 0), (2, 10)]
    named = Dataset.from_dict({"a/b": [1], "class": ["x"]})[0]
    assert repr(named) == "Sample('a/b'=1, 'class'='x')"
    assert named._asdict() == {"a/b": 1, "class": "x"}
    assert pickle.loads(pickle.dumps(named)) == named


def test_an_indexed_dataset_has_names_of_samples() -> None:
    dataset = IndexedDataset(sample_id=["cat", "dog"], size=len, y=[1, 2])
    assert dataset[0] == dataset.get_sample("cat") == ("cat", 3, 1)
    other = IndexedDataset.from_dict({"a b": [3, 4]}, sample_id=[(0, 1), 7])
    assert other.get_sample((0, 1))["a b"] == 3


def test_errors_are_those_of_metatensor_learn() -> None:
    """The same kinds, with the same words."""
    theirs = pytest.importorskip("metatensor_learn.data")
    from metatensor_jax.learn import data as ours

    calls = [
        lambda m: m.Dataset(x=[1], y=[1, 2]),
        lambda m: m.Dataset(x=[1], size=2),
        lambda m: m.Dataset(x=lambda i: i),
        lambda m: m.Dataset(x=3),
        lambda m: m.Dataset(sample_id=[1]),
        lambda m: m.Dataset.from_dict({"sample_id": [1]}),
        lambda m: m.Dataset(x=[1])[1],
        lambda m: m.Dataset(x=[1])[-1],
        lambda m: m.Dataset(x=lambda i: 1 // i, size=1)[0],
        lambda m: m.IndexedDataset(sample_id=[1, 1], x=[1, 2]),
        lambda m: m.IndexedDataset(sample_id=[1, 2], x=[1]),
        lambda m: m.IndexedDataset(sample_id=[1], x=[1]).get_sample(3),
        lambda m: m.IndexedDataset(sample_id=["a"], x=lambda i: 1 // 0)[0],
        lambda m: m.Dataset(x=[1, "a"]),
    ]
    for call in calls:
        messages = []
        for module in (theirs, ours):
            with pytest.raises((ValueError, TypeError)) as error:
                call(module)
            messages.append((isinstance(error.value, ValueError), str(error.value)))
        assert messages[1][0] == messages[0][0]
        assert messages[1][1].startswith(messages[0][1])


def test_group_and_join() -> None:
    items = [batch([s], seed=i) for i, s in enumerate(SYSTEMS)]
    dataset = IndexedDataset(
        sample_id=["a", "b", "c", "d"],
        energies=[x["energies"] for x in items],
        features=[x["features"] for x in items],
        array=[np.full((1, 2), i) for i in range(4)],
        jax=[jnp.full((1, 2), i) for i in range(4)],
        name=["w", "m", "f", "h"],
    )
    samples = [dataset[i] for i in (2, 0)]
    grouped = group(samples)
    assert grouped.sample_id == ("c", "a")
    assert grouped.energies == (items[2]["energies"], items[0]["energies"])
    joined = group_and_join(samples, join_kwargs={"different_keys": "union"})
    assert joined.sample_id == ("c", "a")
    assert joined.name == ("f", "w")
    assert joined.array.tolist() == [[2, 2], [0, 0]]
    assert isinstance(joined.jax, jax.Array)
    expected = mts.join([items[2]["energies"], items[0]["energies"]], "samples")
    assert_same(joined.energies, expected)
    some = group_and_join(samples, fields_to_join=["array"])
    assert isinstance(some.energies, tuple)
    assert some.array.shape == (2, 2)
    for empty in (group, group_and_join):
        with pytest.raises(MetatensorError, match="no samples"):
            empty([])


# --- plans ---------------------------------------------------------------------------

PLANS = st.builds(
    dict,
    n_systems=st.integers(0, 60),
    batch_size=st.integers(1, 9),
    shuffle=st.booleans(),
    seed=st.integers(0, 9),
    drop_last=st.booleans(),
)


@given(PLANS, st.integers(0, 3), st.one_of(st.none(), st.integers(9, 30)))
@settings(max_examples=150, deadline=None)
def test_plans(options: dict[str, Any], epoch: int, budget: int | None) -> None:
    if budget is not None:
        sizes = np.random.default_rng(0).integers(0, 10, options["n_systems"])
        options |= {"budget": budget, "sizes": sizes}
    batches = Plan(**options).batches(epoch)
    systems = np.concatenate([np.zeros(0, int), *batches])
    assert len(np.unique(systems)) == len(systems)
    assert all(0 < len(x) <= options["batch_size"] for x in batches)
    if budget is not None:
        assert all(options["sizes"][x].sum() <= budget for x in batches)
    if not options["drop_last"]:
        assert sorted(systems.tolist()) == list(range(options["n_systems"]))
    elif budget is None:
        assert all(len(x) == options["batch_size"] for x in batches)
    again = Plan(**options).batches(epoch)
    assert [x.tolist() for x in again] == [x.tolist() for x in batches]
    for count in (2, 3):
        shares = [
            Plan(**options, shard=(i, count)).batches(epoch) for i in range(count)
        ]
        assert {len(share) for share in shares} == {len(batches) // count}
        dealt = [x.tolist() for of_all in zip(*shares, strict=True) for x in of_all]
        assert dealt == [x.tolist() for x in batches][: len(dealt)]


def test_epochs_are_in_other_orders() -> None:
    plan = Plan(30, batch_size=30, shuffle=True, seed=3)
    orders = [plan.batches(epoch)[0].tolist() for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]
    other = Plan(30, batch_size=30, shuffle=True, seed=4).batches(0)[0].tolist()
    assert other != orders[0]


def test_batches_are_packed_well() -> None:
    sizes = np.random.default_rng(0).integers(3, 30, 2000)
    plan = Plan(2000, 64, shuffle=True, budget=200, sizes=sizes)
    batches = plan.batches(0)
    assert plan.fill(batches) > 0.97
    assert len(batches) <= 1.04 * sizes.sum() / 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "must be at least 1, not 0"),
        ({"shard": (2, 2)}, r"not \(2, 2\)"),
        ({"budget": 3}, "give both"),
        ({"budget": 3, "sizes": [1, 4]}, "system 1 has a size of 4, but the budget"),
        ({"budget": 3, "sizes": [1]}, r"got shape \(1,\)"),
    ],
)
def test_bad_plans(options: Any, message: str) -> None:
    with pytest.raises(MetatensorError, match=message):
        Plan(2, **options)


# --- loaders -------------------------------------------------------------------------


@needs_grain
@pytest.mark.parametrize("n_workers", [0, 2])
def test_batches_of_a_store(n_workers: int) -> None:
    loader = DataLoader(
        STORE, batch_size=3, shuffle=True, seed=1, num_workers=n_workers
    )
    plan = Plan(20, 3, shuffle=True, seed=1)
    for epoch in range(2 - (n_workers > 0)):
        assert len(loader) == 7
        expected = [STORE.batch(x, loader.layout) for x in plan.batches(epoch)]
        for one, other in zip(loader, expected, strict=True):
            assert_same(one, other)
    state = loader.state()
    assert (state["epoch"], state["step"]) == (2 - (n_workers > 0), 0)


@needs_grain
def test_it_goes_on_where_it_was() -> None:
    def numbers(loader: DataLoader, n: int) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < n:
            for one in loader:
                found.append(one.systems.tolist())
                if len(found) == n:
                    break
        return found

    options = {"batch_size": 3, "shuffle": True, "seed": 2}
    whole = numbers(DataLoader(STORE, **options), 16)
    for stop in (1, 6, 7, 10):
        loader = DataLoader(STORE, **options)
        before = numbers(loader, stop)
        other = DataLoader(STORE, **options)
        other.restore(loader.state())
        assert before + numbers(other, 16 - stop) == whole
    for other, name in (
        (DataLoader(STORE, **{**options, "seed": 0}), "seed was 2"),
        (DataLoader(STORE, **{**options, "batch_size": 4}), "batch_size was 3"),
        (DataLoader(STORE, **{**options, "shuffle": False}), "shuffle was True"),
    ):
        with pytest.raises(MetatensorError, match=f"its {name}"):
            other.restore(loader.state())
    with pytest.raises(MetatensorError, match="at batch 99, but an epoch has 7"):
        DataLoader(STORE, **options).restore(loader.state() | {"step": 99})


@needs_grain
def test_each_for_is_an_epoch() -> None:
    def numbers(batches: Any) -> list[list[int]]:
        return [one.systems.tolist() for one in batches]

    options = {"batch_size": 8, "shuffle": True}
    loader = DataLoader(STORE, **options)
    epochs = [numbers(DataLoader(STORE, **options)(i)) for i in range(3)]
    assert [len(x) for x in epochs] == [3, 3, 3]
    pairs = zip(loader, loader, strict=True)
    both = [(a.systems.tolist(), b.systems.tolist()) for a, b in pairs]
    assert both == [(x, x) for x in epochs[0]]
    for one in loader:
        assert one.systems.tolist() == epochs[1][0]
        break
    assert numbers(loader) == epochs[2]
    assert numbers(loader(1)) == epochs[1]


@needs_grain
def test_processes_have_the_same_layouts() -> None:
    """Also with a budget, and where one of them has smaller batches."""
    options = {"batch_size": 6, "budget": 12, "sizes": "positions", "shuffle": True}
    loaders = [DataLoader(STORE, **options, shard=(i, 2)) for i in range(2)]
    for _ in range(3):
        for loader in loaders:
            list(loader)
        assert loaders[0].layout == loaders[1].layout
    again = DataLoader(STORE, **options, shard=(0, 2))
    again.restore(loaders[0].state())
    assert again.layout == loaders[0].layout


@needs_grain
def test_fit_goes_on_with_the_batches_of_its_epoch(tmp_path: Any) -> None:
    import equinox as eqx
    import optax

    from metatensor_jax import learn

    def loss(model: Any, batch: Any) -> Any:
        values = batch["positions"].block().values[..., 0].sum(axis=1, keepdims=True)
        return jnp.mean(jax.vmap(model)(values) ** 2)

    def train(name: str, epochs: int) -> Any:
        loader = DataLoader(STORE, batch_size=4, shuffle=True)
        model = eqx.nn.Linear(1, 1, key=jax.random.key(0))
        options = {"epochs": epochs, "checkpoints": learn.Checkpoints(tmp_path / name)}
        return learn.fit(
            model,
            loader,
            loss,
            optax.sgd(1e-4, momentum=0.9),
            progress=False,
            **options,
        )

    train("a", 2)
    halves, whole = train("a", 4), train("b", 4)
    assert [x.loss for x in halves.history] == [x.loss for x in whole.history]
    assert len({x.loss for x in whole.history}) == 4


@needs_grain
def test_folded_batches_share_a_program() -> None:
    loader, traces = DataLoader(STORE, batch_size=4, shuffle=True, fold=True), []

    @jax.jit
    def total(folded: mts.Folded) -> jax.Array:
        traces.append(1)
        return folded.unfold()["energies"].block().values.sum()

    values = sum(float(total(folded)) for folded in loader)
    expected = STORE.maps(range(20))["energies"].block().values.sum()
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert len(traces) == 1


@needs_grain
def test_batches_by_a_budget() -> None:
    loader = DataLoader(
        STORE, batch_size=6, budget=12, sizes="positions", shuffle=True, seed=5
    )
    n_atoms = STORE.counts("positions")
    for _ in range(4):
        for one in loader:
            assert one["positions"].block().mask.sum() <= 12
    assert loader.n_grown <= 3
    by_count = DataLoader(STORE, batch_size=6)
    assert loader.overhead() < by_count.overhead()
    assert "20 systems" in repr(loader)
    assert "padded rows for each real one" in repr(loader)
    assert n_atoms.sum() == 70


@needs_grain
def test_a_layout_that_is_too_small() -> None:
    small = STORE.layout(3, batches=[[1], [3]])
    with pytest.raises(MetatensorError, match="the layout has room for"):
        list(DataLoader(STORE, layout=small, batch_size=3))
    loader = DataLoader(STORE, layout=small, batch_size=3, grow=True)
    for _ in range(2):
        assert len(list(loader)) == 7
    assert loader.n_grown == 1
    with pytest.raises(MetatensorError, match="these layouts are for other data"):
        small.union(STORE.layout(2))


@needs_grain
def test_samples_are_joined_and_padded() -> None:
    items = [batch([s], seed=i) for i, s in enumerate(MANY[:6])]
    dataset = Dataset(
        positions=[x["positions"] for x in items],
        energies=[x["energies"] for x in items],
    )
    joined = list(DataLoader(dataset, batch_size=4))
    assert [len(x.energies.block()) for x in joined] == [4, 2]
    layout = Layout.fit(
        [{"positions": x["positions"], "energies": x["energies"]} for x in items], 4
    )
    padded = list(DataLoader(dataset, batch_size=4, layout=layout))
    assert [x.systems.tolist()[:2] for x in padded] == [[0, 1], [4, 5]]
    numbers = list(DataLoader([1, 2, 3], sum, batch_size=2))
    assert numbers == [3, 3]


@needs_grain
def test_what_does_not_go_together() -> None:
    with pytest.raises(MetatensorError, match="give no `collate_fn`"):
        DataLoader(STORE, group)
    with pytest.raises(MetatensorError, match="are for a Store, not for a list"):
        DataLoader([1, 2], fold=True)
    with pytest.raises(MetatensorError, match="known of a Store alone"):
        DataLoader([1, 2]).overhead()


def test_the_message_without_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"pip install metatensor-jax\[data\]"):
        DataLoader(STORE)


@pytest.mark.parametrize("jit", [False, True])
def test_losses_of_a_batch_that_is_not_full(jit: bool) -> None:
    """What is predicted has a row for each system that there is room for."""
    from metatensor_jax import learn

    layout = STORE.layout(6)
    padded = STORE.batch([1, 4], layout)

    def loss(batch: Any) -> Any:
        atoms = mts.sum_over_samples(
            batch["positions"], "atom", out_samples=batch.out_samples
        )
        values = atoms.block().values.sum(axis=1)
        known = mts.remove_gradients(batch["energies"]).block()
        block = mts.TensorBlock(values, atoms.block().samples, [], known.properties)
        predicted = mts.TensorMap(batch["energies"].keys, [block])
        return learn.mean_squared(predicted, mts.remove_gradients(batch["energies"]))

    maps = STORE.maps([1, 4])
    sums = [0.0, 0.0]
    position = {1: 0, 4: 1}
    block = maps["positions"].block()
    for row, value in zip(block.samples.values.tolist(), block.values, strict=True):
        sums[position[row[0]]] += float(value.sum())
    known = maps["energies"].block().values[:, 0]
    expected = float(np.mean((np.array(sums) - known) ** 2))
    found = (jax.jit(loss) if jit else loss)(padded)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
