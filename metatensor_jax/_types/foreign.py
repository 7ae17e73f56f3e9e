"""Objects of metatensor that are given where ours belong: what they are, what to do.

metatensor's classes have the names of ours, so a message has to tell them apart. They
are recognised, not imported.
"""

from __future__ import annotations

from typing import Any

KINDS = ("Labels", "LabelsEntry", "TensorBlock", "TensorMap")
_SCRIPT_CLASS = "__torch__.torch.classes.metatensor."


def metatensor_kind(value: Any) -> str | None:
    """Which class of metatensor, or of metatensor-torch, ``value`` is of.

    :returns: ``"Labels"``, ``"LabelsEntry"``, ``"TensorBlock"`` or ``"TensorMap"``;
        None for anything else, our own classes among it

    >>> metatensor_kind(3) is None
    True
    """
    name = _script_class(value)
    if name is not None:
        kind = name.removeprefix(_SCRIPT_CLASS)
        return kind if name != kind and kind in KINDS else None
    for cls in type(value).__mro__:
        if cls.__module__.partition(".")[0] == "metatensor" and cls.__name__ in KINDS:
            return cls.__name__
    return None


def _script_class(value: Any) -> str | None:
    """The name of the TorchScript class of ``value``: Python has one type for all."""
    cls = type(value)
    if (cls.__module__, cls.__name__) != ("torch", "ScriptObject"):
        return None
    return value._type().qualified_name()


def type_of(value: Any, *, qualified: bool = False) -> str:
    """The type of ``value`` for the end of a message, and what to do about it.

    :param qualified: with the module

    >>> type_of([]), type_of([], qualified=True)
    ('list', 'builtins.list')
    """
    kind = metatensor_kind(value)
    if kind is not None:
        package = "metatensor" if _script_class(value) is None else "metatensor.torch"
        return f"{package}.{kind}{conversion_hint(kind)}"
    cls = type(value)
    return f"{cls.__module__}.{cls.__name__}" if qualified else cls.__name__


def conversion_hint(kind: str) -> str:
    """What to do with an object of metatensor."""
    if kind == "LabelsEntry":
        return ": convert the labels that it is from, with `interop.from_metatensor`"
    return ": convert it with `metatensor_jax.interop.from_metatensor(x)`"
