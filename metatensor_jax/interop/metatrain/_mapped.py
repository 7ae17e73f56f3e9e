"""Reading a folder of arrays, as maps in the mapped files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..._types.block import TensorBlock
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ..ase._energies import COMPONENTS, ENERGY
from ..ase._frames import Frames
from ._parts import Options, rank_of


def read_folder(
    path: Path, options: Mapping[str, Options]
) -> tuple[list[Atoms], dict[str, TensorMap]]:
    """All structures, and the maps that options describe."""
    ends = np.load(path / "na.npy")
    n, n_atoms = len(ends) - 1, int(ends[-1])
    if int(np.load(path / "ns.npy")) != n:
        raise MetatensorError(
            f"'{path}' has {int(np.load(path / 'ns.npy'))} systems by ns.npy, but {n} "
            "by na.npy"
        )
    types = _mapped(path, "a", (n_atoms,), np.int32)
    positions = _mapped(path, "x", (n_atoms, 3))
    cells = np.zeros((n, 3, 3), np.float32)
    if (path / "c.bin").exists():
        cells = _mapped(path, "c", (n, 3, 3))
    frames = [
        Atoms(types[start:end], positions[start:end], cell=cell, pbc=cell.any(axis=1))
        for start, end, cell in zip(ends, ends[1:], cells, strict=False)
    ]
    numbered = Frames.of(frames, None)
    return frames, {
        name: _map(path, numbered, name, of_map) for name, of_map in options.items()
    }


def _map(path: Path, numbered: Frames, name: str, options: Options) -> TensorMap:
    per_atom = options["sample_kind"] == "atom"
    samples = numbered.atom_labels() if per_atom else numbered.system_labels()
    rank, n = rank_of(options["type"]), options["num_subtargets"]
    if options.get("virial"):
        raise MetatensorError(
            f"'{name}' has the option `virial`, but a folder holds a stress: `stress`"
        )
    if rank is None:
        raise MetatensorError(
            f"'{name}' is {options['type']}, but a folder holds only scalars and "
            "Cartesian tensors"
        )
    axes = ["xyz"] if rank == 1 else [f"xyz_{i + 1}" for i in range(rank)]
    components = [Labels.range(axis, 3) for axis in axes]
    values = _mapped(path, options["key"], (len(samples), *[3] * rank, n))
    is_energy = (
        options["quantity"] == "energy" and not per_atom and rank == 0 and n == 1
    )
    called = name.removeprefix("mtt::").partition("/")[0]
    properties = ENERGY if is_energy else Labels.range(called, n)
    gradients = _gradients(path, numbered, options) if is_energy else {}
    block = TensorBlock(values, samples, components, properties, gradients)
    return TensorMap(Labels.single(), [block])


def _gradients(
    path: Path, numbered: Frames, options: Options
) -> dict[str, TensorBlock]:
    n, n_atoms = len(numbered.frames), sum(numbered.sizes)
    dense: dict[str, tuple[np.ndarray, Labels]] = {}
    if options["forces"]:
        forces = _mapped(path, options["forces"]["key"], (n_atoms, 3, 1))
        of_atoms = numbered.position_labels().remove("system")
        dense["positions"] = -forces, of_atoms
    if options["stress"]:
        stress = _mapped(path, options["stress"]["key"], (n, 3, 3, 1))
        volumes = [abs(np.linalg.det(frame.cell.array)) for frame in numbered.frames]
        scale = np.array(volumes, np.float32)[:, None, None, None]
        dense["strain"] = stress * scale, Labels.range("sample", n)
    return {
        name: TensorBlock(values, samples, COMPONENTS[name], ENERGY)
        for name, (values, samples) in dense.items()
    }


def _mapped(
    path: Path, key: str, shape: tuple[int, ...], dtype: Any = np.float32
) -> np.ndarray:
    """The numbers of a file, which are read from disk when they are used."""
    file = path / f"{key}.bin"
    size, wanted = file.stat().st_size, math.prod(shape) * np.dtype(dtype).itemsize
    if size != wanted:
        raise MetatensorError(
            f"'{file}' has {size} bytes, but {shape} numbers of the type "
            f"{np.dtype(dtype)} need {wanted}. Are the systems, or the options "
            "(type, sample_kind, num_subtargets), those of another data set?"
        )
    if size == 0:  # which can not be mapped
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(file, dtype, "r", shape=shape))
