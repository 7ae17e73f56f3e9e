"""Objects of metatensor-core and metatensor-torch, as ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._types.block import TensorBlock
from .._types.context import in_block, noting
from .._types.conversion import warn_of_narrowing
from .._types.dlpack import as_array
from .._types.foreign import metatensor_kind, type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap


def from_metatensor(data: Any, *, copy: bool = False) -> Any:
    """A map, a block or labels of metatensor, as ours.

    Names, labels, info, dtypes and gradients of any order stay what they are; blocks
    that had equal labels share them. Values in the memory of the host become NumPy
    arrays, those on an accelerator JAX arrays on the same one. 64-bit values stay so,
    also where JAX is in its 32-bit mode; a warning says so once.

    Values are not copied. What can not be shared is copied once: bfloat16 and other
    dtypes that NumPy does not have, if they do not begin at a multiple of 64 bytes or
    are strided; and 64-bit values on an accelerator, if JAX is in its 32-bit mode. So
    the values change when they are changed in place on the other side, and so do JAX
    arrays that share the memory (``.to("jax")`` copies nothing on a CPU if values begin
    at a multiple of 64 bytes). With ``copy=True`` they have memory of their own.

    :param data: a ``TensorMap``, ``TensorBlock`` or ``Labels`` of metatensor-core (with
        the values of NumPy, PyTorch or another program) or of metatensor-torch
    :param copy: copy all values
    :returns: our :class:`TensorMap`, :class:`TensorBlock` or :class:`Labels`
    :raises TypeError: anything else
    :raises MetatensorError: values that PyTorch does not give (those that require
        gradients: detach them first), or on a device that JAX does not have

    >>> import metatensor
    >>> theirs = metatensor.TensorBlock(
    ...     np.ones((2, 1), np.float32),
    ...     metatensor.Labels.range("system", 2),
    ...     [],
    ...     metatensor.Labels.range("energy", 1),
    ... )
    >>> print(from_metatensor(theirs))
    TensorBlock with shape (2, 1)
        values: float32, NumPy
        samples: [system]
        properties: [energy]
    """
    reader = _Reader()
    kind = metatensor_kind(data)
    if kind == "Labels":
        return reader.labels(data)
    if kind not in ("TensorBlock", "TensorMap"):
        given = (
            "metatensor.LabelsEntry"
            if kind == "LabelsEntry"
            else type_of(data, qualified=True)
        )
        raise TypeError(
            "`data` must be a TensorMap, TensorBlock or Labels of metatensor-core or "
            f"metatensor-torch, not {given}"
        )
    ours = reader.block(data) if kind == "TensorBlock" else reader.map(data)
    if ours.dtype is not None:
        warn_of_narrowing(ours.dtype)
    return ours.copy() if copy else ours


class _Reader:
    """Reads one object. The classes of both packages are read alike."""

    def __init__(self) -> None:
        self._seen: dict[Labels, Labels] = {}

    def map(self, theirs: Any) -> TensorMap:
        keys, blocks = self.labels(theirs.keys), []
        for i in range(len(keys)):
            with in_block(keys, i):
                blocks.append(self.block(theirs.block_by_id(i)))
        # metatensor-core gives None for an empty text
        info = {key: value or "" for key, value in dict(theirs.info()).items()}
        return TensorMap(keys, blocks, info)

    def block(self, theirs: Any, properties: Labels | None = None) -> TensorBlock:
        """One block; a gradient has the properties of its parent."""
        values = as_array(_without_subclass(theirs.values), "the values")
        if properties is None:
            properties = self.labels(theirs.properties)
        gradients = {}
        for name in theirs.gradients_list():
            with noting(f"of the gradient with respect to '{name}'"):
                gradients[name] = self.block(theirs.gradient(name), properties)
        return TensorBlock(
            values,
            self.labels(theirs.samples),
            [self.labels(component) for component in theirs.components],
            properties,
            gradients,
        )

    def labels(self, theirs: Any) -> Labels:
        ours = Labels(list(theirs.names), theirs.values, assume_unique=True)
        return self._seen.setdefault(ours, ours)


def _without_subclass(values: Any) -> Any:
    """Arrays in the memory of Rust or C++ are a class of metatensor's: the same memory.

    A plain view would not do: NumPy drops the array that keeps this memory alive.
    """
    is_subclass = isinstance(values, np.ndarray) and type(values) is not np.ndarray
    if is_subclass and values.dtype.isbuiltin == 1:  # others have no buffer
        return np.asarray(memoryview(values))  # type: ignore[arg-type]
    return values
