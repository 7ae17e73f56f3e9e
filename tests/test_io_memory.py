"""Where loaded values are: in memory of their own, in a mapped file, in a buffer."""

import io
import os
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import tensor
from files import (
    NESTED,
    OBJECTS,
    assert_identical,
    assert_same_bits,
    every_tensor,
    owner,
    peak_memory,
)

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap, io as mio
from metatensor_jax.io import _source, _zip

#: each way to load a map, and one for a block
LOAD = {"read": mio.load, "mapped": mio.load_mmap}
LOAD_BLOCK = {"read": mio.load_block, "mapped": mio.load_block_mmap}
every_way = pytest.mark.parametrize("way", LOAD)


def saved_to(folder: Path, data: Any) -> Path:
    mio.save(folder / "x.mts", data)
    return folder / "x.mts"


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def kept(array: np.ndarray) -> int:
    """The bytes that an array keeps in memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes


# --- what is loaded ----------------------------------------------------------------


@every_tensor
@every_way
def test_round_trip(tmp_path: Path, make: Callable[..., TensorMap], way: str):
    path = saved_to(tmp_path, make(dtype="float64"))
    assert_identical(LOAD[way](path), make(dtype="float64"))
    assert_identical(
        getattr(TensorMap, LOAD[way].__name__)(path), make(dtype="float64")
    )


@every_way
def test_blocks(tmp_path: Path, way: str):
    data = OBJECTS["block"][0]
    assert_identical(LOAD_BLOCK[way](saved_to(tmp_path, data)), data)
    assert_identical(TensorBlock.load_mmap(tmp_path / "x.mts"), data)


@every_way
@pytest.mark.parametrize("size", [1, 1 << 12, 1 << 13, 1 << 16, 300_001])
def test_members_of_all_sizes(tmp_path: Path, way: str, size: int):
    # small ones share windows, large ones come in many steps
    rng = np.random.default_rng(size)
    blocks = [mts.block_from_array(rng.random((size, n))) for n in (1, 2, 1)]
    made = TensorMap(Labels.range("k", 3), blocks)
    assert_identical(LOAD[way](saved_to(tmp_path, made)), made)


@every_way
def test_all_values_are_read_only(tmp_path: Path, way: str):
    loaded = LOAD[way](saved_to(tmp_path, tensor(gradients=NESTED)))
    for leaf in [leaf for leaf in jax.tree.leaves(loaded) if leaf.size]:
        assert not leaf.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            leaf[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            leaf.flags.writeable = True


# --- alignment ---------------------------------------------------------------------


@every_way
@every_tensor
def test_arrays_are_aligned(tmp_path: Path, make: Callable[..., TensorMap], way: str):
    loaded = LOAD[way](saved_to(tmp_path, make()))
    leaves = [leaf for leaf in jax.tree.leaves(loaded) if leaf.size]
    assert [address(leaf) % 64 for leaf in leaves] == [0] * len(leaves)


@every_way
def test_jax_uses_the_memory_without_a_copy(tmp_path: Path, way: str, x64: bool):
    made = tensor((300, 17, 5), gradients=NESTED, dtype="float64" if x64 else "float32")
    loaded = LOAD[way](saved_to(tmp_path, made))
    cpu = jax.devices("cpu")[0]
    for leaf in jax.tree.leaves(loaded):
        on_device = jax.device_put(leaf, cpu)
        assert on_device.unsafe_buffer_pointer() == address(leaf)
        assert_same_bits(jax.jit(lambda x: x + 1)(on_device), leaf + 1)
    as_jax = loaded.to("jax")
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(as_jax)]
    assert pointers == [address(leaf) for leaf in jax.tree.leaves(loaded)]


def test_jax_keeps_the_mapped_file(tmp_path: Path):
    made = tensor((300,), dtype="float32", keys=Labels.single())
    values = jnp.asarray(mio.load_mmap(saved_to(tmp_path, made)).block().values)
    (tmp_path / "x.mts").unlink()
    assert_same_bits(values, made.block().values)


@pytest.mark.parametrize("size", [*range(60, 66), 130])
def test_there_is_room_for_the_padding(size: int):
    # a field has 6 bytes at least: what is left may be less
    name = "a" * size
    for start in range(64):
        local, _ = _zip.write_member(name, 0, 0, start, is_aligned=True)
        assert (start + len(local)) % 64 == 0
        assert len(local) < 30 + size + 64 + 6
        extra = local[30 + size :]
        assert struct.unpack_from("<H", local, 28)[0] == len(extra)
        assert not extra or struct.unpack_from("<HHH", extra) == (
            *(0xD935, len(extra) - 4, 64),
        )


def test_files_of_metatensor_are_read_to_aligned_memory(tmp_path: Path):
    metatensor = pytest.importorskip("metatensor")
    names = metatensor.Labels.range
    block = metatensor.TensorBlock(
        np.arange(5e4).reshape(-1, 5), names("s", 10_000), [], names("p", 5)
    )
    metatensor.save(str(tmp_path / "x.mts"), block)
    loaded = mio.load_block(tmp_path / "x.mts").values
    assert address(loaded) % 64 == 0
    assert_same_bits(loaded, block.values)
    assert_same_bits(mio.load_block_mmap(tmp_path / "x.mts").values, block.values)


def test_unaligned_values_can_be_used_by_jax(tmp_path: Path):
    # in a buffer, or a mapped file of another program, they begin at any byte
    content = bytes(mio.save_buffer(tensor(gradients=NESTED)))
    shifted = memoryview(b"abc" + content)[3:]
    for leaf in jax.tree.leaves(mio.load_buffer(shifted)):
        assert_same_bits(jax.jit(lambda x: x)(leaf), leaf)


# --- who has the memory ------------------------------------------------------------


def test_mapped_values_are_views_of_the_file(tmp_path: Path):
    loaded = mio.load_mmap(saved_to(tmp_path, tensor(gradients=NESTED)))
    leaves = [leaf for leaf in jax.tree.leaves(loaded) if leaf.size]
    assert {type(owner(leaf)).__name__ for leaf in leaves} == {"mmap"}
    assert len({id(owner(leaf)) for leaf in leaves}) == 1


def test_a_large_array_does_not_keep_the_others(tmp_path: Path):
    blocks = [mts.block_from_array(np.full((1 << 14, 1), i)) for i in range(4)]
    blocks.append(mts.block_from_array(np.ones((1, 1), int)))
    path = saved_to(tmp_path, TensorMap(Labels.range("k", 5), blocks))
    leaves = jax.tree.leaves(mio.load(path))
    sizes = [kept(leaf) for leaf in leaves]
    # a header, the data, and what aligns them
    assert [size - 8 * (1 << 14) for size in sizes[:4]] == [128 + 64] * 4
    assert sizes[4] <= _source._WINDOW + 64


def test_loading_takes_the_memory_of_the_values_once(tmp_path: Path):
    path = tmp_path / "x.mts"
    saved = mts.block_from_array(np.arange(2.0**23).reshape(1 << 10, -1))  # 64 MB
    _, peak = peak_memory(lambda: mio.save(path, saved))
    assert peak < 1 << 20
    loaded, peak = peak_memory(lambda: mio.load_block(path))
    assert peak < saved.values.nbytes + (1 << 20)
    assert_same_bits(loaded.values, saved.values)
    loaded, peak = peak_memory(lambda: mio.load_block_mmap(path))
    assert peak < 1 << 20
    assert float(loaded.values[-1, -1]) == 2.0**23 - 1


def test_values_from_a_buffer_are_not_copied():
    buffer = bytes(mio.save_buffer(tensor()))
    for leaf in jax.tree.leaves(mio.load_buffer(buffer)):
        assert owner(leaf) is buffer


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_values_from_a_buffer_are_read_only(kind: Any):
    loaded = mio.load_buffer(kind(bytearray(mio.save_buffer(tensor()))))
    assert not any(leaf.flags.writeable for leaf in jax.tree.leaves(loaded))


# --- files that change -------------------------------------------------------------


@every_way
def test_values_stay_when_the_file_is_replaced_or_deleted(tmp_path: Path, way: str):
    path, first = tmp_path / "x.mts", tensor(seed=1, gradients=NESTED)
    mio.save(path, first)
    loaded = LOAD[way](path)
    mio.save(path, tensor((100, 100), seed=2))
    assert_identical(loaded, first)
    mio.save(path, loaded)  # onto the file that holds its own values
    again = LOAD[way](path)
    path.unlink()
    assert_identical(loaded, first)
    assert_identical(again, first)


@pytest.mark.parametrize("size", [3, 100_000])
def test_loaded_values_stay_when_the_file_changes_in_place(tmp_path: Path, size: int):
    first = tensor((size,), seed=1, gradients=NESTED, keys=Labels.single())
    path = saved_to(tmp_path, first)
    loaded, block = mio.load(path), first.block()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_identical(loaded, first)
    os.truncate(path, 10)
    assert_identical(loaded, first)
    mio.save(path, block)
    one = mio.load_block(path)
    path.write_bytes(b"")
    assert_identical(one, block)


def test_a_file_that_becomes_shorter_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = saved_to(tmp_path, mts.block_from_array(np.ones((100_000, 3))))
    opener = _source.OpenFile

    def shortened(*arguments: Any) -> Any:
        source = opener(*arguments)
        os.truncate(path, 1_000_000)
        return source

    monkeypatch.setattr(_source, "OpenFile", shortened)
    with pytest.raises(OSError, match=r"became shorter while it was read.*x\.mts"):
        mio.load_block(path)


def test_a_file_that_changes_while_it_is_read_is_damaged_or_as_it_was(tmp_path: Path):
    saved = mts.block_from_array(np.zeros((100_000, 3)))
    path, stop = saved_to(tmp_path, saved), threading.Event()

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            number = 0
            while not stop.is_set():
                file.seek(1_000_000)
                number += 1
                file.write(struct.pack("<d", number % 2))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            try:
                loaded = mio.load_block(path)
            except ValueError as error:
                assert "'values.npy' is damaged" in str(error)  # noqa: PT017
            else:
                assert_identical(loaded, saved)
    finally:
        stop.set()
        writer.join()


# --- what can not be mapped --------------------------------------------------------


def test_open_files_can_not_be_mapped(tmp_path: Path):
    path = saved_to(tmp_path, tensor())
    with path.open("rb") as file, pytest.raises(TypeError, match="only a path"):
        mio.load_mmap(file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got BytesIO: use `load`"):
        mio.load_block_mmap(io.BytesIO())  # type: ignore[arg-type]


def test_errors_of_mapped_files(tmp_path: Path):
    path = tmp_path / "x.mts"
    with pytest.raises(FileNotFoundError, match=r"x\.mts"):
        mio.load_mmap(path)
    path.touch()
    with pytest.raises(ValueError, match="the file is empty"):
        mio.load_mmap(path)
    mio.save(path, OBJECTS["block"][0])
    with pytest.raises(ValueError, match="use `load_block`"):
        mio.load_mmap(path)
    mio.save(path, tensor())
    with pytest.raises(ValueError, match="use `load`"):
        mio.load_block_mmap(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_pipes_can_not_be_mapped(tmp_path: Path):
    os.mkfifo(tmp_path / "x.mts")
    # so that opening it does not wait for who writes
    end = os.open(tmp_path / "x.mts", os.O_RDWR)
    with pytest.raises(ValueError, match="no regular file: use `load`"):
        mio.load_mmap(tmp_path / "x.mts")
    os.close(end)


@every_way
def test_labels_are_checked_and_mapped_values_are_not(tmp_path: Path, way: str):
    path = saved_to(tmp_path, tensor((3,), keys=Labels.single()))
    with zipfile.ZipFile(path) as archive:
        places = {x.filename: x.header_offset for x in archive.infolist()}
    members = sorted(places.values())
    for name in ("keys.npy", "blocks/0/samples.npy", "blocks/0/values.npy"):
        content = bytearray(path.read_bytes())
        content[members[members.index(places[name]) + 1] - 1] ^= 1  # its last byte
        (tmp_path / "damaged.mts").write_bytes(content)
        if way == "mapped" and "values" in name:
            LOAD[way](tmp_path / "damaged.mts")
            continue
        with pytest.raises(ValueError, match=f"'{name}' is damaged"):
            LOAD[way](tmp_path / "damaged.mts")
