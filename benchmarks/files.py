"""Files against metatensor's: times of saving and loading, to a path and a buffer.

Prints milliseconds for a map of four large blocks (500 MB), and for maps of 200 and of
5,000 small blocks, without gradients and with them; and the ratio to metatensor. Both
use the same folder, in turns; the best of a few rounds counts. Loading is measured
twice: until the map is there, and until all its values were read as well, because we
map files and metatensor copies them. The limit is for the ratios; the exit status is 1
if one is missed. Saving to a path has none: ours waits until the data is on the disk,
which metatensor does not. To compare the rest, "save and sync" has both wait.

    python benchmarks/files.py [--megabytes 500] [--blocks 200 5000] [--repeat 5]
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import metatensor
import numpy as np

import metatensor_jax

NO_LIMIT, MAX_RATIO = ("save",), 1.0
LARGE_BLOCKS, PROPERTIES, SMALL_ROWS = 4, 256, 8


def block(library: Any, i: int, rows: int, properties: int, gradient: bool) -> Any:
    """A block of either library; gradients have two rows per row, and a component.

    Blocks differ in their samples, as most do, and share properties and components.
    """
    rng = np.random.default_rng(rows)
    labels = library.Labels
    row = np.arange(i, i + rows)
    samples = labels(["system", "atom"], np.stack([row // 20, row % 20], axis=1))
    columns = labels.range("property", properties)
    made = library.TensorBlock(
        rng.normal(size=(rows, properties)), samples, [], columns
    )
    if not gradient:
        return made
    entries = np.stack([np.repeat(np.arange(rows), 2), np.tile([i, i + 1], rows)], 1)
    part = library.TensorBlock(
        rng.normal(size=(2 * rows, 3, properties)),
        labels(["sample", "atom"], entries),
        [labels.range("xyz", 3)],
        columns,
    )
    if library is metatensor:
        made.add_gradient("positions", part)
        return made
    return made.with_gradient("positions", part)


def tensor(library: Any, n: int, rows: int, properties: int, gradient: bool) -> Any:
    blocks = [block(library, i, rows, properties, gradient) for i in range(n)]
    return library.TensorMap(library.Labels.range("key", n), blocks)


def read_values(data: Any) -> float:
    """Touch all values, so that mapped files are read."""
    blocks = [data.block_by_id(i) for i in range(len(data.keys))]
    parts = [*blocks, *(part for one in blocks for _, part in one.gradients())]
    return float(sum(np.sum(part.values) for part in parts))


def save_and_sync(library: Any, path: Path, data: Any) -> None:
    """Save a file that is on the disk afterwards; ours always is."""
    library.save(path, data)
    if library is metatensor:
        with path.open("rb") as opened:
            os.fsync(opened.fileno())


def in_turns(functions: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """The shortest time of each function, in seconds."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeat):
        for name, function in functions.items():
            start = time.perf_counter()
            result = function()
            best[name] = min(best[name], time.perf_counter() - start)
            del result  # not within the next one's time
    return best


def measure(name: str, sizes: tuple[int, int, int, bool], repeat: int) -> bool:
    """Print one table; is each ratio within the limit?"""
    libraries = {"ours": metatensor_jax, "theirs": metatensor}
    data = {who: tensor(library, *sizes) for who, library in libraries.items()}
    good = True
    with tempfile.TemporaryDirectory() as folder:
        paths = {who: Path(folder) / f"{who}.mts" for who in libraries}
        buffers = {who: bytes(x.save_buffer()) for who, x in data.items()}
        operations = {
            "save": lambda who, library: library.save(paths[who], data[who]),
            "save and sync": lambda who, library: save_and_sync(
                library, paths[who], data[who]
            ),
            "save_buffer": lambda who, library: data[who].save_buffer(),
            "load": lambda who, library: library.load(paths[who]),
            "load and read": lambda who, library: read_values(library.load(paths[who])),
            "load_buffer": lambda who, library: library.TensorMap.load_buffer(
                buffers[who]
            ),
        }
        size = len(buffers["ours"]) / 1e6
        title = f"{name}, {size:.1f} MB"
        print(f"\n{title:42}{'ours':>10}{'metatensor':>16}{'ratio':>8}")
        for what, function in operations.items():
            calls = {
                who: functools.partial(function, who, library)
                for who, library in libraries.items()
            }
            best = in_turns(calls, repeat)
            ratio = best["ours"] / best["theirs"]
            times = f"{best['ours'] * 1e3:13.2f} ms{best['theirs'] * 1e3:13.2f} ms"
            print(f"{what:36}{times}{ratio:8.3f}")
            good &= what in NO_LIMIT or ratio <= MAX_RATIO
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--blocks", type=int, nargs="*", default=[200, 5_000])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    rows = options.megabytes * 10**6 // (LARGE_BLOCKS * PROPERTIES * 8)
    good = True
    if rows > 0:
        large = (LARGE_BLOCKS, rows, PROPERTIES, False)
        good &= measure("few large blocks", large, options.repeat)
    for n in options.blocks:
        for gradient in (False, True):
            name = f"{n} small blocks{' with gradients' if gradient else ''}"
            sizes = (n, SMALL_ROWS, 4, gradient)
            good &= measure(name, sizes, options.repeat)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
