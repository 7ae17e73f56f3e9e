"""What is left of a save that is killed, and of files that others write."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from metatensor_jax.io import _temporary
from metatensor_jax.io._atomic import replaced_file

fcntl: Any = pytest.importorskip("fcntl")


def save(path: Path, content: bytes) -> None:
    with replaced_file(path) as file:
        file.write(content)


def slots(path: Path) -> list[Path]:
    """The names that a save of this path looks at."""
    names = _temporary._names(path)
    return [next(names) for _ in range(_temporary._SLOTS)]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files have a name while they are written, as elsewhere than on Linux."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="not on Linux")
def test_a_file_has_no_name_while_it_is_written(tmp_path: Path):
    descriptor = _temporary._open_without_name(tmp_path, 0o600)
    if descriptor is None:
        pytest.skip("this file system has no files without a name")
    os.close(descriptor)
    for content in (b"new", b"replaced"):
        with replaced_file(tmp_path / "x") as file:
            file.write(content)
            assert [path.name for path in tmp_path.iterdir()] == ["x"] * (
                content == b"replaced"
            )
        assert (tmp_path / "x").read_bytes() == content


@pytest.mark.parametrize("slot", range(_temporary._SLOTS))
@pytest.mark.parametrize("kind", ["without a name", "with a name"])
def test_what_a_dead_process_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, slot: int
):
    if kind == "with a name":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / "x"
    slots(path)[slot].write_bytes(b"half of it")
    other = slots(tmp_path / "other")[slot]
    other.write_bytes(b"of another file")
    save(path, b"new")
    assert sorted(tmp_path.iterdir()) == [other, path]
    assert path.read_bytes() == b"new"


@pytest.mark.usefixtures("named")
def test_what_somebody_writes_is_left_alone(tmp_path: Path):
    path = tmp_path / "x"
    with replaced_file(path) as first:
        first.write(b"first")
        assert [*tmp_path.iterdir()] == [slots(path)[0]]
        save(path, b"second")
        assert path.read_bytes() == b"second"
        with replaced_file(path) as third:
            third.write(b"third")
            save(path, b"fourth")
        assert path.read_bytes() == b"third"
    assert path.read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("kind", ["without a name", "with a name"])
def test_many_threads_save_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    if kind == "with a name":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path, errors = tmp_path / "x", []
    contents = [bytes([i]) * 100_000 for i in range(8)]

    def save_often(content: bytes) -> None:
        try:
            for _ in range(50):
                save(path, content)
                assert path.read_bytes() in contents
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save_often, args=(x,)) for x in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [*tmp_path.iterdir()] == [path]


def test_a_name_that_was_given_on_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # between opening what was left and locking it, its process may have finished, and
    # another one may have taken the name
    name, lock = slots(tmp_path / "x")[0], _temporary._lock
    name.write_bytes(b"first")

    def late(descriptor: int) -> Any:
        name.rename(tmp_path / "x")
        name.write_bytes(b"second")
        return lock(descriptor)

    monkeypatch.setattr(_temporary, "_lock", late)
    _temporary._remove_if_left(name)
    assert name.read_bytes() == b"second"


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("is_over", [False, True])
def test_a_file_that_was_removed_before_it_was_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_over: bool
):
    # another save saw it without a lock; it holds the lock itself, or that is over
    path, lock, calls = tmp_path / "x", _temporary._lock, []

    def late(descriptor: int) -> Any:
        calls.append(descriptor)
        if len(calls) > 1:
            return lock(descriptor)
        slots(path)[0].unlink()
        return is_over

    monkeypatch.setattr(_temporary, "_lock", late)
    save(path, b"new")
    assert path.read_bytes() == b"new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("age", [0, 2 * 24 * 3600])
def test_without_locks_only_old_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int
):
    monkeypatch.setattr(_temporary, "_lock", lambda descriptor: None)
    path = tmp_path / "x"
    name = slots(path)[0]
    name.touch()
    os.utime(name, (time.time() - age,) * 2)
    save(path, b"new")
    assert sorted(tmp_path.iterdir()) == ([path] if age else [name, path])


def test_links_and_pipes_in_the_place_are_left_alone(tmp_path: Path):
    path, target = tmp_path / "x", tmp_path / "target"
    target.write_bytes(b"of somebody")
    link, pipe, folder, _ = slots(path)
    link.symlink_to(target)
    os.mkfifo(pipe)
    folder.mkdir()
    for content in (b"new", b"again"):
        save(path, content)
    assert path.read_bytes() == b"again"
    assert target.read_bytes() == b"of somebody"
    assert link.is_symlink()
    assert pipe.exists()


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="not on Linux")
@pytest.mark.parametrize("exists", [False, True])
def test_where_files_without_a_name_can_get_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
):
    path = tmp_path / "x"
    if exists:
        path.write_bytes(b"old")
        path.chmod(0o640)

    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "not here", "a", None, "b")

    monkeypatch.setattr(os, "link", forbidden)
    save(path, b"new" * 1_000_000)
    assert path.read_bytes() == b"new" * 1_000_000
    assert not exists or path.stat().st_mode & 0o777 == 0o640
    assert [*tmp_path.iterdir()] == [path]


def test_errors_name_the_path_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "x"

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "no space left", "a", None, "b")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"no space left: .*/x'\)?$") as error:
        save(path, b"new")
    assert error.value.filename == path
    assert [*tmp_path.iterdir()] == []
