"""Are two maps or blocks the same: equal, nearly equal, equal metadata?

Each question is asked once, by a function that raises the first difference; its twin
without ``_raise`` tells whether there is one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec

import jax.numpy as jnp
import numpy as np

from ..block import TensorBlock
from ..checks import (
    AXES,
    check_same_axes,
    check_same_keys,
    check_same_parameters,
    check_type,
)
from ..errors import MetatensorError, NotEqualError
from ..facade import implements
from ..rows import match_blocks
from ..tensor import TensorMap

Check = str | Sequence[str]
_Arguments = ParamSpec("_Arguments")


def _holds(
    raising: Callable[_Arguments, None], name: str
) -> Callable[_Arguments, bool]:
    """The question whether a function would not raise :class:`NotEqualError`."""

    def holds(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> bool:
        try:
            raising(*args, **kwargs)
        except NotEqualError:
            return False
        return True

    holds.__name__ = holds.__qualname__ = name
    holds.__module__ = raising.__module__
    holds.__doc__ = f"Does :func:`{raising.__name__}`, see there, find no difference?"
    holds.__signature__ = inspect.signature(raising).replace(  # type: ignore[attr-defined]
        return_annotation=bool
    )
    return holds


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

    >>> import numpy as np
    >>> import metatensor_jax as mts
    >>> x = mts.block_from_array(np.ones((2, 1)))
    >>> x = mts.TensorMap(mts.Labels.single(), [x])
    >>> y = mts.rename_dimension(x, "samples", "sample", "atom")
    >>> mts.equal_metadata(x, y), mts.equal_metadata(x, y, check="properties")
    (False, True)
    """
    same = _Same(None, _axes(check), check_gradients)
    _compare_maps("equal_metadata_raise", tensor_1, tensor_2, same)


def equal_metadata_block_raise(
    block_1: TensorBlock,
    block_2: TensorBlock,
    check: Check = "all",
    check_gradients: bool = True,
) -> None:
    """Raise unless two blocks have the same metadata: :func:`equal_metadata_raise`."""
    same = _Same(None, _axes(check), check_gradients)
    _compare_blocks("equal_metadata_block_raise", block_1, block_2, same)


def equal_raise(tensor_1: TensorMap, tensor_2: TensorMap) -> None:
    """Raise :class:`NotEqualError` unless two maps are equal.

    That is: metadata, values, gradients, dtypes; info does not count.

    :param tensor_1: a map
    :param tensor_2: another map; its keys can be in another order
    """
    _compare_maps("equal", tensor_1, tensor_2, _Same(_Equal()))


def equal_block_raise(block_1: TensorBlock, block_2: TensorBlock) -> None:
    """Raise :class:`NotEqualError` unless two blocks are equal: :func:`equal_raise`."""
    _compare_blocks("equal_block", block_1, block_2, _Same(_Equal()))


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
    """
    same = _Same(_Close(rtol, atol, equal_nan))
    _compare_maps("allclose", tensor_1, tensor_2, same)


def allclose_block_raise(
    block_1: TensorBlock,
    block_2: TensorBlock,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> None:
    """Raise unless two blocks are equal up to rounding: :func:`allclose_raise`."""
    same = _Same(_Close(rtol, atol, equal_nan))
    _compare_blocks("allclose_block", block_1, block_2, same)


equal_metadata = _holds(equal_metadata_raise, "equal_metadata")
equal_metadata_block = _holds(equal_metadata_block_raise, "equal_metadata_block")
equal = implements("TensorMap.__eq__")(_holds(equal_raise, "equal"))
equal_block = implements("TensorBlock.__eq__")(_holds(equal_block_raise, "equal_block"))
allclose = _holds(allclose_raise, "allclose")
allclose_block = _holds(allclose_block_raise, "allclose_block")


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


class _Same(NamedTuple):
    """What has to be the same in two blocks."""

    values: _Equal | _Close | None
    axes: Sequence[str] = AXES
    gradients: bool = True

    def check(self, what: str, block_1: TensorBlock, block_2: TensorBlock) -> None:
        """Raise the first difference between two blocks, or between their gradients."""
        pairs = zip(block_1._walk(), block_2._walk(), strict=False)
        for (where, a), (_, b) in pairs:
            try:
                check_same_axes(a, b, what, self.axes)
                if self.gradients:
                    check_same_parameters(a, b, what)
                if self.values is not None:
                    _check_values(a, b, self.values)
            except NotEqualError as error:
                raise NotEqualError(f"{error}{where}") from None
            if not self.gradients:
                return


def _compare_blocks(what: str, a: TensorBlock, b: TensorBlock, same: _Same) -> None:
    check_type(a, "block_1", TensorBlock)
    check_type(b, "block_2", TensorBlock)
    same.check(what, a, b)


def _compare_maps(what: str, a: TensorMap, b: TensorMap, same: _Same) -> None:
    check_type(a, "tensor_1", TensorMap)
    check_type(b, "tensor_2", TensorMap)
    check_same_keys(a, b, what)
    for key, blocks in zip(a.keys, match_blocks(a, b), strict=True):
        try:
            same.check(what, *blocks)
        except NotEqualError as error:
            message = f"blocks for key {key.print()} are different: {error}"
            raise NotEqualError(message) from None


def _check_values(a: TensorBlock, b: TensorBlock, same: _Equal | _Close) -> None:
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
