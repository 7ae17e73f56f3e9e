"""What is in a file: keys, blocks, shapes, dtypes, gradients, info and sizes."""

from __future__ import annotations

from collections.abc import Iterator

from ..io._summary import Axis, BlockSummary, summarize
from .text import count, names, plain, size


def lines(path: str, max_blocks: int = 20) -> Iterator[str]:
    r"""Describe a file, line by line; no values are read.

    :param path: a file of a map, a block or labels
    :param max_blocks: how many blocks are described
    :raises ValueError: a file that is damaged, as far as that can be seen
    :raises OSError: what ``open`` would raise

    >>> import tempfile
    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mts.save(f"{folder}/x.mts", mts.block_from_array(np.ones((4, 2))))
    ...     _, *rest = lines(f"{folder}/x.mts")
    >>> print("\n".join(rest))
    block: float64 (4, 2), 64 B
        samples: sample (4)
        properties: property (2)
    """
    summary = summarize(path)
    title = f"{plain(path)}: {size(summary.size)}"
    if summary.labels is not None:
        yield f"{title}, labels"
        yield f"entries: {_axis(summary.labels)}"
        return
    stored = sum(block.nbytes_stored for block in summary.blocks)
    values = sum(block.nbytes for block in summary.blocks)
    is_packed = stored < values
    packed = f", which take {size(stored)} in the file" if is_packed else ""
    kind = "a block" if summary.keys is None else "a map"
    yield f"{title}, {kind} with {size(values)} of values{packed}"
    if summary.keys is None:
        yield from _block("block", summary.blocks[0])
        return
    keys = summary.keys
    yield f"keys: {names(keys.names)} ({count(len(keys), 'block')})"
    for name, text in sorted(summary.info.items()):
        yield f"info {plain(name)}: {plain(text)}"
    for i, block in enumerate(summary.blocks[: max(max_blocks, 0)]):
        yield from _block(f"block {i} {keys[i].print()}", block)
    left = len(keys) - max(max_blocks, 0)
    if left > 0:
        yield f"and {count(left, 'block')} more, see --max-blocks"


def _block(title: str, block: BlockSummary, indent: str = "") -> Iterator[str]:
    own = block.nbytes - sum(x.nbytes for x in block.gradients.values())
    yield f"{indent}{title}: {block.dtype} {block.shape}, {size(own)}"
    yield f"{indent}    samples: {_axis(block.samples)}"
    if block.components:
        yield f"{indent}    components: {', '.join(map(_axis, block.components))}"
    yield f"{indent}    properties: {_axis(block.properties)}"
    for name, gradient in block.gradients.items():
        yield from _block(f"gradient {plain(name)}", gradient, f"{indent}    ")


def _axis(axis: Axis) -> str:
    return f"{names(axis.names)} ({axis.size})"
