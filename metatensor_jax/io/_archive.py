"""The ZIP archive around the members of an ``.mts`` file.

Members are stored, not compressed, so that they can be used where they are: in a mapped
file, nothing is read that is not needed. Those that another program has compressed are
expanded into memory. What a reader does not expect is an error.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NoReturn

from ._atomic import AnyPath, as_path, replaced_file
from ._expand import MAX_DEFLATE, METHODS, expand
from ._zip import (
    DEFLATED,
    ENCRYPTED,
    STORED,
    Member,
    data_start,
    read_directory,
    write_end,
    write_member,
)

_MAX_MESSAGE = 1000
#: compressed members are checked when so much of them is known, and then each time
#: that it has doubled: more than all headers of ``.npy`` files
_FIRST_CHECK = 1 << 17
#: members up to this size are gathered before they are written
_SMALL = 1 << 16

File = AnyPath | BinaryIO


# --- reading -----------------------------------------------------------------------


def read_file(file: File) -> tuple[memoryview, str]:
    """The bytes of a path or an open file, and what to call it in messages."""
    if not isinstance(file, (str, bytes, os.PathLike)):
        # asked first: to read as text what is none fails with other words
        data = "" if isinstance(file, io.TextIOBase) else file.read()
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError("an open file must be in binary mode, open it with 'rb'")
        return memoryview(data), getattr(file, "name", "an open file")
    path = as_path(file)
    with path.open("rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode):  # a pipe, which can not be mapped
            return memoryview(opened.read()), str(path)
        if found.st_size == 0:
            raise ValueError(f"can not load '{path}': the file is empty")
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(mapped), str(path)


def unloadable(name: str, why: str) -> ValueError:
    """The error for a file; what it quotes from the file is cut if it is long."""
    why = why if len(why) <= _MAX_MESSAGE else f"{why[:_MAX_MESSAGE]}..."
    return ValueError(f"can not load '{name}': {why}")


#: given what there is of a member so far and its whole size, raises if it is damaged
Check = Callable[[memoryview, int], None]


class Archive:
    """The members of an archive, each to be taken once.

    :raises ValueError: what is no archive, is damaged, or could hide something: members
        that are encrypted, share bytes, stand there twice, or have a path that leads
        elsewhere
    """

    def __init__(self, data: memoryview, name: str) -> None:
        self._name = name
        self._data = data
        self._members: dict[str, Member] = {}
        try:
            members, end = read_directory(data)
        except Exception as error:  # whatever it is, the file is what is wrong
            self.fail(str(error), error)
        for member in members:
            self._check(member)
            self._members[member.name] = member
        starts = sorted([member.start for member in members])
        #: what comes after each member
        self._next = dict(zip(starts, [*starts, end][1:], strict=True))
        if len(self._next) != len(members):
            self.fail("several members are at the same place")

    def _check(self, member: Member) -> None:
        name, flags, method, _, packed, size, _ = member
        path = f"/{name}/"
        if "//" in path or "/." in path or "\\" in path or "\0" in path:
            self._check_path(name)
        if name in self._members:
            self.fail(f"member '{name}' is there twice")
        if flags & ENCRYPTED:
            self.fail(f"member '{name}' is encrypted")
        if method == STORED:
            if packed != size:
                self.fail(f"member '{name}' has two sizes")
        elif method not in METHODS:
            self.fail(
                f"member '{name}' is compressed by method {method}, which is none of "
                f"{METHODS}: store it, or compress it by one of these"
            )
        elif method == DEFLATED and size > MAX_DEFLATE * (packed + 1):
            self.fail(
                f"member '{name}' should have {size} bytes, but its {packed} "
                "compressed ones can not hold so many"
            )

    def _check_path(self, name: str) -> None:
        if "\\" in name or "\0" in name or {"", ".", ".."} & set(name.split("/")):
            self.fail(f"the path of member '{name}' leads out of the archive")

    def fail(self, why: str, error: Exception | None = None) -> NoReturn:
        """Raise that this file can not be loaded."""
        raise unloadable(self._name, why) from error

    def names(self) -> list[str]:
        """The names of the members that were not taken yet."""
        return list(self._members)

    def take(
        self,
        name: str,
        decode: Callable[[memoryview], Any],
        check: Check | None = None,
    ) -> Any:
        """Decode one member.

        :param check: what to ask of a compressed member while it is expanded, lest
            memory is filled by what is refused then
        """
        member = self._members.pop(name, None)
        if member is None:
            self.fail(f"member '{name}' is missing")
        content = self._content(member)
        try:
            if member.method != STORED:
                content = _expanded(member, content, check)
            return decode(content)
        except Exception as error:  # whatever it is, the file is what is wrong
            self.fail(f"in member '{member.name}', {error}", error)

    def finish(self) -> None:
        """Raise if there are members that nobody took."""
        if self._members:
            self.fail(f"it has unexpected members: {sorted(self._members)[:5]}")

    def _content(self, member: Member) -> memoryview:
        start = data_start(self._data, member.start)
        if start is None:
            self.fail(f"member '{member.name}' is not where it should be")
        stop = start + member.packed
        if stop > self._next[member.start]:
            self.fail(f"member '{member.name}' is damaged: it goes on in the next one")
        content = self._data[start:stop]
        if member.method == STORED and zlib.crc32(content) != member.crc:
            self.fail(f"member '{member.name}' is damaged (checksum)")
        return content


def _expanded(member: Member, packed: memoryview, check: Check | None) -> memoryview:
    """What a compressed member holds, as it declares, or a ``ValueError`` before."""
    content, crc = bytearray(), 0
    next_check = _FIRST_CHECK
    for piece in expand(packed, member.method, member.size):
        content += piece
        crc = zlib.crc32(piece, crc)
        if len(content) > member.size:
            raise ValueError(f"there are more than the {member.size} bytes it declares")
        if check is not None and next_check <= len(content) < member.size:
            check(memoryview(content), member.size)
            next_check = 2 * len(content)
    if len(content) != member.size:
        raise ValueError(f"there are {len(content)} bytes, not {member.size}")
    if crc != member.crc:
        raise ValueError("what it holds is damaged (checksum)")
    return memoryview(content).toreadonly()


# --- writing -----------------------------------------------------------------------


class Writer:
    """Adds members to an archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._entries: list[bytes] = []

    def add(self, name: str, start: bytes, data: bytes | memoryview = b"") -> None:
        """Add a member, made of these parts one after the other."""
        size = len(start) + len(data)
        if size <= _SMALL:
            start, data = start + data, b""
        crc = zlib.crc32(start)
        if data:
            crc = zlib.crc32(data, crc)
        header, entry = write_member(name, crc, size, self._at)
        self._entries.append(entry)
        self._at += len(header) + size
        self._file.write(header + start)
        if data:
            self._file.write(data)

    def close(self) -> None:
        """Write the directory of the archive."""
        directory = b"".join(self._entries)
        self._file.write(directory)
        self._file.write(write_end(len(self._entries), self._at, len(directory)))


@contextlib.contextmanager
def written_file(file: File) -> Iterator[BinaryIO]:
    """A file to write to, that takes its place when it is complete, or not at all."""
    if not isinstance(file, (str, bytes, os.PathLike)):
        buffer = io.BytesIO()
        yield buffer
        file.write(buffer.getbuffer())
        return
    path = as_path(file)
    if not path.name.endswith(".mts"):
        path = path.with_name(path.name + ".mts")
        warnings.warn(f"adding '.mts', the file will be '{path}'", stacklevel=4)
    with replaced_file(path) as opened:
        yield opened
