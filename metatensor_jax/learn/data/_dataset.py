"""Dataset and IndexedDataset: samples with named fields, lists or functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from ..._types.errors import MetatensorError
from ._record import record

Field = list[Any] | Callable[[Any], Any]


class _Fields:
    """What both kinds of data sets share: some fields, and how many samples."""

    def __init__(self, data: Mapping[str, Field], size: int | None, name: str) -> None:
        lengths = []
        for field_name, field in data.items():
            if isinstance(field, list):
                _check_kinds(field_name, field)
                lengths.append(len(field))
            elif not callable(field):
                raise TypeError(
                    f"Data field must be a List or Callable, not {type(field)}"
                )
        if size is None:
            if not lengths:
                raise MetatensorError(
                    "If passing all data fields as callables, argument "
                    f"'{name}' must also be provided."
                )
            if len(set(lengths)) > 1:
                raise MetatensorError(
                    f"Number of samples inconsistent between data fields: {lengths}"
                )
            size = lengths[0]
        elif any(n != size for n in lengths):
            raise MetatensorError(
                f"Number of samples inconsistent between argument '{name}' "
                f"({size}) and data fields: ({lengths})"
            )
        self._data, self._size = dict(data), int(size or 0)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, idx: int) -> Any:
        """The fields of one sample, as a named tuple.

        :param idx: its position
        :raises MetatensorError: a position that there is not, or a function that fails
        """
        at = int(idx)
        if not 0 <= at < len(self):
            raise MetatensorError(f"Index {at} not in dataset")
        values = [self._value(name, field, at) for name, field in self._data.items()]
        return record("Sample", tuple(self._data))(*values)

    def _value(self, name: str, field: Field, at: int) -> Any:
        if isinstance(field, list):
            return field[at]
        try:
            return field(self._given(at))
        except Exception as error:
            raise MetatensorError(self._failed(name, at)) from error

    def _given(self, at: int) -> Any:
        """What a function is given for a sample."""
        return at

    def _failed(self, name: str, at: int) -> str:
        return f"Error loading data field '{name}' at sample index {at}"


class Dataset(_Fields):
    """Samples with named fields, which are lists, or functions of the position.

    :param size: how many samples there are; found from the lists if None
    :param kwargs: a list with an item of one type for each sample, or a function that
        gives the item for a position: it is called when the sample is needed
    :raises MetatensorError: lists that are not of one length, or none and no ``size``
    :raises TypeError: fields that are something else, or items of several types

    >>> dataset = Dataset(x=[1, 2, 3], twice=lambda i: 2 * i)
    >>> dataset[2]
    Sample(x=3, twice=4)
    >>> [x for x, _ in dataset]
    [1, 2, 3]
    """

    def __init__(self, size: int | None = None, **kwargs: Field) -> None:
        _check_no_ids(kwargs, "Keyword argument 'sample_id'")
        super().__init__(kwargs, size, "size")

    @classmethod
    def from_dict(cls, data: Mapping[str, Field], size: int | None = None) -> Dataset:
        """The same from a dict, whose names need not be identifiers.

        >>> Dataset.from_dict({"mtt::dipole": [1, 2]})[0]["mtt::dipole"]
        1
        """
        _check_no_ids(data, "'sample_id'")
        dataset = cls.__new__(cls)
        _Fields.__init__(dataset, data, size, "size")
        return dataset


class IndexedDataset(_Fields):
    """A :class:`Dataset` whose samples have names of their own.

    :param sample_id: the name of each sample, each of them once
    :param kwargs: as for :class:`Dataset`; functions are given the name of the sample
    :raises MetatensorError: names that are not unique, lists that are not as long
    :raises TypeError: fields that are neither lists nor functions

    >>> dataset = IndexedDataset(sample_id=["cat", "dog"], length=len, y=[1, 2])
    >>> dataset.get_sample("dog")
    Sample(sample_id='dog', length=3, y=2)
    """

    def __init__(self, sample_id: list[Any], **kwargs: Field) -> None:
        self._set(sample_id, kwargs)

    def _set(self, sample_id: list[Any], data: Mapping[str, Field]) -> None:
        self._positions: dict[Hashable, int] = {x: i for i, x in enumerate(sample_id)}
        if len(self._positions) != len(sample_id):
            raise MetatensorError("Sample IDs must be unique, found some duplicate")
        fields = {"sample_id": list(sample_id), **data}
        _Fields.__init__(self, fields, len(sample_id), "sample_id")

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Field], sample_id: list[Any]
    ) -> IndexedDataset:
        """The same from a dict, whose names need not be identifiers."""
        dataset = cls.__new__(cls)
        dataset._set(sample_id, data)
        return dataset

    def get_sample(self, sample_id: Hashable) -> Any:
        """The sample of this name.

        :raises MetatensorError: there is none
        """
        if sample_id not in self._positions:
            raise MetatensorError(f"Sample ID '{sample_id}' not in dataset")
        return self[self._positions[sample_id]]

    def _given(self, at: int) -> Any:
        names: Any = self._data["sample_id"]
        return names[at]

    def _failed(self, name: str, at: int) -> str:
        return f"Error loading data field '{name}' for sample '{self._given(at)}'"


def _check_kinds(name: str, items: Sequence[Any]) -> None:
    if name == "sample_id":
        return
    kinds = sorted({type(item).__name__ for item in items})
    if not all(isinstance(items[0], type(item)) for item in items):
        raise TypeError(
            f"Data field {name} must be a list of the same type, not of {kinds}"
        )


def _check_no_ids(data: Mapping[str, Any], what: str) -> None:
    if "sample_id" in data:
        raise MetatensorError(
            f"{what} is not accepted by Dataset. For an indexed dataset, use the "
            "IndexedDataset class instead."
        )
