"""Input that does not fit is refused by the call that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metatensor_jax as mts
from metatensor_jax import Labels, Move, TensorBlock, TensorMap

P = Labels.range("p", 1)


def block_of(*values: float, dtype: str = "f4") -> TensorBlock:
    array = np.array(values, dtype).reshape(-1, 1)
    return TensorBlock(array, Labels.range("s", len(values)), [], P)


def map_of(*keys: int, dtype: str = "f4") -> TensorMap:
    entries = np.array(keys).reshape(-1, 1)
    return TensorMap(Labels("k", entries), [block_of(k, dtype=dtype) for k in keys])


def with_gradient(dtype: str = "f4") -> TensorBlock:
    gradient = TensorBlock(np.ones((1, 1), dtype), Labels("sample", [[0]]), [], P)
    return block_of(1.0, dtype=dtype).with_gradient("x", gradient)


def test_rows_of_maps_go_by_key() -> None:
    moved = mts.move_rows(
        [Move(map_of(0, 1)), Move(map_of(1, 0))], [Labels.range("s", 2)] * 2
    )
    assert [block.values.ravel().tolist() for block in moved] == [[0, 0], [1, 1]]


def test_indices_are_in_the_order_of_their_map() -> None:
    a = TensorMap(Labels("k", [[0], [1]]), [block_of(1.0, 2.0), block_of(3.0, 4.0)])
    b = TensorMap(Labels("k", [[1], [0]]), [block_of(5.0, 6.0), block_of(7.0, 8.0)])
    pick = [np.array([0]), np.array([1])]
    moved = mts.move_rows([Move(a, pick), Move(b, pick)], [Labels.range("s", 2)] * 2)
    assert [block.values.ravel().tolist() for block in moved] == [[1, 8], [4, 5]]


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "moves of other keys": (
        lambda: mts.move_rows([Move(map_of(0, 1)), Move(map_of(7))], [P, P]),
        mts.NotEqualError,
        "same keys",
    ),
    "more samples than blocks": (
        lambda: mts.move_rows([Move(map_of(0))], [P, P]),
        mts.MetatensorError,
        "`samples`: there must be one item for each of the 1 blocks, got 2",
    ),
    "rows of columns that meet": (
        lambda: mts.move_rows(
            [Move(block_of(1, 2), destination=np.array([0, 0]))],
            Labels.range("s", 1),
            arrangement="side by side",
        ),
        mts.MetatensorError,
        "several go to row 0",
    ),
    "a mask for row numbers": (
        lambda: mts.move_rows([Move(block_of(1, 2), np.array([True, False]))], P),
        TypeError,
        r"numpy.flatnonzero\(mask\)",
    ),
    "runs that are too short": (
        lambda: mts.cut_rows(block_of(1, 2), [1]),
        mts.MetatensorError,
        r"the 2 rows of the block, but \[1\] are 1",
    ),
    "runs of a map": (
        lambda: mts.cut_rows(map_of(0), [1]),  # type: ignore[arg-type]
        TypeError,
        "must be a metatensor_jax TensorBlock",
    ),
    "too many functions": (
        lambda: mts.map_rows([jnp.sin, jnp.cos], map_of(0)),
        mts.MetatensorError,
        "`function`: there must be one item for each of the 1 blocks, got 2",
    ),
    "too few arguments": (
        lambda: mts.map_rows(jnp.sin, map_of(0, 1), args=[()]),
        mts.MetatensorError,
        "`args`: .* 2 blocks, got 1",
    ),
    "too few arrays": (
        lambda: mts.map_rows(jnp.add, map_of(0, 1), [np.ones((1, 1), "f4")]),
        mts.MetatensorError,
        "arrays beside a map: .* 2 blocks, got 1",
    ),
    "a fraction in integers": (
        lambda: map_of(0, 1, dtype="i4").keys_to_properties("k", fill_value=0.5),
        mts.MetatensorError,
        "`fill_value` is 0.5, which int32 can not hold",
    ),
    "nan in integers": (
        lambda: jax.jit(
            lambda x: x.keys_to_properties("k", fill_value=np.nan).block().values
        )(map_of(0, 1, dtype="i4")),
        mts.MetatensorError,
        "`fill_value` is nan",
    ),
    "a group that is not there": (
        lambda: mts.sum_over_samples(map_of(0), "s", out_samples=Labels.empty("_")),
        mts.MetatensorError,
        "not one of the `out_samples`",
    ),
    "out_samples that are data": (
        lambda: mts.sum_over_samples(
            map_of(0), [], out_samples=Labels.traced("s", np.zeros((1, 1), np.int32))
        ),
        mts.TracedLabelsError,
        "out_samples",
    ),
    "out_samples that are a list": (
        lambda: mts.sum_over_samples(map_of(0), "s", out_samples=[0]),  # type: ignore[arg-type]
        TypeError,
        "`out_samples` must be a metatensor_jax Labels",
    ),
    "a block to connect": (
        lambda: mts.connect_gradients(with_gradient(), x=block_of(1.0)),  # type: ignore[arg-type]
        TypeError,
        "`tensor` must be a metatensor_jax TensorMap",
    ),
    "a block whose keys move": (
        lambda: TensorMap.keys_to_samples(block_of(1.0), "k"),  # type: ignore[arg-type]
        TypeError,
        "`tensor` must be a metatensor_jax TensorMap",
    ),
    "a layout by the row of the values": (
        lambda: mts.Layout.fit(
            mts.rename_dimension(map_of(0), "samples", "s", "sample"),
            systems=1,
            system="sample",
        ),
        mts.MetatensorError,
        "can not tell systems apart",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_is_refused(name: str) -> None:
    call, kind, match = BAD[name]
    with pytest.raises(kind, match=match):
        call()


def test_components_of_all_blocks_or_of_each() -> None:
    xyz = Labels.range("xyz", 1)
    for components in ([xyz], (xyz,), [[xyz], [xyz]]):
        out = mts.map_rows(lambda x: x[None], map_of(0, 1), components=components)
        assert [block.shape for block in out] == [(1, 1, 1)] * 2


@pytest.mark.parametrize("linear", [0, 1, None, np.True_, np.False_])
def test_linear_is_a_truth_value(linear: Any) -> None:
    out = mts.map_rows(lambda x: 2 * x, with_gradient(), linear=linear)
    assert out.gradient("x").values.tolist() == [[2.0]]


def test_one_group_is_the_entry_zero() -> None:
    out_samples = Labels("_", [[5], [0]])
    total = mts.sum_over_samples(map_of(3), "s", out_samples=out_samples)
    assert total.block().values.tolist() == [[0.0], [3.0]]


def test_stacked_functions_without_a_derivative() -> None:
    tensor = TensorMap(Labels.range("k", 2), [with_gradient()] * 2)
    stacked = mts.stack_blocks(tensor)
    positive = stacked.map_rows(lambda row: row > 0, [()], [P, P])
    assert [block.gradients_list() for block in positive.unstack()] == [[], []]


def test_labels_without_dimensions_are_permuted() -> None:
    assert len(Labels([], np.zeros((1, 0), int)).permute([])) == 1


def test_masks_are_not_lost() -> None:
    masked = np.ma.masked_array(np.ones((2, 1)), [[True], [False]])
    s, p = Labels.range("s", 2), Labels.range("p", 1)
    with pytest.raises(TypeError, match="masked array, 1 of whose 2 elements"):
        TensorBlock(masked, s, [], p)
    with pytest.raises(TypeError, match="the values of labels are a masked array"):
        Labels("s", masked.astype(int))
