"""Machine learning on maps, with Equinox. Needs the extra ``learn``."""

from . import nn as nn
from .nn import (
    Linear as Linear,
    ModuleMap as ModuleMap,
    StackedModuleMap as StackedModuleMap,
)
