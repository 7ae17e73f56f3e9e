"""How much room a layout needs for a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import first_difference
from .._types.structure import BlockStructure
from .._types.tensor import TensorMap
from ._capacity import (
    ALONE,
    BlockRoom,
    MapRoom,
    Maps,
    all_systems,
    as_maps,
    below,
    systems_of,
    where,
)
from ._check import check_block

Units = list[tuple[TensorBlock, Any]]  # a block, and which unit each row is of


def fit_rooms(
    examples: Sequence[TensorMap | Maps] | TensorMap | Maps,
    systems: int,
    fractions: Sequence[float],
    system: str,
    headroom: float = 1.0,
) -> dict[str, MapRoom]:
    """Room for each map, such that any batch of this many systems fits.

    The data comes in units that stay whole: single systems of one large map, or the
    items of a list. The largest of these together are what a batch can be at most.
    """
    if isinstance(examples, (TensorMap, Mapping)):
        whole = as_maps(examples)
        _check_all([whole], system)
        numbers = all_systems(whole.values(), system)
        n_units = min(systems, len(numbers))
        rule = Rule(len(numbers), n_units, tuple(fractions), system, systems, headroom)
        return _rooms([whole], numbers, rule)
    of_each = [as_maps(example) for example in examples]
    if not of_each:
        raise MetatensorError("a layout needs at least one example to be fitted to")
    _check_all(of_each, system)
    largest = max(len(all_systems(maps.values(), system)) for maps in of_each)
    n_units = min(max(systems // max(largest, 1), 1), len(of_each))
    rule = Rule(len(of_each), n_units, tuple(fractions), system, systems, headroom)
    return _rooms(of_each, None, rule)


def _check_all(examples: Sequence[Maps], system: str) -> None:
    for maps in examples:
        for name, tensor in maps.items():
            for key, block in tensor.items():
                check_block(where(name, key.print()), block, system)


def _rooms(
    examples: Sequence[Maps], numbers: np.ndarray | None, rule: Rule
) -> dict[str, MapRoom]:
    names = list(examples[0])
    for maps in examples:
        if sorted(maps) != sorted(names):
            raise MetatensorError(
                f"all examples must have the same maps, got {sorted(names)} and "
                f"{sorted(maps)}"
            )
    return {
        name: _map_room(name, [maps[name] for maps in examples], numbers, rule)
        for name in names
    }


def _map_room(
    name: str, tensors: Sequence[TensorMap], numbers: np.ndarray | None, rule: Rule
) -> MapRoom:
    first = tensors[0]
    keys = first.keys
    for tensor in tensors[1:]:
        if tensor.keys.names != keys.names:
            raise MetatensorError(
                f"all examples must have the same names of keys, got {keys.names} and "
                f"{tensor.keys.names}"
            )
        keys = keys.union(tensor.keys)
    dtypes = sorted({str(tensor.dtype) for tensor in tensors if len(tensor)})
    if len(dtypes) > 1:
        raise MetatensorError(f"all examples must have the same dtype, got {dtypes}")
    members: list[Units] = [[] for _ in keys]
    for i, tensor in enumerate(tensors):
        for at, block in zip(keys.select(tensor.keys), tensor, strict=True):
            unit: Any = i
            if numbers is not None:
                unit = np.searchsorted(numbers, systems_of(block, rule.system))
            members[at].append((block, unit))
    blocks = [
        _block_room(where(name, key.print()), units, rule)
        for key, units in zip(keys, members, strict=True)
    ]
    infos = [set(tensor.info().items()) for tensor in tensors]
    info = tuple(sorted(set.intersection(*infos)))
    return MapRoom(keys, tuple(blocks), dtypes[0] if dtypes else "float32", info)


class Rule(NamedTuple):
    """From the rows of each unit to the room for a batch.

    :param total: how many units the data has
    :param n_units: how many of them are a batch
    :param fractions: the size of each bucket
    :param system: the dimension that tells systems apart
    :param systems: how many of them a batch has
    :param headroom: room for so many times as many rows
    :param batches: the units of each batch, if these are known; any units otherwise
    """

    total: int
    n_units: int
    fractions: tuple[float, ...]
    system: str
    systems: int
    headroom: float = 1.0
    batches: Sequence[np.ndarray] | None = None

    def rows(
        self, sample_names: Sequence[str], counts: np.ndarray
    ) -> tuple[tuple[int, ...], float]:
        """The capacity in each bucket, and how many rows there are in the mean.

        :param counts: how many rows each unit has
        """
        if tuple(sample_names) == (self.system,):
            # a row for each system, there or not, so that rows line up
            return (self.systems,) * len(self.fractions), float(self.systems)
        most = self._most(counts) * self.headroom
        rows = tuple(max(1, int(np.ceil(most * f))) for f in self.fractions)
        mean = float(counts.sum() / max(self.total, 1) * self.n_units)
        return rows, mean

    def _most(self, counts: np.ndarray) -> int:
        """How many rows a batch has at most."""
        if self.batches is None:
            return int(np.sort(counts)[-self.n_units :].sum())
        return max((int(counts[batch].sum()) for batch in self.batches), default=0)

    def counts_of(self, units: Units) -> np.ndarray:
        """How many rows each unit has."""
        counts = np.zeros(self.total, np.int64)
        for block, unit in units:
            if isinstance(unit, int):
                counts[unit] += len(block)
            else:
                counts += np.bincount(unit, minlength=self.total)
        return counts


def _block_room(what: str, units: Units, rule: Rule) -> BlockRoom:
    first = units[0][0]
    for block, _ in units[1:]:
        check_same_room(what, first._structure, block._structure)
    rows, expected = rule.rows(first.samples.names, rule.counts_of(units))
    gradients = []
    for name in first.gradients_list():
        parts = [
            (block.gradient(name), _unit_of_gradient(block.gradient(name), unit))
            for block, unit in units
        ]
        gradients.append((name, _block_room(f"{what}, gradient '{name}'", parts, rule)))
    return BlockRoom(
        rows,
        tuple(first.samples.names),
        tuple(first.components),
        first.properties,
        tuple(gradients),
        expected,
    )


def room_of(
    structure: BlockStructure, counts: Sequence[np.ndarray], rule: Rule
) -> BlockRoom:
    """Room for a block whose systems have so many rows.

    :param counts: of the block and its gradients, as ``BlockStructure.walk``
    """
    of_parts = iter(counts)

    def room(part: BlockStructure) -> BlockRoom:
        capacity, expected = rule.rows(part.sample_names, next(of_parts))
        gradients = tuple((name, room(inner)) for name, inner in part.gradients)
        axes = part.sample_names, part.components, part.properties
        return BlockRoom(capacity, *axes, gradients, expected)

    return room(structure)


def _unit_of_gradient(gradient: TensorBlock, unit: Any) -> Any:
    if isinstance(unit, int):
        return unit
    return unit[gradient.samples.column("sample")]


def check_same_room(what: str, first: BlockStructure, other: BlockStructure) -> None:
    """Raise unless two blocks differ in the values of their samples only."""
    for (path, mine), (_, its) in zip(first.walk(), other.walk(), strict=False):
        of_gradient = "".join([f", gradient '{name}'" for name in path])
        _check_same_axes(what + of_gradient, mine, its)


def _check_same_axes(what: str, first: BlockStructure, other: BlockStructure) -> None:
    if first.sample_names != other.sample_names:
        raise MetatensorError(
            f"the samples of {what} should have the dimensions "
            f"{list(first.sample_names)}, but they have {list(other.sample_names)}"
        )
    names, others = ([name for name, _ in s.gradients] for s in (first, other))
    if names != others:
        raise MetatensorError(
            f"{what} should have gradients with respect to {names}, but it has {others}"
        )
    if len(first.components) != len(other.components):
        raise MetatensorError(
            f"{what} should have {len(first.components)} components, but it has "
            f"{len(other.components)}"
        )
    axes = [("properties", first.properties, other.properties)]
    pairs = zip(first.components, other.components, strict=True)
    axes += [("components", mine, its) for mine, its in pairs]
    for axis, mine, its in axes:
        if mine is not its and mine != its:
            raise MetatensorError(
                f"the {axis} of {what} should be the same in each batch, but "
                f"{first_difference(mine, its)}; give them the same {axis} before "
                "(for example with Labels in `keys_to_properties`)"
            )


Capacities = Mapping[str, Any]


def declared_rooms(
    example: TensorMap | Maps,
    capacities: Capacities | Mapping[str, Capacities],
    systems: int,
    system: str,
) -> dict[str, MapRoom]:
    """Room that somebody has chosen: for samples, and for gradients by their path."""
    rooms = fit_rooms([example], systems, [1.0], system)
    return {
        name: replace(
            room,
            blocks=tuple(
                _declared_block(
                    where(name, key.print()),
                    block,
                    _of(capacities, name) if name != ALONE else capacities,
                    i,
                    systems,
                    system,
                )
                for i, (key, block) in enumerate(
                    zip(room.keys, room.blocks, strict=True)
                )
            ),
        )
        for name, room in rooms.items()
    }


def _of(capacities: Mapping[str, Any], name: str) -> Any:
    if name not in capacities:
        raise MetatensorError(
            f"there are no capacities for '{name}', only for {sorted(capacities)}"
        )
    return capacities[name]


def _declared_block(
    what: str, room: BlockRoom, given: Capacities, i: int, systems: int, system: str
) -> BlockRoom:
    unused = set(given) - {path for path, _ in room.walk()}
    if unused:
        raise MetatensorError(
            f"there are capacities for {sorted(unused)}, but {what} has "
            f"{[path for path, _ in room.walk()]}"
        )

    def declare(room: BlockRoom, path: str) -> BlockRoom:
        n = _of(given, path)
        gradients = tuple(
            (name, declare(g, below(path, name))) for name, g in room.gradients
        )
        n = int(n[i]) if isinstance(n, Sequence) else int(n)
        if n < 1:
            raise MetatensorError(f"the capacity of {what}, '{path}', is {n}, not >= 1")
        if room.sample_names == (system,):
            n = systems  # a row for each system, there or not, so that rows line up
        return replace(room, rows=(n,), gradients=gradients, expected=None)

    return declare(room, "samples")
