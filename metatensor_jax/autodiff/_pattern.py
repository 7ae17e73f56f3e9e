"""Which entries of a parameter each row of a block depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .._host.packing import join_rows, run_starts, with_parents
from .._types.block import TensorBlock
from .._types.errors import MetatensorError, TracedLabelsError
from .._types.labels import Labels, first_difference
from .._types.tensor import TensorMap
from ._components import free_components
from ._entries import Known, find_entries, is_single

Sparsity = TensorMap | Mapping[str, Labels | Sequence[Labels]] | None


class Groups(NamedTuple):
    """Rows and entries that all depend on each other, and on nothing else: systems.

    :param rows: the group of each row of a block
    :param entries: the group of each sample of a parameter
    """

    rows: np.ndarray
    entries: np.ndarray


class Pattern(NamedTuple):
    """The gradient rows of a block with respect to one parameter.

    :param samples: their labels
    :param parents: the row of the block that each of them is a gradient of
    :param entries: the sample of the parameter that each is with respect to
    :param original: the components of the parameter
    :param components: the same, with names that the block does not have
    :param groups: if rows depend on all entries of their group, these groups
    """

    samples: Labels
    parents: np.ndarray
    entries: np.ndarray
    original: tuple[Labels, ...]
    components: tuple[Labels, ...]
    groups: Groups | None


def patterns_of(
    tensor: TensorMap,
    parameters: Mapping[str, TensorBlock],
    sparsity: Sparsity,
    system: str,
) -> list[dict[str, Pattern]]:
    """The pattern of each block, by parameter."""
    declared = _declared(sparsity, tensor, parameters)
    return [
        {
            name: _pattern(block, name, p, samples.get(name), system)
            for name, p in parameters.items()
        }
        for block, samples in zip(tensor, declared, strict=True)
    ]


def _declared(
    sparsity: Sparsity, tensor: TensorMap, parameters: Mapping[str, TensorBlock]
) -> list[dict[str, Labels]]:
    """The gradient samples that the caller declared: for each block, by parameter."""
    if sparsity is None:
        return [{} for _ in tensor]
    if isinstance(sparsity, TensorMap):
        if len(sparsity) != len(tensor) or set(sparsity.keys) != set(tensor.keys):
            raise MetatensorError(
                "`sparsity` must have the keys of the result, but they are\n"
                f"{sparsity.keys}\nand\n{tensor.keys}"
            )
        blocks = sparsity.blocks_by_id(sparsity.keys.select(tensor.keys))
        for own, declared in zip(tensor, blocks, strict=True):
            if own.samples != declared.samples:
                raise MetatensorError(
                    "`sparsity` must have the samples of the result, but "
                    f"{first_difference(own.samples, declared.samples)}"
                )
        return [{name: g.samples for name, g in block.gradients()} for block in blocks]
    unknown = sorted(set(sparsity) - set(parameters))
    if unknown:
        raise MetatensorError(
            f"`sparsity` is for {unknown}, but the parameters are {sorted(parameters)}"
        )
    return [
        {name: x if isinstance(x, Labels) else x[i] for name, x in sparsity.items()}
        for i in range(len(tensor))
    ]


def _pattern(
    block: TensorBlock,
    name: str,
    parameter: TensorBlock,
    declared: Labels | None,
    system: str,
) -> Pattern:
    original = tuple(parameter.components)
    components = free_components(original, block.components)
    if declared is not None:
        parents, entries = _declared_rows(block, name, parameter, declared, system)
        return Pattern(declared, parents, entries, original, components, None)
    own, others = block.samples, parameter.samples
    groups = _groups(own, others, system)
    parents, entries = join_rows(*groups)
    # one entry for each system: the parent says which
    is_known = others.names == [system] and system in own.names
    names = [] if is_known or is_single(others) else others.names
    values = np.column_stack([parents, others.values[entries][:, : len(names)]])
    samples = Labels(["sample", *names], values.astype(np.int32), assume_unique=True)
    return Pattern(samples, parents, entries, original, components, groups)


def _groups(own: Labels, others: Labels, system: str) -> Groups:
    if system in own.names and system in others.names:
        return Groups(own.column(system), others.column(system))
    return Groups(np.zeros(len(own), np.int32), np.zeros(len(others), np.int32))


def rank_in_group(groups: np.ndarray) -> np.ndarray:
    """How many before each have the same group.

    >>> rank_in_group(np.array([5, 3, 5, 5, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(groups, kind="stable")
    starts = run_starts(groups[order])
    lengths = np.diff(starts, append=len(groups))
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return rank


def _declared_rows(
    block: TensorBlock,
    name: str,
    parameter: TensorBlock,
    samples: Labels,
    system: str,
) -> tuple[np.ndarray, np.ndarray]:
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
    known = Known.of(block.samples).below(name, samples, system)
    return parents, find_entries(name, parameter.samples, samples, known)


def of_gradient(pattern: Pattern, above: Pattern, taken: Sequence[Labels]) -> Pattern:
    """The pattern of a gradient: its rows depend on what their parents depend on.

    :param pattern: of the block, by the parameter to differentiate by
    :param above: of the block, by the parameter of the gradient
    :param taken: the components of the gradient
    """
    rows, at = join_rows(above.parents, pattern.parents)
    values = with_parents(pattern.samples.values[at], rows)
    samples = Labels._make(pattern.samples._names, values)
    return pattern._replace(
        samples=samples,
        parents=rows,
        entries=pattern.entries[at],
        components=free_components(pattern.original, taken),
        groups=pattern.groups
        and pattern.groups._replace(rows=pattern.groups.rows[above.parents]),
    )


def check_known(tensor: TensorMap, parameters: Mapping[str, TensorBlock]) -> None:
    """Raise if the labels that a pattern is made of are traced."""
    for block in [*tensor, *parameters.values()]:
        if not block.samples.is_static:
            raise TracedLabelsError("compute_gradients", block.samples.names)
