"""torch-spex's expansions: the same numbers and labels that featomic computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts

torch: Any = pytest.importorskip("torch")
featomic: Any = pytest.importorskip("featomic")
pytest.importorskip("spex", exc_type=ImportError)

from ase.neighborlist import neighbor_list  # noqa: E402
from frames import salt  # noqa: E402
from systems import molecule  # noqa: E402

from metatensor_jax.interop import ase as structures  # noqa: E402

# featomic computes in 64 bits, also where JAX is in its 32-bit mode
pytestmark = pytest.mark.filterwarnings("ignore:the data is float64:UserWarning")

RADIUS, MAX_ANGULAR, MAX_RADIAL, ACCURACY = 4.0, 2, 2, 1e-9


@pytest.fixture
def frames() -> list[Any]:
    return [molecule("H2O"), molecule("HCN"), salt()]


def by_spex(frames: list[Any], dtype: Any, requires_grad: bool = False) -> Any:
    package = pytest.importorskip("spex.metatensor", exc_type=ImportError)
    atoms = structures.samples(frames, "atom", center_type=True)
    starts = np.cumsum([0, *map(len, frames)])
    parts = [neighbor_list("Dij", frame, RADIUS) for frame in frames]
    vectors = np.concatenate([part[0] for part in parts])
    pairs = [
        np.concatenate([part[k] + s for part, s in zip(parts, starts, strict=False)])
        for k in (1, 2)
    ]
    integers = [
        torch.tensor(column.astype(np.int32))
        for column in (
            *pairs,
            *(atoms.column(name) for name in ("center_type", "system", "atom")),
        )
    ]
    radial = {"max_radial": MAX_RADIAL, "trim": False, "spliner_accuracy": ACCURACY}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # of the splines
    try:
        expand = package.SphericalExpansion(
            RADIUS,
            max_angular=MAX_ANGULAR,
            radial={"LaplacianEigenstates": radial},
            species={
                "Orthogonal": {"species": np.unique(integers[2].numpy()).tolist()}
            },
            cutoff_function={"ShiftedCosine": {"width": 0.5}},
        )
    finally:
        torch.set_default_dtype(before)
    R_ij = torch.tensor(vectors, dtype=dtype, requires_grad=requires_grad)
    return expand(R_ij, *integers)


def by_featomic(frames: list[Any]) -> mts.TensorMap:
    bessel = {
        l: featomic.basis.SphericalBessel(
            angular_channel=l, max_radial=MAX_RADIAL, radius=RADIUS
        )
        for l in range(MAX_ANGULAR + 1)
    }
    splines = featomic.splines.SoapSpliner(
        cutoff=featomic.cutoff.Cutoff(
            radius=RADIUS, smoothing=featomic.cutoff.ShiftedCosine(width=0.5)
        ),
        density=featomic.density.DiracDelta(center_atom_weight=0.0),
        basis=featomic.basis.Explicit(by_angular=bessel, spline_accuracy=ACCURACY),
    )
    calculator = featomic.SphericalExpansion(**splines.get_hypers())
    return mts.interop.from_metatensor(calculator.compute(frames))


@pytest.mark.parametrize(
    ("dtype", "atol"), [("float32", 2e-6), ("float64", 1e-8)], ids=str
)
def test_equal_to_featomic(frames: list[Any], dtype: str, atol: float) -> None:
    with enable_x64(dtype == "float64"):
        theirs = by_spex(frames, getattr(torch, dtype))
        ours = mts.interop.from_metatensor(theirs)
    assert ours.dtype == np.dtype(dtype)
    expected = by_featomic(frames)
    assert set(expected.keys.names) == set(ours.keys.names)
    largest = 0.0
    for key, block in expected.items():
        found = ours.block(key)
        assert found.components == block.components
        assert found.properties == block.properties
        rows = found.samples.select(block.samples)
        assert len(rows) == len(block)
        values = np.asarray(found.values)
        np.testing.assert_allclose(values[rows], block.values, rtol=0, atol=atol)
        # featomic leaves out atoms that have no neighbor of this type
        assert not np.delete(values, rows, axis=0).any()
        largest = max(largest, np.abs(block.values).max(initial=0))
    assert largest > 0.1
    for key, block in ours.items():
        assert key in expected.keys or not block.values.any()


def test_no_copy(frames: list[Any]) -> None:
    theirs = by_spex(frames, torch.float32)
    ours = mts.interop.from_metatensor(theirs)
    for i, block in enumerate(ours):
        assert block.values.ctypes.data == theirs.block(i).values.data_ptr()


def test_values_that_require_gradients(frames: list[Any]) -> None:
    theirs = by_spex(frames, torch.float32, requires_grad=True)
    with pytest.raises(mts.MetatensorError, match="detach"):
        mts.interop.from_metatensor(theirs)
