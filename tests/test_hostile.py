"""What somebody found who tried to get a wrong number out of the library."""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import weakref
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap
from metatensor_jax.learn.nn import ModuleMap, StackedModuleMap

P = Labels.range("p", 2)


def block_of(values: Any) -> TensorBlock:
    return TensorBlock(np.asarray(values), Labels.range("s", len(values)), [], P)


def two(dtype: Any = np.float32) -> TensorMap:
    block = block_of(np.array([[1, 2], [3, 4]], dtype))
    return TensorMap(Labels.range("k", 2), [block, block])


def values_of(tensor: TensorMap) -> list[Any]:
    return [block.values.tolist() for block in tensor]


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Equal to others of the same name, whatever they do."""

    name: str
    by: float = dataclasses.field(default=1.0, compare=False)

    def __call__(self, row: Any) -> Any:
        return row * self.by


class Static(eqx.Module):
    weight: jax.Array
    choice: Any = eqx.field(static=True)

    def __call__(self, row: Any) -> Any:
        return (row if self.choice is True else 3 * row) * self.weight


class Signed(eqx.Module):
    number: float

    def __call__(self, row: Any) -> Any:
        return row * math.copysign(1.0, self.number)


@pytest.mark.parametrize("jit", [False, True])
def test_functions_that_are_equal_but_differ(jit: bool) -> None:
    def call(x: TensorMap) -> list[Any]:
        mapped = mts.map_rows([Scaled("a", 1.0), Scaled("a", 5.0)], x)
        return [block.values for block in mapped]

    first, second = (jax.jit(call) if jit else call)(two())
    assert first.tolist() == [[1, 2], [3, 4]]
    assert second.tolist() == [[5, 10], [15, 20]]


@pytest.mark.parametrize(
    "kind", [ModuleMap, lambda *x: StackedModuleMap(ModuleMap(*x))]
)
def test_modules_that_are_equal_but_differ(kind: Any) -> None:
    x, weight = two(), jnp.full((), 2.0)
    for modules in (
        [Scaled("a", 1.0), Scaled("a", 3.0)],
        [Static(jnp.ones(()), True), Static(jnp.ones(()), 1)],
        [Static(weight / 2, True), Static(weight / 2, 1)],
    ):
        assert values_of(kind(x.keys, modules)(x)) == [
            [[1, 2], [3, 4]],
            [[3, 6], [9, 12]],
        ]


def test_modules_that_share_an_array() -> None:
    x, weight = two(), jnp.ones(())
    modules = [Static(weight, True), Static(weight, 1)]
    assert values_of(ModuleMap(x.keys, modules)(x))[1] == [[3, 6], [9, 12]]


def test_the_sign_of_zero_in_a_module() -> None:
    x = two()
    out = mts.map_rows([Signed(0.0), Signed(-0.0)], x)
    assert values_of(out)[1] == [[-1, -2], [-3, -4]]


SCALE = [2.0]


def test_a_function_under_the_name_of_another() -> None:
    @functools.wraps(jnp.sin)
    def wrapped(row: Any) -> Any:
        return SCALE[0] * row

    for scale in (2.0, 20.0):
        SCALE[0] = scale
        assert values_of(mts.map_rows(wrapped, two()))[0][0] == [scale, 2 * scale]
    kept = weakref.ref(wrapped)
    del wrapped
    gc.collect()
    assert kept() is None


def test_byte_order_of_arguments() -> None:
    x = two()
    for order in "<>":
        args = (np.array([2, 1], f"{order}f4"),)
        assert values_of(mts.map_rows(jnp.multiply, x, args=args))[0] == [
            [2, 2],
            [6, 4],
        ]
        arrays = [np.array([[2, 1]] * 2, f"{order}f4")] * 2
        assert values_of(mts.map_rows(jnp.multiply, x, arrays))[0] == [[2, 2], [6, 4]]
        assert values_of(x * np.array(3, f"{order}f4"))[0] == [[3, 6], [9, 12]]


LARGE = 3_000_000_000


@pytest.mark.parametrize("x64", [False, True])
def test_large_whole_numbers(x64: bool) -> None:
    with enable_x64(x64):
        x = two()
        # with strict promotion JAX wants arrays of 64 bits to be converted
        arrays = [] if x64 else [np.int64(LARGE), np.array(LARGE)]
        for number in (LARGE, 2**40, 10**30, *arrays):
            expected = float(np.float32(1) - np.float32(float(number)))
            assert values_of(x - number)[0][0][0] == expected
            assert values_of(number * x)[0][0][0] == np.float32(float(number))


@pytest.mark.parametrize("number", [2**40, np.int64(2**40), np.array(2**40)])
def test_whole_numbers_that_do_not_fit(number: Any) -> None:
    with pytest.raises(mts.MetatensorError, match="does not fit into int32"):
        two(np.int32) + number
    with pytest.raises(TypeError, match="would narrow"):
        mts.map_rows(jnp.multiply, two(), args=(np.array([2**40, 1]),))


@pytest.mark.parametrize("number", [1e300, np.float64(1e300), -1e39])
def test_floats_that_do_not_fit(number: Any) -> None:
    with pytest.raises(mts.MetatensorError, match="does not fit into float32"):
        two() * number
    assert values_of(two() * np.inf)[0][0] == [np.inf, np.inf]
    third = values_of(two() + np.float64(1 / 3))[0][0][0]
    assert third == np.float32(1) + np.float32(1 / 3)


def with_gradient() -> TensorMap:
    gradient = TensorBlock(np.ones((1, 2), "f4"), Labels("sample", [[0]]), [], P)
    block = block_of(np.array([[1, 2], [3, 4]], "f4")).with_gradient("g", gradient)
    return TensorMap(Labels.range("k", 2), [block, block])


def test_linear_parts_of_each_block() -> None:
    functions = [lambda r: 2 * r + 1, lambda r: 3 * r + 1]
    parts = [lambda r: 2 * r, lambda r: 3 * r]
    out = mts.map_rows(functions, with_gradient(), linear=parts)
    gradients = [block.gradient("g").values.tolist() for block in out]
    assert gradients == [[[2, 2]], [[3, 3]]]
    with pytest.raises(TypeError, match="must be True, False, a function"):
        mts.map_rows(lambda r: r * r, with_gradient(), linear="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("jit", [False, True])
def test_arguments_that_a_function_must_know(jit: bool) -> None:
    def call(x: TensorMap) -> list[Any]:
        repeated = mts.map_rows(
            jnp.repeat, x, args=(np.int64(2),), properties=Labels.range("p", 4)
        )
        shaped = mts.map_rows(jnp.reshape, x, args=(np.array([2]),))
        return [repeated.block(0).values, shaped.block(0).values]

    repeated, shaped = (jax.jit(call) if jit else call)(two())
    assert repeated.tolist() == [[1, 1, 2, 2], [3, 3, 4, 4]]
    assert shaped.tolist() == [[1, 2], [3, 4]]


def test_stacked_modules_transfer_what_they_need() -> None:
    x = two().to(arrays="jax")
    layers = [eqx.nn.Linear(2, 2, key=jax.random.key(i)) for i in range(2)]
    model = ModuleMap(x.keys, layers)
    of_all, together = StackedModuleMap(model), mts.stack_blocks(x)
    with jax.transfer_guard("disallow"):
        out = of_all(together).unstack()
        again = of_all.unstack()(x)
    assert mts.allclose(out, again)


def test_nothing_is_computed_for_no_rows() -> None:
    empty = block_of(np.zeros((0, 2), "f4"))
    with jax.debug_nans(True):
        out = mts.map_rows(lambda row: jnp.sqrt(row - 2), empty)
    assert out.shape == (0, 2)
