"""Dot products and linear systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._plan.map import match_blocks
from .._run.batch import round_up
from .._run.caches import compiled
from .._run.run import is_on_host
from .._run.sums import wide_dtype
from .._types.arrays import is_tracer
from .._types.attach import attach
from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.conversion import check_not_narrowed, is_inexact
from .._types.errors import MetatensorError
from .._types.structure import in_words
from .._types.tensor import TensorMap
from .checks import (
    check_same_axes,
    check_same_keys,
    check_same_metadata,
    check_type,
)
from .rows import map_rows


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
    for i, (a, b) in enumerate(pairs):
        with in_block(tensor_1.keys, i):
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
    # products of narrow numbers are added up in float32
    wide = wide_dtype(row.dtype) if is_inexact(row.dtype) else row.dtype
    product = jnp.matmul(row, other.T, preferred_element_type=wide)
    return product.astype(jnp.result_type(row, other))


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


_solve = compiled(jnp.linalg.solve)


def lstsq(
    X: TensorMap, Y: TensorMap, rcond: float | None, driver: str | None = None
) -> TensorMap:
    r"""The least-squares solution :math:`w` of :math:`X w = Y`, for each block.

    That is the :math:`w` with the smallest

    .. math:: |X w - Y|^2 + |\nabla X w - \nabla Y|^2

    and the result has no gradients.

    :param X: the coefficients, with any number of equations
    :param Y: the right-hand sides, with the same samples, components and gradients
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
        return _least_squares(_filled_up(x), _filled_up(y), smallest)

    return _linear_system("lstsq", least_squares, X, Y)


@compiled
def _least_squares(x: Any, y: Any, rcond: Any) -> Any:
    return jnp.linalg.lstsq(x, y, rcond)[0]


def _linear_system(
    what: str, solver: Callable[[Any, Any], Any], X: TensorMap, Y: TensorMap
) -> TensorMap:
    check_type(X, "X", TensorMap)
    check_type(Y, "Y", TensorMap)
    check_same_keys(X, Y, what)
    blocks = []
    for i, (x, y) in enumerate(match_blocks(X, Y)):
        for (path, a), (_, b) in zip(x._walk(), y._walk(), strict=False):
            with in_block(X.keys, i, in_words(path)):
                check_same_metadata(a, b, what, ["samples", "components"])
        solution = solver(_equations(x), _equations(y))
        blocks.append(TensorBlock._make(solution.T, y.properties, (), x.properties))
    return TensorMap._make(X.keys, blocks)


# --- rows as equations ---------------------------------------------------------------


def _equations(block: TensorBlock) -> Any:
    """All components of all rows, and of those of gradients, end to end.

    Padding is the equation 0 = 0. The result has the shape (equations, properties), and
    is a NumPy array if all is known on the host.
    """
    check_not_narrowed(block.dtype)
    is_known = not any(is_tracer(leaf) for leaf in block._leaves)
    xp: Any = np if is_known and is_on_host(block._leaves) else jnp
    return xp.concatenate([_rows(inner, xp) for _, inner in block._walk()])


def _rows(block: TensorBlock, xp: Any) -> Any:
    values = xp.asarray(block.values)
    if not block.samples.is_static:
        mask = xp.asarray(block.mask).reshape((-1,) + (1,) * (values.ndim - 1))
        values = xp.where(mask, values, 0)
    return values.reshape(-1, values.shape[-1])


def _filled_up(rows: Any) -> Any:
    """With equations 0 = 0 up to a round number: few programs serve many blocks.

    In a program that is being traced this would only be more to do.
    """
    if not isinstance(rows, np.ndarray):
        return rows
    out = np.zeros((round_up(len(rows)), *rows.shape[1:]), rows.dtype)
    out[: len(rows)] = rows
    return out


attach(TensorMap, __matmul__=dot)
