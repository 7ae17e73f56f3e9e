"""Sizes, entries and texts from files, as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from .._types.labels import Labels

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def size(n: int) -> str:
    """A number of bytes.

    >>> size(999), size(1500), size(10**10), size(999_999)
    ('999 B', '1.5 kB', '10.0 GB', '1.0 MB')
    """
    if n < 1000:
        return f"{n} B"
    number, units = n / 1000, list(_UNITS)
    while number >= 999.95 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.1f} {units[0]}"


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


def count(n: int, what: str) -> str:
    """A number of things.

    >>> count(1, "block"), count(2, "block"), count(2, "entry")
    ('1 block', '2 blocks', '2 entries')
    """
    if n != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{n} {what}"
