"""What keys say of how a block turns: its degrees and its parity."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .._types.block import TensorBlock
from .._types.entry import LabelsEntry
from .._types.errors import MetatensorError
from ._axes import Turning

_SIGMA = re.compile(r"o3_sigma(_\d+)?")
_LAMBDA = re.compile(r"o3_lambda(_\d+)?")
#: dimensions that tell rows or columns apart which turn into each other
_TURNS = re.compile(r"o3_.*|xyz(_\d+)?")
_AXIS = re.compile(r"o3_mu(_\d+)?|xyz(_\d+)?")


def is_pseudo(key: LabelsEntry) -> bool:
    """Does a reflection change the sign of a block, besides what its axes do?"""
    product = 1
    for name, value in zip(key.names, key.values.tolist(), strict=True):
        if _SIGMA.fullmatch(name):
            check_sigma(name, value)
            product *= value
    return product == -1


def check_sigma(name: str, value: object) -> None:
    """Raise unless this is 1 or -1."""
    if value not in (1, -1):
        raise MetatensorError(
            f"`{name}` must be 1 (proper tensors) or -1 (pseudotensors), got {value!r}"
        )


def check_degrees(
    key: LabelsEntry, block: TensorBlock, given: Mapping[str, Turning]
) -> None:
    """Raise unless the degrees in a key are those of the components.

    So a component that was moved to the properties does not go unnoticed.

    :param given: what the caller says of components; a spherical one with another name
        may be the one that the key is about
    """
    moved = [name for name in key.names if _AXIS.fullmatch(name)]
    if moved:
        raise MetatensorError(
            f"the keys have {moved}, which are components of what turns as a whole: "
            "rotate first, and move components to keys then"
        )
    sizes = {labels.names[0]: len(labels) for labels in block.components}
    for name, degree in zip(key.names, key.values.tolist(), strict=True):
        mu = name.replace("lambda", "mu")
        is_renamed = any(given.get(other) == "spherical" for other in sizes)
        if not _LAMBDA.fullmatch(name) or (mu not in sizes and is_renamed):
            continue
        if sizes.get(mu, 1) != 2 * degree + 1:
            found = f"it has {sizes[mu]}" if mu in sizes else "there is none"
            raise MetatensorError(
                f"the key has {name}={degree}, so the component '{mu}' should have "
                f"{2 * degree + 1} entries, but {found}: the components are "
                f"{list(sizes.items())}"
            )


def check_not_moved(block: TensorBlock) -> None:
    """Raise if samples or properties tell rows or columns apart that turn otherwise."""
    for axis, labels in (("samples", block.samples), ("properties", block.properties)):
        moved = [name for name in labels.names if _TURNS.fullmatch(name)]
        if moved:
            raise MetatensorError(
                f"keys and components say how a block turns, but {moved} are in the "
                f"{axis} {labels.names}: rotate first, and move keys there then"
            )
