"""featomic's stored gradients: right by finite differences, and through JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from systems import ONE, STRAIN, crystal, hypers, molecule, moved, parameters

import metatensor_jax as mts

featomic = pytest.importorskip("featomic")
ase = pytest.importorskip("ase")

OPTIONS = hypers(radius=3.5)
CALCULATORS = ("SphericalExpansion", "SoapPowerSpectrum")


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """featomic computes in double precision."""
    with enable_x64(True):
        yield


def skewed_crystal() -> Any:
    """Sodium chloride, with a cell that no symmetry is left of."""
    atoms = crystal("NaCl", "rocksalt", 5.0)
    skewed = np.array(atoms.cell)
    skewed[[0, 1, 2], [0, 1, 1]] += [0.1, 0.2, 0.1]
    atoms.set_cell(skewed)
    return atoms


def compute(calculator: str, frames: Sequence[Any], gradients: Any) -> mts.TensorMap:
    """What featomic computes, as a map of this library."""
    made = getattr(featomic, calculator)(**OPTIONS)
    computed = made.compute(list(frames), gradients=list(gradients))
    return mts.interop.from_metatensor(computed)


def function_of(
    calculator: str, frames: Sequence[Any], gradients: Sequence[str] = ()
) -> Callable[..., mts.TensorMap]:
    """Call featomic again."""

    def function(**given: mts.TensorBlock) -> mts.TensorMap:
        return compute(calculator, moved(frames, given), gradients)

    return function


# === stored gradients ==============================================================


@pytest.mark.parametrize("calculator", CALCULATORS)
@pytest.mark.parametrize("name", ["positions", "strain"])
def test_stored_gradients_of_several_systems(calculator: str, name: str) -> None:
    frames = [molecule("H2O"), skewed_crystal(), molecule("CH3OH", 1)]
    tensor = compute(calculator, frames, [name])
    report = mts.check_gradients(
        tensor, function_of(calculator, frames), **{name: parameters(frames)[name]}
    )
    assert len(report.checks) == len(tensor)


@pytest.mark.parametrize("calculator", CALCULATORS)
def test_stored_gradients_by_the_cell(calculator: str) -> None:
    """At fixed positions. The axis named xyz goes over the vectors of the cell."""
    frames = [skewed_crystal()]
    tensor = compute(calculator, frames, ["cell"])
    gradient = tensor.block(0).gradient("cell")
    assert [c.names[0] for c in gradient.components[:2]] == ["xyz", "abc"]
    mts.check_gradients(
        tensor, function_of(calculator, frames), cell=parameters(frames)["cell"]
    )


def test_wrong_gradients_of_featomic_are_found() -> None:
    """The other convention of strain, acting on columns, is seen in vectors."""
    frames = [skewed_crystal()]
    tensor = compute("SphericalExpansion", frames, ["strain"])
    strain = parameters(frames)["strain"]

    def on_columns(strain: mts.TensorBlock) -> mts.TensorMap:
        transposed = strain.with_values(np.swapaxes(strain.values, 1, 2))
        return function_of("SphericalExpansion", frames)(strain=transposed)

    report = mts.check_gradients(tensor, on_columns, strain=strain, raises=False)
    wrong = [check for check in report.checks if not check.ok]
    assert wrong
    assert all("o3_lambda=1" in check.key for check in wrong)


def test_gradients_after_keys_became_properties() -> None:
    """As a model takes them."""
    frames = [molecule("H2O"), skewed_crystal()]
    dimensions = ["neighbor_1_type", "neighbor_2_type"]

    def function(gradients: Sequence[str] = (), **given: mts.TensorBlock) -> Any:
        again = function_of("SoapPowerSpectrum", frames, gradients)
        return again(**given).keys_to_properties(dimensions)

    positions = parameters(frames)["positions"]
    tensor = function(["positions"], positions=positions)
    assert tensor.keys.names == ["center_type"]
    mts.check_gradients(tensor, function, positions=positions)


# === through JAX ===================================================================


def energy(features: mts.TensorMap, seed: int = 0) -> Any:
    """A nonlinear model: of each atom, summed over all."""
    rng = np.random.default_rng(seed)
    total: Any = 0.0
    for block in features:
        values = jnp.asarray(block.values)
        weights = jnp.asarray(rng.normal(size=values.shape[1:]))
        total += jnp.tanh(jnp.einsum("i...,...->i", values, weights)).sum()
    return total


def differences(
    function: Callable[[np.ndarray], Any], at: np.ndarray, step: float = 1e-3
) -> np.ndarray:
    """Central differences, extrapolated."""
    result = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        slopes = []
        for h in (step, step / 2):
            up, down = at.copy(), at.copy()
            up[index] += h
            down[index] -= h
            slopes.append((float(function(up)) - float(function(down))) / (2 * h))
        result[index] = (4 * slopes[1] - slopes[0]) / 3
    return result


@pytest.mark.parametrize("calculator", CALCULATORS)
@pytest.mark.parametrize("name", ["positions", "strain", "cell"])
def test_forces_and_virials_by_jax(calculator: str, name: str) -> None:
    """``jax.grad`` through stored gradients, against featomic and the model again."""
    frames = (
        [skewed_crystal()] if name == "cell" else [molecule("H2O"), skewed_crystal()]
    )
    features = compute(calculator, frames, [name])
    parameter = parameters(frames)[name]

    def of_connected(values: Any) -> Any:
        block = parameter.with_values(values)
        return energy(mts.connect_gradients(features, **{name: block}))

    def again(values: np.ndarray) -> Any:
        block = parameter.with_values(values)
        return energy(function_of(calculator, frames)(**{name: block}))

    found = jax.jit(jax.grad(of_connected))(parameter.values)
    expected = differences(again, np.asarray(parameter.values))
    scale = np.abs(expected).max()
    assert scale > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)


def test_positions_and_strain_together() -> None:
    """Both are taken from one program; each is what it is alone."""
    frames = [molecule("H2O"), skewed_crystal()]
    features = compute("SoapPowerSpectrum", frames, ["positions", "strain"])
    blocks = parameters(frames)
    names = ("positions", "strain")

    def of_connected(values: dict[str, Any]) -> Any:
        connected = mts.connect_gradients(
            features, **{n: blocks[n].with_values(v) for n, v in values.items()}
        )
        return energy(connected)

    at = {n: blocks[n].values for n in names}
    both = jax.jit(jax.grad(of_connected))(at)
    for n in names:
        alone = jax.jit(jax.grad(of_connected))({n: at[n]})
        np.testing.assert_allclose(both[n], alone[n], rtol=1e-12, atol=1e-14)


def test_strain_with_its_components_in_the_usual_order() -> None:
    """They are matched by their names: featomic has ``xyz_2`` first."""
    frames = [skewed_crystal()]
    features = compute("SphericalExpansion", frames, ["strain"])
    systems, still = mts.Labels.range("system", 1), np.zeros((1, 3, 3, 1))

    def virial(components: list[mts.Labels]) -> Any:
        def of_connected(values: Any) -> Any:
            block = mts.TensorBlock(values, systems, components, ONE)
            return energy(mts.connect_gradients(features, strain=block))

        return jax.jit(jax.grad(of_connected))(still)[0, ..., 0]

    in_order, other = virial(STRAIN[::-1]), virial(STRAIN)
    assert np.abs(other - other.T).max() > 0.01
    np.testing.assert_array_equal(in_order, other.T)


@pytest.mark.parametrize("calculator", CALCULATORS)
def test_a_system_without_atoms_of_some_type(calculator: str) -> None:
    """Gradient blocks without rows could not be reshaped."""
    frames = [molecule("H2O"), ase.Atoms("Ne", [[0.0, 0.0, 0.0]])]
    both = compute(calculator, frames, ["positions"])
    water = mts.slice(both, "samples", mts.Labels("system", [[0]]))
    rows = [len(block.gradient("positions")) for block in water]
    assert 0 in rows
    assert max(rows) > 0
    positions = parameters(frames[:1])["positions"]

    def of_connected(features: mts.TensorMap) -> Callable[[Any], Any]:
        def function(values: Any) -> Any:
            block = positions.with_values(values)
            return energy(mts.connect_gradients(features, positions=block))

        return function

    found = jax.jit(jax.grad(of_connected(water)))(positions.values)

    def again(values: np.ndarray) -> Any:
        block = positions.with_values(values)
        alone = compute(
            calculator, [*moved(frames[:1], {"positions": block}), frames[1]], []
        )
        return energy(mts.slice(alone, "samples", mts.Labels("system", [[0]])))

    expected = differences(again, np.asarray(positions.values))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 0.01
