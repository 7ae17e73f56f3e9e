"""One array or labels as the bytes of a ``.npy`` file, and back.

The format is NumPy's (NEP 1); its reader of headers is used, and never its reader of
data: the size that a header declares is compared with the bytes that are there before
anything is made.
"""

from __future__ import annotations

import io
import math
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.lib import format as npy

from .._run.caches import remembered
from .._types.entry import check_names
from .._types.labels import Labels

#: what metatensor can store: booleans, integers, floats of 2 to 8 bytes, and complex
_KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
#: what version 1 of the format allows, and some thousand names of dimensions; to parse
#: what is longer can take minutes and gigabytes
_MAX_HEADER = 1 << 16
#: blocks share labels, such as their components; up to this many bytes it is faster to
#: look whether labels are known than to make them again
_SMALL = 1 << 12
#: up to so many entries, Python's sets are faster than NumPy
_FEW = 64

#: how most files begin, and the length of most headers
_VERSION_1, _USUAL = b"\x93NUMPY\1\0", 128

Parts = tuple[bytes, bytes | memoryview]


def encode(array: np.ndarray) -> Parts:
    """The header and the data of an array."""
    if not (array.dtype.isnative and sys.byteorder == "little"):
        array = array.astype(array.dtype.newbyteorder("<"))
    return _make_header(array.dtype, array.shape), _data_of(array)


def _data_of(array: np.ndarray) -> bytes | memoryview:
    """The bytes of an array; those of a large one are no copy."""
    if array.nbytes <= _SMALL:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


# Files have thousands of members with a few different headers, and NumPy takes longer
# for a header than for the data of a small block.
@remembered(4096)
def _make_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    if dtype.names is None and dtype.itemsize not in _KINDS.get(dtype.kind, ()):
        raise TypeError(
            f".mts files can not hold {dtype} values: convert them first, such as with "
            "`.to(dtype='float32')`"
        )
    descr: Any = npy.dtype_to_descr(dtype)
    if dtype.itemsize == 1:
        # metatensor wants a byte order, also where it means nothing
        descr = descr.replace("|", "<")
    header = io.BytesIO()
    description = {"descr": descr, "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(header, description)
    return header.getvalue()


class _Header(NamedTuple):
    """What a header says, and how many bytes of data there are to be."""

    length: int
    shape: tuple[int, ...]
    order: Any
    dtype: np.dtype
    size: int

    def refuse_size(self, size: int) -> NoReturn:
        """Raise that there are so many bytes after the header."""
        raise ValueError(
            f"shape {self.shape} of {self.dtype} takes {self.size} bytes, but there "
            f"are {size}"
        )

    def check_size(self, size: int) -> None:
        """Raise unless header and data are so many bytes."""
        if size != self.length + self.size:
            self.refuse_size(size - self.length)


def _view(header: _Header, data: memoryview) -> np.ndarray:
    """The array in these bytes, a view of them. Raises ``ValueError`` if damaged."""
    length, shape, order, dtype, size = header
    if len(data) - length != size:
        header.refuse_size(len(data) - length)
    if size == 0:
        return np.zeros(shape, dtype)
    return np.ndarray(shape, dtype, data, length, None, order)


def header_length(start: memoryview | bytes) -> int:
    """How many bytes the header takes of a file that begins like this."""
    version = npy.read_magic(io.BytesIO(start[:8]))
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"unknown version {version} of the npy format")
    begin = 10 if version == (1, 0) else 12
    size = int.from_bytes(start[8:begin], "little")
    if size > _MAX_HEADER:
        raise ValueError(f"its header is too large: {size} bytes")
    return begin + size


def _header_of(data: memoryview | bytes) -> bytes:
    start = bytes(data[:_USUAL])
    if start.startswith(_VERSION_1) and len(start) == _USUAL:
        length = 10 + start[8] + (start[9] << 8)
        return start if length == _USUAL else bytes(data[:length])
    return bytes(data[: header_length(start)])


def _remembered(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """``parse``, once for each header that is not so long that it takes much memory."""
    cached = remembered(4096)(parse)

    def look_up(header: bytes) -> Any:
        return cached(header) if len(header) <= _SMALL else parse(header)

    return look_up


@_remembered
def _parsed(header: bytes) -> _Header:
    file = io.BytesIO(header)
    is_first = npy.read_magic(file) == (1, 0)
    read = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(file, max_header_size=_MAX_HEADER)
    if dtype.hasobject:
        raise ValueError("it has Python objects, which are never loaded")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"shape {shape} is not made of sizes")
    size = math.prod(shape)
    if dtype.itemsize == 0 and size > 1:
        # as many as the file likes, for no bytes at all; unique labels are one at most
        raise ValueError(f"shape {shape} of {dtype}, which takes no space")
    order = "F" if fortran_order else "C"
    return _Header(len(header), shape, order, dtype, size * dtype.itemsize)


# --- values ------------------------------------------------------------------------


def encode_values(values: Any) -> Parts:
    """The header and the data of the values of a block."""
    return encode(np.asarray(values))


def decode_values(data: memoryview) -> np.ndarray:
    """The values of a block, in the byte order of this machine."""
    array = _view(_parsed_for_values(_header_of(data)), data)
    dtype = array.dtype
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


@_remembered
def _parsed_for_values(content: bytes) -> _Header:
    header = _parsed(content)
    if header.dtype.itemsize not in _KINDS.get(header.dtype.kind, ()):
        raise ValueError(f"{header.dtype} can not be the values of a block")
    return header


def describe_values(header: bytes, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of values of so many bytes, header included."""
    what = _parsed_for_values(header)
    what.check_size(size)
    return what.shape, what.dtype


def check_values(axes: list[Labels], start: memoryview, size: int) -> None:
    """Raise if values that begin like this, of so many bytes, are not for the axes."""
    shape = tuple(map(len, axes))
    header = _parsed(_header_of(start))
    header.check_size(size)
    if header.shape != shape:
        raise ValueError(
            f"the values have shape {header.shape}, but the labels have {shape} entries"
        )


# --- labels ------------------------------------------------------------------------


def encode_labels(labels: Labels) -> Parts:
    """The header and the data of labels: one record per entry."""
    values = labels._host_values("saving labels")
    header = _make_header(_label_dtype(labels._names), (len(values),))
    return header, _data_of(np.asarray(values, "<i4"))


@remembered(4096)
def _label_dtype(names: tuple[str, ...]) -> np.dtype:
    return np.dtype([(name, "<i4") for name in names])


def labels_encoder() -> Callable[[Labels], Parts]:
    """:func:`encode_labels`, once for equal small labels."""
    known: dict[bytes, Parts] = {}

    def encode_once(labels: Labels) -> Parts:
        digest = labels._digest
        if digest is None or labels._values.nbytes > _SMALL:
            return encode_labels(labels)
        parts = known.get(digest)
        if parts is None:
            parts = known[digest] = encode_labels(labels)
        return parts

    return encode_once


class _LabelHeader(NamedTuple):
    """What a header of labels says."""

    header: _Header
    names: tuple[str, ...]
    dtype: np.dtype
    #: an entry, as bytes
    entry: struct.Struct
    #: integers that are bytes of their own need no copy
    is_plain: bool


@_remembered
def _parsed_for_labels(content: bytes) -> _LabelHeader:
    header = _parsed(content)
    dtype, names = header.dtype, header.dtype.names
    if names is None or len(header.shape) != 1:
        raise ValueError(
            f"labels must be a 1D array of records, got {dtype} with shape "
            f"{header.shape}"
        )
    types = {dtype[name] for name in names}
    if any(t.kind != "i" or t.itemsize != 4 for t in types):
        raise ValueError(f"labels must be records of 32-bit integers: {dtype}")
    if len(types) > 1 or dtype.itemsize != 4 * len(names):
        raise ValueError(f"the records have gaps or two byte orders: {dtype}")
    entry = struct.Struct(f"{dtype.itemsize}s")
    integer = types.pop() if types else np.dtype(np.int32)
    is_plain = integer.isnative and header.length % integer.itemsize == 0
    return _LabelHeader(header, check_names(names), integer, entry, is_plain)


def decode_labels(data: memoryview | bytes) -> Labels:
    """Labels from records of integers. Raises ``ValueError`` if damaged.

    :param data: labels from a ``memoryview`` are copies, so that they do not keep a
        file mapped or a large buffer in memory
    """
    what = _parsed_for_labels(_header_of(data))
    what.header.check_size(len(data))
    return _make_labels(what, what.header.shape[0], data)


def _make_labels(what: _LabelHeader, n: int, data: memoryview | bytes) -> Labels:
    """Labels from the first ``n`` entries."""
    header, names, dtype, entry, is_plain = what
    start = header.length
    values = np.ndarray((n, len(names)), dtype, data, start)
    if 0 < n <= _FEW and names:
        content = data[start : start + n * entry.size]
        if len(set(entry.iter_unpack(content))) == n:
            # names and entries were checked
            is_own = is_plain and type(data) is bytes
            return Labels._make(names, values if is_own else values.astype(np.int32))
    return Labels(names, values)


def describe_labels(header: bytes, size: int) -> tuple[tuple[str, ...], int]:
    """Names and number of the entries of labels of so many bytes, header included."""
    what = _parsed_for_labels(header)
    what.header.check_size(size)
    return what.names, what.header.shape[0]


def check_labels(start: memoryview, size: int) -> None:
    """Raise if labels that begin like this, of so many bytes, can not be good."""
    what = _parsed_for_labels(_header_of(start))
    what.header.check_size(size)
    _make_labels(what, (len(start) - what.header.length) // what.entry.size, start)


def labels_decoder() -> Callable[[memoryview], Labels]:
    """:func:`decode_labels`, once for equal small members."""
    known: dict[bytes, Labels] = {}

    def decode_once(data: memoryview) -> Labels:
        if len(data) > _SMALL:
            return decode_labels(data)
        content = bytes(data)
        labels = known.get(content)
        if labels is None:
            labels = known[content] = decode_labels(content)
        return labels

    return decode_once
