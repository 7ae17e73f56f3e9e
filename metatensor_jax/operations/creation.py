"""New maps and blocks: like others, from arrays, and from labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._evaluate import as_map, only_block
from .._types.arrays import Array, is_jax
from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from .._types.dlpack import as_array
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import as_names, check_type

Gradients = str | Sequence[str] | None


def zeros_like(tensor: TensorMap, gradients: Gradients = None) -> TensorMap:
    r"""A map with the metadata of another one, and zeros: :math:`\nabla y = 0`.

    :param tensor: a map
    :param gradients: the gradients to have as well: all if None, none if ``[]``

    >>> tensor = TensorMap(Labels.single(), [block_from_array(np.ones((2, 1)))])
    >>> zeros_like(tensor).block().values.tolist()
    [[0.0], [0.0]]
    """
    return _like(tensor, gradients, lambda x: _namespace(x).zeros_like(x))


def ones_like(tensor: TensorMap, gradients: Gradients = None) -> TensorMap:
    r"""A map with the metadata of another one, and ones.

    Gradients are ones as well, :math:`\nabla y = 1`, although they are not derivatives.

    :param tensor: a map
    :param gradients: the gradients to have as well: all if None, none if ``[]``

    >>> tensor = TensorMap(Labels.single(), [block_from_array(np.zeros((2, 1)))])
    >>> ones_like(tensor).block().values.tolist()
    [[1.0], [1.0]]
    """
    return _like(tensor, gradients, lambda x: _namespace(x).ones_like(x))


def empty_like(tensor: TensorMap, gradients: Gradients = None) -> TensorMap:
    """A map with the metadata of another one, any values.

    Gradients are any numbers as well, and not derivatives.

    :param tensor: a map
    :param gradients: the gradients to have as well: all if None, none if ``[]``

    >>> tensor = TensorMap(Labels.single(), [block_from_array(np.ones((2, 1), "f4"))])
    >>> empty_like(tensor).block().values.dtype
    dtype('float32')
    """
    return _like(tensor, gradients, lambda x: _namespace(x).empty_like(x))


def random_uniform_like(
    tensor: TensorMap, gradients: Gradients = None, *, key: jax.Array
) -> TensorMap:
    """A map with the metadata of another one, and random numbers from 0 to 1.

    Gradients are random numbers as well, and not derivatives.

    :param tensor: a map
    :param gradients: the gradients to have as well: all if None, none if ``[]``
    :param key: a random key of JAX

    >>> tensor = TensorMap(Labels.single(), [block_from_array(np.ones((2, 1), "f4"))])
    >>> random_uniform_like(tensor, key=jax.random.key(0)).block().shape
    (2, 1)
    """
    # not one split into all: the numbers of a block do not depend on what comes after
    keys = (jax.random.fold_in(key, i) for i in count())

    def uniform(values: Any) -> jax.Array:
        if not jnp.issubdtype(values.dtype, np.floating):
            raise TypeError(f"random numbers from 0 to 1 are no {values.dtype}")
        check_not_narrowed(values.dtype)
        return jax.random.uniform(next(keys), values.shape, values.dtype)

    return _like(tensor, gradients, uniform)


def remove_gradients(
    tensor: TensorMap, remove: str | Sequence[str] | None = None
) -> TensorMap:
    """A map without some of its gradients.

    :param tensor: a map
    :param remove: the parameter, or the parameters, whose gradients to remove; all of
        them if None
    :raises MetatensorError: a parameter that there is no gradient for

    >>> x = block_from_array(np.ones((2, 1)))
    >>> dx = TensorBlock(np.ones((1, 1)), Labels("sample", [[1]]), [], x.properties)
    >>> tensor = TensorMap(Labels.single(), [x.with_gradient("cell", dx)])
    >>> remove_gradients(tensor, ["cell"]).block().gradients_list()
    []
    """
    check_type(tensor, "tensor", TensorMap)
    removed = None if remove is None else as_names(remove)
    blocks = [_keep(block, _others(block, removed)) for block in tensor]
    return TensorMap._make(tensor.keys, blocks, tensor._structure.info)


def detach(tensor: TensorMap) -> TensorMap:
    r"""A map that JAX takes as constant when it differentiates.

    :param tensor: a map; its stored gradients stay, as constants

    .. math:: y_i = x_i \qquad \nabla y_i = \nabla x_i

    >>> def total(x):
    ...     tensor = TensorMap(Labels.single(), [block_from_array(x)])
    ...     return detach(tensor).block().values.sum()
    >>> jax.grad(total)(jnp.ones((1, 2))).tolist()
    [[0.0, 0.0]]
    """
    check_type(tensor, "tensor", TensorMap)
    # NumPy arrays are constants already
    return _map_values(tensor, lambda x: jax.lax.stop_gradient(x) if is_jax(x) else x)


def make_contiguous(tensor: TensorMap) -> TensorMap:
    """A map whose NumPy arrays are contiguous in memory; JAX's always are.

    Values and gradients stay the same.

    >>> tensor = TensorMap(Labels.single(), [block_from_array(np.ones((3, 2)).T)])
    >>> is_contiguous(tensor), is_contiguous(make_contiguous(tensor))
    (False, True)
    """
    check_type(tensor, "tensor", TensorMap)
    return _map_values(
        tensor, lambda x: np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x
    )


def is_contiguous(tensor: TensorMap) -> bool:
    """Are all arrays contiguous in memory, those of gradients included?

    Arrays of JAX always are. See :func:`make_contiguous` for maps that are not.

    :param tensor: a map

    >>> is_contiguous(TensorMap(Labels.single(), [block_from_array(np.ones((3, 2)))]))
    True
    """
    check_type(tensor, "tensor", TensorMap)
    arrays = [inner.values for block in tensor for _, inner in block._walk()]
    return all(not isinstance(x, np.ndarray) or x.flags.c_contiguous for x in arrays)


def zeros_like_block(block: TensorBlock, gradients: Gradients = None) -> TensorBlock:
    """A block with the metadata of another one, and zeros.

    :param block: a block
    :param gradients: the gradients to have as well: all if None, none if ``[]``

    >>> zeros_like_block(block_from_array(np.ones((2, 1)))).values.tolist()
    [[0.0], [0.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(zeros_like(as_map(block), gradients))


def ones_like_block(block: TensorBlock, gradients: Gradients = None) -> TensorBlock:
    """A block with the metadata of another one, and ones.

    :param block: a block
    :param gradients: the gradients to have as well: all if None, none if ``[]``

    >>> ones_like_block(block_from_array(np.ones((2, 1)))).values.tolist()
    [[1.0], [1.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(ones_like(as_map(block), gradients))


def empty_like_block(block: TensorBlock, gradients: Gradients = None) -> TensorBlock:
    """A block with the metadata of another one, and any values.

    :param block: a block
    :param gradients: the gradients to have as well: all if None, none if ``[]``

    >>> empty_like_block(block_from_array(np.ones((2, 1)))).shape
    (2, 1)
    """
    check_type(block, "block", TensorBlock)
    return only_block(empty_like(as_map(block), gradients))


def random_uniform_like_block(
    block: TensorBlock, gradients: Gradients = None, *, key: jax.Array
) -> TensorBlock:
    """A block with the metadata of another one, and random numbers from 0 to 1.

    :param block: a block
    :param gradients: the gradients to have as well: all if None, none if ``[]``
    :param key: a random key of JAX

    >>> block = block_from_array(np.ones((2, 1), "f4"))
    >>> random_uniform_like_block(block, key=jax.random.key(0)).shape
    (2, 1)
    """
    check_type(block, "block", TensorBlock)
    return only_block(random_uniform_like(as_map(block), gradients, key=key))


def remove_gradients_block(
    block: TensorBlock, remove: str | Sequence[str] | None = None
) -> TensorBlock:
    """A block without some of its gradients.

    :param block: a block
    :param remove: the parameter, or the parameters, whose gradients to remove; all of
        them if None
    :raises MetatensorError: a parameter that there is no gradient for

    >>> x = block_from_array(np.ones((2, 1)))
    >>> dx = TensorBlock(np.ones((1, 1)), Labels("sample", [[1]]), [], x.properties)
    >>> remove_gradients_block(x.with_gradient("cell", dx), "cell").gradients_list()
    []
    """
    check_type(block, "block", TensorBlock)
    return only_block(remove_gradients(as_map(block), remove))


def detach_block(block: TensorBlock) -> TensorBlock:
    """A block that JAX takes as constant when it differentiates.

    :param block: a block; its stored gradients stay, as constants

    >>> block = block_from_array(jnp.ones((2, 1)))
    >>> detach_block(block).values.tolist()
    [[1.0], [1.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(detach(as_map(block)))


def make_contiguous_block(block: TensorBlock) -> TensorBlock:
    """A block whose NumPy arrays are contiguous in memory; JAX's always are.

    :param block: a block

    >>> block = block_from_array(np.ones((3, 2)).T)
    >>> is_contiguous_block(block), is_contiguous_block(make_contiguous_block(block))
    (False, True)
    """
    check_type(block, "block", TensorBlock)
    return only_block(make_contiguous(as_map(block)))


def is_contiguous_block(block: TensorBlock) -> bool:
    """Are all arrays of a block contiguous in memory, those of gradients included?

    :param block: a block

    >>> is_contiguous_block(block_from_array(np.ones((3, 2))))
    True
    """
    check_type(block, "block", TensorBlock)
    return is_contiguous(as_map(block))


def block_from_array(
    array: Array,
    sample_names: Sequence[str] | None = None,
    component_names: Sequence[str] | None = None,
    property_names: Sequence[str] | None = None,
) -> TensorBlock:
    """A block with ranges of integers as labels, and without gradients.

    :param array: with two or more axes; of NumPy or JAX, or of any library that
        :class:`TensorBlock` takes arrays of
    :param sample_names: names for the first axes, all of which become samples.
        ``["sample"]`` if None
    :param component_names: names for the axes in the middle. ``"component_1"``,
        ``"component_2"``, ... if None
    :param property_names: names for the last axes, all of which become properties.
        ``["property"]`` if None

    >>> block_from_array(np.zeros((2, 3, 4)))
    TensorBlock with shape (2, 3, 4)
        values: float64, NumPy
        samples: [sample]
        components: [component_1]
        properties: [property]
    """
    array = as_array(array, "`array`")
    samples = as_names(sample_names or ["sample"])
    properties = as_names(property_names or ["property"])
    n_middle = array.ndim - len(samples) - len(properties)
    if component_names is None:
        component_names = [f"component_{i + 1}" for i in range(n_middle)]
    if n_middle != len(component_names) or array.ndim < 2:
        raise MetatensorError(
            f"an array with shape {tuple(array.shape)} does not have one axis for each "
            f"of the samples {samples}, components {list(component_names)} and "
            f"properties {properties}"
        )
    sizes = iter(array.shape)
    sample_labels = _grid(samples, sizes)
    components = [_grid([name], sizes) for name in component_names]
    property_labels = _grid(properties, sizes)
    shape = (len(sample_labels), *map(len, components), len(property_labels))
    return TensorBlock(array.reshape(shape), sample_labels, components, property_labels)


def one_hot(labels: Labels, dimension: Labels) -> Array:
    """Which of the possible values each entry has in one dimension, as 0 and 1.

    :param labels: labels with this dimension
    :param dimension: labels with this dimension only: the possible values
    :returns: ``int32`` array with shape ``(len(labels), len(dimension))``
    :raises MetatensorError: a value that is not one of the possible values (for traced
        labels, where this can not be known, its row is zero)

    >>> atoms = Labels(["atom", "type"], [[0, 6], [1, 1]])
    >>> one_hot(atoms, Labels("type", [[1], [6], [8]])).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    if len(dimension.names) != 1:
        raise MetatensorError(
            f"`dimension` must have a single dimension, got {dimension.names}"
        )
    column = labels.column(dimension.names[0])
    possible = dimension.column(dimension.names[0])
    encoding = (column[:, None] == possible[None, :]).astype(np.int32)
    if labels.is_static and dimension.is_static:
        found = encoding.any(axis=1)
        if not bool(found.all()):
            raise MetatensorError(
                f"{dimension.names[0]}={column[int(found.argmin())]} is present in the "
                f"labels, but not among the possible values {possible.tolist()}"
            )
    return encoding


def _grid(names: Sequence[str], sizes: Iterator[int]) -> Labels:
    shape = [next(sizes) for _ in names]
    values = np.indices(shape).reshape(len(shape), -1).T
    return Labels(list(names), values, assume_unique=True)


def _namespace(values: Any) -> Any:
    return jnp if is_jax(values) else np


def _map_values(tensor: TensorMap, function: Callable[[Any], Any]) -> TensorMap:
    blocks = [block._map_leaves(function) for block in tensor]
    return TensorMap._make(tensor.keys, blocks, tensor._structure.info)


def _like(
    tensor: TensorMap, gradients: Gradients, function: Callable[[Any], Any]
) -> TensorMap:
    check_type(tensor, "tensor", TensorMap)
    if gradients is not None:
        kept = as_names(gradients)
        blocks = [_keep(block, kept) for block in tensor]
        tensor = TensorMap._make(tensor.keys, blocks, tensor._structure.info)
    return _map_values(tensor, function)


def _others(block: TensorBlock, removed: Sequence[str] | None) -> list[str]:
    """The gradients of a block besides these; none if None."""
    present = block.gradients_list()
    for name in removed or []:
        if name not in present:
            raise MetatensorError(
                f"can not remove the gradient with respect to '{name}': this block has "
                f"{present or 'none'}"
            )
    return [name for name in present if removed is not None and name not in removed]


def _keep(block: TensorBlock, kept: Sequence[str]) -> TensorBlock:
    """A block with these gradients only."""
    gradients = {name: block.gradient(name) for name in kept}
    axes = block.samples, block._structure.components, block.properties
    return TensorBlock._make(block.values, *axes, gradients)
