"""The records of the ZIP format, as far as ``.mts`` files need them.

Python's ``zipfile`` takes longer for a member than the data of a small block does, and
files have thousands of them. What is written here is read by it, and by metatensor.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ._source import ALIGNMENT, Source

STORED, DEFLATED = 0, 8
#: in the flags of a member: three ways to be encrypted, and a name that is UTF-8
ENCRYPTED, _UTF8 = 0x1 | 0x40 | 0x2000, 0x800

#: greater numbers, and more members, are in the larger records of ZIP64
MAX_SIZE, MAX_MEMBERS = 0xFFFFFFFF - 1, 0xFFFF - 1
_IN_ZIP64 = 0xFFFFFFFF
#: of the format, times ten: later ones may have what is not known here
_MAX_VERSION = 63

_LOCAL = struct.Struct("<4sHHHIIIIHH")
_LOCAL_SIZES = struct.Struct("<4s22xHH")
_ENTRY = struct.Struct("<4sHHHHIIIIHHHHHII")
_ENTRY_READ = struct.Struct("<4s2xHHH4xIIIHHH8xI")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")

#: metatensor gives all members this date, so that equal data makes equal files:
#: the first of January 2000, midnight
_DATE = ((2000 - 1980) << 9 | 1 << 5 | 1) << 16
_PERMISSIONS = 0o100644 << 16
#: a field that means nothing, and makes room before the data of a member; it has the
#: number of the one in archives of Android applications, and begins with the alignment
_PADDING = struct.Struct("<HHH")
_PADDING_KIND = 0xD935
#: who made a member (Unix), and the version that it needs (20, or 45 for ZIP64)
_MADE_BY, _PLAIN, _ZIP64 = 3 << 8 | 45, 20, 45


class Member(NamedTuple):
    """What the directory says about a member."""

    name: str
    flags: int
    method: int
    crc: int
    #: bytes in the archive, and when they are expanded
    packed: int
    size: int
    #: where its local header is
    start: int


#: from a tuple, as ``Member._make``, in half the time
_make_member: Callable[[tuple], Member] = functools.partial(tuple.__new__, Member)


# --- reading -----------------------------------------------------------------------


def read_directory(source: Source) -> tuple[list[Member], int]:
    """All members of an archive, and where its directory starts.

    :raises ValueError: anything that is not as it should be
    """
    count, start, stop = _find_directory(source)
    members = list(_read_entries(source.read(start, stop)))
    if count != len(members):
        raise ValueError(f"it should have {count} members, but has {len(members)}")
    starts = [member.start for member in members]
    if members and min(starts) != 0:
        raise ValueError("there is other data before the archive")
    if members and max(starts) >= start:
        raise ValueError("a member is said to be after the end")
    return members, start


def _find_directory(source: Source) -> tuple[int, int, int]:
    """How many members the end of an archive declares; start and stop of the rest."""
    stop = source.size - _END.size
    end = source.read(max(stop, 0), source.size)
    if stop < 0 or bytes(end[:4]) != b"PK\5\6":
        raise ValueError("it is truncated, followed by other data, or no .mts file")
    _, _, _, _, count, size, start, comment = _END.unpack(end)
    if comment != 0:
        raise ValueError("it is truncated: the comment at its end is not there")
    locator_at = max(stop - _LOCATOR.size, 0)
    locator = source.read(locator_at, stop)
    if len(locator) == _LOCATOR.size and bytes(locator[:4]) == b"PK\6\7":
        stop = _LOCATOR.unpack(locator)[2]
        end = source.read(stop, stop + _END64.size)
        if stop + _END64.size > locator_at or bytes(end[:4]) != b"PK\6\6":
            raise ValueError("the end of its directory is not where it should be")
        *_, count, size, start = _END64.unpack(end)
    if start + size < stop:
        raise ValueError("there is other data before the archive or its end")
    if start + size > stop:
        raise ValueError("its directory is not where it should be")
    return count, start, stop


def _read_entries(directory: memoryview) -> Iterator[Member]:
    """The members whose entries are in these bytes, one after the other."""
    at, end = 0, len(directory)
    while at < end:
        name_at = at + _ENTRY_READ.size
        if name_at > end:
            raise ValueError("its directory is cut")
        entry = _ENTRY_READ.unpack_from(directory, at)
        signature, version, flags, method, crc, packed, size = entry[:7]
        n_name, n_extra, n_comment, start = entry[7:]
        extra_at = name_at + n_name
        at = extra_at + n_extra + n_comment
        if signature != b"PK\1\2" or at > end:
            raise ValueError("its directory is damaged")
        raw = bytes(directory[name_at:extra_at])
        # without the flag, names are in the encoding of the first PCs
        name = raw.decode("utf-8" if flags & _UTF8 or raw.isascii() else "cp437")
        if version & 0xFF > _MAX_VERSION:
            raise ValueError(f"member '{name}' needs version {version / 10} of ZIP")
        if packed == _IN_ZIP64 or size == _IN_ZIP64 or start == _IN_ZIP64:
            extra = directory[extra_at : extra_at + n_extra]
            size, packed, start = _read_zip64(extra, (size, packed, start))
        yield _make_member((name, flags, method, crc, packed, size, start))


def _read_zip64(extra: memoryview, numbers: Sequence[int]) -> list[int]:
    """These numbers; those that do not fit in an entry are in a field after it."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            large = iter(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
            return [next(large, n) if n == _IN_ZIP64 else n for n in numbers]
        at += 4 + size
    return list(numbers)


def is_archive(source: Source) -> bool:
    """Does this begin like an archive: with a member, or the end if there is none?"""
    return bytes(source.read(0, 4)) in (b"PK\3\4", b"PK\5\6")


def data_start(source: Source, start: int) -> int | None:
    """Where the data of a member starts; None if its header is not at ``start``."""
    header = source.read(start, start + _LOCAL.size)
    if len(header) < _LOCAL.size:  # beyond the end
        return None
    signature, name, extra = _LOCAL_SIZES.unpack_from(header)
    return start + _LOCAL.size + name + extra if signature == b"PK\3\4" else None


# --- writing -----------------------------------------------------------------------


def write_member(
    name: str, crc: int, size: int, start: int, is_aligned: bool = False
) -> tuple[bytes, bytes]:
    """The header of a stored member that is written at ``start``, and its entry.

    :param is_aligned: the data after the header begins at a multiple of 64 bytes
    """
    raw = name.encode()
    flags = 0 if name.isascii() else _UTF8
    local_extra = extra = b""
    version, local_size, offset = _PLAIN, size, start
    if size > MAX_SIZE or start > MAX_SIZE:
        version, offset = _ZIP64, _IN_ZIP64
        extra = struct.pack("<HHQQQ", 1, 24, size, size, start)
        if size > MAX_SIZE:
            local_extra = struct.pack("<HHQQ", 1, 16, size, size)
        local_size = _IN_ZIP64 if local_extra else size
    if is_aligned:
        local_extra += _padding(start + _LOCAL.size + len(raw) + len(local_extra))
    n_name, n_extra = len(raw), len(extra)
    header = _LOCAL.pack(
        b"PK\3\4",
        version,
        flags,
        STORED,
        _DATE,
        crc,
        local_size,
        local_size,
        n_name,
        len(local_extra),
    )
    if extra:
        size = _IN_ZIP64
    # no comment, the first disk, no text
    rest = (n_name, n_extra, 0, 0, 0, _PERMISSIONS, offset)
    entry = _ENTRY.pack(
        b"PK\1\2", _MADE_BY, version, flags, STORED, _DATE, crc, size, size, *rest
    )
    return header + raw + local_extra, entry + raw + extra


def _padding(at: int) -> bytes:
    """A field after which the next multiple of 64 bytes is, if it starts here."""
    size = -at % ALIGNMENT
    if size == 0:
        return b""
    if size < _PADDING.size:
        size += ALIGNMENT
    field = _PADDING.pack(_PADDING_KIND, size - 4, ALIGNMENT)
    return field + bytes(size - _PADDING.size)


def write_end(count: int, start: int, size: int) -> bytes:
    """What comes after the directory."""
    end = b""
    if count > MAX_MEMBERS or start > MAX_SIZE or size > MAX_SIZE:
        numbers = (count, count, size, start)
        end = _END64.pack(b"PK\6\6", _END64.size - 12, _MADE_BY, 45, 0, 0, *numbers)
        end += _LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
        count, start, size = 0xFFFF, _IN_ZIP64, _IN_ZIP64
    return end + _END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)
