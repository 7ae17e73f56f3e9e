"""Data for training: data sets of single systems, and batches of a store.

``_dataset`` and ``_collate`` are metatensor-learn's data sets, whose samples are
joined. ``_plan`` says which systems each batch of an epoch has, ``_loader`` loads them.
"""

from ._collate import group as group, group_and_join as group_and_join
from ._dataset import Dataset as Dataset, IndexedDataset as IndexedDataset
from ._loader import DataLoader as DataLoader
from ._plan import Plan as Plan

__all__ = [
    "group",
    "group_and_join",
    "DataLoader",
    "Dataset",
    "IndexedDataset",
    "Plan",
]


def __dir__() -> list[str]:
    return __all__
