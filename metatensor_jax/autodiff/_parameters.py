"""Parameters are blocks: which of their entries a gradient row is with respect to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._host.packing import RowIndex
from .._run.traced import find_rows as find_traced
from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.labels import Labels


def check_parameters(what: str, parameters: Mapping[str, Any]) -> None:
    """Raise unless these are blocks of real numbers with a single property."""
    if not parameters:
        raise TypeError(f"{what} needs at least one parameter, by its name")
    for name, parameter in parameters.items():
        if not isinstance(parameter, TensorBlock):
            raise TypeError(
                f"the parameter '{name}' must be a TensorBlock, whose labels say which "
                f"entry is which, not {type(parameter).__name__}"
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


def match_components(
    name: str, parameter: TensorBlock, components: Sequence[Labels]
) -> tuple[int, ...]:
    """Which component of the parameter each component of a stored gradient is.

    They are matched by their names. In a gradient of a gradient these have to be other
    ones, so then they are taken to be in the same order.
    """
    own = [labels.names[0] for labels in parameter.components]
    names = [labels.names[0] for labels in components]
    by_name = sorted(own) == sorted(names)
    order = tuple(own.index(n) for n in names) if by_name else tuple(range(len(own)))
    entries = [parameter.components[i].values.tolist() for i in order]
    if [labels.values.tolist() for labels in components] != entries:
        raise MetatensorError(
            f"the components of the parameter '{name}' must be those that its stored "
            f"gradients have before the values' own, "
            f"{[(c.names[0], len(c)) for c in components]}, got "
            f"{[(c.names[0], len(c)) for c in parameter.components]}"
        )
    return order


Columns = Mapping[str, Any]  # the columns of samples by name, of NumPy or traced


def sample_columns(samples: Labels) -> dict[str, Any]:
    """What samples say, by the name of the dimension."""
    values = samples.values
    return {name: values[:, i] for i, name in enumerate(samples.names)}


def inherit(columns: Columns, gradient: Labels) -> dict[str, Any]:
    """What gradient samples say, and what the samples say that they belong to."""
    own = sample_columns(gradient)
    parents = own.pop("sample")
    above = {name: _take(column, parents) for name, column in columns.items()}
    return {**above, **own}


def _take(column: Any, rows: Any) -> Any:
    if isinstance(column, np.ndarray) and isinstance(rows, np.ndarray):
        return column[rows]
    inside = (rows >= 0) & (rows < len(column))
    taken = jnp.take(jnp.asarray(column), rows, mode="clip")
    return jnp.where(inside, taken, Labels.PADDING)


def find_entries(name: str, samples: Labels, gradient: Labels, columns: Columns) -> Any:
    """For each gradient row, the sample of the parameter that it belongs to.

    With traced labels this is computed in the program: rows that are padding get a
    number past the end, and rows that name no sample of the parameter get -1.

    :param samples: of the parameter
    :param gradient: of the gradient
    :param columns: all that is known of each gradient row, see :func:`inherit`
    """
    unknown = [n for n in samples.names if n not in columns]
    if unknown:
        raise MetatensorError(
            f"the samples of the parameter '{name}' have the dimensions {unknown}, but "
            f"the stored gradients have {sorted(columns)}"
        )
    lacking = [n for n in gradient.names if n not in ("sample", *samples.names)]
    if lacking:
        raise MetatensorError(
            f"the stored gradients with respect to '{name}' have the dimensions "
            f"{lacking}, but the samples of the parameter do not: {samples.names}"
        )
    wanted = [columns[n] for n in samples.names]
    if not (samples.is_static and all(isinstance(c, np.ndarray) for c in wanted)):
        rows = jnp.stack([jnp.asarray(c) for c in wanted], axis=1)
        found = find_traced(jnp.asarray(samples.values), rows)
        return jnp.where(rows[:, 0] == Labels.PADDING, len(samples), found)
    rows = np.stack(wanted, axis=1)
    entries = RowIndex(samples.values).find(rows)
    if len(entries) and entries.min() < 0:
        missing = dict(
            zip(samples.names, rows[int(entries.argmin())].tolist(), strict=True)
        )
        raise MetatensorError(
            f"a stored gradient is with respect to '{name}' of {missing}, which is not "
            f"among the samples of the parameter:\n{samples}"
        )
    return entries
