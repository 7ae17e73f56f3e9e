"""How labels, blocks and maps look as text and in notebooks.

These functions take plain data, so that every class can use them. Values may be
tracers or any other leaf of a pytree: what can't be shown is described.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

_RULE = "<hr style='border: none; border-top: 1px solid #888; margin: 0;'>"
_HEAD = "style='background: aliceblue; text-align: center; color: black;'"
_MAX_HTML = 20


def entry(names: Sequence[str], values: Any) -> str:
    """One row, such as ``(system=1, atom=5)``."""
    return (
        "("
        + ", ".join(f"{n}={v}" for n, v in zip(names, _row(values), strict=True))
        + ")"
    )


def labels(names: Sequence[str], values: Any, max_entries: int, indent: int) -> str:
    """A table of rows, with an ellipsis where rows are left out."""
    # leaves of pytrees can be anything, and arrays of any shape
    if not isinstance(values, np.ndarray) or values.shape[1:] != (len(names),):
        return f"[{', '.join(names)}], traced: {leaf(values)}"
    head, tail = _ends(len(values), max_entries)
    rows = [[str(v) for v in row] for row in values[head + tail].tolist()]
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


def leaf(value: Any) -> str:
    """What a leaf is: ``float32[3,4]`` for arrays, otherwise its type."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or shape is None:
        return type(value).__name__
    return f"{dtype}[{','.join(map(str, shape))}]"


def shape(value: Any) -> str:
    """The shape of a leaf, or what it is if it has none."""
    shape = getattr(value, "shape", None)
    return leaf(value) if shape is None else str(tuple(shape))


def block(block: Any, parameter: str | None = None) -> str:
    """A block: its shape, and the names of its axes and gradients."""
    title = "TensorBlock" if parameter is None else f"Gradient for '{parameter}'"
    components = [name for labels in block.components for name in labels.names]
    lines = [
        f"{title} with shape {shape(block.values)}",
        f"    samples: [{', '.join(block.samples.names)}]",
        f"    components: [{', '.join(components)}]",
        f"    properties: [{', '.join(block.properties.names)}]",
    ]
    gradients = [
        f"        {name} => TensorBlock with shape {shape(gradient.values)}"
        for name, gradient in block.gradients()
    ]
    return "\n".join(lines + (["", "    gradients:", *gradients] if gradients else []))


def tensor(tensor: Any, max_keys: int) -> str:
    """A map: its keys, and the shape of each block."""
    n = len(tensor)
    lines = [
        f"TensorMap with {n} block{'' if n == 1 else 's'}",
        f"    keys: [{', '.join(tensor.keys.names)}]",
        "    blocks:",
    ]
    head, tail = _ends(n, max_keys)
    rows = [[str(v) for v in row] for row in tensor.keys.values[head + tail].tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    blocks = []
    for i, row in zip(head + tail, rows, strict=True):
        key = "  ".join(v.rjust(width) for v, width in zip(row, widths, strict=True))
        values = tensor.block_by_id(i).values
        blocks.append(f"        {key} => TensorBlock with shape {shape(values)}")
    if tail:
        blocks.insert(len(head), "        ...")
    return "\n".join(lines + blocks)


def _ends(n: int, max_shown: int) -> tuple[list[int], list[int]]:
    """Positions to show, before an ellipsis and after it; all if none are left out."""
    if max_shown < 0 or n <= max_shown:
        return list(range(n)), []
    max_shown = max(max_shown, 2)
    return list(range((max_shown + 1) // 2)), list(range(n - max_shown // 2, n))


def labels_html(title: str, names: Sequence[str], values: Any) -> str:
    """Labels, or an entry, as a table for notebooks."""
    return f"<div><strong>{title}</strong></div>{_RULE}{_table(names, values)}"


def block_html(block: Any) -> str:
    """A block for notebooks; gradients unfold on a click."""
    title = f"<div><strong>TensorBlock</strong> with shape {shape(block.values)}</div>"
    return f"{title}{_RULE}{_block_body(block)}"


def tensor_html(tensor: Any) -> str:
    """A map for notebooks; blocks unfold on a click."""
    n = len(tensor)
    title = f"<strong>TensorMap</strong> with {n} block{'' if n == 1 else 's'}"
    folded = "".join(
        _folded(f"{escape(entry(tensor.keys.names, row))}: TensorBlock", block)
        for row, block in zip(tensor.keys.values, tensor.blocks(), strict=True)
    )
    return f"<div>{title}</div>{_RULE}{folded}"


def _folded(title: str, block: Any) -> str:
    summary = f"<summary>{title} with shape {shape(block.values)}</summary>"
    style = "style='margin-left: 1em;'"
    return f"<details {style}>{summary}{_block_body(block)}</details>"


def _block_body(block: Any) -> str:
    axes = [("samples", block.samples)]
    axes += [("components", labels) for labels in block.components]
    axes += [("properties", block.properties)]
    body = "".join(
        f"<div><strong>{title}</strong>{_table(labels.names, labels.values)}</div>"
        for title, labels in axes
    )
    for name, gradient in block.gradients():
        body += _folded(f"gradient for <em>{escape(name)}</em>", gradient)
    return body


def _table(names: Sequence[str], values: Any) -> str:
    head = "".join(f"<th {_HEAD}>{name}</th>" for name in names)
    if not isinstance(values, (np.ndarray, list)):
        head += f"<th {_HEAD}>traced: {escape(leaf(values))}</th>"
        values = []
    rows = "".join(
        "<tr>" + "".join(f"<td>{v}</td>" for v in _row(row)) + "</tr>"
        for row in values[:_MAX_HTML]
    )
    if len(values) > _MAX_HTML:
        rows += f"<tr><td>... {len(values) - _MAX_HTML} more</td></tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(values: Any) -> list:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
