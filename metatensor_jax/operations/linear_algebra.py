"""Dot products and linear systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ..block import TensorBlock
from ..checks import check_same_axes, check_same_keys, check_same_parameters, check_type
from ..conversion import check_not_narrowed
from ..errors import MetatensorError, NotEqualError
from ..facade import implements
from ..rows import map_rows, match_blocks
from ..tensor import TensorMap


@implements("TensorMap.__matmul__")
def dot(tensor_1: TensorMap, tensor_2: TensorMap) -> TensorMap:
    r"""The dot products of the rows of two maps.

    .. math::
        y_{ij} = \sum_q a_{iq} b_{jq} \qquad \nabla y_{ij} = \sum_q \nabla a_{iq} b_{jq}

    :param tensor_1: a map
    :param tensor_2: a map with the same keys and properties, without components and
        gradients. Its samples are the properties of the result.

    >>> import metatensor_jax as mts
    >>> import numpy as np
    >>> x = np.array([[1, 2, 3], [4, 5, 6]])
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(x.astype("f4"))])
    >>> dot(x, x).block().values.tolist()
    [[14.0, 32.0], [32.0, 77.0]]
    """
    _check_maps(tensor_1, tensor_2, "dot", ("tensor_1", "tensor_2"))
    args, properties = [], []
    for a, b in match_blocks(tensor_1, tensor_2):
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

    The rows of stored gradients are further equations: :math:`\nabla X w = \nabla Y`.

    :param X: the coefficients: with components and gradients laid end to end, as many
        equations as properties
    :param Y: the right-hand sides, with the same samples, components and gradients
    :returns: a map with the transposed solutions: its samples are the properties of
        ``Y``, its properties are those of ``X``

    >>> import metatensor_jax as mts
    >>> import numpy as np
    >>> X = mts.block_from_array(np.array([[2.0, 0.0], [0.0, 4.0]], "f4"))
    >>> Y = mts.block_from_array(np.array([[2.0], [2.0]], "f4"))
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
        return jnp.linalg.solve(x, y)

    return _linear_system("solve", solve_square, X, Y)


def lstsq(
    X: TensorMap, Y: TensorMap, rcond: float | None, driver: str | None = None
) -> TensorMap:
    r"""The least-squares solution :math:`w` of :math:`X w = Y`, for each block.

    The rows of stored gradients are further equations: :math:`\nabla X w = \nabla Y`.

    :param X: the coefficients
    :param Y: the right-hand sides, with the same samples, components and gradients
    :param rcond: singular values below ``rcond`` times the largest one count as zero.
        If None, the precision of the dtype times the larger dimension.
    :param driver: ignored, it is for Torch
    :returns: a map with the transposed solutions: its samples are the properties of
        ``Y``, its properties are those of ``X``
    """

    def least_squares(x: Any, y: Any) -> Any:
        return jnp.linalg.lstsq(x, y, rcond)[0]

    return _linear_system("lstsq", least_squares, X, Y)


def _linear_system(
    what: str, solver: Callable[[Any, Any], Any], X: TensorMap, Y: TensorMap
) -> TensorMap:
    _check_maps(X, Y, what, ("X", "Y"))
    blocks = []
    for x, y in match_blocks(X, Y):
        _check_same_equations(x, y, what)
        solution = solver(_equations(x), _equations(y))
        blocks.append(TensorBlock._make(solution.T, y.properties, (), x.properties))
    return TensorMap._make(X.keys, blocks)


def _check_maps(a: TensorMap, b: TensorMap, what: str, names: tuple[str, str]) -> None:
    check_type(a, names[0], TensorMap)
    check_type(b, names[1], TensorMap)
    check_same_keys(a, b, what)


def _check_same_equations(x: TensorBlock, y: TensorBlock, what: str) -> None:
    for (where, a), (_, b) in zip(x._walk(), y._walk(), strict=False):
        try:
            check_same_axes(a, b, what, ["samples", "components"])
            check_same_parameters(a, b, what)
        except NotEqualError as error:
            raise NotEqualError(f"{error}{where}") from None


def _equations(block: TensorBlock) -> Any:
    """All rows of a block and its gradients, and all components, end to end."""
    check_not_narrowed(block.dtype)
    n = len(block.properties)
    rows = [jnp.asarray(inner.values).reshape(-1, n) for _, inner in block._walk()]
    return jnp.concatenate(rows)
