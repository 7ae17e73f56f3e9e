"""What an error is about: the block, the gradient, the operation.

This is added as a note, in one way everywhere: the error stays what it is, and its
traceback leads to where it arose.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .labels import Labels


@contextmanager
def noting(note: str) -> Iterator[None]:
    """Add a note to any error that is raised inside."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


@contextmanager
def in_block(keys: Labels, i: int, where: str = "") -> Iterator[None]:
    """Add to any error which block of a map it is about, and which gradient of it."""
    try:
        yield
    except Exception as error:
        single = keys._names == ("_",)  # the key of a single block
        of_block = "" if single else f"for the block {keys.entry(i).print()}"
        if of_block or where:
            error.add_note(f"{of_block}{where}".strip())
        raise
