"""Compressed members that could fill the memory, and stored ones that take none."""

import bz2
import functools
import io
import lzma
import mmap
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from builders import tensor
from files import (
    NESTED,
    assert_identical,
    npy,
    owner,
    peak_memory,
    zipped,
)
from hypothesis import given, settings, strategies as st

from metatensor_jax import Labels, io as mio

METHODS = {
    "deflate": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)

MB = 1 << 20
#: what a bomb would need, and what refusing it may
BOMB, MAX_MEMORY = 64 * MB, 8 * MB
SAVED = tensor((3,), (2,), gradients=NESTED, keys=Labels.single()).with_info("a", "b")
VALUES, SAMPLES = "blocks/0/values.npy", "blocks/0/samples.npy"


def members_of(content: Any) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_stored_members_stay_in_the_mapped_file(tmp_path: Path):
    path = tmp_path / "x.mts"
    members = members_of(mio.save_buffer(SAVED))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            kind = "DEFLATED" if name == VALUES else "STORED"
            archive.writestr(name, content, getattr(zipfile, f"ZIP_{kind}"))
    loaded = mio.load_mmap(path)
    assert_identical(loaded, SAVED)
    first, *rest = jax.tree.leaves(loaded)
    assert isinstance(owner(first), bytes | bytearray)
    assert not first.flags.writeable
    assert rest
    assert all(isinstance(owner(leaf), mmap.mmap) for leaf in rest)


# --- bombs -------------------------------------------------------------------------


@functools.cache
def packed(start: bytes, size: int, method: int) -> tuple[bytes, int]:
    """``start`` and zeros, ``size`` bytes in all, compressed; and their checksum."""
    content = start + bytes(size - len(start))
    crc = zlib.crc32(content)
    if method == zipfile.ZIP_BZIP2:
        return bz2.compress(content), crc
    if method == zipfile.ZIP_LZMA:
        options = {"id": lzma.FILTER_LZMA1, "preset": 0, "dict_size": 1 << 16}
        properties = lzma._encode_filter_properties(options)  # type: ignore[attr-defined]
        engine = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[options])
        header = struct.pack("<BBH", 9, 4, len(properties)) + properties
        return header + engine.compress(content) + engine.flush(), crc
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(content) + engine.flush(), crc


def archive_with(
    member: str,
    method: int,
    raw: bytes,
    crc: int,
    size: int,
) -> bytes:
    """SAVED as a file, but with these bytes for a member, that say they are so many."""
    members = {**members_of(mio.save_buffer(SAVED)), member: raw}
    content = bytearray(zipped(*members.items()))
    # what zipfile wrote about the member, in its own header and in the directory
    for signature, at, name_at in ((b"PK\3\4", 8, 30), (b"PK\1\2", 10, 46)):
        (found,) = (
            match.start()
            for match in re.finditer(re.escape(signature), content)
            if content[match.start() + name_at :].startswith(member.encode())
        )
        struct.pack_into("<H", content, found + at, method)
        struct.pack_into("<III", content, found + at + 6, crc, len(raw), size)
    return bytes(content)


def bomb(member: str, start: bytes, method: int, declared: int = BOMB) -> bytes:
    """A file with a member that begins like this and goes on with zeros."""
    raw, crc = packed(start, BOMB, method)
    return archive_with(member, method, raw, crc, declared)


def refusal(content: bytes) -> str:
    """Why a file is not loaded; it takes little memory to find out."""

    def load() -> str:
        with pytest.raises(ValueError, match="can not load") as error:
            mio.load_buffer(content)
        assert type(error.value) is ValueError
        return str(error.value)

    message, peak = peak_memory(load)
    assert peak < MAX_MEMORY
    return message


def labels_header(*names: str, rows: int) -> bytes:
    array = np.broadcast_to(np.zeros(1, [(name, "<i4") for name in names]), (rows,))
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {**np.lib.format.header_data_from_array_1_0(array), "shape": (rows,)}
    )
    return file.getvalue()


def values_header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


BYTES = BOMB - 128
#: how a member begins, and what must be in the message
BOMBS: dict[str, tuple[str, bytes, str]] = {
    "no header": (VALUES, b"", "magic"),
    "small values": (VALUES, npy(np.zeros((3, 2, 2), "f4")), "takes 48 bytes"),
    "large values": (
        VALUES,
        b"\x93NUMPY\1\0\x76\0"
        + values_header(f"({BYTES // 16}, 2, 2)")[10:].ljust(118),
        r"\(3, 2, 2\)",
    ),
    "huge values": (VALUES, values_header(f"({1 << 50}, 2, 2)"), "takes"),
    "few labels": (SAMPLES, labels_header("system", "atom", rows=3), "takes 24 bytes"),
    "many labels": (
        SAMPLES,
        labels_header("system", "atom", rows=BYTES // 8),
        "multiple",
    ),
    "many keys": ("keys.npy", labels_header("_", rows=BYTES // 4), "multiple"),
    "info": ("info.json", b'{"a": "', "at most"),
    "gradient": (
        "blocks/0/gradients/positions/values.npy",
        npy(np.zeros((2, 3, 2, 2), "f4")),
        "takes",
    ),
}


@every_method
@pytest.mark.parametrize(("member", "start", "words"), BOMBS.values(), ids=BOMBS)
def test_bombs(member: str, start: bytes, words: str, method: int):
    message = refusal(bomb(member, start, method))
    assert f"'{member}'" in message
    assert re.search(words, message), message


@every_method
@pytest.mark.parametrize("declared", [0, 176, 100_000])
def test_members_that_are_larger_than_they_say(method: int, declared: int):
    start = npy(np.zeros((3, 2, 2), "f4"))
    message = refusal(bomb(VALUES, start, method, declared))
    assert f"'{VALUES}'" in message
    assert f"more than the {declared} bytes" in message


# --- any damage --------------------------------------------------------------------


@given(st.sampled_from([*METHODS.values()]), st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_compressed_bytes(method: int, raw: bytes):
    content = archive_with(VALUES, method, raw, zlib.crc32(raw), 176)
    assert f"'{VALUES}'" in refusal(content)
