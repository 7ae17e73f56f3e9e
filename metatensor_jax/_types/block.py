"""TensorBlock: a dense array with labels on each axis, and its stored gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from . import display
from .arrays import Array, Device, frozen, is_array
from .conversion import Conversion, check_dtype
from .dlpack import as_array
from .errors import MetatensorError
from .foreign import type_of
from .labels import Labels
from .padding import is_padding
from .structure import BlockStructure, Path


class TensorBlock:
    """An array with metadata: labels for each axis, and stored gradients.

    :param values: array with shape ``(samples, *components, properties)``. NumPy's and
        JAX's are kept as they are (in the byte order of this machine). Those of other
        libraries, which come by DLPack (PyTorch, CuPy, C, C++, Rust) or as a buffer,
        become NumPy arrays that share their memory, or JAX arrays on the same
        accelerator
    :param samples: one entry per row. Traced labels make a block whose samples may
        differ from call to call of one compiled function
    :param components: labels with one dimension for each axis in the middle
    :param properties: one entry for each element of the last axis
    :param gradients: gradients of the values by the name of their parameter, blocks
        themselves. The first sample dimension of each is ``"sample"``, the row of the
        values that a row is a gradient of; a row that is not there is zero. Their
        components end with those of the values, their properties are the same.
    :raises MetatensorError: shapes, labels and gradients that do not fit together
    :raises MetatensorError: values that the library they are of does not give, such as
        a tensor of PyTorch that requires gradients
    :raises TypeError: values that are no arrays, labels that are no :class:`Labels`

    Memory that is shared should not be changed on the other side: the values here would
    change, and JAX arrays that were made of them. ``block.copy()`` has its own.
    64-bit numbers that JAX would narrow, unless its 64-bit mode is enabled, stay what
    they are as NumPy arrays; a warning says so once if they are another library's.

    Blocks can not be changed; :meth:`with_values` and :meth:`with_gradient` make new
    ones. They are pytrees: arrays (and the values of traced samples) are leaves, all
    the rest is static.

    >>> block = TensorBlock(
    ...     values=np.arange(6.0).reshape(3, 2),
    ...     samples=Labels.range("system", 3),
    ...     components=[],
    ...     properties=Labels.range("feature", 2),
    ... )
    >>> print(block)
    TensorBlock with shape (3, 2)
        values: float64, NumPy
        samples: [system]
        properties: [feature]
    """

    __slots__ = ("__weakref__", "_leaves", "_parameters", "_structure")

    #: what this is a gradient by, of a block that :meth:`gradients` gave: for its text
    _parameters: Path
    _structure: BlockStructure
    _leaves: tuple[Any, ...]

    def __init__(
        self,
        values: Array,
        samples: Labels,
        components: Sequence[Labels],
        properties: Labels,
        gradients: Mapping[str, TensorBlock] | None = None,
    ) -> None:
        if isinstance(components, Labels):
            raise TypeError("`components` must be a list of Labels, not Labels")
        components, gradients = tuple(components), dict(gradients or {})
        values = as_array(values, "the values of a block")
        check_dtype(values.dtype)
        _check_labels(samples, components, properties)
        _check_shape(values, samples, components, properties)
        self._set(values, samples, components, properties, {})
        for name, gradient in gradients.items():
            _check_gradient(self, name, gradient)
        if gradients:
            self._set(values, samples, components, properties, gradients)

    def _set(
        self,
        values: Any,
        samples: Labels,
        components: tuple[Labels, ...],
        properties: Labels,
        gradients: Mapping[str, TensorBlock],
    ) -> None:
        values, by_name = frozen(values), sorted(gradients.items())
        self._structure = BlockStructure(
            samples,
            components,
            properties,
            tuple((name, gradient._structure) for name, gradient in by_name),
        )
        leaves = (values,) if samples.is_static else (values, samples.values)
        for _, gradient in by_name:
            leaves += gradient._leaves
        self._leaves = leaves

    @classmethod
    def _make(
        cls,
        values: Any,
        samples: Labels,
        components: tuple[Labels, ...],
        properties: Labels,
        gradients: Mapping[str, TensorBlock] | None = None,
    ) -> TensorBlock:
        """A block without any check, for parts that are known to fit."""
        block = cls.__new__(cls)
        block._set(values, samples, components, properties, gradients or {})
        return block

    @classmethod
    def _unflatten(cls, structure: BlockStructure, leaves: Any) -> TensorBlock:
        """A block from its two halves. JAX puts anything in the leaves: no checks."""
        block = cls.__new__(cls)
        block._structure, block._leaves = structure, tuple(leaves)
        return block

    # --- the parts ---------------------------------------------------------------

    @property
    def values(self) -> Array:
        """The data, with shape ``(samples, *components, properties)``."""
        return self._leaves[0]

    @values.setter
    def values(self, _: Any) -> None:
        raise AttributeError(
            "a TensorBlock can not be changed: use `block.with_values(values)`, which "
            "returns a new one"
        )

    @property
    def samples(self) -> Labels:
        """Labels of the first axis."""
        structure = self._structure
        if structure.samples is None:
            return Labels._make(structure.sample_names, self._leaves[1], static=False)
        return structure.samples

    @property
    def components(self) -> list[Labels]:
        """Labels of the axes between the first and the last."""
        return list(self._structure.components)

    @property
    def properties(self) -> Labels:
        """Labels of the last axis."""
        return self._structure.properties

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return tuple(self.values.shape)

    @property
    def mask(self) -> Array:
        """Which samples are there, rather than padding: one boolean for each.

        Static samples are all there. Those of a padded batch are padding where they are
        ``Labels.PADDING``, see :class:`Layout`.
        """
        if self.samples.is_static:
            return np.ones(len(self), bool)
        return ~is_padding(self.samples.values)

    @property
    def dtype(self) -> np.dtype:
        """dtype of the values."""
        return self.values.dtype

    @property
    def device(self) -> Device:
        """Where the values are: a JAX device, or ``"cpu"`` for NumPy's."""
        return "cpu" if isinstance(self.values, np.ndarray) else self.values.device

    def __len__(self) -> int:
        return self.values.shape[0]

    # --- gradients ---------------------------------------------------------------

    def gradients_list(self) -> list[str]:
        """Names of the parameters that there are gradients for, sorted."""
        return [name for name, _ in self._structure.gradients]

    def has_gradient(self, parameter: str) -> bool:
        """Is there a gradient with respect to ``parameter``?"""
        return any(name == parameter for name, _ in self._structure.gradients)

    def gradient(self, parameter: str) -> TensorBlock:
        """The gradient with respect to ``parameter``."""
        for name, gradient in self.gradients():
            if name == parameter:
                return gradient
        raise MetatensorError(
            f"can not find gradients with respect to '{parameter}' in this block, it "
            f"has {self.gradients_list() or 'none'}"
        )

    def gradients(self) -> Iterator[tuple[str, TensorBlock]]:
        """Each parameter and the gradient with respect to it."""
        start = 1 + (self._structure.samples is None)
        for name, structure in self._structure.gradients:
            stop = start + structure.n_leaves
            gradient = TensorBlock._unflatten(structure, self._leaves[start:stop])
            gradient._parameters = (*getattr(self, "_parameters", ()), name)
            yield name, gradient
            start = stop

    def add_gradient(self, parameter: str, gradient: TensorBlock) -> None:
        """Not here, blocks can not be changed: see :meth:`with_gradient`."""
        raise AttributeError(
            "a TensorBlock can not be changed: use "
            f"`block.with_gradient('{parameter}', gradient)`, which returns a new one"
        )

    def with_gradient(self, parameter: str, gradient: TensorBlock) -> TensorBlock:
        """This block with this gradient with respect to a parameter.

        One that is there already is replaced.

        >>> x = Labels.range("x", 1)
        >>> block = TensorBlock(np.ones((2, 1)), Labels.range("atom", 2), [], x)
        >>> gradient = TensorBlock(np.ones((1, 1)), Labels("sample", [[1]]), [], x)
        >>> block.with_gradient("cell", gradient).gradients_list()
        ['cell']
        """
        gradients = {**dict(self.gradients()), parameter: gradient}
        return TensorBlock(
            self.values, self.samples, self.components, self.properties, gradients
        )

    def with_values(self, values: Array) -> TensorBlock:
        """This block with other values of the same shape; gradients stay.

        >>> block = TensorBlock(
        ...     np.ones((2, 1)), Labels.range("s", 2), [], Labels.range("p", 1)
        ... )
        >>> block.with_values(2 * block.values).values.tolist()
        [[2.0], [2.0]]
        """
        return TensorBlock(
            values,
            self.samples,
            self.components,
            self.properties,
            dict(self.gradients()),
        )

    # --- identity ----------------------------------------------------------------

    __hash__ = None  # type: ignore[assignment]

    def copy(self, deep: bool = True) -> TensorBlock:
        """A block with copies of the arrays (or these arrays, if not ``deep``)."""
        leaves = map(_copied, self._leaves) if deep else self._leaves
        return TensorBlock._unflatten(self._structure, map(frozen, leaves))

    def __copy__(self) -> TensorBlock:
        return self.copy(deep=False)

    def __deepcopy__(self, _memodict: Any) -> TensorBlock:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        parts = self.values, self.samples, tuple(self.components), self.properties
        return TensorBlock._make, (*parts, dict(self.gradients()))

    def to(
        self,
        *args: DTypeLike | Device,
        dtype: DTypeLike | None = None,
        device: Device | None = None,
        arrays: str | None = None,
        non_blocking: bool = False,
    ) -> TensorBlock:
        """This block with another dtype, on another device, or as other arrays.

        :param dtype: dtype of values and gradients
        :param device: a ``jax.Device`` or sharding, or the name of a platform
        :param arrays: ``"numpy"`` or ``"jax"``

        Positional arguments are told apart by their type, as in metatensor. As with
        ``jax.device_put``, arrays of JAX may share the memory of NumPy's on a CPU: do
        not write to an array that a block was made of, or give a copy.

        >>> block = TensorBlock(
        ...     np.ones((2, 1)), Labels.range("s", 2), [], Labels.range("p", 1)
        ... )
        >>> block.to(np.float32).dtype
        dtype('float32')
        """
        return self._convert(Conversion.parse(args, dtype, device, arrays))

    def _convert(self, conversion: Conversion) -> TensorBlock:
        return self._map_leaves(conversion.apply, conversion.place)

    def _map_leaves(
        self,
        on_values: Callable[[Any], Any],
        on_labels: Callable[[Any], Any] = lambda leaf: leaf,
    ) -> TensorBlock:
        """Apply functions to values and traced labels, those of gradients as well."""
        flags = self._structure.leaves_are_data()
        leaves = [
            frozen(on_values(leaf)) if is_data else on_labels(leaf)
            for leaf, is_data in zip(self._leaves, flags, strict=True)
        ]
        return TensorBlock._unflatten(self._structure, leaves)

    def _with_samples(self, samples: Labels) -> TensorBlock:
        """This block with other samples, as many; gradients stay."""
        parts = self._structure.components, self._structure.properties
        return TensorBlock._make(self.values, samples, *parts, dict(self.gradients()))

    def _map_labels(
        self,
        samples: Callable[[Labels, bool], Labels] = lambda labels, _: labels,
        component: Callable[[Labels], Labels] = lambda labels: labels,
        properties: Callable[[Labels], Labels] = lambda labels: labels,
        is_gradient: bool = False,
    ) -> TensorBlock:
        """Other labels for the same data, those of all gradients as well.

        :param samples: also takes whether these are samples of a gradient
        """
        own = self._structure
        return TensorBlock._make(
            self.values,
            samples(self.samples, is_gradient),
            tuple([component(labels) for labels in own.components]),
            properties(own.properties),
            {
                name: gradient._map_labels(samples, component, properties, True)
                for name, gradient in self.gradients()
            },
        )

    def _walk(self) -> Iterator[tuple[Path, TensorBlock]]:
        """This block and all gradients in it, see :meth:`BlockStructure.walk`."""
        start = 0
        for path, part in self._structure.walk():
            leaves = self._leaves[start : start + part.n_leaves]
            yield path, TensorBlock._unflatten(part, leaves)
            start += 1 + (part.samples is None)

    def __repr__(self) -> str:
        return display.block(self)

    def _repr_html_(self) -> str:
        return display.block_html(self)

    __treescope_repr__ = display.in_treescope(display.short_block)

    # --- methods of other modules ------------------------------------------------

    if (
        TYPE_CHECKING
    ):  # written, and attached, where the code is: see `operations`, `io`

        def __eq__(self, other: object) -> bool: ...

        def save(
            self, file: str | PathLike[str] | BinaryIO, use_numpy: bool = False
        ) -> None: ...
        def save_buffer(self, use_numpy: bool = False) -> memoryview: ...
        @staticmethod
        def load(
            file: str | PathLike[str] | BinaryIO, use_numpy: bool = False
        ) -> TensorBlock: ...
        @staticmethod
        def load_mmap(path: str | PathLike[str]) -> TensorBlock: ...
        @staticmethod
        def load_buffer(
            buffer: bytes | bytearray | memoryview, use_numpy: bool = False
        ) -> TensorBlock: ...


def _copied(leaf: Any) -> Any:
    return leaf.copy() if is_array(leaf) else deepcopy(leaf)


def _check_labels(
    samples: Labels, components: Sequence[Labels], properties: Labels
) -> None:
    axes = [("samples", samples), ("properties", properties)]
    axes += [(f"components[{i}]", labels) for i, labels in enumerate(components)]
    for axis, labels in axes:
        if not isinstance(labels, Labels):
            raise TypeError(f"`{axis}` must be Labels, not {type_of(labels)}")
        if axis != "samples" and not labels.is_static:
            raise TypeError(
                f"`{axis}` [{', '.join(labels.names)}] must be static labels: only "
                "samples can be traced"
            )
    seen: list[str] = []
    for i, labels in enumerate(components):
        if len(labels.names) != 1:
            raise MetatensorError(
                "component labels must have a single dimension, got "
                f"{len(labels.names)}: {labels.names} for component {i}"
            )
        if labels.names[0] in seen:
            raise MetatensorError(
                f"the component dimension '{labels.names[0]}' appears more than once: "
                f"{[labels.names[0] for labels in components]}"
            )
        seen += labels.names


def _check_shape(
    values: Any, samples: Labels, components: Sequence[Labels], properties: Labels
) -> None:
    expected = (len(samples), *map(len, components), len(properties))
    if tuple(values.shape) != expected:
        raise MetatensorError(
            f"the values have shape {tuple(values.shape)}, but the labels have "
            f"{expected} entries: samples {samples.names}, components "
            f"{[labels.names[0] for labels in components]}, properties "
            f"{properties.names}"
        )


def _check_gradient(block: TensorBlock, name: str, gradient: TensorBlock) -> None:
    if not isinstance(name, str):
        raise TypeError(
            f"the name of a gradient parameter must be text, not {name!r} "
            f"({type(name).__name__})"
        )
    if not isinstance(gradient, TensorBlock):
        raise TypeError(
            f"the gradient with respect to '{name}' must be a TensorBlock, not "
            f"{type_of(gradient)}"
        )
    what = f"the gradient with respect to '{name}'"
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise MetatensorError(
            f"{name!r} is not a valid name for a gradient parameter: it names a "
            "folder in a file, so it can not be empty, '.' or '..', or contain '/', "
            "'\\' or NUL"
        )
    if gradient.samples.names[:1] != ["sample"]:
        raise MetatensorError(
            f"the first dimension of the samples of {what} must be 'sample', got "
            f"{gradient.samples.names}"
        )
    if gradient.properties != block.properties:
        raise MetatensorError(
            f"{what} must have the properties of the values, but they differ:\n"
            f"{gradient.properties}\nand\n{block.properties}"
        )
    n = len(block.components)
    own = gradient.components[len(gradient.components) - n :]
    if len(gradient.components) < n or own != block.components:
        raise MetatensorError(
            f"the components of {what} must end with the components of the values: "
            f"got {[(c.names[0], len(c)) for c in gradient.components]} for values "
            f"with {[(c.names[0], len(c)) for c in block.components]} (names, numbers "
            "and entries must be the same)"
        )
    if gradient.dtype != block.dtype:
        raise MetatensorError(
            f"{what} has dtype {gradient.dtype}, but the values have {block.dtype}"
        )
    _check_gradient_rows(what, gradient.samples, len(block))


def _check_gradient_rows(what: str, samples: Labels, n: int) -> None:
    if not samples.is_static or len(samples) == 0:
        return  # traced rows that point elsewhere are padding
    rows = samples.column("sample")
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= n:
        raise MetatensorError(
            f"the 'sample' of {what} must be a row of the values, from 0 to {n - 1}, "
            f"but it goes from {low} to {high}"
        )
