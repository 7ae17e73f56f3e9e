"""Functions, modules and arguments that users give: as they are now, and never kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import block

import metatensor_jax as mts

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)


def make(arrays: str = "numpy") -> mts.TensorMap:
    return mts.TensorMap(mts.Labels.single(), [mts.block_from_array(X)]).to(
        arrays=arrays
    )


def values(tensor: mts.TensorMap) -> np.ndarray:
    return np.asarray(tensor.block().values)


# --- as they are now -----------------------------------------------------------------


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def apply(self, row: Any) -> Any:
        return row * self.factor

    __call__ = apply


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
@pytest.mark.parametrize("which", ["method", "object"])
def test_a_changed_attribute_takes_effect(arrays: str, which: str) -> None:
    scale, x = Scale(2.0), make(arrays)
    function = scale.apply if which == "method" else scale
    np.testing.assert_array_equal(values(mts.map_rows(function, x)), 2 * X)
    scale.factor = 5.0
    np.testing.assert_array_equal(values(mts.map_rows(function, x)), 5 * X)


def test_an_array_or_list_in_a_closure_that_changes_takes_effect() -> None:
    weights, factors = np.ones(2, np.float32), [1.0]

    def function(row: Any) -> Any:
        return row * weights * factors[0]

    np.testing.assert_array_equal(values(mts.map_rows(function, make())), X)
    weights[:] = 3
    factors[0] = 2.0
    np.testing.assert_array_equal(values(mts.map_rows(function, make())), 6 * X)


FACTOR = 2.0


def _by_global(row: Any) -> Any:
    return row * FACTOR


def test_a_changed_global_takes_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_array_equal(values(mts.map_rows(_by_global, make())), 2 * X)
    monkeypatch.setitem(globals(), "FACTOR", 7.0)
    np.testing.assert_array_equal(values(mts.map_rows(_by_global, make())), 7 * X)


def test_an_argument_that_changes_takes_effect() -> None:
    scale = Scale(2.0)

    def function(row: Any, scale: Any) -> Any:
        return row * scale.factor

    for factor in (2.0, 3.0):
        scale.factor = factor
        result = mts.map_rows(function, make(), args=(scale,))
        np.testing.assert_array_equal(values(result), factor * X)


def test_a_module_of_plain_python_in_a_module_map_is_as_it_is_now() -> None:
    learn = pytest.importorskip("metatensor_jax.learn")
    scale = Scale(2.0)
    model = learn.ModuleMap(mts.Labels.single(), [scale])
    np.testing.assert_array_equal(values(model(make())), 2 * X)
    scale.factor = 3.0
    np.testing.assert_array_equal(values(model(make())), 3 * X)


# --- not kept ------------------------------------------------------------------------


class Weights:
    """Stands for what a closure holds."""


def _closure(weights: Weights) -> Callable[[Any], Any]:
    return lambda row, _=weights: jnp.tanh(row)


@pytest.mark.parametrize("stored", [False, True])
def test_closures_are_freed(stored: bool) -> None:
    gradients = {"t": ([], [0, 1, 2])} if stored else {}
    x = block(3, gradients=_gradients(gradients), dtype=np.float32)
    alive = []
    for _ in range(30):
        weights = Weights()
        alive.append(weakref.ref(weights))
        mts.map_rows(_closure(weights), x)
        del weights
    gc.collect()
    # JAX itself may hold on to the last one
    assert sum(ref() is not None for ref in alive) <= 1


def _gradients(given: dict[str, Any]) -> dict[str, Any]:
    from builders import Gradient

    return {name: Gradient(*parts) for name, parts in given.items()}


def test_closures_that_become_programs_of_the_user_are_freed_with_them() -> None:
    alive, x = [], make()
    for _ in range(10):
        weights = Weights()
        alive.append(weakref.ref(weights))
        function = _closure(weights)
        jax.jit(lambda m, f=function: mts.map_rows(f, m))(x)
        del weights, function
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 5


def test_a_new_closure_compiles_nothing_new(compiled: Callable[[], int]) -> None:
    x = make()
    mts.map_rows(_closure(Weights()), x)
    compiled()
    for _ in range(5):
        mts.map_rows(_closure(Weights()), x)
    assert compiled() == 0


def test_a_function_that_the_user_compiled_is_compiled_once(
    compiled: Callable[[], int],
) -> None:
    function = jax.jit(lambda row: jnp.tanh(row) * 2 + 1)
    mts.map_rows(function, make())
    assert 1 <= compiled() <= 2
    mts.map_rows(function, make())
    assert compiled() == 0


def test_clear_caches_forgets_plans() -> None:
    from metatensor_jax._plan import plan

    mts.add(make(), 1.0)
    assert len(plan._kept) > 0
    mts.clear_caches()
    assert len(plan._kept) == 0
    np.testing.assert_array_equal(values(mts.add(make(), 1.0)), X + 1)


def test_the_number_of_plans_is_bounded() -> None:
    from metatensor_jax._plan import plan

    for i in range(plan._N_PLANS + 20):
        mts.slice(make(), "properties", mts.Labels("property", [[i % 2]]))
        mts.add(mts.rename_dimension(make(), "samples", "sample", f"s{i}"), 1.0)
    assert len(plan._kept) <= plan._N_PLANS


# --- Python values -------------------------------------------------------------------


def _flagged(row: Any, flag: bool, name: str, n: int) -> Any:
    assert isinstance(flag, bool)
    assert type(n) is int
    return row[:n] * 2 if flag and name == "twice" else row[:n]


@pytest.mark.parametrize("compile_it", [False, True])
def test_python_values_in_args_stay_python_values(compile_it: bool) -> None:
    def call(tensor: mts.TensorMap) -> mts.TensorMap:
        one = mts.Labels.range("p", 1)
        return mts.map_rows(_flagged, tensor, args=(True, "twice", 1), properties=one)

    result = (jax.jit(call) if compile_it else call)(make())
    np.testing.assert_array_equal(values(result), 2 * X[:, :1])


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("compile_it", [False, True])
def test_the_inference_flag_of_dropout_works(stacked: bool, compile_it: bool) -> None:
    eqx = pytest.importorskip("equinox")
    from metatensor_jax.learn import ModuleMap, StackedModules

    modules = [eqx.nn.Dropout(0.5, inference=True)]
    model = ModuleMap(
        mts.Labels.single(), StackedModules(modules) if stacked else modules
    )
    call = eqx.filter_jit(model) if compile_it else model
    np.testing.assert_array_equal(values(call(make())), X)


def test_equal_scalars_are_one_group_however_they_are_passed(
    compiled: Callable[[], int],
) -> None:
    keys = mts.Labels.range("key", 4)
    tensor = mts.TensorMap(keys, [mts.block_from_array(X)] * 4)
    kinds = [np.float32(2), np.asarray(2, np.float32), jnp.float32(2), np.float32(2)]
    expected = mts.multiply(tensor, np.float32(2))
    compiled()
    results = mts.map_rows(jnp.multiply, tensor, args=[(x,) for x in kinds])
    assert compiled() <= 1
    assert mts.allclose(results, expected)


# --- what a hostile reader found ---------------------------------------------------


@pytest.mark.parametrize("per_block", [False, True])
def test_equal_python_values_of_other_kinds_are_told_apart(per_block: bool) -> None:
    keys = mts.Labels.range("key", 2)
    tensor = mts.TensorMap(keys, [mts.block_from_array(X)] * 2)
    pairs = [(0.0,), (-0.0,)]
    if per_block:
        plus, minus = mts.map_rows(jnp.copysign, tensor, args=pairs)
    else:
        plus, minus = (
            mts.map_rows(jnp.copysign, tensor, args=x).block_by_id(0) for x in pairs
        )
    np.testing.assert_array_equal(plus.values, X)
    np.testing.assert_array_equal(minus.values, -X)


def test_numbers_of_other_types_are_told_apart() -> None:
    whole = make().to(dtype="int32")
    cases = [(2, "int32"), (2.0, "float32"), (True, "int32"), (2, "int32")]
    for number, dtype in cases:
        with jax.numpy_dtype_promotion("standard"):
            result = mts.map_rows(jnp.multiply, whole, args=(number,))
        assert result.dtype == dtype


def test_new_numbers_compile_nothing_new(compiled: Callable[[], int]) -> None:
    mts.map_rows(jnp.multiply, make(), args=(0.5,))
    compiled()
    for number in (1.5, 2.5, 3.5):
        mts.map_rows(jnp.multiply, make(), args=(number,))
        mts.multiply(make(), number)
    assert compiled() <= 1


def test_modules_of_the_user_are_as_they_are_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eqx = pytest.importorskip("equinox")
    learn = pytest.importorskip("metatensor_jax.learn")

    class Module(eqx.Module):
        weight: jax.Array

        def __call__(self, row: Any) -> Any:
            return _by_global(row) * self.weight

    model = learn.ModuleMap(mts.Labels.single(), [Module(jnp.ones(2))])
    np.testing.assert_array_equal(values(model(make())), 2 * X)
    monkeypatch.setitem(globals(), "FACTOR", 7.0)
    np.testing.assert_array_equal(values(model(make())), 7 * X)


def test_whether_there_are_gradients_is_asked_of_all_blocks() -> None:
    keys, given = mts.Labels.range("key", 2), _gradients({"t": ([], [0, 1, 2])})
    tensor = mts.TensorMap(keys, [block(3, gradients=given)] * 2)
    for functions in ([jnp.sin, jnp.isfinite], [jnp.isfinite, jnp.sin]):
        with pytest.raises(mts.MetatensorError, match=r"\['bool', 'float32'\]"):
            mts.map_rows(functions, tensor)
    bare = mts.remove_gradients(tensor)
    with pytest.raises(mts.MetatensorError, match=r"\['bool', 'float32'\]"):
        mts.map_rows([jnp.sin, jnp.isfinite], bare)


_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, metatensor_jax as mts
first, second = jax.devices()
values = np.ones((3, 3), np.float32)
on_first = mts.TensorMap(
    mts.Labels.single(), [mts.block_from_array(jax.device_put(values, first))]
)
with jax.default_device(second):
    added = mts.add(on_first, on_first)
    for result in (added, mts.sum_over_samples(on_first, "sample")):
        assert result.block().values.devices() == {first}
try:
    mts.multiply(on_first, jax.device_put(jnp.float32(2), second))
except ValueError as error:
    assert "incompatible devices" in str(error)
    print("done")
"""


def test_data_on_several_devices_is_not_mixed_in_silence() -> None:
    from programs import on_two_devices

    assert on_two_devices(_DEVICES).split() == ["done"]


def test_random_keys_are_rows_like_others() -> None:
    def dropped(row: Any, key: Any) -> Any:
        return row * jax.random.uniform(key)

    keys = jax.random.split(jax.random.key(0), 3)
    result = mts.map_rows(dropped, make(), [keys])
    np.testing.assert_array_equal(values(result), jax.vmap(dropped)(X, keys))


def test_stacked_modules_tell_equal_python_values_apart() -> None:
    eqx = pytest.importorskip("equinox")
    learn = pytest.importorskip("metatensor_jax.learn")

    class Signed(eqx.Module):
        sign: float

        def __call__(self, row: Any) -> Any:
            return jnp.copysign(row, self.sign)

    keys = mts.Labels.range("key", 2)
    tensor = mts.TensorMap(keys, [mts.block_from_array(X)] * 2)
    modules = [Signed(0.0), Signed(-0.0)]
    for one in (modules, learn.StackedModules(modules)):
        plus, minus = learn.ModuleMap(keys, one)(tensor)
        np.testing.assert_array_equal(plus.values, X)
        np.testing.assert_array_equal(minus.values, -X)
