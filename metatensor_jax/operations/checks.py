"""What several operations share: checks of their arguments.

The messages name the operation that was called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._plan.draft import Draft
from .._types.block import TensorBlock
from .._types.conversion import is_inexact
from .._types.errors import MetatensorError, NotEqualError
from .._types.foreign import metatensor_kind, type_of
from .._types.labels import Labels, first_difference
from .._types.structure import in_words
from .._types.tensor import TensorMap

AXES = ("samples", "components", "properties")
Block = TensorBlock | Draft


def check_type(value: object, name: str, expected: type) -> None:
    """Raise unless the argument ``name`` is of this type."""
    if isinstance(value, expected):
        return
    hint = ""
    if expected is TensorMap and isinstance(value, TensorBlock):
        hint = ": for single blocks see the functions that end with `_block`"
    raise TypeError(
        f"`{name}` must be a metatensor_jax {expected.__name__}, not "
        f"{type_of(value, qualified=True)}{hint}"
    )


def check_ours(value: Any, name: str) -> None:
    """Raise if an argument that may be of several types is an object of metatensor."""
    if metatensor_kind(value):
        raise TypeError(f"`{name}` must be of metatensor_jax, not {type_of(value)}")


def checked_fill(value: Any, dtype: Any) -> Any:
    """The value to fill with; raise if numbers of this dtype can not be it.

    All NaNs become the same object: a plan is found again by its options, and NaNs are
    equal by identity only.
    """
    if dtype is None or is_inexact(dtype):
        is_nan = isinstance(value, (float, np.floating)) and value != value
        return np.nan if is_nan else value
    limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if value != value or int(value) != value or not limits[0] <= value <= limits[1]:
        raise MetatensorError(
            f"`fill_value` is {value}, which {dtype} can not hold: convert the map, "
            "`.to(dtype=float)`, or fill with another value"
        )
    return value


def check_axis(axis: str, allowed: Sequence[str] = ("samples", "properties")) -> None:
    """Raise unless ``axis`` is one of those that an operation works along."""
    if axis not in allowed:
        options = " or ".join(f"'{name}'" for name in allowed)
        raise MetatensorError(f"`axis` must be either {options}, not '{axis}'")


def as_names(names: str | Sequence[str]) -> list[str]:
    """``"atom"`` means ``["atom"]``."""
    return [names] if isinstance(names, str) else list(names)


def check_same_keys(a: TensorMap, b: TensorMap, what: str) -> None:
    """Raise unless two maps have the same keys, in any order."""
    if a.keys is b.keys or a.keys == b.keys:
        return
    same_names = a.keys.names == b.keys.names and len(a) == len(b)
    if not same_names or len(a.keys.intersection(b.keys)) != len(a):
        raise different_keys(a.keys, b.keys, what)


def different_keys(a: Labels, b: Labels, what: str, hint: str = "") -> NotEqualError:
    """The error for keys that are not the same entries in any order."""
    if a.names != b.names:
        where = f"the names differ: {a.names} and {b.names}"
    else:
        only_a = a.difference(b)
        key, which = (only_a, "first") if len(only_a) else (b.difference(a), "second")
        where = f"{key[0].print()} is only in the {which}"
    return NotEqualError(
        f"inputs to '{what}' should have the same keys, but they have\n{a}\nand\n{b}\n"
        f"{where}{hint}"
    )


def check_same_metadata(
    a: Block, b: Block, what: str, axes: Sequence[str] = AXES
) -> None:
    """Raise unless labels on these axes, and parameters of gradients, are the same."""
    check_same_axes(a, b, what, axes)
    check_same_parameters(a, b, what)


def check_same_axes(a: Block, b: Block, what: str, axes: Sequence[str] = AXES) -> None:
    """Raise unless two blocks have the same labels on these axes."""
    for axis in axes:
        first, other = axis_labels(a, axis), axis_labels(b, axis)
        if axis != "samples" and first == other:  # nearly always, and fast
            continue
        if len(first) != len(other):
            raise NotEqualError(
                f"inputs to '{what}' should have the same number of components, but "
                f"they have {[c.names[0] for c in first]} and "
                f"{[c.names[0] for c in other]}"
            )
        for mine, its in zip(first, other, strict=True):
            check_same_labels(mine, its, what, axis)


def check_same_labels(a: Labels, b: Labels, what: str, axis: str) -> None:
    """Raise unless these are the same entries in the same order."""
    if a is not b and not _same_labels(a, b):
        raise NotEqualError(
            f"inputs to '{what}' should have the same {axis}, but "
            f"{first_difference(a, b)}"
        )


def axis_labels(block: Block, axis: str) -> Sequence[Labels]:
    """All labels on an axis: one, or one for each component."""
    if axis == "components":
        return block.components
    return (block.samples if axis == "samples" else block.properties,)


def _same_labels(a: Labels, b: Labels) -> bool:
    if a.is_static and b.is_static:
        return a == b
    # traced values can not be compared while a program is traced
    return a.names == b.names and len(a) == len(b)


def check_same_parameters(a: Block, b: Block, what: str) -> None:
    """Raise unless two blocks have gradients with respect to the same parameters."""
    mine, its = parameters_of(a), parameters_of(b)
    if mine != its:
        raise NotEqualError(
            f"inputs to '{what}' should have the same gradient parameters, but they "
            f"have {mine} and {its}"
        )


def parameters_of(block: Block) -> list[str]:
    """The parameters that a block has gradients for, sorted."""
    if isinstance(block, TensorBlock):
        return block.gradients_list()
    return sorted(block.gradients)


def check_not_batched(what: str, block: TensorBlock) -> None:
    """Raise if the values have other axes than the labels."""
    for path, part in block._walk():
        n_axes = 2 + len(part.components)
        if part.values.ndim != n_axes:
            raise MetatensorError(
                f"the values of {what}{in_words(path)} have the shape {part.shape}, "
                f"but its labels are those of {n_axes} axes. Maps that are stacked for "
                "`jax.vmap` are maps inside of it only: call this there, or take them "
                "apart first"
            )
