"""Are two maps or blocks the same: equal, nearly equal, equal metadata?

Each question is asked once, in :func:`_compare`, which finds the first difference. The
public functions raise it, or tell whether there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..block import TensorBlock
from ..errors import MetatensorError, NotEqualError
from ..facade import implements
from ..rows import match_blocks
from ..tensor import TensorMap
from ._checks import (
    AXES,
    check_same_axes,
    check_same_keys,
    check_same_parameters,
    check_type,
)

Check = str | Sequence[str]


def equal_metadata(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    check: Check = "all",
    check_gradients: bool = True,
) -> bool:
    """Do two maps have the same metadata? Keys can be in any order.

    :param tensor_1: a map
    :param tensor_2: another map
    :param check: ``"all"``, or some of ``"samples"``, ``"components"``,
        ``"properties"``
    :param check_gradients: compare the metadata of gradients as well

    >>> import metatensor_jax as mts
    >>> x = TensorMap(mts.Labels.single(), [mts.block_from_array(np.ones((2, 1)))])
    >>> equal_metadata(x, mts.rename_dimension(x, "samples", "sample", "atom"))
    False
    """
    return _holds(equal_metadata_raise, tensor_1, tensor_2, check, check_gradients)


def equal_metadata_raise(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    check: Check = "all",
    check_gradients: bool = True,
) -> None:
    """Raise :class:`NotEqualError` unless two maps have the same metadata.

    See :func:`equal_metadata`.
    """
    axes = _axes(check)
    _compare_maps(
        "equal_metadata_raise",
        tensor_1,
        tensor_2,
        lambda what, a, b: _compare(what, a, b, None, axes, check_gradients),
    )


def equal_metadata_block(
    block_1: TensorBlock,
    block_2: TensorBlock,
    check: Check = "all",
    check_gradients: bool = True,
) -> bool:
    """Do two blocks have the same metadata? See :func:`equal_metadata`."""
    return _holds(equal_metadata_block_raise, block_1, block_2, check, check_gradients)


def equal_metadata_block_raise(
    block_1: TensorBlock,
    block_2: TensorBlock,
    check: Check = "all",
    check_gradients: bool = True,
) -> None:
    """Raise :class:`NotEqualError` unless two blocks have the same metadata."""
    _check_blocks(block_1, block_2)
    what = "equal_metadata_block_raise"
    _compare(what, block_1, block_2, None, _axes(check), check_gradients)


@implements("TensorMap.__eq__")
def equal(tensor_1: TensorMap, tensor_2: TensorMap) -> bool:
    """Are two maps equal: metadata, values, gradients, dtypes? Info does not count.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order
    """
    return _holds(equal_raise, tensor_1, tensor_2)


def equal_raise(tensor_1: TensorMap, tensor_2: TensorMap) -> None:
    """Raise :class:`NotEqualError` unless two maps are equal."""
    _compare_maps(
        "equal", tensor_1, tensor_2, lambda what, a, b: _compare(what, a, b, _Equal())
    )


@implements("TensorBlock.__eq__")
def equal_block(block_1: TensorBlock, block_2: TensorBlock) -> bool:
    """Are two blocks equal? See :func:`equal`."""
    return _holds(equal_block_raise, block_1, block_2)


def equal_block_raise(block_1: TensorBlock, block_2: TensorBlock) -> None:
    """Raise :class:`NotEqualError` unless two blocks are equal."""
    _check_blocks(block_1, block_2)
    _compare("equal_block", block_1, block_2, _Equal())


def allclose(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> bool:
    r"""Are two maps equal, up to rounding?

    Values and gradients :math:`a, b` are close where :math:`|a - b| \le
    \mathrm{atol} + \mathrm{rtol} |b|`; all metadata must be equal.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order
    :param rtol: relative tolerance. If None, the square root of the precision of the
        dtype: 3e-4 for float32, 1.5e-8 for float64.
    :param atol: absolute tolerance. If None, the precision of the dtype.
    :param equal_nan: is a NaN close to a NaN?
    """
    return _holds(allclose_raise, tensor_1, tensor_2, rtol, atol, equal_nan)


def allclose_raise(
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> None:
    """Raise :class:`NotEqualError` unless two maps are close, see :func:`allclose`."""
    close = _Close(rtol, atol, equal_nan)
    _compare_maps(
        "allclose", tensor_1, tensor_2, lambda what, a, b: _compare(what, a, b, close)
    )


def allclose_block(
    block_1: TensorBlock,
    block_2: TensorBlock,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> bool:
    """Are two blocks equal, up to rounding? See :func:`allclose`."""
    return _holds(allclose_block_raise, block_1, block_2, rtol, atol, equal_nan)


def allclose_block_raise(
    block_1: TensorBlock,
    block_2: TensorBlock,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> None:
    """Raise :class:`NotEqualError` unless two blocks are close."""
    _check_blocks(block_1, block_2)
    _compare("allclose_block", block_1, block_2, _Close(rtol, atol, equal_nan))


# --- how ---------------------------------------------------------------------------


def _holds(raising: Callable[..., None], *args: Any) -> bool:
    try:
        raising(*args)
    except NotEqualError:
        return False
    return True


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


def _check_blocks(block_1: TensorBlock, block_2: TensorBlock) -> None:
    check_type(block_1, "block_1", TensorBlock)
    check_type(block_2, "block_2", TensorBlock)


def _compare_maps(
    what: str,
    tensor_1: TensorMap,
    tensor_2: TensorMap,
    compare: Callable[[str, TensorBlock, TensorBlock], None],
) -> None:
    check_type(tensor_1, "tensor_1", TensorMap)
    check_type(tensor_2, "tensor_2", TensorMap)
    check_same_keys(tensor_1, tensor_2, what)
    pairs = match_blocks(tensor_1, tensor_2)
    for key, (a, b) in zip(tensor_1.keys, pairs, strict=True):
        try:
            compare(what, a, b)
        except NotEqualError as error:
            message = f"blocks for key {key.print()} are different: {error}"
            raise NotEqualError(message) from None


def _compare(
    what: str,
    block_1: TensorBlock,
    block_2: TensorBlock,
    same: _Sameness | None,
    axes: Sequence[str] = AXES,
    check_gradients: bool = True,
) -> None:
    """Raise the first difference between two blocks, or between their gradients."""
    pairs = zip(block_1._walk(), block_2._walk(), strict=False)
    for (where, a), (_, b) in pairs:
        try:
            check_same_axes(a, b, what, axes)
            if check_gradients:
                check_same_parameters(a, b, what)
            if same is not None:
                _compare_values(a, b, same)
        except NotEqualError as error:
            raise NotEqualError(f"{error}{where}") from None
        if not check_gradients:
            return


def _compare_values(a: TensorBlock, b: TensorBlock, same: _Sameness) -> None:
    if same.needs_same_dtype and a.dtype != b.dtype:
        raise NotEqualError(f"dtypes differ: {a.dtype} and {b.dtype}")
    first, other = np.asarray(a.values), np.asarray(b.values)
    agree = same(first, other)
    if bool(np.all(agree)):
        return
    at = np.unravel_index(int(np.argmin(agree)), agree.shape)
    raise NotEqualError(
        f"values are not {same.name}: {first[at]} and {other[at]} at {_place(a, at)}; "
        f"{np.count_nonzero(~agree)} of {agree.size} differ"
    )


def _place(block: TensorBlock, at: Sequence[Any]) -> str:
    """In words: one element of a block."""
    labels = [block.samples, *block.components, block.properties]
    axes = ["sample", *["component"] * len(block.components), "property"]
    return ", ".join(
        f"{axis} {part[int(i)].print()}"
        for axis, part, i in zip(axes, labels, at, strict=True)
    )


@dataclass(frozen=True)
class _Equal:
    """Are elements equal?"""

    name = "equal"
    needs_same_dtype = True

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a == b


@dataclass(frozen=True)
class _Close:
    """Are elements close? Tolerances that are None follow from the dtype."""

    rtol: float | None
    atol: float | None
    equal_nan: bool
    name = "allclose"
    needs_same_dtype = False

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        precisions = [
            float(jnp.finfo(x.dtype).eps)
            for x in (a, b)
            if jnp.issubdtype(x.dtype, np.inexact)
        ]
        precision = max(precisions, default=0.0)
        rtol = precision**0.5 if self.rtol is None else self.rtol
        atol = precision if self.atol is None else self.atol
        return np.isclose(a, b, rtol, atol, self.equal_nan)


_Sameness = _Equal | _Close
