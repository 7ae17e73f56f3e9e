"""Where the bytes of a file come from: memory, a mapped file, or a file that is read.

What reads archives asks for the bytes from one place to another, and gets a view. Of
a file that is read, only what is asked for comes into memory, and stays as it is,
whatever happens to the file.
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from ._atomic import AnyPath, as_path

File = AnyPath | BinaryIO

#: what JAX asks of memory that it uses without a copy, on CPUs
ALIGNMENT = 64
#: small members that are near to each other are read together
_WINDOW = 1 << 16
#: read, and added to the checksum while it is in the cache of the processor
_STEP = 1 << 18


class Source(Protocol):
    """The bytes of a file."""

    #: how many there are
    size: int
    #: is nothing read before it is used?
    is_mapped: bool

    def read(self, start: int, stop: int) -> memoryview:
        """These bytes, read-only; fewer where the file ends before."""
        ...

    def read_with_crc(self, start: int, stop: int) -> tuple[memoryview, int]:
        """These bytes and their checksum."""
        ...


class Memory:
    """Bytes that are there already: those of a buffer, or of a mapped file."""

    def __init__(self, data: memoryview, is_mapped: bool = False) -> None:
        self._data = data.toreadonly()
        self.size = len(data)
        self.is_mapped = is_mapped

    def read(self, start: int, stop: int) -> memoryview:
        return self._data[start:stop]

    def read_with_crc(self, start: int, stop: int) -> tuple[memoryview, int]:
        data = self._data[start:stop]
        return data, zlib.crc32(data)


class OpenFile:
    """A file that is read piece by piece.

    A large member gets memory of its own, which begins at a multiple of 64 bytes. Small
    ones share windows of 64 kB, in which all that is aligned in the file is aligned; so
    an array keeps 64 kB more than it needs at most.

    :param file: a regular file without a buffer
    :param window: the size of windows
    """

    is_mapped = False

    def __init__(self, file: io.FileIO, window: int = _WINDOW) -> None:
        self._file = file
        self._window_size = window
        self.size = os.fstat(file.fileno()).st_size
        self._window = memoryview(b"")
        self._start = 0

    def read(self, start: int, stop: int) -> memoryview:
        stop = min(stop, self.size)
        start = min(start, stop)
        if not self._is_in_window(start, stop):
            if self._is_large(start, stop):
                return self._fill(start, stop, is_checked=False)[0]
            self._start = start - start % ALIGNMENT
            end = min(self._start + self._window_size, self.size)
            self._window = self._fill(self._start, end, is_checked=False)[0]
        return self._window[start - self._start : stop - self._start]

    def read_with_crc(self, start: int, stop: int) -> tuple[memoryview, int]:
        if self._is_large(start, stop) and not self._is_in_window(start, stop):
            return self._fill(start, min(stop, self.size), is_checked=True)
        data = self.read(start, stop)
        return data, zlib.crc32(data)

    def _is_large(self, start: int, stop: int) -> bool:
        return stop - start > self._window_size // 2

    def _is_in_window(self, start: int, stop: int) -> bool:
        return self._start <= start and stop <= self._start + len(self._window)

    def _fill(self, start: int, stop: int, is_checked: bool) -> tuple[memoryview, int]:
        """New memory with these bytes, and their checksum if somebody asks for it."""
        # NumPy's memory is made of large pages where there are some: several times as
        # fast as that of `bytearray`, which is filled with zeros as well
        memory = np.empty(stop - start + ALIGNMENT, np.uint8)
        begin = -memory.__array_interface__["data"][0] % ALIGNMENT
        data, crc, at = memory[begin : begin + stop - start].data, 0, 0
        self._file.seek(start)
        while at < len(data):
            step = data[at : at + _STEP]
            n = self._file.readinto(step)
            if not n:
                shorter = "the file became shorter while it was read"
                raise OSError(errno.EIO, shorter, self._file.name)
            crc = zlib.crc32(step[:n], crc) if is_checked else 0
            at += n
        memory.flags.writeable = False
        return data.toreadonly(), crc


@contextlib.contextmanager
def opened(file: File, window: int = _WINDOW) -> Iterator[tuple[Source, str]]:
    """The bytes of a path or an open file, and what to call it in messages.

    :param window: bytes that are read at once of what is near to what is asked for
    :raises ValueError: an empty file
    :raises TypeError: a file that is open in text mode
    """
    if not isinstance(file, (str, bytes, os.PathLike)):
        yield Memory(_all_of(file)), getattr(file, "name", "an open file")
        return
    path = as_path(file)
    with path.open("rb", buffering=0) as raw:
        found = os.fstat(raw.fileno())
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            raise ValueError(f"can not load '{path}': it is a device, not a file")
        if not stat.S_ISREG(found.st_mode):  # a pipe, in which nobody can go back
            yield Memory(memoryview(raw.readall())), str(path)
            return
        _check_size(path, found)
        yield OpenFile(raw, window), str(path)


def mapped(path: AnyPath) -> tuple[Source, str]:
    """A file that is mapped into memory, and what to call it in messages.

    :raises TypeError: what is no path
    :raises ValueError: an empty file, or no regular one
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(
            f"only a path can be mapped, got {type(path).__name__}: use `load` or "
            "`load_block` for an open file"
        )
    path = as_path(path)
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"can not map '{path}', it is no regular file: use `load`")
        _check_size(path, found)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Memory(memoryview(data), is_mapped=True), str(path)


def _check_size(path: Path, found: os.stat_result) -> None:
    if found.st_size == 0:
        raise ValueError(f"can not load '{path}': the file is empty")


def _all_of(file: BinaryIO) -> memoryview:
    """What is left in an open file."""
    # asked first: to read as text what is none fails with other words
    data = "" if isinstance(file, io.TextIOBase) else file.read()
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError("an open file must be in binary mode, open it with 'rb'")
    return memoryview(data)
