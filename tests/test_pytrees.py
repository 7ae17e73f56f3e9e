"""What JAX may do with labels, blocks and maps: every question, asked of every case."""

import contextlib
import copy
import functools
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, assert_same, block, names_of, tensor

from metatensor_jax import Labels, LabelsEntry, TensorBlock, TensorMap

NESTED = {
    "positions": Gradient((3,), rows=[2, 0, 2], gradients={"cell": Gradient((3, 3))}),
    "a": Gradient(()),
}
NESTED_NAMES = [
    "values",
    "gradient('a').values",
    "gradient('positions').values",
    "gradient('positions').gradient('cell').values",
]
TRACED_NAMES = [
    "values",
    "samples.values",
    "gradient('a').values",
    "gradient('a').samples.values",
    "gradient('positions').values",
    "gradient('positions').samples.values",
    "gradient('positions').gradient('cell').values",
    "gradient('positions').gradient('cell').samples.values",
]


class Case(NamedTuple):
    """An object, made anew at each call, and what JAX calls its leaves."""

    make: Callable[..., Any]
    names: list[str]


def static_labels() -> Labels:
    return Labels(["system", "atom"], [[0, 0], [0, 1], [3, 0]])


def traced_labels() -> Labels:
    return Labels.traced(["system", "atom"], jnp.array([[0, 0], [0, 1]], jnp.int32))


def traced_gradients_of_static_samples(**options: Any) -> TensorBlock:
    outer, inner = block(**options), block(gradients=NESTED, traced=True, **options)
    return TensorBlock(
        outer.values, outer.samples, [], outer.properties, dict(inner.gradients())
    )


def case(make: Callable[..., Any], *names: str, **options: Any) -> Case:
    return Case(functools.partial(make, **options), [f".{name}" for name in names])


def tensor_case(*names: str, **options: Any) -> Case:
    every = [f"blocks[{i}].{name}" for i in range(3) for name in names]
    return case(tensor, *every, **options)


JAX = {"arrays": "jax"}
CASES = {
    "static labels": case(static_labels),
    "traced labels": case(traced_labels, "values"),
    "block": case(block, "values", **JAX),
    "NumPy block": case(block, *NESTED_NAMES, gradients=NESTED),
    "block with components": case(block, "values", components=(3, 2), **JAX),
    "block without samples": case(block, *NESTED_NAMES, n_samples=0, gradients=NESTED),
    "block with a gradient": case(
        block, "values", "gradient('x').values", gradients={"x": Gradient()}, **JAX
    ),
    "block with nested gradients": case(block, *NESTED_NAMES, gradients=NESTED, **JAX),
    "traced block": case(
        block, *TRACED_NAMES, components=(3,), gradients=NESTED, traced=True, **JAX
    ),
    "block with traced gradients": case(
        traced_gradients_of_static_samples,
        *[name for name in TRACED_NAMES if name != "samples.values"],
        **JAX,
    ),
    "map": tensor_case("values", **JAX),
    "NumPy map": tensor_case("values"),
    "map with info": tensor_case("values", info={"unit": "eV"}, **JAX),
    "map with nested gradients": tensor_case(*NESTED_NAMES, gradients=NESTED, **JAX),
    "traced map": tensor_case(*TRACED_NAMES, gradients=NESTED, traced=True, **JAX),
    "empty map": case(tensor, sizes=()),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """JAX looks for tracers that outlive their program, which takes it some time."""
    with jax.checking_leaks():
        yield


def labels_of(tree: Any) -> list[Labels]:
    """The static labels of an object, in a fixed order."""
    if isinstance(tree, Labels):
        return [tree] if tree.is_static else []
    if isinstance(tree, TensorMap):
        return [tree.keys, *(labels for b in tree for labels in labels_of(b))]
    own = [tree.samples, *tree.components, tree.properties]
    below = [labels for _, g in tree.gradients() for labels in labels_of(g)]
    return [labels for labels in own if labels.is_static] + below


def assert_same_labels(actual: Any, expected: Any) -> None:
    """The labels are the same objects: nothing was copied, nothing is hashed again."""
    pairs = zip(labels_of(actual), labels_of(expected), strict=True)
    assert all(one is other for one, other in pairs)


def is_none(leaf: Any) -> bool:
    return leaf is None


def scale(tree: Any, factor: Any = 2) -> Any:
    """All data times a factor, keeping dtypes; the labels' values stay."""
    return jax.tree.map(
        lambda x: x if x.dtype == np.int32 else x * jnp.asarray(factor, x.dtype), tree
    )


# --- flattening ------------------------------------------------------------------


@every_case
def test_identity(case):
    made = case.make()
    result = jax.tree.map(lambda leaf: leaf, made)
    assert type(result) is type(made)
    assert_same(result, made)
    assert_same_labels(result, made)
    for one, other in zip(jax.tree.leaves(result), jax.tree.leaves(made), strict=True):
        assert one is other


@every_case
def test_flatten_and_unflatten(case):
    made = case.make()
    leaves, structure = jax.tree.flatten(made)
    assert len(leaves) == structure.num_leaves == len(case.names)
    result = jax.tree.unflatten(structure, leaves)
    assert_same(result, made)
    assert_same_labels(result, made)
    assert jax.tree.structure(result) == structure


@every_case
def test_names_of_leaves(case):
    made = case.make()
    assert names_of(made) == case.names
    in_a_tree = [f"['model'][1]{name}" for name in case.names]
    assert names_of({"model": [(), made]}) == in_a_tree
    with_paths, structure = jax.tree_util.tree_flatten_with_path(made)
    assert structure == jax.tree.structure(made)
    for (_, leaf), other in zip(with_paths, jax.tree.leaves(made), strict=True):
        assert leaf is other


@every_case
def test_names_of_leaves_are_how_to_reach_them(case):
    made = case.make()
    with_paths, _ = jax.tree_util.tree_flatten_with_path(made)
    for path, leaf in with_paths:
        # `blocks` is a method, because it takes a selection.
        name = jax.tree_util.keystr(path).replace("blocks[", "blocks()[")
        assert eval(f"made{name}", {"made": made}) is leaf


def test_paths_are_hashable_and_comparable():
    paths = [
        [path for path, _ in jax.tree_util.tree_flatten_with_path(tensor())[0]]
        for _ in range(2)
    ]
    assert paths[0] == paths[1]
    assert len(set(paths[0] + paths[1])) == 3


def test_an_entry_is_a_leaf():
    entry = LabelsEntry("a", [1])
    assert jax.tree.leaves(entry) == [entry]


# --- anything in the leaves ------------------------------------------------------

REPLACEMENTS: dict[str, Callable[[Any], Any]] = {
    "None": lambda leaf: None,
    "object": lambda leaf: object(),
    "bool": lambda leaf: True,
    "text": lambda leaf: "float32[3]",
    "shape": lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
    "batched": lambda leaf: jnp.stack([leaf] * 5),
    "batched NumPy": lambda leaf: np.stack([leaf] * 5),
    "sum": lambda leaf: np.asarray(leaf).sum(),
    "another dtype": lambda leaf: np.asarray(leaf).astype(bool),
}


def check_text(tree: Any) -> None:
    """It can be shown, and still says what it is."""
    title = type(tree).__name__
    assert repr(tree).startswith(title)
    assert str(tree).startswith(title)
    assert f"<strong>{title}</strong>" in tree._repr_html_()


@every_case
@pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_other_leaves(case, replace):
    made = case.make()
    leaves, structure = jax.tree.flatten(made)
    others = [replace(leaf) for leaf in leaves]
    result = jax.tree.unflatten(structure, others)
    assert type(result) is type(made)
    assert_same_labels(result, made)
    found, again = jax.tree.flatten(result, is_leaf=is_none)
    assert again == structure
    for one, other in zip(found, others, strict=True):
        # Labels make NumPy arrays read-only, and for that a view of them.
        assert one is other or one.base is other
    check_text(result)


@pytest.mark.parametrize(
    ("replace", "shown"),
    [
        ("None", "TensorBlock with shape NoneType"),
        ("object", "TensorBlock with shape object"),
        ("shape", "TensorBlock with shape (4, 2)"),
        ("batched", "TensorBlock with shape (5, 4, 2)"),
    ],
)
def test_text_of_other_leaves(replace, shown):
    made = jax.tree.map(REPLACEMENTS[replace], block(gradients=NESTED))
    assert repr(made).splitlines()[0] == shown
    assert shown in repr(jax.tree.map(REPLACEMENTS[replace], tensor((4,))))
    assert shown.split("shape ")[1] in made._repr_html_()


@every_case
@pytest.mark.usefixtures("no_leaks")
def test_tracers_in_the_leaves(case):
    made = case.make()
    calls = []

    @jax.jit
    def function(tree):
        calls.append(type(tree))
        assert_same_labels(tree, made)
        assert jax.tree.structure(tree) == jax.tree.structure(made)
        check_text(tree)
        return tree

    function(made)
    assert calls == [type(made)]


# --- transformations -------------------------------------------------------------


@every_case
def test_jit(case):
    made = case.make()
    result = jax.jit(scale)(made)
    assert_same(result, scale(made))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(result))


@every_case
def test_jit_with_a_closure(case):
    made = case.make()
    assert_same(jax.jit(lambda factor: scale(made, factor))(3), scale(made, 3))


@every_case
def test_compiled_ahead_of_time(case):
    made = case.make()
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, made))
    for argument in (made, shapes):
        compiled = jax.jit(scale).lower(argument).compile()
        assert_same(compiled(made), scale(made))
        assert_same(compiled(case.make()), scale(made))


def test_compiled_ahead_of_time_refuses_other_labels():
    compiled = jax.jit(scale).lower(block()).compile()
    with pytest.raises(TypeError, match="TensorBlock"):
        compiled(block(first_system=1))


@every_case
def test_eval_shape(case):
    made = case.make()
    shapes = jax.eval_shape(scale, made)
    assert jax.tree.structure(shapes) == jax.tree.structure(made)
    for one, other in zip(jax.tree.leaves(shapes), jax.tree.leaves(made), strict=True):
        assert isinstance(one, jax.ShapeDtypeStruct)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    check_text(shapes)


@every_case
@pytest.mark.usefixtures("no_leaks")
def test_grad(case):
    made = case.make()

    def loss(tree, factor):
        floats = [x for x in jax.tree.leaves(tree) if x.dtype == np.float32]
        return factor * sum([(leaf**2).sum() for leaf in floats], jnp.zeros(()))

    gradient, _ = jax.grad(loss, argnums=(0, 1), allow_int=True)(made, 3.0)
    assert type(gradient) is type(made)
    assert jax.tree.structure(gradient) == jax.tree.structure(made)
    assert_same_labels(gradient, made)
    for one, other in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(made), strict=True
    ):
        if other.dtype == np.float32:
            np.testing.assert_allclose(one, 6 * np.asarray(other), rtol=1e-6)
        else:
            assert one.dtype == jax.dtypes.float0
    check_text(gradient)


@every_case
def test_jvp_and_vjp(case):
    made = jax.tree.map(jnp.asarray, case.make())
    tangent = jax.tree.map(
        lambda x: (
            np.zeros(x.shape, jax.dtypes.float0) if x.dtype == np.int32 else 3 * x
        ),
        made,
    )
    primal_out, tangent_out = jax.jvp(scale, (made,), (tangent,))
    assert_same(primal_out, scale(made))
    for one, other in zip(
        jax.tree.leaves(tangent_out), jax.tree.leaves(made), strict=True
    ):
        if other.dtype == np.float32:
            np.testing.assert_allclose(one, 6 * other, rtol=1e-6)
    _, pull_back = jax.vjp(scale, made)
    (cotangent,) = pull_back(tangent)
    assert jax.tree.structure(cotangent) == jax.tree.structure(made)


@every_case
@pytest.mark.parametrize("axis", [0, 1])
def test_vmap(case, axis):
    made = case.make()
    many = jax.tree.map(lambda x: jnp.stack([x, 3 * x], axis), made)
    factors = jnp.array([2.0, 5.0])
    expected = jax.tree.map(
        lambda a, b: jnp.stack([a, b]),
        scale(made, 2),
        scale(jax.tree.map(lambda x: 3 * x, made), 5),
    )

    def function(tree, factor):
        assert [leaf.shape for leaf in jax.tree.leaves(tree)] == [
            leaf.shape for leaf in jax.tree.leaves(made)
        ]
        assert_same_labels(tree, made)
        check_text(tree)
        return scale(tree, factor)

    axes_by_leaf = jax.tree.map(lambda _: axis, made)
    for in_axes in ((axis, 0), (axes_by_leaf, 0)):
        assert_same(jax.vmap(function, in_axes)(many, factors), expected)
    moved = jax.vmap(function, (axis, 0), out_axes=axes_by_leaf)(many, factors)
    assert_same(jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), moved), expected)


@every_case
def test_vmap_of_one_map_for_all(case):
    made = case.make()
    result = jax.vmap(scale, in_axes=(None, 0))(made, jnp.array([1.0, 2.0]))
    for i, factor in enumerate((1, 2)):
        one = jax.tree.map(lambda x: x[i], result) if case.names else result  # noqa: B023
        assert_same(one, scale(made, factor))


@every_case
def test_scan_with_it_as_carry(case):
    made = case.make()
    result, _ = jax.lax.scan(
        lambda carry, factor: (scale(carry, factor), None), made, jnp.array([2.0, 4.0])
    )
    assert_same(result, scale(made, 8))


@every_case
@pytest.mark.usefixtures("no_leaks")
def test_scan_over_it(case):
    made = case.make()
    many = jax.tree.map(lambda x: jnp.stack([x, x, x]), made)

    def body(count, tree):
        assert_same_labels(tree, made)
        return count + 1, scale(tree)

    count, result = jax.lax.scan(body, 0, many, length=3)
    assert count == 3
    assert_same(result, scale(many))


@every_case
def test_cond_and_while(case):
    made = case.make()
    chosen = jax.jit(
        lambda which, tree: jax.lax.cond(which, scale, lambda t: scale(t, 3), tree)
    )
    assert_same(chosen(True, made), scale(made))
    assert_same(chosen(False, made), scale(made, 3))
    _, result = jax.lax.while_loop(
        lambda state: state[0] < 3,
        lambda state: (state[0] + 1, scale(state[1])),
        (0, made),
    )
    assert_same(result, scale(made, 8))


@every_case
def test_checkpoint_and_custom_jvp(case):
    made = case.make()
    assert_same(jax.checkpoint(scale)(made), scale(made))

    @jax.custom_jvp
    def double(tree):
        return scale(tree)

    double.defjvp(lambda primals, tangents: (double(*primals), tangents[0]))
    assert_same(double(made), scale(made))


@every_case
def test_device_put_and_get(case):
    made = case.make()
    placed = jax.device_put(made, jax.devices()[0])
    assert_same(placed, made)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(placed))
    fetched = jax.device_get(placed)
    assert_same(fetched, made)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(fetched))
    jax.block_until_ready(placed)
    assert_same_labels(fetched, made)


@every_case
def test_pickling(case):
    made = case.make()
    other = pickle.loads(pickle.dumps(made))
    assert_same(other, made)
    assert jax.tree.structure(other) == jax.tree.structure(made)
    assert_same(jax.jit(scale)(other), scale(made))


@every_case
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copying(case, duplicate):
    made = case.make()
    other = duplicate(made)
    assert_same(other, made)
    assert_same_labels(other, made)


@every_case
def test_copying_shapes(case):
    """A model whose shapes alone are known can be copied and pickled as well."""
    shapes = jax.eval_shape(scale, case.make())
    for other in (copy.copy(shapes), copy.deepcopy(shapes), roundtrip(shapes)):
        assert jax.tree.structure(other) == jax.tree.structure(shapes)
        assert jax.tree.leaves(other) == jax.tree.leaves(shapes)


def roundtrip(tree: Any) -> Any:
    return pickle.loads(pickle.dumps(tree))


# --- what compiles again ---------------------------------------------------------


@contextlib.contextmanager
def traces(expected: int) -> Iterator[Callable[..., Any]]:
    """A compiled function that must be traced this many times."""
    count = 0

    @jax.jit
    def function(tree):
        nonlocal count
        count += 1
        return jax.tree.map(lambda leaf: leaf + leaf, tree)

    yield function
    assert count == expected


@every_case
def test_equal_structures_do_not_retrace(case):
    with traces(1) as function:
        for _ in range(3):
            function(case.make())
        function(roundtrip(case.make()))
        function(copy.deepcopy(case.make()))
        function(jax.tree.map(lambda leaf: leaf + leaf, case.make()))
        function(jax.device_put(case.make()))


@every_case
def test_results_are_arguments(case):
    with traces(1) as function:
        function(function(function(case.make())))


EQUAL = {
    "values": (block(seed=0), block(seed=1)),
    "values of gradients": (
        block(gradients=NESTED).with_values(np.ones((4, 2), np.float32)),
        block(gradients=NESTED, seed=3),
    ),
    "traced samples": (block(traced=True), block(traced=True, first_system=5)),
    "traced rows of gradients": (
        block(gradients={"x": Gradient(rows=[0, 1])}, traced=True),
        block(gradients={"x": Gradient(rows=[3, 3])}, traced=True),
    ),
    "traced labels": (
        traced_labels(),
        Labels.traced(["system", "atom"], jnp.ones((2, 2), int)),
    ),
    "order of gradients": (
        block(gradients=NESTED),
        block(gradients=dict(reversed(NESTED.items()))),
    ),
    "order of info": (
        tensor(info={"a": "b", "c": "d"}),
        tensor(info={"c": "d", "a": "b"}),
    ),
    "info as added": (
        tensor(info={"a": "b", "c": "d"}),
        tensor().with_info("c", "d").with_info("a", "b"),
    ),
    "map of traced samples": (
        tensor(traced=True, gradients=NESTED),
        tensor(traced=True, gradients=NESTED, first_system=2, seed=9),
    ),
    "NumPy and JAX": (tensor(), tensor(arrays="jax")),
}


@pytest.mark.parametrize(("one", "other"), EQUAL.values(), ids=EQUAL)
def test_equal_structures(one, other):
    a, b = jax.tree.structure(one), jax.tree.structure(other)
    assert (a == b) is True
    assert (a != b) is False
    assert hash(a) == hash(b)
    with traces(1) as function:
        function(one)
        function(other)


def renamed(made: TensorBlock, axis: str) -> TensorBlock:
    axes = {"samples": made.samples, "properties": made.properties}
    labels = axes[axis]
    axes[axis] = Labels([f"{name}_" for name in labels.names], labels.values)
    return TensorBlock(made.values, axes["samples"], [], axes["properties"])


ONE_GRADIENT = {"x": Gradient(rows=[0, 1])}
DIFFERENT = {
    "labels": (static_labels(), Labels(["system", "atom"], [[0, 0], [0, 1], [3, 1]])),
    "order of entries": (
        static_labels(),
        Labels(["system", "atom"], [[0, 1], [0, 0], [3, 0]]),
    ),
    "names of labels": (
        static_labels(),
        Labels(["system", "a"], [[0, 0], [0, 1], [3, 0]]),
    ),
    "static and traced labels": (
        Labels(["system", "atom"], [[0, 0], [0, 1]]),
        traced_labels(),
    ),
    "names of traced labels": (
        traced_labels(),
        Labels.traced(["a", "b"], traced_labels().values),
    ),
    "entries of samples": (block(), block(first_system=1)),
    "names of samples": (block(), renamed(block(), "samples")),
    "names of traced samples": (
        block(traced=True),
        renamed(block(traced=True), "samples"),
    ),
    "names of properties": (block(), renamed(block(), "properties")),
    "static and traced samples": (block(), block(traced=True)),
    "entries of properties": (
        block(),
        TensorBlock(
            block().values, block().samples, [], Labels("property", [[1], [0]])
        ),
    ),
    "number of components": (
        block(components=(3,)),
        block(components=(3, 1)),
    ),
    "entries of components": (
        block(components=(3,)),
        TensorBlock(
            block(components=(3,)).values,
            block().samples,
            [Labels("component_0", [[0], [1], [-1]])],
            block().properties,
        ),
    ),
    "gradients": (block(), block(gradients=ONE_GRADIENT)),
    "names of gradients": (
        block(gradients={"x": Gradient(())}),
        block(gradients={"y": Gradient(())}),
    ),
    "rows of gradients": (
        block(gradients=ONE_GRADIENT),
        block(gradients={"x": Gradient(rows=[0, 2])}),
    ),
    "gradients of gradients": (
        block(gradients={"x": Gradient(rows=[0, 1], gradients={"y": Gradient()})}),
        block(gradients={"x": Gradient(rows=[0, 1], gradients={"z": Gradient()})}),
    ),
    # The same leaves in the same order, in another tree.
    "where a gradient belongs": (
        block(gradients={"x": Gradient((), gradients={"y": Gradient(())})}),
        block(gradients={"x": Gradient(()), "y": Gradient(())}),
    ),
    "keys": (
        tensor(),
        tensor(keys=Labels(["o3_lambda", "center_type"], [[0, 1], [1, 0], [0, 0]])),
    ),
    "names of keys": (
        tensor(),
        tensor(keys=Labels(["l", "center_type"], tensor().keys.values)),
    ),
    "names of no keys": (tensor(()), tensor((), keys=Labels.empty(["a", "b"]))),
    "order of blocks": (tensor((3, 1, 4)), tensor((4, 1, 3))),
    "samples of a block": (tensor(), tensor(first_system=1)),
    "info": (tensor(), tensor(info={"unit": "eV"})),
    "text of info": (tensor(info={"unit": "eV"}), tensor(info={"unit": "meV"})),
    "where info ends": (tensor(info={"a": "b', 'c"}), tensor(info={"a', 'b": "c"})),
    "no blocks": (tensor(()), tensor((1,))),
    "block and map": (block(), TensorMap(Labels.single(), [block()])),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_structures(one, other):
    a, b = jax.tree.structure(one), jax.tree.structure(other)
    assert (a == b) is False
    assert (b == a) is False
    assert (a != b) is True
    # JAX prints both in its error messages.
    assert repr(a) != repr(b)
    with traces(2) as function:
        for _ in range(2):
            function(one)
            function(other)


@every_case
def test_structures_are_dictionary_keys(case):
    first, second = (jax.tree.structure(case.make()) for _ in range(2))
    assert hash(first) == hash(second)
    assert (first == second) is True
    assert {first: "found"}[second] == "found"
    assert (first == jax.tree.structure(3)) is False


def test_all_structures_are_different():
    structures = [jax.tree.structure(case.make()) for case in CASES.values()]
    # NumPy or JAX does not count.
    assert len(set(structures)) == len(CASES) - 2


@every_case
def test_static_argument_of_a_program(case):
    """Nothing but the structure: what is left when the arrays are taken out."""
    structure = jax.tree.structure(case.make())
    calls = []

    @functools.partial(jax.jit, static_argnums=0)
    def function(structure, leaves):
        calls.append(structure)
        return jax.tree.unflatten(structure, leaves)

    for _ in range(2):
        leaves = jax.tree.leaves(case.make())
        assert_same(function(jax.tree.structure(case.make()), leaves), case.make())
    assert calls == [structure]


# --- errors ----------------------------------------------------------------------

DEEP = "blocks[2].gradient('positions').gradient('cell').values"


def with_other_leaf(tree: Any, replace: Callable[[Any], Any]) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    i = names_of(tree).index(f".{DEEP}")
    leaves[i] = replace(leaves[i])
    return jax.tree.unflatten(structure, leaves)


def half(leaf: Any) -> Any:
    return leaf.astype(np.float16)


def nested() -> TensorMap:
    return tensor(gradients=NESTED, arrays="jax")


@pytest.mark.parametrize(
    ("fail", "error", "message"),
    [
        (
            lambda: jax.lax.scan(
                lambda state, _: (with_other_leaf(state, half), None),
                nested(),
                length=2,
            ),
            TypeError,
            f"carry component state.{DEEP} has type float32[6,3,3,3,2] but",
        ),
        (
            lambda: jax.lax.while_loop(
                lambda _: False, lambda state: with_other_leaf(state, half), nested()
            ),
            TypeError,
            f"carry component state.{DEEP} has type float32[6,3,3,3,2] but",
        ),
        (
            lambda: jax.jit(lambda tensor: 0)(
                with_other_leaf(nested(), lambda _: object())
            ),
            TypeError,
            f"passed to the function at path tensor.{DEEP}",
        ),
        (
            lambda: jax.vmap(lambda tensor: 0)(nested()),
            ValueError,
            "axis 0 of argument tensor.blocks[2].gradient('a').values of type",
        ),
    ],
    ids=["scan", "while_loop", "jit", "vmap"],
)
def test_errors_name_the_leaf(fail, error, message):
    with pytest.raises(error) as raised:
        fail()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (block(), block(first_system=1)),
        (tensor(), tensor().with_info("unit", "eV")),
        (tensor(), tensor((3, 1, 3))),
        (tensor(), tensor().block(0)),
    ],
    ids=["samples", "info", "size of a block", "block and map"],
)
def test_trees_that_do_not_match(one, other):
    with pytest.raises(ValueError, match=r"TensorMap|TensorBlock|node data|metadata"):
        jax.tree.map(lambda a, b: a + b, one, other)
    with pytest.raises(TypeError, match="pytree"):
        jax.lax.scan(lambda carry, _: (other, None), one, length=1)
