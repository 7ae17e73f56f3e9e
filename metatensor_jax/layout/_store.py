"""Store: all systems of a data set, such that a batch is a gather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .._types.arrays import Device, read_only
from .._types.conversion import check_not_narrowed
from .._types.entry import as_int32
from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.structure import BlockStructure, MapStructure
from .._types.tensor import TensorMap
from ..operations.checks import check_ours
from ..operations.dimensions import replace_dimension
from ..operations.joining import join
from ._capacity import (
    ALONE,
    BlockRoom,
    MapRoom,
    Maps,
    all_systems,
    as_maps,
    systems_of,
    where,
)
from ._check import check_block
from ._fit import Rule
from ._flat import Rows, flat_rows
from ._folded import Folded
from ._gather import Filling
from ._layout import Layout, PaddedBatch, bucket_sizes
from ._on_device import StoreOnDevice


class Store:
    """All systems of a data set as flat arrays, from which batches are gathered.

    The rows of each block and each gradient lie one system after the other, and their
    labels are packed once. So a batch is one gather for each array: no labels are made,
    searched or compared.

    Make one with :meth:`from_maps`. Its systems are in ascending order of their own
    numbers, ``store.systems``; ``batch`` and ``maps`` take positions in this order.

    >>> import metatensor_jax as mts
    >>> samples = Labels(["system", "atom"], [[3, 0], [3, 1], [7, 0], [9, 0]])
    >>> block = mts.TensorBlock(
    ...     np.arange(4.0).reshape(4, 1), samples, [], Labels.range("p", 1)
    ... )
    >>> store = Store.from_maps(TensorMap(Labels.single(), [block]))
    >>> store
    Store of 3 systems
        1 block, 4 rows, 0.1 kB
    >>> layout = store.layout(systems=2)
    >>> batch = store.batch([2, 0], layout)
    >>> batch.systems.tolist(), batch.tensors.block().values[:, 0].tolist()
    ([3, 9], [0.0, 1.0, 3.0])
    """

    def __init__(
        self,
        systems: np.ndarray,
        structures: Mapping[str, MapStructure],
        rows: Mapping[str, Sequence[Sequence[Rows]]],
        dtypes: Mapping[str, str],
        system: str = "system",
    ) -> None:
        self._systems, self._system = read_only(systems), system
        self._structures, self._rows, self._dtypes = structures, rows, dtypes
        self._fillings: dict[Layout, Filling] = {}
        self._layouts: dict[int, Layout] = {}

    @classmethod
    def from_maps(
        cls,
        maps: Sequence[TensorMap | Maps] | TensorMap | Maps,
        *,
        system: str = "system",
    ) -> Store:
        """Put a data set into a store.

        :param maps: all of it as one map, or as a dict of maps; or a list of these, of
            which each has some of the systems. If systems of a list have the same
            number, as when they were computed one by one, each item must be one system,
            and its number becomes its position in the list.
        :param system: the sample dimension that tells systems apart
        :raises MetatensorError: samples without the dimension ``system``, gradient rows
            that name another system than their sample, labels that are
            ``Labels.PADDING``, items of a list that do not fit together
        :raises TracedLabelsError: traced samples
        """
        whole = as_maps(_joined(maps, system))
        for name, tensor in whole.items():
            for key, block in tensor.items():
                check_block(where(name, key.print()), block, system)
        systems = all_systems(whole.values(), system)
        structures, rows, dtypes = {}, {}, {}
        for name, tensor in whole.items():
            blocks = [_traced(block._structure) for block in tensor]
            structures[name] = MapStructure(
                tensor.keys, tuple(blocks), tensor._structure.info
            )
            rows[name] = [
                list(flat_rows(block, at, len(systems)))
                for block in tensor
                for at in [np.searchsorted(systems, systems_of(block, system))]
            ]
            dtypes[name] = str(tensor.dtype) if len(tensor) else "float32"
        return cls(systems, structures, rows, dtypes, system)

    @property
    def systems(self) -> np.ndarray:
        """The own number of each system, in ascending order."""
        return self._systems

    @property
    def names(self) -> list[str]:
        """Of the maps; ``""`` for one that came alone."""
        return list(self._structures)

    @property
    def nbytes(self) -> int:
        """Size of all arrays, in bytes."""
        return sum(array.nbytes for rows in self._all_rows() for array in rows)

    def counts(self, name: str | None = None) -> np.ndarray:
        """How many rows each system has, in all blocks of a map together.

        This is what batches are packed by: the number of atoms, for a map with a row
        for each atom.

        :param name: of the map; all of them together if None
        """
        names = self.names if name is None else [name]
        total = np.zeros(len(self), np.int64)
        for one in names:
            if one not in self._rows:
                raise MetatensorError(
                    f"there is no map {one!r} in this store, only {self.names}"
                )
            for of_block in self._rows[one]:
                total += np.diff(of_block[0].offsets)
        return total

    def __len__(self) -> int:
        return len(self._systems)

    def __repr__(self) -> str:
        n_blocks = sum(map(len, self._rows.values()))
        n_rows = sum(len(of[0].values) for rows in self._rows.values() for of in rows)
        of_maps = "" if self.names == [ALONE] else f" with the maps {self.names}"
        blocks = "block" if n_blocks == 1 else "blocks"
        return (
            f"Store of {len(self)} systems{of_maps}\n    {n_blocks} {blocks}, "
            f"{n_rows} rows, {_size(self.nbytes)}"
        )

    # --- batches -------------------------------------------------------------------

    def layout(
        self,
        systems: int,
        *,
        buckets: int | Sequence[float] = 1,
        headroom: float = 1.0,
    ) -> Layout:
        """What :meth:`Layout.fit` gives for these data, without their labels."""
        fractions = bucket_sizes(systems, buckets, headroom)
        n_units = min(systems, len(self))
        rule = Rule(len(self), n_units, fractions, self._system, systems, headroom)
        rooms = {
            name: MapRoom(
                structure.keys,
                tuple(
                    _room(block, rows, rule)
                    for block, rows in zip(
                        structure.blocks, self._rows[name], strict=True
                    )
                ),
                self._dtypes[name],
                structure.info,
            )
            for name, structure in self._structures.items()
        }
        return Layout(rooms, systems, fractions, self._system)

    def batch(
        self, indices: Sequence[int] | np.ndarray, layout: Layout | None = None
    ) -> PaddedBatch:
        """Some systems, padded: what ``layout.pad(store.maps(indices))`` gives.

        :param indices: positions of systems, in any order, each of them once
        :param layout: the room for them; that for the largest batches with as many
            systems if None. Maps that it does not have are left out.
        :raises MetatensorError: more rows, or other maps or blocks, than the layout has
            room for; a system twice
        :raises IndexError: a position that there is not
        """
        folded, leaves = self._gathered(indices, layout)
        return jax.tree.unflatten(folded.structure, leaves)

    def folded(
        self, indices: Sequence[int] | np.ndarray, layout: Layout | None = None
    ) -> Folded:
        """The same as one buffer for each dtype, to be unfolded in a program."""
        return self._gathered(indices, layout)[0]

    def _gathered(
        self, indices: Sequence[int] | np.ndarray, layout: Layout | None
    ) -> tuple[Folded, list[np.ndarray]]:
        at = self._positions(indices)
        if layout is None:
            layout = self._layouts.get(len(at))
            if layout is None:
                layout = self._layouts[len(at)] = self.layout(max(len(at), 1))
        return self._filling(layout).batch(self._systems, at)

    def maps(
        self, indices: Sequence[int] | np.ndarray
    ) -> TensorMap | dict[str, TensorMap]:
        """Some systems as maps, with their own numbers: all blocks, without padding.

        :param indices: as for :meth:`batch`
        """
        at = self._positions(indices)
        layout = self.layout(max(len(at), 1))
        folded, _ = self._filling(layout, keep=False).batch(self._systems, at)
        return layout.unpad(folded.unfold())

    def on_device(self, layout: Layout, device: Device | None = None) -> StoreOnDevice:
        """Place all systems on a device, where batches are gathered in a program.

        :param layout: what batches have room for: of as many systems as it is for,
            whichever they are
        :param device: a device, or a sharding; JAX's default if None
        :raises MetatensorError: a layout that the largest systems do not fit into
        :raises TypeError: 64-bit data that JAX would narrow
        """
        filling = self._filling(layout)
        filling.check_largest()
        for name in layout.rooms:
            check_not_narrowed(np.dtype(self._dtypes[name]))
        rows = [x._replace(offsets=as_int32(x.offsets)) for x in filling.rows]
        arrays = jax.device_put((rows, self._systems), device)
        return StoreOnDevice(filling.recipe, *arrays)

    def _filling(self, layout: Layout, keep: bool = True) -> Filling:
        """How batches of a layout are filled: worked out once for each layout."""
        filling = self._fillings.get(layout)
        if filling is None:
            parts = self._structures, self._rows, self._dtypes
            filling = Filling(layout, *parts, len(self))
            if keep:
                self._fillings[layout] = filling
        return filling

    def _positions(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """In ascending order."""
        at = np.asarray(indices)
        if at.ndim != 1 or (at.size and at.dtype.kind not in "iu"):
            raise TypeError(
                "`indices` must be a list of positions of systems, not "
                f"{at.dtype} with shape {at.shape}"
            )
        at = np.sort(at.astype(np.int64))
        if len(at) and not 0 <= at[0] <= at[-1] < len(self):
            outside = at[0] if at[0] < 0 else at[-1]
            raise IndexError(f"there are {len(self)} systems, no system at {outside}")
        if (at[1:] == at[:-1]).any():
            twice = at[1:][at[1:] == at[:-1]][0]
            raise MetatensorError(f"the system at {twice} is there twice")
        return at

    def _all_rows(self) -> list[Rows]:
        return [
            rows for blocks in self._rows.values() for block in blocks for rows in block
        ]


# --- how -----------------------------------------------------------------------------


def _joined(maps: Any, system: str) -> Any:
    """A list of maps, or of dicts of maps, as one; systems get numbers of their own."""
    if isinstance(maps, (TensorMap, Mapping)):
        return maps
    check_ours(maps, "maps")
    if not isinstance(maps, Sequence):
        raise TypeError(
            "a store is made of a map, of a dict of maps, or of a list of these, not "
            f"of {type_of(maps)}"
        )
    if not maps:
        raise MetatensorError("a store needs at least one map, got none")
    items = [as_maps(item) for item in maps]
    for item in items:
        if sorted(item) != sorted(items[0]):
            raise MetatensorError(
                f"all items must have the same maps, got {sorted(items[0])} and "
                f"{sorted(item)}"
            )
    if len(items) == 1:
        return items[0]
    own = [all_systems(item.values(), system) for item in items]
    if len(np.unique(np.concatenate(own))) < sum(map(len, own)):
        items = _numbered(items, own, system)
    return {
        name: join([item[name] for item in items], "samples", different_keys="union")
        for name in items[0]
    }


def _numbered(
    items: Sequence[Maps], own: Sequence[np.ndarray], system: str
) -> list[Maps]:
    """Each item is one system, whose number becomes its position."""
    for i, numbers in enumerate(own):
        if len(numbers) > 1:
            raise MetatensorError(
                f"item {i} has the systems {numbers.tolist()}, and others have some of "
                "these numbers as well: number them apart, or give one system each"
            )
    return [
        {name: replace_dimension(x, "samples", system, i) for name, x in item.items()}
        for i, item in enumerate(items)
    ]


def _traced(structure: BlockStructure) -> BlockStructure:
    """With samples that are data."""
    samples = Labels._make(structure.sample_names, None, static=False)
    gradients = tuple((name, _traced(inner)) for name, inner in structure.gradients)
    return BlockStructure(
        samples, structure.components, structure.properties, gradients
    )


def _room(structure: BlockStructure, rows: Sequence[Rows], rule: Rule) -> BlockRoom:
    of_parts = iter(rows)

    def room(part: BlockStructure) -> BlockRoom:
        counts = np.diff(next(of_parts).offsets)
        capacity, expected = rule.rows(part.sample_names, counts)
        gradients = tuple((name, room(inner)) for name, inner in part.gradients)
        axes = part.sample_names, part.components, part.properties
        return BlockRoom(capacity, *axes, gradients, expected)

    return room(structure)


def _size(n_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.1f} kB"
