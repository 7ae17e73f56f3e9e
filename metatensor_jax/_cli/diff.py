"""What differs between two files, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import io
from .._types.block import TensorBlock
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..io._summary import summarize
from .text import count, entries, names, plain

#: numbers that are compared at a time
_PIECE = 1 << 22


class _Tolerance(NamedTuple):
    """Values are equal where they differ by ``atol + rtol * abs(b)`` at most."""

    rtol: float
    atol: float


def of_files(a: str, b: str, rtol: float = 0.0, atol: float = 0.0) -> Iterator[str]:
    """What differs between two files, a line each.

    Blocks are compared by their keys. Values are compared where all labels of a block
    are the same; NaN is equal to NaN.

    :param a: a file of a map, a block or labels
    :param b: another one
    :param rtol: relative tolerance of values
    :param atol: absolute tolerance of values
    :raises ValueError: a file that is damaged
    :raises OSError: what ``open`` would raise

    >>> import tempfile
    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((4, 2)))
    >>> y = x.with_values(np.array([[1.0, 1.0]] * 3 + [[1.0, 1.5]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mts.save(f"{folder}/x.mts", x)
    ...     mts.save(f"{folder}/y.mts", y)
    ...     print(*of_files(f"{folder}/x.mts", f"{folder}/y.mts"))
    block: 1 of 8 values differ, at most by 0.5: 1.0 and 1.5 at sample (sample=3),
    property (property=1)
    """
    kinds = [_kind(path) for path in (a, b)]
    if kinds[0] != kinds[1]:
        yield f"kind: {kinds[0]} in A, {kinds[1]} in B"
        return
    tolerance = _Tolerance(rtol, atol)
    if kinds[0] == "labels":
        yield from _labels("labels", io.load_labels(a), io.load_labels(b))
    elif kinds[0] == "block":
        yield from _blocks("block", io.load_block(a), io.load_block(b), tolerance)
    else:
        yield from _maps(io.load(a), io.load(b), tolerance)


def _kind(path: str) -> str:
    summary = summarize(path)
    if summary.labels is not None:
        return "labels"
    return "block" if summary.keys is None else "map"


def _maps(a: TensorMap, b: TensorMap, tolerance: _Tolerance) -> Iterator[str]:
    yield from _infos(dict(a.info()), dict(b.info()))
    yield from _labels("keys", a.keys, b.keys)
    if a.keys.names != b.keys.names:
        return
    for i, key in enumerate(a.keys):
        j = b.keys.position(key)
        if j is not None:
            blocks = a.block_by_id(i), b.block_by_id(j)
            yield from _blocks(f"block {key.print()}", *blocks, tolerance)


def _infos(a: dict[str, str], b: dict[str, str]) -> Iterator[str]:
    for name in sorted({*a, *b}):
        texts = [f"'{x[name]}'" if name in x else "nothing" for x in (a, b)]
        if texts[0] != texts[1]:
            yield plain(f"info {name}: {texts[0]} in A, {texts[1]} in B")


def _labels(what: str, a: Labels, b: Labels) -> Iterator[str]:
    if a.names != b.names:
        yield f"{what}: the names are {names(a.names)} in A, {names(b.names)} in B"
        return
    only = {"A": a.difference(b), "B": b.difference(a)}
    for where, left in only.items():
        if len(left):
            some = count(len(left), "entry")
            yield f"{what}: {some} only in {where}, {entries(left)}"
    if a != b and not any(map(len, only.values())):
        row = int((a.values != b.values).any(axis=1).argmax())
        yield (
            f"{what}: the same entries in another order, from entry {row} on, "
            f"{a[row].print()} in A, {b[row].print()} in B"
        )


def _blocks(
    what: str, a: TensorBlock, b: TensorBlock, tolerance: _Tolerance
) -> Iterator[str]:
    if a.dtype != b.dtype:
        yield f"{what}: the dtype is {a.dtype} in A, {b.dtype} in B"
    if len(a.components) != len(b.components):
        counts = [count(len(x.components), "component") for x in (a, b)]
        yield f"{what}: {counts[0]} in A, {counts[1]} in B"
    else:
        are_same = True
        for axis, one, other in _axes(a, b):
            for line in _labels(f"{what}, {axis}", one, other):
                yield line
                are_same = False
        if are_same:
            yield from _values(what, a, b, tolerance)
    of_a, of_b = dict(a.gradients()), dict(b.gradients())
    for name in sorted({*of_a, *of_b}):
        title = f"{what}, gradient {plain(name)}"
        if name not in of_a or name not in of_b:
            yield f"{title}: only in {'A' if name in of_a else 'B'}"
        else:
            yield from _blocks(title, of_a[name], of_b[name], tolerance)


def _axes(a: TensorBlock, b: TensorBlock) -> Iterator[tuple[str, Labels, Labels]]:
    yield "samples", a.samples, b.samples
    for i, (one, other) in enumerate(zip(a.components, b.components, strict=True)):
        yield f"component {i}", one, other
    yield "properties", a.properties, b.properties


def _values(
    what: str, a: TensorBlock, b: TensorBlock, tolerance: _Tolerance
) -> Iterator[str]:
    """Compare the values of blocks with the same labels."""
    x, y = np.asarray(a.values), np.asarray(b.values)
    differ, largest, where = 0, -1.0, ()
    rows = max(1, _PIECE // max(1, x[:1].size))
    for start in range(0, len(x), rows):
        by = _differences(x[start : start + rows], y[start : start + rows], tolerance)
        differ += int(np.count_nonzero(by))
        if by.size and by.max() > max(largest, 0):
            row, *rest = np.unravel_index(int(by.argmax()), by.shape)
            largest, where = float(by.max()), (start + row, *rest)
    if not differ:
        return
    axes = ["sample", *["component"] * len(a.components), "property"]
    labels = [a.samples, *a.components, a.properties]
    place = ", ".join(
        f"{axis} {label[int(i)].print()}"
        for axis, label, i in zip(axes, labels, where, strict=True)
    )
    yield (
        f"{what}: {differ} of {x.size} values differ, at most by {largest:.3g}: "
        f"{x[where].item()} and {y[where].item()} at {place}"
    )


def _differences(x: np.ndarray, y: np.ndarray, tolerance: _Tolerance) -> np.ndarray:
    """By how much values differ: zero where that is tolerated, infinite for NaN."""
    equal = (x == y) | ((x != x) & (y != y))
    wide = np.result_type(x, y, np.float64)
    with np.errstate(all="ignore"):
        by = np.abs(x.astype(wide) - y.astype(wide))
        by = np.where(np.isnan(by), np.inf, by)
        tolerated = tolerance.atol + tolerance.rtol * np.abs(y.astype(wide))
        tolerated = np.where(np.isfinite(x) & np.isfinite(y), tolerated, -1.0)
        # large integers can differ by less than floats can tell
        by = np.where(by == 0, np.finfo(np.float64).tiny, by)
        return np.where(equal | (by <= tolerated), 0.0, by)
