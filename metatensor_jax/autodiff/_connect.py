"""From stored gradients to autodiff."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from .._types.errors import MetatensorError
from .._types.tensor import TensorMap
from ..operations.checks import check_type
from ._entries import Known
from ._parameters import check_parameters, check_values
from ._stored import StoredGradient, StoredGradients, stored_gradients
from ._swap import Levels
from ._unknown import unknown_derivative


def connect_gradients(
    tensor: TensorMap, *, system: str = "system", **parameters: TensorBlock
) -> TensorMap:
    r"""Make the values of a map a differentiable function of parameters.

    The values stay what they are, and JAX takes their derivative from the stored
    gradients: with the value :math:`x_i` and the parameter :math:`r`,

    .. math:: \mathrm{d} x_i = \sum_a \frac{\partial x_i}{\partial r_a} \mathrm{d} r_a

    where :math:`a` goes over the stored gradient rows of sample :math:`i` and their
    components. So ``jax.grad`` of anything that is computed from the result gives
    forces and virials, with one contraction per stored row. Second derivatives use
    stored gradients of gradients.

    Gradients with respect to other parameters stay stored. Their values are functions
    of the parameters as well, by the stored gradients of these gradients. A second
    derivative by two parameters may be stored in either order. One that is not stored
    is an error when JAX needs it: in the reverse passes of ``jax.grad`` while the
    program is traced. (In a forward pass, which can not tell what is needed, the
    derivative of a gradient that stays stored is NaN then.)

    With traced samples the rows are matched in the program: padding adds nothing, and a
    gradient row that names an entry the parameter lacks, or another system than its
    sample, turns the derivatives into NaN.

    :param tensor: a map with stored gradients
    :param system: the sample dimension that tells systems apart: where gradient samples
        have it, it must be that of the sample that they belong to
    :param parameters: for each parameter to connect, a block with its values: samples
        that say which entry of the system (such as ``system`` and ``atom``), the
        components of the gradient (such as ``xyz``), and a single property. A gradient
        row belongs to the sample with the same labels; what the gradient samples do
        not say (such as ``system``), the sample of the value says. A parameter with the
        samples ``Labels.single()`` has one entry for all systems. Components are
        matched by their names, in any order; where the values have a name already (as
        in a gradient of a gradient), that of the gradient ends in ``_2``, ``_3``, ...,
        as in :func:`compute_gradients`.
    :returns: the map without these stored gradients, also in those that stay
    :raises MetatensorError: no stored gradient for a parameter, other names or entries
        of components, sample dimensions of the gradients that the parameter lacks,
        gradient rows that name an entry the parameter does not have or another system
        than their sample; maps that are stacked for ``jax.vmap``, outside of it
    :raises TypeError: parameters that are no blocks; float64 data, if JAX is in its
        32-bit mode

    >>> import numpy as np
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
    check_type(tensor, "tensor", TensorMap)
    check_parameters("connect_gradients", system, parameters)
    check_values(tensor)
    for block in [*tensor, *parameters.values()]:
        check_not_narrowed(block.dtype)
    for block in tensor:
        for name in parameters:
            block.gradient(name)  # raises if there is none
    blocks = [
        _connect((("", block),), Known.of(block.samples), parameters, system)
        for block in tensor
    ]
    return TensorMap._make(tensor.keys, blocks, tensor._structure.info)


def _connect(
    levels: Levels, known: Known, parameters: Mapping[str, TensorBlock], system: str
) -> TensorBlock:
    """The last of these levels: the values, or a gradient that stays stored."""
    block = levels[-1][1]
    is_kept = len(levels) > 1
    stored = stored_gradients(levels, parameters, known, system, is_kept)
    arrays = {name: p.values for name, p in parameters.items()}
    kept = {
        name: _connect(
            (*levels, (name, gradient)),
            known.below(name, gradient.samples, system),
            parameters,
            system,
        )
        for name, gradient in block.gradients()
        if name not in parameters
    }
    return TensorBlock._make(
        _connected(jnp.asarray(block.values), stored, arrays),
        block.samples,
        tuple(block.components),
        block.properties,
        kept,
    )


@jax.custom_jvp
def _connected(values: Any, stored: StoredGradients, parameters: Any) -> Any:
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
        tangent = tangent + _derivative(name, stored, parameters, direction, values)
    # connected again, for the derivatives of this derivative
    return _connected(values, stored, parameters), tangent


_connected.defjvp(_connected_jvp, symbolic_zeros=True)


def _derivative(
    name: str, stored: StoredGradients, parameters: Any, direction: Any, values: Any
) -> Any:
    """What one parameter adds to the tangent of the values."""
    if name in stored.by:
        return _contract(stored.by[name], parameters, direction, values.shape)
    message = _message(name, stored)
    if not stored.is_kept:
        raise MetatensorError(message)
    # most do not need it: that something stays stored is no reason to raise
    return unknown_derivative(direction, values.shape, values.dtype, message)


def _message(name: str, stored: StoredGradients) -> str:
    path = " of that by ".join(f"'{step}'" for step in reversed(stored.path))
    fix = "Store it, or take a derivative of lower order"
    if stored.is_kept:
        kept = stored.path[0]
        fix = (
            f"Store it, connect '{kept}' as well, or remove the gradients that nobody "
            f"needs, `remove_gradients(tensor, ['{kept}'])`"
        )
    return (
        f"there is no stored gradient with respect to '{name}' of the stored gradient "
        f"by {path} (nor the same in another order, for all of its rows), so this "
        f"derivative of higher order is not known. {fix}"
    )


def _contract(
    gradient: StoredGradient, parameters: Any, direction: Any, shape: tuple[int, ...]
) -> Any:
    """The stored rows, times the direction of the parameter that each is by."""
    # the stored gradient depends on the parameters as well: that is the next order
    rows = _connected(jnp.asarray(gradient.values), gradient.nested, parameters)
    n_elements, row_size = math.prod(direction.shape[1:]), math.prod(shape[1:])
    rows = rows.reshape((rows.shape[0], n_elements, row_size))
    axes = (0, *(i + 1 for i in gradient.order), direction.ndim - 1)
    direction = direction.transpose(axes).reshape((direction.shape[0], n_elements))
    # the parameter may be of another precision
    direction = direction.astype(rows.dtype)
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


def _take_entries(direction: Any, gradient: StoredGradient) -> Any:
    """The rows of a parameter's tangent that each gradient row is multiplied with."""
    entries = gradient.entries
    if gradient.is_static:
        return direction[entries]
    # a row that fits no entry of the parameter: there is no way to raise in a program
    known = jnp.where(jnp.any(entries < 0), jnp.nan, 1).astype(direction.dtype)
    if direction.shape[0] == 0:
        return (
            jnp.zeros((entries.shape[0], direction.shape[1]), direction.dtype) * known
        )
    entries = jnp.where(entries < 0, 0, entries)
    return jnp.take(direction * known, entries, axis=0, mode="fill", fill_value=0)
