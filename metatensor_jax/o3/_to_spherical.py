"""Cartesian tensors in terms of spherical harmonics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..operations.checks import as_names, check_type
from ..operations.rows import map_rows
from ._cartesian import PARTS, basis, check_free, check_inexact, check_rank, contracted
from ._coefficients import spherical_components


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
    names = check_rank(as_names(components))
    present = [n for n in ("o3_lambda", "o3_sigma") if n in tensor.keys.names]
    if present:
        raise MetatensorError(
            f"the keys {tensor.keys.names} have {present} already: is this tensor "
            "spherical?"
        )
    for i, block in enumerate(tensor):
        with in_block(tensor.keys, i):
            _check_directions(block, names)
    parts = [_part(tensor, names, degree) for degree, _ in PARTS[len(names)]]
    blocks = [part.block_by_id(i) for i in range(len(tensor)) for part in parts]
    heads = np.array(PARTS[len(names)], np.int32)
    rows = np.concatenate(
        [
            np.tile(heads, (len(tensor), 1)),
            np.repeat(tensor.keys.values, len(heads), axis=0),
        ],
        axis=1,
    )
    keys = Labels(["o3_lambda", "o3_sigma", *tensor.keys.names], rows)
    return TensorMap(keys, blocks, tensor.info())


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
    check_free(block, ["o3_mu"])
    check_inexact(block)


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
    return map_rows(
        _ToSpherical(axes),
        tensor,
        args=(basis(degree, len(names), tensor.dtype),),
        linear=True,
        components=components,
    )


@dataclass(frozen=True)
class _ToSpherical:
    """One degree of a row, in the place of its Cartesian axes."""

    axes: tuple[int, ...]

    def __call__(self, row: Any, coefficients: Any) -> Any:
        inner = tuple(range(1, 1 + len(self.axes)))
        # what is left before the first axis is there before it as well
        place = min(self.axes)
        return contracted(coefficients, row, (inner, self.axes), place, 1)
