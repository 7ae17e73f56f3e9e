"""A data set that comes in pieces, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.tensor import TensorMap
from ..operations.checks import check_ours
from ..operations.dimensions import replace_dimension
from ..operations.joining import join
from ._capacity import ALONE, Maps, all_systems, as_maps


def as_whole(maps: Any, system: str) -> TensorMap | Maps:
    """A list of maps, or of dicts of maps, as one; systems get numbers of their own."""
    if isinstance(maps, (TensorMap, Mapping)):
        return maps
    check_ours(maps, "maps")
    if not isinstance(maps, Sequence):
        raise TypeError(
            "a store is made of a map, of a dict of maps, or of a list of these, not "
            f"of {type_of(maps)}"
        )
    if not maps:
        raise MetatensorError("a store needs at least one map, got none")
    items = [as_maps(item) for item in maps]
    for item in items:
        if sorted(item) != sorted(items[0]):
            raise MetatensorError(
                f"all items must have the same maps, got {sorted(items[0])} and "
                f"{sorted(item)}"
            )
    if len(items) == 1:
        return maps[0]
    own = [all_systems(item.values(), system) for item in items]
    if len(np.unique(np.concatenate(own))) < sum(map(len, own)):
        items = _numbered(items, own, system)
    joined = {
        name: join([item[name] for item in items], "samples", different_keys="union")
        for name in items[0]
    }
    return joined.get(ALONE, joined)


def _numbered(
    items: Sequence[Maps], own: Sequence[np.ndarray], system: str
) -> list[Maps]:
    """Each item is one system, whose number becomes its position."""
    for i, numbers in enumerate(own):
        if len(numbers) > 1:
            raise MetatensorError(
                f"item {i} has the systems {numbers.tolist()}, and others have some of "
                "these numbers as well: number them apart, or give one system each"
            )
    return [
        {name: replace_dimension(x, "samples", system, i) for name, x in item.items()}
        for i, item in enumerate(items)
    ]
