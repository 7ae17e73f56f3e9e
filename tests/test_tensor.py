"""TensorMap: its parts, looking up blocks, its checks."""

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, assert_same, block, enable_x64, tensor
from hypothesis import given, settings, strategies as st

import metatensor_jax as mts
from metatensor_jax import Labels, LabelsEntry, TensorBlock, TensorMap

GRADIENTS = {
    "positions": Gradient((3,), rows=[2, 0, 2], gradients={"cell": Gradient((3, 3))}),
    "cell": Gradient((3, 3)),
}

#: every kind of map; the other tests take their maps from here
TENSORS: dict[str, Callable[..., TensorMap]] = {
    "plain": tensor,
    "gradients": lambda **options: tensor(
        (3, 0, 4), (2,), (1, 3, 0), GRADIENTS, **options
    ),
    "traced": lambda **options: tensor(gradients=GRADIENTS, traced=True, **options),
    "one block": lambda **options: tensor((5,), keys=Labels.single(), **options),
    "info": lambda **options: tensor(info={"b": "2", "a": "1"}, **options),
    "empty": lambda **options: tensor((), **options),
}

every_tensor = pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
every_array = pytest.mark.parametrize("arrays", ["numpy", "jax"])


# --- parts -----------------------------------------------------------------------


def test_parts_are_what_was_given():
    keys = Labels(["a", "b"], [[5, -1], [2, 2]])
    blocks = [block(3, (2,), seed=i, gradients=GRADIENTS) for i in range(2)]
    made = TensorMap(keys, blocks)
    assert made.keys is keys
    assert len(made) == 2
    for given_block, *found in zip(blocks, made, made.blocks(), strict=True):
        for one in found:
            assert_same(one, given_block)
            assert one.values is given_block.values
            assert one.samples is given_block.samples
            assert one.properties is given_block.properties
            assert one.components[0] is given_block.components[0]
    assert made.dtype == np.float32
    assert made.device == "cpu"
    assert made.info() == {}


def test_arguments_by_name_as_in_metatensor():
    keys, blocks = Labels.range("k", 2), [block(), block()]
    expected = TensorMap(keys, blocks, {"a": "b"})
    assert_same(TensorMap(keys=keys, blocks=tuple(blocks), info={"a": "b"}), expected)
    assert_same(TensorMap(keys, iter(blocks)), TensorMap(keys, blocks))


def test_the_list_of_blocks_is_not_the_maps_own():
    blocks = [block(), block()]
    made = TensorMap(Labels.range("k", 2), blocks)
    blocks.clear()
    made.blocks().clear()
    assert len(made) == len(made.blocks()) == 2


def test_names():
    made = tensor(components=(3, 2))
    assert made.sample_names == ["system", "atom"]
    assert made.component_names == ["component_0", "component_1"]
    assert made.property_names == ["property"]
    assert tensor().component_names == []


def test_items():
    made = tensor()
    items = list(made.items())
    assert [entry for entry, _ in items] == list(made.keys)
    assert all(isinstance(entry, LabelsEntry) for entry, _ in items)
    for (_, one), other in zip(items, made.blocks(), strict=True):
        assert_same(one, other)


@every_array
def test_device_and_dtype(arrays):
    made = tensor(arrays=arrays, dtype=np.float16)
    assert made.dtype == np.float16
    assert made.device == ("cpu" if arrays == "numpy" else jax.devices()[0])


def test_empty():
    made = TensorMap(Labels.empty(["a", "b"]), [])
    assert len(made) == 0
    assert made.blocks() == list(made) == list(made.items()) == []
    assert made.sample_names == made.component_names == made.property_names == []
    assert made.device is None
    assert made.dtype is None
    assert made.keys.names == ["a", "b"]
    assert made.blocks_by_id([]) == []
    with pytest.raises(ValueError, match="any block matching the empty selection"):
        made.block()
    with pytest.raises(ValueError, match=r"any block matching \(a=1\)"):
        made.block(a=1)
    with pytest.raises(IndexError, match="we have 0 blocks but the index is 0"):
        made.block(0)


# --- looking up blocks -----------------------------------------------------------

KEYS = Labels(["l", "type"], [[0, 1], [1, 1], [0, 8], [1, -3]])


def numbered(keys: Labels = KEYS) -> TensorMap:
    """A map whose blocks know their own position."""
    axis = Labels.single()
    values = (np.full((1, 1), float(i)) for i in range(len(keys)))
    return TensorMap(keys, [TensorBlock(array, axis, [], axis) for array in values])


def positions(blocks: list[Any]) -> list[int]:
    return [int(block.values[0, 0]) for block in blocks]


FULL_KEY = [
    2,
    np.int64(2),
    -2,
    {"l": 0, "type": 8},
    {"type": 8, "l": 0},
    {"type": np.int32(8), "l": np.array(0)},
    Labels(["l", "type"], [[0, 8]]),
    Labels(["type", "l"], [[8, 0]]),
    LabelsEntry(["l", "type"], [0, 8]),
    LabelsEntry(["type", "l"], [8, 0]),
    KEYS.entry(2),
    {"type": 8},
    Labels("type", [[8]]),
    LabelsEntry("type", [8]),
]


@pytest.mark.parametrize("selection", FULL_KEY, ids=repr)
def test_one_block(selection):
    made = numbered()
    assert positions([made.block(selection), made[selection]]) == [2, 2]
    assert positions(made.blocks(selection)) == [2]
    assert positions([made.block(selection=selection)]) == [2]


def test_one_block_by_keywords():
    made = numbered()
    found = [made.block(type=8), made.block(l=0, type=8), made.block(type=8, l=0)]
    assert positions(found) == [2, 2, 2]
    assert positions(made.blocks(type=-3, l=1)) == [3]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ({}, [0, 1, 2, 3]),
        ({"l": 1}, [1, 3]),
        (Labels("l", [[0]]), [0, 2]),
        (LabelsEntry("type", [1]), [0, 1]),
    ],
    ids=repr,
)
def test_many_blocks(selection, expected):
    made = numbered()
    assert positions(made.blocks(selection)) == expected
    if isinstance(selection, dict):
        assert positions(made.blocks(**selection)) == expected
    with pytest.raises(ValueError, match=r"more than one block .* all \d of them"):
        made.block(selection)


def test_the_only_block_needs_no_selection():
    made = numbered(Labels.single())
    assert positions([made.block(), made.block({}), made.block(0)]) == [0, 0, 0]


def test_by_id():
    made = numbered()
    assert positions([made.block_by_id(i) for i in (3, 0, -1, -4)]) == [3, 0, 3, 0]
    assert positions(made.blocks_by_id([2, 0, 2])) == [2, 0, 2]
    assert positions(made.blocks_by_id(np.array([1, 3]))) == [1, 3]


@pytest.mark.parametrize("index", [4, -5, 100])
def test_by_id_out_of_range(index):
    made = numbered()
    message = f"out of bounds: we have 4 blocks but the index is {index}"
    for look_up in (
        made.block_by_id,
        made.block,
        made.blocks,
        made.__getitem__,
        lambda i: made.blocks_by_id([0, i]),
    ):
        with pytest.raises(IndexError, match=message):
            look_up(index)


MISSING = (
    r"couldn't find any block matching {}, the keys are\nLabels\n +l +type\n +0 +1"
)
MANY = r"more than one block matched {}, use `TensorMap.blocks` to get all 2 of them"
BAD_SELECTIONS = [
    ({"l": 7}, ValueError, MISSING.format(r"\(l=7\)")),
    ({"l": 0, "type": -3}, ValueError, MISSING.format(r"\(l=0, type=-3\)")),
    (Labels(["type", "l"], [[8, 1]]), ValueError, MISSING.format(r"\(type=8, l=1\)")),
    (LabelsEntry("type", [9]), ValueError, MISSING.format(r"\(type=9\)")),
    ({"nope": 1}, ValueError, r"'nope' .* not one of the dimensions \['l', 'type'\]"),
    (
        {"l": 1, "type": 1, "more": 0},
        ValueError,
        r"'more' .* not one of the dimensions \['l', 'type'\]",
    ),
    (Labels("l", [[0], [1]]), ValueError, "must have a single entry, got 2"),
    (Labels.empty("l"), ValueError, "must have a single entry, got 0"),
    ({"l": 2**40}, ValueError, "1099511627776"),
    ({"l": 2**40, "type": 1}, ValueError, "1099511627776"),
    ({"l": 0.0}, TypeError, r"selected by integers, got l=0\.0"),
    ({"l": 0.7, "type": 8}, TypeError, r"selected by integers, got l=0\.7"),
    ({"l": "0", "type": 8}, TypeError, "selected by integers, got l='0'"),
    ("l", TypeError, "not by str: 'l'"),
    (2.0, TypeError, r"not by float: 2\.0"),
    ((0, 8), TypeError, r"not by tuple: \(0, 8\)"),
    ([0], TypeError, r"not by list: \[0\]"),
]


@pytest.mark.parametrize(("selection", "error", "message"), BAD_SELECTIONS)
def test_bad_selections(selection, error, message):
    made = numbered()
    for look_up in (made.block, made.blocks, made.__getitem__):
        with pytest.raises(error, match=message):
            look_up(selection)
    if isinstance(selection, dict):
        with pytest.raises(error, match=message):
            made.block(**selection)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"l": 1}, MANY.format(r"\(l=1\)")),
        (Labels("type", [[1]]), MANY.format(r"\(type=1\)")),
        (LabelsEntry("l", [0]), MANY.format(r"\(l=0\)")),
        (None, "matched the empty selection, .* all 4 of them"),
    ],
)
def test_more_than_one_block(selection, message):
    with pytest.raises(mts.MetatensorError, match=message):
        numbered().block(selection)


def test_a_selection_is_given_once():
    with pytest.raises(TypeError, match="once: by position or by keywords"):
        numbered().block({"l": 1}, type=8)


@st.composite
def keys_and_selections(draw):
    """Keys with few different values, so that selections match none, one, or many."""
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    value = st.integers(-2, 2)
    row = st.tuples(*[value] * len(names))
    rows = draw(st.lists(row, min_size=1, max_size=12, unique=True))
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return names, rows, {name: draw(value) for name in chosen}


@settings(deadline=None, max_examples=150)
@given(keys_and_selections())
def test_the_same_blocks_as_metatensor(case):
    metatensor = pytest.importorskip("metatensor")
    names, rows, selection = case
    axis = metatensor.Labels.single()
    reference = metatensor.TensorMap(
        metatensor.Labels(names, np.array(rows)),
        [
            metatensor.TensorBlock(np.full((1, 1), float(i)), axis, [], axis)
            for i in range(len(rows))
        ],
    )
    made = numbered(Labels(names, rows))

    def answer(tensor: Any, library: Any, method: str, form: str) -> Any:
        given_names, values = list(selection), list(selection.values())
        arguments = {
            "dict": (selection,),
            "Labels": (library.Labels(given_names, np.array([values])),),
            "entry": (library.Labels(given_names, np.array([values])).entry(0),),
            "keywords": (),
        }[form]
        keywords = selection if form == "keywords" else {}
        try:
            found = getattr(tensor, method)(*arguments, **keywords)
        except ValueError:
            return ValueError
        return positions(found if method == "blocks" else [found])

    for method in ("block", "blocks"):
        for form in ("dict", "Labels", "entry", "keywords"):
            expected = answer(reference, metatensor, method, form)
            assert answer(made, mts, method, form) == expected, (method, form)


# --- info ------------------------------------------------------------------------


def test_info():
    made = tensor(info={"unit": "eV", "author": "me"})
    assert made.info() == {"author": "me", "unit": "eV"}
    assert made.get_info("unit") == "eV"
    assert made.get_info("nope") is None
    made.info().clear()
    assert made.get_info("unit") == "eV"


def test_with_info():
    made = tensor(info={"unit": "eV"}, gradients=GRADIENTS)
    more = made.with_info("author", "me").with_info("unit", "meV")
    assert more.info() == {"author": "me", "unit": "meV"}
    assert made.info() == {"unit": "eV"}
    assert more.keys is made.keys
    for one, other in zip(more, made, strict=True):
        assert_same(one, other)
        assert one.values is other.values


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a", 3, "info must be text, got 'a': 3"),
        (3, "a", "info must be text, got 3: 'a'"),
        ("a", None, "info must be text, got 'a': None"),
        ("a", b"b", "info must be text, got 'a': b'b'"),
    ],
)
def test_info_is_text(key, value, message):
    with pytest.raises(TypeError, match=message):
        TensorMap(KEYS, numbered().blocks(), {key: value})
    with pytest.raises(TypeError, match=message):
        numbered().with_info(key, value)


# --- new maps from old ones ------------------------------------------------------


@every_tensor
@every_array
@pytest.mark.parametrize(
    ("duplicate", "own_arrays"),
    [
        (lambda t: t.copy(), True),
        (lambda t: t.copy(deep=True), True),
        (copy.deepcopy, True),
        (lambda t: pickle.loads(pickle.dumps(t)), True),
        (lambda t: t.copy(deep=False), False),
        (copy.copy, False),
    ],
    ids=["copy", "copy(deep)", "deepcopy", "pickle", "copy(not deep)", "copy.copy"],
)
def test_duplicates(make, arrays, duplicate, own_arrays):
    made = make(arrays=arrays)
    other = duplicate(made)
    assert type(other) is TensorMap
    assert other is not made
    assert_same(other, made)
    assert other.info() == made.info()
    for mine, theirs in zip(made, other, strict=True):
        assert type(mine.values) is type(theirs.values)
        assert (mine.values is not theirs.values) == own_arrays
        if isinstance(theirs.values, np.ndarray):
            assert not theirs.values.flags.writeable


@every_tensor
@pytest.mark.parametrize(
    ("args", "kwargs", "dtype", "kind"),
    [
        ((), {}, np.float32, np.ndarray),
        (("jax",), {}, np.float32, jax.Array),
        ((np.float16,), {"arrays": "jax"}, np.float16, jax.Array),
        ((), {"dtype": "float64"}, np.float64, np.ndarray),
        ((jax.devices("cpu")[0],), {}, np.float32, jax.Array),
    ],
)
def test_to(make, args, kwargs, dtype, kind):
    made = make()
    result = made.to(*args, **kwargs)
    assert jax.tree.structure(result) == jax.tree.structure(made)
    assert result.info() == made.info()
    for before, after in zip(made, result, strict=True):
        assert_same(after, before.to(*args, **kwargs))
        assert isinstance(after.values, kind)
        assert after.dtype == dtype


def test_wide_data_is_not_narrowed_in_silence():
    made = tensor(dtype=np.float64, gradients=GRADIENTS)
    with enable_x64(False), pytest.raises(TypeError, match="data is float64"):
        made.to(arrays="jax")
    with enable_x64(True):
        assert made.to(arrays="jax").dtype == np.float64
        assert_same(made.to(arrays="jax").to("numpy"), made)


# --- what can not be done --------------------------------------------------------


def assign(name: str, value: Any = None) -> Callable[[TensorMap], None]:
    return lambda made: setattr(made, name, value)


def write(made: TensorMap) -> None:
    made.block_by_id(0).values[...] = 0


def set_item(made: TensorMap) -> None:
    made[0] = made[1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda made: made.set_info("unit", "eV"),
            AttributeError,
            r"`tensor\.with_info\('unit', 'eV'\)`, which returns a new one",
        ),
        (
            lambda made: made.block(0).add_gradient("x", made.block(0)),
            AttributeError,
            r"`block\.with_gradient\('x', gradient\)`",
        ),
        (write, ValueError, "read-only"),
        (set_item, TypeError, "does not support item assignment"),
        (assign("keys"), AttributeError, "keys"),
        (assign("something"), AttributeError, "something"),
    ],
)
def test_maps_can_not_be_changed(change, error, message):
    made = tensor(gradients=GRADIENTS, info={"a": "b"})
    before = made.copy()
    with pytest.raises(error, match=message):
        change(made)
    assert_same(made, before)


def test_maps_are_not_hashable():
    with pytest.raises(TypeError, match="unhashable"):
        hash(tensor())


def test_equal_to_nothing_else():
    made = tensor()
    assert made == made
    assert (made == 3) is False
    assert (made != "map") is True


def test_plus_changes_nothing():
    made = tensor()
    assert_same(+made, made)


# --- text ------------------------------------------------------------------------


def test_print():
    made = tensor((3, 1, 12, 2, 5, 4), (3,))
    head = "TensorMap with 6 blocks\n    keys: [o3_lambda, center_type]\n"
    head += "    values: float32, NumPy\n    blocks:\n"
    rows = [
        f"        {i % 2}  {i // 2} => TensorBlock with shape ({n}, 3, 2)"
        for i, n in enumerate((3, 1, 12, 2, 5, 4))
    ]
    dots = ["        ..."]
    assert made.print(-1) == repr(made) == head + "\n".join(rows)
    assert made.print(6) == made.print(100) == str(made) == repr(made)
    assert made.print(4) == head + "\n".join(rows[:2] + dots + rows[-2:])
    assert made.print(5) == head + "\n".join(rows[:3] + dots + rows[-2:])
    assert made.print(2) == head + "\n".join(rows[:1] + dots + rows[-1:])
    assert made.print(1) == head + "\n".join(rows[:1] + dots)
    assert made.print(0) == head + dots[0]
    # as many as metatensor
    many = tensor([1] * 9)
    assert str(many) == many.print(7) != many.print(8)


def test_print_aligns_keys():
    keys = Labels(["a", "b"], [[-10, 3], [5, 100]])
    lines = repr(tensor((1, 1), keys=keys)).splitlines()
    assert [line.split(" =>")[0] for line in lines[4:]] == [
        "        -10    3",
        "          5  100",
    ]


def test_print_one_and_none():
    assert str(tensor((2,))).startswith("TensorMap with 1 block\n")
    assert (
        str(tensor(()))
        == repr(tensor(()))
        == ("TensorMap with 0 blocks\n    keys: [o3_lambda, center_type]\n    blocks:")
    )


@every_tensor
def test_html(make):
    made = make()
    html = made._repr_html_()
    assert f"<strong>TensorMap</strong> with {len(made)} block" in html
    for entry, one in made.items():
        assert f"{entry.print()}: TensorBlock with shape {one.shape}" in html
    for tag in ("details", "table", "div"):
        assert html.count(f"<{tag}") == html.count(f"</{tag}>")


# --- bad arguments ---------------------------------------------------------------

TWO = Labels.range("key", 2)
BAD_TENSORS = {
    "fewer blocks": (
        TWO,
        [block()],
        mts.MetatensorError,
        "one block for each of the 2 keys, got 1",
    ),
    "more blocks": (
        TWO,
        [block()] * 3,
        mts.MetatensorError,
        "one block for each of the 2 keys, got 3",
    ),
    "no keys": (
        Labels.empty("key"),
        [block()],
        mts.MetatensorError,
        "one block for each of the 0 keys, got 1",
    ),
    "array": (
        TWO,
        [block(), block().values],
        TypeError,
        r"must be TensorBlocks, but blocks\[1\] is ndarray",
    ),
    "map": (
        TWO,
        [tensor(), block()],
        TypeError,
        r"must be TensorBlocks, but blocks\[0\] is TensorMap",
    ),
    "block instead of a list": (
        Labels.single(),
        block(),
        TypeError,
        "`blocks` must be a list of",
    ),
    "traced keys": (
        Labels.traced("key", jnp.zeros((1, 1), jnp.int32)),
        [block()],
        TypeError,
        "`keys` must be static Labels, not traced Labels",
    ),
    "array of keys": (
        np.zeros((1, 1), np.int32),
        [block()],
        TypeError,
        "`keys` must be static Labels, not ndarray",
    ),
    "list of keys": (["key"], [block()], TypeError, "static Labels, not list"),
    "other sample names": (
        TWO,
        [
            TensorBlock(
                block().values, Labels.range("structure", 4), [], block().properties
            ),
            block(),
        ],
        mts.MetatensorError,
        r"the same sample names, but blocks\[0\] has \['structure'\] and blocks\[1\] "
        r"has \['system', 'atom'\]",
    ),
    "sample names in another order": (
        TWO,
        [
            block(),
            TensorBlock(
                block().values,
                block().samples.permute([1, 0]),
                [],
                block().properties,
            ),
        ],
        mts.MetatensorError,
        r"\['system', 'atom'\] and blocks\[1\] has \['atom', 'system'\]",
    ),
    "other component names": (
        TWO,
        [
            block(components=(3,)),
            TensorBlock(
                block(components=(3,)).values,
                block().samples,
                [Labels.range("xyz", 3)],
                block().properties,
            ),
        ],
        mts.MetatensorError,
        r"the same component names, but blocks\[0\] has \['component_0'\] and "
        r"blocks\[1\] has \['xyz'\]",
    ),
    "more components": (
        TWO,
        [block(components=(3,)), block(components=(3, 1))],
        mts.MetatensorError,
        r"\['component_0'\] and blocks\[1\] has \['component_0', 'component_1'\]",
    ),
    "other property names": (
        Labels.range("key", 3),
        [
            block(),
            block(),
            TensorBlock(block().values, block().samples, [], Labels.range("n", 2)),
        ],
        mts.MetatensorError,
        r"the same property names, but blocks\[0\] has \['property'\] and blocks\[2\] "
        r"has \['n'\]",
    ),
    "other gradients": (
        TWO,
        [block(gradients={"a": Gradient(), "b": Gradient()}), block()],
        mts.MetatensorError,
        r"the same gradient names, but blocks\[0\] has \['a', 'b'\] and blocks\[1\] "
        r"has \[\]",
    ),
    "other gradients of gradients": (
        TWO,
        [
            block(gradients={"a": Gradient()}),
            block(gradients={"a": Gradient(gradients={"b": Gradient()})}),
        ],
        mts.MetatensorError,
        r"the same gradient names in the gradients with respect to 'a', but blocks\[0\]"
        r" has \[\] and blocks\[1\] has \['b'\]",
    ),
    "other components of gradients": (
        TWO,
        [block(gradients={"a": Gradient((3,))}), block(gradients={"a": Gradient(())})],
        mts.MetatensorError,
        r"component names in the gradients with respect to 'a', but blocks\[0\] has "
        r"\['a_0_0'\] and blocks\[1\] has \[\]",
    ),
    "other dtype": (
        TWO,
        [block(), block(dtype=np.float64)],
        mts.MetatensorError,
        r"the same dtype, but blocks\[0\] has float32 and blocks\[1\] has float64",
    ),
}


@pytest.mark.parametrize(
    ("keys", "blocks", "error", "message"), BAD_TENSORS.values(), ids=BAD_TENSORS
)
def test_bad_tensors(keys, blocks, error, message):
    with pytest.raises(error, match=message):
        TensorMap(keys, blocks)


def test_blocks_may_differ_in_size_arrays_and_tracing():
    blocks = [
        block(3, (2,), 1, GRADIENTS),
        block(0, (5,), 0, GRADIENTS, arrays="jax"),
        block(4, (2,), 6, GRADIENTS, traced=True),
    ]
    made = TensorMap(Labels.range("key", 3), blocks)
    for one, other in zip(made, blocks, strict=True):
        assert_same(one, other)


def test_errors_are_value_errors_too():
    with pytest.raises(ValueError, match=re.escape("each of the 2 keys, got 0")):
        TensorMap(TWO, [])
