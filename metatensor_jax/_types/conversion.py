"""What ``to(dtype, device, arrays)`` does to one array."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .arrays import frozen, read_only


class _Platform(NamedTuple):
    """A device that was asked for by the name of its platform."""

    device: Any
    is_host: bool


class Conversion(NamedTuple):
    """What ``to(...)`` asks for."""

    dtype: Any = None
    device: Any = None
    arrays: str | None = None

    @classmethod
    def parse(
        cls, args: Sequence[Any], dtype: Any, device: Any, arrays: Any
    ) -> Conversion:
        """The arguments of ``to``; positional ones are told apart by their type."""
        named = {"dtype": dtype, "device": device, "arrays": arrays}
        options = {name: x for name, x in named.items() if x is not None}
        for arg in args:
            name = _kind_of_conversion(arg)
            if name in options:
                raise TypeError(f"`to` got `{name}` twice: {options[name]} and {arg}")
            options[name] = arg
        if options.get("arrays") not in (None, "numpy", "jax"):
            raise ValueError(
                f"`arrays` must be 'numpy' or 'jax', not {options['arrays']!r}"
            )
        if options.get("dtype") is not None:
            check_dtype(np.dtype(options["dtype"]))
        if isinstance(options.get("device"), str):
            name = options["device"]
            options["device"] = _Platform(jax.devices(name)[0], name == "cpu")
        return cls(**options)

    def apply(self, values: Any) -> Any:
        """These values, converted."""
        if self.dtype is not None:
            if not isinstance(values, np.ndarray):
                check_not_narrowed(self.dtype)
            values = frozen(values.astype(self.dtype))
        return self.place(values)

    def place(self, array: Any) -> Any:
        """This array, where and as it should be."""
        if self.arrays == "numpy":
            return read_only(np.asarray(array))
        device = self.device
        if isinstance(device, _Platform):
            if device.is_host and self.arrays is None and isinstance(array, np.ndarray):
                return array  # NumPy's arrays are there already
            device = device.device
        if self.arrays == "jax" or device is not None:
            check_not_narrowed(array.dtype)
            return jax.device_put(array, device)
        return array


def _kind_of_conversion(arg: Any) -> str:
    if isinstance(arg, str) and arg in ("numpy", "jax"):
        return "arrays"
    if isinstance(arg, (jax.Device, jax.sharding.Sharding)):
        return "device"
    try:
        np.dtype(arg)
    except TypeError:
        return "device"
    return "dtype"


def check_not_narrowed(dtype: Any) -> None:
    """Raise if JAX would turn data of this dtype into 32-bit numbers."""
    if is_narrowed(dtype):
        raise TypeError(
            f"the data is {np.dtype(dtype)}, but JAX is in its 32-bit mode and would "
            f"narrow it to {_held(dtype)}. {_widen(dtype)}"
        )


def check_fits(array: Any) -> None:
    """Raise if JAX would narrow an argument, and its numbers become others.

    Whole numbers may fit. A single number is rounded to the precision of what it is
    combined with, as one of Python is.
    """
    if not isinstance(array, (np.ndarray, np.generic)) or not is_narrowed(array.dtype):
        return
    if array.dtype.kind in "iu":
        limits = np.iinfo(_held(array.dtype))
        fits = array.size == 0 or limits.min <= array.min() <= array.max() <= limits.max
    else:
        with np.errstate(over="ignore"):
            narrow = array.astype(_held(array.dtype))
        fits = array.ndim == 0 and np.isfinite(narrow) == np.isfinite(array)
    if not fits:
        check_not_narrowed(array.dtype)


def is_narrowed(dtype: Any) -> bool:
    """Would JAX turn data of this dtype into 32-bit numbers?"""
    return not is_extended(dtype) and _held(dtype) != np.dtype(dtype)


def warn_of_narrowing(dtype: Any) -> None:
    """Say that JAX would narrow data that came from elsewhere: once in each process."""
    if not is_narrowed(dtype) or _SAID:
        return
    name = np.dtype(dtype).name
    warnings.warn(
        f"the data is {name}, but JAX is in its 32-bit mode. It stays {name} as a "
        "NumPy array, which the operations here do not narrow; `jax.jit` and "
        f"`jax.device_put` would narrow it to {_held(dtype)} without a word. "
        f"{_widen(dtype)}. This is said once",
        stacklevel=_level_of_user(),
    )
    _SAID.append(name)


#: of which dtype it was said
_SAID: list[str] = []


def _level_of_user() -> int:
    """How far up the stack the code is that called this library."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    return level


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _LIBRARY


_LIBRARY = __name__.partition(".")[0]


def _held(dtype: Any) -> np.dtype:
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def _widen(dtype: Any) -> str:
    return (
        "Enable 64 bits, `jax.config.update('jax_enable_x64', True)`, or convert with "
        f"`.to(dtype='{_held(dtype)}')`"
    )


def check_dtype(dtype: Any) -> None:
    """Raise unless values of this dtype are numbers."""
    # JAX's function, because bfloat16 and the like are no numbers for NumPy.
    if not any(jax.numpy.issubdtype(dtype, kind) for kind in (np.number, np.bool_)):
        raise TypeError(f"the values of a block must be numbers, not {dtype}")


def is_extended(dtype: Any) -> bool:
    """Is this a dtype of JAX alone, such as that of random keys?"""
    return bool(jax.numpy.issubdtype(dtype, jax.dtypes.extended))


def is_inexact(dtype: Any) -> bool:
    """Are these real or complex numbers, bfloat16 and the like among them?"""
    return bool(jax.numpy.issubdtype(dtype, np.inexact))
