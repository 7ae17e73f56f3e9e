"""What a model holds besides its leaves: labels of maps, and static fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import equinox as eqx

from .._types.block import TensorBlock
from .._types.structure import BlockStructure
from .._types.tensor import TensorMap
from ..layout import StackedMap
from ._names import Named, is_whole, named_leaves


def named_static(tree: Any, name: str = "") -> Iterator[Named]:
    """What the structure of a pytree holds, where it can be compared.

    That is labels and info of maps and blocks, and those static fields of Equinox
    modules that are labels, layouts, plain values (``bool``, ``int``, ``float``,
    ``str``, None), or tuples of these. Other ones, such as functions, are left alone.

    :param tree: any pytree
    :param name: how to reach it

    >>> from metatensor_jax import block_from_array
    >>> block = block_from_array(np.ones((2, 1)))
    >>> [part.name for part in named_static({"x": block})]
    ["['x'].samples", "['x'].properties"]
    """
    if isinstance(tree, TensorBlock):
        yield from _of_block(tree._structure, name)
    elif isinstance(tree, (TensorMap, StackedMap)):
        yield from _of_map(tree, name)
    else:
        if isinstance(tree, eqx.Module):
            yield from _of_module(tree, name)
        for part in named_leaves(tree, lambda x: x is not tree and _is_node(x)):
            if _is_node(part.value):
                yield from named_static(part.value, name + part.name)


def is_plain(value: Any) -> bool:
    """Is this a plain value, or a tuple of such values?"""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return type(value) in (bool, int, float, str, type(None))


def _is_node(value: Any) -> bool:
    return isinstance(value, (eqx.Module, StackedMap, TensorBlock, TensorMap))


def _of_module(module: eqx.Module, name: str) -> Iterator[Named]:
    for field in dataclasses.fields(module):
        value = getattr(module, field.name, ...)
        is_static = field.metadata.get("static", False)
        if is_static and (is_whole(value) or is_plain(value)):
            yield Named(f"{name}.{field.name}", value, False)


def _of_map(tensor: TensorMap | StackedMap, name: str) -> Iterator[Named]:
    structure = tensor._structure
    yield Named(f"{name}.keys", structure.keys, False)
    yield Named(f"{name}.info", structure.info, False)
    if isinstance(tensor, StackedMap):
        yield Named(f"{name}.groups", tensor.groups, False)
    for i, block in enumerate(structure.blocks):
        yield from _of_block(block, f"{name}.blocks[{i}]")


def _of_block(structure: BlockStructure, name: str) -> Iterator[Named]:
    for path, part in structure.walk():
        at = name + "".join([f".gradient({parameter!r})" for parameter in path])
        if part.samples is None:  # their entries are traced, which makes them a leaf
            yield Named(f"{at}.samples.names", part.sample_names, False)
        else:
            yield Named(f"{at}.samples", part.samples, False)
        for i, component in enumerate(part.components):
            yield Named(f"{at}.components[{i}]", component, False)
        yield Named(f"{at}.properties", part.properties, False)
