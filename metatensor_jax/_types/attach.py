"""Methods that are written on a floor above their class.

``TensorMap.keys_to_samples`` is where a user looks for it, but it is built on what is
built on ``TensorMap``. The class declares such a method for type checkers; the module
that owns the code attaches it, and imports keep running downwards only.
"""

from __future__ import annotations

from typing import Any


def attach(owner: type, **methods: Any) -> None:
    """Make functions methods of a class, by their names there."""
    for name, method in methods.items():
        setattr(owner, name, method)
