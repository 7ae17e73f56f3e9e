"""Atoms of molecules and crystals, as parameters that features depend on.

Strain acts on positions that are rows, ``r (1 + strain)``, with featomic's components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import metatensor_jax as mts

XYZ = mts.Labels.range("xyz", 3)
ONE = mts.Labels.single()
STRAIN = [mts.Labels.range("xyz_2", 3), mts.Labels.range("xyz_1", 3)]
CELL = [XYZ, mts.Labels.range("abc", 3)]


def molecule(name: str, seed: int = 0) -> Any:
    """A molecule with its atoms moved a little: no symmetry hides a mistake."""
    atoms = pytest.importorskip("ase.build").molecule(name)
    atoms.rattle(0.1, seed=seed)
    return atoms


def crystal(*args: Any, seed: int = 0) -> Any:
    """A crystal whose atoms are their own neighbors, in other cells."""
    atoms = pytest.importorskip("ase.build").bulk(*args)
    atoms.rattle(0.1, seed=seed)
    return atoms


def hypers(radius: float) -> dict[str, Any]:
    """Of featomic's calculators: small, and smooth at the cutoff (in Å)."""
    return {
        "cutoff": {
            "radius": radius,
            "smoothing": {"type": "ShiftedCosine", "width": 0.5},
        },
        "density": {"type": "Gaussian", "width": 0.4},
        "basis": {
            "type": "TensorProduct",
            "max_angular": 1,
            "radial": {"type": "Gto", "max_radial": 1},
        },
    }


def parameters(
    frames: Sequence[Any],
    dtype: Any = np.float64,
    names: Sequence[str] = ("positions", "strain", "cell"),
) -> dict[str, mts.TensorBlock]:
    """Positions of all atoms, a strain of zero and the cell of each system."""
    rows = [[s, a] for s, frame in enumerate(frames) for a in range(len(frame))]
    atoms = mts.Labels(["system", "atom"], rows)
    systems = mts.Labels.range("system", len(frames))
    positions = np.concatenate([frame.positions for frame in frames])
    still = np.zeros((len(frames), 3, 3))
    cells = np.stack([np.array(frame.cell) for frame in frames])
    every = {
        "positions": (positions, atoms, [XYZ]),
        "strain": (still, systems, STRAIN),
        "cell": (cells, systems, CELL),
    }
    return {
        name: mts.TensorBlock(values[..., None].astype(dtype), samples, components, ONE)
        for name, (values, samples, components) in every.items()
        if name in names
    }


def moved(frames: Sequence[Any], given: Mapping[str, mts.TensorBlock]) -> list[Any]:
    """The systems at these parameters."""
    result = []
    for s, frame in enumerate(frames):
        frame = frame.copy()
        if "positions" in given:
            block = given["positions"]
            frame.positions = block.values[block.samples.column("system") == s, :, 0]
        if "cell" in given:
            # the positions stay
            frame.cell = given["cell"].values[s, ..., 0]
        if "strain" in given:
            deformation = np.eye(3) + given["strain"].values[s, ..., 0]
            frame.positions = frame.positions @ deformation
            frame.cell = np.array(frame.cell) @ deformation
        result.append(frame)
    return result
