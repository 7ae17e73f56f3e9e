"""Options of modules: one value for all keys, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx

from ..._types.entry import LabelsEntry
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ...operations.checks import check_ours, check_type


def per_key(name: str, values: Any, n: int, keys: str = "keys") -> list[Any]:
    """One value for each key, from one for all of them or a list.

    >>> per_key("bias", True, 2)
    [True, True]
    """
    if not isinstance(values, Sequence):
        return [values] * n
    if len(values) != n:
        raise MetatensorError(
            f"`{name}` must be one value, or one for each of the {n} {keys}, got "
            f"{len(values)}"
        )
    return list(values)


def per_invariant_key(
    name: str, values: Any, invariant: Sequence[int], n: int, other: Any
) -> list[Any]:
    """The same for invariant keys; all others have the value ``other``.

    >>> per_invariant_key("bias", True, [1], 3, False)
    [False, True, False]
    """
    result = [other] * n
    of_invariant = per_key(name, values, len(invariant), "invariant keys")
    for i, value in zip(invariant, of_invariant, strict=True):
        result[i] = value
    return result


def find_invariant(in_keys: Labels, invariant_keys: Labels | None) -> list[int]:
    """The positions of the keys whose blocks do not change when systems rotate.

    :param invariant_keys: which they are, by any of the dimensions of ``in_keys``; if
        None, those with ``o3_lambda`` 0 and ``o3_sigma`` 1

    >>> find_invariant(Labels(["o3_lambda", "o3_sigma"], [[1, 1], [0, 1]]), None)
    [1]
    """
    check_type(in_keys, "in_keys", Labels)
    if invariant_keys is None:
        invariant_keys = Labels(["o3_lambda", "o3_sigma"], [[0, 1]])
    missing = [name for name in invariant_keys.names if name not in in_keys.names]
    if missing:
        raise MetatensorError(
            f"`in_keys` have the dimensions {in_keys.names}, but invariant keys are "
            f"found by {invariant_keys.names}: say which they are, such as "
            f'`invariant_keys=Labels("{in_keys.names[0]}", [[0]])`'
        )
    return in_keys.select(invariant_keys).tolist()


def listed(labels: Sequence[Labels] | Labels | None, n: int) -> list[Labels] | None:
    """Properties for each key, from those of all keys or a list."""
    if labels is None:
        return None
    check_ours(labels, "out_properties")
    of_each = [labels] * n if isinstance(labels, Labels) else list(labels)
    for i, own in enumerate(of_each):
        check_type(own, f"out_properties[{i}]", Labels)
    return of_each


def check_is_map(value: object) -> None:
    """Raise unless a module is called with a map."""
    if isinstance(value, eqx.Module):
        raise TypeError(
            f"a model takes a map, not a {type(value).__name__}. Optax takes all that "
            "can be called for a function: give labels or masks that are a model as "
            "`lambda _: labels`"
        )
    check_type(value, "tensor", TensorMap)


def check_alone(state: object, key: object) -> None:
    """Raise unless a stacked map comes without a state and a random key."""
    if state is not None or key is not None:
        raise MetatensorError(
            "a StackedMap takes neither `state` nor `key`, whose blocks go one after "
            "the other: give the map, `tensor.unstack()`"
        )


def result_properties(size: int, labels: Labels | None) -> Labels:
    """The labels of what a module gives: those that were asked for, if any."""
    if labels is None:
        return Labels.range("_", size)
    if len(labels) != size:
        raise MetatensorError(
            f"the module gives {size} properties, but its `out_properties` are "
            f"{len(labels)}:\n{labels}"
        )
    return labels


def module_of(in_keys: Labels, key: LabelsEntry) -> int:
    """The position of the module for a block; raise if there is none."""
    i = in_keys.position(key)
    if i is None:
        raise MetatensorError(
            f"there is no module for the block {key.print()}, the modules are for\n"
            f"{in_keys}"
        )
    return i
