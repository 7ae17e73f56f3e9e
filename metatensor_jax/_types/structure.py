"""The static halves of blocks and maps: all but their data.

JAX keeps these in the structure of a pytree, compares them and hashes them, so they
come with a digest: 16 bytes that are equal for equal structures only.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from . import display
from .labels import Labels

#: the parameters that lead from a block to a gradient of a gradient of ... it
Path = tuple[str, ...]


def in_words(path: Path) -> str:
    """Which gradient of a block this is, for messages; nothing for the block.

    >>> in_words(("a", "b"))
    " of the gradient with respect to 'b' of the gradient with respect to 'a'"
    """
    return "".join([f" of the gradient with respect to '{x}'" for x in reversed(path)])


def _short(labels: Labels) -> str:
    return f"#{labels.digest.hex()[:6]}"


class BlockStructure:
    """All of a block but its data: what JAX keeps in the structure of a pytree.

    A block is this structure and a flat tuple of leaves: its values, the values of its
    samples if these are traced, and then the leaves of its gradients in turn.
    """

    __slots__ = (
        "_digest",
        "components",
        "gradients",
        "is_static",
        "n_leaves",
        "order",
        "properties",
        "sample_names",
        "samples",
    )

    def __init__(
        self,
        samples: Labels,
        components: tuple[Labels, ...],
        properties: Labels,
        gradients: tuple[tuple[str, BlockStructure], ...],
    ) -> None:
        self.sample_names = samples._names
        #: None for traced samples, which are a leaf
        self.samples = samples if samples.is_static else None
        self.components = components
        self.properties = properties
        #: by name, in the order of the names
        self.gradients = gradients
        self.n_leaves = 1 + (self.samples is None)
        #: no samples are traced, those of gradients included
        self.is_static = self.samples is not None
        #: 0 without gradients, 1 with gradients, 2 with gradients of these, ...
        self.order = 0
        for _, gradient in gradients:
            self.n_leaves += gradient.n_leaves
            self.is_static &= gradient.is_static
            self.order = max(self.order, gradient.order + 1)
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """16 bytes that are equal for equal structures only; made once, lazily."""
        if self._digest is None:
            samples = b"" if self.samples is None else self.samples.digest
            parts = [samples, self.properties.digest]
            parts += [labels.digest for labels in self.components]
            parts += [gradient.digest for _, gradient in self.gradients]
            names = (self.sample_names, *(name for name, _ in self.gradients))
            header = f"{names}{self.samples is None}{len(self.components)}"
            content = header.encode() + b"".join(parts)
            self._digest = blake2b(content, digest_size=16).digest()
        return self._digest

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, BlockStructure]]:
        """This one and those of all gradients, in the order of their leaves.

        Each comes with the parameters that lead to it: ``()`` for the block itself,
        ``("a", "b")`` for the gradient by ``b`` of its gradient by ``a``.
        """
        yield path, self
        for name, gradient in self.gradients:
            yield from gradient.walk((*path, name))

    def leaf_names(self, prefix: str) -> list[str]:
        """How to reach each leaf of a block, such as ``.gradient('x').values``."""
        names = []
        for path, part in self.walk():
            at = prefix + "".join([f".gradient({name!r})" for name in path])
            names.append(f"{at}.values")
            if part.samples is None:
                names.append(f"{at}.samples.values")
        return names

    def leaves_are_data(self) -> list[bool]:
        """Is each leaf the values of a block, rather than those of labels?"""
        flags = []
        for _, part in self.walk():
            flags += [True] if part.samples is not None else [True, False]
        return flags

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, BlockStructure) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        # JAX prints two structures that should be equal and are not. Labels may differ
        # in their entries alone, so these are here too, as a few digits of their hash.
        axes = [("samples", self.sample_names, self.samples)]
        axes += [("components", c._names, c) for c in self.components]
        axes += [("properties", self.properties._names, self.properties)]
        text = ", ".join(
            f"{axis}=[{', '.join(names)}]"
            + ("(traced)" if labels is None else f"({len(labels)}, {_short(labels)})")
            for axis, names, labels in axes
        )
        text += "".join(f", {name}=({gradient})" for name, gradient in self.gradients)
        return text


class MapStructure:
    """All of a map but its data: what JAX keeps in the structure of a pytree."""

    __slots__ = ("_digest", "blocks", "info", "keys", "offsets")

    def __init__(
        self,
        keys: Labels,
        blocks: tuple[BlockStructure, ...],
        info: tuple[tuple[str, str], ...],
    ) -> None:
        self.keys = keys
        self.blocks = blocks
        self.info = info
        #: where the leaves of each block start, and the end
        self.offsets = [0]
        for block in blocks:
            self.offsets.append(self.offsets[-1] + block.n_leaves)
        self._digest: bytes | None = None

    @property
    def is_static(self) -> bool:
        """Are no samples traced, those of gradients included?"""
        return all(block.is_static for block in self.blocks)

    @property
    def order(self) -> int:
        """How deep gradients go: 2 if there are gradients of gradients."""
        return max((block.order for block in self.blocks), default=0)

    @property
    def digest(self) -> bytes:
        """16 bytes that are equal for equal structures only; made once."""
        if self._digest is None:
            hasher = blake2b(self.keys.digest, digest_size=16)
            hasher.update(b"".join([block.digest for block in self.blocks]))
            hasher.update(repr(self.info).encode())
            self._digest = hasher.digest()
        return self._digest

    def leaf_names(self) -> list[str]:
        """How to reach each leaf of a map."""
        return [
            name
            for i, block in enumerate(self.blocks)
            for name in block.leaf_names(f".blocks[{i}]")
        ]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, MapStructure) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        blocks = "; ".join(
            f"{display.entry(self.keys.names, key)}: {block}"
            for key, block in zip(self.keys.values, self.blocks, strict=True)
        )
        info = f" with info {dict(self.info)}" if self.info else ""
        return f"keys=[{', '.join(self.keys._names)}], {{{blocks}}}{info}"
