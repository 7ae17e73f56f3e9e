"""Which entry of a parameter each gradient row is with respect to, by labels.

With static labels this is worked out on the host, and what does not fit raises. With
traced labels it is computed in the program, which can not raise: rows that do not fit
get the entry -1. Padding fits everywhere, and has an entry past the end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._host.packing import RowIndex
from .._run.traced import find_rows as find_traced
from .._types.display import entry
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.padding import holds_padding, rows_or_padding


class Known(NamedTuple):
    """What is known of each row of a block.

    :param columns: what its labels say by the name of the dimension, and those of the
        rows that it is a gradient of
    :param is_static: are all of them known on the host?
    :param fits: with traced labels, does each row name the system of its sample?
    """

    columns: dict[str, Any]
    is_static: bool
    fits: Any

    @classmethod
    def of(cls, samples: Labels) -> Known:
        """What samples say."""
        values = samples.values
        columns = {name: values[:, i] for i, name in enumerate(samples.names)}
        return cls(columns, samples.is_static, np.ones(len(samples), bool))

    def below(self, name: str, samples: Labels, system: str) -> Known:
        """What is known of the rows of a gradient of this block.

        :param name: of the parameter
        :param samples: of the gradient
        :param system: the dimension that has to agree: a gradient row belongs to the
            system of its sample. Others, such as an atom, may be the parameter's.
        :raises MetatensorError: static rows that name another system
        """
        own = Known.of(samples)
        rows = own.columns.pop("sample")
        is_static = self.is_static and own.is_static
        taken = {
            dimension: _take(column, rows, is_static)
            for dimension, column in self.columns.items()
        }
        fits = own.fits
        if not is_static:
            fits = _take(self.fits, rows, False) != 0  # padding is no zero
        if system in taken and system in own.columns:
            agrees = taken[system] == own.columns[system]
            if is_static:
                self._check_system(name, samples, agrees, system)
            else:
                of_padding = _is_padding(taken[system], own.columns[system])
                fits = fits & (agrees | of_padding)
        return Known({**taken, **own.columns}, is_static, fits)

    def _check_system(
        self, name: str, samples: Labels, agrees: np.ndarray, system: str
    ) -> None:
        if agrees.all():
            return
        row = samples.values[int(agrees.argmin())]
        sample = [column[row[0]] for column in self.columns.values()]
        raise MetatensorError(
            f"the gradient with respect to '{name}' has a row "
            f"{entry(samples.names, row)}, but sample {row[0]} of the values is "
            f"{entry(tuple(self.columns), np.array(sample))}: a gradient row belongs "
            f"to the '{system}' of its sample. If systems were computed one by one, "
            "number them in the gradient samples as well as in the samples, before "
            "they are joined"
        )


def _is_padding(*columns: Any) -> Any:
    """Which rows are padding in one of these columns."""
    return holds_padding(jnp.stack(list(map(jnp.asarray, columns)), axis=1))


def _take(column: Any, rows: Any, is_static: bool) -> Any:
    """What the rows of the values say; padding where there is no such row."""
    if is_static:
        return column[rows]
    # NumPy arrays can be traced labels as well, and would wrap or raise
    column, rows = jnp.asarray(column), jnp.asarray(rows)
    return rows_or_padding(column.astype(np.int32), rows)


def find_entries(name: str, samples: Labels, gradient: Labels, known: Known) -> Any:
    """For each gradient row, the sample of the parameter that it belongs to.

    A parameter with one entry for all systems (``Labels.single()``) needs no dimension:
    each row belongs to this entry.

    :param samples: of the parameter
    :param gradient: of the gradient
    :param known: all that is known of each gradient row
    :returns: with static labels NumPy integers; with traced ones, rows that are padding
        have a number past the end, and those that fit nowhere have -1
    :raises MetatensorError: dimensions that one side lacks, static rows that name no
        sample of the parameter
    """
    names = [] if is_single(samples) and "_" not in gradient.names else samples.names
    _check_dimensions(name, names, gradient, known)
    wanted = [known.columns[n] for n in names]
    if not (samples.is_static and known.is_static):
        return _find_in_program(samples, gradient, wanted, known)
    if not names:
        return np.zeros(len(gradient), np.int64)
    rows = np.stack(wanted, axis=1)
    entries = RowIndex(samples.values).find(rows)
    if len(entries) and entries.min() < 0:
        missing = dict(zip(names, rows[int(entries.argmin())].tolist(), strict=True))
        raise MetatensorError(
            f"a stored gradient is with respect to '{name}' of {missing}, which is not "
            f"among the samples of the parameter:\n{samples}"
        )
    return entries


def is_single(samples: Labels) -> bool:
    """Is this one entry for all systems, such as a temperature?"""
    return samples.names == ["_"] and len(samples) == 1


def _check_dimensions(
    name: str, names: list[str], gradient: Labels, known: Known
) -> None:
    unknown = [n for n in names if n not in known.columns]
    if unknown:
        raise MetatensorError(
            f"the samples of the parameter '{name}' have the dimensions {unknown}, but "
            f"the stored gradients have {sorted(known.columns)}"
        )
    lacking = [n for n in gradient.names if n not in ("sample", *names)]
    if lacking:
        raise MetatensorError(
            f"the stored gradients with respect to '{name}' have the dimensions "
            f"{lacking}, but the samples of the parameter do not: {names}"
        )


def _find_in_program(
    samples: Labels, gradient: Labels, wanted: list[Any], known: Known
) -> Any:
    padding = _is_padding(gradient.values[:, 0], *wanted)
    found = jnp.zeros(len(gradient), np.int32)
    if wanted:
        rows = jnp.stack([jnp.asarray(column) for column in wanted], axis=1)
        found = find_traced(jnp.asarray(samples.values), rows)
    found = jnp.where(known.fits, found, np.int32(-1))
    return jnp.where(padding, np.int32(len(samples)), found)
