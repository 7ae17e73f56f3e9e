"""Exchange with the other programs of metatensor's ecosystem.

Nothing here needs another library until it is used. What needs one to be defined is in
modules to import by their name: ``interop.ase`` and ``interop.sklearn``.
"""

from ._from_metatensor import from_metatensor as from_metatensor
from ._to_metatensor import to_metatensor as to_metatensor
from .pandas import from_pandas as from_pandas, to_pandas as to_pandas
from .polars import from_polars as from_polars, to_polars as to_polars
from .xarray import from_xarray as from_xarray, to_xarray as to_xarray

__all__ = [
    "from_metatensor",
    "from_pandas",
    "from_polars",
    "from_xarray",
    "to_metatensor",
    "to_pandas",
    "to_polars",
    "to_xarray",
]

_BY_NAME = ("ase", "metatrain", "orbitals", "sklearn")


def __dir__() -> list[str]:
    # modules to import by their name, once they are
    return [*__all__, *(name for name in _BY_NAME if name in globals())]
