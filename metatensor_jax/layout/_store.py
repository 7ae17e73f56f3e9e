"""Store: all systems of a data set, such that a batch is a gather."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._types.arrays import Device, read_only
from .._types.conversion import check_not_narrowed
from .._types.display import in_treescope
from .._types.entry import as_int32
from .._types.errors import MetatensorError
from .._types.structure import MapStructure
from .._types.tensor import TensorMap
from ..io import load
from ..io._atomic import AnyPath, as_path
from ._capacity import (
    MapRoom,
    Maps,
    all_systems,
    as_maps,
    systems_of,
    where,
)
from ._check import check_block
from ._display import store_html, store_short, store_text
from ._fit import Rule, room_of
from ._flat import Rows, flat_rows, traced
from ._folded import Folded
from ._folder import Contents, read_all, write_all
from ._gather import Filling
from ._layout import Layout, PaddedBatch, bucket_sizes
from ._on_device import StoreOnDevice
from ._whole import as_whole
from ._writer import StoreWriter


class Store:
    """All systems of a data set as flat arrays, from which batches are gathered.

    The rows of each block and each gradient lie one system after the other, and their
    labels are packed once. So a batch is one gather for each array: no labels are made,
    searched or compared.

    Make one with :meth:`from_maps`, or :meth:`open` one on disk. Its systems are in
    ascending order of their own numbers, ``store.systems``; ``batch`` and ``maps`` take
    positions in this order.

    >>> import metatensor_jax as mts
    >>> samples = mts.Labels(["system", "atom"], [[3, 0], [3, 1], [7, 0], [9, 0]])
    >>> block = mts.TensorBlock(
    ...     np.arange(4.0).reshape(4, 1), samples, [], mts.Labels.range("p", 1)
    ... )
    >>> store = Store.from_maps(TensorMap(mts.Labels.single(), [block]))
    >>> store
    Store of 3 systems
        1 block, 4 rows, 96 B
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
        self._folder: Path | None = None

    @classmethod
    def from_maps(
        cls,
        maps: Sequence[TensorMap | Maps] | TensorMap | Maps,
        *,
        systems: Sequence[int] | None = None,
        system: str = "system",
    ) -> Store:
        """Put a data set into a store.

        :param maps: all of it as one map, or as a dict of maps; or a list of these, of
            which each has some of the systems. If systems of a list have the same
            number, as when they were computed one by one, each item must be one system,
            and its number becomes its position in the list.
        :param systems: the numbers of all systems, if some have no rows in any map; of
            the others it is known from their rows
        :param system: the sample dimension that tells systems apart
        :raises MetatensorError: samples without the dimension ``system``, gradient rows
            that name another system than their sample, labels that are
            ``Labels.PADDING``, items of a list that do not fit together
        :raises TracedLabelsError: traced samples
        """
        whole = as_maps(as_whole(maps, system))
        for name, tensor in whole.items():
            for key, block in tensor.items():
                check_block(where(name, key.print()), block, system)
        numbers = all_systems(whole.values(), system)
        if systems is not None:
            numbers = _all_of(as_int32(list(systems)), numbers)
        structures, rows, dtypes = {}, {}, {}
        for name, tensor in whole.items():
            blocks = [traced(block._structure) for block in tensor]
            structures[name] = MapStructure(
                tensor.keys, tuple(blocks), tensor._structure.info
            )
            rows[name] = [
                list(flat_rows(block, at, len(numbers)))
                for block in tensor
                for at in [np.searchsorted(numbers, systems_of(block, system))]
            ]
            dtypes[name] = str(tensor.dtype) if len(tensor) else "float32"
        return cls(numbers, structures, rows, dtypes, system)

    @classmethod
    def open(cls, path: AnyPath) -> Store:
        """A store on disk, in mapped files: what :meth:`save` or a writer has made.

        Data is read when a batch needs it, so it may be larger than memory.

        :param path: the folder
        :raises MetatensorError: a folder that is no store, or one that is damaged

        It warns if an entry is not complete, because the process that wrote it was
        killed; the store has all systems before it.
        """
        folder = as_path(path).absolute()  # wherever the process goes
        store = cls(*read_all(folder))
        store._folder = folder
        return store

    @classmethod
    def write(
        cls,
        path: AnyPath,
        items: Iterable[TensorMap | Maps | str | os.PathLike[str]],
        *,
        system: str = "system",
    ) -> Store:
        """Write systems to disk as they come, and open the store that they make.

        Only one of them is in memory at a time. A store that is there goes on.

        :param path: the folder
        :param items: of one system each: maps, dicts of maps, or ``.mts`` files; a
            generator that reads structures and makes maps of them is one
        :param system: the sample dimension that tells systems apart
        :raises MetatensorError: as :meth:`StoreWriter.append`; the systems before are
            there
        """
        with StoreWriter(path, system=system) as writer:
            for item in items:
                is_file = isinstance(item, (str, os.PathLike))
                writer.append(load(item) if is_file else item)
        return cls.open(path)

    def save(self, path: AnyPath) -> None:
        """Write it to disk: a folder, which is there as a whole or not at all.

        :param path: the folder; nothing is there, or an empty one. To add systems to a
            store, or to write one that is larger than memory, use
            :class:`StoreWriter`.
        :raises MetatensorError: there is something
        """
        write_all(as_path(path), self._contents)

    @property
    def _contents(self) -> Contents:
        rows = {name: list(map(list, blocks)) for name, blocks in self._rows.items()}
        structures, dtypes = dict(self._structures), dict(self._dtypes)
        return Contents(self._systems, structures, rows, dtypes, self._system)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._folder is not None:  # mapped files are mapped again elsewhere
            return Store.open, (self._folder,)
        return Store, tuple(self._contents)

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
        return store_text(self)

    def _repr_html_(self) -> str:
        return store_html(self)

    __treescope_repr__ = in_treescope(store_short)

    # --- batches -------------------------------------------------------------------

    def layout(
        self,
        systems: int,
        *,
        buckets: int | Sequence[float] = 1,
        headroom: float = 1.0,
        batches: Sequence[Sequence[int] | np.ndarray] | None = None,
    ) -> Layout:
        """What :meth:`Layout.fit` gives for these data, without their labels.

        :param systems: how many systems a batch has at most
        :param buckets: as in :meth:`Layout.fit`
        :param headroom: as in :meth:`Layout.fit`
        :param batches: positions of the systems of all batches there will be: room for
            these, rather than for the largest systems of all in one batch
        """
        fractions = bucket_sizes(systems, buckets, headroom)
        n_units = min(systems, len(self))
        known = None if batches is None else [self._positions(x) for x in batches]
        largest = max(map(len, known or []), default=0)
        if largest > systems:
            raise MetatensorError(
                f"a batch has {largest} systems, but `systems` is {systems}"
            )
        rule = Rule(
            len(self), n_units, fractions, self._system, systems, headroom, known
        )
        rooms = {
            name: MapRoom(
                structure.keys,
                tuple(
                    room_of(block, [np.diff(x.offsets) for x in rows], rule)
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

    def overhead(
        self, layout: Layout, batches: Sequence[Sequence[int] | np.ndarray]
    ) -> float:
        """Rows of these batches with their padding, over those without.

        :param batches: positions of the systems of each batch
        """
        at = [self._positions(batch) for batch in batches]
        return self._filling(layout).overhead(at)

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


def _all_of(given: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The numbers that are given, in ascending order; they have all that were found."""
    numbers = np.unique(given)
    missing = np.setdiff1d(found, numbers)
    if len(missing) or len(numbers) < len(given):
        raise MetatensorError(
            "`systems` must be the numbers of all systems, each of them once, but they "
            f"lack {missing.tolist()}, and {len(given) - len(numbers)} are there twice"
        )
    return numbers
