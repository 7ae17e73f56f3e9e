"""Sum, mean, variance and standard deviation over properties.

They are functions of rows, so stored gradients follow by the chain rule. Narrow floats
(float16, bfloat16) are added up in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._evaluate import as_map, evaluate, only_block
from .._host.packing import unique_rows
from .._plan.draft import DraftMap
from .._plan.map import plan_map
from .._plan.once import Once
from .._plan.push import RowFunction
from .._run.sums import wide_dtype
from .._types.block import TensorBlock
from .._types.context import noting
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._numbers import Names, check_countable, inexact, names_left, safe_sqrt, square
from .checks import check_type


def sum_over_properties(tensor: TensorMap, property_names: Names) -> TensorMap:
    r"""Sum over properties that differ in ``property_names`` only.

    .. math::
        y_{iQ} = \sum_{q \in Q} x_{iq} \qquad
        \nabla y_{iQ} = \sum_{q \in Q} \nabla x_{iq}

    :param tensor: a map
    :param property_names: names of the property dimensions to sum over
    :raises MetatensorError: a name that is no property dimension

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.float32([[1, 2, 4]]))])
    >>> sum_over_properties(x, "property").block().values.tolist()
    [[7.0]]
    """
    return _over_properties("sum", tensor, property_names)


def mean_over_properties(tensor: TensorMap, property_names: Names) -> TensorMap:
    r"""The mean over properties that differ in ``property_names`` only.

    .. math::
        y_{iQ} = \frac{1}{|Q|} \sum_{q \in Q} x_{iq} \qquad
        \nabla y_{iQ} = \frac{1}{|Q|} \sum_{q \in Q} \nabla x_{iq}

    :param tensor: a map
    :param property_names: names of the property dimensions to average over
    :raises MetatensorError: a name that is no property dimension

    >>> import metatensor_jax as mts
    >>> x = np.float32([[[[0, 2], [4, 8]], [[1, 3], [5, 9]]]])
    >>> x = mts.block_from_array(x, property_names=["n", "l"])  # and a component
    >>> mean_over_properties(TensorMap(Labels.single(), [x]), "l").block().values
    Array([[[1., 6.],
            [2., 7.]]], dtype=float32)
    """
    return _over_properties("mean", tensor, property_names)


def var_over_properties(tensor: TensorMap, property_names: Names) -> TensorMap:
    r"""The variance over properties that differ in ``property_names`` only.

    .. math::
        y_{iQ} = \frac{1}{|Q|} \sum_{q \in Q} |x_{iq} - \bar{x}_{iQ}|^2 \qquad
        \nabla y_{iQ} = \frac{2}{|Q|} \sum_{q \in Q} \mathrm{Re}
        \left[ \overline{(x_{iq} - \bar{x}_{iQ})} \nabla x_{iq} \right]

    with the mean :math:`\bar{x}_{iQ}`.

    :param tensor: a map
    :param property_names: names of the property dimensions to reduce over
    :raises MetatensorError: a name that is no property dimension

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.float32([[1, 5]]))])
    >>> var_over_properties(x, "property").block().values.tolist()
    [[4.0]]
    """
    return _over_properties("var", tensor, property_names)


def std_over_properties(tensor: TensorMap, property_names: Names) -> TensorMap:
    r"""The standard deviation over properties that differ in these names only.

    .. math:: y_{iQ} = \sqrt{v_{iQ}} \qquad
        \nabla y_{iQ} = \frac{\nabla v_{iQ}}{2 \sqrt{v_{iQ}}}

    with the variance :math:`v_{iQ}`. Where it is zero, so is the gradient.

    :param tensor: a map
    :param property_names: names of the property dimensions to reduce over
    :raises MetatensorError: a name that is no property dimension

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.float32([[1, 5]]))])
    >>> std_over_properties(x, "property").block().values.tolist()
    [[2.0]]
    """
    return _over_properties("std", tensor, property_names)


def sum_over_properties_block(block: TensorBlock, property_names: Names) -> TensorBlock:
    """The sum over properties of a block that differ in ``property_names`` only.

    Gradients, and what is raised, are those of :func:`sum_over_properties`.

    :param block: a block
    :param property_names: names of the property dimensions to reduce over

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.float32([[1, 3]]))
    >>> sum_over_properties_block(block, "property").values.tolist()
    [[4.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(sum_over_properties(as_map(block), property_names))


def mean_over_properties_block(
    block: TensorBlock, property_names: Names
) -> TensorBlock:
    """The mean over properties of a block that differ in ``property_names`` only.

    Gradients, and what is raised, are those of :func:`mean_over_properties`.

    :param block: a block
    :param property_names: names of the property dimensions to reduce over

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.float32([[1, 3]]))
    >>> mean_over_properties_block(block, "property").values.tolist()
    [[2.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(mean_over_properties(as_map(block), property_names))


def var_over_properties_block(block: TensorBlock, property_names: Names) -> TensorBlock:
    """The variance over properties of a block that differ in ``property_names`` only.

    Gradients, and what is raised, are those of :func:`var_over_properties`.

    :param block: a block
    :param property_names: names of the property dimensions to reduce over

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.float32([[1, 3]]))
    >>> var_over_properties_block(block, "property").values.tolist()
    [[1.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(var_over_properties(as_map(block), property_names))


def std_over_properties_block(block: TensorBlock, property_names: Names) -> TensorBlock:
    """The standard deviation over properties of a block.

    Properties that differ in ``property_names`` only go together.

    Gradients, and what is raised, are those of :func:`std_over_properties`.

    :param block: a block
    :param property_names: names of the property dimensions to reduce over

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.float32([[1, 3]]))
    >>> std_over_properties_block(block, "property").values.tolist()
    [[1.0]]
    """
    check_type(block, "block", TensorBlock)
    return only_block(std_over_properties(as_map(block), property_names))


def _over_properties(kind: str, tensor: TensorMap, property_names: Names) -> TensorMap:
    check_type(tensor, "tensor", TensorMap)
    kept = names_left(tensor.property_names, property_names, "property", tensor)
    with noting(f"in '{kind}_over_properties'"):
        return evaluate(_plan_over_properties, tensor, kind=kind, kept=kept)


def _plan_over_properties(tensor: DraftMap, kind: str, kept: Sequence[str]) -> DraftMap:
    once, blocks = Once(), []
    function, linear = _OVER_PROPERTIES[kind], kind in ("sum", "mean")
    for block in tensor.blocks:
        check_countable(block.rows.dtype)
        # the same arrays for equal properties: these blocks run as one program
        properties, args = once(_group_properties, block.properties, kept)
        f = RowFunction(function, args, linear)
        blocks.append(plan_map(f, [block], properties=properties))
    return tensor._replace(blocks=blocks)


def _group_properties(labels: Labels, kept: Sequence[str]) -> Any:
    if not kept:
        left, groups = Labels.single(), np.zeros(len(labels), np.int64)
    else:
        rows = labels.values[:, [labels.names.index(name) for name in kept]]
        first, groups = unique_rows(rows)
        left = Labels(kept, rows[first], assume_unique=True)
    # at least 1: nothing by 1 is nothing
    counts = np.maximum(np.bincount(groups, minlength=len(left)), 1)
    return left, (groups.astype(np.int32), counts.astype(np.int32))


def _narrow_again(
    function: Callable[..., Any], row: Any, groups: Any, counts: Any
) -> Any:
    """A function of a row, in the dtype that numbers are added up in."""
    if not jnp.issubdtype(row.dtype, np.inexact):
        return function(row, groups, counts)
    wide = function(row.astype(wide_dtype(row.dtype)), groups, counts)
    return wide if jnp.iscomplexobj(row) else wide.astype(row.dtype)


def _add_columns(row: Any, groups: Any, counts: Any) -> Any:
    """Row function: the sum of each group of columns."""
    columns = jnp.moveaxis(row, -1, 0)
    summed = jax.ops.segment_sum(columns, groups, len(counts))
    return jnp.moveaxis(summed, 0, -1)


def _average_columns(row: Any, groups: Any, counts: Any) -> Any:
    summed = _add_columns(inexact(row), groups, counts)
    return summed / jnp.broadcast_to(counts.astype(summed.dtype), summed.shape)


def _spread_columns(row: Any, groups: Any, counts: Any) -> Any:
    centered = inexact(row) - _average_columns(row, groups, counts)[..., groups]
    return _average_columns(square(centered), groups, counts)


def _sum_columns(row: Any, groups: Any, counts: Any) -> Any:
    return _narrow_again(_add_columns, row, groups, counts)


def _mean_columns(row: Any, groups: Any, counts: Any) -> Any:
    return _narrow_again(_average_columns, row, groups, counts)


def _var_columns(row: Any, groups: Any, counts: Any) -> Any:
    return _narrow_again(_spread_columns, row, groups, counts)


def _deviate_columns(row: Any, groups: Any, counts: Any) -> Any:
    return safe_sqrt(_spread_columns(row, groups, counts))


def _std_columns(row: Any, groups: Any, counts: Any) -> Any:
    return _narrow_again(_deviate_columns, row, groups, counts)


_OVER_PROPERTIES = {
    "sum": _sum_columns,
    "mean": _mean_columns,
    "var": _var_columns,
    "std": _std_columns,
}
