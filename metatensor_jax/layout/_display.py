"""How layouts, padded batches, stacked maps, folded ones and stores look.

For each there is a text, one line for what holds it (``short``), and HTML for
notebooks. What is in their arrays may be anything: these are pytrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from .._types import display
from .._types.display import count, size
from .._types.padding import is_padding
from .._types.tensor import TensorMap
from ._capacity import ALONE, BlockRoom, where

if TYPE_CHECKING:
    from ._folded import Folded
    from ._layout import Layout, PaddedBatch
    from ._stacked import StackedMap
    from ._store import Store

#: lines of a table that `repr` and notebooks show, arrays that a line names, and names
_LINES, _ARRAYS, _NAMES = 40, 6, 8


def _names(names: Iterable[str]) -> str:
    """Names of maps, not too many of them."""
    shown = sorted(names)
    rest = len(shown) - _NAMES
    return ", ".join([*shown[:_NAMES], *([f"and {rest} more"] if rest > 0 else [])])


# --- layouts -------------------------------------------------------------------------

_HEADER = ("rows of", "room", "expected", "padded / real")


def layout_text(layout: Layout, most: int | None = None) -> str:
    """A table: the room for each block, and how much of it is padding.

    :param most: how many lines there are at most, without those in the middle
    """
    lines = list(_lines(layout))
    head, tail = _ends(len(lines), most)
    shown = [_HEADER, *lines[:head], *lines[tail:]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    texts = [
        "  "
        + what.ljust(widths[0])
        + "".join(
            f"  {text.rjust(width)}"
            for text, width in zip(numbers, widths[1:], strict=True)
        )
        for what, *numbers in shown
    ]
    if head < tail:
        texts.insert(1 + head, f"  ... {tail - head} more")
    return "\n".join([f"Layout {_for(layout)}", *(text.rstrip() for text in texts)])


def _ends(n: int, most: int | None) -> tuple[int, int]:
    """Where what is left out begins and ends."""
    if most is None or n <= most:
        return n, n
    return most // 2, n - most // 2


def _for(layout: Layout) -> str:
    return (
        f"for {count(layout.systems, 'system')}, "
        f"{count(len(layout.fractions), 'bucket')}"
    )


def _lines(layout: Layout) -> Iterable[tuple[str, str, str, str]]:
    for name, room in layout.rooms.items():
        for key, path, of_block in room.walk():
            yield (where(name, key, path), *_numbers(of_block))


def _numbers(room: BlockRoom) -> tuple[str, str, str]:
    """The room in each bucket; how much of it is expected to be used, if known."""
    rows = ", ".join(str(n) for n in room.rows)
    if not room.expected:
        return rows, "", ""
    fitting = next((n for n in room.rows if n >= room.expected), room.rows[-1])
    return rows, f"{room.expected:.0f}", f"{fitting / room.expected:.2f}"


def layout_short(layout: Layout) -> str:
    """In one line."""
    names = _names(name for name in layout.rooms if name != ALONE)
    return f"Layout({_for(layout).removeprefix('for ')}{': ' if names else ''}{names})"


def layout_html(layout: Layout) -> str:
    """For notebooks."""
    lines = list(_lines(layout))
    table = display.table(_HEADER, lines[:_LINES])
    rest = lines[_LINES:]
    if rest:
        table += display.folded(
            f"{len(rest)} more",
            display.table(_HEADER, rest[: 10 * _LINES])
            + _left_out(len(rest) - 10 * _LINES),
        )
    return display.page("Layout", f" {_for(layout)}", table)


def _left_out(n: int) -> str:
    return display.note(f"and {n} more: print(layout)") if n > 0 else ""


# --- padded batches ------------------------------------------------------------------


def batch_text(batch: PaddedBatch) -> str:
    """Its systems, and how full each map is."""
    lines = [f"PaddedBatch {_systems(batch)}"]
    maps = list(_maps(batch).items())
    for name, tensor in maps[:_NAMES]:
        title = f"{name}: " if name != ALONE else ""
        lines.append(f"    {title}{_fullness(tensor)}")
    if len(maps) > _NAMES:
        lines.append(f"    ... {len(maps) - _NAMES} more")
    return "\n".join(lines)


def batch_short(batch: PaddedBatch) -> str:
    """In one line."""
    names = _names(name for name in _maps(batch) if name != ALONE)
    of = _systems(batch).removeprefix("of ")
    return f"PaddedBatch({of}{': ' if names else ''}{names})"


def _systems(batch: PaddedBatch) -> str:
    room = getattr(batch.systems, "shape", ())
    if len(room) != 1:  # in a pytree, anything
        return f"with systems {display.leaf(batch.systems)}"
    n = _n_there(batch.systems)
    if n is None:
        return f"with room for {count(room[0], 'system')}, traced"
    return f"of {count(n, 'system')}, with room for {room[0]}"


def _n_there(labels: Any) -> int | None:
    """How many rows are not padding; None where they are not known."""
    rows = display.on_host(labels)
    if rows is None or rows.ndim not in (1, 2) or rows.dtype.kind not in "iu":
        return None
    return int((~is_padding(rows)).sum()) if rows.shape[1:] != (0,) else len(rows)


def _maps(batch: PaddedBatch) -> Mapping[str, Any]:
    """By name; those of a pytree can be anything."""
    tensors = batch.tensors
    return tensors if isinstance(tensors, Mapping) else {ALONE: tensors}


def _fullness(tensor: Any) -> str:
    """In words: a map, and how many of its rows are there."""
    if not isinstance(tensor, TensorMap):
        return display.leaf(tensor)
    room, n = 0, 0
    for block in tensor:
        n_there = _n_there(block.samples.values)
        if n_there is None:
            return f"{display.short_tensor(tensor)}, traced"
        room, n = room + len(block.samples), n + n_there
    return f"{display.short_tensor(tensor)}, {n} of {count(room, 'row')}"


def batch_html(batch: PaddedBatch) -> str:
    """For notebooks: maps unfold."""
    maps = list(_maps(batch).items())
    parts = []
    for name, tensor in maps[:_NAMES]:
        title = f"<em>{escape(name)}</em>: " if name != ALONE else ""
        # several large maps stay as small as one: the others are lines
        is_map = isinstance(tensor, TensorMap)
        body = display.tensor_body(tensor, share=len(maps)) if is_map else ""
        parts.append(display.folded(title + escape(_fullness(tensor)), body))
    if len(maps) > _NAMES:
        parts.append(display.note(f"and {len(maps) - _NAMES} more maps"))
    return display.page("PaddedBatch", f" {_systems(batch)}", "".join(parts))


# --- stacked maps, folded ones -------------------------------------------------------


def stacked_text(stacked: StackedMap) -> str:
    """How many blocks, and in which arrays."""
    leaves = [of_group[0] for of_group in stacked._leaves]
    shapes = [display.shape(leaf) for leaf in leaves[:_ARRAYS]]
    if len(leaves) > _ARRAYS:
        shapes.append(f"... {len(leaves) - _ARRAYS} more")
    kinds = display.describe_all(map(display.describe, leaves))
    return (
        f"StackedMap with {count(len(stacked), 'block')} in "
        f"{count(len(leaves), 'array')} of shape {', '.join(shapes)}"
        f"{f' ({kinds})' if kinds else ''}"
    )


def stacked_short(stacked: StackedMap) -> str:
    """In one line."""
    names = ", ".join(stacked.keys.names)
    return (
        f"StackedMap({names}: {count(len(stacked), 'block')} in "
        f"{count(len(stacked.groups), 'array')})"
    )


def stacked_html(stacked: StackedMap) -> str:
    """For notebooks: a line for each array, with the keys of its blocks."""
    rows = []
    for members, leaves in zip(stacked.groups, stacked._leaves, strict=True):
        keys = [
            display.entry(stacked.keys.names, row) for row in _keys(stacked, members)
        ]
        more = (
            f" and {len(members) - len(keys)} more" if len(members) > len(keys) else ""
        )
        rows.append(
            (
                display.shape(leaves[0]),
                display.describe(leaves[0]),
                size(sum(map(display.n_bytes, leaves))),
                str(len(members)),
                ", ".join(keys) + more,
            )
        )
    header = ("shape", "values", "size", "blocks", "keys")
    table = display.table(header, rows[:_LINES])
    if len(rows) > _LINES:
        table += display.note(f"and {len(rows) - _LINES} more arrays")
    n_arrays = count(len(rows), "array")
    rest = f" with {count(len(stacked), 'block')} in {n_arrays}"
    return display.page("StackedMap", rest, table)


def _keys(stacked: StackedMap, members: Sequence[int]) -> np.ndarray:
    return stacked.keys.values[list(members[:4])]


def folded_html(folded: Folded) -> str:
    """For notebooks."""
    text = repr(folded).removeprefix("Folded(").removesuffix(")")
    n = sum(map(display.n_bytes, folded._buffers))
    kinds = display.describe_all(map(display.kind, folded._buffers))
    return display.page("Folded", f" {text}, {kinds}, {size(n)}")


# --- stores --------------------------------------------------------------------------


def store_text(store: Store) -> str:
    """How many systems and rows, and their size."""
    n_blocks, n_rows = _sums(store)
    of_maps = "" if store.names == [ALONE] else f" with the maps {store.names}"
    return (
        f"Store of {count(len(store), 'system')}{of_maps}\n    "
        f"{count(n_blocks, 'block')}, {count(n_rows, 'row')}, {size(store.nbytes)}"
    )


def _sums(store: Store) -> tuple[int, int]:
    n_blocks = sum(map(len, store._rows.values()))
    n_rows = sum(len(of[0].values) for rows in store._rows.values() for of in rows)
    return n_blocks, n_rows


def store_short(store: Store) -> str:
    """In one line."""
    names = _names(name for name in store.names if name != ALONE)
    return f"Store({count(len(store), 'system')}{': ' if names else ''}{names})"


def store_html(store: Store) -> str:
    """For notebooks: a line for each map; its blocks unfold."""
    parts = []
    for name in store.names[:_LINES]:
        rows, structure = store._rows[name], store._structures[name]
        n = sum(array.nbytes for block in rows for part in block for array in part)
        n_rows = sum(len(block[0].values) for block in rows)
        title = f"<em>{escape(name)}</em>: " if name != ALONE else ""
        about = f"{count(len(rows), 'block')}, {count(n_rows, 'row')}, {size(n)}, "
        about += escape(store._dtypes[name])
        lines = [
            (display.entry(structure.keys.names, key), *_part(path, part))
            for key, of_block, block in zip(
                structure.keys.values[:_LINES], structure.blocks, rows, strict=False
            )
            for (path, _), part in zip(of_block.walk(), block, strict=True)
        ]
        header = ("block", "rows of", "rows", "of shape", "size")
        body = display.table(header, lines)
        if len(rows) > _LINES:
            body += display.note(f"and {len(rows) - _LINES} more blocks")
        parts.append(display.folded(title + about, body))
    if len(store.names) > _LINES:
        parts.append(display.note(f"and {len(store.names) - _LINES} more maps"))
    where_from = "in memory" if store._folder is None else f"in {store._folder}"
    rest = f" of {count(len(store), 'system')}, {size(store.nbytes)}, {where_from}"
    return display.page("Store", rest, "".join(parts))


def _part(path: Sequence[str], part: Any) -> tuple[str, str, str, str]:
    what = f"gradient {'/'.join(path)}" if path else "values"
    n = sum(array.nbytes for array in part)
    return what, str(len(part.values)), str(part.values.shape[1:]), size(n)
