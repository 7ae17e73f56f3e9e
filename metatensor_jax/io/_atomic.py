"""Replacing a file as a whole: what reads it finds the old content or the new one."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from .._types.errors import MetatensorError
from ._temporary import Temporary

#: where paths are taken, as ``open`` does
AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def as_path(path: AnyPath) -> Path:
    """Any path that the system takes."""
    return Path(os.fsdecode(path))


@contextlib.contextmanager
def replaced_file(path: AnyPath) -> Iterator[BinaryIO]:
    """A file to write to, that takes the place of ``path`` when it is complete.

    After an error, the old file is as it was, or there is none; and also if the process
    is killed, after which nothing else is left either, or for some moments that the
    next save of this file ends (see :mod:`._temporary`). Symbolic links are
    followed: what they lead to is replaced, or made. A file that is there keeps its
    permissions (and its owner and group, if the system allows that), and has to be one
    that may be written to; a new one gets the usual permissions. Other hard links keep
    the old content, for only writing into it could change them all: half of the new
    content could remain, and who has mapped the old one would see it change. What is no
    regular file, such as a pipe, is written to when all is there.

    :param path: as ``open`` takes them
    :raises OSError: what ``open`` would raise, and a folder without room for a new file

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replaced_file(f"{folder}/notes.txt") as file:
    ...         _ = file.write(b"all or nothing")
    ...     as_path(f"{folder}/notes.txt").read_text()
    'all or nothing'
    """
    before = _existing(path)
    if before is not None and not stat.S_ISREG(before.st_mode):
        buffer = io.BytesIO()
        yield buffer
        as_path(path).write_bytes(buffer.getbuffer())
        return
    target = as_path(os.path.realpath(path))
    with _as_named(path):
        new = Temporary(target, is_private=before is not None)
    try:
        yield new.file
        new.file.flush()
        os.fsync(new.file.fileno())
        with _as_named(path):
            prepare = before and partial(_make_alike, target, before)
            new.place(prepare)
    except BaseException:
        new.discard()
        raise


def check_new_folder(path: Path) -> None:
    """Raise unless nothing is there, or an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise MetatensorError(
            f"'{path}' is there already and not empty: remove it first, or give "
            "another path"
        )


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, that gets the name ``path`` when it is complete.

    :param path: nothing is there, or an empty folder
    :raises MetatensorError: there is something
    """
    check_new_folder(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rmdir()  # which is empty
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def _as_named(path: AnyPath) -> Iterator[None]:
    """Errors tell the name that the caller knows."""
    try:
        yield
    except OSError as error:
        error.filename = path
        if error.filename2 is not None:
            del error.filename2
        raise


def _existing(path: AnyPath) -> os.stat_result | None:
    """What is there, at the end of links; raises if it can not be written to."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode) or not os.access(path, os.W_OK):
        with open(path, "ab"):
            pass
    return found


def _make_alike(old: Path, before: os.stat_result, new: Path) -> None:
    """Give a new file the owner, group and permissions of an old one."""
    mode, made = before.st_mode, new.stat()
    if hasattr(os, "chown") and made.st_uid != before.st_uid:
        with contextlib.suppress(OSError):
            os.chown(new, before.st_uid, -1)
    if hasattr(os, "chown") and made.st_gid != before.st_gid:
        try:
            os.chown(new, -1, before.st_gid)
        except OSError:  # what one group may do is not for another
            mode = mode & ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    with contextlib.suppress(OSError):  # a file system without permissions
        shutil.copystat(old, new)  # access lists as well
    with contextlib.suppress(OSError):
        new.chmod(stat.S_IMODE(mode))
        os.utime(new)
