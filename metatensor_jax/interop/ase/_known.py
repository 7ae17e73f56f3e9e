"""What frames know: results of their calculators, ``info`` and ``arrays``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from ..._types.errors import MetatensorError
from ._frames import Per

Missing = Literal["raise", "nan"]


class Wanted(NamedTuple):
    """Something that each frame should know.

    :param name: what its calculator, ``info`` or ``arrays`` calls it
    :param per: ``"system"`` or ``"atom"``
    :param rank: how many Cartesian indices it has
    :param is_voigt: can it have six components: xx, yy, zz, yz, xz, xy?
    """

    name: str
    per: Per = "system"
    rank: int = 0
    is_voigt: bool = False

    @property
    def where(self) -> str:
        """The dictionary of ``ase.Atoms`` that has it."""
        return "arrays" if self.per == "atom" else "info"

    def shape(self, n_atoms: int) -> tuple[int, ...]:
        """Of the values of one frame."""
        return (*self._rows(n_atoms), *((3,) * self.rank))

    def fitted(self, array: np.ndarray, n_atoms: int) -> np.ndarray | None:
        """In this shape; None if it has none of those that are known."""
        if self.is_voigt and array.shape == (6,):
            return voigt_6_to_full_3x3_stress(array)
        shape = self.shape(n_atoms)
        flat = (*self._rows(n_atoms), 3**self.rank)
        return array.reshape(shape) if array.shape in (shape, flat) else None

    def in_words(self, n_atoms: int) -> str:
        """The shapes that it can have."""
        shapes = [self.shape(n_atoms)]
        if self.rank > 1:
            shapes.append((*self._rows(n_atoms), 3**self.rank))
        if self.is_voigt:
            shapes.append((6,))
        return " or ".join(map(str, shapes))

    def _rows(self, n_atoms: int) -> tuple[int, ...]:
        return (n_atoms,) if self.per == "atom" else ()


def read(
    frames: Sequence[Atoms], wanted: Sequence[Wanted], missing: Missing
) -> list[list[np.ndarray]]:
    """For each of these, the values of each frame.

    All of one frame are read before the next one: frames may share a calculator, which
    remembers only the last of them.

    :param missing: ``"raise"``, or ``"nan"`` to fill in what is not there
    """
    if missing not in ("raise", "nan"):
        raise MetatensorError(f"`missing` must be 'raise' or 'nan', not {missing!r}")
    found = [[_find(i, frame, one) for one in wanted] for i, frame in enumerate(frames)]
    columns = []
    for j, one in enumerate(wanted):
        column = [row[j] for row in found]
        if missing == "raise":
            _check_all_there(frames, one, column)
            _check_finite(frames, one, column)
        columns.append(
            [
                np.full(one.shape(len(frame)), np.nan) if values is None else values
                for frame, values in zip(frames, column, strict=True)
            ]
        )
    return columns


def _find(i: int, frame: Atoms, wanted: Wanted) -> np.ndarray | None:
    """What a frame knows, in the shape that is wanted; None if it knows nothing."""
    stored = getattr(frame, wanted.where).get(wanted.name)
    computed = _of_calculator(frame, wanted.name)
    arrays = [
        _fitted(i, frame, wanted, value)
        for value in (stored, computed)
        if value is not None
    ]
    if not arrays:
        return None
    if not np.allclose(arrays[0], arrays[-1], rtol=1e-7, atol=1e-9, equal_nan=True):
        raise MetatensorError(
            f"frame {i} has two different values of '{wanted.name}', {stored} in "
            f"`frame.{wanted.where}` and {computed} from its calculator: remove one, "
            "or give it another name"
        )
    return arrays[0]


def _of_calculator(frame: Atoms, name: str) -> Any:
    if frame.calc is None:
        return None
    try:
        # not `frame.get_forces()`: these are zero for atoms that are held fixed
        return frame.calc.get_property(name, frame)
    except PropertyNotImplementedError:
        return None


def _fitted(i: int, frame: Atoms, wanted: Wanted, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"'{wanted.name}' of frame {i} must be real numbers, not {array.dtype}: "
            f"{value!r}"
        )
    array = array.astype(np.float64)
    array[np.ma.getmaskarray(value)] = np.nan  # what is masked is not known
    fitted = wanted.fitted(array, len(frame))
    if fitted is None:
        raise MetatensorError(
            f"'{wanted.name}' of frame {i}, with {len(frame)} atoms, should have the "
            f"shape {wanted.in_words(len(frame))}, but it has {array.shape}"
        )
    if np.isinf(fitted).any():
        raise MetatensorError(f"'{wanted.name}' of frame {i} is infinite: {value}")
    return fitted


def _check_all_there(
    frames: Sequence[Atoms], wanted: Wanted, column: Sequence[np.ndarray | None]
) -> None:
    lacking = [i for i, values in enumerate(column) if values is None]
    if not lacking:
        return
    frame = frames[lacking[0]]
    results = sorted(getattr(frame.calc, "results", {}))
    raise MetatensorError(
        f"{len(lacking)} of {len(frames)} frames have no '{wanted.name}', the first is "
        f"frame {lacking[0]} ({frame.symbols}): its calculator has {results}, for the "
        f"positions that it was used for, and `frame.{wanted.where}` has "
        f"{sorted(getattr(frame, wanted.where))}. Give the name that it has there, do "
        "not ask for it, or fill in NaN with missing='nan'"
    )


def _check_finite(
    frames: Sequence[Atoms], wanted: Wanted, column: Sequence[np.ndarray | None]
) -> None:
    for i, values in enumerate(column):
        if np.isnan(values).any():  # type: ignore[arg-type]
            raise MetatensorError(
                f"'{wanted.name}' of frame {i} ({frames[i].symbols}) is not a number: "
                "remove the frame, or take what is not a number for missing, with "
                "missing='nan'"
            )
