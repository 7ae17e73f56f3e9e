"""Results on padded batches: those on ragged ones, whatever the padding holds.

A layout is fitted once, so each function is compiled once for all batches. What it
gives is compared with the same function of the ragged batch, and padding rows are
filled with numbers that spoil anything they get into.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import assert_same, enable_x64
from hypothesis import Phase, given, settings, strategies as st
from reference import assert_close, assert_rows, rows_of

import metatensor_jax as mts
from metatensor_jax import Labels, Layout, PaddedBatch, TensorBlock, TensorMap

eqx = pytest.importorskip("equinox")

from metatensor_jax.learn import ModuleMap  # noqa: E402 (needs equinox)

XYZ, ONE = Labels.range("xyz", 3), Labels.single()
TYPES = (1, 8)
KEYS = Labels("center_type", [[t] for t in TYPES])
FILLS = (0.0, np.nan, np.inf)
MAX_SYSTEMS = 3

# --- data --------------------------------------------------------------------------


class System(NamedTuple):
    """Atoms in space."""

    number: int
    types: tuple[int, ...]
    positions: np.ndarray

    @classmethod
    def random(cls, number: int, types: Sequence[int], seed: int = 0) -> System:
        """Some atoms, one or two apart."""
        n = len(types)
        noise = np.random.default_rng((seed, number)).normal(size=(n, 3))
        return cls(number, tuple(types), 1.5 * np.eye(n, 3) * n + 0.3 * noise)


WIDTHS = np.array([0.1, 0.3, 0.7])


def features(systems: Sequence[System], dtype: Any) -> TensorMap:
    r"""The function :math:`1/2 + \sum_j z_j \exp(-a r_{ij}^2)` of positions."""
    blocks = []
    for t in TYPES:
        samples, values, labels, gradients = [], [], [], []
        for s in systems:
            z = np.array(s.types, float)[:, None] / 8
            for i in np.flatnonzero(np.array(s.types) == t):
                to = s.positions[i] - s.positions
                others = np.arange(len(z)) != i
                terms = z * np.exp(-WIDTHS * (to**2).sum(1)[:, None]) * others[:, None]
                # with respect to the position of each other atom, and its own
                by_atom = 2 * to[:, :, None] * (WIDTHS * terms)[:, None]
                by_atom[i] = -by_atom.sum(0)
                row = len(samples)
                labels += [(row, s.number, j) for j in range(len(z))]
                gradients += list(by_atom)
                samples.append((s.number, i))
                values.append(0.5 + terms.sum(0))
        properties = Labels.range("width", 3)
        gradient = TensorBlock(
            np.array(gradients, dtype).reshape(-1, 3, 3),
            _labels(["sample", "system", "atom"], labels),
            [XYZ],
            properties,
        )
        blocks.append(
            TensorBlock(
                np.array(values, dtype).reshape(-1, 3),
                _labels(["system", "atom"], samples),
                [],
                properties,
                {"positions": gradient},
            )
        )
    return TensorMap(KEYS, blocks)


def _labels(names: Sequence[str], rows: Sequence[Any]) -> Labels:
    return Labels(names, np.array(rows, np.int32).reshape(-1, len(names)))


def _random_block(
    rng: np.random.Generator,
    names: Sequence[str],
    rows: Sequence[Any],
    components: Sequence[Labels],
    properties: Labels,
    gradients: Mapping[str, TensorBlock] | None = None,
) -> TensorBlock:
    """Positive values, away from zero."""
    samples = _labels(names, rows)
    shape = (len(samples), *map(len, components), len(properties))
    values = (0.5 + rng.random(shape)).astype(np.float32)
    return TensorBlock(values, samples, components, properties, gradients)


COMPONENT = Labels("m", [[-1], [1]])
GRIDS = {
    t: Labels(["n", "l"], [[n, l] for n in range(n_max) for l in range(2)])
    for t, n_max in zip(TYPES, (2, 1), strict=True)
}


def random_map(
    systems: Sequence[System], rng: np.random.Generator, kind: str = "x"
) -> TensorMap:
    """Any map of atoms, with gradient rows here and there.

    :param kind: ``"x"`` and ``"y"`` have gradients with respect to positions, ``"z"``
        to strain as well, ``"nested"`` to positions and of these to strain
    """

    def some(rows: list[Any]) -> list[Any]:
        kept = [row for row in rows if rng.random() < 0.6]
        return [kept[i] for i in rng.permutation(len(kept))]

    blocks = []
    for t in TYPES:
        own = [COMPONENT], GRIDS[t]
        atoms = [(s, i) for s in systems for i, u in enumerate(s.types) if t == u]
        pairs = some(
            [
                (row, s.number, j)
                for row, (s, _) in enumerate(atoms)
                for j in range(len(s.types))
            ]
        )
        names, gradients, below = ["sample", "system", "atom"], {}, {}
        if kind == "z":
            rows = some([(row,) for row in range(len(atoms))])
            gradients["strain"] = _random_block(rng, ["sample"], rows, *own)
        if kind == "nested":
            rows = some([(k, number, 0) for k, (_, number, _) in enumerate(pairs)])
            below["strain"] = _random_block(rng, names, rows, [XYZ, *own[0]], own[1])
        gradients["positions"] = _random_block(
            rng, names, pairs, [XYZ, *own[0]], own[1], below
        )
        samples = [(s.number, i) for s, i in atoms]
        blocks.append(_random_block(rng, ["system", "atom"], samples, *own, gradients))
    return TensorMap(KEYS, blocks)


def per_atom(systems: Sequence[System], values: Sequence[np.ndarray]) -> TensorMap:
    """A vector for each atom."""
    rows = [(s.number, i) for s in systems for i in range(len(s.types))]
    array = np.concatenate([np.zeros((0, 3)), *values])[..., None]
    samples = _labels(["system", "atom"], rows)
    return TensorMap(ONE, [TensorBlock(array, samples, [XYZ], ONE)])


def physical(
    systems: Sequence[System], dtype: Any = np.float32, lacking: Sequence[int] = ()
) -> dict[str, TensorMap]:
    """Features with gradients, positions, and targets that they do not know.

    :param lacking: numbers of systems without a known energy
    """
    rng = np.random.default_rng(0)
    known = [s for s in systems if s.number not in lacking]
    energy = [[np.sin(sum(s.types)) + len(s.types)] for s in known]
    energies = TensorBlock(
        np.array(energy, dtype).reshape(-1, 1),
        _labels(["system"], [(s.number,) for s in known]),
        [],
        Labels.range("energy", 1),
    )
    forces = [rng.normal(size=s.positions.shape) for s in systems]
    return {
        "features": features(systems, dtype),
        "positions": per_atom(systems, [s.positions for s in systems]).to(dtype),
        "energies": TensorMap(ONE, [energies]),
        "forces": per_atom(systems, forces).to(dtype),
    }


def random_maps(systems: Sequence[System], seed: int = 0) -> dict[str, TensorMap]:
    """Two maps with the same samples but other gradient rows; and a nested one."""
    rng = np.random.default_rng(seed)
    return {kind: random_map(systems, rng, kind) for kind in ("x", "y", "z", "nested")}


def thin(maps: Mapping[str, TensorMap]) -> dict[str, TensorMap]:
    """The same without empty blocks, as data comes."""
    return {
        name: mts.drop_empty_blocks(tensor) if len(tensor.keys) > 1 else tensor
        for name, tensor in maps.items()
    }


def filled(padded: PaddedBatch, value: float) -> PaddedBatch:
    """Something else in all padding rows, those of gradients as well."""

    def of_block(block: TensorBlock) -> TensorBlock:
        mask = _like(block.mask, block.values)
        values = np.where(mask, block.values, np.asarray(value, block.dtype))
        gradients = {name: of_block(gradient) for name, gradient in block.gradients()}
        axes = block.samples, block.components, block.properties
        return TensorBlock(values, *axes, gradients)

    tensors = {
        name: TensorMap(tensor.keys, [of_block(b) for b in tensor], tensor.info())
        for name, tensor in padded.tensors.items()
    }
    result = dataclasses.replace(padded, tensors=tensors)
    assert jax.tree.structure(result) == jax.tree.structure(padded)
    return result


def _like(mask: Any, values: Any) -> Any:
    return mask.reshape(-1, *[1] * (values.ndim - 1))


LARGEST = [System.random(i, TYPES * 2) for i in range(MAX_SYSTEMS)]


def _declare(maps: dict[str, TensorMap], rows: int) -> Layout:
    """Room for so many atoms of each type, and for all pairs of them."""
    capacities = {}
    for name, tensor in maps.items():
        room = {"samples": rows}
        for block in tensor:
            for parameter, gradient in block.gradients():
                room[parameter] = 5 * rows
                for inner in gradient.gradients_list():
                    room[f"{parameter}/{inner}"] = 5 * rows
        if tensor.sample_names == ["system"]:
            room["samples"] = MAX_SYSTEMS
        capacities[name] = room
    return Layout.from_capacities(maps, capacities, MAX_SYSTEMS)


#: three systems of at most four atoms
LAYOUT = _declare(random_maps(LARGEST), 14)
PHYSICAL = _declare(physical(LARGEST), 14)

BATCH = [System.random(7, (8, 1, 1)), System.random(3, (1, 8))]
types = st.lists(st.sampled_from(TYPES), min_size=1, max_size=4)


@st.composite
def ragged(draw: Callable[..., Any]) -> list[System]:
    """1 to 3 systems, with numbers in any order; some types may not be there."""
    numbers = st.lists(st.integers(0, 99), min_size=1, max_size=MAX_SYSTEMS)
    seed = draw(st.integers(0, 99))
    chosen = draw(numbers.map(lambda found: list(dict.fromkeys(found))))
    return [System.random(number, draw(types), seed) for number in chosen]


# --- comparing ---------------------------------------------------------------------


def own_samples(padded: PaddedBatch) -> Labels:
    """The systems of a batch by their own numbers, in the order of ``out_samples``."""
    return Labels("system", padded.systems[padded.mask][:, None])


def assert_same_rows(actual: TensorMap, expected: TensorMap, eps: float = 200) -> None:
    """The same labels, and the same rows to rounding; gradient rows in any order."""
    assert actual.keys == expected.keys
    for one, other in zip(actual, expected, strict=True):
        assert one.samples == other.samples
        assert one.components == other.components
        assert one.properties == other.properties
        assert_rows(rows_of(one), rows_of(other), eps)


def parts(tensor: TensorMap) -> list[TensorBlock]:
    """All blocks, gradients, and gradients of gradients."""

    def of_block(block: TensorBlock) -> list[TensorBlock]:
        return [block, *(p for _, g in block.gradients() for p in of_block(g))]

    return [part for block in tensor for part in of_block(block)]


def size(tensor: TensorMap) -> Any:
    """A number that depends on all that is stored, except for padding."""
    total = jnp.zeros((), tensor.dtype)
    for part in parts(tensor):
        mask = _like(part.mask, part.values)
        values = jnp.where(mask, part.values, jnp.zeros((), part.dtype))
        total = total + (values**2).sum()
    return total


def assert_padding_is_zero(gradient: PaddedBatch, padded: PaddedBatch) -> None:
    """Nothing depends on what padding rows hold."""
    for name, tensor in gradient.tensors.items():
        for part, original in zip(parts(tensor), parts(padded[name]), strict=True):
            values = np.asarray(part.values)
            assert np.all(np.isfinite(values))
            assert not np.any(values[~original.mask])


def as_map(gradient: Any, original: Any) -> Any:
    """A gradient that JAX gave, with labels where JAX has nothing."""
    return jax.tree.map(
        lambda g, x: x if g.dtype == jax.dtypes.float0 else np.asarray(g),
        gradient,
        original,
    )


# --- operations --------------------------------------------------------------------

Operation = Callable[[Any, Labels], TensorMap]
OTHER = TensorMap(
    KEYS,
    [
        TensorBlock(
            np.random.default_rng(t).normal(size=(2, len(GRIDS[t]))).astype("f4"),
            Labels.range("basis", 2),
            [],
            GRIDS[t],
        )
        for t in TYPES
    ],
)
MODULES = ModuleMap(
    KEYS,
    [
        eqx.nn.MLP(len(GRIDS[t]), 2, 4, 1, jnp.tanh, key=jax.random.key(t))
        for t in TYPES
    ],
)
N_0 = Labels("n", [[0]])
KEY_1 = Labels("center_type", [[1]])


def _norm(row: Any) -> Any:
    return jnp.linalg.norm(row, axis=-1, keepdims=True)


def _steep(row: Any) -> Any:
    """Without derivative at zero, in two ways."""
    return jnp.sqrt(row) * jnp.log(row)


def _ratio(a: Any, b: Any) -> Any:
    return a / jnp.linalg.norm(b)


def _over_samples(kind: str) -> dict[str, Operation]:
    reduce = getattr(mts, f"{kind}_over_samples")
    return {
        kind: lambda b, out: reduce(b["z"], "atom", out_samples=out),
    }


def _over_properties(kind: str) -> dict[str, Operation]:
    reduce = getattr(mts, f"{kind}_over_properties")
    return {f"{kind} over properties": lambda b, _: reduce(b["x"], "l")}


KINDS = ("sum", "mean", "var", "std")
OPERATIONS: dict[str, Operation] = {
    # --- arithmetic ---
    "add": lambda b, _: mts.add(b["x"], b["y"]),
    "add a number": lambda b, _: mts.add(b["x"], 2.0),
    "subtract": lambda b, _: mts.subtract(b["x"], b["y"]),
    "multiply": lambda b, _: mts.multiply(b["x"], b["y"]),
    "divide": lambda b, _: mts.divide(b["x"], b["y"]),
    "cube": lambda b, _: mts.pow(b["x"], 3),
    "root": lambda b, _: mts.pow(b["x"], 0.5),
    "abs": lambda b, _: mts.abs(mts.subtract(b["x"], b["y"])),
    "operators": lambda b, _: (b["x"] + 1.0) * b["y"] / 2,
    "dot": lambda b, _: mts.dot(b["x"], OTHER),
    # --- reductions ---
    **{name: f for kind in KINDS for name, f in _over_samples(kind).items()},
    **{name: f for kind in KINDS for name, f in _over_properties(kind).items()},
    "mean of all": lambda b, _: mts.mean_over_samples(
        b["z"], ["atom", "system"], out_samples=ONE
    ),
    "sum of nested": lambda b, out: mts.sum_over_samples(
        b["nested"], "atom", out_samples=out
    ),
    "mean of nested": lambda b, out: mts.mean_over_samples(
        b["nested"], "atom", out_samples=out
    ),
    # --- moving ---
    "join": lambda b, _: mts.join([b["x"], b["y"]], "samples", add_dimension="from"),
    "join nested": lambda b, _: mts.join(
        [b["nested"], b["nested"]], "samples", add_dimension="from"
    ),
    "join a union": lambda b, _: mts.join(
        [b["x"], mts.filter_blocks(b["y"], KEY_1)], "samples", "union", "from"
    ),
    "slice properties": lambda b, _: mts.slice(b["z"], "properties", N_0),
    "slice nested": lambda b, _: mts.slice(b["nested"], "properties", N_0),
    "slice properties at": lambda b, _: mts.slice(b["z"], "properties", [1, 0]),
    "split properties": lambda b, _: mts.split(b["z"], "properties", [N_0])[0],
    "filter": lambda b, _: mts.filter_blocks(b["z"], KEY_1),
    "drop": lambda b, _: mts.drop_blocks(b["z"], KEY_1),
    "keys to samples": lambda b, _: b["z"].keys_to_samples(
        "center_type", sort_samples=False
    ),
    "components to properties": lambda b, _: b["z"].components_to_properties("m"),
    "sort": lambda b, _: mts.sort(b["z"], ["components", "properties", "keys"]),
    "append": lambda b, _: mts.append_dimension(b["z"], "samples", "new", 5),
    "insert": lambda b, _: mts.insert_dimension(b["z"], "samples", 0, "new", 5),
    "permute": lambda b, _: mts.permute_dimensions(b["z"], "samples", [1, 0]),
    "rename": lambda b, _: mts.rename_dimension(b["z"], "samples", "atom", "new"),
    "append and reduce": lambda b, _: mts.mean_over_samples(
        mts.append_dimension(b["x"], "samples", "new", 1),
        ["system", "atom"],
        out_samples=Labels.range("new", 2),
    ),
    "keys to samples and reduce": lambda b, _: mts.mean_over_samples(
        b["x"].keys_to_samples("center_type", sort_samples=False),
        ["system", "atom"],
        out_samples=Labels.range("center_type", 9),
    ),
    "join and reduce": lambda b, _: mts.mean_over_samples(
        mts.join([b["x"], b["y"]], "samples", add_dimension="from"),
        ["system", "atom"],
        out_samples=Labels.range("from", 2),
    ),
    "remove": lambda b, _: mts.remove_dimension(
        mts.append_dimension(b["z"], "samples", "new", 5), "samples", "new"
    ),
    # --- creation ---
    "zeros": lambda b, _: mts.zeros_like(b["x"]),
    "ones": lambda b, _: mts.ones_like(b["x"]),
    "detach": lambda b, _: mts.detach(b["x"]),
    "remove gradients": lambda b, _: mts.remove_gradients(b["x"]),
    # --- functions of rows ---
    "map": lambda b, _: mts.map_rows(_steep, b["x"]),
    "norm": lambda b, _: mts.map_rows(_norm, b["x"], properties=ONE),
    "map of two": lambda b, _: mts.map_rows(_ratio, b["x"], b["y"]),
    "modules": lambda b, _: MODULES(b["x"]),
    # --- all together ---
    "pipeline": lambda b, out: mts.mean_over_samples(
        mts.map_rows(_steep, b["x"] * b["y"]), "atom", out_samples=out
    ),
}


def value_and_derivative(operation: Operation, maps: Any, out_samples: Labels) -> Any:
    """The result, and the derivative of its size by all arrays that went in."""

    def function(maps: Any) -> Any:
        result = operation(maps, out_samples)
        return size(result), result

    gradient, result = jax.grad(function, has_aux=True, allow_int=True)(maps)
    return result, gradient


def quickly_compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """A program for these arguments, without the optimizations that take long."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)


@functools.cache
def of_padded(name: str) -> Any:
    """The program for all padded batches."""

    def function(batch: PaddedBatch) -> Any:
        return value_and_derivative(OPERATIONS[name], batch, batch.out_samples)

    return quickly_compiled(function, LAYOUT.pad(random_maps(BATCH)))


def check_fills(name: str, padded: PaddedBatch) -> tuple[TensorMap, Any]:
    """Results and derivatives do not change with what padding rows hold."""
    seen = []
    for value in FILLS:
        result, gradient = of_padded(name)(filled(padded, value))
        gradient = as_map(gradient, padded)
        assert_padding_is_zero(gradient, padded)
        seen.append((LAYOUT.unpad(result, padded.systems), LAYOUT.unpad(gradient)))
        assert_same(seen[-1], seen[0])
    return seen[0]


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=2, phases=[Phase.generate])
@given(ragged(), st.integers(0, 99))
def test_operation(name, systems, seed):
    maps = random_maps(systems, seed)
    padded = LAYOUT.pad(thin(maps))
    result, _ = check_fills(name, padded)
    assert_same_rows(result, OPERATIONS[name](maps, own_samples(padded)))


def without_jit(function: Callable[..., Any], batch: Any) -> Any:
    with jax.disable_jit():
        return function(batch)


WAYS: dict[str, Callable[..., Any]] = {
    "eager, NumPy": lambda function, batch: function(batch),
    "eager, JAX": lambda function, batch: function(jax.device_put(batch)),
    "jit": lambda function, batch: jax.jit(function)(batch),
    "disable_jit": without_jit,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_on_a_batch_with_room_to_spare_in_all_ways(name, way):
    systems = [System.random(4, (1, 8, 1)), System.random(7, (8,))]
    maps = random_maps(systems, 3)
    padded = filled(LAYOUT.pad(maps), np.nan)

    def function(batch: PaddedBatch) -> Any:
        return OPERATIONS[name](batch, batch.out_samples)

    result = LAYOUT.unpad(WAYS[way](function, padded), padded.systems)
    assert_same_rows(result, OPERATIONS[name](maps, own_samples(padded)))


def test_modules_on_a_batch_compile_few_programs_outside_of_jit(compiled):
    keys = Labels("center_type", [[t] for t in (1, 6, 7, 8)])
    xyz, p = Labels.range("xyz", 3), Labels.range("p", 5)
    rng = np.random.default_rng(0)

    def block(n: int) -> TensorBlock:
        rows = Labels(["system", "atom"], [[i // 3, i % 3] for i in range(n)])
        labels = Labels(
            ["sample", "system", "atom"], [[i, i // 3, 0] for i in range(n)]
        )
        slopes = TensorBlock(rng.random((n, 3, 5), np.float32), labels, [xyz], p)
        values = rng.random((n, 5), np.float32)
        return TensorBlock(values, rows, [], p, {"positions": slopes})

    tensor = TensorMap(keys, [block(n) for n in (9, 7, 4, 2)])
    batch = Layout.fit(tensor, systems=4).pad(tensor)
    modules = [eqx.nn.MLP(5, 2, 8, 2, key=key) for key in jax.random.split(KEY, 4)]
    model = ModuleMap(keys, modules)
    compiled()
    model(batch.tensors)
    assert compiled() < 10


KEY = jax.random.key(0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_derivative_of_operation(name):
    maps = random_maps(BATCH)
    padded = LAYOUT.pad(maps)
    _, derivative = check_fills(name, padded)
    own = own_samples(padded)
    ragged = quickly_compiled(
        lambda maps: value_and_derivative(OPERATIONS[name], maps, own), maps
    )
    for what, expected in ragged(maps)[1].items():
        assert_same_rows(derivative[what], expected)


# --- learning ----------------------------------------------------------------------


def parameters(dtype: Any = np.float32) -> Any:
    """The arrays of a model: a small network for each type."""
    keys = jax.random.split(jax.random.key(0), len(TYPES))
    networks = [eqx.nn.MLP(3, 1, 4, 1, jnp.tanh, dtype=dtype, key=key) for key in keys]
    network = ModuleMap(KEYS, networks, Labels.range("energy", 1))
    return eqx.partition(network, eqx.is_array)


STATIC = parameters()[1]


def _root_and_norm(row: Any) -> Any:
    return jnp.sqrt(row) / jnp.linalg.norm(row)


def energies(arrays: Any, maps: Any, positions: Any, out: Labels) -> Any:
    """The energy of each system, as a function of positions."""
    at = maps["positions"].block().with_values(positions)
    x = mts.connect_gradients(maps["features"], positions=at)
    x = mts.map_rows(_root_and_norm, x)
    x = eqx.combine(arrays, STATIC)(x)
    x = mts.sum_over_samples(x, "atom", out_samples=out)
    return sum(block.values for block in x)


class Targets(NamedTuple):
    """What is to be learned, and where it is known."""

    energies: Any
    forces: Any
    has_energy: Any
    is_atom: Any

    @classmethod
    def of_batch(cls, batch: PaddedBatch) -> Targets:
        """From a padded batch."""
        blocks = [batch[name].block() for name in ("energies", "forces")]
        return cls(*(b.values for b in blocks), *(b.mask for b in blocks))

    @classmethod
    def of_maps(cls, maps: Mapping[str, TensorMap], own: Labels) -> Targets:
        """The same of a ragged one: a system without energy has any."""
        block, forces = maps["energies"].block(), maps["forces"].block().values
        at = own.select(block.samples)
        array = np.zeros((len(own), 1), forces.dtype)
        array[at] = block.values
        known = np.zeros(len(own), bool)
        known[at] = True
        return cls(array, forces, known, np.ones(len(forces), bool))


def loss(arrays: Any, maps: Any, positions: Any, targets: Targets, out: Labels) -> Any:
    """Of energies and forces, and the forces."""

    def total(positions: Any) -> Any:
        found = energies(arrays, maps, positions, out)
        return found.sum(), found

    slope, found = jax.grad(total, has_aux=True)(positions)
    terms = []
    for error, known in (
        (found - targets.energies, targets.has_energy),
        (-slope - targets.forces, targets.is_atom),
    ):
        mask = _like(known, error)
        squares = jnp.where(mask, error, jnp.zeros((), error.dtype)) ** 2
        terms.append(squares.sum() / jnp.maximum(known.sum(), 1).astype(error.dtype))
    return terms[0] + 0.1 * terms[1], (found, -slope)


#: the loss with energies and forces, and its derivative by parameters
_GRADIENTS = jax.value_and_grad(loss, has_aux=True)


@jax.jit
def learn_from(arrays: Any, batch: PaddedBatch) -> Any:
    """All of these for a padded batch."""
    positions = batch["positions"].block().values
    targets = Targets.of_batch(batch)
    return _GRADIENTS(arrays, batch, positions, targets, batch.out_samples)


@settings(max_examples=3, phases=[Phase.generate])
@given(ragged(), st.sets(st.integers(0, 2)))
def test_loss_and_its_derivatives(systems, without):
    lacking = [s.number for i, s in enumerate(systems) if i in without]
    maps = thin(physical(systems, np.float32, lacking))
    padded = PHYSICAL.pad(maps)
    own, is_atom = own_samples(padded), padded["positions"].block().mask
    arrays = parameters()[0]
    targets = Targets.of_maps(maps, own)
    ragged = quickly_compiled(
        lambda arrays, at: _GRADIENTS(arrays, maps, at, targets, own),
        arrays,
        at := maps["positions"].block().values,
    )
    (value, (energy, forces)), of_arrays = ragged(arrays, at)
    for fill in FILLS:
        (one, (e, f)), for_arrays = learn_from(arrays, filled(padded, fill))
        assert_close(one, value)
        assert_close(e[padded.mask], energy)
        assert_close(f[is_atom], forces)
        assert not np.any(f[~is_atom])
        for a, b in zip(
            jax.tree.leaves(for_arrays), jax.tree.leaves(of_arrays), strict=True
        ):
            assert_close(a, b)


def test_finite_differences():
    with enable_x64(True):
        layout = _declare(physical(LARGEST, np.float64), 14)
        arrays = parameters(np.float64)[0]
        systems = [BATCH[0], System.random(3, (8, 1))]
        step = 1e-5

        def evaluate(systems: Sequence[System], arrays: Any) -> Any:
            padded = layout.pad(thin(physical(systems, np.float64)))
            return padded, learn_from(arrays, filled(padded, np.nan))

        padded, ((_, (_, forces)), gradient) = evaluate(systems, arrays)
        # forces: from the energies of features at other positions
        rows = np.asarray(padded["positions"].block().samples.values)
        for i in np.flatnonzero(padded["positions"].block().mask):
            number, atom = padded.systems[rows[i, 0]], rows[i, 1]
            which = [s.number for s in systems].index(number)
            axis = i % 3
            totals = []
            for sign in (1, -1):
                moved = systems[which].positions.copy()
                moved[atom, axis] += sign * step
                others = list(systems)
                others[which] = systems[which]._replace(positions=moved)
                (_, (energy, _)), _ = evaluate(others, arrays)[1]
                totals.append(energy[padded.mask].sum())
            expected = -(totals[0] - totals[1]) / (2 * step)
            np.testing.assert_allclose(forces[i, axis, 0], expected, atol=1e-8)
        # parameters: the loss along some direction
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), arrays)
        losses = []
        for sign in (1, -1):
            shifted = jax.tree.map(
                lambda x, d, sign=sign: x + sign * step * d, arrays, direction
            )
            losses.append(evaluate(systems, shifted)[1][0][0])
        slopes = jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)
        expected = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(sum(jax.tree.leaves(slopes)), expected, rtol=1e-7)


def test_forces_when_a_block_has_no_rows():
    # went wrong: "integer modulo by zero", for ragged maps with a block without samples
    empty = physical([System.random(7, (1, 1, 1))])
    at = empty["positions"].block().values
    assert len(empty["features"].block(center_type=8)) == 0
    arrays, own = parameters()[0], Labels("system", [[7]])

    def total(at: Any, maps: Any) -> Any:
        return energies(arrays, maps, at, own).sum()

    forces = jax.grad(total)(at, empty)
    assert_close(forces, jax.grad(total)(at, thin(empty)))


@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf])
def test_least_squares_leave_padding_out(fill):
    rng = np.random.default_rng(0)
    samples = Labels(["system", "atom"], [[s, a] for s in (3, 5) for a in range(4)])

    def some(n: int, properties: int) -> TensorMap:
        values = rng.normal(size=(n, properties)).astype(np.float32)
        block = mts.TensorBlock(values, samples, [], Labels.range("p", properties))
        return TensorMap(Labels.single(), [block])

    maps = {"x": some(8, 3), "y": some(8, 2)}
    capacities = {name: {"samples": 11} for name in maps}
    layout = Layout.from_capacities(maps, capacities, systems=3)
    padded = filled(layout.pad(maps), fill)
    solution = mts.lstsq(padded["x"], padded["y"], None).block()
    by_numpy = np.linalg.lstsq(*(m.block().values for m in maps.values()), None)[0]
    np.testing.assert_allclose(solution.values.T, by_numpy, rtol=1e-4)
