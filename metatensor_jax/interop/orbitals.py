"""Vectors and matrices in a basis of atomic orbitals as maps, and back.

Coefficients of a density that is fitted on an auxiliary basis are a vector, a density
matrix is a matrix; both have an entry for each orbital: :func:`orbitals` are the labels
of these. The arrays are those of PySCF, the maps those that Q-stack writes (its module
``equio``):

- a vector has the keys ``o3_lambda`` and ``center_type``, the sample ``atom_id``, the
  component ``spherical_harmonics_m`` and the property ``radial_channel``;
- a matrix has two of each: ``o3_lambda1``, ``o3_lambda2``, and so on.

Spherical harmonics of degree 1 are x, y, z in PySCF, and y, z, x in maps, where m goes
from -1 to 1. Signs and norms of the orbitals stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .._host.packing import RowIndex
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..operations.checks import check_type
from ._axes import Axes
from ._from_table import from_columns
from ._rows import Table
from ._to_table import to_columns

#: what Q-stack calls the atom, its type, the degree, the number of the shell of this
#: degree, and the order of a spherical harmonic
NAMES = (
    "atom_id",
    "center_type",
    "o3_lambda",
    "radial_channel",
    "spherical_harmonics_m",
)
Order = Literal["xyz", "yzx"]
#: no dimension can be called so
_VALUE = "the values"


def orbitals(
    types: Sequence[int],
    shells: Mapping[int, Sequence[int]],
    *,
    p: Order = "xyz",
    names: Sequence[str] = NAMES,
) -> Labels:
    """Labels of the orbitals of a molecule, in the order that they have in arrays.

    Atoms come one after the other, the shells of an atom in the order that they have in
    its basis, and the spherical harmonics of a shell by m.

    :param types: the type of each atom, such as its atomic number
    :param shells: for each type, the degree of each shell in the order of the basis:
        ``[0, 0, 1]`` for two s shells and a p shell. Contractions count as shells
    :param p: ``"xyz"``: m of degree 1 is 1, -1, 0, as in PySCF; or ``"yzx"``: it is -1,
        0, 1, as for all other degrees
    :param names: what to call the atom, its type, the degree, the number of the shell
        among those of this degree, and m
    :returns: labels with these five dimensions
    :raises MetatensorError: a type without shells, a negative degree

    >>> orbitals([8, 1], {8: [0, 0, 1], 1: [0]})
    Labels
        atom_id  center_type  o3_lambda  radial_channel  spherical_harmonics_m
           0          8           0            0                   0
           0          8           0            1                   0
           0          8           1            0                   1
           0          8           1            0                   -1
           0          8           1            0                   0
           1          1           0            0                   0
    """
    _check_order(p)
    of_type = {}
    for kind in dict.fromkeys(types):
        if kind not in shells:
            raise MetatensorError(
                f"`shells` has no type {kind}, it has those of {list(shells)}"
            )
        of_type[kind] = _of_shells(kind, shells[kind], p)
    rows = [
        np.concatenate([np.full((len(of_type[kind]), 1), atom), of_type[kind]], 1)
        for atom, kind in enumerate(types)
    ]
    return Labels(list(names), np.concatenate([np.zeros((0, 5), int), *rows]))


def orbitals_of(
    tensor: TensorMap, *, p: Order = "xyz", names: Sequence[str] = NAMES
) -> Labels:
    """Labels of the orbitals that a map is of, for bases with shells sorted by degree.

    This is the order of PySCF for all bases but those with shells in another order; for
    these give the shells to :func:`orbitals`.

    :param tensor: a map of a vector or of a matrix
    :param p: the order of degree 1, as for :func:`orbitals`
    :param names: what the dimensions are called in the map, without the 1 and 2 of
        matrices
    :raises MetatensorError: a map with other dimensions

    >>> vector = from_vector([1.0, 2.0, 3.0], orbitals([6], {6: [1]}))
    >>> orbitals_of(vector)["spherical_harmonics_m"].tolist()
    [1, -1, 0]
    """
    _check_order(p)
    check_type(tensor, "tensor", TensorMap)
    is_vector = set(names[1:3]) <= set(tensor.keys.names)
    columns = _columns("orbitals_of", tensor, names, ("",) if is_vector else ("1", "2"))
    rows = np.stack([columns[f"{name}{'' if is_vector else 1}"] for name in names], 1)
    m = rows[:, 4].copy()
    if p == "xyz":
        m[(rows[:, 2] == 1) & (m == 1)] = -2
    order = np.lexsort((m, *rows[:, [3, 2, 0]].T))
    rows = rows[order]
    is_new = np.concatenate([[True], (rows[1:] != rows[:-1]).any(1)])[: len(rows)]
    return Labels(list(names), rows[is_new])


def to_vector(tensor: TensorMap, orbitals: Labels) -> np.ndarray:
    """The vector of a map: an entry for each orbital.

    :param tensor: a map with the five dimensions of the orbitals, in any place
    :param orbitals: labels, as :func:`orbitals` and :func:`orbitals_of` make them
    :returns: an array with the shape ``(orbitals,)``
    :raises MetatensorError: orbitals that the map does not have, or that only the map
        has; a map with other dimensions
    :raises TypeError: something else, or data that is traced

    >>> basis = orbitals([6], {6: [0, 1]})
    >>> tensor = from_vector([0.5, 1.0, 2.0, 3.0], basis)
    >>> tensor.block(o3_lambda=1).values[0, :, 0].tolist()  # y, z, x
    [2.0, 3.0, 1.0]
    >>> to_vector(tensor, basis).tolist()
    [0.5, 1.0, 2.0, 3.0]
    """
    return _to_array("to_vector", tensor, orbitals, ("",))


def from_vector(vector: ArrayLike, orbitals: Labels) -> TensorMap:
    """A map of a vector, with a block for each type of atoms and each degree.

    Blocks are sorted by type and degree, and so are the labels of each axis: this is
    the map that Q-stack makes.

    :param vector: an array with the shape ``(orbitals,)``
    :param orbitals: labels, as :func:`orbitals` makes them
    :raises MetatensorError: another shape; atoms of one type and shells of one degree
        that have not the same orbitals

    >>> from_vector([0.5, 1.0, 2.0, 3.0], orbitals([6], {6: [0, 1]}))
    TensorMap with 2 blocks
        keys: [o3_lambda, center_type]
        values: float64, NumPy
        blocks:
            0  6 => TensorBlock with shape (1, 1, 1)
            1  6 => TensorBlock with shape (1, 3, 1)
    """
    return _from_array("from_vector", vector, orbitals, ("",))


def to_matrix(tensor: TensorMap, orbitals: Labels) -> np.ndarray:
    """The matrix of a map: an entry for each pair of orbitals.

    :param tensor: a map with the five dimensions of the orbitals, each of them twice,
        with the ends 1 and 2
    :param orbitals: labels, as :func:`orbitals` and :func:`orbitals_of` make them
    :returns: an array with the shape ``(orbitals, orbitals)``
    :raises MetatensorError: pairs of orbitals that the map does not have, or that only
        the map has; a map with other dimensions
    :raises TypeError: something else, or data that is traced

    >>> basis = orbitals([1, 1], {1: [0]})
    >>> to_matrix(from_matrix([[1.0, 0.5], [0.5, 2.0]], basis), basis).tolist()
    [[1.0, 0.5], [0.5, 2.0]]
    """
    return _to_array("to_matrix", tensor, orbitals, ("1", "2"))


def from_matrix(matrix: ArrayLike, orbitals: Labels) -> TensorMap:
    """A map of a matrix, with a block for each two types of atoms and two degrees.

    :param matrix: an array with the shape ``(orbitals, orbitals)``
    :param orbitals: labels, as :func:`orbitals` makes them
    :raises MetatensorError: what :func:`from_vector` raises it for

    >>> tensor = from_matrix(np.eye(5), orbitals([8, 1], {8: [0, 1], 1: [0]}))
    >>> tensor.keys.names
    ['o3_lambda1', 'o3_lambda2', 'center_type1', 'center_type2']
    >>> tensor.block(o3_lambda1=1, o3_lambda2=1).shape  # pairs, m1, m2, channels
    (1, 3, 3, 1)
    """
    return _from_array("from_matrix", matrix, orbitals, ("1", "2"))


def _of_shells(kind: int, degrees: Sequence[int], p: Order) -> np.ndarray:
    """Type, degree, number and m of the orbitals of an atom."""
    rows, seen = [], {}
    for degree in degrees:
        if degree < 0:
            raise MetatensorError(
                f"the degree of a shell can not be negative: {degree}, of type {kind}"
            )
        number = seen[degree] = seen.get(degree, -1) + 1
        orders = (
            [1, -1, 0] if degree == 1 and p == "xyz" else range(-degree, degree + 1)
        )
        rows += [(kind, degree, number, m) for m in orders]
    return np.array(rows, int).reshape(-1, 4)


def _check_order(p: str) -> None:
    if p not in ("xyz", "yzx"):
        raise MetatensorError(f"`p` must be 'xyz' or 'yzx', not {p!r}")


def _axes(names: Sequence[str], ends: Sequence[str]) -> Axes:
    """Where the dimensions of orbitals are in a map."""
    atom, kind, degree, number, m = [[name + end for end in ends] for name in names]
    return Axes([*degree, *kind], atom, m, number)


def _columns(
    what: str, tensor: TensorMap, names: Sequence[str], ends: Sequence[str]
) -> Mapping[str, np.ndarray]:
    """The labels and values of all elements of a map."""
    columns = to_columns(what, tensor, "long", (), _VALUE)
    wanted = {name + end for name in names for end in ends}
    if not len(tensor) and wanted.issuperset(tensor.keys.names):
        # of no atoms: there is no block that says what its axes are called
        columns |= dict.fromkeys(wanted, np.zeros(0, np.int32))
    if columns.keys() - {_VALUE} != wanted:
        raise MetatensorError(
            f"the map should have the dimensions {sorted(wanted)}, but it has "
            f"{sorted(columns.keys() - {_VALUE})}"
        )
    return columns


def _to_array(
    what: str, tensor: TensorMap, orbitals: Labels, ends: Sequence[str]
) -> np.ndarray:
    _check_orbitals(orbitals)
    check_type(tensor, "tensor", TensorMap)
    columns = _columns(what, tensor, orbitals.names, ends)
    index = RowIndex(orbitals.values)
    flat = np.zeros(len(columns[_VALUE]), np.int64)
    for end in ends:
        rows = np.stack([columns[name + end] for name in orbitals.names], 1)
        at = index.find(rows)
        if bool(np.any(at < 0)):
            entry = Labels(orbitals.names, rows[[int(np.argmax(at < 0))]])[0]
            raise MetatensorError(f"{entry.print()} of the map is no orbital")
        flat = flat * len(orbitals) + at
    array = np.zeros(len(orbitals) ** len(ends), columns[_VALUE].dtype)
    if len(flat) < len(array):
        is_there = np.zeros(len(array), bool)
        is_there[flat] = True
        first = np.unravel_index(int(np.argmin(is_there)), [len(orbitals)] * len(ends))
        raise MetatensorError(
            f"the map has {len(flat)} of the {len(array)} entries, the first that it "
            f"lacks is that of {' and '.join(orbitals[int(i)].print() for i in first)}"
        )
    array[flat] = columns[_VALUE]
    return array.reshape([len(orbitals)] * len(ends))


def _from_array(
    what: str, array: ArrayLike, orbitals: Labels, ends: Sequence[str]
) -> TensorMap:
    _check_orbitals(orbitals)
    values = np.asarray(array)
    shape = (len(orbitals),) * len(ends)
    if values.shape != shape:
        raise MetatensorError(
            f"the array has the shape {values.shape}, but there are {len(orbitals)} "
            f"orbitals, so it should have {shape}"
        )
    rows = np.indices(shape).reshape(len(ends), -1)
    columns: dict[str, Any] = {
        name + end: orbitals.column(name)[at]
        for end, at in zip(ends, rows, strict=True)
        for name in orbitals.names
    }
    columns[_VALUE] = values.reshape(-1)
    axes = _axes(orbitals.names, ends)
    # labels have the order in which they come: types before degrees, as Q-stack sorts
    n = len(ends)
    degrees, types = axes.columns(False)[:n], axes.columns(False)[n : 2 * n]
    first = [*types, *degrees, *axes.columns(False)[2 * n :]]
    order = np.lexsort([columns[name] for name in reversed(first)])
    table = Table(list(columns), lambda name: columns[name][order])
    return from_columns(what, table, axes, None, "long", (), _VALUE, None)


def _check_orbitals(orbitals: Labels) -> None:
    check_type(orbitals, "orbitals", Labels)
    if len(orbitals.names) != len(NAMES):
        raise MetatensorError(
            "labels of orbitals have five dimensions, such as "
            f"{list(NAMES)}, but these have {orbitals.names}"
        )
