"""Parts of files: some blocks, some samples; what is read for them, and no more."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import tensor
from files import NESTED, assert_identical
from sparse import ROWS, WIDTH, sparse_map

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, io as mio

KEYS = Labels(["a", "b"], [[0, 0], [0, 1], [1, 0]])
SAVED = tensor((3, 0, 4), (2,), gradients=NESTED, keys=KEYS, info={"x": "y"})
SELECTIONS: dict[str, Any] = {
    "one": KEYS[1],
    "several": Labels("a", [[0]]),
    "in another order": Labels(["a", "b"], [[1, 0], [0, 0]]),
    "by other names": Labels("b", [[0], [7]]),
    "all": KEYS,
    "none": Labels("a", [[9]]),
    "no names": Labels([], np.zeros((1, 0), np.int32)),
}
needs_proc = pytest.mark.skipif(
    not os.path.exists("/proc/self/io"), reason="Linux counts what is read"
)


@pytest.mark.parametrize("load", [mio.load, mio.load_mmap])
@pytest.mark.parametrize("keys", SELECTIONS.values(), ids=SELECTIONS)
def test_blocks_are_those_of_filter_blocks(tmp_path: Path, load: Any, keys: Any):
    mio.save(tmp_path / "x.mts", SAVED)
    is_entry = not isinstance(keys, Labels)
    selected = Labels(keys.names, [tuple(keys)]) if is_entry else keys
    expected = mts.filter_blocks(SAVED, selected)
    assert_identical(load(tmp_path / "x.mts", keys=keys), expected)
    with (tmp_path / "x.mts").open("rb") as file:
        assert_identical(mio.load(file, keys=keys), expected)


@pytest.mark.parametrize("load", [mio.load, mio.load_mmap])
def test_keys_that_do_not_fit(tmp_path: Path, load: Any):
    mio.save(tmp_path / "x.mts", SAVED)
    with pytest.raises(MetatensorError, match=r"'c' in the selection.*\['a', 'b'\]"):
        load(tmp_path / "x.mts", keys=Labels("c", [[0]]))
    with pytest.raises(TypeError, match="selection"):
        load(tmp_path / "x.mts", keys=[0])


def test_unexpected_members_are_found_next_to_a_selection(tmp_path: Path):
    path = tmp_path / "x.mts"
    mio.save(path, SAVED)
    content = path.read_bytes().replace(b"blocks/1/samples", b"blocks/3/samples")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"unexpected members.*blocks/3/samples"):
        mio.load(path, keys=KEYS[0])


def bytes_read() -> int:
    """How many bytes this process has read so far, by calls."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def bytes_in_memory() -> int:
    """The memory of this process, with what was used of mapped files."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf(
        "SC_PAGESIZE"
    )


@needs_proc
def test_one_block_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = sparse_map(tmp_path / "x.mts", monkeypatch)
    start, before = time.perf_counter(), bytes_read()
    loaded = mio.load(tmp_path / "x.mts", keys=Labels("k", [[7], [5]]))
    # and a few windows of 64 kB; the labels of the large block are not read either
    assert bytes_read() - before < 2 * (3 * WIDTH * 8) + 400_000
    assert time.perf_counter() - start < 5
    assert_identical(mts.sort(loaded, "keys"), expected)


@needs_proc
def test_a_range_of_samples_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sparse_map(tmp_path / "x.mts", monkeypatch)
    mapped = mio.load_mmap(tmp_path / "x.mts")
    assert mapped.block(k=6).shape == (ROWS, WIDTH)
    before = bytes_in_memory()
    part = mts.slice_block(mapped.block(k=6), "samples", np.arange(90_000, 90_010))
    view = mapped.block(k=6).values[50_000:50_010]
    assert not part.values.any()
    assert not view.any()
    assert [*part.samples["sample"]] == [*range(90_000, 90_010)]
    # two million bytes, and the pages around them
    assert bytes_in_memory() - before < 16_000_000
