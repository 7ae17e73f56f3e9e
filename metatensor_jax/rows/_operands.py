"""Blocks whose rows are yet to be taken, and which rows belong together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._types.block import TensorBlock
from .._types.errors import TracedLabelsError
from .._types.labels import Labels
from .._types.structure import BlockStructure
from ..execution import Index, Rows


class Operand(NamedTuple):
    """A block whose rows are yet to be taken."""

    rows: Rows
    samples: Labels
    components: tuple[Labels, ...]
    properties: Labels
    gradients: Mapping[str, Operand]
    #: a plain array: a coefficient of functions that are linear in the rows of blocks
    is_constant: bool = False

    @classmethod
    def of(cls, block: TensorBlock) -> Operand:
        """All rows of this block."""
        return cls._read(block._structure, iter(block._leaves))

    @classmethod
    def _read(cls, structure: BlockStructure, leaves: Iterator[Any]) -> Operand:
        """The next block of these leaves; making blocks of gradients takes longer."""
        rows, samples = Rows(next(leaves)), structure.samples
        if samples is None:
            samples = Labels._make(structure.sample_names, next(leaves), static=False)
        gradients = {name: cls._read(x, leaves) for name, x in structure.gradients}
        return cls(rows, samples, structure.components, structure.properties, gradients)

    @classmethod
    def of_array(cls, array: Any, samples: Labels) -> Operand:
        """One row of an array per sample, without gradients."""
        return cls(Rows(array), samples, (), samples, {}, is_constant=True)

    @property
    def parents(self) -> Any:
        """For a gradient: the row of the values that each row is a gradient of."""
        return self.samples.values[:, 0]


def parameters_of(operands: Iterable[Operand]) -> list[str]:
    """All parameters that there are gradients for."""
    return sorted({name for operand in operands for name in operand.gradients})


def take_rows(x: Operand, index: Index, kept: Mapping[str, Any]) -> Operand:
    """Some rows of a block, with those of its gradients that are in ``kept``."""
    gradients = {
        name: take_gradient(x.gradients[name], index, kept[name])
        for name in kept
        if name in x.gradients
    }
    return x._replace(rows=x.rows.take(index), gradients=gradients)


def take_gradient(x: Operand, index: Index, kept: Mapping[str, Any]) -> Operand:
    if not x.samples.is_static or not isinstance(index, np.ndarray):
        raise TracedLabelsError(
            "taking rows with gradients of gradients", x.samples._names
        )
    new_parents, rows = join_rows(index, x.parents)
    values = np.column_stack([new_parents, x.samples.values[rows, 1:]])
    samples = Labels._make(x.samples._names, values.astype(np.int32))
    return take_rows(x, rows, kept)._replace(samples=samples)


def join_rows(index: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs ``(i, j)`` with ``index[i] == parents[j]``, in order of ``i``."""
    order = np.argsort(parents, kind="stable")
    starts = np.searchsorted(parents, index, "left", order)
    counts = np.searchsorted(parents, index, "right", order) - starts
    i = np.repeat(np.arange(len(index)), counts)
    steps = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    return i, order[np.repeat(starts, counts) + steps]


def is_everything(index: Index, n: int) -> bool:
    return (
        isinstance(index, np.ndarray)
        and len(index) == n
        and (n == 0 or (index[0] == 0 and bool(np.all(index == np.arange(n)))))
    )


def end_to_end(parts: Sequence[Labels]) -> Labels:
    """Labels one after the other; if some are traced, nothing can be checked."""
    first = parts[0]
    if len(parts) == 1:
        return first
    values = [part.values for part in parts]
    traced = [part.values for part in parts if not part.is_static]
    if not traced:
        return Labels._make(first._names, np.concatenate(values))
    joined = traced[0].__array_namespace__().concat(values)
    return Labels._make(first._names, joined, static=False)
