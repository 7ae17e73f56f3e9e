"""Sum, mean, variance and standard deviation over samples.

Which samples are left, and where each row goes, is worked out from labels; to add up
rows is to move them. Narrow floats (float16, bfloat16) are added up in float32.
"""

from __future__ import annotations

from .._evaluate import as_map, evaluate, only_block
from .._types.block import TensorBlock
from .._types.context import noting
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._numbers import (
    Names,
    names_left,
)
from ._over_samples import plan_over_samples
from .checks import check_type


def sum_over_samples(
    tensor: TensorMap, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorMap:
    r"""Sum over samples that differ in ``sample_names`` only.

    .. math::
        y_I = \sum_{i \in I} x_i \qquad \nabla y_I = \sum_{i \in I} \nabla x_i

    :param tensor: a map
    :param sample_names: names of the sample dimensions to sum over
    :param out_samples: the samples of the result, in this order; a group without any
        sample is zero.
        If None, they are the groups that are there, sorted. Traced samples need
        ``Labels.range(name, n)`` here: ``batch.out_samples`` for a padded batch.
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

    where :math:`|I|` counts the samples, whether or not they have a gradient row.

    :param tensor: a map
    :param sample_names: names of the sample dimensions to average over
    :param out_samples: the samples of the result, in this order; the mean of no sample
        is zero.
        If None, they are the groups that are there, sorted. Traced samples need
        ``Labels.range(name, n)`` here: ``batch.out_samples`` for a padded batch.
    :raises MetatensorError: a name that is no sample dimension, or a sample that has no
        place in ``out_samples``
    :raises TracedLabelsError: traced samples without ``out_samples``

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

    with the mean :math:`\bar{x}_I`.

    :param tensor: a map
    :param sample_names: names of the sample dimensions to reduce over
    :param out_samples: the samples of the result, in this order; the variance of no
        sample is zero. If None, they are the groups that are there, sorted. Traced
        samples need
        ``Labels.range(name, n)`` here: ``batch.out_samples`` for a padded batch.
    :raises MetatensorError: a name that is no sample dimension, or a sample that has no
        place in ``out_samples``
    :raises TracedLabelsError: traced samples without ``out_samples``

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

    with the variance :math:`v_I`. Where it is zero, so is the gradient.

    :param tensor: a map
    :param sample_names: names of the sample dimensions to reduce over
    :param out_samples: the samples of the result, in this order; the deviation of no
        sample is zero.
        If None, they are the groups that are there, sorted. Traced samples need
        ``Labels.range(name, n)`` here: ``batch.out_samples`` for a padded batch.
    :raises MetatensorError: a name that is no sample dimension, or a sample that has no
        place in ``out_samples``
    :raises TracedLabelsError: traced samples without ``out_samples``

    >>> import metatensor_jax as mts
    >>> x = TensorMap(Labels.single(), [mts.block_from_array(np.float32([[1], [3]]))])
    >>> std_over_samples(x, "sample").block().values.tolist()
    [[1.0]]
    """
    return _over_samples("std", tensor, sample_names, out_samples)


def sum_over_samples_block(
    block: TensorBlock, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorBlock:
    """The sum over samples of a block that differ in ``sample_names`` only.

    Gradients, and what is raised, are those of :func:`sum_over_samples`.

    :param block: a block
    :param sample_names: names of the sample dimensions to reduce over
    :param out_samples: the samples of the result; those that are there if None

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.float32([[1], [3]]))
    >>> sum_over_samples_block(block, "sample").values.tolist()
    [[4.0]]
    """
    check_type(block, "block", TensorBlock)
    tensor = as_map(block)
    return only_block(sum_over_samples(tensor, sample_names, out_samples=out_samples))


def mean_over_samples_block(
    block: TensorBlock, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorBlock:
    """The mean over samples of a block that differ in ``sample_names`` only.

    Gradients, and what is raised, are those of :func:`mean_over_samples`.

    :param block: a block
    :param sample_names: names of the sample dimensions to reduce over
    :param out_samples: the samples of the result; those that are there if None

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.float32([[1], [3]]))
    >>> mean_over_samples_block(block, "sample").values.tolist()
    [[2.0]]
    """
    check_type(block, "block", TensorBlock)
    tensor = as_map(block)
    return only_block(mean_over_samples(tensor, sample_names, out_samples=out_samples))


def var_over_samples_block(
    block: TensorBlock, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorBlock:
    """The variance over samples of a block that differ in ``sample_names`` only.

    Gradients, and what is raised, are those of :func:`var_over_samples`.

    :param block: a block
    :param sample_names: names of the sample dimensions to reduce over
    :param out_samples: the samples of the result; those that are there if None

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.float32([[1], [3]]))
    >>> var_over_samples_block(block, "sample").values.tolist()
    [[1.0]]
    """
    check_type(block, "block", TensorBlock)
    tensor = as_map(block)
    return only_block(var_over_samples(tensor, sample_names, out_samples=out_samples))


def std_over_samples_block(
    block: TensorBlock, sample_names: Names, *, out_samples: Labels | None = None
) -> TensorBlock:
    """The standard deviation over samples of a block.

    Samples that differ in ``sample_names`` only go together.

    Gradients, and what is raised, are those of :func:`std_over_samples`.

    :param block: a block
    :param sample_names: names of the sample dimensions to reduce over
    :param out_samples: the samples of the result; those that are there if None

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.float32([[1], [3]]))
    >>> std_over_samples_block(block, "sample").values.tolist()
    [[1.0]]
    """
    check_type(block, "block", TensorBlock)
    tensor = as_map(block)
    return only_block(std_over_samples(tensor, sample_names, out_samples=out_samples))


def _over_samples(
    kind: str, tensor: TensorMap, sample_names: Names, out_samples: Labels | None
) -> TensorMap:
    check_type(tensor, "tensor", TensorMap)
    if out_samples is not None:
        check_type(out_samples, "out_samples", Labels)
        out_samples._host_values("reducing to `out_samples`")
    kept = names_left(tensor.sample_names, sample_names, "sample", tensor)
    with noting(f"in '{kind}_over_samples'"):
        return evaluate(
            plan_over_samples, tensor, kind=kind, kept=kept, out_samples=out_samples
        )
