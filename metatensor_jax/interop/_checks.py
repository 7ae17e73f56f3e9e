"""What all exchange asks of its input: our objects, with values known on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._types.arrays import is_array, is_tracer
from .._types.block import TensorBlock
from .._types.errors import MetatensorError, TracedLabelsError
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.structure import in_words
from ..operations.checks import check_not_batched

_INSTEAD = {
    "PaddedBatch": ": undo the padding first, `layout.unpad(batch)`",
    "StackedMap": ": take its blocks apart first, `stacked.unstack()`",
}
_PADDED = (
    "samples of a padded batch are traced: undo the padding first, "
    "`layout.unpad(tensor, batch.systems)`"
)


def check_data(
    what: str, data: Any, kinds: tuple[type, ...], name: str = "data"
) -> None:
    """Raise unless this is one of our objects, and all of it is known on the host.

    :param what: the function that was called
    :param kinds: the classes that it takes
    :param name: of the argument
    """
    if not isinstance(data, kinds):
        names = [kind.__name__ for kind in kinds]
        words = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        raise TypeError(
            f"`{name}` must be a metatensor_jax {words}, not {_not_ours(data)}"
        )
    if isinstance(data, Labels):
        if not data.is_static:
            raise _traced(what, data)
    elif isinstance(data, TensorBlock):
        _check_block(what, "the block", data)
    else:
        for key, block in data.items():
            _check_block(what, f"the block {key.print()}", block)


def as_numpy(what: str, values: Any) -> np.ndarray:
    """The values in the memory of the host, of a dtype that NumPy has itself.

    :param what: the package that has no other dtypes
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise MetatensorError(
            f"{what} does not have the dtype {array.dtype}: convert the data first, "
            "`.to(dtype='float32')`"
        )
    return array


def _not_ours(data: Any) -> str:
    given = type_of(data, qualified=True)
    ours = given.partition(".")[0] == __name__.partition(".")[0]
    return given + (_INSTEAD.get(type(data).__name__, "") if ours else "")


def _check_block(what: str, which: str, block: TensorBlock) -> None:
    for path, part in block._walk():
        where = in_words(path)
        if not part.samples.is_static:
            raise _traced(what, part.samples)
        if is_tracer(part.values):
            raise TypeError(
                f"{what} needs data, but the values of {which}{where} are "
                "traced: they are only known when the program runs. Convert maps "
                "outside of `jax.jit`, `jax.grad` and the like"
            )
        if not is_array(part.values):
            raise TypeError(
                f"the values of {which}{where} must be an array, not "
                f"{type_of(part.values, qualified=True)}"
            )
    check_not_batched(which, block)


def _traced(what: str, labels: Labels) -> TracedLabelsError:
    error = TracedLabelsError(what, labels.names)
    error.add_note(_PADDED)
    return error
