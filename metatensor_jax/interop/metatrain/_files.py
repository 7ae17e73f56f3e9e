"""Data sets in several files: structures, and an ``.mts`` file for each map."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import ase.io
from ase import Atoms

from ..._types.errors import MetatensorError
from ..._types.tensor import TensorMap
from ...io import load, save
from ...io._atomic import replaced_file
from ._names import file_names
from ._parts import Options, Parts

#: the format of structures, by the suffix of their file
FORMATS = {".xyz": "extxyz", ".extxyz": "extxyz", ".traj": "traj"}


def write_files(path: Path, parts: Parts) -> Options:
    """Write all of it, and give the section for ``options.yaml``."""
    keys = file_names(parts.entries)
    files = {
        name: path.with_name(f"{path.stem}-{key}.mts") for name, key in keys.items()
    }
    for name, entry in parts.entries.items():
        save(files[name], entry.tensor)
    _save_frames(path, parts.numbered.frames)
    more = {name: {"read_from": str(file)} for name, file in files.items()}
    section = parts.section(str(path), more)
    section["systems"]["reader"] = "ase"
    return section


def _save_frames(path: Path, frames: list[Atoms]) -> None:
    """Structures alone: what else frames know is not in the data set."""
    bare = [
        Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        for frame in frames
    ]
    content: io.BytesIO | io.StringIO
    content = io.BytesIO() if path.suffix == ".traj" else io.StringIO()
    ase.io.write(content, bare, format=FORMATS[path.suffix])
    data = content.getvalue()
    with replaced_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def read_files(
    path: Path, options: Mapping[str, Options]
) -> tuple[list[Atoms], dict[str, TensorMap]]:
    """All structures, and the maps that options name."""
    frames = ase.io.read(path, ":")
    assert isinstance(frames, list)
    maps = {}
    for name, of_map in options.items():
        file = of_map.get("read_from", str(path))
        if not file.endswith(".mts"):
            raise MetatensorError(
                f"'{name}' is not in an .mts file, but in '{file}': read it from the "
                "frames, with interop.ase.energies or interop.ase.tensors"
            )
        maps[name] = load(file)
    return frames, maps
