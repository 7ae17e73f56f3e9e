"""Compressed members, as other programs write them: what is loaded, what is refused."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Gradient, block, tensor
from files import (
    NESTED,
    assert_identical,
    every_dtype,
    every_object,
    every_tensor,
    npy,
    peak_memory,
)
from hypothesis import given, settings, strategies as st

from metatensor_jax import Labels, io as mio

METHODS = {
    "DEFLATE": zipfile.ZIP_DEFLATED,
    "BZIP2": zipfile.ZIP_BZIP2,
    "LZMA": zipfile.ZIP_LZMA,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
MAX_MEMORY = 50_000_000


def zipped(members: dict[str, bytes], method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def members_of(data: Any) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(mio.save_buffer(data))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def compressed(data: Any, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    return zipped(members_of(data), method)


# --- what is loaded ----------------------------------------------------------------


@every_method
@every_tensor
def test_compressed_maps_load(make: Any, method: int):
    saved = make(dtype="float64")
    assert_identical(mio.load_buffer(compressed(saved, method)), saved)


@every_dtype
def test_compressed_values_of_any_dtype(dtype: str):
    saved = tensor(dtype=dtype, gradients=NESTED)
    assert_identical(mio.load_buffer(compressed(saved)), saved)


@every_method
def test_large_members_come_in_many_pieces(method: int):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (70_000, 8)).astype(np.int32)
    saved = block(len(values), n_properties=8, dtype="int32").with_values(values)
    loaded = mio.load_block_buffer(compressed(saved, method))
    assert_identical(loaded, saved)
    assert not loaded.values.flags.writeable


@every_object
def test_compressed_files(tmp_path: Path, data: Any, load: Any, load_buffer: Any):
    if isinstance(data, Labels):
        return  # no archive
    path = tmp_path / "x.mts"
    path.write_bytes(compressed(data))
    assert_identical(load(path), data)


def test_files_of_numpy_load(tmp_path: Path):
    arrays = {
        "values": np.arange(6.0).reshape(3, 2),
        "samples": np.arange(3, dtype="<i4").view([("s", "<i4")]),
        "properties": np.arange(2, dtype="<i4").view([("p", "<i4")]),
    }
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    loaded = mio.load_block(tmp_path / "x.npz")
    np.testing.assert_array_equal(loaded.values, arrays["values"])
    assert loaded.samples == Labels.range("s", 3)


def test_stored_and_compressed_members_in_one_file():
    saved = tensor(gradients=NESTED, info={"a": "b"})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i, (name, content) in enumerate(members_of(saved).items()):
            archive.writestr(name, content, [*METHODS.values(), 0][i % 4])
    assert_identical(mio.load_buffer(file.getvalue()), saved)


def test_a_stream_that_declares_sizes_afterwards():
    # as programs write that can not seek: the local header has no sizes
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation

    file = Stream()
    saved = tensor(gradients=NESTED)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members_of(saved).items():
            archive.writestr(name, content)
    assert_identical(mio.load_buffer(file.getvalue()), saved)


# --- what is refused ---------------------------------------------------------------


def lying(name: str, content: bytes, packed: bytes, method: int, size: int) -> bytes:
    """An archive of one member that declares any size."""
    raw, crc = name.encode(), zlib.crc32(content)
    sizes = (crc, len(packed), size, len(raw))
    local = struct.pack("<4sHHHIIIIHH", b"PK\3\4", 20, 0, method, 0, *sizes, 0)
    body = local + raw + packed
    entry = struct.pack("<4sHHHHIIIIH", b"PK\1\2", 20, 20, 0, method, 0, *sizes)
    entry += bytes(16) + raw
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(body), 0)
    return body + entry + end


def packed_by(method: int, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(zipped({"a": content}, method))) as archive:
        start = 30 + len("a")
        size = archive.infolist()[0].compress_size
        assert archive.fp is not None
        archive.fp.seek(start)
        return archive.fp.read(size)


def header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def refusal(load: Any, content: bytes) -> str:
    """The text of the error, which takes little memory."""

    def call() -> str:
        with pytest.raises(ValueError, match="can not load") as error:
            load(content)
        assert type(error.value) is ValueError
        return str(error.value)

    message, peak = peak_memory(call)
    assert peak < MAX_MEMORY
    return message


SMALL = members_of(block())
BOMB = 100_000_000
#: what holds 100 MB of zeros, and says so
BOMBS = {
    "samples": header("[('atom', '<i4')]", f"({BOMB // 4},)"),
    "values": header("'<f4'", f"({BOMB // 4}, 1)"),
    "properties": header("[('p', '<i4')]", f"({BOMB // 4},)"),
}


@every_method
@pytest.mark.parametrize("member", BOMBS)
def test_bombs_are_refused_before_they_are_expanded(member: str, method: int):
    content = BOMBS[member] + bytes(BOMB)
    bomb = zipped({**SMALL, f"{member}.npy": content}, method)
    del content
    message = refusal(mio.load_block_buffer, bomb)
    assert f"'{member}.npy'" in message


@every_method
def test_bombs_that_begin_well_are_refused_early(method: int):
    unique = np.arange(500_000, dtype="<i4").tobytes()
    content = BOMBS["samples"] + unique + bytes(BOMB - len(unique))
    bomb = zipped({**SMALL, "samples.npy": content}, method)
    del content
    assert "multiple times" in refusal(mio.load_block_buffer, bomb)


def test_info_is_no_bomb():
    info = b'{"a": "' + bytes(BOMB) + b'"}'
    bomb = zipped(members_of(tensor()) | {"info.json": info}, zipfile.ZIP_DEFLATED)
    assert "compressed info must be at most" in refusal(mio.load_buffer, bomb)


@every_method
@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "more than the 0 bytes"), (100, "more than"), (999, "there are"), (None, "")],
)
def test_sizes_that_are_not_those_that_are_there(method: int, size: Any, words: str):
    content = npy(np.arange(50.0))
    packed = packed_by(method, content)
    declared = 0xFFFFFFF0 if size is None else size
    made = lying("keys.npy", content, packed, method, declared)
    message = refusal(mio.load_buffer, made)
    assert "'keys.npy'" in message
    assert words in message


@every_method
def test_a_wrong_checksum_is_an_error(method: int):
    content = npy(np.zeros(1, [("k", "<i4")]))
    packed = packed_by(method, content)
    made = lying("keys.npy", content + b"x", packed, method, len(content))
    message = refusal(mio.load_buffer, made)
    assert "'keys.npy'" in message
    assert "checksum" in message


def test_members_can_not_share_bytes():
    # many entries for the same compressed bytes would multiply what these hold
    content = bytes(zipped(SMALL, zipfile.ZIP_DEFLATED))
    start, end = content.index(b"PK\1\2"), content.rindex(b"PK\5\6")
    entry = content[start : start + 46 + len("values.npy")]
    other = entry.replace(b"values.npy", b"samples.np")
    size = end - start + len(other)
    count = len(SMALL) + 1
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size, start, 0)
    made = content[:end] + other + tail
    assert "at the same place" in refusal(mio.load_block_buffer, made)


def test_a_member_does_not_go_on_in_the_next_one():
    content = bytearray(compressed(block()))
    start = content.index(b"PK\1\2")
    size = struct.unpack_from("<I", content, start + 20)[0]
    struct.pack_into("<I", content, start + 20, size + 50)
    assert "goes on in the next" in refusal(mio.load_block_buffer, bytes(content))


def test_a_dictionary_of_gigabytes_is_not_made():
    content = npy(np.zeros(1, [("k", "<i4")]))
    packed = bytearray(packed_by(zipfile.ZIP_LZMA, content))
    struct.pack_into("<I", packed, 5, 0xFFFFFFFF)
    made = lying("keys.npy", content, bytes(packed), zipfile.ZIP_LZMA, len(content))
    # the keys are good; what they belong to is missing
    assert "'blocks/0/" in refusal(mio.load_buffer, made)


# --- any damage --------------------------------------------------------------------

SAVED = tensor(
    (3,), (2,), gradients={"x": Gradient((3,), [0, 2])}, keys=Labels.single()
).with_info("a", "b")


def outcome(content: bytes | bytearray) -> Any:
    """What is loaded, or the text of a ValueError."""
    try:
        return mio.load_buffer(content)
    except ValueError as error:
        return str(error)


@given(st.sampled_from([*METHODS.values()]), st.data())
@settings(max_examples=300, deadline=None)
def test_a_wrong_byte_is_an_error_or_without_effect(method: int, data: st.DataObject):
    content = bytearray(compressed(SAVED, method))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    loaded = outcome(content)
    if isinstance(loaded, str):
        assert "can not load" in loaded
    else:
        assert_identical(loaded, SAVED)


@every_method
def test_truncated_streams(method: int):
    content = npy(np.arange(200.0))
    packed = packed_by(method, content)
    for stop in range(0, len(packed), 7):
        made = lying("keys.npy", content, packed[:stop], method, len(content))
        assert "'keys.npy'" in refusal(mio.load_buffer, made)
