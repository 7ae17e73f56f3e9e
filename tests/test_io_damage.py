"""Damaged and hostile files: an error that names the place, quickly, no more."""

import io
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Gradient, block, tensor
from files import assert_identical, npy, peak_memory, zipped
from hypothesis import given, settings, strategies as st

from metatensor_jax import Labels, io as mio

MAX_MEMORY = 50_000_000
MAX_SECONDS = 1.0

SAVED = tensor(
    (3,), (2,), gradients={"x": Gradient((3,), [0, 2])}, keys=Labels.single()
).with_info("a", "b")
FILE = bytes(mio.save_buffer(SAVED))
with zipfile.ZipFile(io.BytesIO(FILE)) as opened:
    MEMBERS = {name: opened.read(name) for name in opened.namelist()}

#: where the directory of the archive starts, and the end record
DIRECTORY, END = FILE.index(b"PK\1\2"), FILE.rindex(b"PK\5\6")
VALUES, SAMPLES = "blocks/0/values.npy", "blocks/0/samples.npy"
GRADIENT = "blocks/0/gradients/x/samples.npy"


def changed(changes: dict[str, bytes | None]) -> bytes:
    """The file with other members; None leaves one out."""
    members = {**MEMBERS, **changes}
    return zipped(*((name, x) for name, x in members.items() if x is not None))


def patched(at: int, content: bytes) -> bytes:
    """The file with other bytes from there on."""
    return FILE[:at] + content + FILE[at + len(content) :]


def header(
    descr: str = "'<f4'",
    shape: str = "(3, 2, 2)",
    order: str = "False",
    data: bytes = bytes(48),
) -> bytes:
    """A ``.npy`` file with any text in its header."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"
    return raw_header(text.encode("latin1"), data)


def raw_header(text: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    length = len(text) if length is None else length
    if length < 1 << 16:
        return b"\x93NUMPY\1\0" + struct.pack("<H", length) + text + data
    return b"\x93NUMPY\2\0" + struct.pack("<I", length) + text + data


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}, []], object), allow_pickle=True)
    return file.getvalue()


def labels(*rows: Any, dtype: Any = "<i4", names: Any = ("system", "atom")) -> bytes:
    return npy(np.array([*rows], [(name, dtype) for name in names]))


def end_of_zip64(members: int) -> bytes:
    """The file with the larger end record, which declares so many members."""
    size, offset = len(FILE[DIRECTORY:END]), DIRECTORY
    record = struct.pack(
        "<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, members, members, size, offset
    )
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, END, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, size, offset, 0)
    return FILE[:END] + record + locator + end


def nested(block: str, depth: int) -> bytes:
    """The members of a block, with gradients of gradients this deep."""
    members = [(x.replace("blocks/0/", block), data) for x, data in MEMBERS.items()]
    if not block:
        members = [x for x in members if x[0] not in ("keys.npy", "info.json")]
    folders = [block + "gradients/x/" * i for i in range(2, depth)]
    deeper = [(f"{folder}values.npy", MEMBERS[VALUES]) for folder in folders]
    return zipped(*members, *deeper)


#: in the place of one member; what must be in the message
MEMBER_DAMAGE: dict[str, tuple[str, bytes, str]] = {
    "empty": (VALUES, b"", "EOF"),
    "magic": (VALUES, b"\x92" + MEMBERS[VALUES][1:], "magic"),
    "version 3": (VALUES, b"\x93NUMPY\3\0" + MEMBERS[VALUES][8:], "version"),
    "version 9": (VALUES, b"\x93NUMPY\x09\0" + MEMBERS[VALUES][8:], "version"),
    "data cut": (VALUES, MEMBERS[VALUES][:-1], "there are 47"),
    "data too long": (VALUES, MEMBERS[VALUES] + b"\0", "there are 49"),
    "header cut": (VALUES, MEMBERS[VALUES][:50], "EOF"),
    "header length": (
        VALUES,
        raw_header(b"{}", length=(1 << 32) - 1),
        "too large: 4294967295",
    ),
    "header is long": (VALUES, raw_header(b" " * 10**7), "header"),
    "header is no text": (VALUES, raw_header(bytes(range(128, 256))), "header"),
    "header is empty": (VALUES, raw_header(b""), "header"),
    "header is a list": (VALUES, raw_header(b"[1, 2]"), "dictionary"),
    "header has more": (VALUES, raw_header(b"{'a': 1}"), "keys"),
    "header is code": (VALUES, header(shape="(__import__('sys').exit(3),)"), ""),
    "header is a call": (VALUES, raw_header(b"exit(3)"), "header"),
    "header is deep": (VALUES, header(shape="(" * 60_000), ""),
    "header is deep and long": (VALUES, header(shape="[" * 900_000), ""),
    "header has signs": (VALUES, header(shape="-" * 60_000 + "1"), ""),
    "header has attributes": (VALUES, header(shape="a" + ".a" * 30_000), ""),
    "header has terms": (VALUES, header(shape="1" + "+1" * 30_000), ""),
    "header has digits": (VALUES, header(shape=f"({'9' * 60_000},)"), ""),
    "axes": (VALUES, header(shape=f"({'1,' * 30_000})"), "shape|dimension"),
    "many rows": (VALUES, header(shape="(1000000000000000000, 2, 2)"), "takes"),
    "overflow": (VALUES, header(shape=f"({2**62}, 4, 4)"), "takes"),
    "overflow to the size": (VALUES, header(shape=f"({2**60}, 16, 12)"), "takes"),
    "huge and empty": (VALUES, header(shape=f"(0, {2**70}, 2)", data=b""), ""),
    "negative": (VALUES, header(shape="(-3, -2, 2)"), "shape"),
    "negative and empty": (VALUES, header(shape="(-3, 0, 2)", data=b""), "shape"),
    "bool in shape": (VALUES, header(shape="(3, 2, 2, True)"), "shape"),
    "float in shape": (VALUES, header(shape="(3.0, 2, 2)"), "shape"),
    "text in shape": (VALUES, header(shape="('3', 2, 2)"), "shape"),
    "shape is a number": (VALUES, header(shape="12"), "shape"),
    "shape is a list": (VALUES, header(shape="[3, 2, 2]"), "shape"),
    "other shape": (VALUES, header(shape="(2, 3, 2)"), r"\(2, 3, 2\)"),
    "too few axes": (VALUES, header(shape="(12,)"), r"\(12,\)"),
    "no axes": (VALUES, header(shape="()", data=bytes(4)), r"\(\)"),
    "order": (VALUES, header(order="0"), "fortran_order"),
    "objects": (VALUES, pickled(), "objects"),
    "objects inside": (VALUES, header("[('a', '<i4'), ('b', '|O')]"), "objects"),
    "unknown dtype": (VALUES, header("'<q17'"), "descr"),
    "dtype of other width": (VALUES, header("'<f8'"), "takes"),
    "other dtype": (VALUES, header("'<i4'"), "dtype"),
    "text": (VALUES, header("'<U1'"), "can not be the values"),
    "dates": (VALUES, header("'<M8[s]'", data=bytes(96)), "can not be the values"),
    "long double": (VALUES, npy(np.zeros((3, 2, 2), "g")), "can not be the values"),
    "records": (VALUES, header("[('a', '<f4')]"), "can not be the values"),
    "empty text": (VALUES, header("'S0'", "(1000000000,)", data=b""), "no space"),
    "arrays of arrays": (VALUES, header("('<f4', (12,))", "(1,)"), ""),
    "huge arrays": (VALUES, header("('<f4', (2000000000,))", "(0,)", data=b""), ""),
    "many fields": (VALUES, header("'" + "i4," * 20_000 + "'"), ""),
    "labels: trailing byte": (SAMPLES, MEMBERS[SAMPLES] + b"\0", "there are 25"),
    "labels: float": (SAMPLES, labels((0, 0), dtype="<f4"), "32-bit integers"),
    "labels: 64 bits": (SAMPLES, labels((0, 0), dtype="<i8"), "32-bit integers"),
    "labels: unsigned": (SAMPLES, labels((0, 0), dtype="<u4"), "32-bit integers"),
    "labels: no records": (SAMPLES, npy(np.zeros((3, 2), np.int32)), "records"),
    "labels: 2D": (
        SAMPLES,
        npy(np.zeros((3, 1), [("system", "<i4"), ("atom", "<i4")])),
        "1D array of records",
    ),
    "labels: nested": (
        SAMPLES,
        npy(np.zeros(3, [("system", [("a", "<i4")]), ("atom", "<i4")])),
        "32-bit integers",
    ),
    "labels: arrays": (
        SAMPLES,
        npy(np.zeros(3, [("system", "<i4", (1,)), ("atom", "<i4")])),
        "32-bit integers",
    ),
    "labels: gaps": (
        SAMPLES,
        header("[('system', '<i4'), ('', '|V4'), ('atom', '<i4')]", "(4,)"),
        "gaps",
    ),
    "labels: two byte orders": (
        SAMPLES,
        npy(np.zeros(3, [("system", "<i4"), ("atom", ">i4")])),
        "two byte orders",
    ),
    "labels: objects": (SAMPLES, header("[('system', '|O')]", "(6,)"), "objects"),
    "labels: duplicate rows": (SAMPLES, labels((0, 1), (5, 5), (0, 1)), "multiple"),
    "labels: duplicate names": (
        SAMPLES,
        header("[('atom', '<i4'), ('atom', '<i4')]", "(6,)"),
        "name",
    ),
    "labels: invalid name": (SAMPLES, labels((0, 0), names=("a b", "c")), "'a b'"),
    "labels: no name": (SAMPLES, header("[('', '<i4')]", "(12,)"), ""),
    "labels: too many rows": (SAMPLES, labels(*((i, 0) for i in range(4))), "shape"),
    "labels: no dimensions": (SAMPLES, header("[]", "(1000000000,)", data=b""), ""),
    "keys: two": ("keys.npy", labels((0,), (1,), names=("_",)), "blocks/1/"),
    "keys: none": ("keys.npy", labels(names=("_",)), "unexpected members"),
    "keys: a billion": (
        "keys.npy",
        header("[('_', '<i4')]", "(1000000000,)"),
        "takes 4000000000 bytes",
    ),
    "rows after the end": (GRADIENT, labels((0, 0), (3, 0), names=("sample", "b")), ""),
    "rows before": (GRADIENT, labels((0, 0), (-1, 0), names=("sample", "b")), ""),
    "no sample": (GRADIENT, labels((0, 0), (1, 0), names=("atom", "b")), "sample"),
    "gradient of other dtype": (
        "blocks/0/gradients/x/values.npy",
        npy(np.zeros((2, 3, 2, 2))),
        "dtype",
    ),
    "gradient of other shape": (
        "blocks/0/gradients/x/values.npy",
        npy(np.zeros((2, 2, 2, 2), np.float32)),
        "shape",
    ),
    "other components": (
        "blocks/0/gradients/x/components/1.npy",
        labels((0,), (2,), names=("component_0",)),
        "components",
    ),
    "component with two names": (
        "blocks/0/components/0.npy",
        labels((0, 0), (1, 0)),
        "single dimension",
    ),
    "info: no JSON": ("info.json", b"{", "Expecting"),
    "info: empty": ("info.json", b"", "Expecting"),
    "info: a list": ("info.json", b"[]", "list"),
    "info: a number": ("info.json", b'{"a": 1}', "text"),
    "info: null": ("info.json", b'{"a": null}', "text"),
    "info: not UTF-8": ("info.json", b'{"a": "\xff"}', "utf-8"),
    "info: deep": ("info.json", b"[" * 100_000, "recursion"),
}

#: whole files; what must be in the message
FILE_DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty|truncated"),
    "a byte": (b"P", "truncated"),
    "no archive": (b"hello, world\n" * 100, "truncated"),
    "end record alone": (b"PK\5\6" + bytes(18), "keys.npy"),
    "labels": (bytes(mio.save_buffer(Labels.range("a", 3))), "no .mts file"),
    "block": (bytes(mio.save_buffer(block())), "`load_block`"),
    "data after it": (FILE + b"\0", "followed by other data"),
    "much data after it": (FILE + bytes(100_000), "followed by other data"),
    "data before it": (b"#!/bin/sh\n" + FILE, "before the archive"),
    "archive before it": (zipped(("a", b"b")) + FILE, "before the archive"),
    "unknown compression": (patched(DIRECTORY + 10, b"\x5d\0"), "method 93"),
    "encrypted": (patched(DIRECTORY + 8, b"\1"), "encrypted"),
    "later version": (patched(DIRECTORY + 6, b"\xff"), "version"),
    "checksum": (patched(DIRECTORY + 16, b"\0\0\0\0"), "'keys.npy' is damaged"),
    "two sizes": (patched(DIRECTORY + 20, b"\0\0\0\0"), "two sizes"),
    "huge member": (patched(DIRECTORY + 20, b"\xfe\xff\xff\xff" * 2), "keys.npy"),
    "member elsewhere": (patched(DIRECTORY + 42, b"\1\0\0\0"), ""),
    "member beyond the end": (patched(DIRECTORY + 42, b"\xfe\xff\xff\x7f"), ""),
    "no local header": (patched(0, b"PK\7\x08"), "'keys.npy' is not where"),
    "local name too long": (patched(26, b"\xff\xff"), "'keys.npy' is damaged"),
    "name is no text": (patched(DIRECTORY + 9, b"\x08\0\xff"), ""),
    "65534 members": (patched(END + 8, b"\xfe\xff" * 2), "should have 65534"),
    "no members": (patched(END + 8, bytes(4)), "should have 0"),
    "two million members": (end_of_zip64(2_000_000), "should have 2000000"),
    "huge directory": (patched(END + 12, b"\xfe\xff\xff\xff"), ""),
    "directory elsewhere": (patched(END + 16, b"\xfe\xff\xff\xff"), ""),
    "twice": (zipped(*MEMBERS.items(), ("keys.npy", b"")), "'keys.npy' is there twice"),
    "deep": (nested("blocks/0/", 1000), "deeper than 16"),
    "as deep as a name can be": (changed({"gradients/" * 6500 + "x": b""}), "deeper"),
    **{
        f"path {path}": (changed({path: b""}), "leads out of the archive")
        for path in (
            *("../x", "/abs", "a\\b", "blocks/../keys.npy", "./x", "..", "a//b"),
            *("blocks/", "blocks/0/gradients/../x/values.npy"),
        )
    },
    **{
        f"unexpected {path}": (changed({path: MEMBERS[SAMPLES]}), "unexpected")
        for path in (
            *("extra.npy", "values.npy", "blocks/1/values.npy", "blocks/00/values.npy"),
            *("blocks/0/components/2.npy", "blocks/0/components/00.npy", "Keys.npy"),
            *("blocks/0/gradients/x/properties.npy", "gradients/x/values.npy"),
        )
    },
    **{
        f"missing {name}": (changed({name: None}), "")
        for name in MEMBERS
        if name != "info.json"
    },
    "gradient without samples": (
        changed({"blocks/0/gradients/y/values.npy": MEMBERS[VALUES]}),
        "'blocks/0/gradients/y/samples.npy' is missing",
    ),
}

LABELS_DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty|EOF"),
    "map": (FILE, "`load` or `load_block`"),
    **{
        name: (content, words)
        for name, (member, content, words) in MEMBER_DAMAGE.items()
        if member == SAMPLES and name != "labels: too many rows"
    },
}


def outcome(load_buffer: Any, content: bytes | bytearray) -> Any:
    """What is loaded, or the text of a ValueError."""
    try:
        return load_buffer(content)
    except ValueError as error:
        return str(error)


def check_refused(
    path: Path, content: bytes, load: Any, load_buffer: Any, words: str
) -> str:
    """Loading is refused, within the limits; returns what the message says."""
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(ValueError) as error:  # noqa: PT011, the caller has the words
        load(path)
    assert time.process_time() - start < MAX_SECONDS
    assert type(error.value) is ValueError
    message = str(error.value)
    assert str(path) in message
    assert re.search(words, message), message
    # again, for tracing memory takes time
    refused, peak = peak_memory(lambda: outcome(load_buffer, content))
    assert isinstance(refused, str)
    assert peak < MAX_MEMORY
    return message


@pytest.mark.parametrize(
    ("member", "content", "words"), MEMBER_DAMAGE.values(), ids=MEMBER_DAMAGE
)
def test_damaged_members(tmp_path: Path, member: str, content: bytes, words: str):
    archive = changed({member: content})
    path = tmp_path / "x.mts"
    message = check_refused(path, archive, mio.load, mio.load_buffer, words)
    # what does not fit together names the folder
    assert member in message or "in 'blocks/0/" in message or member == "keys.npy"


@pytest.mark.parametrize(("content", "words"), FILE_DAMAGE.values(), ids=FILE_DAMAGE)
def test_damaged_files(tmp_path: Path, content: bytes, words: str):
    check_refused(tmp_path / "x.mts", content, mio.load, mio.load_buffer, words)


@pytest.mark.parametrize(
    ("content", "words"), LABELS_DAMAGE.values(), ids=LABELS_DAMAGE
)
def test_damaged_labels(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "x.mts"
    check_refused(path, content, mio.load_labels, mio.load_labels_buffer, words)


def test_a_map_is_no_block(tmp_path: Path):
    load, load_buffer = mio.load_block, mio.load_block_buffer
    check_refused(tmp_path / "x.mts", FILE, load, load_buffer, "use `load`")


def test_deep_gradients_in_a_block(tmp_path: Path):
    load, load_buffer = mio.load_block, mio.load_block_buffer
    content = nested("", 1000)
    check_refused(tmp_path / "x.mts", content, load, load_buffer, "deeper than 16")


def test_messages_are_short(tmp_path: Path):
    # also where the file chooses the words
    contents = [changed({member: x}) for member, x, _ in MEMBER_DAMAGE.values()]
    contents += [content for content, _ in FILE_DAMAGE.values()]
    for content in contents:
        assert 20 < len(outcome(mio.load_buffer, content)) < 1_100


def test_what_the_tables_start_from_is_good():
    assert_identical(mio.load_buffer(FILE), SAVED)
    assert_identical(mio.load_buffer(changed({})), SAVED)
    assert not mio.load_buffer(changed({VALUES: header()})).block().values.any()
    assert_identical(mio.load_buffer(end_of_zip64(len(MEMBERS))), SAVED)


# --- any damage --------------------------------------------------------------------

ANY: dict[str, tuple[Any, Callable[[bytes], Any]]] = {
    "map": (SAVED, mio.load_buffer),
    "block": (block(gradients={"x": Gradient(())}), mio.load_block_buffer),
    "labels": (Labels.range("a", 40), mio.load_labels_buffer),
}


@pytest.mark.parametrize(("saved", "load_buffer"), ANY.values(), ids=ANY)
def test_truncated_anywhere(saved: Any, load_buffer: Any):
    content = bytes(mio.save_buffer(saved))
    for stop in {*range(0, len(content), 97), *range(len(content) - 25, len(content))}:
        with pytest.raises(ValueError, match="can not load"):
            load_buffer(content[:stop])


@given(st.sampled_from(["map", "block"]), st.data())
@settings(max_examples=500)
def test_a_wrong_byte_is_an_error_or_without_effect(kind: str, data: st.DataObject):
    saved, load_buffer = ANY[kind]
    content = bytearray(mio.save_buffer(saved))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    loaded = outcome(load_buffer, content)
    if isinstance(loaded, str):
        assert "can not load" in loaded
    else:
        assert_identical(loaded, saved)


@given(st.binary(max_size=200), st.sampled_from([*ANY]))
def test_any_bytes(content: bytes, kind: str):
    with pytest.raises(ValueError, match="can not load"):
        ANY[kind][1](content)
