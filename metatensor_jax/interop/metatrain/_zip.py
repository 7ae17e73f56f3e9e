"""Data sets in a ZIP archive, ``DiskDataset`` in metatrain.

The system ``i`` is ``i/system.mta``, and each of its maps ``i/<name>.mts``: the bytes
of such a file, as an array in NumPy's format. Nothing is compressed.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from ..._types.block import TensorBlock
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ...io import load_buffer, save_buffer
from ...io._atomic import replaced_file
from ...operations import join
from ._parts import Options, Parts, of_system
from ._systems import load_system, npy, save_system

_MEMBER = re.compile(r"(0|[1-9][0-9]*)/(.+)\.(mta|mts)")


def write_zip(path: Path, parts: Parts) -> Options:
    """Write all of it, and give the section for ``options.yaml``."""
    sizes = np.array(parts.numbered.sizes, np.int64)
    ends = np.cumsum(sizes)
    with (
        replaced_file(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for i, frame in enumerate(parts.numbered.frames):
            atoms = slice(int(ends[i] - sizes[i]), int(ends[i]))
            archive.writestr(f"{i}/system.mta", save_system(frame))
            for name, entry in parts.entries.items():
                buffer = save_buffer(of_system(entry, i, atoms))
                member = npy(np.frombuffer(buffer, np.uint8))
                archive.writestr(f"{i}/{name}.mts", member)
        archive.writestr("metadata/atom_counts.npy", npy(sizes))
    return parts.section(str(path), {})


def read_zip(
    path: Path, names: Sequence[str] | None
) -> tuple[list[Atoms], dict[str, TensorMap]]:
    """All structures, and maps of all of them.

    :param names: which maps to read; all if None
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive, names)
    except zipfile.BadZipFile as error:
        raise MetatensorError(f"'{path}' is no ZIP archive: {error}") from error


def _read(
    path: Path, archive: zipfile.ZipFile, names: Sequence[str] | None
) -> tuple[list[Atoms], dict[str, TensorMap]]:
    systems, there = _members(archive)
    names = sorted(there) if names is None else names
    everything = list(range(len(systems)))
    for what in ("system", *names):
        numbers = sorted(systems if what == "system" else there.get(what, []))
        if numbers != everything or not numbers:
            raise MetatensorError(
                f"'{path}' must have '{what}' for each of the systems 0, 1, ..., but "
                f"there are {len(systems)} systems, and those with it are "
                f"{numbers[:10]}{' ...' if len(numbers) > 10 else ''}. Its maps are "
                f"{sorted(there)}"
            )
    frames = [
        load_system(archive.read(f"{i}/system.mta"), f"'{i}/system.mta' in '{path}'")
        for i in everything
    ]
    maps = {
        name: join([_map_of(archive, i, name) for i in everything], "samples")
        for name in names
    }
    return frames, maps


def _members(archive: zipfile.ZipFile) -> tuple[list[int], dict[str, list[int]]]:
    """The numbers of systems, and for each map, those that have it."""
    systems: list[int] = []
    maps: dict[str, list[int]] = {}
    for member in archive.namelist():
        match = _MEMBER.fullmatch(member)
        if match is None:
            continue
        number, name, suffix = int(match[1]), match[2], match[3]
        if suffix == "mts":
            maps.setdefault(name, []).append(number)
        elif name == "system":
            systems.append(number)
    return systems, maps


def _map_of(archive: zipfile.ZipFile, i: int, name: str) -> TensorMap:
    """The map of one system, which has the number of its place in the archive."""
    member = f"{i}/{name}.mts"
    try:
        tensor = load_buffer(np.load(io.BytesIO(archive.read(member))).tobytes())
    except ValueError as error:
        raise MetatensorError(
            f"'{member}' in '{archive.filename}' is no map in an array of bytes, as "
            f"metatrain writes them: {error}"
        ) from error
    blocks = []
    for block in tensor:
        rows = block.samples.values.copy()
        rows[:, block.samples.names.index("system")] = i
        samples = Labels(block.samples.names, rows)
        gradients = dict(block.gradients())
        blocks.append(
            TensorBlock(
                block.values, samples, block.components, block.properties, gradients
            )
        )
    return TensorMap(tensor.keys, blocks, tensor.info())
