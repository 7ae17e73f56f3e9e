"""Equinox modules that take maps and give maps."""

from ._linear import Linear as Linear
from ._module_map import ModuleMap as ModuleMap
from ._stacked import StackedModuleMap as StackedModuleMap
