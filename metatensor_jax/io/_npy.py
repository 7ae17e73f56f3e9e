"""One array or labels as the bytes of a ``.npy`` file, and back.

The format is NumPy's (NEP 1); its reader of headers is used, and never its reader of
data: the size that a header declares is compared with the bytes that are there before
anything is made.
"""

from __future__ import annotations

import functools
import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy

from .._types.labels import Labels

#: what metatensor can store: booleans, integers, floats of 2 to 8 bytes, and complex
_KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
#: what version 1 of the format allows, and some thousand names of dimensions; to parse
#: what is longer can take minutes and gigabytes
_MAX_HEADER = 1 << 16


def encode(array: np.ndarray) -> tuple[bytes, memoryview]:
    """The header and the data of an array."""
    if array.dtype.names is None and array.itemsize not in _KINDS.get(
        array.dtype.kind, ()
    ):
        raise TypeError(
            f".mts files can not hold {array.dtype} values: convert them first, such "
            "as with `.to(dtype='float32')`"
        )
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
    return _make_header(array.dtype, array.shape), data


# Files have thousands of members with a few different headers, and NumPy takes longer
# for a header than for the data of a small block.
@functools.lru_cache(maxsize=4096)
def _make_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    descr: Any = npy.dtype_to_descr(dtype)
    if dtype.itemsize == 1:
        # metatensor wants a byte order, also where it means nothing
        descr = descr.replace("|", "<")
    header = io.BytesIO()
    description = {"descr": descr, "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(header, description)
    return header.getvalue()


def decode(data: memoryview) -> np.ndarray:
    """The array in these bytes, a view of them. Raises ``ValueError`` if damaged."""
    header = _header_of(data)
    shape, fortran_order, dtype = _read_header(header)
    content = data[len(header) :]
    expected = math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ValueError(
            f"shape {shape} of {dtype} takes {expected} bytes, but there are "
            f"{len(content)}"
        )
    if expected == 0:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(content, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _header_of(data: memoryview) -> bytes:
    version = npy.read_magic(io.BytesIO(data[:8]))
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"unknown version {version} of the npy format")
    start = 10 if version == (1, 0) else 12
    size = int.from_bytes(data[8:start], "little")
    if size > _MAX_HEADER:
        raise ValueError(f"its header is too large: {size} bytes")
    return bytes(data[: start + size])


@functools.lru_cache(maxsize=4096)
def _read_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape, whether it is in Fortran order, and the dtype."""
    file = io.BytesIO(header)
    is_first = npy.read_magic(file) == (1, 0)
    read = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(file, max_header_size=_MAX_HEADER)
    if dtype.hasobject:
        raise ValueError("it has Python objects, which are never loaded")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"shape {shape} is not made of sizes")
    if dtype.itemsize == 0 and math.prod(shape) > 1:
        # as many as the file likes, for no bytes at all; unique labels are one at most
        raise ValueError(f"shape {shape} of {dtype}, which takes no space")
    return shape, fortran_order, dtype


def encode_values(values: Any) -> tuple[bytes, memoryview]:
    """The header and the data of the values of a block."""
    return encode(np.asarray(values))


def decode_values(data: memoryview) -> np.ndarray:
    """The values of a block, in the byte order of this machine."""
    array = decode(data)
    if array.dtype.itemsize not in _KINDS.get(array.dtype.kind, ()):
        raise ValueError(f"{array.dtype} can not be the values of a block")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def encode_labels(labels: Labels) -> tuple[bytes, memoryview]:
    """The header and the data of labels: one record per entry."""
    values = labels._host_values("saving labels")
    dtype = np.dtype([(name, "<i4") for name in labels.names])
    if dtype.itemsize == 0:
        return encode(np.zeros(len(labels), dtype))
    records = np.ascontiguousarray(values, "<i4").view(dtype)
    return encode(records.reshape(len(labels)))


def decode_labels(data: memoryview) -> Labels:
    """Labels from records of integers. Raises ``ValueError`` if damaged."""
    records = decode(data)
    names = records.dtype.names
    if names is None or records.ndim != 1:
        raise ValueError(
            f"labels must be a 1D array of records, got {records.dtype} with shape "
            f"{records.shape}"
        )
    types = {records.dtype[name] for name in names}
    if any(t.kind != "i" or t.itemsize != 4 for t in types):
        raise ValueError(f"labels must be records of 32-bit integers: {records.dtype}")
    if len(types) > 1 or records.dtype.itemsize != 4 * len(names):
        raise ValueError(f"the records have gaps or two byte orders: {records.dtype}")
    if len(names) == 0:
        return Labels([], np.zeros((len(records), 0), np.int32))
    values = records.view(types.pop()).reshape(len(records), len(names))
    return Labels(list(names), values)
