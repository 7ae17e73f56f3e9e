"""Machine learning on maps, with Equinox. Needs the extra ``learn``."""

from . import nn as nn
from .nn import (
    Buffer as Buffer,
    Linear as Linear,
    ModuleMap as ModuleMap,
    StackedModuleMap as StackedModuleMap,
    Standardize as Standardize,
    trainable as trainable,
)
