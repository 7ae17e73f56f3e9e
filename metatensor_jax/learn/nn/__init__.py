"""Equinox modules that take maps and give maps."""

from typing import TYPE_CHECKING

from ._absent import absent_name as _absent_name
from ._activations import (
    InvariantReLU as InvariantReLU,
    InvariantSiLU as InvariantSiLU,
    InvariantTanh as InvariantTanh,
    ReLU as ReLU,
    SiLU as SiLU,
    Tanh as Tanh,
)
from ._buffer import Buffer as Buffer, trainable as trainable
from ._calling import RowModule as RowModule
from ._equivariant import EquivariantTransformation as EquivariantTransformation
from ._linear import EquivariantLinear as EquivariantLinear, Linear as Linear
from ._module_map import (
    ModuleMap as ModuleMap,
    StackedModuleMap as StackedModuleMap,
)
from ._norms import InvariantLayerNorm as InvariantLayerNorm, LayerNorm as LayerNorm
from ._sequential import Sequential as Sequential
from ._stacked import StackedModules as StackedModules
from ._standardize import Standardize as Standardize

__all__ = [
    "trainable",
    "Buffer",
    "EquivariantLinear",
    "EquivariantTransformation",
    "InvariantLayerNorm",
    "InvariantReLU",
    "InvariantSiLU",
    "InvariantTanh",
    "LayerNorm",
    "Linear",
    "ModuleMap",
    "ReLU",
    "RowModule",
    "Sequential",
    "SiLU",
    "StackedModuleMap",
    "StackedModules",
    "Standardize",
    "Tanh",
]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # where all names would be known

    def __getattr__(name: str) -> object:
        raise _absent_name(__name__, name)
