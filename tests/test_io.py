"""Files: round trips, also through metatensor; atomic writing."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, tensor
from files import (
    DTYPES,
    MANY,
    NESTED,
    assert_identical,
    assert_same_bits,
    every_dtype,
    every_object,
    every_tensor,
)
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as st_numpy

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap, TracedLabelsError, io as mio
from metatensor_jax.io import _archive

# --- our own round trips -----------------------------------------------------------


@every_dtype
@every_tensor
def test_round_trip(make: Callable[..., TensorMap], dtype: str):
    saved = make(dtype=dtype)
    assert_identical(mio.load_buffer(mio.save_buffer(saved)), saved)


@every_tensor
def test_jax_values_are_saved_and_read_as_numpy(
    make: Callable[..., TensorMap], x64: bool
):
    dtype = "float64" if x64 else "float32"
    saved = make(dtype=dtype, arrays="jax")
    loaded = mio.load_buffer(mio.save_buffer(saved))
    assert_identical(loaded, saved)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded))


def test_64_bit_files_stay_as_they_are_in_both_modes(x64: bool):
    saved = tensor(dtype="float64", gradients=NESTED)
    loaded = mio.load_buffer(mio.save_buffer(saved))
    assert_identical(loaded, saved)
    if not x64:
        with pytest.raises(TypeError, match="32-bit mode"):
            loaded.to("jax")


def test_special_numbers_keep_their_bits():
    bits = [0x7FF8000000000001, 0xFFF0DEADBEEF0000, 1 << 63, 1, 0x7FF0000000000000]
    values = np.array([bits], np.uint64).view(np.float64)
    saved = mts.block_from_array(values)
    assert_same_bits(mio.load_block_buffer(mio.save_buffer(saved)).values, values)


@pytest.mark.parametrize(
    "values",
    [
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24.0).reshape(6, 4)[::2],
        np.arange(12.0).reshape(3, 4)[:, ::-1],
        np.arange(12.0).reshape(3, 4).astype(">f8"),
        np.broadcast_to(np.arange(4.0), (3, 4)),
    ],
    ids=["fortran", "strided", "reversed", "big-endian", "broadcast"],
)
def test_any_memory_layout_can_be_saved(values: np.ndarray):
    saved = mio.save_buffer(mts.block_from_array(values))
    assert_same_bits(mio.load_block_buffer(saved).values, values.astype("<f8"))


@pytest.mark.parametrize(
    "labels",
    [
        Labels.single(),
        Labels.empty("a"),
        Labels([], np.zeros((0, 0), np.int32)),
        Labels([], np.zeros((1, 0), np.int32)),
        Labels(MANY, np.arange(400).reshape(10, 40)),
        Labels("x", [[-(2**31)], [2**31 - 1]]),
    ],
    ids=["single", "empty", "no dimensions", "one empty row", "many", "limits"],
)
def test_labels_round_trip(labels: Labels):
    assert_identical(mio.load_labels_buffer(mio.save_buffer(labels)), labels)


def test_members_and_dates_are_those_of_metatensor():
    saved = tensor((2,), (2,), gradients=NESTED, info={"a": "b"})
    with zipfile.ZipFile(io.BytesIO(mio.save_buffer(saved))) as archive:
        members = archive.infolist()
    gradient = "blocks/0/gradients/positions"
    assert [member.filename for member in members] == [
        "keys.npy",
        *(f"blocks/0/{name}.npy" for name in ("values", "samples", "components/0")),
        "blocks/0/properties.npy",
        *(f"{gradient}/{name}.npy" for name in ("values", "samples")),
        *(f"{gradient}/components/{i}.npy" for i in range(2)),
        *(f"{gradient}/gradients/cell/{x}.npy" for x in ("values", "samples")),
        *(f"{gradient}/gradients/cell/components/{i}.npy" for i in range(4)),
        "info.json",
    ]
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}
    assert {member.date_time for member in members} == {(2000, 1, 1, 0, 0, 0)}


@every_object
def test_equal_data_makes_equal_files(data: Any, load: Any, load_buffer: Any):
    assert mio.save_buffer(pickle.loads(pickle.dumps(data))) == mio.save_buffer(data)


def test_order_of_gradients_and_info_does_not_matter():
    gradients = {"b": Gradient(()), "a": Gradient(())}
    made = block(gradients=gradients)
    plain = mts.remove_gradients_block(made)
    parts = dict(made.gradients())
    files = set()
    for order in (["a", "b"], ["b", "a"]):
        one = plain
        for name in order:
            one = one.with_gradient(name, parts[name])
        both = TensorMap(Labels.single(), [one], dict.fromkeys(order, "x"))
        files.add(bytes(mio.save_buffer(both)))
    assert len(files) == 1


# --- Hypothesis --------------------------------------------------------------------

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
parameters = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda name: name not in (".", ".."))


@st.composite
def labels(draw: st.DrawFn, dimensions: list[str], rows: int | None = None) -> Labels:
    """Labels with these dimensions and any entries."""
    rows = draw(st.integers(0, 4)) if rows is None else rows
    values = draw(
        st_numpy.arrays(np.int32, (rows, len(dimensions)), fill=st.nothing()).filter(
            lambda array: len({*map(tuple, array.tolist())}) == rows
        )
    )
    return Labels(dimensions, values)


@st.composite
def blocks(
    draw: st.DrawFn,
    dtype: np.dtype,
    dimensions: list[list[str]],
    gradients: list[str],
) -> TensorBlock:
    """A block with these names of samples, properties and components, any bits."""
    samples, properties = (draw(labels(axis)) for axis in dimensions[:2])
    components = [draw(labels([name])) for name in dimensions[2]]

    def values(*axes: Labels) -> np.ndarray:
        bits = draw(st.randoms(use_true_random=False)).randbytes(
            dtype.itemsize * int(np.prod([len(axis) for axis in axes]))
        )
        flat = np.frombuffer(bits, np.uint8)
        flat = (flat % 2).view(dtype) if dtype.kind == "b" else flat.view(dtype)
        return flat.reshape([len(axis) for axis in axes])

    made = TensorBlock(
        values(samples, *components, properties), samples, components, properties
    )
    for name in gradients:
        rows = draw(st.integers(0, 3)) if len(samples) else 0
        parents = [draw(st.integers(0, len(samples) - 1)) for _ in range(rows)]
        entries = Labels(
            ["sample", "x"],
            np.array([*zip(parents, range(rows), strict=True)], int).reshape(-1, 2),
        )
        array = values(entries, *components, properties)
        made = made.with_gradient(
            name, TensorBlock(array, entries, components, properties)
        )
    return made


@st.composite
def maps(draw: st.DrawFn) -> TensorMap:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    dimensions = [
        draw(st.lists(names, min_size=1, max_size=3, unique=True)) for _ in range(2)
    ]
    dimensions.append(draw(st.lists(names, max_size=2, unique=True)))
    gradients = draw(st.lists(parameters, max_size=2, unique=True))
    keys = draw(labels(draw(st.lists(names, min_size=1, max_size=2, unique=True))))
    parts = [draw(blocks(dtype, dimensions, gradients)) for _ in range(len(keys))]
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    return TensorMap(keys, parts, draw(st.dictionaries(texts, texts, max_size=2)))


@given(maps())
def test_random_maps_round_trip(saved: TensorMap):
    assert_identical(mio.load_buffer(mio.save_buffer(saved)), saved)


# --- paths, files, buffers, methods ------------------------------------------------


@every_object
@pytest.mark.parametrize("kind", [str, Path])
def test_paths(tmp_path: Path, kind: Any, data: Any, load: Any, load_buffer: Any):
    path = kind(tmp_path / "x.mts")
    assert mio.save(path, data) is None
    assert_identical(load(path), data)
    assert Path(path).read_bytes() == mio.save_buffer(data)


@every_object
def test_open_files(tmp_path: Path, data: Any, load: Any, load_buffer: Any):
    path = tmp_path / "without suffix"
    with path.open("wb") as file:
        mio.save(file, data)
    with path.open("rb") as file:
        assert_identical(load(file), data)
    memory = io.BytesIO()
    mio.save(memory, data)
    memory.seek(0)
    assert_identical(load(memory), data)
    assert [*tmp_path.iterdir()] == [path]


@every_object
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.frombuffer])
def test_buffers(kind: Any, data: Any, load: Any, load_buffer: Any):
    saved = mio.save_buffer(data)
    assert type(saved) is memoryview
    buffer = kind(saved, np.uint8) if kind is np.frombuffer else kind(saved)
    assert_identical(load_buffer(buffer), data)


@every_object
def test_methods(tmp_path: Path, data: Any, load: Any, load_buffer: Any):
    path = tmp_path / "x.mts"
    data.save(path)
    assert_identical(type(data).load(path), data)
    assert data.save_buffer() == path.read_bytes()
    assert_identical(type(data).load_buffer(data.save_buffer()), data)


@every_object
def test_use_numpy_is_accepted(tmp_path: Path, data: Any, load: Any, load_buffer: Any):
    mio.save(tmp_path / "x.mts", data, use_numpy=True)
    assert mio.save_buffer(data, use_numpy=True) == (tmp_path / "x.mts").read_bytes()
    if not isinstance(data, Labels):
        assert_identical(load(tmp_path / "x.mts", use_numpy=True), data)
        assert_identical(load_buffer(mio.save_buffer(data), use_numpy=True), data)


@every_object
def test_text_files_are_refused(tmp_path: Path, data: Any, load: Any, load_buffer: Any):
    path = tmp_path / "x.mts"
    mio.save(path, data)
    with path.open("r") as file, pytest.raises(TypeError, match="'rb'"):
        load(file)
    text: Any = path.open("w")
    with text as file, pytest.raises(TypeError):
        mio.save(file, data)
    with pytest.raises(TypeError):
        load_buffer("text")


@pytest.mark.parametrize("wrong", [None, "x", {}, [block()], np.zeros(3), Labels])
def test_other_types_are_refused(tmp_path: Path, wrong: Any):
    with pytest.raises(TypeError, match="must be a metatensor_jax TensorMap"):
        mio.save(tmp_path / "x.mts", wrong)
    with pytest.raises(TypeError, match="must be a metatensor_jax TensorMap"):
        mio.save_buffer(wrong)
    assert [*tmp_path.iterdir()] == []


def test_dtypes_that_the_format_does_not_have():
    values = jnp.ones((2, 1), jnp.bfloat16)
    with pytest.raises(TypeError, match="bfloat16"):
        mio.save_buffer(mts.block_from_array(values))


@pytest.mark.parametrize("make", [block, tensor])
def test_traced_labels_can_not_be_saved(make: Any):
    with pytest.raises(TracedLabelsError, match="saving labels"):
        mio.save_buffer(make(traced=True))


def test_what_is_saved_can_be_loaded_however_deep():
    nested = {"x": Gradient((), [0])}
    for _ in range(15):
        nested = {"x": Gradient((), [0], nested)}
    saved = block(gradients=nested)
    assert_identical(mio.load_block_buffer(mio.save_buffer(saved)), saved)
    with pytest.raises(ValueError, match="16 deep"):
        mio.save_buffer(block(gradients={"x": Gradient((), [0], nested)}))


# --- atomic writing ----------------------------------------------------------------


def fail_in_write(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> TensorMap:
    add, calls = _archive.Writer.add, []

    def failing(self: Any, name: str, *parts: Any, **options: Any) -> None:
        calls.append(name)
        if len(calls) == 5:
            raise error
        add(self, name, *parts, **options)

    monkeypatch.setattr(_archive.Writer, "add", failing)
    return tensor()


def fail_at_the_end(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> TensorMap:
    def failing(self: Any) -> None:
        raise error

    monkeypatch.setattr(_archive.Writer, "close", failing)
    return tensor()


def second_block_is_traced(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> TensorMap:
    return TensorMap(Labels.range("i", 2), [block(), block(traced=True)])


FAILURES = {
    "disk full": (fail_in_write, OSError("disk full")),
    "interrupted": (fail_in_write, KeyboardInterrupt()),
    "at the end": (fail_at_the_end, OSError("disk full")),
    "traced": (second_block_is_traced, TracedLabelsError("", [])),
}
every_failure = pytest.mark.parametrize(
    ("prepare", "error"), FAILURES.values(), ids=FAILURES
)


@every_failure
@pytest.mark.parametrize("exists", [False, True])
def test_files_are_complete_or_not_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Any,
    error: Any,
    exists: Any,
):
    path = tmp_path / "x.mts"
    if exists:
        path.write_bytes(b"before")
    broken = prepare(monkeypatch, error)
    with pytest.raises(type(error)):
        mio.save(path, broken)
    assert [*tmp_path.iterdir()] == [path] * exists
    assert not exists or path.read_bytes() == b"before"


@every_failure
def test_open_files_get_all_or_nothing(
    monkeypatch: pytest.MonkeyPatch, prepare: Any, error: Any
):
    file = io.BytesIO()
    broken = prepare(monkeypatch, error)
    with pytest.raises(type(error)):
        mio.save(file, broken)
    assert file.getvalue() == b""


def test_a_file_is_replaced_by_a_complete_one(tmp_path: Path):
    path = tmp_path / "x.mts"
    path.write_bytes(b"before")
    mio.save(path, tensor())
    assert_identical(mio.load(path), tensor())
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x", "x.mts"), ("x.npz", "x.npz.mts"), ("x.mts.gz", "x.mts.gz.mts")],
)
def test_suffix_is_added_with_a_warning(tmp_path: Path, name: str, expected: str):
    with pytest.warns(UserWarning, match=r"adding '\.mts'.*" + expected) as warned:
        mio.save(tmp_path / name, tensor())
    assert warned[0].filename == __file__
    assert [path.name for path in tmp_path.iterdir()] == [expected]
    assert_identical(mio.load(tmp_path / expected), tensor())
