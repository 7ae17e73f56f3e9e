"""Components of parameters and of stored gradients, matched by their names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import Labels


def free_components(
    components: Sequence[Labels], taken: Sequence[Labels]
) -> tuple[Labels, ...]:
    """These components, with other names where a block has them already.

    A name that is taken ends in the first of ``_2``, ``_3``, ... that neither these
    components nor the taken ones have. So a name does not depend on the order of the
    others. The components of a second derivative by positions are ``xyz_2`` and
    ``xyz``.

    >>> def of(*names: str) -> list[Labels]:
    ...     return [Labels.range(name, 3) for name in names]
    >>> names_of(free_components(of("xyz"), taken=of("xyz_2", "xyz")))
    ['xyz_3']
    >>> names_of(free_components(of("m_2", "m"), taken=of("m")))
    ['m_2', 'm_3']
    """
    own, others = set(names_of(components)), set(names_of(taken))
    renamed = []
    for labels in components:
        (name,) = labels.names
        if name in others:
            numbered = (f"{name}_{number}" for number in itertools.count(2))
            free = next(other for other in numbered if other not in own | others)
            labels = labels.rename(name, free)
        renamed.append(labels)
    return tuple(renamed)


def names_of(components: Sequence[Labels]) -> list[str]:
    """The name of each component."""
    return [labels.names[0] for labels in components]


def match_components(
    name: str, parameter: TensorBlock, gradient: TensorBlock, taken: Sequence[Labels]
) -> tuple[int, ...]:
    """Which component of the parameter each component of a stored gradient is.

    They are matched by their names, in any order: those of the parameter, but where the
    values have a name as well, the one that :func:`free_components` makes of it.

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
