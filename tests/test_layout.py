"""Layout: how much room there is, and that what goes in comes out again."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import assert_same
from hypothesis import given, settings, strategies as st
from programs import output_of

import metatensor_jax as mts
from metatensor_jax import Labels, Layout, MetatensorError, TensorBlock, TensorMap

XYZ = Labels.range("xyz", 3)
AGAIN = Labels.range("xyz_again", 3)
ONE = Labels.single()
ENERGY = Labels.range("energy", 1)
PADDING = Labels.PADDING
#: properties and components of each block of the features, by type
PROPERTIES = {1: Labels.range("n", 2), 6: Labels.range("n", 3), 8: Labels("n", [[7]])}
COMPONENTS = {t: [Labels("m", [[-t]] + [[t]] * (t == 6))] for t in PROPERTIES}

# --- data --------------------------------------------------------------------------


class System(NamedTuple):
    """A system: its number, and the type of each atom."""

    number: int
    types: tuple[int, ...]


def _block(
    rng: np.random.Generator,
    names: Sequence[str],
    rows: Sequence[Sequence[int]],
    components: Sequence[Labels],
    properties: Labels,
    gradients: Mapping[str, TensorBlock] | None = None,
) -> TensorBlock:
    """A block with random values."""
    labels = Labels(names, np.array(rows, np.int32).reshape(-1, len(names)))
    shape = (len(labels), *map(len, components), len(properties))
    values = rng.normal(size=shape).astype(np.float32)
    return TensorBlock(values, labels, components, properties, gradients)


def _some(rng: np.random.Generator, rows: list[Any], density: float) -> list[Any]:
    """Some of these, in another order; all of them as they are if ``density`` is 1."""
    if density == 1:
        return rows
    kept = [row for row in rows if rng.random() < density]
    return [kept[i] for i in rng.permutation(len(kept))]


def features(
    systems: Sequence[System],
    rng: np.random.Generator,
    density: float = 1,
    empty: Sequence[int] = (),
) -> TensorMap:
    """A map with a row for each atom, and gradients with gradients.

    :param density: how many of the gradient rows are there
    :param empty: types that get a block also if there is no such atom
    """
    atoms = [(s, i) for s in systems for i in range(len(s.types))]
    types = [t for t in PROPERTIES if t in empty or any(t in s.types for s in systems)]
    types, blocks = _some(rng, types, 1), []
    if density != 1:
        types = [types[i] for i in rng.permutation(len(types))]
        atoms = [atoms[i] for i in rng.permutation(len(atoms))]
    for t in types:
        of_type = [(s, i) for s, i in atoms if s.types[i] == t]
        own = COMPONENTS[t], PROPERTIES[t]
        pairs = [
            (row, s.number, j)
            for row, (s, _) in enumerate(of_type)
            for j in range(len(s.types))
        ]
        pairs = _some(rng, pairs, density)
        again = [
            (k, number, j)
            for k, (row, number, _) in enumerate(pairs)
            for j in range(len(of_type[row][0].types))
        ]
        names = ["sample", "system", "atom"]
        inner = _block(
            rng, names, _some(rng, again, density), [AGAIN, XYZ, *own[0]], own[1]
        )
        positions = _block(
            rng, names, pairs, [XYZ, *own[0]], own[1], {"positions": inner}
        )
        rows = _some(rng, [(row,) for row in range(len(of_type))], density)
        strain = _block(rng, ["sample"], rows, [XYZ, AGAIN, *own[0]], own[1])
        samples = [(s.number, i) for s, i in of_type]
        gradients = {"positions": positions, "strain": strain}
        blocks.append(_block(rng, ["system", "atom"], samples, *own, gradients))
    keys = Labels("center_type", np.array(types, np.int32).reshape(-1, 1))
    return TensorMap(keys, blocks, {"unit": "none"})


def positions(systems: Sequence[System], rng: np.random.Generator) -> TensorMap:
    """Positions of all atoms."""
    rows = [(s.number, i) for s in systems for i in range(len(s.types))]
    return TensorMap(ONE, [_block(rng, ["system", "atom"], rows, [XYZ], ONE)])


def energies(
    systems: Sequence[System],
    rng: np.random.Generator,
    density: float = 1,
    lacking: Sequence[int] = (),
) -> TensorMap:
    """An energy for each system, and forces as its gradient.

    :param lacking: numbers of systems without one
    """
    known = [s for s in systems if s.number not in lacking]
    rows = [
        (row, s.number, i) for row, s in enumerate(known) for i in range(len(s.types))
    ]
    names = ["sample", "system", "atom"]
    forces = _block(rng, names, _some(rng, rows, density), [XYZ], ENERGY)
    samples = [(s.number,) for s in known]
    block = _block(rng, ["system"], samples, [], ENERGY, {"positions": forces})
    return TensorMap(ONE, [block])


def bins(systems: Sequence[System], n: int, rng: np.random.Generator) -> TensorMap:
    """So many rows for each system, and gradients that do not say it."""
    rows = [(3 * i, s.number) for s in systems for i in range(n)]
    width = _block(rng, ["sample"], [(i,) for i in range(len(rows))][::-1], [XYZ], ONE)
    block = _block(rng, ["bin", "system"], rows, [], ONE, {"w": width})
    return TensorMap(ONE, [block])


def batch(
    systems: Sequence[System],
    seed: int = 0,
    density: float = 1,
    empty: Sequence[int] = (),
    n_bins: int = 2,
) -> dict[str, TensorMap]:
    """All maps of some systems."""
    rng = np.random.default_rng(seed)
    return {
        "features": features(systems, rng, density, empty),
        "positions": positions(systems, rng),
        "energies": energies(systems, rng, density),
        "bins": bins(systems, n_bins, rng),
    }


WATER = System(7, (8, 1, 1))
METHANE = System(3, (6, 1, 1, 1, 1))
FORMALDEHYDE = System(9, (6, 8, 1, 1))
HYDROGEN = System(4, (1, 1))
SYSTEMS = [WATER, METHANE, FORMALDEHYDE, HYDROGEN]
SINGLES = [batch([s]) for s in SYSTEMS]


def _rooms(layout: Layout, name: str = "features") -> dict[Any, Any]:
    """Room for rows by the type (or what else the first key is) and the path."""
    room = layout.rooms[name]
    return {
        (key.values[0], path): of_path.rows
        for key, block in zip(room.keys, room.blocks, strict=True)
        for path, of_path in block.walk()
    }


# --- how much room there is --------------------------------------------------------


def _largest(n: int, counts: Sequence[int]) -> int:
    """The sum of the ``n`` largest."""
    return sum(sorted(counts, reverse=True)[:n])


def _needed(n: int) -> dict[tuple[int, str], int]:
    """Room for any ``n`` of the systems, counted by hand."""
    needed = {}
    for t in PROPERTIES:
        own = [s.types.count(t) for s in SYSTEMS]
        all_atoms = [len(s.types) for s in SYSTEMS]
        pairs = [a * b for a, b in zip(own, all_atoms, strict=True)]
        triples = [a * b for a, b in zip(pairs, all_atoms, strict=True)]
        needed[t, "samples"] = needed[t, "strain"] = _largest(n, own)
        needed[t, "positions"] = _largest(n, pairs)
        needed[t, "positions/positions"] = _largest(n, triples)
    return needed


EXAMPLES = {
    "single systems": lambda: SINGLES,
    "one dict of maps": lambda: batch(SYSTEMS),
    "single systems in another order": lambda: SINGLES[::-1],
    "shuffled rows": lambda: {
        **batch(SYSTEMS),
        "features": mts.sort(batch(SYSTEMS)["features"], "samples", descending=True),
    },
}


@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=list(EXAMPLES))
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_room_for_the_largest_systems(examples, n):
    layout = Layout.fit(examples(), systems=n)
    assert layout.systems == n
    assert layout.fractions == (1.0,)
    expected = {key: (rows,) for key, rows in _needed(n).items()}
    assert _rooms(layout) == expected
    atoms = _largest(n, [len(s.types) for s in SYSTEMS])
    assert _rooms(layout, "positions") == {(0, "samples"): (atoms,)}
    assert _rooms(layout, "energies") == {
        (0, "samples"): (n,),
        (0, "positions"): (atoms,),
    }
    for s in SYSTEMS[:n], SYSTEMS[-n:], SYSTEMS[:1]:
        layout.pad(batch(s))


def test_one_map_of_all_systems():
    tensor = batch(SYSTEMS)["features"]
    layout = Layout.fit(tensor, systems=2)
    expected = {key: (rows,) for key, rows in _needed(2).items()}
    assert _rooms(layout, "") == expected
    one = batch([METHANE], empty=(8,))["features"]
    assert_same(layout.unpad(layout.pad(one)), one)


def test_a_list_of_batches():
    pairs = [[WATER, METHANE], [FORMALDEHYDE, HYDROGEN], [METHANE, HYDROGEN]]
    layout = Layout.fit([batch(pair) for pair in pairs], systems=2)
    for (t, path), rows in _rooms(layout).items():
        if path == "samples":
            most = max(sum(s.types.count(t) for s in pair) for pair in pairs)
            assert rows == (most,)
    # two batches of two make a batch of four
    layout = Layout.fit([batch(pair) for pair in pairs], systems=4)
    assert _rooms(layout, "positions")[0, "samples"] == (8 + 7,)
    assert _rooms(layout, "energies")[0, "samples"] == (4,)


def test_more_room_than_data():
    layout = Layout.fit(SINGLES, systems=6)
    assert _rooms(layout)[1, "samples"] == (10,)
    padded = layout.pad(batch(SYSTEMS))
    assert padded.systems.tolist() == [3, 4, 7, 9, PADDING, PADDING]
    assert padded["energies"].block().shape == (6, 1)


def test_room_for_blocks_without_rows():
    tensor = batch([HYDROGEN], empty=(6, 8))["features"]
    layout = Layout.fit([tensor], systems=1)
    assert _rooms(layout, "")[6, "samples"] == (1,)
    assert_same(layout.unpad(layout.pad(tensor)), tensor)


def test_another_name_for_systems():
    tensor = mts.rename_dimension(
        batch(SYSTEMS)["positions"], "samples", "system", "structure"
    )
    layout = Layout.fit(tensor, systems=2, system="structure")
    assert _rooms(layout, "") == {(0, "samples"): (9,)}
    some = mts.slice(tensor, "samples", Labels("structure", [[9], [4]]))
    padded = layout.pad(some)
    assert padded.systems.tolist() == [4, 9]
    assert padded.out_samples == Labels.range("structure", 2)
    assert_same(layout.unpad(padded), some)


@pytest.mark.parametrize(
    ("buckets", "fractions"),
    [(1, [1]), (2, [1 / 2, 1]), (4, [1 / 4, 2 / 4, 3 / 4, 1]), ([0.3, 1], [0.3, 1])],
)
def test_buckets(buckets, fractions):
    layout = Layout.fit(SINGLES, systems=3, buckets=buckets)
    assert layout.fractions == tuple(fractions)
    for key, most in _needed(3).items():
        expected = tuple(max(1, int(np.ceil(most * f))) for f in fractions)
        assert _rooms(layout)[key] == expected
    # a row per system is there in each of them, so that rows line up
    rows = _rooms(layout, "energies")[0, "samples"]
    assert rows == (3,) * len(fractions)


def test_the_smallest_bucket_that_fits():
    layout = Layout.fit(SINGLES, systems=4, buckets=4)
    seen = set()
    for n in range(1, 16):
        chosen = [SYSTEMS[i] for i in range(4) if n & 1 << i]
        given = batch(chosen)
        bucket = layout.bucket(given)
        fits = [
            all(
                sum(s.types.count(t) * len(s.types) ** power for s in chosen)
                <= _rooms(layout)[t, path][i]
                for t in PROPERTIES
                for power, path in enumerate(
                    ["samples", "positions", "positions/positions"]
                )
            )
            and sum(len(s.types) for s in chosen)
            <= _rooms(layout, "positions")[0, "samples"][i]
            and len(given["bins"].block()) <= _rooms(layout, "bins")[0, "samples"][i]
            for i in range(4)
        ]
        assert bucket == fits.index(True)
        shape = layout.pad(given)["features"].block(center_type=1).shape
        assert shape[0] == _rooms(layout)[1, "samples"][bucket]
        seen.add(bucket)
    assert len(seen) > 2


# --- room that is declared ---------------------------------------------------------

CAPACITIES = {
    "features": {
        "samples": [9, 3, 4],
        "positions": 40,
        "positions/positions": [160, 150, 140],
        "strain": 8,
    },
    "positions": {"samples": 12},
    "energies": {"samples": 3, "positions": 12},
    "bins": {"samples": 6, "w": 6},
}


def test_declared_room():
    layout = Layout.from_capacities(batch(SYSTEMS), CAPACITIES, 3)
    assert (layout.systems, layout.fractions) == (3, (1.0,))
    rooms = _rooms(layout)
    for i, t in enumerate(PROPERTIES):
        assert rooms[t, "samples"] == (CAPACITIES["features"]["samples"][i],)
        nested = CAPACITIES["features"]["positions/positions"][i]
        assert rooms[t, "positions/positions"] == (nested,)
        assert rooms[t, "positions"] == (40,)
        assert rooms[t, "strain"] == (8,)
    assert _rooms(layout, "energies") == {(0, "samples"): (3,), (0, "positions"): (12,)}
    given = batch([FORMALDEHYDE, WATER])
    padded = layout.pad(given)
    assert padded["features"].block(center_type=8).shape == (4, 1, 1)
    _assert_inverse(layout, given)


def test_declared_room_for_a_single_map():
    tensor = batch([WATER])["positions"]
    layout = Layout.from_capacities(tensor, {"samples": 5}, 2)
    assert layout.pad(tensor).tensors.block().shape == (5, 3, 1)


def test_declared_room_for_one_row_per_system():
    # rows of such a map stand where their systems do, whatever room was declared
    both = {"energies": energies(SYSTEMS[:3], np.random.default_rng(0))}
    both["charges"] = energies(
        SYSTEMS[:3], np.random.default_rng(0), lacking=[WATER.number, METHANE.number]
    )
    own = {"samples": 3, "positions": 20}
    layout = Layout.from_capacities(
        both, {"energies": own, "charges": {**own, "samples": 1}}, 3
    )
    padded = layout.pad(both)
    assert padded["charges"].block().shape == padded["energies"].block().shape
    _assert_inverse(layout, both)


# --- padding -----------------------------------------------------------------------


def _assert_inverse(layout: Layout, given: dict[str, TensorMap]) -> None:
    """Also when the arrays were on a device in the meantime."""
    padded = layout.pad(given)
    for through in (padded, jax.tree.map(jnp.asarray, padded)):
        result = layout.unpad(through)
        assert sorted(result) == sorted(given)
        for name in given:
            assert_same(result[name], given[name])


types = st.lists(st.sampled_from(list(PROPERTIES)), min_size=0, max_size=4).map(tuple)


@st.composite
def ragged(draw: Callable[..., Any]) -> dict[str, TensorMap]:
    """A batch of 1 to 3 systems, with numbers in any order."""
    numbers = draw(
        st.lists(
            st.integers(-2, 2**31 - 1) | st.integers(0, 4),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    systems = [System(number, draw(types)) for number in numbers]
    density = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    empty = draw(st.lists(st.sampled_from(list(PROPERTIES)), unique=True))
    return batch(systems, draw(st.integers(0, 999)), density, empty)


#: room for anything that Hypothesis comes up with
ROOMY = Layout.fit(
    [batch([System(0, tuple(PROPERTIES)), System(1, (1, 6, 8, 1))], seed=1)] * 2
    + [batch([System(i, (t,) * 4) for i in range(3)]) for t in PROPERTIES],
    systems=3,
    buckets=[0.1, 0.5, 1],
)
_SHAPES: dict[int, Any] = {}


@settings(max_examples=60)
@given(ragged())
def test_unpad_is_the_inverse_of_pad(given_batch):
    _assert_inverse(ROOMY, given_batch)


@settings(max_examples=60)
@given(ragged())
def test_batches_of_a_bucket_have_one_structure(given_batch):
    padded = ROOMY.pad(given_batch)
    seen = (
        jax.tree.structure(padded),
        [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(padded)],
    )
    assert _SHAPES.setdefault(ROOMY.bucket(given_batch), seen) == seen
    assert len({structure for structure, _ in _SHAPES.values()}) == 1


@settings(max_examples=30)
@given(ragged())
def test_what_a_padded_batch_holds(given_batch):
    padded = ROOMY.pad(given_batch)
    own = padded.systems
    n = int(padded.mask.sum())
    assert own.dtype == np.int32
    assert np.all(own[:n] != PADDING)
    assert np.all(own[n:] == PADDING)
    assert np.all(own[: n - 1] < own[1:n])
    for name, tensor in given_batch.items():
        assert padded[name].keys == ROOMY.rooms[name].keys
        for key, block in padded[name].items():
            real = tensor.block(key) if key in tensor.keys else None
            _check_padding(block, real, own)


def _check_padding(
    block: TensorBlock, real: TensorBlock | None, own: np.ndarray
) -> None:
    """Padding is zeros, and labels say where it is."""
    assert not block.samples.is_static
    values, labels = block.values, block.samples.values
    assert isinstance(values, np.ndarray)
    assert isinstance(labels, np.ndarray)
    mask = block.mask
    assert mask.sum() == (0 if real is None else len(real))
    assert not np.any(values[~mask])
    assert np.all(labels[~mask] == PADDING)
    if real is not None:
        names = block.samples.names
        expected = np.array(real.samples.values)
        # each row stays where it is, or goes where its system is
        order = np.arange(len(real))
        if names == ["system"]:
            order = np.argsort(expected[:, 0])
            np.testing.assert_array_equal(labels[mask, 0], np.flatnonzero(mask))
        expected = expected[order]
        np.testing.assert_array_equal(values[mask], real.values[order])
        if "system" in names:
            i = names.index("system")
            assert np.all(labels[mask, i] < np.sum(own != PADDING))
            np.testing.assert_array_equal(own[labels[mask, i]], expected[:, i])
    for name, gradient in block.gradients():
        of_real = None if real is None else real.gradient(name)
        _check_padding(gradient, of_real, own)


def test_missing_and_empty_blocks_are_told_apart():
    layout = Layout.fit(SINGLES, systems=2)
    for empty in ((), (6,), (8,), (6, 8)):
        given = batch([HYDROGEN], empty=empty)
        assert len(given["features"]) == 1 + len(empty)
        _assert_inverse(layout, given)
    nothing = batch([])
    assert len(nothing["features"]) == 0
    _assert_inverse(layout, nothing)
    padded = layout.pad(nothing)
    assert not padded.mask.any()
    assert len(padded["features"]) == 3


def test_order_of_keys():
    layout = Layout.fit(SINGLES, systems=4)
    given = batch(SYSTEMS)
    for order in ([2, 0, 1], [1, 0, 2]):
        keys = Labels("center_type", given["features"].keys.values[order])
        blocks = given["features"].blocks_by_id(order)
        given["features"] = TensorMap(keys, blocks, {"unit": "none"})
        _assert_inverse(layout, given)


def test_systems_are_in_ascending_order():
    layout = Layout.fit(SINGLES, systems=4)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 1]):
        chosen = [SYSTEMS[i] for i in order]
        own = sorted(s.number for s in chosen) + [PADDING] * (4 - len(order))
        given = batch(chosen)
        padded = layout.pad(given)
        assert padded.systems.tolist() == own
        _rows_by_system(padded, "energies")
        _assert_inverse(layout, given)


def test_maps_with_their_systems_in_other_orders():
    """One row per system in any order, and all maps mean the same by a number."""
    rng = np.random.default_rng(0)
    given = {
        "a": energies(SYSTEMS, rng, 0.7),
        "b": energies(SYSTEMS[::-1], rng),
        "c": energies(SYSTEMS[1:3], rng),
        "positions": positions([SYSTEMS[i] for i in (2, 0, 3, 1)], rng),
    }
    layout = Layout.fit([given], systems=5)
    padded = layout.pad(given)
    for name in "abc":
        _rows_by_system(padded, name)
        own, real = padded[name].block(), given[name].block()
        for number, value in zip(
            padded.systems[own.mask], own.values[own.mask], strict=True
        ):
            assert value == real.values[real.samples.position([number])]
    _assert_inverse(layout, given)
    # what was computed from it comes in the order of the systems
    alone = layout.unpad(padded["b"] * 2, padded.systems)
    assert alone.block().samples.values[:, 0].tolist() == [3, 4, 7, 9]
    energy = mts.sort(given["b"], "samples").block().values
    np.testing.assert_array_equal(alone.block().values, 2 * energy)


def test_gradient_rows_of_maps_with_a_row_for_each_system():
    """They name the row where their sample went, and come back as they were."""
    given = energies(SYSTEMS, np.random.default_rng(0), 0.7)
    padded = Layout.fit(given, systems=6).pad(given)
    forces = padded.tensors.block().gradient("positions")
    labels = forces.samples.values[forces.mask]
    np.testing.assert_array_equal(labels[:, 0], labels[:, 1])
    rows = given.block().gradient("positions").samples.values
    np.testing.assert_array_equal(padded.systems[labels[:, 1]], rows[:, 1])


def test_64_bits_stay():
    wide = {name: tensor.to(dtype="float64") for name, tensor in batch(SYSTEMS).items()}
    layout = Layout.fit(wide, systems=4)
    padded = layout.pad(wide)
    assert padded["features"].dtype == np.float64
    assert_same(layout.unpad(padded)["features"], wide["features"])


# --- one row for each system -------------------------------------------------------


def _rows_by_system(padded: mts.PaddedBatch, name: str) -> None:
    """Each row stands where out_samples has its system."""
    block = padded[name].block()
    labels = block.samples.values[:, 0]
    assert len(block) == len(padded.out_samples)
    here = np.arange(len(block))
    np.testing.assert_array_equal(labels[block.mask], here[block.mask])


@pytest.mark.parametrize("lacking", [[], [7], [3], [4], [7, 3], [9, 4], [7, 3, 9, 4]])
@pytest.mark.parametrize("first", ["energies", "positions"])
def test_rows_line_up_when_a_system_has_none(lacking, first):
    rng = np.random.default_rng(0)
    given = {
        "energies": energies(SYSTEMS, rng, 0.7, lacking),
        "positions": positions(SYSTEMS, rng),
    }
    given = {name: given[name] for name in sorted(given, reverse=first == "positions")}
    layout = Layout.fit(given, systems=5)
    padded = layout.pad(given)
    _rows_by_system(padded, "energies")
    assert padded["energies"].block().mask.sum() == 4 - len(lacking)
    energy = padded["energies"].block()
    own = {s: padded.systems.tolist().index(s.number) for s in SYSTEMS}
    for s in SYSTEMS:
        known = s.number not in lacking
        assert energy.mask[own[s]] == known
        if known:
            row = given["energies"].block().samples.position([s.number])
            assert energy.values[own[s]] == given["energies"].block().values[row]
    _assert_inverse(layout, given)


LACKING = {
    "the second map": ((), (3,)),
    "the first map": ((3,), ()),
    "both maps, the same": ((3,), (3,)),
    "both maps": ((3,), (9,)),
}


@pytest.mark.parametrize(("a", "b"), LACKING.values(), ids=list(LACKING))
def test_several_maps_with_a_row_for_each_system(a, b):
    # went wrong: "in another order" was said of maps whose order agrees
    rng = np.random.default_rng(0)
    given = {
        "a": energies(SYSTEMS, rng, 1, a),
        "b": energies(SYSTEMS, rng, 1, b),
        "positions": positions(SYSTEMS, rng),
    }
    layout = Layout.fit(given, systems=5)
    padded = layout.pad(given)
    _rows_by_system(padded, "a")
    _rows_by_system(padded, "b")
    _assert_inverse(layout, given)


def test_blocks_with_a_row_for_some_systems():
    # the same for the blocks of one map: each system has a row in one of them
    rng = np.random.default_rng(0)
    blocks = [energies(SYSTEMS, rng, 1, gone).block() for gone in ([3], [7, 9])]
    given = {"e": TensorMap(Labels("spin", [[0], [1]]), blocks)}
    layout = Layout.fit(given, systems=4)
    padded = layout.pad(given)
    for block in padded["e"]:
        labels = block.samples.values[:, 0]
        np.testing.assert_array_equal(labels[block.mask], np.flatnonzero(block.mask))
    _assert_inverse(layout, given)


# --- labels that do not fit --------------------------------------------------------


def _pair(
    samples: Labels, rows: Any, nested: Any = (), names: Sequence[str] = ()
) -> TensorMap:
    """A map with gradient rows, and gradients of these."""
    rng = np.random.default_rng(0)
    names = names or ["sample", "system", "atom"]
    below = {"again": _block(rng, names, nested, [AGAIN, XYZ], ONE)}
    gradient = _block(rng, names, rows, [XYZ], ONE, below)
    block = _block(rng, samples.names, samples.values, [], ONE, {"positions": gradient})
    return TensorMap(ONE, [block])


ATOMS = Labels(["system", "atom"], [[2, 0], [5, 0]])
RIGHT = _pair(ATOMS, [(0, 2, 0), (1, 5, 3)], [(1, 5, 0)])
MISFITS = {
    "a gradient of another system": (
        _pair(ATOMS, [(0, 2, 0), (1, 2, 3)]),
        "block (_=0), gradient 'positions' has a row (sample=1, system=2, atom=3), but "
        "sample 1 of the values is of system 5: a gradient row belongs to the 'system'",
    ),
    "a gradient of a gradient, of another system": (
        _pair(ATOMS, [(0, 2, 0), (1, 5, 3)], [(0, 2, 0), (1, 2, 0)]),
        "block (_=0), gradient 'positions', gradient 'again' has a row (sample=1, "
        "system=2, atom=0), but sample 1 of the values is of system 5",
    ),
    "no system": (
        _pair(Labels(["image", "atom"], [[2, 0], [5, 0]]), [(0, 2, 0), (1, 5, 3)]),
        "the samples of block (_=0) have the dimensions ['image', 'atom'], but not "
        "'system': all maps of a layout must say which system each row belongs to. Add "
        "it with `append_dimension` or `insert_dimension`",
    ),
    "padding in samples": (
        _pair(Labels(["system", "atom"], [[2, 0], [5, PADDING]]), [(0, 2, 0)]),
        "the samples of block (_=0) hold (system=5, atom=-2147483648) in row 1, but "
        "-2147483648 (`Labels.PADDING`) marks rows of padding",
    ),
    "padding in the samples of a gradient": (
        _pair(ATOMS, [(0, 2, 0), (1, 5, PADDING)]),
        "the samples of block (_=0), gradient 'positions' hold (sample=1, system=5, "
        "atom=-2147483648) in row 1",
    ),
}


@pytest.mark.parametrize(("tensor", "message"), MISFITS.values(), ids=list(MISFITS))
@pytest.mark.parametrize(
    "call",
    [
        lambda tensor: Layout.fit(tensor, systems=2),
        lambda tensor: Layout.fit([tensor], systems=2),
        lambda tensor: Layout.from_capacities(
            tensor, {"samples": 2, "positions": 2, "positions/again": 2}, 2
        ),
        lambda tensor: Layout.fit(RIGHT, systems=2).pad(tensor),
    ],
    ids=["fit to one", "fit to many", "declared", "pad"],
)
def test_labels_that_do_not_fit(call, tensor, message):
    call(RIGHT)
    with pytest.raises(MetatensorError, match=re.escape(message)):
        call(tensor)


def test_gradients_that_do_not_say_the_system():
    tensor = _pair(ATOMS, [(0, 7), (1, 3)], [(1, 0)], ["sample", "atom"])
    layout = Layout.fit(tensor, systems=2)
    assert_same(layout.unpad(layout.pad(tensor)), tensor)


def test_a_layout_of_rooms_without_systems():
    room = SMALL.rooms[""]
    block = room.blocks[0]
    block = dataclasses.replace(
        block, sample_names=("structure", *block.sample_names[1:])
    )
    with pytest.raises(MetatensorError, match="but not 'system': all maps of a layout"):
        Layout(
            {"": dataclasses.replace(room, blocks=(block,))}, 2, (0.5, 1.0), "system"
        )


def test_traced_samples_are_padded_already():
    padded = Layout.fit(RIGHT, systems=2).pad(RIGHT).tensors
    with pytest.raises(mts.TracedLabelsError, match="padding"):
        Layout.fit(padded, systems=2)
    with pytest.raises(mts.TracedLabelsError, match="padding"):
        Layout.fit(RIGHT, systems=2).pad(padded)


def test_maps_that_are_stacked_for_vmap():
    layout = Layout.fit(RIGHT, systems=2)
    twice = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), RIGHT)
    padded = layout.pad(RIGHT)
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), padded)
    for call in (
        lambda: layout.pad(twice),
        lambda: layout.bucket(twice),
        lambda: Layout.fit(twice, systems=2),
        lambda: Layout.fit([RIGHT, twice], systems=2),
        lambda: layout.unpad(both),
        lambda: layout.unpad(both.tensors, padded.systems),
    ):
        with pytest.raises(MetatensorError, match=r"labels are those .* `jax\.vmap`"):
            call()


# --- masks and reductions ----------------------------------------------------------


def test_mask():
    layout = Layout.fit(SINGLES, systems=3)
    padded = layout.pad(batch([WATER, HYDROGEN]))
    np.testing.assert_array_equal(padded.mask, [True, True, False])
    of_atoms = padded["positions"].block().mask
    np.testing.assert_array_equal(of_atoms, [True] * 5 + [False] * 7)
    assert batch([WATER])["positions"].block().mask.tolist() == [True] * 3
    on_device = jax.jit(lambda b: (b.mask, b["positions"].block().mask))(padded)
    np.testing.assert_array_equal(on_device[0], padded.mask)
    np.testing.assert_array_equal(on_device[1], of_atoms)


def test_out_samples():
    layout = Layout.fit(SINGLES, systems=3)
    given = batch([WATER, HYDROGEN])
    padded = layout.pad(given)
    assert padded.out_samples == Labels.range("system", 3)
    total = jax.jit(
        lambda b: mts.sum_over_samples(
            b["positions"], "atom", out_samples=b.out_samples
        )
    )(padded)
    assert total.block().shape == (3, 3, 1)
    result = layout.unpad(total, padded.systems).block()
    expected = mts.sum_over_samples(given["positions"], "atom").block()
    order = expected.samples.select(result.samples)
    assert result.samples.values.tolist() == [[4], [7]]
    np.testing.assert_allclose(result.values, np.asarray(expected.values)[order], 1e-5)


def test_a_padded_batch_is_a_pytree():
    padded = Layout.fit(SINGLES, systems=3).pad(batch([WATER, HYDROGEN]))
    leaves, structure = jax.tree.flatten(padded)
    assert_same(jax.tree.unflatten(structure, leaves), padded)
    assert jax.jit(lambda b: b)(padded).system == "system"
    twice = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), padded)
    systems = jax.vmap(lambda b: b.mask.sum())(twice)
    assert systems.tolist() == [2, 2]


# --- no device ---------------------------------------------------------------------


def test_no_device_takes_part():
    with (
        jax.transfer_guard("disallow_explicit"),
        pytest.raises(Exception, match="Disallowed host-to-device transfer"),
    ):
        jax.device_put(np.ones(3))  # the guard works
    given = batch(SYSTEMS)
    with jax.transfer_guard("disallow_explicit"):
        layout = Layout.fit(SINGLES, systems=4, buckets=2)
        padded = layout.pad(given)
        result = layout.unpad(padded)
        layout.overhead(given)
    for leaf in jax.tree.leaves((padded, result)):
        assert type(leaf) is np.ndarray
    assert all(isinstance(order, np.ndarray) for order in padded.order.values())


WITHOUT_JAX = """
import sys
sys.path.insert(0, sys.argv[1])
from test_layout import SINGLES, SYSTEMS, batch, Layout
import jax
layout = Layout.fit(SINGLES, systems=4, buckets=2)
layout = Layout.from_json(layout.to_json())
layout.unpad(layout.pad(batch(SYSTEMS)))
layout.overhead(batch(SYSTEMS)), str(layout)
try:
    jax.numpy.ones(3)
except RuntimeError:
    print("there is no device")
"""


def test_works_where_jax_has_no_device():
    folder = str(Path(__file__).parent)
    printed = output_of(WITHOUT_JAX, folder, JAX_PLATFORMS="nothing")
    assert printed == "there is no device\n"


# --- what it costs -----------------------------------------------------------------


def test_overhead():
    layout = Layout.fit(SINGLES, systems=2, buckets=2)
    given = batch([METHANE], empty=(8,))
    bucket = layout.bucket(given)
    overhead = layout.overhead(given)
    rooms = _rooms(layout)
    of_hydrogen = "features", "(center_type=1)"
    assert overhead[*of_hydrogen, "samples"] == rooms[1, "samples"][bucket] / 4
    assert overhead[*of_hydrogen, "positions"] == rooms[1, "positions"][bucket] / 20
    nested = rooms[1, "positions/positions"][bucket] / 100
    assert overhead[*of_hydrogen, "positions/positions"] == nested
    assert overhead["features", "(center_type=8)", "samples"] == float("inf")
    assert overhead["energies", "(_=0)", "samples"] == 2.0
    paths = {path for _, _, path in overhead}
    assert paths == {"samples", "positions", "positions/positions", "strain", "w"}
    assert len(overhead) == 3 * 4 + 1 + 2 + 2
    # a map that comes alone has no name
    alone = Layout.fit(given["positions"], systems=1)
    assert alone.overhead(given["positions"]) == {("", "(_=0)", "samples"): 1.0}


def test_table():
    text = str(Layout.fit(batch(SYSTEMS), systems=2, buckets=2))
    lines = text.splitlines()
    assert lines[0] == "Layout for 2 systems, 2 buckets"
    assert lines[1].split() == ["rows", "of", "room", "expected", "padded", "/", "real"]
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines[2:]]
    rows = {what: numbers for what, *numbers in cells}
    assert len(rows) == 3 * 4 + 1 + 2 + 2
    # 14 atoms in 4 systems are 7 in 2 of them; the two largest have 9
    assert rows["block (_=0) of 'positions'"] == ["5, 9", "7", "1.29"]
    assert rows["block (_=0) of 'energies'"] == ["2, 2", "2", "1.00"]
    # 10 of them are hydrogen; with the 3, 5, 4, 2 atoms of their systems 38 pairs
    key = "block (center_type=1) of 'features'"
    assert rows[key] == ["3, 6", "5", "1.20"]
    assert rows[f"{key}, gradient 'positions'"] == ["14, 28", "19", "1.47"]
    one = str(Layout.fit(batch(SYSTEMS)["positions"], systems=2))
    assert "2 systems, 1 bucket\n" in one
    assert "  block (_=0)  " in one
    declared = str(Layout.from_capacities(batch(SYSTEMS), CAPACITIES, 3))
    assert declared.splitlines()[2].split() == [*key.split(), "9"]


# --- JSON --------------------------------------------------------------------------

FITTED = {
    "fitted": lambda: Layout.fit(SINGLES, systems=3, buckets=[0.1, 0.7, 1]),
    "declared": lambda: Layout.from_capacities(batch(SYSTEMS), CAPACITIES, 3),
    "a single map": lambda: Layout.fit(batch(SYSTEMS)["features"], systems=2),
    "without blocks": lambda: Layout.fit([batch([])["features"]], systems=2),
}


@pytest.mark.parametrize("make", FITTED.values(), ids=list(FITTED))
def test_json(make, tmp_path):
    layout = make()
    path = tmp_path / "layout.json"
    layout.save(path)
    layout.save(str(path))
    for again in (Layout.from_json(layout.to_json()), Layout.load(str(path))):
        assert again == layout
        assert str(again) == str(layout) or len(layout.rooms) > 1
        assert again.to_json() == layout.to_json() or len(layout.rooms) > 1
    assert [file.name for file in tmp_path.iterdir()] == ["layout.json"]
    json.loads(path.read_text())


def test_batches_of_a_layout_that_was_read_share_a_program():
    layout = Layout.fit(SINGLES, systems=3)
    given = batch(SYSTEMS[:3])
    again = Layout.from_json(layout.to_json())
    assert_same(again.pad(given), layout.pad(given))
    traces = []
    program = jax.jit(lambda b: traces.append(b) or b.mask)
    program(layout.pad(given)), program(again.pad(given))
    assert len(traces) == 1
    assert_same(again.unpad(layout.pad(given)), given)


SMALL = Layout.fit(batch([WATER])["positions"], systems=2, buckets=2)


def _change(*path: Any, to: Any) -> str:
    data = json.loads(SMALL.to_json())
    at = data
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return json.dumps(data)


MAP, BLOCK = ("maps", ""), ("maps", "", "blocks", 0)
DAMAGED = {
    "nothing": "",
    "a list": "[]",
    "many lists": "[" * 100_000,
    "a number": "3",
    "null": "null",
    "another format": _change("format", to="metatensor_jax.Layout.999"),
    "systems are no number": _change("systems", to="many"),
    "systems are negative": _change("systems", to=-1),
    "systems are infinite": _change("systems", to=float("inf")),
    "no fractions": _change("fractions", to=[]),
    "fractions that fall": _change("fractions", to=[1.0, 0.5]),
    "fractions of something": _change("fractions", to=[{}]),
    "maps are a list": _change("maps", to=[]),
    "no blocks": _change(*MAP, "blocks", to=[]),
    "keys are no labels": _change(*MAP, "keys", to=7),
    "keys beyond int32": _change(*MAP, "keys", "values", to=[[2**40]]),
    "keys twice": _change(*MAP, "keys", "values", to=[[0], [0]]),
    "no dtype": _change(*MAP, "dtype", to="float33"),
    "info is no text": _change(*MAP, "info", to=["a"]),
    "rows for no bucket": _change(*BLOCK, "rows", to=[]),
    "rows for one bucket": _change(*BLOCK, "rows", to=[3]),
    "rows that fall": _change(*BLOCK, "rows", to=[3, 2]),
    "negative rows": _change(*BLOCK, "rows", to=[-3, 3]),
    "rows are no numbers": _change(*BLOCK, "rows", to=["a", "b"]),
    "expected is no number": _change(*BLOCK, "expected", to="a few"),
    "sample names are no list": _change(*BLOCK, "sample_names", to=8),
    "a sample name that is none": _change(*BLOCK, "sample_names", to=["system", "!"]),
    "components are no labels": _change(*BLOCK, "components", to=[[]]),
    "gradients are a list": _change(*BLOCK, "gradients", to=["positions"]),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=list(DAMAGED))
def test_damaged_json(text):
    with pytest.raises(MetatensorError):
        Layout.from_json(text)


def test_json_that_ends_early():
    text = SMALL.to_json()
    for end in range(0, len(text) - 1, 7):
        with pytest.raises(MetatensorError, match="this is not the JSON of a Layout"):
            Layout.from_json(text[:end])


def test_json_without_a_part():
    def paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
        if isinstance(value, dict):
            for key in value:
                yield (*path, key)
                yield from paths(value[key], (*path, key))
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield from paths(value[0], (*path, 0))

    whole = json.loads(SMALL.to_json())
    for path in paths(whole):
        if path == MAP:
            continue  # a layout without maps is one
        data = json.loads(SMALL.to_json())
        at = data
        for step in path[:-1]:
            at = at[step]
        del at[path[-1]]
        with pytest.raises(MetatensorError, match="this is not the JSON of a Layout"):
            Layout.from_json(json.dumps(data))


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "layout.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MetatensorError, match="this is not the JSON of a Layout"):
        Layout.load(path)
    with pytest.raises(FileNotFoundError):
        Layout.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize("failing", ["write_text", "replace"])
def test_save_leaves_nothing_behind_when_it_fails(failing, tmp_path, monkeypatch):
    path = tmp_path / "layout.json"
    SMALL.save(path)
    before = path.read_text()
    whole = Path.write_text

    def stop(self: Path, *args: Any, **kwargs: Any) -> None:
        if failing == "write_text":  # half of it, then the disk is full
            whole(self, args[0][:20])
        raise OSError("no space left")

    monkeypatch.setattr(Path, failing, stop)
    for target in (path, tmp_path / "new.json"):
        with pytest.raises(OSError, match="no space left"):
            Layout.fit(SINGLES, systems=3).save(target)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["layout.json"]
    assert path.read_text() == before
    assert Layout.load(path) == SMALL


# --- errors ------------------------------------------------------------------------

LAYOUT = Layout.fit(SINGLES, systems=2)
ALONE = Layout.fit(batch([WATER])["positions"], systems=1)
WATERS = batch([WATER])


def _with(**others: Any) -> dict[str, Any]:
    return {**WATERS, **others}


def _features(change: Callable[[TensorBlock], TensorBlock]) -> dict[str, Any]:
    """A batch with other blocks of features."""
    tensor = WATERS["features"]
    return _with(features=TensorMap(tensor.keys, [change(block) for block in tensor]))


def _remade(block: TensorBlock, **parts: Any) -> TensorBlock:
    gradients = parts.pop("gradients", {})
    own = {
        "values": block.values,
        "samples": block.samples,
        "components": block.components,
        "properties": block.properties,
    }
    return TensorBlock(**{**own, **parts}, gradients=gradients)


def _without(name: str) -> Callable[[TensorBlock], TensorBlock]:
    return lambda block: _remade(
        block, gradients={n: g for n, g in block.gradients() if n != name}
    )


def _without_nested(block: TensorBlock) -> TensorBlock:
    gradients = dict(block.gradients())
    gradients["positions"] = _without("positions")(gradients["positions"])
    return _remade(block, gradients=gradients)


def _renamed(block: TensorBlock) -> TensorBlock:
    names = Labels(["system", "center"], block.samples.values)
    return _remade(block, samples=names, gradients=dict(block.gradients()))


def _other_gradient(block: TensorBlock) -> TensorBlock:
    gradients = dict(block.gradients())
    strain = gradients["strain"]
    components = [Labels("xyz", [[1], [2], [3]]), *strain.components[1:]]
    gradients["strain"] = _remade(strain, components=components)
    return _remade(block, gradients=gradients)


_PLAIN = WATERS["positions"].block()
_FLAT = _remade(_PLAIN, values=_PLAIN.values[:, 0], components=[])
_WIDE = _remade(
    _PLAIN, values=np.ones((3, 3, 2), "f4"), properties=Labels.range("_", 2)
)
_ZYX = _remade(_PLAIN, components=[Labels("xyz", [[2], [1], [0]])])
_TWO = {
    "a": energies(SYSTEMS[:2], np.random.default_rng(0)),
    "b": energies(SYSTEMS[1::-1], np.random.default_rng(0)),
}


def _positions(*blocks: TensorBlock, keys: Labels = ONE) -> TensorMap:
    return TensorMap(keys, list(blocks))


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    # --- fitting ---
    "no examples": (
        lambda: Layout.fit([], systems=1),
        MetatensorError,
        ["a layout needs at least one example to be fitted to"],
    ),
    "no systems": (
        lambda: Layout.fit(WATERS, systems=0),
        MetatensorError,
        ["`systems` must be at least 1, not 0"],
    ),
    "no declared systems": (
        lambda: Layout.from_capacities(WATERS["positions"], {"samples": 3}, 0),
        MetatensorError,
        ["`systems` must be at least 1, not 0"],
    ),
    "no buckets": (
        lambda: Layout.fit(WATERS, systems=1, buckets=0),
        MetatensorError,
        ["`buckets` must be at least 1, not 0"],
    ),
    "an empty list of buckets": (
        lambda: Layout.fit(WATERS, systems=1, buckets=[]),
        MetatensorError,
        ["`buckets` must increase from above 0 to 1, got ()"],
    ),
    **{
        f"buckets {buckets}": (
            lambda buckets=buckets: Layout.fit(WATERS, systems=1, buckets=buckets),
            MetatensorError,
            [f"`buckets` must increase from above 0 to 1, got {tuple(buckets)}"],
        )
        for buckets in (
            [0.5, 0.2, 1.0],
            [0.5, 0.9],
            [0.0, 1.0],
            [0.5, 0.5, 1.0],
            [0.5, float("nan"), 1.0],
            [0.5, 1.0, 2.0],
        )
    },
    "examples that are no maps": (
        lambda: Layout.fit([_PLAIN], systems=1),
        TypeError,
        ["a batch must be a TensorMap or a dict of TensorMaps by name, not TensorBl"],
    ),
    "a dict of blocks": (
        lambda: Layout.fit([{"x": _PLAIN}], systems=1),
        TypeError,
        ["a batch must be a TensorMap or a dict of TensorMaps by name, not dict"],
    ),
    "examples with other maps": (
        lambda: Layout.fit([{"a": _TWO["a"]}, _TWO], systems=1),
        MetatensorError,
        ["all examples must have the same maps, got ['a'] and ['a', 'b']"],
    ),
    "examples with other names of keys": (
        lambda: Layout.fit([WATERS["positions"], WATERS["features"]], systems=1),
        MetatensorError,
        [
            "all examples must have the same names of keys, got ['_'] and ",
            "['center_type']",
        ],
    ),
    "examples with other dtypes": (
        lambda: Layout.fit(
            [WATERS["positions"], WATERS["positions"].to(dtype="float64")], systems=1
        ),
        MetatensorError,
        ["all examples must have the same dtype, got ['float32', 'float64']"],
    ),
    "examples with other properties": (
        lambda: Layout.fit([_positions(_PLAIN), _positions(_WIDE)], systems=1),
        MetatensorError,
        [
            "the properties of block (_=0) should be the same in each batch, but ",
            "give them the same properties before (for example with Labels in ",
        ],
    ),
    # --- declaring ---
    "no capacity": (
        lambda: Layout.from_capacities(WATERS["positions"], {}, 1),
        MetatensorError,
        ["there are no capacities for 'samples', only for []"],
    ),
    "no capacities for a map": (
        lambda: Layout.from_capacities(
            WATERS, {k: v for k, v in CAPACITIES.items() if k != "bins"}, 1
        ),
        MetatensorError,
        ["there are no capacities for 'bins', only for ['energies', 'features', 'pos"],
    ),
    "a capacity for nothing": (
        lambda: Layout.from_capacities(
            WATERS["positions"], {"samples": 3, "strain": 1}, 1
        ),
        MetatensorError,
        ["there are capacities for ['strain'], but block (_=0) has ['samples']"],
    ),
    "a capacity of zero": (
        lambda: Layout.from_capacities(WATERS["positions"], {"samples": 0}, 1),
        MetatensorError,
        ["the capacity of block (_=0), 'samples', is 0, not >= 1"],
    ),
    # --- padding ---
    "too many samples": (
        lambda: Layout.fit(WATERS, systems=1).pad(
            _with(positions=positions([System(7, (1,) * 5)], np.random.default_rng(0)))
        ),
        MetatensorError,
        [
            "block (_=0) of 'positions' has 5 rows, but the layout has room for 3: ",
            "fit it to data with batches as large, or make smaller batches",
        ],
    ),
    "too many rows of a single map": (
        lambda: ALONE.bucket(batch([METHANE])["positions"]),
        MetatensorError,
        ["block (_=0) has 5 rows, but the layout has room for 3: fit it"],
    ),
    "too many gradient rows": (
        lambda: Layout.from_capacities(
            WATERS["energies"], {"samples": 1, "positions": 2}, 1
        ).pad(WATERS["energies"]),
        MetatensorError,
        ["block (_=0), gradient 'positions' has 3 rows, but the layout has room for 2"],
    ),
    "too many nested gradient rows": (
        lambda: Layout.from_capacities(
            batch(SYSTEMS),
            {
                **CAPACITIES,
                "features": {**CAPACITIES["features"], "positions/positions": 7},
            },
            3,
        ).pad(WATERS),
        MetatensorError,
        [
            "block (center_type=1) of 'features', gradient 'positions/positions' has ",
            "18 rows, but the layout has room for 7",
        ],
    ),
    "too many systems": (
        lambda: LAYOUT.pad(batch([HYDROGEN, WATER, System(30, (1,))])),
        MetatensorError,
        ["the batch has 3 systems, but the layout has room for 2"],
    ),
    "an unknown key": (
        lambda: Layout.fit(WATERS, systems=1).pad(batch([System(7, (6, 1))])),
        MetatensorError,
        [
            "the layout has no room for the block (center_type=6), only for\nLabels",
            "fit it to data that has this block as well",
        ],
    ),
    "other names of keys": (
        lambda: ALONE.pad(
            mts.rename_dimension(WATERS["positions"], "keys", "_", "key")
        ),
        MetatensorError,
        ["['key']", "['_']"],
    ),
    "other maps": (
        lambda: LAYOUT.pad({"features": WATERS["features"]}),
        MetatensorError,
        [
            "the layout is for the maps ['bins', 'energies', 'features', 'positions'],",
            "but the batch has ['features']",
        ],
    ),
    "one map for many": (
        lambda: LAYOUT.pad(WATERS["features"]),
        MetatensorError,
        ["but the batch has ['']"],
    ),
    "a batch that is no map": (
        lambda: LAYOUT.pad([WATERS]),
        TypeError,
        ["a batch must be a TensorMap or a dict of TensorMaps by name, not list"],
    ),
    "another dtype": (
        lambda: ALONE.pad(WATERS["positions"].to(dtype="float64")),
        MetatensorError,
        [
            "the layout is for float32 values, but those of the batch are float64: ",
            "convert them with `.to(dtype='float32')`",
        ],
    ),
    "other properties": (
        lambda: LAYOUT.pad(_with(positions=_positions(_WIDE))),
        MetatensorError,
        [
            "the properties of block (_=0) of 'positions' should be the same in each ",
            "give them the same properties before (for example with Labels in `keys_to",
        ],
    ),
    "other components": (
        lambda: LAYOUT.pad(_with(positions=_positions(_ZYX))),
        MetatensorError,
        ["the components of block (_=0) of 'positions' should be the same in each"],
    ),
    "no components": (
        lambda: LAYOUT.pad(_with(positions=_positions(_FLAT))),
        MetatensorError,
        ["block (_=0) of 'positions' should have 1 components, but it has 0"],
    ),
    "other names of samples": (
        lambda: LAYOUT.pad(_features(_renamed)),
        MetatensorError,
        [
            "the samples of block (center_type=1) of 'features' should have the ",
            "dimensions ['system', 'atom'], but they have ['system', 'center']",
        ],
    ),
    "a gradient less": (
        lambda: LAYOUT.pad(_features(_without("strain"))),
        MetatensorError,
        [
            "block (center_type=1) of 'features' should have gradients with respect ",
            "to ['positions', 'strain'], but it has ['positions']",
        ],
    ),
    "a nested gradient less": (
        lambda: LAYOUT.pad(_features(_without_nested)),
        MetatensorError,
        [
            "block (center_type=1) of 'features', gradient 'positions' should have ",
            "gradients with respect to ['positions'], but it has []",
        ],
    ),
    "a gradient more": (
        lambda: Layout.fit(_features(_without("strain")), systems=1).pad(WATERS),
        MetatensorError,
        ["to ['positions'], but it has ['positions', 'strain']"],
    ),
    "other components of a gradient": (
        lambda: LAYOUT.pad(_features(_other_gradient)),
        MetatensorError,
        [
            "the components of block (center_type=1) of 'features', gradient 'strain' ",
            "should be the same in each batch",
        ],
    ),
    "unpadding without systems": (
        lambda: ALONE.unpad(ALONE.pad(WATERS["positions"]).tensors),
        TypeError,
        ["to unpad a single map, give `systems` of its batch"],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, texts = ERRORS[name]
    with pytest.raises(kind) as error:
        call()
    assert type(error.value) is kind
    for text in texts:
        assert re.search(re.escape(text), str(error.value)), str(error.value)
