"""The members of an archive from maps, blocks and labels."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from .._types.block import TensorBlock
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._archive import Writer
from ._npy import Parts, encode_labels, encode_values, labels_encoder
from ._read import MAX_DEPTH


def write(file: Any, data: TensorMap | TensorBlock | Labels) -> None:
    """Write all of a file; values begin at multiples of 64 bytes."""
    if isinstance(data, Labels):
        for part in encode_labels(data):
            file.write(part)
        return
    if not isinstance(data, (TensorMap, TensorBlock)):
        raise TypeError(
            "`data` must be a metatensor_jax TensorMap, TensorBlock or Labels, not "
            f"{type_of(data, qualified=True)}"
        )
    with contextlib.closing(Writer(file)) as writer:
        encode = labels_encoder()
        if isinstance(data, TensorBlock):
            _write_block(writer, encode, "", data)
            return
        writer.add("keys.npy", *encode(data.keys))
        for i, block in enumerate(data):
            _write_block(writer, encode, f"blocks/{i}/", block)
        if data.info():
            info = json.dumps(data.info(), indent=2, ensure_ascii=False)
            writer.add("info.json", info.encode())


def _check_shape(folder: str, shape: tuple[int, ...], axes: list[Labels]) -> None:
    expected = tuple([len(labels) for labels in axes])
    if shape != expected:
        raise ValueError(
            f"can not save the block in '{folder}': its values have shape {shape}, but "
            f"its labels have {expected} entries. Is this a map that was stacked or "
            "batched by JAX? Save its parts"
        )


def _write_block(
    writer: Writer,
    encode: Callable[[Labels], Parts],
    folder: str,
    block: TensorBlock,
) -> None:
    """A block and its gradients, each in a folder of its own."""
    for path, part in block._walk():
        if len(path) > MAX_DEPTH:
            raise ValueError(
                f".mts files hold gradients {MAX_DEPTH} deep, not {len(path)}"
            )
        inside = folder + "".join([f"gradients/{name}/" for name in path])
        _write_part(writer, encode, inside, part, is_gradient=bool(path))


def _write_part(
    writer: Writer,
    encode: Callable[[Labels], Parts],
    folder: str,
    block: TensorBlock,
    is_gradient: bool,
) -> None:
    samples, components, properties = block.samples, block.components, block.properties
    _check_shape(folder, block.shape, [samples, *components, properties])
    # so that arrays of a mapped file are what JAX uses without a copy, on CPUs
    writer.add(f"{folder}values.npy", *encode_values(block.values), is_aligned=True)
    writer.add(f"{folder}samples.npy", *encode(samples))
    for i, labels in enumerate(components):
        writer.add(f"{folder}components/{i}.npy", *encode(labels))
    if not is_gradient:  # which has those of its values
        writer.add(f"{folder}properties.npy", *encode(properties))
