"""Scalars, vectors and matrices of frames, Cartesian and spherical, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frames import copper, known
from systems import molecule

import metatensor_jax as mts

ase = pytest.importorskip("ase")


from metatensor_jax.interop.ase import (  # noqa: E402
    samples,
    tensors,
    with_tensors,
)

SINGLE = mts.Labels.single()


def harmonics(l: int, u: np.ndarray) -> np.ndarray:
    """Real spherical harmonics by SciPy, without the phase of Condon and Shortley."""
    from scipy import special

    theta, phi = np.arccos(u[:, 2]), np.arctan2(u[:, 1], u[:, 0])
    columns = []
    for m in range(-l, l + 1):
        y = special.sph_harm_y(l, abs(m), theta, phi)
        part = y.real if m >= 0 else y.imag
        columns.append(part * ((-1) ** m * np.sqrt(2) if m else 1))
    return np.stack(columns, axis=1)


def directions(n: int = 20) -> np.ndarray:
    u = np.random.default_rng(0).normal(size=(n, 3))
    return u / np.linalg.norm(u, axis=1)[:, None]


def rotation() -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    return q * np.linalg.det(q)


@pytest.mark.parametrize("rank", [1, 2])
def test_spherical_parts_are_harmonics(rank: int) -> None:
    """Vectors u and matrices u u: proportional to Y(u), by one positive number."""
    u = directions()
    frames = [ase.Atoms(info={"x": x}) for x in u]
    if rank == 2:
        frames = [ase.Atoms(info={"x": np.outer(x, x)}) for x in u]
    tensor = tensors(frames, "x", rank, basis="spherical")
    y, part = harmonics(rank, u), tensor.block(o3_lambda=rank, o3_sigma=1)
    factor = np.linalg.norm(part.values) / np.linalg.norm(y)
    np.testing.assert_allclose(part.values[..., 0], factor * y, atol=1e-12)
    assert part.components == [
        mts.Labels("o3_mu", [[m] for m in range(-rank, rank + 1)])
    ]


def test_the_antisymmetric_part_is_a_pseudovector() -> None:
    """It turns with rotations as a vector does, and stays under inversion."""
    matrices = np.random.default_rng(0).normal(size=(5, 3, 3))
    turn = rotation()

    def parts(matrices: Any, vectors: Any) -> tuple[Any, Any]:
        frames = [
            ase.Atoms(info={"m": m, "v": v})
            for m, v in zip(matrices, vectors, strict=True)
        ]
        m = tensors(frames, "m", 2, basis="spherical", symmetric=False)
        v = tensors(frames, "v", 1, basis="spherical").block()
        assert m.keys.values.tolist() == [[0, 1], [1, -1], [2, 1]]
        return m.block(o3_lambda=1).values, v.values

    axis = np.stack([(m - m.T)[[2, 0, 1], [1, 2, 0]] for m in matrices]) / np.sqrt(2)
    for q in (np.eye(3), turn):
        pseudo, vector = parts(q @ matrices @ q.T, axis @ q.T)
        np.testing.assert_allclose(pseudo, vector, atol=1e-12)
    np.testing.assert_allclose(parts(matrices, axis)[0], parts(matrices, -axis)[0])


def test_squares_are_the_same_in_both() -> None:
    rng = np.random.default_rng(0)
    for rank in (0, 1, 2):
        frame = molecule("H2O")
        frame.arrays["x"] = rng.normal(size=(3, *(3,) * rank))
        options: Any = {"per": "atom", "symmetric": False}
        spherical = tensors([frame], "x", rank, basis="spherical", **options)
        cartesian = tensors([frame], "x", rank, **options)
        total = sum((b.values**2).sum(axis=(1, 2)) for b in spherical)
        expected = (cartesian.block().values ** 2).reshape(3, -1).sum(axis=1)
        np.testing.assert_allclose(total, expected, rtol=1e-12)


def test_labels_of_tensors_are_those_of_metatrain() -> None:
    frame = ase.Atoms("H2", info={"e": 1.0, "d": [1, 2, 3], "a": np.eye(3)})
    for name, rank, axes in (
        ("e", 0, []),
        ("d", 1, ["xyz"]),
        ("a", 2, ["xyz_1", "xyz_2"]),
    ):
        tensor = tensors([frame], name, rank)
        assert tensor.keys == SINGLE
        assert [c.names[0] for c in tensor.block().components] == axes
        assert tensor.block().properties == mts.Labels.range(name, 1)
        spherical = tensors([frame], name, rank, basis="spherical")
        assert spherical.keys.names == ["o3_lambda", "o3_sigma"]
        assert spherical.property_names == ["n"]
    renamed = tensors([frame], "d", 1, property="dipole")
    assert renamed.property_names == ["dipole"]


def test_tensors_of_a_calculator() -> None:
    frames = known(copper(), dipole=[1.0, 2, 3], charges=[0.5, -0.5])
    dipoles, charges = (
        tensors(frames, "dipole", 1),
        tensors(frames, "charges", 0, per="atom"),
    )
    assert dipoles.block().values.ravel().tolist() == [1, 2, 3]
    assert charges.block().values.ravel().tolist() == [0.5, -0.5]
    assert charges.block().samples == samples(frames, "atom")


@pytest.mark.parametrize("basis", ["cartesian", "spherical"])
@pytest.mark.parametrize("per", ["system", "atom"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_tensors_and_back(rank: int, per: str, basis: str) -> None:
    rng, frames = np.random.default_rng(0), [molecule("H2O"), ase.Atoms("C")]
    for frame in frames:
        shape = ((len(frame),) if per == "atom" else ()) + (3,) * rank
        values = rng.normal(size=shape)
        if per == "atom":
            frame.arrays["x"] = values
        else:
            frame.info["x"] = values if rank else float(values)
    options: Any = {"per": per, "basis": basis, "symmetric": False}
    tensor = tensors(frames, "x", rank, systems=[5, 2], **options)
    backwards = mts.sort(tensor, "samples", descending=True)
    again = with_tensors(frames, "y", backwards, systems=[5, 2])
    for frame, new in zip(frames, again, strict=True):
        where = "arrays" if per == "atom" else "info"
        expected, found = getattr(frame, where)["x"], getattr(new, where)["y"]
        np.testing.assert_allclose(np.ravel(found), np.ravel(expected), rtol=1e-12)
        assert "y" not in getattr(frame, where)
    if basis == "cartesian":
        options["property"] = "x"
    read_again = tensors(again, "y", rank, systems=[5, 2], **options)
    mts.allclose_raise(read_again, tensor, rtol=1e-12, atol=1e-12)


def test_tensors_replace_results_of_the_same_name() -> None:
    (old,) = known(copper(), energy=1.0, dipole=[1.0, 2, 3])
    (new,) = with_tensors([old], "dipole", tensors([old], "dipole", 1))
    assert new.info["dipole"].tolist() == [1, 2, 3]
    assert new.calc.results.keys() == {"energy"}
    assert tensors([new], "dipole", 1) == tensors([old], "dipole", 1)


def test_matrices_that_are_not_symmetric() -> None:
    frame = ase.Atoms(info={"a": [[1.0, 2, 0], [0, 1, 0], [0, 0, 1]]})
    with pytest.raises(
        mts.MetatensorError, match=r"'a' of \(system=0\) is not symmetric"
    ):
        tensors([frame], "a", 2, basis="spherical")
