"""How each axis of a block turns, by the names of its components."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import Labels

#: how users say it
Turning = Literal["vector", "spherical", "invariant"]
#: how one axis turns: as a vector (x, y, z), as spherical harmonics of a degree (other
#: than 0), or not at all
Turn = Literal["vector", "invariant"] | int
#: for each component of an array
Axes = tuple[Turn, ...]

_TURNINGS = ("vector", "spherical", "invariant")
#: ``_1``, ``_2``, ... tells axes apart that turn alike
_VECTOR = re.compile(r"xyz(_\d+)?")
_SPHERICAL = re.compile(r"o3_mu(_\d+)?")
#: vectors of the cell: which of them, that is no direction
_INVARIANT = ("abc", "cell_abc")
#: names of components that featomic gives the gradients by the cell, see `_of_cell`
_OF_CELL = ["xyz", "abc"]


class Turns(NamedTuple):
    """How the arrays of a block turn.

    :param axes: for each component of the values
    :param gradients: the same for each gradient, in the order of the parameters; they
        have all components of their own
    """

    axes: Axes
    gradients: tuple[Turns, ...]

    def walk(self) -> list[Axes]:
        """The axes of the block and of all gradients in it, in the order of `_walk`."""
        return [self.axes, *(x for inner in self.gradients for x in inner.walk())]


def turns_of(block: TensorBlock, given: Mapping[str, Turning]) -> Turns:
    """How the values and the gradients of a block turn.

    :param given: what the caller says, by the names of components
    :raises MetatensorError: a component of which it is not known
    """
    axes: Axes = tuple(_turn(labels, given) for labels in block.components)
    return Turns(axes, _of_gradients(block, axes, given))


def _of_gradients(
    block: TensorBlock, axes: Axes, given: Mapping[str, Turning]
) -> tuple[Turns, ...]:
    """Gradients have the components of the parameter, then those of the values."""
    found = []
    for name, gradient in block.gradients():
        own = gradient.components[: len(gradient.components) - len(axes)]
        by_cell = _of_cell(own) if name == "cell" else {}
        known: dict[str, Turning] = {**by_cell, **given}
        all_axes: Axes = (*(_turn(labels, known) for labels in own), *axes)
        found.append(Turns(all_axes, _of_gradients(gradient, all_axes, given)))
    return tuple(found)


def _of_cell(components: Sequence[Labels]) -> Mapping[str, Turning]:
    """How featomic names the axes of a gradient by the cell, whose rows are vectors.

    The axis ``xyz`` goes over the vectors there, and ``abc`` over directions (measured
    by turning a crystal, and by finite differences).
    """
    if [labels.names[0] for labels in components] == _OF_CELL:
        return {"xyz": "invariant", "abc": "vector"}
    return {}


def _turn(labels: Labels, given: Mapping[str, Turning]) -> Turn:
    name = labels.names[0]
    turning = given.get(name) or _by_name(name)
    if turning == "vector":
        if labels.values.ravel().tolist() != [0, 1, 2]:
            raise MetatensorError(
                f"the component '{name}' turns as a vector, so its entries should be "
                f"[0, 1, 2] for x, y and z, but they are {_entries(labels)}"
            )
    elif turning == "spherical":
        degree = (len(labels) - 1) // 2
        if labels.values.ravel().tolist() != list(range(-degree, degree + 1)):
            raise MetatensorError(
                f"the component '{name}' turns as spherical harmonics, so its entries "
                f"should go from -l to l, but they are {_entries(labels)}"
            )
        return degree or "invariant"
    return turning


def _entries(labels: Labels) -> list[int]:
    return labels.values.ravel().tolist()


def _by_name(name: str) -> Turning:
    if _VECTOR.fullmatch(name):
        return "vector"
    if _SPHERICAL.fullmatch(name):
        return "spherical"
    if name in _INVARIANT:
        return "invariant"
    raise MetatensorError(
        f"it is not known how the component '{name}' turns: known are 'xyz', 'xyz_1', "
        "... (vectors), 'o3_mu', 'o3_mu_1', ... (spherical harmonics), and "
        f"{', '.join(repr(x) for x in _INVARIANT)} (invariant). Say it with "
        f"`components={{'{name}': 'vector'}}`, or 'spherical', or 'invariant'"
    )


def check_given(given: Mapping[str, Turning] | None) -> Mapping[str, Turning]:
    """What the caller says of components, if it can be said."""
    for name, turning in (given or {}).items():
        if turning not in _TURNINGS:
            raise MetatensorError(
                f"`components` must say 'vector', 'spherical' or 'invariant' for each "
                f"name, got {turning!r} for '{name}'"
            )
    return given or {}
