"""Maps and blocks as tidy tables of polars, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    import polars as pl


def to_polars(
    data: TensorMap | TensorBlock,
    *,
    layout: Layout = "long",
    gradient: str | Sequence[str] = (),
    value: str = "value",
) -> pl.DataFrame:
    """A map or a block as a tidy table: labels are columns, and so are values.

    The table is that of :func:`to_pandas <metatensor_jax.interop.to_pandas>`, and so
    are the arguments: a row for each element with ``layout="long"``, a column for each
    property with ``layout="wide"``. polars has no complex numbers, and some versions of
    it have no float16.

    :param data: what to convert. Its stored gradients are tables of their own
    :param layout: ``"long"`` or ``"wide"``
    :param gradient: make the table of the gradient with respect to this parameter, or
        these
    :param value: the name of the column of values
    :raises MetatensorError: what ``to_pandas`` raises it for; a dtype that polars does
        not have
    :raises TypeError: anything but maps and blocks, or data that is traced
    :raises TracedLabelsError: traced samples, those of a padded batch among them

    >>> from metatensor_jax import Labels
    >>> block = TensorBlock(
    ...     np.arange(4.0).reshape(2, 2),
    ...     Labels(["system", "atom"], [[0, 0], [0, 2]]),
    ...     [],
    ...     Labels.range("n", 2),
    ... )
    >>> tensor = TensorMap(Labels("center_type", [[8]]), [block])
    >>> to_polars(tensor).rows()
    [(8, 0, 0, 0, 0.0), (8, 0, 0, 1, 1.0), (8, 0, 2, 0, 2.0), (8, 0, 2, 1, 3.0)]
    >>> to_polars(tensor, layout="wide").columns
    ['center_type', 'system', 'atom', 'n=0', 'n=1']
    """
    polars = imported("polars", "to_polars")
    columns = to_columns("to_polars", data, layout, gradient, value)
    for name, column in columns.items():
        # what polars does not have becomes something else without a word
        if polars.Series(column[:0]).to_numpy().dtype != column.dtype:
            raise MetatensorError(
                f"this version of polars does not have the dtype {column.dtype} of the "
                f"column '{name}': convert the data first, `.to(dtype=...)`, or make "
                "a table of the real and one of the imaginary part"
            )
    return polars.DataFrame(columns)


def from_polars(
    table: pl.DataFrame,
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
    """A map of the rows of a table, as :func:`to_polars` makes it, in any order.

    It works as :func:`from_pandas <metatensor_jax.interop.from_pandas>` does, with the
    same arguments.

    :param table: columns of labels (integers) and of values; no others, and no nulls
    :param keys: the columns that are dimensions of the keys
    :param samples: the columns that are dimensions of the samples
    :param components: the columns that are components, in the order of their axes
    :param properties: the columns that are dimensions of the properties; in a wide
        table, the names in ``n=3,l=1``
    :param layout: ``"long"`` or ``"wide"``
    :param value: the column of values
    :param fill_value: what to take for elements that have no row; without, these raise
    :param gradients: the gradients by parameter, as maps that this function made of
        their tables. Their first sample numbers the samples in the order of this table,
        so give ``like`` for a table in another order
    :param like: a map with the names and labels to have; the axes are not named then
    :param gradient: the table is that of this gradient of ``like``
    :raises MetatensorError: what ``from_pandas`` raises it for; columns with nulls
    :raises TypeError: labels that are no integers, values that are no numbers, integers
        of 128 bits

    >>> import polars
    >>> table = polars.DataFrame({"system": [3, 5], "value": [0.5, 1.5]})
    >>> tensor = from_polars(table, samples="system")
    >>> tensor.block().samples["system"].tolist(), tensor.block().values.tolist()
    ([3, 5], [[0.5], [1.5]])
    """
    polars = imported("polars", "from_polars")
    if not isinstance(table, polars.DataFrame):
        raise TypeError(
            f"`table` must be a polars.DataFrame, not {type_of(table, qualified=True)}"
        )

    def read(name: str) -> Any:
        column = table[name]
        if column.null_count():
            raise MetatensorError(
                f"the column '{name}' has {column.null_count()} nulls: drop these "
                "rows, `drop_nulls`, or fill them, `fill_null`"
            )
        if str(column.dtype) in ("Int128", "UInt128"):
            raise TypeError(
                f"the column '{name}' is {column.dtype}, which NumPy does not have: "
                "convert it first, `.cast(polars.Int64)`"
            )
        return column.to_numpy()

    tensor = from_columns(
        "from_polars",
        Table(list(table.columns), read),
        Axes.named(keys, samples, components, properties),
        like,
        layout,
        gradient,
        value,
        fill_value,
    )
    return with_gradients("from_polars", tensor, gradients or {})
