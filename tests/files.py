"""What the tests of files share: what to save, and what it must be afterwards."""

from __future__ import annotations

import io
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from builders import Gradient, block, tensor

from metatensor_jax import Labels, TensorBlock, TensorMap, io as mio

INFO = {"näme": "Österreich, 東京, \U0001f9ea", 'a "b"\\\n': "", "": "x\ty"}
NESTED = {"positions": Gradient((3,), [2, 0], {"cell": Gradient((3, 3), [1])})}
#: the header of the samples is longer than 256 bytes, and needs two bytes of length
MANY = [f"a_dimension_with_a_long_name_{i}" for i in range(40)]

#: every kind of map; dtype and kind of array are chosen by the tests
TENSORS: dict[str, Callable[..., TensorMap]] = {
    "plain": tensor,
    "components": lambda **options: tensor(components=(3, 2), **options),
    "gradient": lambda **options: tensor(gradients={"x": Gradient()}, **options),
    "two gradients": lambda **options: tensor(
        (3, 0, 4),
        (2,),
        gradients={"strain": Gradient((3, 3)), "über": Gradient((), [1])},
        **options,
    ),
    "nested": lambda **options: tensor((3, 1), (2,), gradients=NESTED, **options),
    "info": lambda **options: tensor(info=INFO, **options),
    "no rows": lambda **options: tensor(
        (0, 2), (2,), gradients={"x": Gradient((3,), [])}, **options
    ),
    "no properties": lambda **options: tensor(n_properties=0, **options),
    "many dimensions": lambda **options: with_many_dimensions(**options),
    "one block": lambda **options: tensor((5,), keys=Labels.single(), **options),
    "no blocks": lambda **options: tensor((), **options),
}
every_tensor = pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
    *("uint64", "float16", "float32", "float64", "complex64", "complex128"),
)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

#: an object of each type that can be saved, and the functions to load it
OBJECTS = {
    "map": (
        tensor(gradients=NESTED, info={"näme": INFO["näme"]}),
        mio.load,
        mio.load_buffer,
    ),
    "block": (block(gradients=NESTED), mio.load_block, mio.load_block_buffer),
    "labels": (
        Labels(["a", "b"], [[5, -(2**31)], [2**31 - 1, 0]]),
        mio.load_labels,
        mio.load_labels_buffer,
    ),
}
every_object = pytest.mark.parametrize(
    ("data", "load", "load_buffer"), OBJECTS.values(), ids=OBJECTS
)


def with_many_dimensions(**options: Any) -> TensorMap:
    samples = Labels(MANY, np.arange(120).reshape(3, 40))
    only = tensor((3,), **options).block()
    wide = TensorBlock(only.values, samples, [], only.properties)
    return TensorMap(Labels(MANY, np.arange(40).reshape(1, 40)), [wide])


def assert_identical(actual: Any, expected: Any) -> None:
    """The same type and metadata, info included, and values with the same bits."""
    if isinstance(expected, Labels):
        assert type(actual) is Labels
        assert actual.names == expected.names
        assert_same_bits(actual.values, expected.values)
        return
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for one, other in leaves:
        assert_same_bits(one, other)


def assert_same_bits(actual: Any, expected: Any) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(*members: tuple[str, bytes], **options: Any) -> bytes:
    """These members as an archive that Python's ``zipfile`` makes."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", **options) as archive:
        warnings.simplefilter("ignore")  # about names that are there twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, archive.compression)
    return file.getvalue()


def owner(array: np.ndarray) -> Any:
    """What holds the memory of an array."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def peak_memory(function: Callable[[], Any]) -> tuple[Any, int]:
    """What a function returns, and the most bytes it held at a time."""
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
