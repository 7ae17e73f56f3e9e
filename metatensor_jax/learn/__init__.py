"""Machine learning on maps, with Equinox. Needs the extra ``learn``."""

from . import _printing as _printing, data as data, nn as nn
from ._checkpoints import Checkpoints as Checkpoints, Restored as Restored
from ._featurize import featurize as featurize
from ._fit import Epoch as Epoch, Fitted as Fitted, fit as fit
from ._losses import (
    errors as errors,
    huber as huber,
    mean_absolute as mean_absolute,
    mean_squared as mean_squared,
)
from ._metadata import check_metadata as check_metadata, metadata as metadata
from ._parts import Parts as Parts
from ._saving import load as load, save as save
from .data import (
    DataLoader as DataLoader,
    Dataset as Dataset,
    IndexedDataset as IndexedDataset,
)
from .nn import (
    Buffer as Buffer,
    Linear as Linear,
    ModuleMap as ModuleMap,
    StackedModuleMap as StackedModuleMap,
    StackedModules as StackedModules,
    Standardize as Standardize,
    trainable as trainable,
)

__all__ = [
    "metadata",
    "featurize",
    "check_metadata",
    "Restored",
    "Parts",
    "Checkpoints",
    "data",
    "errors",
    "fit",
    "huber",
    "load",
    "mean_absolute",
    "mean_squared",
    "nn",
    "save",
    "trainable",
    "Buffer",
    "DataLoader",
    "Dataset",
    "Epoch",
    "Fitted",
    "IndexedDataset",
    "Linear",
    "ModuleMap",
    "StackedModuleMap",
    "StackedModules",
    "Standardize",
]


def __dir__() -> list[str]:
    return __all__
