"""The ZIP archive around the members of an ``.mts`` file.

Members are stored, not compressed, so that they can be used where they are: of a mapped
file, nothing is read before it is needed. Those that another program has compressed are
expanded into memory. What a reader does not expect is an error.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NoReturn

from ._atomic import as_path, replaced_file
from ._expand import MAX_DEFLATE, METHODS, expand
from ._source import File, Source
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
#: compressed bytes that are enough to see how a member begins: a block of BZIP2
_PEEK = 1 << 20
#: members up to this size are gathered before they are written
_SMALL = 1 << 16


# --- reading -----------------------------------------------------------------------


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

    def __init__(self, source: Source, name: str) -> None:
        self._name = name
        self._source = source
        self._members: dict[str, Member] = {}
        try:
            members, end = read_directory(source)
        except OSError:
            raise
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
        is_lazy: bool = False,
    ) -> Any:
        """Decode one member.

        :param check: what to ask of a compressed member while it is expanded, lest
            memory is filled by what is refused then
        :param is_lazy: ``decode`` does not look at the data, and neither is its
            checksum compared if the file is mapped: that would read all of it
        """
        member = self._find(name)
        del self._members[name]
        content = self._content(member, is_lazy)
        try:
            if member.method != STORED:
                content = _expanded(member, content, check)
            return decode(content)
        except Exception as error:  # whatever it is, the file is what is wrong
            self.fail(f"in member '{name}', {error}", error)

    def peek(self, name: str, n: int) -> tuple[bytes, Member]:
        """How a member begins, at most ``n`` bytes, without reading the rest of it."""
        member = self._find(name)
        start, stop = self._place(member)
        if member.method == STORED:
            return bytes(self._source.read(start, min(stop, start + n))), member
        packed, begin = self._source.read(start, min(stop, start + _PEEK)), bytearray()
        try:
            for piece in expand(packed, member.method, member.size):
                begin += piece
                if len(begin) >= n:
                    break
        except Exception as error:  # whatever it is, the file is what is wrong
            self.fail(f"in member '{name}', {error}", error)
        return bytes(begin[:n]), member

    def drop(self, name: str) -> None:
        """Take a member, without a look at it."""
        del self._members[self._find(name).name]

    def leave(self, folders: set[str]) -> None:
        """Do without the members in these folders, such as ``blocks/3``."""
        self._members = {
            name: member
            for name, member in self._members.items()
            if "/".join(name.split("/", 2)[:2]) not in folders
        }

    def finish(self) -> None:
        """Raise if there are members that nobody took."""
        if self._members:
            self.fail(f"it has unexpected members: {sorted(self._members)[:5]}")

    def _find(self, name: str) -> Member:
        member = self._members.get(name)
        if member is None:
            self.fail(f"member '{name}' is missing")
        return member

    def _place(self, member: Member) -> tuple[int, int]:
        """Where the bytes of a member start and stop."""
        start = data_start(self._source, member.start)
        if start is None:
            self.fail(f"member '{member.name}' is not where it should be")
        stop = start + member.packed
        if stop > self._next[member.start]:
            self.fail(f"member '{member.name}' is damaged: it goes on in the next one")
        return start, stop

    def _content(self, member: Member, is_lazy: bool) -> memoryview:
        """The bytes of a member in the archive."""
        start, stop = self._place(member)
        # the checksum of a compressed member is that of what it holds
        if member.method != STORED or (is_lazy and self._source.is_mapped):
            return self._source.read(start, stop)
        content, crc = self._source.read_with_crc(start, stop)
        if crc != member.crc:
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

    def add(
        self,
        name: str,
        start: bytes,
        data: bytes | memoryview = b"",
        is_aligned: bool = False,
    ) -> None:
        """Add a member, made of these parts one after the other.

        :param is_aligned: the member begins at a multiple of 64 bytes in the file
        """
        size = len(start) + len(data)
        if size <= _SMALL:
            start, data = start + data, b""
        crc = zlib.crc32(start)
        if data:
            crc = zlib.crc32(data, crc)
        header, entry = write_member(name, crc, size, self._at, is_aligned)
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
