"""How operations run when they are called eagerly: few programs, used again."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, enable_x64, tensor
from programs import on_two_devices
from reference import assert_close

import metatensor_jax as mts
from metatensor_jax._plan import plan
from metatensor_jax._run.elements import TakeAlong
from metatensor_jax.operations import Move, map_rows, move_rows

GRADIENTS = {
    "t": Gradient((3,), [0, 0, 2, 1, 5]),
    "u": Gradient((2, 2), None, {"v": Gradient((3,), [0, 1, 1])}),
    "v": Gradient((3,), [1, 1]),
}


def _power(a, exponent):
    return a**exponent


def _pair(a, b):
    return jnp.tanh(a) * b + a.sum()


def _turn(a):
    return a[..., ::-1]


def _range(n: int) -> mts.Labels:
    return mts.Labels.range("moved", n)


def _many_blocks(seed: int, sizes=None) -> mts.TensorMap:
    if sizes is None:
        sizes = np.random.default_rng(seed).integers(1, 40, 64).tolist()
    keys = mts.Labels("key", np.arange(64).reshape(-1, 1))
    return tensor(sizes, (3,), 4, GRADIENTS, seed, keys=keys, first_system=seed)


# --- compilations ------------------------------------------------------------------


def test_many_blocks_are_few_programs(compiled):
    x = _many_blocks(0)
    first = mts.pow(x, 3)
    # one each for the values, two shapes of gradients, and one of gradients of these
    assert compiled() == 4
    again = mts.pow(x, 3)
    assert compiled() == 0
    for i in range(len(x)):
        one, two = first.block_by_id(i), x.block_by_id(i)
        assert_close(one.values, two.values**3, 4)
        assert_close(again.block_by_id(i).values, one.values, 0)


def test_a_function_of_the_user_runs_once_for_all_blocks():
    calls = []

    def function(a):
        calls.append(a)
        return jnp.tanh(a)

    x = mts.remove_gradients(_many_blocks(0))
    for n in (1, 2, 3):
        map_rows(function, x)
        assert len(calls) == n


@pytest.mark.parametrize("kind", ["sum", "mean", "std"])
def test_reductions_of_equal_properties_are_few_programs(kind, compiled):
    x = mts.remove_gradients(_many_blocks(0))
    reduce = getattr(mts, f"{kind}_over_properties")
    result = reduce(x, "property")
    assert compiled() <= 1
    one = mts.slice(x, "samples", [0])
    assert_close(
        reduce(one, "property").block_by_id(7).values,
        result.block_by_id(7).values[:1],
        4,
    )


def test_linear_systems_of_many_sizes_are_few_programs(compiled):
    x = tensor(range(3, 35), (), 2, {"t": Gradient((3,), range(20))})
    y = tensor(range(3, 35), (), 3, {"t": Gradient((3,), range(20))}, seed=1)
    solved = mts.lstsq(x, y, None)
    assert compiled() <= 13  # 12 numbers of rows, and a transposition
    for a, b, w in zip(x, y, solved, strict=True):
        rows = [
            np.concatenate([m.values, m.gradient("t").values.reshape(-1, n)])
            for m, n in ((a, 2), (b, 3))
        ]
        assert_close(w.values, np.linalg.lstsq(*rows, rcond=None)[0].T, 100)


def test_other_labels_and_sizes_run_the_same_programs(compiled):
    sizes = np.random.default_rng(0).integers(10, 30, 64)
    mts.pow(_many_blocks(0, sizes.tolist()), 3)
    compiled()
    other = sizes[::-1] - 1  # a few rows less, in other blocks
    x = _many_blocks(1, other.tolist())
    result = mts.pow(x, 3)
    assert compiled() == 0
    assert_close(result.block_by_id(5).values, x.block_by_id(5).values ** 3, 4)


@pytest.mark.parametrize("number", [float, np.float32, jnp.float32])
def test_other_numbers_run_the_same_programs(number, compiled):
    x = _many_blocks(0)
    mts.multiply(x, number(2))
    compiled()
    result = mts.multiply(x, number(3))
    assert compiled() == 0
    assert_close(result.block_by_id(5).values, x.block_by_id(5).values * 3, 20)


def test_inputs_whose_gradient_rows_differ_run_the_same_programs(compiled):
    def inputs(seed):
        rng = np.random.default_rng(seed)
        return [
            block(6, gradients={"t": Gradient((3,), rng.integers(0, 6, 5).tolist())})
            for _ in range(2)
        ]

    map_rows(jnp.multiply, *inputs(0))
    compiled()
    for seed in range(1, 4):
        map_rows(jnp.multiply, *inputs(seed))
    assert compiled() <= 1  # a union of more than eight rows has the next power of two
    for seed in range(4):
        map_rows(jnp.multiply, *inputs(seed))
    assert compiled() == 0


def test_moving_rows_compiles_nothing(compiled):
    for arrays in ("numpy", "jax"):
        x = _many_blocks(0).to(arrays=arrays)
        to = [np.arange(len(b)) // 2 for b in x]
        samples = [_range((len(b) + 1) // 2) for b in x]
        compiled()
        move_rows([Move(x, None, to)], samples)
        move_rows([Move(x, to)], [b.samples for b in x])
        map_rows(_turn, x, rearranges=True)
        assert compiled() == 0


def test_constants_of_args_are_part_of_the_program():
    x = block(3)

    def apply(a, function):
        return function(a)

    for function in (np.sin, np.cos):
        args = (getattr(jnp, function.__name__),)
        result = map_rows(apply, x, args=args)
        assert_close(result.values, function(x.values), 4)


def test_blocks_with_args_of_their_own():
    x = tensor((2, 3), gradients={"t": Gradient((3,))})
    result = map_rows(_power, x, args=[(2.0,), (3.0,)])
    for i, exponent in enumerate((2, 3)):
        assert_close(
            result.block_by_id(i).values, x.block_by_id(i).values ** exponent, 20
        )


# --- inside of programs ------------------------------------------------------------


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_constant_data_inside_of_a_program_stays_known(arrays):
    x = block(4, gradients={"t": Gradient((3,))}, arrays=arrays)

    @jax.jit
    def function(y):
        powers = map_rows(jnp.square, x)
        moved = move_rows([Move(powers, np.array([1, 0]))], _range(2))
        for leaf in jax.tree.leaves((powers, moved)):
            assert not isinstance(leaf, jax.core.Tracer)
        return map_rows(jnp.multiply, y, moved)

    y = block(2, gradients={"t": Gradient((3,))}, seed=1)
    y = mts.TensorBlock(
        y.values, _range(2), y.components, y.properties, dict(y.gradients())
    )
    result = function(y)
    expected = y.values * np.asarray(x.values)[[1, 0]] ** 2
    assert_close(result.values, expected, 4)


def test_nothing_leaks():
    x = block(4, gradients={"t": Gradient((3,))})

    def function(y):
        constant = map_rows(_power, x, args=(2.0,))
        y = map_rows(_pair, y, constant)
        return move_rows([Move(y, None, np.array([1, 0, 1, 0]))], _range(2))

    with jax.checking_leaks():
        eager, program = function(x), jax.jit(function)(x)
        jax.jit(jax.grad(lambda x: function(x).gradient("t").values.sum()))(x)
    for one, two in zip(jax.tree.leaves(eager), jax.tree.leaves(program), strict=True):
        assert_close(one, two)


def test_function_of_a_traced_argument():
    x = block(4, gradients={"t": Gradient((3,))})

    @jax.jit
    def function(exponent):
        return map_rows(_power, x, args=(exponent,))

    assert_close(function(3.0).values, x.values**3, 20)
    slope = jax.grad(lambda e: map_rows(_pair_scaled, x, args=(e,)).values.sum())(2.0)
    assert_close(slope, np.sum(x.values), 20)


def _pair_scaled(a, factor):
    return factor * a


# --- data --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128", "int64"])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_64_bits_are_never_narrowed_in_silence(dtype, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = block(3, gradients={"t": Gradient((3,))}, dtype=dtype)
    other = block(3, arrays="jax")
    with pytest.raises(TypeError, match="32-bit mode"):
        map_rows(_pair_scaled, x, args=(1,), linear=True)
    with pytest.raises(TypeError, match="32-bit mode"):
        map_rows(jnp.multiply, other, x, linear=True)
    moved = move_rows([Move(x, np.array([1]))], _range(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {np.dtype(dtype)}
    with enable_x64(True):
        assert map_rows(_pair_scaled, x, args=(1,), linear=True).dtype == dtype


def test_64_bits_are_not_narrowed_inside_of_a_program():
    x, constant = block(3, arrays="jax"), block(3, dtype=np.float64)
    with pytest.raises(TypeError, match="32-bit mode"):
        jax.jit(lambda x: map_rows(jnp.multiply, x, constant))(x)


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_filling_up_makes_no_nan(n):
    x = block(n, gradients={"t": Gradient((3,), [0, 0, 2])})
    x = x.with_values(np.abs(x.values) + 1)
    with jax.debug_nans(True):
        result = map_rows(jnp.log, x)
        derivative = map_rows(_pair, x, map_rows(jnp.reciprocal, x))
    assert_close(result.values, np.log(x.values), 4)
    assert derivative.gradient("t").shape == x.gradient("t").shape


# --- on a device -------------------------------------------------------------------

X = block(6, (2,), 2, GRADIENTS)
Y = block(6, (2,), 2, {"t": Gradient((3,), [5, 0])}, 1)
OPERATIONS = {
    "map": lambda x, y: map_rows(jnp.arctan2, x, y),
    "linear": lambda x, y: map_rows(jnp.subtract, x, y, linear=True),
    "args": lambda x, y: map_rows(jnp.power, x, args=(np.float32(3),)),
    "rearrange": lambda x, y: map_rows(
        TakeAlong(-1), x, args=(np.array([1, 0]),), rearranges=True
    ),
    "gather": lambda x, y: move_rows([Move(x, np.array([1, 3]))], _range(2)),
    "gather past the end": lambda x, y: move_rows(
        [Move(x, np.array([1, 9]))], _range(2), fill_value=2.5
    ),
    "add": lambda x, y: move_rows(
        [Move(x, None, np.array([1, 0, 1, 2, -1, 0]))], _range(3)
    ),
    "permute": lambda x, y: move_rows(
        [Move(x, None, np.array([1, 0, 5, 2, 3, 4]))], _range(6)
    ),
    "end to end": lambda x, y: move_rows([Move(x), Move(y)], _range(12)),
    "side by side": lambda x, y: move_rows(
        [Move(x, None, np.arange(6)), Move(x, None, np.arange(6) + 1)],
        _range(7),
        properties=mts.Labels.range("all", 4),
        arrangement="side by side",
        fill_value=2.5,
    ),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_device_equals_host(operation, arrays, monkeypatch, compiled):
    x, y = X.to(arrays=arrays), Y.to(arrays=arrays)
    host = operation(x, y)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    compiled()
    device = operation(x, y)
    if all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(host)):
        assert compiled() == 0  # NumPy's part stays NumPy's
    else:
        assert compiled() == 1  # and not one more for each constant
    assert jax.tree.structure(host) == jax.tree.structure(device)
    for one, two in zip(jax.tree.leaves(host), jax.tree.leaves(device), strict=True):
        assert type(one) is type(two)
        assert_close(one, two, 20)
    compiled()
    operation(x, y)
    assert compiled() == 0


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_indices_are_transferred_in_spite_of_a_guard(operation, backend, monkeypatch):
    """They are made on the host, of which the user does not have to know."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with jax.transfer_guard("disallow"):
        operation(X.to(arrays="jax"), Y.to(arrays="jax"))


def test_maps_seen_again_in_spite_of_a_guard():
    x = _many_blocks(14).to(arrays="jax")
    for _ in range(3):
        with jax.transfer_guard("disallow"):
            map_rows(_pair, x, x)


def test_tasks_of_numpy_and_of_jax_arrays_together(monkeypatch):
    x = tensor((3, 4), gradients={"t": Gradient((3,))})
    blocks = [x.block_by_id(0), x.block_by_id(1).to(arrays="jax")]
    mixed = mts.TensorMap(x.keys, blocks)
    sources, samples = [np.array([1]), np.array([2])], [_range(1), _range(1)]
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda name=backend: name)
        moved = move_rows([Move(mixed, sources)], samples)
        for i, kind in enumerate((np.ndarray, jax.Array)):
            leaves = jax.tree.leaves(moved.block_by_id(i))
            assert all(isinstance(leaf, kind) for leaf in leaves)
        np.testing.assert_array_equal(moved.block_by_id(0).values, x[0].values[[1]])
        np.testing.assert_array_equal(moved.block_by_id(1).values, x[1].values[[2]])


# --- row functions that are not plain functions ------------------------------------


def test_a_row_function_that_closes_over_a_tracer():
    x = block(3, gradients={"t": Gradient((), [0, 2])})

    def total(w, x):
        y = map_rows(lambda row: row * w["w"] ** 2, x)
        return (y.values.sum() + y.gradient("t").values.sum()).astype(jnp.float32)

    expected = 2 * 1.5 * (x.values.sum() + x.gradient("t").values.sum())
    for data in (x, x.to(arrays="jax")):
        of_data = functools.partial(total, x=data)
        for gradient in (jax.grad(of_data), jax.jit(jax.grad(of_data))):
            np.testing.assert_allclose(gradient({"w": 1.5})["w"], expected, rtol=1e-5)
        mapped = jax.vmap(of_data)({"w": jnp.arange(3.0)})
        np.testing.assert_allclose(mapped[2], 4 * mapped[1], rtol=1e-5)
        with jax.checking_leaks():
            jax.jit(total)({"w": 1.5}, data)


def test_a_row_function_that_is_a_module():
    eqx = pytest.importorskip("equinox")
    linear = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    x = block(3, gradients={"t": Gradient((), [0, 2])})
    y = map_rows(linear, x)
    weight, bias = np.asarray(linear.weight), np.asarray(linear.bias)
    np.testing.assert_allclose(y.values, x.values @ weight.T + bias, 1e-5)
    rows = x.gradient("t").values @ weight.T
    np.testing.assert_allclose(y.gradient("t").values, rows, 1e-5)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: map_rows(m, x).values.sum()))
    np.testing.assert_allclose(gradient(linear).bias, [3.0, 3.0])


# --- plans that are kept -----------------------------------------------------------


def test_maps_seen_before_are_not_planned_again(monkeypatch):
    a, b = _many_blocks(0), _many_blocks(0)
    first = map_rows(_pair, a, b)
    monkeypatch.delattr(plan, "make_plan")
    other = a.to(arrays="jax")
    again = map_rows(_pair, other, b)
    assert again._structure is first._structure
    _assert_same_arrays(again, first)


def test_maps_seen_again_without_jit():
    x = _many_blocks(12)
    for _ in range(3):
        with jax.disable_jit():
            result = map_rows(_pair, x, x)
        assert all(isinstance(leaf, jax.Array) for leaf in result._leaves)


@pytest.mark.skipif(not hasattr(jax, "set_mesh"), reason="this version has no set_mesh")
def test_maps_seen_again_in_a_mesh():
    x = _many_blocks(13)
    first = map_rows(_pair, x, x)
    mesh = jax.make_mesh((1,), ("i",))
    for _ in range(3):
        with jax.set_mesh(mesh):
            result = map_rows(_pair, x, x)
        assert result._leaves[0].sharding == first._leaves[0].sharding
        assert not result._leaves[0].committed


def test_plans_depend_on_all_but_the_data():
    x = _many_blocks(0)
    for exponent in (2, 3):
        _assert_same_arrays(
            map_rows(_power, x, args=(exponent,)),
            jax.jit(lambda x, n=exponent: map_rows(_power, x, args=(n,)))(x),
        )
    narrow = x.to(dtype="float16")
    assert map_rows(_power, narrow, args=(2,)).dtype == np.float16
    assert map_rows(_power, x, args=(2,)).dtype == x.dtype


def _assert_same_arrays(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_maps_that_are_known_in_a_program(arrays):
    """The kept plan was run as a part of the program around it, and raised."""
    x = _many_blocks(0).to(arrays=arrays)

    def total(scale):
        powers = mts.pow(x, 2)
        assert not any(isinstance(v, jax.core.Tracer) for v in powers._leaves)
        return sum((block.values * scale).sum() for block in powers)

    np.testing.assert_allclose(jax.jit(total)(2.0), total(2.0), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(total)(2.0), total(1.0), rtol=1e-5)


def test_row_functions_that_hide_a_tracer():
    x = _many_blocks(0)

    class Scaled:  # hashable, and no closure that could be looked into
        def __init__(self, scale):
            self.scale = scale

        def __call__(self, row):
            return row * self.scale

    def total(scale):
        return sum(block.values.sum() for block in map_rows(Scaled(scale), x))

    np.testing.assert_allclose(jax.grad(total)(2.0), total(1.0), rtol=1e-5)


# --- sums --------------------------------------------------------------------------


@pytest.mark.parametrize("n_columns", [1, 9])
@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "int8"])
def test_sums_do_not_round_at_each_row(dtype, in_order, n_columns):
    n = 40 if dtype == "int8" else 4096
    values = np.ones((2 * n, n_columns), dtype)
    destination = np.repeat([0, 1], n) if in_order else np.tile([1, 0], n)
    x = mts.block_from_array(values)
    summed = move_rows([Move(x, None, destination)], _range(2)).values
    assert summed.dtype == dtype
    np.testing.assert_array_equal(summed, np.full((2, n_columns), n, dtype))


def test_sums_of_many_small_numbers():
    values = np.full((1_000_000, 1), 0.1, np.float32)
    destination = np.tile([1, 0], 500_000)
    summed = move_rows(
        [Move(mts.block_from_array(values), None, destination)], _range(2)
    )
    np.testing.assert_allclose(summed.values, 50_000, rtol=1e-6)


# --- several devices ---------------------------------------------------------------


_SECOND_DEVICE = """
import jax, numpy as np, metatensor_jax as mts
second = jax.devices()[1]
values = jax.device_put(np.random.default_rng(0).random((3, 3), "f4"), second)
x = mts.TensorMap(mts.Labels.single(), [mts.block_from_array(values)])
for result in (mts.add(x, x), mts.dot(x, x), mts.solve(x, x), mts.lstsq(x, x, None)):
    assert result.block().values.devices() == {second}, result.block().values.devices()
print("done")
"""


def test_results_stay_on_the_device_of_their_data():
    """The solution of linear systems was moved to the first one."""
    assert on_two_devices(_SECOND_DEVICE).split() == ["done"]
