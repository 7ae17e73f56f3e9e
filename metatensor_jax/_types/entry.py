"""LabelsEntry: one row of labels, and what names and values of labels must be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import display
from .arrays import LabelsLike, check_not_masked, is_jax, on_host, read_only
from .errors import MetatensorError

_VALID_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
INT32 = np.iinfo(np.int32)


class LabelsEntry:
    """One row of :class:`Labels`: named integers.

    :param names: names of the dimensions
    :param values: as many integers

    >>> from metatensor_jax import Labels
    >>> entry = Labels(["system", "atom"], [[0, 2], [1, 5]])[1]
    >>> entry
    LabelsEntry(system=1, atom=5)
    >>> entry["atom"], entry[0], tuple(entry)
    (5, 1, (1, 5))
    """

    __slots__ = ("_names", "_values")

    def __init__(self, names: Sequence[str] | str, values: LabelsLike) -> None:
        self._names = check_names(names)
        row: Any = values if is_jax(values) else read_only(as_int32(values))
        if tuple(row.shape) != (len(self._names),):
            raise MetatensorError(
                f"an entry needs one value for each of the names {self.names}, "
                f"got values with shape {tuple(row.shape)}"
            )
        self._values = row

    @classmethod
    def _make(cls, names: tuple[str, ...], values: Any) -> LabelsEntry:
        """An entry without any check, of labels that were checked."""
        entry = cls.__new__(cls)
        entry._names, entry._values = names, values
        return entry

    @property
    def names(self) -> list[str]:
        """Names of the dimensions."""
        return list(self._names)

    @property
    def values(self) -> Any:  # NumPy's, of static labels
        """The integers of this entry, with shape ``(dimensions,)``."""
        return self._values

    @property
    def device(self) -> str:
        """Where the values are: ``"cpu"``, entries are metadata on the host."""
        return "cpu"

    def print(self) -> str:
        """The entry as text, such as ``(system=1, atom=5)``."""
        return display.entry(self._names, self._values)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Any]:
        return iter(
            self._values.tolist()
            if isinstance(self._values, np.ndarray)
            else self._values
        )

    def __getitem__(self, dimension: str | int) -> Any:
        """The value of one dimension, given its name or index."""
        if isinstance(dimension, str):
            dimension = column_index(self._names, dimension)
        value = self._values[dimension]
        return int(value) if isinstance(value, np.integer) else value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelsEntry):
            return NotImplemented
        return self._names == other._names and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((self._names, tuple(self)))

    def __reduce__(self) -> Any:
        # through __init__: NumPy's own copies can be written to
        return LabelsEntry, (self.names, self._values)

    def __repr__(self) -> str:
        return f"LabelsEntry{self.print()}"

    def _repr_html_(self) -> str:
        return display.labels_html("LabelsEntry", self._names, [self._values])


def check_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple; raise unless they are unique and valid."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(
                f"the names of labels must be strings, not {type(name).__name__}"
            )
        if not _VALID_NAME.fullmatch(name):
            raise MetatensorError(
                f"'{name}' is not a valid label name: use letters, digits and "
                "underscores, and do not start with a digit"
            )
        if name in names[:i]:
            raise MetatensorError(
                f"the names of labels must be unique, got '{name}' multiple times "
                f"in {list(names)}"
            )
    return names


def column_index(names: tuple[str, ...], name: str) -> int:
    """Which column has this name."""
    if name not in names:
        raise MetatensorError(
            f"'{name}' not found in the dimensions of these labels: {list(names)}"
        )
    return names.index(name)


def as_int32(values: LabelsLike) -> np.ndarray:
    """A new host ``int32`` array with these values, which must all fit."""
    check_not_masked(values, "the values of labels")
    array = on_host(values)
    is_large = array.dtype == object and all(isinstance(v, int) for v in array.flat)
    if array.size != 0 and array.dtype.kind not in "iub" and not is_large:
        raise TypeError(
            f"the values of labels must be integers, not {array.dtype}: "
            "use `values.astype('int32')` if they are whole numbers"
        )
    if array.size != 0 and not np.can_cast(array.dtype, np.int32):
        low, high = int(array.min()), int(array.max())
        if low < INT32.min or high > INT32.max:
            value = low if low < INT32.min else high
            raise MetatensorError(
                f"the value {value} is out of range: labels hold int32, from "
                f"{INT32.min} to {INT32.max}"
            )
    return array.astype(np.int32, order="C")


def check_int32(values: Any) -> None:
    """Raise unless these are the values of traced labels."""
    dtype = getattr(values, "dtype", type(values).__name__)
    if dtype != np.int32:
        raise TypeError(
            f"the values of traced labels must be an int32 array, not {dtype}: "
            "use `values.astype('int32')`"
        )
