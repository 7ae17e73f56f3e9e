"""Named tuples whose fields can have any names."""

from __future__ import annotations

import functools
import keyword
from collections import namedtuple
from collections.abc import Sequence
from typing import Any


@functools.cache
def record(kind: str, names: tuple[str, ...]) -> type[Any]:
    """A class of named tuples; fields whose names are no identifiers go by ``[name]``.

    >>> one = record("Sample", ("x", "with space"))(1, 2)
    >>> one, one.x, one["with space"]
    (Sample(x=1, 'with space'=2), 1, 2)
    """
    base: Any = namedtuple(kind, names, rename=True)
    position = {name: i for i, name in enumerate(names)}
    shown = [
        name if name.isidentifier() and not keyword.iskeyword(name) else repr(name)
        for name in names
    ]

    def getitem(self: Any, at: Any) -> Any:
        return tuple.__getitem__(self, position[at] if isinstance(at, str) else at)

    def text(self: Any) -> str:
        pairs = zip(shown, self, strict=True)
        return f"{kind}({', '.join([f'{name}={value!r}' for name, value in pairs])})"

    def reduce(self: Any) -> Any:  # the class is made again elsewhere
        return _made, (kind, names, tuple(self))

    members = {
        "__slots__": (),
        "__doc__": f"{kind}({', '.join(shown)})",
        "_fields": names,
        "__getitem__": getitem,
        "__repr__": text,
        "__reduce__": reduce,
    }
    return type(kind, (base,), members)


def _made(kind: str, names: tuple[str, ...], values: Sequence[Any]) -> Any:
    return record(kind, names)(*values)
