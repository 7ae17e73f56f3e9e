"""What counts as an array. Needs NumPy alone: JAX is recognised, not imported."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import jax

#: what a block holds: an array of NumPy or of JAX, a tracer among them
Array: TypeAlias = Union[np.ndarray, "jax.Array"]
#: one number
Scalar: TypeAlias = Union[
    bool, int, float, complex, np.generic, np.ndarray, "jax.Array"
]
#: where arrays are: a device or several of them; "cpu" for arrays of NumPy
Device: TypeAlias = Union[str, "jax.Device", "jax.sharding.Sharding"]  # type: ignore[reportInvalidTypeForm]
#: what labels take as values: integers of NumPy or JAX, or nested lists
LabelsLike: TypeAlias = Union[ArrayLike, "jax.Array"]


def is_jax(value: object) -> bool:
    """Is ``value`` a JAX array or tracer? (The array API standard's way to ask.)

    >>> is_jax(np.zeros(3))
    False
    """
    if isinstance(value, np.ndarray):
        return False
    namespace = getattr(value, "__array_namespace__", None)
    try:
        return namespace is not None and namespace().__name__ == "jax.numpy"
    except NotImplementedError:  # JAX's random keys are no arrays of numbers
        return False


def is_tracer(value: object) -> bool:
    """Is ``value`` an array of a program that is being traced?

    >>> is_tracer(np.zeros(3))
    False
    """
    # JAX has been imported by whoever made one
    return is_jax(value) and isinstance(value, sys.modules["jax.core"].Tracer)


def is_array(value: object) -> TypeGuard[Array]:
    """Is ``value`` an array that a block can hold (NumPy's or JAX's)?

    >>> is_array(np.zeros(3)), is_array([0.0])
    (True, False)
    """
    return isinstance(value, np.ndarray) or is_jax(value)


def is_on_host(values: Any) -> bool:
    """Is the data of a provider of DLPack in memory that the host can read?

    >>> is_on_host(np.zeros(3))
    True
    """
    return int(values.__dlpack_device__()[0]) in _HOST_MEMORY


def on_host(values: Any) -> np.ndarray:
    """A NumPy array of anything that NumPy reads, or that comes by DLPack.

    >>> on_host([1, 2])
    array([1, 2])
    """
    if hasattr(values, "__dlpack_device__"):
        is_ours = isinstance(values, np.ndarray) or is_jax(values)
        if not (is_ours or is_on_host(values)):
            return np.from_dlpack(values, device="cpu")
    return np.asarray(values)


def check_not_masked(values: Any, what: str) -> None:
    """Raise for a masked array of NumPy, whose mask would be lost."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(
            f"{what} are a masked array, {np.ma.count_masked(values)} of whose "
            f"{values.size} elements are masked: leave rows out, or fill them, "
            "`x.filled(...)`"
        )


def native(array: Any) -> Any:
    """The array in the byte order of this machine: a copy, if it has the other one.

    >>> native(np.ones(1, ">f4")).dtype.isnative
    True
    """
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        # by its name: what `newbyteorder` gives is equal, but not NumPy's own
        return array.astype(np.dtype("=" + array.dtype.str[1:]))
    return array


def read_only(array: np.ndarray) -> np.ndarray:
    """``array``, or a view of it, that can not be written to."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def frozen(leaf: Any) -> Any:
    """A leaf that can not be written to, if it is a NumPy array."""
    return read_only(leaf) if isinstance(leaf, np.ndarray) else leaf


def aligned(shape: tuple[int, ...], dtype: Any, *, zero: bool = True) -> np.ndarray:
    """An array that begins a cache line.

    JAX reads such an array where it is, on a CPU, rather than copy it first.

    :param zero: of zeros, as the system gives new memory; otherwise of anything
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = (np.zeros if zero else np.empty)(n_bytes + _CACHE_LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % _CACHE_LINE
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


_CACHE_LINE = 64  # bytes
_HOST_MEMORY = (1, 3, 11)  # DLPack: of the CPU, and pinned for CUDA or ROCm
