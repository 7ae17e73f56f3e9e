"""Names of files for maps."""

from __future__ import annotations

import re
from collections.abc import Collection

from ..._types.errors import MetatensorError


def file_names(names: Collection[str], taken: Collection[str] = ()) -> dict[str, str]:
    """For each map, a name for its file: without ``mtt::``.

    >>> file_names(["energy", "mtt::dipole"])
    {'energy': 'energy', 'mtt::dipole': 'dipole'}
    """
    made: dict[str, str] = {}
    for name in names:
        key = name.removeprefix("mtt::")
        if not re.fullmatch(r"[\w.+-]+", key) or key in taken:
            raise MetatensorError(
                f"'{name}' does not make a name of a file: '{key}' should consist of "
                f"letters, digits and any of '_.+-', and not be among {sorted(taken)}"
            )
        if key in made.values():
            raise MetatensorError(f"there would be two files '{key}', of {list(names)}")
        made[name] = key
    return made
