"""Components of parameters and of stored gradients, matched by their names."""

from __future__ import annotations

from collections.abc import Sequence

from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import Labels


def free_components(
    components: Sequence[Labels], taken: Sequence[Labels]
) -> tuple[Labels, ...]:
    """These components, with other names where a block has them already.

    A name that is taken ends in ``_2``, or the first of ``_3``, ... that is free. The
    components of a second derivative by positions are ``xyz_2`` and ``xyz``.
    """
    names = set(names_of(taken))
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


def names_of(components: Sequence[Labels]) -> list[str]:
    """The name of each component."""
    return [labels.names[0] for labels in components]


def match_components(
    name: str, parameter: TensorBlock, gradient: TensorBlock, taken: Sequence[Labels]
) -> tuple[int, ...]:
    """Which component of the parameter each component of a stored gradient is.

    They are matched by their names, in any order. Names that the values have already
    are those of :func:`free_components`.

    :param taken: the components of the values (which are a gradient themselves, in a
        gradient of a gradient)
    :raises MetatensorError: other names, or other entries
    """
    stored = gradient.components[: len(gradient.components) - len(taken)]
    order = find_components(stored, free_components(parameter.components, taken))
    if order is not None:
        return order
    values = f", after which come those of the values, {sizes_of(taken)}"
    raise MetatensorError(
        f"the components of the parameter '{name}', "
        f"{sizes_of(parameter.components)}, do not fit to those of its stored "
        f"gradients, {sizes_of(stored)}{values if taken else ''}. They are matched by "
        "their names, in any order, and must have the same entries; only a name that "
        "the values have as well ends in _2, _3, ... in the gradients. Give the "
        "parameter the components of the gradients"
    )


def find_components(
    components: Sequence[Labels], among: Sequence[Labels]
) -> tuple[int, ...] | None:
    """Where each of these is among the others; None unless all are in both."""
    names, others = names_of(components), names_of(among)
    if sorted(names) != sorted(others):
        return None
    order = tuple(others.index(name) for name in names)
    fits = all(a == among[i] for a, i in zip(components, order, strict=True))
    return order if fits else None


def sizes_of(components: Sequence[Labels]) -> list[tuple[str, int]]:
    """The name and the size of each, for messages."""
    return [(labels.names[0], len(labels)) for labels in components]
