"""The values of a block as a small picture: an inline SVG of at most 16 x 16 cells.

A cell is the mean of some neighbouring samples (rows) and components and properties
(columns). Colours are those of the style sheet, so that they follow the theme.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_CELLS = 16  # along each side
_STEPS = 4  # of colour, for either sign
_PIXELS = 9  # of a cell
#: rows and columns that are looked at in each direction, and numbers to read for that
_LOOKED_AT, _READ = 512, 2**22
#: codes of cells that have no mean
_PADDING, _NOT_FINITE = _STEPS + 1, _STEPS + 2


class Picture(NamedTuple):
    """Means of cells in steps of colour, and what is said beside them.

    :param codes: from -4 to 4 for means relative to the largest; or what a cell is
    :param text: the range of the values, and what is odd about them
    """

    codes: np.ndarray
    text: str

    def svg(self) -> str:
        """The picture, without a colour in it: one path for each step."""
        height, width = self.codes.shape
        paths = "".join(
            f'<path class="{_CLASSES[int(code)]}" d="{_runs(self.codes == code)}"/>'
            for code in np.unique(self.codes)
        )
        return (
            f'<svg role="img" width="{width * _PIXELS}" height="{height * _PIXELS}" '
            f'viewBox="0 -.5 {width} {height}" shape-rendering="crispEdges">'
            f"<title>{_TITLE}</title>{paths}</svg>"
        )


_TITLE = (
    "means of values: samples from top to bottom, components and properties from left "
    "to right; red above zero, blue below, yellow not finite, grey padding"
)
_CLASSES = {
    **{-i: f"n{i}" for i in range(1, _STEPS + 1)},
    **{i: f"p{i}" for i in range(1, _STEPS + 1)},
    0: "z",
    _PADDING: "pad",
    _NOT_FINITE: "odd",
}


def picture(values: Any, mask: Any = None) -> Picture | None:
    """A picture of the values of a block; None for what has none.

    :param values: a NumPy array whose first axis are samples
    :param mask: which samples are there, rather than padding; None for all

    >>> made = picture(np.array([[2.0, -1.0], [0.0, np.nan]]))
    >>> made.codes.tolist(), made.text
    ([[4, -2], [0, 6]], 'from -1 to 2, 1 not finite')
    """
    is_number = values.dtype.kind in "biufc" or values.dtype.isbuiltin == 2
    if values.ndim < 2 or values.size == 0 or not is_number:
        return None
    x, rows = _part(values)
    is_there = np.ones(len(x), bool) if mask is None else np.asarray(mask)[rows]
    is_finite = np.isfinite(x)
    is_used = is_finite & is_there[:, None]
    n_odd = int((~is_finite & is_there[:, None]).sum())
    sums, n_used = _by_cell(np.where(is_used, x, 0.0)), _by_cell(is_used)
    means = np.divide(sums, n_used, out=np.zeros_like(sums), where=n_used > 0)
    largest = np.abs(means).max()
    codes = means / largest if largest > 0 else means
    codes = np.rint(codes * _STEPS).astype(np.int8)
    codes[(codes == 0) & (means != 0)] = np.sign(means)[(codes == 0) & (means != 0)]
    codes[_by_cell(~is_finite & is_there[:, None]) > 0] = _NOT_FINITE
    n_there = _by_cell(np.broadcast_to(is_there[:, None], x.shape))
    codes[n_there == 0] = _PADDING
    return Picture(codes, _text(x[is_used], n_odd, x.size < values.size))


def _part(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values with two axes, as many as are looked at, and which rows these are."""
    n, per_row = len(values), values.size // len(values)
    n_rows = min(n, _LOOKED_AT, max(_READ // per_row, _CELLS))
    rows = np.arange(n_rows) * n // n_rows
    n_columns = min(per_row, _LOOKED_AT)
    columns = np.arange(n_columns) * per_row // n_columns
    part = values if n_rows == n else values[rows]
    part = part.reshape(n_rows, per_row)[:, columns]
    if part.dtype.kind == "c":
        part = np.abs(part)
    return part.astype(np.float64), rows


def _by_cell(x: np.ndarray) -> np.ndarray:
    """Sums of all in a cell."""
    x = x.astype(np.float64)
    for axis, n in enumerate(x.shape):
        n_cells = min(n, _CELLS)
        x = np.add.reduceat(x, np.arange(n_cells) * n // n_cells, axis)
    return x


def _text(used: np.ndarray, n_odd: int, is_part: bool) -> str:
    if used.size == 0:
        text = "nothing finite" if n_odd else "all padding"
    elif used.min() == used.max():
        text = f"all {used[0]:.4g}"
    else:
        text = f"from {used.min():.4g} to {used.max():.4g}"
    if n_odd:
        text += f", {n_odd} not finite"
    return text + (" (of a part of the values)" if is_part else "")


def _runs(which: np.ndarray) -> str:
    """The path through these cells: a line, a cell wide, for each run in a row."""
    edges = np.diff(np.pad(which, [(0, 0), (1, 1)]).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    return "".join(
        f"M{x} {y}h{end - x}"
        for y, x, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True)
    )
