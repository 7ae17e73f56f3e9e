"""Labelled arrays and trees of xarray: there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, tensor
from files import NESTED, assert_identical, assert_same_bits, every_dtype, every_tensor

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorBlock, TensorMap
from metatensor_jax.interop import from_xarray, to_xarray

xr: Any = pytest.importorskip("xarray")


@every_dtype
@every_tensor
def test_maps_come_back_from_trees(
    make: Callable[..., TensorMap], dtype: str, x64: bool
):
    ours = make(dtype=dtype)
    tree = to_xarray(ours)
    assert type(tree) is xr.DataTree
    assert_identical(from_xarray(tree), ours)


def test_blocks_are_arrays():
    samples = Labels(["system", "atom"], [[7, 0], [7, 2], [5, 0]])
    components = [Labels("m", [[0], [-1]]), Labels("xyz", [[2], [0]])]
    values = np.arange(24.0).reshape(3, 2, 2, 2)
    made = TensorBlock(values, samples, components, Labels("n", [[5], [3]]))
    array = to_xarray(made)
    assert array.dims == ("samples", "m", "xyz", "properties")
    assert array.sel(system=7, atom=2, m=-1, xyz=0, n=3).item() == values[1, 1, 1, 1]
    assert array.sel(system=7).shape == (2, 2, 2, 2)
    assert {array[name].dtype for name in ("system", "atom", "m", "n")} == {
        np.dtype("int32")
    }
    assert np.shares_memory(array.values, values)
    assert not array.values.flags.writeable
    back = from_xarray(array)
    assert np.shares_memory(back.values, values)
    assert_identical(back, made)
    assert_identical(from_xarray(array.transpose()), with_axes_turned(made))
    assert_identical(from_xarray(array.reset_index(["samples", "n"])), made)


def with_axes_turned(made: TensorBlock) -> TensorBlock:
    components = made.components[::-1]
    values = np.asarray(made.values).swapaxes(1, 2)
    return TensorBlock(values, made.samples, components, made.properties)


def test_nodes_of_a_tree():
    ours = tensor((3, 1), (2,), gradients=NESTED, info={"unit": "eV"})
    tree = to_xarray(ours)
    names = ["o3_lambda=0,center_type=0", "o3_lambda=1,center_type=0"]
    assert list(tree.children) == [*names, "gradients"]
    assert tree.attrs == {"keys": ["o3_lambda", "center_type"], "info": {"unit": "eV"}}
    inner = tree[f"gradients/positions/gradients/cell/{names[1]}/values"]
    gradient = ours.block_by_id(1).gradient("positions").gradient("cell")
    assert_same_bits(inner.values, gradient.values)
    first = tree[names[0]]["values"]
    assert np.shares_memory(first.values, np.asarray(ours.block_by_id(0).values))
    # a tree that lost its attributes, and one of the results of a computation
    tree.attrs = {}
    expected = TensorMap(ours.keys, ours.blocks())
    assert_identical(from_xarray(tree), expected)
    doubled = from_xarray(tree.map_over_datasets(lambda node: 2 * node))
    assert mts.allclose(doubled, mts.multiply(expected, 2))


def test_values_of_jax_are_not_copied():
    ours = tensor(dtype="float32").to("jax").block_by_id(0)
    values = to_xarray(ours).values
    assert values.__array_interface__["data"][0] == ours.values.unsafe_buffer_pointer()


def test_labels_that_say_nothing_have_no_coordinates():
    made = mts.block_from_array(np.ones((2, 3, 4)))
    renamed = TensorBlock(
        made.values, Labels.range("_", 2), made.components, Labels.range("_", 4)
    )
    array = to_xarray(renamed)
    assert list(array.coords) == [made.components[0].names[0]]
    assert_identical(from_xarray(array), renamed)
    # but they do where they say something
    for labels in (Labels("_", [[1], [0]]), Labels.range("samples", 2)):
        one = TensorBlock(np.ones((2, 1)), labels, [], Labels.single())
        assert_identical(from_xarray(to_xarray(one)), one)


def test_arrays_of_others():
    array = xr.DataArray(
        np.arange(12.0).reshape(2, 3, 2),
        dims=("n", "time", "xyz"),
        coords={"time": [10, 20, 30], "what": ("time", [3, 2, 1])},
    )
    made = from_xarray(array, samples="time", properties="n")
    assert made.samples == Labels("time", [[10], [20], [30]])
    assert made.components == [Labels.range("xyz", 2)]
    assert made.properties == Labels.range("_", 2)
    assert made.values[2, 1, 0] == array.isel(time=2, xyz=1, n=0)


def test_what_is_selected_comes_back():
    made = block(5, (3,))
    array = to_xarray(made)
    some = from_xarray(array.isel(samples=[3, 1], component_0=0, drop=True))
    assert_same_bits(some.values, np.asarray(made.values)[[3, 1], 0])
    assert some.samples.values.tolist() == made.samples.values[[3, 1]].tolist()
    of_atom = array.sel(atom=0)
    assert of_atom.dims[0] == "system"  # xarray drops the index of several
    assert from_xarray(of_atom, samples="system").samples.names == ["system"]


def renamed(old: str, new: str) -> TensorMap:
    axis = "properties" if old == "property" else "samples"
    return mts.rename_dimension(tensor(), axis, old, new)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "gradients": (
        lambda: to_xarray(block(gradients={"x": Gradient()})),
        MetatensorError,
        r"gradients with respect to \['x'\], which one array does not have: give a map",
    ),
    "a name twice": (
        lambda: to_xarray(renamed("property", "atom")),
        MetatensorError,
        r"'atom', a dimension of the labels of the properties, is the name of",
    ),
    "the name of an axis": (
        lambda: to_xarray(renamed("atom", "properties")),
        MetatensorError,
        r"'properties', a dimension .* of the samples, .*`mts.rename_dimension`",
    ),
    "the name of the values": (
        lambda: to_xarray(renamed("property", "values")),
        MetatensorError,
        r"'values', a dimension of the labels of the properties",
    ),
    "the name of the index": (
        lambda: to_xarray(renamed("atom", "samples")),
        MetatensorError,
        r"'samples', a dimension of the labels of the samples",
    ),
    "a component with the name of an axis": (
        lambda: to_xarray(
            TensorBlock(
                np.ones((1, 1, 1)),
                Labels.single(),
                [Labels.range("samples", 1)],
                Labels.single(),
            )
        ),
        MetatensorError,
        "'samples', a dimension of the labels of the components",
    ),
    "no dimensions": (
        lambda: to_xarray(
            TensorBlock(
                np.ones((1, 1)),
                Labels([], np.zeros((1, 0), int)),
                [],
                Labels.single(),
            )
        ),
        MetatensorError,
        "the labels of the samples have no dimensions",
    ),
    "keys without dimensions": (
        lambda: to_xarray(TensorMap(Labels([], np.zeros((1, 0), int)), [block()])),
        MetatensorError,
        "the labels of the keys have no dimensions",
    ),
    "bfloat16": (
        lambda: to_xarray(block(dtype=jnp.bfloat16)),
        MetatensorError,
        "xarray does not have the dtype bfloat16",
    ),
    "traced": (
        lambda: jax.jit(lambda x: to_xarray(x) and x)(tensor().to("jax")),
        TypeError,
        "to_xarray needs data, but the values of the block",
    ),
    "padded map": (
        lambda: to_xarray(mts.Layout.fit([tensor()], systems=2).pad(tensor()).tensors),
        mts.TracedLabelsError,
        "undo the padding first",
    ),
    "labels": (lambda: to_xarray(Labels.single()), TypeError, "`data` must be a"),  # type: ignore[call-overload]
    "no array": (
        lambda: from_xarray(np.ones(3)),  # type: ignore[call-overload]
        TypeError,
        "must be an xarray.DataArray or an xarray.DataTree, not numpy.ndarray",
    ),
    "no such dimension": (
        lambda: from_xarray(xr.DataArray(np.ones((2, 1)), dims=("time", "properties"))),
        MetatensorError,
        r"no dimension 'samples', it has \['time', 'properties'\]: say which one",
    ),
    "text": (
        lambda: from_xarray(
            xr.DataArray(
                np.ones((1, 1)),
                dims=("samples", "properties"),
                coords={"samples": ["a"]},
            )
        ),
        TypeError,
        r"(?s)must be integers.*in the coordinate 'samples'",
    ),
    "the same sample twice": (
        lambda: from_xarray(
            xr.DataArray(
                np.ones((2, 1)),
                dims=("samples", "properties"),
                coords={"samples": [1, 1]},
            )
        ),
        MetatensorError,
        "labels can not have the same entry multiple times",
    ),
    "node that is no key": (
        lambda: from_xarray(xr.DataTree.from_dict({"/k=1": None, "/b": None})),
        MetatensorError,
        r"the node 'b' is no entry of labels with the dimensions \['k'\]",
    ),
    "node without values": (
        lambda: from_xarray(xr.DataTree.from_dict({"/k=1": xr.Dataset({"x": 1})})),
        MetatensorError,
        r"the node 'k=1' of the tree has no variable 'values', it has \['x'\]",
    ),
    "nothing": (
        lambda: from_xarray(xr.DataTree()),
        MetatensorError,
        "the tree has no nodes of blocks",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as error:
        call()
    assert type(error.value) is kind
