"""Python's garbage collector, out of the way while many objects are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Let the garbage collector rest; also as a decorator.

    Each thousand new objects make it look through the young ones, and in the end
    through all there are. That makes thousands of blocks take longer than in proportion
    to their number, and frees nothing: all of them are in use.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
