"""Rows into the room of a layout, and out again. NumPy alone: no device is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import numpy as np

from .._host.packing import is_increasing
from .._types.arrays import aligned, read_only
from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.structure import MapStructure
from .._types.tensor import TensorMap
from ._capacity import BlockRoom, MapRoom, Maps, below, systems_of, where
from ._fit import check_same_room


class Numbering:
    """The systems of a batch, numbered from 0.

    Maps with one row per system decide in which order: their rows go where
    ``out_samples`` has the systems. The others follow in the order in which they come.
    """

    def __init__(self, maps: Maps, system: str, capacity: int) -> None:
        self.system = system
        blocks = [block for tensor in maps.values() for block in tensor]
        one_each = [
            block.samples.column(system)
            for block in blocks
            if block.samples.names == [system]
        ]
        columns = [
            column
            for block in blocks
            for _, part in block._walk()
            if (column := systems_of(part, system)) is not None
        ]
        column = np.concatenate([_common_order(one_each), *columns])
        numbers, first = np.unique(column, return_index=True)
        order = np.argsort(first, kind="stable")
        self._numbers = numbers
        self._rank = np.empty(len(order), np.int32)
        self._rank[order] = np.arange(len(order), dtype=np.int32)
        if len(numbers) > capacity:
            raise MetatensorError(
                f"the batch has {len(numbers)} systems, but the layout has room for "
                f"{capacity}"
            )
        #: the own number of each system, then padding
        self.own = np.full(capacity, Labels.PADDING, np.int32)
        self.own[: len(order)] = numbers[order]

    def apply(self, column: np.ndarray) -> np.ndarray:
        """From own numbers to those in the batch."""
        return self._rank[np.searchsorted(self._numbers, column)]


def _common_order(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Systems in an order that all columns have, each of them perhaps with gaps."""
    if len(columns) == 0:
        return np.zeros(0, np.int32)
    longest = max(columns, key=len)
    together = np.unique(np.concatenate(columns))
    if len(longest) == len(together):
        return longest
    if all(is_increasing(column[:, None]) for column in columns):
        return together
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for column in columns:
        for before, after in pairwise(column.tolist()):
            sorter.add(after, before)
    try:
        return np.array(list(sorter.static_order()), np.int32)
    except CycleError:
        return longest  # there is none: the others are told to be sorted


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
) -> tuple[list[Any], np.ndarray]:
    """The leaves of a padded map, and where each of its blocks was (-1: nowhere).

    :param structure: that of the room, which is made once for all batches
    """
    dtype = np.dtype(room.dtype)
    if len(tensor) and tensor.dtype != dtype:
        raise MetatensorError(
            f"the layout is for {dtype} values, but those of the batch are "
            f"{tensor.dtype}: convert them with `.to(dtype='{dtype}')`"
        )
    for key, value in room.info:
        if tensor.get_info(key) not in (value, None):
            raise MetatensorError(
                f"the layout is for maps with the info {key!r}: {value!r}, but that of "
                f"the batch is {tensor.get_info(key)!r}"
            )
    at = room.keys.select(tensor.keys) if len(tensor) else np.zeros(0, int)
    order = np.full(len(room.keys), -1, np.int32)
    order[at] = np.arange(len(tensor), dtype=np.int32)
    blocks = tensor.blocks()
    leaves: list[Any] = []
    for i, (key, of_block) in enumerate(zip(room.keys, room.blocks, strict=True)):
        if order[i] < 0:
            _add_nothing(leaves, of_block, bucket, dtype)
            continue
        block, what = blocks[order[i]], where(name, key.print())
        check_same_room(what, structure.blocks[i], block._structure)
        place = _places(what, block, numbering)
        _add_block(leaves, block, of_block, bucket, numbering, place)
    return leaves, order


def _places(what: str, block: TensorBlock, numbering: Numbering) -> np.ndarray | None:
    """Where the rows go; None for one after the other."""
    if block.samples.names != [numbering.system]:
        return None
    place = numbering.apply(block.samples.column(numbering.system))
    if np.any(place[1:] < place[:-1]):
        raise MetatensorError(
            f"{what} has the systems in another order than other maps of the batch, "
            f"{block.samples.column(numbering.system).tolist()}: sort it first"
        )
    return place


def _add_nothing(
    leaves: list[Any], room: BlockRoom, bucket: int, dtype: np.dtype
) -> None:
    leaves += map(read_only, _empty(room, bucket, dtype))
    for _, inner in room.gradients:
        _add_nothing(leaves, inner, bucket, dtype)


def _empty(room: BlockRoom, bucket: int, dtype: np.dtype) -> list[np.ndarray]:
    n = room.rows[bucket]
    shape = (n, *map(len, room.components), len(room.properties))
    samples = np.full((n, len(room.sample_names)), Labels.PADDING, np.int32)
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
        labels[:, 0] = parents[labels[:, 0]]
    samples[rows] = labels
    leaves += [read_only(values), read_only(samples)]
    for name, inner in room.gradients:
        gradient = block.gradient(name)
        _add_block(leaves, gradient, inner, bucket, numbering, None, place)


# --- and out again -------------------------------------------------------------------


def unpad_map(
    tensor: TensorMap, order: np.ndarray | None, systems: np.ndarray, system: str
) -> TensorMap:
    """The rows that are no padding, with the own numbers of their systems.

    :param order: where each block was before, -1 for those that were not there. If
        None, all of them stay.
    """
    if order is None:
        kept = np.arange(len(tensor))
    else:
        kept = np.flatnonzero(order >= 0)
        kept = kept[np.argsort(order[kept])]
    blocks = [_unpad(tensor.block_by_id(int(i)), systems, system) for i in kept]
    keys = Labels(tensor.keys.names, tensor.keys.values[kept])
    return TensorMap(keys, blocks, tensor.info())


def _unpad(
    block: TensorBlock,
    systems: np.ndarray,
    system: str,
    parents: np.ndarray | None = None,
) -> TensorBlock:
    """One block.

    :param parents: which rows of the values are real, if this is a gradient of them
    """
    samples = np.array(block.samples.values)
    real = samples[:, 0] != Labels.PADDING
    if parents is not None:
        inside = (samples[:, 0] >= 0) & (samples[:, 0] < len(parents))
        real &= inside & parents[np.where(inside, samples[:, 0], 0)]
    if system in block.samples.names:
        i = block.samples.names.index(system)
        number = samples[:, i]
        inside = (number >= 0) & (number < len(systems))
        own = systems[np.where(inside, number, 0)]
        real &= inside & (own != Labels.PADDING)
        samples[:, i] = own
    if parents is not None:
        new_row = np.cumsum(parents) - 1
        samples[real, 0] = new_row[samples[real, 0]]
    gradients = {
        name: _unpad(gradient, systems, system, real)
        for name, gradient in block.gradients()
    }
    return TensorBlock(
        np.asarray(block.values)[real],
        Labels(block.samples.names, samples[real]),
        block.components,
        block.properties,
        gradients,
    )
