"""Frames of ASE to maps, and back: labels, parameters, energies, forces, stress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from frames import copper, known, moved
from systems import molecule

import metatensor_jax as mts

ase = pytest.importorskip("ase")

from ase import io  # noqa: E402
from ase.calculators.calculator import (  # noqa: E402
    PropertyNotImplementedError,
)
from ase.calculators.emt import EMT  # noqa: E402
from ase.calculators.fd import (  # noqa: E402
    calculate_numerical_stress,
)
from ase.calculators.lj import LennardJones  # noqa: E402
from ase.constraints import FixAtoms  # noqa: E402

from metatensor_jax.interop import ase as structures  # noqa: E402
from metatensor_jax.interop.ase import (  # noqa: E402
    energies,
    parameters,
    samples,
    tensors,
    with_energies,
    with_tensors,
)

BOTH = ["positions", "strain"]
SINGLE = mts.Labels.single()


def test_samples() -> None:
    frames = [molecule("H2O"), ase.Atoms(), molecule("H2")]
    assert samples(frames) == mts.Labels.range("system", 3)
    atoms = mts.Labels(["system", "atom"], [[0, 0], [0, 1], [0, 2], [2, 0], [2, 1]])
    assert samples(frames, "atom") == atoms
    typed = samples(frames, "atom", center_type=True)
    assert typed == atoms.append("center_type", [8, 1, 1, 1, 1])


def test_samples_of_frames_with_numbers_of_their_own() -> None:
    """Neither their order nor their numbers are changed."""
    frames = [molecule("H2"), molecule("H2O")]
    numbered = samples(frames, "atom", systems=[7, 3])
    assert numbered.values.tolist() == [[7, 0], [7, 1], [3, 0], [3, 1], [3, 2]]
    both = [*BOTH, "cell"]
    for name, block in parameters(frames, *both, systems=[7, 3]).items():
        per = "atom" if name == "positions" else "system"
        assert block.samples == samples(frames, per, systems=[7, 3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters(dtype: str) -> None:
    frames = [copper(), molecule("H2O")]
    blocks = parameters(frames, *BOTH, "cell", dtype=dtype)
    assert {block.dtype for block in blocks.values()} == {np.dtype(dtype)}
    positions = np.concatenate([frame.positions for frame in frames])
    np.testing.assert_allclose(blocks["positions"].values[..., 0], positions, rtol=1e-6)
    assert not blocks["strain"].values.any()
    cell = frames[0].cell.array
    np.testing.assert_allclose(blocks["cell"].values[0, ..., 0], cell, rtol=1e-6)
    assert list(parameters(frames)) == BOTH


def test_the_cell_is_zero_where_a_frame_is_not_periodic() -> None:
    slab = copper()
    slab.pbc = [True, False, True]
    box = molecule("H2O")
    box.center(vacuum=3.0)
    cells = parameters([slab, box], "cell")["cell"].values[..., 0]
    np.testing.assert_array_equal(cells[0, [0, 2]], slab.cell.array[[0, 2]])
    assert not cells[0, 1].any()
    assert not cells[1].any()


def test_no_frames() -> None:
    """A part of a data set may be empty; all labels are there."""
    assert len(samples([])) == len(samples([], "atom")) == 0
    shapes = {n: b.shape for n, b in parameters([], *BOTH, "cell").items()}
    assert shapes == {
        "positions": (0, 3, 1),
        "strain": (0, 3, 3, 1),
        "cell": (0, 3, 3, 1),
    }
    assert energies([], BOTH).block().gradient("positions").shape == (0, 3, 1)
    assert tensors([], "dipole", 1).block().shape == (0, 3, 1)
    assert with_energies([], energies([], BOTH)) == []
    assert with_tensors([], "q", tensors([], "q", 0, per="atom")) == []


@pytest.mark.parametrize("calculator", [EMT, LennardJones])
def test_gradients_are_derivatives(calculator: Any, x64: bool) -> None:
    """Signs, units and order: against differences of energies of other programs."""
    frames = [copper(), copper(3) * (1, 2, 1)]

    def function(gradients: Any = (), **given: Any) -> mts.TensorMap:
        there = moved(frames, given)
        for frame in there:
            frame.calc = calculator() if calculator is EMT else LennardJones(sigma=2.2)
        return energies(there, gradients)

    report = mts.check_gradients(function(BOTH), function, **parameters(frames))
    assert len(report.checks) == 2
    assert np.abs(function(BOTH).block().gradient("strain").values).min() > 1e-3


def test_gradients_of_molecules_are_derivatives() -> None:
    frames = [molecule("H2O"), molecule("CH3OH", 1), ase.Atoms("C")]

    def function(gradients: Any = (), **given: Any) -> mts.TensorMap:
        there = moved(frames, given)
        for frame in there:
            frame.calc = EMT()
        return energies(there, gradients)

    at = parameters(frames, "positions")
    mts.check_gradients(function(["positions"]), function, **at)


def test_labels_are_those_of_a_target_of_metatrain() -> None:
    """As its reader of ASE files makes them."""
    frames = known(copper(), energy=1.0, forces=np.ones((2, 3)), stress=np.ones(6))
    tensor = energies(frames, BOTH)
    block = tensor.block()
    assert tensor.keys == mts.Labels("_", [[0]])
    assert block.samples == mts.Labels("system", [[0]])
    assert block.components == []
    assert block.properties == mts.Labels("energy", [[0]])
    positions, strain = block.gradient("positions"), block.gradient("strain")
    labels = mts.Labels(["sample", "system", "atom"], [[0, 0, 0], [0, 0, 1]])
    assert positions.samples == labels
    assert strain.samples == mts.Labels("sample", [[0]])
    assert [c.names for c in positions.components] == [["xyz"]]
    assert [c.names for c in strain.components] == [["xyz_1"], ["xyz_2"]]


def test_labels_are_those_of_computed_gradients(x64: bool) -> None:
    frames = known(
        copper(), copper(2), energy=0.0, forces=np.ones((2, 3)), stress=[0] * 6
    )
    target = energies(frames, BOTH)

    def function(positions: Any, strain: Any) -> mts.TensorMap:
        total = jnp.zeros((2, 1)) + positions.values.sum() + strain.values.sum()
        labels = samples(frames), [], mts.Labels.range("energy", 1)
        return mts.TensorMap(SINGLE, [mts.TensorBlock(total, *labels)])

    blocks = parameters(frames, dtype=jnp.zeros(()).dtype)
    assert mts.equal_metadata(mts.compute_gradients(function, **blocks), target)


def test_energies_keep_64_bits(x64: bool) -> None:
    tensor = energies(known(copper(), energy=-123456.123456))
    assert tensor.block().values.item() == -123456.123456
    assert tensor.dtype == np.float64
    assert energies(known(copper(), energy=1), dtype="float32").dtype == np.float32


def test_stress_as_matrix_or_vector_and_virial() -> None:
    atoms = copper()
    voigt = np.array([1.0, 2, 3, 4, 5, 6])  # xx, yy, zz, yz, xz, xy
    matrix = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    expected = matrix * atoms.get_volume()
    for stress in (voigt, matrix, matrix.ravel()):
        atoms.info = {"e": 1.0, "s": stress, "w": -stress * atoms.get_volume()}
        for names in ({"stress": "s"}, {"virial": "w"}):
            tensor = energies([atoms], ["strain"], energy="e", **names)
            strain = tensor.block().gradient("strain").values[0, ..., 0]
            np.testing.assert_allclose(strain, expected, rtol=1e-12)


def test_a_left_handed_cell_has_a_positive_volume() -> None:
    atoms = copper()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    atoms.calc = EMT()
    strain = energies([atoms], ["strain"]).block().gradient("strain")
    expected = calculate_numerical_stress(atoms, 1e-5, voigt=False) * atoms.get_volume()
    np.testing.assert_allclose(strain.values[0, ..., 0], expected, atol=1e-5)


def test_forces_of_fixed_atoms_are_there() -> None:
    atoms = copper()
    atoms.calc = EMT()
    free = energies([atoms], ["positions"])
    atoms.set_constraint(FixAtoms([0]))
    assert not atoms.get_forces()[0].any()
    mts.allclose_raise(energies([atoms], ["positions"]), free)


def test_frames_may_share_a_calculator() -> None:
    """It remembers the last one only: all of a frame is read before the next."""
    frames, calculator, calls = [copper(), copper(1)], EMT(), []
    calculate = calculator.calculate
    calculator.calculate = lambda *args: (calls.append(1), calculate(*args))
    for frame in frames:
        frame.calc = calculator
    shared = energies(frames, BOTH)
    assert len(calls) == 2
    for frame in frames:
        frame.calc = EMT()
    mts.allclose_raise(energies(frames, BOTH), shared)


def test_missing_values_are_an_error_or_nan() -> None:
    frames = [
        *known(copper(), energy=1.0, forces=np.ones((2, 3))),
        *known(copper(), energy=2.0),
        *known(molecule("H2"), energy=3.0),
    ]
    with pytest.raises(mts.MetatensorError, match="2 of 3 frames have no 'forces'"):
        energies(frames, ["positions"])
    tensor = energies(frames, BOTH, missing="nan")
    values = tensor.block().gradient("positions").values
    assert np.isfinite(values[:2]).all()
    assert np.isnan(values[2:]).all()
    assert np.isnan(tensor.block().gradient("strain").values).all()
    assert tensor.block().values[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_energies_and_back(tmp_path: Path) -> None:
    """Through a file of ASE as well."""
    frames = [copper(), copper(1) * (1, 1, 2)]
    for frame in frames:
        frame.calc = EMT()
    tensor = energies(frames, BOTH)
    new = with_energies([frame.copy() for frame in frames], tensor)
    io.write(tmp_path / "frames.xyz", new)
    for frame, copy in zip(frames, new, strict=True):
        np.testing.assert_allclose(copy.get_forces(), frame.get_forces(), rtol=1e-12)
        np.testing.assert_allclose(copy.get_stress(), frame.get_stress(), rtol=1e-12)
        assert copy.get_potential_energy() == frame.get_potential_energy()
    loaded = io.read(tmp_path / "frames.xyz", ":")
    mts.allclose_raise(energies(loaded, BOTH), tensor, rtol=1e-6, atol=1e-6)
    mts.allclose_raise(energies(new, BOTH), tensor, rtol=1e-12, atol=1e-12)


def test_rows_in_another_order() -> None:
    frames = [copper(), copper(1), copper(2)]
    for frame in frames:
        frame.calc = EMT()
    tensor = energies(frames, BOTH, systems=[4, 9, 2])
    ordered = mts.sort(tensor, "samples")
    assert ordered.block().samples.values.ravel().tolist() == [2, 4, 9]
    for frame, copy in zip(
        frames, with_energies(frames, ordered, systems=[4, 9, 2]), strict=True
    ):
        assert copy.get_potential_energy() == frame.get_potential_energy()
        np.testing.assert_array_equal(copy.get_forces(), frame.get_forces())
        np.testing.assert_allclose(copy.get_stress(), frame.get_stress(), rtol=1e-12)


def test_rows_that_are_not_stored_are_zero() -> None:
    (frame,) = known(copper(), energy=1.0, forces=np.ones((2, 3)))
    block = energies([frame], ["positions"]).block()
    gradient = block.gradient("positions")
    sparse = mts.TensorBlock(
        gradient.values[1:],
        mts.Labels(["sample", "atom"], [[0, 1]]),  # as models of metatrain give it
        gradient.components,
        gradient.properties,
    )
    tensor = mts.TensorMap(SINGLE, [block.with_gradient("positions", sparse)])
    (copy,) = with_energies([frame], tensor)
    assert copy.get_forces().tolist() == [[0, 0, 0], [1, 1, 1]]


def test_new_energies_replace_all_that_was_there() -> None:
    old = known(copper(), energy=1.0, forces=np.ones((2, 3)), dipole=[1.0, 2, 3])[0]
    old.info["energy"], old.info["name"] = 1.0, "copper"
    block = mts.TensorBlock(
        np.array([[5.0]]), samples([old]), [], mts.Labels.range("e", 1)
    )
    (new,) = with_energies([old], mts.TensorMap(SINGLE, [block]))
    assert new.get_potential_energy() == 5.0
    assert new.info == {"name": "copper"}
    assert new.get_dipole_moment().tolist() == [1, 2, 3]
    with pytest.raises(PropertyNotImplementedError):
        new.get_forces()
    assert old.get_potential_energy() == 1.0


def test_a_molecule_has_no_stress() -> None:
    frames = [copper(), molecule("H2O")]
    frames = known(*frames, energy=1.0)
    for frame in frames:
        frame.info["virial"] = np.ones((3, 3))
    crystal, water = with_energies(
        frames, energies(frames, ["strain"], virial="virial")
    )
    np.testing.assert_allclose(crystal.get_stress(), -1 / crystal.get_volume())
    with pytest.raises(PropertyNotImplementedError):
        water.get_stress()


def test_frames_that_are_none() -> None:
    for function in (samples, parameters, energies):
        with pytest.raises(TypeError, match=r"give a list with it, \[atoms\]"):
            function(molecule("H2O"))
        with pytest.raises(TypeError, match="frame 1 is of type str"):
            function([molecule("H2O"), "H2O"])


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ([0], r"one number for each of the 2 frames, but its shape is \(1,\)"),
        ([3, 3], r"these are there several times: \[3\]"),
    ],
)
def test_numbers_that_do_not_fit(systems: list[int], message: str) -> None:
    frames = known(copper(), copper(1), energy=1.0)
    for function in (samples, parameters, energies):
        with pytest.raises(mts.MetatensorError, match=message):
            function(frames, systems=systems)
    with pytest.raises(TypeError, match="must be integers, not float64"):
        samples(frames, systems=[0.0, 1.0])  # type: ignore[list-item]


def test_names_that_are_not_there() -> None:
    (frame,) = known(copper(), energy=1.0)
    with pytest.raises(mts.MetatensorError, match=r"no parameters \['cells'\], only"):
        parameters([frame], "cells")
    with pytest.raises(
        mts.MetatensorError, match=r"\['positions', 'strain'\], not \['x'\]"
    ):
        energies([frame], ["x"])
    with pytest.raises(TypeError, match=r"a list of names, such as \['strain'\]"):
        energies([frame], "strain")
    with pytest.raises(mts.MetatensorError, match=r"its calculator has \['energy'\]"):
        energies([frame], energy="total")
    with pytest.raises(mts.MetatensorError, match="not among the gradients: "):
        energies([frame], virial="virial")
    with pytest.raises(
        mts.MetatensorError, match="must be 'system' or 'atom', not 'x'"
    ):
        tensors([frame], "x", 1, per="x")
    with pytest.raises(mts.MetatensorError, match=r"`rank` must be one of \[0, 1, 2\]"):
        tensors([frame], "x", 3)
    with pytest.raises(
        mts.MetatensorError, match="'cartesian' or 'spherical', not 'x'"
    ):
        tensors([frame], "x", 1, basis="x")
    with pytest.raises(mts.MetatensorError, match="'raise' or 'nan', not 'zero'"):
        energies([frame], missing="zero")
    with pytest.raises(mts.MetatensorError, match="a dimension of atoms"):
        samples([frame], center_type=True)


def test_positions_that_moved_have_no_forces() -> None:
    """Old results are not taken for those of other positions."""
    (frame,) = known(copper(), energy=1.0)
    frame.positions += 0.1
    with pytest.raises(mts.MetatensorError, match="for the positions that it was used"):
        energies([frame])


@pytest.mark.parametrize(
    ("where", "name", "value", "message"),
    [
        ("info", "energy", [1.0, 2.0], r"the shape \(\), but it has \(2,\)"),
        (
            "arrays",
            "forces",
            np.ones((2, 2)),
            r"the shape \(2, 3\), but it has \(2, 2\)",
        ),
        (
            "info",
            "stress",
            np.ones(5),
            r"\(3, 3\) or \(9,\) or \(6,\), but it has \(5,\)",
        ),
        ("info", "energy", np.nan, "'energy' of frame 0 .* is not a number"),
        ("info", "energy", np.inf, "'energy' of frame 0 is infinite"),
        ("info", "energy", np.ma.masked, "'energy' of frame 0 .* is not a number"),
        (
            "arrays",
            "forces",
            np.ma.array(np.ones((2, 3)), mask=np.eye(2, 3)),
            "'forces' of frame 0 .* is not a",
        ),
        (
            "arrays",
            "forces",
            np.full((2, 3), np.nan),
            "'forces' of frame 0 .* is not a",
        ),
    ],
)
def test_values_that_are_none(where: str, name: str, value: Any, message: str) -> None:
    frame = copper()
    frame.info.update(energy=1.0, stress=np.zeros(6))
    frame.arrays["forces"] = np.zeros((2, 3))
    getattr(frame, where)[name] = value
    with pytest.raises(mts.MetatensorError, match=message):
        energies([frame], BOTH)


def test_masked_values_are_missing() -> None:
    """What is below a mask was taken for the value."""
    frame = copper()
    frame.info["energy"] = np.ma.array(-3, mask=True)
    forces = np.ma.array(np.ones((2, 3)), mask=np.eye(2, 3))
    frame.arrays["forces"] = forces
    block = energies([frame], ["positions"], missing="nan").block()
    assert np.isnan(block.values).all()
    found = block.gradient("positions").values[..., 0]
    np.testing.assert_array_equal(found, np.where(forces.mask, np.nan, -1))
    frame.arrays["forces"] = np.ma.array(np.ones((2, 3)), mask=False)
    frame.info["energy"] = np.ma.array(-3, mask=False)
    block = energies([frame], ["positions"]).block()
    assert block.values.item() == -3
    assert (block.gradient("positions").values == -1).all()


@pytest.mark.parametrize("dtype", [int, "uint8", bool, "complex64"])
def test_dtypes_that_are_no_real_numbers(dtype: Any) -> None:
    """Integers cut energies off, and are none for derivatives."""
    (frame,) = known(copper(), energy=-3.7)
    match = f"real floating point numbers, .*'float64', not {np.dtype(dtype)}"
    for function in (energies, parameters):
        with pytest.raises(TypeError, match=match):
            function([frame], dtype=dtype)
    with pytest.raises(TypeError, match=match):
        tensors([frame], "energy", 0, dtype=dtype)
    assert energies([frame], dtype="bfloat16").dtype == "bfloat16"


def test_complex_energies_of_a_map() -> None:
    (frame,) = known(copper(), energy=1.0)
    with pytest.raises(TypeError, match="must be real numbers, not complex128"):
        with_energies([frame], energies([frame]).to("complex128"))


def test_values_that_are_no_numbers() -> None:
    frame = copper()
    for value in ("low", 1j, None, True):
        frame.info["energy"] = value
        with pytest.raises((TypeError, mts.MetatensorError), match="energy"):
            energies([frame])


def test_two_values_of_one_name() -> None:
    (frame,) = known(copper(), energy=1.0)
    frame.info["energy"] = 1.0
    assert energies([frame]).block().values.item() == 1.0
    frame.info["energy"] = 2.0
    with pytest.raises(
        mts.MetatensorError, match="has two different values of 'energy'"
    ):
        energies([frame])


def test_a_stress_without_a_volume() -> None:
    (frame,) = known(molecule("H2"), energy=1.0, stress=np.ones(6))
    for missing in ("raise", "nan"):
        with pytest.raises(mts.MetatensorError, match="the volume of its cell is zero"):
            energies([frame], ["strain"], missing=missing)


def test_positions_that_are_not_finite() -> None:
    frame = molecule("H2O")
    frame.positions[1, 2] = np.nan
    with pytest.raises(
        mts.MetatensorError, match=r"of frame 1 \(OH2\) are not finite: atom 1"
    ):
        parameters([molecule("H2"), frame])


def test_maps_of_other_frames() -> None:
    frames = known(copper(), copper(1), energy=1.0, forces=np.ones((2, 3)))
    tensor = energies(frames, ["positions"])
    with pytest.raises(mts.MetatensorError, match="0 are missing and 1 are of others"):
        with_energies(frames[:1], tensor)
    with pytest.raises(mts.MetatensorError, match="1 are missing and 1 are of others"):
        with_energies(frames, tensor, systems=[0, 2])
    with pytest.raises(
        mts.MetatensorError, match="is the energy of system 0, with 1 atom"
    ):
        with_energies([ase.Atoms("H"), frames[1]], tensor)
    charges = ase.Atoms("H2")
    charges.arrays["q"] = np.ones(2)
    of_atoms = tensors([charges], "q", 0, per="atom")
    with pytest.raises(mts.MetatensorError, match=r"samples \['system'\], got"):
        with_energies(frames, of_atoms)
    with pytest.raises(TypeError, match="must be a TensorMap, not TensorBlock"):
        with_energies(frames, tensor.block())  # type: ignore[arg-type]
    two = mts.join([of_atoms, of_atoms], "properties", add_dimension="n")
    with pytest.raises(mts.MetatensorError, match="must have a single property, got 2"):
        with_tensors([charges], "q", two)
    with pytest.raises(
        mts.MetatensorError, match="a single property and no components"
    ):
        with_energies([charges], two)
    with pytest.raises(mts.MetatensorError, match="no labels of scalars, vectors or"):
        with_tensors([charges], "q", mts.rename_dimension(of_atoms, "keys", "_", "k"))


def test_all_that_is_public_has_an_example() -> None:
    for name in structures.__all__:
        assert ">>>" in getattr(structures, name).__doc__, name
