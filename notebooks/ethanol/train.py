"""Learn the energies and forces of ethanol: ``make demo``.

From molecules to a trained model, in the order in which a reader would do it:

1. features with stored position gradients from featomic, through an ``.mts`` file;
2. a ``Store`` of all molecules, which is placed on the device once: batches are
   gathered there, padded, and a whole epoch is one program;
3. a model of energies: one small network per center type, summed over atoms;
4. forces by ``jax.grad``, which takes the derivative of the features from what is
   stored; energies and forces are trained together;
5. errors on held-out molecules, forces once more from stored gradients alone, and the
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
from metatensor_jax import learn
from metatensor_jax.interop import ase as structures
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

Data = dict[str, mts.TensorMap]  # features, positions, and energies with gradients


# === data ==========================================================================


def compute_features(molecules: list[ase.Atoms], path: Path) -> mts.TensorMap:
    """SOAP power spectra with position gradients, by featomic, through a file."""
    computed = SoapPowerSpectrum(**FEATURES).compute(molecules, gradients=["positions"])
    metatensor.save(str(path), computed.to(dtype=np.float32))
    features = mts.load(path)
    # one block per center type: the neighbors become properties
    return features.keys_to_properties(["neighbor_1_type", "neighbor_2_type"])


def load_data(path: Path) -> Data:
    """What is known of all molecules, by system: the first ones are for training."""
    molecules = ase.io.read(HERE / "ethanol-500K.xyz", ":")
    order = np.random.default_rng(SEED).permutation(len(molecules))
    molecules = [molecules[i] for i in order]
    features = compute_features(molecules, path)
    print(f"features of {len(molecules)} molecules:\n{features}")

    positions = structures.parameters(molecules, "positions")["positions"]
    energies = structures.energies(molecules, ["positions"]).block()  # minus the forces
    energies = energies.with_values(energies.values - energies.values[:N_TRAIN].mean())

    data = {
        "features": features,
        "positions": mts.TensorMap(mts.Labels.single(), [positions]),
        "energies": mts.TensorMap(mts.Labels.single(), [energies]),
    }
    return {name: tensor.to(dtype="float32") for name, tensor in data.items()}


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


def predict_energy(
    model: ModuleMap, features: mts.TensorMap, systems: mts.Labels
) -> mts.TensorMap:
    """The energy of each system: the sum over its atoms, and over center types."""
    of_atoms = model(features)
    of_types = mts.sum_over_samples(of_atoms, "atom", out_samples=systems)
    of_types = of_types.keys_to_samples("center_type")
    return mts.sum_over_samples(of_types, "center_type", out_samples=systems)


def predict(model: ModuleMap, batch: mts.PaddedBatch) -> mts.TensorMap:
    """Energies, and their position gradients by ``jax.grad``.

    It goes through the model, and then through what is stored in the features.
    """
    positions, known = batch["positions"].block(), batch["energies"].block()

    def total(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = mts.connect_gradients(
            batch["features"], positions=positions.with_values(values)
        )
        energies = predict_energy(model, features, batch.out_samples).block().values
        return energies.sum(), energies

    gradient, energies = jax.grad(total, has_aux=True)(jnp.asarray(positions.values))
    # with the labels of what is known
    moved = known.gradient("positions").with_values(gradient)
    block = mts.TensorBlock(energies, known.samples, [], ENERGY, {"positions": moved})
    return mts.TensorMap(mts.Labels.single(), [block])


# === training ======================================================================


def loss(model: ModuleMap, batch: mts.PaddedBatch, force_scale: float) -> jax.Array:
    """Mean squared errors of energies (per atom) and forces, in units of the forces.

    Padding is zero in what is predicted and in what is known: it adds nothing.
    """
    error = mts.subtract(predict(model, batch), batch["energies"]).block()
    n_atoms = batch["positions"].block().mask.sum()
    energy_error = jnp.sum(error.values**2) / n_atoms
    force_error = jnp.sum(error.gradient("positions").values ** 2) / (3 * n_atoms)
    return (energy_error + force_error) / force_scale**2


def train(
    model: ModuleMap, store: mts.Store, layout: mts.Layout, n_epochs: int
) -> ModuleMap:
    """One program for each epoch, over batches that are others in each of them."""
    known = store.maps(range(N_TRAIN))["energies"].block()
    force_scale = float(known.gradient("positions").values.std())
    n_steps = n_epochs * N_TRAIN // BATCH_SIZE
    schedule = optax.cosine_decay_schedule(3e-3, n_steps, 1e-3)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    state = optimizer.init(arrays)
    placed, n_programs = store.on_device(layout), 0

    @jax.jit
    def epoch(arrays, state, placed, order):
        nonlocal n_programs
        n_programs += 1  # runs when JAX makes a program, not when it calls one

        def step(carry, indices):
            arrays, state = carry
            batch = placed.batch(indices)
            value, gradient = jax.value_and_grad(
                lambda arrays: loss(eqx.combine(arrays, static), batch, force_scale)
            )(arrays)
            updates, state = optimizer.update(gradient, state, arrays)
            return (optax.apply_updates(arrays, updates), state), value

        (arrays, state), values = jax.lax.scan(step, (arrays, state), order)
        return arrays, state, values.mean()

    rng, times = np.random.default_rng(SEED + 1), []
    progress = tqdm(range(n_epochs), desc="training", unit="epoch", mininterval=1)
    for _ in progress:
        start = time.perf_counter()
        order = rng.permutation(N_TRAIN).reshape(-1, BATCH_SIZE)
        arrays, state, value = epoch(arrays, state, placed, order)
        progress.set_postfix(loss=f"{value:.2e}", refresh=False)
        times.append(time.perf_counter() - start)
    print(f"programs compiled for the {n_steps} training steps: {n_programs}")
    print(f"an epoch takes {np.median(times):.2f} s")
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


def saved_and_loaded(model: ModuleMap, path: Path) -> ModuleMap:
    """A model that went through a file."""
    learn.save(path, model)
    return learn.load(path, model)


def evaluate(
    model: ModuleMap,
    store: mts.Store,
    layout: mts.Layout,
    systems: np.ndarray,
    output: Path,
) -> None:
    """Predict, save and load the predictions, and compare them with the data."""
    jitted = eqx.filter_jit(predict)
    predicted = [
        layout.unpad(jitted(model, batch), batch.systems)
        for some in np.split(systems, range(BATCH_SIZE, len(systems), BATCH_SIZE))
        for batch in [store.batch(some, layout)]
    ]
    joined = mts.join(predicted, "samples").with_info("units", "eV, eV/Å")
    mts.save(output / "predictions.mts", joined)

    loaded = mts.load(output / "predictions.mts").block()
    known = store.maps(systems)
    energies, forces = energies_and_forces(known["energies"].block())
    energy, force = energies_and_forces(loaded)
    report(energies, energy, forces, force)

    # no padding and no autodiff: operations move stored gradients along
    stored = predict_energy(model, known["features"], loaded.samples).block()
    difference = rmse(energies_and_forces(stored)[1], force)
    print(f"forces from stored gradients differ by {difference:.1e} meV/Å (RMS)")
    pairs = {"energy (eV)": (energies, energy), "forces (eV/Å)": (forces, force)}
    parity_plot(output / "parity.png", pairs)


def energies_and_forces(block: mts.TensorBlock) -> tuple[np.ndarray, np.ndarray]:
    """As arrays, with the shapes (molecules,) and (molecules, atoms, 3)."""
    gradient = np.asarray(block.gradient("positions").values)
    return np.asarray(block.values)[:, 0], -gradient.reshape(len(block), -1, 3)


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
    data = load_data(output / "features.mts")
    n_systems = len(data["energies"].block())
    store = mts.Store.from_maps(data)
    layout = store.layout(systems=BATCH_SIZE)
    training = store.maps(range(N_TRAIN))
    model = make_model(training["features"], jax.random.key(SEED))
    model = train(model, store, layout, n_epochs)
    model = saved_and_loaded(model, output / "model.mjm")
    evaluate(model, store, layout, np.arange(N_TRAIN, n_systems), output)
    print(f"\n{layout}")
    print(f"wrote features, model, predictions and parity plot to {output}")
    print(f"in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--output", type=Path, default=HERE / "output")
    options = parser.parse_args()
    main(options.epochs, options.output)
