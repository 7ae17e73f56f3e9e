"""Operations whose result is not made of blocks, and blocks made of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from structures import STRUCTURES, traced

import metatensor_jax as mts
from metatensor_jax import Labels, NotEqualError


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with enable_x64(True):
        yield


SOME = ["no_gradients", "several", "nested", "complex", "no_samples", "no_blocks"]


@pytest.fixture(params=SOME)
def tensor(request: pytest.FixtureRequest) -> mts.TensorMap:
    return STRUCTURES[request.param].input().stored()


# --- comparison --------------------------------------------------------------------

KINDS = ["equal", "allclose", "equal_metadata"]


def _shifted(tensor: mts.TensorMap, by: float) -> mts.TensorMap:
    """The map with another first element in its last array, a gradient if any."""
    leaves, tree = jax.tree.flatten(tensor)
    last = np.array(leaves[-1])
    last.reshape(-1)[0] += by
    return jax.tree.unflatten(tree, [*leaves[:-1], last])


CHANGES: dict[str, Callable[[mts.TensorMap], mts.TensorMap]] = {
    "a copy": lambda x: x.copy(),
    "info": lambda x: x.with_info("some", "text"),
    "keys in another order": lambda x: mts.sort(x, "keys", descending=True),
    "rounding": lambda x: _shifted(x, 1e-14),
    "a value": lambda x: _shifted(x, 0.1),
    "precision": lambda x: x.to("float32"),
    "samples": lambda x: mts.sort(x, "samples"),
    "a sample name": lambda x: mts.rename_dimension(x, "samples", "atom", "center"),
    "a property": lambda x: mts.append_dimension(x, "properties", "m", 0),
    "gradients": mts.remove_gradients,
}
#: which questions are answered by yes
SAME = {
    "a copy": set(KINDS),
    "info": set(KINDS),
    "keys in another order": set(KINDS),
    "rounding": {"allclose", "equal_metadata"},
    "a value": {"equal_metadata"},
    "precision": {"allclose", "equal_metadata"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_comparison(kind, change):
    x = STRUCTURES["several"].input().stored()
    y = CHANGES[change](x)
    expected = kind in SAME.get(change, set())
    assert getattr(mts, kind)(x, y) is expected
    if expected:
        getattr(mts, f"{kind}_raise")(x, y)
    else:
        with pytest.raises(NotEqualError):
            getattr(mts, f"{kind}_raise")(x, y)
    pairs = list(zip(x, mts.sort(y, "keys") if "keys" in change else y, strict=True))
    if "keys" in change:
        pairs = list(zip(mts.sort(x, "keys"), mts.sort(y, "keys"), strict=True))
    of_blocks = [getattr(mts, f"{kind}_block")(a, b) for a, b in pairs]
    assert all(of_blocks) is expected
    for (a, b), same in zip(pairs, of_blocks, strict=True):
        if same:
            getattr(mts, f"{kind}_block_raise")(a, b)
        else:
            with pytest.raises(NotEqualError):
                getattr(mts, f"{kind}_block_raise")(a, b)


def test_a_map_is_the_same_as_itself(tensor):
    for kind in KINDS:
        assert getattr(mts, kind)(tensor, tensor.copy()) is True
        assert all(getattr(mts, f"{kind}_block")(b, b.copy()) for b in tensor)


@pytest.mark.parametrize(
    ("check", "expected"),
    [("all", False), ("samples", False), ("properties", True), (["components"], True)],
)
def test_metadata_of_some_axes(check, expected):
    x = STRUCTURES["several"].input().stored()
    y = mts.rename_dimension(x, "samples", "atom", "center")
    assert mts.equal_metadata(x, y, check) is expected


def test_metadata_without_gradients():
    x = STRUCTURES["several"].input().stored()
    y = mts.remove_gradients(x)
    assert mts.equal_metadata(x, y, check_gradients=False)
    assert not mts.equal_metadata(x, y)


@pytest.mark.parametrize("equal_nan", [False, True])
def test_nan(equal_nan):
    x = _shifted(STRUCTURES["dense"].input().stored(), np.nan)
    assert not mts.equal(x, x.copy())
    assert mts.allclose(x, x.copy(), equal_nan=equal_nan) is equal_nan


def test_tolerances():
    x = STRUCTURES["dense"].input().stored()
    y = _shifted(x, 1e-3)
    assert not mts.allclose(x, y, rtol=0.0, atol=0.9e-3)
    assert mts.allclose(x, y, rtol=0.0, atol=1.1e-3)


# --- contiguous --------------------------------------------------------------------


def test_contiguous(tensor):
    tensor = mts.make_contiguous(tensor)
    assert mts.is_contiguous(tensor)
    assert all(map(mts.is_contiguous_block, tensor))
    assert mts.is_contiguous(tensor.to(arrays="jax"))


def test_not_contiguous():
    x = STRUCTURES["several"].input().stored()
    leaves, tree = jax.tree.flatten(x)
    leaves[-1] = np.asfortranarray(leaves[-1])
    x = jax.tree.unflatten(tree, leaves)
    assert not mts.is_contiguous(x)
    assert [mts.is_contiguous_block(b) for b in x] == [True, True, False]
    assert mts.is_contiguous(mts.make_contiguous(x))
    assert all(mts.is_contiguous_block(mts.make_contiguous_block(b)) for b in x)


# --- labels ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "names", "gradient"),
    [
        ("samples", "system", None),
        ("samples", ["atom", "system"], None),
        ("properties", ["l"], None),
        ("samples", ["sample"], "positions"),
    ],
)
def test_unique_metadata(axis, names, gradient):
    x = STRUCTURES["several"].input().stored()

    def expected(blocks: Any) -> list[tuple[int, ...]]:
        rows = set()
        for block in blocks:
            inner = block if gradient is None else block.gradient(gradient)
            labels = getattr(inner, axis)
            columns = [names] if isinstance(names, str) else names
            rows |= {tuple(entry[name] for name in columns) for entry in labels}
        return sorted(rows)

    found = mts.unique_metadata(x, axis, names, gradient)
    assert found.names == ([names] if isinstance(names, str) else names)
    assert [tuple(row) for row in found.values.tolist()] == expected(x)
    for block in x:
        found = mts.unique_metadata_block(block, axis, names, gradient)
        assert [tuple(row) for row in found.values.tolist()] == expected([block])


def test_unique_metadata_of_traced_samples_works_for_properties():
    x = traced(STRUCTURES["sparse"].input().stored())
    expected = mts.unique_metadata(
        STRUCTURES["sparse"].input().stored(), "properties", "n"
    )
    assert mts.unique_metadata(x, "properties", "n") == expected


def test_one_hot():
    labels = Labels(["atom", "type"], [[0, 6], [1, 1], [2, 6]])
    types = Labels("type", [[1], [6]])
    expected = [[0, 1], [1, 0], [0, 1]]
    encoding = mts.one_hot(labels, types)
    assert isinstance(encoding, np.ndarray)
    assert encoding.dtype == np.int32
    assert encoding.tolist() == expected
    data = Labels.traced(labels.names, jnp.asarray(labels.values))
    compiled = jax.jit(lambda labels: mts.one_hot(labels, types))
    assert compiled(data).tolist() == expected
    assert compiled(data).dtype == np.int32
    padding = Labels.traced("type", jnp.full((1, 1), Labels.PADDING, jnp.int32))
    assert compiled(padding).tolist() == [[0, 0]]
    assert mts.one_hot(Labels.empty("type"), types).shape == (0, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int32"])
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_block_from_array(array, dtype):
    values = array(np.arange(24).reshape(2, 3, 4).astype(dtype))
    block = mts.block_from_array(values)
    assert block.values is values or block.values.base is values
    assert (block.samples.names, block.properties.names) == (["sample"], ["property"])
    assert block.components == [Labels.range("component_1", 3)]
    flat = mts.block_from_array(values, ["system", "atom"], property_names=["n"])
    assert type(flat.values) is type(values)
    assert flat.dtype == dtype
    np.testing.assert_array_equal(flat.values, values.reshape(6, 4))
    assert flat.samples.values.tolist() == [[i, j] for i in range(2) for j in range(3)]
    wide = mts.block_from_array(values, ["s"], [], ["n", "l"])
    assert wide.properties.values.tolist() == [
        [i, j] for i in range(3) for j in range(4)
    ]
    np.testing.assert_array_equal(wide.values, values.reshape(2, 12))


def test_block_from_array_inside_a_program():
    block = jax.jit(mts.block_from_array)(np.ones((2, 3)))
    assert block == mts.block_from_array(jnp.ones((2, 3)))
    assert mts.block_from_array(np.ones((0, 3))).shape == (0, 3)


# --- options that the table does not go through ------------------------------------


@pytest.mark.parametrize("like", ["zeros_like", "ones_like", "empty_like"])
def test_some_gradients(like):
    x = STRUCTURES["several"].input().stored()
    for wanted, kept in [("cell", ["cell"]), ([], []), (None, ["cell", "positions"])]:
        made = getattr(mts, like)(x, gradients=wanted)
        assert all(block.gradients_list() == kept for block in made)
    removed = mts.remove_gradients(x, ["cell"])
    assert all(block.gradients_list() == ["positions"] for block in removed)


def test_values_of_new_maps():
    x = STRUCTURES["nested"].input().stored()
    assert all(not leaf.any() for leaf in jax.tree.leaves(mts.zeros_like(x)))
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(mts.ones_like(x)))


def test_random_numbers_are_different_and_in_range():
    x = STRUCTURES["several"].input().stored()
    key = jax.random.key(0)
    numbers = np.concatenate(
        [
            np.ravel(leaf)
            for leaf in jax.tree.leaves(mts.random_uniform_like(x, key=key))
        ]
    )
    assert len(np.unique(numbers)) == len(numbers)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    block = mts.random_uniform_like_block(x.block_by_id(0), key=key)
    assert block.shape == x.block_by_id(0).shape


def test_least_squares_without_rcond():
    x = STRUCTURES["groups"].input().stored()
    y = mts.slice(x, "properties", [0, 2])
    solved = mts.lstsq(x, y, rcond=None)
    for a, b, w in zip(x, y, solved, strict=True):
        rows = [np.concatenate([z.values, z.gradient("strain").values]) for z in (a, b)]
        expected = np.linalg.lstsq(*rows, rcond=None)[0]
        np.testing.assert_allclose(w.values, expected.T, rtol=1e-10, atol=1e-12)


def test_random_numbers_of_a_block_and_of_a_map():
    x = STRUCTURES["no_gradients"].input().stored()
    key = jax.random.key(3)
    first = mts.random_uniform_like(x, key=key)
    assert first == mts.random_uniform_like(x, key=key)
    assert first != mts.random_uniform_like(x, key=jax.random.key(4))


def test_matrix_product():
    a, b = STRUCTURES["no_gradients"].input().stored(), STRUCTURES["no_gradients"]
    assert a @ b.input(1).stored() == mts.dot(a, b.input(1).stored())


def test_keys_to_properties_with_entries():
    x = STRUCTURES["several"].input().stored()
    wanted = Labels("a", [[1], [7], [0]])
    moved = x.keys_to_properties(wanted, fill_value=3.0)
    for key, block in moved.items():
        order = block.properties.column("a").tolist()
        assert sorted(set(order), key=order.index) == [1, 7, 0]
        missing = block.properties.column("a") == 7
        assert (block.values[..., missing] == 3).all()
        for _, gradient in block.gradients():
            assert not gradient.values[..., missing].any()
        there = mts.slice_block(block, "properties", Labels("a", [[0]]))
        old = x.block(a=0, b=key["b"])
        rows = there.samples.select(old.samples)
        np.testing.assert_array_equal(there.values[rows], old.values)


# --- found by using it -------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "n", "value"),
    [
        ("int8", 256, 0),
        ("int8", 300, 100),
        ("float16", 70000, 1e-3),
        ("float16", 5000, 20),
    ],
)
def test_means_of_many_small_numbers(dtype, n, value):
    """Neither the count nor the sum fits in such a dtype."""
    values = np.full((n, 1), value, dtype)
    x = mts.TensorMap(mts.Labels.single(), [mts.block_from_array(values)])
    for mean in (
        mts.mean_over_samples,
        jax.jit(mts.mean_over_samples, static_argnums=1),
    ):
        result = np.asarray(mean(x, "sample").block().values)
        np.testing.assert_allclose(result, [[value]], rtol=2e-3)
        assert result.dtype == ("float32" if dtype == "int8" else dtype)


def test_numbers_of_another_dtype_change_gradients_as_well():
    x = mts.block_from_array(np.ones((2, 1), np.float32))
    rows = mts.Labels("sample", [[1]])
    x = x.with_gradient("t", mts.TensorBlock(x.values[1:], rows, [], x.properties))
    for operation in (mts.add, mts.subtract, mts.multiply, mts.divide):
        with jax.numpy_dtype_promotion("standard"):
            y = operation(mts.TensorMap(mts.Labels.single(), [x]), 1j).block()
        assert y.dtype == y.gradient("t").dtype == np.complex64


def test_joined_columns_of_different_dtypes_are_promoted():
    blocks = [
        mts.block_from_array(np.array([[v]], t)) for v, t in [(1, "i4"), (2.7, "f4")]
    ]
    joined = mts.join_blocks(blocks, "properties", add_dimension="i")
    np.testing.assert_allclose(joined.values, [[1, 2.7]], rtol=1e-6)


def test_arrays_in_arguments_are_not_narrowed():
    double = np.ones((2, 3))
    x = mts.TensorMap(
        mts.Labels.single(), [mts.block_from_array(double.astype(np.float32))]
    )
    y = mts.TensorMap(mts.Labels.single(), [mts.block_from_array(double)])
    with enable_x64(False), pytest.raises(TypeError, match="32-bit mode"):
        mts.dot(x, y)


@pytest.mark.parametrize("kind", ["sum", "mean", "var", "std"])
def test_reductions_over_properties_with_components_are_those_of_numpy(kind):
    """The number of properties in a group once did not go with their axis."""
    values = np.random.default_rng(0).random((2, 3, 5))
    properties = Labels(["n", "l"], [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2]])
    axes = Labels.range("sample", 2), [Labels.range("m", 3)], properties
    reduction = getattr(mts, f"{kind}_over_properties_block")
    result = reduction(mts.TensorBlock(values, *axes), "l")
    groups = [values[..., [0, 2, 4]], values[..., [1, 3]]]
    expected = np.stack([getattr(np, kind)(group, axis=-1) for group in groups], -1)
    np.testing.assert_allclose(result.values, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_gradient_of_the_absolute_value_is_zero_at_zero(dtype):
    x = mts.block_from_array(np.array([[0.0], [-2.0]], dtype))
    rows = Labels.range("sample", 2)
    dx = mts.TensorBlock(np.ones((2, 1), dtype), rows, [], x.properties)
    tensor = mts.TensorMap(Labels.single(), [x.with_gradient("t", dx)])
    result = mts.abs(tensor).block()
    assert result.values.tolist() == [[0.0], [2.0]]
    assert result.gradient("t").values.real.tolist() == [[0.0], [-1.0]]


def test_samples_that_are_data_are_compared_by_their_values():
    """Two batches of one layout can differ in nothing else."""
    x = STRUCTURES["no_gradients"].input().stored()
    y = mts.TensorMap(x.keys, [_with_other_atoms(block) for block in x])
    assert mts.equal_metadata(traced(x), traced(y))
    assert mts.equal(traced(x), traced(x))
    assert not mts.equal(traced(x), traced(y))
    assert not mts.allclose(traced(x), traced(y))


def _with_other_atoms(block: mts.TensorBlock) -> mts.TensorBlock:
    samples = Labels(block.samples.names, np.add(block.samples.values, [0, 7]))
    return mts.TensorBlock(block.values, samples, block.components, block.properties)
