"""ModuleMap over stacked blocks: one batched product for many small ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ...layout import StackedMap, stack_blocks
from ._module_map import (
    ModuleMap,
    apply_to_row,
    is_array,
    kind_of,
    module_of,
    result_properties,
    result_size,
)
from ._options import check_is_map


class StackedModuleMap(eqx.Module):
    """The modules of a :class:`ModuleMap`, those that are alike held as one.

    The parameters of modules with the same structure are one array each, and so are
    their derivatives: an optimizer sees a few arrays, rather than some for each block.
    It is trained like any Equinox module.

    :param module_map: the modules

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> from metatensor_jax.learn import Linear
    >>> block = mts.block_from_array(np.ones((4, 3), "f4"))
    >>> tensor = TensorMap(Labels.range("key", 2), [block, block])
    >>> linear = Linear(tensor.keys, 3, 2, key=jax.random.key(0)).module_map
    >>> stacked = StackedModuleMap(linear)
    >>> mts.allclose(stacked(tensor), linear(tensor))
    True
    >>> stacked(mts.stack_blocks(tensor))
    StackedMap with 2 blocks in arrays of shape [(2, 4, 2)]
    """

    in_keys: Labels
    groups: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    modules: list[Any]
    out_properties: list[Labels] | None

    def __init__(self, module_map: ModuleMap) -> None:
        self.in_keys = module_map.in_keys
        self.out_properties = module_map.out_properties
        alike: defaultdict[Any, list[int]] = defaultdict(list)
        for i, module in enumerate(module_map.modules):
            alike[kind_of(module)].append(i)
        self.groups = tuple(tuple(members) for members in alike.values())
        self.modules = [
            _stack_modules([module_map.modules[i] for i in members])
            for members in self.groups
        ]

    @overload
    def __call__(self, tensor: StackedMap) -> StackedMap: ...

    @overload
    def __call__(self, tensor: TensorMap) -> TensorMap: ...

    def __call__(self, tensor: StackedMap | TensorMap) -> StackedMap | TensorMap:
        """Apply to each block the module of its key: the same kind of map comes out."""
        if not isinstance(tensor, StackedMap):
            check_is_map(tensor)
            return self(stack_blocks(tensor)).unstack()
        groups, args, properties = [], [], [Labels.single()] * len(tensor)
        at = [module_of(self.in_keys, key) for key in tensor.keys]
        for members in tensor.groups:
            for g, blocks in self._by_module(members, at).items():
                wanted = [at[i] for i in blocks]
                modules = _take(self.modules[g], self.groups[g], wanted)
                shape, dtype = tensor.row_of(blocks[0])
                key = tensor.keys.entry(blocks[0])
                size = result_size(_pick(modules, 0), shape[-1], dtype, key)
                for i in blocks:
                    labels = self.out_properties
                    own = None if labels is None else labels[at[i]]
                    properties[i] = result_properties(size, own)
                groups.append(tuple(blocks))
                args.append((modules,))
        return tensor.map_rows(apply_to_row, args, properties, tuple(groups))

    def unstack(self) -> ModuleMap:
        """The modules one by one, with the parameters that they have now."""
        modules: list[Any] = [None] * len(self.in_keys)
        for members, stacked in zip(self.groups, self.modules, strict=True):
            for row, i in enumerate(members):
                modules[i] = _pick(stacked, row)
        return ModuleMap(self.in_keys, modules, self.out_properties)

    def _by_module(
        self, members: Sequence[int], at: Sequence[int]
    ) -> dict[int, list[int]]:
        """Blocks by the group of their module."""
        group_of = {i: g for g, group in enumerate(self.groups) for i in group}
        rows: defaultdict[int, list[int]] = defaultdict(list)
        for i in members:
            rows[group_of[at[i]]].append(i)
        return rows


def _stack_modules(modules: Sequence[Any]) -> Any:
    arrays = [eqx.filter(module, is_array) for module in modules]
    rest = eqx.filter(modules[0], is_array, inverse=True)
    return eqx.combine(jax.tree.map(lambda *x: jnp.stack(x), *arrays), rest)


def _take(stacked: Any, members: Sequence[int], wanted: Sequence[int]) -> Any:
    """The modules of some keys; all of them in order cost nothing."""
    if list(members) == list(wanted):
        return stacked
    rows = jnp.array([members.index(i) for i in wanted])
    return _pick(stacked, rows)


def _pick(stacked: Any, rows: Any) -> Any:
    arrays, rest = eqx.partition(stacked, is_array)
    with jax.transfer_guard_host_to_device("allow"):  # of row numbers
        return eqx.combine(jax.tree.map(lambda x: x[rows], arrays), rest)
