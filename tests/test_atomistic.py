"""Descriptors of atoms: equal to featomic, differentiable, equivariant."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, o3

for _package in ("equinox", "ase", "vesin"):
    pytest.importorskip(_package)

from ase import Atoms  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402

from metatensor_jax.atomistic import (  # noqa: E402
    Gto,
    LaplacianEigenstates,
    Room,
    SoapPowerSpectrum,
    SphericalExpansion,
    Systems,
    solid_harmonics,
)

CUTOFF, SIGMA, WIDTH = 4.0, 0.4, 0.5
EXPANSION = SphericalExpansion(CUTOFF, 3, Gto(3), SIGMA, WIDTH)


def triclinic() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", 5.6)
    skew = np.array([[0.3, 0.1, 0], [0, 0.4, 0.2], [0.1, 0, 0.3]])
    skewed = atoms.cell.array + skew
    atoms.set_cell(skewed, scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


FRAMES = {
    "molecule": molecule("CH3CH2OH"),
    "triclinic": triclinic(),
    "thin": Atoms("CO", [[0, 0, 0], [0.9, 0.6, 0.3]], cell=[2.0, 2.5, 9], pbc=True),
    "alone": Atoms("He", [[0, 0, 0]]),
    "silicon": bulk("Si", "diamond", 5.43),
}


def featomic_options() -> dict[str, Any]:
    cutoff = {
        "radius": CUTOFF,
        "smoothing": {"type": "ShiftedCosine", "width": WIDTH},
    }
    radial = {"type": "Gto", "max_radial": 3}
    basis = {"type": "TensorProduct", "max_angular": 3, "radial": radial}
    density = {"type": "Gaussian", "width": SIGMA}
    return {"cutoff": cutoff, "density": density, "basis": basis}


def featomic_expansion(frames: Any, gradients: Any = ()) -> mts.TensorMap:
    featomic = pytest.importorskip("featomic")
    calculator = featomic.SphericalExpansion(**featomic_options())
    computed = calculator.compute(frames, gradients=list(gradients))
    return mts.interop.from_metatensor(computed)


def neighbors_as_properties(tensor: mts.TensorMap) -> mts.TensorMap:
    """Where all atoms have a row, also those without neighbors of a type."""
    types = Labels("neighbor_type", [[1], [2], [6], [8], [11], [14], [17]])
    return tensor.keys_to_properties(types)


@pytest.mark.parametrize("name", FRAMES)
def test_values_are_those_of_featomic(name: str) -> None:
    with enable_x64(True):
        frames = [FRAMES[name], molecule("CO2")]
        mine = EXPANSION(Systems.from_ase(frames, CUTOFF))
        expected = featomic_expansion(frames)
        mine, expected = map(neighbors_as_properties, (mine, expected))
        mts.allclose_raise(mts.sort(mine), mts.sort(expected), rtol=1e-6, atol=1e-7)


def test_derivatives_are_those_that_featomic_stores() -> None:
    frames = [molecule("H2O"), FRAMES["triclinic"]]
    with enable_x64(True):
        expected = featomic_expansion(frames, ["positions"])
        systems = Systems.from_ase(frames, CUTOFF)

        def values(positions: jax.Array) -> list[jax.Array]:
            return [b.values for b in EXPANSION(systems.with_positions(positions))]

        keys = EXPANSION(systems).keys
        found = jax.jit(jax.jacfwd(values))(jnp.asarray(systems.positions))
    sizes = np.cumsum([0, *map(len, frames)])
    for key, block in expected.items():
        at = keys.position(key)
        rows = systems.samples[int(key["center_type"])]
        gradient = block.gradient("positions")
        for (sample, system, atom), value in zip(
            gradient.samples.values.tolist(), gradient.values, strict=True
        ):
            row = rows.position(block.samples.entry(sample))
            mine = found[at][row][..., sizes[system] + atom, :]
            np.testing.assert_allclose(
                np.moveaxis(np.asarray(mine), -1, 0), value, rtol=1e-5, atol=5e-6
            )  # featomic's integrals are splines, exact to 1e-8 of their values


def test_a_crystal_that_is_turned() -> None:
    with enable_x64(True):
        frame = FRAMES["triclinic"]
        systems = Systems.from_ase(frame, CUTOFF)
        turn = np.asarray(o3.random_matrices(jax.random.key(0)))
        turned = systems.with_positions(
            systems.positions @ turn.T, systems.cells @ turn.T
        )
        expected = o3.rotate(EXPANSION(systems), turn)
        mts.allclose_raise(EXPANSION(turned), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("basis", [Gto(2), LaplacianEigenstates(2)])
def test_coefficients_are_projections_of_the_density(basis: Any) -> None:
    """Integrated on a grid in three dimensions: nothing of the code but the basis."""
    with enable_x64(True):
        frame = Atoms("HeNe", [[0, 0, 0], [0.7, -1.1, 0.9]])
        expansion = SphericalExpansion(CUTOFF, 2, basis, 0.5, smoothing_width=0.0)
        found = expansion(Systems.from_ase(frame, CUTOFF))
    x, w = np.polynomial.legendre.leggauss(80)
    end = basis.extent(CUTOFF)
    end = min(end, 7.0)
    r, w_r = 0.5 * end * (x + 1), 0.5 * end * w
    phi = 2 * np.pi * np.arange(64) / 64
    grid = np.meshgrid(r, x, phi, indexing="ij")
    sine = np.sqrt(1 - grid[1] ** 2)
    unit = np.stack([sine * np.cos(grid[2]), sine * np.sin(grid[2]), grid[1]], -1)
    weights = w_r[:, None, None] * r[:, None, None] ** 2 * w[:, None] * 2 * np.pi / 64
    distance = np.linalg.norm(grid[0][..., None] * unit - frame.positions[1], axis=-1)
    density = np.exp(-0.5 * distance**2 / 0.5**2) / (np.pi * 0.5**2) ** 0.75
    for degree in range(3):
        harmonics = np.asarray(solid_harmonics(jnp.asarray(unit), degree)[degree])
        radial = basis.values(r, degree, CUTOFF)
        expected = np.einsum(
            "rtp,rtpm,rn->mn", weights * density, harmonics, radial, optimize=True
        )
        block = found.block(o3_lambda=degree, center_type=2, neighbor_type=10)
        np.testing.assert_allclose(block.values[0], expected, rtol=1e-5, atol=2e-6)


def test_harmonics_are_orthonormal_and_turn() -> None:
    rng = np.random.default_rng(0)
    v = rng.normal(size=(5, 3))
    with enable_x64(True):
        for degree, values in enumerate(solid_harmonics(jnp.asarray(v), 6)):
            turn = np.asarray(o3.random_matrices(jax.random.key(1)))
            d = np.asarray(o3.wigner_d(degree, turn))
            turned = solid_harmonics(jnp.asarray(v @ turn.T), degree)[degree]
            np.testing.assert_allclose(turned, values @ d.T, rtol=1e-9, atol=1e-10)
            # the addition theorem
            r = np.linalg.norm(v, axis=1)
            norm = (2 * degree + 1) / (4 * np.pi) * r ** (2 * degree)
            np.testing.assert_allclose((values**2).sum(-1), norm, rtol=1e-10)


def test_nothing_jumps_at_the_cutoff() -> None:
    def values(distance: float) -> Any:
        frame = Atoms("HeNe", [[0, 0, 0], [0, 0, distance]])
        systems = Systems.from_ase(frame, CUTOFF + 1)
        block = EXPANSION(systems).block(o3_lambda=1, center_type=2, neighbor_type=10)
        return np.asarray(block.values)

    with enable_x64(True):
        assert np.all(values(CUTOFF + 1e-3) == 0)
        # the smoothing function is 1e-5 there
        assert 0 < np.abs(values(CUTOFF - 1e-3)).max() < 1e-5


def test_derivatives_are_finite_differences() -> None:
    with enable_x64(True):
        frame = FRAMES["triclinic"]
        systems = Systems.from_ase(frame, CUTOFF + 0.1)

        @jax.jit
        def loss(positions: jax.Array, cells: jax.Array) -> jax.Array:
            tensor = EXPANSION(systems.with_positions(positions, cells))
            return sum((b.values**2).sum() for b in tensor)  # type: ignore[return-value]

        rng = np.random.default_rng(0)
        x = systems.positions, systems.cells
        found = jax.grad(loss, (0, 1))(*x)
        for i in range(2):
            step = [np.zeros_like(a) for a in x]
            step[i] = 1e-4 * rng.normal(size=x[i].shape)
            up, down = (
                loss(*[a + sign * s for a, s in zip(x, step, strict=True)])
                for sign in (1, -1)
            )
            expected = np.sum(found[i] * step[i])
            np.testing.assert_allclose((up - down) / 2, expected, rtol=1e-5)


def test_atoms_at_the_same_place_have_derivatives() -> None:
    frame = Atoms("HeHe", [[0, 0, 0], [0, 0, 0]])
    expansion = SphericalExpansion(CUTOFF, 2, Gto(1), SIGMA)
    systems = Systems.from_ase(frame, CUTOFF, dtype="float32")

    def loss(positions: jax.Array) -> jax.Array:
        tensor = expansion(systems.with_positions(positions))
        return sum((b.values**2).sum() for b in tensor)  # type: ignore[return-value]

    gradient = jax.jit(jax.grad(loss))(jnp.asarray(systems.positions))
    second = jax.jit(jax.hessian(loss))(jnp.asarray(systems.positions))
    assert np.all(np.isfinite(gradient))
    assert np.all(np.isfinite(second))


def test_other_positions_are_the_same_program(compiled: Any) -> None:
    systems = Systems.from_ase(FRAMES["molecule"], 6.0, dtype="float32")
    EXPANSION(systems)
    compiled()
    moved = systems.with_positions(systems.positions + np.float32(0.01))
    mine = EXPANSION(moved)
    assert compiled() == 0
    mts.allclose_raise(mine, EXPANSION(systems), rtol=1e-3, atol=1e-3)


def test_no_atoms() -> None:
    empty = EXPANSION(Systems.from_ase([], CUTOFF, types=[1, 8], dtype="float32"))
    assert len(empty) == 4 * 4
    assert empty.block(o3_lambda=2, center_type=1, neighbor_type=8).shape == (0, 5, 4)


BAD = {
    "cutoff": (lambda: SphericalExpansion(0, 1, Gto(1), 0.3), "must be above 0 Å"),
    "width": (lambda: SphericalExpansion(3, 1, Gto(1), 0.3, 4), "the cutoff of 3 Å"),
    "degree": (lambda: SphericalExpansion(3, -1, Gto(1), 0.3), "at least 0, not -1"),
    "radial": (lambda: Gto(-1), "at least 0, not -1"),
    "smaller neighbors": (
        lambda: EXPANSION(Systems.from_ase(molecule("H2O"), 3.0)),
        "within 3.0 Å, but the cutoff is 4.0",
    ),
    "types": (
        lambda: Systems.from_ase(molecule("H2O"), 3.0, types=[1]),
        r"frame 0 has atoms of the types \[8\], but `types` are \[1\]",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(MetatensorError, match=message):
        call()


def test_double_precision_is_not_narrowed() -> None:
    with pytest.raises(TypeError, match="float64, but JAX is in its 32-bit"):
        EXPANSION(Systems.from_ase(molecule("H2O"), CUTOFF))


# --- SOAP ----------------------------------------------------------------------------


def test_soap_is_that_of_featomic() -> None:
    featomic = pytest.importorskip("featomic")
    frames = [FRAMES[x] for x in ("molecule", "triclinic", "alone", "thin")]
    options = featomic_options()
    computed = featomic.SoapPowerSpectrum(**options).compute(frames)
    with enable_x64(True):
        expected = mts.interop.from_metatensor(computed)
        mine = SoapPowerSpectrum(EXPANSION)(Systems.from_ase(frames, CUTOFF))
        names = ["neighbor_1_type", "neighbor_2_type"]
        pairs = Labels(names, np.unique(mine.keys.values[:, 1:], axis=0))
        mine, expected = (x.keys_to_properties(pairs) for x in (mine, expected))
        mts.allclose_raise(mts.sort(mine), mts.sort(expected), rtol=1e-6, atol=1e-7)


def test_soap_does_not_change_when_systems_turn() -> None:
    soap = SoapPowerSpectrum(EXPANSION)
    systems = Systems.from_ase(FRAMES["triclinic"], CUTOFF, dtype="float32")
    turn = np.asarray(o3.random_matrices(jax.random.key(3), improper=True))
    turned = systems.with_positions(systems.positions @ turn.T, systems.cells @ turn.T)
    mts.allclose_raise(soap(turned), soap(systems), rtol=1e-4, atol=1e-5)


# --- padding -------------------------------------------------------------------------


def batches_of(names: Any) -> list[Systems]:
    types, options = [1, 6, 8], {"dtype": "float32"}
    return [
        Systems.from_ase([molecule(x) for x in pair], CUTOFF, types=types, **options)
        for pair in names
    ]


def test_padded_systems_share_a_program_and_give_the_same() -> None:
    batches = batches_of([("H2O", "CH4"), ("CO2",), ("CH3OH", "H2")])
    room, traces = Room.fit(batches, headroom=1.3), []
    soap = SoapPowerSpectrum(EXPANSION)

    @jax.jit
    def energies(systems: Systems) -> mts.TensorMap:
        traces.append(1)
        out = Labels.range("system", 2)
        return mts.sum_over_samples(soap(systems), "atom", out_samples=out)

    for systems in batches:
        n = systems.cells.shape[0]
        mine = energies(room.pad(systems))
        out = Labels.range("system", n)
        expected = mts.sum_over_samples(soap(systems), "atom", out_samples=out)
        for one, other in zip(mine, expected, strict=True):
            np.testing.assert_allclose(
                one.values[:n], other.values, rtol=1e-5, atol=1e-6
            )
            assert np.all(np.asarray(one.values)[n:] == 0)
        padded = soap(room.pad(systems))
        for block, t in zip(padded, padded.keys["center_type"].tolist(), strict=True):
            assert block.mask.sum() == len(systems.samples[t])
    assert len(traces) == 1


def test_derivatives_of_padded_systems_are_finite() -> None:
    (systems,) = batches_of([("H2O",)])
    padded = Room.fit(batches_of([("H2O", "CH4")])).pad(systems)

    def loss(positions: jax.Array) -> jax.Array:
        tensor = EXPANSION(padded.with_positions(positions))
        return sum((b.values**2).sum() for b in tensor)  # type: ignore[return-value]

    gradient = jax.grad(loss)(jnp.asarray(padded.positions))
    assert np.all(np.isfinite(gradient))
    assert np.all(np.asarray(gradient)[3:] == 0)


def test_rooms_that_are_too_small() -> None:
    large, small = batches_of([("CH4", "CH4"), ("H2O",)])
    with pytest.raises(MetatensorError, match="need room for 10 atoms, but there is 3"):
        Room.of(small).pad(large)
    with pytest.raises(MetatensorError, match="at least one batch"):
        Room.fit([])
    other = Systems.from_ase(molecule("H2O"), CUTOFF, dtype="float32")
    for call in (lambda: Room.fit([small, other]), lambda: Room.of(small).pad(other)):
        with pytest.raises(MetatensorError, match=r"types,? .*\[1, 6, 8\]"):
            call()
