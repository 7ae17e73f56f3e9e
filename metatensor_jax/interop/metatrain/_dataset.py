"""Writing and reading data sets, in the format that the path says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from ..._types.errors import MetatensorError
from ..._types.tensor import TensorMap
from ._files import FORMATS, read_files, write_files
from ._layout import parts_of
from ._mapped import read_folder
from ._memmap import write_folder
from ._parts import Dataset, Options
from ._zip import read_zip, write_zip

AnyPath = str | os.PathLike[str]


def write_dataset(
    path: AnyPath,
    frames: Sequence[Atoms],
    targets: Mapping[str, TensorMap],
    extra_data: Mapping[str, TensorMap] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    systems: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Write a data set that ``mtt train`` and ``mtt eval`` take.

    The format goes by the path: an archive (``.zip``), structures (``.xyz``,
    ``.extxyz``, ``.traj``) with ``.mts`` files beside them, and else a folder of arrays
    for memory-mapping, see :mod:`metatensor_jax.interop.metatrain`. A file that was
    there is replaced; a folder has to be new or empty. What is wrong with frames or
    maps is found before anything is written.

    A folder holds 32 bits, no names of properties and no spherical tensors.

    :param path: where to write
    :param frames: the structures, in Å
    :param targets: maps of what is to be learned, by the names that metatrain knows:
        ``energy`` or another of metatomic's, or any with ``mtt::`` before it
    :param extra_data: further maps
    :param units: units of maps, by name. Energies are in ``eV`` if nothing is said, and
        all else has none. metatrain takes no other unit for forces and stress than
        those of energies and Å.
    :param systems: the numbers of the frames in the maps; 0, 1, ... if None
    :returns: the section ``training_set`` (or ``validation_set``, or all of the options
        of ``mtt eval``) for this data: dictionaries of text, numbers and lists. What
        ``json.dumps`` makes of it is YAML.
    :raises MetatensorError: maps without a row for each frame or atom, in a layout
        that metatrain does not have, or that the format can not hold; names that are
        there twice or make no file
    :raises TypeError: something else than maps and frames; numbers that are not real

    >>> import tempfile
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from metatensor_jax.interop.ase import energies
    >>> frames = [bulk("Cu"), bulk("Al")]
    >>> for frame in frames:
    ...     frame.calc = EMT()
    >>> targets = {"energy": energies(frames, ["positions", "strain"])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     section = write_dataset(f"{folder}/metals.zip", frames, targets)
    ...     again = read_dataset(section)
    >>> section["targets"]["energy"]["stress"], section["targets"]["energy"]["unit"]
    (True, 'eV')
    >>> again.targets["energy"].block().gradient("strain").shape
    (2, 3, 3, 1)
    """
    parts = parts_of(frames, targets, extra_data or {}, units or {}, systems)
    where = Path(path)
    if where.suffix == ".zip":
        return write_zip(where, parts)
    if where.suffix in FORMATS:
        return write_files(where, parts)
    return write_folder(where, parts)


def read_dataset(source: AnyPath | Mapping[str, Any]) -> Dataset:
    """Read a data set that metatrain takes, or that ``mtt eval`` has written.

    Maps have all systems, numbered 0, 1, .... Arrays of a folder stay on disk until
    they are used.

    :param source: a section of ``options.yaml`` as a dictionary, such as
        :func:`write_dataset` gives; or the path of an archive (``.zip``), which tells
        all itself: its maps are all given as targets
    :raises MetatensorError: data that does not fit to the options, or options that say
        too little; ``indices``, and maps that are not in ``.mts`` files
    :raises TypeError: something else, such as a list of sections
    :raises OSError: files that are not there

    The folder that ``mtt eval --output predictions/`` writes is read with the options
    of its maps: ``key`` is the name of their files (by default, the name of the map).

    >>> options = {
    ...     "systems": "predictions/",
    ...     "targets": {
    ...         "energy": {
    ...             "quantity": "energy",
    ...             "forces": {"key": "energy_forces"},
    ...             "stress": False,
    ...         }
    ...     },
    ... }
    >>> read_dataset(options)
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'predictions/na.npy'
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.suffix != ".zip":
            raise MetatensorError(
                f"'{path}' is no .zip file: other formats do not say what they hold. "
                "Give the section of options.yaml about it, as write_dataset does"
            )
        frames, maps = read_zip(path, None)
        return Dataset(frames, maps, {})
    if not isinstance(source, Mapping):
        raise TypeError(
            "`source` must be a path or a section of options.yaml, not "
            f"{type(source).__name__}"
        )
    return _read_section(source)


def _read_section(section: Mapping[str, Any]) -> Dataset:
    known = ("systems", "targets", "extra_data")
    unknown = sorted(set(section) - set(known))
    if unknown or "systems" not in section:
        raise MetatensorError(
            f"a section with {sorted(section)} is not known here: it should have "
            f"{list(known)}. Of options.yaml, give what is in training_set; rows for "
            "`indices` can be taken afterwards"
        )
    systems = section["systems"]
    path = Path(systems if isinstance(systems, str) else systems["read_from"])
    kinds = ("targets", "extra_data")
    options = [
        {
            name: _complete(name, given, is_target=kind == "targets")
            for name, given in section.get(kind, {}).items()
        }
        for kind in kinds
    ]
    of_maps = {**options[0], **options[1]}
    if path.suffix == ".zip":
        keys = {name: of_map["key"] for name, of_map in of_maps.items()}
        frames, by_key = read_zip(path, list(keys.values()))
        maps = {name: by_key[key] for name, key in keys.items()}
    elif path.suffix in FORMATS:
        frames, maps = read_files(path, of_maps)
    else:
        frames, maps = read_folder(path, of_maps)
    targets, extra_data = ({name: maps[name] for name in part} for part in options)
    return Dataset(frames, targets, extra_data)


def _complete(name: str, given: str | Mapping[str, Any], is_target: bool) -> Options:
    """Options of a map with what metatrain takes where nothing is said."""
    if isinstance(given, str):
        given = {"read_from": given}
    options = {
        "quantity": "energy" if is_target else "",
        "key": name,
        "sample_kind": "system",
        "type": "scalar",
        "num_subtargets": 1,
        **given,
    }
    by_default = is_target and "energy" in (name, given.get("quantity"))
    for gradient in ("forces", "stress"):
        wanted = options.get(gradient, by_default)
        if wanted is True:
            wanted = {"key": gradient}
        elif isinstance(wanted, Mapping):
            wanted = {"key": gradient, **wanted}
        options[gradient] = wanted
    return options
