"""Training on hundreds of ragged batches of real molecules, with one compilation.

The molecules are those of ASE's collection g2, which differ in size and composition;
energies and forces are those of a Morse potential between all atoms. Features
are computed once, by featomic, and each batch is a few systems of these.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import ONE, XYZ, hypers

import metatensor_jax as mts
from metatensor_jax import Labels, Layout, PaddedBatch, TensorBlock, TensorMap

pytest.importorskip("featomic")
pytest.importorskip("ase")
eqx = pytest.importorskip("equinox")
optax = pytest.importorskip("optax")

from metatensor_jax.learn import ModuleMap  # noqa: E402 (needs equinox)

ENERGY = Labels.range("energy", 1)
TYPES = (1, 6, 7, 8)
PAIRS = Labels(
    ["neighbor_1_type", "neighbor_2_type"],
    [[a, b] for a in TYPES for b in TYPES if a <= b],
)
HYPERS = hypers(radius=3.0)
PER_BATCH = 4


@pytest.fixture
def compiled(caplog):
    """A function that names the programs compiled since its last call."""
    with jax.log_compiles():

        def programs() -> list[str]:
            messages = [record.getMessage() for record in caplog.records]
            caplog.clear()
            return [text for text in messages if "Finished XLA compilation" in text]

        # Were the message to change, each test would find nothing and pass.
        jax.jit(lambda x: x + 1)(np.ones((len(programs()), 5, 11), np.float32))
        assert len(programs()) == 1
        yield programs


@functools.cache
def molecules() -> dict[str, TensorMap]:
    """Features, positions, energies and forces of all of them."""
    import metatensor
    from ase.build import molecule
    from ase.calculators.morse import MorsePotential
    from ase.collections import g2
    from featomic import SoapPowerSpectrum

    rng = np.random.default_rng(0)
    symbols = {"H", "C", "N", "O"}
    systems = [molecule(name) for name in g2.names]
    systems = [s for s in systems if symbols.issuperset(s.symbols) and len(s) > 1]
    for s in systems:
        s.positions += 0.03 * rng.normal(size=s.positions.shape)
        s.calc = MorsePotential(r0=1.0, rho0=2.0, rcut1=2.0, rcut2=3.0)
    soap = SoapPowerSpectrum(**HYPERS).compute(systems, gradients=["positions"])
    features = TensorMap.load_buffer(metatensor.io.save_buffer(soap))
    atoms = Labels(
        ["system", "atom"],
        [[i, a] for i, s in enumerate(systems) for a in range(len(s))],
    )

    def per_atom(values: list[np.ndarray]) -> TensorMap:
        array = np.concatenate(values)[..., None]
        return TensorMap(ONE, [TensorBlock(array, atoms, [XYZ], ONE)])

    energies = np.array([[s.get_potential_energy()] for s in systems])
    samples = Labels.range("system", len(systems))
    maps = {
        "features": features.keys_to_properties(PAIRS),
        "positions": per_atom([s.positions for s in systems]),
        "energies": TensorMap(ONE, [TensorBlock(energies, samples, [], ENERGY)]),
        "forces": per_atom([s.get_forces() for s in systems]),
    }
    return {name: tensor.to("float32") for name, tensor in maps.items()}


def batches(n: int, fewest: int = PER_BATCH) -> list[dict[str, TensorMap]]:
    """Random molecules, without the blocks of types that they lack."""
    rng = np.random.default_rng(1)
    maps = molecules()
    total = len(maps["energies"].block())
    result = []
    for _ in range(n):
        size = rng.integers(fewest, PER_BATCH + 1)
        chosen = Labels("system", rng.choice(total, size, replace=False)[:, None])
        result.append(
            {
                name: mts.drop_empty_blocks(mts.slice(tensor, "samples", chosen))
                for name, tensor in maps.items()
            }
        )
    return result


def a_model() -> Any:
    """A small network for each type of atom."""
    keys = molecules()["features"].keys
    n = len(molecules()["features"].block_by_id(0).properties)
    networks = [
        eqx.nn.MLP(n, 1, 8, 1, jnp.tanh, key=key)
        for key in jax.random.split(jax.random.key(0), len(keys))
    ]
    return ModuleMap(keys, networks, ENERGY)


def loss(model: Any, batch: PaddedBatch) -> Any:
    """The error of energies and forces, without padding."""
    positions = batch["positions"].block()

    def total(at: Any) -> Any:
        features = mts.connect_gradients(
            batch["features"], positions=positions.with_values(at)
        )
        per_type = mts.sum_over_samples(
            model(features), "atom", out_samples=batch.out_samples
        )
        energies = sum(block.values for block in per_type)
        return energies.sum(), energies

    slope, energies = jax.grad(total, has_aux=True)(positions.values)
    of_energy = jnp.where(
        batch.mask[:, None], energies - batch["energies"].block().values, 0.0
    )
    is_atom = positions.mask[:, None, None]
    of_forces = jnp.where(is_atom, slope + batch["forces"].block().values, 0.0)
    error = (of_energy**2).sum() / batch.mask.sum().astype(np.float32)
    return error + (of_forces**2).sum() / is_atom.sum().astype(np.float32)


def train(layout: Layout, data: list[dict[str, TensorMap]]) -> tuple[np.ndarray, int]:
    """One epoch: the loss of each batch, and how often the step was traced."""
    model, optimizer, traces = a_model(), optax.adam(5e-3), []
    arrays, static = eqx.partition(model, eqx.is_array)
    state = jax.jit(optimizer.init)(arrays)

    @jax.jit
    def training_step(arrays: Any, state: Any, batch: PaddedBatch) -> Any:
        traces.append(batch)

        def of_arrays(arrays: Any) -> Any:
            return loss(eqx.combine(arrays, static), batch)

        value, gradient = jax.value_and_grad(of_arrays)(arrays)
        with jax.numpy_dtype_promotion("standard"):  # optax needs it
            updates, state = optimizer.update(gradient, state, arrays)
        return optax.apply_updates(arrays, updates), state, value

    losses = []
    for batch in data:
        arrays, state, value = training_step(arrays, state, layout.pad(batch))
        losses.append(value)
    return np.array([float(value) for value in losses]), len(traces)


def _steps(programs: list[str]) -> int:
    return sum("training_step" in text for text in programs)


def test_one_program_for_all_batches(compiled):
    data = batches(500)
    # no two of them are alike: each would be a program of its own
    shapes = {tuple(x.shape for x in jax.tree.leaves(batch)) for batch in data}
    compositions = {tuple(batch["features"].keys) for batch in data}
    assert len(shapes) > 490
    assert len(compositions) > 3
    layout = Layout.fit(molecules(), systems=PER_BATCH)
    compiled()
    losses, traces = train(layout, data)
    programs = compiled()
    assert traces == 1
    assert _steps(programs) == 1
    assert np.all(np.isfinite(losses))
    assert losses[-50:].mean() < 0.3 * losses[:50].mean()


def test_one_program_for_each_bucket(compiled):
    data = batches(150, fewest=1)
    layout = Layout.fit(molecules(), systems=PER_BATCH, buckets=2)
    used = {layout.bucket(batch) for batch in data}
    assert len(used) > 1
    compiled()
    losses, traces = train(layout, data)
    programs = compiled()
    assert traces == _steps(programs) == len(used)
    assert np.all(np.isfinite(losses))
    assert losses[-50:].mean() < losses[:50].mean()
