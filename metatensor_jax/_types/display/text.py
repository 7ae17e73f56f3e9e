"""Labels, blocks and maps as text: what ``print`` and ``repr`` show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..padding import PADDING
from .arrays import describe, describe_all, leaf, shape
from .words import count


def entry(names: Sequence[str], values: Any) -> str:
    """One row, such as ``(system=1, atom=5)``."""
    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return "(" + ", ".join(f"{n}={v}" for n, v in zip(names, values, strict=True)) + ")"


def labels(names: Sequence[str], values: Any, max_entries: int, indent: int) -> str:
    """A table of rows, with an ellipsis where rows are left out."""
    # leaves of pytrees can be anything, and arrays of any shape
    if not isinstance(values, np.ndarray) or values.shape[1:] != (len(names),):
        return f"[{', '.join(names)}], traced: {leaf(values)}"
    head, tail = _ends(len(values), max_entries, least=2)
    rows = [_cells(row) for row in values[head + tail].tolist()]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = [
        "  ".join(
            text.center(width) for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in [names, *rows]
    ]
    if tail:
        lines.insert(1 + len(head), "   ...")
    return ("\n" + " " * indent).join(lines)


def _cells(row: list[int]) -> list[str]:
    """The numbers of a row; those of padding would say nothing."""
    is_padding = row and all(value == PADDING for value in row)
    return ["padding"] * len(row) if is_padding else [str(value) for value in row]


def block_title(block: Any) -> str:
    """What is said of a block after its name: its shape, and what it is a gradient by.

    A block knows the latter if it comes from ``block.gradient(...)``.
    """
    parameters = getattr(block, "_parameters", ())
    of = f" gradient for '{'/'.join(parameters)}'," if parameters else ""
    return f"{of} with shape {shape(block.values)}"


def values_of(block: Any) -> str:
    """dtype and kind of the values of a block."""
    return describe(block.values, n_axes=len(block.components) + 2)


def block(block: Any) -> str:
    """A block: its shape and dtype, and the names of its axes and gradients."""
    components = [name for labels in block.components for name in labels.names]
    lines = [
        f"TensorBlock{block_title(block)}",
        f"    values: {values_of(block)}",
        f"    samples: [{', '.join(block.samples.names)}]"
        + ("" if block.samples.is_static else ", traced"),
    ]
    if components:
        lines += [f"    components: [{', '.join(components)}]"]
    lines += [f"    properties: [{', '.join(block.properties.names)}]"]
    width = max(map(len, block.gradients_list()), default=0)
    gradients = [
        f"        {name.ljust(width)} => TensorBlock with shape "
        f"{shape(gradient.values)}"
        for name, gradient in block.gradients()
    ]
    return "\n".join(lines + (["", "    gradients:", *gradients] if gradients else []))


def tensor(tensor: Any, max_keys: int) -> str:
    """A map: its keys, and the shape of each block."""
    lines = [
        f"TensorMap with {count(len(tensor), 'block')}",
        f"    keys: [{', '.join(tensor.keys.names)}]",
    ]
    every = tensor.blocks()
    if every:
        lines += [f"    values: {describe_all(map(values_of, every))}"]
    lines += ["    blocks:"]
    head, tail = _ends(len(every), max_keys)
    shown = head + tail
    rows = [[str(v) for v in row] for row in tensor.keys.values[shown].tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    blocks = []
    for i, row in zip(shown, rows, strict=True):
        key = "  ".join(v.rjust(width) for v, width in zip(row, widths, strict=True))
        blocks += [f"        {key} => TensorBlock with shape {shape(every[i].values)}"]
    if len(shown) < len(every):
        blocks.insert(len(head), "        ...")
    return "\n".join(lines + blocks)


def _ends(n: int, max_shown: int, least: int = 0) -> tuple[list[int], list[int]]:
    """Positions to show, before an ellipsis and after it; all if none are left out."""
    if max_shown < 0 or n <= max_shown:
        return list(range(n)), []
    max_shown = max(max_shown, least)
    return list(range((max_shown + 1) // 2)), list(range(n - max_shown // 2, n))
