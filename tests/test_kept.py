"""Plans of moved rows that are kept: the same results, planned once, compiled late."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, enable_x64

import metatensor_jax as mts
from metatensor_jax import keys
from metatensor_jax.execution import _kept

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
    _kept._keep.cache_clear()
    return _kept._keep.cache_clear


@pytest.fixture
def early(monkeypatch):
    """Plans are compiled in their third run."""
    monkeypatch.setattr(_kept, "_runs_to_pay", lambda tasks: 2)


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


def test_equal_labels_are_planned_once(move, forget, monkeypatch):
    first = move(_map())
    monkeypatch.delattr(keys, "plan_move")
    other = move(_map(100))
    assert other._structure is first._structure
    monkeypatch.undo()
    forget()
    _assert_identical(other, move(_map(100)))


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_plans_are_compiled_once(move, arrays, early, compiled):
    x = _map(arrays=arrays)
    first = move(x)
    compiled()
    in_each = []
    for seed in (0, 50, 0, 0):
        result = move(_map(seed, arrays=arrays))
        in_each.append(compiled())
        if seed == 0:
            _assert_identical(result, first)
        for one, other in zip(result._leaves, first._leaves, strict=True):
            if arrays == "jax":
                assert one.sharding == other.sharding
                assert one.committed == other.committed
            else:
                assert not one.flags.writeable
    assert in_each == [0, 1, 0, 0]


def test_compiled_results_are_those_of_other_data(move, forget, early):
    for _ in range(3):
        move(_map())
    compiled = move(_map(7))
    forget()
    _assert_identical(compiled, move(_map(7)))


def test_signs_and_nan_are_kept(move, early):
    x = _map()
    special = np.array([-0.0, np.nan, np.inf, 1e-45], np.float32)
    leaves = [np.resize(special, leaf.shape) for leaf in x._leaves]
    x = mts.TensorMap._unflatten(x._structure, leaves)
    first = move(x)
    for _ in range(3):
        _assert_identical(move(x), first)


@pytest.mark.parametrize(
    "dtype", [np.float64, np.int64, np.complex128, np.longdouble, ">f4", bool]
)
def test_data_that_jax_has_not_stays_numpy(dtype, move, early, compiled):
    with enable_x64(False):
        x = _map(dtype="float32").to(dtype=np.dtype(dtype))
        first = move(x)
        for _ in range(4):
            _assert_identical(move(x), first)
    assert compiled() == (dtype is bool)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.complex128])
def test_data_of_64_bits(dtype, early, compiled):
    with enable_x64(True):
        x = _map().to(dtype=dtype)
        first = MOVES["to samples"](x)
        for _ in range(4):
            _assert_identical(MOVES["to samples"](x), first)
    assert compiled() == 1


def test_different_kinds_of_data_are_not_compiled(move, early, compiled):
    x = _map()
    two_kinds = [
        leaf if i % 2 else jnp.asarray(leaf) for i, leaf in enumerate(x._leaves)
    ]
    mixed = mts.TensorMap._unflatten(x._structure, two_kinds)
    committed = x.to(device=jax.devices()[0])
    for tensor in (mixed, committed):
        first = move(tensor)
        compiled()
        for _ in range(4):
            result = move(tensor)
            _assert_identical(result, first)
        assert compiled() == 0


def test_options_have_plans_of_their_own(early):
    x = _map()
    results = {name: move(x) for name, move in MOVES.items()}
    for _ in range(3):
        for name, move in MOVES.items():
            _assert_identical(move(x), results[name])
    filled = x.keys_to_properties("b", fill_value=np.float32(2)).block_by_id(0).values
    assert 2 in filled
    assert -1.5 not in filled


def test_options_that_can_not_be_told_apart(move):
    """A plan is not kept for these, but made."""
    x = _map()
    filled = x.keys_to_properties("b", fill_value=jnp.float32(2))
    _assert_identical(filled, x.keys_to_properties("b", fill_value=2.0))


def test_without_jit(move, early):
    x = _map(arrays="jax")
    first = move(x)
    for _ in range(4):
        with jax.disable_jit():
            _assert_identical(move(x), first)


@pytest.mark.skipif(not hasattr(jax, "set_mesh"), reason="this version has no set_mesh")
@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_in_a_mesh(move, arrays, early):
    x = _map(arrays=arrays)
    first = move(x)
    mesh = jax.make_mesh((1,), ("i",))
    for _ in range(4):
        with jax.set_mesh(mesh):
            result = move(x)
        _assert_identical(result, first)
        if arrays == "jax":
            assert result._leaves[0].sharding == first._leaves[0].sharding


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_in_spite_of_guards(move, arrays, early):
    x = _map(arrays=arrays)
    first = move(x)
    for _ in range(4):
        with jax.transfer_guard("disallow"):
            _assert_identical(move(x), first)


def test_looking_for_nan(early, compiled):
    """NumPy moves a NaN, and a program must not be another matter."""
    x = _map()
    x = mts.TensorMap._unflatten(x._structure, [leaf * np.nan for leaf in x._leaves])
    with jax.debug_nans(True):
        for _ in range(4):
            x.keys_to_samples("b")
    assert compiled() == 0


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_maps_that_are_known_in_a_program(move, arrays, early):
    x = _map(arrays=arrays)

    def total(scale):
        moved = move(x)
        assert not any(isinstance(v, jax.core.Tracer) for v in moved._leaves)
        return sum((values * scale).sum() for values in moved._leaves)

    for _ in range(4):
        np.testing.assert_allclose(jax.jit(total)(2.0), total(2.0), rtol=1e-5)
        np.testing.assert_allclose(jax.grad(total)(2.0), total(1.0), rtol=1e-5)


def test_errors_are_raised_each_time(move):
    x = _map()
    mixed = mts.TensorMap(x.keys, [block(6, (2,), 2, GRADIENTS), *x.blocks()[1:]])
    for _ in range(2):
        with pytest.raises(mts.MetatensorError, match=r"keys_to_.*components"):
            move(mixed)
