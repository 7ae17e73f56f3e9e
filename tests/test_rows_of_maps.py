"""map_rows of whole maps, and of inputs that do not fit together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, assert_same, block, enable_x64, tensor
from reference import assert_close

import metatensor_jax as mts
from metatensor_jax.operations import map_rows


@pytest.fixture(autouse=True)
def _double():
    with enable_x64(True):
        yield


def _mixed(a, b):
    return jnp.tanh(a) * b + (a * b).sum()


# --- whole maps --------------------------------------------------------------------

GRADIENTS = {"t": Gradient((3,), [0, 0, 2]), "u": Gradient((), None)}


def test_maps_are_matched_by_their_keys():
    a = tensor((3, 1, 4), gradients=GRADIENTS, dtype=np.float64)
    b = tensor((3, 1, 4), gradients=GRADIENTS, dtype=np.float64, seed=10)
    order = [2, 0, 1]
    other = mts.TensorMap(
        mts.Labels(b.keys.names, b.keys.values[order]),
        [b.block_by_id(i) for i in order],
    )
    result = map_rows(_mixed, a, other)
    assert result.keys == a.keys
    for i in range(3):
        expected = map_rows(_mixed, a.block_by_id(i), b.block_by_id(i))
        for one, two in zip(
            jax.tree.leaves(result.block_by_id(i)),
            jax.tree.leaves(expected),
            strict=True,
        ):
            assert_close(one, two, 4)


def test_lists_have_one_item_for_each_block():
    x = tensor((3, 1), n_properties=[2, 3], gradients=GRADIENTS, dtype=np.float64)
    weights = [np.ones((2, 4)), np.full((3, 5), 2.0)]
    result = map_rows(
        [_apply_matrix, _apply_tanh],
        x,
        args=[(w,) for w in weights],
        properties=[mts.Labels.range("out", n) for n in (4, 5)],
    )
    expected = [_apply_matrix(x[0].values, weights[0])]
    expected.append(np.tanh(x[1].values @ weights[1]))
    for one, two in zip(result.blocks(), expected, strict=True):
        assert_close(one.values, two, 4)


def _apply_matrix(a, w):
    return a @ w


def _apply_tanh(a, w):
    return jnp.tanh(a @ w)


def test_a_map_without_blocks():
    x = mts.TensorMap(mts.Labels.empty("k"), [], {"name": "empty"})
    assert_same(map_rows(jnp.square, x), x)


def test_info_of_the_first_map_is_kept():
    x = tensor(info={"a": "b"})
    assert map_rows(jnp.square, x).info() == {"a": "b"}


# --- inputs that do not fit --------------------------------------------------------


def _with_samples(x, name):
    samples = mts.Labels(name, np.arange(len(x)).reshape(-1, 1) + 1)
    return mts.TensorBlock(x.values, samples, x.components, x.properties)


def _with_gradient_names(x):
    gradient = x.gradient("t")
    samples = mts.Labels(["sample", "renamed"], gradient.samples.values)
    renamed = mts.TensorBlock(
        gradient.values, samples, gradient.components, gradient.properties
    )
    return mts.TensorBlock(
        x.values, x.samples, x.components, x.properties, {"t": renamed}
    )


X = block(3, gradients={"t": Gradient((3,))})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (_with_samples(X, "other"), "same samples"),
        (block(3, first_system=1), "same samples"),
        (block(4), "same samples"),
        (_with_gradient_names(X), "same sample names"),
        (block(3, gradients={"t": Gradient((2,))}), "same components"),
        (block(3, gradients={"t": Gradient(())}), "same components"),
    ],
)
def test_inputs_that_differ(other, message):
    with pytest.raises(mts.NotEqualError, match=message):
        map_rows(jnp.multiply, X, other)


def test_maps_with_other_keys():
    x = tensor((3, 1))
    other = mts.TensorMap(mts.Labels(x.keys.names, [[7, 7], [8, 8]]), x.blocks())
    with pytest.raises(mts.NotEqualError, match="same keys"):
        map_rows(jnp.multiply, x, other)
