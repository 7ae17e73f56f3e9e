"""Work that is done once for blocks with equal labels.

The blocks of one map often have equal samples, those of all ``o3_lambda``, say. What is
worked out from labels is worked out once for them. As the results are the same objects,
what is worked out from these is shared as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from .._run.program import Node
from .._types.labels import Labels

_Result = TypeVar("_Result")


class Once:
    """Calls a function once for equal labels, the same arrays, and equal other values.

    Labels that nobody has computed a digest of are equal to themselves only: to compare
    them would take longer than what is saved. Other values must be hashable.

    >>> once = Once()
    >>> a, b = Labels.range("s", 2), Labels.range("s", 2)
    >>> a.digest == b.digest, once(list, a) is once(list, b)
    (True, True)
    """

    def __init__(self) -> None:
        # with the arguments, so that their identities stay what they are
        self._results: dict[Any, tuple[Any, Any]] = {}

    def __call__(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """``function(*args)``, or what it gave before."""
        key = (function, *map(_identity, args))
        known = self._results.get(key)
        if known is None:
            known = self._results[key] = args, function(*args)
        return known[1]


def for_each(
    function: Callable[..., _Result], *columns: Iterable[Any]
) -> list[_Result]:
    """``function`` of each row of these columns, called as by :class:`Once`.

    >>> for_each(len, [Labels.range("s", 2), Labels.range("s", 3)])
    [2, 3]
    """
    once = Once()
    return [once(function, *row) for row in zip(*columns, strict=True)]


def _identity(value: Any) -> Any:
    """Equal for values that a function can not tell apart."""
    if isinstance(value, Labels):
        return _of_labels(value)
    if isinstance(value, (tuple, list)):
        return tuple([_identity(item) for item in value])
    if isinstance(value, (np.ndarray, Node)):
        return id(value)
    return value


def _of_labels(labels: Labels) -> Any:
    if not labels.is_static:  # made anew at each look at a block, with the same values
        return labels._names, id(labels._values)
    return labels._digest or id(labels)
