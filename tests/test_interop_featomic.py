"""featomic's maps in memory, from its features to energies, forces and stress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from frames import moved, salt
from systems import hypers, molecule

import metatensor_jax as mts

featomic: Any = pytest.importorskip("featomic")
pytest.importorskip("ase")
pytest.importorskip("metatensor")

from metatensor_jax.interop import ase as structures  # noqa: E402

# featomic computes in 64 bits, also where JAX is in its 32-bit mode
pytestmark = pytest.mark.filterwarnings("ignore:the data is float64:UserWarning")

OPTIONS = hypers(radius=3.5)
CALCULATORS = ("SphericalExpansion", "SoapPowerSpectrum")


def computed(calculator: str, frames: Any, gradients: Any = ()) -> Any:
    made = getattr(featomic, calculator)(**OPTIONS)
    return made.compute(list(frames), gradients=list(gradients))


@pytest.fixture
def double() -> Iterator[None]:
    with enable_x64(True):
        yield


@pytest.mark.parametrize("calculator", CALCULATORS)
def test_maps_come_without_a_copy(calculator: str, x64: bool) -> None:
    names = ["positions", "strain", "cell"]
    theirs = computed(calculator, [salt(), salt()], names)
    ours = mts.interop.from_metatensor(theirs)
    assert ours.dtype == np.float64
    mts.equal_raise(ours, mts.TensorMap.load_buffer(theirs.save_buffer()))
    for i, block in enumerate(ours):
        other = theirs.block(i)
        assert np.shares_memory(block.values, other.values)
        assert sorted(block.gradients_list()) == sorted(names)
        for name, gradient in block.gradients():
            assert np.shares_memory(gradient.values, other.gradient(name).values)


def test_features_outlive_the_object_of_featomic() -> None:
    frames = [molecule("H2O")]
    kept = mts.interop.from_metatensor(computed("SoapPowerSpectrum", frames))
    again = mts.interop.from_metatensor(computed("SoapPowerSpectrum", frames))
    mts.equal_raise(kept, again)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["positions", "strain", "cell"])
@pytest.mark.parametrize("calculator", CALCULATORS)
def test_parameters_of_structures_fit(calculator: str, name: str) -> None:
    """Stored gradients are derivatives by what ``interop.ase.parameters`` gives."""
    frames = [salt()] if name == "cell" else [molecule("HCN"), salt()]

    def function(**given: mts.TensorBlock) -> mts.TensorMap:
        theirs = computed(calculator, moved(frames, given))
        return mts.interop.from_metatensor(theirs)

    tensor = mts.interop.from_metatensor(computed(calculator, frames, [name]))
    at = structures.parameters(frames, name)
    report = mts.check_gradients(tensor, function, **at)
    assert len(report.checks) == len(tensor)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_into_a_jitted_model(dtype: Any) -> None:
    """Energies, forces, stress and the slope by the cell, of both precisions."""
    frames = [salt(), salt()]
    frames[1].rattle(0.05, seed=3)
    names = ["positions", "strain", "cell"]
    features = mts.interop.from_metatensor(
        computed("SoapPowerSpectrum", frames, names)
    ).to(dtype=dtype)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=block.shape[-1]).astype(dtype) for block in features]

    def energy(features: mts.TensorMap) -> Any:
        values = [
            jnp.tanh(jnp.asarray(block.values) @ w).sum()
            for block, w in zip(features, weights, strict=True)
        ]
        return sum(values)

    with enable_x64(dtype == np.float64):
        at = structures.parameters(frames, *names, dtype=dtype)

        @jax.jit
        def slopes(values: dict[str, Any]) -> Any:
            def total(values: dict[str, Any]) -> Any:
                blocks: dict[str, Any] = {
                    name: at[name].with_values(x) for name, x in values.items()
                }
                return energy(mts.connect_gradients(features, **blocks))

            return jax.grad(total)(values)

        found = slopes({name: block.values for name, block in at.items()})
        for name in names:
            assert found[name].dtype == dtype
            _check(frames, weights, name, np.asarray(found[name]), dtype)


def _check(frames: Any, weights: Any, name: str, found: np.ndarray, dtype: Any) -> None:
    """Central differences of featomic and the model, all with NumPy in 64 bits."""
    at = structures.parameters(frames, name)[name]

    def energy(values: np.ndarray) -> float:
        given = {name: at.with_values(values)}
        theirs = computed("SoapPowerSpectrum", moved(frames, given))
        return float(
            sum(
                np.tanh(block.values @ w).sum()
                for block, w in zip(theirs.blocks(), weights, strict=True)
            )
        )

    values, h = np.asarray(at.values), 1e-4
    scale = np.abs(found).max()
    assert scale > 0.01
    for index in list(np.ndindex(values.shape))[::2]:
        step = np.zeros(values.shape)
        step[index] = h
        slope = (energy(values + step) - energy(values - step)) / (2 * h)
        atol = (1e-4 if dtype == np.float32 else 1e-6) * scale
        np.testing.assert_allclose(found[index], slope, rtol=0, atol=atol)
