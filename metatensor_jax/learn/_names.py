"""Names for what a model holds: what belongs to a block is named by its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from .._types.labels import Labels
from ..layout import Layout
from .nn import ModuleMap, StackedModules


class Named(NamedTuple):
    """Something that a model holds.

    :param name: how to reach it, such as ``.modules[(center_type=1)].weight``
    :param value: an array, labels, a layout, or a plain value
    :param is_keys: labels whose entries can be in any order, as all that belongs to
        them is named by them
    """

    name: str
    value: Any
    is_keys: bool


def named_leaves(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> Iterator[Named]:
    """All leaves of a pytree; labels and layouts are leaves here.

    :param is_leaf: what else is one
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: is_whole(x) or (is_leaf is not None and is_leaf(x))
    )
    for path, value in paths:
        name, node = "", tree
        owner: Any = None
        for key in path:
            child = _child(node, key)
            at = getattr(key, "idx", None)
            by_key = isinstance(node, list) and _is_by_key(owner, node)
            name += f"[{owner.in_keys.entry(at).print()}]" if by_key else str(key)
            owner, node = node, child
        yield Named(name, value, _has_lists(owner) and value is owner.in_keys)


def is_whole(value: Any) -> bool:
    """Is this saved as one thing, though JAX looks into it, or does not see it?"""
    return isinstance(value, (Labels, Layout))


def one_by_one(tree: Any) -> Any:
    """With modules that are held together taken apart: each belongs to its key."""
    return jax.tree.map(
        lambda x: list(x) if _is_stacked(x) else x, tree, is_leaf=_is_stacked
    )


def together(tree: Any, like: Any) -> Any:
    """What :func:`one_by_one` takes apart, as ``like`` holds it."""
    return jax.tree.map(
        lambda x, own: x.like(own) if _is_stacked(x) else own,
        like,
        tree,
        is_leaf=_is_stacked,
    )


def _is_stacked(value: Any) -> bool:
    return isinstance(value, StackedModules)


def _child(node: Any, key: Any) -> Any:
    """One step along a path; None inside of types of which only JAX knows the paths."""
    if node is None:
        return None
    if isinstance(key, jax.tree_util.GetAttrKey):
        return getattr(node, key.name, None)
    if isinstance(key, jax.tree_util.SequenceKey):
        return node[key.idx]
    if isinstance(key, jax.tree_util.DictKey):
        return node[key.key]
    return None


def _is_by_key(owner: Any, items: Sequence[Any]) -> bool:
    """Has a list one item for each of the keys of the module that holds it?"""
    return _has_lists(owner) and len(items) == len(owner.in_keys)


def _has_lists(owner: Any) -> bool:
    """Is it a module with something for each of its keys, one after the other?"""
    return isinstance(owner, ModuleMap)
