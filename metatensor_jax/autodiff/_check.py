"""Stored gradients against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._types import display
from .._types.arrays import is_jax
from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from .._types.errors import MetatensorError, NotEqualError
from .._types.labels import Labels, first_difference
from .._types.tensor import TensorMap
from ..operations.checks import check_not_batched, check_ours
from ._components import match_components
from ._entries import Known, find_entries
from ._parameters import check_parameters


@dataclass(frozen=True)
class GradientCheck:
    """The stored gradients of one block, and the worst of them.

    :param key: the key of the block
    :param parameters: the parameter; several of them for gradients of gradients
    :param sample: of the values, the one whose gradient is worst
    :param entry: of the parameter, by which it is worst
    :param component: entries of the components, the parameter's first
    :param column: the entry of the properties
    :param stored: the stored gradient there
    :param expected: the finite difference there
    :param error: the absolute value of their difference
    :param tolerance: how large that may be
    :param n_wrong: how many elements differ by more
    """

    key: str
    parameters: tuple[str, ...]
    sample: str = ""
    entry: str = ""
    component: str = ""
    column: str = ""
    stored: complex = 0
    expected: complex = 0
    error: float = 0.0
    tolerance: float = 0.0
    n_wrong: int = 0

    @property
    def ok(self) -> bool:
        """Are all elements within the tolerance? (A NaN is not.)"""
        return self.n_wrong == 0

    def __str__(self) -> str:
        verdict = "ok" if self.ok else f"{self.n_wrong} elements differ"
        at = [self.sample, f"by {self.entry}", self.component, self.column]
        return (
            f"block {self.key}, by {' and '.join(self.parameters)}: {verdict}; the "
            f"worst is {self.error:.2g} (tolerance {self.tolerance:.2g}), stored "
            f"{self.stored:.6g}, finite difference {self.expected:.6g} at "
            f"{', '.join(part for part in at if part)}"
        )


@dataclass(frozen=True)
class GradientReport:
    """What :func:`check_gradients` found, for each block and parameter."""

    checks: tuple[GradientCheck, ...]

    @property
    def ok(self) -> bool:
        """Are all stored gradients within their tolerance?"""
        return all(check.ok for check in self.checks)

    @property
    def worst(self) -> GradientCheck | None:
        """The check whose error is the largest multiple of its tolerance, if any."""
        return max(self.checks, key=_badness, default=None)

    def __str__(self) -> str:
        ordered = sorted(self.checks, key=_badness, reverse=True)
        return "\n".join(str(check) for check in ordered)


def _badness(check: GradientCheck) -> float:
    return check.error / check.tolerance if check.tolerance else check.error


def check_gradients(
    tensor_or_function: TensorMap | Callable[..., TensorMap],
    function: Callable[..., TensorMap] | None = None,
    *,
    step: float | Mapping[str, float] | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    raises: bool = True,
    system: str = "system",
    **parameters: TensorBlock,
) -> GradientReport:
    r"""Compare stored gradients with finite differences.

    Each entry of each parameter is moved by :math:`\pm h` and :math:`\pm h / 2`; the
    derivative is the central difference, extrapolated (Richardson):

    .. math::
        D(h) = \frac{f(r + h) - f(r - h)}{2 h} \qquad
        \frac{\partial f}{\partial r} = \frac{4 D(h / 2) - D(h)}{3} + O(h^4)

    Rows that are not stored are zero. Gradients of gradients are compared with the
    differences of the gradients that they belong to.

    :param tensor_or_function: a map with stored gradients, at the given parameters; or
        a function that gives one
    :param function: takes the parameters by their names, as blocks, and gives a map:
        its values (and first gradients, if there are second ones) are differentiated.
        If None, ``tensor_or_function`` is that function.
    :param step: :math:`h`, in the units of the parameters; by name, or the same for
        all. Without it, 1e-3 in double precision, and 1e-2 in single: for lengths in Å.
    :param rtol: the tolerance, relative to the largest stored gradient of a block. If
        None, 1e-6 in double precision, and 1e-3 in single.
    :param atol: a further tolerance, absolute, in units of the gradients. What the
        rounding of the values does to the differences is always tolerated; values that
        are zero because large terms cancel (by symmetry) are not known to that, and
        need it.
    :param raises: raise if a gradient is wrong, rather than only report it
    :param system: the sample dimension that tells systems apart: where gradient samples
        have it, it must be that of the sample that they belong to
    :param parameters: blocks with a single property, at which to compare; their labels
        are matched with those of the gradients as by :func:`connect_gradients`
    :returns: what was found, with the worst element of each block by its labels
    :raises NotEqualError: gradients that are wrong; the message is the report
    :raises MetatensorError: no stored gradient for a parameter, labels that do not fit,
        or labels of the result that change with the parameters; maps that are stacked
        for ``jax.vmap``, outside of it

    >>> import metatensor_jax as mts
    >>> p = mts.Labels.range("p", 1)
    >>> at = TensorBlock(np.array([[2.0]]), mts.Labels.range("system", 1), [], p)
    >>> def cube(x):
    ...     slope = TensorBlock(2 * x.values**2, mts.Labels("sample", [[0]]), [], p)
    ...     cubed = TensorBlock(x.values**3, x.samples, [], p, {"x": slope})
    ...     return TensorMap(mts.Labels.single(), [cubed])
    >>> print(check_gradients(cube, x=at, raises=False))
    block (_=0), by x: 1 elements differ; the worst is 4 (tolerance 8e-06), ...
    """
    check_ours(tensor_or_function, "tensor_or_function")
    check_parameters("check_gradients", system, parameters)
    for parameter in parameters.values():
        if is_jax(parameter.values):
            check_not_narrowed(parameter.dtype)
    if isinstance(tensor_or_function, TensorMap):
        tensor = tensor_or_function
        if function is None:
            raise TypeError(
                "to check a TensorMap, give the function it is the result of as well"
            )
    else:
        if function is not None:
            raise TypeError("the first of two arguments must be a TensorMap")
        function = tensor_or_function
        tensor = function(**parameters)
    for key, block in tensor.items():
        check_not_batched(f"block {key.print()}", block)
    checks = []
    for name in parameters:
        h = step.get(name) if isinstance(step, Mapping) else step
        checks += _check_parameter(
            function, tensor, parameters, name, h, rtol, atol, system
        )
    report = GradientReport(tuple(checks))
    if raises and not report.ok:
        raise NotEqualError(f"gradients differ from finite differences:\n{report}")
    return report


def _check_parameter(
    function: Callable[..., TensorMap],
    tensor: TensorMap,
    parameters: Mapping[str, TensorBlock],
    name: str,
    step: float | None,
    rtol: float | None,
    atol: float,
    system: str,
) -> list[GradientCheck]:
    parameter = parameters[name]
    dtypes = (np.dtype(parameter.dtype), np.dtype(tensor.dtype or float))
    eps = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
    is_double = eps < 1e-10
    step = step or (1e-3 if is_double else 1e-2)
    rtol = rtol if rtol is not None else 1e-6 if is_double else 1e-3
    stored = []
    for i, block in enumerate(tensor):
        block.gradient(name)  # raises if there is none
        for path, part in block._walk():
            if part.has_gradient(name):
                stored.append(_Stored(tensor, i, path, name, parameter, system))
    for gradient in stored:
        gradient.tolerance = (
            atol + rtol * gradient.scale + 10 * eps * gradient.largest / step
        )
    for index in np.ndindex(parameter.values.shape[:-1]):
        maps, steps = _evaluate(function, parameters, name, index, step)
        for gradient in stored:
            values = [gradient.values_of(moved) for moved in maps]
            coarse = (values[0] - values[1]) / steps[0]
            fine = (values[2] - values[3]) / steps[1]
            gradient.compare(index, (4 * fine - coarse) / 3)
    return [gradient.summary() for gradient in stored]


def _evaluate(
    function: Callable[..., TensorMap],
    parameters: Mapping[str, TensorBlock],
    name: str,
    index: tuple[int, ...],
    step: float,
) -> tuple[list[TensorMap], list[float]]:
    """The results for a coarse and a fine step up and down, and these steps."""
    parameter = parameters[name]
    center = np.asarray(parameter.values)
    maps, reached = [], []
    for h in (step, -step, step / 2, -step / 2):
        moved = center.copy()
        moved[index] += center.dtype.type(h)
        values = jnp.asarray(moved) if is_jax(parameter.values) else moved
        maps.append(function(**{**parameters, name: parameter.with_values(values)}))
        reached.append(float(moved[index][0]))  # what rounding has left of the step
    return maps, [reached[0] - reached[1], reached[2] - reached[3]]


class _Stored:
    """A stored gradient, and how far it is from finite differences.

    :param i: of which block
    :param path: of which gradient of the block; empty for the values
    :param name: by which parameter
    """

    def __init__(
        self,
        tensor: TensorMap,
        i: int,
        path: tuple[str, ...],
        name: str,
        parameter: TensorBlock,
        system: str,
    ) -> None:
        self.keys, self.i = tensor.keys, i
        self.path, self.name, self.parameter = path, name, parameter
        self.key = tensor.keys.entry(i).print()
        self.levels = [tensor.block_by_id(i)]
        known = Known.of(self.levels[0].samples)
        for step in path:
            self.levels.append(self.levels[-1].gradient(step))
            known = known.below(step, self.levels[-1].samples, system)
        self.block = self.levels[-1]
        gradient = self.block.gradient(name)
        self.order = match_components(name, parameter, gradient, self.block.components)
        known = known.below(name, gradient.samples, system)
        entries = find_entries(name, parameter.samples, gradient.samples, known)
        self.entries = np.asarray(entries)
        _check_all_found(name, gradient.samples, self.entries, self.block.samples)
        self.parents = np.asarray(gradient.samples.column("sample"))
        values = np.asarray(gradient.values)
        n_elements = math.prod(parameter.shape[1:])
        self.values = values.reshape((len(values), n_elements, *self.block.shape[1:]))
        self.components = gradient.components
        self.scale = _largest(self.values)
        self.largest = _largest(np.asarray(self.block.values))
        self.tolerance = 0.0
        self.n_wrong = 0
        self.worst: tuple[float, Any] = (-1.0, None)

    def values_of(self, tensor: TensorMap) -> np.ndarray:
        """The values that this is a gradient of, in another map."""
        at = tensor.keys.position(self.keys.entry(self.i))
        if at is None:
            raise MetatensorError(
                f"the block {self.key} is not among the results for other values of "
                f"'{self.name}', which have the keys\n{tensor.keys}"
            )
        levels = [tensor.block_by_id(at)]
        for name in self.path:
            levels.append(levels[-1].gradient(name))
        for before, after in zip(self.levels, levels, strict=True):
            self._check_same(before, after)
        values = np.asarray(levels[-1].values)
        return values.astype(np.result_type(values.dtype, np.float64))

    def _check_same(self, before: TensorBlock, after: TensorBlock) -> None:
        if not _are_same(before.samples, after.samples):
            raise MetatensorError(
                f"the samples of block {self.key} change with '{self.name}', so "
                f"there are no finite differences: they were\n{before.samples}\nand "
                f"become\n{after.samples}\ntake a smaller `step`, or other values"
            )
        axes = zip(before.components, after.components, strict=False)
        for one, other in [*axes, (before.properties, after.properties)]:
            if one != other:
                raise MetatensorError(
                    f"the components and properties of block {self.key} must be the "
                    f"same for all values of '{self.name}', but "
                    f"{first_difference(one, other)}"
                )

    def compare(self, index: tuple[int, ...], expected: np.ndarray) -> None:
        """Compare the gradients by one element of the parameter."""
        entry, *component = index
        component = [component[i] for i in self.order]
        shape = [self.parameter.shape[1 + i] for i in self.order]
        flat = int(np.ravel_multi_index(component, shape)) if component else 0
        stored = np.zeros_like(expected)
        rows = self.entries == entry
        np.add.at(stored, self.parents[rows], self.values[rows, flat])
        error = np.abs(stored - expected)
        error[~np.asarray(self.block.mask)] = 0  # padding may hold anything
        self.n_wrong += int(np.count_nonzero(~(error <= self.tolerance)))
        if error.size:
            error = np.nan_to_num(error, nan=np.inf)
            at = np.unravel_index(int(np.argmax(error)), error.shape)
            if error[at] > self.worst[0]:
                found = ((entry, *component), at, stored[at], expected[at])
                self.worst = float(error[at]), found

    def summary(self) -> GradientCheck:
        """What was found."""
        error, where = self.worst
        if where is None:
            return GradientCheck(
                self.key, (*self.path, self.name), tolerance=self.tolerance
            )
        (entry, *outer), (row, *inner, p), stored, expected = where
        component = ", ".join(
            labels.entry(i).print()
            for labels, i in zip(self.components, [*outer, *inner], strict=True)
        )
        return GradientCheck(
            self.key,
            (*self.path, self.name),
            self.block.samples.entry(int(row)).print(),
            self.parameter.samples.entry(int(entry)).print(),
            component,
            self.block.properties.entry(int(p)).print(),
            stored.item(),
            expected.item(),
            error,
            self.tolerance,
            self.n_wrong,
        )


def _check_all_found(
    name: str, samples: Labels, entries: np.ndarray, above: Labels
) -> None:
    """Raise for traced labels as for static ones: here their values are known.

    :param above: the samples that these are gradients of
    """
    if len(entries) == 0 or entries.min() >= 0:
        return
    row = np.asarray(samples.values)[int(entries.argmin())]
    of_sample = "which is of no sample"  # traced labels may say anything
    if 0 <= row[0] < len(above):
        sample = np.asarray(above.values)[row[0]]
        of_sample = f"which is of the sample {display.entry(above.names, sample)}"
    raise MetatensorError(
        f"the row {display.entry(samples.names, row)} of a stored gradient with "
        f"respect to '{name}', {of_sample}, names an entry that is not among the "
        "samples of the parameter, or another system than this sample"
    )


def _are_same(before: Labels, after: Labels) -> bool:
    if before.is_static and after.is_static:
        return before == after
    same = np.array_equal(np.asarray(before.values), np.asarray(after.values))
    return before.names == after.names and same


def _largest(values: np.ndarray) -> float:
    """The largest absolute value that is finite."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
