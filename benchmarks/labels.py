"""Labels against metatensor's: times of look-up and set operations.

Prints milliseconds for 10,000, 100,000 and 1,000,000 rows of three columns, the ratio
to metatensor, and the exponent with which the time grows. The requirement: at a
million rows nothing is slower than in metatensor, and no exponent is above 1.15.

    python benchmarks/labels.py [--rows 10000 100000] [--repeat 5]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import metatensor
import numpy as np

import metatensor_jax

NAMES = ["system", "atom", "other"]
MAX_RATIO = 1.0
MAX_EXPONENT = 1.15
ATOMS_PER_SYSTEM = 20


class Measurement(NamedTuple):
    """Seconds for one operation on one kind of rows, per number of rows."""

    kind: str
    operation: str
    ours: list[float]
    theirs: list[float]


def realistic(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows in lexicographic order: systems, their atoms, four species."""
    row = np.arange(n)
    atom = row // 4 % ATOMS_PER_SYSTEM
    species = np.array([1, 6, 7, 8])[row % 4]
    return np.stack([row // (4 * ATOMS_PER_SYSTEM), atom, species], 1).astype(np.int32)


def shuffled(n: int, rng: np.random.Generator) -> np.ndarray:
    """The realistic rows in random order."""
    return rng.permutation(realistic(n, rng))


def pairs(n: int, rng: np.random.Generator) -> np.ndarray:
    """A neighbour list in random order: many more possible keys than rows."""
    row = np.arange(n)
    atom = row // ATOMS_PER_SYSTEM
    neighbour = (atom + 1 + 37 * (row % ATOMS_PER_SYSTEM)) % n
    rows = np.stack([np.zeros(n), atom, neighbour], 1).astype(np.int32)
    return rng.permutation(rows)


def any_int32(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows whose ranges do not fit in one 64-bit key."""
    limits = np.iinfo(np.int32)
    return rng.integers(limits.min, limits.max, (n, 3), np.int32, endpoint=True)


def any_int32_sorted(n: int, rng: np.random.Generator) -> np.ndarray:
    """The same in lexicographic order."""
    rows = any_int32(n, rng)
    return rows[np.lexsort(rows.T[::-1])]


KINDS = (realistic, shuffled, pairs, any_int32, any_int32_sorted)


def operations(
    library: Any, rows: np.ndarray, others: np.ndarray
) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], Any]]]:
    """Name, setup and function of each operation; only the function is timed.

    The setup makes new labels for each run, so that no run profits from an index that
    the one before has built.
    """

    def make(values: np.ndarray, names: list[str] = NAMES) -> Any:
        return library.Labels(names, values)

    few = make(np.unique(rows[:1000, 2])[:3].reshape(-1, 1), NAMES[2:])
    middle = tuple(rows[len(rows) // 2].tolist())
    half = rows[::2].copy()

    yield "construct", lambda: rows, make
    yield "first position", lambda: make(rows), lambda labels: labels.position(middle)
    yield "select few, 1 column", lambda: make(rows), lambda labels: labels.select(few)
    yield (
        "select half, all columns",
        lambda: (make(rows), make(half)),
        lambda pair: pair[0].select(pair[1]),
    )
    for name in ("union", "intersection", "difference"):
        yield (
            name,
            lambda: (make(rows), make(others)),
            lambda pair, name=name: getattr(pair[0], f"{name}_and_mapping")(pair[1]),
        )


def best_time(
    setup: Callable[[], Any], run: Callable[[Any], Any], repeat: int
) -> float:
    """The shortest of several runs, in seconds.

    Both libraries use one thread here, so the time of the process is that of the wall
    clock without other programs, which disturb the exponents most.
    """
    best = math.inf
    for _ in range(repeat):
        argument = setup()
        start = time.process_time()
        run(argument)
        best = min(best, time.process_time() - start)
    return best


def measure(
    kind: Callable[..., np.ndarray], n_rows: list[int], repeat: int
) -> list[Measurement]:
    """All operations on one kind of rows, the two libraries in turn."""
    times: dict[str, tuple[list[float], list[float]]] = {}
    for n in n_rows:
        rng = np.random.default_rng(n)
        # two overlapping sets: a third of the rows is in both
        rows = kind(3 * n // 2, rng)
        at = np.arange(len(rows)) // max(n // 4, 1) % 3
        pair = rows[at != 2][:n].copy(), rows[at != 1][:n].copy()
        libraries = (metatensor_jax, metatensor)
        both = zip(*(operations(library, *pair) for library in libraries), strict=True)
        for (name, *ours), (_, *theirs) in both:
            lists = times.setdefault(name, ([], []))
            lists[0].append(best_time(*ours, repeat))
            lists[1].append(best_time(*theirs, repeat))
    return [Measurement(kind.__name__, name, *pair) for name, pair in times.items()]


def exponent(n_rows: list[int], seconds: list[float]) -> float:
    """How the time grows from the fewest to the most rows: time ~ rows ** exponent."""
    if len(n_rows) < 2:
        return math.nan
    return math.log(seconds[-1] / seconds[0]) / math.log(n_rows[-1] / n_rows[0])


def report(measurement: Measurement, n_rows: list[int]) -> str:
    """One line of the table, with a mark where a requirement does not hold."""
    kind, operation, ours, theirs = measurement
    ratio = ours[-1] / theirs[-1]
    growth = exponent(n_rows, ours)
    mark = "" if ratio <= MAX_RATIO and not growth > MAX_EXPONENT else "  <-- FAILS"
    cells = "".join(
        f"{1e3 * a:10.3f}{1e3 * b:10.3f}" for a, b in zip(ours, theirs, strict=True)
    )
    return f"{kind:17}{operation:25}{cells}{ratio:8.2f}{growth:9.2f}{mark}"


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    n_rows = sorted(arguments.rows)
    print("milliseconds: ours, metatensor's; ratio and exponent at the most rows")
    heads = "".join(f"{f'{n:,}':>20}" for n in n_rows)
    print(f"{'rows':17}{'operation':25}{heads}{'ratio':>8}{'exponent':>9}")
    for kind in KINDS:
        for measurement in measure(kind, n_rows, arguments.repeat):
            print(report(measurement, n_rows), flush=True)


if __name__ == "__main__":
    main()
