"""Sum, mean, variance and standard deviation, over samples and over properties.

Both reductions are written once: what is left of the labels, and where each row or
column goes. Over samples that is a move of rows, over properties a function of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks import as_names, block_form, check_type
from ..errors import MetatensorError, TracedLabelsError
from ..labels import Labels
from ..packing import RowIndex, unique_rows
from ..rows import Move, map_rows, move_rows
from ..tensor import TensorMap
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
    >>> block = mts.TensorBlock(
    ...     values=np.array([[1, 2], [3, 5], [7, 8]]),
    ...     samples=Labels(["system", "atom"], [[0, 0], [0, 1], [1, 0]]),
    ...     components=[],
    ...     properties=Labels.range("properties", 2),
    ... )
    >>> tensor = TensorMap(Labels.single(), [block])
    >>> sum_over_samples(tensor, "atom").block().values
    array([[4, 7],
           [7, 8]])
    """
    groups = _sample_groups(tensor, sample_names, out_samples)
    return _sum(tensor, groups)


sum_over_samples_block = block_form(sum_over_samples)


def mean_over_samples(
    tensor: TensorMap, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorMap:
    r"""The mean over samples that differ in ``sample_names`` only.

    .. math::
        y_I = \frac{1}{|I|} \sum_{i \in I} x_i \qquad
        \nabla y_I = \frac{1}{|I|} \sum_{i \in I} \nabla x_i

    where :math:`|I|` counts the samples, whether or not they have a gradient row. The
    arguments are those of :func:`sum_over_samples`; the mean of no sample is zero.
    """
    return _mean(tensor, _sample_groups(tensor, sample_names, out_samples))


mean_over_samples_block = block_form(mean_over_samples)


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
    """
    return _var(tensor, _sample_groups(tensor, sample_names, out_samples))


var_over_samples_block = block_form(var_over_samples)


def std_over_samples(
    tensor: TensorMap, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorMap:
    r"""The standard deviation over samples that differ in ``sample_names`` only.

    .. math:: y_I = \sqrt{v_I} \qquad \nabla y_I = \frac{\nabla v_I}{2 \sqrt{v_I}}

    with the variance :math:`v_I`. Where it is zero, so is the gradient. The arguments
    are those of :func:`sum_over_samples`.
    """
    groups = _sample_groups(tensor, sample_names, out_samples)
    return map_rows(_safe_sqrt, _var(tensor, groups))


std_over_samples_block = block_form(std_over_samples)


@dataclass(frozen=True)
class _Groups:
    """For each block: the samples that are left, and where each sample goes."""

    samples: list[Labels]
    destinations: list[Any]


def _sample_groups(
    tensor: TensorMap, sample_names: Names, out_samples: Labels | None
) -> _Groups:
    check_type(tensor, "tensor", TensorMap)
    summed = as_names(sample_names)
    for name in summed:
        if len(tensor) and name not in tensor.sample_names:
            raise MetatensorError(
                f"'{name}' is not one of the sample names {tensor.sample_names}"
            )
    kept = [name for name in tensor.sample_names if name not in summed]
    pairs = [_group(block.samples, kept, out_samples) for block in tensor]
    return _Groups([samples for samples, _ in pairs], [index for _, index in pairs])


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
        wide = map_rows(_As(np.float32 if is_float else np.int32), tensor, linear=True)
        mean = _mean(wide, groups)
        return map_rows(_As(dtype), mean, linear=True) if is_float else mean
    counts = [
        _count(index, len(samples), block.dtype)
        for index, samples, block in zip(
            groups.destinations, groups.samples, tensor, strict=True
        )
    ]
    return map_rows(_divide, _sum(tensor, groups), counts, linear=True)


def _var(tensor: TensorMap, groups: _Groups) -> TensorMap:
    """The mean of squared distances to the mean, which is held constant for them.

    So no gradients have to be gathered. In first order they are right as they are, as
    distances to the mean cancel in their sum. In second order they do not: with the
    constant mean :math:`m`, the variance is :math:`E[(x - m)^2] - (E[x] - m)^2`.
    """
    mean = _mean(tensor, groups)
    constant = remove_gradients(mean)
    of_each = move_rows(
        [Move(constant, source=groups.destinations)],
        [block.samples for block in tensor],
    )
    centers = [block.values for block in of_each]
    variance = _mean(map_rows(_square_difference, tensor, centers), groups)
    nested = any(
        gradient.gradients_list()
        for block in tensor
        for _, gradient in block.gradients()
    )
    if not nested:
        return variance
    shift = map_rows(_square_difference, mean, [block.values for block in constant])
    return map_rows(_subtract, variance, shift, linear=True)


def _subtract(a: Any, b: Any) -> Any:
    return a - b


def _count(destination: Any, n: int, dtype: Any) -> Any:
    """How many samples go to each group, at least 1: nothing by 1 is nothing."""
    if isinstance(destination, np.ndarray):
        return np.maximum(np.bincount(destination, minlength=n), 1).astype(dtype)
    counts = jnp.zeros(n, jnp.int32).at[destination].add(1, mode="drop")
    return jnp.maximum(counts, 1).astype(dtype)


@dataclass(frozen=True)
class _As:
    """Row function: the same numbers in another dtype."""

    dtype: Any

    def __call__(self, row: Any) -> Any:
        return row.astype(self.dtype)


def _divide(row: Any, count: Any) -> Any:
    return row / count


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
    >>> x = np.array([[1.0, 2.0, 4.0]], "f4")
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(x)])
    >>> sum_over_properties(tensor, "property").block().values.tolist()
    [[7.0]]
    """
    return _over_properties(_SumColumns, tensor, property_names, linear=True)


sum_over_properties_block = block_form(sum_over_properties)


def mean_over_properties(tensor: TensorMap, property_names: Names) -> TensorMap:
    r"""The mean over properties that differ in ``property_names`` only.

    The gradients are the means of the gradients. The arguments are those of
    :func:`sum_over_properties`.
    """
    return _over_properties(_MeanColumns, tensor, property_names, linear=True)


mean_over_properties_block = block_form(mean_over_properties)


def var_over_properties(tensor: TensorMap, property_names: Names) -> TensorMap:
    r"""The variance over properties that differ in ``property_names`` only.

    See :func:`var_over_samples` for its definition, and :func:`sum_over_properties`
    for the arguments.
    """
    return _over_properties(_VarColumns, tensor, property_names)


var_over_properties_block = block_form(var_over_properties)


def std_over_properties(tensor: TensorMap, property_names: Names) -> TensorMap:
    r"""The standard deviation over properties that differ in these names only.

    See :func:`std_over_samples` for its definition, and :func:`sum_over_properties`
    for the arguments.
    """
    return map_rows(_safe_sqrt, var_over_properties(tensor, property_names))


std_over_properties_block = block_form(std_over_properties)


@dataclass(frozen=True)
class _SumColumns:
    """Row function: the sum of each group of columns."""

    n_groups: int

    def __call__(self, row: Any, groups: Any, counts: Any) -> Any:
        return self._sum(row, groups)

    def _sum(self, row: Any, groups: Any) -> Any:
        columns = jnp.moveaxis(row, -1, 0)
        summed = jax.ops.segment_sum(columns, groups, self.n_groups)
        return jnp.moveaxis(summed, 0, -1)

    def _mean(self, row: Any, groups: Any, counts: Any) -> Any:
        row = _inexact(row)
        counts = counts.astype(row.dtype).reshape((1,) * (row.ndim - 1) + (-1,))
        return self._sum(row, groups) / counts


@dataclass(frozen=True)
class _MeanColumns(_SumColumns):
    """Row function: the mean of each group of columns."""

    def __call__(self, row: Any, groups: Any, counts: Any) -> Any:
        return self._mean(row, groups, counts)


@dataclass(frozen=True)
class _VarColumns(_SumColumns):
    """Row function: the variance of each group of columns."""

    def __call__(self, row: Any, groups: Any, counts: Any) -> Any:
        centered = _inexact(row) - self._mean(row, groups, counts)[..., groups]
        return self._mean(_square(centered), groups, counts)


def _over_properties(
    reduction: type[_SumColumns],
    tensor: TensorMap,
    property_names: Names,
    linear: bool = False,
) -> TensorMap:
    check_type(tensor, "tensor", TensorMap)
    summed = as_names(property_names)
    for name in summed:
        if len(tensor) and name not in tensor.property_names:
            raise MetatensorError(
                f"'{name}' is not one of the property names {tensor.property_names}"
            )
    kept = [name for name in tensor.property_names if name not in summed]
    functions, args, properties = [], [], []
    for block in tensor:
        left, groups = _group(block.properties, kept, None)
        functions.append(reduction(len(left)))
        args.append((groups, np.bincount(groups, minlength=len(left))))
        properties.append(left)
    return map_rows(functions, tensor, args=args, linear=linear, properties=properties)
