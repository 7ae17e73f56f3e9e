"""Files that Q-stack wrote: a fitted density (a vector) and a density matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files import assert_identical, assert_same_bits

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorMap
from metatensor_jax.interop.orbitals import (
    NAMES,
    from_matrix,
    from_vector,
    orbitals,
    orbitals_of,
    to_matrix,
    to_vector,
)

DATA = Path(__file__).parent / "data"
FILES = {
    "vector": DATA / "H2O_dist.ccpvdz.ccpvdzjkfit.mts",
    "matrix": DATA / "H2O_dist.ccpvdz.dm.mts",
}
every_file = pytest.mark.parametrize("file", FILES.values(), ids=FILES)
WATER = [8, 1, 1]
#: the shells of the bases, as PySCF lists them
SHELLS: dict[str, dict[int, list[int]]] = {
    "vector": {
        8: [0] * 10 + [1] * 7 + [2] * 5 + [3] * 2,
        1: [0] * 4 + [1] * 3 + [2] * 2,
    },
    "matrix": {8: [0, 0, 0, 1, 1, 2], 1: [0, 0, 1]},
}
#: what PySCF calls the orbitals of the matrix, `Mole.ao_labels()`
AO_LABELS = """
    0 O 1s; 0 O 2s; 0 O 3s; 0 O 2px; 0 O 2py; 0 O 2pz; 0 O 3px; 0 O 3py; 0 O 3pz;
    0 O 3dxy; 0 O 3dyz; 0 O 3dz^2; 0 O 3dxz; 0 O 3dx2-y2;
    1 H 1s; 1 H 2s; 1 H 2px; 1 H 2py; 1 H 2pz;
    2 H 1s; 2 H 2s; 2 H 2px; 2 H 2py; 2 H 2pz
"""
#: the real spherical harmonics by degree, and what PySCF calls them
HARMONICS = {
    "s": {0: ""},
    "p": {-1: "y", 0: "z", 1: "x"},
    "d": {-2: "xy", -1: "yz", 0: "z^2", 1: "xz", 2: "x2-y2"},
}


def integrals() -> Any:
    return np.load(DATA / "H2O_dist.integrals.npz")


# === files =========================================================================


@every_file
def test_files_are_read_and_written(file: Path, tmp_path: Path, x64: bool):
    ours = mts.load(file)
    assert ours.dtype == np.float64
    ours.save(tmp_path / "again.mts")
    assert_identical(mts.load(tmp_path / "again.mts"), ours)
    core = pytest.importorskip("metatensor")
    theirs = core.load(str(tmp_path / "again.mts"))
    assert core.equal(theirs, core.load(str(file)))


def types_of(ours: TensorMap) -> list[str]:
    return [name for name in ours.keys.names if name.startswith("center_type")]


def cut_apart(whole: TensorMap, like: TensorMap, axis: str) -> TensorMap:
    """The blocks of a map of which the types of atoms were moved to an axis."""
    names, blocks = types_of(like), []
    for key, block in like.items():
        samples, properties = block.samples, block.properties
        for i, name in enumerate(names):
            if axis == "samples":
                samples = samples.append(name, [key[name]] * len(samples))
            else:
                column = [key[name]] * len(properties)
                properties = properties.insert(i, name, column)
        found = whole.block({name: key[name] for name in whole.keys.names})
        found = mts.slice_block(found, "samples", samples)
        blocks.append(mts.slice_block(found, "properties", properties))
    cut = TensorMap(like.keys, blocks)
    for name in names:
        cut = mts.remove_dimension(cut, axis, name)
    return cut


@pytest.mark.parametrize("axis", ["samples", "properties"])
@every_file
def test_transformed_and_back(file: Path, axis: str, tmp_path: Path, x64: bool):
    ours = mts.load(file)
    move = ours.keys_to_samples if axis == "samples" else ours.keys_to_properties
    whole = move(types_of(ours))
    assert set(whole.keys.names) == {n for n in ours.keys.names if "lambda" in n}
    whole.save(tmp_path / "whole.mts")
    back = cut_apart(mts.load(tmp_path / "whole.mts"), ours, axis)
    assert_identical(back, ours)
    back.save(tmp_path / "back.mts")
    assert_identical(mts.load(tmp_path / "back.mts"), ours)


@every_file
def test_split_and_joined(file: Path):
    ours = mts.load(file)
    parts = mts.split_keys(ours, types_of(ours)[0])
    assert [part.keys[types_of(ours)[0]].tolist()[0] for part in parts] == [1, 8]
    blocks = [block for part in parts for block in part]
    keys = np.concatenate([part.keys.values for part in parts])
    joined = TensorMap(Labels(ours.keys.names, keys), blocks)
    assert mts.equal(joined, ours)


# === orbitals ======================================================================


def test_orbitals_have_the_order_of_pyscf():
    found = []
    for atom, kind, degree, number, m in orbitals(WATER, SHELLS["matrix"]).values:
        letter, symbol = "spd"[degree], {8: "O", 1: "H"}[kind]
        name = HARMONICS[letter][m]
        found.append(f"{atom} {symbol} {degree + 1 + number}{letter}{name}")
    assert found == [label.strip() for label in AO_LABELS.split(";")]


@pytest.mark.parametrize("kind", FILES)
def test_orbitals_of_a_map(kind: str):
    ours = mts.load(FILES[kind])
    assert orbitals_of(ours) == orbitals(WATER, SHELLS[kind])
    assert orbitals_of(ours, p="yzx") == orbitals(WATER, SHELLS[kind], p="yzx")


@pytest.mark.parametrize("p", ["xyz", "yzx"])
def test_vectors_there_and_back(p: Any, x64: bool):
    ours = mts.load(FILES["vector"])
    basis = orbitals_of(ours, p=p)
    vector = to_vector(ours, basis)
    assert vector.shape == (116,)
    assert_identical(from_vector(vector, basis), ours)


@pytest.mark.parametrize("p", ["xyz", "yzx"])
def test_matrices_there_and_back(p: Any, x64: bool):
    ours = mts.load(FILES["matrix"])
    basis = orbitals_of(ours, p=p)
    matrix = to_matrix(ours, basis)
    assert matrix.shape == (24, 24)
    assert_same_bits(matrix, matrix.T)
    assert_identical(from_matrix(matrix, basis), ours)


def test_the_fitted_density_is_that_of_ten_electrons():
    ours = mts.load(FILES["vector"])
    vector = to_vector(ours, orbitals(WATER, SHELLS["vector"]))
    # the fit conserves the charge to its own error
    assert integrals()["integrals"] @ vector == pytest.approx(10, abs=1e-3)


def test_the_density_matrix_is_that_of_a_determinant():
    ours, S = mts.load(FILES["matrix"]), integrals()["overlap"]
    D = to_matrix(ours, orbitals(WATER, SHELLS["matrix"]))
    assert np.trace(D @ S) == pytest.approx(10, abs=1e-9)
    np.testing.assert_allclose(D @ S @ D, 2 * D, atol=1e-9)
    other = to_matrix(ours, orbitals(WATER, SHELLS["matrix"], p="yzx"))
    assert np.abs(other @ S @ other - 2 * other).max() > 1e-2


def test_shells_in_any_order():
    basis = orbitals([3], {3: [1, 0, 1, 0]})
    ours = from_vector(np.arange(8), basis)
    assert ours.dtype == np.int64
    expected = [[[1, 5]], [[2, 6]], [[0, 4]]]  # y, z, x of both shells
    assert ours.block(o3_lambda=1).values[0].tolist() == [e[0] for e in expected]
    assert ours.block(o3_lambda=0).values[0].tolist() == [[3, 7]]
    assert to_vector(ours, basis).tolist() == list(range(8))


def test_other_names():
    names = ("atom", "species", "l", "n", "m")
    basis = orbitals([1, 1], {1: [0, 1]}, names=names)
    ours = from_matrix(np.arange(64.0).reshape(8, 8), basis)
    assert ours.keys.names == ["l1", "l2", "species1", "species2"]
    assert orbitals_of(ours, names=names) == basis
    assert to_matrix(ours, basis).reshape(-1).tolist() == list(range(64))


@pytest.mark.parametrize(
    ("values", "dtype"), [(np.ones(2, np.float32), "float32"), (1j * np.ones(2), "c16")]
)
def test_dtypes(values: np.ndarray, dtype: str):
    basis = orbitals([1], {1: [0, 0]})
    assert from_vector(values, basis).dtype == np.dtype(dtype)
    assert_same_bits(to_vector(from_vector(values, basis), basis), values)


@pytest.mark.parametrize(("types", "shells"), [([], {}), ([2, 2], {2: []})])
def test_no_orbitals(types: list[int], shells: Any):
    basis = orbitals(types, shells)
    assert basis == Labels.empty(list(NAMES))
    vector, matrix = from_vector([], basis), from_matrix(np.zeros((0, 0)), basis)
    assert len(vector) == len(matrix) == 0
    assert vector.keys.names == ["o3_lambda", "center_type"]
    assert matrix.keys.names[1:3] == ["o3_lambda2", "center_type1"]
    assert to_vector(vector, basis).shape == (0,)
    assert to_matrix(matrix, basis).shape == (0, 0)
    assert orbitals_of(vector) == orbitals_of(matrix) == basis
    with pytest.raises(MetatensorError, match="has 0 of the 16 entries"):
        to_matrix(matrix, HYDROGEN)
    with pytest.raises(MetatensorError, match="should have the dimensions"):
        to_matrix(vector, basis)


def test_atoms_without_orbitals():
    basis = orbitals([2, 1], {1: [0, 1], 2: []})
    assert basis["atom_id"].tolist() == [1, 1, 1, 1]
    vector = from_vector(np.arange(4.0), basis)
    assert orbitals_of(vector) == basis
    assert to_vector(vector, basis).tolist() == [0.0, 1.0, 2.0, 3.0]


HYDROGEN = orbitals([1], {1: [0, 1]})
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no shells": (
        lambda: orbitals([1, 6], {1: [0]}),
        MetatensorError,
        r"`shells` has no type 6, it has those of \[1\]",
    ),
    "degree": (
        lambda: orbitals([1], {1: [-1]}),
        MetatensorError,
        "can not be negative: -1, of type 1",
    ),
    "order": (
        lambda: orbitals([1], {1: [1]}, p="zxy"),  # type: ignore[arg-type]
        MetatensorError,
        "`p` must be 'xyz' or 'yzx', not 'zxy'",
    ),
    "shape": (
        lambda: from_vector(np.ones(3), HYDROGEN),
        MetatensorError,
        r"has the shape \(3,\), but there are 4 orbitals, so it should have \(4,\)",
    ),
    "shape of a matrix": (
        lambda: from_matrix(np.ones((4, 3)), HYDROGEN),
        MetatensorError,
        r"so it should have \(4, 4\)",
    ),
    "vector for matrix": (
        lambda: to_matrix(from_vector(np.ones(4), HYDROGEN), HYDROGEN),
        MetatensorError,
        "the map should have the dimensions .*'atom_id2'.*, but it has .*'atom_id'",
    ),
    "other orbitals": (
        lambda: to_vector(from_vector(np.ones(4), HYDROGEN), orbitals([1], {1: [0]})),
        MetatensorError,
        r"\(atom_id=0, center_type=1, o3_lambda=1, .* of the map is no orbital",
    ),
    "more orbitals": (
        lambda: to_vector(
            from_vector(np.ones(4), HYDROGEN), orbitals([1], {1: [0, 1, 0]})
        ),
        MetatensorError,
        r"has 4 of the 5 entries, the first that it lacks is that of .*channel=1, ",
    ),
    "other labels": (
        lambda: from_vector(np.ones(1), Labels.single()),
        MetatensorError,
        "labels of orbitals have five dimensions",
    ),
    "no labels": (
        lambda: from_vector(np.ones(1), [[0]]),  # type: ignore[arg-type]
        TypeError,
        "`orbitals` must be a metatensor_jax Labels",
    ),
    "no map": (
        lambda: to_vector(np.ones(4), HYDROGEN),  # type: ignore[arg-type]
        TypeError,
        "`tensor` must be a metatensor_jax TensorMap",
    ),
    "atoms of one type that differ": (
        lambda: from_vector(
            np.ones(3),
            Labels(list(NAMES), [[0, 1, 0, 0, 0], *([a, 1, 0, 1, 0] for a in (0, 1))]),
        ),
        MetatensorError,
        r"no row for 1 of the 4 elements .* \(atom_id=1, spherical_harmonics_m=0, rad",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as error:
        call()
    assert type(error.value) is kind
