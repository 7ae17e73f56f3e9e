"""What a block needs, to be padded: labels that say which system each row is of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .._types.block import TensorBlock
from .._types.display import entry
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.padding import holds_padding


def check_block(what: str, block: TensorBlock, system: str) -> None:
    """Raise unless the samples of a block fit into a padded batch.

    They are static, say the system of each row, hold no padding, and gradient rows
    belong to the system of their sample: systems are cut and numbered by these labels.
    """
    check_has_system(what, block.samples.names, system)
    if system == "sample":
        raise MetatensorError(
            "the dimension 'sample' of gradients is the row of the values: it can not "
            "tell systems apart. Rename that of the samples, `rename_dimension`"
        )
    if "samples" in block.gradients_list():
        raise MetatensorError(
            f"{what} has a gradient with respect to 'samples', which is what layouts "
            "call the values: give the parameter another name"
        )
    _check_part(what, block, system, None)


def check_has_system(what: str, names: Iterable[str], system: str) -> None:
    """Raise unless samples with these dimensions say the system of each row."""
    names = list(names)
    if system not in names:
        raise MetatensorError(
            f"the samples of {what} have the dimensions {names}, but not '{system}': "
            "all maps of a layout must say which system each row belongs to. Add it "
            "with `append_dimension` or `insert_dimension`, or name another dimension "
            "by `system=`"
        )


def _check_part(
    what: str, block: TensorBlock, system: str, systems: np.ndarray | None
) -> None:
    """A block or a gradient.

    :param systems: of each row of the values, if this is a gradient of them
    """
    values = block.samples._host_values("padding")
    _check_no_padding(what, block.samples, values)
    if systems is not None:
        systems = systems[values[:, 0]]
    if system in block.samples.names:
        own = values[:, block.samples.names.index(system)]
        if systems is not None:
            _check_systems(what, block.samples, own, systems, system)
        systems = own
    for name, gradient in block.gradients():
        _check_part(f"{what}, gradient '{name}'", gradient, system, systems)


def _check_no_padding(what: str, samples: Labels, values: np.ndarray) -> None:
    if not holds_padding(values).any():
        return
    row = int(holds_padding(values).argmax())
    raise MetatensorError(
        f"the samples of {what} hold {entry(samples.names, values[row])} in row {row}, "
        f"but {Labels.PADDING} (`Labels.PADDING`) marks rows of padding: give it "
        "another number, or leave out the row"
    )


def _check_systems(
    what: str, samples: Labels, own: np.ndarray, systems: np.ndarray, system: str
) -> None:
    if np.array_equal(own, systems):
        return
    i = int((own != systems).argmax())
    row = samples.values[i]
    raise MetatensorError(
        f"{what} has a row {entry(samples.names, row)}, but sample {row[0]} of the "
        f"values is of {system} {systems[i]}: a gradient row belongs to the '{system}' "
        "of its sample. If systems were computed one by one, number them in the "
        "gradient samples as well as in the samples, before they are joined"
    )
