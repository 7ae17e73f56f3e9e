"""Potentials and calculators: against ASE, and by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from frames import argon, moved, salt
from systems import hypers, molecule

import metatensor_jax as mts

ase = pytest.importorskip("ase")

from ase.calculators.calculator import (  # noqa: E402
    CalculationFailed,
    PropertyNotImplementedError,
)
from ase.calculators.fd import (  # noqa: E402
    calculate_numerical_forces,
    calculate_numerical_stress,
)
from ase.calculators.lj import LennardJones  # noqa: E402
from ase.md.verlet import VelocityVerlet  # noqa: E402

from metatensor_jax.interop.ase import (  # noqa: E402
    Calculator,
    FeaturePotential,
    Potential,
    energies,
    parameters,
    samples,
)

BOTH = ["positions", "strain"]
SINGLE = mts.Labels.single()
SIGMA, CUTOFF = 3.4, 5.0


def lennard_jones(positions: Any, cell: Any, types: Any) -> mts.TensorMap:
    """With ASE's cutoff. The size of an atom is that of its type: 18 is argon."""
    r, h = positions.values[..., 0], cell.values[..., 0]
    system = positions.samples.column("system")
    sigma = jnp.asarray(SIGMA / 18, r.dtype) * types.values[:, 0].astype(r.dtype)
    shifts = np.array(list(np.ndindex(3, 3, 3))) - 1
    images = jnp.einsum("sk,nkx->nsx", shifts.astype(r.dtype), h, precision="highest")
    vectors = (r[None, :] - r[:, None])[:, :, None] + images[system][:, None]
    squared = (vectors**2).sum(axis=-1)
    here = (shifts == 0).all(axis=1)
    is_self = np.eye(len(r), dtype=bool)[:, :, None] & here[None, None]
    # along a vector that is zero there are no images
    is_periodic = (h != 0).any(axis=2)
    exists = (is_periodic[:, None] | (shifts == 0)[None]).all(axis=2)[system]
    same = (system[:, None] == system[None])[:, :, None]
    pair = same & ~is_self & exists[:, None] & (squared < CUTOFF**2)
    x = (sigma[:, None, None] ** 2 / jnp.where(pair, squared, 1)) ** 3
    at_cutoff = (sigma[:, None, None] / CUTOFF) ** 6
    terms = 2 * ((x**2 - x) - (at_cutoff**2 - at_cutoff))
    of_atoms = jnp.where(pair, terms, 0).sum(axis=(1, 2))
    labels = positions.samples, [], mts.Labels.range("energy", 1)
    block = mts.TensorBlock(of_atoms[:, None], *labels)
    return mts.sum_over_samples(mts.TensorMap(SINGLE, [block]), "atom")


def reference() -> Any:
    return LennardJones(sigma=SIGMA, epsilon=1.0, rc=CUTOFF, smooth=False)


def slab() -> Any:
    atoms = argon(2)
    atoms.pbc = [True, True, False]
    return atoms


def gas() -> Any:
    atoms = argon(3)
    atoms.pbc = False
    return atoms


def test_a_potential_is_what_ase_computes(x64: bool) -> None:
    """Energies, forces and stress, periodic in three, two and no directions."""
    frames = [argon(), slab(), gas(), argon(1)]
    tensor = Potential(lennard_jones)(frames)
    for frame in frames:
        frame.calc = reference()
    expected = energies(frames, BOTH)
    assert mts.equal_metadata(tensor, expected)
    assert tensor.dtype == (np.float64 if x64 else np.float32)
    block, other = tensor.block(), expected.block()
    tolerance = 1e-9 if x64 else 2e-4
    pairs = [(block, other), *((block.gradient(n), other.gradient(n)) for n in BOTH)]
    for found, wanted in pairs:
        scale = np.abs(wanted.values).max()
        assert scale > 1
        np.testing.assert_allclose(
            found.values, wanted.values, rtol=0, atol=tolerance * scale
        )


def test_strain_acts_on_columns() -> None:
    """Seen by an energy that rotations change: that of a field along z, by x."""

    def in_field(positions: Any, cell: Any, types: Any) -> mts.TensorMap:
        values = (
            positions.values[:, 2]
            + 10 * cell.values[:, 0, 2][positions.samples.column("system")]
        )
        labels = positions.samples, [], mts.Labels.range("energy", 1)
        block = mts.TensorBlock(values, *labels)
        return mts.sum_over_samples(mts.TensorMap(SINGLE, [block]), "atom")

    atoms = ase.Atoms("H", [[1.0, 2, 3]], cell=np.diag([4.0, 5, 6]), pbc=True)
    strain = Potential(in_field)([atoms]).block().gradient("strain")
    assert [c.names[0] for c in strain.components] == ["xyz_1", "xyz_2"]
    expected = np.zeros((3, 3))
    expected[2] = [1 + 10 * 4, 2, 3]
    np.testing.assert_allclose(strain.values[0, ..., 0], expected)


def test_dynamics_with_a_potential_compile_once(compiled: Callable[[], int]) -> None:
    atoms = argon()
    atoms.calc = Calculator(Potential(lennard_jones))
    dynamics = VelocityVerlet(atoms, 0.1)
    dynamics.run(1)
    assert compiled() > 0
    dynamics.run(5)
    atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
    atoms.numbers[0] = 17
    before = atoms.get_potential_energy()
    assert compiled() == 0
    atoms.numbers[0] = 18
    assert atoms.get_potential_energy() != before


def test_a_potential_without_gradients() -> None:
    tensor = Potential(lennard_jones, [])([argon()])
    assert tensor.block().gradients_list() == []
    atoms = argon()
    atoms.calc = Calculator(Potential(lennard_jones, ["positions"]))
    atoms.get_forces()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_potentials_that_give_something_else() -> None:
    def per_atom(positions: Any, cell: Any, types: Any) -> mts.TensorMap:
        block = mts.TensorBlock(positions.values[:, 0], positions.samples, [], SINGLE)
        return mts.TensorMap(SINGLE, [block])

    with pytest.raises(mts.MetatensorError, match="one energy for each system"):
        Potential(per_atom)([argon()])
    with pytest.raises(
        mts.MetatensorError, match="a single property and no components"
    ):
        Potential(lambda positions, **_: mts.TensorMap(SINGLE, [positions]))([argon()])
    with pytest.raises(mts.MetatensorError, match="there are no frames"):
        Potential(lennard_jones)([])
    with pytest.raises(mts.MetatensorError, match=r"at least 1, not 0\.5"):
        FeaturePotential(of_features, lambda _: None, room=0.5)  # type: ignore


def test_features_that_are_no_map_of_ours() -> None:
    """Such as what featomic gives."""
    core = pytest.importorskip("metatensor")
    given = core.TensorMap(
        core.Labels.single(), [core.block_from_array(np.ones((1, 1)))]
    )
    potential = FeaturePotential(of_features, lambda frames: given)
    with pytest.raises(
        TypeError, match=r"`features\(frames\)` must be a metatensor_jax"
    ):
        potential([argon()])


def test_a_result_that_is_not_finite() -> None:
    atoms = argon()
    atoms.positions[1] = atoms.positions[0]
    atoms.calc = Calculator(Potential(lennard_jones))
    with pytest.raises(CalculationFailed, match="of Ar8 is not finite"):
        atoms.get_potential_energy()


@pytest.fixture
def soap() -> Iterator[Callable[..., mts.TensorMap]]:
    """Features of featomic, which computes in 64 bits."""
    featomic = pytest.importorskip("featomic")
    calculator = featomic.SphericalExpansion(**hypers(radius=3.5))
    types = mts.Labels("neighbor_type", [[1], [8], [11], [17], [29]])

    def compute(frames: Sequence[Any], gradients: Any = BOTH) -> mts.TensorMap:
        computed = calculator.compute(list(frames), gradients=list(gradients))
        tensor = mts.TensorMap.load_buffer(computed.save_buffer())
        return tensor.keys_to_properties(types)

    with enable_x64(True):
        yield compute


def of_features(features: mts.TensorMap, systems: mts.Labels) -> mts.TensorMap:
    """A nonlinear energy that rotations change."""
    weights = jnp.cos(jnp.arange(1000.0))

    def nonlinear(row: Any) -> Any:
        flat = row.ravel()
        return jnp.tanh(flat @ weights[: flat.size])[None]

    one = mts.Labels.range("energy", 1)
    of_rows = mts.map_rows(
        nonlinear, features, properties=one, components=[[]] * len(features)
    )
    of_rows = of_rows.keys_to_samples(features.keys.names)
    names = [name for name in of_rows.sample_names if name != "system"]
    return mts.sum_over_samples(of_rows, names, out_samples=systems)


def test_a_feature_potential_by_finite_differences(soap: Any) -> None:
    frames = [molecule("H2O"), salt(), molecule("H2")]
    potential = FeaturePotential(of_features, soap)
    plain = FeaturePotential(of_features, lambda frames: soap(frames, ()), [])
    tensor = potential(frames)
    assert not np.allclose(tensor.block().gradient("strain").values, 0, atol=1e-2)
    mts.check_gradients(
        tensor, lambda **at: plain(moved(frames, at)), **parameters(frames)
    )
    alone = [potential([frame]).block() for frame in frames]
    values = np.concatenate([block.values for block in alone])
    np.testing.assert_allclose(values, tensor.block().values, rtol=1e-12)
    stored = [block.gradient("positions").values for block in alone]
    np.testing.assert_allclose(
        np.concatenate(stored), tensor.block().gradient("positions").values, atol=1e-12
    )


@pytest.mark.parametrize("name", [*BOTH, "cell"])
def test_parameters_fit_to_featomic(name: str, soap: Any) -> None:
    """By finite differences of features that see rotations and the order of axes."""
    frames = [salt()] if name == "cell" else [molecule("H2O"), salt()]
    given: Any = parameters(frames, name)
    report = mts.check_gradients(
        soap(frames, [name]), lambda **at: soap(moved(frames, at), ()), **given
    )
    assert report.checks

    def total(values: Any) -> Any:
        blocks: Any = {name: given[name].with_values(values)}
        connected = mts.connect_gradients(soap(frames, [name]), **blocks)
        return of_features(connected, samples(frames)).block().values.sum()

    gradient = jax.jit(jax.grad(total))(given[name].values)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.01


def test_samples_are_those_of_featomic(soap: Any) -> None:
    frames = [molecule("H2O"), salt()]
    typed = soap(frames, ()).keys_to_samples("center_type")
    expected = samples(frames, "atom", center_type=True)
    for block in typed:
        assert set(block.samples) == set(expected)


def test_the_calculator_by_finite_differences_of_ase(soap: Any) -> None:
    atoms = salt() * (2, 1, 1)
    atoms.rattle(0.05, seed=5)

    def invariant(features: mts.TensorMap, systems: mts.Labels) -> mts.TensorMap:
        scalars = mts.drop_blocks(features, mts.Labels("o3_lambda", [[1]]))
        return of_features(scalars, systems)

    atoms.calc = Calculator(FeaturePotential(invariant, soap))
    forces, stress = atoms.get_forces(), atoms.get_stress()
    assert np.abs(forces).max() > 0.01
    np.testing.assert_allclose(
        forces, calculate_numerical_forces(atoms, 1e-4), atol=1e-6
    )
    np.testing.assert_allclose(
        stress, calculate_numerical_stress(atoms, 1e-4), atol=1e-7
    )
    assert atoms.get_potential_energy(force_consistent=True) == (
        atoms.get_potential_energy()
    )


def test_dynamics_with_features_compile_once(
    soap: Any, compiled: Callable[[], int]
) -> None:
    traced = []

    def energy(features: mts.TensorMap, systems: mts.Labels) -> mts.TensorMap:
        traced.append(1)
        return of_features(features, systems)

    atoms = salt() * (2, 2, 2)
    atoms.calc = Calculator(FeaturePotential(energy, soap))
    n_rows = {len(soap([atoms]).block(0).gradient("positions"))}
    atoms.get_forces()
    assert len(traced) == 1
    assert compiled() > 0
    dynamics = VelocityVerlet(atoms, 1.0)
    for seed in range(5):
        atoms.rattle(0.03, seed=seed)
        dynamics.run(1)
        n_rows.add(len(soap([atoms]).block(0).gradient("positions")))
    assert len(n_rows) > 1  # other labels
    assert len(traced) == 1
    assert compiled() == 0


def test_room_grows_where_it_does_not_suffice(soap: Any) -> None:
    potential = FeaturePotential(of_features, soap, room=1.0)
    small = potential([molecule("H2O")])
    potential([molecule("H2O"), molecule("H2O", 1), salt()])
    mts.allclose_raise(potential([molecule("H2O")]), small, rtol=1e-10, atol=1e-10)


def test_features_without_gradients(soap: Any) -> None:
    potential = FeaturePotential(of_features, lambda frames: soap(frames, ()))
    with pytest.raises(mts.MetatensorError, match="positions"):
        potential([molecule("H2O")])


def test_64_bits_are_not_narrowed(soap: Any) -> None:
    potential = FeaturePotential(of_features, soap)
    with enable_x64(False):
        for function in (potential, Potential(lennard_jones, dtype="float64")):
            with pytest.raises(TypeError, match="would narrow it to float32"):
                function([molecule("H2O")])
        single = FeaturePotential(
            of_features, lambda frames: soap(frames).to(dtype="float32")
        )
        narrow = single([molecule("H2O")])
    assert narrow.dtype == np.float32
    wide = potential([molecule("H2O")]).to(dtype="float32")
    mts.allclose_raise(narrow, wide, rtol=1e-4, atol=1e-4)
