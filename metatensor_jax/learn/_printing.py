"""How Equinox prints what models hold: labels, maps and so on in one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wadler_lindig as wl

from .._types.attach import attach
from .._types.block import TensorBlock
from .._types.display import short_block, short_labels, short_tensor
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..layout import Folded, Layout, PaddedBatch, StackedMap, Store, StoreOnDevice
from ..layout._display import batch_short, layout_short, stacked_short, store_short


def _as_line(short: Callable[[Any], str]) -> Callable[..., wl.AbstractDoc]:
    """The method that Equinox asks for."""
    return lambda self, **_: wl.TextDoc(short(self))


attach(Labels, __pdoc__=_as_line(short_labels))
attach(TensorBlock, __pdoc__=_as_line(short_block))
attach(TensorMap, __pdoc__=_as_line(short_tensor))
attach(StackedMap, __pdoc__=_as_line(stacked_short))
attach(Layout, __pdoc__=_as_line(layout_short))
attach(PaddedBatch, __pdoc__=_as_line(batch_short))
attach(Store, __pdoc__=_as_line(store_short))
attach(Folded, __pdoc__=_as_line(repr))
attach(StoreOnDevice, __pdoc__=_as_line(repr))
