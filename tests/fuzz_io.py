"""Mutated files: each one is refused as it should be, or is a valid object.

    python tests/fuzz_io.py [--start 0] [--cases 10000]

Case number N is the same in each run. Prints what happened to how many, the slowest
case, and the memory that was used; the exit status is 1 if there is a finding, which is
printed with the number of its case.

A good file is a map, a block or labels, stored or compressed by any method, with and
without the records of ZIP64. It is changed in its bytes, in the records of the archive,
or in its members, which then have right checksums again.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders import Gradient, block, tensor
from files import NESTED, assert_identical

from metatensor_jax import Labels, io as mio
from metatensor_jax.io._summary import summarize

Change = Callable[[random.Random, bytearray], bytearray]

#: by kind: good files, and how to load them
LOAD_BUFFER = {
    "map": mio.load_buffer,
    "block": mio.load_block_buffer,
    "labels": mio.load_labels_buffer,
}
LOAD = {
    "map": [mio.load, mio.load_mmap],
    "block": [mio.load_block, mio.load_block_mmap],
    "labels": [mio.load_labels],
}
METHODS = [
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    *(zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA),
]
SAVED = {
    "map": [
        tensor((3,), (2,), gradients=NESTED, keys=Labels.single(), info={"a": "b"}),
        tensor((2, 0), gradients={"x": Gradient((), [0])}, dtype="float64"),
        tensor((), info={"näme": "x"}),
    ],
    "block": [block(gradients=NESTED), block(300, dtype="bool", n_properties=9)],
    "labels": [Labels(["a", "b"], [[5, -1], [2**31 - 1, 0]]), Labels.range("a", 100)],
}
#: how the records of an archive begin; there are two for each member
RECORDS = [b"PK\1\2", b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7"]
#: in the name of a member, one for another
RENAMED = [("0", "1"), ("1", "0"), ("values", "samples"), ("blocks/", ""), ("s/", "/")]
RENAMED += [
    (".npy", ""),
    ("", "gradients/x/"),
    ("gradients/", "gradients/x/gradients/"),
]
RENAMED += [("/", "//"), ("/", "\\"), ("positions", "cell"), ("x", "é"), ("", "../")]
#: numbers that are at the edge of something
EDGES = [0, 1, 2, 3, 4, 7, 8, 63, 64, 127, 128, 255, 256, 257, 0x7FFF, 0xFFFE, 0xFFFF]
EDGES += [0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 40]
EDGES += [(1 << 63) - 1, 1 << 63, (1 << 64) - 1]
#: in the headers of arrays, one for another
WORDS = [b"<f4", b">f4", b"<f8", b"<i4", b">i4", b"|b1", b"<c16", b"|O", b"<U9", b"<f2"]
WORDS += [
    b"False",
    b"True",
    b"None",
    b"()",
    b"(3,)",
    b"(-1, 2)",
    b"(0, 2)",
    b"'sample'",
]
WORDS += [b"descr", b"shape", b"system", b"atom", b"1", b"2", b"3", b"4", b"[", b"]"]
WORDS += [b"999999999999", b"1e3", b"{", b"}", b"\\", b"\0", b",", b"'", b"\xff"]


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


FILES = {kind: [bytes(mio.save_buffer(x)) for x in SAVED[kind]] for kind in SAVED}
MEMBERS = {kind: [members_of(x) for x in FILES[kind]] for kind in ("map", "block")}


# --- changes of bytes --------------------------------------------------------------


def wrong_bits(chance: random.Random, content: bytearray) -> bytearray:
    for _ in range(chance.choice([1, 1, 2, 5])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


def other_bytes(chance: random.Random, content: bytearray) -> bytearray:
    at = chance.randrange(len(content))
    n = chance.choice([1, 2, 4, 8, 30])
    content[at : at + n] = chance.randbytes(n)
    return content


def edge(chance: random.Random, content: bytearray) -> bytearray:
    size = chance.choice([1, 2, 4, 8])
    number = chance.choice(EDGES) & ((1 << 8 * size) - 1)
    at = chance.randrange(len(content))
    content[at : at + size] = number.to_bytes(size, "little")
    return content


def cut(chance: random.Random, content: bytearray) -> bytearray:
    start, stop = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    how = chance.randrange(4)
    if how == 0:
        return content[:start]
    if how == 1:
        return content[start:]
    if how == 2:
        return content[:start] + content[min(stop, start + 9) :]
    return content[:start] + content[stop:]


def repeat(chance: random.Random, content: bytearray) -> bytearray:
    start, stop = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    at = chance.randrange(len(content) + 1)
    return content[:at] + content[start:stop] + content[at:]


def insert(chance: random.Random, content: bytearray) -> bytearray:
    at = chance.choice([0, len(content), chance.randrange(len(content) + 1)])
    what = chance.choice([b"\0", b"PK\5\6", chance.randbytes(chance.randrange(40))])
    return content[:at] + what + content[at:]


def word(chance: random.Random, content: bytearray) -> bytearray:
    """One word of a header for another."""
    found = [x for x in WORDS if x in content]
    if not found:
        return insert(chance, content)
    other = chance.choice(WORDS)
    return content.replace(chance.choice(found), other, chance.choice([1, 1, -1]))


def record(chance: random.Random, content: bytearray) -> bytearray:
    """A number in one of the records of the archive."""
    kind = chance.choice(RECORDS)
    places, at = [], content.find(kind)
    while at >= 0:
        places.append(at)
        at = content.find(kind, at + 1)
    if not places:
        return edge(chance, content)
    at = chance.choice(places) + 4 + 2 * chance.randrange(24)
    size = chance.choice([2, 4, 8])
    if at + size > len(content):
        return content
    old = int.from_bytes(content[at : at + size], "little")
    number = chance.choice([*EDGES, old + 1, old - 1, 2 * old, old // 2])
    number &= (1 << 8 * size) - 1
    content[at : at + size] = number.to_bytes(size, "little")
    return content


BYTES: list[Change] = [wrong_bits, other_bytes, edge, cut, repeat, insert]
BYTES += [record, record]
#: of what is in a member
INSIDE: list[Change] = [*BYTES[:6], word, word]


# --- changes of members ------------------------------------------------------------


def some_name(chance: random.Random, members: dict[str, bytes]) -> str:
    return chance.choice([*members]) if members else "keys.npy"


def change_member(chance: random.Random, members: dict[str, bytes]) -> None:
    name = some_name(chance, members)
    content = bytearray(members.get(name, b"") or b"\0")
    members[name] = bytes(chance.choice(INSIDE)(chance, content))


def swap(chance: random.Random, members: dict[str, bytes]) -> None:
    a, b = (some_name(chance, members) for _ in range(2))
    if members:
        members[a], members[b] = members[b], members[a]


def copy(chance: random.Random, members: dict[str, bytes]) -> None:
    if members:
        members[some_name(chance, members)] = members[some_name(chance, members)]


def drop(chance: random.Random, members: dict[str, bytes]) -> None:
    members.pop(some_name(chance, members), None)


def rename(chance: random.Random, members: dict[str, bytes]) -> None:
    name = some_name(chance, members)
    old, new = chance.choice(RENAMED)
    if name in members:
        members[name.replace(old, new, 1)] = members.pop(name)


def add(chance: random.Random, members: dict[str, bytes]) -> None:
    name = some_name(chance, members) + chance.choice(["", "x", "/", "/values.npy"])
    members[name] = chance.choice([b"", chance.randbytes(50), bytes(100_000)])


def foreign(chance: random.Random, members: dict[str, bytes]) -> None:
    """A member of another file."""
    other = chance.choice(MEMBERS[chance.choice(["map", "block"])])
    name = some_name(chance, other)
    to = chance.choice([name, some_name(chance, members)])
    members[to] = other.get(name, b"")


OF_MEMBERS = [change_member, change_member, change_member, swap, copy, drop, rename]
OF_MEMBERS += [add, foreign]


def zipped(chance: random.Random, members: dict[str, bytes]) -> bytearray:
    """An archive with these members, in one of the ways that others write."""
    file = io.BytesIO()
    method, is_large = chance.choice(METHODS), chance.random() < 0.2
    is_mixed, is_twice = chance.random() < 0.2, chance.random() < 0.05
    names = [*members, *[x for x in members if is_twice][:1]]
    if chance.random() < 0.2:
        chance.shuffle(names)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # about names that are there twice
        for name in names:
            what = zipfile.ZipInfo(name)
            what.compress_type = chance.choice(METHODS) if is_mixed else method
            with archive.open(what, "w", force_zip64=is_large) as member:
                member.write(members[name])
    return bytearray(file.getvalue())


# --- cases -------------------------------------------------------------------------


def case(number: int) -> tuple[str, bytes]:
    """The mutated file with this number, and what it was before."""
    chance = random.Random(number)
    kind = chance.choice(["map", "map", "map", "block", "block", "labels"])
    which = chance.randrange(len(FILES[kind]))
    content = bytearray(FILES[kind][which])
    n = chance.choice([1, 1, 1, 2, 3])
    if kind != "labels" and chance.random() < 0.7:
        members, n_members = dict(MEMBERS[kind][which]), chance.choice([0, 1, 1, 1, 2])
        for _ in range(n_members):
            chance.choice(OF_MEMBERS)(chance, members)
        content = zipped(chance, members)
        n = chance.choice([0, 0, 0, 1]) if n_members else n
    changes = INSIDE if kind == "labels" else BYTES
    for _ in range(n):
        content = chance.choice(changes)(chance, content or bytearray(1))
    return kind, bytes(content)


def outcome(load: Callable[[Any], Any], file: Any) -> Any:
    """What is loaded, or None if that is refused as it should be."""
    try:
        return load(file)
    except ValueError as error:
        refusal = error
    except OSError as error:
        raise AssertionError("there is nothing wrong with the disk") from error
    assert type(refusal) is ValueError, type(refusal)
    assert str(refusal).startswith("can not load '"), refusal
    assert len(str(refusal)) < 1_200, len(str(refusal))
    return None


def check(number: int, path: Path | None) -> str:
    """Load a case, in all ways if there is a path for it; says what happened."""
    kind, content = case(number)
    loaded = outcome(LOAD_BUFFER[kind], content)
    if loaded is not None:
        again = mio.save_buffer(loaded)
        assert_identical(LOAD_BUFFER[kind](again), loaded)
    if path is not None:
        path.write_bytes(content)
        for load in LOAD[kind]:
            read = outcome(load, path)
            # checksums of mapped values are not compared
            if read is None or loaded is None:
                assert loaded is None, load
                assert read is None or "mmap" in load.__name__, load
            else:
                assert_identical(read, loaded)
        summary = outcome(summarize, path)
        assert summary is not None or loaded is None
    return "refused" if loaded is None else "loaded"


def check_many(start: int, cases: int, files_of: int = 4) -> dict[str, Any]:
    """Check the cases from ``start`` on; every so many also as files."""
    counts: Counter[str] = Counter()
    slowest, findings = (0.0, start), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(start, start + cases):
            begin = time.process_time()
            try:
                path = Path(folder, "x.mts") if number % files_of == 0 else None
                counts[check(number, path)] += 1
            except Exception:
                findings.append(number)
                print(f"case {number}:\n{traceback.format_exc()}", file=sys.stderr)
            slowest = max(slowest, (time.process_time() - begin, number))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "start": start,
        "cases": cases,
        **counts,
        "findings": findings,
        "slowest": {"seconds": round(slowest[0], 3), "case": slowest[1]},
        "peak_MB": peak,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--cases", type=int, default=10_000)
    options = parser.parse_args()
    result = check_many(options.start, options.cases)
    print(json.dumps(result))
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
