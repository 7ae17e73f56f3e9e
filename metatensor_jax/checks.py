"""What several operations share: checks of their arguments, and how twins are made.

The messages name the operation that was called.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from ._types.block import TensorBlock
from ._types.errors import MetatensorError, NotEqualError, TracedLabelsError
from ._types.labels import Labels, first_difference
from ._types.tensor import TensorMap

_Options = ParamSpec("_Options")
_Answer = TypeVar("_Answer", bool, Labels, None)

_ONE = Labels.single()
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


@overload
def block_form(
    operation: Callable[Concatenate[TensorMap, TensorMap, _Options], _Answer],
) -> Callable[Concatenate[TensorBlock, TensorBlock, _Options], _Answer]: ...
@overload
def block_form(
    operation: Callable[Concatenate[TensorMap, _Options], TensorMap],
) -> Callable[Concatenate[TensorBlock, _Options], TensorBlock]: ...
@overload
def block_form(
    operation: Callable[Concatenate[TensorMap, _Options], list[TensorMap]],
) -> Callable[Concatenate[TensorBlock, _Options], list[TensorBlock]]: ...
@overload
def block_form(
    operation: Callable[Concatenate[TensorMap, _Options], _Answer],
) -> Callable[Concatenate[TensorBlock, _Options], _Answer]: ...
def block_form(operation: Callable[..., Any]) -> Any:
    """The same operation for blocks: ``..._block`` or ``..._block_raise``.

    Its arguments ``tensor``, ``tensor_1``, ... are called ``block``, ``block_1``, ...
    Maps in the result become blocks; other results stay what they are.
    """
    signature = inspect.signature(operation)
    parameters, blocks = [], []
    for parameter in signature.parameters.values():
        if parameter.annotation == "TensorMap":
            blocks.append(parameter.name.replace("tensor", "block"))
            parameter = parameter.replace(name=blocks[-1], annotation="TensorBlock")
        parameters.append(parameter)
    returned = str(signature.return_annotation).replace("TensorMap", "TensorBlock")
    signature = signature.replace(parameters=parameters, return_annotation=returned)

    def of_block(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name in blocks:
            check_type(bound.arguments[name], name, TensorBlock)
            bound.arguments[name] = TensorMap._make(_ONE, [bound.arguments[name]])
        return _only_block(operation(*bound.args, **bound.kwargs))

    name, raises, _ = operation.__name__.partition("_raise")
    of_block.__name__ = of_block.__qualname__ = f"{name}_block{raises}"
    of_block.__module__ = operation.__module__
    of_block.__doc__ = _doc_for_blocks(operation)
    of_block.__signature__ = signature  # type: ignore[attr-defined]
    return of_block


_PARAMETER = re.compile(r":param tensor(\w*): (a|another) map(; its keys .*)?")


def _doc_for_blocks(operation: Callable[..., Any]) -> str:
    doc = _PARAMETER.sub(r":param block\1: \2 block", inspect.getdoc(operation) or "")
    return f"For blocks what :func:`{operation.__name__}` is for maps.\n\n{doc}"


def _only_block(result: Any) -> Any:
    if isinstance(result, list):
        return [_only_block(tensor) for tensor in result]
    return result.block_by_id(0) if isinstance(result, TensorMap) else result


_RAISES = "Raise :class:`NotEqualError` unless"


def asking(raising: Callable[_Options, None]) -> Callable[_Options, bool]:
    """Whether ``..._raise`` would not raise :class:`NotEqualError`, called ``...``."""

    def holds(*args: _Options.args, **kwargs: _Options.kwargs) -> bool:
        try:
            raising(*args, **kwargs)
        except NotEqualError:
            return False
        return True

    holds.__name__ = holds.__qualname__ = raising.__name__.removesuffix("_raise")
    holds.__module__ = raising.__module__
    doc = inspect.getdoc(raising) or ""
    holds.__doc__ = doc.replace(_RAISES, "Tell whether", 1)
    holds.__signature__ = inspect.signature(raising).replace(  # type: ignore[attr-defined]
        return_annotation="bool"
    )
    return holds


def check_axis(axis: str, allowed: Sequence[str] = ("samples", "properties")) -> None:
    """Raise unless ``axis`` is one of those that an operation works along."""
    if axis not in allowed:
        options = " or ".join(f"'{name}'" for name in allowed)
        raise MetatensorError(f"`axis` must be either {options}, not '{axis}'")


def as_names(names: str | Sequence[str]) -> list[str]:
    """``"atom"`` means ``["atom"]``."""
    return [names] if isinstance(names, str) else list(names)


@contextmanager
def in_operation(name: str) -> Iterator[None]:
    """Say in a :class:`TracedLabelsError` which operation raised it."""
    try:
        yield
    except TracedLabelsError as error:
        error.args = (f"in '{name}': {error}",)
        raise


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
    a: TensorBlock, b: TensorBlock, what: str, axes: Sequence[str] = AXES
) -> None:
    """Raise unless labels on these axes, and parameters of gradients, are the same."""
    check_same_axes(a, b, what, axes)
    check_same_parameters(a, b, what)


def check_same_axes(
    a: TensorBlock, b: TensorBlock, what: str, axes: Sequence[str] = AXES
) -> None:
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


def axis_labels(block: TensorBlock, axis: str) -> Sequence[Labels]:
    """All labels on an axis: one, or one for each component."""
    if axis == "components":
        return block._structure.components
    return (block.samples if axis == "samples" else block._structure.properties,)


def _same_labels(a: Labels, b: Labels) -> bool:
    if a.is_static and b.is_static:
        return a == b
    # traced values can not be compared while a program is traced
    return a.names == b.names and len(a) == len(b)


def check_same_parameters(a: TensorBlock, b: TensorBlock, what: str) -> None:
    """Raise unless two blocks have gradients with respect to the same parameters."""
    if a.gradients_list() != b.gradients_list():
        raise NotEqualError(
            f"inputs to '{what}' should have the same gradient parameters, but they "
            f"have {a.gradients_list()} and {b.gradients_list()}"
        )
