"""Each row of docs/differences.md: metatensor does what it says, and so do we."""

from __future__ import annotations

import fnmatch
import re
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts

core = pytest.importorskip("metatensor")
# it raises an ImportError of its own where it is missing
pytest.importorskip("metatensor.operations", exc_type=ImportError)

PATH = Path(__file__).parent.parent / "docs"
PAGE = (PATH / "differences.md").read_text()
#: by a phrase of the first cell of a row, and of no other
CHECKS: dict[str, Callable[[], None]] = {}
BOTH = (core, mts)


def check(phrase: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(function: Callable[[], None]) -> Callable[[], None]:
        assert phrase not in CHECKS
        CHECKS[phrase] = function
        return function

    return register


def rows() -> list[str]:
    """The first cells of all rows."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [line[2:].split(" | ")[0] for line in lines]
    return [cell for cell in cells if cell not in ("---", "metatensor", "here")]


def test_each_row_has_a_check() -> None:
    found = Counter(phrase for cell in rows() for phrase in CHECKS if phrase in cell)
    assert found == Counter(dict.fromkeys(CHECKS, 1))
    unchecked = [cell for cell in rows() if not any(p in cell for p in CHECKS)]
    assert unchecked == []


@pytest.mark.parametrize("name", ["core", "operations", "learn"])
def test_versions_are_those_of_the_page(name: str) -> None:
    stated = re.search(rf"metatensor-{name}\s+(\d+\.\d+)\.\d+", PAGE)
    assert stated is not None
    try:
        installed = version(f"metatensor-{name}")
    except PackageNotFoundError:
        pytest.skip(f"metatensor-{name} is not installed")
    assert installed.startswith(stated[1] + "."), (
        f"metatensor-{name} {installed} is new: check docs/differences.md again, and "
        "state the version there"
    )


def test_what_learn_has_is_here_or_stated() -> None:
    pytest.importorskip("torch")
    theirs = pytest.importorskip("metatensor_learn")
    ours = pytest.importorskip("metatensor_jax.learn", exc_type=ImportError)
    toml = (PATH / "api_omissions.toml").read_text()
    stated = [entry["name"] for entry in tomllib.loads(toml)["omission"]]
    missing = []
    for part in ("learn", "learn.nn", "learn.data"):
        below = part.removeprefix("learn").removeprefix(".")
        module, own = (getattr(lib, below) if below else lib for lib in (theirs, ours))
        for name, value in vars(module).items():
            is_theirs = isinstance(value, type) and "metatensor" in value.__module__
            full = f"metatensor.{part}.{name}"
            is_stated = any(fnmatch.fnmatchcase(full, pattern) for pattern in stated)
            if is_theirs and not hasattr(own, name) and not is_stated:
                missing.append(full)
    assert missing == []


# --- the same things in both libraries ------------------------------------------------


def labels(lib: Any, names: str, entries: Sequence[Any]) -> Any:
    """Labels; entries of one dimension can be integers."""
    columns = names.split()
    return lib.Labels(columns, np.array(entries, np.int32).reshape(-1, len(columns)))


def block(
    lib: Any,
    values: Any,
    samples: Any = None,
    components: Sequence[Any] = (),
    properties: Any = None,
    gradients: Mapping[str, Any] | None = None,
) -> Any:
    values = np.asarray(values)
    samples = samples or lib.Labels.range("s", len(values))
    properties = properties or lib.Labels.range("p", values.shape[-1])
    parts = values, samples, list(components), properties
    if lib is mts:
        return mts.TensorBlock(*parts, gradients)
    result = core.TensorBlock(*parts)
    for name, gradient in (gradients or {}).items():
        result.add_gradient(name, gradient)
    return result


def single(lib: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
    """A map with one block."""
    return lib.TensorMap(
        lib.Labels.range("k", 1), [block(lib, values, *args, **kwargs)]
    )


def gradient(
    lib: Any, values: Any, samples: Sequence[int] = (0,), **kwargs: Any
) -> Any:
    values = np.asarray(values)
    return block(lib, values, labels(lib, "sample", samples), **kwargs)


def with_gradient(
    lib: Any, values: Any, of_values: Any, samples: Sequence[int] = (0,)
) -> Any:
    """A map with one block, and a gradient with respect to x."""
    return single(lib, values, gradients={"x": gradient(lib, of_values, samples)})


def no_blocks(lib: Any) -> Any:
    return lib.TensorMap(labels(lib, "k", []), [])


def moving(lib: Any) -> Any:
    """Two blocks with different samples and properties."""
    of_x = {"x": gradient(lib, [[3.0]])}
    one = labels(lib, "p", [1])
    of_one = {"x": gradient(lib, [[4.0]], properties=one)}
    blocks = [
        block(lib, [[1.0]], gradients=of_x),
        block(lib, [[2.0]], labels(lib, "s", [1]), properties=one, gradients=of_one),
    ]
    return lib.TensorMap(labels(lib, "k", [0, 1]), blocks)


def values_of(tensor: Any) -> Any:
    return np.asarray(tensor.block().values).tolist()


def gradient_of(tensor: Any) -> Any:
    return np.asarray(tensor.block().gradient("x").values).tolist()


def dtype_of(tensor: Any) -> str:
    return str(tensor.block().values.dtype)


def entries(value: Any) -> Any:
    return np.asarray(value.values).tolist()


def learn() -> Any:
    """metatensor-learn, by a name that metatensor-torch does not take for itself."""
    pytest.importorskip("torch")
    pytest.importorskip("equinox")
    return pytest.importorskip("metatensor_learn")


# --- objects -----------------------------------------------------------------------


@check("change the object")
def changing() -> None:
    theirs, ours = (single(lib, [[1.0]]) for lib in BOTH)
    theirs.set_info("a", "b")
    theirs.block().values[:] = 2.0
    assert theirs.info() == {"a": "b"}
    assert values_of(theirs) == [[2.0]]
    with pytest.raises(AttributeError, match="with_info"):
        ours.set_info("a", "b")
    assert ours.with_info("a", "b").info() == {"a": "b"}
    with pytest.raises(AttributeError, match="with_values"):
        ours.block().values = np.ones((1, 1))
    with pytest.raises(AttributeError, match="with_gradient"):
        ours.block().add_gradient("x", gradient(mts, [[1.0]]))
    with pytest.raises(ValueError, match="read-only"):
        ours.block().values[:] = 2.0


@check("where there is a gradient with this name")
def replacing_gradients() -> None:
    theirs, ours = (
        block(lib, [[1.0]], gradients={"x": gradient(lib, [[2.0]])}) for lib in BOTH
    )
    with pytest.raises(core.MetatensorError, match="already exists"):
        theirs.add_gradient("x", gradient(core, [[3.0]]))
    new = ours.with_gradient("x", gradient(mts, [[3.0]]))
    assert entries(new.gradient("x")) == [[3.0]]
    assert entries(ours.gradient("x")) == [[2.0]]


@check("a block can be in one map")
def blocks_of_several_maps() -> None:
    theirs, ours = (block(lib, [[1.0]]) for lib in BOTH)
    core.TensorMap(core.Labels.single(), [theirs])
    with pytest.raises(ValueError, match="moved"):
        core.TensorMap(core.Labels.single(), [theirs])
    for _ in range(2):
        mts.TensorMap(mts.Labels.range("k", 2), [ours, ours])


@check("`requires_grad`")
def requires_grad() -> None:
    assert hasattr(core, "requires_grad")
    assert not hasattr(mts, "requires_grad")


@check("`detach` cuts")
def detaching() -> None:
    def total(x: Any) -> Any:
        x = mts.TensorMap(mts.Labels.single(), [mts.block_from_array(x)])
        return mts.detach(x).block().values.sum()

    assert jax.grad(total)(jnp.ones((1, 1))).tolist() == [[0.0]]
    torch = pytest.importorskip("torch")
    x = core.block_from_array(torch.ones((1, 1), requires_grad=True))
    assert not core.detach_block(x).values.requires_grad


@check("random_uniform_like")
def random_numbers() -> None:
    core.random_uniform_like(single(core, [[1.0]]))
    with pytest.raises(TypeError, match="key"):
        mts.random_uniform_like(single(mts, [[1.0]]))  # type: ignore[call-arg]
    mts.random_uniform_like(single(mts, [[1.0]]), key=jax.random.key(0))


@check("register_buffer")
def modules() -> None:
    theirs = learn()
    import equinox
    import torch

    from metatensor_jax.learn import Linear, nn

    linear = theirs.nn.Linear(core.Labels.range("k", 1), 1, 1, device="cpu")
    assert isinstance(linear, torch.nn.Module)
    ours = Linear(mts.Labels.range("k", 1), 1, 1, key=jax.random.key(0))
    assert isinstance(ours, equinox.Module)
    with pytest.raises(TypeError, match="device"):
        Linear(mts.Labels.range("k", 1), 1, 1, device="cpu")  # type: ignore[call-arg]
    theirs.nn.ReLU(core.Labels.range("k", 1), in_place=True)
    with pytest.raises(TypeError, match="in_place"):
        nn.ReLU(mts.Labels.range("k", 1), in_place=True)  # type: ignore[call-arg]
    assert isinstance(nn.Buffer(1).data, int)


@check("takes all rows of a block at once")
def rows_of_modules() -> None:
    theirs = learn()
    import torch

    from metatensor_jax.learn import ModuleMap

    shapes = []

    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            shapes.append(tuple(x.shape))
            return x

    def module(x: Any) -> Any:
        shapes.append(x.shape)
        return x

    x = core.block_from_array(torch.ones((3, 2)))
    x = core.TensorMap(core.Labels.range("k", 1), [x])
    theirs.nn.ModuleMap(x.keys, [Module()])(x)
    ModuleMap(mts.Labels.range("k", 1), [module])(single(mts, np.ones((3, 2))))
    assert shapes[0] == (3, 2)
    assert set(shapes[1:]) == {(2,)}
    from metatensor_jax.learn.nn import RowModule

    class Row(RowModule):
        def __call__(self, row: Any) -> Any:
            return module(row)

    ModuleMap(mts.Labels.range("k", 1), [Row()])(with_axes(mts, 1))
    assert shapes[-1] == (1, 2)


def with_axes(lib: Any, n: int) -> Any:
    """A map with one sample, so many components of size one, and two properties."""
    axes = [lib.Labels.range(f"c_{i}", 1) for i in range(n)]
    return single(lib, np.ones((1,) * n + (1, 2)), components=axes)


def as_torch(x: Any) -> Any:
    return x.to(arrays="torch")


@check("`Sequential` takes the modules")
def sequences() -> None:
    theirs = learn()
    import torch

    from metatensor_jax.learn import nn

    class Times(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Any) -> Any:
            return self.factor * x

    class Holder:
        """`Sequential` reads this field, which a `ModuleMap` does not have."""

        def __init__(self, module_map: Any) -> None:
            self.module_map = module_map

    x = labels(core, "k", [1])
    backwards = labels(core, "k", [2, 1]), labels(mts, "k", [2, 1])
    modules = theirs.nn.ModuleMap(backwards[0], [Times(2.0), Times(3.0)])
    y = theirs.nn.Sequential(x, Holder(modules))
    one = core.TensorMap(x, [block(core, [[1.0]])])
    assert values_of(y(as_torch(one))) == [[2.0]]
    mine = nn.ModuleMap(backwards[1], [lambda x: 2 * x, lambda x: 3 * x])
    keys = labels(mts, "k", [1])
    ours = mts.TensorMap(keys, [block(mts, [[1.0]])])
    assert values_of(nn.Sequential(keys, mine)(ours)) == [[3.0]]


@check("`EquivariantTransformation` needs")
def axes_of_transformations() -> None:
    theirs = learn()
    import torch

    from metatensor_jax.learn import nn

    some = labels(core, "k", [7]), labels(mts, "k", [7])
    args = [torch.nn.Tanh()], core.Labels.range("k", 1), 2
    with pytest.raises(ValueError, match="out_properties"):
        theirs.nn.EquivariantTransformation(*args, invariant_keys=some[0])
    module = theirs.nn.EquivariantTransformation(*args, 2, invariant_keys=some[0])
    module(as_torch(with_axes(core, 1)))
    keys = mts.Labels.range("k", 1)
    ours = nn.EquivariantTransformation([jnp.tanh], keys, 2, invariant_keys=some[1])
    for n in (0, 2):
        with pytest.raises(AssertionError, match="three-dimensional"):
            module(as_torch(with_axes(core, n)))
        assert ours(with_axes(mts, n)).block().shape == (1,) * n + (1, 2)


@check("`LayerNorm` with `mean=False`")
def norms_in_place() -> None:
    theirs = learn()
    from metatensor_jax.learn import nn

    x, y = as_torch(single(core, [[1.0, 3.0]])), single(mts, [[1.0, 3.0]])
    options = {"elementwise_affine": False, "mean": False, "eps": 0.0}
    theirs.nn.LayerNorm(x.keys, 2, **options)(x)
    assert values_of(x) == [[1.0, 3.0]]  # of a variance of 1
    x, y = as_torch(single(core, [[1.0, 5.0]])), single(mts, [[1.0, 5.0]])
    theirs.nn.LayerNorm(x.keys, 2, **options)(x)
    assert values_of(x) == [[0.5, 2.5]]
    normed = nn.LayerNorm(y.keys, 2, **options)(y)
    assert values_of(normed) == [[0.5, 2.5]]
    assert values_of(y) == [[1.0, 5.0]]


@check("activations and layer norms raise")
def gradients_of_activations() -> None:
    theirs = learn()
    from metatensor_jax.learn import nn

    x, y = (with_gradient(lib, [[2.0]], [[3.0]]) for lib in BOTH)
    x = as_torch(x)
    for module in (theirs.nn.ReLU(x.keys), theirs.nn.LayerNorm(x.keys, 1)):
        with pytest.raises(ValueError, match="Gradients not supported"):
            module(x)
    assert gradient_of(nn.ReLU(y.keys)(y)) == [[3.0]]
    assert gradient_of(nn.LayerNorm(y.keys, 1, dtype=float)(y)) == [[0.0]]


@check('`to(arrays="torch")`')
def other_arrays() -> None:
    with pytest.raises(ValueError, match="jax"):
        single(core, [[1.0]]).to(arrays="jax")
    with pytest.raises(ValueError, match="torch"):
        single(mts, [[1.0]]).to(arrays="torch")
    assert isinstance(single(mts, [[1.0]]).to(arrays="jax").block().values, jax.Array)
    torch = pytest.importorskip("torch")
    values = single(core, [[1.0]]).to(arrays="torch").block().values
    assert isinstance(values, torch.Tensor)


@check("arrays are NumPy's")
def kinds_of_arrays() -> None:
    for lib in BOTH:
        x = single(lib, [[1.0]])
        assert isinstance(lib.slice(x, "samples", [0]).block().values, np.ndarray)
        kind = np.ndarray if lib is core else jax.Array
        assert isinstance(lib.add(x, 1).block().values, kind)
    sliced = jax.jit(lambda x: mts.slice(x, "samples", [0]))(single(mts, [[1.0]]))
    assert isinstance(sliced.block().values, jax.Array)


@check("drop the info")
def info_of_results() -> None:
    theirs, ours = single(core, [[1.0]]), single(mts, [[1.0]]).with_info("a", "b")
    theirs.set_info("a", "b")
    assert core.add(theirs, 1).info() == core.sort(theirs).info() == {}
    for tensor in (theirs, ours):
        assert tensor.keys_to_samples("k").info() == {"a": "b"}
        assert tensor.keys_to_properties("k").info() == {"a": "b"}
    assert mts.add(ours, 1).info() == {"a": "b"}
    assert mts.add(ours, ours.with_info("a", "c")).info() == {"a": "b"}


@check("`gradients_list()` has the order")
def order_of_names() -> None:
    theirs, ours = (
        single(lib, [[1.0]], gradients={n: gradient(lib, [[1.0]]) for n in "zb"})
        for lib in BOTH
    )
    for name in "zb":
        theirs.set_info(name, "")
        ours = ours.with_info(name, "")
    assert theirs.block().gradients_list() == list(theirs.info()) == ["z", "b"]
    assert ours.block().gradients_list() == list(ours.info()) == ["b", "z"]


@check("some operations raise for a map without blocks")
def maps_without_blocks() -> None:
    with pytest.raises(IndexError):
        core.sort(no_blocks(core))
    assert len(mts.sort(no_blocks(mts))) == 0


@check("`device` of a map without blocks")
def device_of_no_blocks() -> None:
    assert no_blocks(core).device == "cpu"
    assert (
        no_blocks(core).dtype is no_blocks(mts).dtype is no_blocks(mts).device is None
    )


@check("names of gradients can be")
def names_of_gradients() -> None:
    for name in ("", "a/b"):
        block(core, [[1.0]], gradients={name: gradient(core, [[1.0]])})
        with pytest.raises(mts.MetatensorError, match="folder"):
            block(mts, [[1.0]], gradients={name: gradient(mts, [[1.0]])})


@check("any dtype of NumPy")
def objects() -> None:
    block(core, np.ones((1, 1), object))
    with pytest.raises(TypeError, match="numbers"):
        block(mts, np.ones((1, 1), object))


@check("positions from 0 on")
def negative_positions() -> None:
    with pytest.raises(core.MetatensorError, match="out of bounds"):
        moving(core).block(-1)
    assert entries(moving(mts).block(-1)) == [[2.0]]


@check("ignores the keywords")
def two_selections() -> None:
    assert entries(moving(core).block(0, k=1)) == [[1.0]]
    with pytest.raises(TypeError, match="once"):
        moving(mts).block(0, k=1)


@check("`==` of labels")
def equality_with_others() -> None:
    for make in (lambda lib: labels(lib, "a", [1]), moving):
        with pytest.raises((TypeError, AttributeError)):
            make(core) == 3  # noqa: B015
        assert make(mts) != 3


@check("texts of maps")
def texts() -> None:
    theirs, ours = (with_gradient(lib, [[1.0]], [[2.0]]) for lib in BOTH)
    for made in (theirs, ours):
        gradient = repr(made.block().gradient("x"))
        assert gradient.startswith("TensorBlock gradient for 'x', with shape (1, 1)\n")
    assert "values: float64, NumPy" in repr(ours)
    assert "values: float64, NumPy" in repr(ours.block())
    assert "float64" not in repr(theirs) + repr(theirs.block())
    many = [
        lib.TensorMap(labels(lib, "k", range(9)), blocks)
        for lib in BOTH
        for blocks in [[block(lib, [[1.0]]) for _ in range(9)]]
    ]
    assert [str(made).endswith("...") for made in many] == [True, False]
    shown = [str(made).count("=> TensorBlock") for made in many]
    assert shown == [7, 7]


# --- labels --------------------------------------------------------------------------


@check("values of `Labels` must be")
def values_of_labels() -> None:
    for values in ([[1]], jnp.array([[1]], "int32")):
        with pytest.raises(ValueError, match="numpy"):
            core.Labels("a", values)
        assert mts.Labels("a", values).is_static
    with pytest.raises(mts.TracedLabelsError):
        jax.jit(lambda x: len(set(mts.Labels("a", x))))(jnp.array([[1]], "int32"))


@check("beyond `int32`")
def large_values() -> None:
    assert entries(core.Labels("a", np.array([[2**32 + 3]]))) == [[3]]
    with pytest.raises(mts.MetatensorError, match="out of range"):
        mts.Labels("a", np.array([[2**32 + 3]]))


@check("can not be hashed")
def hashes() -> None:
    theirs, ours = (labels(lib, "a", [1]) for lib in BOTH)
    for value in (theirs, theirs[0]):
        with pytest.raises(TypeError, match="unhashable"):
            hash(value)
    assert len({ours, labels(mts, "a", [1])}) == 1
    assert len({ours[0], labels(mts, "a", [1])[0]}) == 1


@check('`entry["atom"]`')
def integers_of_entries() -> None:
    for lib, kind in ((core, np.int32), (mts, int)):
        entry = labels(lib, "atom", [1])[0]
        assert {type(entry["atom"]), *map(type, entry)} == {kind}


@check("as `uint64` or `int64`")
def dtypes_of_positions() -> None:
    for lib, dtype in ((core, np.uint64), (mts, np.int64)):
        a = labels(lib, "a", [1, 2])
        assert a.select(a).dtype == dtype
        assert a.union_and_mapping(a)[1].dtype == np.int64


@check("`select` takes labels")
def selecting_by_an_entry() -> None:
    theirs, ours = (labels(lib, "a", [1, 2]) for lib in BOTH)
    with pytest.raises(AttributeError):
        theirs.select(theirs[1])
    assert ours.select(ours[1]).tolist() == [1]


@check("`Labels.range(name, end)`")
def negative_range() -> None:
    assert len(core.Labels.range("a", -2)) == 0
    with pytest.raises(mts.MetatensorError):
        mts.Labels.range("a", -2)


@check("`Labels.intersection`")
def order_of_intersections() -> None:
    theirs, ours = (
        labels(lib, "a", [1, 2, 3]).intersection(labels(lib, "a", [3, 1]))
        for lib in BOTH
    )
    assert entries(theirs) == [[3], [1]]
    assert entries(ours) == [[1], [3]]


# --- gradients -----------------------------------------------------------------------


@check("operations on gradients of gradients")
def gradients_of_gradients() -> None:
    def nested(lib: Any) -> Any:
        inner = gradient(lib, [[3.0]], gradients={"y": gradient(lib, [[5.0]])})
        return single(lib, [[1.0]], gradients={"x": inner})

    with pytest.raises(NotImplementedError):
        core.multiply(nested(core), 2.0)
    result = mts.multiply(nested(mts), 2.0).block()
    assert entries(result.gradient("x").gradient("y")) == [[10.0]]


@check("needs the same gradient rows")
def different_gradient_rows() -> None:
    def two(lib: Any) -> tuple[Any, Any]:
        x = [[1.0], [1.0]]
        first = with_gradient(lib, x, [[3.0], [4.0]], [0, 1])
        return first, with_gradient(lib, x, [[5.0]], [1])

    with pytest.raises(core.NotEqualError):
        core.add(*two(core))
    assert gradient_of(mts.add(*two(mts))) == [[3.0], [9.0]]


@check("divide by the gradient rows")
def sparse_gradients() -> None:
    expected = {"mean": (6.0, 3.0), "var": (18.0, 9.0), "std": (6.0, 3.0)}
    for name, (theirs, ours) in expected.items():
        for lib, value in ((core, theirs), (mts, ours)):
            x = with_gradient(lib, [[4.0], [1.0]], [[6.0]])
            y = getattr(lib, f"{name}_over_samples")(x, "s")
            np.testing.assert_allclose(gradient_of(y), [[value]])


@check("`ModuleMap` applies a module to the gradients")
def gradients_of_modules() -> None:
    theirs = learn()
    import torch

    from metatensor_jax.learn import ModuleMap

    linear = torch.nn.Linear(1, 1, dtype=torch.float64)
    linear.weight.data[:], linear.bias.data[:] = 2, 10
    x = with_gradient(core, [[1.0]], [[1.0]]).to(arrays="torch")
    y = theirs.nn.ModuleMap(x.keys, [linear])(x).block().gradient("x")
    assert y.values.tolist() == [[12.0]]
    ours = with_gradient(mts, [[1.0]], [[1.0]])
    assert gradient_of(ModuleMap(ours.keys, [lambda x: 2 * x + 10])(ours)) == [[2.0]]


@check("`fill_value=`")
def filled_gradients() -> None:
    for name in ("keys_to_samples", "keys_to_properties"):
        for lib, filled in ((core, 9.0), (mts, 0.0)):
            moved = getattr(moving(lib), name)("k", fill_value=9.0)
            assert filled in np.ravel(gradient_of(moved))


@check("`remove_dimension` of the only dimension")
def the_only_dimension() -> None:
    for lib in BOTH:
        x = with_gradient(lib, [[1.0]], [[1.0]])
        (name,) = x.property_names
        if lib is core:
            with pytest.raises(core.MetatensorError, match="0 property label"):
                core.remove_dimension(x, "properties", name)
        else:
            removed = mts.remove_dimension(x, "properties", name)
            assert removed.block().properties.values.shape == (1, 0)


@check("`std_over_samples` of a NaN")
def deviation_of_nan() -> None:
    for lib, expected in ((core, 0.0), (mts, np.nan)):
        x = with_gradient(lib, [[np.nan], [1.0]], [[1.0], [1.0]], [0, 1])
        y = gradient_of(lib.std_over_samples(x, "s"))
        np.testing.assert_array_equal(y, [[expected]])


@check("`solve` with gradients")
def solving_with_gradients() -> None:
    for lib in BOTH:
        x = with_gradient(lib, [[2.0, 0.0]], [[0.0, 4.0]])
        y = with_gradient(lib, [[2.0]], [[1.0]])
        if lib is core:
            with pytest.raises(ValueError, match="square"):
                core.solve(x, y)
        else:
            np.testing.assert_allclose(values_of(mts.solve(x, y)), [[1.0, 0.25]])


@check("`remove_gradients` ignores")
def removing_gradients() -> None:
    core.remove_gradients(with_gradient(core, [[1.0]], [[2.0]]), ["y"])
    with pytest.raises(mts.MetatensorError, match="'y'"):
        mts.remove_gradients(with_gradient(mts, [[1.0]], [[2.0]]), ["y"])


@check("one name for `remove_gradients`")
def removing_one_name() -> None:
    for lib, left in ((core, []), (mts, ["x"])):
        of = {name: gradient(lib, [[1.0]]) for name in ("x", "xy")}
        x = single(lib, [[1.0]], gradients=of)
        assert lib.remove_gradients(x, "xy").block().gradients_list() == left


@check("absolute values of integers")
def gradients_of_integers() -> None:
    theirs, ours = (with_gradient(lib, [[2]], [[3]]) for lib in BOTH)
    assert gradient_of(core.multiply(theirs, theirs)) == [[12]]
    assert gradient_of(core.pow(theirs, 2)) == [[12]]
    assert gradient_of(core.abs(theirs)) == [[3]]
    for result in (
        mts.multiply(ours, ours),
        mts.pow(ours, 2),
        mts.abs(ours),
        mts.map_rows(lambda x: x > 0, ours.to(float)),
    ):
        assert result.block().gradients_list() == []


@check("quotients of integers")
def quotients_of_integers() -> None:
    theirs, ours = (with_gradient(lib, [[2]], [[3]]) for lib in BOTH)
    assert gradient_of(core.divide(theirs, theirs)) == [[0.0]]
    assert gradient_of(core.multiply(theirs, theirs.to(float))) == [[12.0]]
    with pytest.raises(TypeError, match=r"\.to\(dtype=float\)"):
        mts.divide(ours, ours)
    with pytest.raises(TypeError, match=r"\.to\(dtype=float\)"):
        mts.multiply(ours, ours.to(float))
    floats = ours.to(dtype=float)
    assert gradient_of(mts.divide(floats, floats)) == [[0.0]]


@check("the gradient of `pow(x, 0)`")
def power_zero() -> None:
    with np.errstate(all="ignore"):
        theirs = core.pow(with_gradient(core, [[0.0]], [[3.0]]), 0)
    assert np.isnan(gradient_of(theirs))
    assert gradient_of(mts.pow(with_gradient(mts, [[0.0]], [[3.0]]), 0)) == [[0.0]]


# --- numbers -------------------------------------------------------------------------


@check("numbers stand on the right")
def numbers_on_the_left() -> None:
    operators: list[tuple[Callable[[Any], Any], float]] = [
        (lambda x: 2 * x, 6.0),
        (lambda x: 1 - x, -2.0),
        (lambda x: 2**x, 8.0),
        (lambda x: abs(x), 3.0),
        (lambda x: sum([x, x]), 6.0),
    ]
    for operator, expected in operators:
        with pytest.raises(TypeError):
            operator(single(core, [[3.0]]))
        assert values_of(operator(single(mts, [[3.0]]))) == [[expected]]
    for lib in BOTH:
        assert values_of(-single(lib, [[3.0]])) == [[-3.0]]


@check("numbers are integers or floats of Python")
def kinds_of_numbers() -> None:
    for number in (2j, np.array(2.0), np.float32(2.0)):
        with pytest.raises(TypeError, match="scalar"):
            core.multiply(single(core, [[3.0]]), number)
        assert values_of(mts.multiply(single(mts, [[3.0]]), number)) == [[3.0 * number]]


@check("dtypes follow NumPy")
def dtypes() -> None:
    for lib, integer, narrow in (
        (core, "float64", "float64"),
        (mts, "int64", "float32"),
    ):
        assert dtype_of(lib.multiply(single(lib, np.array([[1]])), 2)) == integer
        x, y = (single(lib, np.ones((1, 1), t)) for t in ("int32", "float32"))
        assert dtype_of(lib.add(x, y)) == narrow
        assert dtype_of(lib.mean_over_samples(x, "s")) == narrow


@check("the dtype of a NumPy scalar")
def dtypes_of_scalars() -> None:
    for lib, dtype in ((core, "float32"), (mts, "float64")):
        x = single(lib, np.ones((1, 1), "float32"))
        assert dtype_of(lib.add(x, np.float64(1))) == dtype


@check("of complex values")
def complex_values() -> None:
    for lib, dtype in ((core, "complex128"), (mts, "float64")):
        x = single(lib, [[1j], [2]])
        assert dtype_of(lib.abs(x)) == dtype
        assert dtype_of(lib.var_over_samples(x, "s")) == dtype
        assert dtype_of(lib.std_over_properties(x, "p")) == dtype


@check("sums of float16")
def narrow_sums() -> None:
    for lib, expected in ((core, 2048), (mts, 4000)):
        x = single(lib, np.ones((4000, 1), "float16"))
        assert values_of(lib.sum_over_samples(x, "s")) == [[expected]]
        mean = values_of(lib.mean_over_samples(x, "s"))
        assert mean == [[float(np.float16(expected / 4000))]]
    x = single(mts, np.ones((1, 4000), jnp.bfloat16))
    for result in (mts.sum_over_properties(x, "p"), mts.dot(x, x)):
        assert values_of(result) == [[float(jnp.bfloat16(4000))]]
    assert values_of(mts.mean_over_properties(x, "p")) == [[1.0]]
    assert values_of(mts.var_over_properties(x, "p")) == [[0.0]]


@check("sums of booleans")
def sums_of_booleans() -> None:
    assert values_of(core.sum_over_samples(single(core, [[True]] * 2), "s")) == [[True]]
    with pytest.raises(TypeError, match="bool"):
        mts.sum_over_samples(single(mts, [[True]] * 2), "s")


@check("`solve` raises for singular")
def singular_matrices() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        core.solve(single(core, [[0.0]]), single(core, [[1.0]]))
    result = mts.solve(single(mts, [[0.0]]), single(mts, [[1.0]]))
    assert not np.isfinite(values_of(result))


# --- reductions, selection and order -------------------------------------------------


@check("of a block without samples has no samples")
def sum_of_nothing() -> None:
    for lib, values in ((core, []), (mts, [[0.0]])):
        x = single(lib, np.zeros((0, 1)))
        assert values_of(lib.sum_over_samples(x, "s")) == values
        x = single(lib, np.zeros((1, 0)))
        assert values_of(lib.sum_over_properties(x, "p")) == (values or [[]])


@check("of blocks with components can be wrong")
def properties_with_components() -> None:
    properties = [[0, 0], [0, 1], [1, 0]]
    expected = {"mean": [1.0, 5.0], "var": [1.0, 0.0], "std": [1.0, 0.0]}
    for name, row in expected.items():
        for n in (2, 3):
            results = []
            for lib in BOTH:
                x = np.tile([0.0, 2.0, 5.0], (1, n, 1))
                c = [lib.Labels.range("c", n)]
                x = single(
                    lib, x, components=c, properties=labels(lib, "p q", properties)
                )
                reduce = getattr(lib, f"{name}_over_properties")
                if lib is core and n == 3:
                    with pytest.raises(ValueError, match="broadcast"):
                        reduce(x, "q")
                else:
                    results.append(values_of(reduce(x, "q")))
            assert results[-1] == [[row] * n]
            assert results[0] != results[-1] or n == 3


@check("`slice` of properties keeps the order")
def order_of_properties() -> None:
    for lib, expected in ((core, [[1.0, 2.0]]), (mts, [[2.0, 1.0]])):
        x = single(lib, [[1.0, 2.0]])
        for selection in ([1, 0], labels(lib, "p", [1, 0])):
            assert values_of(lib.slice(x, "properties", selection)) == expected


@check("takes positions twice")
def positions_twice() -> None:
    assert len(core.slice(single(core, [[1.0]]), "samples", [0, 0]).block()) == 2
    with pytest.raises(mts.MetatensorError, match="unique"):
        mts.slice(single(mts, [[1.0]]), "samples", [0, 0])


@check("`join` of maps with other keys")
def order_of_joined_keys() -> None:
    for lib, expected in ((core, [[1], [5]]), (mts, [[5], [1]])):
        x, y = (
            lib.TensorMap(labels(lib, "k", keys), [block(lib, [[1.0]]) for _ in keys])
            for keys in ([5, 3, 1], [1, 5])
        )
        joined = lib.join([x, y], "samples", "intersection", add_dimension="t")
        assert entries(joined.keys) == expected


@check("`slice` takes a mask")
def masks() -> None:
    mask = np.array([False, True])
    x = core.slice(single(core, [[1.0, 2.0]]), "properties", mask)
    assert values_of(x) == [[2.0]]
    with pytest.raises(TypeError, match="flatnonzero"):
        mts.slice(single(mts, [[1.0, 2.0]]), "properties", mask)


@check("`split` leaves gradient rows")
def order_of_gradient_rows() -> None:
    for lib, expected in ((core, [[3.0], [2.0]]), (mts, [[2.0], [3.0]])):
        x = with_gradient(lib, [[1.0], [1.0]], [[3.0], [2.0]], [1, 0])
        assert gradient_of(lib.split(x, "samples", [[0, 1]])[0]) == expected
        assert gradient_of(lib.slice(x, "samples", [0, 1])) == [[3.0], [2.0]]


@check("`sort` also sorts the components")
def components_of_gradients() -> None:
    for lib, expected in ((core, [[0], [1]]), (mts, [[1], [0]])):
        xyz = labels(lib, "xyz", [1, 0])
        of_x = gradient(lib, [[[1.0], [2.0]]], components=[xyz])
        x = lib.sort(single(lib, [[1.0]], gradients={"x": of_x}))
        assert entries(x.block().gradient("x").components[0]) == expected


# --- comparison ----------------------------------------------------------------------


@check("`equal` ignores dtypes")
def equal_dtypes() -> None:
    for lib, is_equal in ((core, True), (mts, False)):
        x = single(lib, [[1.0]])
        assert lib.equal(x, x.to(np.float32)) == is_equal
        assert lib.allclose(x, x.to(np.float32))


@check("`allclose` has `rtol=1e-13`")
def tolerances() -> None:
    for lib, rtol, atol in ((core, 1e-13, 1e-12), (mts, 2.0**-26, 2.0**-52)):
        for scale, edge in ((1.0, rtol + atol), (0.0, atol)):
            x = single(lib, [[scale]])
            inside, outside = (single(lib, [[scale - f * edge]]) for f in (0.9, 1.1))
            assert lib.allclose(inside, x)
            assert not lib.allclose(outside, x)
    x, y = (single(mts, np.array([[x]], "float32")) for x in (1, 1.0003))
    assert mts.allclose(x.to(np.float64), y)


@check("`check=` of `equal_metadata`")
def axes_to_check() -> None:
    with pytest.raises(ValueError, match="list"):
        core.equal_metadata(moving(core), moving(core), check="samples")
    assert mts.equal_metadata(moving(mts), moving(mts), check="samples")


# --- errors --------------------------------------------------------------------------


@check("`MetatensorError` is an `Exception`")
def kinds_of_errors() -> None:
    assert not issubclass(core.MetatensorError, ValueError)
    assert not issubclass(core.NotEqualError, core.MetatensorError)
    assert issubclass(mts.NotEqualError, mts.MetatensorError)
    assert issubclass(mts.MetatensorError, ValueError)


@check("errors name the block")
def context_of_errors() -> None:
    with pytest.raises(core.NotEqualError, match=r"key \(k=0\)"):
        core.equal_raise(single(core, [[1.0]]), single(core, [[2.0]]))
    x, y = (with_gradient(mts, [[1.0]], [[value]]) for value in (2.0, 3.0))
    with pytest.raises(mts.NotEqualError) as error:
        mts.equal_raise(x, y)
    assert error.value.__notes__ == [
        "for the block (k=0) of the gradient with respect to 'x'"
    ]
    with pytest.raises(IndexError) as error:
        mts.slice(x, "samples", [5])
    assert "in 'slice'" in error.value.__notes__


@check("a file that is not there")
def missing_files() -> None:
    with pytest.raises(core.MetatensorError, match="No such file"):
        core.load("not/there.mts")
    with pytest.raises(FileNotFoundError):
        mts.load("not/there.mts")


@check('operations on the dimensions of `"components"`')
def dimensions_of_components() -> None:
    x, y = (
        single(lib, [[[1.0]]], components=[lib.Labels.range("c", 1)]) for lib in BOTH
    )
    assert core.rename_dimension(x, "components", "d", "e").component_names == ["c"]
    assert core.remove_dimension(x, "components", "c").component_names == ["c"]
    with pytest.raises(mts.MetatensorError, match="'d'"):
        mts.rename_dimension(y, "components", "d", "e")
    with pytest.raises(mts.MetatensorError, match="axis"):
        mts.remove_dimension(y, "components", "c")
    assert mts.rename_dimension(y, "components", "c", "e").component_names == ["e"]


@check("`to` ignores keywords")
def conversions() -> None:
    theirs, ours = (single(lib, [[1.0]]) for lib in BOTH)
    theirs.to(unknown=1)
    with pytest.raises(TypeError, match="unknown"):
        ours.to(unknown=1)
    with pytest.raises(ValueError, match="device"):
        theirs.to("float32")
    assert dtype_of(ours.to("float32")) == "float32"


@check("`join` of one map")
def joining_one() -> None:
    for lib, names in ((core, ["s"]), (mts, ["s", "t"])):
        x = single(lib, [[1.0]])
        joined = lib.join([x], "samples", add_dimension="t")
        assert joined.sample_names == names
    core.join([single(core, [[1.0]])], "samples", different_keys="all")
    with pytest.raises(mts.MetatensorError, match="different_keys"):
        mts.join([single(mts, [[1.0]])], "samples", different_keys="all")


# --- files ---------------------------------------------------------------------------


@check("values of files that it saved")
def alignment() -> None:
    with tempfile.TemporaryDirectory() as folder:
        places = []
        for lib in BOTH:
            path = f"{folder}/{lib.__name__}.mts"
            lib.save(path, single(lib, [[1.0]]))
            assert values_of(core.load(path)) == [[1.0]]
            values = mts.load_mmap(path).block().values
            places.append(values.__array_interface__["data"][0] % 64)
    assert places[0] != 0
    assert places[1] == 0


@check("`save` writes into the file")
def saving_onto_a_file() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder, "x.mts"), Path(folder, "y.mts")
        for lib, is_written_into in ((core, True), (mts, False)):
            mts.save(path, single(mts, [[1.0]]))
            other.hardlink_to(path)
            lib.save(path, single(lib, [[2.0]]))
            assert (values_of(mts.load(other)) == [[2.0]]) == is_written_into
            other.unlink()


# --- what is new ---------------------------------------------------------------------


@check("`Labels.traced(...)`")
def traced_labels() -> None:
    traced = mts.Labels.traced("a", np.zeros((1, 1), np.int32))
    with pytest.raises(mts.TracedLabelsError, match="before"):
        traced.position([0])


@check("`out_samples=`")
def chosen_samples() -> None:
    x = single(mts, [[1.0]], labels(mts, "a s", [[1, 0]]))
    samples = mts.Labels.range("a", 3)
    for name in ("sum", "mean", "var", "std"):
        y = getattr(mts, f"{name}_over_samples")(x, "s", out_samples=samples)
        assert y.block().samples == samples
        assert values_of(y)[0] == [0.0]


@check("`map_rows`, `move_rows`")
def primitives() -> None:
    x = with_gradient(mts, [[2.0]], [[3.0]])
    y = mts.map_rows(lambda x: x**2, x)
    assert gradient_of(y) == [[12.0]]
    without = mts.remove_gradients(x)
    z = mts.map_rows(lambda x, y: x * y, x, without)
    assert z.block().gradients_list() == []
    moves = [mts.Move(x.block()), mts.Move(without.block())]
    assert mts.move_rows(moves, mts.Labels.range("s", 2)).gradients_list() == []


@check("`join(..., renumber=")
def renumbering() -> None:
    x = single(mts, [[1.0]], labels(mts, "system", [5]))
    joined = mts.join([x, x], "samples", renumber="system")
    assert entries(joined.block().samples) == [[0], [1]]


@check("`replace_dimension`")
def other_values() -> None:
    for values in ({0: 7}, [7], 7):
        x = mts.replace_dimension(single(mts, [[1.0]]), "samples", "s", values)
        assert entries(x.block().samples) == [[7]]


@check("`split_keys`")
def splitting_keys() -> None:
    parts = mts.split_keys(moving(mts), "k")
    assert [entries(part.keys) for part in parts] == [[[0]], [[1]]]


@check("`different_keys=` of `add`")
def different_keys() -> None:
    x = moving(mts)
    y = mts.filter_blocks(x, labels(mts, "k", [1]))
    for function in (mts.add, mts.subtract, mts.multiply, mts.divide):
        assert len(function(x, y, different_keys="intersection")) == 1
    assert len(mts.add(x, y, different_keys="union")) == 2


@check("`append_dimension(")
def lists_of_values() -> None:
    x = mts.append_dimension(single(mts, [[1.0], [1.0]]), "samples", "a", [5, 6])
    assert entries(x.block().samples) == [[0, 5], [1, 6]]
    with pytest.raises(ValueError, match="ndarray"):
        core.append_dimension(single(core, [[1.0]]), "samples", "a", [5])


@check("`model(tensor, key=key)`")
def keys_and_states() -> None:
    eqx = pytest.importorskip("equinox")
    from metatensor_jax.learn import ModuleMap

    x = single(mts, np.ones((1, 50)))
    model = ModuleMap(x.keys, [eqx.nn.Dropout()])
    assert set(values_of(model(x, key=jax.random.key(0)))[0]) == {0.0, 2.0}
    norm = eqx.nn.BatchNorm(50, "samples", mode="batch", dtype=float)
    model, state = eqx.nn.make_with_state(lambda: ModuleMap(x.keys, [norm]))()
    y, state = model(x, state)
    assert values_of(y) == [[0.0] * 50]


@check("`trainable`, for")
def buffers() -> None:
    pytest.importorskip("equinox")
    from metatensor_jax.learn import Buffer, trainable

    assert jax.tree.leaves(trainable([1.0, Buffer(np.ones(1)), np.ones(1)])) == [
        False,
        False,
        True,
    ]


@check("`Standardize`")
def standardizing() -> None:
    pytest.importorskip("equinox")
    from metatensor_jax.learn import Standardize

    x = single(mts, [[1.0], [3.0]])
    standardize = Standardize.fit(x)
    assert values_of(standardize(x)) == [[-1.0], [1.0]]
    assert values_of(standardize.inverse(standardize(x))) == [[1.0], [3.0]]


@check("`load_mmap`, `load_block_mmap`")
def mapping() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mts.save(f"{folder}/x.mts", single(mts, [[1.0]]))
        mts.save(f"{folder}/y.mts", single(mts, [[2.0]]).block())
        assert values_of(mts.load_mmap(f"{folder}/x.mts")) == [[1.0]]
        assert mts.load_block_mmap(f"{folder}/y.mts").values.tolist() == [[2.0]]


@check("`keys=` of `load` and `load_mmap`")
def selected_blocks() -> None:
    block = single(mts, [[1.0]]).block()
    both = mts.TensorMap(mts.Labels.range("k", 2), [block, block])
    with tempfile.TemporaryDirectory() as folder:
        mts.save(f"{folder}/x.mts", both)
        for load in (mts.load, mts.load_mmap):
            one = load(f"{folder}/x.mts", keys=both.keys[1])
            assert one.keys.values.tolist() == [[1]]


@check("`python -m metatensor_jax`")
def commands() -> None:
    from metatensor_jax._cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        for i in range(2):
            mts.save(f"{folder}/{i}.mts", single(mts, [[float(i)]]))
        assert main(["show", f"{folder}/0.mts"]) == 0
        assert main(["diff", f"{folder}/0.mts", f"{folder}/1.mts"]) == 1


@check("`clear_caches`")
def clearing() -> None:
    mts.clear_caches()
    assert values_of(mts.add(single(mts, [[1.0]]), 1)) == [[2.0]]


@check("raise `TypeError` inside of `jax.jit`")
def comparing_in_programs() -> None:
    for function in (mts.equal, mts.allclose):
        with pytest.raises(TypeError):
            jax.jit(function)(single(mts, [[1.0]]), single(mts, [[2.0]]))


@check("64-bit data raises")
def narrowing() -> None:
    with enable_x64(False), pytest.raises(TypeError, match="64"):
        mts.add(single(mts, [[1.0]]), 1)


@pytest.mark.parametrize("phrase", CHECKS)
def test_row(phrase: str) -> None:
    with enable_x64(True), jax.numpy_dtype_promotion("standard"):
        CHECKS[phrase]()
