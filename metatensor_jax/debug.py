"""Why two inputs of a compiled function do not share one program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ._types.arrays import is_array
from ._types.block import TensorBlock
from ._types.labels import Labels, first_difference
from ._types.tensor import TensorMap
from .layout import StackedMap

_LAYOUT = "pad both with one `Layout`"
_SAME_AXES = "give both the same ones before (see Labels in `keys_to_properties`)"


def explain_retrace(a: object, b: object) -> str:
    """Say in words why ``jax.jit`` compiles one program for ``a`` and one for ``b``.

    :param a: an argument of a compiled function: a map, a block, labels, or any pytree
        that contains some
    :param b: another one
    :returns: one line for each piece of metadata that differs (key, axis, first
        differing entry, dtype, shape), with what to do about it

    >>> import metatensor_jax as mts
    >>> a, b = (mts.block_from_array(np.ones((n, 1), "f4")) for n in (2, 3))
    >>> print(explain_retrace(a, b))
    samples: there are 2 and 3 entries of ['sample'], the first that only one has is
    (sample=2); pad both with one `Layout`
    >>> print(explain_retrace(a, a))
    nothing differs: both share one compiled program
    """
    found = [f"{where}{what}" for where, what in _differences("", a, b)]
    return "\n".join(found) or "nothing differs: both share one compiled program"


Difference = tuple[str, str]  # where, and what it is
_KINDS = (TensorMap, StackedMap, TensorBlock, Labels)


def _differences(where: str, a: Any, b: Any) -> Iterator[Difference]:
    if isinstance(a, TensorMap) and isinstance(b, TensorMap):
        yield from _of_maps(where, a, b)
    elif isinstance(a, StackedMap) and isinstance(b, StackedMap):
        yield from _of_maps(where, a.unstack(), b.unstack())
        if a.groups != b.groups:
            yield where, f"the blocks are grouped as {a.groups} and {b.groups}"
    elif isinstance(a, TensorBlock) and isinstance(b, TensorBlock):
        yield from _of_blocks(where, a, b)
    elif isinstance(a, Labels) and isinstance(b, Labels):
        yield from _of_axis(where, a, b, _LAYOUT)
    elif isinstance(a, _KINDS) or isinstance(b, _KINDS):
        yield where, f"one is a {type(a).__name__}, the other a {type(b).__name__}"
    else:
        yield from _of_trees(where, a, b)


def _of_trees(where: str, a: Any, b: Any) -> Iterator[Difference]:
    """Containers, and what is in them."""

    def is_ours(x: Any) -> bool:
        return isinstance(x, _KINDS)

    paths, structure = jax.tree_util.tree_flatten_with_path(a, is_ours)
    others, other_structure = jax.tree.flatten(b, is_ours)
    if structure != other_structure:
        yield where, f"the containers differ: {structure} and {other_structure}"
        return
    for (path, x), y in zip(paths, others, strict=True):
        inner = f"{where}{jax.tree_util.keystr(path)}: " if path else where
        if isinstance(x, _KINDS) or isinstance(y, _KINDS):
            yield from _differences(inner, x, y)
        else:
            yield from _of_leaves(inner, x, y)


def _of_maps(where: str, a: TensorMap, b: TensorMap) -> Iterator[Difference]:
    if a.keys != b.keys:
        yield where, _different_keys(a.keys, b.keys)
    if a.info() != b.info():
        pairs = sorted(set(a.info().items()) ^ set(b.info().items()))
        text = (
            f"the info differs, {dict(pairs)}; info is static, leave it out of batches"
        )
        yield where, text
    if a.keys.names != b.keys.names:
        return
    for key, block in a.items():
        at = b.keys.position(key)
        if at is not None:
            name = f"{where}block {key.print()}, "
            yield from _of_blocks(name, block, b.block_by_id(at))


def _different_keys(a: Labels, b: Labels) -> str:
    if a.names != b.names:
        return f"the names of the keys differ: {a.names} and {b.names}"
    only_a, only_b = a.difference(b), b.difference(a)
    if len(only_a) == len(only_b) == 0:
        return "the keys are the same in another order; see `sort`"
    entries = [[key.print() for key in only] for only in (only_a, only_b)]
    return (
        f"keys are missing: only the first has {entries[0]}, only the second "
        f"{entries[1]}; {_LAYOUT}, which has the keys of all data"
    )


def _of_blocks(where: str, a: TensorBlock, b: TensorBlock) -> Iterator[Difference]:
    axes = list(_of_axes(where, a, b))
    yield from axes
    # other shapes follow from other labels, which are named already
    yield from _of_leaves(f"{where}values: ", a.values, b.values, shapes=not axes)
    if a.gradients_list() != b.gradients_list():
        names = f"{a.gradients_list()} and {b.gradients_list()}"
        yield where, f"the gradients are {names}; see `remove_gradients`"
    for name, gradient in a.gradients():
        if b.has_gradient(name):
            inner = f"{where}gradient '{name}', "
            yield from _of_blocks(inner, gradient, b.gradient(name))


def _of_axes(where: str, a: TensorBlock, b: TensorBlock) -> Iterator[Difference]:
    yield from _of_axis(f"{where}samples: ", a.samples, b.samples, _LAYOUT)
    if len(a.components) != len(b.components):
        n, m = len(a.components), len(b.components)
        yield where, f"there are {n} and {m} components"
    for mine, its in zip(a.components, b.components, strict=False):
        yield from _of_axis(f"{where}components: ", mine, its, _SAME_AXES)
    yield from _of_axis(f"{where}properties: ", a.properties, b.properties, _SAME_AXES)


def _of_axis(where: str, a: Labels, b: Labels, advice: str) -> Iterator[Difference]:
    if a.is_static != b.is_static:
        kinds = ["static" if labels.is_static else "traced" for labels in (a, b)]
        yield where, f"one is {kinds[0]}, the other {kinds[1]}; {advice}"
    elif not a.is_static:
        if a.names != b.names:
            yield where, f"the names differ: {a.names} and {b.names}"
        elif a.values.shape != b.values.shape:
            n, m = len(a), len(b)
            yield where, f"there is room for {n} and {m}; {_LAYOUT} and bucket"
    elif a is not b and a != b:
        yield where, f"{first_difference(a, b)}{_first_other(a, b)}; {advice}"


def _first_other(a: Labels, b: Labels) -> str:
    """The first entry that differs, if the numbers of entries differ."""
    n = min(len(a), len(b))
    if a.names != b.names or len(a) == len(b):
        return ""
    rows = np.flatnonzero((a.values[:n] != b.values[:n]).any(axis=1))
    if len(rows) == 0:
        longer = a if len(a) > n else b
        return f", the first that only one has is {longer[n].print()}"
    row = int(rows[0])
    return f", the first that differs is {a[row].print()} and {b[row].print()}"


def _of_leaves(where: str, x: Any, y: Any, shapes: bool = True) -> Iterator[Difference]:
    if not (_is_data(x) and _is_data(y)):
        if type(x) is not type(y) or bool(np.any(x != y)):
            yield where, f"{x!r} and {y!r} are constants of the programs"
        return
    if shapes and np.shape(x) != np.shape(y):
        yield where, f"the shapes are {np.shape(x)} and {np.shape(y)}; {_LAYOUT}"
    if _dtype(x) != _dtype(y):
        advice = f"convert one, `.to(dtype='{_dtype(x)}')`"
        yield where, f"the dtypes are {_dtype(x)} and {_dtype(y)}; {advice}"
    elif _is_weak(x) != _is_weak(y):
        kinds = ["a Python number" if _is_weak(v) else "an array" for v in (x, y)]
        text = f"one counts as {kinds[0]}, the other as {kinds[1]} (weak type)"
        yield where, f"{text}; use `jnp.asarray(x, dtype)` for both"
    placed = [v.sharding for v in (x, y) if isinstance(v, jax.Array)]
    if len(placed) == 2 and placed[0] != placed[1]:
        yield where, f"they are placed as {placed[0]} and {placed[1]}"


def _is_data(x: Any) -> bool:
    return is_array(x) or isinstance(x, (bool, int, float, complex, np.generic))


def _dtype(x: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(jax.numpy.result_type(x))


def _is_weak(x: Any) -> bool:
    number = isinstance(x, (bool, int, float, complex)) and not hasattr(x, "dtype")
    return number or bool(getattr(x, "weak_type", False))
