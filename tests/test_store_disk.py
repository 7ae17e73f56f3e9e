"""Stores on disk: as they were, appended to, killed, damaged, larger than memory."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import assert_same
from programs import output_of
from test_layout import SYSTEMS, System, batch

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, Store, StoreWriter, TensorMap

DATA = batch(SYSTEMS, density=0.7, empty=(8,))


def each_system() -> list[dict[str, TensorMap]]:
    """One by one; not all of them have all types of atoms."""
    return [batch([s._replace(number=0)], seed=i) for i, s in enumerate(SYSTEMS)]


def appended(path: Path, items: Any) -> Store:
    with StoreWriter(path) as writer:
        for item in items:
            writer.append(item)
    return Store.open(path)


def assert_same_systems(store: Store, other: Store) -> None:
    assert store.systems.tolist() == other.systems.tolist()
    for i in range(len(store)):
        assert_same(store.maps([i]), other.maps([i]))


def test_it_comes_back(tmp_path: Path) -> None:
    store = Store.from_maps(DATA)
    store.save(tmp_path / "store")
    opened = Store.open(tmp_path / "store")
    assert_same_systems(opened, store)
    layout = store.layout(systems=3)
    assert opened.layout(systems=3) == layout
    assert_same(opened.batch([2, 0], layout), store.batch([2, 0], layout))
    assert repr(opened) == repr(store)


def test_systems_that_were_appended_are_those_of_a_list(tmp_path: Path) -> None:
    store = appended(tmp_path / "store", each_system())
    whole = Store.from_maps(each_system())
    layout = whole.layout(systems=2)
    for chosen in ([0, 1], [3, 2], [1]):
        mine, expected = store.batch(chosen, layout), whole.batch(chosen, layout)
        assert_same(mine.tensors, expected.tensors)


def test_a_writer_goes_on_with_a_store(tmp_path: Path) -> None:
    items = each_system()
    path = tmp_path / "store"
    appended(path, items[:1])
    for item in items[1:]:
        appended(path, [item])
    assert_same_systems(Store.open(path), appended(tmp_path / "at once", items))
    Store.from_maps(DATA).save(tmp_path / "saved")
    with StoreWriter(tmp_path / "saved") as writer:
        assert len(writer) == 4
        assert writer.append(items[0]) == 10  # after system 9
    assert len(Store.open(tmp_path / "saved")) == 5


def test_numbers_of_their_own(tmp_path: Path) -> None:
    items = each_system()
    with StoreWriter(tmp_path / "store") as writer:
        assert [writer.append(items[0], 7), writer.append(items[1])] == [7, 8]
        with pytest.raises(MetatensorError, match="8 would follow 8"):
            writer.append(items[2], 8)
        with pytest.raises(MetatensorError, match="must fit into 32 bits"):
            writer.append(items[2], 2**31)
        with pytest.raises(TypeError):
            writer.append(items[2], 9.5)  # type: ignore[arg-type]
    with pytest.raises(MetatensorError, match="is closed"):
        writer.append(items[2])
    store = Store.open(tmp_path / "store")
    assert store.systems.tolist() == [7, 8]
    assert store.maps([0])["energies"].block().samples.values.tolist() == [[7]]


def test_a_mapped_store_is_mapped_again_in_another_process(tmp_path: Path) -> None:
    store = Store.from_maps(DATA)
    store.save(tmp_path / "store")
    opened = Store.open(tmp_path / "store")
    packed = pickle.dumps(opened)
    assert len(packed) < 500
    for one in (pickle.loads(packed), pickle.loads(pickle.dumps(store))):
        assert_same_systems(one, store)


def test_info_that_all_share_is_kept(tmp_path: Path) -> None:
    tensor = mts.remove_gradients(DATA["energies"]).with_info("unit", "eV")
    one, other = (tensor.with_info("name", name) for name in ("a", "b"))
    chosen = Labels("system", [[3]])
    items = [mts.slice(x, "samples", chosen) for x in (one, other)]
    store = appended(tmp_path / "store", items)
    assert store.maps([0]).info() == {"unit": "eV"}


# --- what goes wrong -----------------------------------------------------------------


def test_a_system_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    items = each_system()
    path = tmp_path / "store"
    good = items[0]
    two = batch(SYSTEMS[:2])
    double = {name: x.to(dtype="float64") for name, x in items[1].items()}
    other = dict(items[1], bins=mts.remove_gradients(items[1]["bins"]))
    with StoreWriter(path) as writer:
        writer.append(good)
        files = {f.name: f.stat().st_size for f in path.iterdir()}
        for bad, message in (
            (two, r"one system at a time, not the systems \[3, 7\]"),
            (double, "are float32, but those of this system are float64"),
            (good["bins"], "the store has the maps"),
            (other, "should have gradients with respect to"),
        ):
            with pytest.raises(MetatensorError, match=message):
                writer.append(bad)
        assert {f.name: f.stat().st_size for f in path.iterdir()} == files
        writer.append(items[1])
    assert len(Store.open(path)) == 2


def test_an_error_while_writing_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metatensor_jax.layout import _writer

    items, path = each_system(), tmp_path / "store"
    write, left = _writer._write, [0]

    def full(file: Any, array: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            file.write(b"half")
            raise OSError("no space left")
        write(file, array)

    for fails_at in (1, 7, 20):
        with StoreWriter(path) as writer:
            n = len(writer)
            writer.append(items[1])
            left[0] = fails_at
            with monkeypatch.context() as patch:
                patch.setattr(_writer, "_write", full)
                with pytest.raises(OSError, match="no space left"):
                    writer.append(items[0])
            writer.append(items[2])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(Store.open(path)) == n + 2
    expected = appended(tmp_path / "expected", [items[1], items[2]] * 3)
    assert_same_systems(Store.open(path), expected)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    store = Store.from_maps(DATA)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(MetatensorError, match="is there already and not empty"):
        store.save(tmp_path)
    with pytest.raises(MetatensorError, match="is not empty, and no store"):
        StoreWriter(tmp_path)
    with pytest.raises(MetatensorError, match=r"is no store: there is no file 'store"):
        Store.open(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    store.save(tmp_path / "empty")
    assert len(Store.open(tmp_path / "empty")) == 4


@pytest.mark.skipif(os.name == "nt", reason="no flock")
def test_one_process_writes(tmp_path: Path) -> None:
    with (
        StoreWriter(tmp_path / "store"),
        pytest.raises(MetatensorError, match="another process writes"),
    ):
        StoreWriter(tmp_path / "store")
    StoreWriter(tmp_path / "store").close()


@pytest.mark.parametrize("name", ["../x", "a/b", "c d", "_", "ä"])
def test_any_names_of_maps(tmp_path: Path, name: str) -> None:
    data = {name: DATA["energies"], name + "_": DATA["bins"]}
    Store.from_maps(data).save(tmp_path / "store")
    assert_same_systems(Store.open(tmp_path / "store"), Store.from_maps(data))
    assert [f.name for f in tmp_path.iterdir()] == ["store"]


def test_maps_by_name_have_one() -> None:
    """The name "" is that of a map which comes alone."""
    with pytest.raises(MetatensorError, match="names that are not empty"):
        Store.from_maps({"": DATA["energies"], "bins": DATA["bins"]})


def test_damage(tmp_path: Path) -> None:
    store = Store.from_maps(DATA)

    def damaged(change: Any) -> Path:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        store.save(path)
        change(path)
        return path

    def edit(key: str, value: Any) -> Any:
        def change(path: Path) -> None:
            header = json.loads((path / "store.json").read_text())
            header[key] = value
            (path / "store.json").write_text(json.dumps(header))

        return change

    values = "energies-0.values.bin"
    for change, message in (
        (lambda p: os.truncate(p / values, 4), "was cut off"),
        (lambda p: (p / values).unlink(), "the store lacks the file"),
        (lambda p: (p / "index.bin").unlink(), "index"),
        (lambda p: (p / "store.json").write_text("{"), "is not what `Store.save`"),
        (edit("format", "other"), "the format of .* is 'other'"),
        (edit("maps", {"x": {"keys": 3}}), "is not what `Store.save`"),
        (edit("maps", []), "is not what `Store.save`"),
    ):
        with pytest.raises((MetatensorError, OSError), match=message):
            Store.open(damaged(change))

    def climb(path: Path) -> None:
        text = (path / "store.json").read_text()
        (path / "store.json").write_text(text.replace("energies-0", "../energies-0"))

    with pytest.raises(MetatensorError, match="is no name of a file"):
        Store.open(damaged(climb))


def test_an_entry_that_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "store"
    items = each_system()
    expected = appended(path, items[:3])
    last = (path / "index.bin").read_bytes()
    for junk in (b"\0", b"\0" * 16, b"x" * 31):
        (path / "index.bin").write_bytes(last + junk)
        with pytest.warns(UserWarning, match="3 systems that are complete, and one"):
            assert_same_systems(Store.open(path), expected)
    with StoreWriter(path) as writer:
        writer.append(items[3])
    assert_same_systems(Store.open(path), appended(tmp_path / "whole", items))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9")
def test_kills_while_systems_are_appended(tmp_path: Path) -> None:
    """Forks of this process, as importing JAX for each would take longer."""
    path, items = tmp_path / "store", each_system()
    chance = random.Random(0)
    n_whole = 0
    for _ in range(30):
        reader, pipe = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which the child does not use
            pid = os.fork()
        if pid == 0:
            try:
                with StoreWriter(path) as writer:
                    while True:
                        n = writer.append(items[len(writer) % len(items)])
                        os.write(pipe, b"%d\n" % n)
            finally:
                os._exit(1)
        os.close(pipe)
        time.sleep(chance.uniform(0.01, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader) as out:
            said = [int(line) for line in out if line.endswith("\n")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = Store.open(path)
        # all that it said to be there, and one that it had no time to tell of
        assert len(store) - (said[-1] + 1 if said else n_whole) in (0, 1)
        n_whole = len(store)
        assert store.systems.tolist() == list(range(n_whole))
        if n_whole:
            at = n_whole - 1
            layout = store.layout(1)
            expected = Store.from_maps([items[at % len(items)]]).maps([0])["energies"]
            actual = store.batch([at], layout)["energies"].block()
            np.testing.assert_array_equal(actual.values, expected.block().values)
    assert n_whole > 30


LARGE = """
import resource, sys
import numpy as np
import metatensor_jax as mts

path, n = sys.argv[1], int(sys.argv[2])
p, names = mts.Labels.range("p", 25_000), ["system", "atom"]

def features(i):
    samples = mts.Labels(names, [[0, a] for a in range(10)])
    values = np.full((10, len(p)), float(i), np.float32)
    return mts.TensorMap(mts.Labels.single(), [mts.TensorBlock(values, samples, [], p)])

features(0)
used = 512 * int(open("/proc/self/statm").read().split()[5]) * 8
resource.setrlimit(resource.RLIMIT_DATA, (used + 60_000_000,) * 2)
with mts.StoreWriter(path) as writer:
    for i in range(n):
        writer.append(features(i))
store = mts.Store.open(path)
layout = store.layout(systems=8)
total = 0.0
for i in range(0, n, 8):
    block = store.batch(range(i, i + 8), layout).tensors.block()
    total += float(block.values[::10, 0].sum())
print(store.nbytes, total)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="not on Linux")
def test_data_that_are_larger_than_memory(tmp_path: Path) -> None:
    """Written and read by a process that may have 60 MB more than at its start."""
    n = 160
    size, total = output_of(LARGE, str(tmp_path / "store"), str(n)).split()
    assert int(size) > 160_000_000
    assert float(total) == sum(range(n))


def test_systems_with_no_rows_in_some_maps(tmp_path: Path) -> None:
    items = each_system()
    nothing = mts.slice(items[2]["energies"], "samples", [])
    items[2] = dict(items[2], energies=nothing)
    store = appended(tmp_path / "store", items)
    assert store.counts("energies").tolist() == [1, 1, 0, 1]
    one = System(0, (1,))
    assert len(appended(tmp_path / "one", [batch([one])])) == 1


def test_structures_as_they_are_read(tmp_path: Path) -> None:
    """From extended XYZ, one after the other; and from files of maps."""
    pytest.importorskip("ase")
    from ase.build import molecule
    from ase.calculators.emt import EMT
    from ase.io import iread, write

    from metatensor_jax.interop import ase as structures

    frames = [molecule(name) for name in ("H2O", "CH4", "NH3")]
    for frame in frames:
        frame.calc = EMT()
        frame.get_forces()
    write(tmp_path / "frames.xyz", frames)

    def maps_of(frame: Any) -> dict[str, TensorMap]:
        positions = structures.parameters([frame], "positions")["positions"]
        return {
            "positions": TensorMap(Labels.single(), [positions]),
            "energies": structures.energies([frame], ["positions"]),
        }

    read = iread(tmp_path / "frames.xyz")
    store = Store.write(tmp_path / "store", map(maps_of, read))
    whole = structures.energies(frames, ["positions"])
    mts.allclose_raise(store.maps(range(3))["energies"], whole, rtol=1e-6, atol=1e-7)

    for i, frame in enumerate(frames):
        mts.save(tmp_path / f"{i}.mts", maps_of(frame)["energies"])
    files = [tmp_path / f"{i}.mts" for i in range(3)]
    loaded = Store.write(tmp_path / "other", files)
    mts.allclose_raise(loaded.maps(range(3)), whole)


def test_paths_that_are_relative_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    items = each_system()
    with StoreWriter("store") as writer:
        writer.append(items[3])
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        writer.append(items[0])  # with a new key
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(Store.open("store"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(pickle.loads(packed)) == 2
