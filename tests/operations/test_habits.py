"""What users of metatensor write from habit, and what they have long asked for."""

from __future__ import annotations

import numpy as np
import pytest

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap

ONE, P, XYZ = Labels.single(), Labels.range("p", 1), Labels.range("xyz", 3)


def molecule(n: int, slope: float, system: int = 0) -> TensorMap:
    """A molecule that was computed alone: its atoms, each with a gradient by itself."""
    atoms = Labels(["system", "atom"], [[system, a] for a in range(n)])
    rows = Labels(["sample", "system", "atom"], [[i, system, i] for i in range(n)])
    gradient = TensorBlock(np.full((n, 3, 1), slope, np.float32), rows, [XYZ], P)
    values = np.arange(n, dtype=np.float32)[:, None] + np.float32(slope)
    block = TensorBlock(values, atoms, [], P, {"positions": gradient})
    return TensorMap(ONE, [block])


# --- systems computed one by one ------------------------------------------------------


def test_join_numbers_systems_and_their_gradients_anew() -> None:
    parts = [molecule(3, 1.0), molecule(2, 10.0), molecule(1, 5.0, system=7)]
    block = mts.join(parts, "samples", renumber="system").block()
    assert block.samples["system"].tolist() == [0, 0, 0, 1, 1, 2]
    gradient = block.gradient("positions").samples
    assert gradient["sample"].tolist() == [0, 1, 2, 3, 4, 5]
    assert gradient["system"].tolist() == [0, 0, 0, 1, 1, 2]
    np.testing.assert_array_equal(block.values[:, 0], [1, 2, 3, 10, 11, 5])


def test_several_systems_of_a_map_stay_apart_and_in_order() -> None:
    both = mts.join([molecule(2, 1.0, 9), molecule(1, 2.0, 4)], "samples")
    block = mts.join([both, molecule(1, 3.0, 9)], "samples", renumber="system").block()
    assert block.samples["system"].tolist() == [1, 1, 0, 2]


def test_renumbering_is_for_samples() -> None:
    with pytest.raises(mts.MetatensorError, match="for joining samples"):
        mts.join([molecule(1, 1.0)] * 2, "properties", renumber="system")


def test_joining_what_is_the_same_says_how_to_renumber() -> None:
    with pytest.raises(mts.MetatensorError) as error:
        mts.join([molecule(1, 1.0)] * 2, "samples")
    assert "`renumber=`" in "".join(error.value.__notes__)


# --- other values for a dimension -----------------------------------------------------


def test_values_are_replaced_in_gradients_as_well() -> None:
    replaced = mts.replace_dimension(molecule(2, 1.0), "samples", "system", {0: 42})
    block = replaced.block()
    assert block.samples["system"].tolist() == [42, 42]
    assert block.gradient("positions").samples["system"].tolist() == [42, 42]


@pytest.mark.parametrize("values", [[5, 6], np.array([5, 6]), {0: 5, 1: 6}])
def test_values_for_each_sample_are_a_rule_for_gradients(values: object) -> None:
    block = mts.replace_dimension(molecule(2, 1.0), "samples", "atom", values).block()
    assert block.samples["atom"].tolist() == [5, 6]
    assert block.gradient("positions").samples["atom"].tolist() == [5, 6]


def test_a_value_that_would_become_two_raises() -> None:
    with pytest.raises(mts.MetatensorError, match="both 3 and 4"):
        mts.replace_dimension(molecule(2, 1.0), "samples", "system", [3, 4])


def test_other_axes_and_wrong_values() -> None:
    x = molecule(2, 1.0)
    assert mts.replace_dimension(x, "keys", "_", 3).keys["_"].tolist() == [3]
    properties = mts.replace_dimension(x, "properties", "p", {0: 9}).block().properties
    assert properties["p"].tolist() == [9]
    with pytest.raises(mts.MetatensorError, match="same entry multiple times"):
        mts.replace_dimension(x, "samples", "atom", 0)
    with pytest.raises(mts.MetatensorError, match=r"each of the 2 entries.*\(3,\)"):
        mts.replace_dimension(x, "samples", "atom", [1, 2, 3])
    with pytest.raises(mts.MetatensorError, match="'nope' not found"):
        mts.replace_dimension(x, "samples", "nope", 0)


# --- arithmetic over the union of keys ------------------------------------------------


def by_type(types: list[int], scale: float) -> TensorMap:
    blocks = [molecule(2, scale * t).block() for t in types]
    return TensorMap(Labels("type", [[t] for t in types]), blocks)


@pytest.mark.parametrize(("name", "sign"), [("add", 1), ("subtract", -1)])
def test_blocks_that_one_map_lacks_count_as_zero(name: str, sign: int) -> None:
    a, b = by_type([1, 8], 1.0), by_type([8, 6], 10.0)
    result = getattr(mts, name)(a, b, different_keys="union")
    assert result.keys.values.tolist() == [[1], [8], [6]]
    for t, expected in ((1, 1.0), (8, 8.0 + sign * 80.0), (6, sign * 60.0)):
        slope = result.block(type=t).gradient("positions").values
        np.testing.assert_allclose(slope, expected)
    both = getattr(mts, name)(a, b, different_keys="intersection")
    assert both.keys.values.tolist() == [[8]]


def test_products_over_the_union_raise() -> None:
    a, b = by_type([1], 1.0), by_type([8], 1.0)
    with pytest.raises(mts.MetatensorError, match="'intersection'"):
        mts.multiply(a, b, different_keys="union")
    assert len(mts.multiply(a, b, different_keys="intersection")) == 0
    with pytest.raises(mts.NotEqualError, match="same keys"):
        mts.add(a, b)


def test_maps_are_split_by_keys() -> None:
    keys = Labels(["l", "type"], [[0, 8], [1, 1], [0, 1]])
    tensor = TensorMap(keys, [molecule(1, float(i)).block() for i in range(3)])
    parts = mts.split_keys(tensor, ["type"])
    assert [part.keys.values.tolist() for part in parts] == [
        [[0, 8]],
        [[1, 1], [0, 1]],
    ]
    with pytest.raises(mts.MetatensorError, match="'nope' is not one of"):
        mts.split_keys(tensor, "nope")


# --- habits ---------------------------------------------------------------------------


def test_one_name_stands_for_a_list_of_one() -> None:
    x = molecule(2, 1.0)
    assert mts.remove_gradients(x, "positions").block().gradients_list() == []
    assert mts.zeros_like(x, "positions").block().gradients_list() == ["positions"]
    assert mts.sort(x, "samples") == x
    block = mts.block_from_array(np.ones((1, 1)), "s", [], "q")
    assert (block.samples.names, block.properties.names) == (["s"], ["q"])


def test_components_are_renamed_everywhere() -> None:
    values = np.ones((1, 3, 1))
    block = TensorBlock(values, Labels.range("s", 1), [XYZ], P)
    slopes = TensorBlock(
        np.ones((1, 2, 3, 1)), Labels("sample", [[0]]), [Labels.range("k", 2), XYZ], P
    )
    tensor = TensorMap(ONE, [block.with_gradient("x", slopes)])
    renamed = mts.rename_dimension(tensor, "components", "xyz", "m").block()
    assert renamed.components[0].names == ["m"]
    names = [c.names[0] for c in renamed.gradient("x").components]
    assert names == ["k", "m"]
    with pytest.raises(mts.MetatensorError, match="'nope' is not one of the compo"):
        mts.rename_dimension(tensor, "components", "nope", "m")


def test_labels_without_dimensions_select_everything() -> None:
    labels = Labels("a", [[3], [1]])
    for n in (0, 1):
        nothing = Labels([], np.zeros((n, 0), np.int32))
        assert labels.select(nothing).tolist() == [0, 1]


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2)])
def test_numbers_on_the_left(number: object) -> None:
    block = mts.block_from_array(np.array([[2.0], [4.0]], np.float32))
    x = TensorMap(ONE, [block])
    if isinstance(number, np.float64):
        number = np.float32(number)
    for result, expected in (
        (number + x, [[4.0], [6.0]]),
        (number - x, [[0.0], [-2.0]]),
        (number * x, [[4.0], [8.0]]),
        (number / x, [[1.0], [0.5]]),
        (number**x, [[4.0], [16.0]]),
        (-x, [[-2.0], [-4.0]]),
        (abs(-x), [[2.0], [4.0]]),
        (sum([x, x]), [[4.0], [8.0]]),
    ):
        np.testing.assert_allclose(result.block().values, expected)
        assert result.block().dtype == np.float32
    with pytest.raises(TypeError):
        "a" + x


def test_host_data_stays_where_it_is_when_sent_to_the_cpu() -> None:
    x = mts.block_from_array(np.ones((1, 1)))
    assert x.to("cpu").dtype == np.float64
    assert isinstance(x.to("cpu").values, np.ndarray)
    assert isinstance(x.to(device="cpu").values, np.ndarray)
