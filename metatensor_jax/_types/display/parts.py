"""The parts that all displays in notebooks are made of: plain HTML, no script.

All text goes through :func:`escape`: names can be anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from ..padding import PADDING
from .arrays import leaf, on_host
from .style import ROOT, STYLE
from .words import count

#: entries of labels that are in sight, and those that unfold
_IN_SIGHT, _UNFOLD = 12, 200


def page(title: str, rest: str, body: str = "") -> str:
    """A whole output.

    :param title: the name of the class
    :param rest: what is said after it, as text
    :param body: HTML
    """
    head = f"<div><strong>{escape(title)}</strong>{escape(rest)}</div>"
    return f'<div class="{ROOT}"><style>{STYLE}</style>{head}{body}</div>'


def note(text: str) -> str:
    """A line of text that is less important."""
    return f'<div class="note">{escape(text)}</div>'


def folded(summary: str, body: str) -> str:
    """What unfolds on a click. Both are HTML."""
    return (
        f'<details><summary>{summary}</summary><div class="body">{body}</div></details>'
    )


def axis(name: str, content: str) -> str:
    """One line of a display: what it is about, and HTML."""
    return f'<div class="axis"><span>{escape(name)}</span><div>{content}</div></div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text, with a header."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(table_row(row) for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table_row(cells: Sequence[str]) -> str:
    """One row of it; numbers are to the right, other text is to the left."""
    return "<tr>" + "".join(map(_cell, cells)) + "</tr>"


def _cell(text: str) -> str:
    is_number = text.lstrip("-").replace(".", "", 1).isdigit()
    kind = "" if is_number else ' class="text"'
    return f"<td{kind}>{escape(text)}</td>"


# --- labels --------------------------------------------------------------------------


def entries(names: Sequence[str], values: Any, unfold: int = _UNFOLD) -> str:
    """Labels laid out from left to right, a line for each dimension.

    Rows of padding that follow each other are one cell. What is not in sight unfolds
    from top to bottom.

    :param values: those of labels, or any leaf of a pytree
    :param unfold: how many entries there are at most
    """
    rows = label_rows(names, values)
    if rows is None:
        return note(f"[{', '.join(names)}] traced: {leaf(values)}")
    runs = _runs(rows[: max(unfold, _IN_SIGHT + 1)])
    n_shown = sum(n for _, n in runs)
    # a single one would take as much place as that it is there
    is_all = len(runs) <= _IN_SIGHT + 1 and n_shown == len(rows)
    in_sight = runs if is_all else runs[:_IN_SIGHT]
    lines = _across(names, in_sight, is_all)
    if not is_all and len(runs) > _IN_SIGHT:
        n_more = len(rows) - sum(n for _, n in in_sight)
        more = _down(names, runs, len(rows) - n_shown)
        lines += folded(f"{n_more} more", f'<div class="more">{more}</div>')
    elif n_shown < len(rows):
        lines += note(f"{len(rows) - n_shown} more")
    return lines


def how_many(names: Sequence[str], values: Any) -> str:
    """In words: how many entries labels have, and how many of them are padding."""
    shape = getattr(values, "shape", None)
    if not shape:
        return ""
    rows = label_rows(names, values)
    n_padding = 0
    if rows is not None and names:
        n_padding = int((rows == PADDING).all(axis=1).sum())
    of = f", {n_padding} of padding" if n_padding else ""
    return f"{count(shape[0], 'entry')}{of}" if isinstance(shape[0], int) else ""


def label_rows(names: Sequence[str], values: Any) -> np.ndarray | None:
    """The entries of labels; None for a leaf that has none."""
    rows = on_host(values)
    if rows is None or rows.shape[1:] != (len(names),) or rows.dtype.kind not in "iu":
        return None
    return rows


def _runs(rows: np.ndarray) -> list[tuple[list[int] | None, int]]:
    """The rows, and None for rows of padding with how many follow each other."""
    runs: list[tuple[list[int] | None, int]] = []
    for row in rows.tolist():
        if row and all(value == PADDING for value in row):
            n = 0
            if runs and runs[-1][0] is None:
                _, n = runs.pop()
            runs.append((None, n + 1))
        else:
            runs.append((row, 1))
    return runs


def _across(names: Sequence[str], runs: Sequence[Any], is_all: bool) -> str:
    lines = []
    for i, name in enumerate(names):
        cells = ""
        for row, n in runs:
            if row is not None:
                cells += f"<td>{row[i]}</td>"
            elif i == 0:
                cells += f'<td class="pad" rowspan="{len(names)}">{_padding(n)}</td>'
        if not is_all:
            cells += "<td>…</td>"
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def _down(names: Sequence[str], runs: Sequence[Any], n_left_out: int) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = [
        "<tr>" + "".join(f"<td>{value}</td>" for value in row) + "</tr>"
        if row is not None
        else f'<tr><td class="pad" colspan="{len(names)}">{_padding(n)}</td></tr>'
        for row, n in runs
    ]
    if n_left_out:
        lines.append(
            f'<tr><td colspan="{len(names)}" class="text">and {n_left_out} more</td>'
            "</tr>"
        )
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _padding(n: int) -> str:
    return "padding" if n == 1 else f"{n} x padding"
