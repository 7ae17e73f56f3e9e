"""Layer norms: of all blocks, or of those that are invariant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from ..._run.sums import wide_dtype
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ._calling import RowModule
from ._map_module import MapModule
from ._module_map import ModuleMap
from ._options import find_invariant, per_key


class LayerNorm(MapModule):
    r"""Normalises each sample over its components and properties.

    .. math:: y = \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}} w + b

    Mean and variance are those of all components and properties of one sample together,
    as in metatensor, with a weight and a bias for each property
    (`Ba, Kiros and Hinton 2016 <https://arxiv.org/abs/1607.06450>`_). This does not
    commute with rotations of blocks that are not invariant, see
    :class:`InvariantLayerNorm`.

    :param in_keys: keys of the blocks
    :param in_features: number of properties: one integer, or one for each key
    :param out_properties: properties of the result, as in :class:`ModuleMap`
    :param eps: :math:`\epsilon`: one number, or one for each key
    :param elementwise_affine: multiply with :math:`w`, and add :math:`b`: one boolean,
        or one for each key
    :param bias: add :math:`b`, if ``elementwise_affine``, in the same way
    :param mean: subtract the mean, in the same way; the variance is the same if not
    :param dtype: dtype of :math:`w` and :math:`b`, JAX's default if None
    :raises MetatensorError: options that are not as many as the keys

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(jnp.array([[1.0, 3.0]]))
    >>> tensor = mts.TensorMap(Labels.single(), [block])
    >>> LayerNorm(tensor.keys, 2, eps=0.0)(tensor).block().values.tolist()
    [[-1.0, 1.0]]
    """

    def __init__(
        self,
        in_keys: Labels,
        in_features: int | Sequence[int],
        out_properties: Sequence[Labels] | Labels | None = None,
        *,
        eps: float | Sequence[float] = 1e-5,
        elementwise_affine: bool | Sequence[bool] = True,
        bias: bool | Sequence[bool] = True,
        mean: bool | Sequence[bool] = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        norms = _norms(
            len(in_keys),
            "keys",
            dtype,
            in_features=in_features,
            eps=eps,
            elementwise_affine=elementwise_affine,
            bias=bias,
            mean=mean,
        )
        self.module_map = ModuleMap(in_keys, norms, out_properties)


class InvariantLayerNorm(MapModule):
    """Normalises each sample of invariant blocks, and leaves all others.

    :param in_keys: keys of the blocks
    :param in_features: number of properties: one integer, or one for each invariant
        key, as all options here
    :param out_properties: properties of the result, as in :class:`ModuleMap`
    :param invariant_keys: which keys are those of invariants, by any of their
        dimensions; if None, those with ``o3_lambda`` 0 and ``o3_sigma`` 1
    :param eps: as in :class:`LayerNorm`
    :param elementwise_affine: as in :class:`LayerNorm`
    :param bias: as in :class:`LayerNorm`
    :param mean: as in :class:`LayerNorm`
    :param dtype: as in :class:`LayerNorm`
    :raises MetatensorError: keys without these dimensions, or options that are not as
        many as the invariant keys

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(jnp.array([[1.0, 3.0]]))
    >>> keys = Labels(["o3_lambda", "o3_sigma"], [[0, 1], [0, -1]])
    >>> tensor = mts.TensorMap(keys, [block, block])
    >>> norm = InvariantLayerNorm(keys, 2, eps=0.0)
    >>> [block.values.tolist() for block in norm(tensor)]
    [[[-1.0, 1.0]], [[1.0, 3.0]]]
    """

    def __init__(
        self,
        in_keys: Labels,
        in_features: int | Sequence[int],
        out_properties: Sequence[Labels] | Labels | None = None,
        invariant_keys: Labels | None = None,
        *,
        eps: float | Sequence[float] = 1e-5,
        elementwise_affine: bool | Sequence[bool] = True,
        bias: bool | Sequence[bool] = True,
        mean: bool | Sequence[bool] = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        invariant = find_invariant(in_keys, invariant_keys)
        norms = _norms(
            len(invariant),
            "invariant keys",
            dtype,
            in_features=in_features,
            eps=eps,
            elementwise_affine=elementwise_affine,
            bias=bias,
            mean=mean,
        )
        modules: list[Any] = [eqx.nn.Identity()] * len(in_keys)
        for i, norm in zip(invariant, norms, strict=True):
            modules[i] = norm
        self.module_map = ModuleMap(in_keys, modules, out_properties)


def _norms(n: int, keys: str, dtype: DTypeLike | None, **options: Any) -> list[_Norm]:
    """As many norms, with the options of each of them."""
    columns = [per_key(name, values, n, keys) for name, values in options.items()]
    return [
        _Norm(**dict(zip(options, row, strict=True)), dtype=dtype)
        for row in zip(*columns, strict=True)
    ]


class _Norm(RowModule):
    """The norm of one block."""

    weight: jax.Array | None
    bias: jax.Array | None
    in_features: int = eqx.field(static=True)
    eps: float = eqx.field(static=True)
    mean: bool = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        eps: float,
        elementwise_affine: bool,
        bias: bool,
        mean: bool,
        dtype: DTypeLike | None,
    ) -> None:
        self.in_features, self.eps, self.mean = in_features, eps, mean
        kind = jnp.result_type(float) if dtype is None else np.dtype(dtype)
        has_bias = elementwise_affine and bias
        self.weight = jnp.ones(in_features, kind) if elementwise_affine else None
        self.bias = jnp.zeros(in_features, kind) if has_bias else None

    def __call__(self, row: jax.Array) -> jax.Array:
        if row.shape[-1] != self.in_features:
            raise MetatensorError(
                f"this norm is for {self.in_features} properties, its `in_features`, "
                f"but the block has {row.shape[-1]}"
            )
        result = self._normalised(row)
        if self.weight is not None:
            result = result * jnp.broadcast_to(self.weight, row.shape)
        if self.bias is not None:
            result = result + jnp.broadcast_to(self.bias, row.shape)
        return result

    def _normalised(self, row: jax.Array) -> jax.Array:
        # squares of narrow floats overflow, and sums of them are rounded too early
        wide = row.astype(wide_dtype(row.dtype))
        centred = wide - jnp.mean(wide)
        result = centred if self.mean else wide
        return (result / jnp.sqrt(jnp.mean(centred**2) + self.eps)).astype(row.dtype)
