"""What a store is on disk: a folder of flat arrays, offsets and an index.

``store.json`` says what the maps are: keys, components, properties. Each block and each
gradient has three files, of plain numbers as they are in memory: ``.values.bin``,
``.samples.bin`` (``int32``), and ``.ends.bin`` (``int64``), where the rows of each
system end. ``index.bin`` has an entry for each system that is complete: its number, and
a check of it. It is written last, and so an entry that is half written is none.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.structure import BlockStructure, MapStructure
from ..io._atomic import new_folder, replaced_file
from ._capacity import labels_from_json, labels_to_json
from ._flat import Rows

FORMAT = "metatensor_jax.Store.1"
HEADER = "store.json"
INDEX = "index.bin"
#: of files: the parts of :class:`Rows`
KINDS = ("values", "samples", "ends")
_CHECK = 0x9E3779B97F4A7C15


@dataclass
class BlockFiles:
    """A block of a store, and the names of the files of its parts.

    :param structure: of the block, with samples that are data
    :param stems: of the block and its gradients, as ``BlockStructure.walk``
    """

    structure: BlockStructure
    stems: list[str]


@dataclass
class MapFiles:
    """A map of a store: what there is besides numbers."""

    key_names: tuple[str, ...]
    dtype: str
    info: dict[str, str]
    #: by the entry of the key
    blocks: dict[tuple[int, ...], BlockFiles] = field(default_factory=dict)

    @property
    def structure(self) -> MapStructure:
        """Of the map."""
        values = np.array(list(self.blocks), np.int32)
        keys = Labels(self.key_names, values.reshape(-1, len(self.key_names)))
        blocks = tuple(block.structure for block in self.blocks.values())
        return MapStructure(keys, blocks, tuple(sorted(self.info.items())))


@dataclass
class Header:
    """What ``store.json`` says."""

    system: str
    maps: dict[str, MapFiles] = field(default_factory=dict)

    def stems(self) -> Iterator[tuple[str, str, BlockStructure]]:
        """Of all parts: the name of its files, its dtype, its structure."""
        for of_map in self.maps.values():
            for block in of_map.blocks.values():
                walk = block.structure.walk()
                for stem, (_, part) in zip(block.stems, walk, strict=True):
                    yield stem, of_map.dtype, part

    def new_stems(self, name: str, structure: BlockStructure) -> list[str]:
        """Names for the files of a block that is new."""
        taken = {stem for stem, _, _ in self.stems()}
        n = len(self.maps[name].blocks)
        stems = []
        for path, _ in structure.walk():
            parts = [name or "map", str(n), *path]
            stem = "-".join([re.sub(r"[^0-9A-Za-z_]", "_", part) for part in parts])
            while stem.lower() in {x.lower() for x in taken}:
                stem += "_"
            taken.add(stem)
            stems.append(stem)
        return stems

    def write(self, folder: Path) -> None:
        """As a file, at once."""
        maps = {
            name: {
                "keys": list(of_map.key_names),
                "dtype": of_map.dtype,
                "info": of_map.info,
                "blocks": [
                    {
                        "key": list(key),
                        "files": block.stems,
                        **_structure_to_json(block.structure),
                    }
                    for key, block in of_map.blocks.items()
                ],
            }
            for name, of_map in self.maps.items()
        }
        text = {"format": FORMAT, "system": self.system, "maps": maps}
        with replaced_file(folder / HEADER) as file:
            file.write(json.dumps(text, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Header:
        """From its file.

        :raises MetatensorError: something else
        """
        try:
            data = json.loads((folder / HEADER).read_bytes())
            if data["format"] != FORMAT:
                raise MetatensorError(
                    f"the format of '{folder}' is {data['format']!r}, this version "
                    f"reads {FORMAT!r}"
                )
            header = cls(str(data["system"]))
            for name, of_map in data["maps"].items():
                dtype = np.dtype(of_map["dtype"]).name
                files = MapFiles(tuple(of_map["keys"]), dtype, dict(of_map["info"]))
                for block in of_map["blocks"]:
                    stems = [_checked_stem(stem) for stem in block["files"]]
                    own = BlockFiles(_structure_from_json(block), stems)
                    files.blocks[tuple(map(int, block["key"]))] = own
                header.maps[name] = files
        except FileNotFoundError:
            raise MetatensorError(
                f"'{folder}' is no store: there is no file '{HEADER}' in it"
            ) from None
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, MetatensorError):
                raise
            raise MetatensorError(
                f"'{folder / HEADER}' is not what `Store.save` wrote: {error}"
            ) from None
        return header


def _checked_stem(stem: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z_-]+", stem):
        raise MetatensorError(f"{stem!r} is no name of a file in the folder")
    return stem


def _structure_to_json(structure: BlockStructure) -> dict[str, Any]:
    return {
        "sample_names": list(structure.sample_names),
        "components": [labels_to_json(labels) for labels in structure.components],
        "properties": labels_to_json(structure.properties),
        "gradients": {
            name: _structure_to_json(inner) for name, inner in structure.gradients
        },
    }


def _structure_from_json(data: Mapping[str, Any]) -> BlockStructure:
    gradients = sorted(data["gradients"].items())
    return BlockStructure(
        Labels._make(tuple(data["sample_names"]), None, static=False),
        tuple(labels_from_json(labels) for labels in data["components"]),
        labels_from_json(data["properties"]),
        tuple((name, _structure_from_json(inner)) for name, inner in gradients),
    )


# --- files ---------------------------------------------------------------------------


def row_shape(part: BlockStructure) -> tuple[int, ...]:
    """Of the values."""
    return (*map(len, part.components), len(part.properties))


def index_entries(systems: np.ndarray, first: int = 0) -> np.ndarray:
    """What the index holds for systems: their numbers, and a check of each.

    :param first: the position of the first of them
    """
    numbers = systems.astype(np.int64)
    position = np.arange(first + 1, first + 1 + len(numbers), dtype=np.uint64)
    mixed = (numbers.astype(np.uint64) + position) * np.uint64(_CHECK)
    return np.stack([numbers, mixed.view(np.int64)], axis=1)


def read_index(folder: Path) -> tuple[np.ndarray, bool]:
    """The numbers of all systems that are complete, and whether there is more."""
    content = np.fromfile(folder / INDEX, np.uint8)
    n = len(content) // 16
    entries = content[: 16 * n].view(np.int64).reshape(n, 2)
    good = (entries == index_entries(entries[:, 0])).all(axis=1)
    n_good = int(good.argmin()) if not good.all() else n
    numbers = entries[:n_good, 0].astype(np.int32)
    return numbers, 16 * n_good < len(content)


def read_rows(
    folder: Path, stem: str, dtype: str, part: BlockStructure, n_systems: int
) -> tuple[Rows, bool]:
    """The rows of a part in mapped files, and whether there are more of them.

    :raises MetatensorError: files that are too short
    """
    ends = _read(folder / f"{stem}.ends.bin", (n_systems,), "int64", mapped=False)[0]
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    if (np.diff(offsets) < 0).any():
        raise MetatensorError(
            f"'{folder / stem}.ends.bin' does not rise: it is damaged"
        )
    n = int(offsets[-1])
    values, more = _read(folder / f"{stem}.values.bin", (n, *row_shape(part)), dtype)
    shape = (n, len(part.sample_names))
    samples, more_samples = _read(folder / f"{stem}.samples.bin", shape, "int32")
    return Rows(values, samples, offsets), more or more_samples


def _read(
    file: Path, shape: tuple[int, ...], dtype: str, mapped: bool = True
) -> tuple[np.ndarray, bool]:
    """An array at the begin of a file, and whether there is more in it."""
    wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise MetatensorError(f"the store lacks the file '{file}'") from None
    if size < wanted:
        raise MetatensorError(
            f"'{file}' has {size} bytes, but the systems of the index need {wanted}: "
            "it was cut off"
        )
    if wanted == 0:
        return np.zeros(shape, dtype), size > 0
    if not mapped:
        return np.fromfile(file, dtype, shape[0]), size > wanted
    # a plain array: subclasses take longer to index
    return np.asarray(np.memmap(file, dtype, "r", shape=shape)), size > wanted


class Contents(NamedTuple):
    """All that a store consists of; ``rows`` are those of each block of each map."""

    systems: np.ndarray
    structures: dict[str, MapStructure]
    rows: dict[str, list[list[Rows]]]
    dtypes: dict[str, str]
    system: str


def read_all(folder: Path) -> Contents:
    """A store in mapped files; warns if an entry is not complete.

    :raises MetatensorError: a folder that is no store, or one that is damaged
    """
    header = Header.read(folder)
    systems, more = read_index(folder)
    structures, rows, dtypes = {}, {}, {}
    for name, of_map in header.maps.items():
        structures[name], dtypes[name] = of_map.structure, of_map.dtype
        rows[name] = []
        for block in of_map.blocks.values():
            walk = zip(block.stems, block.structure.walk(), strict=True)
            found = [
                read_rows(folder, stem, of_map.dtype, part, len(systems))
                for stem, (_, part) in walk
            ]
            rows[name].append([of_part for of_part, _ in found])
            more |= any(is_longer for _, is_longer in found)
    if more:
        warnings.warn(
            f"'{folder}' has {len(systems)} systems that are complete, and one that is "
            "not: the process that wrote it was stopped, or writes still",
            stacklevel=3,
        )
    return Contents(systems, structures, rows, dtypes, header.system)


def write_all(folder: Path, contents: Contents) -> None:
    """All files of a store, in a folder that is there as a whole or not at all.

    :raises MetatensorError: there is something
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as temporary:
        _write_files(temporary, contents)


def _write_files(folder: Path, contents: Contents) -> None:
    header = Header(contents.system)
    for name, structure in contents.structures.items():
        names = tuple(structure.keys.names)
        of_map = MapFiles(names, contents.dtypes[name], dict(structure.info))
        header.maps[name] = of_map
        for key, block, parts in zip(
            structure.keys, structure.blocks, contents.rows[name], strict=True
        ):
            stems = header.new_stems(name, block)
            of_map.blocks[tuple(key.values.tolist())] = BlockFiles(block, stems)
            for stem, part in zip(stems, parts, strict=True):
                arrays = part.values, part.samples, part.offsets[1:]
                for kind, array in zip(KINDS, arrays, strict=True):
                    array.tofile(folder / f"{stem}.{kind}.bin")
    header.write(folder)
    index_entries(contents.systems).tofile(folder / INDEX)
