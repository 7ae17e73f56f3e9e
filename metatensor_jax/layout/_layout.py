"""Layout: one structure for all batches of a data set."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._types.arrays import Array
from .._types.display import in_treescope
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.padding import is_padding
from .._types.structure import MapStructure
from .._types.tensor import TensorMap
from ..operations.checks import check_ours, check_type
from ._capacity import ALONE, MapRoom, Maps, as_maps, where
from ._check import check_block, check_has_system
from ._display import (
    batch_html,
    batch_short,
    batch_text,
    layout_html,
    layout_short,
    layout_text,
)
from ._fit import Capacities, declared_rooms, fit_rooms
from ._folded import Folded, fold
from ._pad import Numbering, needs, pad_map, unpad_map

_FORMAT = "metatensor_jax.Layout.1"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tensors", "systems", "order", "rows"],
    meta_fields=["system"],
)
@dataclass(frozen=True)
class PaddedBatch:
    """Maps with room to spare: what :meth:`Layout.pad` gives. A pytree.

    All batches of a layout (and a bucket) have the same structure and shapes, so they
    share one compiled program. Their samples are traced: data, rather than metadata.

    :param tensors: the padded map, or the maps by name
    :param systems: the own number of each system, in ascending order; it is called 0,
        1, ... in the maps. ``Labels.PADDING`` where there is none.
    :param order: for each map, where each block was before; -1 for blocks that were
        not there
    :param system: the name of the sample dimension that tells systems apart
    :param rows: for each map with one row per system, where each row of each block was
        before; -1 for systems that have none
    """

    tensors: Any  # what was padded: a TensorMap, or a dict of maps
    systems: Array
    order: dict[str, Array]
    system: str
    rows: dict[str, Array] = field(default_factory=dict)

    def fold(self) -> Folded:
        """The same as one buffer for each dtype: see :class:`Folded`."""
        return fold(self)

    def __getitem__(self, name: str) -> TensorMap:
        """The map of this name."""
        return self.tensors[name]

    @property
    def mask(self) -> Array:
        """Which systems are there, rather than padding: one boolean for each."""
        return ~is_padding(self.systems)

    @property
    def out_samples(self) -> Labels:
        """The systems as labels, the same for all batches: for reductions."""
        return Labels.range(self.system, self.systems.shape[0])

    def __repr__(self) -> str:
        return batch_text(self)

    def _repr_html_(self) -> str:
        return batch_html(self)

    __treescope_repr__ = in_treescope(batch_short)


@dataclass(frozen=True)
class Layout:
    """Room for the batches of a data set, so that they share one compiled program.

    Static samples mean a new program for each new batch. ``layout.pad(batch)`` fills up
    a batch with rows of padding, so that all batches have the same shapes, and makes
    the samples data. Padding is known by its labels (``Labels.PADDING`` in each sample
    dimension), so that it takes no part in sums over samples and in gradients, and
    ``block.mask`` tells it apart. (Sums over the rows of a system that is not there are
    zero: functions without a derivative at zero need their safe form.) Systems are
    numbered 0, 1, ... within a batch, in ascending order of their own numbers, so that
    ``out_samples=batch.out_samples`` holds for all batches. The samples of all maps say
    which system each row belongs to.

    Make one with :meth:`fit` or :meth:`from_capacities`.

    :param rooms: the room for each map
    :param systems: how many systems there is room for
    :param fractions: the size of each bucket, relative to the largest
    :param system: the name of the sample dimension that tells systems apart

    >>> import metatensor_jax as mts
    >>> def features(*atoms):  # (system, atom) of each
    ...     values, p = np.ones((len(atoms), 1), "f4"), Labels.range("p", 1)
    ...     samples = Labels(["system", "atom"], list(atoms))
    ...     return TensorMap(Labels.single(), [mts.TensorBlock(values, samples, [], p)])
    >>> one, two = features((7, 0), (7, 1), (9, 0)), features((3, 0))
    >>> layout = Layout.fit([one, two], systems=2)
    >>> batch = layout.pad(two)
    >>> batch.tensors.block().shape, batch.systems.tolist()
    ((3, 1), [3, -2147483648])
    >>> layout.unpad(batch) == two
    True
    """

    rooms: Mapping[str, MapRoom]
    systems: int
    fractions: tuple[float, ...]
    system: str

    @classmethod
    def fit(
        cls,
        examples: Sequence[TensorMap | Maps] | TensorMap | Maps,
        systems: int,
        *,
        buckets: int | Sequence[float] = 1,
        headroom: float = 1.0,
        system: str = "system",
    ) -> Layout:
        """Room for any batch that is made of a data set.

        :param examples: the data set: a list of batches, or of single systems, each of
            them a map or a dict of maps; or all of it at once, as one map or one dict
            of maps. Properties, components and gradient parameters of a block must be
            the same everywhere; keys may be missing. Info is kept if all share it. The
            samples of all maps have the dimension ``system``.
        :param systems: how many systems a batch has at most
        :param buckets: batches are padded to the smallest of so many sizes, evenly
            spaced; or the sizes themselves, relative to the largest, which is 1. There
            is one compiled program for each of them that is used.
        :param headroom: room for so many times as many rows, for data that are still to
            come; at least 1
        :param system: the sample dimension that tells systems apart
        :raises MetatensorError: examples that do not fit to each other, samples without
            the dimension ``system``, gradient rows that name another system than their
            sample, labels that are ``Labels.PADDING``; maps that are stacked for
            ``jax.vmap``
        :raises TracedLabelsError: traced samples

        The largest size has room for the largest systems of the data, as many as go
        into a batch, all at once; so batches of single systems that were fitted can
        never be too large. Buckets make up for that being rare.
        """
        fractions = bucket_sizes(systems, buckets, headroom)
        rooms = fit_rooms(examples, systems, fractions, system, headroom)
        return cls(rooms, systems, fractions, system)

    @classmethod
    def from_capacities(
        cls,
        example: TensorMap | Maps,
        capacities: Capacities | Mapping[str, Capacities],
        systems: int,
        *,
        system: str = "system",
    ) -> Layout:
        """Room that is declared, rather than found from data.

        :param example: a map (or a dict of maps) with all keys that there can be, and
            the right properties, components and gradients
        :param capacities: how many rows there is room for: ``{"samples": 100,
            "positions": 1000}``, with the gradients of gradients as
            ``"positions/positions"``. A list has one number for each block. For a dict
            of maps, such a dict for each of them.
        :param systems: how many systems a batch has at most
        :param system: the sample dimension that tells systems apart
        :raises MetatensorError: capacities that are missing, or of something else
        """
        _check_sizes(systems, (1.0,))
        rooms = declared_rooms(example, capacities, systems, system)
        return cls(rooms, systems, (1.0,), system)

    def __post_init__(self) -> None:
        _check_sizes(self.systems, self.fractions)
        for name, room in self.rooms.items():
            room.check(len(self.fractions))
            for key, block in zip(room.keys, room.blocks, strict=True):
                what = where(name, key.print())
                check_has_system(what, block.sample_names, self.system)

    @cached_property
    def _text(self) -> str:
        return self.to_json()

    def __hash__(self) -> int:
        return hash(self._text)

    def union(self, other: Layout) -> Layout:
        """Room for what fits into either of two layouts for the same data.

        :raises MetatensorError: layouts for other maps, blocks, systems or buckets
        """
        mine, its = self._shared, other._shared
        if mine != its:
            raise MetatensorError(
                "these layouts are for other data: they differ in more than their "
                f"rooms,\n{self}\nand\n{other}"
            )
        rooms = {
            name: room.union(other.rooms[name]) for name, room in self.rooms.items()
        }
        return replace(self, rooms=rooms)

    @property
    def _shared(self) -> Any:
        """All but how many rows there is room for."""
        structures = sorted(self._structures.items())
        dtypes = sorted((name, room.dtype) for name, room in self.rooms.items())
        return structures, dtypes, self.systems, self.fractions, self.system

    def select(self, names: str | Sequence[str]) -> Layout:
        """The room for some of the maps only, such as to predict without targets.

        :param names: of the maps
        :raises MetatensorError: a name that there is not
        """
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in self.rooms:
                raise MetatensorError(
                    f"there is no map {name!r} in this layout, only "
                    f"{sorted(self.rooms)}"
                )
        return replace(self, rooms={name: self.rooms[name] for name in names})

    # --- padding -------------------------------------------------------------------

    @cached_property
    def _structures(self) -> dict[str, MapStructure]:
        structures = {name: room.structure() for name, room in self.rooms.items()}
        for structure in structures.values():
            structure.digest  # noqa: B018 - once, rather than at each call
        return structures

    def pad(self, batch: TensorMap | Maps) -> PaddedBatch:
        """Fill up a batch, so that it has the structure of all others.

        Its systems are numbered in ascending order of their own numbers. The rows of a
        block stay in their order; where a map has one row per system, each goes to the
        number of its system, as ``out_samples`` has it. :meth:`unpad` knows how they
        came.

        This is done by NumPy and gives NumPy arrays: no device takes part, so that data
        can be prepared in other processes.

        :param batch: a map or a dict of maps, as the layout was fitted to. Keys may be
            missing.
        :raises MetatensorError: rows, keys or systems that there is no room for, other
            properties, components, gradients or dtypes than those of the layout, labels
            that :meth:`fit` does not take either
        :raises TracedLabelsError: traced samples
        """
        maps = self._check_names(as_maps(batch))
        for name, tensor in maps.items():
            for key, block in tensor.items():
                check_block(where(name, key.print()), block, self.system)
        numbering = Numbering(maps, self.system, self.systems)
        bucket = self.bucket(batch)
        tensors, order, rows = {}, {}, {}
        for name, room in self.rooms.items():
            structure = self._structures[name]
            leaves, order[name], came = pad_map(
                name, maps[name], room, structure, bucket, numbering
            )
            if came is not None:
                rows[name] = came
            tensors[name] = TensorMap._unflatten(structure, leaves)
        padded = tensors.get(ALONE, tensors)
        return PaddedBatch(padded, numbering.own, order, self.system, rows)

    def bucket(self, batch: TensorMap | Maps) -> int:
        """The smallest bucket that a batch fits into.

        :raises MetatensorError: it fits into none; the message names the block
        """
        smallest = 0
        for name, tensor in self._check_names(as_maps(batch)).items():
            for key, path, n, room in needs(tensor, self.rooms[name]):
                if n > room.rows[-1]:
                    raise MetatensorError(
                        f"{where(name, key, path)} has {n} rows, but the layout has "
                        f"room for {room.rows[-1]}: fit it to data with batches as "
                        "large, or make smaller batches"
                    )
                smallest = max(smallest, int(np.searchsorted(room.rows, n)))
        return smallest

    def _check_names(self, maps: Maps) -> Maps:
        if sorted(maps) != sorted(self.rooms):
            raise MetatensorError(
                f"the layout is for the maps {sorted(self.rooms)}, but the batch has "
                f"{sorted(maps)}"
            )
        return maps

    def unpad(
        self, padded: PaddedBatch | TensorMap, systems: Array | None = None
    ) -> TensorMap | dict[str, TensorMap]:
        """Exactly the rows that were padded, with the own numbers of their systems.

        What :meth:`pad` gave comes back in the order in which it came. A map that was
        computed keeps the order of its rows: with one row per system, that is the
        ascending one.

        :param padded: what :meth:`pad` gave; or a map that was computed from it
        :param systems: for such a map, ``systems`` of the batch
        """
        if isinstance(padded, TensorMap):
            if systems is None:
                raise TypeError("to unpad a single map, give `systems` of its batch")
            as_maps(padded)  # for its checks
            return unpad_map(padded, np.asarray(systems), self.system)
        check_ours(padded, "padded")
        check_type(padded, "padded", PaddedBatch)
        own = np.asarray(padded.systems)
        rows = {name: np.asarray(came) for name, came in padded.rows.items()}
        tensors = {
            name: unpad_map(
                tensor, own, self.system, np.asarray(padded.order[name]), rows.get(name)
            )
            for name, tensor in as_maps(padded.tensors).items()
        }
        return tensors.get(ALONE, tensors)

    # --- what it costs ---------------------------------------------------------------

    def overhead(self, batch: TensorMap | Maps) -> dict[tuple[str, str, str], float]:
        """Padded rows over real rows of a batch, by map, block and ``"samples"``.

        Gradients are named by their path in the place of ``"samples"``.
        """
        bucket, rows = self.bucket(batch), {}
        for name, tensor in as_maps(batch).items():
            real = {
                (key, path): n for key, path, n, _ in needs(tensor, self.rooms[name])
            }
            for key, path, room in self.rooms[name].walk():
                n = real.get((key, path), 0)
                rows[name, key, path] = room.rows[bucket] / n if n else float("inf")
        return rows

    def __str__(self) -> str:
        return layout_text(self)

    def __repr__(self) -> str:
        return layout_text(self, most=40)

    def _repr_html_(self) -> str:
        return layout_html(self)

    __treescope_repr__ = in_treescope(layout_short)

    # --- JSON ------------------------------------------------------------------------

    def to_json(self) -> str:
        """All of the layout as text."""
        rooms = {name: room.to_json() for name, room in self.rooms.items()}
        return json.dumps(
            {
                "format": _FORMAT,
                "systems": self.systems,
                "fractions": list(self.fractions),
                "system": self.system,
                "maps": rooms,
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Layout:
        """The inverse of :meth:`to_json`.

        :raises MetatensorError: text that is no layout
        """
        try:
            data = json.loads(text)
            if data["format"] != _FORMAT:
                raise MetatensorError(
                    f"the format is {data['format']!r}, this version reads {_FORMAT!r}"
                )
            maps = sorted(data["maps"].items())
            return cls(
                {name: MapRoom.from_json(room) for name, room in maps},
                int(data["systems"]),
                tuple(float(f) for f in data["fractions"]),
                str(data["system"]),
            )
        except _DAMAGE as error:
            raise MetatensorError(
                f"this is not the JSON of a Layout: {error}"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_json` to a file; a file that is there is replaced whole."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_text(self.to_json(), encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Layout:
        """Read what :meth:`save` wrote."""
        return cls.from_json(Path(path).read_bytes())


#: what reading damaged text can raise
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def bucket_sizes(
    systems: int, buckets: int | Sequence[float], headroom: float
) -> tuple[float, ...]:
    """The size of each bucket, relative to the largest."""
    if not isinstance(systems, (int, np.integer)):
        raise TypeError(f"`systems` must be a whole number, not {systems!r}")
    if isinstance(buckets, int):
        if buckets < 1:
            raise MetatensorError(f"`buckets` must be at least 1, not {buckets}")
        buckets = [(i + 1) / buckets for i in range(buckets)]
    if not headroom >= 1:
        raise MetatensorError(f"`headroom` must be at least 1, not {headroom}")
    fractions = tuple(float(f) for f in buckets)
    _check_sizes(systems, fractions)
    return fractions


def _check_sizes(systems: int, fractions: tuple[float, ...]) -> None:
    if systems < 1:
        raise MetatensorError(f"`systems` must be at least 1, not {systems}")
    rising = all(a < b for a, b in pairwise((0.0, *fractions)))
    if not fractions or not rising or fractions[-1] != 1.0:
        raise MetatensorError(
            f"`buckets` must increase from above 0 to 1, got {fractions}"
        )
