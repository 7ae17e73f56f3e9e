"""Compressed members, expanded piece by piece: never more at once than is asked for."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

from ._zip import DEFLATED

_BZIP2, _LZMA = 12, 14
METHODS = {DEFLATED: "DEFLATE", _BZIP2: "BZIP2", _LZMA: "LZMA"}

#: a byte of DEFLATE holds no more than four times its longest repetition
MAX_DEFLATE = 4 * 258
#: one of LZMA, for which there is no such rule, holds about 7,000 zeros
_MAX_LZMA = 1 << 13
#: compressed bytes that are given to a decompressor at once, and what it may return
_STEP, _PIECE = 1 << 16, 1 << 17


def expand(packed: memoryview, method: int, size: int) -> Iterator[bytes]:
    """The content of a member in pieces of at most 128 kB.

    :param packed: the compressed bytes
    :param method: which of :data:`METHODS`
    :param size: how many bytes it should hold; it may hold more, or less
    """
    if method == DEFLATED:
        yield from _inflate(packed)
        return
    if method == _BZIP2:
        import bz2  # a Python may be built without it

        engine: Any = bz2.BZ2Decompressor()
    else:
        packed, engine = _lzma(packed, size)
    at = 0
    while not engine.eof:
        step = b""
        if engine.needs_input:
            if at >= len(packed):
                return
            step = packed[at : at + _STEP]
            at += _STEP
        yield engine.decompress(step, _PIECE)


def _inflate(packed: memoryview) -> Iterator[bytes]:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    for at in range(0, len(packed), _STEP):
        step: Any = packed[at : at + _STEP]
        while step and not engine.eof:
            yield engine.decompress(step, _PIECE)
            step = engine.unconsumed_tail
    yield engine.flush()  # what its last step did not return, a few kB at most


def _lzma(packed: memoryview, size: int) -> tuple[memoryview, Any]:
    """The data after the properties, and what expands it."""
    import lzma  # a Python may be built without it

    if len(packed) < 9 or packed[2:4] != b"\5\0":
        raise ValueError("the properties of its LZMA compression are damaged")
    packing, dictionary = struct.unpack_from("<BI", packed, 4)
    packing, lc = divmod(packing, 9)
    pb, lp = divmod(packing, 5)
    options = {
        "id": lzma.FILTER_LZMA1,
        # all of it is allocated at once, and no more is of use than there is content
        "dict_size": max(min(dictionary, size, _MAX_LZMA * len(packed)), 4096),
        "lc": lc,
        "lp": lp,
        "pb": pb,
    }
    return packed[9:], lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options])
