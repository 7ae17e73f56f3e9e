"""Maps of thousands of small blocks, and maps with next to nothing in them."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from builders import Gradient, block, tensor
from files import assert_identical, zipped

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap, io as mio


def many_blocks(n: int, depth: int = 0) -> TensorMap:
    """Blocks that have samples of their own, and share all other labels."""
    columns = Labels.range("p", 2)
    blocks = []
    for i in range(n):
        samples = Labels("s", [[i], [i + 1]])
        made = TensorBlock(np.full((2, 2), float(i)), samples, [], columns)
        if depth:
            rows = Labels(["sample", "i"], [[0, i], [1, i]])
            part = TensorBlock(np.ones((2, 2)), rows, [], columns)
            if depth > 1:
                part = part.with_gradient("y", part)
            made = made.with_gradient("x", part)
        blocks.append(made)
    return TensorMap(Labels.range("key", n), blocks)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_thousands_of_blocks(depth: int):
    saved = many_blocks(2000, depth)
    loaded = mio.load_buffer(mio.save_buffer(saved))
    assert_identical(loaded, saved)
    assert loaded == saved


NOTHING = Labels([], np.zeros((1, 0), np.int32))
SMALL: dict[str, TensorMap] = {
    "no blocks": TensorMap(Labels.empty(["a", "b"]), []),
    "no blocks, no names": TensorMap(Labels([], np.zeros((0, 0), np.int32)), []),
    "info alone": TensorMap(Labels.empty("a"), [], {"a": "b"}),
    "key without names": TensorMap(NOTHING, [block()]),
    "labels without names": TensorMap(
        Labels.single(), [TensorBlock(np.ones((1, 1)), NOTHING, [], NOTHING)]
    ),
    "no rows": TensorMap(
        Labels.single(), [block(0, gradients={"x": Gradient((3,), [])})]
    ),
    "no values": TensorMap(
        Labels.single(),
        [TensorBlock(np.ones((0, 0)), Labels.empty("s"), [], Labels.empty("p"))],
    ),
}


@pytest.mark.parametrize("saved", SMALL.values(), ids=SMALL)
def test_small_maps(saved: TensorMap):
    content = mio.save_buffer(saved)
    assert_identical(mio.load_buffer(content), saved)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    packed = zipped(*members, compression=zipfile.ZIP_DEFLATED)
    assert_identical(mio.load_buffer(packed), saved)


def test_gradients_of_gradients_with_odd_names():
    # names that are no identifiers take another way, and so do many rows
    inner = {"1 2": Gradient((), [*range(4)] * 100)}
    gradients = {"a b": Gradient((), [0, 1, 2, 2], inner), "ü": Gradient((), [1])}
    saved = tensor((3, 4), (2,), gradients=gradients)
    assert_identical(mio.load_buffer(mio.save_buffer(saved)), saved)


def test_loaded_labels_do_not_keep_the_buffer():
    content = bytes(mio.save_buffer(mts.block_from_array(np.ones((2, 3)))))
    loaded = mio.load_block_buffer(content)
    for labels in (loaded.samples, loaded.properties):
        base: Any = labels.values
        while isinstance(base, np.ndarray):
            base = base.base
        assert base is None or len(base) < len(content)
        assert not labels.values.flags.writeable
