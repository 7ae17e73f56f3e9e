"""Linear: a ModuleMap of linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from numpy.typing import DTypeLike

from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ...operations.checks import check_ours
from ._module_map import ModuleMap


class Linear(eqx.Module):
    r"""Applies a linear layer to each block of a map, :math:`y = W x + b`.

    :param in_keys: keys of the blocks
    :param in_features: number of properties of the input: one integer, or one for each
        key
    :param out_features: number of properties of the result, in the same way
    :param out_properties: properties of the result for each key, in place of
        ``out_features``
    :param bias: add :math:`b`: one boolean, or one for each key
    :param dtype: dtype of the parameters, JAX's default if None
    :param key: random key for the parameters, see ``equinox.nn.Linear``

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((4, 3), "f4"))
    >>> tensor = TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> linear = Linear(tensor.keys, 3, 2, key=jax.random.key(0))
    >>> linear(tensor).block(center_type=8).shape
    (4, 2)
    """

    module_map: ModuleMap

    def __init__(
        self,
        in_keys: Labels,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int] | None = None,
        out_properties: Sequence[Labels] | Labels | None = None,
        *,
        bias: bool | Sequence[bool] = True,
        dtype: DTypeLike | None = None,
        key: jax.Array,
    ) -> None:
        if (out_features is None) == (out_properties is None):
            raise MetatensorError(
                "give either `out_features` or `out_properties`, got "
                f"{out_features} and {out_properties}"
            )
        check_ours(out_properties, "out_properties")
        if isinstance(out_properties, Labels):
            out_properties = [out_properties] * len(in_keys)
        if out_properties is not None:
            out_features = [len(labels) for labels in out_properties]
        n = len(in_keys)
        options = zip(
            _per_key("in_features", in_features, n),
            _per_key("out_features", out_features, n),
            _per_key("bias", bias, n),
            jax.random.split(key, max(n, 1))[:n],
            strict=True,
        )
        modules = [
            eqx.nn.Linear(n_in, n_out, use_bias, dtype, key=layer_key)
            for n_in, n_out, use_bias, layer_key in options
        ]
        self.module_map = ModuleMap(in_keys, modules, out_properties)

    def __call__(self, tensor: TensorMap) -> TensorMap:
        """Apply to each block of ``tensor`` the layer of its key."""
        return self.module_map(tensor)


def _per_key(name: str, values: Any, n: int) -> list[Any]:
    """One value for each key, from one for all of them or a list."""
    if not isinstance(values, Sequence):
        return [values] * n
    if len(values) != n:
        raise MetatensorError(
            f"`{name}` must be one value, or one for each of the {n} keys, got "
            f"{len(values)}"
        )
    return list(values)
