"""Standardize: shift and scale of properties, found in data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax

from ..._types.arrays import Array
from ..._types.errors import NotEqualError
from ..._types.labels import Labels, first_difference
from ..._types.tensor import TensorMap
from ...layout import StackedMap
from ._buffer import Buffer
from ._map_module import MapModule
from ._module_map import ModuleMap
from ._moments import Moments, find_moments
from ._options import check_is_map, find_invariant, module_of


class Standardize(MapModule):
    r"""Shifts and scales each property to mean 0 and standard deviation 1.

    .. math:: y = (x - \mu) / \sigma

    Blocks that are not invariant are only scaled, by the root of their mean square over
    samples and components, so that the result turns with the system. Stored gradients
    follow: they are scaled. Neither :math:`\mu` nor :math:`\sigma` is trained, they are
    in a :class:`Buffer`. It is made by :meth:`fit`, and :meth:`inverse` undoes it, such
    as for targets of a model.

    :param in_keys: keys of the blocks
    :param means: :math:`\mu` for each key, with shape ``(properties,)``; or None
    :param scales: :math:`\sigma` for each key, in the same way
    :param out_properties: properties for each key

    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.array([[1.0], [3.0]], np.float32))
    >>> tensor = mts.TensorMap(Labels.single(), [block])
    >>> standardize = Standardize.fit(tensor)
    >>> standardize(tensor).block().values.tolist()
    [[-1.0], [1.0]]
    >>> standardize.inverse(standardize(tensor)).block().values.tolist()
    [[1.0], [3.0]]
    """

    def __init__(
        self,
        in_keys: Labels,
        means: Sequence[Array | None],
        scales: Sequence[Array],
        out_properties: Sequence[Labels],
    ) -> None:
        modules = [
            _ShiftAndScale(None if mean is None else Buffer(mean), Buffer(scale))
            for mean, scale in zip(means, scales, strict=True)
        ]
        self.module_map = ModuleMap(in_keys, modules, out_properties)

    @classmethod
    def fit(
        cls,
        maps: TensorMap | Iterable[TensorMap],
        invariant_keys: Labels | None = None,
    ) -> Standardize:
        r"""Find means and standard deviations in maps, in one pass.

        They are those of all samples (atoms or systems, whatever the rows are) and
        components, in double precision, with :math:`1/N`. Padding does not count. A
        property that is constant is not scaled.

        :param maps: a map, or any number of them: their keys can differ, but a key has
            the same properties in all of them
        :param invariant_keys: which keys are those of invariants, by any of their
            dimensions. If None, those with ``o3_lambda`` 0 and ``o3_sigma`` 1; or,
            where keys do not have both dimensions, those of blocks without components.
        :raises MetatensorError: no map, maps that do not fit to each other, a key
            without samples, or values that are not finite
        :raises TypeError: values that are not real floating point numbers

        >>> import metatensor_jax as mts
        >>> block = mts.block_from_array(np.array([[1.0], [3.0]], np.float32))
        >>> tensor = mts.TensorMap(Labels.single(), [block])
        >>> of_all = Standardize.fit([tensor, mts.multiply(tensor, 3.0)])
        >>> of_all.module_map.modules[0].mean.data.tolist()
        [4.0]
        """
        maps = [maps] if isinstance(maps, TensorMap) else maps
        keys, moments = find_moments(maps)
        invariant = _find_invariant(keys, moments, invariant_keys)
        pairs = [x.mean_and_scale(i in invariant) for i, x in enumerate(moments)]
        means, scales = [mean for mean, _ in pairs], [scale for _, scale in pairs]
        return cls(keys, means, scales, [x.properties for x in moments])

    def __call__(
        self, tensor: TensorMap | StackedMap, state: Any = None, *, key: Any = None
    ) -> Any:
        """Standardize each block of ``tensor``.

        :raises MetatensorError: a key that was not there when this was fitted, or other
            properties
        """
        self._check(tensor)
        return super().__call__(tensor, state, key=key)  # type: ignore[arg-type]

    def inverse(self, tensor: TensorMap) -> TensorMap:
        r"""Undo it: :math:`x = y \sigma + \mu`.

        :raises MetatensorError: a key that was not there when this was fitted, or other
            properties
        """
        self._check(tensor)
        in_keys, properties = self.module_map.in_keys, self.module_map.out_properties
        modules = [module.inverse for module in self.module_map.modules]  # type: ignore[attr-defined]
        return ModuleMap(in_keys, modules, properties)(tensor)

    def _check(self, tensor: TensorMap | StackedMap) -> None:
        if not isinstance(tensor, StackedMap):
            check_is_map(tensor)
        properties = self.module_map.out_properties or []
        for entry, block in zip(tensor.keys, tensor._structure.blocks, strict=True):
            known = properties[module_of(self.module_map.in_keys, entry)]
            if block.properties != known:
                raise NotEqualError(
                    f"the block {entry.print()} has other properties than those that "
                    f"this was fitted to: {first_difference(block.properties, known)}"
                )


class _ShiftAndScale(eqx.Module):
    """Of one block; the mean is None where it must stay zero."""

    mean: Buffer | None
    scale: Buffer

    def __call__(self, vector: jax.Array) -> jax.Array:
        if self.mean is not None:
            vector = vector - self.mean.data
        return vector / self.scale.data

    def inverse(self, vector: jax.Array) -> jax.Array:
        vector = vector * self.scale.data
        return vector if self.mean is None else vector + self.mean.data


def _find_invariant(
    keys: Labels, moments: Sequence[Moments], invariant_keys: Labels | None
) -> set[int]:
    if invariant_keys is not None or {"o3_lambda", "o3_sigma"} <= set(keys.names):
        return set(find_invariant(keys, invariant_keys))
    return {i for i, x in enumerate(moments) if not x.has_components}
