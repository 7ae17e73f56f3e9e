"""Files that metatensor or NumPy wrote, and ours as metatensor reads them."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from builders import tensor
from files import (
    NESTED,
    assert_identical,
    assert_same_bits,
    every_dtype,
    every_object,
    every_tensor,
    npy,
    zipped,
)

from metatensor_jax import Labels, TensorBlock, TensorMap, io as mio


@pytest.fixture
def metatensor() -> ModuleType:
    return pytest.importorskip("metatensor")


def to_theirs(metatensor: ModuleType, data: Any) -> Any:
    """Our map, block or labels as metatensor's, made by its constructors."""
    if isinstance(data, Labels):
        return metatensor.Labels(data.names, np.array(data.values))
    if isinstance(data, TensorMap):
        parts = [to_theirs(metatensor, part) for part in data]
        made = metatensor.TensorMap(to_theirs(metatensor, data.keys), parts)
        for key, value in data.info().items():
            made.set_info(key, value)
        return made
    axes = [to_theirs(metatensor, axis) for axis in (data.samples, data.properties)]
    components = [to_theirs(metatensor, axis) for axis in data.components]
    made = metatensor.TensorBlock(np.array(data.values), axes[0], components, axes[1])
    for name, gradient in data.gradients():
        made.add_gradient(name, to_theirs(metatensor, gradient))
    return made


def from_theirs(data: Any) -> Any:
    """metatensor's map, block or labels as ours, made by our constructors."""
    if not hasattr(data, "samples") and not hasattr(data, "keys"):
        return Labels(data.names, np.array(data.values))
    if hasattr(data, "keys"):
        parts = [from_theirs(data.block_by_id(i)) for i in range(len(data.keys))]
        # metatensor gives None for an empty text
        info = {key: value or "" for key, value in data.info().items()}
        return TensorMap(from_theirs(data.keys), parts, info)
    return TensorBlock(
        np.array(data.values),
        from_theirs(data.samples),
        [from_theirs(axis) for axis in data.components],
        from_theirs(data.properties),
        {name: from_theirs(gradient) for name, gradient in data.gradients()},
    )


@every_dtype
@every_tensor
def test_files_travel_both_ways(
    metatensor: ModuleType, make: Callable[..., TensorMap], dtype: str
):
    ours = make(dtype=dtype)
    assert_identical(
        from_theirs(metatensor.io.load_buffer(mio.save_buffer(ours))), ours
    )
    theirs = metatensor.io.save_buffer(to_theirs(metatensor, ours))
    assert_identical(mio.load_buffer(theirs), ours)


@every_object
def test_each_type_travels_both_ways(
    metatensor: ModuleType, tmp_path: Path, data: Any, load: Any, load_buffer: Any
):
    read = getattr(metatensor, load.__name__)
    mio.save(tmp_path / "ours.mts", data)
    assert_identical(from_theirs(read(tmp_path / "ours.mts")), data)
    for use_numpy in (False, True):
        path = tmp_path / f"theirs-{use_numpy}.mts"
        metatensor.save(path, to_theirs(metatensor, data), use_numpy=use_numpy)
        assert_identical(load(path), data)


def test_labels_without_dimensions_from_metatensor(metatensor: ModuleType):
    # metatensor can not read such a file itself
    theirs = metatensor.Labels([], np.zeros((0, 0), np.int32))
    loaded = mio.load_labels_buffer(metatensor.io.save_buffer(theirs))
    assert (loaded.names, loaded.values.shape) == ([], (0, 0))


def test_file_that_metatensor_wrote():
    # For environments without metatensor. The file is what metatensor-core 0.2.6 made
    # of this map: `metatensor.save(path, to_theirs(metatensor, stored_map()))`.
    path = Path(__file__).parent / "data" / "metatensor-0.2.6.mts"
    assert_identical(mio.load(path), stored_map())


def stored_map() -> TensorMap:
    """Values are counted, not random: generators may change with NumPy."""

    def counted(part: TensorBlock) -> TensorBlock:
        values = np.arange(part.values.size, dtype=np.float64).reshape(part.shape)
        gradients = {name: counted(gradient) for name, gradient in part.gradients()}
        axes = part.samples, part.components, part.properties
        return TensorBlock(values, *axes, gradients)

    made = tensor((3, 0), (2,), gradients=NESTED, dtype="float64")
    return TensorMap(made.keys, [*map(counted, made)], {"näme": "Österreich"})


# --- what else NumPy can write -----------------------------------------------------


def block_archive(values: np.ndarray, order: str = "<") -> bytes:
    """The archive of a block, made by NumPy; ``order`` is that of the labels' bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("values.npy", npy(values))
        for member, n in zip(("samples", "properties"), values.shape, strict=True):
            records = np.arange(n).astype([(member, f"{order}i4")])
            archive.writestr(f"{member}.npy", npy(records))
    return file.getvalue()


@pytest.mark.parametrize("fortran", [False, True], ids=["C", "fortran"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "c16", "i2", "u8"])
def test_byte_order_and_memory_order(
    metatensor: ModuleType, dtype: str, order: str, fortran: bool
):
    expected = np.arange(6).reshape(3, 2).astype(dtype) / np.array(1, dtype)
    expected = expected.astype(dtype)
    stored = expected.astype(order + dtype, order="F" if fortran else "C")
    data = block_archive(stored, order)
    loaded = mio.load_block_buffer(data)
    assert_same_bits(loaded.values, expected)
    assert loaded.values.dtype.isnative
    assert_identical(loaded.samples, Labels.range("samples", 3))
    assert_identical(loaded.properties, Labels.range("properties", 2))
    # only its NumPy reader knows the order of Fortran
    theirs = metatensor.io.load_block_buffer(data, use_numpy=fortran)
    assert_same_bits(np.asarray(theirs.values, dtype), expected)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_map_in_the_other_byte_order(method: int):
    saved = tensor((3, 0), (2,), gradients=NESTED, dtype="float32")
    members = []
    with zipfile.ZipFile(io.BytesIO(mio.save_buffer(saved))) as archive:
        for name in archive.namelist():
            array = np.load(io.BytesIO(archive.read(name)))
            members.append((name, npy(array.astype(array.dtype.newbyteorder(">")))))
    loaded = mio.load_buffer(zipped(*members, compression=method))
    assert_identical(loaded, saved)
    assert loaded.keys.values.dtype.isnative
    assert all(leaf.dtype.isnative for leaf in jax.tree.leaves(loaded))
    # and it can be used and saved as any other
    assert mio.save_buffer(loaded) == mio.save_buffer(saved)
    assert_identical(loaded.to("jax").to("numpy"), saved)


def test_version_2_of_the_npy_format():
    plain = npy(np.arange(3).astype([("a", "<i4")]))
    length = len(plain) - 10 - 12
    assert plain[6:8] == b"\1\0"
    data = b"\x93NUMPY\2\0" + length.to_bytes(4, "little") + plain[10:]
    assert_identical(mio.load_labels_buffer(data), Labels.range("a", 3))
