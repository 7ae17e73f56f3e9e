"""What a data set is made of, and the part that belongs to one system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from ..._types.block import TensorBlock
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ..ase._frames import Frames

#: what the file ``options.yaml`` says
Options = dict[str, Any]


class Dataset(NamedTuple):
    """A data set of metatrain, as :func:`read_dataset` gives it.

    :param frames: the structures
    :param targets: for each target, a map of all systems, which are numbered 0, 1, ...
    :param extra_data: the same for extra data
    """

    frames: list[Atoms]
    targets: dict[str, TensorMap]
    extra_data: dict[str, TensorMap]


class Entry(NamedTuple):
    """A map to be written, in metatrain's layout, and what options say of it."""

    tensor: TensorMap
    options: Options

    @property
    def per_atom(self) -> bool:
        """Is there a row for each atom?"""
        return self.options["sample_kind"] == "atom"

    @property
    def rank(self) -> int | None:
        """The number of Cartesian indices, None for spherical tensors."""
        return rank_of(self.options["type"])


class Parts(NamedTuple):
    """All that is to be written."""

    numbered: Frames
    targets: Mapping[str, Entry]
    extra_data: Mapping[str, Entry]

    @property
    def entries(self) -> dict[str, Entry]:
        """Targets and extra data, which have different names."""
        return {**self.targets, **self.extra_data}

    def section(self, read_from: str, more: Mapping[str, Options]) -> Options:
        """The section of ``options.yaml`` about this data set.

        :param more: what to add to the options of each map
        """
        parts = {"targets": self.targets, "extra_data": self.extra_data}
        maps = {
            kind: {
                name: {**entry.options, **more.get(name, {})}
                for name, entry in entries.items()
            }
            for kind, entries in parts.items()
            if entries or kind == "targets"
        }
        systems = {"read_from": read_from, "length_unit": "angstrom"}
        return {"systems": systems, **maps}


def rank_of(kind: str | Mapping[str, Any]) -> int | None:
    """The number of Cartesian indices of a type in options, None if spherical."""
    if isinstance(kind, str):
        return 0
    for name, details in kind.items():
        if name.lower() == "cartesian":
            return int(details["rank"])
    return None


def of_system(entry: Entry, i: int, atoms: slice) -> TensorMap:
    """The rows of one system, of a map in metatrain's layout.

    :param atoms: the place of its atoms among those of all systems
    """
    alone = slice(i, i + 1)
    blocks = []
    for block in entry.tensor:
        gradients = {
            name: _sliced(gradient, atoms if name == "positions" else alone, 0)
            for name, gradient in block.gradients()
        }
        part = _sliced(block, atoms if entry.per_atom else alone)
        for name, gradient in gradients.items():
            part = part.with_gradient(name, gradient)
        blocks.append(part)
    return TensorMap(entry.tensor.keys, blocks, entry.tensor.info())


def _sliced(block: TensorBlock, rows: slice, sample: int | None = None) -> TensorBlock:
    """Some rows, without gradients; ``sample`` is what they belong to now."""
    labels = block.samples.values[rows]
    if sample is not None:
        labels = labels.copy()
        labels[:, 0] = sample
    samples = Labels(block.samples.names, labels, assume_unique=True)
    values = np.asarray(block.values)[rows]
    return TensorBlock(values, samples, block.components, block.properties)
