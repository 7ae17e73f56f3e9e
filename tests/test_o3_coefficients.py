"""Wigner matrices, Clebsch-Gordan coefficients, and tensors in other bases."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from rotations import XYZ, assert_close, matrices, message, one_block

import metatensor_jax as mts
from metatensor_jax import o3

wigners = pytest.importorskip("wigners")

MOST = 12


def real_from_complex(degree: int) -> np.ndarray:
    """The textbook definition, element by element."""
    matrix = np.zeros((2 * degree + 1,) * 2, complex)
    for m in range(-degree, degree + 1):
        row = matrix[degree + m]
        if m < 0:
            row[degree + m] = 1j / np.sqrt(2)
            row[degree - m] = -1j * (-1) ** m / np.sqrt(2)
        elif m == 0:
            row[degree] = 1
        else:
            row[degree - m] = 1 / np.sqrt(2)
            row[degree + m] = (-1) ** m / np.sqrt(2)
    return matrix


def euler(alpha: float, beta: float, gamma: float) -> np.ndarray:
    def about_z(angle: float) -> np.ndarray:
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])

    c, s = np.cos(beta), np.sin(beta)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return about_z(alpha) @ about_y @ about_z(gamma)


def harmonics_of_degree_2(r: np.ndarray) -> np.ndarray:
    x, y, z = r
    return np.array(
        [x * y, y * z, (2 * z**2 - x**2 - y**2) / 12**0.5, x * z, (x**2 - y**2) / 2]
    )


# === Wigner matrices ===============================================================

ANGLES = [(0.3, 1.1, -2.0), (1.0, 0.0, 0.5), (0.4, np.pi, 2.5), (0.0, 0.0, 0.0)]


@pytest.mark.parametrize("angles", ANGLES)
def test_wigner_matrices_are_those_of_wigners(angles: tuple[float, ...]) -> None:
    """Which has a recursion of its own. Also where Euler angles are not unique."""
    of_complex = wigners.wigner_D_array(MOST, *angles)
    for degree, complex_d in enumerate(of_complex):
        to_real = real_from_complex(degree)
        expected = to_real.conj() @ complex_d @ to_real.T
        assert np.abs(expected.imag).max() < 1e-13
        found = o3.wigner_d(degree, euler(*angles))
        np.testing.assert_allclose(found, expected.real, rtol=0, atol=2e-14)


@pytest.mark.parametrize("degree", [2, 7, MOST])
def test_single_precision(degree: int) -> None:
    """In a program, of matrices that are exactly what they are in double precision."""
    given = matrices(20).astype(np.float32)
    found = jax.jit(lambda x: o3.wigner_d(degree, x))(given)
    assert found.dtype == np.float32
    expected = o3.wigner_d(degree, given.astype(float))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_closed_forms(x64: bool) -> None:
    dtype = np.float64 if x64 else np.float32
    r, (v,) = matrices().astype(dtype), np.random.default_rng(0).normal(size=(1, 3))
    tolerance = 1e-14 if x64 else 1e-6
    for library in (np, jnp):
        d = [np.asarray(o3.wigner_d(l, library.asarray(r))) for l in range(3)]
        assert d[0].tolist() == [[1.0]]
        order = [1, 2, 0]
        np.testing.assert_array_equal(d[1], r[np.ix_(order, order)])
        turned = harmonics_of_degree_2(r @ v)
        np.testing.assert_allclose(
            turned, d[2] @ harmonics_of_degree_2(v), rtol=0, atol=10 * tolerance
        )


@pytest.mark.parametrize("degree", [1, 4, MOST])
def test_products_and_inverses(degree: int) -> None:
    a, b = matrices(6), matrices(6, seed=1)
    d_a, d_b = o3.wigner_d(degree, a), o3.wigner_d(degree, b)
    close = {"rtol": 0, "atol": 2e-13}
    np.testing.assert_allclose(o3.wigner_d(degree, a @ b), d_a @ d_b, **close)
    inverse = o3.wigner_d(degree, a.swapaxes(1, 2))
    np.testing.assert_allclose(inverse, d_a.swapaxes(1, 2), **close)
    unit = np.broadcast_to(np.eye(2 * degree + 1), d_a.shape)
    np.testing.assert_allclose(d_a @ inverse, unit, **close)
    np.testing.assert_array_equal(o3.wigner_d(degree, -a), (-1) ** degree * d_a)


def test_kinds_of_arrays(x64: bool) -> None:
    r = matrices(2).reshape(2, 1, 3, 3).astype(np.float32)
    for degree in (0, 2):
        of_numpy, of_jax = o3.wigner_d(degree, r), o3.wigner_d(degree, jnp.asarray(r))
        assert isinstance(of_numpy, np.ndarray)
        assert isinstance(of_jax, jax.Array)
        assert of_numpy.dtype == of_jax.dtype == np.float32
        assert of_jax.shape == (2, 1, 2 * degree + 1, 2 * degree + 1)
    assert o3.wigner_d(1, np.eye(3, dtype=int)).dtype == np.float64
    for bad, kind in ((-1, mts.MetatensorError), (0.5, TypeError)):
        wrong: Any = bad
        assert "`o3_lambda` must be" in message(lambda w=wrong: o3.wigner_d(w, r), kind)


# === coefficients ==================================================================


def test_coefficients_couple_equivariantly() -> None:
    """By Wigner matrices, of which coefficients of other degrees are a part."""
    r = matrices(improper=False)
    for degrees in ((1, 1, 1), (2, 1, 3), (2, 2, 1), (3, 2, 4), (2, 3, 3)):
        d = [o3.wigner_d(l, r) for l in degrees]
        c = o3.clebsch_gordan(*degrees)
        turned = np.einsum("ai,bj,ck,ijk->abc", *d, c)
        np.testing.assert_allclose(turned, c, rtol=0, atol=1e-14)
        norms = np.einsum("abi,abj->ij", c, c)
        np.testing.assert_allclose(norms, np.eye(len(norms)), rtol=0, atol=1e-14)
        assert not c.flags.writeable
    assert o3.clebsch_gordan(1, 1, 3).tolist() == np.zeros((3, 3, 7)).tolist()


def test_coefficients_are_those_of_featomic() -> None:
    cg = pytest.importorskip("featomic.clebsch_gordan")
    theirs = cg.calculate_cg_coefficients(
        lambda_max=3,
        cg_backend="python-dense",
        arrays_backend="numpy",
        dtype=np.float64,
        device="cpu",
    )
    assert len(theirs) > 20
    for key, block in theirs.items():
        ours = o3.clebsch_gordan(*map(int, key.values))
        np.testing.assert_allclose(ours, block.values[0, ..., 0], rtol=0, atol=1e-15)


def test_labels_of_components() -> None:
    assert o3.spherical_components(2) == mts.Labels(
        "o3_mu", [[m] for m in range(-2, 3)]
    )
    assert "0 or more, got -1" in message(lambda: o3.spherical_components(-1))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "wigners":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    # no other test asks for these
    text = message(lambda: o3.clebsch_gordan(4, 6, 7), ImportError)
    assert "pip install 'metatensor-jax[o3]'" in text
    # nothing is needed for vectors
    o3.rotate(one_block(XYZ), np.eye(3))


# === random matrices ===============================================================


def test_random_matrices_are_uniform(x64: bool) -> None:
    dtype = np.float64 if x64 else np.float32
    draw = jax.jit(
        lambda key, improper: o3.random_matrices(key, 4000, improper=improper),
        static_argnums=1,
    )
    for improper in (False, True):
        found = np.asarray(draw(jax.random.key(0), improper))
        assert found.dtype == dtype
        unit = np.broadcast_to(np.eye(3), found.shape)
        np.testing.assert_allclose(
            found @ found.swapaxes(1, 2), unit, rtol=0, atol=1e-14 if x64 else 1e-6
        )
        signs = np.linalg.det(found)
        assert abs((signs < 0).mean() - (0.5 if improper else 0)) < 0.03
        # the average of every Wigner matrix is zero
        for degree in (1, 2):
            mean = o3.wigner_d(degree, found).mean(axis=0)
            assert np.abs(mean).max() < 0.05


def test_random_matrices_of_other_kinds() -> None:
    key = jax.random.key(1)
    assert o3.random_matrices(key).shape == (3, 3)
    assert o3.random_matrices(key, 0).shape == (0, 3, 3)
    assert "jax_enable_x64" in message(
        lambda: o3.random_matrices(key, dtype="float64"), TypeError
    )
    with enable_x64(True):
        assert o3.random_matrices(key, dtype="float32").dtype == np.float32


# === Cartesian and spherical =======================================================


def cartesian(rank: int, dtype: Any, gradients: bool = True) -> mts.TensorMap:
    rng, names = np.random.default_rng(0), ["xyz_1", "xyz_2"][:rank]
    p, systems = mts.Labels.range("p", 2), mts.Labels.range("system", 3)
    axes = [mts.Labels.range("kind", 2), *(mts.Labels.range(x, 3) for x in names)]
    rows = mts.Labels(["sample", "atom"], [[0, 0], [0, 1], [2, 0]])

    def block(labels: mts.Labels, components: list[mts.Labels], **inner: Any) -> Any:
        shape = (len(labels), *map(len, components), len(p))
        values = rng.normal(size=shape).astype(dtype)
        return mts.TensorBlock(values, labels, components, p, inner)

    blocks = []
    for _ in range(2):
        inner = {"positions": block(rows, [XYZ, *axes])} if gradients else {}
        blocks.append(block(systems, axes, **inner))
    keys = mts.Labels("center_type", [[1], [8]])
    return mts.TensorMap(keys, blocks, {"unit": "Å"})


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_there_and_back(x64: bool, rank: int, how: Callable[..., Any]) -> None:
    tensor = cartesian(rank, np.float64 if x64 else np.float32)
    names = ["xyz_1", "xyz_2"][:rank]
    spherical = how(lambda x: o3.cartesian_to_spherical(x, names))(tensor)
    assert len(spherical) == 2 * (1 if rank == 1 else 3)
    assert spherical.component_names == ["kind", "o3_mu"]
    back = how(lambda x: o3.spherical_to_cartesian(x, names))(spherical)
    assert_close(back, tensor)
    assert back.get_info("unit") == "Å"


@pytest.mark.parametrize("rank", [1, 2])
def test_they_commute_with_rotations(x64: bool, rank: int) -> None:
    tensor = cartesian(rank, np.float64 if x64 else np.float32)
    names, given = ["xyz_1", "xyz_2"][:rank], matrices(3)
    kinds: Any = {"kind": "invariant"}
    after = o3.rotate(o3.cartesian_to_spherical(tensor, names), given, components=kinds)
    before = o3.cartesian_to_spherical(
        o3.rotate(tensor, given, components=kinds), names
    )
    assert_close(after, before)


@pytest.mark.parametrize("rank", [1, 2])
def test_they_are_those_of_featomic(rank: int) -> None:
    featomic = pytest.importorskip("featomic.clebsch_gordan")
    metatensor = pytest.importorskip("metatensor")
    tensor = cartesian(rank, np.float64, gradients=False)
    names = ["xyz_1", "xyz_2"][:rank]
    theirs = featomic.cartesian_to_spherical(
        metatensor.TensorMap.load_buffer(np.asarray(tensor.save_buffer())), names
    )
    with enable_x64(True):
        ours = o3.cartesian_to_spherical(tensor, names)
    assert ours.keys.names == list(theirs.keys.names)
    assert ours.keys.values.tolist() == theirs.keys.values.tolist()
    for mine, its in zip(ours, theirs.blocks(), strict=True):
        assert mine.components[-1].names == its.components[-1].names
        np.testing.assert_allclose(mine.values, its.values, rtol=0, atol=1e-14)


def test_parts_of_a_tensor() -> None:
    """Dipoles are (y, z, x), and a symmetric tensor has no pseudovector."""
    vector = one_block(XYZ)
    x, y, z = vector.block().values.ravel().tolist()
    found = o3.cartesian_to_spherical(vector, "xyz").block(o3_lambda=1, o3_sigma=1)
    assert found.values.ravel().tolist() == [y, z, x]
    tensor = one_block(mts.Labels.range("xyz_1", 3), mts.Labels.range("xyz_2", 3))
    t = tensor.block().values
    symmetric = mts.TensorMap(
        tensor.keys, [tensor.block().with_values(t + t.swapaxes(1, 2))]
    )
    parts = o3.cartesian_to_spherical(symmetric, ["xyz_1", "xyz_2"])
    trace = parts.block(o3_lambda=0).values.ravel()
    np.testing.assert_allclose(
        trace, -2 * np.trace(t[0, ..., 0]) / np.sqrt(3), rtol=1e-6
    )
    assert np.abs(parts.block(o3_lambda=1).values).max() < 1e-7
    # what is not there is zero
    kept = mts.drop_blocks(parts, mts.Labels("o3_lambda", [[1]]))
    assert_close(o3.spherical_to_cartesian(kept, ["xyz_1", "xyz_2"]), symmetric)


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows(n: int) -> None:
    axis, p = mts.Labels.range("xyz_1", 3), mts.Labels.range("p", 1)
    block = mts.TensorBlock(
        np.ones((n, 3, 1), np.float32), mts.Labels.range("system", n), [axis], p
    )
    tensor = mts.TensorMap(mts.Labels.single(), [block])
    spherical = o3.cartesian_to_spherical(tensor, "xyz_1")
    assert_close(o3.spherical_to_cartesian(spherical, "xyz_1"), tensor)


def test_maps_without_blocks() -> None:
    names = ["xyz_1", "xyz_2"]
    tensor = mts.TensorMap(mts.Labels.empty("center_type"), [])
    spherical = o3.cartesian_to_spherical(tensor, names)
    assert spherical.keys.names == ["o3_lambda", "o3_sigma", "center_type"]
    assert o3.spherical_to_cartesian(spherical, names).keys == tensor.keys


def test_padded_targets() -> None:
    """Rows of padding stay such."""
    names = ["xyz_1", "xyz_2"]
    tensor = cartesian(2, np.float32, gradients=False)
    layout = mts.Layout.fit([{"t": tensor}], systems=5)
    batch = layout.pad({"t": tensor})
    there = jax.jit(lambda x: o3.cartesian_to_spherical(x, names))(batch["t"])
    back = jax.jit(lambda x: o3.spherical_to_cartesian(x, names))(there)
    assert_close(layout.unpad(back, batch.systems), tensor)


def test_messages() -> None:
    def to(tensor: mts.TensorMap, *names: str) -> str:
        return message(lambda: o3.cartesian_to_spherical(tensor, list(names)))

    def back(tensor: mts.TensorMap, *names: str) -> str:
        return message(lambda: o3.spherical_to_cartesian(tensor, list(names)))

    vector = one_block(XYZ)
    assert "no component 'abc', the components are ['xyz']" in to(vector, "abc")
    assert "tensors of rank 1 and 2), got ['a', 'b', 'c']" in to(vector, "a", "b", "c")
    assert "got ['xyz', 'xyz']" in to(vector, "xyz", "xyz")
    assert "are [0, 1]" in to(one_block(mts.Labels.range("xyz", 2)), "xyz")
    keyed = one_block(XYZ, names=("o3_sigma",), key=(1,))
    assert "have ['o3_sigma'] already" in to(keyed, "xyz")
    assert "lack ['o3_lambda']" in back(keyed, "xyz")
    wide = one_block(
        o3.spherical_components(3), names=("o3_lambda", "o3_sigma"), key=(3, 1)
    )
    assert "in [(1, 1)], not (3, 1)" in back(wide, "xyz")
    flat = one_block(XYZ, names=("o3_lambda", "o3_sigma"), key=(1, 1))
    assert "'o3_mu' from -1 to 1" in back(flat, "xyz")
    both = one_block(
        XYZ, o3.spherical_components(1), names=("o3_lambda", "o3_sigma"), key=(1, 1)
    )
    assert "['xyz', 'o3_mu'], so ['xyz'] can not be" in back(both, "xyz")
    assert "['xyz', 'o3_mu'], so ['o3_mu'] can not be" in to(
        one_block(XYZ, o3.spherical_components(1)), "xyz"
    )
    parts = o3.cartesian_to_spherical(cartesian(1, np.float32), "xyz_1")
    text = back(parts, "xyz")
    assert "components of the gradient with respect to 'positions' are" in text
    assert "so ['xyz'] can not be the name of another one" in text
    integers = vector.to(dtype=np.int32)
    text = message(lambda: o3.cartesian_to_spherical(integers, "xyz"), TypeError)
    assert "int32" in text


def test_parts_that_do_not_fit() -> None:
    parts = o3.cartesian_to_spherical(cartesian(2, np.float32), ["xyz_1", "xyz_2"])
    blocks = parts.blocks()
    columns = mts.Labels("p", [[0], [5]])
    wrong = mts.TensorBlock(
        blocks[1].values, blocks[1].samples, blocks[1].components, columns
    )
    bare = [mts.remove_gradients_block(block) for block in blocks]
    tensor = mts.TensorMap(parts.keys, [bare[0], wrong, *bare[2:]])
    text = message(
        lambda: o3.spherical_to_cartesian(tensor, ["xyz_1", "xyz_2"]),
        mts.NotEqualError,
    )
    assert "parts of one tensor should have the same properties" in text
