"""Stores: a batch that is gathered is the batch that would be cut out and padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import assert_same, enable_x64
from hypothesis import given, settings, strategies as st
from test_layout import ENERGY, ONE, SYSTEMS, System, batch, energies

import metatensor_jax as mts
from metatensor_jax import (
    Labels,
    Layout,
    MetatensorError,
    Store,
    TensorBlock,
    TensorMap,
)

DATA = batch(SYSTEMS, density=0.7, empty=(8,))
NUMBERS = sorted(s.number for s in SYSTEMS)


def cut_out(data: dict[str, TensorMap], numbers: Sequence[int]) -> dict[str, TensorMap]:
    """The rows of some systems, one after the other: the slow way."""
    each = [
        {
            name: mts.slice(x, "samples", Labels("system", [[n]]))
            for name, x in data.items()
        }
        for n in sorted(numbers)
    ]
    return {name: mts.join([x[name] for x in each], "samples") for name in data}


@st.composite
def many_systems(draw: Any) -> tuple[dict[str, TensorMap], list[int], int]:
    """Data, some positions of systems, and how many systems a batch has."""
    numbers = draw(st.lists(st.integers(-5, 40), min_size=1, max_size=6, unique=True))
    types = st.lists(st.sampled_from([1, 6, 8]), min_size=1, max_size=4)
    systems = [System(n, tuple(draw(types))) for n in numbers]
    density = draw(st.sampled_from([1, 0.6, 0.2]))
    data = batch(systems, draw(st.integers(0, 99)), density, draw(st.just((1,))))
    n = draw(st.integers(1, len(numbers)))
    chosen = draw(st.permutations(range(len(numbers))))[:n]
    return data, list(chosen), draw(st.integers(n, 7))


@given(many_systems())
@settings(max_examples=40, deadline=None)
def test_a_batch_is_what_padding_gives(drawn: Any) -> None:
    data, chosen, n_systems = drawn
    store = Store.from_maps(data)
    layout = store.layout(systems=n_systems)
    assert layout == Layout.fit(data, systems=n_systems)
    numbers = store.systems[chosen].tolist()
    expected = layout.pad(cut_out(data, numbers))
    assert_same(store.batch(chosen, layout), expected)
    assert_same(store.folded(chosen, layout).unfold(), expected)
    assert_same(layout.unpad(store.batch(chosen, layout)), store.maps(chosen))


def on_device(layout: Layout, indices: Any) -> Any:
    placed = Store.from_maps(DATA).on_device(layout)
    return jax.jit(lambda store, at: store.batch(at))(placed, jnp.array(indices))


@pytest.mark.parametrize("indices", [[0], [2, 1], [3, 0, 2], [1, -1, 0], [-1, -1], []])
def test_a_batch_on_the_device_is_the_same(indices: list[int]) -> None:
    store = Store.from_maps(DATA)
    layout = store.layout(systems=3)
    actual = on_device(layout, np.array(indices, int))
    expected = store.batch([i for i in indices if i >= 0], layout)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_an_epoch_is_one_program() -> None:
    store = Store.from_maps(DATA)
    placed = store.on_device(store.layout(systems=2))
    n_programs = 0

    @jax.jit
    def epoch(store: Any, order: jax.Array) -> jax.Array:
        nonlocal n_programs
        n_programs += 1

        def step(total: Any, indices: Any) -> Any:
            batch = store.batch(indices)
            of_atoms = mts.sum_over_samples(
                batch["positions"], "atom", out_samples=batch.out_samples
            )
            return total + of_atoms.block().values.sum(), None

        return jax.lax.scan(step, 0.0, order)[0]

    for order in ([[0, 1], [2, 3]], [[3, 0], [2, 1]]):
        total = epoch(placed, jnp.array(order))
        expected = DATA["positions"].block().values.sum()
        np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert n_programs == 1


def test_buckets() -> None:
    store = Store.from_maps(DATA)
    layout = store.layout(systems=4, buckets=4)
    assert layout == Layout.fit(DATA, systems=4, buckets=4)
    for chosen in ([1], [0, 1], [0, 1, 2, 3]):
        expected = layout.pad(cut_out(DATA, store.systems[chosen].tolist()))
        assert_same(store.batch(chosen, layout), expected)


def test_headroom() -> None:
    store = Store.from_maps(DATA)
    layout = store.layout(systems=2, headroom=1.5)
    assert layout == Layout.fit(DATA, systems=2, headroom=1.5)
    for (*_, more), (*_, room) in zip(
        layout.rooms["features"].walk(),
        store.layout(systems=2).rooms["features"].walk(),
        strict=True,
    ):
        assert more.rows[0] == int(np.ceil(1.5 * room.rows[0]))


def test_the_layout_of_as_many_systems_by_default() -> None:
    store = Store.from_maps(DATA)
    assert_same(store.batch([1, 2]), store.batch([1, 2], store.layout(systems=2)))


def test_a_single_map() -> None:
    tensor = DATA["features"]
    store = Store.from_maps(tensor)
    assert store.names == [""]
    layout = store.layout(systems=2)
    expected = layout.pad(cut_out({"": tensor}, NUMBERS[1:3])[""])
    assert_same(store.batch([2, 1], layout), expected)
    assert isinstance(store.maps([0]), TensorMap)


def test_some_of_the_maps() -> None:
    store = Store.from_maps(DATA)
    layout = store.layout(systems=2).select(["positions", "features"])
    padded = store.batch([0, 3], layout)
    assert sorted(padded.tensors) == ["features", "positions"]
    assert_same(padded["features"], store.batch([0, 3])["features"])
    with pytest.raises(MetatensorError, match="no map 'forces' in this layout"):
        layout.select("forces")


def test_systems_one_by_one() -> None:
    """As a list, with numbers of their own, or all of them with the same."""
    each = [batch([s], seed=i) for i, s in enumerate(SYSTEMS)]
    store = Store.from_maps(each)
    assert store.systems.tolist() == NUMBERS
    assert_same(
        store.maps([0])["positions"],
        each[1]["positions"],  # METHANE is number 3
    )
    same = [batch([s._replace(number=0)], seed=i) for i, s in enumerate(SYSTEMS)]
    numbered = Store.from_maps(same)
    assert numbered.systems.tolist() == [0, 1, 2, 3]
    for i, one in enumerate(each):
        at = NUMBERS.index(SYSTEMS[i].number)
        mine, its = numbered.batch([i], store.layout(1)), store.batch([at])
        np.testing.assert_array_equal(
            mine["energies"].block().values, its["energies"].block().values
        )
        assert one["energies"].block().values[0, 0] in mine["energies"].block().values


def test_an_empty_store() -> None:
    store = Store.from_maps(mts.slice(DATA["positions"], "samples", []))
    assert len(store) == 0
    padded = store.batch([], store.layout(systems=2))
    assert padded.tensors.block().mask.tolist() == [False]


def test_counts_are_what_batches_are_packed_by() -> None:
    store = Store.from_maps(DATA)
    assert store.counts("positions").tolist() == [5, 2, 3, 4]
    assert store.counts("energies").tolist() == [1, 1, 1, 1]
    assert store.counts().sum() == sum(len(b) for x in DATA.values() for b in x)
    with pytest.raises(MetatensorError, match="no map 'charges'"):
        store.counts("charges")


@pytest.mark.parametrize("x64", [False, True])
def test_double_precision(x64: bool) -> None:
    store = Store.from_maps(DATA["energies"].to(dtype="float64"))
    layout = store.layout(systems=2)
    assert store.batch([0], layout).tensors.dtype == np.float64
    with enable_x64(x64):
        if x64:
            assert store.on_device(layout).batch([0]).tensors.dtype == np.float64
        else:
            with pytest.raises(TypeError, match="float64, but JAX is in its 32-bit"):
                store.on_device(layout)


BAD = {
    "other maps": (
        lambda s: s.batch([0], Layout.fit({"x": DATA["energies"]}, systems=1)),
        MetatensorError,
        r"for the maps \['x'\], but the store has",
    ),
    "too many systems": (
        lambda s: s.batch([0, 1, 2], s.layout(systems=2)),
        MetatensorError,
        "has 3 systems, but the layout has room for 2",
    ),
    "too many rows": (
        lambda s: s.batch([0], Store.from_maps(batch([SYSTEMS[3]])).layout(systems=1)),
        MetatensorError,
        "has no room for the|has 5 rows, but the layout has room for 2",
    ),
    "twice": (lambda s: s.batch([1, 1]), MetatensorError, "at 1 is there twice"),
    "outside": (lambda s: s.batch([4]), IndexError, "4 systems, no system at 4"),
    "negative": (lambda s: s.batch([-1]), IndexError, "no system at -1"),
    "a mask": (lambda s: s.batch([True, False]), TypeError, "list of positions"),
    "too large on the device": (
        lambda s: s.on_device(
            Layout.from_capacities(DATA["positions"], {"samples": 5}, systems=2)
        ),
        MetatensorError,
        "for the maps",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(call: Any, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        call(Store.from_maps(DATA))


def test_a_layout_that_is_too_small_for_the_device() -> None:
    store = Store.from_maps(DATA["positions"])
    layout = Layout.from_capacities(DATA["positions"], {"samples": 8}, systems=2)
    with pytest.raises(MetatensorError, match="has 9 rows, but the layout has room"):
        store.on_device(layout)  # 5 and 4 atoms
    store.batch([1, 2], layout)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (list, "at least one map"),
        (lambda: [{"a": DATA["bins"]}, {"b": DATA["bins"]}], "the same maps"),
        (lambda: [DATA["bins"], DATA["bins"]], "item 0 has the systems"),
        (lambda: TensorMap(ONE, [mts.block_from_array(np.ones((1, 1)))]), "'system'"),
    ],
)
def test_data_that_do_not_fit(maps: Any, message: str) -> None:
    with pytest.raises(MetatensorError, match=message):
        Store.from_maps(maps())


def test_what_is_not_a_map() -> None:
    with pytest.raises(TypeError, match="a store is made of a map"):
        Store.from_maps(3)  # type: ignore[arg-type]


# --- few arrays ----------------------------------------------------------------------


def test_a_folded_batch_is_one_buffer_for_each_dtype() -> None:
    folded = Store.from_maps(DATA).folded([0, 2])
    buffers = jax.tree.leaves(folded)
    assert sorted(str(x.dtype) for x in buffers) == ["float32", "int32"]
    unfolded = folded.unfold()
    for leaf in jax.tree.leaves(unfolded):
        assert not leaf.flags.writeable
        assert leaf.__array_interface__["data"][0] % 64 == 0 or leaf.size == 0
    program = jax.jit(lambda folded: jax.tree.map(jnp.asarray, folded.unfold()))
    jax.tree.map(np.testing.assert_array_equal, program(folded), unfolded)


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_any_batch_can_be_folded(arrays: Any) -> None:
    padded = Store.from_maps(DATA).batch([0, 2])
    given = jax.tree.map(jnp.asarray, padded) if arrays == "jax" else padded
    folded = given.fold()
    assert len(jax.tree.leaves(folded)) == 2
    jax.tree.map(np.testing.assert_array_equal, folded.unfold(), padded)


def test_batches_of_other_systems_share_a_program() -> None:
    store = Store.from_maps(DATA)
    layout, traces = store.layout(systems=2), []

    @jax.jit
    def total(folded: mts.Folded) -> jax.Array:
        traces.append(1)
        return folded.unfold()["energies"].block().values.sum()

    for chosen in ([0, 1], [3, 2], [1]):
        expected = store.maps(chosen)["energies"].block().values.sum()
        np.testing.assert_allclose(total(store.folded(chosen, layout)), expected, 1e-6)
    assert len(traces) == 1


def test_a_learned_derivative_goes_through_a_gathered_batch() -> None:
    """Stored gradients of a batch on the device are those of the padded one."""
    store = Store.from_maps(DATA)
    layout = store.layout(systems=2)

    def squares(batch: Any) -> TensorMap:
        return mts.pow(batch["energies"], 2.0)

    placed = store.on_device(layout)
    mine = jax.jit(lambda s, at: squares(s.batch(at)))(placed, jnp.array([3, 0]))
    mts.allclose_raise(mine, squares(store.batch([0, 3], layout)), 1e-5, 1e-6)
    assert mine.block().gradients_list() == ["positions"]


def test_targets_that_some_systems_lack() -> None:
    data = {"energies": energies(SYSTEMS, np.random.default_rng(0), lacking=(7, 3))}
    store = Store.from_maps(data | {"p": DATA["positions"]})
    layout = store.layout(systems=3)
    expected = layout.pad(cut_out(data | {"p": DATA["positions"]}, NUMBERS[:3]))
    assert_same(store.batch([0, 1, 2], layout), expected)
    placed = store.on_device(layout)
    jax.tree.map(np.testing.assert_array_equal, placed.batch([2, 0, 1]), expected)


def test_blocks_that_the_store_lacks() -> None:
    """A layout of more data has room for blocks that are nowhere here."""
    layout = Layout.fit(DATA, systems=2)
    alone = batch([SYSTEMS[3]])  # hydrogen only
    store = Store.from_maps(alone)
    assert_same(store.batch([0], layout), layout.pad(alone))
    with pytest.raises(MetatensorError, match="no room for the block"):
        Store.from_maps(DATA).batch([0], store.layout(systems=1))


def test_energy_labels_are_kept() -> None:
    block = Store.from_maps(DATA).maps([0])["energies"].block()
    assert isinstance(block, TensorBlock)
    assert block.properties == ENERGY


def test_positions_on_the_device_are_looked_at_where_they_are_known() -> None:
    store = Store.from_maps(DATA)
    placed = store.on_device(store.layout(systems=2))
    for bad, kind, message in (
        ([9], IndexError, "no system at 9"),
        ([0, -2], IndexError, "no system at -2"),
        ([1, 1], MetatensorError, "is there twice"),
        ([0.7], TypeError, "not float64"),
        (np.array([True, False]), TypeError, "not bool"),
        ([0, 1, 2], MetatensorError, "at most 2 positions"),
    ):
        with pytest.raises(kind, match=message):
            placed.batch(bad)


def test_systems_without_rows() -> None:
    """Nothing says that they are there, unless somebody does."""
    store = Store.from_maps(DATA, systems=[9, 0, 3, 4, 7])
    assert store.systems.tolist() == [0, 3, 4, 7, 9]
    assert store.counts().tolist()[0] == 0
    layout = store.layout(systems=2)
    assert store.batch([0, 1], layout).systems.tolist() == [0, 3]
    for systems in ([3, 4, 7], [3, 3, 4, 7, 9]):
        with pytest.raises(MetatensorError, match="the numbers of all systems"):
            Store.from_maps(DATA, systems=systems)


def test_maps_without_blocks() -> None:
    nothing = mts.TensorMap(Labels.empty("key"), [])
    data = DATA | {"nothing": nothing}
    store = Store.from_maps(data)
    layout = store.layout(systems=2)
    expected = layout.pad(cut_out(DATA, NUMBERS[:2]) | {"nothing": nothing})
    actual = store.batch([0, 1], layout)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)


def test_batches_are_as_large_as_their_layout() -> None:
    with pytest.raises(MetatensorError, match="a batch has 3 systems"):
        Store.from_maps(DATA).layout(2, batches=[[0, 1, 2]])
    with pytest.raises(TypeError, match=r"must be a whole number, not 2\.5"):
        Store.from_maps(DATA).layout(2.5)  # type: ignore[arg-type]
