r"""Losses and metrics: how far a map is from another one.

All of them are means over elements,

.. math:: L = \frac{\sum_b w_b \sum_{i \in b} f(y_i - t_i)}{\sum_b n_b} +
    \sum_r w_r L_r

over the elements :math:`i` of the blocks :math:`b`, with the same for the gradients
by each parameter :math:`r` that has a weight. Rows of padding do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._plan.map import match_blocks
from .._run.sums import wide_dtype
from .._types.arrays import Array, is_tracer
from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.conversion import check_not_narrowed, is_inexact
from .._types.errors import MetatensorError, NotEqualError
from .._types.structure import in_words
from .._types.tensor import TensorMap
from ..operations.checks import check_same_axes, check_same_keys, check_type

Weights = Sequence[float] | None
Function = Callable[[jax.Array], jax.Array]


def mean_squared(
    predicted: TensorMap,
    target: TensorMap,
    *,
    gradients: Mapping[str, float] | None = None,
    key_weights: Weights = None,
    per: Sequence[Array] | Array | None = None,
) -> jax.Array:
    r"""The mean of squared differences, :math:`f(d) = |d|^2`.

    :param predicted: a map
    :param target: a map with the same keys, in any order, and the same samples,
        components and properties
    :param gradients: the weight of each parameter whose gradients count as well, such
        as ``{"positions": 0.1}``: both maps have these stored
    :param key_weights: a weight for each key, in the order of ``target``; 1 if None
    :param per: what differences of the values are divided by, one number per sample:
        the numbers of atoms for energies per atom, none of them zero. An array for all
        blocks, or one for each.
    :raises MetatensorError: maps that do not fit together, or weights that are not one
        for each key. In a program, rows of padded maps with other labels make it NaN.
    :raises TypeError: integers, and 64-bit numbers that JAX would narrow

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> one = mts.Labels.single()
    >>> a = TensorMap(one, [mts.block_from_array(np.float32([[1], [2]]))])
    >>> b = TensorMap(one, [mts.block_from_array(np.float32([[1], [4]]))])
    >>> float(mean_squared(a, b))
    2.0
    """
    return _loss(_square, predicted, target, gradients, key_weights, per)


def mean_absolute(
    predicted: TensorMap,
    target: TensorMap,
    *,
    gradients: Mapping[str, float] | None = None,
    key_weights: Weights = None,
    per: Sequence[Array] | Array | None = None,
) -> jax.Array:
    r"""The mean of absolute differences, :math:`f(d) = |d|`; see :func:`mean_squared`.

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> one = mts.Labels.single()
    >>> a = TensorMap(one, [mts.block_from_array(np.float32([[1], [2]]))])
    >>> b = TensorMap(one, [mts.block_from_array(np.float32([[1], [4]]))])
    >>> float(mean_absolute(a, b))
    1.0
    """
    return _loss(jnp.abs, predicted, target, gradients, key_weights, per)


def huber(
    predicted: TensorMap,
    target: TensorMap,
    delta: float = 1.0,
    *,
    gradients: Mapping[str, float] | None = None,
    key_weights: Weights = None,
    per: Sequence[Array] | Array | None = None,
) -> jax.Array:
    r"""Huber's loss: quadratic for small differences, linear for large ones.

    .. math:: f(d) = d^2 / 2 \;\text{if}\; |d| \le \delta, \;\text{else}\;
        \delta \, (|d| - \delta / 2)

    P. J. Huber, Ann. Math. Statist. 35, 73 (1964). The other arguments are those of
    :func:`mean_squared`.

    :param delta: where it becomes linear, in the units of the values

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> one = mts.Labels.single()
    >>> a = TensorMap(one, [mts.block_from_array(np.float32([[1], [2]]))])
    >>> b = TensorMap(one, [mts.block_from_array(np.float32([[1], [4]]))])
    >>> float(huber(a, b))
    0.75
    """

    def function(difference: jax.Array) -> jax.Array:
        size = jnp.abs(difference)
        small = jnp.minimum(size, delta)
        return small * (size - small / 2)

    return _loss(function, predicted, target, gradients, key_weights, per)


def errors(
    predicted: TensorMap,
    target: TensorMap,
    *,
    gradients: Sequence[str] = (),
    per: Sequence[Array] | Array | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics: root mean squared, mean absolute and largest errors, by parameter.

    :param predicted: a map
    :param target: a map that fits to it, see :func:`mean_squared`
    :param gradients: parameters whose gradients are compared as well
    :param per: what differences of the values are divided by, see
        :func:`mean_squared`
    :returns: ``"rmse"``, ``"mae"`` and ``"max"`` of ``"values"``, and of each parameter

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> one = mts.Labels.single()
    >>> a = TensorMap(one, [mts.block_from_array(np.float32([[1], [2]]))])
    >>> b = TensorMap(one, [mts.block_from_array(np.float32([[1], [5]]))])
    >>> errors(a, b)["values"]["max"]
    3.0
    """
    pairs = _pairs(predicted, target, tuple(gradients))
    found = {}
    for name, blocks in pairs.items():
        sizes = [jnp.abs(x) for x, _ in _differences(blocks, per, name)]
        size = (
            jnp.concatenate([x.reshape(-1) for x in sizes]) if sizes else jnp.zeros(0)
        )
        n = max(sum(_count(b) for _, b in blocks), 1)
        found[name] = {
            "rmse": float(jnp.sqrt((size**2).sum() / n)),
            "mae": float(size.sum() / n),
            "max": float(size.max(initial=0.0)),
        }
    return found


# --- how ------------------------------------------------------------------------------

_VALUES = "values"


def _square(difference: jax.Array) -> jax.Array:
    return jnp.real(difference * jnp.conj(difference))


def _loss(
    function: Function,
    predicted: TensorMap,
    target: TensorMap,
    gradients: Mapping[str, float] | None,
    key_weights: Weights,
    per: Any,
) -> jax.Array:
    check_type(target, "target", TensorMap)
    gradients = dict(gradients or {})
    weights = [1.0] * len(target) if key_weights is None else list(key_weights)
    if len(weights) != len(target):
        raise MetatensorError(
            f"`key_weights` must be one for each of the {len(target)} keys, got "
            f"{len(weights)}"
        )
    total = jnp.zeros(())
    for name, blocks in _pairs(predicted, target, tuple(gradients)).items():
        parts = [
            weight * function(difference).sum()
            for weight, (difference, _) in zip(
                weights, _differences(blocks, per, name), strict=True
            )
        ]
        added = sum(parts, jnp.zeros(()))
        n = jnp.asarray(sum(_count(b) for _, b in blocks)).astype(added.dtype)
        mean = added / jnp.maximum(n, 1)
        total = total + (mean if name == _VALUES else gradients[name] * mean)
    return total


def _pairs(
    predicted: TensorMap, target: TensorMap, gradients: Sequence[str]
) -> dict[str, list[tuple[TensorBlock, TensorBlock]]]:
    """Blocks that are compared: values, and gradients by parameter."""
    check_type(predicted, "predicted", TensorMap)
    check_type(target, "target", TensorMap)
    check_same_keys(target, predicted, "a loss")
    pairs: dict[str, list[Any]] = {name: [] for name in (_VALUES, *gradients)}
    for i, (b, a) in enumerate(match_blocks(target, predicted)):
        for name in pairs:
            of_gradient = name != _VALUES
            with in_block(target.keys, i, in_words((name,)) if of_gradient else ""):
                parts = (a.gradient(name), b.gradient(name)) if of_gradient else (a, b)
                check_same_axes(
                    *parts, "a loss", ["samples", "components", "properties"]
                )
            pairs[name].append(parts)
    return pairs


def _differences(
    blocks: Sequence[tuple[TensorBlock, TensorBlock]], per: Any, name: str
) -> list[tuple[jax.Array, TensorBlock]]:
    """What each block is off by; zero in the rows of padding."""
    found = []
    for i, (a, b) in enumerate(blocks):
        difference = _numbers(a) - _numbers(b)
        mask = True if b.samples.is_static else _rows(b.mask, difference)
        difference = jnp.where(mask, difference, 0)
        if not (a.samples.is_static and b.samples.is_static):
            difference = _where_labels_agree(a, b, difference)
        if per is not None and name == _VALUES:
            each = per[i] if isinstance(per, (list, tuple)) else per
            # padding has no atoms, and nothing by zero has no derivative
            difference = difference / jnp.where(mask, _rows(each, difference), 1)
        found.append((difference, b))
    return found


def _numbers(block: TensorBlock) -> jax.Array:
    """The values, as wide as sums of them."""
    if not is_inexact(block.dtype):
        raise TypeError(
            f"losses are of real or complex numbers, not of {block.dtype}: convert the "
            "map with `.to(dtype=float)`"
        )
    check_not_narrowed(block.dtype)
    return jnp.asarray(block.values).astype(wide_dtype(block.dtype))


def _where_labels_agree(
    a: TensorBlock, b: TensorBlock, difference: jax.Array
) -> jax.Array:
    """NaN for rows of samples that are data, and are not the same in both maps.

    Rows of padding do not count, whatever they are called: what is predicted has a row
    for each system that there is room for.
    """
    same = (jnp.asarray(a.samples.values) == jnp.asarray(b.samples.values)).all(axis=1)
    same |= ~jnp.asarray(b.mask)
    if not is_tracer(same) and not bool(same.all()):
        i = int(same.argmin())
        raise NotEqualError(
            "the samples of padded maps differ: row "
            f"{i} is {a.samples.entry(i).print()} and {b.samples.entry(i).print()}"
        )
    return jnp.where(_rows(same, difference), difference, jnp.nan)


def _rows(numbers: Any, like: jax.Array) -> jax.Array:
    """One number for each row, with the axes of the values."""
    numbers = jnp.asarray(numbers)
    if numbers.shape != like.shape[:1]:
        raise MetatensorError(
            f"`per` must have one number for each of the {like.shape[0]} samples, got "
            f"shape {numbers.shape}"
        )
    numbers = numbers.reshape((-1,) + (1,) * (like.ndim - 1))
    return numbers if numbers.dtype == bool else numbers.astype(like.dtype)


def _count(block: TensorBlock) -> Any:
    """How many elements count."""
    in_row = int(np.prod(block.shape[1:]))
    rows = len(block) if block.samples.is_static else jnp.sum(block.mask)
    return rows * in_row
