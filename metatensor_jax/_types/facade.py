"""Methods that are declared in a class and written on a floor above it.

``TensorMap.keys_to_samples`` is where a user looks for it, but it is built on the row
primitives, which are built on ``TensorMap``. The class declares and documents such a
method, the module that owns the code fills it with ``@implements``, and imports keep
running downwards only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

_implementations: dict[str, Callable[..., Any]] = {}


def implements(method: str) -> Callable[[_Function], _Function]:
    """Decorator: this function is the body of ``method`` (``"Class.name"``)."""

    def register(function: _Function) -> _Function:
        _implementations[method] = function
        return function

    return register


def implementation(method: str) -> Callable[..., Any]:
    """The function that was registered for ``method``."""
    return _implementations[method]
