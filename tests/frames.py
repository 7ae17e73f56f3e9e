"""Frames of ASE without symmetry, with results, and moved by parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from systems import crystal

import metatensor_jax as mts


def copper(seed: int = 0) -> Any:
    """Two atoms in a triclinic cell without symmetry, far from equilibrium."""
    atoms = crystal("Cu", "fcc", 3.7, seed=seed) * (2, 1, 1)
    atoms.rattle(0.15, seed=seed + 1)
    cell = atoms.cell.array + np.array([[0.2, 0, 0], [0.3, -0.1, 0], [0, 0.2, 0.1]])
    atoms.set_cell(cell, scale_atoms=True)
    return atoms


def argon(seed: int = 0) -> Any:
    """Some atoms of argon in a triclinic cell."""
    atoms = crystal("Ar", "fcc", 5.3) * (2, 2, 2)
    atoms.set_cell(atoms.cell.array + np.diag([0.2, -0.2, 0.4]), scale_atoms=True)
    atoms.rattle(0.2, seed=seed)
    return atoms


def salt() -> Any:
    atoms = crystal("NaCl", "rocksalt", 5.0)
    skewed = atoms.cell.array + np.array([[0.1, 0, 0], [0.2, 0.1, 0], [0, 0, 0.2]])
    atoms.set_cell(skewed)
    return atoms


def known(*frames: Any, **results: Any) -> list[Any]:
    """Copies of frames with these results."""
    single = pytest.importorskip("ase.calculators.singlepoint")
    copies = [frame.copy() for frame in frames]
    for copy in copies:
        copy.calc = single.SinglePointCalculator(copy, **results)
    return copies


def moved(frames: Sequence[Any], given: Mapping[str, mts.TensorBlock]) -> list[Any]:
    """The frames at these parameters, as `parameters` says that they act."""
    result = []
    for s, frame in enumerate(frames):
        frame = frame.copy()
        if "positions" in given:
            block = given["positions"]
            rows = block.samples.column("system") == s
            frame.positions = np.asarray(block.values)[rows, :, 0]
        if "cell" in given:
            frame.cell = np.asarray(given["cell"].values)[s, ..., 0]
        if "strain" in given:
            deformation = np.eye(3) + np.asarray(given["strain"].values)[s, ..., 0]
            frame.positions = np.array([deformation @ r for r in frame.positions])
            frame.cell = np.array([deformation @ v for v in frame.cell.array])
        result.append(frame)
    return result
