"""Arrays as PyTorch's tensors."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from .._types.conversion import is_inexact
from .._types.errors import MetatensorError


def to_torch(values: Any, *, copy: bool = False) -> Any:
    """A tensor on the device where these values are, which shares their memory.

    PyTorch can write to all its tensors: a NumPy array in memory that must not be
    written to is copied.

    :param values: a NumPy or JAX array
    :param copy: copy in any case
    :raises TypeError: a dtype that PyTorch does not have
    :raises MetatensorError: a JAX array on several devices
    """
    torch = import_module("torch")
    dtype = _dtype(torch, values.dtype)
    if not isinstance(values, np.ndarray):
        tensor = _of_jax(torch, values)
        return tensor.clone() if copy else tensor
    array = np.array(values) if copy else _writable(values)
    if not _is_numpy_own(array.dtype):
        array = array.view(f"u{array.itemsize}")
    return torch.from_numpy(array).view(dtype)


def _dtype(torch: Any, dtype: np.dtype) -> Any:
    found = getattr(torch, dtype.name, None)
    packed = not _is_numpy_own(dtype) and not is_inexact(dtype)  # two int4 in a byte
    if packed or not isinstance(found, torch.dtype):
        raise TypeError(
            f"PyTorch has no {dtype}: convert the values first, such as with "
            "`.to(dtype='float32')`"
        )
    return found


def _is_numpy_own(dtype: np.dtype) -> bool:
    """Is this one of NumPy's own dtypes? bfloat16 and the like are not."""
    return dtype.isbuiltin == 1


def _of_jax(torch: Any, values: Any) -> Any:
    try:
        return torch.from_dlpack(values)
    except (BufferError, RuntimeError) as error:
        said = str(error).partition("\n")[0].rstrip(".")
        raise MetatensorError(
            f"JAX does not give these values to PyTorch ({said}). They are "
            f"{values.dtype} on {sorted(map(str, values.devices()))}: take them to the "
            "host first, such as with `.to(arrays='numpy')`"
        ) from error


def _writable(array: np.ndarray) -> np.ndarray:
    """This memory, if NumPy allows to write to it and PyTorch to read it; or a copy."""
    readable = array.flags.aligned and all(stride >= 0 for stride in array.strides)
    if readable:
        view = array.view()
        try:
            view.flags.writeable = True
        except ValueError:  # the memory is not ours
            return array.copy()
        return view
    return array.copy()
