"""Sizes and counts, as people read them."""

from __future__ import annotations

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


def count(n: int, what: str) -> str:
    """A number of things.

    >>> count(1, "block"), count(2, "array"), count(2, "entry")
    ('1 block', '2 arrays', '2 entries')
    """
    if n != 1:
        what = f"{what[:-1]}ies" if what.endswith("ry") else f"{what}s"
    return f"{n} {what}"
