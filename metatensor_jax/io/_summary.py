"""What is in a file, from the headers of its members: no values are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from .._types.labels import Labels
from ._archive import Archive, unloadable
from ._npy import (
    check_labels,
    decode_labels,
    describe_labels,
    describe_values,
    header_length,
)
from ._read import check_info, decode_info, parameters
from ._source import File, Source, opened
from ._zip import is_archive

#: enough for most headers; of a longer one the rest is read as well
_BEGIN = 1 << 10
#: less than for loading, as little of what is near to a header is of use
_WINDOW = 1 << 12

T = TypeVar("T")


class Axis(NamedTuple):
    """Labels without their entries."""

    names: tuple[str, ...]
    size: int


class BlockSummary(NamedTuple):
    """A block without its values and labels."""

    shape: tuple[int, ...]
    dtype: np.dtype
    samples: Axis
    components: tuple[Axis, ...]
    properties: Axis
    gradients: dict[str, BlockSummary]
    #: bytes that the values take in the file, headers included
    stored: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values, and of those of all gradients."""
        values = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        return values + sum(part.nbytes for part in self.gradients.values())

    @property
    def nbytes_stored(self) -> int:
        """Bytes that these take in the file."""
        return self.stored + sum(x.nbytes_stored for x in self.gradients.values())


class Summary(NamedTuple):
    """What is in a file."""

    #: of the whole file, in bytes
    size: int
    #: a map: its keys, with a block for each, and its info
    keys: Labels | None
    blocks: list[BlockSummary]
    info: dict[str, str]
    #: a file of labels: what they are
    labels: Axis | None


def summarize(file: File) -> Summary:
    """Look at a file of a map, a block or labels.

    Keys and info are read, and of all other members the headers. Their checksums are
    not compared.

    :param file: a path, or a file that is open in binary mode
    :raises ValueError: a file that is damaged, as far as that can be seen
    :raises OSError: what ``open`` would raise

    >>> import tempfile
    >>> import metatensor_jax as mts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mts.save(f"{folder}/x.mts", mts.block_from_array(np.ones((4, 2))))
    ...     summary = summarize(f"{folder}/x.mts")
    >>> summary.blocks[0].shape, summary.blocks[0].samples
    ((4, 2), Axis(names=('sample',), size=4))
    """
    with opened(file, _WINDOW) as (source, name):
        if not is_archive(source):
            return Summary(source.size, None, [], {}, _labels_file(source, name))
        return _archive(source, name)


def _labels_file(source: Source, name: str) -> Axis:
    try:
        length = header_length(source.read(0, _BEGIN))
        header = bytes(source.read(0, length))
        return Axis(*describe_labels(header, source.size))
    except OSError:
        raise
    except Exception as error:  # whatever it is, the file is what is wrong
        raise unloadable(name, str(error)) from error


def _archive(source: Source, name: str) -> Summary:
    archive = Archive(source, name)
    members = set(archive.names())
    headers = _Headers(archive, members)
    keys, info, blocks = None, {}, []
    if "keys.npy" in members:
        keys = archive.take("keys.npy", decode_labels, check_labels)
        blocks = [headers.block(f"blocks/{i}/") for i in range(len(keys))]
        if "info.json" in members:
            info = archive.take("info.json", decode_info, check_info)
    elif "values.npy" in members:
        blocks = [headers.block("")]
    else:
        archive.fail(
            "it is a ZIP archive without the member 'keys.npy' of a map, or "
            "'values.npy' of a block"
        )
    archive.finish()
    return Summary(source.size, keys, blocks, info, None)


class _Headers:
    """Looks at the headers of blocks."""

    def __init__(self, archive: Archive, members: set[str]) -> None:
        self._archive = archive
        self._members = members
        self._parameters = parameters(archive, members)

    def block(self, folder: str, properties: Axis | None = None) -> BlockSummary:
        """One block; ``properties`` are those of the parent, if this is a gradient."""
        (shape, dtype), stored = self._look(f"{folder}values.npy", describe_values)
        samples = self._axis(f"{folder}samples.npy")
        components: list[Axis] = []
        while (name := f"{folder}components/{len(components)}.npy") in self._members:
            components.append(self._axis(name))
        if properties is None:
            properties = self._axis(f"{folder}properties.npy")
        expected = tuple(axis.size for axis in (samples, *components, properties))
        if shape != expected:
            self._archive.fail(
                f"the values in '{folder}' have shape {shape}, but the labels have "
                f"{expected} entries"
            )
        gradients = {
            name: self.block(f"{folder}gradients/{name}/", properties)
            for name in self._parameters.get(folder, ())
        }
        axes = samples, tuple(components), properties
        return BlockSummary(shape, dtype, *axes, gradients, stored)

    def _axis(self, name: str) -> Axis:
        return Axis(*self._look(name, describe_labels)[0])

    def _look(self, name: str, describe: Callable[[bytes, int], T]) -> tuple[T, int]:
        """What the header of a member says, and its bytes in the file."""
        begin, member = self._archive.peek(name, _BEGIN)
        try:
            length = header_length(begin)
        except Exception as error:  # whatever it is, the file is what is wrong
            self._archive.fail(f"in member '{name}', {error}", error)
        header = begin[:length]
        if length > len(begin):
            header, _ = self._archive.peek(name, length)
        self._archive.drop(name)
        try:
            return describe(header, member.size), member.packed
        except Exception as error:
            self._archive.fail(f"in member '{name}', {error}", error)
