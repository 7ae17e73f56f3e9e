"""Linear and EquivariantLinear: ModuleMaps of linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from numpy.typing import DTypeLike

from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ._map_module import MapModule
from ._module_map import ModuleMap
from ._options import find_invariant, listed, per_invariant_key, per_key


class Linear(MapModule):
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
    >>> tensor = mts.TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> linear = Linear(tensor.keys, 3, 2, key=jax.random.key(0))
    >>> linear(tensor).block(center_type=8).shape
    (4, 2)
    """

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
        biases = per_key("bias", bias, len(in_keys))
        sizes = in_features, out_features
        self.module_map = _layers(in_keys, sizes, out_properties, biases, dtype, key)


class EquivariantLinear(MapModule):
    r"""Applies a linear layer to each block, :math:`y = W x`, and to invariants a bias.

    Properties are mixed, components are not: the result turns with the system. A bias
    would not, and so only invariant blocks have one.

    :param in_keys: keys of the blocks
    :param in_features: number of properties of the input: one integer, or one for each
        key
    :param out_features: number of properties of the result, in the same way
    :param out_properties: properties of the result for each key, in place of
        ``out_features``
    :param invariant_keys: which keys are those of invariants, by any of their
        dimensions; if None, those with ``o3_lambda`` 0 and ``o3_sigma`` 1
    :param bias: add a bias to invariants: one boolean, or one for each invariant key
    :param dtype: dtype of the parameters, JAX's default if None
    :param key: random key for the parameters, see ``equinox.nn.Linear``
    :raises MetatensorError: keys without these dimensions, or sizes that do not fit

    >>> keys = Labels(["o3_lambda", "o3_sigma"], [[0, 1], [1, 1]])
    >>> linear = EquivariantLinear(keys, [3, 5], 2, key=jax.random.key(0))
    >>> [layer.use_bias for layer in linear.module_map.modules]
    [True, False]
    """

    def __init__(
        self,
        in_keys: Labels,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int] | None = None,
        out_properties: Sequence[Labels] | Labels | None = None,
        invariant_keys: Labels | None = None,
        *,
        bias: bool | Sequence[bool] = True,
        dtype: DTypeLike | None = None,
        key: jax.Array,
    ) -> None:
        invariant = find_invariant(in_keys, invariant_keys)
        biases = per_invariant_key("bias", bias, invariant, len(in_keys), False)
        sizes = in_features, out_features
        self.module_map = _layers(in_keys, sizes, out_properties, biases, dtype, key)


def _layers(
    in_keys: Labels,
    sizes: tuple[Any, Any],
    out_properties: Sequence[Labels] | Labels | None,
    biases: Sequence[bool],
    dtype: DTypeLike | None,
    key: jax.Array,
) -> ModuleMap:
    """A linear layer for each key, from as many input and output features."""
    in_features, out_features = sizes
    if (out_features is None) == (out_properties is None):
        raise MetatensorError(
            "give either `out_features` or `out_properties`, got "
            f"{out_features} and {out_properties}"
        )
    n = len(in_keys)
    out_properties = listed(out_properties, n)
    if out_properties is not None:
        out_features = [len(labels) for labels in out_properties]
    options = zip(
        per_key("in_features", in_features, n),
        per_key("out_features", out_features, n),
        biases,
        jax.random.split(key, max(n, 1))[:n],
        strict=True,
    )
    modules = [
        eqx.nn.Linear(n_in, n_out, use_bias, dtype, key=layer_key)
        for n_in, n_out, use_bias, layer_key in options
    ]
    return ModuleMap(in_keys, modules, out_properties)
