"""Appending systems to a store on disk, one by one."""

from __future__ import annotations

import operator
import os
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .._types.block import TensorBlock
from .._types.entry import INT32
from .._types.errors import MetatensorError
from .._types.tensor import TensorMap
from ..io._atomic import AnyPath, as_path
from ._capacity import Maps, all_systems, as_maps, where
from ._check import check_block
from ._fit import check_same_room
from ._flat import flat_rows, traced
from ._folder import (
    HEADER,
    INDEX,
    KINDS,
    BlockFiles,
    Header,
    MapFiles,
    index_entries,
    read_index,
    row_shape,
)


class StoreWriter:
    """Appends systems to a store on disk: a folder that :meth:`Store.open` reads.

    Each system is complete before the next one begins. A process that is killed loses
    the one that it was writing, at most; what is left of it is cut off by the next
    writer, and :meth:`Store.open` says so.

    :param path: a folder: a store that is there, which goes on, or one to be made
    :param system: the sample dimension that tells systems apart, of a new store
    :raises MetatensorError: a folder with something else in it; a store that another
        process writes to

    >>> import tempfile
    >>> import metatensor_jax as mts
    >>> def features(n):  # of a system with n atoms
    ...     samples = mts.Labels(["system", "atom"], [[0, i] for i in range(n)])
    ...     p = mts.Labels.range("p", 2)
    ...     block = TensorBlock(np.ones((n, 2)), samples, [], p)
    ...     return TensorMap(mts.Labels.single(), [block])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with StoreWriter(f"{folder}/features") as writer:
    ...         numbers = [writer.append(features(n)) for n in (3, 1, 2)]
    ...     store = mts.Store.open(f"{folder}/features")
    ...     store.batch([0, 2]).tensors.block().shape
    (5, 2)
    """

    def __init__(self, path: AnyPath, *, system: str = "system") -> None:
        self._folder = as_path(path).absolute()  # wherever the process goes
        self._files: dict[str, FileIO] = {}
        self._ends: dict[str, int] = {}
        self._folder.mkdir(parents=True, exist_ok=True)
        is_new = not (self._folder / HEADER).exists()
        if is_new and any(self._folder.iterdir()):
            raise MetatensorError(
                f"'{self._folder}' is not empty, and no store: give another path"
            )
        self._index = FileIO(self._folder / INDEX, "ab")
        _lock(self._index, self._folder)
        if is_new:
            self._header, self._n, self._last = Header(system), 0, -1
            self._header.write(self._folder)
        else:
            self._go_on(system)

    def _go_on(self, system: str) -> None:
        """With a store that is there."""
        self._header = Header.read(self._folder)
        if self._header.system != system:
            raise MetatensorError(
                f"the systems of '{self._folder}' are told apart by "
                f"{self._header.system!r}, not by {system!r}"
            )
        self._cut_off()

    def _cut_off(self) -> None:
        """Cut off what is not complete."""
        systems, _ = read_index(self._folder)
        self._n = len(systems)
        self._last = int(systems[-1]) if self._n else -1
        self._index.truncate(16 * self._n)
        for stem, dtype, part in self._header.stems():
            ends = self._open(stem, "ends")
            ends.truncate(8 * self._n)
            found = np.fromfile(self._folder / f"{stem}.ends.bin", np.int64)
            if len(found) < self._n:
                raise MetatensorError(f"'{stem}.ends.bin' was cut off")
            self._ends[stem] = n = int(found[-1]) if self._n else 0
            row = int(np.prod(row_shape(part))) * np.dtype(dtype).itemsize
            self._open(stem, "values").truncate(n * row)
            self._open(stem, "samples").truncate(n * 4 * len(part.sample_names))

    def __len__(self) -> int:
        return self._n

    def append(self, maps: TensorMap | Maps, number: int | None = None) -> int:
        """Add one system.

        :param maps: of one system: a map, or a dict of maps, with the same names for
            all systems. Keys may be missing, and new ones may come.
        :param number: the own number of the system, larger than those before; if None,
            the next one. The maps may have any other.
        :returns: this number
        :raises MetatensorError: maps of several systems, other maps, dtypes,
            properties, components or gradients than those before
        """
        maps = as_maps(maps)
        if self._index.closed:
            raise MetatensorError(f"this writer of '{self._folder}' is closed")
        number = self._last + 1 if number is None else operator.index(number)
        if not -INT32.max <= number <= INT32.max:
            raise MetatensorError(
                f"the number of a system must fit into 32 bits, got {number}"
            )
        if number <= self._last:
            raise MetatensorError(
                f"systems come in ascending order of their numbers, but {number} would "
                f"follow {self._last}"
            )
        self._check(maps)
        try:
            self._append(maps, number)
        except BaseException:  # such as a full disk: what was written is cut off
            self._header = Header.read(self._folder)
            self._cut_off()
            raise
        return number

    def _append(self, maps: Maps, number: int) -> None:
        if any([self._make_room(name, tensor) for name, tensor in maps.items()]):  # noqa: C419
            self._header.write(self._folder)
        for name, tensor in maps.items():
            self._append_map(name, tensor)
        for stem, _, _ in self._header.stems():
            _write(self._open(stem, "ends"), np.int64(self._ends[stem]))
        _write(self._index, index_entries(np.array([number]), self._n))
        self._n, self._last = self._n + 1, number

    def _append_map(self, name: str, tensor: TensorMap) -> None:
        for key, block in tensor.items():
            own = self._header.maps[name].blocks[tuple(key.values.tolist())]
            parts = flat_rows(block, np.zeros(len(block), np.int64), 1)
            for stem, rows in zip(own.stems, parts, strict=True):
                _write(self._open(stem, "values"), rows.values)
                _write(self._open(stem, "samples"), rows.samples)
                self._ends[stem] += len(rows.values)

    # --- what comes ----------------------------------------------------------------

    def _check(self, maps: Maps) -> None:
        """Raise unless maps fit to those before."""
        known, system = self._header.maps, self._header.system
        if known and sorted(known) != sorted(maps):
            raise MetatensorError(
                f"the store has the maps {sorted(known)}, but this system has "
                f"{sorted(maps)}"
            )
        for name, tensor in maps.items():
            for key, block in tensor.items():
                check_block(where(name, key.print()), block, system)
        systems = all_systems(maps.values(), system)
        if len(systems) > 1:
            raise MetatensorError(
                f"give one system at a time, not the systems {systems.tolist()}"
            )
        for name, tensor in maps.items():
            if name in known:
                _check_map(name, tensor, known[name])

    def _make_room(self, name: str, tensor: TensorMap) -> bool:
        """Make room for what is new in a map; True if something is."""
        maps, info = self._header.maps, dict(tensor._structure.info)
        changes = name not in maps
        if changes:
            dtype = str(tensor.dtype) if len(tensor) else "float32"
            maps[name] = MapFiles(tuple(tensor.keys.names), dtype, info)
        of_map = maps[name]
        common = {k: v for k, v in of_map.info.items() if info.get(k) == v}
        changes |= common != of_map.info
        of_map.info = common
        for key, block in tensor.items():
            entry = tuple(key.values.tolist())
            if entry not in of_map.blocks:
                self._add_block(name, of_map, entry, block)
                changes = True
        return changes

    def _add_block(
        self, name: str, of_map: MapFiles, key: tuple[int, ...], block: TensorBlock
    ) -> None:
        structure = traced(block._structure)
        stems = self._header.new_stems(name, structure)
        of_map.blocks[key] = BlockFiles(structure, stems)
        for stem in stems:
            for kind in KINDS:
                self._open(stem, kind).truncate(0)
            self._ends[stem] = 0
            _write(self._open(stem, "ends"), np.zeros(self._n, np.int64))

    # --- files -----------------------------------------------------------------------

    def _open(self, stem: str, kind: str) -> FileIO:
        name = f"{stem}.{kind}.bin"
        if name not in self._files:
            self._files[name] = FileIO(self._folder / name, "ab")
        return self._files[name]

    def close(self) -> None:
        """Write all to the disk itself, and close all files."""
        for file in (*self._files.values(), self._index):
            if not file.closed:
                os.fsync(file.fileno())
                file.close()
        self._files.clear()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _check_map(name: str, tensor: TensorMap, known: MapFiles) -> None:
    if tuple(tensor.keys.names) != known.key_names:
        raise MetatensorError(
            f"the keys of '{name}' have the dimensions {list(known.key_names)}, but "
            f"those of this system have {tensor.keys.names}"
        )
    if len(tensor) and str(tensor.dtype) != known.dtype:
        raise MetatensorError(
            f"the values of '{name}' are {known.dtype}, but those of this system are "
            f"{tensor.dtype}: convert them with `.to(dtype='{known.dtype}')`"
        )
    for key, block in tensor.items():
        there = known.blocks.get(tuple(key.values.tolist()))
        if there is not None:
            what = where(name, key.print())
            check_same_room(what, there.structure, block._structure)


def _lock(file: FileIO, folder: Path) -> None:
    """Let no other process write to this store, where the system can tell."""
    try:
        import fcntl
    except ImportError:  # Windows does not let two processes append in this way
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise MetatensorError(f"another process writes to '{folder}'") from None


def _write(file: FileIO, array: Any) -> None:
    """All of the numbers of an array: files have no buffer, and need no flush."""
    data: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while len(data):
        data = data[file.write(data) :]
