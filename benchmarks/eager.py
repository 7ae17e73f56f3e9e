"""An operation on a whole map, called eagerly: the first call, and the ones after.

Raises 64 blocks of different sizes, with gradients, to a power. The first call
compiles; a call with other labels, of similar sizes, must not. Runs in a new process,
so nothing is compiled before, and prints milliseconds, next to those of
metatensor-operations if that is installed. Required: less than a second for the first
call, less than 10 ms for the later ones.

    python benchmarks/eager.py [--repeat 30]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import metatensor_jax

BLOCKS, PROPERTIES = 64, 8
SIZES = (4, 60)  # rows of a block
EXPONENT = 3


def build(package: Any, seed: int) -> Any:
    """A map with gradients for each of its rows, two rows of three components."""
    rng = np.random.default_rng(seed)
    # The sizes are the same for all seeds, in another order.
    sizes = rng.permutation(np.linspace(*SIZES, BLOCKS).astype(int))
    properties = package.Labels.range("property", PROPERTIES)
    xyz = package.Labels.range("xyz", 3)
    blocks = []
    for n in sizes:
        rows = np.arange(n, dtype=np.int32)
        samples = np.stack([rows // 4 + seed, rows % 4], axis=1)
        parents = np.repeat(rows, 2)
        gradient_samples = np.stack([parents, np.arange(2 * n) % 2], axis=1)
        gradient = package.TensorBlock(
            rng.random((2 * n, 3, PROPERTIES), np.float32),
            package.Labels(["sample", "atom"], gradient_samples.astype(np.int32)),
            [xyz],
            properties,
        )
        values = rng.random((n, PROPERTIES), np.float32)
        labels = package.Labels(["system", "atom"], samples)
        block = package.TensorBlock(values, labels, [], properties)
        if package is metatensor_jax:
            block = block.with_gradient("positions", gradient)
        else:
            block.add_gradient("positions", gradient)
        blocks.append(block)
    keys = package.Labels(["key"], np.arange(BLOCKS, dtype=np.int32).reshape(-1, 1))
    return package.TensorMap(keys, blocks)


def measure(function: Callable[[Any], Any], maps: list[Any]) -> list[float]:
    """The milliseconds of one call for each map."""
    times = []
    for x in maps:
        start = time.perf_counter()
        jax.block_until_ready(function(x))
        times.append(1e3 * (time.perf_counter() - start))
    return times


def power(x: Any) -> Any:
    return metatensor_jax.pow(x, EXPONENT)


def report(name: str, times: list[float]) -> None:
    print(
        f"{name:42}{statistics.median(times):9.2f} {min(times):9.2f} {max(times):9.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=30)
    repeat = parser.parse_args().repeat

    maps = [build(metatensor_jax, seed) for seed in range(repeat + 1)]
    jax.devices()  # starting JAX itself is not what is measured
    print(f"milliseconds{'':30}{'median':>9} {'minimum':>9} {'maximum':>9}")
    report("metatensor_jax, first call", measure(power, maps[:1]))
    report("metatensor_jax, the same labels", measure(power, maps[:1] * repeat))
    report("metatensor_jax, other labels", measure(power, maps[1:]))
    program = jax.jit(power)
    on_device = maps[0].to(arrays="jax")
    report("metatensor_jax, jit, first call", measure(program, [on_device]))
    report("metatensor_jax, jit", measure(program, [on_device] * repeat))
    try:
        import metatensor
        from metatensor.operations import pow as metatensor_pow
    except ImportError:
        return
    theirs = [build(metatensor, seed) for seed in range(repeat)]
    times = measure(lambda x: metatensor_pow(x, EXPONENT).keys.values, theirs)
    report("metatensor-operations, NumPy", times)


if __name__ == "__main__":
    main()
