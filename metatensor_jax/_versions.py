"""Versions of jaxlib that are known to compute wrong numbers.

`pyproject.toml` excludes only some of them, and what it asks for can be overruled: by
another package, or by who installs jaxlib by other means than pip.
"""

from __future__ import annotations

import re
import warnings
from typing import NamedTuple

import jaxlib.version


class _Bug(NamedTuple):
    """Why some versions should not be used.

    :param first: the first version that has it
    :param last: the last one
    :param result: what goes wrong, and on which devices
    :param link: where it was reported
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    result: str
    link: str


_BUGS = (
    _Bug(
        (0, 5, 3),
        (0, 8, 1),
        "takes the wrong entries, on CPUs, where a compiled function indexes the rows "
        "of data that is known when it is compiled",
        "https://github.com/jax-ml/jax/issues/33479",
    ),
    _Bug(
        (0, 10, 2),
        (0, 10, 2),
        "gives wrong rows, on CPUs, where small products are summed for each of more "
        "than 16384 rows",
        "https://github.com/jax-ml/jax/issues/39103",
    ),
)
_GOOD = ">=0.8.2,!=0.10.2,<0.13"


def wrong_results() -> list[str]:
    """What the jaxlib that is installed computes wrongly, and what to do about it.

    Only its version is read, no device is started.
    """
    version = jaxlib.version.__version__
    return [
        f"jaxlib {version} {bug.result} ({bug.link}). Install another one, "
        f"`pip install 'jax{_GOOD}' 'jaxlib{_GOOD}'`"
        for bug in _BUGS
        if bug.first <= _numbers(version) <= bug.last
    ]


def warn_of_wrong_results() -> None:
    """Warn if the jaxlib that is installed computes wrong numbers."""
    for wrong in wrong_results():
        # the line that imports metatensor_jax
        warnings.warn(wrong, RuntimeWarning, stacklevel=3)


def _numbers(version: str) -> tuple[int, ...]:
    """The release, without what names a build.

    >>> _numbers("0.10.2.dev20260701+cpu")
    (0, 10, 2)
    """
    return tuple(int(number) for number in re.findall(r"(?:^|\.)(\d+)", version)[:3])
