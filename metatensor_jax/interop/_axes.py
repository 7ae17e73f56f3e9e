"""Which columns of a table are the labels of which axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ..operations.checks import as_names

Names = str | Sequence[str] | None
SINGLE = Labels.single()


class Axes(NamedTuple):
    """The names of the dimensions of each axis, each of which has a column.

    None stands for ``Labels.single()``, which says nothing and has no column.
    """

    keys: list[str] | None
    samples: list[str] | None
    components: list[str]
    properties: list[str] | None

    @classmethod
    def named(
        cls, keys: Names, samples: Names, components: Names, properties: Names
    ) -> Axes:
        """As a user names them."""
        return cls(
            _as_names(keys),
            _as_names(samples),
            _as_names(components) or [],
            _as_names(properties),
        )

    @classmethod
    def of(cls, tensor: TensorMap) -> Axes:
        """Those of a map."""
        blocks = tensor.blocks()
        return cls(
            _unless_single(tensor.keys.names, [tensor.keys]),
            _unless_single(tensor.sample_names, [block.samples for block in blocks]),
            tensor.component_names,
            _unless_single(
                tensor.property_names, [block.properties for block in blocks]
            ),
        )

    def columns(self, wide: bool) -> list[str]:
        """The names of the columns of labels; properties have none in wide tables."""
        properties = [] if wide else self.properties or []
        before = [*(self.keys or []), *(self.samples or []), *self.components]
        return [*before, *properties]

    def check(self, wide: bool, value: str) -> None:
        """Raise unless each column has a name of its own."""
        if not isinstance(value, str) or not value:
            raise MetatensorError(
                f"`value` must be the name of a column, not {value!r}"
            )
        axes: dict[str, str] = {}
        parts: dict[str, Any] = self._asdict()
        if wide:
            del parts["properties"]
        for axis, names in parts.items():
            for name in names or []:
                if name in axes:
                    raise MetatensorError(
                        f"'{name}' is a dimension of the {axes[name]} and of the "
                        f"{axis}, but a table has one column of this name: give one "
                        "of them another name, `mts.rename_dimension`"
                    )
                axes[name] = axis
        if value in axes and not (wide and self.properties is not None):
            raise MetatensorError(
                f"'{value}' is a dimension of the {axes[value]}, so the column of "
                "values needs another name: `value='...'`"
            )


def _as_names(names: Names) -> list[str] | None:
    return None if names is None else as_names(names)


def _unless_single(names: list[str], labels: Sequence[Labels]) -> list[str] | None:
    return None if all(one == SINGLE for one in labels) else names
