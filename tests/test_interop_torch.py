"""Objects of metatensor-core with PyTorch's values, and of metatensor-torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import block, enable_x64, tensor
from files import (
    DTYPES,
    NESTED,
    OBJECTS,
    assert_identical,
    assert_same_bits,
    every_tensor,
)
from scripted import metatensor_torch
from test_interop_metatensor import (
    address,
    leaf_addresses,
    run_with_two_devices,
    their_addresses,
    with_alignment,
)

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorMap
from metatensor_jax._types import conversion
from metatensor_jax.interop import from_metatensor, to_metatensor

torch: Any = pytest.importorskip("torch")
core: Any = pytest.importorskip("metatensor")
scripted = metatensor_torch()

PACKAGES = ("core", "torch")
#: metatensor has no name for other unsigned integers of PyTorch
TORCH_DTYPES = [d for d in DTYPES if d not in ("uint16", "uint32", "uint64")]
every_torch_dtype = pytest.mark.parametrize("dtype", [*TORCH_DTYPES, "bfloat16"])
every_package = pytest.mark.parametrize("package", PACKAGES)


@pytest.fixture(autouse=True)
def _said(monkeypatch: pytest.MonkeyPatch) -> None:
    """That JAX would narrow float64 has been said."""
    monkeypatch.setattr(conversion, "_SAID", ["float64"])


def skip_without(dtype: str) -> None:
    """Skip where JAX does not have a dtype in DLPack, as 0.4.38 has no float8."""
    try:
        jnp.zeros(1, dtype).__dlpack__()
    except RuntimeError as error:
        pytest.skip(f"{dtype} in JAX {jax.__version__}: {error}")


def converted(ours: Any, package: Any, **options: Any) -> Any:
    return to_metatensor(ours, package=package, arrays="torch", **options)


# === there and back ================================================================


@every_package
@every_torch_dtype
@every_tensor
def test_maps_come_back(make: Callable[..., TensorMap], dtype: str, package: str):
    ours = make(dtype=dtype)
    theirs = converted(ours, package)
    assert all(isinstance(one.values, torch.Tensor) for one in theirs.blocks())
    back = from_metatensor(theirs)
    assert_identical(back, ours)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(back))


@every_package
@pytest.mark.parametrize("kind", OBJECTS)
def test_each_type_comes_back(kind: str, package: str):
    ours = OBJECTS[kind][0]
    assert_identical(from_metatensor(converted(ours, package)), ours)


@every_package
@every_torch_dtype
def test_values_of_jax(dtype: str, package: str, x64: bool):
    ours = tensor(gradients=NESTED, dtype=dtype)
    if not x64 and np.dtype(dtype) != jax.dtypes.canonicalize_dtype(dtype):
        return  # JAX has no such array
    placed = ours.to("jax")
    theirs = converted(placed, package)
    assert their_addresses(theirs) == leaf_addresses(placed)
    assert_identical(from_metatensor(theirs), ours)


@every_package
@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_narrow_floats(package: str, dtype: str, arrays: str):
    skip_without(dtype)
    values = jnp.arange(6, dtype=np.float32).reshape(3, 2).astype(dtype)
    ours = mts.block_from_array(values).to(arrays=arrays)
    theirs = converted(ours, package)
    assert theirs.values.dtype == getattr(torch, dtype)
    assert theirs.values.float().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert_same_bits(from_metatensor(theirs).values, values)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_reads_and_makes_them():
    class Twice(torch.nn.Module):
        def forward(self, x: scripted.TensorMap) -> scripted.TensorMap:
            return scripted.multiply(x, 2.0)

    ours = tensor()
    module = torch.jit.script(Twice())
    back = from_metatensor(module(to_metatensor(ours, package="torch")))
    assert mts.equal(back, mts.multiply(ours, 2.0).to("numpy"))


def test_metatensor_torch_saves_ours(tmp_path: Path):
    ours = tensor((3, 0), (2,), gradients=NESTED, dtype="float64", info={"a": "ü"})
    scripted.save(str(tmp_path / "x.mts"), to_metatensor(ours, package="torch"))
    assert_identical(mts.load(tmp_path / "x.mts"), ours)
    assert_identical(from_metatensor(scripted.load(str(tmp_path / "x.mts"))), ours)


def test_labels_of_torch():
    theirs = core.Labels(["a"], torch.tensor([[3], [1]], dtype=torch.int32))
    assert_identical(from_metatensor(theirs), Labels("a", [[3], [1]]))
    values = torch.tensor([[1, 2], [3, 4]])
    theirs = scripted.Labels(["a", "b"], values)
    assert_identical(from_metatensor(theirs), Labels(["a", "b"], [[1, 2], [3, 4]]))
    # our labels, which never change, do not share memory that PyTorch can write to
    given = to_metatensor(from_metatensor(theirs), package="torch")
    given.values[0] = 7
    assert from_metatensor(theirs).values[0].tolist() == [1, 2]


# === memory ========================================================================


@every_package
@pytest.mark.parametrize("offset", [0, 8, 32])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "complex64"])
def test_nothing_is_copied(dtype: str, offset: int, package: str):
    ours = with_alignment(tensor(gradients=NESTED, dtype=dtype), offset)
    theirs = converted(ours, package)
    assert their_addresses(theirs) == leaf_addresses(ours)
    assert leaf_addresses(from_metatensor(theirs)) == leaf_addresses(ours)


@every_package
@pytest.mark.parametrize(("offset", "shared"), [(0, True), (32, False), (2, False)])
def test_bfloat16_is_shared_if_it_is_aligned(offset: int, shared: bool, package: str):
    values = jnp.arange(1000, dtype=np.float32).astype("bfloat16").reshape(100, 10)
    ours = TensorMap(Labels.single(), [mts.block_from_array(np.asarray(values))])
    theirs = converted(with_alignment(ours, offset), package)
    back = from_metatensor(theirs)
    assert_same_bits(back.block().values, values)
    assert (leaf_addresses(back) == their_addresses(theirs)) is shared


def test_strided_bfloat16_is_copied():
    values = torch.arange(24, dtype=torch.bfloat16).reshape(4, 6)
    for strided in (values[:, ::2], values[::2].T, values[:1].expand(3, 6)):
        ours = mts.block_from_array(strided)
        assert ours.values.astype("f4").tolist() == strided.float().tolist()


def test_what_torch_can_not_share_is_copied(tmp_path: Path):
    counted = np.arange(12, dtype=np.float32).reshape(4, 3)
    frozen = np.frombuffer(counted.tobytes(), np.float32).reshape(4, 3)
    bytes_ = np.zeros(counted.nbytes + 1, np.uint8)
    unaligned = bytes_[1:].view(np.float32).reshape(4, 3)
    unaligned[...] = counted
    np.save(tmp_path / "x.npy", counted)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for values in (frozen, unaligned, mapped, counted[::-1]):
        theirs = converted(mts.block_from_array(values), "core")
        assert theirs.values.tolist() == values.tolist()
        assert theirs.values.data_ptr() != address(values)
        theirs.values[0] = 7  # its own memory
        assert values[0].tolist() != [7, 7, 7]


@every_package
@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_memory_is_shared_both_ways_unless_copied(package: str, arrays: str):
    ours = mts.block_from_array(np.ones((2, 1), np.float32)).to(arrays=arrays)
    own, shared = converted(ours, package, copy=True), converted(ours, package)
    own.values[0] = 5
    assert ours.values[0, 0] == 1
    back, copied = from_metatensor(shared), from_metatensor(shared, copy=True)
    shared.values[0] = 5
    assert (back.values[0, 0], copied.values[0, 0]) == (5, 1)


# === what can not be converted =====================================================


@every_package
def test_values_that_require_gradients(package: str):
    theirs = converted(block(gradients=NESTED), package)
    theirs.gradient("positions").values.requires_grad_(True)
    with pytest.raises(MetatensorError, match=r"take `values.detach\(\)`") as error:
        from_metatensor(theirs)
    assert "`metatensor.detach(x)`" in str(error.value)
    assert error.value.__notes__ == ["of the gradient with respect to 'positions'"]
    theirs.gradient("positions").values.requires_grad_(False)
    assert_identical(from_metatensor(theirs), block(gradients=NESTED))


def test_maps_that_are_detached():
    theirs = converted(tensor(), "core")
    theirs.block_by_id(1).values.requires_grad_(True)
    with pytest.raises(MetatensorError) as error:
        from_metatensor(theirs)
    assert error.value.__notes__ == ["for the block (o3_lambda=1, center_type=0)"]
    assert_identical(from_metatensor(core.detach(theirs)), tensor())


def test_a_device_that_jax_does_not_have():
    labels = [
        core.Labels.range(n, 2).to(arrays="torch").to(device="meta") for n in "sp"
    ]
    values = torch.zeros(2, 2, device="meta")
    theirs = core.TensorBlock(values, labels[0], [], labels[1])
    with pytest.raises(
        MetatensorError, match=r"meta.*move it to a device that JAX has"
    ):
        from_metatensor(theirs)


@every_package
@pytest.mark.parametrize("dtype", ["int4", np.longdouble])
def test_dtypes_that_torch_does_not_have(package: str, dtype: Any):
    ours = mts.block_from_array(np.ones((2, 1), np.dtype(jnp.dtype(dtype))))
    with pytest.raises(TypeError, match=f"PyTorch has no {ours.dtype}: convert"):
        converted(ours, package)


@every_package
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "float8_e5m2"])
def test_dtypes_that_metatensor_does_not_have(package: str, dtype: str):
    skip_without(dtype if "float" in dtype else "float32")
    ours = mts.block_from_array(np.ones((2, 1), jnp.dtype(dtype)))
    assert_identical(from_metatensor(converted(ours, package)), ours)
    with pytest.raises(MetatensorError, match=f"{package} can not hold this TensorMap"):
        converted(TensorMap(Labels.range("k", 2), [ours, ours]), package)


def test_labels_without_dimensions():
    nothing = Labels([], np.zeros((0, 0), np.int32))
    with pytest.raises(MetatensorError, match="no labels without names"):
        to_metatensor(nothing, package="torch")


def test_script_objects_of_other_classes():
    future = scripted.Labels.range("s", 2)[0]
    for function in (from_metatensor, to_metatensor):
        with pytest.raises(TypeError, match=r"not metatensor(.torch)?.LabelsEntry"):
            function(future)


def test_values_on_several_devices():
    code = """
import jax, numpy as np, metatensor_jax as mts
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
devices = jax.devices()
assert len(devices) == 2
block = mts.block_from_array(np.arange(8, dtype=np.float32).reshape(4, 2))
rows = NamedSharding(Mesh(np.array(devices), ("x",)), P("x"))
for package in ("core", "torch"):
    options = dict(package=package, arrays="torch")
    theirs = mts.interop.to_metatensor(block.to("jax", device=devices[1]), **options)
    assert mts.equal_block(mts.interop.from_metatensor(theirs), block)
    try:
        mts.interop.to_metatensor(block.to("jax", device=rows), **options)
    except mts.MetatensorError as error:
        assert "take them to the host first" in str(error), error
    else:
        raise AssertionError
"""
    run_with_two_devices(code)


# === an accelerator ================================================================


def gpu() -> Any:
    """The GPU of JAX, where PyTorch has one as well."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU")
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX has no GPU")


@every_package
def test_from_gpu_to_gpu_without_the_host(package: str):
    device = gpu()
    ours = tensor(gradients=NESTED, info={"a": "b"}).to("jax", device=device)
    with jax.transfer_guard("disallow"):
        theirs = converted(ours, package)
        back = from_metatensor(theirs)
    assert theirs.block_by_id(0).values.is_cuda
    assert their_addresses(theirs) == leaf_addresses(ours)
    assert leaf_addresses(back) == leaf_addresses(ours)
    assert back.device == device
    assert_identical(back.to("numpy"), ours.to("numpy"))
    assert_identical(from_metatensor(theirs.block_by_id(0).samples), ours[0].samples)


@every_package
def test_wide_numbers_of_a_gpu_stay_wide(package: str, x64: bool):
    device = gpu()
    ours = tensor(dtype="float64")
    with enable_x64(True):
        theirs = converted(ours.to("jax", device=device), package)
    back = from_metatensor(theirs)
    assert back.dtype == np.float64
    assert (back.device == "cpu") is not x64
    assert_identical(back.to("numpy"), ours)
