"""Entries of labels as text, such as ``n=3,l=1``, and text as entries of labels.

These are the names of columns, of features and of nodes of a tree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._types.errors import MetatensorError
from .._types.labels import Labels


def entry_names(labels: Labels) -> list[str]:
    """A name for each entry.

    >>> entry_names(Labels(["n", "l"], [[3, 1], [3, -2]]))
    ['n=3,l=1', 'n=3,l=-2']
    """
    names = labels.names
    return [
        ",".join([f"{name}={value}" for name, value in zip(names, row, strict=True)])
        for row in labels.values.tolist()
    ]


def named_entries(texts: Sequence[str], names: Sequence[str], what: str) -> Labels:
    """The entries with these names, for labels with these dimensions.

    :param what: what the texts are, for messages
    :raises MetatensorError: a text that is no such entry, or is there twice

    >>> named_entries(["n=3,l=1", "n=3,l=-2"], ["n", "l"], "column").values.tolist()
    [[3, 1], [3, -2]]
    """
    rows = [_values(text, names, what) for text in texts]
    return Labels(names, np.array(rows, np.int64).reshape(len(rows), len(names)))


def names_in(text: str) -> list[str]:
    """The dimensions of the entry that has this name.

    >>> names_in("n=3,l=1")
    ['n', 'l']
    """
    return [part.partition("=")[0] for part in text.split(",")]


def _values(text: str, names: Sequence[str], what: str) -> list[int]:
    parts = [part.partition("=") for part in str(text).split(",")]
    try:
        values = [int(value) for _, _, value in parts]
    except ValueError:
        values = []
    if not values or [name for name, _, _ in parts] != list(names):
        wanted = ",".join(f"{name}=..." for name in names)
        raise MetatensorError(
            f"the {what} {text!r} is no entry of labels with the dimensions "
            f"{list(names)}, which would be called {wanted!r}"
        )
    return values
