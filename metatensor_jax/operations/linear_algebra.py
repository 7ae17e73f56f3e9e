"""Dot products and linear systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._types.block import TensorBlock
from .._types.entry import saying_where
from .._types.errors import MetatensorError
from .._types.facade import implements
from .._types.tensor import TensorMap
from ..checks import (
    check_same_axes,
    check_same_keys,
    check_same_metadata,
    check_type,
)
from ..rows import equations, filled_up, map_rows, match_blocks


@implements("TensorMap.__matmul__")
def dot(tensor_1: TensorMap, tensor_2: TensorMap) -> TensorMap:
    r"""The dot products of the rows of two maps.

    .. math::
        y_{ij} = \sum_q a_{iq} b_{jq} \qquad \nabla y_{ij} = \sum_q \nabla a_{iq} b_{jq}

    :param tensor_1: a map
    :param tensor_2: a map with the same keys and properties, without components and
        gradients. Its samples are the properties of the result.

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    >>> x = TensorMap(mts.Labels.single(), [x])
    >>> dot(x, x).block().values.tolist()
    [[14.0, 32.0], [32.0, 77.0]]
    """
    check_type(tensor_1, "tensor_1", TensorMap)
    check_type(tensor_2, "tensor_2", TensorMap)
    check_same_keys(tensor_1, tensor_2, "dot")
    args, properties = [], []
    pairs = match_blocks(tensor_1, tensor_2)
    for key, (a, b) in zip(tensor_1.keys, pairs, strict=True):
        with saying_where(key):
            check_same_axes(a, b, "dot", ["properties"])
        if b.components or b.gradients_list():
            raise MetatensorError(
                "`tensor_2` of 'dot' should have neither components nor gradients, but "
                f"it has {[c.names[0] for c in b.components]} and {b.gradients_list()}"
            )
        b.samples._host_values("the samples of `tensor_2` in 'dot'")
        args.append((b.values,))
        properties.append(b.samples)
    return map_rows(_dot, tensor_1, args=args, linear=True, properties=properties)


def _dot(row: Any, other: Any) -> Any:
    return row @ other.T


def solve(X: TensorMap, Y: TensorMap) -> TensorMap:
    r"""Solve linear systems: the :math:`w` with :math:`X w = Y`, for each block.

    The rows of stored gradients are further equations, and the result has no gradients:

    .. math:: X w = Y \qquad \nabla X w = \nabla Y

    :param X: the coefficients: with components and gradients laid end to end, as many
        equations as properties
    :param Y: the right-hand sides, with the same samples, components and gradients
    :returns: a map with the transposed solutions: its samples are the properties of
        ``Y``, its properties are those of ``X``

    >>> import metatensor_jax as mts
    >>> X = mts.block_from_array(jnp.array([[2.0, 0.0], [0.0, 4.0]]))
    >>> Y = mts.block_from_array(jnp.array([[2.0], [2.0]]))
    >>> one = mts.Labels.single()
    >>> solve(TensorMap(one, [X]), TensorMap(one, [Y])).block().values.tolist()
    [[1.0, 0.5]]
    """

    def solve_square(x: Any, y: Any) -> Any:
        if x.shape[0] != x.shape[1]:
            raise MetatensorError(
                f"'solve' needs as many equations as unknowns, but there are "
                f"{x.shape[0]} and {x.shape[1]}: see `lstsq`"
            )
        return _solve(x, y)

    return _linear_system("solve", solve_square, X, Y)


_solve = jax.jit(jnp.linalg.solve)


def lstsq(
    X: TensorMap, Y: TensorMap, rcond: float | None, driver: str | None = None
) -> TensorMap:
    r"""The least-squares solution :math:`w` of :math:`X w = Y`, for each block.

    That is the :math:`w` with the smallest

    .. math:: |X w - Y|^2 + |\nabla X w - \nabla Y|^2

    and the result has no gradients. The arguments are those of :func:`solve`, but there
    can be any number of equations, and:

    :param rcond: singular values below ``rcond`` times the largest one count as zero.
        If None, the precision of the dtype times the larger dimension.
    :param driver: ignored, it is for Torch

    >>> import metatensor_jax as mts
    >>> X = mts.block_from_array(jnp.array([[1.0], [1.0]]))
    >>> Y = mts.block_from_array(jnp.array([[2.0], [4.0]]))
    >>> one = mts.Labels.single()
    >>> w = lstsq(TensorMap(one, [X]), TensorMap(one, [Y]), None).block().values
    >>> w.round(5).tolist()
    [[3.0]]
    """

    def least_squares(x: Any, y: Any) -> Any:
        precision = float(jnp.finfo(jnp.result_type(x, y, float)).eps)
        smallest = precision * max(x.shape) if rcond is None else rcond
        return _least_squares(filled_up(x), filled_up(y), smallest)

    return _linear_system("lstsq", least_squares, X, Y)


@jax.jit
def _least_squares(x: Any, y: Any, rcond: Any) -> Any:
    return jnp.linalg.lstsq(x, y, rcond)[0]


def _linear_system(
    what: str, solver: Callable[[Any, Any], Any], X: TensorMap, Y: TensorMap
) -> TensorMap:
    check_type(X, "X", TensorMap)
    check_type(Y, "Y", TensorMap)
    check_same_keys(X, Y, what)
    blocks = []
    for key, (x, y) in zip(X.keys, match_blocks(X, Y), strict=True):
        for (where, a), (_, b) in zip(x._walk(), y._walk(), strict=False):
            with saying_where(key, where):
                check_same_metadata(a, b, what, ["samples", "components"])
        solution = solver(equations(x), equations(y))
        blocks.append(TensorBlock._make(solution.T, y.properties, (), x.properties))
    return TensorMap._make(X.keys, blocks)
