"""Files of gigabytes that take no room on the disk: zeros that were never written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap
from metatensor_jax.io import _archive, _npy

#: numbers in a row of the large block, and its rows: 10 GB
WIDTH, ROWS = 12_500, 100_000
#: its samples have the name that those of the small blocks have
LARGE = Labels.range("sample", ROWS)


class _Holes:
    """A file in which large writes leave a hole of the same size."""

    def __init__(self, file: object) -> None:
        self._file: object = file

    def write(self, data: bytes | _Zeros) -> None:
        if isinstance(data, _Zeros):
            self._file.seek(len(data), 1)  # type: ignore[attr-defined]
        else:
            self._file.write(data)  # type: ignore[attr-defined]


class _Zeros:
    """As many zeros, of which there are none."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def small_block(value: float) -> TensorBlock:
    return mts.block_from_array(np.full((3, WIDTH), float(value)))


def sparse_map(path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorMap:
    """Save a map of three blocks, the second of which has 10 GB of zeros.

    The checksum of these is wrong. Returns what the other two are.
    """
    keys = Labels("k", [[5], [6], [7]])
    crc32 = _archive.zlib.crc32
    with path.open("wb") as file, monkeypatch.context() as patch:
        patch.setattr(
            _archive.zlib,
            "crc32",
            lambda data, crc=0: 0 if isinstance(data, _Zeros) else crc32(data, crc),
        )
        writer = _archive.Writer(_Holes(file))  # type: ignore[arg-type]
        writer.add("keys.npy", *_npy.encode_labels(keys))
        for i in range(3):
            block = small_block(i)
            samples = LARGE if i == 1 else block.samples
            shape = (len(samples), WIDTH)
            values = _npy.encode_values(block.values)[1]
            if i == 1:
                values = _Zeros(8 * ROWS * WIDTH)
            header = _npy._make_header(np.dtype(float), shape)
            folder = f"blocks/{i}/"
            writer.add(f"{folder}values.npy", header, values, is_aligned=True)  # type: ignore[arg-type]
            writer.add(f"{folder}samples.npy", *_npy.encode_labels(samples))
            properties = _npy.encode_labels(block.properties)
            writer.add(f"{folder}properties.npy", *properties)
        writer.close()
    if path.stat().st_blocks * 512 > 1 << 28:
        pytest.skip("this file system has no holes")
    return TensorMap(Labels("k", [[5], [7]]), [small_block(0), small_block(2)])
