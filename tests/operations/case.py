"""What there is to say about one way to call an operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from structures import Input, Structure

import metatensor_jax as mts


def late(name: str) -> Callable[..., Any]:
    """The operation of this name, looked up when it is called.

    The tests of parity put metatensor in the place of ``mts``.
    """
    return lambda *args, **kwargs: getattr(mts, name)(*args, **kwargs)


def keep(dtype: np.dtype) -> np.dtype:
    """The result has the dtype of the input."""
    return dtype


def to_float(dtype: np.dtype) -> np.dtype:
    """Integers become floats of the same size, as JAX divides them."""
    return np.dtype(f"float{8 * dtype.itemsize}") if dtype.kind == "i" else dtype


def to_real(dtype: np.dtype) -> np.dtype:
    """The real numbers with the same precision."""
    return np.zeros(0, dtype).real.dtype


def to_real_float(dtype: np.dtype) -> np.dtype:
    """Both."""
    return to_real(to_float(dtype))


def one(structure: Structure) -> list[Input]:
    """A single map."""
    return [structure.input()]


def two(structure: Structure) -> list[Input]:
    """Two maps with the same labels, but other gradient rows."""
    return [structure.input(), structure.input(1)]


def everything(structure: Structure) -> bool:
    """Any structure, except those that are made for linear systems."""
    return not structure.name.startswith("square")


def with_blocks(structure: Structure) -> bool:
    """Structures with blocks, which may be empty."""
    return everything(structure) and len(structure.sizes) > 0


def with_components(structure: Structure) -> bool:
    """Structures with a component."""
    return everything(structure) and len(structure.components) > 0


def with_two_of_each(structure: Structure) -> bool:
    """Structures whose blocks have two samples and two properties."""
    return everything(structure) and structure.smallest >= 2


@dataclass(frozen=True)
class Case:
    """One way to call an operation."""

    name: str
    #: public names that this stands for
    operations: Sequence[str]
    call: Callable[..., Any]
    #: the same for single blocks
    of_block: Callable[..., Any] | None = None
    inputs: Callable[[Structure], list[Input]] = one
    suits: Callable[[Structure], bool] = everything
    #: only moves rows: NumPy arrays stay such, and nothing is rounded
    moves: bool = False
    #: its values must be positive
    positive: bool = False
    #: linear in the values of all inputs together: only the first derivative matters
    linear: bool = False
    #: stored gradients are the derivatives of the values
    derives: bool = True
    #: the values of a result can be differentiated by JAX
    autodiff: bool = True
    #: the values of the result do not depend on those of the input
    constant: bool = False
    #: the values of the result are not defined at all
    undefined: bool = False
    #: dtype of the result
    dtype: Callable[[np.dtype], np.dtype] = keep
    #: metatensor has it, too
    upstream: bool = True
    #: what becomes of a NaN is up to LAPACK
    solves: bool = False
    #: dtypes that make no sense, by their kind
    not_for: str = ""
    #: what needs the values of samples; None: nothing does, they can be traced
    needs_samples: str | None = None
    #: the same, for structures with gradients only
    needs_gradient_samples: str | None = None
    #: the same, for structures with gradients of gradients only
    needs_nested_samples: str | None = None

    def arguments(self, structure: Structure) -> list[Input]:
        """The inputs as functions of parameters."""
        inputs = self.inputs(structure)
        return [x.positive() for x in inputs] if self.positive else inputs

    def stored(self, structure: Structure) -> list[mts.TensorMap]:
        """The inputs with stored gradients."""
        return [x.stored() for x in self.arguments(structure)]

    def __repr__(self) -> str:
        return self.name
