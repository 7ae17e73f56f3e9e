"""Plans of moved rows that are kept: the same results, planned once."""

from __future__ import annotations

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block

import metatensor_jax as mts
from metatensor_jax._plan import plan
from metatensor_jax.operations import keys

GRADIENTS = {
    "t": Gradient((3,), [0, 0, 2, 1, 5]),
    "u": Gradient((2,), None, {"v": Gradient((3,), [0, 1, 1])}),
}
WANTED = mts.Labels("b", [[1], [7], [0]])
MOVES = {
    "to samples": lambda x: x.keys_to_samples("b"),
    "to samples, unsorted": lambda x: x.keys_to_samples("b", sort_samples=False),
    "to properties": lambda x: x.keys_to_properties("b"),
    "to properties, filled": lambda x: x.keys_to_properties("b", fill_value=-1.5),
    "to properties, chosen": lambda x: x.keys_to_properties(WANTED),
    "to properties, unsorted": lambda x: x.keys_to_properties("b", sort_samples=False),
}


@pytest.fixture(params=MOVES)
def move(request):
    """A move of keys."""
    return MOVES[request.param]


@pytest.fixture(autouse=True)
def forget():
    """A function that forgets all plans; those of other tests are forgotten already."""
    mts.clear_caches()
    return mts.clear_caches


def _map(seed: int = 0, **options) -> mts.TensorMap:
    """Two groups of two blocks, whose samples overlap, and one block of its own."""
    sizes, first = (6, 3, 0, 5, 4), (0, 1, 0, 2, 0)
    blocks = [
        block(n, (3,), 2, GRADIENTS, seed + i, first_system=at, **options)
        for i, (n, at) in enumerate(zip(sizes, first, strict=True))
    ]
    pairs = [[0, 0], [0, 1], [1, 0], [1, 1], [2, 1]]
    return mts.TensorMap(mts.Labels(["a", "b"], pairs), blocks)


def _assert_identical(one: mts.TensorMap, two: mts.TensorMap) -> None:
    """The same labels, kinds of arrays, dtypes, and bits."""
    assert one._structure == two._structure
    for x, y in zip(one._leaves, two._leaves, strict=True):
        assert isinstance(x, np.ndarray) == isinstance(y, np.ndarray)
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_equal_labels_are_planned_once(move, arrays, forget, monkeypatch):
    first = move(_map())
    monkeypatch.delattr(keys, "plan_move")
    other = move(_map(100, arrays=arrays))
    assert other._structure is first._structure
    for leaf in other._leaves:
        assert isinstance(leaf, jax.Array) or not leaf.flags.writeable
    monkeypatch.undo()
    forget()
    _assert_identical(other, move(_map(100, arrays=arrays)))


def test_plans_depend_on_the_dtype_and_info(move):
    for tensor in (_map(), _map(dtype="float64"), _map().with_info("a", "b")):
        for _ in range(2):
            result = move(tensor)
            assert result.dtype == tensor.dtype
            assert dict(result.info()) == dict(tensor.info())


def test_options_have_plans_of_their_own(forget):
    x = _map()
    results = {}
    for name, move in MOVES.items():
        forget()
        results[name] = move(x)
    for _ in range(3):
        for name, move in MOVES.items():
            _assert_identical(move(x), results[name])


@pytest.mark.parametrize("fill_value", [float("nan"), np.float32(2), jnp.float32(2)])
def test_kinds_of_fill_values(fill_value):
    x = _map()
    missing = x.keys_to_properties("b", fill_value=1.0)[0].values == 1
    for _ in range(2):
        values = x.keys_to_properties("b", fill_value=fill_value)[0].values
        np.testing.assert_array_equal(values[missing], np.float32(fill_value))


def test_plans_with_nan_are_found():
    x = _map()
    for _ in range(3):
        x.keys_to_properties("b", fill_value=float("nan"))
    assert len(plan._kept) == 1


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_maps_that_are_known_in_a_program(move, arrays):
    x = _map(arrays=arrays)

    def total(scale):
        for _ in range(2):
            moved = move(x)
        assert not any(isinstance(v, jax.core.Tracer) for v in moved._leaves)
        return sum((values * scale).sum() for values in moved._leaves)

    np.testing.assert_allclose(jax.jit(total)(2.0), total(2.0), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(total)(2.0), total(1.0), rtol=1e-5)


def test_plans_hold_no_data(move):
    x = _map()
    values = x[0].values
    references = [weakref.ref(values if values.base is None else values.base)]
    move(x)
    del x, values
    gc.collect()
    assert len(plan._kept) == 1
    assert references[0]() is None


def test_errors_are_raised_each_time(move):
    x = _map()
    mixed = mts.TensorMap(x.keys, [block(6, (2,), 2, GRADIENTS), *x.blocks()[1:]])
    for _ in range(2):
        with pytest.raises(mts.MetatensorError, match=r"keys_to_.*components"):
            move(mixed)
