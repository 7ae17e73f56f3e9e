"""Arrays of other libraries, given to constructors."""

from __future__ import annotations

import array
import ctypes
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import block, enable_x64
from files import assert_same_bits, every_dtype

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorBlock
from metatensor_jax._types import conversion


@pytest.fixture(autouse=True)
def _said(monkeypatch: pytest.MonkeyPatch) -> None:
    """That JAX would narrow float64 has been said."""
    monkeypatch.setattr(conversion, "_SAID", ["float64"])


class Provider:
    """An array of some library, that is known by DLPack only.

    :param device: what it says of its device
    """

    def __init__(self, values: Any, device: tuple[int, int] = (1, 0)) -> None:
        self.given, self.device = values, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        return self.given.__dlpack__(**options)


class Interface:
    """An array that is known by NumPy's array interface only."""

    def __init__(self, values: np.ndarray) -> None:
        self.given = values
        self.__array_interface__ = values.__array_interface__


def held(values: Any) -> Any:
    """The array that a block holds."""
    n, p = np.shape(values) if hasattr(values, "shape") else (3, 2)
    return TensorBlock(values, Labels.range("s", n), [], Labels.range("p", p)).values


def counted(dtype: Any = np.float32) -> np.ndarray:
    return np.arange(6).reshape(3, 2).astype(dtype)


def shaped(values: Any) -> Any:
    """A provider that says its shape, so that :func:`held` knows it."""
    values.shape = values.given.shape
    return values


# === DLPack ========================================================================


@every_dtype
def test_dlpack_shares_memory(dtype: str, x64: bool):
    given = counted(dtype)
    values = held(shaped(Provider(given)))
    assert type(values) is np.ndarray
    assert_same_bits(values, given)
    assert np.shares_memory(values, given)
    assert not values.flags.writeable


@pytest.mark.parametrize("device", [(1, 0), (3, 0), (11, 0)])
def test_all_memory_of_the_host_becomes_numpy(device: tuple[int, int]):
    given = counted()
    assert np.shares_memory(held(shaped(Provider(given, device))), given)


def test_strides_are_kept():
    given = np.arange(24.0).reshape(6, 4)
    for part in (given[::2, 1:3], given[::-1, :2], given.T[:3, :2]):
        values = held(shaped(Provider(part)))
        assert_same_bits(values, part)
        assert values.strides == part.strides


def test_arrays_of_a_program():
    given = Provider(counted())
    result = jax.jit(lambda x: x + held(shaped(given)))(np.float32(1))
    assert result.tolist() == (counted() + 1).tolist()


def test_block_from_array():
    given = counted()
    made = mts.block_from_array(Provider(given))
    assert made.shape == (3, 2)
    assert np.shares_memory(made.values, given)
    made = block(3).with_values(Provider(given))
    assert np.shares_memory(made.values, given)


def test_labels():
    rows = np.array([[1, 2], [3, 4]], np.int64)

    class Rows(Provider):
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return self.given

    for device in ((1, 0), (2, 0)):  # the other is copied to the host
        given = Rows(rows, device)
        assert Labels(["a", "b"], given).values.tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("device", "text"),
    [((2, 0), "backend cuda"), ((8, 0), "unsupported device"), ((10, 0), "backend")],
)
def test_devices_that_jax_does_not_have(device: tuple[int, int], text: str):
    if jax.default_backend() != "cpu":
        pytest.skip("JAX has such a device")
    with pytest.raises(
        MetatensorError, match="the values of a block can not be taken"
    ) as e:
        held(shaped(Provider(counted(), device)))
    assert text in str(e.value)
    assert "move it to a device that JAX has" in str(e.value)


def test_a_provider_that_refuses():
    class Refuses(Provider):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("not today.")

    with pytest.raises(MetatensorError, match=r"from this .*Refuses: not today$"):
        held(shaped(Refuses(counted())))


# === buffers =======================================================================


def test_buffers_share_memory():
    given = counted()
    rows = ctypes.c_float * 2
    in_c = (rows * 3)(*[rows(*row) for row in given.tolist()])
    flat = array.array("f", given.ravel().tolist())
    for values in (
        memoryview(given),
        in_c,
        memoryview(flat).cast("B").cast("f", (3, 2)),
        Interface(given),
    ):
        made = mts.block_from_array(values)
        assert_same_bits(made.values, given)
        assert not made.values.flags.writeable
    in_c[0][0] = flat[0] = given[0, 0] = 9
    assert made.values[0, 0] == 9
    assert mts.block_from_array(in_c).values[0, 0] == 9


def test_buffers_in_the_other_byte_order():
    given = counted(">f8")
    assert_same_bits(mts.block_from_array(memoryview(given)).values, counted("f8"))


@pytest.mark.parametrize(
    "values", [[[1.0]], ((1.0,),), None, "text", 3.0, np.float32(3), object()]
)
def test_what_is_no_array(values: Any):
    with pytest.raises(TypeError, match=r"`array` must be an array .*, not "):
        mts.block_from_array(values)


def test_random_keys_are_no_numbers():
    with pytest.raises(TypeError, match="must be an array"):
        mts.block_from_array(jax.random.key(0))


@pytest.mark.parametrize("values", [b"text", memoryview(b"text")])
def test_buffers_of_another_shape(values: Any):
    with pytest.raises(MetatensorError, match=r"an array with shape \(4,\)"):
        mts.block_from_array(values)


# === 64-bit numbers ================================================================


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64", "complex128"])
def test_wide_numbers_stay_and_it_is_said_once(
    dtype: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(conversion, "_SAID", [])
    given = counted(dtype)
    with enable_x64(True):
        assert_same_bits(held(shaped(Provider(given))), given)
    with enable_x64(False):
        held(given)  # arrays of NumPy are what the user chose
        held(shaped(Provider(counted("float32"))))
        with pytest.warns(UserWarning, match=f"the data is {dtype}, but JAX") as said:
            assert_same_bits(held(shaped(Provider(given))), given)
        assert [one.filename for one in said] == [__file__]
        held(shaped(Provider(given)))
        held(memoryview(given))


# === PyTorch =======================================================================


def test_tensors_of_torch():
    torch: Any = pytest.importorskip("torch")
    given = torch.arange(6, dtype=torch.float32).reshape(3, 2)
    values = held(given)
    assert values.__array_interface__["data"][0] == given.data_ptr()
    given[0, 0] = 9
    assert values[0, 0] == 9
    half = held(given.to(torch.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert half.tolist() == given.tolist()
    assert held(given[:, :0]).shape == (3, 0)
    assert Labels("a", torch.tensor([[1], [5]])).values.tolist() == [[1], [5]]


def test_tensors_that_torch_does_not_give():
    torch: Any = pytest.importorskip("torch")
    given = torch.ones(3, 2)
    for values, hint in (
        (given.clone().requires_grad_(), r"take `values.detach\(\)`"),
        (given.to(torch.complex64).conj(), r"take `values.resolve_conj\(\)`"),
        (given.to_sparse(), r"take `values.to_dense\(\)`"),
        (given.to("meta"), r"such as with `values.cpu\(\)`"),
    ):
        with pytest.raises(MetatensorError, match=f"from this torch.Tensor: .*{hint}"):
            held(values)
