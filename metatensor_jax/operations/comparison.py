"""Are two maps or blocks the same: equal, nearly equal, equal metadata?

Each question is asked once, by a function that raises the first difference; its twin
without ``_raise`` tells whether there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._evaluate import as_map
from .._plan.map import match_blocks
from .._types.arrays import is_tracer
from .._types.attach import attach
from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError, NotEqualError
from .._types.labels import Labels
from .._types.structure import in_words
from .._types.tensor import TensorMap
from .checks import (
    AXES,
    check_same_axes,
    check_same_keys,
    check_same_labels,
    check_same_parameters,
    check_type,
)

Check = str | Sequence[str]
Agree = Callable[[np.ndarray, np.ndarray], np.ndarray]


def equal_metadata_raise(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    check: Check = "all",
    check_gradients: bool = True,
) -> None:
    """Raise :class:`NotEqualError` unless two maps have the same metadata.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order
    :param check: ``"all"``, or some of ``"samples"``, ``"components"``,
        ``"properties"``
    :param check_gradients: compare the metadata of gradients as well

    Of samples that are data, see :attr:`Labels.is_static`, only names and number are
    metadata.

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((2, 1)))
    >>> x = mts.TensorMap(mts.Labels.single(), [x])
    >>> y = mts.rename_dimension(x, "samples", "sample", "atom")
    >>> mts.equal_metadata(x, y), mts.equal_metadata(x, y, check="properties")
    (False, True)
    """
    axes = _axes(check)
    _compare("equal_metadata", tensor_1, tensor_2, None, axes, check_gradients)


def equal_raise(tensor_1: TensorMap, tensor_2: TensorMap) -> None:
    """Raise :class:`NotEqualError` unless two maps are equal.

    That is: metadata, values, gradients, dtypes; info does not count. The values must
    be known, so this can not be done inside of ``jax.jit``.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.array([[1.0, 2.0]]))
    >>> mts.equal_block_raise(x, x.with_values(np.array([[1.0, 3.0]])))
    Traceback (most recent call last):
    metatensor_jax.NotEqualError: values are not equal: 2.0 and 3.0 at sample
    (sample=0), property (property=1); 1 of 2 differ
    """
    _compare("equal", tensor_1, tensor_2, np.equal)


def allclose_raise(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> None:
    r"""Raise :class:`NotEqualError` unless two maps are equal, up to rounding.

    Values and gradients :math:`a, b` are close where :math:`|a - b| \le
    \mathrm{atol} + \mathrm{rtol} |b|`; all metadata must be equal.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order
    :param rtol: relative tolerance. If None, the square root of the precision of the
        dtype: 3e-4 for float32, 1.5e-8 for float64.
    :param atol: absolute tolerance. If None, the precision of the dtype.
    :param equal_nan: is a NaN close to a NaN?

    >>> import metatensor_jax as mts
    >>> x = mts.TensorMap(mts.Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> mts.allclose(x, mts.add(x.to("float32"), 1e-5)), mts.allclose(x, x, 0, 0)
    (True, True)
    """
    close = partial(_close, rtol=rtol, atol=atol, equal_nan=equal_nan)
    _compare("allclose", tensor_1, tensor_2, close)


def _holds(raising: Callable[..., None], *args: Any, **kwargs: Any) -> bool:
    try:
        raising(*args, **kwargs)
    except NotEqualError:
        return False
    return True


def _check_blocks(block_1: Any, block_2: Any) -> None:
    check_type(block_1, "block_1", TensorBlock)
    check_type(block_2, "block_2", TensorBlock)


def _equal_maps(self: TensorMap, other: object) -> bool:
    """Same keys in any order, same blocks; info does not count."""
    if self is other:
        return True
    return equal(self, other) if isinstance(other, TensorMap) else NotImplemented


def _equal_blocks(self: TensorBlock, other: object) -> bool:
    """Same values, labels and gradients, and the same dtypes."""
    if self is other:
        return True
    return (
        equal_block(self, other) if isinstance(other, TensorBlock) else NotImplemented
    )


def equal_metadata(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    check: Check = "all",
    check_gradients: bool = True,
) -> bool:
    """Tell whether two maps have the same metadata.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order
    :param check: ``"all"``, or some of ``"samples"``, ``"components"``,
        ``"properties"``
    :param check_gradients: compare the metadata of gradients as well

    >>> import metatensor_jax as mts
    >>> x, y = (mts.block_from_array(np.ones((n, 1))) for n in (1, 2))
    >>> x, y = (TensorMap(Labels.single(), [block]) for block in (x, y))
    >>> equal_metadata(x, y), equal_metadata(x, y, check="properties")
    (False, True)
    """
    return _holds(
        equal_metadata_raise,
        tensor_1,
        tensor_2,
        check=check,
        check_gradients=check_gradients,
    )


def equal_metadata_block_raise(
    block_1: TensorBlock,
    block_2: TensorBlock,
    check: Check = "all",
    check_gradients: bool = True,
) -> None:
    """Raise :class:`NotEqualError` unless two blocks have the same metadata.

    :param block_1: a block
    :param block_2: another block
    :param check: ``"all"``, or some of ``"samples"``, ``"components"``,
        ``"properties"``
    :param check_gradients: compare the metadata of gradients as well

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((2, 1)))
    >>> equal_metadata_block_raise(x, x)
    """
    _check_blocks(block_1, block_2)
    equal_metadata_raise(
        as_map(block_1), as_map(block_2), check=check, check_gradients=check_gradients
    )


def equal_metadata_block(
    block_1: TensorBlock,
    block_2: TensorBlock,
    check: Check = "all",
    check_gradients: bool = True,
) -> bool:
    """Tell whether two blocks have the same metadata.

    :param block_1: a block
    :param block_2: another block
    :param check: ``"all"``, or some of ``"samples"``, ``"components"``,
        ``"properties"``
    :param check_gradients: compare the metadata of gradients as well

    >>> import metatensor_jax as mts
    >>> x, y = (mts.block_from_array(np.ones((n, 1))) for n in (1, 2))
    >>> equal_metadata_block(x, y), equal_metadata_block(x, y, check="properties")
    (False, True)
    """
    return _holds(
        equal_metadata_block_raise,
        block_1,
        block_2,
        check=check,
        check_gradients=check_gradients,
    )


def equal(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
) -> bool:
    """Tell whether two maps are equal.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.array([[1.0, 2.0]]))
    >>> y = x.with_values(np.array([[1.0, 3.0]]))
    >>> x, y = (TensorMap(Labels.single(), [block]) for block in (x, y))
    >>> equal(x, x), equal(x, y)
    (True, False)
    """
    return _holds(equal_raise, tensor_1, tensor_2)


def equal_block_raise(
    block_1: TensorBlock,
    block_2: TensorBlock,
) -> None:
    """Raise :class:`NotEqualError` unless two blocks are equal.

    :param block_1: a block
    :param block_2: another block

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((2, 1)))
    >>> equal_block_raise(x, x)
    """
    _check_blocks(block_1, block_2)
    equal_raise(as_map(block_1), as_map(block_2))


def equal_block(
    block_1: TensorBlock,
    block_2: TensorBlock,
) -> bool:
    """Tell whether two blocks are equal.

    :param block_1: a block
    :param block_2: another block

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.array([[1.0, 2.0]]))
    >>> y = x.with_values(np.array([[1.0, 3.0]]))
    >>> equal_block(x, x), equal_block(x, y)
    (True, False)
    """
    return _holds(equal_block_raise, block_1, block_2)


def allclose(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> bool:
    """Tell whether two maps are equal, up to rounding.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order
    :param rtol: relative tolerance. If None, the square root of the precision of the
        dtype: 3e-4 for float32, 1.5e-8 for float64.
    :param atol: absolute tolerance. If None, the precision of the dtype.
    :param equal_nan: is a NaN close to a NaN?

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.array([[1.0]]))
    >>> y = x.with_values(np.array([[1.0 + 1e-12]]))
    >>> x, y = (TensorMap(Labels.single(), [block]) for block in (x, y))
    >>> allclose(x, y), allclose(x, y, rtol=0, atol=0)
    (True, False)
    """
    return _holds(
        allclose_raise, tensor_1, tensor_2, rtol=rtol, atol=atol, equal_nan=equal_nan
    )


def allclose_block_raise(
    block_1: TensorBlock,
    block_2: TensorBlock,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> None:
    """Raise :class:`NotEqualError` unless two blocks are equal, up to rounding.

    :param block_1: a block
    :param block_2: another block
    :param rtol: relative tolerance. If None, the square root of the precision of the
        dtype: 3e-4 for float32, 1.5e-8 for float64.
    :param atol: absolute tolerance. If None, the precision of the dtype.
    :param equal_nan: is a NaN close to a NaN?

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((2, 1)))
    >>> allclose_block_raise(x, x)
    """
    _check_blocks(block_1, block_2)
    allclose_raise(
        as_map(block_1), as_map(block_2), rtol=rtol, atol=atol, equal_nan=equal_nan
    )


def allclose_block(
    block_1: TensorBlock,
    block_2: TensorBlock,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> bool:
    """Tell whether two blocks are equal, up to rounding.

    :param block_1: a block
    :param block_2: another block
    :param rtol: relative tolerance. If None, the square root of the precision of the
        dtype: 3e-4 for float32, 1.5e-8 for float64.
    :param atol: absolute tolerance. If None, the precision of the dtype.
    :param equal_nan: is a NaN close to a NaN?

    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.array([[1.0]]))
    >>> y = x.with_values(np.array([[1.0 + 1e-12]]))
    >>> allclose_block(x, y), allclose_block(x, y, rtol=0, atol=0)
    (True, False)
    """
    return _holds(
        allclose_block_raise,
        block_1,
        block_2,
        rtol=rtol,
        atol=atol,
        equal_nan=equal_nan,
    )


attach(TensorMap, __eq__=_equal_maps)
attach(TensorBlock, __eq__=_equal_blocks)


# --- how ---------------------------------------------------------------------------


def _axes(check: Check) -> list[str]:
    if check == "all":
        return list(AXES)
    axes = [check] if isinstance(check, str) else list(check)
    for axis in axes:
        if axis not in AXES:
            raise MetatensorError(
                f"`check` must be 'all' or some of {list(AXES)}, not '{axis}'"
            )
    return axes


def _compare(
    what: str,
    a: TensorMap,
    b: TensorMap,
    agree: Agree | None,
    axes: Sequence[str] = AXES,
    gradients: bool = True,
) -> None:
    """Raise the first difference between two maps.

    :param agree: compare the data as well: do elements agree?
    """
    check_type(a, "tensor_1", TensorMap)
    check_type(b, "tensor_2", TensorMap)
    check_same_keys(a, b, what)
    for i, blocks in enumerate(match_blocks(a, b)):
        for (path, x), (_, y) in zip(*(x._walk() for x in blocks), strict=False):
            with in_block(a.keys, i, in_words(path)):
                check_same_axes(x, y, what, axes)
                if gradients:
                    check_same_parameters(x, y, what)
                if agree is not None:
                    _check_data(x, y, what, agree)
            if not gradients:
                break


def _check_data(a: TensorBlock, b: TensorBlock, what: str, agree: Agree) -> None:
    """Compare the arrays: values, and samples that are data."""
    if agree is np.equal and a.dtype != b.dtype:
        raise NotEqualError(f"dtypes differ: {a.dtype} and {b.dtype}")
    first, other = _known(a.values, what), _known(b.values, what)
    if not (a.samples.is_static and b.samples.is_static):
        tables = [_known(x.samples.values, what) for x in (a, b)]
        mine, its = [Labels._make(a.samples._names, values) for values in tables]
        check_same_labels(mine, its, what, "samples")
    same = agree(first, other)
    if bool(np.all(same)):
        return
    at = np.unravel_index(int(np.argmin(same)), same.shape)
    raise NotEqualError(
        f"values are not {what}: {first[at]} and {other[at]} at {_place(a, at)}; "
        f"{np.count_nonzero(~same)} of {same.size} differ"
    )


def _known(array: Any, what: str) -> np.ndarray:
    if is_tracer(array):
        raise TypeError(
            f"'{what}' compares data, but here it is traced: it is only known when the "
            "program runs. Compare maps outside of `jax.jit`, `jax.grad` and the like, "
            "or their arrays inside, as with `jnp.array_equal(a.values, b.values)`"
        )
    return np.asarray(array)


def _place(block: TensorBlock, at: Sequence[Any]) -> str:
    """In words: one element of a block."""
    labels = [block.samples, *block.components, block.properties]
    axes = ["sample", *["component"] * len(block.components), "property"]
    return ", ".join(
        f"{axis} {part[int(i)].print()}"
        for axis, part, i in zip(axes, labels, at, strict=True)
    )


def _close(
    a: np.ndarray,
    b: np.ndarray,
    rtol: float | None,
    atol: float | None,
    equal_nan: bool,
) -> np.ndarray:
    """Are elements close? Tolerances that are None follow from the dtype."""
    inexact = [x.dtype for x in (a, b) if jnp.issubdtype(x.dtype, np.inexact)]
    precision = max((float(jnp.finfo(dtype).eps) for dtype in inexact), default=0.0)
    relative = precision**0.5 if rtol is None else rtol
    absolute = precision if atol is None else atol
    return np.isclose(a, b, relative, absolute, equal_nan)
