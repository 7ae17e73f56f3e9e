"""Our objects, as those of metatensor-core and metatensor-torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import numpy as np

from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._checks import check_data
from ._torch import to_torch

Package = Literal["core", "torch"]
Arrays = Literal["numpy", "torch"]

_MODULES = {"core": "metatensor", "torch": "metatensor.torch"}


def to_metatensor(
    data: TensorMap | TensorBlock | Labels,
    *,
    package: Package = "core",
    arrays: Arrays | None = None,
    copy: bool = False,
) -> Any:
    """A map, a block or labels, as those of metatensor.

    Names, labels, info, dtypes and gradients of any order stay what they are. NumPy
    values are in the memory of the host; PyTorch's are on the device where ours are, to
    which they come by DLPack, without the host.

    Values are not copied, if they can be shared:

    - NumPy values share the memory of NumPy arrays, and of JAX arrays on a CPU. They
      can not be written to. JAX arrays on an accelerator are copied to the host.
    - PyTorch's share the memory of JAX arrays, and of NumPy arrays. They can be written
      to, **and must not be**: ours would change. So arrays in memory that NumPy may not
      write to (a file that is mapped) are copied once, and so are arrays with negative
      strides or that are not aligned.

    With ``copy=True`` values have memory of their own.

    :param data: what to convert
    :param package: ``"core"`` for the classes of metatensor-core, ``"torch"`` for those
        of metatensor-torch, which TorchScript knows
    :param arrays: ``"numpy"`` or ``"torch"``: what the values are. By default NumPy's
        in metatensor-core; metatensor-torch has PyTorch's only
    :param copy: copy all values
    :returns: a ``TensorMap``, ``TensorBlock`` or ``Labels`` of the package
    :raises TypeError: anything else; data that is traced; a dtype that PyTorch does not
        have
    :raises TracedLabelsError: traced samples, those of a padded batch among them
    :raises MetatensorError: options that exclude each other, values on several devices
        for PyTorch, or what metatensor does not have (labels without dimensions in
        metatensor-torch, maps of unsigned integers of PyTorch but uint8, maps of
        bfloat16 of NumPy)
    :raises ModuleNotFoundError: the package is not installed

    >>> import metatensor
    >>> import metatensor_jax as mts
    >>> block = mts.block_from_array(np.ones((2, 1), np.float32))
    >>> theirs = to_metatensor(mts.TensorMap(Labels.single(), [block]))
    >>> metatensor.multiply(theirs, 2.0).block().values.tolist()
    [[2.0], [2.0]]
    """
    kind = _check_options(package, arrays)
    check_data("to_metatensor", data, (TensorMap, TensorBlock, Labels))
    writer = _Writer(package, kind, copy)
    if isinstance(data, Labels):
        return writer.labels(data, "cpu")
    if isinstance(data, TensorBlock):
        return writer.block(data)
    return writer.map(data)


def _check_options(package: str, arrays: str | None) -> str:
    if package not in _MODULES:
        raise MetatensorError(f"`package` must be 'core' or 'torch', not {package!r}")
    if arrays not in (None, "numpy", "torch"):
        raise MetatensorError(f"`arrays` must be 'numpy' or 'torch', not {arrays!r}")
    if package == "torch" and arrays == "numpy":
        raise MetatensorError(
            "metatensor-torch has PyTorch's tensors only: leave out arrays='numpy', or "
            "take package='core'"
        )
    return arrays or ("torch" if package == "torch" else "numpy")


class _Writer:
    """Makes objects of one package, whose constructors take the same arguments."""

    def __init__(self, package: str, arrays: str, copy: bool) -> None:
        self._package = package
        self._module = _imported(package)
        self._arrays, self._copy = arrays, copy
        #: blocks share labels, which are made once for each device
        self._made: dict[tuple[Labels, str], Any] = {}

    def map(self, ours: TensorMap) -> Any:
        blocks = []
        for i, block in enumerate(ours):
            with in_block(ours.keys, i):
                blocks.append(self.block(block))
        device = str(blocks[0].device) if blocks else "cpu"
        theirs = self._make("TensorMap", self.labels(ours.keys, device), blocks)
        for key, value in ours.info().items():
            theirs.set_info(key, value)
        return theirs

    def block(self, ours: TensorBlock) -> Any:
        values = self._values(ours.values)
        # metatensor wants labels where the values are
        device = "cpu" if self._arrays == "numpy" else str(values.device)
        theirs = self._make(
            "TensorBlock",
            values,
            self.labels(ours.samples, device),
            [self.labels(component, device) for component in ours.components],
            self.labels(ours.properties, device),
        )
        for name, gradient in ours.gradients():
            theirs.add_gradient(name, self.block(gradient))
        return theirs

    def labels(self, ours: Labels, device: str) -> Any:
        made = self._made.get((ours, device))
        if made is None:
            made = self._make_labels(ours, device)
            self._made[ours, device] = made
        return made

    def _make_labels(self, ours: Labels, device: str) -> Any:
        values: Any = ours.values
        if self._package == "torch" or device != "cpu":
            if not ours.names:
                raise MetatensorError("metatensor-torch has no labels without names")
            values = import_module("torch").tensor(values, device=device)
        return self._make("Labels", ours.names, values)

    def _make(self, kind: str, *parts: Any) -> Any:
        try:
            return getattr(self._module, kind)(*parts)
        except Exception as error:  # of many types, such as for a dtype without a name
            raise MetatensorError(
                f"metatensor-{self._package} can not hold this {kind}: {error}"
            ) from error

    def _values(self, values: Any) -> Any:
        if self._arrays == "torch":
            return to_torch(values, copy=self._copy)
        return np.array(values) if self._copy else np.asarray(values)


def _imported(package: str) -> Any:
    """The module of a package, which is imported when it is needed."""
    try:
        return import_module(_MODULES[package])
    except ImportError as error:
        extra = "interop" if package == "core" else "interop-torch"
        raise ModuleNotFoundError(
            f"to_metatensor needs metatensor-{package}: install it with "
            f"`pip install 'metatensor-jax[{extra}]'` ({error})",
            name=f"metatensor_{package}",
        ) from error
