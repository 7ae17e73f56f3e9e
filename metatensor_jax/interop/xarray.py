"""Blocks as labelled arrays of xarray, maps as trees of them, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .._types.block import TensorBlock
from .._types.context import in_block, noting
from .._types.entry import as_int32
from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._checks import as_numpy, check_data
from ._entries import entry_names, named_entries, names_in
from ._imports import imported

if TYPE_CHECKING:
    import xarray as xr

_VALUES = "values"
_GRADIENTS = "gradients"


@overload
def to_xarray(data: TensorBlock) -> xr.DataArray: ...


@overload
def to_xarray(data: TensorMap) -> xr.DataTree: ...


def to_xarray(data: TensorBlock | TensorMap) -> xr.DataArray | xr.DataTree:
    """A block as a labelled array, or a map as a tree of labelled arrays.

    - A block is a ``DataArray`` with the dimensions ``samples``, one for each
      component, and ``properties``. Each dimension of its labels is a coordinate, so
      that ``array.sel(system=0, n=3)`` works; samples and properties with several
      dimensions have a ``MultiIndex``. Labels that say nothing, ``_`` from 0 on, are
      left out.
    - A map is a ``DataTree``. The node ``o3_lambda=0,center_type=8`` has the block with
      this key as its variable ``values``. The gradients with respect to ``positions``
      are a tree of the same form, the node ``gradients/positions``, and so on for
      gradients of gradients. ``tree.attrs`` has the names of the ``keys``, and
      ``info``.

    Values share the memory of NumPy's arrays, and of JAX's on a CPU. They can not be
    written to.

    :param data: a map, or a block without gradients
    :raises MetatensorError: dimensions of several axes with one name; a block with
        gradients, which one array does not have; labels without dimensions; a dtype
        that is not NumPy's own
    :raises TypeError: anything else, or data that is traced
    :raises TracedLabelsError: traced samples, those of a padded batch among them

    >>> block = TensorBlock(
    ...     np.arange(4.0).reshape(2, 2),
    ...     Labels(["system", "atom"], [[0, 0], [0, 2]]),
    ...     [],
    ...     Labels("n", [[5], [3]]),
    ... )
    >>> array = to_xarray(block)
    >>> array.dims, float(array.sel(system=0, atom=2, n=3))
    (('samples', 'properties'), 3.0)
    >>> tree = to_xarray(TensorMap(Labels("center_type", [[1], [8]]), [block, block]))
    >>> list(tree.children), tree["center_type=8/values"].shape
    (['center_type=1', 'center_type=8'], (2, 2))
    """
    check_data("to_xarray", data, (TensorMap, TensorBlock))
    xr = imported("xarray", "to_xarray")
    if isinstance(data, TensorMap):
        return _tree(xr, data)
    if data.gradients_list():
        raise MetatensorError(
            "the block has gradients with respect to "
            f"{data.gradients_list()}, which one array does not have: give a map with "
            "this block, each `block.gradient(parameter)` by itself, or "
            "`mts.remove_gradients_block(block)`"
        )
    return _array(xr, data)


@overload
def from_xarray(
    data: xr.DataArray, *, samples: str = "samples", properties: str = "properties"
) -> TensorBlock: ...


@overload
def from_xarray(
    data: xr.DataTree, *, samples: str = "samples", properties: str = "properties"
) -> TensorMap: ...


def from_xarray(
    data: xr.DataArray | xr.DataTree,
    *,
    samples: str = "samples",
    properties: str = "properties",
) -> TensorBlock | TensorMap:
    """A block of a labelled array, or a map of a tree as :func:`to_xarray` makes it.

    The labels of a dimension are its coordinates, in their order: those with an index
    if there are such, and all along this dimension otherwise. Samples and properties
    without coordinates are ``_``, components without coordinates are called as their
    dimension; both are numbered from 0 on. Coordinates that are single numbers, which
    ``sel`` leaves behind, are not taken. Values are not copied.

    :param data: an array, with its dimensions in any order; or a tree. Gradients in a
        tree number the samples of their block: do not sort one without the other
    :param samples: the dimension of the samples
    :param properties: the dimension of the properties; all others are components, in
        their order
    :returns: a block of a ``DataArray``, a map of a ``DataTree``
    :raises MetatensorError: dimensions that are not there, nodes that are no entries of
        labels, blocks that do not fit together
    :raises TypeError: anything else; coordinates that are no integers

    >>> import xarray
    >>> array = xarray.DataArray(
    ...     np.ones((3, 2)), dims=("time", "n"), coords={"time": [0, 10, 20]}
    ... )
    >>> block = from_xarray(array, samples="time", properties="n")
    >>> block.samples["time"].tolist()
    [0, 10, 20]
    """
    xr = imported("xarray", "from_xarray")
    if isinstance(data, xr.DataArray):
        return _block(data, samples, properties)
    if isinstance(data, xr.DataTree):
        return _map(data, samples, properties)
    raise TypeError(
        "`data` must be an xarray.DataArray or an xarray.DataTree, not "
        f"{type_of(data, qualified=True)}"
    )


# --- to xarray -----------------------------------------------------------------------


def _tree(xr: Any, tensor: TensorMap) -> Any:
    nodes = _nodes(xr, tensor, "")
    root = xr.Dataset(attrs={"keys": tensor.keys.names, "info": tensor.info()})
    return xr.DataTree.from_dict({"/": root, **nodes})


def _nodes(xr: Any, tensor: TensorMap, path: str) -> dict[str, Any]:
    """The arrays of all blocks by the paths of their nodes, and those of gradients."""
    _check_has_dimensions("keys", tensor.keys)
    nodes = {}
    for i, name in enumerate(entry_names(tensor.keys)):
        with in_block(tensor.keys, i):
            array = _array(xr, tensor.block_by_id(i))
            nodes[f"{path}/{name}"] = array.to_dataset(name=_VALUES)
    for parameter in tensor.block_by_id(0).gradients_list() if len(tensor) else []:
        blocks = [block.gradient(parameter) for block in tensor]
        inner = f"{path}/{_GRADIENTS}/{parameter}"
        nodes |= _nodes(xr, TensorMap(tensor.keys, blocks), inner)
    return nodes


def _array(xr: Any, block: TensorBlock) -> Any:
    _check_names(block)
    values = as_numpy("xarray", block.values)
    components = {labels.names[0]: labels for labels in block.components}
    dims = ["samples", *components, "properties"]
    array = xr.DataArray(values, dims=dims, name=_VALUES)
    for name, labels in components.items():
        array = array.assign_coords({name: labels.column(name)})
    array = _with_coordinates(xr, array, "samples", block.samples)
    return _with_coordinates(xr, array, "properties", block.properties)


def _with_coordinates(xr: Any, array: Any, dimension: str, labels: Labels) -> Any:
    names = labels.names
    if _says_nothing(labels):
        return array
    if len(names) > 1:
        multi_index = imported("pandas", "to_xarray").MultiIndex
        index = multi_index.from_arrays(list(labels.values.T), names=names)
        return array.assign_coords(
            xr.Coordinates.from_pandas_multiindex(index, dimension)
        )
    array = array.assign_coords({names[0]: (dimension, labels.column(names[0]))})
    return array if names == [dimension] else array.set_xindex(names[0])


def _says_nothing(labels: Labels) -> bool:
    """Are these ``_``, from 0 on?"""
    return labels == Labels.range("_", len(labels))


def _check_names(block: TensorBlock) -> None:
    """Raise unless dimensions and coordinates can all have a name of their own."""
    taken = [_VALUES, "samples", "properties"]
    axes = [("components", labels) for labels in block.components]
    axes += [("samples", block.samples), ("properties", block.properties)]
    for axis, labels in axes:
        _check_has_dimensions(axis, labels)
        if axis != "components" and _says_nothing(labels):
            continue
        # a single coordinate may have the name of its axis; an index of several has it
        names = [] if labels.names == [axis] else labels.names
        for name in names:
            if name in taken:
                raise MetatensorError(
                    f"'{name}', a dimension of the labels of the {axis}, is the name "
                    f"of something else in this array, one of {taken}: give it another "
                    "name, `mts.rename_dimension`"
                )
        taken += names


def _check_has_dimensions(axis: str, labels: Labels) -> None:
    if not labels.names:
        raise MetatensorError(
            f"the labels of the {axis} have no dimensions, which xarray can not say: "
            "append one, `mts.append_dimension`"
        )


# --- from xarray ---------------------------------------------------------------------


def _map(tree: Any, samples: str, properties: str) -> TensorMap:
    nodes = {n: node for n, node in tree.children.items() if n != _GRADIENTS}
    names = tree.attrs.get("keys")
    if names is None and not nodes:
        raise MetatensorError(
            "the tree has no nodes of blocks, and `tree.attrs` does not have the names "
            "of the keys"
        )
    names = names_in(next(iter(nodes))) if names is None else list(names)
    keys, blocks = named_entries(list(nodes), names, "node"), []
    for i, (name, node) in enumerate(nodes.items()):
        with in_block(keys, i):
            if _VALUES not in node.data_vars:
                raise MetatensorError(
                    f"the node {name!r} of the tree has no variable '{_VALUES}', it "
                    f"has {list(node.data_vars)}"
                )
            blocks.append(_block(node[_VALUES], samples, properties))
    inner = tree.children.get(_GRADIENTS)
    for parameter, node in () if inner is None else inner.children.items():
        with noting(f"of the gradients with respect to '{parameter}'"):
            gradient = _map(node, samples, properties)
            blocks = [
                block.with_gradient(parameter, gradient.block(key))
                for key, block in zip(keys, blocks, strict=True)
            ]
    return TensorMap(keys, blocks, tree.attrs.get("info"))


def _block(array: Any, samples: str, properties: str) -> TensorBlock:
    for what, name in (("samples", samples), ("properties", properties)):
        if name not in array.dims:
            raise MetatensorError(
                f"the array has no dimension '{name}', it has {list(array.dims)}: say "
                f"which one are the {what}, `{what}='...'`, or add one, "
                f"`array.expand_dims('{name}')`"
            )
    array = array.transpose(samples, ..., properties)
    return TensorBlock(
        array.values,
        _labels(array, samples, "_"),
        [_labels(array, name, str(name)) for name in array.dims[1:-1]],
        _labels(array, properties, "_"),
    )


def _labels(array: Any, dimension: str, default: str) -> Labels:
    """The coordinates along a dimension, as labels."""
    along = [n for n, c in array.coords.items() if c.dims == (dimension,)]
    if getattr(array.indexes.get(dimension), "nlevels", 1) > 1:
        along.remove(dimension)  # tuples of the others
    names = [name for name in along if name in array.xindexes] or along
    if not names:
        return Labels.range(default, array.sizes[dimension])
    columns = []
    for name in names:
        with noting(f"in the coordinate '{name}'"):
            columns.append(as_int32(array.coords[name].values))
    return Labels(names, np.stack(columns, 1))
