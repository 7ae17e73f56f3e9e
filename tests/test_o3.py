"""Rotations and reflections of maps, against featomic and against their definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import assert_same, enable_x64
from rotations import XYZ, assert_close, by_hand, matrices, one_block, spherical
from systems import crystal, hypers, molecule

import metatensor_jax as mts
from metatensor_jax import o3

pytest.importorskip("wigners")

# === against the definition ========================================================


@pytest.mark.parametrize("n", [None, 3], ids=["one matrix", "one for each system"])
@pytest.mark.parametrize("how", ["eager", "jit", "traced"])
def test_all_axes_of_all_arrays_turn(x64: bool, n: int | None, how: str) -> None:
    tensor = spherical(dtype=np.float64 if x64 else np.float32)
    given = matrices(n)
    expected = by_hand(tensor, given)
    if how == "eager":
        result = o3.rotate(tensor, given)
    elif how == "jit":
        result = jax.jit(lambda x: o3.rotate(x, given))(tensor)
    else:
        result = jax.jit(o3.rotate)(tensor, given.astype(tensor.dtype))
    assert_close(result, expected)
    assert result.block(0).has_gradient("positions")


@pytest.mark.parametrize("systems", [(), (1,)], ids=["no rows", "one row"])
@pytest.mark.parametrize("n", [None, 2])
def test_few_rows(x64: bool, systems: tuple[int, ...], n: int | None) -> None:
    tensor = spherical(systems=systems, dtype=np.float64 if x64 else np.float32)
    given = matrices(n)
    assert_close(o3.rotate(tensor, given), by_hand(tensor, given))
    assert_close(jax.jit(lambda x: o3.rotate(x, given))(tensor), by_hand(tensor, given))


def test_vmap_over_matrices(x64: bool) -> None:
    """Many turned copies of a map in one program."""
    tensor = spherical(dtype=np.float64 if x64 else np.float32)
    given = matrices(4).astype(tensor.dtype)
    stacked = jax.jit(jax.vmap(o3.rotate, (None, 0)))(tensor, given)
    for i, matrix in enumerate(given):
        one = jax.tree.map(lambda x, i=i: x[i], stacked)
        assert_close(one, by_hand(tensor, matrix))


def test_vmap_over_maps(x64: bool) -> None:
    dtype = np.float64 if x64 else np.float32
    tensors = [spherical(dtype=dtype, seed=i) for i in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *tensors)
    given = matrices(2).astype(dtype)
    turned = jax.jit(jax.vmap(o3.rotate))(stacked, given)
    for i in range(2):
        one = jax.tree.map(lambda x, i=i: x[i], turned)
        assert_close(one, by_hand(tensors[i], given[i]))


def test_a_rotation_back_gives_the_map_itself(x64: bool) -> None:
    tensor = spherical(dtype=np.float64 if x64 else np.float32)
    given = matrices(3)
    back = o3.rotate(o3.rotate(tensor, given), given.swapaxes(1, 2))
    assert_close(back, tensor)


def test_a_map_without_blocks() -> None:
    tensor = mts.TensorMap(mts.Labels.empty("o3_lambda"), [])
    assert_same(o3.rotate(tensor, np.eye(3)), tensor)


def test_what_does_not_turn_is_not_touched() -> None:
    tensor = spherical(((0, 1),))
    turned = o3.rotate(tensor, matrices())
    assert turned.block().values is tensor.block().values
    assert isinstance(turned.block().gradient("charge").values, np.ndarray)
    assert not np.array_equal(
        turned.block().gradient("positions").values,
        tensor.block().gradient("positions").values,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
def test_other_dtypes_stay(dtype: str) -> None:
    tensor = spherical().to(dtype=dtype)
    turned = o3.rotate(tensor, matrices(3))
    assert turned.dtype == tensor.dtype
    expected = by_hand(spherical(), matrices(3))
    eps = float(jnp.finfo(dtype).eps)
    for one, other in zip(turned, expected, strict=True):
        found = np.asarray(one.values).astype(np.complex64)
        np.testing.assert_allclose(found, other.values, rtol=0, atol=10 * eps)


# === gradients, and derivatives ====================================================


def test_derivatives_by_the_matrices_are_right(x64: bool) -> None:
    """Along a rotation about an axis, by finite differences in double precision."""
    dtype = np.float64 if x64 else np.float32
    tensor, start = spherical(((1, 1), (4, -1)), dtype=dtype), matrices(3)
    axis = np.array([[0, -0.3, 0.5], [0.3, 0, -0.8], [-0.5, 0.8, 0]])

    def scalar(turned: mts.TensorMap) -> Any:
        leaves = jax.tree.leaves(turned)
        return sum(((x * (x + 1) * (x - 2)).sum() for x in leaves), 0.0)

    slope = jax.jit(jax.grad(lambda m: scalar(o3.rotate(tensor, m))))
    found = (np.asarray(slope(start.astype(dtype))) * (axis @ start)).sum()
    with enable_x64(True):
        wide, h = tensor.to(dtype=np.float64), 1e-3

        @jax.jit
        def at(angle: Any) -> Any:
            turn = jax.scipy.linalg.expm(angle * jnp.asarray(axis))
            return scalar(o3.rotate(wide, turn @ start))

        slopes = [float(at(x) - at(-x)) / (2 * x) for x in (h, h / 2)]
        expected = (4 * slopes[1] - slopes[0]) / 3
    assert abs(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-6 if x64 else 1e-4)


def test_derivatives_are_finite_where_angles_are_not_defined() -> None:
    """Euler angles have no derivative at the identity."""
    tensor = spherical(((5, 1),))
    jacobian = jax.jit(jax.jacfwd(lambda m: jax.tree.leaves(o3.rotate(tensor, m))))
    for x in jacobian(np.eye(3, dtype=np.float32)):
        assert np.isfinite(x).all()


def test_stored_gradients_agree_with_finite_differences() -> None:
    """Of a vector field, whose parameter turns as well."""
    with enable_x64(True):
        rng, r = np.random.default_rng(1), matrices(seed=3)
        atoms = mts.Labels(["system", "atom"], [[0, 0], [0, 1]])
        positions = mts.TensorBlock(
            rng.normal(size=(2, 3, 1)), atoms, [XYZ], mts.Labels.single()
        )

        def dipole(positions: mts.TensorBlock) -> mts.TensorMap:
            x = jnp.asarray(positions.values)[..., 0]
            field = jnp.exp(-(x**2).sum(1, keepdims=True)) * x + jnp.cross(x[0], x)
            system = mts.Labels.range("system", 1)
            axis = [mts.Labels.range("xyz_1", 3)]
            values = field.sum(0)[None, :, None]
            block = mts.TensorBlock(values, system, axis, mts.Labels.single())
            return mts.TensorMap(mts.Labels.single(), [block])

        def of_turned(positions: mts.TensorBlock) -> mts.TensorMap:
            # the field of positions that were turned is the field, turned
            back = jnp.einsum("ji,ajp->aip", r, jnp.asarray(positions.values))
            return o3.rotate(dipole(positions.with_values(back)), r)

        stored = mts.compute_gradients(dipole, positions=positions)
        turned = o3.rotate(stored, r)
        there = positions.with_values(np.einsum("ij,ajp->aip", r, positions.values))
        mts.check_gradients(turned, of_turned, positions=there)


# === batches =======================================================================


def test_padded_batches(x64: bool) -> None:
    tensor = spherical(systems=(3, 3, 7, 9), dtype=np.float64 if x64 else np.float32)
    layout = mts.Layout.fit([{"x": tensor}], systems=5)
    batch = layout.pad({"x": tensor})
    given = matrices(5)
    # the systems are 0, 1 and 2 in the batch
    own = np.stack([np.eye(3)] * 10)
    own[[3, 7, 9]] = given[:3]
    for how in (lambda f: f, jax.jit):
        turned = how(o3.rotate)(batch["x"], given.astype(tensor.dtype))
        result = layout.unpad(turned, batch.systems)
        assert_close(result, by_hand(tensor, own))


def test_padding_gives_no_nan_in_derivatives() -> None:
    tensor = spherical()
    layout = mts.Layout.fit([{"x": spherical(systems=(0,) * 20)}], systems=3)
    batch = layout.pad({"x": tensor})

    @jax.jit
    @jax.grad
    def slope(values: Any, given: Any) -> Any:
        block = batch["x"].block(1).with_values(values)
        turned = o3.rotate_block(block, given)
        kept = jnp.where(block.mask[:, None, None], turned.values, 0.0)
        return (kept**2).sum()

    found = slope(batch["x"].block(1).values, matrices(3).astype(np.float32))
    assert np.isfinite(found).all()


def test_one_program_for_all_matrices(compiled: Callable[[], int]) -> None:
    tensor = spherical()
    turn = jax.jit(o3.rotate)
    turn(tensor, matrices(3).astype(np.float32))
    compiled()
    turn(tensor, matrices(3, seed=1).astype(np.float32))
    assert compiled() == 0


def test_a_traced_system_without_a_matrix_is_nan() -> None:
    block = spherical(((1, 1),)).block()
    traced = mts.Labels.traced(block.samples.names, jnp.asarray(block.samples.values))
    block = mts.TensorBlock(
        block.values, traced, block.components, block.properties, {}
    )
    turned = o3.rotate_block(block, matrices(2))
    is_nan = np.isnan(turned.values).all(axis=(1, 2))
    assert is_nan.tolist() == [False, False, False, True]


# === components ====================================================================


def test_tensors_of_rank_2() -> None:
    axes = [mts.Labels.range("xyz_1", 3), mts.Labels.range("xyz_2", 3)]
    tensor, r = one_block(*axes), matrices()
    t = tensor.block().values[0, ..., 0]
    turned = o3.rotate(tensor, r).block().values[0, ..., 0]
    np.testing.assert_allclose(turned, r @ t @ r.T, atol=1e-6)


def test_products_of_spherical_harmonics() -> None:
    """As blocks of Hamiltonians have them."""
    names = ("o3_lambda_1", "o3_sigma_1", "o3_lambda_2", "o3_sigma_2")
    axes = [
        o3.spherical_components(n).rename("o3_mu", f"o3_mu_{i}")
        for i, n in ((1, 1), (2, 2))
    ]
    tensor = one_block(*axes, names=names, key=(1, 1, 2, -1))
    r = matrices()
    h = tensor.block().values[0, ..., 0]
    turned = o3.rotate(tensor, r).block().values[0, ..., 0]
    expected = -o3.wigner_d(1, r) @ h @ o3.wigner_d(2, r).T
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_pseudovectors_do_not_feel_an_inversion() -> None:
    tensor = one_block(XYZ, names=("o3_sigma",), key=(-1,))
    turned = o3.rotate(tensor, -np.eye(3))
    np.testing.assert_array_equal(turned.block().values, tensor.block().values)


def test_how_components_turn_can_be_said() -> None:
    direction, m = mts.Labels.range("direction", 3), mts.Labels("m", [[-1], [0], [1]])
    kind = mts.Labels.range("kind", 2)
    r, tensor = matrices(), one_block(direction, m, kind)
    turned = o3.rotate(
        tensor,
        r,
        components={"direction": "vector", "m": "spherical", "kind": "invariant"},
    )
    expected = np.einsum(
        "ij,mn,sjnkp->simkp", r, o3.wigner_d(1, r), tensor.block().values
    )
    np.testing.assert_allclose(turned.block().values, expected, atol=1e-6)


# === featomic ======================================================================


def turned_frame(frame: Any, r: np.ndarray) -> Any:
    frame = frame.copy()
    frame.positions = frame.positions @ r.T
    frame.cell = np.array(frame.cell) @ r.T
    return frame


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize(
    ("names", "parameters"),
    [(["H2O", "HCN"], ["positions"]), (["NaCl"], ["strain", "cell"])],
)
def test_features_of_turned_systems(
    names: list[str], parameters: list[str], improper: bool
) -> None:
    """featomic's axes by the cell are [xyz, abc], the second one over directions."""
    featomic = pytest.importorskip("featomic")
    options = hypers(radius=3.5)
    options["basis"]["max_angular"] = 4
    calculator = featomic.SphericalExpansion(**options)

    def features(frames: Any) -> mts.TensorMap:
        computed = calculator.compute(frames, gradients=parameters)
        return mts.TensorMap.load_buffer(computed.save_buffer())

    is_crystal = names == ["NaCl"]
    frames = [
        crystal(name, "rocksalt", 5.0) if is_crystal else molecule(name)
        for name in names
    ]
    given = matrices(len(frames), improper=improper)
    with enable_x64(True):
        pairs = zip(frames, given, strict=True)
        expected = features([turned_frame(*pair) for pair in pairs])
        before = features(frames)
        assert_close(o3.rotate(before, given), expected)
    key = 4, 1, *((11, 17) if is_crystal else (1, 1))
    change = before[before.keys.position(key)], expected[expected.keys.position(key)]
    assert np.abs(change[0].values - change[1].values).max() > 1e-3


# === equivariant operations ========================================================


def test_operations_commute_with_rotations(x64: bool) -> None:
    """Sums over samples, and linear layers without a bias: one for each key."""
    pytest.importorskip("equinox")
    from metatensor_jax.learn import nn

    dtype = np.float64 if x64 else np.float32
    tensor, given = spherical(dtype=dtype), matrices(3)
    linear = nn.Linear(
        tensor.keys, 2, 3, bias=False, dtype=dtype, key=jax.random.key(0)
    )

    def model(x: mts.TensorMap) -> mts.TensorMap:
        return mts.sum_over_samples(linear(x), "atom")

    @jax.jit
    def both(x: mts.TensorMap) -> tuple[mts.TensorMap, mts.TensorMap]:
        return model(o3.rotate(x, given)), o3.rotate(model(x), given)

    assert_close(*both(tensor))
