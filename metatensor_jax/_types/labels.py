"""Labels: rows of integers with named columns, the metadata of one axis.

Labels live on the host and need NumPy alone. Their rows are unique, so they work as
ordered sets: look-up, union, intersection, difference, each with mappings.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from operator import index as as_int
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, overload

import numpy as np
from numpy.typing import DTypeLike

from .._host.packing import RowIndex, first_duplicate, is_among
from . import display
from .arrays import Array, Device, LabelsLike, is_jax, is_tracer, read_only
from .entry import (
    INT32,
    LabelsEntry,
    as_int32,
    check_int32,
    check_names,
    column_index,
)
from .errors import MetatensorError, TracedLabelsError
from .foreign import metatensor_kind, type_of
from .padding import PADDING, is_padding, masked


class Labels:
    """The metadata of one axis: unique rows of integers, with a name per column.

    :param names: names of the dimensions (columns)
    :param values: integers with shape ``(entries, dimensions)``. Anything that NumPy
        reads (arrays of JAX, or of PyTorch and others by DLPack, among it) makes
        *static* labels: a read-only host ``int32`` copy, which can be searched,
        compared, hashed. An array of a program that is being traced (it must be
        ``int32``) makes *traced* labels: their values are data, and may differ from
        call to call of one compiled function. See :meth:`traced` and
        :attr:`is_static`.
    :param assume_unique: skip the check that all entries are unique
    :raises MetatensorError: names that clash or are no identifiers, another number of
        columns than names, values beyond ``int32``, or the same entry twice
    :raises TypeError: names that are not strings, values that are not integers

    >>> labels = Labels(["system", "atom"], [[0, 0], [0, 2], [1, 0]])
    >>> print(labels)
    Labels
        system  atom
          0      0
          0      2
          1      0
    >>> labels.position((0, 2)), (5, 5) in labels
    (1, False)
    """

    __slots__ = ("__weakref__", "_digest", "_index", "_names", "_static", "_values")

    #: marks rows that only fill up an array to its capacity: it stands in each
    #: dimension of such a row, and is the smallest ``int32``
    PADDING: ClassVar[int] = PADDING

    _names: tuple[str, ...]
    _values: Any
    _static: bool
    _digest: bytes | None
    _index: RowIndex | None

    def __init__(
        self,
        names: str | Sequence[str],
        values: LabelsLike,
        assume_unique: bool = False,
    ) -> None:
        names = check_names(names)
        static = not is_tracer(values)
        if not static:
            _check_traced(names, values)
        else:
            values = as_int32(values)
            if values.size == 0 and values.ndim == 1:
                values = values.reshape(0, len(names))
            _check_shape(names, values)
            if not assume_unique:
                _check_unique(names, values)
        self._set(names, values, static)

    def _set(self, names: tuple[str, ...], values: Any, static: bool) -> None:
        if isinstance(values, np.ndarray):
            values = read_only(values)
        self._names, self._values, self._static = names, values, static
        self._digest = self._index = None

    @classmethod
    def _make(cls, names: tuple[str, ...], values: Any, static: bool = True) -> Labels:
        """Labels without any check: for leaves of pytrees, and rows known to fit."""
        labels = cls.__new__(cls)
        labels._set(names, values, static)
        return labels

    # --- making labels -----------------------------------------------------------

    @staticmethod
    def single() -> Labels:
        """Labels with a single entry, for axes that carry no information.

        >>> Labels.single()
        Labels
            _
            0
        """
        return Labels("_", np.zeros((1, 1), np.int32))

    @staticmethod
    def empty(names: str | Sequence[str]) -> Labels:
        """Labels with these ``names`` and no entry.

        >>> len(Labels.empty(["system", "atom"]))
        0
        """
        names = check_names(names)
        return Labels._make(names, np.zeros((0, len(names)), np.int32))

    @staticmethod
    def range(name: str, end: int) -> Labels:
        """Labels with one dimension and the entries 0, 1, ..., ``end - 1``.

        >>> Labels.range("system", 3).values.tolist()
        [[0], [1], [2]]
        """
        end = operator.index(end)
        if not 0 <= end <= INT32.max:
            raise MetatensorError(
                f"a range of labels ends between 0 and {INT32.max}, not at {end}"
            )
        return Labels(name, np.arange(end, dtype=np.int32).reshape(-1, 1), True)

    @classmethod
    def traced(cls, names: str | Sequence[str], values: Array) -> Labels:
        """Labels whose values are data, also when these are NumPy's.

        :param names: names of the dimensions
        :param values: ``int32`` array with shape ``(entries, dimensions)``; nothing
            else is checked, and entries that only fill up are :attr:`PADDING`

        >>> labels = Labels.traced("atom", np.zeros((2, 1), np.int32))
        >>> labels.is_static
        False
        """
        names = check_names(names)
        _check_traced(names, values)
        return cls._make(names, values, static=False)

    # --- what is in there --------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of the dimensions."""
        return list(self._names)

    @property
    def values(self) -> Any:  # NumPy's for static labels, which nearly all are
        """All entries, ``int32`` with shape ``(entries, dimensions)``, read-only."""
        return self._values

    @property
    def is_static(self) -> bool:
        """Are the values known on the host? False for traced labels."""
        return self._static

    @property
    def device(self) -> Device:
        """Where the values are: ``"cpu"`` for static labels."""
        return "cpu" if self._static else getattr(self._values, "device", "cpu")

    def __len__(self) -> int:
        return self._values.shape[0]

    def __iter__(self) -> Iterator[LabelsEntry]:
        values = self._host_values("iterating over labels")
        return (LabelsEntry._make(self._names, row) for row in values)

    @overload
    def __getitem__(self, index: str) -> Any: ...

    @overload
    def __getitem__(self, index: int) -> LabelsEntry: ...

    def __getitem__(self, index: str | int) -> Any:
        """A column as an array given its name, or an entry given its index.

        >>> labels = Labels(["system", "atom"], [[0, 0], [0, 2], [1, 0]])
        >>> labels["atom"].tolist(), labels[-1]
        ([0, 2, 0], LabelsEntry(system=1, atom=0))
        """
        if isinstance(index, str):
            return self.column(index)
        if isinstance(index, (int, np.integer)):
            return self.entry(int(index))
        raise TypeError(
            "Labels can be indexed by a name (a column) or an integer (an entry), "
            f"not by {type(index).__name__}. For several columns or entries make new "
            "labels: `Labels(names, labels.values[rows][:, columns])`"
        )

    def column(self, dimension: str) -> Any:
        """The values of one dimension, with shape ``(entries,)``."""
        return self._values[:, column_index(self._names, dimension)]

    def entry(self, index: int) -> LabelsEntry:
        """The entry at position ``index``."""
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"entry {index} is out of range for labels with {len(self)} entries"
            )
        return LabelsEntry._make(self._names, self._values[index])

    def __contains__(self, entry: LabelsEntry | Sequence[int]) -> bool:
        return self.position(entry) is not None

    def position(self, entry: LabelsEntry | Sequence[int]) -> int | None:
        """The position of ``entry`` in these labels, or None if it is not there.

        >>> Labels(["a", "b"], [[3, 4], [5, 6]]).position([5, 6])
        1
        """
        index = self._row_index("Labels.position")
        if isinstance(entry, LabelsEntry) and entry._names != self._names:
            raise MetatensorError(
                f"the names of this entry, {entry.names}, are not those of the labels, "
                f"{self.names}"
            )
        if isinstance(entry, (int, np.integer)):
            raise TypeError(
                f"an entry is a list of {len(self._names)} values, not one integer: "
                f"[{entry}]"
            )
        row = tuple(as_int(value) for value in entry)
        if len(row) != len(self._names):
            raise MetatensorError(
                f"an entry of labels with the dimensions {self.names} has "
                f"{len(self._names)} values, got {len(row)}: {row}"
            )
        return index.position(row)

    def select(self, selection: Labels | LabelsEntry) -> np.ndarray:
        """The positions of all entries that agree with an entry of ``selection``.

        :param selection: labels with some of the dimensions of these ones, in any
            order
        :returns: ``int64`` positions. If the dimensions are the same, they come in the
            order of ``selection``; otherwise in the order of these labels.

        >>> labels = Labels(["system", "atom"], [[0, 0], [0, 2], [1, 0]])
        >>> labels.select(Labels("atom", [[0]])).tolist()
        [0, 2]
        """
        values = self._host_values("Labels.select")
        if isinstance(selection, LabelsEntry):
            selection = Labels(selection._names, [tuple(selection)])
        _check_is_labels(selection, "selection")
        wanted = selection._host_values("Labels.select")
        for name in selection._names:
            if name not in self._names:
                raise MetatensorError(
                    f"'{name}' in the selection is not one of the dimensions "
                    f"{self.names} of these labels"
                )
        if selection._names == self._names:
            positions = self._row_index("Labels.select").find(wanted)
            return positions[positions >= 0]
        if not selection._names:  # nothing has to agree
            return np.arange(len(self))
        columns = [self._names.index(name) for name in selection._names]
        return np.flatnonzero(is_among(values[:, columns], wanted))

    # --- labels as sets ----------------------------------------------------------

    def union(self, other: Labels) -> Labels:
        """These entries, followed by those of ``other`` that are not among them."""
        return self.union_and_mapping(other)[0]

    def union_and_mapping(self, other: Labels) -> tuple[Labels, np.ndarray, np.ndarray]:
        """The union, and where each entry of both labels stands in it.

        :returns: the union, a mapping of these entries and one of ``other``'s
            (``int64`` positions in the union)

        >>> a, b = Labels("a", [[1], [2]]), Labels("a", [[3], [1]])
        >>> union, first, second = a.union_and_mapping(b)
        >>> union.values.tolist(), first.tolist(), second.tolist()
        ([[1], [2], [3]], [0, 1], [2, 0])
        """
        positions = self._find_in_self(other, "union")
        first = np.arange(len(self))
        if self is other or bool(np.all(positions >= 0)):
            return self, first, positions
        new = positions < 0
        positions[new] = len(self) + np.arange(np.count_nonzero(new))
        values = np.concatenate([self._values, other._values[new]])
        return Labels._make(self._names, values), first, positions

    def intersection(self, other: Labels) -> Labels:
        """The entries that are in both labels, in the order of these ones."""
        return self.intersection_and_mapping(other)[0]

    def intersection_and_mapping(
        self, other: Labels
    ) -> tuple[Labels, np.ndarray, np.ndarray]:
        """The intersection, and where each entry of both labels stands in it.

        :returns: the intersection, a mapping of these entries and one of ``other``'s
            (``int64`` positions in the intersection, -1 for entries not in it)

        >>> a, b = Labels("a", [[1], [2]]), Labels("a", [[3], [1]])
        >>> both, first, second = a.intersection_and_mapping(b)
        >>> both.values.tolist(), first.tolist(), second.tolist()
        ([[1]], [0, -1], [-1, 0])
        """
        second = self._find_in_self(other, "intersection")
        in_other = second >= 0
        kept = np.zeros(len(self), bool)
        kept[second[in_other]] = True
        first = np.where(kept, np.cumsum(kept) - 1, -1)
        second[in_other] = first[second[in_other]]
        return Labels._make(self._names, self._values[kept]), first, second

    def difference(self, other: Labels) -> Labels:
        """The entries of these labels that are not in ``other``."""
        return self.difference_and_mapping(other)[0]

    def difference_and_mapping(self, other: Labels) -> tuple[Labels, np.ndarray]:
        """The difference, and where each of these entries stands in it.

        :returns: the difference, and a mapping of these entries (``int64`` positions
            in the difference, -1 for entries not in it)

        >>> a, b = Labels("a", [[1], [2]]), Labels("a", [[3], [1]])
        >>> rest, mapping = a.difference_and_mapping(b)
        >>> rest.values.tolist(), mapping.tolist()
        ([[2]], [-1, 0])
        """
        positions = self._find_in_self(other, "difference")
        kept = np.ones(len(self), bool)
        kept[positions[positions >= 0]] = False
        mapping = np.where(kept, np.cumsum(kept) - 1, -1)
        return Labels._make(self._names, self._values[kept]), mapping

    def _find_in_self(self, other: Labels, what: str) -> np.ndarray:
        """The position of each entry of ``other`` in these labels, or -1."""
        _check_is_labels(other, "other")
        index = self._row_index(f"Labels.{what}")
        values = other._host_values(f"Labels.{what}")
        if self._names != other._names:
            raise MetatensorError(
                f"can not take the {what} of these labels, they have different "
                f"dimensions: {self.names} and {other.names}"
            )
        return index.find(values)

    # --- other dimensions --------------------------------------------------------

    def append(self, name: str, values: LabelsLike) -> Labels:
        """Labels with one more dimension at the end.

        :param name: name of the new dimension
        :param values: its values, integers with shape ``(entries,)``

        >>> Labels("a", [[1], [2]]).append("b", [5, 6]).values.tolist()
        [[1, 5], [2, 6]]
        """
        return self.insert(len(self._names), name, values)

    def insert(self, index: int, name: str, values: LabelsLike) -> Labels:
        """Labels with one more dimension, before the one at ``index``.

        :param index: a position from 0 to the number of dimensions, or a negative one
            that counts from the end
        :param name: name of the new dimension
        :param values: its values, integers with shape ``(entries,)``
        """
        if not -len(self._names) <= index <= len(self._names):
            raise IndexError(
                f"can not insert a dimension at {index}: these labels have "
                f"{len(self._names)} dimensions"
            )
        index += len(self._names) if index < 0 else 0
        names = (*self._names[:index], name, *self._names[index:])
        may_be_traced = is_tracer(values) or not self._static
        column: Any = values
        if not (may_be_traced and is_jax(values)):
            column = as_int32(values)
        check_int32(column)
        if tuple(column.shape) != (len(self),):
            raise MetatensorError(
                f"the values of the new dimension '{name}' must be a 1D array with "
                f"one value for each of the {len(self)} entries, got shape "
                f"{tuple(column.shape)}"
            )
        array = column if is_jax(column) else self._values
        module = array.__array_namespace__()
        if not self._static:  # padding is so in each dimension
            column = masked(column, ~is_padding(self._values))
        before, after = self._values[:, :index], self._values[:, index:]
        # unique rows stay unique when they grow: no need to check
        rows = module.concat([before, column[:, None], after], axis=1)
        static = self._static and not is_jax(column)
        return Labels._make(check_names(names), rows, static)

    def remove(self, name: str) -> Labels:
        """Labels without the dimension ``name``; entries must remain unique."""
        index = column_index(self._names, name)
        kept = np.delete(np.arange(len(self._names)), index)
        names = tuple(self._names[i] for i in kept)
        values = self._values[:, kept]
        if self._static:
            _check_unique(names, values)
        return Labels._make(names, values, self._static)

    def rename(self, old: str, new: str) -> Labels:
        """Labels with the dimension ``old`` called ``new``."""
        index = column_index(self._names, old)
        names = (*self._names[:index], new, *self._names[index + 1 :])
        return Labels._make(check_names(names), self._values, self._static)

    def permute(self, dimensions_indexes: Sequence[int]) -> Labels:
        """Labels with the dimensions in another order.

        :param dimensions_indexes: each dimension's index once, in the new order
        """
        indexes = [as_int(i) for i in dimensions_indexes]
        n = len(self._names)
        if sorted(i % n if -n <= i < n else -1 for i in indexes) != list(range(n)):
            raise MetatensorError(
                f"`dimensions_indexes` must have each index from 0 to {n - 1} once, "
                f"got {indexes} for the dimensions {self.names}"
            )
        names = tuple(self._names[i] for i in indexes)
        return Labels._make(
            names, self._values[:, np.array(indexes, int)], self._static
        )

    # --- identity ----------------------------------------------------------------

    @property
    def digest(self) -> bytes:
        """16 bytes that are equal for equal static labels only; made once, lazily.

        This is what JAX compares when it looks for a compiled program.
        """
        if self._digest is None:
            values = self._host_values("hashing labels")
            header = f"{','.join(self._names)}|{len(values)}|"
            hasher = blake2b(header.encode(), digest_size=16)
            hasher.update(np.ascontiguousarray(values).data)
            self._digest = hasher.digest()
        return self._digest

    def __eq__(self, other: object) -> bool:
        """Same names, and the same entries in the same order."""
        if self is other:
            return True
        if not isinstance(other, Labels):
            return NotImplemented
        if self._names != other._names or self._static != other._static:
            return False
        if self._values is other._values:
            return True
        if self._digest is not None and other._digest is not None:
            return self._digest == other._digest
        values = self._host_values("comparing labels")
        return np.array_equal(values, other._host_values("comparing labels"))

    def __hash__(self) -> int:
        return hash(self.digest)

    def __copy__(self) -> Labels:
        return self

    def __deepcopy__(self, _memodict: Any) -> Labels:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Labels._make, (self._names, self._values, self._static)

    def to(
        self,
        *args: DTypeLike | Device,
        dtype: DTypeLike | None = None,
        device: Device | None = None,
        arrays: str | None = None,
        non_blocking: bool = False,
    ) -> Labels:
        """These labels on another device: static labels are on the host, always.

        Takes what metatensor's ``to`` takes, so that code can treat labels, blocks and
        maps alike. Traced labels move to ``device``; all else means nothing for labels.
        """
        if device is None and args:
            device = args[0]  # type: ignore[assignment]
        if self._static or device is None or isinstance(self._values, np.ndarray):
            return self
        return Labels._make(self._names, self._values.to_device(device), False)

    # --- text and files ----------------------------------------------------------

    def print(self, max_entries: int, indent: int = 0) -> str:
        """These labels as a table.

        :param max_entries: show at most this many entries, -1 for all of them
        :param indent: indent all lines but the first by this many spaces
        """
        return display.labels(self._names, self._values, max_entries, indent)

    def __str__(self) -> str:
        return f"Labels\n    {self.print(max_entries=4, indent=4)}"

    def __repr__(self) -> str:
        return f"Labels\n    {self.print(max_entries=20, indent=4)}"

    def _repr_html_(self) -> str:
        return display.labels_html("Labels", self._names, self._values)

    __treescope_repr__ = display.in_treescope(display.short_labels)

    if TYPE_CHECKING:  # written, and attached, where the code is: see `io`

        def save(self, file: str | PathLike[str] | BinaryIO) -> None: ...
        def save_buffer(self) -> memoryview: ...
        @staticmethod
        def load(file: str | PathLike[str] | BinaryIO) -> Labels: ...
        @staticmethod
        def load_buffer(buffer: bytes | bytearray | memoryview) -> Labels: ...

    # --- helpers -----------------------------------------------------------------

    def _host_values(self, what: str) -> np.ndarray:
        if not self._static:
            raise TracedLabelsError(what, self._names)
        return self._values

    def _row_index(self, what: str) -> RowIndex:
        if self._index is None:
            self._index = RowIndex(self._host_values(what))
        return self._index


def _check_shape(names: tuple[str, ...], values: Any) -> None:
    if values.ndim != 2 or values.shape[1] != len(names):
        raise MetatensorError(
            "the values of labels must be a 2D array with one column for each of the "
            f"{len(names)} names {list(names)}, got shape {tuple(values.shape)}"
        )


def _check_is_labels(value: Any, name: str) -> None:
    if not isinstance(value, Labels):
        is_ours = metatensor_kind(value) is None
        hint = ": make them with `Labels(names, values)`" if is_ours else ""
        raise TypeError(f"`{name}` must be Labels, not {type_of(value)}{hint}")


def _check_traced(names: tuple[str, ...], values: Any) -> None:
    check_int32(values)
    _check_shape(names, values)


def _check_unique(names: tuple[str, ...], values: np.ndarray) -> None:
    duplicate = first_duplicate(values)
    if duplicate is not None:
        entry = display.entry(names, values[duplicate])
        raise MetatensorError(
            f"labels can not have the same entry multiple times: {entry} is at row "
            f"{duplicate} and before it"
        )


def first_difference(a: Labels, b: Labels) -> str:
    """In words: where two labels differ."""
    if a.names != b.names:
        return f"the names differ: {a.names} and {b.names}"
    if len(a) != len(b):
        return f"there are {len(a)} and {len(b)} entries of {a.names}"
    row = int((a.values != b.values).any(axis=1).argmax())
    same_set = len(a.intersection(b)) == len(a)
    hint = ", they are the same in another order" if same_set else ""
    return f"entry {row} is {a[row].print()} and {b[row].print()}{hint}"
