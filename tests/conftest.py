"""Settings of all tests: JAX is strict, and Hypothesis does the same in each run."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import jax
import pytest
from builders import enable_x64

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# no deadline: the first example of a test may wait for the compiler
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def x64(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Runs a test with JAX's 64-bit types switched off, and again with them on."""
    with enable_x64(request.param):
        yield request.param
