"""Positions, strain and cells as parameters of derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import DTypeLike

from ..._types.block import TensorBlock
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ._frames import XYZ, Frames, joined, real_dtype

STRAIN = (Labels.range("xyz_1", 3), Labels.range("xyz_2", 3))
#: in featomic (0.6), the axis called xyz goes over the vectors of the cell
CELL = (XYZ, Labels.range("abc", 3))


def parameters(
    frames: Sequence[Atoms],
    *names: str,
    systems: Sequence[int] | None = None,
    dtype: DTypeLike = "float64",
) -> dict[str, TensorBlock]:
    r"""What energies and features depend on, as blocks for ``connect_gradients``.

    They have a single property, and components whose names fit to the gradients that
    featomic stores:

    ============= ================== ====================== ===========================
    name          samples            components             values
    ============= ================== ====================== ===========================
    ``positions`` ``[system, atom]`` ``xyz``                in Å
    ``strain``    ``[system]``       ``xyz_1``, ``xyz_2``   zero
    ``cell``      ``[system]``       ``xyz``, ``abc``       in Å, its vectors in rows
    ============= ================== ====================== ===========================

    The strain :math:`\varepsilon` acts on columns, on positions and on the vectors of
    the cell: :math:`r \to (1 + \varepsilon) r`. In ``cell``, the axis called ``xyz``
    goes over the vectors, because that is what it does in featomic's gradients. (They
    are taken at fixed positions: for stress take the strain.) A vector along which a
    frame is not periodic is zero, as it is in featomic and metatomic.

    :param frames: the structures
    :param names: which parameters; ``"positions"`` and ``"strain"`` if there are none
    :param systems: the numbers of the frames; 0, 1, ... if None
    :param dtype: of the values: one of real floating point numbers
    :raises MetatensorError: other names; positions or cells that are not finite
    :raises TypeError: frames that are no list of ``ase.Atoms``; another ``dtype``

    >>> from ase.build import molecule
    >>> blocks = parameters([molecule("H2O"), molecule("H2")], "positions", "strain")
    >>> {name: block.shape for name, block in blocks.items()}
    {'positions': (5, 3, 1), 'strain': (2, 3, 3, 1)}

    With features that store these gradients, all of the chain rule is
    ``mts.connect_gradients(features, **blocks)``.
    """
    numbered, dtype = Frames.of(frames, systems), real_dtype(dtype)
    names = names or ("positions", "strain")
    unknown = sorted(set(names) - set(_MAKERS))
    if unknown:
        raise MetatensorError(
            f"there are no parameters {unknown}, only {sorted(_MAKERS)}"
        )
    return {name: _MAKERS[name](numbered, dtype) for name in names}


def _positions(numbered: Frames, dtype: DTypeLike) -> TensorBlock:
    arrays = [frame.positions for frame in numbered.frames]
    _check_finite("positions", arrays, numbered)
    values = joined(arrays, (3,), dtype)
    return _block(values, numbered.atom_labels(), (XYZ,))


def _strain(numbered: Frames, dtype: DTypeLike) -> TensorBlock:
    values = np.zeros((len(numbered.frames), 3, 3), dtype)
    return _block(values, numbered.system_labels(), STRAIN)


def _cell(numbered: Frames, dtype: DTypeLike) -> TensorBlock:
    arrays = [
        np.where(frame.pbc[:, None], frame.cell.array, 0.0) for frame in numbered.frames
    ]
    _check_finite("cell", arrays, numbered)
    values = np.array(arrays, dtype).reshape((-1, 3, 3))
    return _block(values, numbered.system_labels(), CELL)


_MAKERS: Mapping[str, Callable[[Frames, Any], TensorBlock]] = {
    "positions": _positions,
    "strain": _strain,
    "cell": _cell,
}


def _block(
    values: np.ndarray, samples: Labels, components: Sequence[Labels]
) -> TensorBlock:
    return TensorBlock(values[..., None], samples, components, Labels.single())


def _check_finite(what: str, arrays: Sequence[np.ndarray], numbered: Frames) -> None:
    for i, array in enumerate(arrays):
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(rows):
            row = "atom" if what == "positions" else "vector"
            raise MetatensorError(
                f"the {what} of frame {i} ({numbered.frames[i].symbols}) are not "
                f"finite: {row} {rows[0]} is {array[rows[0]].tolist()}"
            )
