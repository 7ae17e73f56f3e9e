"""ModuleMap: one module per block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._types.conversion import check_not_narrowed
from ..._types.entry import LabelsEntry
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ...layout import StackedMap, stack_blocks
from ...operations.checks import check_type
from ...operations.rows import map_rows
from ._absent import absent_member
from ._calling import Keyed, on_row, row_keys, typed_key
from ._options import check_alone, check_is_map, listed, module_of, result_properties
from ._stacked import MANY, StackedModules, alike, kind_of, pick
from ._state import apply_with_state

#: up to how many numbers in a block, on average, many blocks run as one product:
#: larger ones gain less from it than it takes to lay them together
_SMALL = 1 << 14


class ModuleMap(eqx.Module):
    r"""Applies one module to each block of a map.

    A module sees one row: the properties of one sample and one component, a vector, as
    the modules of Equinox do. Stored gradients follow from the chain rule, also for
    nonlinear modules:

    .. math:: \nabla m(x) = \frac{\partial m}{\partial x} \nabla x

    It is trained like any Equinox module, with ``equinox.filter_jit`` and
    ``equinox.filter_value_and_grad``.

    Many modules that are alike, 32 or more, are held as :class:`StackedModules`: one
    array for all of them, and one product for all of their blocks if these are small.
    ``modules[i]`` is a module in either case. A :class:`~metatensor_jax.StackedMap`
    gives one.

    :param in_keys: keys of the blocks
    :param modules: a module (or any function of one vector) for each of these keys. One
        that gives a scalar gives one property. ``StackedModules(modules)`` also holds
        few modules as one, and a list of these is what it holds otherwise.
    :param out_properties: properties of the result for each of these keys, or the same
        for all of them. If None, they are ``Labels.range("_", n)`` with the size of
        what the module gives.

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((4, 3), "f4"))
    >>> tensor = TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> keys = jax.random.split(jax.random.key(0))
    >>> modules = [eqx.nn.MLP(3, 2, 16, 1, key=key) for key in keys]
    >>> ModuleMap(tensor.keys, modules)(tensor)
    TensorMap with 2 blocks
        keys: [center_type]
        values: float32, JAX
        blocks:
            1 => TensorBlock with shape (4, 2)
            8 => TensorBlock with shape (4, 2)
    """

    in_keys: Labels
    modules: list[Callable[[jax.Array], jax.Array]] | StackedModules
    out_properties: list[Labels] | None

    def __init__(
        self,
        in_keys: Labels,
        modules: Sequence[Callable[[jax.Array], jax.Array]],
        out_properties: Sequence[Labels] | Labels | None = None,
    ) -> None:
        check_type(in_keys, "in_keys", Labels)
        self.in_keys = in_keys
        self.modules = _held(modules)
        self.out_properties = listed(out_properties, len(in_keys))
        for name, values in (
            ("modules", self.modules),
            ("out_properties", self.out_properties),
        ):
            if values is not None and len(values) != len(in_keys):
                raise MetatensorError(
                    f"`{name}` must have one item for each of the {len(in_keys)} keys, "
                    f"got {len(values)}"
                )

    @classmethod
    def from_module(
        cls,
        in_keys: Labels,
        module: Callable[[jax.Array], jax.Array],
        out_properties: Sequence[Labels] | Labels | None = None,
    ) -> ModuleMap:
        """Start from the same module for all keys; each has its own copy to train."""
        copies = [_copied(module) for _ in range(len(in_keys))]
        return cls(in_keys, copies, out_properties)

    @overload
    def __call__(self, tensor: StackedMap) -> StackedMap: ...

    @overload
    def __call__(
        self, tensor: TensorMap, state: None = None, *, key: jax.Array | None = None
    ) -> TensorMap: ...

    @overload
    def __call__(
        self, tensor: TensorMap, state: eqx.nn.State, *, key: jax.Array | None = None
    ) -> tuple[TensorMap, eqx.nn.State]: ...

    def __call__(
        self,
        tensor: TensorMap | StackedMap,
        state: eqx.nn.State | None = None,
        *,
        key: jax.Array | None = None,
    ) -> TensorMap | StackedMap | tuple[TensorMap, eqx.nn.State]:
        """Apply to each block of ``tensor`` the module of its key.

        :param state: for modules that need one; then it is returned as well, as it is
            after this call. Rows are the axis ``"samples"``, and their components the
            axis ``"components"``, for modules that reduce over these, such as
            ``equinox.nn.BatchNorm(size, ("samples", "components"))``: with those,
            stored gradients do not follow, and padding would count.
        :param key: random key for modules that take one, such as
            ``equinox.nn.Dropout``. Each row has its own, which its components and its
            gradients share.
        :raises MetatensorError: a block whose key has no module, properties that do not
            fit to what a module gives, a module that needs a state and has none, or one
            that mixes rows of a block with gradients or padding
        """
        if isinstance(tensor, StackedMap):
            check_alone(state, key)
            return self._of_stacked(tensor)
        check_is_map(tensor)
        key = None if key is None else typed_key(key)
        if state is not None:
            return apply_with_state(self, tensor, state, key)
        if key is None and self._had_better_stack(tensor):
            return self._of_stacked(stack_blocks(tensor)).unstack()
        of_keys = list(self.modules)
        modules, properties, sizes, keys = [], [], _Sizes(), []
        for entry, block in tensor.items():
            i = module_of(self.in_keys, entry)
            module = of_keys[i]
            called = module if key is None else Keyed(module, key)
            size = sizes.of(called, len(block.properties), block.dtype, entry)
            properties.append(self._properties(i, size))
            modules.append((module,))
            if key is not None:
                keys.append(jax.random.key_data(row_keys(key, i, len(block))))
        if key is None:
            return map_rows(apply_to_row, tensor, args=modules, properties=properties)
        kind = jax.random.key_impl(key)
        args = [(module, kind) for (module,) in modules]
        return map_rows(apply_with_key, tensor, keys, args=args, properties=properties)

    def _properties(self, i: int, size: int) -> Labels:
        """Of what the module of a key gives."""
        labels = self.out_properties
        return result_properties(size, None if labels is None else labels[i])

    def _had_better_stack(self, tensor: TensorMap) -> bool:
        """Are these many small blocks, whose modules are held as one?"""
        if not isinstance(self.modules, StackedModules) or len(tensor) < MANY:
            return False
        if tensor._structure.order > 1:
            return False  # which are not mapped together
        return sum(block.values.size for block in tensor) <= _SMALL * len(tensor)

    def _of_stacked(self, tensor: StackedMap) -> StackedMap:
        """All blocks of an array at once."""
        groups, args, properties = [], [], [Labels.single()] * len(tensor)
        at = [module_of(self.in_keys, key) for key in tensor.keys]
        modules = self.modules
        if not isinstance(modules, StackedModules):
            modules = StackedModules(modules)
        for members in tensor.groups:
            for stack, rows in modules.of_blocks([at[i] for i in members]):
                blocks = [members[row] for row in rows]
                shape, dtype = tensor.row_of(blocks[0])
                key = tensor.keys.entry(blocks[0])
                size = result_size(pick(stack, 0), shape[-1], dtype, key)
                for i in blocks:
                    properties[i] = self._properties(at[i], size)
                groups.append(tuple(blocks))
                args.append((stack,))
        return tensor.map_rows(apply_to_row, args, properties, tuple(groups))

    if not TYPE_CHECKING:  # where all attributes would be known

        def __getattr__(self, name: str) -> Any:
            raise absent_member(type(self).__name__, name)


class StackedModuleMap(ModuleMap):
    """A :class:`ModuleMap` whose modules that are alike are one, however few they are.

    :param module_map: the modules

    >>> from metatensor_jax.learn import Linear
    >>> keys = Labels("center_type", [[1], [8]])
    >>> linear = Linear(keys, 3, 2, key=jax.random.key(0)).module_map
    >>> [x.shape for x in jax.tree.leaves(StackedModuleMap(linear).modules)]
    [(2, 2, 3), (2, 2)]
    """

    def __init__(self, module_map: ModuleMap) -> None:
        modules = StackedModules(module_map.modules)
        super().__init__(module_map.in_keys, modules, module_map.out_properties)

    def unstack(self) -> ModuleMap:
        """The modules one by one, with the parameters that they have now."""
        return ModuleMap(self.in_keys, list(self.modules), self.out_properties)


def _held(
    modules: Sequence[Callable[..., Any]],
) -> list[Callable[..., Any]] | StackedModules:
    """As a list, or together if that is many that are alike."""
    if isinstance(modules, StackedModules):
        return modules
    largest = max(map(len, alike(modules))) if len(modules) >= MANY else 0
    return StackedModules(modules) if largest >= MANY else list(modules)


def _copied(module: Any) -> Any:
    """The same module with arrays of its own, so that they can be donated."""
    return jax.tree.map(lambda x: jnp.array(x) if eqx.is_array(x) else x, module)


class _Sizes:
    """:func:`result_size`, asked once for modules that are alike."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def of(self, module: Any, n_properties: int, dtype: Any, key: LabelsEntry) -> int:
        """How many properties the module of a block gives."""
        kind = kind_of(module), n_properties, np.dtype(dtype)
        try:
            known = self._known.get(kind)
        except (TypeError, ValueError):  # something in it is no key
            return result_size(module, n_properties, dtype, key)
        if known is None:
            known = result_size(module, n_properties, dtype, key)
            self._known[kind] = known
        return known


def apply_to_row(row: jax.Array, module: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Row function: the module for each component of one sample."""
    return on_row(module, row)[0]


def apply_with_key(
    row: jax.Array, key_data: jax.Array, module: Any, kind: Any
) -> jax.Array:
    """Row function: the same, with a random key for this row.

    :param key_data: of the key, as rows are numbers
    :param kind: what kind of key it is
    """
    key = jax.random.wrap_key_data(key_data, impl=kind)
    return on_row(module, row, key=key)[0]


def result_size(module: Any, n_properties: int, dtype: Any, key: LabelsEntry) -> int:
    """How many properties the module of a block gives for so many of them."""
    check_not_narrowed(dtype)  # before JAX warns of it, and goes on
    vector = jax.ShapeDtypeStruct((n_properties,), dtype)
    try:
        return eqx.filter_eval_shape(apply_to_row, vector, module).shape[-1]
    except (RuntimeError, TypeError) as error:
        error.add_note(
            f"in the module for the block {key.print()}, which has {n_properties} "
            "properties"
        )
        raise
