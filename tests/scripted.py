"""metatensor-torch, for tests."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import pytest


def metatensor_torch() -> Any:
    """The package, or skip. The operators of metatensor-core's maps stay what they are.

    Importing metatensor-torch (0.10.8) registers its operations as those of
    metatensor-core, and ``==`` and ``*`` of maps of metatensor-core then raise: tests
    in the same process that use them would fail.
    """
    pytest.importorskip("torch")
    pytest.importorskip("metatensor")
    operations = import_module("metatensor.operations")
    package = pytest.importorskip("metatensor.torch", exc_type=ImportError)
    sys.modules["metatensor.operations"] = operations
    return package
