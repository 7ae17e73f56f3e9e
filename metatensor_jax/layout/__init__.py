"""Layout: one compiled program for batches that differ in their samples.

A layout is fitted to a data set and gives each batch the same structure: room for its
rows, and labels that are data. The host half says how much room there is
(``_capacity``, ``_fit``), rows go in and out by NumPy (``_pad``).
"""

from ._layout import Layout as Layout, PaddedBatch as PaddedBatch
from ._stacked import StackedMap as StackedMap, stack_blocks as stack_blocks
