"""Maps, blocks and labels of metatensor-core in memory: there and back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from builders import Gradient, block, tensor
from files import (
    NESTED,
    OBJECTS,
    assert_identical,
    assert_same_bits,
    every_dtype,
    every_tensor,
)
from systems import hypers, molecule

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorMap, TracedLabelsError
from metatensor_jax._types import conversion
from metatensor_jax.interop import from_metatensor, to_metatensor

core: Any = pytest.importorskip("metatensor")


@pytest.fixture(autouse=True)
def _said(monkeypatch: pytest.MonkeyPatch) -> None:
    """That JAX would narrow float64 has been said: see the tests of that."""
    monkeypatch.setattr(conversion, "_SAID", ["float64"])


def address(values: Any) -> int:
    if isinstance(values, np.ndarray):
        return values.__array_interface__["data"][0]
    if hasattr(values, "data_ptr"):
        return values.data_ptr()
    return values.unsafe_buffer_pointer()


def leaf_addresses(tensor: TensorMap) -> list[int]:
    """Where the data is; the address of no numbers means nothing."""
    return [address(leaf) for leaf in jax.tree.leaves(tensor) if leaf.size]


def their_addresses(theirs: Any) -> list[int]:
    """Of values and gradients, in the order of our leaves."""
    if hasattr(theirs, "keys"):
        return [a for one in theirs.blocks() for a in their_addresses(one)]
    own = [address(theirs.values)] if 0 not in theirs.values.shape else []
    inside = [theirs.gradient(name) for name in sorted(theirs.gradients_list())]
    return [*own, *(a for one in inside for a in their_addresses(one))]


def with_alignment(tensor: TensorMap, offset: int) -> TensorMap:
    """The same values, which begin ``offset`` bytes behind a multiple of 64."""

    def moved(values: Any) -> np.ndarray:
        memory = np.zeros(values.nbytes + 64 + offset, np.uint8)
        start = -address(memory) % 64 + offset
        made = memory[start : start + values.nbytes].view(values.dtype)
        made = made.reshape(values.shape)
        made[...] = values
        return made

    return jax.tree.map(moved, tensor)


# === there and back ================================================================


@every_dtype
@every_tensor
def test_maps_come_back(make: Callable[..., TensorMap], dtype: str, x64: bool):
    ours = make(dtype=dtype)
    theirs = to_metatensor(ours)
    assert type(theirs) is core.TensorMap
    back = from_metatensor(theirs)
    assert_identical(back, ours)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(back))


@every_tensor
def test_what_metatensor_gets_is_what_it_reads_from_a_file(
    make: Callable[..., TensorMap],
):
    ours = make(dtype="float64")
    if len(ours) == 0:
        assert len(to_metatensor(ours).keys) == 0
        return
    by_file = core.io.load_buffer(ours.save_buffer())
    assert core.equal(to_metatensor(ours), by_file)
    assert to_metatensor(ours).info() == by_file.info()
    assert_identical(
        from_metatensor(by_file), mts.io.load_buffer(core.io.save_buffer(by_file))
    )


@pytest.mark.parametrize("kind", OBJECTS)
def test_each_type_comes_back(kind: str):
    ours = OBJECTS[kind][0]
    theirs = to_metatensor(ours)
    assert type(theirs) is getattr(core, type(ours).__name__)
    assert_identical(from_metatensor(theirs), ours)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_floats_of_jax(dtype: str):
    values = np.arange(6).reshape(3, 2).astype(getattr(ml_dtypes, dtype))
    for array in (values, jnp.asarray(values)):
        theirs = to_metatensor(mts.block_from_array(array))
        assert_same_bits(theirs.values, values)
        assert_same_bits(from_metatensor(theirs).values, values)


@every_dtype
def test_values_of_jax(dtype: str, x64: bool):
    ours = tensor(gradients=NESTED, dtype=dtype)
    if not x64 and np.dtype(dtype) != jax.dtypes.canonicalize_dtype(dtype):
        return  # JAX has no such array
    theirs = to_metatensor(ours.to("jax"))
    assert type(theirs.block_by_id(0).values) is np.ndarray
    assert_identical(from_metatensor(theirs), ours)


def test_labels_by_name_and_value():
    theirs = core.Labels(["a", "b"], np.array([[5, -(2**31)], [2**31 - 1, 0]]))
    ours = from_metatensor(theirs)
    assert ours.names == theirs.names
    assert ours.position((2**31 - 1, 0)) == 1
    assert to_metatensor(ours) == theirs
    nothing = Labels([], np.zeros((0, 0), np.int32))
    assert_identical(from_metatensor(to_metatensor(nothing)), nothing)


def test_equal_labels_are_shared():
    back = from_metatensor(to_metatensor(tensor((3, 3, 3), (2,), gradients=NESTED)))
    first, second, *_ = back
    assert first.samples is second.samples
    assert first.components[0] is second.components[0]
    assert first.properties is second.gradient("positions").properties


def test_results_are_used_by_programs(compiled: Callable[[], int]):
    ours = tensor(gradients=NESTED).to("jax")
    program = jax.jit(lambda x: mts.multiply(x, 2.0))
    expected = program(ours)
    compiled()
    found = program(from_metatensor(to_metatensor(ours)))
    assert compiled() == 0
    assert_identical(found.to("numpy"), expected.to("numpy"))


@pytest.mark.parametrize("x64", [True], ids=["x64"], indirect=True)
def test_metatensor_computes_with_ours(x64: bool):
    ours = tensor(gradients={"x": Gradient()}, dtype="float64")
    theirs = core.multiply(to_metatensor(ours), 2.0)
    assert mts.allclose(from_metatensor(theirs), mts.multiply(ours, 2.0))


# === memory ========================================================================


@pytest.mark.parametrize("offset", [0, 1, 8, 32])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "complex64"])
def test_nothing_is_copied(dtype: str, offset: int):
    ours = with_alignment(tensor(gradients=NESTED, dtype=dtype), offset)
    theirs = to_metatensor(ours)
    assert their_addresses(theirs) == leaf_addresses(ours)
    assert leaf_addresses(from_metatensor(theirs)) == leaf_addresses(ours)


@pytest.mark.parametrize(("offset", "shared"), [(0, True), (64, True), (16, False)])
def test_jax_shares_aligned_memory(offset: int, shared: bool):
    theirs = to_metatensor(with_alignment(tensor((100,), n_properties=50), offset))
    ours = from_metatensor(theirs).to("jax")
    assert (leaf_addresses(ours) == their_addresses(theirs)) is shared
    # and a JAX array on the CPU is shared in any case
    assert their_addresses(to_metatensor(ours)) == leaf_addresses(ours)


def test_strides_are_kept():
    labels = core.Labels.range("s", 4), core.Labels.range("p", 3)
    counted = np.arange(24.0).reshape(6, 4)
    for values in (counted.T[:, ::2], counted[::-1].T[:, :3], counted[:4, :3]):
        theirs = core.TensorBlock(values, labels[0], [], labels[1])
        ours = from_metatensor(theirs)
        assert_same_bits(ours.values, values)
        assert ours.values.strides == values.strides
        assert_same_bits(to_metatensor(ours).values, values)


def test_the_other_byte_order_is_copied():
    labels = core.Labels.range("s", 2), core.Labels.range("p", 1)
    values = np.array([[1.5], [2.5]], ">f8")
    ours = from_metatensor(core.TensorBlock(values, labels[0], [], labels[1]))
    assert_same_bits(ours.values, values.astype("f8"))


def test_memory_is_shared_both_ways_unless_copied():
    values = np.ones((2, 1))
    labels = core.Labels.range("s", 2), core.Labels.range("p", 1)
    theirs = core.TensorBlock(values, labels[0], [], labels[1])
    shared, own = from_metatensor(theirs), from_metatensor(theirs, copy=True)
    theirs.values[0] = 5
    assert (shared.values[0, 0], own.values[0, 0]) == (5, 1)
    assert not own.values.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        shared.values[0] = 3
    with pytest.raises(ValueError, match="read-only"):
        to_metatensor(shared).values[0] = 3
    given = to_metatensor(shared, copy=True)
    given.values[0] = 7
    assert shared.values[0, 0] == 5


def test_memory_of_rust_lives_as_long_as_ours():
    featomic = pytest.importorskip("featomic")
    pytest.importorskip("ase")
    frames = [molecule("CH3CH2OH")] * 4
    calculator = featomic.SoapPowerSpectrum(**hypers(3.0))

    def computed() -> tuple[TensorMap, bytes]:
        theirs = calculator.compute(frames, gradients=["positions"])
        assert type(theirs.block_by_id(0).values) is core.ExternalCpuArray
        return from_metatensor(theirs), bytes(theirs.save_buffer())

    results = [computed() for _ in range(3)]
    gc.collect()
    _ = [np.full((500, 300), np.nan) for _ in range(100)]  # over freed memory
    for ours, saved in results:
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(ours))
        assert_identical(ours, mts.io.load_buffer(saved))


def test_blocks_are_views_that_keep_their_map():
    values = np.arange(4.0).reshape(2, 2)
    labels = core.Labels.range("s", 2), core.Labels.range("p", 2)
    made = core.TensorBlock(values.copy(), labels[0], [], labels[1])
    ours = from_metatensor(core.TensorMap(core.Labels.single(), [made]).block())
    gc.collect()
    assert_same_bits(ours.values, values)


# === 64-bit numbers ================================================================


def test_wide_numbers_stay_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, x64: bool
):
    monkeypatch.setattr(conversion, "_SAID", [])
    wide = to_metatensor(tensor(dtype="float64", gradients=NESTED))
    narrow = to_metatensor(tensor(dtype="float32"))
    from_metatensor(narrow)
    if x64:
        assert_identical(
            from_metatensor(wide), tensor(dtype="float64", gradients=NESTED)
        )
        return
    with pytest.warns(UserWarning, match="float64 as a NumPy array") as said:
        ours = from_metatensor(wide)
    assert len(said) == 1
    assert said[0].filename == __file__
    text = str(said[0].message)
    assert "`jax.config.update('jax_enable_x64', True)`" in text
    assert "`.to(dtype='float32')`" in text
    assert_identical(ours, tensor(dtype="float64", gradients=NESTED))
    from_metatensor(wide)  # a second warning would be an error
    from_metatensor(to_metatensor(tensor(dtype="int64")))
    with pytest.raises(TypeError, match="would narrow it to float32"):
        ours.to("jax")


# === what can not be converted =====================================================


def padded() -> mts.PaddedBatch:
    tensor_ = tensor()
    return mts.Layout.fit([tensor_], systems=2).pad(tensor_)


def in_a_program(function: Callable[[Any], Any]) -> None:
    ours = tensor(gradients=NESTED).to("jax")
    jax.jit(lambda x: function(x) and x)(ours)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "ours from": (
        lambda: from_metatensor(tensor()),
        TypeError,
        r"of metatensor-core or metatensor-torch, not metatensor_jax.TensorMap$",
    ),
    "array from": (
        lambda: from_metatensor(np.ones(3)),
        TypeError,
        r"`data` must be .*, not numpy.ndarray$",
    ),
    "entry from": (
        lambda: from_metatensor(core.Labels.range("s", 2)[0]),
        TypeError,
        r"not metatensor.LabelsEntry$",
    ),
    "moved block": (lambda: from_metatensor(moved_block()), ValueError, "released"),
    "theirs to": (
        lambda: to_metatensor(core.Labels.range("s", 2)),
        TypeError,
        r"not metatensor.Labels: convert it with `metatensor_jax.interop.from_meta",
    ),
    "list to": (lambda: to_metatensor([tensor()]), TypeError, "not builtins.list$"),
    "padded batch": (
        lambda: to_metatensor(padded()),
        TypeError,
        r"PaddedBatch: undo the padding first, `layout.unpad\(batch\)`",
    ),
    "padded map": (
        lambda: to_metatensor(padded().tensors),
        TracedLabelsError,
        r"to_metatensor needs the values of the labels \[system, atom\]",
    ),
    "stacked": (
        lambda: to_metatensor(mts.stack_blocks(tensor())),
        TypeError,
        r"StackedMap: take its blocks apart first, `stacked.unstack\(\)`",
    ),
    "traced labels": (
        lambda: to_metatensor(Labels.traced("a", np.zeros((1, 1), np.int32))),
        TracedLabelsError,
        r"to_metatensor needs the values of the labels \[a\]",
    ),
    "traced gradient": (
        lambda: to_metatensor(
            block().with_gradient(
                "g",
                next(
                    iter(block(traced=True, gradients={"g": Gradient(())}).gradients())
                )[1],
            )
        ),
        TracedLabelsError,
        r"to_metatensor needs the values of the labels \[sample, other\]",
    ),
    "in a program": (
        lambda: in_a_program(to_metatensor),
        TypeError,
        r"values of the block \(o3_lambda=0, center_type=0\) are traced: they are only",
    ),
    "block in a program": (
        lambda: in_a_program(lambda x: to_metatensor(x.block_by_id(0))),
        TypeError,
        "values of the block are traced",
    ),
    "batched": (
        lambda: to_metatensor(jax.tree.map(lambda x: x[None], tensor())),
        MetatensorError,
        "Maps that are stacked for `jax.vmap`",
    ),
    "no arrays": (
        lambda: to_metatensor(jax.tree.map(lambda x: None, tensor())),
        TypeError,
        "must be an array, not builtins.NoneType",
    ),
    "shapes": (
        lambda: to_metatensor(jax.eval_shape(lambda x: x, tensor())),
        TypeError,
        "must be an array, not jax.*ShapeDtypeStruct",
    ),
    "package": (
        lambda: to_metatensor(tensor(), package="equistore"),  # type: ignore[arg-type]
        MetatensorError,
        "`package` must be 'core' or 'torch', not 'equistore'",
    ),
    "arrays": (
        lambda: to_metatensor(tensor(), arrays="jax"),  # type: ignore[arg-type]
        MetatensorError,
        "`arrays` must be 'numpy' or 'torch', not 'jax'",
    ),
    "numpy in torch": (
        lambda: to_metatensor(tensor(), package="torch", arrays="numpy"),
        MetatensorError,
        "metatensor-torch has PyTorch's tensors only",
    ),
}


def moved_block() -> Any:
    made = to_metatensor(block())
    core.TensorMap(core.Labels.single(), [made])
    return made


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as error:
        call()
    assert type(error.value) is kind


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    for module, package, extra in (
        ("metatensor", "core", "interop"),
        ("metatensor.torch", "torch", "interop-torch"),
    ):
        monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
        with pytest.raises(
            ModuleNotFoundError, match=rf"`pip install 'metatensor-jax\[{extra}\]'`"
        ):
            to_metatensor(tensor(), package=package)  # type: ignore[arg-type]


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, metatensor_jax as mts\n"
        "mts.interop.from_metatensor, mts.interop.to_metatensor\n"
        "print({'metatensor', 'torch', 'metatensor_torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_values_on_several_devices():
    code = """
import jax, numpy as np, metatensor_jax as mts
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
devices = jax.devices()
assert len(devices) == 2
block = mts.block_from_array(np.arange(8, dtype=np.float32).reshape(4, 2))
rows = NamedSharding(Mesh(np.array(devices), ("x",)), P("x"))
for where in (devices[1], rows):
    placed = block.to("jax", device=where)
    theirs = mts.interop.to_metatensor(placed)
    assert (theirs.values == block.values).all()
    assert mts.equal_block(mts.interop.from_metatensor(theirs), block)
"""
    run_with_two_devices(code)


def run_with_two_devices(code: str) -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **flags, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
