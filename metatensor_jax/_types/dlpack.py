"""Arrays of other libraries, as arrays that a block can hold.

They come by DLPack (PyTorch, CuPy, C, C++, Rust), or by Python's buffers. Data in the
memory of the host becomes a NumPy array, whose operations and files wait for no device;
data of an accelerator becomes a JAX array on the same accelerator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from .arrays import check_not_masked, is_array, is_on_host, native
from .conversion import is_narrowed, warn_of_narrowing
from .errors import MetatensorError
from .foreign import type_of

#: a part of what a provider says, and what to do about it
_REMEDIES = {
    "require gradient": "JAX does not see PyTorch's graph, so take `values.detach()`, "
    "or `metatensor.detach(x)` of blocks and maps",
    "conjugate bit": "take `values.resolve_conj()`",
    "layout other than": "take `values.to_dense()`",
    "striding": "make it contiguous, such as with `values.contiguous()`",
    "backend": "move it to a device that JAX has, such as with `values.cpu()`",
    "device": "move it to a device that JAX has, such as with `values.cpu()`",
}


def as_array(values: Any, what: str) -> Any:
    """``values`` as a NumPy or JAX array, in the byte order of this machine.

    Arrays of NumPy and JAX stay what they are. All others share their memory with the
    result, where they can: it is copied once where JAX has to read numbers that NumPy
    does not have (bfloat16), and these do not begin at a multiple of 64 bytes or are
    strided.

    :param values: an array of NumPy or JAX, or one that gives its data by DLPack
        (``__dlpack__``), a buffer, or ``__array_interface__``
    :param what: what the array is, for messages
    :raises MetatensorError: the provider of an array does not give its data, or JAX
        does not have its device
    :raises TypeError: something else than an array, or one with a mask

    >>> import array
    >>> as_array(array.array("f", [1.0, 2.0]), "this")
    array([1., 2.], dtype=float32)
    """
    if is_array(values):
        check_not_masked(values, what)
        return native(values)
    if isinstance(values, np.generic):
        raise _no_array(values, what)
    if hasattr(values, "__dlpack__") and hasattr(values, "__dlpack_device__"):
        with _explaining(values, what):
            array = _by_dlpack(values)
    else:
        array = native(_by_buffer(values, what))
    warn_of_narrowing(array.dtype)
    return array


def _by_dlpack(values: Any) -> Any:
    # PyTorch gives numbers whose sign it has only noted as if it had not
    if getattr(values, "is_neg", bool)():
        values = values.resolve_neg()
    if is_on_host(values):
        try:
            return np.from_dlpack(values)
        except (BufferError, RuntimeError):  # NumPy has no such dtype
            return np.asarray(_by_jax(values))
    array = _by_jax(values)
    return np.asarray(array) if is_narrowed(array.dtype) else array


def _by_jax(values: Any) -> Any:
    """A JAX array of the same dtype, also where JAX would narrow it."""
    with _wide_numbers():
        try:
            return jax.dlpack.from_dlpack(values)
        except RuntimeError:  # JAX takes no strides but those of a transpose
            return jax.dlpack.from_dlpack(_Copied(values))
        except KeyError as error:  # what older versions of JAX say
            raise BufferError(f"unsupported device of DLPack type {error}") from error


def _wide_numbers() -> Any:
    """JAX's 64-bit mode, for a moment."""
    enable_x64 = getattr(jax, "enable_x64", None)
    if enable_x64 is None:  # older versions of JAX
        from jax.experimental import enable_x64  # type: ignore[attr-defined]
    return enable_x64(True)


class _Copied:
    """An array that is given as a copy, which is contiguous."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**{**options, "copy": True})


def _by_buffer(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(memoryview(values))
    except TypeError:
        if hasattr(values, "__array_interface__"):
            return np.asarray(values)
        raise _no_array(values, what) from None


def _no_array(values: Any, what: str) -> TypeError:
    hint = ": take `numpy.array(values)`" if isinstance(values, (list, tuple)) else ""
    return TypeError(
        f"{what} must be an array (of NumPy, JAX, or any library that gives its data "
        f"by DLPack or as a buffer), not {type_of(values, qualified=True)}{hint}"
    )


@contextmanager
def _explaining(values: Any, what: str) -> Iterator[None]:
    try:
        yield
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        found = [hint for part, hint in _REMEDIES.items() if part in said]
        raise MetatensorError(
            f"{what} can not be taken from this {type_of(values, qualified=True)}: "
            f"{said}{f': {found[0]}' if found else ''}"
        ) from error
