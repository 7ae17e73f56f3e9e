"""Systems: structures and their neighbors, as arrays that a program takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import DTypeLike

from .._types.arrays import Array
from .._types.errors import MetatensorError
from .._types.labels import Labels
from ._neighbors import Neighbors, neighbors_of

if TYPE_CHECKING:
    from ase import Atoms


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["positions", "cells", "system", "neighbors", "rows", "samples"],
    meta_fields=["cutoff"],
)
@dataclass(frozen=True)
class Systems:
    """Structures with their neighbors; a pytree. :meth:`from_ase` makes one.

    :param positions: of all atoms, in Å, with shape ``(atoms, 3)``
    :param cells: the vectors of each cell as rows, in Å: ``(systems, 3, 3)``
    :param system: which system each atom belongs to
    :param neighbors: of each atom, by the type of the neighbor
    :param rows: the atoms of each type; as many as there are atoms for none
    :param samples: their labels, ``[system, atom]``; traced for batches that share a
        program
    :param cutoff: within which distance there are neighbors, in Å

    >>> from ase.build import molecule
    >>> systems = Systems.from_ase([molecule("H2O"), molecule("CH4")], 3.0)
    >>> systems.types, systems.n_atoms, systems.samples[8].values.tolist()
    ([1, 6, 8], 8, [[0, 0]])
    """

    positions: Array
    cells: Array
    system: Array
    neighbors: dict[int, Neighbors]
    rows: dict[int, Array]
    samples: dict[int, Labels]
    cutoff: float

    @classmethod
    def from_ase(
        cls,
        frames: Sequence[Atoms] | Atoms,
        cutoff: float,
        *,
        types: Sequence[int] | None = None,
        dtype: DTypeLike = np.float64,
    ) -> Systems:
        """Structures of ASE; needs the extra ``atomistic`` (ASE and vesin).

        :param frames: the structures
        :param cutoff: atoms that are closer than this are neighbors, in Å
        :param types: all types of atoms there can be; those that are there if None
        :param dtype: of positions and cells
        :raises MetatensorError: a cutoff that is not positive, an atom of another type
        """
        frames = list(frames) if isinstance(frames, Sequence) else [frames]
        if not cutoff > 0:
            raise MetatensorError(f"`cutoff` must be above 0 Å, not {cutoff}")
        numbers = np.concatenate([np.zeros(0, int), *[f.numbers for f in frames]])
        wanted = sorted(set(numbers.tolist() if types is None else map(int, types)))
        for i, frame in enumerate(frames):
            unknown = sorted(set(frame.numbers.tolist()) - set(wanted))
            if unknown:
                raise MetatensorError(
                    f"frame {i} has atoms of the types {unknown}, but `types` are "
                    f"{wanted}"
                )
        sizes = [len(frame) for frame in frames]
        system = np.repeat(np.arange(len(frames)), sizes).astype(np.int32)
        atom = np.concatenate([np.zeros(0, int), *map(np.arange, sizes)])
        labels = np.stack([system, atom], axis=1).astype(np.int32)
        rows: dict[int, Array] = {
            t: np.flatnonzero(numbers == t).astype(np.int32) for t in wanted
        }
        cells = np.array([f.cell.array for f in frames], dtype).reshape(-1, 3, 3)
        positions = [np.zeros((0, 3)), *[f.positions for f in frames]]
        return cls(
            np.concatenate(positions).astype(dtype),
            cells,
            system,
            neighbors_of(frames, numbers, wanted, cutoff),
            rows,
            {
                t: Labels(["system", "atom"], labels[np.asarray(of)])
                for t, of in rows.items()
            },
            float(cutoff),
        )

    @property
    def types(self) -> list[int]:
        """The types of atoms that there can be."""
        return list(self.rows)

    @property
    def n_atoms(self) -> int:
        """How many atoms there are, or there is room for."""
        return self.positions.shape[0]

    def with_positions(self, positions: Array, cells: Array | None = None) -> Systems:
        """With other positions, and the same neighbors.

        :param positions: in Å
        :param cells: other cells, if they change as well
        """
        cells = self.cells if cells is None else cells
        return replace(self, positions=positions, cells=cells)


def check_types(systems: Systems, types: Mapping[Any, Any] | Sequence[int]) -> None:
    """Raise unless systems have no other types than a model was made for."""
    unknown = [t for t in systems.types if t not in types]
    if unknown:
        raise MetatensorError(
            f"this is made for the types {list(types)}, but the systems have {unknown}"
        )
