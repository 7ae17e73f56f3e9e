"""Maps back to frames."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator

from ..._types.errors import MetatensorError
from ..._types.tensor import TensorMap
from ._frames import Frames
from ._results import results, rows_of
from ._spherical import BASES, from_spherical

#: what belongs to the energy: new energies replace all of it
_OF_ENERGIES = ("energy", "free_energy", "energies", "forces", "stress", "stresses")


def with_energies(
    frames: Sequence[Atoms],
    tensor: TensorMap,
    *,
    systems: Sequence[int] | None = None,
) -> list[Atoms]:
    r"""Copies of frames that have the energies of a map, with forces and stress.

    The opposite of :func:`energies`. Each copy has a ``SinglePointCalculator``, so that
    ``frame.get_forces()`` works and ``ase.io.write`` writes all of it. Forces are minus
    the stored gradient ``positions``; rows that are not stored are zero. The stress is
    the stored gradient ``strain`` divided by the volume of the cell, symmetrized, in
    Voigt's order: xx, yy, zz, yz, xz, xy; frames without a volume have none.

    Energies, forces and stress that were there are gone, all else stays.

    :param frames: the structures
    :param tensor: one block with a single property and the samples ``[system]``: a row
        for each frame, in any order; in eV, and its gradients in eV/Å and eV
    :param systems: the numbers of the frames; 0, 1, ... if None
    :raises MetatensorError: other samples, several blocks or properties, gradients of
        other atoms than those of the frames
    :raises TypeError: frames that are no list of ``ase.Atoms``

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from metatensor_jax.interop.ase import energies
    >>> frames = [bulk("Cu"), bulk("Al")]
    >>> for frame in frames:
    ...     frame.calc = EMT()
    >>> known = energies(frames, ["positions", "strain"], dtype="float32")
    >>> halves = with_energies(frames, known * 0.5)
    >>> round(float(frames[1].get_stress()[0] / halves[1].get_stress()[0]), 3)
    2.0
    """
    numbered = Frames.of(frames, systems)
    found = results(numbered, tensor)
    copies = []
    for frame, new in zip(numbered.frames, found, strict=True):
        copy = _without(frame, _OF_ENERGIES)
        kept = {} if copy.calc is None else copy.calc.results
        copy.calc = SinglePointCalculator(copy, **kept, **new)
        copies.append(copy)
    return copies


def with_tensors(
    frames: Sequence[Atoms],
    name: str,
    tensor: TensorMap,
    *,
    systems: Sequence[int] | None = None,
) -> list[Atoms]:
    """Copies of frames that have the scalars, vectors or matrices of a map.

    The opposite of :func:`tensors`: Cartesian in all cases, in ``frame.info`` for
    samples ``[system]``, and in ``frame.arrays`` for ``[system, atom]``, where matrices
    are flat, with nine components, so that extended XYZ files can hold them. What had
    this name is gone, from the results of a calculator as well.

    :param frames: the structures
    :param name: what to call it
    :param tensor: with the labels that :func:`tensors` makes, its samples in any order
    :param systems: the numbers of the frames; 0, 1, ... if None
    :raises MetatensorError: other labels, samples that are not those of the frames
    :raises TypeError: frames that are no list of ``ase.Atoms``

    >>> from ase.build import molecule
    >>> from metatensor_jax.interop.ase import tensors
    >>> water = molecule("H2O")
    >>> water.info["dipole"] = np.array([0.1, 0.2, 0.3])
    >>> spherical = tensors([water], "dipole", 1, basis="spherical")
    >>> (again,) = with_tensors([water], "predicted_dipole", spherical)
    >>> again.info["predicted_dipole"].tolist()
    [0.1, 0.2, 0.3]
    """
    numbered = Frames.of(frames, systems)
    if tensor.sample_names == ["system", "atom"]:
        labels = numbered.atom_labels()
    else:
        labels = numbered.system_labels()
    parts = {}
    for key, block in tensor.items():
        what = f"block {key.print()}"
        rows = rows_of(what, block, labels)
        parts[tuple(key.values.tolist())] = np.asarray(block.values)[rows, ..., 0]
    values = _cartesian(tensor, parts)
    per_atom = "atom" in labels.names
    of_frames = numbered.split(values) if per_atom else values
    copies = []
    for frame, value in zip(numbered.frames, of_frames, strict=True):
        copy = _without(frame, [name])
        if per_atom:
            flat = value.reshape((len(frame), -1)) if value.ndim > 2 else value
            copy.set_array(name, flat)
        else:
            copy.info[name] = value if value.ndim else value.item()
        copies.append(copy)
    return copies


# --- tensors -------------------------------------------------------------------------


def _cartesian(tensor: TensorMap, parts: dict[Any, np.ndarray]) -> np.ndarray:
    names = [[axis.names[0] for axis in block.components] for block in tensor]
    for block in tensor:
        for axis in block.components:
            first = -(len(axis) // 2) if axis.names == ["o3_mu"] else 0
            entries = np.arange(first, first + len(axis))
            if axis.values[:, 0].tolist() != entries.tolist():
                raise MetatensorError(
                    f"the component '{axis.names[0]}' should have the entries "
                    f"{entries.tolist()}, in this order, but it has "
                    f"{axis.values[:, 0].tolist()}"
                )
            if axis.names[0].startswith("xyz") and len(axis) != 3:
                raise MetatensorError(
                    f"the component '{axis.names[0]}' should have 3 entries, not "
                    f"{len(axis)}"
                )
    if tensor.keys.names == ["_"] and names in ([[]], [["xyz"]], [["xyz_1", "xyz_2"]]):
        (values,) = parts.values()
        return values
    is_spherical = tensor.keys.names == ["o3_lambda", "o3_sigma"]
    if is_spherical and all(name == ["o3_mu"] for name in names):
        for rank, bases in BASES.items():
            if set(parts) <= set(bases) and (rank < 2) == (len(parts) == 1):
                return from_spherical(parts, rank)
    raise MetatensorError(
        "these are no labels of scalars, vectors or matrices, as `tensors` makes them:"
        f"\n{tensor}\nwith the components {names}"
    )


# --- frames --------------------------------------------------------------------------


def _without(frame: Atoms, names: Collection[str]) -> Atoms:
    """A copy that knows all but this. Its results do not change any more."""
    copy = frame.copy()
    for name in names:
        copy.info.pop(name, None)
        copy.arrays.pop(name, None)
    if frame.calc is None or frame.calc.check_state(frame):
        return copy
    known = {
        name: value
        for name, value in frame.calc.results.items()
        if name in all_properties and name not in names
    }
    if known:
        copy.calc = SinglePointCalculator(copy, **known)
    return copy
