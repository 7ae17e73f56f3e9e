"""ModuleMap: one module per block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._run.functions import StaticValue, exact_structure
from ..._types.conversion import check_not_narrowed
from ..._types.entry import LabelsEntry
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ...operations.checks import check_ours, check_type
from ...operations.rows import map_rows


class ModuleMap(eqx.Module):
    r"""Applies one module to each block of a map.

    A module sees one row: the properties of one sample and one component, a vector, as
    the modules of Equinox do. Stored gradients follow from the chain rule, also for
    nonlinear modules:

    .. math:: \nabla m(x) = \frac{\partial m}{\partial x} \nabla x

    It is trained like any Equinox module, with ``equinox.filter_jit`` and
    ``equinox.filter_value_and_grad``.

    :param in_keys: keys of the blocks
    :param modules: a module (or any function of one vector) for each of these keys. One
        that gives a scalar gives one property.
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
        blocks:
            1 => TensorBlock with shape (4, 2)
            8 => TensorBlock with shape (4, 2)
    """

    in_keys: Labels
    modules: list[Callable[[jax.Array], jax.Array]]
    out_properties: list[Labels] | None

    def __init__(
        self,
        in_keys: Labels,
        modules: Sequence[Callable[[jax.Array], jax.Array]],
        out_properties: Sequence[Labels] | Labels | None = None,
    ) -> None:
        check_type(in_keys, "in_keys", Labels)
        check_ours(out_properties, "out_properties")
        if isinstance(out_properties, Labels):
            out_properties = [out_properties] * len(in_keys)
        self.in_keys = in_keys
        self.modules = list(modules)
        self.out_properties = None if out_properties is None else list(out_properties)
        for i, labels in enumerate(self.out_properties or ()):
            check_type(labels, f"out_properties[{i}]", Labels)
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

    def __call__(self, tensor: TensorMap) -> TensorMap:
        """Apply to each block of ``tensor`` the module of its key.

        :raises MetatensorError: a block whose key has no module, or properties that do
            not fit to what a module gives
        """
        check_type(tensor, "tensor", TensorMap)
        modules, properties, sizes = [], [], _Sizes()
        for key, block in tensor.items():
            i = module_of(self.in_keys, key)
            modules.append((self.modules[i],))
            labels = None if self.out_properties is None else self.out_properties[i]
            size = sizes.of(self.modules[i], len(block.properties), block.dtype, key)
            properties.append(result_properties(size, labels))
        return map_rows(apply_to_row, tensor, args=modules, properties=properties)


def _copied(module: Any) -> Any:
    """The same module with arrays of its own, so that they can be donated."""
    return jax.tree.map(lambda x: jnp.array(x) if eqx.is_array(x) else x, module)


def is_array(x: Any) -> bool:
    """Is this a parameter: an array of JAX or NumPy?"""
    return eqx.is_array(x) or isinstance(x, np.ndarray)


def kind_of(module: Any) -> Any:
    """Equal for modules that differ in the values of their arrays only."""
    arrays, rest = eqx.partition(module, is_array)
    shapes = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(arrays)]
    leaves, structure = jax.tree.flatten(rest)
    constants = tuple(map(StaticValue.of, leaves))
    return exact_structure(structure), constants, tuple(shapes)


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


def module_of(in_keys: Labels, key: LabelsEntry) -> int:
    """The position of the module for a block; raise if there is none."""
    i = in_keys.position(key)
    if i is None:
        raise MetatensorError(
            f"there is no module for the block {key.print()}, the modules are for\n"
            f"{in_keys}"
        )
    return i


def apply_to_row(row: jax.Array, module: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Row function: the module for each component of one sample."""

    def of_vector(vector: jax.Array) -> jax.Array:
        return jnp.atleast_1d(module(vector))

    for _ in range(row.ndim - 1):
        of_vector = jax.vmap(of_vector)
    return of_vector(row)


def result_size(module: Any, n_properties: int, dtype: Any, key: LabelsEntry) -> int:
    """How many properties the module of a block gives for so many of them."""
    check_not_narrowed(dtype)  # before JAX warns of it, and goes on
    vector = jax.ShapeDtypeStruct((n_properties,), dtype)
    try:
        return eqx.filter_eval_shape(apply_to_row, vector, module).shape[-1]
    except TypeError as error:
        error.add_note(
            f"in the module for the block {key.print()}, which has {n_properties} "
            "properties"
        )
        raise


def result_properties(size: int, labels: Labels | None) -> Labels:
    """The labels of what a module gives: those that were asked for, if any."""
    if labels is None:
        return Labels.range("_", size)
    if len(labels) != size:
        raise MetatensorError(
            f"the module gives {size} properties, but its `out_properties` are "
            f"{len(labels)}:\n{labels}"
        )
    return labels
