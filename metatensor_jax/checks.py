"""What several operations share: checks of their arguments, blocks as maps.

The messages name the operation that was called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec

from .block import TensorBlock
from .errors import MetatensorError, NotEqualError
from .labels import Labels
from .tensor import TensorMap

_Options = ParamSpec("_Options")

AXES = ("samples", "components", "properties")


def check_type(value: Any, name: str, expected: type) -> None:
    """Raise unless the argument ``name`` is of this type."""
    if not isinstance(value, expected):
        hint = ""
        if expected is TensorMap and isinstance(value, TensorBlock):
            hint = ": for single blocks see the functions that end with `_block`"
        raise TypeError(
            f"`{name}` must be a metatensor_jax {expected.__name__}, not "
            f"{type(value).__module__}.{type(value).__name__}{hint}"
        )


def block_form(
    operation: Callable[Concatenate[TensorMap, _Options], TensorMap],
) -> Callable[Concatenate[TensorBlock, _Options], TensorBlock]:
    """The same operation for a single block, called ``..._block``."""
    signature = inspect.signature(operation)
    tensor, *options = signature.parameters.values()
    first = tensor.replace(name="block", annotation=TensorBlock)

    def of_block(
        block: TensorBlock, *args: _Options.args, **kwargs: _Options.kwargs
    ) -> TensorBlock:
        check_type(block, "block", TensorBlock)
        tensor = TensorMap._make(Labels.single(), [block])
        return operation(tensor, *args, **kwargs).block_by_id(0)

    of_block.__name__ = of_block.__qualname__ = f"{operation.__name__}_block"
    of_block.__module__ = operation.__module__
    of_block.__doc__ = f"One block, see :func:`{operation.__name__}`."
    of_block.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[first, *options], return_annotation=TensorBlock
    )
    return of_block


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
        raise NotEqualError(
            f"inputs to '{what}' should have the same keys, but they have\n{a.keys}\n"
            f"and\n{b.keys}"
        )


def check_same_axes(
    a: TensorBlock, b: TensorBlock, what: str, axes: Sequence[str] = AXES
) -> None:
    """Raise unless two blocks have the same labels on these axes."""
    for axis in axes:
        first, other = axis_labels(a, axis), axis_labels(b, axis)
        if len(first) != len(other):
            raise NotEqualError(
                f"inputs to '{what}' should have the same number of components, but "
                f"they have {[c.names[0] for c in first]} and "
                f"{[c.names[0] for c in other]}"
            )
        for mine, its in zip(first, other, strict=True):
            if mine is not its and not _same_labels(mine, its):
                raise NotEqualError(
                    f"inputs to '{what}' should have the same {axis}, but "
                    f"{first_difference(mine, its)}"
                )


def axis_labels(block: TensorBlock, axis: str) -> Sequence[Labels]:
    """All labels on an axis: one, or one for each component."""
    if axis == "components":
        return block._structure.components
    return (block.samples if axis == "samples" else block.properties,)


def _same_labels(a: Labels, b: Labels) -> bool:
    if a.is_static and b.is_static:
        return a == b
    # traced values can not be compared while a program is traced
    return a.names == b.names and len(a) == len(b)


def first_difference(a: Labels, b: Labels) -> str:
    """In words: where two labels differ."""
    if a.names != b.names:
        return f"the names differ: {a.names} and {b.names}"
    if len(a) != len(b):
        return f"there are {len(a)} and {len(b)} entries of {a.names}"
    row = int((a.values != b.values).any(axis=1).argmax())
    same_set = len(a.intersection(b)) == len(a)
    hint = ", they are the same in another order" if same_set else ""
    return f"entry {row} is {a[row].print()} and {b[row].print()}{hint}"


def check_same_parameters(a: TensorBlock, b: TensorBlock, what: str) -> None:
    """Raise unless two blocks have gradients with respect to the same parameters."""
    if a.gradients_list() != b.gradients_list():
        raise NotEqualError(
            f"inputs to '{what}' should have the same gradient parameters, but they "
            f"have {a.gradients_list()} and {b.gradients_list()}"
        )
