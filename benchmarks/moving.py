"""Operations that move rows, on NumPy arrays and under jit: times and targets.

By hand means the same work on bare arrays, its labels included: with NumPy for what is
called eagerly, with JAX for what runs under jit. See ``operations.py``.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import metatensor
import metatensor.operations as theirs
import numpy as np
from timing import (
    WALL,
    Bare,
    Variant,
    build,
    exponent,
    heading,
    measure,
    report,
    verdict,
    with_gradient,
)

import metatensor_jax as ours

MAX_EXPONENT = 1.15
ATOMS = 100  # of each system
ONE_KEY = (["_"], [[0]])
LIBRARIES = ((ours, ours), (metatensor, theirs))  # types, operations


def atoms(n_systems: int, n_properties: int, seed: int = 0) -> Bare:
    """One row for each atom, in order."""
    rng = np.random.default_rng(seed)
    row = np.arange(n_systems * ATOMS, dtype=np.int32)
    samples = np.stack([row // ATOMS, row % ATOMS], 1)
    return Bare(rng.random((len(row), n_properties)), samples)


def variants(
    call: Callable[[Any, Any], Any],
    names: Sequence[str],
    keys: Any,
    bares: Sequence[Bare],
) -> list[Variant]:
    """A call of both libraries, ``call(operations, map)``, on a new map each time."""
    return [
        Variant(
            lambda tensor, operations=operations: call(operations, tensor),
            lambda types=types: build(types, names, keys, bares),
            fresh=True,
        )
        for types, operations in LIBRARIES
    ]


# --- split ---------------------------------------------------------------------------

SPLIT_SIZES = (2_000, 7_000, 14_000)
SPLIT_SECONDS, SPLIT_GIGABYTES = 6.0, 4.0
SPLIT_THEIRS = 300  # metatensor's time grows with the square of this


def split() -> None:
    """Into single systems, which is what a data loader does."""
    heading(f"split into systems of {ATOMS} atoms, 3 blocks")
    times = measure(*_split_variants(SPLIT_THEIRS))
    report(f"{SPLIT_THEIRS:,} systems", times)
    # in a process of its own, whose peak of memory is that of the split
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measured, gigabytes = pool.apply(_split_alone)
    for n, of_size in zip(SPLIT_SIZES, measured, strict=True):
        report(f"{n:,} systems", of_size)
    seconds = [of_size.ours for of_size in measured]
    growth = exponent(SPLIT_SIZES, seconds)
    print(
        f"  {SPLIT_SIZES[-1]:,} systems: {seconds[-1]:.2f} s, "
        f"{verdict(f'under {SPLIT_SECONDS:g} s', seconds[-1] < SPLIT_SECONDS)}; "
        f"peak {gigabytes:.2f} GB, "
        f"{verdict(f'under {SPLIT_GIGABYTES:g} GB', gigabytes < SPLIT_GIGABYTES)}; "
        f"grows like n^{growth:.2f}, "
        f"{verdict(f'at most n^{MAX_EXPONENT}', growth <= MAX_EXPONENT)}"
    )


def _split_alone() -> tuple[list[Any], float]:
    measured = []
    for n in SPLIT_SIZES:
        our_variant, _, by_hand = _split_variants(n)
        measured.append(measure(our_variant, None, by_hand, rounds=3))
    return measured, _peak_gigabytes()


def _peak_gigabytes() -> float:
    """The most memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, the peak below can be that of the parent process
        line = next(x for x in status.read_text().splitlines() if "VmHWM" in x)
        return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def _split_variants(n: int) -> tuple[Variant, Variant, Variant]:
    bares = [atoms(n, width, seed=width) for width in (1, 3, 5)]
    keys = (["o3_lambda"], [[0], [1], [2]])

    def variant(types: Any, operations: Any) -> Variant:
        selections = [types.Labels(["system"], np.array([[i]])) for i in range(n)]
        return Variant(
            lambda tensor: operations.split(tensor, "samples", selections),
            lambda: build(types, *keys, bares),
            fresh=True,
        )

    def by_hand(_: Any) -> Any:
        parts = []
        for bare in bares:
            system = bare.samples[:, 0]
            ends = np.searchsorted(system, np.arange(n + 1)).tolist()
            for start, stop in pairwise(ends):
                parts.append((bare.values[start:stop], bare.samples[start:stop]))
        return [values for values, _ in parts]

    return variant(ours, ours), variant(metatensor, theirs), Variant(by_hand)


# --- sum_over_samples ----------------------------------------------------------------


def sums() -> None:
    """From atoms to systems."""
    heading("sum_over_samples, atoms to systems, eager")
    plain = atoms(10_000, 1)
    report("1,000,000 atoms", _measure_sum(plain), speedup=50)
    report("the same, in random order", _measure_sum(_shuffled(plain)))
    one = with_gradient(plain, ATOMS, 1)
    report("the same, 1 gradient row each", _measure_sum(one), speedup=30)
    several = with_gradient(atoms(2_500, 1), ATOMS, 4)
    report("250,000 atoms, 4 gradient rows each", _measure_sum(several), speedup=30)
    heading("sum_over_samples, under jit")
    report("1,000,000 atoms", _measure_jitted_sum(plain), overhead=1.2)
    report("the same, 1 gradient row each", _measure_jitted_sum(one), overhead=1.2)
    report(
        "250,000 atoms, 4 gradient rows each",
        _measure_jitted_sum(several),
        overhead=1.2,
    )


def _sum_atoms(operations: Any, tensor: Any) -> Any:
    return operations.sum_over_samples(tensor, "atom")


def _measure_sum(bare: Bare) -> Any:
    def by_hand(_: Any) -> Any:
        values, system = bare.values, bare.samples[:, 0]
        if bool(np.any(system[1:] < system[:-1])):
            order = np.argsort(system, kind="stable")
            values, system = values[order], system[order]
        starts = _starts(system)
        summed = [np.add.reduceat(values, starts)]
        _ = system[starts]
        if bare.gradient is not None:
            run = _run_of_each(starts, len(values))
            order, starts, _ = _merged_gradient(bare, run)
            if order is None:
                summed.append(bare.gradient)
            else:
                summed.append(np.add.reduceat(bare.gradient[order], starts))
        return summed

    return measure(*variants(_sum_atoms, *ONE_KEY, [bare]), Variant(by_hand))


def _starts(column: np.ndarray) -> np.ndarray:
    """Where each run of a sorted column starts."""
    return np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]]))


def _run_of_each(starts: np.ndarray, n: int) -> np.ndarray:
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=n))


def _merged_gradient(bare: Bare, system: np.ndarray) -> tuple[Any, Any, np.ndarray]:
    """Which order brings rows of the same atom together, where each of them starts.

    The order is None if there is nothing to bring together.
    """
    parent, _, atom = bare.gradient_samples.T
    keys = system[parent] * ATOMS + atom
    rows = np.stack([system[parent], *bare.gradient_samples[:, 1:].T], 1)
    if bool(np.all(keys[1:] > keys[:-1])):
        return None, None, rows
    order = np.argsort(keys, kind="stable")
    starts = _starts(keys[order])
    return order, starts, rows[order[starts]]


def _measure_jitted_sum(bare: Bare) -> Any:
    starts = _starts(bare.samples[:, 0])
    system = _run_of_each(starts, len(bare.values))
    n_systems, destination, n_rows = len(starts), None, 0
    if bare.gradient is not None:
        order, starts, _ = _merged_gradient(bare, system)
        if order is not None:
            n_rows = len(starts)
            destination = np.empty(len(order), np.int64)
            destination[order] = _run_of_each(starts, len(order))

    @jax.jit
    def by_hand(arrays: Any) -> Any:
        values, *gradient = arrays
        summed = jax.ops.segment_sum(values, system, n_systems, indices_are_sorted=True)
        if not gradient:
            return [summed]
        if destination is None:
            return [summed, jnp.copy(gradient[0])]
        return [summed, jax.ops.segment_sum(gradient[0], destination, n_rows)]

    program = jax.jit(lambda tensor: ours.sum_over_samples(tensor, "atom"))
    return measure(
        Variant(program, lambda: build(ours, *ONE_KEY, [bare]).to(arrays="jax")),
        None,
        Variant(by_hand, lambda: [jnp.asarray(array) for array in bare.arrays]),
        clock=WALL,
        rounds=15,
    )


# --- join ----------------------------------------------------------------------------

N_MAPS = 1_000


def join() -> None:
    """Maps of single systems, with gradients, to one map."""
    heading(f"join {N_MAPS:,} maps along samples, with gradients")
    for name, present in (
        ("the same keys", lambda system: [0, 1]),
        ("the union of keys", lambda system: [[0, 1], [1, 2], [0, 2]][system % 3]),
    ):
        report(name, _measure_join(present), speedup=20)


def _measure_join(present: Callable[[int], list[int]]) -> Any:
    n_atoms = 12
    systems: list[dict[int, Bare]] = []
    rng = np.random.default_rng(0)
    for system in range(N_MAPS):
        bares = {}
        for key in present(system):
            atom = np.arange(key, n_atoms, 2, dtype=np.int32)
            samples = np.stack([np.full_like(atom, system), atom], 1)
            bare = Bare(rng.random((len(atom), 8)), samples)
            bares[key] = with_gradient(bare, n_atoms, 4, system)
        systems.append(bares)

    def variant(types: Any, operations: Any) -> Variant:
        return Variant(
            lambda maps: operations.join(maps, "samples", different_keys="union"),
            lambda: [
                build(types, ["center_type"], [[key] for key in bares], bares.values())
                for bares in systems
            ],
            fresh=True,
        )

    def by_hand(_: Any) -> Any:
        joined = []
        for key in sorted({key for bares in systems for key in bares}):
            bares = [bares[key] for bares in systems if key in bares]
            lengths = [len(bare.values) for bare in bares]
            offsets = np.cumsum([0, *lengths[:-1]])
            joined.append(np.concatenate([bare.values for bare in bares]))
            joined.append(np.concatenate([bare.gradient for bare in bares]))
            np.concatenate([bare.samples for bare in bares])
            rows = np.concatenate([bare.gradient_samples for bare in bares])
            rows[:, 0] += np.repeat(offsets, [len(b.gradient) for b in bares]).astype(
                np.int32
            )
        return joined

    return measure(
        variant(ours, ours), variant(metatensor, theirs), Variant(by_hand), rounds=5
    )


# --- sort, unique_metadata, slice ----------------------------------------------------

N_ROWS = (10_000, 100_000, 1_000_000)


def order_and_choice() -> None:
    """Of rows in order, and in random order."""
    heading("sort, unique_metadata, slice: samples, eager")
    shuffled = [_shuffled(atoms(n // ATOMS, 1)) for n in N_ROWS]
    in_order = [atoms(n // ATOMS, 1) for n in N_ROWS]
    for name, bares, measure_one, speedup in (
        ("sort, random order", shuffled, _measure_sort, 10),
        ("unique_metadata, in order", in_order, _measure_unique, 10),
        ("unique_metadata, random order", shuffled, _measure_unique, 10),
        ("slice, in order", in_order, _measure_slice, 4),
        ("slice, random order", shuffled, _measure_slice, 4),
    ):
        measured = [measure_one(bare) for bare in bares]
        for n, times in zip(N_ROWS, measured, strict=True):
            last = n == N_ROWS[-1]
            report(f"{name}, {n:,} rows", times, speedup=speedup if last else None)
        growth = exponent(N_ROWS, [times.ours for times in measured])
        target = verdict(f"at most n^{MAX_EXPONENT}", growth <= MAX_EXPONENT)
        print(f"  grows like n^{growth:.2f}, {target}", flush=True)


def _shuffled(bare: Bare) -> Bare:
    order = np.random.default_rng(1).permutation(len(bare.values))
    return Bare(bare.values[order], bare.samples[order])


def _measure_sort(bare: Bare) -> Any:
    def by_hand(_: Any) -> Any:
        system, atom = bare.samples.T
        order = np.lexsort((atom, system))
        _ = bare.samples[order]
        return bare.values[order]

    def call(operations: Any, tensor: Any) -> Any:
        return operations.sort(tensor)

    return measure(*variants(call, *ONE_KEY, [bare]), Variant(by_hand))


def _measure_unique(bare: Bare) -> Any:
    def by_hand(_: Any) -> Any:
        system = bare.samples[:, 0]
        there = np.zeros(int(system.max()) + 1, bool)
        there[system] = True
        return np.flatnonzero(there).astype(np.float64)

    def call(operations: Any, tensor: Any) -> Any:
        return operations.unique_metadata(tensor, "samples", "system")

    return measure(*variants(call, *ONE_KEY, [bare]), Variant(by_hand))


def _measure_slice(bare: Bare) -> Any:
    n_systems = len(bare.values) // ATOMS
    chosen = np.arange(0, n_systems, 10, dtype=np.int32)

    def by_hand(_: Any) -> Any:
        wanted = np.zeros(n_systems, bool)
        wanted[chosen] = True
        rows = np.flatnonzero(wanted[bare.samples[:, 0]])
        _ = bare.samples[rows]
        return bare.values[rows]

    selections = {
        operations: types.Labels(["system"], chosen.reshape(-1, 1))
        for types, operations in LIBRARIES
    }

    def call(operations: Any, tensor: Any) -> Any:
        return operations.slice(tensor, "samples", selections[operations])

    return measure(*variants(call, *ONE_KEY, [bare]), Variant(by_hand))
