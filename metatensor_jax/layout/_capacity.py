"""How much room there is for the rows of blocks, and its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from .._types.block import TensorBlock
from .._types.entry import check_names
from .._types.errors import MetatensorError
from .._types.foreign import metatensor_kind, type_of
from .._types.labels import Labels
from .._types.structure import BlockStructure, MapStructure
from .._types.tensor import TensorMap
from ..operations.checks import check_not_batched


@dataclass(frozen=True)
class BlockRoom:
    """Room for the rows of a block, and for those of its gradients.

    :param rows: how many rows there are room for, in each bucket
    :param expected: how many rows a batch has in the mean, if that is known
    """

    rows: tuple[int, ...]
    sample_names: tuple[str, ...]
    components: tuple[Labels, ...]
    properties: Labels
    gradients: tuple[tuple[str, BlockRoom], ...]
    expected: float | None = None

    def check(self, n_buckets: int) -> None:
        """Raise unless this is room for so many buckets."""
        check_names(self.sample_names)
        rising = all(a <= b for a, b in pairwise((1, *self.rows)))
        if len(self.rows) != n_buckets or not rising:
            raise MetatensorError(
                f"the room for rows must be at least 1 and not fall, for {n_buckets} "
                f"buckets, got {self.rows}"
            )
        if not isinstance(self.expected, (int, float, type(None))):
            raise MetatensorError(
                f"the expected rows must be a number, got {self.expected!r}"
            )
        for _, room in self.gradients:
            room.check(n_buckets)

    def union(self, other: BlockRoom) -> BlockRoom:
        """Room for either of two; they differ in nothing but their rows."""
        rows = tuple(max(pair) for pair in zip(self.rows, other.rows, strict=True))
        inner = zip(self.gradients, other.gradients, strict=True)
        gradients = tuple((name, mine.union(its)) for (name, mine), (_, its) in inner)
        return replace(self, rows=rows, gradients=gradients)

    def structure(self) -> BlockStructure:
        """That of a padded block: it does not depend on the number of rows."""
        samples = Labels._make(self.sample_names, None, static=False)
        gradients = tuple((name, room.structure()) for name, room in self.gradients)
        return BlockStructure(samples, self.components, self.properties, gradients)

    def walk(self, path: str = "samples") -> Iterator[tuple[str, BlockRoom]]:
        """This room and those of all gradients, with a name for each."""
        yield path, self
        for name, room in self.gradients:
            yield from room.walk(below(path, name))

    def to_json(self) -> dict[str, Any]:
        """As plain lists and dicts."""
        return {
            "rows": list(self.rows),
            "expected": self.expected,
            "sample_names": list(self.sample_names),
            "components": [labels_to_json(labels) for labels in self.components],
            "properties": labels_to_json(self.properties),
            "gradients": {name: room.to_json() for name, room in self.gradients},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BlockRoom:
        """The inverse of :meth:`to_json`."""
        return cls(
            rows=tuple(int(n) for n in data["rows"]),
            sample_names=tuple(data["sample_names"]),
            components=tuple(labels_from_json(c) for c in data["components"]),
            properties=labels_from_json(data["properties"]),
            gradients=tuple(
                (name, cls.from_json(room))
                for name, room in sorted(data["gradients"].items())
            ),
            expected=data["expected"],
        )


@dataclass(frozen=True)
class MapRoom:
    """Room for a map: all keys that it can have, and the room of each block."""

    keys: Labels
    blocks: tuple[BlockRoom, ...]
    dtype: str
    info: tuple[tuple[str, str], ...]

    def check(self, n_buckets: int) -> None:
        """Raise unless this is room for so many buckets."""
        if len(self.keys) != len(self.blocks):
            raise MetatensorError(
                f"there is room for {len(self.blocks)} blocks, but there are "
                f"{len(self.keys)} keys"
            )
        for room in self.blocks:
            room.check(n_buckets)

    def union(self, other: MapRoom) -> MapRoom:
        """Room for either of two."""
        pairs = zip(self.blocks, other.blocks, strict=True)
        return replace(self, blocks=tuple(mine.union(its) for mine, its in pairs))

    def structure(self) -> MapStructure:
        """That of a padded map."""
        blocks = tuple(room.structure() for room in self.blocks)
        return MapStructure(self.keys, blocks, self.info)

    def walk(self) -> Iterator[tuple[str, str, BlockRoom]]:
        """The key, the path and the room of each block and each gradient."""
        for key, block in zip(self.keys, self.blocks, strict=True):
            for path, room in block.walk():
                yield key.print(), path, room

    def to_json(self) -> dict[str, Any]:
        """As plain lists and dicts."""
        return {
            "keys": labels_to_json(self.keys),
            "blocks": [room.to_json() for room in self.blocks],
            "dtype": self.dtype,
            "info": dict(self.info),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MapRoom:
        """The inverse of :meth:`to_json`."""
        return cls(
            keys=labels_from_json(data["keys"]),
            blocks=tuple(BlockRoom.from_json(room) for room in data["blocks"]),
            dtype=np.dtype(data["dtype"]).name,
            info=tuple(sorted(data["info"].items())),
        )


def labels_to_json(labels: Labels) -> dict[str, Any]:
    """Names and values."""
    return {"names": labels.names, "values": labels.values.tolist()}


def labels_from_json(data: Mapping[str, Any]) -> Labels:
    """The inverse of :func:`labels_to_json`."""
    if len(data["values"]) == 0:
        return Labels.empty(data["names"])
    return Labels(data["names"], data["values"])


# --- what a layout needs to know of maps ---------------------------------------------

Maps = Mapping[str, TensorMap]
#: the name of a map that comes alone
ALONE = ""


def as_maps(tensors: TensorMap | Maps) -> Maps:
    """Maps by name; one that comes alone has no name."""
    if isinstance(tensors, Mapping) and ALONE in tensors:
        raise MetatensorError(
            f"maps by name have names that are not empty, got {sorted(tensors)}"
        )
    if isinstance(tensors, TensorMap):
        tensors = {ALONE: tensors}
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, TensorMap)
        for name, tensor in tensors.items()
    ):
        given = list(tensors.values()) if isinstance(tensors, Mapping) else [tensors]
        wrong = [x for x in given if metatensor_kind(x)] or [tensors]
        raise TypeError(
            "a batch must be a TensorMap or a dict of TensorMaps by name, not "
            f"{type_of(wrong[0])}"
        )
    for name, tensor in tensors.items():
        for key, block in tensor.items():
            check_not_batched(where(name, key.print()), block)
    return tensors


def where(name: str, key: str, path: str = "samples") -> str:
    """In words: one block of one of the maps, or a gradient of it."""
    of_map = f" of '{name}'" if name != ALONE else ""
    of_gradient = f", gradient '{path}'" if path != "samples" else ""
    return f"block {key}{of_map}{of_gradient}"


def below(path: str, name: str) -> str:
    """The path of a gradient, from that of the block that it belongs to."""
    return name if path == "samples" else f"{path}/{name}"


def all_systems(tensors: Iterable[TensorMap], system: str) -> np.ndarray:
    """The systems of some maps, in ascending order."""
    columns = [systems_of(block, system) for tensor in tensors for block in tensor]
    return np.unique(np.concatenate([np.zeros(0, np.int32), *columns]))


def systems_of(block: TensorBlock, system: str) -> np.ndarray:
    """The system of each sample."""
    return block.samples._host_values("padding")[:, block.samples.names.index(system)]
