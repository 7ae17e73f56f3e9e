"""Layout: one compiled program for batches that differ in their samples.

A layout is fitted to a data set and gives each batch the same structure: room for its
rows, and labels that are data. ``_fit`` finds how much room a data set needs, and
``_capacity`` holds it; ``_check`` refuses labels that do not fit; rows go in and out by
NumPy (``_pad``).

A store has all systems of a data set as flat rows (``_store``, ``_flat``): batches are
gathered from it by NumPy (``_gather``) or in a program (``_on_device``), and travel as
few arrays (``_folded``). On disk it is a folder (``_folder``), which a writer adds
systems to (``_writer``). Apart from these, ``_stacked`` holds blocks of equal shape
together.
"""

from ._folded import Folded as Folded
from ._layout import Layout as Layout, PaddedBatch as PaddedBatch
from ._on_device import StoreOnDevice as StoreOnDevice
from ._stacked import StackedMap as StackedMap, stack_blocks as stack_blocks
from ._store import Store as Store
from ._writer import StoreWriter as StoreWriter

__all__ = [
    "stack_blocks",
    "Folded",
    "Layout",
    "PaddedBatch",
    "StackedMap",
    "Store",
    "StoreOnDevice",
    "StoreWriter",
]


def __dir__() -> list[str]:
    return __all__
