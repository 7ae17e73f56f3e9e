"""Where files are saved: links, permissions, names of all kinds, what is no file."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import tensor
from files import assert_identical

from metatensor_jax import TensorMap, io as mio
from metatensor_jax.io._atomic import replaced_file

OLD, NEW = tensor(seed=1), tensor((4, 1), seed=2)


@pytest.fixture(params=["without a name", "with a name"], autouse=True)
def temporary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files have no name while they are written, where Linux can do that, or one."""
    if request.param == "with a name":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
needs_modes = pytest.mark.skipif(os.name == "nt", reason="there are no mode bits")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def check_saved(path: Path, alone: bool = True) -> None:
    """NEW is there, and nothing else was left."""
    assert_identical(mio.load(path), NEW)
    assert not [*path.parent.glob(".*.tmp")]
    assert not alone or [*path.parent.iterdir()] == [path]


# --- links -------------------------------------------------------------------------


def absolute(path: Path, target: Path) -> None:
    path.symlink_to(target)


def relative(path: Path, target: Path) -> None:
    path.symlink_to(os.path.relpath(target, path.parent))


def chain(path: Path, target: Path) -> None:
    between = path.with_name("between")
    between.symlink_to(target)
    path.symlink_to(between.name)


@needs_links
@pytest.mark.parametrize("exists", [True, False], ids=["exists", "dangling"])
@pytest.mark.parametrize("link", [absolute, relative, chain])
def test_a_link_stays_and_its_target_is_written(
    tmp_path: Path, link: Callable[[Path, Path], None], exists: bool
):
    target, path = tmp_path / "scratch" / "data.bin", tmp_path / "x.mts"
    target.parent.mkdir()
    if exists:
        with target.open("wb") as file:
            mio.save(file, OLD)
    link(path, target)
    points_to = path.readlink()
    mio.save(path, NEW)
    assert path.is_symlink()
    assert path.readlink() == points_to
    check_saved(target)
    assert_identical(mio.load(path), NEW)


@needs_links
def test_a_folder_that_is_a_link(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    mio.save(tmp_path / "link" / "x.mts", NEW)
    check_saved(folder / "x.mts")


@needs_links
def test_links_that_go_in_a_circle(tmp_path: Path):
    a, b = tmp_path / "a.mts", tmp_path / "b.mts"
    a.symlink_to(b)
    b.symlink_to(a)
    with pytest.raises(OSError, match="symbolic links"):
        mio.save(a, NEW)
    assert a.is_symlink()
    assert b.is_symlink()


@needs_links
def test_a_link_into_a_folder_that_is_not_there(tmp_path: Path):
    path = tmp_path / "x.mts"
    path.symlink_to(tmp_path / "missing" / "x.mts")
    with pytest.raises(FileNotFoundError, match=r"x\.mts"):
        mio.save(path, NEW)
    assert [*tmp_path.iterdir()] == [path]


@needs_links
def test_nothing_changes_through_a_link_after_an_error(tmp_path: Path):
    target, path = tmp_path / "target.mts", tmp_path / "x.mts"
    mio.save(target, OLD)
    path.symlink_to(target)
    with pytest.raises(TypeError):
        mio.save(path, None)  # type: ignore[arg-type]
    assert path.is_symlink()
    assert_identical(mio.load(target), OLD)
    assert sorted(tmp_path.iterdir()) == [target, path]


@needs_links
def test_other_hard_links_keep_the_old_data(tmp_path: Path):
    path, second = tmp_path / "x.mts", tmp_path / "second.mts"
    mio.save(path, OLD)
    second.hardlink_to(path)
    loaded = mio.load(path)
    mio.save(path, NEW)
    check_saved(path, alone=False)
    assert_identical(mio.load(second), OLD)
    assert_identical(loaded, OLD)


# --- permissions -------------------------------------------------------------------


@needs_modes
@pytest.mark.parametrize("bits", [0o600, 0o664, 0o640, 0o666, 0o755])
def test_permissions_stay(tmp_path: Path, bits: int):
    path = tmp_path / "x.mts"
    mio.save(path, OLD)
    path.chmod(bits)
    mio.save(path, NEW)
    assert mode(path) == bits
    check_saved(path)


@needs_modes
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_new_files_have_the_usual_permissions(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        mio.save(tmp_path / "x.mts", NEW)
        (tmp_path / "other").touch()
    finally:
        os.umask(before)
    assert mode(tmp_path / "x.mts") == mode(tmp_path / "other") == 0o666 & ~mask


@needs_modes
def test_a_private_file_is_private_while_it_is_written(tmp_path: Path):
    path = tmp_path / "x"
    path.touch(0o600)
    with replaced_file(path) as file:
        file.write(b"secret")
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    assert path.read_bytes() == b"secret"


@needs_modes
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path):
    path = tmp_path / "x.mts"
    mio.save(path, OLD)
    path.chmod(0o444)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write anything")
    with pytest.raises(PermissionError, match=r"x\.mts"):
        mio.save(path, NEW)
    assert_identical(mio.load(path), OLD)


def test_the_time_of_a_file_is_that_of_its_data(tmp_path: Path):
    path = tmp_path / "x.mts"
    mio.save(path, OLD)
    os.utime(path, (1, 1))
    mio.save(path, NEW)
    assert path.stat().st_mtime > 1


# --- names -------------------------------------------------------------------------

NAMES = {
    "longest": "a" * 251 + ".mts",
    "longest, of two bytes each": "é" * 125 + "x.mts",
    "hidden": ".x.mts",
    "suffix alone": ".mts",
    "dots": "...mts",
    "not ASCII": "Größe 東京 \U0001f9ea.mts",
    "spaces and a new line": " a\n b .mts",
    "two suffixes": "x.npz.mts",
    "dash": "-x.mts",
}
every_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


@every_name
@pytest.mark.parametrize("kind", [str, Path, os.fsencode], ids=["str", "Path", "bytes"])
def test_names_of_all_kinds(tmp_path: Path, name: str, kind: Any):
    path = tmp_path / name
    for saved in (OLD, NEW):  # a new file, and one that is replaced
        mio.save(kind(str(path)), saved)
    check_saved(path)
    assert_identical(mio.load(kind(str(path))), NEW)


@pytest.mark.skipif(os.name == "nt", reason="names are text")
def test_names_that_are_no_text(tmp_path: Path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe.mts"
    mio.save(name, NEW)
    assert_identical(mio.load(name), NEW)
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe.mts"]


class BytesPath:
    """A path in the way that ``os.PathLike`` allows, and pathlib does not have."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


def test_paths_that_are_objects(tmp_path: Path):
    mio.save(BytesPath(tmp_path / "x.mts"), NEW)
    assert_identical(mio.load(BytesPath(tmp_path / "x.mts")), NEW)


def test_suffix_is_added_to_bytes(tmp_path: Path):
    with pytest.warns(UserWarning, match=r"x\.mts'"):
        mio.save(os.fsencode(tmp_path / "x"), NEW)
    check_saved(tmp_path / "x.mts")


def test_a_path_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    mio.save("x.mts", NEW)
    check_saved(tmp_path / "x.mts")


def test_folders_are_not_replaced(tmp_path: Path):
    folder = tmp_path / "x.mts"
    folder.mkdir()
    with pytest.raises(OSError, match=r"x\.mts"):
        mio.save(folder, NEW)
    assert folder.is_dir()
    assert [*folder.iterdir()] == []


def test_a_name_that_is_too_long(tmp_path: Path):
    with pytest.raises(OSError, match=r"too long|Invalid"):
        mio.save(tmp_path / ("a" * 252 + ".mts"), NEW)
    assert [*tmp_path.iterdir()] == []


# --- what is no regular file -------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_pipes_are_written_to_and_read_from(tmp_path: Path):
    path, loaded = tmp_path / "x.mts", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: loaded.append(mio.load(path)))
    reader.start()
    mio.save(path, NEW)
    reader.join(timeout=30)
    assert isinstance(loaded[0], TensorMap)
    assert_identical(loaded[0], NEW)
    assert stat.S_ISFIFO(path.stat().st_mode)
