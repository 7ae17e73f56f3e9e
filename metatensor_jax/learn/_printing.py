"""How Equinox prints what models hold: labels, blocks and maps in one line each."""

from __future__ import annotations

from typing import Any

import wadler_lindig as wl

from .._types.attach import attach
from .._types.block import TensorBlock
from .._types.labels import Labels
from .._types.tensor import TensorMap


def _labels(self: Labels, **_: Any) -> wl.AbstractDoc:
    """Names, and how many entries; the entry of labels that have one."""
    if self.is_static and len(self) == 1:
        return wl.TextDoc(f"Labels{self.entry(0).print()}")
    of = "entries" if self.is_static else "traced entries"
    return wl.TextDoc(f"Labels({', '.join(self.names)}: {len(self)} {of})")


def _block(self: TensorBlock, **_: Any) -> wl.AbstractDoc:
    """Shape, and parameters of gradients."""
    shape = ",".join(map(str, getattr(self.values, "shape", ("?",))))
    gradients = "".join(f", {name}" for name in self.gradients_list())
    return wl.TextDoc(f"TensorBlock([{shape}]{gradients})")


def _tensor(self: TensorMap, **_: Any) -> wl.AbstractDoc:
    """Names of the keys, and how many blocks."""
    return wl.TextDoc(f"TensorMap({', '.join(self.keys.names)}: {len(self)} blocks)")


attach(Labels, __pdoc__=_labels)
attach(TensorBlock, __pdoc__=_block)
attach(TensorMap, __pdoc__=_tensor)
