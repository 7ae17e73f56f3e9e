"""Features of simple structures, which worker processes can import."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metatensor_jax import Labels, TensorBlock, TensorMap

XYZ = Labels.range("xyz", 3)
PROPERTIES = Labels.range("power", 2)


class Frame(NamedTuple):
    """Types and positions of atoms, and a number to recognise it by."""

    number: int
    types: np.ndarray
    positions: np.ndarray


def frames(n: int) -> list[Frame]:
    """Structures of one to five atoms; the first has each type."""
    rng = np.random.default_rng(7)
    made = []
    for i in range(n):
        n_atoms = 5 if i == 0 else int(rng.integers(1, 6))
        types = rng.choice([1, 6, 8], size=n_atoms)
        made.append(Frame(i, types, rng.normal(size=(n_atoms, 3))))
    made[0].types[:3] = [1, 6, 8]
    return made


def features(frames: list[Frame]) -> TensorMap:
    """For each atom its distance from the origin, squared, and its square; gradients.

    A block for each type that is there.
    """
    system = np.concatenate([np.full(len(f.types), i) for i, f in enumerate(frames)])
    atom = np.concatenate([np.arange(len(f.types)) for f in frames])
    types = np.concatenate([f.types for f in frames])
    positions = np.concatenate([f.positions for f in frames])
    keys = np.unique(types)
    blocks = []
    for one in keys:
        rows = np.flatnonzero(types == one)
        x = positions[rows]
        squared = (x**2).sum(1)
        samples = np.stack([system[rows], atom[rows]], 1)
        own = np.column_stack([np.arange(len(rows)), samples])
        along = np.stack([2 * x, 4 * x * squared[:, None]], -1)
        gradient = TensorBlock(
            along, Labels(["sample", "system", "atom"], own), [XYZ], PROPERTIES
        )
        values = np.stack([squared, squared**2], 1)
        of_atoms = Labels(["system", "atom"], samples)
        blocks.append(
            TensorBlock(values, of_atoms, [], PROPERTIES, {"positions": gradient})
        )
    return TensorMap(Labels("center_type", keys[:, None]), blocks)


def with_energies(frames: list[Frame]) -> dict[str, TensorMap]:
    """Two maps."""
    values = np.array([[f.positions.sum()] for f in frames])
    samples = Labels.range("system", len(frames))
    block = TensorBlock(values, samples, [], Labels.range("energy", 1))
    energy = TensorMap(Labels.single(), [block])
    return {"mtt::U/eV": energy, "features": features(frames)}


def noted(folder: Path, frames: list[Frame]) -> TensorMap:
    """The features; each computation leaves a file, and takes a moment."""
    time.sleep(0.01)
    (folder / f"{frames[0].number}-{time.time_ns()}-{os.getpid()}").touch()
    return features(frames)


def dying(folder: Path, number: int, frames: list[Frame]) -> TensorMap:
    """The same, but the process ends at once at a frame, as long as a file is there."""
    if any(f.number == number for f in frames) and (folder / "die").exists():
        (folder / "die").unlink()
        os._exit(9)
    return noted(folder, frames)


def failing(number: int, frames: list[Frame]) -> TensorMap:
    """The features, and an error at one frame."""
    if any(f.number == number for f in frames):
        raise ZeroDivisionError("a frame without atoms")
    return features(frames)
