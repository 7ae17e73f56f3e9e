"""Parts: maps of many systems as files in a folder, some systems in each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload
from urllib.parse import quote

from .._types.errors import MetatensorError
from .._types.tensor import TensorMap
from ..io import load as load_map, save as save_map
from ..io._atomic import AnyPath, as_path, replaced_file
from ..layout._capacity import ALONE
from ..operations.joining import join

_FORMAT = "metatensor_jax parts"
_VERSION = 1
_MANIFEST = "manifest.json"

Maps = TensorMap | dict[str, TensorMap]


class Manifest(NamedTuple):
    """What all calls that write to one folder must agree on.

    :param frames: how many there are
    :param chunk: how many of them are in a part; fewer in the last one
    :param system: the sample dimension with the numbers of the frames
    :param settings: whatever else the caller wants to be the same, as in JSON
    """

    frames: int
    chunk: int
    system: str
    settings: Any

    @property
    def n_parts(self) -> int:
        """Of the complete set."""
        return -(-self.frames // self.chunk)

    def frames_of(self, number: int) -> range:
        """The numbers of the frames of a part."""
        start = number * self.chunk
        return range(start, min(start + self.chunk, self.frames))

    def in_words(self, number: int) -> str:
        """A part, for messages."""
        frames = self.frames_of(number)
        return f"part {number} (frames {frames.start} to {frames.stop - 1})"


class Parts(Sequence[Maps]):
    """The parts that :func:`featurize` has written: a sequence of maps, or of dicts.

    Each is read when it is asked for. :meth:`load` joins all of them, and
    ``mts.Store.from_maps(parts)`` puts them into a store.

    A part is there when its JSON file is, which is written last and lists its maps.
    The map of part 3 is ``part-000003.mts``; of a dict of maps, ``energy`` say is
    ``part-000003.energy.mts``.

    :param path: of the folder
    :raises FileNotFoundError: no folder that :func:`featurize` has written to
    :raises MetatensorError: a folder of something else, or of a later version
    """

    def __init__(self, path: AnyPath) -> None:
        # absolute, as a worker may have another working directory
        self.path: Path = as_path(os.path.abspath(as_path(path)))
        self._manifest = _read_manifest(self.path)

    @property
    def missing(self) -> list[int]:
        """The numbers of the parts that are not there yet."""
        return [i for i in range(len(self)) if self._names(i) is None]

    def frames(self, number: int) -> range:
        """The numbers of the frames of a part, which are those of its systems.

        :param number: of the part
        """
        return self._manifest.frames_of(range(len(self))[number])

    def paths(self, name: str = ALONE) -> list[Path]:
        """The files of one of the maps, of the parts that are there.

        :param name: of the map, if the function gave a dict
        """
        found = [i for i in range(len(self)) if name in (self._names(i) or ())]
        return [self._file(i, name) for i in found]

    def load(self) -> Maps:
        """All parts as one map, or as a dict of maps.

        Keys that only some parts have are kept (``join(different_keys="union")``).

        :raises MetatensorError: parts that are missing, or that have other maps
        """
        if missing := self.missing:
            shown = f"{missing[:6]}"[:-1] + (", ...]" if len(missing) > 6 else "]")
            raise MetatensorError(
                f"{len(missing)} of {len(self)} parts in {str(self.path)!r} are not "
                f"there yet: {shown}. Call `featurize` again, it computes these"
            )
        parts = [_by_name(part) for part in self]
        for i, part in enumerate(parts):
            if sorted(part) != sorted(parts[0]):
                raise MetatensorError(
                    f"part {i} in {str(self.path)!r} has the maps {sorted(part)}, but "
                    f"part 0 has {sorted(parts[0])}: remove the one that is wrong and "
                    "call `featurize` again"
                )
        whole = {
            name: join([x[name] for x in parts], "samples", different_keys="union")
            for name in parts[0]
        }
        return whole.get(ALONE, whole)

    def __len__(self) -> int:
        return self._manifest.n_parts

    @overload
    def __getitem__(self, index: int) -> Maps: ...
    @overload
    def __getitem__(self, index: slice) -> list[Maps]: ...
    def __getitem__(self, index: int | slice) -> Maps | list[Maps]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[i] for i in numbers]
        names = self._names(numbers)
        if names is None:
            raise MetatensorError(
                f"{self._manifest.in_words(numbers)} in {str(self.path)!r} is not "
                "there yet: call `featurize` again, it computes what is missing"
            )
        maps = {name: load_map(self._file(numbers, name)) for name in names}
        return maps.get(ALONE, maps)

    def __repr__(self) -> str:
        there = len(self) - len(self.missing)
        return (
            f"Parts of {self._manifest.frames} frames, {self._manifest.chunk} in each\n"
            f"    {there} of {len(self)} are in {str(self.path)!r}"
        )

    # --- one part ------------------------------------------------------------------

    def _write(self, number: int, maps: Mapping[str, TensorMap]) -> None:
        """Each file is there as a whole or not, and the list of them comes last."""
        for name, tensor in maps.items():
            save_map(self._file(number, name), tensor)
        with replaced_file(self._list(number)) as file:
            file.write(json.dumps({"maps": list(maps)}).encode())

    def _names(self, number: int) -> list[str] | None:
        """The maps of a part; None if it is not there."""
        try:
            names = json.loads(self._list(number).read_bytes())["maps"]
        except FileNotFoundError:
            return None
        is_there = all(self._file(number, name).exists() for name in names)
        return names if is_there else None

    def _file(self, number: int, name: str) -> Path:
        of_map = f".{quote(name, safe='')}" if name != ALONE else ""
        return self.path / f"part-{number:06d}{of_map}.mts"

    def _list(self, number: int) -> Path:
        return self.path / f"part-{number:06d}.json"


def begin(path: AnyPath, manifest: Manifest) -> Parts:
    """Make the folder and its manifest, or see that the one there says the same.

    :raises MetatensorError: other settings than those in the folder
    """
    folder = as_path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _MANIFEST).exists():
        content = {"format": _FORMAT, "version": _VERSION, **manifest._asdict()}
        with replaced_file(folder / _MANIFEST) as file:
            file.write(json.dumps(content, indent=1).encode())
    # also after it was written: another process may have done so at the same time
    there = Parts(folder)._manifest
    asked = Manifest(**json.loads(json.dumps(manifest._asdict())))
    for name, value in asked._asdict().items():
        found = getattr(there, name)
        if found != value:
            raise MetatensorError(
                f"the parts in {str(folder)!r} have {name}={found!r}, but now it is "
                f"{value!r}: give the same, or another folder"
            )
    return Parts(folder)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / _MANIFEST
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise MetatensorError(f"{str(path)!r} was not written by `learn.featurize`")
    if content["version"] != _VERSION:
        raise MetatensorError(
            f"the parts in {str(folder)!r} have version {content['version']}, and "
            f"this metatensor_jax reads version {_VERSION}"
        )
    return Manifest(*(content[name] for name in Manifest._fields))


def _by_name(maps: Maps) -> Mapping[str, TensorMap]:
    return {ALONE: maps} if isinstance(maps, TensorMap) else maps
