"""Stacked blocks: exactly the same map, and modules that give exactly the same."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, assert_same, block, enable_x64, tensor

import metatensor_jax as mts

eqx = pytest.importorskip("equinox")

from metatensor_jax.learn import (  # noqa: E402
    Linear,
    ModuleMap,
    StackedModuleMap,
    StackedModules,
)

NESTED = {
    "positions": Gradient((3,), [0, 2, 2], {"positions": Gradient((3,), [1, 0])}),
    "strain": Gradient((3, 3)),
}
# rows of the values that gradient rows belong to, other ones for each block
SPARSE = ([0, 2, 2], [1], [3, 0, 1, 1])


def sparse(
    sizes: Any = (4, 4, 4), components: Any = (), n_properties: Any = 2, **options: Any
) -> mts.TensorMap:
    """Blocks whose gradients have other rows, and other numbers of rows."""
    if isinstance(n_properties, int):
        n_properties = [n_properties] * len(sizes)
    blocks = [
        block(
            n,
            components,
            p,
            {"positions": Gradient(rows=SPARSE[i % 3])},
            seed=i,
            first_system=10 * i,
            **options,
        )
        for i, (n, p) in enumerate(zip(sizes, n_properties, strict=True))
    ]
    return mts.TensorMap(mts.Labels.range("key", len(sizes)), blocks)


# --- stack_blocks and unstack --------------------------------------------------------

MAPS = {
    "plain": lambda: tensor((4, 4, 4)),
    "components": lambda: tensor((3, 3), components=(3, 5)),
    "gradients": lambda: tensor((4, 4), gradients={"positions": Gradient()}),
    "nested gradients": lambda: tensor((4, 4, 4), gradients=NESTED),
    "sparse gradients": sparse,
    "other numbers of rows": lambda: tensor((17, 18, 20, 19), gradients=NESTED),
    "several groups": lambda: sparse((4, 4, 40, 4, 40), n_properties=[2, 3, 2, 3, 2]),
    "dtypes": lambda: mts.TensorMap(
        mts.Labels.range("key", 2), [block(dtype="f8", seed=i) for i in range(2)]
    ),
    "one block": lambda: tensor((4,)),
    "blocks without rows": lambda: tensor((0, 4, 0), gradients=NESTED),
    "no blocks": lambda: mts.TensorMap(mts.Labels.empty("key"), []),
    "info": lambda: tensor((2, 2), info={"units": "eV"}),
    "traced": lambda: tensor((4, 4), gradients=NESTED, arrays="jax", traced=True),
    "JAX arrays": lambda: tensor((4, 4, 3), gradients=NESTED, arrays="jax"),
}


@pytest.mark.parametrize("name", MAPS)
def test_unstacking_is_the_exact_inverse(name: str) -> None:
    x = MAPS[name]()
    back = mts.stack_blocks(x).unstack()
    assert_same(back, x)
    kinds = [type(leaf) for leaf in jax.tree.leaves(x)]
    assert [type(leaf) for leaf in jax.tree.leaves(back)] == kinds


def test_blocks_of_equal_shape_are_one_array() -> None:
    stacked = mts.stack_blocks(sparse((4, 4, 40, 4, 40), n_properties=[2, 3, 2, 3, 2]))
    assert sorted(i for members in stacked.groups for i in members) == [0, 1, 2, 3, 4]
    of_each = {i: g for g, members in enumerate(stacked.groups) for i in members}
    assert of_each[0] != of_each[1]  # other properties
    assert of_each[0] != of_each[2]  # far more rows
    assert len(stacked) == 5
    same = mts.stack_blocks(tensor((4, 4, 4)))
    assert same.groups == ((0, 1, 2),)
    assert [leaf.shape for leaf in jax.tree.leaves(same)] == [(3, 4, 2)]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(same))


def test_stacking_is_for_maps() -> None:
    with pytest.raises(TypeError, match=r"must be a .*TensorMap, not .*TensorBlock"):
        mts.stack_blocks(block())


@pytest.mark.parametrize("name", ["nested gradients", "other numbers of rows"])
def test_under_jit(name: str) -> None:
    x = MAPS[name]().to(arrays="jax")
    assert_same(jax.jit(lambda x: mts.stack_blocks(x).unstack())(x), x)
    stacked = jax.jit(mts.stack_blocks)(x)
    assert_same(stacked, mts.stack_blocks(x))
    assert_same(jax.jit(lambda stacked: stacked.unstack())(stacked), x)


def test_equal_maps_share_one_program() -> None:
    traces = []

    @jax.jit
    def total(stacked: mts.StackedMap) -> Any:
        traces.append(1)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(stacked))

    for seed in range(3):
        total(mts.stack_blocks(tensor((4, 4, 3), gradients=NESTED, seed=seed)))
    assert len(traces) == 1
    total(mts.stack_blocks(tensor((4, 4, 2), gradients=NESTED)))
    assert len(traces) == 2


def test_is_a_pytree_under_grad() -> None:
    x = tensor((4, 3), gradients={"positions": Gradient()}).to(arrays="jax")
    stacked = mts.stack_blocks(x)

    def total(stacked: mts.StackedMap) -> Any:
        return sum(jnp.sum(block.values**2) for block in stacked.unstack())

    gradient = jax.grad(total)(stacked)
    assert isinstance(gradient, mts.StackedMap)
    for mine, before in zip(gradient.unstack(), x, strict=True):
        np.testing.assert_allclose(mine.values, 2 * before.values, rtol=1e-6)
        assert not np.any(mine.gradient("positions").values)
    # what blocks were filled up with is no data
    for leaf, known in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(stacked), strict=True
    ):
        assert leaf.shape == known.shape


# --- StackedModules ------------------------------------------------------------------


def held_together(module_map: ModuleMap) -> ModuleMap:
    """The same, whose modules that are alike are one."""
    modules = StackedModules(module_map.modules)
    return ModuleMap(module_map.in_keys, modules, module_map.out_properties)


def one_by_one_again(module_map: ModuleMap) -> ModuleMap:
    return ModuleMap(
        module_map.in_keys, list(module_map.modules), module_map.out_properties
    )


def mlps(n: int, n_in: int, n_out: Any = 3, width: int = 4) -> list[Any]:
    keys = jax.random.split(jax.random.key(7), n)
    return [eqx.nn.MLP(n_in, n_out, width, 1, jnp.tanh, key=key) for key in keys]


def linear(keys: mts.Labels, n_in: Any, n_out: Any = 3, **options: Any) -> Any:
    layer = Linear(keys, n_in, n_out, key=jax.random.key(3), **options)
    return layer.module_map


CASES = {
    "linear": (lambda: sparse(), lambda x: linear(x.keys, 2)),
    "no bias": (lambda: sparse(), lambda x: linear(x.keys, 2, bias=False)),
    "some biases": (lambda: sparse(), lambda x: linear(x.keys, 2, bias=[1, 0, 1])),
    "nonlinear": (lambda: sparse(), lambda x: ModuleMap(x.keys, mlps(3, 2))),
    "scalar": (lambda: sparse(), lambda x: ModuleMap(x.keys, mlps(3, 2, "scalar"))),
    "components": (
        lambda: sparse(components=(3,)),
        lambda x: ModuleMap(x.keys, mlps(3, 2)),
    ),
    "nested gradients": (
        lambda: tensor((4, 4, 4), gradients=NESTED),
        lambda x: ModuleMap(x.keys, mlps(3, 2)),
    ),
    "other numbers of rows": (
        lambda: sparse((17, 19, 20)),
        lambda x: ModuleMap(x.keys, mlps(3, 2)),
    ),
    "several groups": (
        lambda: sparse((4, 4, 40, 4, 40), n_properties=[2, 3, 2, 3, 2]),
        lambda x: linear(x.keys, [2, 3, 2, 3, 2], [3, 1, 3, 2, 4]),
    ),
    "several kinds of modules": (
        lambda: sparse((4, 4, 4, 4)),
        lambda x: ModuleMap(
            x.keys, [jnp.sin, mlps(1, 2, 2)[0], jnp.sin, mlps(1, 2, 2, width=8)[0]]
        ),
    ),
    "more modules, in another order": (
        lambda: sparse(),
        lambda x: ModuleMap(mts.Labels("key", [[2], [5], [0], [1]]), mlps(4, 2)),
    ),
    "traced": (
        lambda: sparse(arrays="jax", traced=True),
        lambda x: ModuleMap(x.keys, mlps(3, 2)),
    ),
    "out_properties": (
        lambda: sparse(),
        lambda x: ModuleMap(
            x.keys, mlps(3, 2), [mts.Labels.range(f"p{i}", 3) for i in range(3)]
        ),
    ),
}


def squares(tensor: mts.TensorMap) -> Any:
    """Something that depends on all values and all stored gradients."""
    leaves = [
        leaf
        for block in tensor
        for leaf in [block.values, *(g.values for _, g in block.gradients())]
    ]
    return sum((jnp.sum(jnp.asarray(leaf) ** 2) for leaf in leaves), jnp.zeros(()))


@pytest.mark.parametrize("name", CASES)
def test_gives_what_the_module_map_gives(name: str) -> None:
    make, module = CASES[name]
    x = make()
    one_by_one = module(x)
    together = held_together(one_by_one)
    expected = eqx.filter_jit(one_by_one)(x)
    actual = eqx.filter_jit(together)(x)
    mts.allclose_raise(actual, expected, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    stacked = eqx.filter_eval_shape(together, mts.stack_blocks(x))
    assert isinstance(stacked, mts.StackedMap)


def test_eager_equals_jit() -> None:
    x = mts.stack_blocks(sparse())
    module = held_together(linear(x.keys, 2))
    eager, by_jit = module(x).unstack(), eqx.filter_jit(module)(x).unstack()
    mts.allclose_raise(eager, by_jit, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["nonlinear", "several groups", "more modules, in another order"]
)
def test_derivatives_by_parameters_are_those_of_the_module_map(name: str) -> None:
    make, module = CASES[name]
    x = make()
    one_by_one = module(x)
    together = held_together(one_by_one)

    @eqx.filter_jit
    @eqx.filter_grad
    def of_stacked(module: Any, x: mts.StackedMap) -> Any:
        return squares(module(x).unstack())

    @eqx.filter_jit
    @eqx.filter_grad
    def of_map(module: Any, x: mts.TensorMap) -> Any:
        return squares(module(x))

    mine = one_by_one_again(of_stacked(together, mts.stack_blocks(x)))
    leaves, structure = jax.tree.flatten(eqx.filter(mine, eqx.is_array))
    expected, same = jax.tree.flatten(eqx.filter(of_map(one_by_one, x), eqx.is_array))
    assert structure == same
    for one, other in zip(leaves, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_modules_come_back_as_they_are_and_as_they_were_trained() -> None:
    make, module = CASES["several groups"]
    x = make()
    one_by_one = module(x)
    together = held_together(one_by_one)
    assert_same(one_by_one_again(together), one_by_one)
    arrays, static = eqx.partition(together, eqx.is_array)
    moved = eqx.combine(jax.tree.map(lambda array: array + 1, arrays), static)
    back = one_by_one_again(moved)
    before = eqx.filter(one_by_one.modules, eqx.is_array)
    after = eqx.filter(back.modules, eqx.is_array)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a + 1, b), before, after)
    results = [eqx.filter_jit(module)(x) for module in (moved, back)]
    mts.allclose_raise(*results, rtol=1e-5, atol=1e-6)


def test_gradients_of_gradients_get_the_rows_of_the_chain_rule() -> None:
    """They kept the labels of the input, with the values of other rows."""
    p, labels = mts.Labels.range("p", 1), mts.Labels
    d2x = mts.TensorBlock(
        np.ones((1, 1), "f4"), labels(["sample", "r"], [[1, 1]]), [], p
    )
    rows = labels(["sample", "r"], [[0, 0], [0, 1]])
    dx = mts.TensorBlock(np.array([[3], [5]], "f4"), rows, [], p, {"r": d2x})
    x = mts.TensorBlock(np.full((1, 1), 4.5, "f4"), labels.range("s", 1), [], p)
    tensor = mts.TensorMap(labels.range("key", 1), [x.with_gradient("r", dx)])
    y = held_together(ModuleMap(tensor.keys, [jnp.square]))(tensor)
    second = y.block().gradient("r").gradient("r")
    # d2(x**2) = 2 (dx dx + x d2x), for each pair of gradient rows
    assert second.samples.values.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    np.testing.assert_allclose(second.values[:, 0], [18, 30, 30, 59])


def test_parameters_are_a_few_arrays() -> None:
    keys = mts.Labels.range("key", 20)
    together = held_together(linear(keys, 2))
    shapes = [leaf.shape for leaf in jax.tree.leaves(together) if eqx.is_array(leaf)]
    assert sorted(shapes) == [(20, 3), (20, 3, 2)]


def test_training_compiles_once_and_gives_the_same_model() -> None:
    x = sparse()
    stacked, traces = mts.stack_blocks(x), []

    @eqx.filter_jit
    def step(module: Any, x: Any) -> Any:
        traces.append(1)

        def loss(module: Any) -> Any:
            y = module(x)
            return squares(y.unstack() if isinstance(y, mts.StackedMap) else y)

        gradient = eqx.filter_grad(loss)(module)
        return eqx.apply_updates(module, jax.tree.map(lambda g: -1e-3 * g, gradient))

    one_by_one = ModuleMap(x.keys, mlps(3, 2))
    together = held_together(one_by_one)
    for _ in range(4):
        together = step(together, stacked)
    assert len(traces) == 1
    for _ in range(4):
        one_by_one = step(one_by_one, x)
    pairs = zip(
        jax.tree.leaves(eqx.filter(one_by_one_again(together), eqx.is_array)),
        jax.tree.leaves(eqx.filter(one_by_one, eqx.is_array)),
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def _norm(row: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(row**2))  # its derivative at zero is NaN


def _inverse(row: jax.Array) -> jax.Array:
    return 1 / row


@pytest.mark.parametrize("function", [_norm, _inverse])
@pytest.mark.parametrize("gradients", [None, "sparse"])
def test_rows_of_zeros_that_fill_up_reach_nothing(
    function: Any, gradients: str | None
) -> None:
    """Blocks are filled up with zeros, where these functions have no derivative."""
    x = sparse((17, 19, 20)) if gradients else tensor((17, 19, 20))
    x = x.to(arrays="jax")

    assert len(mts.stack_blocks(x).groups) == 1

    class Scaled(eqx.Module):
        scale: jax.Array

        def __call__(self, row: jax.Array) -> jax.Array:
            return self.scale * function(row)

    module_map = ModuleMap(x.keys, [Scaled(jnp.full((), 1.0 + i)) for i in range(3)])
    together = held_together(module_map)

    @eqx.filter_jit
    def both(module: Any, x: mts.TensorMap) -> Any:
        """The results, and their derivatives by parameters and by values."""
        arrays, static = eqx.partition(module, eqx.is_array)

        def loss(arrays: Any, x: mts.TensorMap) -> Any:
            y = eqx.combine(arrays, static)(x)
            return squares(y), y

        (of_module, of_values), y = jax.grad(loss, (0, 1), has_aux=True)(arrays, x)
        return of_module, of_values, y

    of_module, *rest = both(together, x)
    one = [list(eqx.combine(of_module, together).modules), *rest]
    of_module, *rest = both(module_map, x)
    other = [of_module.modules, *rest]
    leaves = [jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (one, other)]
    for mine, expected in zip(*leaves, strict=True):
        assert np.all(np.isfinite(mine))
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-4)


def test_a_loss_over_stacked_arrays_may_see_what_fills_up() -> None:
    """Results of the filled up rows are finite: a mask can take them out."""
    x = mts.stack_blocks(tensor((17, 19)).to(arrays="jax"))
    assert len(x.groups) == 1
    module = held_together(ModuleMap(x.keys, [_inverse, _inverse]))
    for leaf in jax.tree.leaves(module(x)):
        assert np.all(np.isfinite(leaf))


BAD = [
    (
        lambda: held_together(linear(mts.Labels("key", [[0], [1]]), 2))(sparse()),
        r"no module for the block \(key=2\), the modules are for",
    ),
    (
        lambda: held_together(
            ModuleMap(mts.Labels.range("key", 3), mlps(3, 2), mts.Labels.range("p", 2))
        )(sparse()),
        r"gives 3 properties, but its `out_properties` are 2",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(mts.MetatensorError, match=message):
        make()


def test_data_is_not_narrowed() -> None:
    """As for ``ModuleMap``: it became float32 without a word."""
    x = tensor((4, 4), dtype=np.float64)
    module_map = ModuleMap(x.keys, [jnp.sin, jnp.sin])
    for module in (module_map, held_together(module_map)):
        with pytest.raises(TypeError, match="is float64, but JAX is in its 32-bit"):
            module(x)
    with enable_x64(True):
        assert held_together(module_map)(x).dtype == np.float64


def test_a_module_of_another_size_names_the_block() -> None:
    """As ``ModuleMap`` does."""
    x = sparse()
    module_map = ModuleMap(x.keys, mlps(3, 5))
    wanted = "in the module for the block (key=0), which has 2 properties"
    for module in (module_map, held_together(module_map)):
        with pytest.raises(TypeError) as raised:
            module(x)
        assert wanted in raised.value.__notes__


# --- many modules --------------------------------------------------------------------

MANY = 36


class Layer(eqx.Module):
    """A nonlinear module that takes no time to make."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, row: jax.Array) -> jax.Array:
        return jnp.tanh(self.weight @ row + self.bias)


def layers_of(shapes: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        Layer(*(jnp.asarray(rng.normal(size=s), "f4") for s in (shape, shape[:1])))
        for shape in shapes
    ]


def many(**options: Any) -> mts.TensorMap:
    """Small blocks of several sizes, some of them with other features."""
    sizes = [4 + 2 * (i % 4 == 0) for i in range(MANY)]
    return sparse(sizes, n_properties=[2 + (i > 32) for i in range(MANY)], **options)


def layers_for(x: mts.TensorMap) -> list[Any]:
    return layers_of([(3, len(block.properties)) for block in x])


def in_a_list(model: ModuleMap) -> ModuleMap:
    """The same, block by block: what few modules are."""
    return eqx.tree_at(lambda m: m.modules, model, list(model.modules))


@pytest.mark.parametrize("how", ["eager", "jit", "jvp", "grad", "vmap"])
def test_many_modules_give_what_each_of_them_gives(how: str) -> None:
    x = many(arrays="jax")
    order = np.random.default_rng(0).permutation(MANY)
    modules = layers_for(x)
    keys = mts.Labels("key", order[:, None])
    model = ModuleMap(keys, [modules[i] for i in order])
    assert isinstance(model.modules, StackedModules)
    assert len(jax.tree.leaves(eqx.filter(model, eqx.is_array))) == 4
    each = in_a_list(model)

    def call(model: ModuleMap, x: mts.TensorMap) -> Any:
        arrays, static = eqx.partition(model, eqx.is_array)

        def loss(arrays: Any, scale: Any) -> Any:
            return squares(eqx.combine(arrays, static)(mts.multiply(x, scale)))

        match how:
            case "eager":
                return model(x)
            case "jit":
                return eqx.filter_jit(model)(x)
            case "jvp":
                return jax.jvp(lambda s: loss(arrays, s), (1.5,), (1.0,))
            case "grad":
                found = jax.jit(jax.grad(loss))(arrays, 1.5)
                return [[m.weight, m.bias] for m in found.modules]
            case _:
                x = mts.remove_gradients(x)
                scales = jnp.array([1.0, 2.0, -0.5])
                return jax.vmap(jax.grad(loss, 1), (None, 0))(arrays, scales)

    mine, expected = jax.tree.leaves(call(model, x)), jax.tree.leaves(call(each, x))
    assert len(mine) == len(expected)
    for one, other in zip(mine, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)


def test_second_derivatives_of_many_modules() -> None:
    x = mts.remove_gradients(many(arrays="jax"))
    model = ModuleMap(x.keys, layers_for(x))

    def loss(scale: Any, model: ModuleMap) -> Any:
        return squares(model(mts.multiply(x, scale)))

    mine, expected = (
        jax.jit(jax.jacfwd(jax.grad(lambda s: loss(s, m))))(0.7)  # noqa: B023
        for m in (model, in_a_list(model))
    )
    np.testing.assert_allclose(mine, expected, rtol=1e-4)


def test_many_modules_that_are_not_alike_are_a_list() -> None:
    keys = mts.Labels.range("key", MANY)
    modules = layers_of([(2 + i, 3) for i in range(MANY)])
    assert isinstance(ModuleMap(keys, modules).modules, list)
    assert isinstance(ModuleMap(keys, modules[:3] * 2 + modules[6:]).modules, list)


def test_large_blocks_are_not_laid_together() -> None:
    """That would take longer than it gains."""

    def programs(n_rows: int) -> str:
        blocks = [
            mts.block_from_array(jnp.ones((n_rows, 16), "f4")) for _ in range(MANY)
        ]
        x = mts.TensorMap(mts.Labels.range("key", MANY), blocks)
        model = ModuleMap(x.keys, layers_for(x))
        arrays, static = eqx.partition(model, eqx.is_array)
        call = jax.jit(lambda arrays, x: eqx.combine(arrays, static)(x))
        return str(call.trace(arrays, x).jaxpr)

    assert f"f32[{MANY},20,16]" in programs(20)
    assert f"f32[{MANY},2000,16]" not in programs(2000)


def test_many_modules_with_keys_and_state() -> None:
    x = tensor((4,) * MANY)
    drop = [eqx.nn.Dropout(0.5) for _ in range(MANY)]
    model = ModuleMap(x.keys, drop)
    key = jax.random.key(3)
    mts.allclose_raise(model(x, key=key), in_a_list(model)(x, key=key))


def test_the_items_of_an_array_are_compiled_as_one() -> None:
    """One kernel for each place takes 9 ms to compile."""
    from metatensor_jax.layout._items import items_of

    array = jnp.arange(60.0).reshape(30, 2)
    program = jax.jit(items_of)
    for one, row in zip(program(array), np.asarray(array), strict=True):
        np.testing.assert_array_equal(one, row)
    jaxpr = str(program.trace(array).jaxpr)
    assert jaxpr.count("while[") == 2  # for numbers that XLA does not know
    assert jaxpr.count("= slice[") == 0
    _, tangents = jax.jvp(items_of, (array,), (2 * array,))
    np.testing.assert_array_equal(tangents[7], 2 * array[7])
    of_all = jax.grad(lambda x: sum(i * y.sum() for i, y in enumerate(items_of(x))))
    np.testing.assert_array_equal(of_all(array)[:, 0], np.arange(30))


class Counts(eqx.Module):
    """A module with a state: how often it was called."""

    index: eqx.nn.StateIndex

    def __init__(self) -> None:
        self.index = eqx.nn.StateIndex(jnp.zeros(()))

    def __call__(self, row: jax.Array, state: Any) -> Any:
        n = state.get(self.index)
        return row * (1 + n), state.set(self.index, n + 1)


def test_many_modules_with_a_state_have_their_own() -> None:
    keys = mts.Labels.range("key", MANY)
    x = mts.TensorMap(keys, [mts.block_from_array(np.ones((1, 2), "f4"))] * MANY)
    for make in (
        lambda: ModuleMap(keys, [Counts() for _ in range(MANY)]),
        lambda: ModuleMap.from_module(keys, Counts()),
    ):
        model, state = eqx.nn.make_with_state(make)()
        assert isinstance(model.modules, list)
        y, _ = model(x, state)
        assert float(y.block(key=0).values[0, 0]) == 1.0
    assert isinstance(ModuleMap(keys, [jnp.sin] * MANY).modules, StackedModules)


def test_the_modules_of_an_ensemble_are_those_of_its_members() -> None:
    keys = mts.Labels.range("key", MANY)

    def make(key: jax.Array) -> ModuleMap:
        return Linear(keys, 3, 2, key=key).module_map

    ensemble = eqx.filter_vmap(make)(jax.random.split(jax.random.key(0), 4))
    for call in (lambda: ensemble.modules[0], lambda: list(ensemble.modules)):
        with pytest.raises(mts.MetatensorError, match="take one model of an ensemble"):
            call()
    arrays, static = eqx.partition(ensemble, eqx.is_array)
    one = eqx.combine(jax.tree.map(lambda x: x[1], arrays), static)
    assert one.modules[0].weight.shape == (2, 3)


def test_few_modules_together_by_name() -> None:
    """The old name: with a state and with keys it is a ModuleMap as well."""
    x = sparse()
    one_by_one = ModuleMap(x.keys, mlps(3, 2))
    together = StackedModuleMap(one_by_one)
    mts.allclose_raise(together(x), one_by_one(x), rtol=1e-5, atol=1e-6)
    back = together.unstack()
    assert_same(*[eqx.filter(m.modules, eqx.is_array) for m in (back, one_by_one)])
    drop = StackedModuleMap(ModuleMap(x.keys, [eqx.nn.Dropout(0.5)] * 3))
    key = jax.random.key(0)
    mts.allclose_raise(drop(x, key=key), drop.unstack()(x, key=key))
    model, state = eqx.nn.make_with_state(
        lambda: StackedModuleMap(ModuleMap(x.keys, [Counts() for _ in range(3)]))
    )()
    plain = mts.remove_gradients(x)
    first = model(plain, state)[0].block(key=0)
    np.testing.assert_array_equal(first.values, plain.block(key=0).values)


def test_another_module_in_one_place() -> None:
    modules = StackedModules(layers_of([(2, 3)] * 4))
    other = layers_of([(2, 3)])[0]
    changed = modules.with_module(
        2, eqx.tree_at(lambda m: m.bias, other, other.bias + 7)
    )
    assert_same(list(changed)[:2], list(modules)[:2])
    np.testing.assert_array_equal(changed[2].bias, other.bias + 7)
    with pytest.raises(mts.MetatensorError, match="differs from the one"):
        modules.with_module(2, layers_of([(3, 3)])[0])
