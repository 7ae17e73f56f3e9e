"""Means and mean squares of properties, over any number of maps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..._types.block import TensorBlock
from ..._types.entry import LabelsEntry
from ..._types.errors import MetatensorError, NotEqualError
from ..._types.labels import Labels, first_difference
from ..._types.tensor import TensorMap
from ...operations.checks import check_type


class Moments:
    """Mean and mean square of each property of the blocks with one key.

    Each block is centred on its own, and the means are merged afterwards
    (`Chan, Golub and LeVeque 1983 <https://doi.org/10.1080/00031305.1983.10483115>`_),
    in double precision: nothing large is subtracted from something large.

    :param entry: the key, for errors
    :param block: the first block, which the others must be like
    """

    def __init__(self, entry: LabelsEntry, block: TensorBlock) -> None:
        self.entry, self.properties, self.dtype = entry, block.properties, block.dtype
        self.has_components = len(block.components) > 0
        self._n = 0
        self._mean = np.zeros(len(self.properties))
        #: sum of squares of what is left when the mean is taken away
        self._squares = np.zeros(len(self.properties))

    def add(self, block: TensorBlock) -> None:
        """Count the samples and components of one more block."""
        self._check(block)
        values = np.asarray(block.values)[np.asarray(block.mask)].astype(np.float64)
        rows = values.reshape(-1, len(self.properties))
        if not np.isfinite(rows).all():
            raise MetatensorError(
                f"the block {self.entry.print()} has values that are not finite: "
                f"{np.count_nonzero(~np.isfinite(rows))} of {rows.size}"
            )
        if len(rows) == 0:
            return
        mean, n = rows.mean(axis=0), self._n + len(rows)
        delta = mean - self._mean
        self._squares += ((rows - mean) ** 2).sum(axis=0)
        self._squares += delta**2 * (self._n * len(rows) / n)
        self._mean += delta * (len(rows) / n)
        self._n = n

    def mean_and_scale(
        self, is_invariant: bool
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """What to shift and to scale by; what does not vary is not scaled."""
        if self._n == 0:
            raise MetatensorError(
                f"there are no samples of the block {self.entry.print()} in any of the "
                "maps: leave it out, `drop_empty_blocks`"
            )
        variance = self._squares / self._n
        if not is_invariant:
            variance = variance + self._mean**2
        scale = np.sqrt(variance)
        noise = 10 * np.finfo(np.float64).eps * np.abs(self._mean)
        scale = np.where(scale <= noise, 1.0, scale).astype(self.dtype)
        return (self._mean.astype(self.dtype) if is_invariant else None), scale

    def _check(self, block: TensorBlock) -> None:
        if not np.issubdtype(block.dtype, np.floating):
            raise TypeError(
                f"the block {self.entry.print()} holds {block.dtype}, but mean and "
                "scale are those of real floating point numbers: convert it with "
                "`.to(dtype=float)`"
            )
        if block.dtype != self.dtype:
            raise NotEqualError(
                f"the block {self.entry.print()} is {self.dtype} in one map, and "
                f"{block.dtype} in another one"
            )
        if block.properties != self.properties:
            raise NotEqualError(
                f"the block {self.entry.print()} must have the same properties in all "
                f"maps, but {first_difference(self.properties, block.properties)}"
            )


def find_moments(maps: Iterable[TensorMap]) -> tuple[Labels, list[Moments]]:
    """All keys of some maps, and the moments of the blocks with each of them."""
    names: list[str] | None = None
    moments: dict[tuple[int, ...], Moments] = {}
    for tensor in maps:
        check_type(tensor, "maps", TensorMap)
        names = names or tensor.keys.names
        if tensor.keys.names != names:
            raise NotEqualError(
                "the keys of all `maps` must have the same dimensions, got "
                f"{names} and {tensor.keys.names}"
            )
        for entry, block in tensor.items():
            key = tuple(entry)
            if key not in moments:
                moments[key] = Moments(entry, block)
            moments[key].add(block)
    if names is None:
        raise MetatensorError("`maps` must have at least one map, got none")
    rows = np.array(list(moments), np.int32).reshape(-1, len(names))
    return Labels(names, rows), list(moments.values())
