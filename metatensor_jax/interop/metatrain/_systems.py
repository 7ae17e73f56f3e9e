"""Structures as metatomic stores them, ``.mta``: a ZIP archive of NumPy's files."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from ase import Atoms

from ..._types.errors import MetatensorError


def save_system(frame: Atoms) -> bytes:
    """One structure: its types, positions, cell and periodic directions.

    A vector of the cell along which it is not periodic is zero, as metatomic wants it.

    >>> from ase.build import molecule
    >>> load_system(save_system(molecule("H2O")), "water").symbols
    Symbols('OH2')
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays_of(frame).items():
            archive.writestr(f"{name}.npy", npy(array))
    return content.getvalue()


def load_system(data: bytes, what: str) -> Atoms:
    """One structure. Neighbor lists and further data, if there are any, are left out.

    :param what: what messages call it
    """
    wanted = ("types", "positions", "cell", "pbc")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            types, positions, cell, pbc = (
                np.load(io.BytesIO(archive.read(f"{name}.npy"))) for name in wanted
            )
        return Atoms(types, positions, cell=cell, pbc=pbc)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise MetatensorError(
            f"{what} is no structure of metatomic, which has the members {wanted}: "
            f"{error}"
        ) from error


def arrays_of(frame: Atoms) -> dict[str, np.ndarray]:
    """What metatomic's systems hold, under its names."""
    return {
        "types": frame.numbers.astype(np.int32),
        "positions": frame.positions.astype(np.float64),
        "cell": np.where(frame.pbc[:, None], frame.cell.array, 0.0),
        "pbc": frame.pbc.astype(bool),
    }


def npy(array: Any) -> bytes:
    """An array as the bytes of an ``.npy`` file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()
