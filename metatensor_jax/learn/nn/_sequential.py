"""Sequential: several modules for each block, one after the other."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax

from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ...operations.checks import check_type
from ._calling import RowModule, on_row
from ._map_module import MapModule
from ._module_map import ModuleMap
from ._options import module_of


class Sequential(MapModule):
    """Applies several modules to each block, one after the other.

    For each key, the modules of all arguments become one function of a row: stored
    gradients are pushed through it once.

    :param in_keys: keys of the blocks
    :param args: the modules: :class:`ModuleMap`, or those that have one
        (:class:`Linear`, :class:`Tanh`, ...). Each finds its modules by key. The
        properties of the result are those of the last.
    :raises TypeError: something else
    :raises MetatensorError: a key that one of them has no module for

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> from metatensor_jax.learn.nn import Linear, Tanh
    >>> block = mts.block_from_array(np.ones((4, 3), "f4"))
    >>> tensor = mts.TensorMap(Labels.single(), [block])
    >>> key, other = jax.random.split(jax.random.key(0))
    >>> model = Sequential(
    ...     tensor.keys,
    ...     Linear(tensor.keys, 3, 8, key=key),
    ...     Tanh(tensor.keys),
    ...     Linear(tensor.keys, 8, out_properties=Labels.range("energy", 1), key=other),
    ... )
    >>> model(tensor).block()
    TensorBlock with shape (4, 1)
        values: float32, JAX
        samples: [sample]
        properties: [energy]
    """

    def __init__(self, in_keys: Labels, *args: MapModule | ModuleMap) -> None:
        check_type(in_keys, "in_keys", Labels)
        if not args:
            raise MetatensorError(f"give at least one module, got none for\n{in_keys}")
        maps = [_as_module_map(x) for x in args]
        chains: list[Chain] = []
        for entry in in_keys:
            own = [x.modules[module_of(x.in_keys, entry)] for x in maps]
            chains.append(Chain(tuple(own)))
        last = maps[-1]
        properties = last.out_properties
        if properties is not None:
            properties = [properties[module_of(last.in_keys, x)] for x in in_keys]
        self.module_map = ModuleMap(in_keys, chains, properties)


class Chain(RowModule):
    """Modules one after the other: as ``equinox.nn.Sequential``, but of rows."""

    modules: tuple[Any, ...]

    def __call__(
        self,
        row: jax.Array,
        state: eqx.nn.State | None = None,
        *,
        key: jax.Array | None = None,
    ) -> Any:
        """The row that becomes of this one; and the state, if there is one."""
        n = len(self.modules)
        keys = [None] * n if key is None else jax.random.split(key, n)
        for module, own in zip(self.modules, keys, strict=True):
            row, state = on_row(module, row, state, own)
        return row if state is None else (row, state)


def _as_module_map(module: Any) -> ModuleMap:
    if isinstance(module, ModuleMap):
        return module
    if isinstance(module, MapModule):
        return module.module_map
    raise TypeError(
        "the arguments of `Sequential` must be a ModuleMap, or a module that has one, "
        f"not {type(module).__name__}: give `ModuleMap.from_module(in_keys, module)` "
        "for a module of one row, and call functions of maps one after the other"
    )
