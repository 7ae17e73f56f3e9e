"""Exchange with the other programs of metatensor's ecosystem.

Nothing here needs another library until it is used.
"""

from ._from_metatensor import from_metatensor as from_metatensor
from ._to_metatensor import to_metatensor as to_metatensor
