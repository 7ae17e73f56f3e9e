"""What a model says besides its numbers, for checkpoints that hold numbers alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .._types.errors import MetatensorError
from .._types.labels import Labels
from ..layout import Layout
from ..layout._capacity import labels_to_json
from ._names import is_whole, named_leaves
from ._static import named_static


def metadata(tree: Any) -> dict[str, Any]:
    """Labels, layouts and static fields of a pytree, by name, as JSON has them.

    For programs that save arrays by their places in a pytree, such as Orbax: they would
    give the weights of one key to another without a word.

    :param tree: a model, a batch, a map, or what holds several of them

    >>> import jax
    >>> import metatensor_jax as mts
    >>> from metatensor_jax import learn
    >>> keys = mts.Labels("center_type", [[1], [8]])
    >>> model = learn.Linear(keys, 2, 1, key=jax.random.key(0))
    >>> saved = learn.metadata(model)
    >>> saved[".module_map.in_keys"]
    {'names': ['center_type'], 'values': [[1], [8]]}
    >>> learn.check_metadata(model, saved)
    """
    leaves = [part for part in named_leaves(tree) if is_whole(part.value)]
    return {
        name: _as_json(value)
        for name, value, _ in (*leaves, *named_static(tree))
        if not isinstance(value, Labels) or value.is_static
    }


def check_metadata(tree: Any, saved: Mapping[str, Any]) -> None:
    """Raise unless a pytree has the metadata that was saved; keys in the same order.

    :param tree: what arrays are to be restored into
    :param saved: what :func:`metadata` gave
    :raises MetatensorError: something that differs, with both values
    """
    own = metadata(tree)
    for name in sorted({*own, *saved}):
        # text tells apart 1, 1.0 and true, and tuples are lists
        here, there = (
            json.dumps(x[name]) if name in x else "missing" for x in (own, saved)
        )
        if here != there:
            raise MetatensorError(
                f"{name} is {here} here, but {there} in the checkpoint"
            )


def _as_json(value: Any) -> Any:
    if isinstance(value, Labels):
        return labels_to_json(value)
    return value.to_json() if isinstance(value, Layout) else value
