"""Rows into the room of a layout, and out again. NumPy alone: no device is touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._host.packing import with_parents
from .._types.arrays import aligned, read_only
from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.padding import filled, is_padding
from .._types.structure import MapStructure
from .._types.tensor import TensorMap
from ._capacity import BlockRoom, MapRoom, Maps, all_systems, below, systems_of, where
from ._fit import check_same_room


class Numbering:
    """The systems of a batch, numbered from 0 in ascending order of their own number.

    So their order depends on nothing but these numbers, and is that of all maps.
    """

    def __init__(self, maps: Maps, system: str, capacity: int) -> None:
        self.system = system
        self._numbers = all_systems(maps.values(), system)
        n = len(self._numbers)
        if n > capacity:
            raise MetatensorError(
                f"the batch has {n} systems, but the layout has room for {capacity}"
            )
        #: the own number of each system, then padding
        self.own = np.full(capacity, Labels.PADDING, np.int32)
        self.own[:n] = self._numbers

    def apply(self, column: np.ndarray) -> np.ndarray:
        """From own numbers to those in the batch."""
        return np.searchsorted(self._numbers, column).astype(np.int32)


def needs(
    tensor: TensorMap, room: MapRoom
) -> Iterator[tuple[str, str, int, BlockRoom]]:
    """The rows of each block and gradient, beside the room for them."""
    for key, block in tensor.items():
        at = room.keys.position(key)
        if at is None:
            raise MetatensorError(
                f"the layout has no room for the block {key.print()}, only for\n"
                f"{room.keys}\nfit it to data that has this block as well"
            )
        for path, n, of_block in _needs(block, room.blocks[at]):
            yield key.print(), path, n, of_block


def _needs(
    block: TensorBlock, room: BlockRoom, path: str = "samples"
) -> Iterator[tuple[str, int, BlockRoom]]:
    yield path, len(block), room
    for name, inner in room.gradients:
        if block.has_gradient(name):
            yield from _needs(block.gradient(name), inner, below(path, name))


def pad_map(
    name: str,
    tensor: TensorMap,
    room: MapRoom,
    structure: MapStructure,
    bucket: int,
    numbering: Numbering,
) -> tuple[list[Any], np.ndarray, np.ndarray | None]:
    """The leaves of a padded map, and where each of its blocks was (-1: nowhere).

    :param structure: that of the room, which is made once for all batches
    :returns: and for maps with one row per system, where each row of each block was
    """
    dtype = np.dtype(room.dtype)
    of_batch = str(tensor.dtype) if len(tensor) else room.dtype
    check_same_kind(tensor._structure.info, of_batch, room)
    at = room.keys.select(tensor.keys) if len(tensor) else np.zeros(0, int)
    order = np.full(len(room.keys), -1, np.int32)
    order[at] = np.arange(len(tensor), dtype=np.int32)
    blocks = tensor.blocks()
    rows = _no_rows(room, numbering)
    leaves: list[Any] = []
    for i, (key, of_block) in enumerate(zip(room.keys, room.blocks, strict=True)):
        if order[i] < 0:
            _add_nothing(leaves, of_block, bucket, dtype)
            continue
        block, what = blocks[order[i]], where(name, key.print())
        check_same_room(what, structure.blocks[i], block._structure)
        place = None  # one row after the other
        if rows is not None:  # each row where `out_samples` has its system
            place = numbering.apply(systems_of(block, numbering.system))
            rows[i, place] = np.arange(len(block))
        _add_block(leaves, block, of_block, bucket, numbering, place)
    return leaves, order, rows


def check_same_kind(
    info: tuple[tuple[str, str], ...], dtype: str, room: MapRoom
) -> None:
    """Raise if a map has another dtype, or other info, than the layout."""
    if dtype != room.dtype:
        raise MetatensorError(
            f"the layout is for {room.dtype} values, but those of the batch are "
            f"{dtype}: convert them with `.to(dtype='{room.dtype}')`"
        )
    known = dict(info)
    for key, value in room.info:
        if known.get(key) not in (value, None):
            raise MetatensorError(
                f"the layout is for maps with the info {key!r}: {value!r}, but that of "
                f"the batch is {known[key]!r}"
            )


def _no_rows(room: MapRoom, numbering: Numbering) -> np.ndarray | None:
    if any(block.sample_names != (numbering.system,) for block in room.blocks):
        return None
    return np.full((len(room.blocks), len(numbering.own)), -1, np.int32)


def _add_nothing(
    leaves: list[Any], room: BlockRoom, bucket: int, dtype: np.dtype
) -> None:
    for _, part in room.walk():
        leaves += map(read_only, _empty(part, bucket, dtype))


def _empty(room: BlockRoom, bucket: int, dtype: np.dtype) -> list[np.ndarray]:
    n = room.rows[bucket]
    shape = (n, *map(len, room.components), len(room.properties))
    samples = filled(n, len(room.sample_names))
    return [aligned(shape, dtype), samples]


def _add_block(
    leaves: list[Any],
    block: TensorBlock,
    room: BlockRoom,
    bucket: int,
    numbering: Numbering,
    place: np.ndarray | None,
    parents: np.ndarray | None = None,
) -> None:
    """The values and samples of a block, and then those of its gradients.

    :param place: where its rows go
    :param parents: where the rows went that this is a gradient of
    """
    values, samples = _empty(room, bucket, block.dtype)
    rows: Any = slice(len(block)) if place is None else place
    values[rows] = np.asarray(block.values)
    labels = block.samples._host_values("padding").copy()
    if numbering.system in block.samples.names:
        i = block.samples.names.index(numbering.system)
        labels[:, i] = numbering.apply(labels[:, i])
    if parents is not None:
        labels = with_parents(labels, parents[labels[:, 0]])
    samples[rows] = labels
    leaves += [read_only(values), read_only(samples)]
    for name, inner in room.gradients:
        gradient = block.gradient(name)
        _add_block(leaves, gradient, inner, bucket, numbering, None, place)


# --- and out again -------------------------------------------------------------------


def unpad_map(
    tensor: TensorMap,
    systems: np.ndarray,
    system: str,
    order: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> TensorMap:
    """The rows that are no padding, with the own numbers of their systems.

    :param order: where each block was before, -1 for those that were not there. If
        None, all of them stay.
    :param rows: where each row of each block was. If None, they stay in their order.
    """
    kept = np.arange(len(tensor))
    if order is not None:
        kept = np.flatnonzero(order >= 0)
        kept = kept[np.argsort(order[kept])]
    blocks = [
        _unpad(
            tensor.block_by_id(i), systems, system, None if rows is None else rows[i]
        )
        for i in kept.tolist()
    ]
    keys = Labels(tensor.keys.names, tensor.keys.values[kept])
    return TensorMap(keys, blocks, tensor.info())


def _unpad(
    block: TensorBlock,
    systems: np.ndarray,
    system: str,
    came: np.ndarray | None = None,
    new_rows: np.ndarray | None = None,
) -> TensorBlock:
    """One block.

    :param came: where each row was
    :param new_rows: where the rows go that this is a gradient of; -1 for nowhere
    """
    samples = np.array(block.samples.values)
    real = ~is_padding(samples)
    if new_rows is not None:
        samples[:, 0] = _look_up(new_rows, samples[:, 0], -1)
        real &= samples[:, 0] >= 0
    if system in block.samples.names:
        i = block.samples.names.index(system)
        samples[:, i] = _look_up(systems, samples[:, i], Labels.PADDING)
        real &= ~is_padding(samples[:, i])
    at = np.flatnonzero(real)
    if came is not None:
        at = at[np.argsort(came[at], kind="stable")]
    own_rows = np.full(len(samples), -1, np.int32)
    own_rows[at] = np.arange(len(at))
    gradients = {
        name: _unpad(gradient, systems, system, None, own_rows)
        for name, gradient in block.gradients()
    }
    return TensorBlock(
        np.asarray(block.values)[at],
        Labels(block.samples.names, samples[at]),
        block.components,
        block.properties,
        gradients,
    )


def _look_up(values: np.ndarray, index: np.ndarray, outside: int) -> np.ndarray:
    inside = (index >= 0) & (index < len(values))
    if len(values) == 0:
        return np.full(len(index), outside, np.int32)
    return np.where(inside, values[np.where(inside, index, 0)], outside)
