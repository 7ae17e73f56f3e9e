"""Features in parts: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import features as of
import numpy as np
import pytest

import metatensor_jax as mts
from metatensor_jax import MetatensorError, TensorMap, learn
from metatensor_jax.learn import _parts

FRAMES = of.frames(23)
AT_ONCE = of.features(FRAMES)


def featurize(*args: Any, chunk: int = 4, **options: Any) -> learn.Parts:
    return learn.featurize(*args, chunk=chunk, progress=False, **options)


def assert_equal(found: Any, expected: TensorMap = AT_ONCE) -> None:
    """Bit for bit; blocks may come in another order."""
    mts.equal_raise(found, expected)
    assert {block.values.dtype for block in found} == {np.dtype("f8")}


def processes() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(2, mp_context=spawn)


def times(folder: Path) -> Counter[int]:
    """How often each part was computed to its end, by its first frame."""
    return Counter(int(x.name.split("-")[0]) for x in folder.iterdir())


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.mark.parametrize("chunk", [1, 4, 23, 100])
@pytest.mark.usefixtures("x64")
def test_parts_are_what_is_computed_at_once(tmp_path: Path, chunk: int) -> None:
    parts = featurize(FRAMES, of.features, tmp_path / "parts", chunk=chunk)
    assert_equal(parts.load())
    assert len(parts) == -(-23 // chunk)
    assert parts.missing == []
    again = learn.Parts(tmp_path / "parts")
    assert_equal(again.load())
    own = [i for n in range(len(parts)) for i in parts.frames(n)]
    assert own == list(range(23))
    assert_same_store(mts.Store.from_maps(parts), mts.Store.from_maps(AT_ONCE))


def assert_same_store(found: mts.Store, expected: mts.Store) -> None:
    assert found.systems.tolist() == expected.systems.tolist()
    everything = range(len(found))
    assert_equal(found.maps(everything), expected.maps(everything))  # type: ignore


def test_parts_that_are_there_are_skipped(tmp_path: Path, notes: Path) -> None:
    function = partial(of.noted, notes)
    first = featurize(FRAMES, function, tmp_path / "parts", parts=slice(1, None, 3))
    assert first.missing == [0, 2, 3, 5]
    assert repr(first).splitlines()[1].startswith("    2 of 6 are in")
    with pytest.raises(MetatensorError, match=r"4 of 6 .* there yet: \[0, 2, 3, 5\]"):
        first.load()
    with pytest.raises(MetatensorError, match=r"part 2 \(frames 8 to 11\) .* not"):
        first[2]
    parts = featurize(FRAMES, function, tmp_path / "parts")
    assert times(notes) == dict.fromkeys(range(0, 23, 4), 1)
    assert_equal(parts.load())
    parts.paths()[3].unlink()
    assert parts.missing == [3]
    assert_equal(featurize(FRAMES, function, tmp_path / "parts").load())
    assert times(notes)[12] == 2


def test_several_maps(tmp_path: Path) -> None:
    parts = featurize(FRAMES, of.with_energies, tmp_path)
    loaded, expected = parts.load(), of.with_energies(FRAMES)
    assert isinstance(loaded, dict)
    for name, tensor in expected.items():
        mts.equal_raise(loaded[name], tensor)
        assert len(parts.paths(name)) == 6
    assert parts.paths("features")[2].name == "part-000002.features.mts"
    assert parts.paths() == []
    assert len(mts.Store.from_maps(parts)) == 23
    assert [sorted(x) for x in parts[1:3]] == [sorted(expected)] * 2  # type: ignore


def test_threads_and_a_bound_on_what_is_in_flight(tmp_path: Path, notes: Path) -> None:
    futures, unfinished = [], []

    class Counting(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            futures.append(super().submit(*args, **kwargs))
            unfinished.append(sum(not future.done() for future in futures))
            return futures[-1]

    slow = partial(of.noted, notes)
    with Counting(2) as executor:
        options: Any = {"chunk": 1, "in_flight": 3}
        parts = featurize(FRAMES, slow, tmp_path / "parts", executor, **options)
    assert max(unfinished) == 3
    assert len(futures) == 23
    assert_equal(parts.load())


def test_a_worker_that_is_killed(tmp_path: Path, notes: Path) -> None:
    """A second call finishes what is left, and computes nothing that was there."""
    folder, function = tmp_path / "parts", partial(of.dying, notes, 13)
    (notes / "die").touch()
    with processes() as executor, pytest.raises(BrokenExecutor) as caught:
        featurize(FRAMES, function, folder, executor, in_flight=2)
    assert "a worker died while it computed" in str(caught.value)
    assert "new executor" in str(caught.value)
    left = learn.Parts(folder).missing
    assert 3 in left
    assert len(left) < 6
    with processes() as executor:
        parts = featurize(FRAMES, function, folder, executor)
    assert_equal(parts.load())
    counts = times(notes)
    assert set(counts) == set(range(0, 23, 4))
    # one that was in flight beside it may have been computed, and not written
    assert all(counts[4 * i] == 1 for i in range(6) if i not in left)
    assert stray_files(folder) == []


def stray_files(folder: Path) -> list[str]:
    known = ("manifest.json", "part-")
    return [x.name for x in folder.iterdir() if not x.name.startswith(known)]


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_cluster_of_dask(tmp_path: Path, notes: Path, dask: Any) -> None:
    """It starts a worker again that is killed, and gives it the part again."""
    function = partial(of.dying, notes, 13)
    (notes / "die").touch()
    parts = featurize(FRAMES, function, tmp_path / "parts", dask.get_executor())
    assert not (notes / "die").exists()
    assert_equal(parts.load())
    assert set(times(notes)) == set(range(0, 23, 4))
    assert stray_files(tmp_path / "parts") == []
    failing = partial(of.failing, 9)
    with pytest.raises(ZeroDivisionError) as caught:
        featurize(FRAMES, failing, tmp_path / "other", dask.get_executor())
    assert caught.value.__notes__[0].startswith("in part 2 (frames 8 to 11) of")


@pytest.mark.parametrize("kind", ["here", "threads", "processes"])
def test_errors_of_the_function(tmp_path: Path, kind: str) -> None:
    executors = {"threads": lambda: ThreadPoolExecutor(2), "processes": processes}
    executor = executors[kind]() if kind in executors else None
    with pytest.raises(ZeroDivisionError) as caught:
        featurize(FRAMES, partial(of.failing, 9), tmp_path, executor)
    if executor is not None:
        executor.shutdown()
    assert caught.value.__notes__ == [
        f"in part 2 (frames 8 to 11) of {str(tmp_path)!r}"
    ]
    assert 2 in learn.Parts(tmp_path).missing
    assert_equal(featurize(FRAMES, of.features, tmp_path).load())


def test_a_function_that_can_not_be_sent(tmp_path: Path) -> None:
    with (
        processes() as executor,
        pytest.raises(Exception, match=r"pickle|local object") as caught,
    ):
        featurize(FRAMES, lambda frames: of.features(frames), tmp_path, executor)
    assert caught.value.__notes__[0].startswith("in part")


def test_other_settings(tmp_path: Path) -> None:
    hypers = {"cutoff": 5.0, "l": (1, 2)}
    featurize(FRAMES, of.features, tmp_path, settings=hypers)
    featurize(FRAMES, of.features, tmp_path, settings=hypers)
    with pytest.raises(MetatensorError, match="have frames=23, but now it is 22"):
        featurize(FRAMES[1:], of.features, tmp_path, settings=hypers)
    with pytest.raises(MetatensorError, match="have chunk=4, but now it is 5"):
        featurize(FRAMES, of.features, tmp_path, chunk=5, settings=hypers)
    with pytest.raises(MetatensorError, match=r"'cutoff': 5.0.*'cutoff': 4.0"):
        featurize(FRAMES, of.features, tmp_path, settings={**hypers, "cutoff": 4.0})
    with pytest.raises(MetatensorError, match=r"have system='system', but now .*'s'"):
        featurize(FRAMES, of.features, tmp_path, settings=hypers, system="s")


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        learn.Parts(tmp_path)
    featurize(FRAMES, of.features, tmp_path)
    manifest = tmp_path / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(MetatensorError, match=r"have version 2, and .* version 1"):
        learn.Parts(tmp_path)
    manifest.write_text("[]")
    with pytest.raises(MetatensorError, match=r"not written by `learn.featurize`"):
        featurize(FRAMES, of.features, tmp_path)


def test_what_does_not_fit_raises(tmp_path: Path) -> None:
    def run(function: Any = of.features, frames: Any = FRAMES, **options: Any) -> Any:
        featurize(frames, function, tmp_path / "parts", **options)

    with pytest.raises(MetatensorError, match="no frames"):
        run(frames=[])
    with pytest.raises(TypeError, match="as lists do, not be generator"):
        run(frames=(x for x in FRAMES))
    with pytest.raises(MetatensorError, match="`chunk` must be at least 1, not 0"):
        run(chunk=0)
    with pytest.raises(MetatensorError, match="`in_flight` must be at least 1, not 0"):
        run(in_flight=0)
    with pytest.raises(MetatensorError, match=r"parts 0 to 5 of 23 frames.* part 6"):
        run(parts=[0, 6])
    with pytest.raises(TypeError, match="or a dict of TensorMaps by name, not int"):
        run(lambda frames: 3)
    with pytest.raises(TypeError, match="by name, not dict"):
        run(lambda frames: {})
    with pytest.raises(MetatensorError, match=r"4 frames.* systems 0 to 22: .* to 3"):
        run(lambda frames: AT_ONCE)
    with pytest.raises(MetatensorError, match=r"\['system', 'atom'\], without 's'"):
        learn.featurize(FRAMES, of.features, tmp_path / "s", system="s", progress=False)
    other = lambda f: {"x" if f[0].number == 20 else "y": of.features(f)}  # noqa: E731
    parts = featurize(FRAMES, other, tmp_path / "names")
    with pytest.raises(MetatensorError, match=r"part 5 .* \['x'\], but part 0 has"):
        parts.load()


def test_maps_of_metatensor(tmp_path: Path) -> None:
    pytest.importorskip("metatensor")
    theirs = lambda f: mts.interop.to_metatensor(of.features(f))  # noqa: E731
    with pytest.raises(TypeError, match="from_metatensor"):
        featurize(FRAMES, theirs, tmp_path)


@pytest.mark.parametrize("at", ["manifest", "first", "second", "list"])
def test_an_interrupted_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A part of which some files are there is computed again."""
    save, replaced = _parts.save_map, _parts.replaced_file

    def interrupted(original: Any, name: str) -> Any:
        def write(path: Path, *args: Any) -> Any:
            if path.name == name:
                raise KeyboardInterrupt
            return original(path, *args)

        return write

    name = {
        "manifest": "manifest.json",
        "first": "part-000001.mtt%3A%3AU%2FeV.mts",
        "second": "part-000001.features.mts",
        "list": "part-000001.json",
    }[at]
    monkeypatch.setattr(_parts, "save_map", interrupted(save, name))
    monkeypatch.setattr(_parts, "replaced_file", interrupted(replaced, name))
    with pytest.raises(KeyboardInterrupt):
        featurize(FRAMES, of.with_energies, tmp_path)
    monkeypatch.undo()
    if at != "manifest":
        assert learn.Parts(tmp_path).missing == [1, 2, 3, 4, 5]
    loaded = featurize(FRAMES, of.with_energies, tmp_path).load()
    for key, tensor in of.with_energies(FRAMES).items():
        mts.equal_raise(loaded[key], tensor)  # type: ignore[index]


def test_samples_of_gradients_get_the_numbers_of_the_frames(tmp_path: Path) -> None:
    parts = featurize(FRAMES, of.features, tmp_path)
    loaded = parts[3]
    assert isinstance(loaded, TensorMap)
    for block in loaded:
        gradient = block.gradient("positions")
        own = block.samples.column("system")[gradient.samples.column("sample")]
        assert gradient.samples.column("system").tolist() == own.tolist()
        assert set(own) <= set(parts.frames(3))


def test_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn.featurize(FRAMES, of.features, tmp_path, chunk=8)
    assert "3/3" in capsys.readouterr().err
