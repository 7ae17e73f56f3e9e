"""Labels, blocks and maps in one line each, as parts of something larger."""

from __future__ import annotations

from typing import Any

from .words import count


def short_labels(labels: Any) -> str:
    """Names, and how many entries; the entry of labels that have one."""
    n = getattr(labels.values, "shape", ("?",))[:1]
    if labels.is_static and n == (1,):
        return f"Labels{labels.entry(0).print()}"
    of = "entries" if labels.is_static else "traced entries"
    return f"Labels({', '.join(labels.names)}: {n[0] if n else '?'} {of})"


def short_block(block: Any) -> str:
    """Shape, and parameters of gradients."""
    shape = ",".join(map(str, getattr(block.values, "shape", ("?",))))
    gradients = "".join(f", {name}" for name in block.gradients_list())
    return f"TensorBlock([{shape}]{gradients})"


def short_tensor(tensor: Any) -> str:
    """Names of the keys, and how many blocks."""
    return f"TensorMap({', '.join(tensor.keys.names)}: {count(len(tensor), 'block')})"
