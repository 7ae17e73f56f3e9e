"""A training step on one device and on many, for programs of their own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap, sharding

XYZ, ONE, FEATURES = Labels.range("xyz", 3), Labels.single(), Labels.range("n", 4)
TYPES = Labels("center_type", [[1], [8]])


def data(sizes: list[int], dtype: str) -> dict[str, TensorMap]:
    """Features with gradients, positions, energies and forces of random systems."""
    rng = np.random.default_rng(3)

    def block(
        rows: Any, names: Any, components: Any, properties: Any, **gradients: Any
    ):
        shape = (len(rows), *map(len, components), len(properties))
        values = rng.normal(size=shape).astype(dtype)
        samples = Labels(names, np.array(rows, np.int32).reshape(-1, len(names)))
        return TensorBlock(values, samples, components, properties, gradients)

    atoms = [(s, i) for s, n in enumerate(sizes) for i in range(n)]
    blocks = []
    for parity in range(len(TYPES)):
        of_type = [(s, i) for s, i in atoms if i % 2 == parity]
        near = [
            (row, s, j)
            for row, (s, i) in enumerate(of_type)
            for j in range(max(i - 2, 0), min(i + 3, sizes[s]))
        ]
        gradient = block(near, ["sample", "system", "atom"], [XYZ], FEATURES)
        blocks.append(
            block(of_type, ["system", "atom"], [], FEATURES, positions=gradient)
        )
    systems = [(s,) for s in range(len(sizes))]
    of_energy = [(s, s, i) for s, i in atoms]
    forces = block(of_energy, ["sample", "system", "atom"], [XYZ], ONE)
    return {
        "features": TensorMap(TYPES, blocks),
        "positions": TensorMap(ONE, [block(atoms, ["system", "atom"], [XYZ], ONE)]),
        "energy": TensorMap(
            ONE, [block(systems, ["system"], [], ONE, positions=forces)]
        ),
    }


def parameters(dtype: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    shapes = {"inner": (4, 5), "outer": (5, 1)}
    return {k: rng.normal(size=s).astype(dtype) * 0.3 for k, s in shapes.items()}


def predicted(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
    """Energies, and their derivatives by positions, of one batch."""
    block = batch["positions"].block()
    features = batch["features"]

    def energy(positions: jax.Array) -> jax.Array:
        moved = mts.connect_gradients(features, positions=block.with_values(positions))
        of_atoms = mts.map_rows(
            lambda x: jnp.tanh(x @ params["inner"]) @ params["outer"],
            moved,
            properties=ONE,
        )
        merged = of_atoms.keys_to_samples("center_type")
        names = ["atom", "center_type"]
        summed = mts.sum_over_samples(merged, names, out_samples=batch.out_samples)
        return summed.block().values

    energies, pull_back = jax.vjp(energy, block.values)
    return energies, pull_back(jnp.ones_like(energies))[0]


def sums(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
    """Squared errors of energies and forces, added up, and how many there are."""
    energies, forces = predicted(params, batch)
    energy = batch["energy"].block()
    # their rows are those of the positions: all atoms, one system after the other
    target = energy.gradient("positions")
    of_energy = jnp.where(energy.mask[:, None], energies - energy.values, 0)
    is_atom = target.mask[:, None, None]
    of_forces = jnp.where(is_atom, forces - target.values, 0)
    errors = jnp.stack([(of_energy**2).sum(), (of_forces**2).sum()])
    return errors, jnp.stack([energy.mask.sum(), 3 * target.mask.sum()])


def loss_of_one(params: Any, batch: Any) -> jax.Array:
    errors, counts = sums(params, batch)
    return (errors / counts.astype(errors.dtype)).sum()


def loss_of_all(params: Any, batches: Any) -> jax.Array:
    """The mean over what is there on all devices: added up, and divided once."""
    errors, counts = jax.vmap(lambda batch: sums(params, batch.unfold()))(batches)
    errors, counts = errors.sum(axis=0), counts.sum(axis=0)
    return (errors / counts.astype(errors.dtype)).sum()


def mean_of_means(params: Any, batches: Any) -> jax.Array:
    """What is wrong where devices have unequal shares."""
    return jax.vmap(lambda x: loss_of_one(params, x.unfold()))(batches).mean()


def step(loss: Callable[..., jax.Array]) -> Any:
    @jax.jit
    def step(params: Any, batch: Any) -> Any:
        value, slopes = jax.value_and_grad(loss)(params, batch)
        return jax.tree.map(
            lambda x, dx: x - x.dtype.type(0.1) * dx, params, slopes
        ), value

    return step


def train(dtype: str) -> dict[str, Any]:
    """Three steps on one device, and on all; the last one has few systems."""
    mesh, room = sharding.data_mesh(), 3
    n = mesh.size
    n_systems = 2 * n * room + n // 2 + 1
    sizes = [1 + (7 * i) % 5 for i in range(n_systems)]
    store = mts.Store.from_maps(data(sizes, dtype))
    plan = sharding.plan_epoch(n_systems, n, room, seed=5)
    alone, together = store.layout(systems=n * room), store.layout(systems=room)
    everywhere = NamedSharding(mesh, PartitionSpec())
    start = mine = parameters(dtype)
    ours = jax.device_put(mine, everywhere)
    first = sharding.shard_batch(store, plan[0], together, mesh)
    for at, batch in zip(
        sharding.positions(mesh), sharding.unshard(first, mesh), strict=True
    ):
        its = store.batch(plan[0, at], together)
        # unfolded: what is between the arrays of a buffer is anything
        jax.tree.map(np.testing.assert_array_equal, batch.unfold(), its)
    wrong = float(jax.jit(mean_of_means)(ours, first))
    step_alone, losses = step(loss_of_one), []
    step_together = step(loss_of_all).lower(ours, first).compile()
    for systems in plan:
        single = store.batch(systems[systems >= 0], alone)
        mine, one = step_alone(mine, single)
        batches = sharding.shard_batch(store, systems, together, mesh)
        ours, of_all = step_together(ours, batches)
        losses.append([float(one), float(of_all)])
    return {
        "shares": (plan >= 0).sum(axis=2).tolist(),
        "losses": losses,
        "mean_of_means": wrong,
        "dtype": str(of_all.dtype),
        "error": difference(ours, mine),
        "moved": difference(mine, start),
        "travels": communication(step_together.as_text()),
        "own": sharding.positions(mesh),
        "n_devices": n,
    }


def difference(a: Any, b: Any) -> float:
    """The largest, relative to the largest number."""
    each = jax.tree.map(
        lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(b).max(), a, b
    )
    return float(max(jax.tree.leaves(each)))


def communication(program: str) -> list[str]:
    """What goes between devices in a compiled program."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return sorted(set(re.findall(rf" ({kinds})[\w-]*\(", program)))


def one_large_system(dtype: str) -> dict[str, Any]:
    """A step with a system whose samples are cut, as a batch that is padded."""
    maps = data([37], dtype)
    layout = mts.Layout.fit(maps, systems=1)
    padded, mesh = layout.pad(maps), sharding.data_mesh()
    cut = sharding.shard_samples(padded, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    params = parameters(dtype)
    mine, one = step(loss_of_one)(params, padded)
    ours, of_all = step(loss_of_one)(jax.device_put(params, everywhere), cut)
    gradient = cut["features"].block_by_id(0).gradient("positions")
    parts = {part.data.shape[0] for part in gradient.values.addressable_shards}
    return {
        "losses": [[float(one), float(of_all)]],
        "error": difference(ours, mine),
        "moved": difference(mine, params),
        "parts": sorted(parts),
        "rows": len(maps["features"].block_by_id(0).gradient("positions").samples),
    }


def main(dtype: str, process: str = "", port: str = "") -> None:
    jax.config.update("jax_enable_x64", dtype == "float64")
    if process:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    result = {"train": train(dtype), "large": one_large_system(dtype)}
    print("RESULT" + json.dumps(result), flush=True)
    if process:
        jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
