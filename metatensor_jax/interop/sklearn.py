"""Blocks as the arrays of scikit-learn, and its estimators on maps.

Needs the extra ``interop``.

- :func:`to_sklearn`: a block as ``X``, another one as ``y``, with the names of features;
  :func:`from_sklearn`: a prediction as a block.
- :class:`EstimatorMap`: an estimator for each block of a map.

scikit-learn does not know of stored gradients. Maps that have some are refused rather
than that predictions lack them without a word: remove them (``mts.remove_gradients``),
or use ``metatensor_jax.learn``, through which they go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError
from .._types.labels import Labels, first_difference
from .._types.tensor import TensorMap
from ..operations.checks import check_same_keys, check_same_labels, check_type
from ._checks import as_numpy, check_data
from ._entries import entry_names

__all__ = ["EstimatorMap", "from_sklearn", "to_sklearn"]


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

    :param array: with the shape ``(samples, columns)``, or ``(samples,)`` for one column
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
    return TensorBlock(
        values.reshape(shape), samples, like.components, like.properties
    )


class EstimatorMap(BaseEstimator):
    """An estimator of scikit-learn for each block of a map.

    It is an estimator itself: ``clone``, ``get_params`` and ``set_params`` work, with
    names like ``estimator__alpha``. What it is fitted to, and what it predicts, are maps.

    :param estimator: what is cloned and fitted for each block, a regressor, a classifier
        or a pipeline of them

    After :meth:`fit` there are

    - ``keys_``: the keys of the blocks;
    - ``estimators_``: an estimator for each, in this order.

    >>> from sklearn.linear_model import Ridge
    >>> samples = Labels.range("system", 3)
    >>> features = TensorBlock(np.eye(3), samples, [], Labels.range("n", 3))
    >>> energies = TensorBlock(np.ones((3, 1)), samples, [], Labels.range("energy", 1))
    >>> keys = Labels("center_type", [[1]])
    >>> model = EstimatorMap(Ridge(alpha=0.1))
    >>> model = model.fit(TensorMap(keys, [features]), TensorMap(keys, [energies]))
    >>> model.predict(TensorMap(keys, [features]))
    TensorMap with 1 blocks
        keys: [center_type]
        blocks:
            1 => TensorBlock with shape (3, 1)
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, features: TensorMap, targets: TensorMap) -> EstimatorMap:
        """Fit a clone of the estimator to each block.

        :param features: blocks with the shape ``(samples, *components, properties)``,
            whose components and properties are columns
        :param targets: a map with the same keys, in any order, and the same samples
        :raises MetatensorError: other keys or samples; maps with gradients
        """
        check_type(features, "features", TensorMap)
        check_type(targets, "targets", TensorMap)
        check_same_keys(features, targets, "EstimatorMap.fit")
        estimators, inputs, outputs = [], [], []
        for i, (key, block) in enumerate(features.items()):
            with in_block(features.keys, i):
                target = targets.block(key)
                sets = to_sklearn(block, target)
                estimators.append(clone(self.estimator).fit(sets.data, sets.target))
                inputs.append(_empty(block))
                outputs.append(_empty(target))
        self.keys_, self.estimators_ = features.keys, estimators
        self._inputs, self._outputs = inputs, outputs
        return self

    def predict(self, features: TensorMap) -> TensorMap:
        """What the estimators predict, with the samples of the features.

        :param features: a map with some of the keys of :meth:`fit`, and the same
            components and properties. A block without samples has no predictions
        :returns: a map with these keys, and the components and properties of the
            targets. Its dtype is the one that the estimators give
        :raises MetatensorError: keys, components or properties that were not there in
            :meth:`fit`; maps with gradients
        :raises sklearn.exceptions.NotFittedError: before :meth:`fit`
        """
        check_is_fitted(self)
        check_type(features, "features", TensorMap)
        blocks = []
        for i, (key, block) in enumerate(features.items()):
            with in_block(features.keys, i):
                at = self.keys_.position(key)
                if at is None:
                    raise MetatensorError(
                        f"there is no estimator for {key.print()}, those that were "
                        f"fitted are for\n{self.keys_}"
                    )
                _check_same_columns(block, self._inputs[at])
                blocks.append(self._predicted(at, block))
        return TensorMap(features.keys, _of_one_dtype(blocks))

    def _predicted(self, at: int, block: TensorBlock) -> TensorBlock:
        data, like = to_sklearn(block).data, self._outputs[at]
        if len(data) == 0:  # scikit-learn refuses to predict nothing
            return TensorBlock(
                like.values, block.samples, like.components, like.properties
            )
        return from_sklearn(
            self.estimators_[at].predict(data), like, block.samples
        )


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


def _empty(block: TensorBlock) -> TensorBlock:
    """A block without samples: what is remembered of one."""
    values = np.zeros((0, *block.shape[1:]), block.dtype)
    samples = Labels.empty(block.samples.names)
    return TensorBlock(values, samples, block.components, block.properties)


def _check_same_columns(block: TensorBlock, fitted: TensorBlock) -> None:
    ours, theirs = (
        [*one.components, one.properties] for one in (block, fitted)
    )
    if len(ours) != len(theirs):
        raise MetatensorError(
            f"the features have the components {[c.names[0] for c in ours[:-1]]}, but "
            f"those of `fit` had {[c.names[0] for c in theirs[:-1]]}"
        )
    for mine, its in zip(ours, theirs, strict=True):
        if mine != its:
            raise MetatensorError(
                "the features should have the components and properties of those of "
                f"`fit`, but {first_difference(mine, its)}"
            )


def _of_one_dtype(blocks: Sequence[TensorBlock]) -> list[TensorBlock]:
    """Blocks of one map: with samples these have the dtype of an estimator."""
    dtypes = [block.dtype for block in blocks if len(block)]
    dtypes = dtypes or [block.dtype for block in blocks]
    return [block.to(dtype=np.result_type(*dtypes)) for block in blocks]
