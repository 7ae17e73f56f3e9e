"""What the benchmarks of the operations share: bare data, maps from it, times, a table.

The data of a benchmark is a list of :class:`Bare` blocks. From the same arrays come a
map of metatensor_jax, a map of metatensor, and the input of the same work written by
hand. The three take turns, and the best time of each counts: other programs on the
machine only ever make things slower.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import metatensor
import numpy as np

import metatensor_jax

SAMPLES = ["system", "atom"]
XYZ = np.arange(3, dtype=np.int32).reshape(-1, 1)


class Bare(NamedTuple):
    """A block as bare arrays: values and gradients, with the rows of their labels.

    Values have the shape (samples, properties), or (samples, 2 l + 1, properties).
    Gradients have the components xyz before these, and the sample columns (sample,
    system, atom).
    """

    values: np.ndarray
    samples: np.ndarray
    gradient: np.ndarray | None = None
    gradient_samples: np.ndarray | None = None

    @property
    def arrays(self) -> list[np.ndarray]:
        """The data, without labels."""
        return [self.values] if self.gradient is None else [self.values, self.gradient]


def with_gradient(bare: Bare, n_atoms: int, per_row: int, seed: int = 0) -> Bare:
    """Gradients for the positions of ``per_row`` atoms of the system, for each row.

    The first of them is the atom of the row itself, the others are the next ones.
    """
    rng = np.random.default_rng(seed)
    n = len(bare.values)
    parents = np.repeat(np.arange(n, dtype=np.int32), per_row)
    shift = np.tile(np.arange(per_row), n)
    system, atom = bare.samples[parents].T
    samples = np.stack([parents, system, (atom + shift) % n_atoms], 1)
    gradient = rng.random((n * per_row, 3, *bare.values.shape[1:]))
    return bare._replace(gradient=gradient, gradient_samples=samples.astype(np.int32))


def build(package: Any, names: Sequence[str], keys: Any, bares: Sequence[Bare]) -> Any:
    """A map of one of the packages, with labels that nobody has looked at before."""
    keys = package.Labels(list(names), np.asarray(keys, np.int32))
    return package.TensorMap(keys, [_build_block(package, bare) for bare in bares])


def _build_block(package: Any, bare: Bare) -> Any:
    n_columns = bare.values.shape[-1]
    properties = package.Labels.range("n", n_columns)
    components = []
    if bare.values.ndim == 3:
        o3_lambda = bare.values.shape[1] // 2
        mu = np.arange(-o3_lambda, o3_lambda + 1, dtype=np.int32).reshape(-1, 1)
        components = [package.Labels(["o3_mu"], mu)]
    samples = package.Labels(SAMPLES, bare.samples)
    block = package.TensorBlock(bare.values, samples, components, properties)
    if bare.gradient is None:
        return block
    gradient = package.TensorBlock(
        bare.gradient,
        package.Labels(["sample", *SAMPLES], bare.gradient_samples),
        [package.Labels(["xyz"], XYZ), *components],
        properties,
    )
    if package is metatensor_jax:
        return block.with_gradient("positions", gradient)
    block.add_gradient("positions", gradient)
    return block


class Variant(NamedTuple):
    """A function of what ``setup`` gives; only the function is timed."""

    run: Callable[[Any], Any]
    setup: Callable[[], Any] = lambda: None
    #: make its argument anew for each call, so that nothing is found in a cache
    fresh: bool = False


class Times(NamedTuple):
    """The best seconds of the three; NaN for what was not measured."""

    ours: float
    theirs: float = math.nan
    by_hand: float = math.nan


Clock = Callable[[], float]
#: for NumPy: time that other programs take does not count
CPU: Clock = time.process_time
#: for JAX, which may use several threads
WALL: Clock = time.perf_counter


def measure(
    ours: Variant,
    theirs: Variant | None = None,
    by_hand: Variant | None = None,
    *,
    clock: Clock = CPU,
    rounds: int = 7,
    budget: float = 4.0,
) -> Times:
    """The best time of each variant, in turns, after a check that they do the same.

    :param rounds: how many turns each variant has
    :param budget: seconds after which a variant has no further turn; the first call,
        which may have to compile, does not count
    """
    variants = [v for v in (ours, theirs, by_hand) if v is not None]
    arguments = [variant.setup() for variant in variants]
    best, sums = [], []
    for variant, argument in zip(variants, arguments, strict=True):
        start = clock()
        result = jax.block_until_ready(variant.run(argument))
        best.append(clock() - start)
        sums.append(_summary(result))
    del result
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], rtol=1e-9)
    spent = [0.0] * len(variants)
    for _ in range(rounds):
        for i, variant in enumerate(variants):
            if spent[i] >= budget:
                continue
            begin = time.perf_counter()
            if variant.fresh:
                arguments[i] = None  # not two of them in memory
                arguments[i] = variant.setup()
            gc.collect(0)
            calls = 1 if variant.fresh else max(1, min(50, int(0.01 / best[i])))
            start = clock()
            for _ in range(calls):
                jax.block_until_ready(variant.run(arguments[i]))
            best[i] = min(best[i], (clock() - start) / calls)
            spent[i] += time.perf_counter() - begin
    seconds = iter(best)
    given = (ours, theirs, by_hand)
    return Times(*(math.nan if v is None else next(seconds) for v in given))


def _summary(result: Any) -> list[float]:
    """A few numbers that do not depend on the order of rows."""
    arrays = [np.asarray(array) for array in _arrays(result)]
    sums = [float(np.sum(array, dtype=np.float64)) for array in arrays]
    squares = [float(np.vdot(array, array)) for array in arrays]
    return [sum(array.size for array in arrays), math.fsum(sums), math.fsum(squares)]


def _arrays(result: Any) -> Iterator[Any]:
    """All arrays in maps, blocks, labels, lists of such."""
    if isinstance(result, (metatensor.Labels, metatensor_jax.Labels)):
        yield np.asarray(result.values, np.float64)
    elif hasattr(result, "gradients"):
        yield result.values
        for _, gradient in result.gradients():
            yield from _arrays(gradient)
    elif hasattr(result, "blocks"):
        yield from _arrays(result.blocks())
    elif isinstance(result, (list, tuple)):
        for item in result:
            yield from _arrays(item)
    else:
        yield result


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """How the time grows from the smallest to the largest size: time ~ size ** this."""
    return math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])


def heading(title: str) -> None:
    """The start of a table."""
    columns = f"{'ours':>10}{'metatensor':>12}{'by hand':>10}{'speed-up':>10}"
    print(f"\n{title:46}{columns}{'/ hand':>8}   target", flush=True)


def report(
    name: str,
    times: Times,
    *,
    speedup: float | None = None,
    overhead: float | None = None,
) -> None:
    """One line: milliseconds, metatensor's over ours, ours over the one by hand.

    :param speedup: so many times faster than metatensor is required
    :param overhead: at most so many times the one by hand is required
    """
    factor, ratio = times.theirs / times.ours, times.ours / times.by_hand
    ours, theirs, by_hand = (_cell(1e3 * seconds) for seconds in times)
    targets = []
    if speedup is not None:
        targets.append(verdict(f"at least {speedup:g}x", factor >= speedup))
    if overhead is not None:
        targets.append(verdict(f"at most {overhead:g} by hand", ratio <= overhead))
    print(
        f"{name:46}{ours:>10}{theirs:>12}{by_hand:>10}{_cell(factor):>10}"
        f"{_cell(ratio):>8}   {'; '.join(targets)}".rstrip(),
        flush=True,
    )


def _cell(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def verdict(target: str, holds: bool) -> str:
    """A target, and whether it holds."""
    return f"{target}: {'holds' if holds else 'DOES NOT HOLD'}"
