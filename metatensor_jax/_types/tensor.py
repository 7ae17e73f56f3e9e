"""TensorMap: blocks by key."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from . import display
from .arrays import Device, Scalar
from .block import TensorBlock
from .conversion import Conversion
from .entry import LabelsEntry
from .errors import MetatensorError
from .foreign import metatensor_kind, type_of
from .labels import Labels
from .structure import BlockStructure, MapStructure, Path

Selection = int | Mapping[str, int] | Labels | LabelsEntry | None


class TensorMap:
    """A labelled, block-sparse tensor: dense blocks, each with a key.

    :param keys: one entry per block
    :param blocks: the blocks, with the same names of samples, components, properties
        and gradients, and the same dtype
    :param info: anything else to know about the data, as text
    :raises MetatensorError: blocks that do not fit to the keys, or to each other
    :raises TypeError: keys that are no static :class:`Labels`, or something else than
        blocks

    Maps can not be changed; :meth:`with_info` and the operations make new ones. They
    are pytrees whose leaves are the arrays of their blocks. JAX sees a map as one node:
    calling a compiled function with it costs what the bare list of arrays costs.

    >>> block = TensorBlock(
    ...     np.ones((3, 2)), Labels.range("system", 3), [], Labels.range("feature", 2)
    ... )
    >>> tensor = TensorMap(Labels("center_type", [[1], [8]]), [block, block])
    >>> print(tensor)
    TensorMap with 2 blocks
        keys: [center_type]
        values: float64, NumPy
        blocks:
            1 => TensorBlock with shape (3, 2)
            8 => TensorBlock with shape (3, 2)
    >>> tensor.block(center_type=8).shape
    (3, 2)
    """

    __slots__ = ("__weakref__", "_leaves", "_structure")

    _structure: MapStructure
    _leaves: tuple[Any, ...]

    def __init__(
        self,
        keys: Labels,
        blocks: Sequence[TensorBlock],
        info: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(blocks, TensorBlock):
            raise TypeError(
                "`blocks` must be a list of TensorBlocks, not a TensorBlock"
            )
        blocks = list(blocks)
        _check_blocks(keys, blocks)
        self._set(keys, blocks, _check_info(info or {}))
        # A call of a compiled function takes microseconds, and needs the digest.
        self._structure.digest  # noqa: B018

    def _set(
        self,
        keys: Labels,
        blocks: Sequence[TensorBlock],
        info: tuple[tuple[str, str], ...],
    ) -> None:
        structures = tuple([block._structure for block in blocks])
        self._structure = MapStructure(keys, structures, info)
        self._leaves = _leaves(blocks)

    @classmethod
    def _make(
        cls,
        keys: Labels,
        blocks: Sequence[TensorBlock],
        info: tuple[tuple[str, str], ...] = (),
    ) -> TensorMap:
        """A map without any check, for parts that are known to fit."""
        tensor = cls.__new__(cls)
        tensor._set(keys, blocks, info)
        return tensor

    @classmethod
    def _unflatten(cls, structure: MapStructure, leaves: Any) -> TensorMap:
        """A map from its two halves. JAX puts anything in the leaves: no checks."""
        tensor = cls.__new__(cls)
        tensor._structure, tensor._leaves = structure, tuple(leaves)
        return tensor

    # --- the parts ---------------------------------------------------------------

    @property
    def keys(self) -> Labels:
        """The key of each block."""
        return self._structure.keys

    def __len__(self) -> int:
        return len(self._structure.blocks)

    def __iter__(self) -> Iterator[TensorBlock]:
        return iter(self.blocks())

    def items(self) -> Iterator[tuple[LabelsEntry, TensorBlock]]:
        """Each key and its block."""
        return zip(self.keys, self.blocks(), strict=True)

    def block_by_id(self, index: int) -> TensorBlock:
        """The block at position ``index``, in the order of the keys."""
        n = len(self)
        if not -n <= index < n:
            raise IndexError(
                f"block index out of bounds: we have {n} blocks but the index is "
                f"{index}"
            )
        start, stop = self._structure.offsets[index % n : index % n + 2]
        structure = self._structure.blocks[index]
        return TensorBlock._unflatten(structure, self._leaves[start:stop])

    def blocks_by_id(self, indices: Iterable[int]) -> list[TensorBlock]:
        """The blocks at these positions."""
        return [self.block_by_id(int(index)) for index in indices]

    def block(self, selection: Selection = None, **kwargs: int) -> TensorBlock:
        """The one block that matches.

        :param selection: the position of the block, or its key as labels with one
            entry, an entry, or a dict. Dimensions that are left out match anything.
        :param kwargs: the key, as keyword arguments
        :raises ValueError: no block matches, or more than one
        """
        matching = self._matching(selection, kwargs)
        if len(matching) != 1:
            text = _describe(selection, kwargs)
            if len(matching) == 0:
                raise MetatensorError(
                    f"couldn't find any block matching {text}, the keys are\n"
                    f"{self.keys}"
                )
            raise MetatensorError(
                f"more than one block matched {text}, use `TensorMap.blocks` to get "
                f"all {len(matching)} of them"
            )
        return self.block_by_id(int(matching[0]))

    def blocks(self, selection: Selection = None, **kwargs: int) -> list[TensorBlock]:
        """All blocks that match; all there are, without a selection.

        The arguments are those of :meth:`block`.

        :raises ValueError: no block matches a selection
        """
        if selection is None and not kwargs:
            return self._all_blocks()
        matching = self._matching(selection, kwargs)
        if len(matching) == 0:
            raise MetatensorError(
                f"couldn't find any block matching {_describe(selection, kwargs)}, the "
                f"keys are\n{self.keys}"
            )
        return self.blocks_by_id(matching)

    def _all_blocks(self) -> list[TensorBlock]:
        leaves, offsets = self._leaves, self._structure.offsets
        parts = zip(self._structure.blocks, pairwise(offsets), strict=True)
        return [
            TensorBlock._unflatten(structure, leaves[start:stop])
            for structure, (start, stop) in parts
        ]

    def __getitem__(self, selection: Selection) -> TensorBlock:
        """The one block that matches, see :meth:`block`."""
        return self.block(selection)

    def _matching(self, selection: Selection, kwargs: Mapping[str, int]) -> Any:
        """Positions of the blocks that match what a user asked for."""
        if kwargs:
            if selection is not None:
                raise TypeError("give the selection once: by position or by keywords")
            selection = kwargs
        if isinstance(selection, (int, np.integer)):
            return [int(selection)]
        if selection is None:
            return range(len(self))
        if isinstance(selection, Labels):
            if len(selection) != 1:
                raise MetatensorError(
                    "Labels that select blocks must have a single entry, got "
                    f"{len(selection)}"
                )
            selection = selection.entry(0)
        if isinstance(selection, LabelsEntry):
            selection = dict(zip(selection._names, selection, strict=True))
        if not isinstance(selection, Mapping):
            shown = "" if metatensor_kind(selection) else f": {selection!r}"
            raise TypeError(
                "a block is selected by its index, a dict, or Labels, not by "
                f"{type_of(selection)}{shown}"
            )
        selection = {name: _integer(name, value) for name, value in selection.items()}
        names = self.keys._names
        if len(selection) == len(names) and all(name in selection for name in names):
            position = self.keys.position([selection[name] for name in names])
            return [] if position is None else [position]
        return self.keys.select(Labels(list(selection), [list(selection.values())]))

    @property
    def sample_names(self) -> list[str]:
        """Names of the samples of all blocks."""
        return self.block_by_id(0).samples.names if len(self) else []

    @property
    def component_names(self) -> list[str]:
        """Names of the components of all blocks."""
        if len(self) == 0:
            return []
        return [labels.names[0] for labels in self.block_by_id(0).components]

    @property
    def property_names(self) -> list[str]:
        """Names of the properties of all blocks."""
        return self.block_by_id(0).properties.names if len(self) else []

    @property
    def device(self) -> Device | None:
        """Where the values are; None for a map without blocks."""
        return self.block_by_id(0).device if len(self) else None

    @property
    def dtype(self) -> np.dtype | None:
        """dtype of the values; None for a map without blocks."""
        return self.block_by_id(0).dtype if len(self) else None

    # --- info --------------------------------------------------------------------

    def info(self) -> dict[str, str]:
        """What else is known about the data."""
        return dict(self._structure.info)

    def get_info(self, key: str) -> str | None:
        """One piece of info, or None."""
        return self.info().get(key)

    def set_info(self, key: str, value: str) -> None:
        """Not here, maps can not be changed: see :meth:`with_info`."""
        raise AttributeError(
            "a TensorMap can not be changed: use "
            f"`tensor.with_info({key!r}, {value!r})`, which returns a new one"
        )

    def with_info(self, key: str, value: str) -> TensorMap:
        """This map with one more piece of info.

        Info is static: maps that differ in it do not share a compiled program.
        """
        info = _check_info({**self.info(), key: value})
        structure = MapStructure(self.keys, self._structure.blocks, info)
        return TensorMap._unflatten(structure, self._leaves)

    # --- methods of other modules ------------------------------------------------

    if (
        TYPE_CHECKING
    ):  # written, and attached, where the code is: see `operations`, `io`

        def keys_to_samples(
            self,
            keys_to_move: str | Sequence[str] | Labels,
            *,
            fill_value: float = 0.0,
            sort_samples: bool = True,
        ) -> TensorMap: ...

        def keys_to_properties(
            self,
            keys_to_move: str | Sequence[str] | Labels,
            *,
            fill_value: float = 0.0,
            sort_samples: bool = True,
        ) -> TensorMap: ...

        def components_to_properties(
            self, dimensions: str | Sequence[str]
        ) -> TensorMap: ...

        def __add__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __radd__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __sub__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __rsub__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __mul__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __rmul__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __truediv__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __rtruediv__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __pow__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __rpow__(self, other: TensorMap | Scalar) -> TensorMap: ...
        def __matmul__(self, other: TensorMap) -> TensorMap: ...
        def __neg__(self) -> TensorMap: ...
        def __abs__(self) -> TensorMap: ...
        def __eq__(self, other: object) -> bool: ...

        def save(
            self, file: str | PathLike[str] | BinaryIO, use_numpy: bool = False
        ) -> None: ...
        def save_buffer(self, use_numpy: bool = False) -> memoryview: ...
        @staticmethod
        def load(
            file: str | PathLike[str] | BinaryIO,
            use_numpy: bool = False,
            *,
            keys: Labels | LabelsEntry | None = None,
        ) -> TensorMap: ...
        @staticmethod
        def load_mmap(
            path: str | PathLike[str],
            *,
            keys: Labels | LabelsEntry | None = None,
        ) -> TensorMap: ...
        @staticmethod
        def load_buffer(
            buffer: bytes | bytearray | memoryview, use_numpy: bool = False
        ) -> TensorMap: ...

    #: so that a number of NumPy on the left leaves an operator to this class
    __array_ufunc__ = None

    def __pos__(self) -> TensorMap:
        return self

    # --- identity ----------------------------------------------------------------

    __hash__ = None  # type: ignore[assignment]

    def copy(self, deep: bool = True) -> TensorMap:
        """A map with copies of the arrays (or these arrays, if not ``deep``)."""
        blocks = [block.copy(deep) for block in self]
        return TensorMap._unflatten(self._structure, _leaves(blocks))

    def __copy__(self) -> TensorMap:
        return self.copy(deep=False)

    def __deepcopy__(self, _memodict: Any) -> TensorMap:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return TensorMap._make, (self.keys, self.blocks(), self._structure.info)

    def to(
        self,
        *args: DTypeLike | Device,
        dtype: DTypeLike | None = None,
        device: Device | None = None,
        arrays: str | None = None,
        non_blocking: bool = False,
    ) -> TensorMap:
        """This map with another dtype, on another device, or as other arrays.

        The arguments are those of :meth:`TensorBlock.to`.
        """
        conversion = Conversion.parse(args, dtype, device, arrays)
        blocks = [block._convert(conversion) for block in self]
        return TensorMap._unflatten(self._structure, _leaves(blocks))

    # --- text and files ----------------------------------------------------------

    def print(self, max_keys: int) -> str:
        """This map as text, with at most ``max_keys`` keys (-1: all of them)."""
        return display.tensor(self, max_keys)

    def __str__(self) -> str:
        return self.print(max_keys=7)  # as many as metatensor

    def __repr__(self) -> str:
        return self.print(max_keys=-1)

    def _repr_html_(self) -> str:
        return display.tensor_html(self)

    __treescope_repr__ = display.in_treescope(display.short_tensor)


def _describe(selection: Selection, kwargs: Mapping[str, int]) -> str:
    selection = kwargs or selection
    if isinstance(selection, Labels):
        selection = selection.entry(0)
    if isinstance(selection, LabelsEntry):
        return selection.print()
    if isinstance(selection, Mapping):
        return display.entry(list(selection), list(selection.values()))
    return "the empty selection" if selection is None else f"index {selection}"


def _leaves(blocks: Sequence[TensorBlock]) -> tuple[Any, ...]:
    return tuple([leaf for block in blocks for leaf in block._leaves])


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(
            f"blocks are selected by integers, got {name}={value!r}"
        ) from error


def _check_info(info: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    for key, value in info.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"info must be text, got {key!r}: {value!r}")
    return tuple(sorted(info.items()))


def _check_blocks(keys: Labels, blocks: Sequence[TensorBlock]) -> None:
    if not isinstance(keys, Labels) or not keys.is_static:
        kind = "traced Labels" if isinstance(keys, Labels) else type_of(keys)
        raise TypeError(f"`keys` must be static Labels, not {kind}")
    for i, block in enumerate(blocks):
        if not isinstance(block, TensorBlock):
            raise TypeError(
                f"`blocks` must be TensorBlocks, but blocks[{i}] is {type_of(block)}"
            )
    if len(keys) != len(blocks):
        raise MetatensorError(
            f"expected one block for each of the {len(keys)} keys, got {len(blocks)}"
        )
    for i, block in enumerate(blocks[1:], 1):
        pairs = zip(blocks[0]._structure.walk(), block._structure.walk(), strict=False)
        for (path, first), (_, other) in pairs:
            _check_same(first, other, i, path)
        if block.dtype != blocks[0].dtype:
            raise MetatensorError(
                "all blocks must have the same dtype, but blocks[0] has "
                f"{blocks[0].dtype} and blocks[{i}] has {block.dtype}"
            )


def _check_same(a: BlockStructure, b: BlockStructure, i: int, path: Path) -> None:
    """Raise unless two blocks can be in one map: names of axes and gradients agree."""
    names = [
        ("sample", a.sample_names, b.sample_names),
        ("component", _names(a.components), _names(b.components)),
        ("property", a.properties._names, b.properties._names),
        ("gradient", _parameters(a), _parameters(b)),
    ]
    for kind, first, other in names:
        if first != other:
            where = f" in the gradients with respect to '{path[-1]}'" if path else ""
            raise MetatensorError(
                f"all blocks must have the same {kind} names{where}, but blocks[0] has "
                f"{list(first)} and blocks[{i}] has {list(other)}"
            )


def _names(components: tuple[Labels, ...]) -> tuple[str, ...]:
    return tuple(labels._names[0] for labels in components)


def _parameters(structure: BlockStructure) -> tuple[str, ...]:
    return tuple(name for name, _ in structure.gradients)
