"""Maps of energies as what ASE's calculators call energy, forces and stress."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress

from ..._types.block import TensorBlock
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ._energies import COMPONENTS
from ._frames import Frames


def results(numbered: Frames, tensor: TensorMap) -> list[dict[str, Any]]:
    """For each frame, what an ASE calculator calls energy, forces and stress."""
    block = energy_block(tensor)
    rows = rows_of("the map of energies", block, numbered.system_labels())
    energies = np.asarray(block.values)[rows, 0].tolist()
    found = [{"energy": energy, "free_energy": energy} for energy in energies]
    if block.has_gradient("positions"):
        forces = numbered.split(-by_positions(numbered, block, rows))
        for of_frame, array in zip(found, forces, strict=True):
            of_frame["forces"] = array
    if block.has_gradient("strain"):
        strains = by_strain(block)[rows]
        for of_frame, frame, array in zip(found, numbered.frames, strains, strict=True):
            if frame.cell.volume > 0:
                # which symmetrizes it
                stress = full_3x3_to_voigt_6_stress(array / frame.cell.volume)
                of_frame["stress"] = stress
    return found


def energy_block(tensor: TensorMap) -> TensorBlock:
    """The only block; raise unless it holds a single number per sample."""
    if not isinstance(tensor, TensorMap):
        raise TypeError(f"energies must be a TensorMap, not {type(tensor).__name__}")
    if len(tensor) != 1 or tensor.block(0).shape[1:] != (1,):
        shapes = {key.print(): block.shape for key, block in tensor.items()}
        raise MetatensorError(
            "a map of energies must have one block with a single property and no "
            f"components, but the blocks have the shapes {shapes}: add up what is left"
        )
    block = tensor.block(0)
    if jnp.issubdtype(block.dtype, jnp.complexfloating):
        raise TypeError(f"energies must be real numbers, not {block.dtype}")
    return block


def one_for_each(tensor: TensorMap, systems: Labels) -> Any:
    """The values of energies; raise unless there is one for each of these systems."""
    block = energy_block(tensor)
    if block.samples != systems:
        raise MetatensorError(
            "the function must give one energy for each system, with the samples\n"
            f"{systems}\nbut it gave\n{block.samples}\nSums over samples do so, with "
            "these as out_samples="
        )
    return block.values


def by_positions(numbered: Frames, block: TensorBlock, rows: np.ndarray) -> np.ndarray:
    """The gradient by positions, of all atoms of all frames."""
    gradient = block.gradient("positions")
    _components_of("positions", gradient)
    samples = gradient.samples
    frame_of = np.empty(len(block), np.int64)
    frame_of[rows] = np.arange(len(rows))
    frame = frame_of[samples.column("sample")]
    atom, sizes = samples.column("atom"), np.array(numbered.sizes, np.int64)
    wrong = (atom < 0) | (atom >= sizes[frame])
    if "system" in samples.names:
        wrong = wrong | (samples.column("system") != numbered.systems[frame])
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise MetatensorError(
            f"the gradient by positions has a row {samples.entry(i).print()}, but its "
            f"sample is the energy of system {numbered.systems[frame[i]]}, with "
            f"{sizes[frame[i]]} atoms"
        )
    starts = np.cumsum(sizes) - sizes
    dense = np.zeros((int(sizes.sum()), 3))
    np.add.at(dense, starts[frame] + atom, np.asarray(gradient.values)[..., 0])
    return dense


def by_strain(block: TensorBlock) -> np.ndarray:
    """The gradient by strain, for each row of the block."""
    gradient = block.gradient("strain")
    order = _components_of("strain", gradient)
    dense = np.zeros((len(block), 3, 3))
    values = np.asarray(gradient.values)[..., 0].transpose((0, *(1 + i for i in order)))
    np.add.at(dense, gradient.samples.column("sample"), values)
    return dense


def _components_of(name: str, gradient: TensorBlock) -> list[int]:
    """Where each of the components is that a gradient by this should have."""
    wanted, there = COMPONENTS[name], list(gradient.components)
    if len(wanted) != len(there) or any(axis not in there for axis in wanted):
        raise MetatensorError(
            f"the gradient by {name} should have the components "
            f"{[axis.names[0] for axis in wanted]}, with 3 entries each, but it has "
            f"{[(axis.names[0], len(axis)) for axis in there]}"
        )
    return [there.index(axis) for axis in wanted]


def rows_of(what: str, block: TensorBlock, labels: Labels) -> np.ndarray:
    """For each of the labels, the row of the block; raise unless it has just these."""
    samples = block.samples
    if len(block.properties) != 1:
        raise MetatensorError(
            f"{what} must have a single property, got {len(block.properties)}"
        )
    if samples.names != labels.names:
        raise MetatensorError(
            f"{what} must have the samples {labels.names}, got {samples.names}"
        )
    rows = samples.select(labels)
    if not len(rows) == len(labels) == len(samples):
        lacking, others = labels.difference(samples), samples.difference(labels)
        raise MetatensorError(
            f"{what} must have one row for each of the frames, but {len(lacking)} are "
            f"missing and {len(others)} are of others\nmissing: {lacking}\nothers: "
            f"{others}\nIf the frames are a part of a data set, give their numbers "
            "with systems="
        )
    return rows
