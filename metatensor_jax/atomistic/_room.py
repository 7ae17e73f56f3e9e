"""Room: how large the arrays of systems are, so that batches share one program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.padding import filled
from ._neighbors import Neighbors
from ._systems import Systems


class Room(NamedTuple):
    """How many atoms, systems and neighbors there is room for.

    Systems that are padded to the same room have the same structure and shapes, and
    share one compiled program. Their samples are traced; atoms that are not there have
    no neighbors, and ``Labels.PADDING`` as their samples.

    :param atoms: in all systems together
    :param systems: how many systems
    :param rows: atoms of each type, in ascending order of the types
    :param neighbors: of one atom, of each type, itself included
    :param types: the types

    >>> from ase.build import molecule
    >>> batch = [
    ...     Systems.from_ase(molecule(x), 3.0, types=[1, 8]) for x in ("H2O", "O2")
    ... ]
    >>> room = Room.fit(batch)
    >>> padded = [room.pad(systems) for systems in batch]
    >>> [x.positions.shape for x in padded], padded[1].samples[8].values[:, 1].tolist()
    ([(3, 3), (3, 3)], [0, 1])
    """

    atoms: int
    systems: int
    rows: tuple[int, ...]
    neighbors: tuple[int, ...]
    types: tuple[int, ...]

    @classmethod
    def of(cls, systems: Systems) -> Room:
        """What these systems need."""
        return cls(
            systems.n_atoms,
            systems.cells.shape[0],
            tuple([systems.rows[t].shape[0] for t in systems.types]),
            tuple([systems.neighbors[t].atoms.shape[1] for t in systems.types]),
            tuple(systems.types),
        )

    @classmethod
    def fit(cls, batches: Iterable[Systems], headroom: float = 1.0) -> Room:
        """Room for any of these.

        :param batches: with the same types
        :param headroom: room for so many times as many atoms and neighbors
        :raises MetatensorError: none of them, or other types
        """
        rooms = [cls.of(systems) for systems in batches]
        if not rooms:
            raise MetatensorError("a room needs at least one batch to be fitted to")
        for room in rooms:
            if room.types != rooms[0].types:
                raise MetatensorError(
                    f"all batches must have the same types, got {list(rooms[0].types)} "
                    f"and {list(room.types)}: give them as `types=`"
                )

        def most(counts: Sequence[int]) -> int:
            return int(np.ceil(max(counts) * headroom))

        rows = zip(*[room.rows for room in rooms], strict=True)
        neighbors = zip(*[room.neighbors for room in rooms], strict=True)
        return cls(
            most([room.atoms for room in rooms]),
            max(room.systems for room in rooms),
            tuple(map(most, rows)),
            tuple(map(most, neighbors)),
            rooms[0].types,
        )

    def pad(self, systems: Systems) -> Systems:
        """Fill systems up to this room, by NumPy.

        :raises MetatensorError: other types, or more than there is room for
        """
        own = Room.of(systems)
        if own.types != self.types:
            raise MetatensorError(
                f"this is room for the types {list(self.types)}, but the systems have "
                f"{list(own.types)}"
            )
        for name, n, room in zip(self._fields[:4], own, self, strict=False):
            if np.any(np.asarray(n) > np.asarray(room)):
                raise MetatensorError(
                    f"the systems need room for {n} {name}, but there is {room}: fit "
                    "it to larger batches, or with headroom"
                )
        neighbors, rows, samples = {}, {}, {}
        for t, n_rows, room in zip(self.types, self.rows, self.neighbors, strict=True):
            table, shape = systems.neighbors[t], (self.atoms, room)
            shifts = _filled(table.shift, (*shape, 3), 0)
            neighbors[t] = Neighbors(_filled(table.atoms, shape, -1), shifts)
            rows[t] = _filled(systems.rows[t], (n_rows,), self.atoms)
            labels = filled(n_rows, 2)
            labels[: len(systems.samples[t])] = systems.samples[t].values
            samples[t] = Labels._make(systems.samples[t]._names, labels, static=False)
        return replace(
            systems,
            positions=_filled(systems.positions, (self.atoms, 3), 0),
            cells=_filled(systems.cells, (self.systems, 3, 3), 0),
            system=_filled(systems.system, (self.atoms,), 0),
            neighbors=neighbors,
            rows=rows,
            samples=samples,
        )


def _filled(array: Any, shape: tuple[int, ...], fill: int) -> np.ndarray:
    array = np.asarray(array)
    out = np.full(shape, fill, array.dtype)
    out[tuple(map(slice, array.shape))] = array
    return out
