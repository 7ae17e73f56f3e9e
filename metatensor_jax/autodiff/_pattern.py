"""Which entries of a parameter each row of a block depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..block import TensorBlock
from ..errors import MetatensorError, TracedLabelsError
from ..labels import Labels
from ..rows import join_rows
from ..tensor import TensorMap
from ._parameters import find_entries, inherit, sample_columns

Sparsity = TensorMap | Mapping[str, Labels | Sequence[Labels]] | None


class Pattern(NamedTuple):
    """The gradient rows of a block with respect to one parameter.

    :param samples: their labels
    :param parents: the row of the block that each of them is a gradient of
    :param entries: the sample of the parameter that each is with respect to
    :param components: of the parameter, with names that the block does not have
    """

    samples: Labels
    parents: np.ndarray
    entries: np.ndarray
    components: tuple[Labels, ...]


def patterns_of(
    tensor: TensorMap,
    parameters: Mapping[str, TensorBlock],
    sparsity: Sparsity,
    system: str,
) -> list[dict[str, Pattern]]:
    """The pattern of each block, by parameter."""
    return [
        {
            name: _pattern(block, name, p, _declared(sparsity, name, i), system)
            for name, p in parameters.items()
        }
        for i, block in enumerate(tensor)
    ]


def _declared(sparsity: Sparsity, name: str, i: int) -> Labels | None:
    """The gradient samples that the caller declared for one block."""
    if isinstance(sparsity, TensorMap):
        block = sparsity.block_by_id(i)
        return block.gradient(name).samples if block.has_gradient(name) else None
    declared = None if sparsity is None else sparsity.get(name)
    return declared if isinstance(declared, (Labels, type(None))) else declared[i]


def _pattern(
    block: TensorBlock,
    name: str,
    parameter: TensorBlock,
    declared: Labels | None,
    system: str,
) -> Pattern:
    components = free_components(parameter.components, block.components)
    if declared is not None:
        return _declared_pattern(block, name, parameter, declared, components)
    own, others = block.samples, parameter.samples
    if system in own.names and system in others.names:
        parents, entries = join_rows(own.column(system), others.column(system))
    else:
        shape = (len(own), len(others))
        parents, entries = (index.ravel() for index in np.indices(shape))
    # one entry for each system: the parent says which
    names = [] if others.names in ([system], ["_"]) else others.names
    values = np.column_stack([parents, others.values[entries][:, : len(names)]])
    samples = Labels(["sample", *names], values.astype(np.int32), assume_unique=True)
    return Pattern(samples, parents, entries, components)


def _declared_pattern(
    block: TensorBlock,
    name: str,
    parameter: TensorBlock,
    samples: Labels,
    components: tuple[Labels, ...],
) -> Pattern:
    if samples.names[:1] != ["sample"]:
        raise MetatensorError(
            f"the first dimension of the declared gradient samples of '{name}' must be "
            f"'sample', got {samples.names}"
        )
    parents = samples.column("sample")
    if len(parents) and not 0 <= parents.min() <= parents.max() < len(block):
        raise MetatensorError(
            f"the declared gradient samples of '{name}' must be of the rows 0 to "
            f"{len(block) - 1} of the values, but they go from {parents.min()} to "
            f"{parents.max()}"
        )
    columns = inherit(sample_columns(block.samples), samples)
    entries = find_entries(name, parameter.samples, samples, columns)
    return Pattern(samples, parents, entries, components)


def free_components(
    components: Sequence[Labels], taken: Sequence[Labels]
) -> tuple[Labels, ...]:
    """These components, with other names where a block has them already.

    The components of a second derivative by positions are ``xyz_2`` and ``xyz``.
    """
    names = {labels.names[0] for labels in taken}
    renamed = []
    for labels in components:
        name, number = labels.names[0], 2
        while name in names:
            name, number = f"{labels.names[0]}_{number}", number + 1
        names.add(name)
        renamed.append(
            labels if name == labels.names[0] else labels.rename(labels.names[0], name)
        )
    return tuple(renamed)


def of_gradient(pattern: Pattern, above: Pattern, taken: Sequence[Labels]) -> Pattern:
    """The pattern of a gradient: its rows depend on what their parents depend on.

    :param pattern: of the block, by the parameter to differentiate by
    :param above: of the block, by the parameter of the gradient
    :param taken: the components of the gradient
    """
    rows, at = join_rows(above.parents, pattern.parents)
    values = pattern.samples.values[at].copy()
    values[:, 0] = rows
    samples = Labels._make(pattern.samples._names, values)
    components = free_components(pattern.components, taken)
    return Pattern(samples, rows, pattern.entries[at], components)


def check_known(tensor: TensorMap, parameters: Mapping[str, TensorBlock]) -> None:
    """Raise if the labels that a pattern is made of are traced."""
    for block in [*tensor, *parameters.values()]:
        if not block.samples.is_static:
            raise TracedLabelsError("compute_gradients", block.samples.names)
