"""Examples in docstrings know NumPy by its usual name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _numpy(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["np"] = np
