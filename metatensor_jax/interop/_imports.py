"""Packages that are imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def imported(package: str, what: str) -> Any:
    """The module of a package of the extra ``interop``.

    :param what: the function that was called
    :raises ModuleNotFoundError: it is not installed
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{what} needs {package}: install it with "
            f"`pip install 'metatensor-jax[interop]'` ({error})",
            name=package,
        ) from error
