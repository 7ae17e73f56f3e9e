"""Frames, checked and numbered, and the labels of their systems and atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from ase import Atoms
from numpy.typing import DTypeLike

from ..._types.entry import as_int32
from ..._types.errors import MetatensorError
from ..._types.labels import Labels

XYZ = Labels.range("xyz", 3)
Per = Literal["system", "atom"]


class Frames(NamedTuple):
    """Some structures, and the number of each."""

    frames: list[Atoms]
    systems: np.ndarray

    @classmethod
    def of(cls, frames: Sequence[Atoms], systems: Sequence[int] | None) -> Frames:
        """Raise unless these are structures with a number each."""
        checked = _checked(frames)
        if systems is None:
            return cls(checked, np.arange(len(checked), dtype=np.int32))
        numbers = np.asarray(systems)
        if numbers.shape != (len(checked),):
            raise MetatensorError(
                f"`systems` must have one number for each of the {len(checked)} "
                f"frames, but its shape is {numbers.shape}"
            )
        if len(numbers) and not np.issubdtype(numbers.dtype, np.integer):
            raise TypeError(f"`systems` must be integers, not {numbers.dtype}")
        unique, counts = np.unique(numbers, return_counts=True)
        if len(unique) < len(numbers):
            raise MetatensorError(
                "`systems` must have another number for each frame, but these are "
                f"there several times: {unique[counts > 1].tolist()}"
            )
        return cls(checked, as_int32(numbers))

    @classmethod
    def some(cls, frames: Sequence[Atoms]) -> Frames:
        """Frames for which there is something to compute, numbered as they come."""
        numbered = cls.of(frames, None)
        if not numbered.frames:
            raise MetatensorError("there are no frames, so there is nothing to compute")
        return numbered

    @property
    def sizes(self) -> list[int]:
        """How many atoms each has."""
        return [len(frame) for frame in self.frames]

    def system_labels(self) -> Labels:
        """One row per frame."""
        return Labels(["system"], self.systems[:, None])

    def atom_labels(self) -> Labels:
        """One row per atom."""
        return Labels(["system", "atom"], np.column_stack(self._atoms()))

    def position_labels(self) -> Labels:
        """The samples of gradients by positions, of values with one row per frame."""
        rows = np.repeat(np.arange(len(self.frames)), self.sizes)
        return Labels(
            ["sample", "system", "atom"], np.column_stack([rows, *self._atoms()])
        )

    def split(self, array: np.ndarray) -> list[np.ndarray]:
        """The rows of each frame, of an array with a row for each atom."""
        ends = np.cumsum(self.sizes, dtype=int)
        return [array[end - n : end] for end, n in zip(ends, self.sizes, strict=True)]

    def _atoms(self) -> tuple[np.ndarray, np.ndarray]:
        atoms = [np.arange(n) for n in self.sizes]
        return np.repeat(self.systems, self.sizes), joined(atoms, (), np.int32)


def samples(
    frames: Sequence[Atoms],
    per: Per = "system",
    *,
    center_type: bool = False,
    systems: Sequence[int] | None = None,
) -> Labels:
    """Labels of all structures, or of all of their atoms.

    :param frames: the structures
    :param per: ``"system"``: one row for each, ``[system]``; or ``"atom"``: one row for
        each of their atoms, ``[system, atom]``, in the order of the frames
    :param center_type: with atoms, their atomic number as a further dimension
        ``center_type``, as a map of featomic has it after ``keys_to_samples``
    :param systems: the numbers of the frames; 0, 1, ... if None
    :raises MetatensorError: another ``per``; numbers that do not fit to the frames
    :raises TypeError: frames that are no list of ``ase.Atoms``

    >>> from ase.build import molecule
    >>> samples([molecule("H2"), molecule("O2")]).values.tolist()
    [[0], [1]]
    >>> print(samples([molecule("H2O")], "atom", center_type=True))
    Labels
        system  atom  center_type
          0      0         8
          0      1         1
          0      2         1
    """
    numbered = Frames.of(frames, systems)
    check_per(per)
    if per == "system":
        if center_type:
            raise MetatensorError("`center_type` is a dimension of atoms: per='atom'")
        return numbered.system_labels()
    labels = numbered.atom_labels()
    if center_type:
        labels = labels.append("center_type", types_of(numbered))
    return labels


def types_of(numbered: Frames) -> np.ndarray:
    """The atomic number of each atom."""
    return joined([frame.numbers for frame in numbered.frames], (), np.int32)


def check_per(per: str) -> None:
    """Raise unless it is one of the two."""
    if per not in ("system", "atom"):
        raise MetatensorError(f"`per` must be 'system' or 'atom', not {per!r}")


def real_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype for values of frames; raise unless it can hold any real number."""
    found = np.dtype(dtype)
    if not jnp.issubdtype(found, jnp.floating):  # NumPy's does not know bfloat16
        raise TypeError(
            "`dtype` must be one of real floating point numbers, such as 'float64', "
            f"not {found}"
        )
    return found


def joined(
    arrays: Sequence[np.ndarray], shape: tuple[int, ...], dtype: DTypeLike
) -> np.ndarray:
    """Arrays end to end, also if there are none.

    :param shape: of one row
    """
    return np.concatenate([np.zeros((0, *shape)), *arrays]).astype(dtype)


def _checked(frames: Sequence[Atoms]) -> list[Atoms]:
    if isinstance(frames, Atoms):
        raise TypeError(
            "`frames` must be a list of ase.Atoms; for a single structure, give a "
            "list with it, [atoms]"
        )
    checked = list(frames)
    for i, frame in enumerate(checked):
        if not isinstance(frame, Atoms):
            raise TypeError(
                "`frames` must be a list of ase.Atoms, but frame "
                f"{i} is of type {type(frame).__name__}"
            )
    return checked
