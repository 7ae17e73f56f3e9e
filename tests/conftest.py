"""Settings of all tests: JAX is strict, and Hypothesis does the same in each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import hypothesis
import jax
import numpy as np
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


@pytest.fixture(autouse=True)
def _same_precision() -> Iterator[None]:
    """A page of the docs that enables 64 bits does so for itself."""
    before = jax.config.jax_enable_x64
    yield
    if jax.config.jax_enable_x64 != before:
        jax.config.update("jax_enable_x64", before)


@pytest.fixture
def compiled(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], int]]:
    """A function that gives the number of programs compiled since its last call."""
    with jax.log_compiles():

        def count() -> int:
            messages = [record.getMessage() for record in caplog.records]
            caplog.clear()
            return sum("Finished XLA compilation" in text for text in messages)

        # Were the message to change, each test would find nothing and pass.
        shape = (count(), 3, 7)
        jax.jit(lambda x: x + 1)(np.ones(shape, np.float32))
        assert count() == 1
        yield count
