"""Labels, blocks and maps in notebooks: HTML that unfolds, small however much there is.

Of a map with many blocks the first are there as a whole, for others there is a line,
and of the rest there is the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ..padding import is_padding
from .arrays import describe_all, n_bytes, on_host, shape
from .heat import picture
from .parts import axis, entries, folded, how_many, label_rows, note, page
from .text import block_title, entry, values_of
from .words import count, size

#: blocks that are there as a whole at most, and characters for them and for lines
_WHOLE, _FOR_WHOLE, _FOR_LINES = 20, 40_000, 50_000
#: entries of labels that unfold in a map of many blocks
_FEW = 30
#: pieces of info, and characters of each
_INFO, _OF_INFO = 20, 200


def labels_html(title: str, names: Sequence[str], values: Any) -> str:
    """Labels, or an entry (whose values are in a list), for notebooks."""
    if isinstance(values, list):
        (row,) = values
        host = on_host(row)
        one = row if host is None else host[None]
        return page(title, "", entries(names, one))
    number = how_many(names, values)
    return page(title, f" with {number}" if number else "", entries(names, values))


def block_html(block: Any) -> str:
    """A block for notebooks; gradients unfold on a click."""
    return page("TensorBlock", block_title(block), block_body(block))


def block_body(block: Any, unfold: int = 200, known: int | None = None) -> str:
    """What is in a block: its values, its axes, its gradients.

    :param unfold: how many entries of labels there are at most
    :param known: of a gradient, how many of its components, the last ones, are those of
        the values. These were shown, as the properties were.
    """
    components = block.components
    axes = [("samples", block.samples)]
    axes += [("component", c) for c in components[: len(components) - (known or 0)]]
    if known is None:
        axes += [("properties", block.properties)]
    body = axis("values", _values(block))
    for name, labels in axes:
        number = how_many(labels.names, labels.values)
        is_padded = note(number) if "padding" in number else ""
        body += axis(name, entries(labels.names, labels.values, unfold) + is_padded)
    for name, gradient in block.gradients():
        body += folded(
            f"gradient for <em>{escape(name)}</em> with shape "
            f"{escape(shape(gradient.values))}",
            block_body(gradient, unfold, known=len(components)),
        )
    return body


def _values(block: Any) -> str:
    """dtype, kind and size of the values, and a picture of them."""
    values, samples = block.values, block.samples
    text = f"{values_of(block)}, {size(n_bytes(values))}"
    host = on_host(values)
    if host is None or host.ndim != 2 + len(block.components):
        return note(text)
    mask = None
    rows = label_rows(samples.names, samples.values)
    if samples.names and rows is not None and len(rows) == len(host):
        mask = ~is_padding(rows)
    made = picture(host, mask)
    if made is None:
        return note(text)
    return made.svg() + note(f"{text}, {made.text}")


def tensor_html(tensor: Any) -> str:
    """A map for notebooks; blocks unfold on a click."""
    return page(
        "TensorMap", f" with {count(len(tensor), 'block')}", tensor_body(tensor)
    )


def tensor_body(tensor: Any, share: int = 1) -> str:
    """What is in a map: what the arrays are, its info, and its blocks.

    :param share: how many maps there are to be shown in the place of one
    """
    blocks, names = tensor.blocks(), tensor.keys.names
    what = [f"keys [{', '.join(names)}]"]
    if blocks:
        what += [describe_all(map(values_of, blocks))]
        what += [size(sum(map(n_bytes, tensor._leaves)))]
    parts = [note(", ".join(what)), _info(tensor.info())]
    keys = tensor.keys.values
    unfold = _FEW if share * len(blocks) > 4 else 200
    used, n_whole = 0, 0
    for row, block in zip(keys[:_WHOLE], blocks[:_WHOLE], strict=True):
        summary = (
            f"{escape(entry(names, row))}: TensorBlock{escape(block_title(block))}"
        )
        part = folded(summary, block_body(block, unfold))
        used += len(part)
        if n_whole and used > _FOR_WHOLE // share:
            break
        parts.append(part)
        n_whole += 1
    parts.append(_lines(names, keys[n_whole:].tolist(), blocks[n_whole:], share))
    return "".join(parts)


def _lines(
    names: Sequence[str], keys: Sequence[list[int]], blocks: Sequence[Any], share: int
) -> str:
    """A line each for blocks that are not there as a whole."""
    if not blocks:
        return ""
    lines, used = [], 0
    for row, block in zip(keys, blocks, strict=True):
        cells = [*map(str, row), escape(shape(block.values))]
        line = f"<tr><td>{'</td><td>'.join(cells)}</td></tr>"
        used += len(line)
        if used > _FOR_LINES // share:
            break
        lines.append(line)
    head = "".join(f"<th>{escape(name)}</th>" for name in [*names, "shape"])
    table = (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
    rest = len(blocks) - len(lines)
    left_out = note(f"and {rest} more") if rest else ""
    return folded(
        f"{count(len(blocks), 'more block')}, without what is in them",
        f'<div class="more">{table}</div>{left_out}',
    )


def _info(info: dict[str, str]) -> str:
    if not info:
        return ""
    shown = list(info.items())[:_INFO]
    lines = "".join(axis(_cut(key), escape(_cut(value))) for key, value in shown)
    rest = len(info) - len(shown)
    return folded("info", lines + (note(f"and {rest} more") if rest else ""))


def _cut(text: str) -> str:
    return text if len(text) <= _OF_INFO else f"{text[:_OF_INFO]}…"
