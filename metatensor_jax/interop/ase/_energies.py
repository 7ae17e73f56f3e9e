"""Energies of frames as a map, with forces and stress as stored gradients."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import DTypeLike

from ..._types.block import TensorBlock
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ._frames import XYZ, Frames, joined, real_dtype
from ._known import Missing, Wanted, read
from ._parameters import STRAIN

ENERGY = Labels.range("energy", 1)


def energies(
    frames: Sequence[Atoms],
    gradients: Collection[str] = (),
    *,
    energy: str = "energy",
    forces: str = "forces",
    stress: str = "stress",
    virial: str | None = None,
    missing: Missing = "raise",
    systems: Sequence[int] | None = None,
    dtype: DTypeLike = "float64",
) -> TensorMap:
    r"""The energies that frames know, with forces and stress as stored gradients.

    The result has the labels of metatrain's energy targets (there, the samples of
    ``positions`` are ``[sample, atom]``, and
    :func:`metatensor_jax.interop.metatrain.write_dataset` takes care of that): the key
    ``_``, samples ``[system]``, the property ``energy``, and

    - the gradient ``positions``, minus the forces: samples ``[sample, system, atom]``,
      the component ``xyz``, in eV/Å;
    - the gradient ``strain``, the stress times the volume of the cell (or minus the
      virial): samples ``[sample]``, the components ``xyz_1`` and ``xyz_2``, in eV.

    These are the labels that ``compute_gradients`` makes with :func:`parameters`.

    Values come from the calculator of a frame (which computes them, if it can and has
    not done so), from ``frame.info`` or from ``frame.arrays``. Forces are those of the
    potential: constraints do not change them.

    :param frames: the structures
    :param gradients: which gradients to store: ``"positions"``, ``"strain"``
    :param energy: the name of energies, in eV. ``"free_energy"`` is the one that forces
        belong to, where a calculator smears out electrons.
    :param forces: the name of forces, in eV/Å, with the shape (atoms, 3)
    :param stress: the name of the stress, in eV/Å³, as six components in Voigt's order,
        xx, yy, zz, yz, xz, xy, or as a matrix
    :param virial: the name of the virial, in eV, to take in place of the stress
    :param missing: what to do with frames that lack one of these, and with values that
        are masked: ``"raise"``, or ``"nan"``, which fills in NaN (a gradient row that
        is not there would be zero)
    :param systems: the numbers of the frames; 0, 1, ... if None
    :param dtype: of the values, one of real floating point numbers. In 32 bits, an
        energy of 10,000 eV is known to 1 meV.
    :raises MetatensorError: values that are missing, not finite, of another shape, or
        not the same in two places; a stress without a volume; gradients with respect to
        something else
    :raises TypeError: frames that are no list of ``ase.Atoms``; values, or a ``dtype``,
        that are no real numbers

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> frames = [bulk("Cu"), bulk("Al", cubic=True)]
    >>> for frame in frames:
    ...     frame.calc = EMT()
    >>> block = energies(frames, ["positions", "strain"]).block()
    >>> block.shape, block.gradient("positions").shape, block.gradient("strain").shape
    ((2, 1), (5, 3, 1), (2, 3, 3, 1))
    >>> strain = block.gradient("strain").values[1, 0, 0, 0]  # of aluminium, by xx
    >>> float(strain / frames[1].get_volume()), float(frames[1].get_stress()[0])
    (0.00974..., 0.00974...)
    """
    numbered, dtype = Frames.of(frames, systems), real_dtype(dtype)
    check_gradients_known(gradients)
    has_forces, has_strain = (name in gradients for name in ("positions", "strain"))
    if virial is not None and not has_strain:
        raise MetatensorError(
            f"the virial '{virial}' is a gradient by the strain, which is not among "
            f"the gradients: {list(gradients)}"
        )
    wanted = [Wanted(energy)]
    if has_forces:
        wanted.append(Wanted(forces, "atom", 1))
    if has_strain:
        wanted.append(Wanted(virial or stress, rank=2, is_voigt=True))
    columns = read(numbered.frames, wanted, missing)
    by: dict[str, Any] = {}
    if has_forces:
        by["positions"] = -joined(columns[1], (3,), dtype)
    if has_strain:
        strains = _virials(columns[-1]) if virial else _stresses(numbered, columns[-1])
        by["strain"] = np.array(strains, dtype).reshape((-1, 3, 3))
    return energy_map(numbered, np.array(columns[0], dtype), by)


def energy_map(
    numbered: Frames, values: np.ndarray, by: Mapping[str, np.ndarray]
) -> TensorMap:
    """Energies of frames and their gradients, with labels."""
    samples = {
        "positions": numbered.position_labels,
        "strain": lambda: Labels.range("sample", len(numbered.frames)),
    }
    blocks = {
        name: TensorBlock(array[..., None], samples[name](), COMPONENTS[name], ENERGY)
        for name, array in by.items()
    }
    block = TensorBlock(values[:, None], numbered.system_labels(), [], ENERGY, blocks)
    return TensorMap(Labels.single(), [block])


#: of the gradients that energies can have
COMPONENTS: Mapping[str, tuple[Labels, ...]] = {"positions": (XYZ,), "strain": STRAIN}


def check_gradients_known(gradients: Collection[str]) -> None:
    """Raise unless these are among the gradients of energies."""
    if isinstance(gradients, str):
        raise TypeError(f"`gradients` must be a list of names, such as [{gradients!r}]")
    unknown = sorted(set(gradients) - set(COMPONENTS))
    if unknown:
        raise MetatensorError(
            f"energies have gradients with respect to {list(COMPONENTS)}, not {unknown}"
        )


def _virials(column: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [-virial for virial in column]


def _stresses(numbered: Frames, column: Sequence[np.ndarray]) -> list[np.ndarray]:
    strains = []
    for i, (frame, stress) in enumerate(zip(numbered.frames, column, strict=True)):
        volume = frame.cell.volume
        if volume == 0 and not np.isnan(stress).all():
            raise MetatensorError(
                f"frame {i} ({frame.symbols}) has a stress, but the volume of its cell "
                f"is zero: {frame.cell.array.tolist()}. Give a cell with three "
                "vectors, or the virial by its name, with virial="
            )
        strains.append(stress * volume)
    return strains
