"""Samples into batches: ``group`` and ``group_and_join``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._types.arrays import is_array, is_jax
from ..._types.errors import MetatensorError
from ..._types.tensor import TensorMap
from ...operations import join
from ._record import record


def group(batch: Sequence[Any]) -> Any:
    """The samples of a batch, field by field.

    :param batch: samples, named tuples with the same fields
    :returns: a named tuple with these fields: a tuple with an item for each sample
    :raises MetatensorError: no samples, or other fields

    >>> from metatensor_jax.learn.data import Dataset
    >>> group(list(Dataset(x=[1, 2], y=["a", "b"])))
    Batch(x=(1, 2), y=('a', 'b'))
    """
    return record("Batch", _fields_of(batch))(*zip(*batch, strict=True))


def group_and_join(
    batch: Sequence[Any],
    fields_to_join: Sequence[str] | None = None,
    join_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """The samples of a batch, field by field: maps joined, arrays stacked by rows.

    :param batch: samples, named tuples with the same fields
    :param fields_to_join: the fields whose maps and arrays are joined, all of them if
        None. Other fields, and ``sample_id``, are as :func:`group` has them.
    :param join_kwargs: options of :func:`~metatensor_jax.join` for maps
    :returns: a named tuple with these fields
    :raises MetatensorError: no samples, or maps that do not fit together

    >>> from metatensor_jax.learn.data import Dataset
    >>> group_and_join(list(Dataset(x=[np.ones((1, 2)), np.zeros((3, 2))]))).x.shape
    (4, 2)
    """
    names = _fields_of(batch)
    wanted = set(names if fields_to_join is None else fields_to_join) - {"sample_id"}
    options = dict(join_kwargs or {})
    fields = [
        _joined(items, options) if name in wanted else items
        for name, items in zip(names, zip(*batch, strict=True), strict=True)
    ]
    return record("Batch", names)(*fields)


def _fields_of(batch: Sequence[Any]) -> tuple[str, ...]:
    if len(batch) == 0:
        raise MetatensorError("there are no samples to make a batch of")
    names = tuple(batch[0]._fields)
    for sample in batch:
        if tuple(sample._fields) != names:
            raise MetatensorError(
                f"the samples of a batch must have the same fields, got {names} and "
                f"{tuple(sample._fields)}"
            )
    return names


def _joined(items: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if isinstance(items[0], TensorMap):
        return join(list(items), "samples", **options)
    if is_array(items[0]):
        return (jnp if is_jax(items[0]) else np).vstack(items)
    return items
