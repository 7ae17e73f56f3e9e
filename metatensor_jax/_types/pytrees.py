"""How JAX sees our types: a structure that is compared and hashed, and leaves.

Each type is a single node. That makes a call of a compiled function as cheap with a
map as with a list of arrays: comparing two structures is comparing 16 bytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import jax
from jax.tree_util import GetAttrKey

from .block import TensorBlock
from .labels import Labels
from .tensor import TensorMap


def _at(path: str) -> Any:
    """Where a leaf is; JAX prints it in its error messages.

    A path such as ``.blocks[0].values`` is one attribute here: Orbax, for one, knows no
    entries of paths but those of JAX.
    """
    return GetAttrKey(path.removeprefix("."))


def _labels_leaves(labels: Labels) -> tuple[tuple[Any, ...], Hashable]:
    return ((), labels) if labels.is_static else ((labels.values,), labels._names)


def _labels_leaves_with_paths(labels: Labels) -> tuple[Any, Hashable]:
    leaves, structure = _labels_leaves(labels)
    return [(_at(".values"), leaf) for leaf in leaves], structure


def _make_labels(structure: Any, leaves: Any) -> Labels:
    if isinstance(structure, Labels):
        return structure
    return Labels._make(structure, *leaves, static=False)


def _with_paths(paths: list[str], leaves: tuple[Any, ...]) -> list[Any]:
    return [(_at(path), leaf) for path, leaf in zip(paths, leaves, strict=True)]


jax.tree_util.register_pytree_with_keys(
    Labels, _labels_leaves_with_paths, _make_labels, _labels_leaves
)
jax.tree_util.register_pytree_with_keys(
    TensorBlock,
    lambda block: (
        _with_paths(block._structure.leaf_names(""), block._leaves),
        block._structure,
    ),
    TensorBlock._unflatten,
    lambda block: (block._leaves, block._structure),
)
jax.tree_util.register_pytree_with_keys(
    TensorMap,
    lambda tensor: (
        _with_paths(tensor._structure.leaf_names(), tensor._leaves),
        tensor._structure,
    ),
    TensorMap._unflatten,
    lambda tensor: (tensor._leaves, tensor._structure),
)
