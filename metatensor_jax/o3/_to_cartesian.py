"""Spherical tensors as Cartesian ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError, NotEqualError
from .._types.labels import Labels, first_difference
from .._types.tensor import TensorMap
from ..operations.checks import as_names, check_type
from ..operations.rows import map_rows
from ._cartesian import PARTS, basis, check_free, check_inexact, check_rank, contracted
from ._coefficients import spherical_components

#: of one tensor, by their degree
_Parts = dict[int, TensorBlock]


def spherical_to_cartesian(
    tensor: TensorMap, components: str | Sequence[str]
) -> TensorMap:
    """Spherical tensors of degrees up to 2 as vectors, or 3 x 3 tensors.

    The inverse of :func:`cartesian_to_spherical`. Stored gradients follow by the chain
    rule.

    :param tensor: a map with ``o3_lambda`` and ``o3_sigma`` in its keys and the
        component ``o3_mu``: (1, 1) for vectors; (0, 1), (1, -1) and (2, 1) for tensors.
        A part of a tensor that is not there is zero.
    :param components: the name of the component of a vector, or two names for a tensor
    :returns: a map whose keys are the others; with these components in the place of
        ``o3_mu``
    :raises MetatensorError: degrees and parities that are no parts of a tensor of this
        rank; parts with other components, or names that are there already
    :raises NotEqualError: parts of one tensor with other samples or properties
    :raises TypeError: integers or booleans
    :raises ImportError: for two components, ``wigners`` is not installed

    >>> import metatensor_jax as mts
    >>> isotropic = TensorBlock(
    ...     np.full((1, 1, 1), -(3**0.5), "f4"),
    ...     Labels.range("system", 1),
    ...     [spherical_components(0)],
    ...     Labels.range("polarizability", 1),
    ... )
    >>> tensor = TensorMap(Labels(["o3_lambda", "o3_sigma"], [[0, 1]]), [isotropic])
    >>> cartesian = spherical_to_cartesian(tensor, ["xyz_1", "xyz_2"]).block()
    >>> abs(cartesian.values[0, ..., 0]).round(5).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_type(tensor, "tensor", TensorMap)
    names = check_rank(as_names(components))
    missing = [n for n in ("o3_lambda", "o3_sigma") if n not in tensor.keys.names]
    if missing:
        raise MetatensorError(
            f"the keys {tensor.keys.names} lack {missing}: is this tensor Cartesian?"
        )
    keys, parts_of = _grouped(tensor, names)
    blocks = []
    for i in range(len(keys)):
        with in_block(keys, i):
            blocks.append(_joined(parts_of[i], names))
    return TensorMap(keys, blocks, tensor.info())


def _grouped(tensor: TensorMap, names: Sequence[str]) -> tuple[Labels, list[_Parts]]:
    """The keys of the result, and for each of them the parts by their degree."""
    others = [n for n in tensor.keys.names if n not in ("o3_lambda", "o3_sigma")]
    groups: dict[tuple[int, ...], _Parts] = {}
    for i, (key, block) in enumerate(tensor.items()):
        degree, sigma = int(key["o3_lambda"]), int(key["o3_sigma"])
        with in_block(tensor.keys, i):
            if (degree, sigma) not in PARTS[len(names)]:
                raise MetatensorError(
                    f"a tensor with the components {list(names)} has parts with "
                    f"(o3_lambda, o3_sigma) in {PARTS[len(names)]}, not "
                    f"{(degree, sigma)}"
                )
            _check_spherical(block, degree, names)
        group = tuple([int(key[name]) for name in others])
        groups.setdefault(group, {})[degree] = block
    if not others:
        return _single_or_none(len(groups)), list(groups.values())
    rows = np.array(list(groups), np.int32).reshape(-1, len(others))
    return Labels(others, rows), list(groups.values())


def _single_or_none(n: int) -> Labels:
    return Labels.single() if n else Labels.empty("_")


def _check_spherical(block: TensorBlock, degree: int, names: Sequence[str]) -> None:
    has = [labels.names[0] for labels in block.components]
    expected = spherical_components(degree)
    if "o3_mu" not in has or block.components[has.index("o3_mu")] != expected:
        raise MetatensorError(
            f"a block of degree {degree} should have a component 'o3_mu' from "
            f"{-degree} to {degree}, but the components are "
            f"{[(c.names[0], c.values.ravel().tolist()) for c in block.components]}"
        )
    check_free(block, names)
    check_inexact(block)


def _joined(parts: _Parts, names: Sequence[str]) -> TensorBlock:
    """The tensor that these are the parts of."""
    first, *others = parts.values()
    has = [labels.names[0] for labels in first.components]
    axis = has.index("o3_mu")
    for other in others:
        _check_fit(first, other, axis)
    components = [x for x in first.components if x.names[0] != "o3_mu"]
    components[axis:axis] = [Labels.range(name, 3) for name in names]
    coefficients = tuple([basis(degree, len(names), first.dtype) for degree in parts])
    function = _ToCartesian(axis, len(names))
    return map_rows(
        function,
        first,
        *others,
        args=(coefficients,),
        linear=True,
        components=components,
    )


def _check_fit(first: TensorBlock, other: TensorBlock, axis: int) -> None:
    mine, its = first.components, other.components
    if mine[:axis] + mine[axis + 1 :] != its[:axis] + its[axis + 1 :]:
        raise NotEqualError(
            "parts of one tensor should have the same components besides 'o3_mu', but "
            f"they have {[(c.names[0], len(c)) for c in mine]} and "
            f"{[(c.names[0], len(c)) for c in its]}"
        )
    if first.properties != other.properties:
        raise NotEqualError(
            "parts of one tensor should have the same properties, but "
            f"{first_difference(first.properties, other.properties)}"
        )


@dataclass(frozen=True)
class _ToCartesian:
    """The sum of the parts of a row, with Cartesian axes in the place of ``o3_mu``."""

    axis: int
    rank: int

    def __call__(self, *inputs: Any) -> Any:
        *rows, coefficients = inputs
        terms = [
            contracted(c, row, ((0,), (self.axis,)), self.axis, self.rank)
            for c, row in zip(coefficients, rows, strict=True)
        ]
        return sum(terms[1:], terms[0])
