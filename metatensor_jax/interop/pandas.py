"""Maps and blocks as tidy tables of pandas, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._types.arrays import Scalar
from .._types.block import TensorBlock
from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.tensor import TensorMap
from ._axes import Axes, Names
from ._from_table import from_columns, with_gradients
from ._imports import imported
from ._rows import Table
from ._to_table import Layout, to_columns

if TYPE_CHECKING:
    import pandas as pd


def to_pandas(
    data: TensorMap | TensorBlock,
    *,
    layout: Layout = "long",
    gradient: str | Sequence[str] = (),
    value: str = "value",
) -> pd.DataFrame:
    """A map or a block as a tidy table: labels are columns, and so are values.

    - ``layout="long"``: a row for each element. The columns are the dimensions of the
      keys, of the samples, the components, the dimensions of the properties, and the
      value.
    - ``layout="wide"``: a row for each sample and component, with a column for each
      property, which is called ``n=3,l=1`` where the properties have the dimensions
      ``n`` and ``l``. All blocks must have the same properties.

    Rows come in the order of the blocks and of their axes. Columns of labels are
    ``int32``, values keep their dtype. ``Labels.single()``, which say nothing, have no
    column. Blocks without elements have no rows.

    :param data: what to convert. Its stored gradients are tables of their own
    :param layout: ``"long"`` or ``"wide"``
    :param gradient: make the table of the gradient with respect to this parameter
        instead, or of a gradient of a gradient: ``("positions", "cell")``. Its column
        ``sample`` is the row of the values of its block
    :param value: the name of the column of values
    :raises MetatensorError: dimensions of two axes with one name, or with that of the
        values; blocks with other properties in a wide table; a gradient that is not
        there; a dtype that is not NumPy's own
    :raises TypeError: anything else, or data that is traced
    :raises TracedLabelsError: traced samples, those of a padded batch among them

    >>> from metatensor_jax import Labels
    >>> block = TensorBlock(
    ...     np.arange(4.0).reshape(2, 2),
    ...     Labels(["system", "atom"], [[0, 0], [0, 2]]),
    ...     [],
    ...     Labels.range("n", 2),
    ... )
    >>> tensor = TensorMap(Labels("center_type", [[8]]), [block])
    >>> to_pandas(tensor)
       center_type  system  atom  n  value
    0            8       0     0  0    0.0
    1            8       0     0  1    1.0
    2            8       0     2  0    2.0
    3            8       0     2  1    3.0
    >>> to_pandas(tensor, layout="wide")
       center_type  system  atom  n=0  n=1
    0            8       0     0  0.0  1.0
    1            8       0     2  2.0  3.0
    """
    pandas = imported("pandas", "to_pandas")
    return pandas.DataFrame(to_columns("to_pandas", data, layout, gradient, value))


def from_pandas(
    table: pd.DataFrame,
    *,
    keys: Names = None,
    samples: Names = None,
    components: Names = (),
    properties: Names = None,
    layout: Layout = "long",
    value: str = "value",
    fill_value: Scalar | None = None,
    gradients: Mapping[str, TensorMap] | None = None,
    like: TensorMap | TensorBlock | None = None,
    gradient: str | Sequence[str] = (),
) -> TensorMap:
    """A map of the rows of a table, as :func:`to_pandas` makes it, in any order.

    Labels are those of the rows, in the order in which they first come. With ``like``
    they are those of another map, and so is its info: the way back for a table of a map
    with blocks without elements, or one that was sorted.

    :param table: columns of labels (integers) and of values; no others
    :param keys: the columns that are dimensions of the keys. Without, for these and the
        other axes, there is one block with the key ``_``, one sample ``_``, or one
        property ``_``
    :param samples: the columns that are dimensions of the samples
    :param components: the columns that are components, in the order of their axes
    :param properties: the columns that are dimensions of the properties. In a wide
        table all other columns are properties, and these are the names in
        ``n=3,l=1``
    :param layout: ``"long"`` or ``"wide"``
    :param value: the column of values
    :param fill_value: what to take for elements that have no row; without, these raise
    :param gradients: the gradients by parameter, as maps that this function made of
        their tables. Their first sample is called ``sample``: it numbers the samples
        in the order of this table, so give ``like`` for a table in another order
    :param like: a map with the names and labels to have; the axes are not named then
    :param gradient: the table is that of this gradient of ``like``
    :raises MetatensorError: columns that are not there, or not named; an element that
        is there twice, or (without ``fill_value``) not at all; labels that are not
        among those of ``like``; gradients that do not fit; missing values of nullable
        dtypes (NaN is a value)
    :raises TypeError: labels that are no integers, values that are no numbers

    >>> import pandas
    >>> table = pandas.DataFrame(
    ...     {"system": [0, 0, 1], "n": [0, 1, 1], "value": [0.5, 1.5, 2.5]}
    ... )
    >>> tensor = from_pandas(table, samples="system", properties="n", fill_value=0.0)
    >>> tensor.block().values
    array([[0.5, 1.5],
           [0. , 2.5]])
    """
    pandas = imported("pandas", "from_pandas")
    if not isinstance(table, pandas.DataFrame):
        raise TypeError(
            f"`table` must be a pandas.DataFrame, not {type_of(table, qualified=True)}"
        )

    def read(name: str) -> Any:
        column: Any = table[name]
        # NaN of NumPy's dtypes is a number; what nullable dtypes lack is none
        if not isinstance(column.dtype, np.dtype) and column.isna().any():
            raise MetatensorError(
                f"the column '{name}' has {int(column.isna().sum())} missing values: "
                "drop these rows, `dropna`, or fill them, `fillna`"
            )
        return column.to_numpy()

    tensor = from_columns(
        "from_pandas",
        Table(list(table.columns), read),
        Axes.named(keys, samples, components, properties),
        like,
        layout,
        gradient,
        value,
        fill_value,
    )
    return with_gradients("from_pandas", tensor, gradients or {})
