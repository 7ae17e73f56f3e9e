"""One line for an object, in what treescope shows of a model that holds it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def in_treescope(short: Callable[[Any], str]) -> Callable[..., Any]:
    """The method ``__treescope_repr__`` of a class, which treescope calls.

    :param short: gives the line for an object
    """

    def __treescope_repr__(self: Any, path: str | None, subtree_renderer: Any) -> Any:  # noqa: N807
        # it has been imported: it is what calls this
        parts = sys.modules["treescope"].rendering_parts
        return parts.build_one_line_tree_node(short(self), path)

    return __treescope_repr__
