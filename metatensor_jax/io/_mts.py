"""Loading and saving ``.mts`` files, the format of metatensor.

A map is an archive of ``keys.npy``, ``blocks/<i>/...`` and ``info.json``; a block is
``values.npy``, ``samples.npy``, ``components/<j>.npy``, ``properties.npy`` and
``gradients/<parameter>/...``, which is a block again without ``properties.npy``; labels
are a single ``.npy`` file.
"""

from __future__ import annotations

import io

from .._types.attach import attach
from .._types.block import TensorBlock
from .._types.entry import LabelsEntry
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._archive import written_file
from ._atomic import AnyPath
from ._read import read_block, read_labels, read_map
from ._source import File, Memory, mapped, opened
from ._write import write

Buffer = bytes | bytearray | memoryview


def load(
    file: File, use_numpy: bool = False, *, keys: Labels | LabelsEntry | None = None
) -> TensorMap:
    """Load a map from an ``.mts`` file into memory.

    The values are NumPy arrays that can not be written to, and that stay as they are
    whatever happens to the file later. Those from a path to a file that :func:`save`
    wrote begin at multiples of 64 bytes in memory, so that JAX uses them without a copy
    on CPUs. dtypes are kept. JAX narrows 64-bit arguments of compiled functions
    without a word, unless its 64-bit mode is enabled: convert right after loading, see
    :meth:`TensorMap.to`.

    Members that another program has compressed (DEFLATE, BZIP2 or LZMA) or stored in
    another byte order are expanded and turned into numbers of this machine. An array of
    at most 64 kB can share memory of this size with its neighbours in the file.

    :param file: a path, or a file that is open in binary mode
    :param use_numpy: ignored, NumPy reads all files here
    :param keys: load only the blocks whose keys agree with an entry of these labels,
        as :func:`filter_blocks` does; of a path, the values of other blocks are not
        read. For a range of samples, slice what :func:`load_mmap` gives
    :raises ValueError: a file that is damaged, or that is no map; it names the member
        of the archive
    :raises OSError: what ``open`` would raise, and a file that becomes shorter while it
        is read

    >>> import tempfile
    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((2, 1)))
    >>> tensor = TensorMap(Labels.range("center_type", 2), [block, block])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mts.save(f"{folder}/tensor.mts", tensor)
    ...     loaded = mts.load(f"{folder}/tensor.mts")
    ...     second = mts.load(f"{folder}/tensor.mts", keys=tensor.keys[1])
    >>> loaded == tensor
    True
    >>> second.keys.values.tolist()
    [[1]]
    """
    with opened(file) as (source, name):
        return read_map(source, name, keys)


def load_block(file: File, use_numpy: bool = False) -> TensorBlock:
    """Load a block from an ``.mts`` file into memory.

    :param file: a path, or a file that is open in binary mode; see :func:`load` for
        what holds for both
    :param use_numpy: ignored, NumPy reads all files here
    :raises ValueError: a file that is damaged, or that is no block

    >>> import tempfile
    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((2, 1)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mts.save(f"{folder}/block.mts", block)
    ...     mts.load_block(f"{folder}/block.mts") == block
    True
    """
    with opened(file) as (source, name):
        return read_block(source, name)


def load_labels(file: File) -> Labels:
    """Load labels from an ``.mts`` file.

    :param file: a path, or a file that is open in binary mode
    :raises ValueError: a file that is damaged, or that is of something else
    """
    with opened(file) as (source, name):
        return read_labels(source, name)


def load_mmap(path: AnyPath, *, keys: Labels | LabelsEntry | None = None) -> TensorMap:
    """Map an ``.mts`` file: its values are read when they are used, and not before.

    Labels and info are in memory. Values are NumPy arrays that can not be written to,
    in the mapped file: a slice reads what it takes, and JAX uses the arrays of files
    that :func:`save` wrote without a copy on CPUs. Members that are compressed, or in
    another byte order, are in memory as for :func:`load`.

    While the arrays are in use, the file must not be changed in place: the values would
    change, and the process would end if the file became shorter. :func:`save` never
    does that, it puts a new file in the place of the old one. Checksums of mapped
    values are not compared, as this would read all of them: :func:`load` does it.

    :param path: a path of a regular file
    :param keys: only the blocks whose keys agree with an entry of these labels
    :raises TypeError: an open file
    :raises ValueError: a file that is damaged, or that is no map

    >>> import tempfile
    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.ones((9, 1)))])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mts.save(f"{folder}/tensor.mts", tensor)
    ...     mapped = mts.load_mmap(f"{folder}/tensor.mts")
    ...     part = mts.slice(mapped, "samples", np.arange(2, 4))
    >>> part.block().shape
    (2, 1)
    """
    return read_map(*mapped(path), keys)


def load_block_mmap(path: AnyPath) -> TensorBlock:
    """Map an ``.mts`` file of a block, see :func:`load_mmap`.

    :param path: a path of a regular file
    :raises TypeError: an open file
    :raises ValueError: a file that is damaged, or that is no block

    >>> import tempfile
    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((2, 1)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mts.save(f"{folder}/block.mts", block)
    ...     mts.load_block_mmap(f"{folder}/block.mts") == block
    True
    """
    return read_block(*mapped(path))


def load_buffer(buffer: Buffer, use_numpy: bool = False) -> TensorMap:
    """Load a map from the bytes of an ``.mts`` file; its values are views of them.

    :param buffer: the bytes
    :param use_numpy: ignored, NumPy reads all files here
    :raises ValueError: bytes that are damaged, or that are no map

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> tensor = TensorMap(Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> load_buffer(save_buffer(tensor)) == tensor
    True
    """
    return read_map(_memory(buffer), "a buffer")


def load_block_buffer(buffer: Buffer, use_numpy: bool = False) -> TensorBlock:
    """Load a block from the bytes of an ``.mts`` file, see :func:`load_buffer`.

    :param buffer: the bytes
    :param use_numpy: ignored, NumPy reads all files here
    :raises ValueError: bytes that are damaged, or that are no block

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((2, 1)))
    >>> load_block_buffer(save_buffer(block)) == block
    True
    """
    return read_block(_memory(buffer), "a buffer")


def load_labels_buffer(buffer: Buffer) -> Labels:
    """Load labels from the bytes of an ``.mts`` file.

    :param buffer: the bytes
    :raises ValueError: bytes that are damaged, or that are of something else

    >>> load_labels_buffer(save_buffer(Labels.range("atom", 2))).names
    ['atom']
    """
    return read_labels(_memory(buffer), "a buffer")


def _memory(buffer: Buffer) -> Memory:
    return Memory(memoryview(buffer).cast("B"))


def save(
    file: File, data: TensorMap | TensorBlock | Labels, use_numpy: bool = False
) -> None:
    """Save a map, a block or labels to an ``.mts`` file.

    The file is complete or not there, also if the process is killed: it is written
    where nobody sees it, and gets its name when all is on the disk. A file that was
    there before stays until then, and keeps its permissions.

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
    with written_file(file) as target:
        write(target, data)


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
    write(buffer, data)
    return buffer.getbuffer()


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
attach(TensorMap, load_mmap=staticmethod(load_mmap))
attach(TensorBlock, load_mmap=staticmethod(load_block_mmap))
