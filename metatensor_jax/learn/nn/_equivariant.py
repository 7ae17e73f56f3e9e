"""EquivariantTransformation: functions of norms, as factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._run.sums import wide_dtype
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ._calling import RowModule, on_row
from ._map_module import MapModule
from ._module_map import ModuleMap
from ._options import find_invariant, listed, per_key


class EquivariantTransformation(MapModule):
    r"""Applies any module to each block, such that the result turns with the system.

    A module is applied to an invariant block as it is. For all others, it is applied to
    the norms :math:`|x|` over the components, and gives factors:

    .. math:: y = m(|x|)\, x

    The norms are differentiable where the norm is 0, with the derivative 0.

    :param modules: a module (or any function of one vector) for each key. Those for
        blocks that are not invariant give as many properties as they take, or one.
    :param in_keys: keys of the blocks
    :param in_features: number of properties: one integer, or one for each key
    :param out_features: number of properties of the result, in the same way. Blocks
        that are not invariant keep their properties.
    :param out_properties: properties of the result, as in :class:`ModuleMap`
    :param invariant_keys: which keys are those of invariants, by any of their
        dimensions; if None, those with ``o3_lambda`` 0 and ``o3_sigma`` 1
    :raises MetatensorError: keys without these dimensions, or sizes that do not fit

    >>> import metatensor_jax as mts
    >>> properties, samples = Labels.range("p", 1), Labels.range("s", 1)
    >>> vector = mts.TensorBlock(
    ...     jnp.array([[[3.0], [4.0]]]), samples, [Labels.range("xy", 2)], properties
    ... )
    >>> tensor = mts.TensorMap(Labels(["o3_lambda", "o3_sigma"], [[1, 1]]), [vector])
    >>> double = EquivariantTransformation([lambda r: 2 * r], tensor.keys, 1)
    >>> double(tensor).block().values.tolist()
    [[[30.0], [40.0]]]
    """

    def __init__(
        self,
        modules: Sequence[Callable[[jax.Array], jax.Array]],
        in_keys: Labels,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int] | None = None,
        out_properties: Sequence[Labels] | Labels | None = None,
        invariant_keys: Labels | None = None,
    ) -> None:
        n = len(in_keys)
        sizes = per_key("in_features", in_features, n)
        properties = listed(out_properties, n)
        if out_features is not None and properties is None:
            out_sizes = per_key("out_features", out_features, n)
            properties = [Labels.range("_", size) for size in out_sizes]
        invariant = find_invariant(in_keys, invariant_keys)
        wrapped: list[Any] = list(modules)
        for i in set(range(len(wrapped))) - set(invariant):
            wrapped[i] = _Factor(wrapped[i], sizes[i])
        self.module_map = ModuleMap(in_keys, wrapped, properties)


class _Factor(RowModule):
    """Multiplies a row with a function of its norms."""

    module: Any
    in_features: int = eqx.field(static=True)

    def __call__(self, row: jax.Array, state: Any = None, *, key: Any = None) -> Any:
        n = row.shape[-1]
        if n != self.in_features:
            raise MetatensorError(
                f"this module is for {self.in_features} properties, its `in_features`, "
                f"but the block has {n}"
            )
        factors, state = on_row(self.module, _norms(row), state, key)
        if factors.shape not in ((n,), (1,)):
            raise MetatensorError(
                "the module for a block that is not invariant gives factors for its "
                f"{n} properties, so {n} or one of them, but it gives {factors.shape}"
            )
        result = jnp.broadcast_to(factors, row.shape) * row
        return result if state is None else (result, state)


def _norms(row: jax.Array) -> jax.Array:
    """The norms over all components: shape ``(properties,)``.

    What is not chosen by a ``where`` has a derivative as well, which must be finite:
    hence the ones.
    """
    wide = row.astype(wide_dtype(row.dtype))
    squares = jnp.sum(wide**2, axis=tuple(range(row.ndim - 1)))
    is_zero = squares == 0
    roots = jnp.sqrt(jnp.where(is_zero, jnp.ones_like(squares), squares))
    norms = jnp.where(is_zero, jnp.zeros_like(roots), roots)
    return norms.astype(row.dtype)
