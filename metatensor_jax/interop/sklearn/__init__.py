"""Blocks as the arrays of scikit-learn, and its estimators on maps.

Needs the extra ``interop``.

- :func:`to_sklearn`: a block as ``X``, another one as ``y``, with names of features;
  :func:`from_sklearn`: a prediction as a block.
- :class:`EstimatorMap`: an estimator for each block of a map.

scikit-learn does not know of stored gradients. Maps that have some are refused rather
than that predictions lack them without a word: remove them (``mts.remove_gradients``),
or use ``metatensor_jax.learn``, through which they go.
"""

from ._blocks import from_sklearn as from_sklearn, to_sklearn as to_sklearn
from ._estimators import EstimatorMap as EstimatorMap

__all__ = ["EstimatorMap", "from_sklearn", "to_sklearn"]

# reprs and tracebacks name the place where users find the class
EstimatorMap.__module__ = __name__
