"""Maps, blocks and labels from the members of an archive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from .._types.block import TensorBlock
from .._types.entry import LabelsEntry
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._archive import Archive, unloadable
from ._fit import make_block, make_map
from ._npy import (
    check_labels,
    check_values,
    decode_labels,
    decode_values,
    labels_decoder,
)
from ._source import Source
from ._zip import is_archive

#: gradients of gradients of ...: a file can not send the reader deeper than this
MAX_DEPTH = 16
#: a few kB of compressed text can hold gigabytes
_MAX_INFO = 1 << 24
#: metatensor does not read these files either, and has a script that renames members
_OLD_LAYOUT = (
    "it has the old layout of the time when metatensor was called equistore. Bring it "
    "up to date with the script 'convert-metatensor-npz.py' in the folder "
    "'python/scripts' of metatensor's repository, or rename the members of this ZIP "
    "archive: 'blocks/<i>/values/data.npy' to 'blocks/<i>/values.npy', the others in "
    "'blocks/<i>/values/' to the same name in 'blocks/<i>/', and "
    "'gradients/<parameter>/data.npy' to 'gradients/<parameter>/values.npy'"
)


def read_map(
    source: Source, name: str, keys: Labels | LabelsEntry | None = None
) -> TensorMap:
    """A map, or those of its blocks whose keys agree with an entry of ``keys``.

    :param name: what to call the file in messages
    """
    archive = Archive(source, name)
    members = set(archive.names())
    if "blocks/0/values/data.npy" in members:
        archive.fail(_OLD_LAYOUT)
    if "keys.npy" not in members and "values.npy" in members:
        archive.fail("it is a block, use `load_block`")
    reader = _Reader(archive, members)
    all_keys = archive.take("keys.npy", decode_labels, check_labels)
    selected, positions = _selected(all_keys, keys)
    blocks = [reader.block(f"blocks/{i}/") for i in positions]
    if len(positions) < len(all_keys):
        rest = set(range(len(all_keys))).difference(positions)
        archive.leave({f"blocks/{i}" for i in rest})
    info = {}
    if "info.json" in members:
        info = archive.take("info.json", decode_info, check_info)
    archive.finish()
    try:
        return make_map(selected, blocks, info)
    except (TypeError, ValueError) as error:
        archive.fail(str(error), error)


def _selected(
    keys: Labels, wanted: Labels | LabelsEntry | None
) -> tuple[Labels, Sequence[int]]:
    """The keys that are wanted, and their positions."""
    if wanted is None:
        return keys, range(len(keys))
    positions = keys.select(wanted)
    return Labels(keys.names, keys.values[positions]), positions.tolist()


def read_block(source: Source, name: str) -> TensorBlock:
    """A block; ``name`` is what to call the file in messages."""
    archive = Archive(source, name)
    members = set(archive.names())
    if "values.npy" not in members and "keys.npy" in members:
        archive.fail("it is a map, use `load`")
    block = _Reader(archive, members).block("")
    archive.finish()
    return block


def read_labels(source: Source, name: str) -> Labels:
    """Labels; ``name`` is what to call the file in messages."""
    if is_archive(source):
        hint = "it is an archive, as maps and blocks are: use `load` or `load_block`"
        raise unloadable(name, hint)
    content = source.read(0, source.size)
    try:
        return decode_labels(content)
    except Exception as error:
        raise unloadable(name, str(error)) from error


class _Reader:
    """Takes blocks from an archive."""

    def __init__(self, archive: Archive, members: set[str]) -> None:
        self._archive = archive
        self._members = members
        self._parameters = parameters(archive, members)
        self._decode_labels = labels_decoder()

    def block(self, folder: str, properties: Labels | None = None) -> TensorBlock:
        """One block; ``properties`` are those of the parent, if this is a gradient."""
        samples = self._labels(f"{folder}samples.npy")
        components: list[Labels] = []
        while (member := f"{folder}components/{len(components)}.npy") in self._members:
            components.append(self._labels(member))
        if properties is None:
            properties = self._labels(f"{folder}properties.npy")
        axes = [samples, *components, properties]
        values = self._archive.take(
            f"{folder}values.npy", decode_values, partial(check_values, axes), True
        )
        gradients = {}
        for name in self._parameters.get(folder, ()):
            gradients[name] = self.block(f"{folder}gradients/{name}/", properties)
        try:
            return make_block(values, samples, components, properties, gradients)
        except (TypeError, ValueError) as error:
            where = f"in '{folder}', " if folder else ""
            self._archive.fail(f"{where}{error}", error)

    def _labels(self, member: str) -> Labels:
        return self._archive.take(member, self._decode_labels, check_labels)


def parameters(archive: Archive, members: set[str]) -> dict[str, list[str]]:
    """The gradient parameters in each folder of the archive."""
    found: dict[str, set[str]] = {}
    inside = [member for member in members if "gradients/" in member]
    for place in {member.rpartition("/")[0] for member in inside}:
        parts = place.split("/")
        if len(parts) > 2 * MAX_DEPTH + 3:  # blocks/<i>/ ... /components
            where = f"'{place[:40]}...'"
            archive.fail(f"gradients are nested deeper than {MAX_DEPTH} in {where}")
        for i, part in enumerate(parts[:-1]):
            if part == "gradients":
                folder = "/".join(parts[:i])
                found.setdefault(f"{folder}/" if folder else "", set()).add(
                    parts[i + 1]
                )
    return {folder: sorted(names) for folder, names in found.items()}


def decode_info(data: memoryview) -> dict[str, str]:
    """The info of a map."""
    info = json.loads(bytes(data).decode())
    if not isinstance(info, dict):
        raise ValueError(f"info must be a JSON object, not {type(info).__name__}")
    for key, value in info.items():
        if not isinstance(value, str):
            raise ValueError(f"info must be text, got {key!r}: {value!r}")
    return info


def check_info(_: memoryview, size: int) -> None:
    """Raise if so much info should not be expanded."""
    if size > _MAX_INFO:
        raise ValueError(
            f"compressed info must be at most {_MAX_INFO} bytes, this is {size}: store "
            "it without compression"
        )
