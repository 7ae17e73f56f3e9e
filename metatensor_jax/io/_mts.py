"""Loading and saving ``.mts`` files, the format of metatensor.

A map is an archive of ``keys.npy``, ``blocks/<i>/...`` and ``info.json``; a block is
``values.npy``, ``samples.npy``, ``components/<j>.npy``, ``properties.npy`` and
``gradients/<parameter>/...``, which is a block again without ``properties.npy``; labels
are a single ``.npy`` file.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from .._types.attach import attach
from .._types.block import TensorBlock
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._archive import Archive, File, Writer, read_file, unloadable, written_file
from ._fit import make_block, make_map
from ._npy import (
    Parts,
    check_labels,
    check_values,
    decode_labels,
    decode_values,
    encode_labels,
    encode_values,
    labels_decoder,
    labels_encoder,
)

Buffer = bytes | bytearray | memoryview

#: gradients of gradients of ...: a file can not send the reader deeper than this
_MAX_DEPTH = 16
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


def load(file: File, use_numpy: bool = False) -> TensorMap:
    """Load a map from an ``.mts`` file.

    The values are NumPy arrays in the mapped file: loading copies nothing, and data is
    read from disk when it is used. Only what another program has compressed (DEFLATE,
    BZIP2 or LZMA) or stored in another byte order is in memory, as numbers of this
    machine. dtypes are kept. JAX narrows 64-bit arguments of compiled functions without
    a word, unless its 64-bit mode is enabled: convert right after loading, see
    :meth:`TensorMap.to`.

    While the arrays are in use, the file must not be changed in place, as the data
    would change or be gone. :func:`save` never does that, it puts a new file in its
    place; before another program overwrites the file, take ``load(file).copy()``.

    :param file: a path, or a file that is open in binary mode
    :param use_numpy: ignored, NumPy reads all files here
    :raises ValueError: a file that is damaged, or that is no map; it names the member
        of the archive

    >>> import tempfile
    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mts.save(f"{folder}/tensor.mts", tensor)
    ...     loaded = mts.load(f"{folder}/tensor.mts")
    >>> loaded == tensor
    True
    """
    return _load_map(*read_file(file))


def load_block(file: File, use_numpy: bool = False) -> TensorBlock:
    """Load a block from an ``.mts`` file.

    :param file: a path, or a file that is open in binary mode; see :func:`load` for
        what holds for both
    :param use_numpy: ignored, NumPy reads all files here
    :raises ValueError: a file that is damaged, or that is no block
    """
    return _load_block(*read_file(file))


def load_labels(file: File) -> Labels:
    """Load labels from an ``.mts`` file.

    :param file: a path, or a file that is open in binary mode
    :raises ValueError: a file that is damaged, or that is of something else
    """
    return _load_labels(*read_file(file))


def load_buffer(buffer: Buffer, use_numpy: bool = False) -> TensorMap:
    """Load a map from the bytes of an ``.mts`` file, see :func:`load`."""
    return _load_map(memoryview(buffer).cast("B"), "a buffer")


def load_block_buffer(buffer: Buffer, use_numpy: bool = False) -> TensorBlock:
    """Load a block from the bytes of an ``.mts`` file, see :func:`load`."""
    return _load_block(memoryview(buffer).cast("B"), "a buffer")


def load_labels_buffer(buffer: Buffer) -> Labels:
    """Load labels from the bytes of an ``.mts`` file, see :func:`load`."""
    return _load_labels(memoryview(buffer).cast("B"), "a buffer")


def save(
    file: File, data: TensorMap | TensorBlock | Labels, use_numpy: bool = False
) -> None:
    """Save a map, a block or labels to an ``.mts`` file.

    The file is complete or not there: it is written under another name, and then
    renamed. A file that was there before stays until then, and keeps its permissions.

    A symbolic link stays one: what it points to is replaced, or made if it is not
    there. Of several hard links, only the one that is named gets the new data, and the
    others keep the old: to change what they share, it would have to be overwritten in
    place, which could leave half a file, and change maps that were loaded from it.

    :param file: a path, to which ``.mts`` is added if it has another suffix, or a file
        that is open in binary mode
    :param data: what to save
    :param use_numpy: ignored, NumPy writes all files here
    :raises TypeError: something else than a map, a block or labels, or a dtype that
        metatensor does not have (such as bfloat16)
    :raises TracedLabelsError: traced labels

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/labels.mts", Labels.range("atom", 2))
    ...     len(load_labels(f"{folder}/labels.mts"))
    2
    """
    with written_file(file) as opened:
        _write(opened, data)


def save_buffer(
    data: TensorMap | TensorBlock | Labels, use_numpy: bool = False
) -> memoryview:
    """A map, a block or labels as the bytes of an ``.mts`` file, see :func:`save`.

    >>> load_labels_buffer(save_buffer(Labels.range("atom", 2)))
    Labels
        atom
         0
         1
    """
    buffer = io.BytesIO()
    _write(buffer, data)
    return buffer.getbuffer()


# --- reading -----------------------------------------------------------------------


def _load_map(data: memoryview, name: str) -> TensorMap:
    archive = Archive(data, name)
    members = set(archive.names())
    if "blocks/0/values/data.npy" in members:
        archive.fail(_OLD_LAYOUT)
    if "keys.npy" not in members and "values.npy" in members:
        archive.fail("it is a block, use `load_block`")
    reader = _Reader(archive, members)
    keys = archive.take("keys.npy", decode_labels, check_labels)
    blocks = [reader.block(f"blocks/{i}/") for i in range(len(keys))]
    info = {}
    if "info.json" in members:
        info = archive.take("info.json", _decode_info, _check_info)
    archive.finish()
    try:
        return make_map(keys, blocks, info)
    except (TypeError, ValueError) as error:
        archive.fail(str(error), error)


def _load_block(data: memoryview, name: str) -> TensorBlock:
    archive = Archive(data, name)
    members = set(archive.names())
    if "values.npy" not in members and "keys.npy" in members:
        archive.fail("it is a map, use `load`")
    block = _Reader(archive, members).block("")
    archive.finish()
    return block


def _load_labels(data: memoryview, name: str) -> Labels:
    if bytes(data[:4]) == b"PK\x03\x04":
        hint = "it is a map or a block, use `load` or `load_block`"
        raise unloadable(name, hint)
    try:
        return decode_labels(data)
    except Exception as error:
        raise unloadable(name, str(error)) from error


class _Reader:
    """Takes blocks from an archive."""

    def __init__(self, archive: Archive, members: set[str]) -> None:
        self._archive = archive
        self._members = members
        self._parameters = _parameters(archive, members)
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
            f"{folder}values.npy", decode_values, partial(check_values, axes)
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


def _parameters(archive: Archive, members: set[str]) -> dict[str, list[str]]:
    """The gradient parameters in each folder of the archive."""
    found: dict[str, set[str]] = {}
    inside = [member for member in members if "gradients/" in member]
    for place in {member.rpartition("/")[0] for member in inside}:
        parts = place.split("/")
        if len(parts) > 2 * _MAX_DEPTH + 3:  # blocks/<i>/ ... /components
            where = f"'{place[:40]}...'"
            archive.fail(f"gradients are nested deeper than {_MAX_DEPTH} in {where}")
        for i, part in enumerate(parts[:-1]):
            if part == "gradients":
                folder = "/".join(parts[:i])
                found.setdefault(f"{folder}/" if folder else "", set()).add(
                    parts[i + 1]
                )
    return {folder: sorted(names) for folder, names in found.items()}


def _decode_info(data: memoryview) -> dict[str, str]:
    info = json.loads(bytes(data).decode())
    if not isinstance(info, dict):
        raise ValueError(f"info must be a JSON object, not {type(info).__name__}")
    for key, value in info.items():
        if not isinstance(value, str):
            raise ValueError(f"info must be text, got {key!r}: {value!r}")
    return info


def _check_info(_: memoryview, size: int) -> None:
    if size > _MAX_INFO:
        raise ValueError(
            f"compressed info must be at most {_MAX_INFO} bytes, this is {size}: store "
            "it without compression"
        )


# --- writing -----------------------------------------------------------------------


def _write(file: Any, data: TensorMap | TensorBlock | Labels) -> None:
    if isinstance(data, Labels):
        for part in encode_labels(data):
            file.write(part)
        return
    if not isinstance(data, (TensorMap, TensorBlock)):
        raise TypeError(
            "`data` must be a metatensor_jax TensorMap, TensorBlock or Labels, not "
            f"{type_of(data, qualified=True)}"
        )
    with contextlib.closing(Writer(file)) as writer:
        encode = labels_encoder()
        if isinstance(data, TensorBlock):
            _write_block(writer, encode, "", data)
            return
        writer.add("keys.npy", *encode(data.keys))
        for i, block in enumerate(data):
            _write_block(writer, encode, f"blocks/{i}/", block)
        if data.info():
            info = json.dumps(data.info(), indent=2, ensure_ascii=False)
            writer.add("info.json", info.encode())


def _check_shape(folder: str, shape: tuple[int, ...], axes: list[Labels]) -> None:
    expected = tuple([len(labels) for labels in axes])
    if shape != expected:
        raise ValueError(
            f"can not save the block in '{folder}': its values have shape {shape}, but "
            f"its labels have {expected} entries. Is this a map that was stacked or "
            "batched by JAX? Save its parts"
        )


def _write_block(
    writer: Writer,
    encode: Callable[[Labels], Parts],
    folder: str,
    block: TensorBlock,
    depth: int = 0,
) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f".mts files hold gradients {_MAX_DEPTH} deep, not {depth}")
    samples, components, properties = block.samples, block.components, block.properties
    _check_shape(folder, block.shape, [samples, *components, properties])
    writer.add(f"{folder}values.npy", *encode_values(block.values))
    writer.add(f"{folder}samples.npy", *encode(samples))
    for i, labels in enumerate(components):
        writer.add(f"{folder}components/{i}.npy", *encode(labels))
    if depth == 0:
        writer.add(f"{folder}properties.npy", *encode(properties))
    for name, gradient in block.gradients():
        inside = f"{folder}gradients/{name}/"
        _write_block(writer, encode, inside, gradient, depth + 1)


# --- methods of the types ----------------------------------------------------------


def _save(self: TensorMap | TensorBlock, file: File, use_numpy: bool = False) -> None:
    """Write to a path or an open file, see :func:`save`."""
    save(file, self, use_numpy)


def _save_labels(self: Labels, file: File) -> None:
    """Write these labels to a path or an open file, see :func:`save`."""
    save(file, self)


def _save_labels_buffer(self: Labels) -> memoryview:
    """These labels as the bytes of a file."""
    return save_buffer(self)


for _owner, _load, _load_buffer, _write_file, _write_buffer in (
    (TensorMap, load, load_buffer, _save, save_buffer),
    (TensorBlock, load_block, load_block_buffer, _save, save_buffer),
    (Labels, load_labels, load_labels_buffer, _save_labels, _save_labels_buffer),
):
    attach(
        _owner,
        load=staticmethod(_load),
        load_buffer=staticmethod(_load_buffer),
        save=_write_file,
        save_buffer=_write_buffer,
    )
