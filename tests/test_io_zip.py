"""The records of the archives: as zipfile and metatensor read and write them."""

import io
import struct
import zipfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from builders import tensor
from files import NESTED, assert_identical, every_tensor, npy

from metatensor_jax import Labels, TensorBlock, TensorMap, io as mio
from metatensor_jax.io import _zip


def read_by_zipfile(content: Any) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@every_tensor
def test_zipfile_and_numpy_read_what_is_saved(make: Callable[..., TensorMap]):
    saved = make(dtype="float64")
    members = read_by_zipfile(mio.save_buffer(saved))
    for i, block in enumerate(saved):
        content = io.BytesIO(members[f"blocks/{i}/values.npy"])
        np.testing.assert_array_equal(np.load(content), block.values)


def test_thousands_of_blocks():
    rng = np.random.default_rng(0)
    properties = Labels.range("p", 1)
    blocks = [
        TensorBlock(rng.random((1, 1)), Labels("s", [[i]]), [], properties)
        for i in range(25_000)
    ]
    saved = TensorMap(Labels.range("k", len(blocks)), blocks)
    content = mio.save_buffer(saved)
    # 75,001 members are more than the plain records can count
    assert len(read_by_zipfile(content)) == 3 * len(blocks) + 1
    assert_identical(mio.load_buffer(content), saved)


@pytest.mark.parametrize(
    ("size", "members"), [(100, 1 << 15), (600, 1 << 15), (1 << 31, 3), (100, 3)]
)
def test_records_of_zip64(monkeypatch: pytest.MonkeyPatch, size: int, members: int):
    # as if these were the most that the plain records can hold
    saved = tensor(gradients=NESTED, info={"a": "b"})
    plain = read_by_zipfile(mio.save_buffer(saved))
    monkeypatch.setattr(_zip, "MAX_SIZE", size)
    monkeypatch.setattr(_zip, "MAX_MEMBERS", members)
    content = mio.save_buffer(saved)
    assert read_by_zipfile(content) == plain
    assert_identical(mio.load_buffer(content), saved)
    metatensor: ModuleType = pytest.importorskip("metatensor")
    theirs = metatensor.io.load_buffer(content)
    for i, block in enumerate(saved):
        np.testing.assert_array_equal(theirs.block_by_id(i).values, block.values)


@pytest.mark.parametrize("start", [1 << 40, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("size", [22, 1 << 63, (1 << 64) - 1])
def test_places_beyond_any_file(monkeypatch: pytest.MonkeyPatch, start: int, size: int):
    # such numbers are more than Python's functions take, which was another error
    plain = mio.save_buffer(TensorMap(Labels.empty("k"), [], {"a": "b"}))
    monkeypatch.setattr(_zip, "MAX_SIZE", 100)
    content = bytes(mio.save_buffer(mio.load_buffer(plain)))
    at = content.rindex(struct.pack("<HH", 1, 24))
    large = struct.pack("<QQQ", size, size, start)
    content = content[: at + 4] + large + content[at + 28 :]
    with pytest.raises(ValueError, match="can not load"):
        mio.load_buffer(content)


def test_large_records_of_zipfile():
    # every member in the larger records, as programs write that do not know sizes
    saved = tensor(gradients=NESTED)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in read_by_zipfile(mio.save_buffer(saved)).items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    assert_identical(mio.load_buffer(file.getvalue()), saved)


def test_comments_and_other_fields_of_members_do_not_matter():
    saved = tensor(gradients=NESTED)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in read_by_zipfile(mio.save_buffer(saved)).items():
            member = zipfile.ZipInfo(name)
            member.comment, member.extra = b"hello", b"\xfe\xca\4\0abcd"
            archive.writestr(member, content)
    assert_identical(mio.load_buffer(file.getvalue()), saved)


def test_order_of_members_does_not_matter():
    saved = tensor(gradients=NESTED, info={"a": "b"})
    members = read_by_zipfile(mio.save_buffer(saved))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in reversed(members):
            archive.writestr(name, members[name])
    assert_identical(mio.load_buffer(file.getvalue()), saved)


def test_equal_labels_are_loaded_once():
    # what looks for equal labels later has little to do, and memory is shared
    loaded = mio.load_buffer(mio.save_buffer(tensor((4, 4), (3,), gradients=NESTED)))
    first, second = loaded
    assert first.properties is second.properties
    assert first.components[0] is second.components[0]


# --- files of the equistore time ---------------------------------------------------


def old_layout(gradients: bool, method: int = zipfile.ZIP_STORED) -> bytes:
    def labels(name: str, n: int) -> bytes:
        return npy(np.arange(n, dtype="<i4").view([(name, "<i4")]))

    members = {"keys.npy": labels("species", 2)}
    for i in range(2):
        folder = f"blocks/{i}/values"
        members[f"{folder}/data.npy"] = npy(np.ones((4, 3, 2)))
        members[f"{folder}/samples.npy"] = labels("structure", 4)
        members[f"{folder}/components/0.npy"] = labels("m", 3)
        members[f"{folder}/properties.npy"] = labels("n", 2)
        if gradients:
            folder = f"blocks/{i}/gradients/positions"
            members[f"{folder}/data.npy"] = npy(np.ones((1, 3, 2)))
            members[f"{folder}/samples.npy"] = labels("sample", 1)
            members[f"{folder}/components/0.npy"] = labels("m", 3)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_of_the_equistore_time_are_called_that(gradients: bool, method: int):
    words = r"called equistore.*convert-metatensor-npz\.py.*rename"
    with pytest.raises(ValueError, match=words):
        mio.load_buffer(old_layout(gradients, method))


def test_what_the_message_says_to_rename_is_right():
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(old_layout(True))) as old,
        zipfile.ZipFile(file, "w") as new,
    ):
        for name in old.namelist():
            renamed = name.replace("/values/", "/").replace("/data.npy", "/values.npy")
            new.writestr(renamed, old.read(name))
    loaded = mio.load_buffer(file.getvalue())
    assert loaded.block_by_id(0).shape == (4, 3, 2)
    assert loaded.block_by_id(1).gradient("positions").shape == (1, 3, 2)
