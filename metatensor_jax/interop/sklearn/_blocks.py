"""Blocks as X and y, and arrays as blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..._types.block import TensorBlock
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ...operations.checks import check_same_labels, check_type
from .._checks import as_numpy, check_data
from .._entries import entry_names


def to_sklearn(features: TensorBlock, targets: TensorBlock | None = None) -> Bunch:
    """A block as ``X``, and another one as ``y``, as scikit-learn takes them.

    :param features: with the shape ``(samples, *components, properties)``
    :param targets: a block with the same samples
    :returns: a ``Bunch``, the type of scikit-learn's own data sets, with

        - ``data``: the values of the features, ``(samples, columns)``, where each pair
          of components and properties is a column;
        - ``feature_names``: of these columns, ``n=3,l=1`` or ``xyz=0,n=3``;
        - ``samples``: the labels of the rows;
        - ``target`` and ``target_names``: the same of the targets, if there are any. A
          single column is ``(samples,)``.

        Values of NumPy's arrays are not copied, if these are contiguous.
    :raises MetatensorError: blocks with gradients, or with other samples
    :raises TypeError: anything but blocks, or data that is traced
    :raises TracedLabelsError: traced samples, those of a padded batch among them

    >>> from sklearn.linear_model import Ridge
    >>> samples = Labels.range("system", 3)
    >>> features = TensorBlock(np.eye(3), samples, [], Labels.range("n", 3))
    >>> energies = TensorBlock(np.ones((3, 1)), samples, [], Labels.range("energy", 1))
    >>> sets = to_sklearn(features, energies)
    >>> sets.data.shape, sets.target.shape, list(sets.feature_names)
    ((3, 3), (3,), ['n=0', 'n=1', 'n=2'])
    >>> predicted = Ridge().fit(sets.data, sets.target).predict(sets.data)
    >>> from_sklearn(predicted, energies).shape
    (3, 1)
    """
    data, names = _columns(features)
    made = Bunch(data=data, feature_names=names, samples=features.samples)
    if targets is not None:
        target, made["target_names"] = _columns(targets)
        check_same_labels(features.samples, targets.samples, "to_sklearn", "samples")
        made["target"] = target[:, 0] if target.shape[1] == 1 else target
    return made


def from_sklearn(
    array: ArrayLike, like: TensorBlock, samples: Labels | None = None
) -> TensorBlock:
    """An array that scikit-learn made, as a block.

    :param array: with the shape ``(samples, columns)``, or ``(samples,)`` for a column
    :param like: a block with the components and properties that the columns have, such
        as the targets
    :param samples: the labels of the rows; those of ``like`` if None
    :raises MetatensorError: another shape than the labels have

    >>> like = TensorBlock(
    ...     np.zeros((1, 3, 1)),
    ...     Labels.range("system", 1),
    ...     [Labels.range("xyz", 3)],
    ...     Labels.range("dipole", 1),
    ... )
    >>> block = from_sklearn(np.ones((2, 3)), like, Labels.range("system", 2))
    >>> block.shape
    (2, 3, 1)
    """
    check_type(like, "like", TensorBlock)
    samples = like.samples if samples is None else samples
    shape = (len(samples), *like.shape[1:])
    values = np.asarray(array)
    n_columns = int(np.prod(shape[1:], dtype=int))
    fits = values.shape == (len(samples), n_columns)
    if not fits and not (values.shape == (len(samples),) and n_columns == 1):
        raise MetatensorError(
            f"the array has the shape {values.shape}, but there are {len(samples)} "
            f"samples and {n_columns} columns: components "
            f"{[c.names[0] for c in like.components]}, properties "
            f"{like.properties.names}"
        )
    return TensorBlock(values.reshape(shape), samples, like.components, like.properties)


def _columns(block: TensorBlock) -> tuple[np.ndarray, np.ndarray]:
    """The values with two axes, and a name for each column."""
    check_data("to_sklearn", block, (TensorBlock,))
    if block.gradients_list():
        raise MetatensorError(
            "scikit-learn does not know of stored gradients, and this block has some "
            f"with respect to {block.gradients_list()}: remove them, "
            "`mts.remove_gradients`, or use metatensor_jax.learn"
        )
    names = [""]
    for labels in [*block.components, block.properties]:
        own = entry_names(labels)
        names = [",".join(filter(None, (name, x))) for name in names for x in own]
    values = as_numpy("scikit-learn", block.values)
    return values.reshape((len(block), len(names))), np.array(names, dtype=object)
