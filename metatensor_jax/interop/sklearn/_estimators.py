"""An estimator for each block of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from ..._types.block import TensorBlock
from ..._types.context import in_block
from ..._types.errors import MetatensorError
from ..._types.labels import Labels, first_difference
from ..._types.tensor import TensorMap
from ...operations.checks import check_same_keys, check_type
from ._blocks import from_sklearn, to_sklearn


class EstimatorMap(BaseEstimator):
    """An estimator of scikit-learn for each block of a map.

    It is an estimator itself: ``clone``, ``get_params`` and ``set_params`` work, with
    names like ``estimator__alpha``. What it takes and what it predicts are maps.

    :param estimator: what is cloned and fitted for each block: a regressor, a
        classifier, or a pipeline that ends with one

    After :meth:`fit` there are

    - ``keys_``: the keys of the blocks;
    - ``estimators_``: an estimator for each, in this order.

    >>> from metatensor_jax import Labels, TensorBlock, TensorMap
    >>> from sklearn.linear_model import Ridge
    >>> samples = Labels.range("system", 3)
    >>> features = TensorBlock(np.eye(3), samples, [], Labels.range("n", 3))
    >>> energies = TensorBlock(np.ones((3, 1)), samples, [], Labels.range("energy", 1))
    >>> keys = Labels("center_type", [[1]])
    >>> model = EstimatorMap(Ridge(alpha=0.1))
    >>> model = model.fit(TensorMap(keys, [features]), TensorMap(keys, [energies]))
    >>> model.predict(TensorMap(keys, [features]))
    TensorMap with 1 block
        keys: [center_type]
        values: float64, NumPy
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
                estimator: Any = clone(self.estimator)
                estimators.append(estimator.fit(sets.data, sets.target))
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
        return from_sklearn(self.estimators_[at].predict(data), like, block.samples)


def _empty(block: TensorBlock) -> TensorBlock:
    """A block without samples: what is remembered of one."""
    values = np.zeros((0, *block.shape[1:]), block.dtype)
    samples = Labels.empty(block.samples.names)
    return TensorBlock(values, samples, block.components, block.properties)


def _check_same_columns(block: TensorBlock, fitted: TensorBlock) -> None:
    ours, theirs = ([*one.components, one.properties] for one in (block, fitted))
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
    some = [block for block in blocks if len(block)] or blocks
    dtype = np.result_type(*[block.dtype for block in some]) if some else None
    return [block.to(dtype=dtype) for block in blocks]
