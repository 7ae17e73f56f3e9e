"""What a call of a compiled function costs with a map, against a list of arrays.

JAX compares the structure of its arguments with that of earlier calls, each time. Four
ways to pass the same hundred arrays to the same program:

    list      the arrays alone: what JAX itself needs
    same      one map that holds them
    rebuilt   an equal map, with labels of its own, called again and again
    stream    equal maps with labels of their own, each called once

The variants take turns, in an order that turns as well, so that neither a busy machine
nor warm caches favour one of them, and a map is built before the clock starts. The
limits are for the ratios of the medians; the exit status is 1 if one is missed.
"""

import gc
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import metatensor_jax as mts

BLOCKS, SAMPLES, PROPERTIES = 100, 1_000, 8
ROUNDS = 1_000
LIMITS = {"same": 1.10, "rebuilt": 1.15, "stream": 1.15}


def build(arrays: list[jax.Array]) -> mts.TensorMap:
    """A map with these arrays; nothing is shared with the maps built before."""
    rows = np.arange(SAMPLES)
    blocks = [
        mts.TensorBlock(
            array,
            mts.Labels(
                ["system", "atom"], np.stack([rows // 20 + i, rows % 20], axis=1)
            ),
            [],
            mts.Labels.range("property", PROPERTIES),
        )
        for i, array in enumerate(arrays)
    ]
    keys = mts.Labels(
        ["o3_lambda", "center_type"], [divmod(i, 10) for i in range(BLOCKS)]
    )
    return mts.TensorMap(keys, blocks)


def measure(rounds: int = ROUNDS) -> dict[str, list[float]]:
    """The seconds that each call took, by variant."""
    arrays = [jnp.full((SAMPLES, PROPERTIES), i, jnp.float32) for i in range(BLOCKS)]

    @jax.jit
    def function(tree):
        return sum(leaf[0, 0] for leaf in jax.tree.leaves(tree))

    def timed(argument) -> float:
        start = time.perf_counter()
        result = function(argument)
        elapsed = time.perf_counter() - start
        result.block_until_ready()
        return elapsed

    same, rebuilt = build(arrays), build(arrays)
    for argument in (arrays, same, rebuilt):
        function(argument).block_until_ready()
    times: dict[str, list[float]] = {"list": [], **{name: [] for name in LIMITS}}
    for turn in range(rounds):
        fresh = build(arrays)
        gc.collect(0)  # not within a timed call
        # The first call after building finds cold caches; it is nobody's.
        timed(arrays)
        arguments = {"list": arrays, "same": same, "rebuilt": rebuilt, "stream": fresh}
        names = list(arguments)
        for name in names[turn % 4 :] + names[: turn % 4]:
            times[name].append(timed(arguments[name]))
    return times


def main() -> int:
    times = measure()
    print(f"{BLOCKS} arrays, {ROUNDS} rounds, {jax.devices()[0].platform}")
    print(f"{'':10}{'minimum':>12}{'median':>12}{'ratio':>8}{'limit':>8}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    missed = False
    for name, median in medians.items():
        ratio, limit = median / medians["list"], LIMITS.get(name)
        row = f"{name:10}{min(times[name]) * 1e6:9.1f} us{median * 1e6:9.1f} us"
        print(f"{row}{ratio:8.3f}" + ("" if limit is None else f"{limit:8.2f}"))
        missed |= limit is not None and ratio > limit
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
