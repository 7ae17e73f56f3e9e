"""Cartesian tensors of rank 1 and 2 as spherical ones, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._run.sums import wide_dtype
from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.conversion import is_inexact
from .._types.errors import MetatensorError, NotEqualError
from .._types.labels import Labels, first_difference
from .._types.tensor import TensorMap
from ..operations.checks import as_names, check_type
from ..operations.rows import map_rows
from ._coefficients import clebsch_gordan, spherical_components

#: the harmonics of degree 1 are y, z and x
_Y_Z_X = np.array([1, 2, 0])
#: for each rank, the degrees and the parities of the parts of a tensor
_PARTS = {1: [(1, 1)], 2: [(0, 1), (1, -1), (2, 1)]}


def cartesian_to_spherical(
    tensor: TensorMap, components: str | Sequence[str]
) -> TensorMap:
    r"""Vectors, or 3 x 3 tensors, in terms of real spherical harmonics.

    A block of vectors is one block again, with ``o3_lambda = 1`` and the component
    ``o3_mu`` in the order :math:`(y, z, x)`. One of tensors is three: the trace over
    :math:`-\sqrt{3}` (degree 0),
    the antisymmetric part (degree 1, a pseudovector with ``o3_sigma = -1``) and the
    symmetric part without the trace (degree 2),

    .. math:: c^\lambda_\mu = \sum_{ij} C^{1 1 \to \lambda}_{ji\mu} t_{ij}

    with :math:`i` and :math:`j` in that order as well. This is an orthogonal change of
    the basis: :func:`spherical_to_cartesian` is its inverse. Stored gradients follow by
    the chain rule.

    featomic's function of this name gives the same, but it leaves blocks out that are
    zero, such as the antisymmetric part of a polarizability. Here the result has the
    same blocks whatever the values are; use :func:`~metatensor_jax.drop_blocks`.

    :param tensor: a map with entries [0, 1, 2] of these components
    :param components: the name of one component, or of two of them, the rows of the
        tensor first
    :returns: a map whose keys have ``o3_lambda`` and ``o3_sigma`` before the others,
        with ``o3_mu`` in the place of the first of the components
    :raises MetatensorError: components that are not there or no directions, keys that
        have degrees or parities already
    :raises TypeError: integers or booleans
    :raises ImportError: for two components, ``wigners`` is not installed

    >>> import metatensor_jax as mts
    >>> dipole = TensorBlock(
    ...     np.array([[[1.0], [2.0], [3.0]]], "f4"),
    ...     Labels.range("system", 1),
    ...     [Labels.range("xyz", 3)],
    ...     Labels.range("dipole", 1),
    ... )
    >>> tensor = TensorMap(Labels.single(), [dipole])
    >>> spherical = cartesian_to_spherical(tensor, "xyz")
    >>> spherical.block(o3_lambda=1).values.ravel().tolist()
    [2.0, 3.0, 1.0]
    """
    check_type(tensor, "tensor", TensorMap)
    names = _check_rank(as_names(components))
    present = [n for n in ("o3_lambda", "o3_sigma") if n in tensor.keys.names]
    if present:
        raise MetatensorError(
            f"the keys {tensor.keys.names} have {present} already: is this tensor "
            "spherical?"
        )
    for i, block in enumerate(tensor):
        with in_block(tensor.keys, i):
            _check_directions(block, names)
    parts = [_part(tensor, names, degree) for degree, _ in _PARTS[len(names)]]
    blocks = [part.block_by_id(i) for i in range(len(tensor)) for part in parts]
    heads = np.array(_PARTS[len(names)], np.int32)
    rows = np.concatenate(
        [
            np.tile(heads, (len(tensor), 1)),
            np.repeat(tensor.keys.values, len(heads), axis=0),
        ],
        axis=1,
    )
    keys = Labels(["o3_lambda", "o3_sigma", *tensor.keys.names], rows)
    return TensorMap(keys, blocks, tensor.info())


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
    names = _check_rank(as_names(components))
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


def _check_rank(names: list[str]) -> list[str]:
    if len(names) not in _PARTS or len(set(names)) != len(names):
        raise MetatensorError(
            "`components` must be the name of one component, or two names (tensors of "
            f"rank 1 and 2), got {names}"
        )
    return names


def _coefficients(degree: int, rank: int) -> np.ndarray:
    """Spherical components in terms of Cartesian ones: the first axis is ``o3_mu``."""
    if rank == 1:
        return np.eye(3)[_Y_Z_X]
    coupling = np.zeros((3, 3, 2 * degree + 1))
    coupling[np.ix_(_Y_Z_X, _Y_Z_X)] = clebsch_gordan(1, 1, degree)
    # the second axis is coupled first, as in featomic: the sign of the pseudovector
    return coupling.transpose(2, 1, 0)


# --- to spherical --------------------------------------------------------------------


def _check_directions(block: TensorBlock, names: Sequence[str]) -> None:
    has = {labels.names[0]: labels for labels in block.components}
    for name in names:
        if name not in has:
            raise MetatensorError(
                f"there is no component '{name}', the components are {list(has)}"
            )
        entries = has[name].values.ravel().tolist()
        if entries != [0, 1, 2]:
            raise MetatensorError(
                f"the entries of '{name}' should be [0, 1, 2] for x, y and z, but they "
                f"are {entries}"
            )
    if "o3_mu" in has:
        raise MetatensorError(
            f"there is a component 'o3_mu' already, the components are {list(has)}"
        )
    _check_inexact(block)


def _check_inexact(block: TensorBlock) -> None:
    if not is_inexact(block.dtype):
        raise TypeError(
            f"can not change the basis of {block.dtype} values: convert them with "
            "`.to(dtype=float)`"
        )


def _part(tensor: TensorMap, names: Sequence[str], degree: int) -> TensorMap:
    """The part of one degree, for all blocks."""
    if len(tensor) == 0:
        return tensor
    axes = tuple([tensor.component_names.index(name) for name in names])
    components = []
    for block in tensor:
        labels = [x for x in block.components if x.names[0] not in names]
        labels.insert(min(axes), spherical_components(degree))
        components.append(labels)
    coefficients = _coefficients(degree, len(names))
    return map_rows(
        _ToSpherical(axes),
        tensor,
        args=(_as(coefficients, tensor.dtype),),
        linear=True,
        components=components,
    )


def _as(coefficients: np.ndarray, dtype: Any) -> np.ndarray:
    """In the precision in which products of such numbers are added up."""
    return coefficients.astype(wide_dtype(np.zeros(0, dtype).real.dtype))


@dataclass(frozen=True)
class _ToSpherical:
    """One degree of a row, in the place of its Cartesian axes."""

    axes: tuple[int, ...]

    def __call__(self, row: Any, coefficients: Any) -> Any:
        inner = tuple(range(1, 1 + len(self.axes)))
        # what is left before the first axis is there before it as well
        place = min(self.axes)
        return _contracted(coefficients, row, (inner, self.axes), place, 1)


def _contracted(coefficients: Any, row: Any, axes: Any, place: int, n_axes: int) -> Any:
    """A sum over axes, with the new axes at one place."""
    wide = wide_dtype(row.dtype)
    coefficients = jnp.asarray(coefficients).astype(wide)
    found = jnp.tensordot(coefficients, row.astype(wide), axes, precision="highest")
    new = tuple(range(n_axes))
    return jnp.moveaxis(found, new, tuple(place + i for i in new)).astype(row.dtype)


# --- to Cartesian --------------------------------------------------------------------

_Parts = dict[int, TensorBlock]


def _grouped(tensor: TensorMap, names: Sequence[str]) -> tuple[Labels, list[_Parts]]:
    """The keys of the result, and for each of them the parts by their degree."""
    others = [n for n in tensor.keys.names if n not in ("o3_lambda", "o3_sigma")]
    groups: dict[tuple[int, ...], _Parts] = {}
    for i, (key, block) in enumerate(tensor.items()):
        degree, sigma = int(key["o3_lambda"]), int(key["o3_sigma"])
        with in_block(tensor.keys, i):
            if (degree, sigma) not in _PARTS[len(names)]:
                raise MetatensorError(
                    f"a tensor with the components {list(names)} has parts with "
                    f"(o3_lambda, o3_sigma) in {_PARTS[len(names)]}, not "
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
    taken = [name for name in names if name in has]
    if taken:
        raise MetatensorError(f"there are components {taken} already, among {has}")
    _check_inexact(block)


def _joined(parts: _Parts, names: Sequence[str]) -> TensorBlock:
    """The tensor that these are the parts of."""
    first, *others = parts.values()
    has = [labels.names[0] for labels in first.components]
    axis = has.index("o3_mu")
    for other in others:
        _check_fit(first, other, axis)
    components = [x for x in first.components if x.names[0] != "o3_mu"]
    components[axis:axis] = [Labels.range(name, 3) for name in names]
    coefficients = tuple(
        [_as(_coefficients(degree, len(names)), first.dtype) for degree in parts]
    )
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
            _contracted(c, row, ((0,), (self.axis,)), self.axis, self.rank)
            for c, row in zip(coefficients, rows, strict=True)
        ]
        return sum(terms[1:], terms[0])
