"""Neighbors of atoms, found on the host by vesin: a row of a table for each atom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types.arrays import Array

if TYPE_CHECKING:
    from ase import Atoms


class Neighbors(NamedTuple):
    """The neighbors of one type of each atom. Each atom is one of its own.

    :param atoms: which atoms they are, with shape ``(atoms, room)``; -1 for none
    :param shift: by how many cells they are away, ``(atoms, room, 3)``
    """

    atoms: Array
    shift: Array

    def vectors(
        self, positions: jax.Array, cells: jax.Array, system: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """From each atom to its neighbors, and which of these are there.

        :returns: vectors with shape ``(atoms, room, 3)``, zero where there is none; and
            ``(atoms, room)``
        """
        atoms = jnp.asarray(self.atoms)
        is_there = atoms >= 0
        at = jnp.where(is_there, atoms, 0)
        shift = jnp.asarray(self.shift).astype(positions.dtype)
        offset = jnp.einsum("aks,asx->akx", shift, cells[system])
        vectors = positions[at] + offset - positions[:, None]
        return jnp.where(is_there[..., None], vectors, 0), is_there


def neighbors_of(
    frames: Sequence[Atoms], numbers: np.ndarray, types: Sequence[int], cutoff: float
) -> dict[int, Neighbors]:
    """The neighbors of all atoms, by their type.

    :param numbers: the type of each atom
    """
    center, neighbor, shift = _pairs(frames, cutoff)
    n_atoms = len(numbers)
    of_type = numbers[neighbor]
    tables = {}
    for t in types:
        own = np.flatnonzero(of_type == t)
        own = own[np.argsort(center[own], kind="stable")]
        counts = np.bincount(center[own], minlength=n_atoms)
        slot = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        room = int(counts.max(initial=0))
        index = np.full((n_atoms, room), -1, np.int32)
        shifts = np.zeros((n_atoms, room, 3), np.int32)
        index[center[own], slot] = neighbor[own]
        shifts[center[own], slot] = shift[own]
        tables[t] = Neighbors(index, shifts)
    return tables


def _pairs(
    frames: Sequence[Atoms], cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centers, neighbors and shifts of cells; an atom is a neighbor of itself."""
    found: list[list[Any]] = [[], [], []]
    first = 0
    for frame in frames:
        n = len(frame)
        itself = np.arange(n)
        i, j, s = _of_frame(frame, cutoff) if n else (itself, itself, np.zeros((0, 3)))
        found[0] += [itself + first, np.asarray(i, np.int64) + first]
        found[1] += [itself + first, np.asarray(j, np.int64) + first]
        found[2] += [np.zeros((n, 3), np.int32), np.asarray(s, np.int32)]
        first += n
    empty = np.zeros(0, np.int64)
    center, neighbor = (np.concatenate([empty, *x]) for x in found[:2])
    return center, neighbor, np.concatenate([np.zeros((0, 3), np.int32), *found[2]])


def _of_frame(frame: Atoms, cutoff: float) -> Any:
    try:
        from vesin import NeighborList
    except ImportError as error:
        raise ImportError(
            "neighbors need vesin: `pip install metatensor-jax[atomistic]`"
        ) from error
    search = NeighborList(cutoff=cutoff, full_list=True)
    return search.compute(frame.positions, frame.cell.array, frame.pbc, "ijS")
