"""Files that are not there yet, and what is left of them when their process is killed.

On Linux, a file can be open and have no name (``O_TMPFILE``): if the process dies, the
kernel forgets it. It gets the name of a new file at once, when all is written. A file
that is there can only be replaced from a name beside it, which then exists for some
microseconds.

Elsewhere, and on file systems without such files, it has that name while it is written.
The name is made from that of the target, so that the next save of the same target looks
there, and removes what nobody writes to any more: who writes holds a lock on the file,
which the kernel gives back when the process ends. A lock says the same to threads,
containers and, as far as the file system does, to other machines.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import platform
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

#: so many saves of one file at a time have names that the next save looks at
_SLOTS = 4
#: seconds after which nobody writes to a file any more, where there are no locks
_LONG_AGO = 24 * 3600
#: many small writes are gathered before they go to the system
_BUFFER = 1 << 18


class Temporary:
    """A new file for the content that a target will have.

    :param target: the path that the file will have; nothing is there, or a file
    :param is_private: nobody else can read it until it gets other permissions
    :raises OSError: a folder without room for a new file
    """

    def __init__(self, target: Path, is_private: bool) -> None:
        self._target = target
        self._mode = 0o600 if is_private else 0o666
        _clear(target)
        self._name: Path | None = None
        descriptor = _open_without_name(target.parent, self._mode)
        if descriptor is None:
            self._name, descriptor = _open_with_name(target, self._mode)
        self.file: BinaryIO = os.fdopen(descriptor, "w+b", _BUFFER)

    @property
    def path(self) -> Path:
        """A path that leads to the file while it is open."""
        return self._name or Path(f"/proc/self/fd/{self.file.fileno()}")

    def place(self, prepare: Callable[[Path], None] | None = None) -> None:
        """Give the complete file the name of its target, in one step, and close it.

        :param prepare: what to do with the file before; None if nothing has the name of
            the target yet
        """
        if prepare is not None:
            prepare(self.path)
        if self._name is None:
            free = [] if prepare is not None else [self._target]
            try:
                names = itertools.chain(free, _names(self._target))
                self._name = _link(self.path, names)
            except OSError:  # a sandbox may forbid to name such a file
                self._copy()
                if prepare is not None:
                    prepare(self.path)
        assert self._name is not None
        if os.name == "nt":  # where no file that is open gets another name
            self.file.close()
        if self._name != self._target:
            self._name.replace(self._target)
        self._name = None
        self.file.close()

    def discard(self) -> None:
        """Leave nothing."""
        # what is left in the buffer may not fit on the disk
        with contextlib.suppress(OSError):
            self.file.close()
        if self._name is not None:
            self._name.unlink(missing_ok=True)

    def _copy(self) -> None:
        """Go on with a file that has a name."""
        source = self.file
        self._name, descriptor = _open_with_name(self._target, self._mode)
        self.file = os.fdopen(descriptor, "w+b", _BUFFER)
        with source:
            source.seek(0)
            shutil.copyfileobj(source, self.file, _BUFFER)
        self.file.flush()
        os.fsync(self.file.fileno())


def _link(path: Path, names: Iterable[Path]) -> Path:
    """Give the file behind a link in /proc the first of these names that is free."""
    for name in names:
        # with a folder, for else the link itself would get the name
        folder = os.open(name.parent, os.O_PATH)
        try:
            os.link(path, name, src_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            continue
        finally:
            os.close(folder)
        return name
    raise AssertionError("names do not end")


def _open_without_name(folder: Path, mode: int) -> int | None:
    """A file without a name in a folder, with a lock; None if there are none here."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
    except OSError:  # the other way will say what is wrong, if anything is
        return None
    _lock(descriptor)
    if os.path.exists(f"/proc/self/fd/{descriptor}"):
        return descriptor
    os.close(descriptor)
    return None


def _open_with_name(target: Path, mode: int) -> tuple[Path, int]:
    """A new file beside its target, with a lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    for name in _names(target):
        try:
            descriptor = os.open(name, flags, mode)
        except FileExistsError:
            continue
        if _lock(descriptor) is False or os.fstat(descriptor).st_nlink == 0:
            os.close(descriptor)  # another save took it for a file that was left
            continue
        return name, descriptor
    raise AssertionError("names do not end")


def _names(target: Path) -> Iterator[Path]:
    """Names beside a target: first those which :func:`_clear` looks at."""
    # not made of the name itself, which may be as long as names can be; other machines
    # have other names, for not all file systems tell one of the locks of the other
    whose = os.fsencode(f"{platform.node()}/{target.name}")
    digest = hashlib.sha256(whose).hexdigest()[:16]
    for i in range(_SLOTS):
        yield target.with_name(f".{digest}-{i}.tmp")
    for _ in itertools.count():
        yield target.with_name(f".{secrets.token_hex(8)}.tmp")


def _clear(target: Path) -> None:
    """Remove what processes left that were killed while they saved this target."""
    for name in itertools.islice(_names(target), _SLOTS):
        with contextlib.suppress(OSError):  # it is not there, or somebody else's
            _remove_if_left(name)


def _remove_if_left(name: Path) -> None:
    # no link is followed, and no pipe waited for
    extra = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(name, os.O_RDONLY | extra)
    try:
        is_left, found = _lock(descriptor), os.fstat(descriptor)
        if is_left is None:
            is_left = time.time() - found.st_mtime > _LONG_AGO
        # it may have got the name of its target meanwhile, and its own another file
        is_same = os.path.samestat(found, os.lstat(name))
        is_left = is_left and is_same and stat.S_ISREG(found.st_mode)
        if is_left and os.name != "nt":
            # while the lock is held: who makes such a file sees that it was removed
            name.unlink()
    finally:
        os.close(descriptor)
    if is_left and os.name == "nt":
        name.unlink()


def _lock(descriptor: int) -> bool | None:
    """Lock a file; False if somebody has done so, None if there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
