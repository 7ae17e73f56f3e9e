"""Padded batches and stacked blocks: what they cost, and what they save.

Features of small molecules with position gradients (ASE's g2 collection, featomic), a
small network for each center type, energies and forces. Ratios are of times that took
turns in one run; the best time of each counts.

    python benchmarks/layout.py [--batches 500]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ase.collections
import equinox as eqx
import jax
import jax.numpy as jnp
import metatensor
import numpy as np
from ase.build import molecule
from featomic import SoapPowerSpectrum
from timing import verdict

import metatensor_jax as mts
from metatensor_jax.learn import ModuleMap

TYPES = [1, 6, 7, 8, 9]
FEATURES = {
    "cutoff": {"radius": 3.5, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
    "density": {"type": "Gaussian", "width": 0.3},
    "basis": {
        "type": "TensorProduct",
        "max_angular": 2,
        "radial": {"type": "Gto", "max_radial": 2},
    },
}
PAIRS = [(a, b) for a in TYPES for b in TYPES if a <= b]
ENERGY = mts.Labels.range("energy", 1)
HIDDEN = 64  # as in the demo
LEARNING_RATE = 1e-3

Data = dict[str, mts.TensorMap]  # features, positions, and energies with gradients


# === data ============================================================================


def molecules() -> list[ase.Atoms]:
    """The molecules of the g2 collection that are made of H, C, N, O, F."""
    everything = [molecule(name) for name in ase.collections.g2.names]
    return [m for m in everything if set(m.numbers) <= set(TYPES) and len(m) > 1]


def compute(systems: Sequence[ase.Atoms]) -> metatensor.TensorMap:
    """Features with position gradients: the same properties for all systems."""
    computed = SoapPowerSpectrum(**FEATURES).compute(systems, gradients=["positions"])
    names = ["neighbor_1_type", "neighbor_2_type"]
    pairs = metatensor.Labels(names, np.array(PAIRS))
    return computed.keys_to_properties(pairs).to(dtype=np.float32)


def build(systems: Sequence[ase.Atoms]) -> Data:
    """What is known of these systems; energies and forces are made up."""
    computed = metatensor.io.save_buffer(compute(systems))
    n_atoms = [len(m) for m in systems]
    system = np.repeat(np.arange(len(systems)), n_atoms)
    atom = np.concatenate([np.arange(n) for n in n_atoms])
    rng = np.random.default_rng(0)
    xyz = mts.Labels.range("xyz", 3)
    positions = mts.TensorBlock(
        np.concatenate([m.positions for m in systems])[..., None].astype(np.float32),
        mts.Labels(["system", "atom"], np.c_[system, atom]),
        [xyz],
        mts.Labels.single(),
    )
    gradient = mts.TensorBlock(
        rng.normal(size=(len(atom), 3, 1)).astype(np.float32),
        mts.Labels(["sample", "system", "atom"], np.c_[system, system, atom]),
        [xyz],
        ENERGY,
    )
    energies = mts.TensorBlock(
        rng.normal(size=(len(systems), 1)).astype(np.float32),
        mts.Labels.range("system", len(systems)),
        [],
        ENERGY,
        {"positions": gradient},
    )
    return {
        "features": mts.TensorMap.load_buffer(computed),
        "positions": mts.TensorMap(mts.Labels.single(), [positions]),
        "energies": mts.TensorMap(mts.Labels.single(), [energies]),
    }


def of_systems(data: Data, systems: np.ndarray) -> Data:
    """The rows of these systems."""
    chosen = mts.Labels("system", np.sort(systems)[:, None])
    batch = {name: mts.slice(x, "samples", chosen) for name, x in data.items()}
    batch["features"] = mts.drop_empty_blocks(batch["features"])
    return batch


# === the model, on maps ==============================================================


def make_model(features: mts.TensorMap) -> ModuleMap:
    """A network for each center type."""
    keys = jax.random.split(jax.random.key(0), len(features))
    n = len(features.block_by_id(0).properties)
    modules = [
        eqx.nn.MLP(n, "scalar", HIDDEN, 1, jnp.tanh, use_final_bias=False, key=key)
        for key in keys
    ]
    return ModuleMap(features.keys, modules, ENERGY)


def loss(model: ModuleMap, batch: Data | mts.PaddedBatch) -> Any:
    """Squared errors of energies and forces."""
    positions, known = batch["positions"].block(), batch["energies"].block()
    padded = isinstance(batch, mts.PaddedBatch)
    systems = batch.out_samples if padded else known.samples

    def total(values: jax.Array) -> Any:
        features = mts.connect_gradients(
            batch["features"], positions=positions.with_values(values)
        )
        energies = mts.sum_over_samples(model(features), "atom", out_samples=systems)
        energies = energies.keys_to_samples("center_type")
        energies = mts.sum_over_samples(energies, "center_type", out_samples=systems)
        values = energies.block().values
        return values.sum(), values

    gradient, energies = jax.grad(total, has_aux=True)(jnp.asarray(positions.values))
    force_error = gradient - known.gradient("positions").values
    return jnp.sum((energies - known.values) ** 2) + jnp.sum(force_error**2)


class Step:
    """One step of training, and how many programs were compiled for it."""

    def __init__(self, model: ModuleMap) -> None:
        self.n_programs = 0
        self.arrays, static = eqx.partition(model, eqx.is_inexact_array)

        @jax.jit
        def step(arrays: Any, batch: Any) -> Any:
            self.n_programs += 1  # runs when JAX makes a program
            value, gradient = jax.value_and_grad(
                lambda arrays: loss(eqx.combine(arrays, static), batch)
            )(arrays)
            return _descend(arrays, gradient), value

        self.run = step


def _descend(arrays: Any, gradient: Any) -> Any:
    return jax.tree.map(lambda x, g: x - LEARNING_RATE * g, arrays, gradient)


# === the same, on bare arrays ========================================================


class BareBlock(NamedTuple):
    """Padded arrays of a block, and where their rows go. Padding goes past the end."""

    values: Any
    systems: Any
    gradient: Any
    parents: Any
    entries: Any


class Bare(NamedTuple):
    """Padded arrays of a batch; ``forces`` are gradients of the energies."""

    blocks: list[BareBlock]
    energies: Any
    forces: Any


def bare(batch: mts.PaddedBatch) -> Bare:
    """The arrays of a padded batch; all index arrays are made here, in advance."""
    known, positions = batch["energies"].block(), batch["positions"].block()
    rows = {tuple(row): i for i, row in enumerate(positions.samples.values.tolist())}
    past = len(positions)
    blocks = []
    for block in batch["features"]:
        gradient = block.gradient("positions")
        samples = gradient.samples.values
        parents = np.where(samples[:, 0] < 0, len(block), samples[:, 0])
        entries = [rows[s, a] if s >= 0 else past for _, s, a in samples.tolist()]
        systems = block.samples.values[:, 0]
        systems = np.where(systems < 0, len(known), systems)
        entries = np.array(entries, np.int32)
        arrays = block.values, systems, gradient.values, parents, entries
        blocks.append(BareBlock(*arrays))
    return Bare(blocks, known.values, known.gradient("positions").values)


def bare_step(model: ModuleMap) -> tuple[Any, Callable[..., Any]]:
    """Parameters, and a jitted step: what one would write for just this model."""
    parameters = [
        (mlp.layers[0].weight, mlp.layers[0].bias, mlp.layers[1].weight)
        for mlp in model.modules
    ]

    def energies_of(values: list[Any], parameters: Any, data: Bare) -> Any:
        energies = jnp.zeros(len(data.energies))
        for x, (weight, bias, last), block in zip(
            values, parameters, data.blocks, strict=True
        ):
            atomic = jnp.tanh(x @ weight.T + bias) @ last[0]
            n = len(energies)
            energies += jax.ops.segment_sum(atomic, block.systems, n)
        return energies.sum(), energies[:, None]

    def loss(parameters: Any, data: Bare) -> Any:
        values = [block.values for block in data.blocks]
        by_values = jax.grad(energies_of, has_aux=True)
        sensitivities, energies = by_values(values, parameters, data)
        forces = jnp.zeros(data.forces.shape)
        for sensitivity, block in zip(sensitivities, data.blocks, strict=True):
            of_rows = sensitivity.at[block.parents].get(mode="fill", fill_value=0)
            contracted = jnp.einsum("gcp,gp->gc", block.gradient, of_rows)
            forces = forces.at[block.entries].add(contracted[..., None], mode="drop")
        return jnp.sum((energies - data.energies) ** 2) + jnp.sum(
            (forces - data.forces) ** 2
        )

    @jax.jit
    def step(parameters: Any, data: Bare) -> Any:
        value, gradient = jax.value_and_grad(loss)(parameters, data)
        return _descend(parameters, gradient), value

    return parameters, step


# === times ===========================================================================


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """Of one call, until its result is there."""
    gc.collect(0)
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def best(*calls: Callable[[], Any], rounds: int = 40) -> list[float]:
    """The best time of each of some functions that take turns."""
    for call in calls:
        jax.block_until_ready(call())
    times = [[seconds(call) for call in calls] for _ in range(rounds)]
    return np.min(times, axis=0).tolist()


def line(what: str, value: str, target: str = "") -> None:
    """A line of the table."""
    print(f"  {what:58}{value:>14}   {target}".rstrip(), flush=True)


def step_and_transfer(data: Data, n_systems: int) -> None:
    """A padded step against bare arrays; padding and transferring against a step."""
    rng = np.random.default_rng(n_systems)
    n = len(data["energies"].block())
    layout = mts.Layout.fit(data, systems=n_systems)
    batch = of_systems(data, rng.permutation(n)[:n_systems])
    padded = layout.pad(batch)
    model = make_model(data["features"])
    step = Step(model)
    parameters, by_hand = bare_step(model)
    on_device, arrays = jax.device_put((padded, bare(padded)))
    results = step.run(step.arrays, on_device)[1], by_hand(parameters, arrays)[1]
    np.testing.assert_allclose(*results, rtol=1e-5)
    ours, theirs, pad, transfer = best(
        lambda: step.run(step.arrays, on_device),
        lambda: by_hand(parameters, arrays),
        lambda: layout.pad(batch),
        lambda: jax.device_put(layout.pad(batch)),
    )
    print(f"\na step, {n_systems} molecules a batch (one bucket)")
    line("padded by a layout", f"{1e3 * ours:.2f} ms")
    line("the same math on bare padded arrays", f"{1e3 * theirs:.2f} ms")
    ratio = ours / theirs
    line("ratio", f"{ratio:.2f}", verdict("at most 1.3", ratio <= 1.3))
    line("padding", f"{1e3 * pad:.2f} ms")
    line("padding and transferring", f"{1e3 * transfer:.2f} ms")
    if n_systems == 64:
        ratio = transfer / ours
        line("ratio to the step", f"{ratio:.2f}", verdict("less than 1", ratio < 1))


def epoch(data: Data, n_systems: int, n_batches: int) -> None:
    """An epoch over ragged batches: one program, one for each batch, and Torch."""
    rng = np.random.default_rng(0)
    n = len(data["energies"].block())
    batches = [
        of_systems(data, rng.permutation(n)[:n_systems]) for _ in range(n_batches)
    ]
    model = make_model(data["features"])
    print(f"\nan epoch of {n_batches} ragged batches of {n_systems} molecules")
    line("", "seconds", "programs compiled")
    for buckets in (1, 4):
        layout = mts.Layout.fit(data, systems=n_systems, buckets=buckets)
        step = Step(model)

        def padded(layout: mts.Layout = layout, step: Step = step) -> Any:
            arrays = step.arrays
            for batch in batches:
                arrays, _ = step.run(arrays, layout.pad(batch))
            return arrays

        first, second = seconds(padded), seconds(padded)
        what = f"padded, {buckets} bucket{'s' if buckets > 1 else ''}"
        line(f"{what}, compilation included", f"{first:.1f}", str(step.n_programs))
        line(f"{what}, the next epoch", f"{second:.1f}", "0")

    step = Step(model)
    first_loss = float(step.run(step.arrays, layout.pad(batches[0]))[1])
    step = Step(model)
    some = batches[:10]
    times = [seconds(step.run, step.arrays, batch) for batch in some]
    total = float(np.mean(times)) * n_batches
    what = f"not padded: extrapolated from {len(some)} batches"
    line(what, f"{total:.0f}", f"{step.n_programs * n_batches // len(some)}")
    torch_epoch(model, batches, first_loss)


def torch_epoch(model: ModuleMap, batches: list[Data], first_loss: float) -> None:
    """The same model and step in metatensor-learn, on tensors of Torch."""
    try:
        import torch
        from metatensor.learn.nn import ModuleMap as TorchModuleMap
    except ImportError as error:
        print(f"  Torch is left out: {error}")
        return
    import metatensor.operations as theirs

    def convert(tensor: mts.TensorMap) -> Any:
        buffer = np.frombuffer(tensor.save_buffer(), np.uint8)
        return metatensor.io.load_buffer(buffer).to(arrays="torch")

    def network(mlp: eqx.nn.MLP) -> Any:
        first, last = mlp.layers
        hidden = torch.nn.Linear(first.in_features, HIDDEN)
        output = torch.nn.Linear(HIDDEN, 1, bias=False)
        for mine, array in (
            (hidden.weight, first.weight),
            (hidden.bias, first.bias),
            (output.weight, last.weight),
        ):
            mine.data = torch.tensor(np.asarray(array))
        return torch.nn.Sequential(hidden, torch.nn.Tanh(), output)

    def entries(batch: Data) -> list[Any]:
        """Which row of the positions each gradient row belongs to."""
        positions = batch["positions"].block().samples
        samples = [b.gradient("positions").samples for b in batch["features"]]
        found = [[positions.position(row) for row in s.values[:, 1:]] for s in samples]
        return [torch.as_tensor(rows) for rows in found]

    # conversions and index arrays are not part of the time
    ready = [
        {name: convert(x) for name, x in batch.items()} | {"entries": entries(batch)}
        for batch in batches
    ]
    keys = metatensor.Labels("center_type", np.array(TYPES)[:, None])
    theirs_map = TorchModuleMap(
        keys, torch.nn.ModuleList([network(mlp) for mlp in model.modules])
    )
    optimizer = torch.optim.SGD(theirs_map.parameters(), LEARNING_RATE)

    def step(batch: Any) -> float:
        features, positions = batch["features"], batch["positions"].block()
        known = batch["energies"].block()
        values = theirs.remove_gradients(features)
        inputs = [block.values.requires_grad_() for block in values.blocks()]
        # its keys_to_samples takes no tensors of Torch
        energies = torch.zeros(len(known.samples), 1)
        for block in theirs.sum_over_samples(theirs_map(values), "atom").blocks():
            entries = known.samples.select(block.samples)
            energies = energies.index_add(
                0, torch.as_tensor(entries.astype(np.int64)), block.values
            )
        by_values = torch.autograd.grad(energies.sum(), inputs, create_graph=True)
        forces = torch.zeros(len(positions.samples), 3)
        for block, sensitivity, index in zip(
            features.blocks(), by_values, batch["entries"], strict=True
        ):
            gradient = block.gradient("positions")
            samples = gradient.samples
            contracted = torch.einsum(
                "gcp,gp->gc", gradient.values, sensitivity[samples.column("sample")]
            )
            forces = forces.index_add(0, index, contracted)
        force_error = forces - known.gradient("positions").values[..., 0]
        loss = ((energies - known.values) ** 2).sum() + (force_error**2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    np.testing.assert_allclose(step(ready[0]), first_loss, rtol=1e-4)
    total = min(seconds(lambda: [step(batch) for batch in ready]) for _ in range(3))
    line("metatensor-learn with Torch, the best of three epochs", f"{total:.1f}", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=500)
    n_batches = parser.parse_args().batches
    systems = molecules()
    data = build(systems)
    n_atoms = [len(m) for m in systems]
    print(
        f"{len(systems)} molecules of {min(n_atoms)} to {max(n_atoms)} atoms, "
        f"{len(data['features'].block_by_id(0).properties)} features"
    )
    for n_systems in (8, 64):
        step_and_transfer(data, n_systems)
    epoch(data, 8, n_batches)


if __name__ == "__main__":
    main()
