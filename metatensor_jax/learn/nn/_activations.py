"""Activations: of all blocks, or of those that are invariant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._types.labels import Labels
from ._map_module import MapModule
from ._module_map import ModuleMap
from ._options import find_invariant

Function = Callable[[Any], jax.Array]


class _Activation(MapModule):
    _function: ClassVar[Function]

    def __init__(
        self,
        in_keys: Labels,
        out_properties: Sequence[Labels] | Labels | None = None,
    ) -> None:
        functions = [self._function] * len(in_keys)
        self.module_map = ModuleMap(in_keys, functions, out_properties)


class _InvariantActivation(MapModule):
    _function: ClassVar[Function]

    def __init__(
        self,
        in_keys: Labels,
        out_properties: Sequence[Labels] | Labels | None = None,
        invariant_keys: Labels | None = None,
    ) -> None:
        functions: list[Any] = [eqx.nn.Identity()] * len(in_keys)
        for i in find_invariant(in_keys, invariant_keys):
            functions[i] = self._function
        self.module_map = ModuleMap(in_keys, functions, out_properties)


class ReLU(_Activation):
    r"""Applies :math:`\max(x, 0)` to each value; its derivative at 0 is 0.

    :param in_keys: keys of the blocks
    :param out_properties: properties of the result, as in :class:`ModuleMap`

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(jnp.array([[-1.0, 2.0]]))
    >>> tensor = mts.TensorMap(Labels.single(), [block])
    >>> ReLU(tensor.keys)(tensor).block().values.tolist()
    [[0.0, 2.0]]
    """

    _function = staticmethod(jax.nn.relu)


class SiLU(_Activation):
    r"""Applies :math:`x / (1 + e^{-x})` to each value.

    :param in_keys: keys of the blocks
    :param out_properties: properties of the result, as in :class:`ModuleMap`

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(jnp.array([[0.0, 100.0]]))
    >>> tensor = mts.TensorMap(Labels.single(), [block])
    >>> SiLU(tensor.keys)(tensor).block().values.tolist()
    [[0.0, 100.0]]
    """

    _function = staticmethod(jax.nn.silu)


class Tanh(_Activation):
    r"""Applies :math:`\tanh x` to each value.

    :param in_keys: keys of the blocks
    :param out_properties: properties of the result, as in :class:`ModuleMap`

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(jnp.array([[0.0, 100.0]]))
    >>> tensor = mts.TensorMap(Labels.single(), [block])
    >>> Tanh(tensor.keys)(tensor).block().values.tolist()
    [[0.0, 1.0]]
    """

    _function = staticmethod(jnp.tanh)


class InvariantReLU(_InvariantActivation):
    r"""Applies :math:`\max(x, 0)` to invariant blocks, and leaves all others.

    :param in_keys: keys of the blocks
    :param out_properties: properties of the result, as in :class:`ModuleMap`
    :param invariant_keys: which keys are those of invariants, by any of their
        dimensions; if None, those with ``o3_lambda`` 0 and ``o3_sigma`` 1
    :raises MetatensorError: keys that do not have these dimensions

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(jnp.array([[-1.0, 2.0]]))
    >>> keys = Labels("o3_lambda", [[0], [1]])
    >>> tensor = mts.TensorMap(keys, [block, block])
    >>> relu = InvariantReLU(keys, invariant_keys=Labels("o3_lambda", [[0]]))
    >>> [block.values.tolist() for block in relu(tensor)]
    [[[0.0, 2.0]], [[-1.0, 2.0]]]
    """

    _function = staticmethod(jax.nn.relu)


class InvariantSiLU(_InvariantActivation):
    r"""Applies :math:`x / (1 + e^{-x})` to invariant blocks, and leaves all others.

    The parameters are those of :class:`InvariantReLU`.

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(jnp.array([[-100.0]]))
    >>> keys = Labels(["o3_lambda", "o3_sigma"], [[0, 1], [0, -1]])
    >>> tensor = mts.TensorMap(keys, [block, block])
    >>> [abs(block.values).tolist() for block in InvariantSiLU(keys)(tensor)]
    [[[0.0]], [[100.0]]]
    """

    _function = staticmethod(jax.nn.silu)


class InvariantTanh(_InvariantActivation):
    r"""Applies :math:`\tanh x` to invariant blocks, and leaves all others.

    The parameters are those of :class:`InvariantReLU`.

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(jnp.array([[100.0]]))
    >>> keys = Labels(["o3_lambda", "o3_sigma"], [[0, 1], [0, -1]])
    >>> tensor = mts.TensorMap(keys, [block, block])
    >>> [block.values.tolist() for block in InvariantTanh(keys)(tensor)]
    [[[1.0]], [[100.0]]]
    """

    _function = staticmethod(jnp.tanh)
