"""The ZIP archive around the members of an ``.mts`` file.

Members are stored, not compressed, so that they can be used where they are: in a mapped
file, nothing is read that is not needed. What a reader does not expect is an error.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import secrets
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

_END_OF_ARCHIVE = b"PK\x05\x06"
_END_SIZE = 22
#: metatensor gives all members this date, so that equal data makes equal files
_DATE = (2000, 1, 1, 0, 0, 0)
_MAX_MESSAGE = 1000
_PERMISSIONS = 0o100644 << 16

File = str | os.PathLike[str] | BinaryIO


# --- reading -----------------------------------------------------------------------


def read_file(file: File) -> tuple[memoryview, str]:
    """The bytes of a path or an open file, and what to call it in messages."""
    if not isinstance(file, (str, os.PathLike)):
        # asked first: to read as text what is none fails with other words
        data = "" if isinstance(file, io.TextIOBase) else file.read()
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError("an open file must be in binary mode, open it with 'rb'")
        return memoryview(data), getattr(file, "name", "an open file")
    path = Path(file)
    with path.open("rb") as opened:
        if path.stat().st_size == 0:
            raise ValueError(f"can not load '{path}': the file is empty")
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(mapped), str(path)


def unloadable(name: str, why: str) -> ValueError:
    """The error for a file; what it quotes from the file is cut if it is long."""
    why = why if len(why) <= _MAX_MESSAGE else f"{why[:_MAX_MESSAGE]}..."
    return ValueError(f"can not load '{name}': {why}")


class Archive:
    """The members of an archive, each to be taken once.

    :raises ValueError: what is no archive, is damaged, or could hide something: members
        that are compressed or encrypted, stand there twice, or have a path that leads
        elsewhere
    """

    def __init__(self, data: memoryview, name: str) -> None:
        self._name = name
        self._data = data
        self._members: dict[str, zipfile.ZipInfo] = {}
        if bytes(data[-_END_SIZE:][:4]) != _END_OF_ARCHIVE:
            self.fail("it is truncated, followed by other data, or no .mts file")
        try:
            members = zipfile.ZipFile(_Reader(data)).infolist()  # type: ignore[arg-type]
        except Exception as error:  # zipfile lets errors of many types through
            self.fail(str(error), error)
        count = _declared_members(data)
        if count != len(members):
            self.fail(f"it should have {count} members, but has {len(members)}")
        if min((member.header_offset for member in members), default=0) != 0:
            self.fail("there is other data before the archive")
        for member in members:
            self._check(member)
            self._members[member.filename] = member

    def _check(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        parts = name.split("/")
        if name.startswith("/") or "\\" in name or {"", ".", ".."} & set(parts):
            self.fail(f"the path of member '{name}' leads out of the archive")
        if name in self._members:
            self.fail(f"member '{name}' is there twice")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            self.fail(f"member '{name}' is compressed or encrypted, not stored")
        if member.file_size != member.compress_size:
            self.fail(f"member '{name}' has two sizes")

    def fail(self, why: str, error: Exception | None = None) -> NoReturn:
        """Raise that this file can not be loaded."""
        raise unloadable(self._name, why) from error

    def names(self) -> list[str]:
        """The names of the members that were not taken yet."""
        return list(self._members)

    def take(self, name: str, decode: Callable[[memoryview], Any]) -> Any:
        """Decode one member."""
        if name not in self._members:
            self.fail(f"member '{name}' is missing")
        content = self._content(self._members.pop(name))
        try:
            return decode(content)
        except Exception as error:  # whatever it is, the file is what is wrong
            self.fail(f"in member '{name}', {error}", error)

    def finish(self) -> None:
        """Raise if there are members that nobody took."""
        if self._members:
            self.fail(f"it has unexpected members: {sorted(self._members)[:5]}")

    def _content(self, member: zipfile.ZipInfo) -> memoryview:
        start = member.header_offset
        header = self._data[start : start + 30]
        if len(header) < 30 or bytes(header[:4]) != b"PK\x03\x04":
            self.fail(f"member '{member.filename}' is not where it should be")
        name_size, extra_size = struct.unpack("<HH", header[26:30])
        start += 30 + name_size + extra_size
        content = self._data[start : start + member.file_size]
        if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
            self.fail(f"member '{member.filename}' is damaged (checksum)")
        return content


def _declared_members(data: memoryview) -> int:
    """How many members the end of an archive declares; zipfile does not care."""
    count = struct.unpack("<H", data[-_END_SIZE:][10:12])[0]
    zip64 = data[-_END_SIZE - 76 :]  # the larger end record and its locator
    if count == 0xFFFF and bytes(zip64[:4]) == b"PK\x06\x06":
        count = struct.unpack("<Q", zip64[32:40])[0]
    return count


class _Reader(io.RawIOBase):
    """A memoryview as a file, without a copy, for zipfile to find the members."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}
        at = start[whence] + offset
        if at < 0:
            raise OSError("seek before the start")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = None if size is None or size < 0 else self._at + size
        chunk = bytes(self._data[self._at : stop])
        self._at += len(chunk)
        return chunk


# --- writing -----------------------------------------------------------------------


class Writer:
    """Adds members to an archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

    def add(self, name: str, *parts: bytes | memoryview) -> None:
        """Add a member, made of these parts one after the other."""
        member = zipfile.ZipInfo(name, _DATE)
        member.external_attr = _PERMISSIONS
        member.file_size = sum(len(part) for part in parts)
        with self._zip.open(member, "w") as opened:
            for part in parts:
                opened.write(part)

    def close(self) -> None:
        """Write the directory of the archive."""
        self._zip.close()


@contextlib.contextmanager
def written_file(file: File) -> Iterator[BinaryIO]:
    """A file to write to, that takes its place when it is complete, or not at all."""
    if not isinstance(file, (str, os.PathLike)):
        buffer = io.BytesIO()
        yield buffer
        file.write(buffer.getbuffer())
        return
    path = Path(file)
    if path.suffix != ".mts":
        path = path.with_name(path.name + ".mts")
        warnings.warn(f"adding '.mts', the file will be '{path}'", stacklevel=4)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
