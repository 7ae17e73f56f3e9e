"""Modules on many blocks: forward and backward, side by side.

A linear layer for each block, as users write it: a ``ModuleMap``, a map, a loss that
goes through the blocks. Beside it the same block by block, by hand on bare arrays, and
metatensor-learn with Torch and with TorchScript. Calls take turns in one run, and the
best time of each counts.

    python benchmarks/modules.py [--quick]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import metatensor
import numpy as np
import torch
from metatensor.learn.nn import ModuleMap as TorchModuleMap  # before metatensor.torch
from timing import verdict

import metatensor_jax as mts
from metatensor_jax.learn import ModuleMap

Call = Callable[[], Any]
Sizes = tuple[int, int, int]


class Work:
    """The same data for all: blocks with the shape (samples, features)."""

    def __init__(self, n_blocks: int, n_samples: int, n_features: int) -> None:
        rng = np.random.default_rng(0)
        shape = (n_blocks, n_samples, n_features)
        self.values = rng.normal(size=shape).astype(np.float32)
        keys = jax.random.split(jax.random.key(0), n_blocks)
        self.layers = [eqx.nn.Linear(*shape[2:], n_features, key=key) for key in keys]

    def map_of(self, package: Any, convert: Callable[[np.ndarray], Any]) -> Any:
        n_blocks, n_samples, n_features = self.values.shape
        samples = package.Labels.range("sample", n_samples)
        properties = package.Labels.range("p", n_features)
        blocks = [
            package.TensorBlock(convert(x), samples, [], properties)
            for x in self.values
        ]
        return package.TensorMap(package.Labels.range("key", n_blocks), blocks)


def ours(work: Work, one_by_one: bool) -> Call:
    tensor = work.map_of(mts, jnp.asarray)
    model = ModuleMap(tensor.keys, work.layers)
    if one_by_one:  # as it would be without the modules being held together
        model = eqx.tree_at(lambda m: m.modules, model, list(model.modules))

    # as docs/training.md has it; `eqx.filter_jit` itself takes up to 1 ms more
    params, static = eqx.partition(model, eqx.is_inexact_array)

    @jax.jit
    @jax.value_and_grad
    def step(params: Any, tensor: mts.TensorMap) -> jax.Array:
        blocks = eqx.combine(params, static)(tensor)
        return sum((jnp.sum(b.values**2) for b in blocks), jnp.zeros(()))

    return lambda: jax.block_until_ready(step(params, tensor)[0])


def first_call(work: Work) -> float:
    """Seconds of the first call, forward and backward, from given cotangents.

    A loss that goes through the blocks takes as long again, with any module.
    """
    tensor = work.map_of(mts, jnp.asarray)
    arrays, static = eqx.partition(ModuleMap(tensor.keys, work.layers), eqx.is_array)

    @jax.jit
    def step(arrays: Any, tensor: mts.TensorMap, cotangents: list[jax.Array]) -> Any:
        def forward(arrays: Any) -> list[Any]:
            return [block.values for block in eqx.combine(arrays, static)(tensor)]

        values, pull = jax.vjp(forward, arrays)
        return values, pull(cotangents)

    cotangents = list(map(jnp.ones_like, map(jnp.asarray, work.values)))
    return seconds(lambda: jax.block_until_ready(step(arrays, tensor, cotangents)))


def by_hand(work: Work, stacked: bool) -> Call:
    weights = [layer.weight for layer in work.layers]
    biases: Any = [layer.bias for layer in work.layers]
    x: Any = list(map(jnp.asarray, work.values))

    def of_blocks(parameters: Any, x: Any) -> jax.Array:
        rows = zip(x, *parameters, strict=True)
        return sum((jnp.sum((x @ w.T + b) ** 2) for x, w, b in rows), jnp.zeros(()))

    def of_stacks(parameters: Any, x: jax.Array) -> jax.Array:
        weights, biases = parameters
        return jnp.sum((jnp.einsum("bsp,bqp->bsq", x, weights) + biases[:, None]) ** 2)

    parameters: Any = weights, biases
    if stacked:
        parameters, x = tuple(map(jnp.stack, parameters)), jnp.stack(x)
    step = jax.jit(jax.value_and_grad(of_stacks if stacked else of_blocks))
    return lambda: jax.block_until_ready(step(parameters, x))


def theirs(work: Work, script: bool) -> Call:
    layers = [
        torch.nn.Linear(*work.values.shape[2:], work.values.shape[2])
        for _ in work.layers
    ]
    package, kind = metatensor, TorchModuleMap
    if script:
        import metatensor.torch as package
        from metatensor.torch import learn

        kind = learn.nn.ModuleMap
    tensor = work.map_of(package, torch.as_tensor)
    model = kind(tensor.keys, layers)
    model = torch.jit.script(model) if script else model

    def step() -> torch.Tensor:
        model.zero_grad()
        loss = sum((block.values**2).sum() for block in model(tensor).blocks())
        loss.backward()
        return loss.detach()

    return step


def seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(sizes: Sizes, rounds: int) -> None:
    """Print one table, and what it should hold."""
    work = Work(*sizes)
    calls: dict[str, Call] = {
        "block by block": ours(work, one_by_one=True),
        "ModuleMap": ours(work, one_by_one=False),
        "by hand, block by block": by_hand(work, stacked=False),
        "by hand, stacked": by_hand(work, stacked=True),
        "metatensor-learn, Torch": theirs(work, script=False),
        "metatensor-learn, TorchScript": theirs(work, script=True),
    }
    first = {name: seconds(call) for name, call in calls.items()}
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.disable()
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    gc.enable()
    best = {name: min(found) for name, found in times.items()}
    print("\n{} blocks of {} samples, {} features".format(*sizes))
    print(f"{'':32s}{'first call':>12s}{'again, best':>14s}{'median':>10s}")
    for name in calls:
        median = 1e3 * float(np.median(times[name]))
        again = f"{1e3 * best[name]:11.2f} ms{median:7.2f} ms"
        print(f"{name:32s}{first[name]:10.2f} s{again}")
    mine = best["ModuleMap"]
    if sizes[0] >= 512:
        ratio = best["block by block"] / mine
        print(f"block by block / ModuleMap {ratio:.1f},", verdict("4", ratio >= 4))
        took = first_call(work)
        print(f"first call without the loss {took:.2f} s,", verdict("1 s", took < 1))
    else:
        bare = min(best["by hand, block by block"], best["by hand, stacked"])
        ratio = mine / bare
        print(f"to the better by hand {ratio:.2f},", verdict("1.15", ratio <= 1.15))
    for name in ("Torch", "TorchScript"):
        ratio = best[f"metatensor-learn, {name}"] / mine
        print(f"{name} / ModuleMap {ratio:.1f},", verdict("faster", ratio > 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    rounds = 10 if parser.parse_args().quick else 50
    for sizes in ((16, 1000, 64), (128, 1000, 64), (512, 100, 16)):
        compare(sizes, rounds)


if __name__ == "__main__":
    main()
