"""From stored gradients to autodiff."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.tensor import TensorMap
from ._parameters import (
    Columns,
    check_parameters,
    find_entries,
    inherit,
    match_components,
    sample_columns,
)


def connect_gradients(tensor: TensorMap, **parameters: TensorBlock) -> TensorMap:
    r"""Make the values of a map a differentiable function of parameters.

    The values stay what they are, and JAX takes their derivative from the stored
    gradients: with the value :math:`x_i` and the parameter :math:`r`,

    .. math:: \mathrm{d} x_i = \sum_a \frac{\partial x_i}{\partial r_a} \mathrm{d} r_a

    where :math:`a` goes over the stored gradient rows of sample :math:`i` and their
    components. So ``jax.grad`` of anything that is computed from the result gives
    forces and virials, with one contraction per stored row. Second derivatives use
    stored gradients of gradients.

    With traced samples the rows are matched in the program: padding adds nothing, and a
    gradient row that names an entry the parameter lacks turns the derivatives into NaN.

    :param tensor: a map with stored gradients
    :param parameters: for each parameter to connect, a block with its values: samples
        that say which entry of the system (such as ``system`` and ``atom``), the
        components of the gradient (such as ``xyz``), and a single property. A gradient
        row belongs to the sample with the same labels; what the gradient samples do
        not say (such as ``system``), the sample of the value says.
    :returns: the map without these stored gradients
    :raises MetatensorError: no stored gradient for a parameter, other numbers or
        entries of components, sample dimensions of the gradients that the parameter
        lacks, or gradient rows that name an entry the parameter does not have
    :raises TypeError: parameters that are no blocks

    >>> import metatensor_jax as mts
    >>> p = mts.Labels.range("p", 1)
    >>> x = TensorBlock(np.ones((1, 1), "f4"), mts.Labels.range("system", 1), [], p)
    >>> dx = TensorBlock(np.full((1, 1), 3, "f4"), mts.Labels("sample", [[0]]), [], p)
    >>> tensor = TensorMap(mts.Labels.single(), [x.with_gradient("volume", dx)])
    >>> def square(volume):
    ...     block = TensorBlock(volume, mts.Labels.range("system", 1), [], p)
    ...     connected = connect_gradients(tensor, volume=block)
    ...     return (connected.block().values ** 2).sum()
    >>> jax.grad(square)(jnp.ones((1, 1))).item()
    6.0
    """
    check_parameters("connect_gradients", parameters)
    blocks = [_connect_block(block, parameters) for block in tensor]
    return TensorMap._make(tensor.keys, blocks, tensor._structure.info)


def _connect_block(
    block: TensorBlock, parameters: Mapping[str, TensorBlock]
) -> TensorBlock:
    structure = block._structure
    kept = {name: g for name, g in block.gradients() if name not in parameters}
    stored = _stored(block, parameters, sample_columns(block.samples), nested=False)
    arrays = {name: p.values for name, p in parameters.items()}
    values = _connected(jnp.asarray(block.values), stored, arrays)
    return TensorBlock._make(
        values, block.samples, structure.components, structure.properties, kept
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "parents", "entries", "nested"],
    meta_fields=["order"],
)
@dataclass(frozen=True)
class _Stored:
    """A stored gradient, by rows.

    :param values: of the gradient block
    :param parents: for each row, the row of the values
    :param entries: for each row, the row of the parameter
    :param nested: the gradients of this gradient, by parameter
    :param order: for each of its components, which one of the parameter it is
    """

    values: Any
    parents: Any
    entries: Any
    nested: dict[str, _Stored]
    order: tuple[int, ...]


def _stored(
    block: TensorBlock,
    parameters: Mapping[str, TensorBlock],
    columns: Columns,
    nested: bool,
) -> dict[str, _Stored]:
    """The stored gradients of a block with respect to these parameters."""
    result = {}
    for name, parameter in parameters.items():
        if not block.has_gradient(name):
            if nested:
                continue
            block.gradient(name)  # raises
        gradient = block.gradient(name)
        n_own = len(gradient.components) - len(block.components)
        order = match_components(name, parameter, gradient.components[:n_own])
        own = inherit(columns, gradient.samples)
        inner = _stored(gradient, parameters, own, nested=True)
        result[name] = _Stored(
            values=gradient.values,
            parents=gradient.samples.values[:, 0],
            entries=find_entries(name, parameter.samples, gradient.samples, own),
            nested=inner,
            order=order,
        )
    return result


@jax.custom_jvp
def _connected(values: Any, stored: dict[str, _Stored], parameters: Any) -> Any:
    """``values``, as a function of ``parameters``."""
    return values


def _connected_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    values, stored, parameters = primals
    tangent = tangents[0]
    if isinstance(tangent, SymbolicZero):
        tangent = jnp.zeros(values.shape, values.dtype)
    for name, direction in tangents[2].items():
        if isinstance(direction, SymbolicZero):
            continue
        tangent = tangent + _contract(name, stored, parameters, direction, values.shape)
    # connected again, for the derivatives of this derivative
    return _connected(values, stored, parameters), tangent


_connected.defjvp(_connected_jvp, symbolic_zeros=True)


def _contract(
    name: str, stored: Any, parameters: Any, direction: Any, shape: tuple[int, ...]
) -> Any:
    """What one parameter adds to the tangent of the values."""
    if name not in stored:
        raise MetatensorError(
            f"there is no stored gradient of a gradient with respect to '{name}', so "
            "this derivative of higher order is not known. Store it, or take a "
            "derivative of lower order"
        )
    gradient: _Stored = stored[name]
    # the stored gradient depends on the parameters as well: that is the next order
    rows = _connected(gradient.values, gradient.nested, parameters)
    n_elements, row_size = math.prod(direction.shape[1:]), math.prod(shape[1:])
    rows = rows.reshape((rows.shape[0], n_elements, row_size))
    axes = (0, *(i + 1 for i in gradient.order), direction.ndim - 1)
    direction = direction.transpose(axes).reshape((direction.shape[0], n_elements))
    products = _product(rows, _take_entries(direction, gradient))
    summed = jax.ops.segment_sum(products, gradient.parents, shape[0])
    return summed.reshape(shape)


def _product(rows: Any, weights: Any) -> Any:
    """The sum over the elements of the parameter, for each gradient row.

    The same sum is written in two ways, because XLA on CPUs is several times slower
    with the other one in one of the directions (measured: double precision is best as a
    fused multiply and sum, single precision as products of small matrices).
    """
    if rows.dtype.itemsize > 4:
        return (rows * weights[:, :, None]).sum(axis=1)
    return jnp.einsum("gkp,gk->gp", rows, weights, precision="highest")


def _take_entries(direction: Any, gradient: _Stored) -> Any:
    """The rows of a parameter's tangent that each gradient row is multiplied with."""
    entries = gradient.entries
    if isinstance(entries, np.ndarray):
        return direction[entries]
    # a row that names no entry of the parameter: there is no way to raise in a program
    known = jnp.where(jnp.any(entries < 0), jnp.nan, 1).astype(direction.dtype)
    entries = jnp.where(entries < 0, 0, entries)
    return jnp.take(direction * known, entries, axis=0, mode="fill", fill_value=0)
