"""TensorBlock: its parts, its gradients, its checks."""

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, assert_same, block, enable_x64

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock

NESTED = {
    "positions": Gradient((3,), rows=[2, 0, 2], gradients={"cell": Gradient((3, 3))}),
    "cell": Gradient((3, 3), rows=[1]),
    "charge": Gradient(()),
}

#: every kind of block; the other tests take their blocks from here
BLOCKS: dict[str, Callable[..., TensorBlock]] = {
    "plain": block,
    "components": lambda **options: block(3, (3, 5), **options),
    "gradients": lambda **options: block(4, (2,), gradients=NESTED, **options),
    "no samples": lambda **options: block(0, (3,), gradients=NESTED, **options),
    "no properties": lambda **options: block(4, n_properties=0, **options),
    "traced": lambda **options: block(gradients=NESTED, traced=True, **options),
}

every_block = pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
every_array = pytest.mark.parametrize("arrays", ["numpy", "jax"])


def arrays_of(block: TensorBlock) -> list[Any]:
    """The values of a block and of all its gradients, however deep."""
    below = [arrays_of(gradient) for _, gradient in block.gradients()]
    return [block.values, *(array for arrays in below for array in arrays)]


# --- parts -----------------------------------------------------------------------


@every_array
def test_parts_are_what_was_given(arrays):
    samples = Labels(["system", "atom"], [[0, 0], [0, 1], [3, 1]])
    components = [Labels.range("o3_mu", 3), Labels("other", [[-1], [1]])]
    properties = Labels("n", [[4], [2]])
    values = np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2)
    if arrays == "jax":
        values = jnp.asarray(values)
    made = TensorBlock(values, samples, components, properties)
    assert made.samples is samples
    assert all(a is b for a, b in zip(made.components, components, strict=True))
    assert made.properties is properties
    assert isinstance(made.values, np.ndarray if arrays == "numpy" else jax.Array)
    assert np.shares_memory(made.values, values)
    assert len(made) == 3
    assert made.shape == (3, 3, 2, 2)
    assert made.dtype == np.float32
    assert made.device == ("cpu" if arrays == "numpy" else jax.devices()[0])
    assert made.gradients_list() == []
    assert list(made.gradients()) == []


def test_arguments_by_name_as_in_metatensor():
    expected = block(gradients={"cell": Gradient()})
    made = TensorBlock(
        values=expected.values,
        samples=expected.samples,
        components=[],
        properties=expected.properties,
        gradients=dict(expected.gradients()),
    )
    assert_same(made, expected)


@pytest.mark.parametrize(
    "dtype",
    [
        "float16",
        "float32",
        "float64",
        "complex64",
        "int8",
        "int64",
        "bool",
        jnp.bfloat16,
    ],
    ids=str,
)
def test_numpy_values_keep_their_dtype(dtype):
    assert block(dtype=dtype).dtype == np.dtype(dtype)
    assert block(dtype=dtype).values.dtype == np.dtype(dtype)


def test_components_are_a_list_that_is_not_the_blocks_own():
    made = block(components=(3,))
    made.components.append(Labels.range("more", 2))
    assert len(made.components) == 1


def test_components_from_an_iterator():
    made = block(components=(3, 2))
    again = TensorBlock(
        made.values, made.samples, iter(made.components), made.properties
    )
    assert_same(again, made)


def test_traced_samples():
    made = block(traced=True)
    assert not made.samples.is_static
    assert made.samples.names == ["system", "atom"]
    np.testing.assert_array_equal(made.samples.values, block().samples.values)


# --- gradients -------------------------------------------------------------------


def test_gradients_are_sorted_by_name():
    made = block(gradients=NESTED)
    assert made.gradients_list() == ["cell", "charge", "positions"]
    assert [name for name, _ in made.gradients()] == ["cell", "charge", "positions"]
    assert made.gradient("positions").gradients_list() == ["cell"]
    for name, gradient in made.gradients():
        assert_same(made.gradient(name), gradient)
        assert made.has_gradient(name)
    assert not made.has_gradient("nope")
    assert not made.has_gradient("position")


@every_array
def test_gradients_are_what_was_given(arrays):
    plain = block(4, (2,), arrays=arrays)
    gradients = dict(
        block(4, (2,), gradients=NESTED, seed=7, arrays=arrays).gradients()
    )
    made = TensorBlock(
        plain.values, plain.samples, plain.components, plain.properties, gradients
    )
    one_by_one = plain
    for name in reversed(gradients):
        one_by_one = one_by_one.with_gradient(name, gradients[name])
    for result in (made, one_by_one):
        assert_same(dict(result.gradients()), gradients)
        for name, gradient in gradients.items():
            assert result.gradient(name).values is gradient.values
            assert result.gradient(name).samples is gradient.samples
    assert_same(one_by_one, made)
    assert plain.gradients_list() == []


def test_traced_gradients_of_static_samples_and_the_other_way_round():
    static, traced = (
        block(4, gradients=NESTED, traced=traced) for traced in (False, True)
    )
    for outer, inner in ((static, traced), (traced, static)):
        made = TensorBlock(
            outer.values, outer.samples, [], outer.properties, dict(inner.gradients())
        )
        assert made.samples.is_static == outer.samples.is_static
        assert_same(dict(made.gradients()), dict(inner.gradients()))


def test_padded_gradient_rows_are_no_error():
    made = block(2)
    rows = jnp.array([[0], [Labels.PADDING], [2]], jnp.int32)
    gradient = TensorBlock(
        np.zeros((3, 2), np.float32), Labels.traced("sample", rows), [], made.properties
    )
    assert made.with_gradient("cell", gradient).gradient("cell").shape == (3, 2)


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ({}, "gradients with respect to 'nope' in this block, it has none"),
        (NESTED, "'nope' in this block, it has ['cell', 'charge', 'positions']"),
    ],
)
def test_missing_gradient(gradients, message):
    with pytest.raises(mts.MetatensorError, match=re.escape(message)):
        block(gradients=gradients).gradient("nope")


def test_with_gradient_replaces_one_that_is_there():
    made = block(gradients={"cell": Gradient()})
    other = block(gradients={"cell": Gradient()}, seed=1).gradient("cell")
    replaced = made.with_gradient("cell", other)
    assert replaced.gradients_list() == ["cell"]
    assert_same(replaced.gradient("cell"), other)


# --- new blocks from old ones ----------------------------------------------------


@every_block
@every_array
def test_with_values(make, arrays):
    made = make(arrays=arrays)
    doubled = made.with_values(made.values * 2)
    np.testing.assert_array_equal(doubled.values, 2 * np.asarray(made.values))
    assert doubled.gradients_list() == made.gradients_list()
    assert_same(dict(doubled.gradients()), dict(made.gradients()))
    assert_same(doubled.with_values(made.values), made)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.zeros((4, 3)), mts.MetatensorError, r"shape \(4, 3\).*have \(4, 2\)"),
        (np.zeros((4, 2)), mts.MetatensorError, "float32, but the values have float64"),
        ([[0.0, 1.0]] * 4, TypeError, "not builtins.list"),
    ],
)
def test_with_values_checks(values, error, message):
    with pytest.raises(error, match=message):
        block(gradients={"cell": Gradient()}).with_values(values)


@every_block
@every_array
@pytest.mark.parametrize(
    ("duplicate", "own_arrays"),
    [
        (lambda b: b.copy(), True),
        (lambda b: b.copy(deep=True), True),
        (copy.deepcopy, True),
        (lambda b: pickle.loads(pickle.dumps(b)), True),
        (lambda b: b.copy(deep=False), False),
        (copy.copy, False),
    ],
    ids=["copy", "copy(deep)", "deepcopy", "pickle", "copy(not deep)", "copy.copy"],
)
def test_duplicates(make, arrays, duplicate, own_arrays):
    made = make(arrays=arrays)
    other = duplicate(made)
    assert type(other) is TensorBlock
    assert other is not made
    assert_same(other, made)
    for mine, theirs in zip(arrays_of(made), arrays_of(other), strict=True):
        assert type(mine) is type(theirs)
        assert (mine is not theirs) == own_arrays
        if isinstance(theirs, np.ndarray):
            assert not theirs.flags.writeable


def test_pickles_of_every_protocol():
    made = block(gradients=NESTED)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert_same(pickle.loads(pickle.dumps(made, protocol)), made)


# --- to --------------------------------------------------------------------------

F16 = np.dtype("float16")
CPU = jax.devices("cpu")[0]
ONE_DEVICE = jax.sharding.SingleDeviceSharding(CPU)


@every_block
@every_array
@pytest.mark.parametrize(
    ("args", "kwargs", "dtype", "kind"),
    [
        ((), {}, None, None),
        ((None,), {}, None, None),
        ((), {"dtype": None, "device": None, "arrays": None}, None, None),
        ((np.float16,), {}, F16, None),
        (("float16",), {}, F16, None),
        ((jnp.float16,), {}, F16, None),
        ((F16,), {"non_blocking": True}, F16, None),
        ((), {"dtype": np.float16}, F16, None),
        ((), {"dtype": jnp.bfloat16}, np.dtype(jnp.bfloat16), None),
        (("jax",), {}, None, jax.Array),
        ((), {"arrays": "jax"}, None, jax.Array),
        (("numpy",), {}, None, np.ndarray),
        ((), {"arrays": "numpy"}, None, np.ndarray),
        # NumPy's arrays are on the host, where else
        (("cpu",), {}, None, None),
        ((CPU,), {}, None, jax.Array),
        ((), {"device": CPU}, None, jax.Array),
        ((ONE_DEVICE,), {}, None, jax.Array),
        (("jax", np.float16), {}, F16, jax.Array),
        ((np.float16, CPU, "jax"), {}, F16, jax.Array),
        ((np.float16,), {"device": "cpu", "arrays": "jax"}, F16, jax.Array),
        (("numpy", "float16"), {}, F16, np.ndarray),
    ],
)
def test_to(make, arrays, args, kwargs, dtype, kind):
    made = make(arrays=arrays)
    result = made.to(*args, **kwargs)
    expected_kind = kind or (np.ndarray if arrays == "numpy" else jax.Array)
    assert jax.tree.structure(result) == jax.tree.structure(made)
    pairs = zip(arrays_of(made), arrays_of(result), strict=True)
    for before, after in pairs:
        assert isinstance(after, expected_kind)
        assert after.dtype == (dtype or before.dtype)
        np.testing.assert_array_equal(
            np.asarray(after), np.asarray(before).astype(after.dtype)
        )
        if isinstance(after, np.ndarray):
            assert not after.flags.writeable
        elif kind is jax.Array:
            assert after.devices() == {CPU}
    if not made.samples.is_static:
        assert result.samples.values.dtype == np.int32
        np.testing.assert_array_equal(result.samples.values, made.samples.values)
        if kind is np.ndarray:
            assert isinstance(result.samples.values, np.ndarray)


def test_to_in_a_program():
    made = block(arrays="jax", gradients=NESTED)
    result = jax.jit(lambda b: b.to(np.float16))(made)
    assert_same(result, made.to(np.float16))


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        (("numpy",), {"arrays": "jax"}, TypeError, "`arrays` twice: jax and numpy"),
        (
            ("float16", np.float32),
            {},
            TypeError,
            "`dtype` twice: float16 and .*float32",
        ),
        ((), {"arrays": "torch"}, ValueError, "'numpy' or 'jax', not 'torch'"),
        ((), {"dtypes": "f4"}, TypeError, r"unexpected keyword argument 'dtypes'"),
        ((str,), {}, TypeError, "must be numbers, not <U0"),
        ((), {"dtype": object}, TypeError, "must be numbers, not object"),
    ],
)
def test_to_checks(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        block().to(*args, **kwargs)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [("float64", "float32"), ("int64", "int32"), ("complex128", "complex64")],
)
@pytest.mark.parametrize(
    "convert",
    [
        lambda made, _: made.to(arrays="jax"),
        lambda made, _: made.to("jax"),
        lambda made, _: made.to(device=CPU),
        lambda made, _: made.to(made.dtype, CPU),
        lambda made, narrow: made.to(narrow, "jax").to(made.dtype),
    ],
    ids=["arrays=", "arrays", "device", "dtype and device", "back"],
)
def test_wide_data_is_not_narrowed_in_silence(wide, narrow, convert):
    made = block(dtype=wide, gradients=NESTED)
    with enable_x64(True):
        result = convert(made, narrow)
        assert {array.dtype for array in arrays_of(result)} == {np.dtype(wide)}
        assert all(isinstance(array, jax.Array) for array in arrays_of(result))
        assert_same(made.to("jax").to("numpy"), made)
    with enable_x64(False):
        message = rf"data is {wide}.*narrow it to {narrow}.*`\.to\(dtype='{narrow}'\)`"
        with pytest.raises(TypeError, match=message):
            convert(made, narrow)
        assert_same(made.to(arrays="numpy"), made)
        assert made.to(narrow, "jax").dtype == narrow


# --- what can not be done --------------------------------------------------------


def assign(name: str, value: Any = None) -> Callable[[TensorBlock], None]:
    return lambda made: setattr(made, name, value)


def write(made: TensorBlock) -> None:
    made.values[...] = 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (assign("values"), AttributeError, r"`block\.with_values\(values\)`"),
        (
            lambda made: made.add_gradient("x", made),
            AttributeError,
            r"`block\.with_gradient\('x', gradient\)`",
        ),
        (write, ValueError, "read-only"),
        (assign("samples"), AttributeError, "samples"),
        (assign("components"), AttributeError, "components"),
        (assign("properties"), AttributeError, "properties"),
        (assign("something"), AttributeError, "something"),
    ],
)
def test_blocks_can_not_be_changed(change, error, message):
    made = block(gradients={"cell": Gradient()})
    before = made.copy()
    with pytest.raises(error, match=message):
        change(made)
    assert_same(made, before)


def test_the_callers_array_stays_writeable():
    values = np.zeros((4, 2), np.float32)
    block().with_values(values)
    values[0, 0] = 1
    assert values[0, 0] == 1


def test_values_of_gradients_are_read_only_too():
    made = block(gradients=NESTED)
    for result in (
        made,
        made.to("float64"),
        made.copy(),
        made.with_values(made.values),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write(result.gradient("positions").gradient("cell"))


def test_blocks_are_not_hashable():
    with pytest.raises(TypeError, match="unhashable"):
        hash(block())


def test_equal_to_nothing_else():
    made = block()
    assert made == made
    assert (made == 3) is False
    assert (made != "block") is True


# --- text ------------------------------------------------------------------------


def test_repr():
    assert repr(block(4, (3,), gradients=NESTED)) == (
        "TensorBlock with shape (4, 3, 2)\n"
        "    values: float32, NumPy\n"
        "    samples: [system, atom]\n"
        "    components: [component_0]\n"
        "    properties: [property]\n"
        "\n"
        "    gradients:\n"
        "        cell      => TensorBlock with shape (1, 3, 3, 3, 2)\n"
        "        charge    => TensorBlock with shape (8, 3, 2)\n"
        "        positions => TensorBlock with shape (3, 3, 3, 2)"
    )
    assert repr(block()) == str(block())
    assert "gradients" not in repr(block())
    assert "components" not in repr(block())


def test_html():
    html = block(4, (3,), gradients=NESTED)._repr_html_()
    assert "<strong>TensorBlock</strong> with shape (4, 3, 2)" in html
    for name in ["system", "atom", "component_0", "property"]:
        assert f">{name}</th>" in html
    for name in NESTED:
        assert f"<em>{name}</em>" in html
    assert html.count("<details") == html.count("</details>") == 4
    assert html.count("<table>") == html.count("</table>")
    assert "traced" not in html


def test_html_of_names_that_are_no_html():
    made = block()
    gradient = block(gradients={"cell": Gradient()}).gradient("cell")
    html = made.with_gradient("<b>", gradient)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


# --- bad arguments ---------------------------------------------------------------


class Torch:
    """Looks like an array of another library."""

    shape, dtype, ndim = (4, 3, 2), np.dtype("float32"), 3

    def __array__(self, dtype=None, copy=None):
        return np.zeros(self.shape, dtype or self.dtype)


GOOD = {
    "values": np.zeros((4, 3, 2), np.float32),
    "samples": Labels.range("system", 4),
    "components": [Labels.range("xyz", 3)],
    "properties": Labels.range("n", 2),
}


def traced(name: str, n: int) -> Labels:
    return Labels.traced(name, jnp.arange(n, dtype=jnp.int32).reshape(-1, 1))


def good(**parts: Any) -> dict[str, Any]:
    return {**GOOD, **parts}


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


BAD_BLOCKS = {
    "fewer samples": (
        good(values=zeros(5, 3, 2)),
        mts.MetatensorError,
        r"shape \(5, 3, 2\), but the labels have \(4, 3, 2\) entries: samples "
        r"\['system'\], components \['xyz'\], properties \['n'\]",
    ),
    "fewer components": (
        good(values=zeros(4, 2, 2)),
        mts.MetatensorError,
        r"shape \(4, 2, 2\), but the labels have \(4, 3, 2\)",
    ),
    "more properties": (
        good(values=jnp.zeros((4, 3, 1))),
        mts.MetatensorError,
        r"shape \(4, 3, 1\), but the labels have \(4, 3, 2\)",
    ),
    "another number of axes": (
        good(components=[]),
        mts.MetatensorError,
        r"shape \(4, 3, 2\), but the labels have \(4, 2\)",
    ),
    "no axes": (
        good(values=zeros()),
        mts.MetatensorError,
        r"shape \(\), but the labels have \(4, 3, 2\)",
    ),
    "traced samples of another length": (
        good(samples=traced("system", 3)),
        mts.MetatensorError,
        r"shape \(4, 3, 2\), but the labels have \(3, 3, 2\)",
    ),
    "list": (
        good(values=zeros(4, 3, 2).tolist()),
        TypeError,
        "must be an array .*, not builtins.list: take `numpy.array",
    ),
    "None": (
        good(values=None),
        TypeError,
        "must be an array .*, not builtins.NoneType",
    ),
    "scalar": (
        good(values=np.float32(3)),
        TypeError,
        "must be an array .*, not numpy.float32",
    ),
    "other library": (
        good(values=Torch()),
        TypeError,
        "must be an array .*, not test_block.Torch",
    ),
    "text": (
        good(values=np.full((4, 3, 2), "a")),
        TypeError,
        "must be numbers, not <U1",
    ),
    "objects": (
        good(values=zeros(4, 3, 2, dtype=object)),
        TypeError,
        "must be numbers, not object",
    ),
    "records": (
        good(values=zeros(4, 3, 2, dtype=[("a", "f4")])),
        TypeError,
        "must be numbers, not .*'a'",
    ),
    "bytes": (
        good(values=zeros(4, 3, 2, dtype="V3")),
        TypeError,
        r"must be numbers, not \|V3",
    ),
    "dates": (
        good(values=zeros(4, 3, 2, dtype="M8[s]")),
        TypeError,
        r"must be numbers, not datetime64\[s\]",
    ),
    "samples that are no labels": (
        good(samples=np.zeros((4, 1), np.int32)),
        TypeError,
        "`samples` must be Labels, not ndarray",
    ),
    "properties that are no labels": (
        good(properties=["n"]),
        TypeError,
        "`properties` must be Labels, not list",
    ),
    "component that is no labels": (
        good(components=[Labels.range("xyz", 3), None]),
        TypeError,
        r"`components\[1\]` must be Labels, not NoneType",
    ),
    "labels instead of a list of them": (
        good(components=Labels.range("xyz", 3)),
        TypeError,
        r"`components` must be a list of Labels, not Labels",
    ),
    "traced properties": (
        good(properties=traced("n", 2)),
        TypeError,
        r"`properties` \[n\] must be static labels: only samples can be traced",
    ),
    "traced components": (
        good(components=[traced("xyz", 3)]),
        TypeError,
        r"`components\[0\]` \[xyz\] must be static labels: only samples can be traced",
    ),
    "component with two dimensions": (
        good(components=[Labels(["a", "b"], [[0, 0], [0, 1], [1, 0]])]),
        mts.MetatensorError,
        r"a single dimension, got 2: \['a', 'b'\] for component 0",
    ),
    "component without dimensions": (
        good(components=[Labels([], np.zeros((1, 0), int))]),
        mts.MetatensorError,
        r"a single dimension, got 0: \[\] for component 0",
    ),
    "component twice": (
        good(
            values=zeros(4, 3, 3, 2),
            components=[Labels.range("xyz", 3), Labels.range("xyz", 3)],
        ),
        mts.MetatensorError,
        r"'xyz' appears more than once: \['xyz', 'xyz'\]",
    ),
}


@pytest.mark.parametrize(
    ("parts", "error", "message"), BAD_BLOCKS.values(), ids=BAD_BLOCKS
)
def test_bad_blocks(parts, error, message):
    TensorBlock(**GOOD)
    with pytest.raises(error, match=message):
        TensorBlock(**parts)


def gradient_of_good(**parts: Any) -> TensorBlock:
    """A gradient that fits to the good block, but for some parts."""
    fitting = {
        "values": zeros(2, 5, 3, 2),
        "samples": Labels(["sample", "atom"], [[0, 1], [3, 0]]),
        "components": [Labels.range("direction", 5), *GOOD["components"]],
        "properties": GOOD["properties"],
    }
    return TensorBlock(**{**fitting, **parts})


BAD_GRADIENTS = {
    "row too low": (
        "x",
        gradient_of_good(samples=Labels("sample", [[-1], [2]])),
        mts.MetatensorError,
        "'x' must be a row of the values, from 0 to 3, but it goes from -1 to 2",
    ),
    "row too high": (
        "x",
        gradient_of_good(samples=Labels("sample", [[4], [0]])),
        mts.MetatensorError,
        "'x' must be a row of the values, from 0 to 3, but it goes from 0 to 4",
    ),
    "padding in static samples": (
        "x",
        gradient_of_good(samples=Labels("sample", [[Labels.PADDING], [0]])),
        mts.MetatensorError,
        "from 0 to 3, but it goes from -2147483648 to 0",
    ),
    "first column": (
        "x",
        gradient_of_good(samples=Labels(["atom", "sample"], [[0, 1], [3, 0]])),
        mts.MetatensorError,
        r"samples of the gradient with respect to 'x' must be 'sample', got "
        r"\['atom', 'sample'\]",
    ),
    "first column, traced": (
        "x",
        gradient_of_good(samples=traced("samples", 2)),
        mts.MetatensorError,
        r"must be 'sample', got \['samples'\]",
    ),
    "no columns": (
        "x",
        gradient_of_good(
            samples=Labels([], np.zeros((1, 0), int)), values=zeros(1, 5, 3, 2)
        ),
        mts.MetatensorError,
        r"must be 'sample', got \[\]",
    ),
    "other properties": (
        "x",
        gradient_of_good(properties=Labels("n", [[0], [7]])),
        mts.MetatensorError,
        r"(?s)'x' must have the properties of the values.*n\s+0\s+7\s.*and.*n\s+0\s+1",
    ),
    "properties with another name": (
        "x",
        gradient_of_good(properties=Labels.range("m", 2)),
        mts.MetatensorError,
        r"(?s)must have the properties of the values.*\bm\b.*and.*\bn\b",
    ),
    "components missing": (
        "x",
        gradient_of_good(components=[], values=zeros(2, 2)),
        mts.MetatensorError,
        r"must end with the components of the values: got \[\] for values with "
        r"\[\('xyz', 3\)\]",
    ),
    "components in front": (
        "x",
        gradient_of_good(
            components=[*GOOD["components"], Labels.range("direction", 5)],
            values=zeros(2, 3, 5, 2),
        ),
        mts.MetatensorError,
        r"got \[\('xyz', 3\), \('direction', 5\)\] for values with \[\('xyz', 3\)\]",
    ),
    "components with other entries": (
        "x",
        gradient_of_good(
            components=[Labels("xyz", [[2], [1], [0]])], values=zeros(2, 3, 2)
        ),
        mts.MetatensorError,
        r"got \[\('xyz', 3\)\] for values with \[\('xyz', 3\)\] \(names, numbers and "
        r"entries must be the same\)",
    ),
    "other dtype": (
        "x",
        gradient_of_good(values=zeros(2, 5, 3, 2, dtype=np.float64)),
        mts.MetatensorError,
        "'x' has dtype float64, but the values have float32",
    ),
    "array": (
        "x",
        zeros(2, 5, 3, 2),
        TypeError,
        "'x' must be a TensorBlock, not ndarray",
    ),
    "None": ("x", None, TypeError, "'x' must be a TensorBlock, not NoneType"),
    "name that is no text": (
        3,
        gradient_of_good(),
        TypeError,
        r"must be text, not 3 \(int\)",
    ),
    **{
        f"name {name!r}": (
            name,
            gradient_of_good(),
            mts.MetatensorError,
            f"^{re.escape(repr(name))} is not a valid name .* a folder in a file",
        )
        for name in ["", ".", "..", "a/b", "/", "../a", "a\\b", "a\0"]
    },
}


@pytest.mark.parametrize(
    ("name", "gradient", "error", "message"), BAD_GRADIENTS.values(), ids=BAD_GRADIENTS
)
def test_bad_gradients(name, gradient, error, message):
    fitting = TensorBlock(**GOOD, gradients={"fits": gradient_of_good()})
    assert fitting.has_gradient("fits")
    with pytest.raises(error, match=message):
        TensorBlock(**GOOD, gradients={name: gradient})
    with pytest.raises(error, match=message):
        TensorBlock(**GOOD, gradients={"fits": gradient_of_good(), name: gradient})
    with pytest.raises(error, match=message):
        TensorBlock(**GOOD).with_gradient(name, gradient)


@pytest.mark.parametrize("name", ["positions", "a b", "...", "é", "strain.1", "a:b"])
def test_good_names_of_gradients(name):
    made = TensorBlock(**GOOD, gradients={name: gradient_of_good()})
    assert made.gradients_list() == [name]


def test_gradient_of_an_empty_block():
    made = block(0, gradients=NESTED)
    assert made.gradient("positions").shape == (0, 3, 2)
    one_row = TensorBlock(zeros(1, 2), Labels("sample", [[0]]), [], made.properties)
    with pytest.raises(mts.MetatensorError, match="it goes from 0 to 0"):
        made.with_gradient("one", one_row)
