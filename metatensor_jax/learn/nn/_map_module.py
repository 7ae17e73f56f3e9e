"""MapModule: what all modules here are, apart from how they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import equinox as eqx
import jax

from ..._types.tensor import TensorMap
from ...layout import StackedMap
from ._absent import absent_member
from ._module_map import ModuleMap


class MapModule(eqx.Module):
    """A module that is a :class:`ModuleMap`, made in its own way."""

    module_map: ModuleMap

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

        :param state: as in :meth:`ModuleMap.__call__`
        :param key: as in :meth:`ModuleMap.__call__`
        """
        return self.module_map(tensor, state, key=key)  # type: ignore[arg-type]

    if not TYPE_CHECKING:  # where all attributes would be known

        def __getattr__(self, name: str) -> Any:
            raise absent_member(type(self).__name__, name)
