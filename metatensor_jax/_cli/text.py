"""Sizes, entries and texts from files, as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from .._types.display import count as count, size as size
from .._types.labels import Labels


def plain(text: str) -> str:
    r"""Text that does nothing to a terminal: the numbers of what is no letter.

    >>> plain("näme"), plain("a\x1b[2J")
    ('näme', 'a\\x1b[2J')
    """
    if text.isprintable():
        return text
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)


def entries(labels: Labels, n: int = 3) -> str:
    """The first entries of labels, and how many there are.

    >>> entries(Labels.range("atom", 5))
    '(atom=0), (atom=1), (atom=2) and 2 more'
    """
    first = ", ".join(labels[i].print() for i in range(min(n, len(labels))))
    return first if len(labels) <= n else f"{first} and {len(labels) - n} more"


def names(given: Sequence[str]) -> str:
    """Names of dimensions.

    >>> names(["system", "atom"]), names([])
    ('system, atom', 'no names')
    """
    return ", ".join(given) or "no names"
