"""Several devices: what one would compute, and which data each has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from builders import assert_same, enable_x64
from hypothesis import given, strategies as st
from programs import in_two_processes, on_devices
from test_layout import SYSTEMS, batch

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorBlock, TensorMap, sharding

TESTS = Path(__file__).parent
MESH = sharding.data_mesh(jax.devices()[:1])
DTYPES = ["float32", "float64"]
#: errors that rounding can make: sums of at most some hundred numbers, in three steps
ROUNDING = {"float32": 3e-6, "float64": 5e-15}

_STEPS = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import data_parallel
data_parallel.main(*sys.argv[1:])
"""


def result_of(output: str) -> Any:
    """Gloo and JAX print lines of their own."""
    return json.loads(output[output.index("RESULT") + len("RESULT") :].splitlines()[0])


def assert_same_steps(result: Any, dtype: str) -> None:
    """The losses and the updated parameters are those of one device."""
    for alone, together in result["losses"]:
        assert together == pytest.approx(alone, rel=ROUNDING[dtype])
    assert result["error"] < ROUNDING[dtype]
    assert result["moved"] > 0.1


# --- a batch for each device ----------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_eight_devices_train_as_one(dtype: str) -> None:
    result = result_of(on_devices(8, _STEPS, dtype))
    train, large = result["train"], result["large"]
    assert_same_steps(train, dtype)
    assert train["dtype"] == dtype
    # in the last step devices have one system, or none
    assert train["shares"] == [[3] * 8, [3] * 8, [1] * 5 + [0] * 3]
    # sizes differ, so that a mean of the means of devices is something else
    assert abs(train["mean_of_means"] / train["losses"][0][0] - 1) > 1e-3
    # sums of losses and derivatives are all that goes between devices
    assert train["travels"] == ["all-reduce"]
    assert_same_steps(large, dtype)
    assert large["parts"] == [-(-large["rows"] // 8)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_processes_train_as_one_device(dtype: str) -> None:
    results = [result_of(x) for x in in_two_processes(_STEPS, dtype)]
    for result in results:
        assert_same_steps(result["train"], dtype)
        assert_same_steps(result["large"], dtype)
        assert result["train"]["n_devices"] == 4
    # each made the batches of its own devices, by the same plan
    assert [x["train"]["own"] for x in results] == [[0, 1], [2, 3]]
    assert results[0]["train"]["losses"] == results[1]["train"]["losses"]


_PLACES = f"""
import sys
sys.path[:0] = [{str(TESTS)!r}]
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import data_parallel
import metatensor_jax as mts
from metatensor_jax import sharding

mesh, n = sharding.data_mesh(), 8
sizes = [2, 3, 1, 4, 2, 3, 5, 1, 2, 2]
store = mts.Store.from_maps(data_parallel.data(sizes, "float32"))
layout = store.layout(systems=2)
plan = sharding.plan_epoch(len(store), n, 2, seed=0)
assert plan.shape == (1, 8, 2)

# each device has its own batch, and nothing else
single = [store.batch(row[row >= 0], layout) for row in plan[0]]
stacked = sharding.shard(single, mesh)
for leaf, *parts in zip(*map(jax.tree.leaves, [stacked, *single])):
    assert leaf.shape == (8, *parts[0].shape)
    for part in leaf.addressable_shards:
        at = part.index[0].start
        assert part.device == mesh.devices[at]
        np.testing.assert_array_equal(part.data[0], parts[at])
again = sharding.unshard(stacked, mesh)
for mine, its in zip(again, single, strict=True):
    assert jax.tree.structure(mine) == jax.tree.structure(its)
    jax.tree.map(np.testing.assert_array_equal, mine, its)

# what is predicted on each device, with the labels that systems had before
def atoms(batch):
    merged = batch["features"].keys_to_samples("center_type")
    names = ["atom", "center_type"]
    return mts.sum_over_samples(merged, names, out_samples=batch.out_samples)

expected = store.maps(range(len(store)))
expected = mts.sum_over_samples(
    expected["features"].keys_to_samples("center_type"), ["atom", "center_type"]
)
results = sharding.unshard(jax.jit(jax.vmap(atoms))(stacked), mesh)
labelled = [layout.unpad(x, b.systems) for x, b in zip(results, single)]
found = mts.sort(mts.join(labelled, "samples"), "samples")
mts.allclose_raise(found, mts.sort(expected, "samples"))

# results that the compiler placed in another way
odd = jax.device_put(
    np.arange(64.0, dtype="f4").reshape(8, 8),
    NamedSharding(mesh, PartitionSpec(None, "data")),
)
for i, row in enumerate(sharding.unshard(odd, mesh)):
    np.testing.assert_array_equal(row, np.arange(8) + 8 * i)

# an epoch is one program, from a store that is on all devices
placed = store.on_device(layout, NamedSharding(mesh, PartitionSpec()))
order = jax.device_put(plan, NamedSharding(mesh, PartitionSpec(None, "data")))

@jax.jit
def epoch(store, order):
    def step(total, systems):
        one = lambda at: atoms(store.batch(at)).block().values.sum()
        return total + jax.vmap(one)(systems).sum(), None
    return jax.lax.scan(step, 0.0, order)[0]

total = expected.block().values.sum()
np.testing.assert_allclose(epoch(placed, order), total, rtol=1e-5)
program = epoch.lower(placed, order).compile().as_text()
assert data_parallel.communication(program) == ["all-reduce"]

# a mesh of two axes: batches are the same along the other one
grid = Mesh(np.array(jax.devices()).reshape(2, 4), ("model", "data"))
assert sharding.positions(grid) == [0, 1, 2, 3]
four = sharding.shard(single[:4], grid)
leaf = jax.tree.leaves(four)[0]
assert leaf.shape[0] == 4 and len(leaf.addressable_shards) == 8
for mine, its in zip(sharding.unshard(four, grid), single):
    jax.tree.map(np.testing.assert_array_equal, mine, its)

# what does not fit together
other = store.batch([0], store.layout(systems=3))
labelled = dict(zip("ab", np.zeros((2, 1), "f4")))
for wrong in (single[:7], [*single[:7], other], [labelled, *single[:7]]):
    try:
        sharding.shard(wrong, mesh)
    except mts.MetatensorError as error:
        print(error)
"""


def test_where_batches_are() -> None:
    few, shapes, structures = on_devices(8, _PLACES).strip().splitlines()
    assert few == (
        "`batches` must be one for each of the 8 positions along 'data' that have a "
        "device of this process, got 7"
    )
    assert re.fullmatch(
        r"batch 0 has float32 of shape \(2, 1\) where batch 7 has float32 of shape "
        r"\(3, 1\), at `.*energy.*`: pad both by one Layout, with one bucket",
        shapes,
    )
    assert structures.startswith("batches 0 and 1 differ in more than their data")


_PAGE = f"""
import sys, pytest
sys.exit(pytest.main(["-q", "-k", "devices", {str(TESTS / "test_docs_pages.py")!r}]))
"""


def test_the_page_runs_on_eight_devices() -> None:
    assert "1 passed" in on_devices(8, _PAGE)


# --- one system over all devices ------------------------------------------------------

_REDUCTIONS = f"""
import sys
sys.path[:0] = [{str(TESTS)!r}]
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from test_layout import System, features
import metatensor_jax as mts
from metatensor_jax import Labels, sharding

x64 = sys.argv[1] == "float64"
jax.config.update("jax_enable_x64", x64)
mesh = sharding.data_mesh()
rng = np.random.default_rng(0)
# two systems and many gradients, of gradients as well; 8 divides no number of rows
systems = [System(1, (1, 6, 6, 8, 1, 1, 6, 8, 1)), System(0, (6, 1, 1))]
whole = features(systems, rng, density=0.7, empty=(8,)).to(dtype=sys.argv[1])
cut = sharding.shard_samples(whole, mesh)
for block, its in zip(cut, whole, strict=True):
    rows = len(its.samples)
    assert len(block.samples) == -(-rows // 8) * 8
    assert int(block.mask.sum()) == rows
    for part in block.values.addressable_shards:
        assert part.data.shape[0] == len(block.samples) // 8
assert cut.info() == whole.info() and cut.keys == whole.keys

groups = Labels.range("system", 2)
same = dict(rtol=1e-12, atol=1e-13) if x64 else dict(rtol=2e-5, atol=2e-6)
functions = [getattr(mts, f"{{x}}_over_samples") for x in ("sum", "mean", "var", "std")]

def reduced(tensor):
    values = mts.remove_gradients(tensor)
    # gradients of sums and means; there is no plan for those of variances of such rows
    results = [f(tensor, "atom", out_samples=groups) for f in functions[:2]]
    return results + [f(values, "atom", out_samples=groups) for f in functions[2:]]

found = jax.jit(reduced)(cut)
outside = mts.sum_over_samples(cut, "atom", out_samples=groups)
expected = reduced(whole)
for result, its_result in zip([*found, outside], [*expected, expected[0]]):
    for block, its in zip(result, its_result, strict=True):
        np.testing.assert_allclose(block.values, its.values, **same)
        assert its.gradients_list() == block.gradients_list()
        for parameter, gradient in its.gradients():
            # rows by their labels: those of a program have padding among them
            mine = block.gradient(parameter)
            labels, values = map(np.asarray, (mine.samples.values, mine.values))
            real = labels[:, 0] != Labels.PADDING
            at = {{tuple(r): i for i, r in enumerate(labels.tolist()) if real[i]}}
            for row, value in zip(gradient.samples.values, gradient.values):
                row = at.pop(tuple(row.tolist()))
                np.testing.assert_allclose(values[row], value, **same)
            for i in at.values():  # no gradient row is a zero
                np.testing.assert_allclose(values[i], 0, atol=same["atol"])

# by NumPy alone
block = whole.block_by_id(0)
own = np.asarray(block.samples.column("system")) == 1
total = np.asarray(block.values)[own].sum(axis=0)
np.testing.assert_allclose(found[0].block_by_id(0).values[1], total, **same)

# a function of rows stays on each device
square = jax.jit(lambda x: mts.multiply(x, x))
values = square(mts.remove_gradients(cut)).block_by_id(0).values
assert {{x.data.shape[0] for x in values.addressable_shards}} == {{len(values) // 8}}

# no row at all
empty = mts.slice(whole, "samples", Labels("system", [[99]]))
nothing = sharding.shard_samples(empty, mesh)
result = jax.jit(lambda x: mts.sum_over_samples(x, "atom", out_samples=groups))(nothing)
assert not result.block_by_id(0).values.any()
print("done")
"""


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_over_samples_of_all_devices(dtype: str) -> None:
    assert on_devices(8, _REDUCTIONS, dtype).split() == ["done"]


def test_a_padded_batch_is_cut() -> None:
    data = batch(SYSTEMS)
    layout = mts.Layout.fit(data, systems=len(SYSTEMS))
    padded = layout.pad(data)
    cut = sharding.shard_samples(padded, MESH)
    assert_same(layout.unpad(cut), layout.unpad(padded))
    alone = mts.Layout.fit(data["features"], systems=len(SYSTEMS))
    padded = alone.pad(data["features"])
    assert_same(alone.unpad(sharding.shard_samples(padded, MESH)), data["features"])


# --- plans ----------------------------------------------------------------------------


@given(st.data(), st.integers(1, 9), st.integers(1, 5))
def test_systems_are_dealt_once(drawn: Any, n_devices: int, room: int) -> None:
    systems = drawn.draw(
        st.lists(st.integers(0, 99), unique=True, max_size=n_devices * room)
    )
    rows = drawn.draw(st.lists(st.integers(0, 50), min_size=len(systems), max_size=99))
    rows = rows[: len(systems)]
    for weights in (None, rows):
        table = sharding.deal(systems, n_devices, room, rows=weights)
        assert table.shape == (n_devices, room)
        assert sorted(table[table >= 0].tolist()) == sorted(systems)
    shares = (sharding.deal(systems, n_devices, room) >= 0).sum(axis=1)
    assert shares.max() - shares.min() <= 1


def test_large_systems_are_spread() -> None:
    rows = np.array([50, 40, 30, 5, 5, 5, 5, 5])
    for room, expected in ((8, [50, 40, 30, 25]), (2, [55, 45, 35, 10])):
        table = sharding.deal(range(8), 4, room, rows=rows)
        of_device = np.where(table >= 0, rows[table], 0).sum(axis=1)
        assert of_device.tolist() == expected


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_has_each_system_once(n: int, devices: int, room: int, k: int) -> None:
    plan = sharding.plan_epoch(n, devices, room, seed=1, epoch=k)
    assert plan.shape == (-(-n // (devices * room)), devices, room)
    assert plan.dtype == np.int32
    assert sorted(plan[plan >= 0].tolist()) == list(range(n))
    assert (plan[:-1] >= 0).all()
    again = sharding.plan_epoch(n, devices, room, seed=1, epoch=k)
    np.testing.assert_array_equal(plan, again)
    if n >= devices * room:
        full = sharding.plan_epoch(n, devices, room, seed=1, epoch=k, drop_last=True)
        np.testing.assert_array_equal(full, plan[: n // (devices * room)])


def test_the_order_is_that_of_seed_and_epoch() -> None:
    orders = [
        sharding.plan_epoch(100, 1, 100, seed=seed, epoch=epoch).ravel().tolist()
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(map(tuple, orders))) == 9
    # this must be so with each version of NumPy: runs are resumed, processes agree
    first = sharding.plan_epoch(8, 2, 2, seed=0)
    assert first.tolist() == [[[0, 7], [3, 5]], [[1, 6], [2, 4]]]


# --- what is wrong --------------------------------------------------------------------


def says(message: str) -> Any:
    return pytest.raises(MetatensorError, match=re.escape(message))


def energies(n: int, dtype: str = "float32") -> TensorMap:
    values = np.arange(n, dtype=dtype).reshape(n, 1)
    block = TensorBlock(values, Labels.range("system", n), [], Labels.single())
    return TensorMap(Labels.single(), [block])


def test_batches_that_can_not_be_placed() -> None:
    with says("`batches` must be one for each of the 1 positions along 'data' that"):
        sharding.shard([], MESH)
    with pytest.raises(TypeError, match="pytrees of arrays, but there is float"):
        sharding.shard([{"a": 1.0}], MESH)


def test_numbers_are_not_narrowed() -> None:
    with enable_x64(False):
        for call in (
            lambda: sharding.shard([energies(2, "float64")], MESH),
            lambda: sharding.shard_samples(energies(2, "float64"), MESH),
        ):
            with pytest.raises(TypeError, match="float64, but JAX is in its 32-bit"):
                call()
    with enable_x64(True):
        stacked = sharding.shard([energies(2, "float64")], MESH)
        assert jax.tree.leaves(stacked)[0].dtype == np.float64


def test_meshes_that_do_not_fit() -> None:
    with says("the mesh has the axes ['data'], but no 'batch': give `axis=`"):
        sharding.positions(MESH, "batch")
    if not hasattr(jax.sharding, "AxisType"):
        pytest.skip("this JAX has no explicit axes")
    explicit = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Explicit,))
    with says("the axes of the mesh are explicit"):
        sharding.shard([energies(2)], explicit)


def test_stacked_arrays_without_the_axis() -> None:
    with says("the first axis of each array must be the 1 positions along 'data'"):
        sharding.unshard(np.zeros((2, 3)), MESH)


def test_batches_from_a_store_that_do_not_fit() -> None:
    store = mts.Store.from_maps(energies(6))
    layout = store.layout(systems=2)
    with says(
        "one row for each of the 1 devices along 'data', got int64 with the shap"
    ):
        sharding.shard_batch(store, np.array([0, 1]), layout, MESH)
    with says("the layout has 2 buckets, but all devices need the same room"):
        buckets = store.layout(systems=2, buckets=2)
        sharding.shard_batch(store, np.array([[0, 1]]), buckets, MESH)
    with says("the batch has 3 systems, but the layout has room for 2"):
        sharding.shard_batch(store, np.array([[0, 1, 2]]), layout, MESH)


def test_plans_that_can_not_be() -> None:
    with says("5 systems do not fit on 2 devices with room for 2 each"):
        sharding.deal(range(5), 2, 2)
    with says("`systems` must be positions, from 0 on; one is -1"):
        sharding.deal([0, -1], 2)
    with says(
        "`rows` must be one number for each of the 2 systems, got the shape (3,)"
    ):
        sharding.deal([0, 1], 2, rows=[1, 2, 3])
    with says("`n_devices` must be at least 1, not 0"):
        sharding.deal([0], 0)
    with says("`seed` and `epoch` must be at least 0, not -1 and 0"):
        sharding.plan_epoch(3, 1, 1, seed=-1)
    with says("a step has 4 systems, 2 for each of 2 devices, and there are 3"):
        sharding.plan_epoch(3, 2, 2, seed=0, drop_last=True)


def test_what_is_no_map_is_not_cut() -> None:
    with pytest.raises(TypeError, match="must be a TensorMap or a PaddedBatch"):
        sharding.shard_samples(energies(2).block(), MESH)  # type: ignore[type-var]
    stacked = sharding.shard([energies(2)], MESH)
    with says("but its labels are those of 2 axes. Maps that are stacked"):
        sharding.shard_samples(stacked, MESH)
