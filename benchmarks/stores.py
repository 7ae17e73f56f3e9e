"""From disk to devices: what a batch costs, beside cutting and padding, and Torch.

Small systems with features, position gradients, energies and forces; batches are new
in each round, as they are in training. Calls take turns in one run, and the best time
of each counts.

    python benchmarks/stores.py [--quick]
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import metatensor
import numpy as np
from metatensor.learn import DataLoader as TorchLoader, Dataset as TorchDataset
from timing import verdict

import metatensor_jax as mts
from metatensor_jax.interop import to_metatensor

Call = Callable[[], Any]
Data = dict[str, mts.TensorMap]
XYZ, ENERGY = mts.Labels.range("xyz", 3), mts.Labels.range("energy", 1)
SAMPLES = ["system", "atom"]


def random_block(
    rng: np.random.Generator,
    names: list[str],
    rows: np.ndarray,
    components: list[mts.Labels],
    properties: mts.Labels,
    gradients: Any = None,
) -> mts.TensorBlock:
    shape = (len(rows), *map(len, components), len(properties))
    values = rng.normal(size=shape).astype(np.float32)
    labels = mts.Labels(names, rows.astype(np.int32))
    return mts.TensorBlock(values, labels, components, properties, gradients or {})


def pairs_of(rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """A gradient row for each atom of the system of each row."""
    counts = sizes[rows[:, 0]]
    parents = np.repeat(np.arange(len(rows)), counts)
    atoms = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([parents, rows[parents, 0], atoms], axis=1)


def systems(n: int, n_types: int, n_features: int, seed: int = 0) -> Data:
    """``n`` systems of 3 to 9 atoms of some types."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 10, n)
    owner = np.repeat(np.arange(n), sizes)
    atoms = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows, types = np.stack([owner, atoms], 1), rng.integers(0, n_types, len(owner))
    p, blocks = mts.Labels.range("p", n_features), []
    for t in range(n_types):
        own = rows[types == t]
        names = ["sample", *SAMPLES]
        gradient = random_block(rng, names, pairs_of(own, sizes), [XYZ], p)
        gradients = {"positions": gradient}
        blocks.append(random_block(rng, SAMPLES, own, [], p, gradients))
    numbers = np.arange(n)[:, None]
    forces = random_block(
        rng, ["sample", *SAMPLES], pairs_of(numbers, sizes), [XYZ], ENERGY
    )
    energies = random_block(rng, ["system"], numbers, [], ENERGY, {"positions": forces})
    return {
        "features": mts.TensorMap(mts.Labels.range("center_type", n_types), blocks),
        "energies": mts.TensorMap(mts.Labels.single(), [energies]),
    }


def without_gradients(data: Data) -> Data:
    return {name: mts.remove_gradients(tensor) for name, tensor in data.items()}


def seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def best(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    for call in calls.values():
        call()
    gc.disable()
    times = {name: float("inf") for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] = min(times[name], seconds(call))
    gc.enable()
    return times


def batches(data: Data, n: int, size: int, rounds: int, title: str) -> None:
    """A batch from the store, beside cut out and padded, and joined by Torch."""
    store, rng = mts.Store.from_maps(data), np.random.default_rng(1)
    layout = store.layout(size)

    def some() -> np.ndarray:
        return rng.choice(n, size, replace=False)

    def cut_and_pad() -> Any:
        chosen = mts.Labels("system", np.sort(some())[:, None])
        cut = {name: mts.slice(x, "samples", chosen) for name, x in data.items()}
        return layout.pad(cut)

    theirs = {name: to_metatensor(x, package="core") for name, x in data.items()}
    each = {
        name: metatensor.split(
            x,
            "samples",
            [metatensor.Labels("system", np.array([[i]])) for i in range(n)],
        )
        for name, x in theirs.items()
    }
    loader = iter(())

    def torch_batch() -> Any:
        nonlocal loader
        batch = next(loader, None)
        if batch is None:
            dataset = TorchDataset(**each)
            loader = iter(TorchLoader(dataset, batch_size=size, shuffle=True))
            batch = next(loader)
        return batch

    calls = {
        "store.batch": lambda: store.batch(some(), layout),
        "store.folded": lambda: store.folded(some(), layout),
        "slice and Layout.pad": cut_and_pad,
        "metatensor-learn": torch_batch,
    }
    times = best(calls, rounds)
    print(f"\n{title}: batches of {size} of {n} systems")
    for name, time_of in times.items():
        print(f"    {name:24s}{1e3 * time_of:10.3f} ms")
    for name in ("slice and Layout.pad", "metatensor-learn"):
        ratio = times[name] / times["store.batch"]
        print(f"    {name} / store.batch {ratio:.1f},", verdict("20", ratio >= 20))


def few_arrays(rounds: int) -> None:
    """A batch of 100 blocks with gradients into a jitted function."""
    data = {"features": systems(64, 100, 8)["features"]}
    store = mts.Store.from_maps(data)
    layout = store.layout(16)
    padded, folded = store.batch(range(16), layout), store.folded(range(16), layout)
    bare = [np.array(x) for x in jax.tree.leaves(folded)]

    @jax.jit
    def first(batch: Any) -> Any:
        return jax.tree.leaves(batch)[0][:1]

    print(f"\n{len(jax.tree.leaves(padded))} arrays of 100 blocks")
    on_device = {"PaddedBatch": padded, "Folded": folded, "two arrays": bare}
    placed = {name: jax.device_put(x) for name, x in on_device.items()}
    for what, calls in (
        (
            "device_put",
            {
                n: lambda x=x: jax.block_until_ready(jax.device_put(x))
                for n, x in on_device.items()
            },
        ),
        (
            "jitted call",
            {n: lambda x=x: jax.block_until_ready(first(x)) for n, x in placed.items()},
        ),
    ):
        times = best(calls, rounds)
        shown = ", ".join(f"{n} {1e3 * t:.3f} ms" for n, t in times.items())
        ratio = times["Folded"] / times["two arrays"]
        print(f"    {what}: {shown}; ratio {ratio:.2f},", verdict("1.5", ratio <= 1.5))


def on_disk(rounds: int) -> None:
    """Random systems of mapped files: positions, energies and forces."""
    n, rng = 20_000, np.random.default_rng(0)
    data = {"energies": systems(n, 1, 1)["energies"]}
    with tempfile.TemporaryDirectory() as folder:
        mts.Store.from_maps(data).save(f"{folder}/store")
        store = mts.Store.open(f"{folder}/store")
        one, many = store.layout(1), store.layout(64)
        chosen = {k: [rng.choice(n, k, False) for _ in range(200)] for k in (1, 64)}
        calls = {
            "1 system": lambda: [store.batch(i, one) for i in chosen[1]],
            "64 systems": lambda: [store.batch(i, many) for i in chosen[64]],
        }
        times = best(calls, rounds)
    single, each = (
        1e6 * t / 200 / k for t, k in zip(times.values(), (1, 64), strict=True)
    )
    print(f"\nfrom disk (warm), energies and forces, {n} systems")
    print(f"    one {single:.0f} µs,", verdict("20", single <= 20))
    print(f"    of 64, each {each:.2f} µs,", verdict("1", each <= 1))


def epochs(rounds: int) -> None:
    """64 steps of a small model: one program, and step by step."""
    data = systems(640, 3, 64)
    store = mts.Store.from_maps(data)
    layout = store.layout(10)
    placed = store.on_device(layout)
    order = np.random.default_rng(0).permutation(640).reshape(-1, 10)
    weights = jnp.ones((3, 64))

    def loss(weights: jax.Array, batch: mts.PaddedBatch) -> jax.Array:
        rows = zip(weights, batch["features"], strict=True)
        maps = [b.with_values(b.values * w) for w, b in rows]
        atoms = mts.TensorMap(batch["features"].keys, maps)
        total = mts.sum_over_samples(
            mts.remove_gradients(atoms), "atom", out_samples=batch.out_samples
        )
        of_all = sum(block.values.sum(axis=1) for block in total)
        return jnp.mean((of_all - batch["energies"].block().values[:, 0]) ** 2)

    def step(weights: jax.Array, batch: mts.PaddedBatch) -> jax.Array:
        return weights - 1e-5 * jax.grad(loss)(weights, batch)

    @jax.jit
    def epoch(weights: Any, placed: Any, order: Any) -> Any:
        def body(weights: Any, at: Any) -> Any:
            return step(weights, placed.batch(at)), None

        return jax.lax.scan(body, weights, order)[0]

    jitted = jax.jit(lambda weights, folded: step(weights, folded.unfold()))

    def by_steps() -> Any:
        new = weights
        for at in order:
            new = jitted(new, store.folded(at, layout))
        return jax.block_until_ready(new)

    times = best(
        {
            "one program": lambda: jax.block_until_ready(epoch(weights, placed, order)),
            "step by step": by_steps,
        },
        rounds,
    )
    print("\nan epoch of 64 steps of 10 systems")
    for name, time_of in times.items():
        print(f"    {name:24s}{1e3 * time_of:10.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    rounds = 20 if parser.parse_args().quick else 200
    data = systems(2000, 4, 8)
    batches(without_gradients(data), 2000, 64, rounds, "without gradients")
    batches(data, 2000, 64, rounds, "with gradients")
    few_arrays(rounds)
    on_disk(min(rounds, 30))
    epochs(min(rounds, 30))


if __name__ == "__main__":
    main()
