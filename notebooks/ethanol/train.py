"""Learn the energies and forces of ethanol: ``make demo``.

From molecules to a trained model, in the order in which a reader would do it:

1. features with stored position gradients from featomic, through an ``.mts`` file;
2. a model of energies: one small network per center type, summed over atoms;
3. forces by ``jax.grad``, which takes the derivative of the features from what is
   stored; energies and forces are trained in one jitted loop;
4. errors on held-out molecules, forces once more from stored gradients alone, and the
   model and its predictions saved and loaded back.

Units: Å, eV, eV/Å. See ``make_trajectory.py`` for where the data comes from.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import ase.io
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import metatensor
import numpy as np
import optax
from featomic import SoapPowerSpectrum
from tqdm import tqdm

import metatensor_jax as mts
from metatensor_jax.learn import ModuleMap

HERE = Path(__file__).parent
N_TRAIN, BATCH_SIZE, SEED = 640, 10, 0
FEATURES = {
    "cutoff": {"radius": 4.5, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
    "density": {"type": "Gaussian", "width": 0.3},
    "basis": {
        "type": "TensorProduct",
        "max_angular": 3,
        "radial": {"type": "Gto", "max_radial": 3},
    },
}
ENERGY = mts.Labels.range("energy", 1)
XYZ = mts.Labels.range("xyz", 3)


# === data ==========================================================================


def compute_features(molecules: list[ase.Atoms], path: Path) -> mts.TensorMap:
    """SOAP power spectra with position gradients, by featomic, through a file."""
    computed = SoapPowerSpectrum(**FEATURES).compute(molecules, gradients=["positions"])
    metatensor.save(str(path), computed.to(dtype=np.float32))
    features = mts.load(path)
    # one block per center type: the neighbors become properties
    return features.keys_to_properties(["neighbor_1_type", "neighbor_2_type"])


def system_zero(tensor: mts.TensorMap) -> mts.TensorMap:
    """The same map, with 0 for the number of its only system.

    So all molecules of the same composition have equal labels, and share a program.
    """

    def renumber(labels: mts.Labels) -> mts.Labels:
        values = labels.values.copy()
        values[:, labels.names.index("system")] = 0
        return mts.Labels(labels.names, values)

    blocks = []
    for block in tensor:
        gradient = block.gradient("positions")
        gradient = mts.TensorBlock(
            gradient.values,
            renumber(gradient.samples),
            gradient.components,
            gradient.properties,
        )
        samples = renumber(block.samples)
        renumbered = mts.TensorBlock(block.values, samples, [], block.properties)
        blocks.append(renumbered.with_gradient("positions", gradient))
    return mts.TensorMap(tensor.keys, blocks)


def stack(tensors: list[mts.TensorMap]) -> mts.TensorMap:
    """One map with a leading axis over molecules in each array, for ``vmap``."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *tensors)


# === model =========================================================================


class Scale(eqx.Module):
    """Centers features, and divides all of them by one number."""

    mean: jax.Array
    std: jax.Array

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return (x - jax.lax.stop_gradient(self.mean)) / jax.lax.stop_gradient(self.std)


def make_model(features: mts.TensorMap, key: jax.Array) -> ModuleMap:
    """A network for each center type; the scales are those of ``features``."""
    mean = mts.mean_over_samples(features, ["system", "atom"])
    var = mts.var_over_samples(features, ["system", "atom"])
    networks = []
    keys = jax.random.split(key, len(features))
    for mlp_key, m, v in zip(keys, mean, var, strict=True):
        scale = Scale(m.values[0], jnp.sqrt(v.values.mean()))
        n = len(m.properties)
        mlp = eqx.nn.MLP(n, "scalar", 64, 2, jax.nn.silu, key=mlp_key)
        networks.append(eqx.nn.Sequential([scale, eqx.nn.Lambda(mlp)]))
    return ModuleMap(features.keys, networks, ENERGY)


def predict_energy(model: ModuleMap, features: mts.TensorMap) -> mts.TensorMap:
    """The energy of a molecule: the sum over its atoms, and over center types."""
    of_atoms = model(features)
    of_types = mts.sum_over_samples(of_atoms, "atom").keys_to_samples("center_type")
    return mts.sum_over_samples(of_types, "center_type")


def position_block(positions: jax.Array) -> mts.TensorBlock:
    """Positions as a block: the labels say which atom a gradient row belongs to."""
    atoms = np.arange(positions.shape[0])
    samples = mts.Labels(["system", "atom"], np.stack([0 * atoms, atoms], axis=1))
    return mts.TensorBlock(positions[..., None], samples, [XYZ], mts.Labels.single())


def energy_and_forces(
    model: ModuleMap, features: mts.TensorMap, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Forces by ``jax.grad``: through the model, then through what is stored."""

    def energy(positions: jax.Array) -> jax.Array:
        block = position_block(positions)
        connected = mts.connect_gradients(features, positions=block)
        return predict_energy(model, connected).block().values[0, 0]

    value, gradient = jax.value_and_grad(energy)(positions)
    return value, -gradient


def stored_forces(model: ModuleMap, features: mts.TensorMap, n_atoms: int) -> jax.Array:
    """Forces without autodiff: the gradients that are stored in the result."""
    gradient = predict_energy(model, features).block().gradient("positions")
    forces = jnp.zeros((n_atoms, 3))
    return forces.at[gradient.samples.column("atom")].add(-gradient.values[..., 0])


# === training ======================================================================


def loss(model: ModuleMap, batch: tuple, force_scale: float) -> jax.Array:
    """Mean squared errors of energies (per atom) and forces, in units of the forces."""
    features, positions, energies, forces = batch
    predict = jax.vmap(energy_and_forces, in_axes=(None, 0, 0))
    energy, force = predict(model, features, positions)
    energy_error = jnp.mean((energy - energies) ** 2) / positions.shape[1]
    force_error = jnp.mean((force - forces) ** 2)
    return (energy_error + force_error) / force_scale**2


def train(model: ModuleMap, data: tuple, n_epochs: int) -> ModuleMap:
    """One jitted call per epoch: a scan over shuffled batches."""
    n_batches = N_TRAIN // BATCH_SIZE
    force_scale = float(data[-1].std())
    schedule = optax.cosine_decay_schedule(3e-3, n_epochs * n_batches, 1e-3)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    @jax.jit
    def epoch(arrays, state, key, data):
        def step(carry, rows):
            arrays, state = carry
            batch = jax.tree.map(lambda array: array[rows], data)
            value, gradient = jax.value_and_grad(
                lambda arrays: loss(eqx.combine(arrays, static), batch, force_scale)
            )(arrays)
            updates, state = optimizer.update(gradient, state, arrays)
            return (optax.apply_updates(arrays, updates), state), value

        order = jax.random.permutation(key, N_TRAIN).reshape(n_batches, BATCH_SIZE)
        (arrays, state), values = jax.lax.scan(step, (arrays, state), order)
        return arrays, state, values.mean()

    state = optimizer.init(arrays)
    keys = jax.random.split(jax.random.key(SEED + 1), n_epochs)
    progress = tqdm(keys, desc="training", unit="epoch", mininterval=1)
    for key in progress:
        arrays, state, value = epoch(arrays, state, key, data)
        progress.set_postfix(loss=f"{float(value):.2e}", refresh=False)
    return eqx.combine(arrays, static)


# === results =======================================================================


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference, in thousandths."""
    return 1e3 * float(np.sqrt(np.mean((np.asarray(a) - np.asarray(b)) ** 2)))


def parity_plot(path: Path, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Predictions over references, one panel each."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(pairs), figsize=(5 * len(pairs), 5))
    for axis, (name, (reference, predicted)) in zip(axes, pairs.items(), strict=True):
        limits = [float(np.min(reference)), float(np.max(reference))]
        axis.plot(limits, limits, color="0.7", zorder=0)
        axis.scatter(np.ravel(reference), np.ravel(predicted), s=4, alpha=0.5)
        axis.set(xlabel=f"GFN2-xTB {name}", ylabel=f"predicted {name}", aspect="equal")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def save_predictions(path: Path, energy: np.ndarray, forces: np.ndarray) -> None:
    """Energies with their position gradients (minus the forces), for other programs."""
    n, n_atoms = forces.shape[:2]
    systems, atoms = np.indices((n, n_atoms)).reshape(2, -1)
    gradient = mts.TensorBlock(
        -np.asarray(forces).reshape(-1, 3, 1),
        mts.Labels(["sample", "system", "atom"], np.c_[systems, systems, atoms]),
        [XYZ],
        ENERGY,
    )
    values = np.asarray(energy)[:, None]
    block = mts.TensorBlock(values, mts.Labels.range("system", n), [], ENERGY)
    tensor = mts.TensorMap(
        mts.Labels.single(), [block.with_gradient("positions", gradient)]
    )
    mts.save(path, tensor.with_info("units", "eV, eV/Å"))


def load_data(path: Path) -> tuple[mts.TensorMap, tuple]:
    """Features of all molecules, and what is learned from: training rows come first."""
    molecules = ase.io.read(HERE / "ethanol-500K.xyz", ":")
    order = np.random.default_rng(SEED).permutation(len(molecules))
    molecules = [molecules[i] for i in order]
    energies = np.array([m.get_potential_energy() for m in molecules])
    energies = (energies - energies[:N_TRAIN].mean()).astype(np.float32)
    forces = np.array([m.get_forces() for m in molecules], np.float32)
    positions = np.array([m.positions for m in molecules], np.float32)
    features = compute_features(molecules, path)
    print(f"features of {len(molecules)} molecules:\n{features}")
    systems = [mts.Labels("system", [[i]]) for i in range(len(molecules))]
    of_each = [system_zero(t) for t in mts.split(features, "samples", systems)]
    return features, (stack(of_each), positions, energies, forces)


def saved_and_loaded(model: ModuleMap, path: Path) -> ModuleMap:
    """A model that went through a file."""
    eqx.tree_serialise_leaves(path, model)
    return eqx.tree_deserialise_leaves(path, model)


def evaluate(model: ModuleMap, data: tuple, output: Path) -> None:
    """Predict, save and load the predictions, and compare them with the data."""
    features, positions, energies, forces = data
    predict = eqx.filter_jit(jax.vmap(energy_and_forces, in_axes=(None, 0, 0)))
    save_predictions(output / "predictions.mts", *predict(model, features, positions))
    loaded = mts.load(output / "predictions.mts").block()
    energy = loaded.values[:, 0]
    force = -loaded.gradient("positions").values.reshape(forces.shape)

    from_stored = eqx.filter_jit(jax.vmap(stored_forces, in_axes=(None, 0, None)))
    difference = rmse(from_stored(model, features, forces.shape[1]), force)
    report(energies, energy, forces, force)
    print(f"forces from stored gradients differ by {difference:.1e} meV/Å (RMS)")
    pairs = {"energy (eV)": (energies, energy), "forces (eV/Å)": (forces, force)}
    parity_plot(output / "parity.png", pairs)


def report(
    energies: np.ndarray, energy: np.ndarray, forces: np.ndarray, force: np.ndarray
) -> None:
    """Errors beside the spread of the data."""
    n_atoms = forces.shape[1]
    energy_spread = 1e3 * float(energies.std()) / n_atoms
    force_spread = 1e3 * float(forces.std())
    energy_error = rmse(energy, energies) / n_atoms
    force_error = rmse(force, forces)
    ratio = f"{force_error / force_spread:.1%} of the spread"
    print(f"\n{len(energies)} held-out molecules      RMSE    spread of the data")
    print(f"  energy (meV/atom)     {energy_error:8.2f} {energy_spread:10.1f}")
    print(f"  forces (meV/Å)        {force_error:8.1f} {force_spread:10.1f}    {ratio}")


def main(n_epochs: int, output: Path) -> None:
    """Run all of it."""
    start = time.perf_counter()
    output.mkdir(exist_ok=True)
    features, data = load_data(output / "features.mts")
    data = jax.device_put(data)
    training = jax.tree.map(lambda array: array[:N_TRAIN], data)
    held_out = jax.tree.map(lambda array: array[N_TRAIN:], data)

    systems = mts.Labels.range("system", N_TRAIN)
    in_training = mts.slice(mts.remove_gradients(features), "samples", systems)
    model = make_model(in_training, jax.random.key(SEED))
    model = train(model, training, n_epochs)
    model = saved_and_loaded(model, output / "model.eqx")
    evaluate(model, held_out, output)
    print(f"wrote features, model, predictions and parity plot to {output}")
    print(f"in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--output", type=Path, default=HERE / "output")
    options = parser.parse_args()
    main(options.epochs, options.output)
