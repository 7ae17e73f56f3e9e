"""Sum, mean, variance and standard deviation, over samples and over properties.

Both reductions are written once: what is left of the labels, and where each row or
column goes. Over samples that is a move of rows, over properties a function of rows.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._host.packing import RowIndex, unique_rows
from .._types.errors import MetatensorError, TracedLabelsError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..checks import as_names, block_form, check_type, in_operation
from ..execution import staying_on_host
from ..once import for_each
from ..rows import Move, map_rows, move_rows
from .creation import remove_gradients

Names = str | Sequence[str]


# --- over samples ------------------------------------------------------------------


def sum_over_samples(
    tensor: TensorMap, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorMap:
    r"""Sum over samples that differ in ``sample_names`` only.

    .. math::
        y_I = \sum_{i \in I} x_i \qquad \nabla y_I = \sum_{i \in I} \nabla x_i

    :param tensor: a map
    :param sample_names: names of the sample dimensions to sum over
    :param out_samples: the samples of the result, in this order; a group without any
        sample is zero. If None, they are the groups that are there, sorted. Traced
        samples need ``Labels.range(name, n)`` here.
    :raises MetatensorError: a name that is no sample dimension, or a sample that has no
        place in ``out_samples``
    :raises TracedLabelsError: traced samples without ``out_samples``

    >>> import metatensor_jax as mts
    >>> x = np.array([[[1], [3]], [[7], [8]]])
    >>> x = mts.block_from_array(x, sample_names=["system", "atom"])
    >>> sum_over_samples(TensorMap(Labels.single(), [x]), "atom").block().values
    array([[ 4],
           [15]])
    """
    return _over_samples("sum", tensor, sample_names, out_samples)


def mean_over_samples(
    tensor: TensorMap, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorMap:
    r"""The mean over samples that differ in ``sample_names`` only.

    .. math::
        y_I = \frac{1}{|I|} \sum_{i \in I} x_i \qquad
        \nabla y_I = \frac{1}{|I|} \sum_{i \in I} \nabla x_i

    where :math:`|I|` counts the samples, whether or not they have a gradient row. The
    arguments are those of :func:`sum_over_samples`; the mean of no sample is zero.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.float32([[1], [3]]))])
    >>> mean_over_samples(x, "sample").block().values.tolist()
    [[2.0]]
    """
    return _over_samples("mean", tensor, sample_names, out_samples)


def var_over_samples(
    tensor: TensorMap, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorMap:
    r"""The variance over samples that differ in ``sample_names`` only.

    .. math::
        y_I = \frac{1}{|I|} \sum_{i \in I} |x_i - \bar{x}_I|^2 \qquad
        \nabla y_I = \frac{2}{|I|} \sum_{i \in I} \mathrm{Re}
        \left[ \overline{(x_i - \bar{x}_I)} \nabla (x_i - \bar{x}_I) \right]

    with the mean :math:`\bar{x}_I`. The arguments are those of
    :func:`sum_over_samples`.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.float32([[1], [3]]))])
    >>> var_over_samples(x, "sample").block().values.tolist()
    [[1.0]]
    """
    return _over_samples("var", tensor, sample_names, out_samples)


def std_over_samples(
    tensor: TensorMap, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorMap:
    r"""The standard deviation over samples that differ in ``sample_names`` only.

    .. math:: y_I = \sqrt{v_I} \qquad \nabla y_I = \frac{\nabla v_I}{2 \sqrt{v_I}}

    with the variance :math:`v_I`. Where it is zero, so is the gradient. The arguments
    are those of :func:`sum_over_samples`.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.float32([[1], [3]]))])
    >>> std_over_samples(x, "sample").block().values.tolist()
    [[1.0]]
    """
    return _over_samples("std", tensor, sample_names, out_samples)


sum_over_samples_block = block_form(sum_over_samples)
mean_over_samples_block = block_form(mean_over_samples)
var_over_samples_block = block_form(var_over_samples)
std_over_samples_block = block_form(std_over_samples)


class _Groups(NamedTuple):
    """For each block: the samples that are left, and where each sample goes."""

    samples: list[Labels]
    destinations: list[Any]


def _over_samples(
    kind: str, tensor: TensorMap, sample_names: Names, out_samples: Labels | None
) -> TensorMap:
    check_type(tensor, "tensor", TensorMap)
    kept = _names_left(tensor.sample_names, sample_names, "sample", tensor)
    with in_operation(f"{kind}_over_samples"):
        samples = [block.samples for block in tensor]
        pairs = for_each(lambda labels: _group(labels, kept, out_samples), samples)
        groups = _Groups([left for left, _ in pairs], [index for _, index in pairs])
        return _OVER_SAMPLES[kind](tensor, groups)


def _names_left(
    names: list[str], reduced: Names, axis: str, tensor: TensorMap
) -> list[str]:
    """The dimensions of an axis that are not reduced over."""
    reduced = as_names(reduced)
    for name in reduced:
        if len(tensor) and name not in names:
            raise MetatensorError(f"'{name}' is not one of the {axis} names {names}")
    return [name for name in names if name not in reduced]


def _group(
    samples: Labels, kept: list[str], out_samples: Labels | None
) -> tuple[Labels, Any]:
    if out_samples is not None and out_samples.names != (kept or ["_"]):
        raise MetatensorError(
            f"`out_samples` must have the names that are left, {kept or ['_']}, not "
            f"{out_samples.names}"
        )
    if not samples.is_static:
        return _group_traced(samples, out_samples)
    if not kept:
        left = Labels.single() if out_samples is None else out_samples
        return left, np.zeros(len(samples), np.int64)
    rows = samples.values[:, [samples.names.index(name) for name in kept]]
    if out_samples is None:
        first, inverse = unique_rows(rows)
        return Labels(kept, rows[first], assume_unique=True), inverse
    inverse = RowIndex(out_samples.values).find(rows)
    if len(inverse) and inverse.min() < 0:
        missing = Labels(kept, rows[inverse < 0][:1])
        raise MetatensorError(
            f"{missing[0].print()} is not one of the `out_samples`:\n{out_samples}"
        )
    return out_samples, inverse


def _group_traced(samples: Labels, out_samples: Labels | None) -> tuple[Labels, Any]:
    if out_samples is None:
        what = "a reduction over samples without `out_samples=`"
        raise TracedLabelsError(what, samples.names)
    if len(out_samples.names) != 1 or out_samples != Labels.range(
        out_samples.names[0], len(out_samples)
    ):
        raise MetatensorError(
            "`out_samples` of traced samples must be like `Labels.range(name, n)`, got "
            f"\n{out_samples}"
        )
    if out_samples.names == ["_"]:
        padding = samples.values[:, 0] == Labels.PADDING
        return out_samples, jnp.where(padding, Labels.PADDING, 0)
    return out_samples, samples.column(out_samples.names[0])


def _sum(tensor: TensorMap, groups: _Groups) -> TensorMap:
    move = Move(tensor, destination=groups.destinations)
    return move_rows([move], groups.samples)


def _mean(tensor: TensorMap, groups: _Groups) -> TensorMap:
    dtype = tensor.dtype
    if len(tensor) and dtype.itemsize < 4 and dtype.kind != "b":
        # sums and counts do not fit in small types, only their ratio does
        is_float = jnp.issubdtype(dtype, np.inexact)
        mean = _mean(tensor.to(dtype=np.float32 if is_float else np.int32), groups)
        return mean.to(dtype=dtype) if is_float else mean
    counts = [
        _count(index, len(left), dtype) for left, index in zip(*groups, strict=True)
    ]
    with staying_on_host():
        total = _sum(tensor, groups)
    return map_rows(operator.truediv, total, counts, linear=True)


def _var(tensor: TensorMap, groups: _Groups) -> TensorMap:
    """The mean of squared distances to the mean, which is held constant for them.

    So no gradients have to be gathered. In first order they are right as they are, as
    distances to the mean cancel in their sum. In second order they do not: with the
    constant mean :math:`m`, the variance is :math:`E[(x - m)^2] - (E[x] - m)^2`.
    """
    with staying_on_host():
        mean = _mean(tensor, groups)
        constant = remove_gradients(mean)
        move = Move(constant, source=groups.destinations)
        of_each = move_rows([move], [block.samples for block in tensor])
        centers = [block.values for block in of_each]
        squares = map_rows(_square_difference, tensor, centers)
    variance = _mean(squares, groups)
    if tensor._structure.order < 2:
        return variance
    shift = map_rows(_square_difference, mean, [block.values for block in constant])
    return map_rows(operator.sub, variance, shift, linear=True)


def _std(tensor: TensorMap, groups: _Groups) -> TensorMap:
    with staying_on_host():
        variance = _var(tensor, groups)
    return map_rows(_safe_sqrt, variance)


_OVER_SAMPLES = {"sum": _sum, "mean": _mean, "var": _var, "std": _std}


def _count(destination: Any, n: int, dtype: Any) -> Any:
    """How many samples go to each group, at least 1: nothing by 1 is nothing."""
    if isinstance(destination, np.ndarray):
        return np.maximum(np.bincount(destination, minlength=n), 1).astype(dtype)
    counts = jnp.zeros(n, jnp.int32).at[destination].add(1, mode="drop")
    return jnp.maximum(counts, 1).astype(dtype)


def _square_difference(a: Any, b: Any) -> Any:
    return _square(_inexact(a) - b)


def _inexact(x: Any) -> Any:
    """As division gives it: float32 for int32."""
    return x if jnp.issubdtype(x.dtype, np.inexact) else x / 1


def _square(x: Any) -> Any:
    return x * x if not jnp.iscomplexobj(x) else (x.conj() * x).real


def _safe_sqrt(x: Any) -> Any:
    """The square root, with derivative 0 at 0; a NaN stays a NaN."""
    is_zero = x == 0
    return jnp.where(is_zero, x, jnp.sqrt(jnp.where(is_zero, jnp.ones_like(x), x)))


# --- over properties ---------------------------------------------------------------


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

    The arguments are those of :func:`sum_over_properties`.

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

    with the mean :math:`\bar{x}_{iQ}`. The arguments are those of
    :func:`sum_over_properties`.

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

    with the variance :math:`v_{iQ}`. Where it is zero, so is the gradient. The
    arguments are those of :func:`sum_over_properties`.

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.float32([[1, 5]]))])
    >>> std_over_properties(x, "property").block().values.tolist()
    [[2.0]]
    """
    return _over_properties("std", tensor, property_names)


sum_over_properties_block = block_form(sum_over_properties)
mean_over_properties_block = block_form(mean_over_properties)
var_over_properties_block = block_form(var_over_properties)
std_over_properties_block = block_form(std_over_properties)


def _over_properties(kind: str, tensor: TensorMap, property_names: Names) -> TensorMap:
    check_type(tensor, "tensor", TensorMap)
    kept = _names_left(tensor.property_names, property_names, "property", tensor)

    def group(labels: Labels) -> tuple[Labels, tuple[Any, Any]]:
        left, groups = _group(labels, kept, None)
        return left, (groups, np.bincount(groups, minlength=len(left)))

    # the same arrays for equal properties: these blocks run as one program
    pairs = for_each(group, [block.properties for block in tensor])
    properties, args = [left for left, _ in pairs], [groups for _, groups in pairs]
    function, linear = _OVER_PROPERTIES[kind], kind in ("sum", "mean")
    with in_operation(f"{kind}_over_properties"):
        return map_rows(
            function, tensor, args=args, linear=linear, properties=properties
        )


def _sum_columns(row: Any, groups: Any, counts: Any) -> Any:
    """Row function: the sum of each group of columns."""
    columns = jnp.moveaxis(row, -1, 0)
    summed = jax.ops.segment_sum(columns, groups, len(counts))
    return jnp.moveaxis(summed, 0, -1)


def _mean_columns(row: Any, groups: Any, counts: Any) -> Any:
    summed = _sum_columns(_inexact(row), groups, counts)
    return summed / jnp.broadcast_to(counts.astype(summed.dtype), summed.shape)


def _var_columns(row: Any, groups: Any, counts: Any) -> Any:
    centered = _inexact(row) - _mean_columns(row, groups, counts)[..., groups]
    return _mean_columns(_square(centered), groups, counts)


def _std_columns(row: Any, groups: Any, counts: Any) -> Any:
    return _safe_sqrt(_var_columns(row, groups, counts))


_OVER_PROPERTIES = {
    "sum": _sum_columns,
    "mean": _mean_columns,
    "var": _var_columns,
    "std": _std_columns,
}
