"""Files against plain reads and writes, and against metatensor's.

The first table has a map of four large blocks (500 MB) beside a plain read of its file
from the page cache (`Path.read_bytes`), and beside a plain write of as many bytes to a
file that is then on the disk, as ours is. Loading may take at most 1.2 times the read,
saving at most 1.5 times the write. Reads wait for nothing: it is their processor time
that counts, and other programs do not. For information: a read into memory that NumPy
made, of large pages and without a checksum; one block of the four; and the file mapped.

The other tables compare with metatensor: milliseconds for the same map, and for maps of
200 and of 5,000 small blocks, without gradients and with them. Both use the same
folder, in turns; the best of a few rounds counts. Loading is measured twice: until the
map is there, and until all its values were read as well. The limit is for the ratios;
the exit status is 1 if one is missed. Saving to a path has none: ours waits until the
data is on the disk, which metatensor does not. To compare the rest, "save and sync" has
both wait.

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
#: of loading and of saving, to a plain read and a plain write
MAX_OF_READ, MAX_OF_WRITE = 1.2, 1.5
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


def in_turns(
    functions: dict[str, Callable[[], Any]],
    repeat: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The shortest time of each function, in seconds."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeat):
        for name, function in functions.items():
            start = clock()
            result = function()
            best[name] = min(best[name], clock() - start)
            del result  # not within the next one's time
    return best


def write(path: Path, content: memoryview) -> None:
    """Replace a file by one with this content, and wait until that is on the disk."""
    new = path.with_suffix(".new")
    with new.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(path)


def measure_plain(sizes: tuple[int, int, int, bool], repeat: int) -> bool:
    """Print how long files take beside plain reads and writes; within the limits?"""
    data = tensor(metatensor_jax, *sizes)
    content, key = data.save_buffer(), data.keys[1]
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "x.mts", Path(folder) / "other"
        writes = {
            "plain write": lambda: write(other, content),
            "save": lambda: data.save(path),
        }
        writes = in_turns(writes, repeat)
        load, load_mmap = metatensor_jax.load, metatensor_jax.load_mmap
        reads = {
            "plain read": path.read_bytes,
            "load": lambda: load(path),
            "load one block of four": lambda: load(path, keys=key),
            "load_mmap": lambda: load_mmap(path),
            "a read into memory of NumPy": lambda: np.fromfile(path, np.uint8),
        }
        reads = in_turns(reads, 2 * repeat, time.process_time)
    good = True
    for times, limit in ((reads, MAX_OF_READ), (writes, MAX_OF_WRITE)):
        plain, ours, *_ = times.values()
        good &= ours <= limit * plain
        print(f"\n{f'{len(content) / 1e6:.1f} MB':42}{'time':>13}{'ratio':>8}")
        for what, seconds in times.items():
            print(f"{what:42}{seconds * 1e3:10.2f} ms{seconds / plain:8.3f}")
    return good


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
        good &= measure_plain(large, options.repeat)
        good &= measure("few large blocks", large, options.repeat)
    for n in options.blocks:
        for gradient in (False, True):
            name = f"{n} small blocks{' with gradients' if gradient else ''}"
            sizes = (n, SMALL_ROWS, 4, gradient)
            good &= measure(name, sizes, options.repeat)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
