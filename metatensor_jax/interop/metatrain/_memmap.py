"""Data sets in a folder of arrays, ``MemmapDataset`` in metatrain.

``ns.npy`` is the number of systems, ``na.npy`` where their atoms begin, ``a.bin``,
``x.bin`` and ``c.bin`` are types, positions and cells, and ``<key>.bin`` is the rest:
plain numbers, of 32 bits, whose shapes are known from ``options.yaml`` alone. Forces
are stored as they are, and stress as the strain gradient over the volume.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..._types.errors import MetatensorError
from ...io._atomic import check_new_folder, new_folder
from ._names import file_names
from ._parts import Entry, Options, Parts
from ._systems import arrays_of

_TAKEN = ("a", "c", "x", "momenta", "masses")


def write_folder(path: Path, parts: Parts) -> Options:
    """Write all of it, and give the section for ``options.yaml``."""
    numbered = parts.numbered
    check_new_folder(path)
    arrays, more = _named(parts)
    counts = {
        "ns": np.array(len(numbered.frames), np.int64),
        "na": np.cumsum([0, *numbered.sizes], dtype=np.int64),
    }
    _write(path, arrays, counts)
    return parts.section(str(path), more)


def _named(parts: Parts) -> tuple[dict[str, np.ndarray], dict[str, Options]]:
    """All arrays by the names of their files, and these names, for options."""
    names = file_names(parts.entries, _TAKEN)
    arrays, more = _structures(parts), {}
    cells = arrays["c"]
    for name, entry in parts.entries.items():
        _check_known(name, entry, parts)
        key = names[name]
        added = {key: np.asarray(entry.tensor.block().values)}
        added.update(_gradients(key, entry, cells))
        clashes = sorted(set(added) & set(arrays))
        if clashes:
            raise MetatensorError(f"there would be two files '{clashes[0]}.bin'")
        arrays.update({file: _narrow(file, array) for file, array in added.items()})
        gradients = {
            gradient: {"key": f"{key}_{gradient}"}
            for gradient in ("forces", "stress")
            if f"{key}_{gradient}" in added
        }
        more[name] = {"key": key, **gradients}
    return arrays, more


def _structures(parts: Parts) -> dict[str, np.ndarray]:
    of_frames = [arrays_of(frame) for frame in parts.numbered.frames]
    columns = {
        name: [of_frame[name] for of_frame in of_frames] for name in of_frames[0]
    }
    for i, (cell, pbc) in enumerate(zip(columns["cell"], columns["pbc"], strict=True)):
        if not np.array_equal(cell.any(axis=1), pbc):
            raise MetatensorError(
                f"frame {i} is periodic along {pbc.tolist()}, but its cell is "
                f"{cell.tolist()}: from these arrays, metatrain takes for periodic "
                "what has a vector that is not zero"
            )
    return {
        "a": np.concatenate(columns["types"]),
        "x": np.concatenate(columns["positions"]).astype(np.float32),
        "c": np.array(columns["cell"], np.float32),
    }


def _check_known(name: str, entry: Entry, parts: Parts) -> None:
    """Raise if metatrain could not read it back."""
    n_systems, n_atoms = len(parts.numbered.frames), sum(parts.numbered.sizes)
    if name in parts.extra_data and entry.rank != 0:
        raise MetatensorError(
            f"extra data in a folder must be scalars, but '{name}' is "
            f"{entry.options['type']}: give a path that ends in .zip"
        )
    if entry.rank is None:
        raise MetatensorError(
            f"'{name}' is a spherical tensor, which a folder can not hold: give a path "
            "that ends in .zip"
        )
    if not entry.per_atom and n_atoms == n_systems:
        raise MetatensorError(
            f"there are {n_systems} systems and as many atoms, so metatrain would take "
            f"'{name}' for something that each atom has: give a path that ends in .zip"
        )


def _gradients(key: str, entry: Entry, cells: np.ndarray) -> dict[str, np.ndarray]:
    """Forces and stress, of the cells as they are stored."""
    arrays, block = {}, entry.tensor.block()
    if block.has_gradient("positions"):
        arrays[f"{key}_forces"] = -np.asarray(block.gradient("positions").values)
    if block.has_gradient("strain"):
        strain = np.asarray(block.gradient("strain").values)
        volumes = np.abs(np.linalg.det(cells.astype(np.float64)))
        lost = np.flatnonzero(
            (volumes == 0) & (np.nan_to_num(strain) != 0).any((1, 2, 3))
        )
        if len(lost):
            raise MetatensorError(
                f"the energy of frame {lost[0]} has a strain gradient, but its cell no "
                "volume: a stress can not be stored"
            )
        volumes[volumes == 0] = 1.0
        arrays[f"{key}_stress"] = strain / volumes[:, None, None, None]
    return arrays


def _write(
    path: Path, arrays: dict[str, np.ndarray], counts: dict[str, np.ndarray]
) -> None:
    """All files at once: the folder gets its name when it is complete."""
    with new_folder(path) as folder:
        for name, array in counts.items():
            np.save(folder / f"{name}.npy", array)
        for name, array in arrays.items():
            array.tofile(folder / f"{name}.bin")


def _narrow(name: str, array: np.ndarray) -> np.ndarray:
    """With 32 bits; raise if numbers do not fit."""
    largest = float(np.max(np.abs(array[np.isfinite(array)]), initial=0.0))
    if largest > float(np.finfo(np.float32).max):
        raise MetatensorError(
            f"{name}.bin would have to hold {largest}, which is too large for 32 bits"
        )
    return np.asarray(array, np.float32)
