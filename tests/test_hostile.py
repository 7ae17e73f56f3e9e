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
from metatensor_jax.learn.nn import ModuleMap, StackedModules

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
    "kind", [ModuleMap, lambda keys, x: ModuleMap(keys, StackedModules(x))]
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
    of_all, together = ModuleMap(x.keys, StackedModules(layers)), mts.stack_blocks(x)
    with jax.transfer_guard("disallow"):
        out = of_all(together).unstack()
        again = ModuleMap(x.keys, list(of_all.modules))(x)
    assert mts.allclose(out, again)


def test_nothing_is_computed_for_no_rows() -> None:
    empty = block_of(np.zeros((0, 2), "f4"))
    with jax.debug_nans(True):
        out = mts.map_rows(lambda row: jnp.sqrt(row - 2), empty)
    assert out.shape == (0, 2)


def losses_of(dtype: str, *values: float) -> TensorMap:
    return TensorMap(Labels.single(), [block_of(np.array([values], dtype))])


def test_losses_do_not_narrow_or_overflow() -> None:
    from metatensor_jax import learn

    a, b = losses_of("f8", -1e5 + 0.003, 0), losses_of("f8", -1e5, 0)
    with pytest.raises(TypeError, match="would narrow"):
        learn.mean_squared(a, b)
    with pytest.raises(TypeError, match="not of int32"):
        learn.mean_squared(losses_of("i4", 1, 2), losses_of("i4", 1, 3))
    large = np.full((70_000, 2), 1, "f2")
    ones, zeros = (
        TensorMap(Labels.single(), [block_of(x)]) for x in (large, 0 * large)
    )
    assert float(learn.mean_squared(ones, zeros)) == 1.0
    assert learn.errors(ones, zeros)["values"]["rmse"] == pytest.approx(1.0)


def test_losses_of_padded_maps_compare_labels() -> None:
    from metatensor_jax import learn

    rows = Labels(["system", "atom"], [[0, 0], [1, 0], [1, 1]])
    turned = Labels(rows.names, rows.values[::-1])
    one = Labels.range("e", 1)
    values = np.array([[1], [2], [3]], "f4")
    a = TensorMap(Labels.single(), [TensorBlock(values, rows, [], one)])
    b = TensorMap(Labels.single(), [TensorBlock(values[::-1], turned, [], one)])
    layout = mts.Layout.fit(a, systems=2)
    a, b = layout.pad(a).tensors, layout.pad(b).tensors
    with pytest.raises(mts.NotEqualError, match="the samples of padded maps differ"):
        learn.mean_squared(a, b)
    assert np.isnan(jax.jit(learn.mean_squared)(a, b))
    assert float(jax.jit(learn.mean_squared)(a, a)) == 0.0


def test_models_hold_what_can_be_saved(tmp_path: Any) -> None:
    from metatensor_jax import learn

    with pytest.raises(mts.MetatensorError, match="complex, which can not be saved"):
        learn.save(tmp_path / "x", {"c": 1 + 2j})
    learn.save(tmp_path / "x", {"a": "no"})
    with pytest.raises(mts.MetatensorError, match="is 3 in the model, but 'no'"):
        learn.load(tmp_path / "x", {"a": 3})

    class ByKey(eqx.Module):
        in_keys: Labels
        weight: jax.Array

    learn.save(tmp_path / "m", ByKey(Labels("k", [[1], [8]]), jnp.array([1.0, 8.0])))
    other = ByKey(Labels("k", [[8], [1]]), jnp.zeros(2))
    with pytest.raises(mts.MetatensorError, match="in_keys are"):
        learn.load(tmp_path / "m", other)


def test_infinity_is_tolerated_by_nothing(tmp_path: Any) -> None:
    from metatensor_jax._cli.main import main

    for name, value in (("a", 1.0), ("b", np.inf), ("c", np.nan)):
        mts.save(tmp_path / f"{name}.mts", losses_of("f8", value, 0))
    a, b, c = (str(tmp_path / f"{name}.mts") for name in "abc")
    assert [main(["diff", "--rtol", "1e-6", x, b]) for x in (a, b, c)] == [1, 0, 1]


def test_components_that_moved_do_not_go_unturned() -> None:
    from metatensor_jax import o3

    xyz = Labels.range("xyz", 3)
    block = TensorBlock(
        np.ones((1, 3, 1), "f4"), Labels.range("s", 1), [xyz], P.range("p", 1)
    )
    moved = TensorMap(Labels.single(), [block]).components_to_properties("xyz")
    with pytest.raises(mts.MetatensorError, match="rotate first"):
        o3.rotate(moved, np.eye(3))


def test_devices_are_no_files() -> None:
    with pytest.raises(ValueError, match="it is a device"):
        mts.load("/dev/zero")


def test_pytorch_notes_signs() -> None:
    torch = pytest.importorskip("torch")
    x = torch.complex(torch.ones(1, 2), torch.full((1, 2), 3.0)).conj().imag
    assert mts.block_from_array(x).values.tolist() == [[-3.0, -3.0]]


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">c16"])
def test_byte_order_on_the_way_to_pytorch(dtype: str) -> None:
    pytest.importorskip("torch")
    block = mts.block_from_array(np.array([[1]], dtype))
    theirs = mts.interop.to_metatensor(block, arrays="torch")
    assert theirs.values.tolist() == [[1]]
