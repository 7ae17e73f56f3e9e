"""Parameters are blocks with a single property; what they are asked for first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.tensor import TensorMap
from ..operations.checks import check_not_batched


def check_parameters(what: str, system: str, parameters: Mapping[str, Any]) -> None:
    """Raise unless these are blocks of real numbers with a single property.

    :param what: the function that takes them
    :param system: the dimension that tells systems apart, which is no parameter
    """
    if not isinstance(system, str):
        raise TypeError(
            "`system` must be the name of the sample dimension that tells systems "
            f"apart, not {type(system).__name__}; a parameter needs another name"
        )
    if not parameters:
        raise TypeError(f"{what} needs at least one parameter, by its name")
    for name, parameter in parameters.items():
        if not isinstance(parameter, TensorBlock):
            raise TypeError(
                f"the parameter '{name}' must be a TensorBlock, whose labels say which "
                f"entry is which, not {type_of(parameter)}"
            )
        if len(parameter.properties) != 1:
            raise MetatensorError(
                f"the parameter '{name}' must have a single property, got "
                f"{len(parameter.properties)}"
            )
        if not jnp.issubdtype(parameter.dtype, np.floating):
            raise TypeError(
                f"can not take derivatives by '{name}', whose values are "
                f"{parameter.dtype}: they must be real floating point numbers"
            )
        check_not_batched(f"the parameter '{name}'", parameter)


def check_values(tensor: TensorMap) -> None:
    """Raise unless the values are numbers that can have derivatives."""
    for key, block in tensor.items():
        check_not_batched(f"block {key.print()}", block)
        if not jnp.issubdtype(block.dtype, np.inexact):
            raise TypeError(
                f"can not take derivatives of {block.dtype} values: convert them with "
                "`.to(dtype=float)`"
            )
