"""From autodiff to stored gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from .._types.errors import MetatensorError
from .._types.foreign import metatensor_kind, type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._coloring import color_rows
from ._parameters import check_parameters, check_values
from ._pattern import (
    Pattern,
    Sparsity,
    check_known,
    of_gradient,
    patterns_of,
    rank_in_group,
)

Arrays = Mapping[str, Any]  # the values of the parameters


def compute_gradients(
    function: Callable[..., TensorMap],
    *,
    order: int = 1,
    sparsity: Sparsity = None,
    system: str = "system",
    **parameters: TensorBlock,
) -> TensorMap:
    r"""Evaluate a function, and store its derivatives as gradient blocks.

    .. math:: y = f(r) \qquad \nabla y_i = \frac{\partial y_i}{\partial r_a}

    for each sample :math:`i` of the result and each entry :math:`a` of a parameter that
    it can depend on. These are the entries of its own system, or those declared by
    ``sparsity``. Derivatives that do not meet are computed together: an energy for each
    system takes one reverse pass, and the number of passes does not grow with the
    number of systems. A row that depends on more than is declared spoils the gradients
    of others, see :func:`check_gradients`.

    :param function: takes the parameters by their names, as blocks; gives a map with
        real or complex values
    :param order: 2 stores second derivatives as well, as gradients of the gradients
    :param sparsity: the gradient samples: a map whose stored gradients have them, or
        for each parameter the labels (a list with one for each block). What is not
        declared depends on its own system.
    :param system: the sample dimension that tells systems apart. Without it in the
        samples of the result or the parameter, all depends on all. Declared gradient
        samples that have it must name the system of their sample.
    :param parameters: blocks with a single property: samples that say which entry is
        which (``system``, ``atom``), and components (``xyz``)
    :returns: the map, with a gradient block for each parameter. Its samples are
        ``sample`` and the dimensions of the parameter; only ``sample`` if the parameter
        has a single entry per system, or one for all of them. Its
        first components are those of the parameter. A name that the values (or a
        gradient, in second derivatives) have already ends in ``_2`` or, if that is
        taken too, ``_3``, ...
    :raises TypeError: parameters that are no blocks, or not real; a result that is no
        map, or integers; float64 data, if JAX is in its 32-bit mode
    :raises MetatensorError: an ``order`` other than 1 and 2, stored gradients with
        respect to the same parameters in the result, declared samples that do not
        fit; maps that are stacked for ``jax.vmap``, outside of it
    :raises TracedLabelsError: traced labels

    >>> import metatensor_jax as mts
    >>> p = mts.Labels.range("p", 1)
    >>> x = TensorBlock(jnp.array([[2.0], [3.0]]), mts.Labels.range("system", 2), [], p)
    >>> def cube(x):
    ...     return TensorMap(mts.Labels.single(), [x]) ** 3
    >>> compute_gradients(cube, x=x).block().gradient("x").values.tolist()
    [[12.0], [27.0]]
    """
    check_parameters("compute_gradients", system, parameters)
    for parameter in parameters.values():
        check_not_narrowed(parameter.dtype)
    if order not in (1, 2):
        raise MetatensorError(f"`order` must be 1 or 2, not {order!r}")
    arrays = {name: jnp.asarray(p.values) for name, p in parameters.items()}
    shape = jax.eval_shape(_checked(function), **parameters)
    _check_result(shape, parameters)
    check_known(shape, parameters)
    patterns = patterns_of(shape, parameters, sparsity, system)
    outputs = [
        _Output.of(block, of_block)
        for block, of_block in zip(shape, patterns, strict=True)
    ]

    def values_of(arrays: Arrays) -> list[Any]:
        blocks = {
            name: parameter.with_values(arrays[name])
            for name, parameter in parameters.items()
        }
        return [block.values for block in function(**blocks)]

    nodes = _derivatives(values_of, arrays, outputs, order)
    # the gradients that it has already are no derivatives: they come from a plain call
    tensor = function(**parameters) if _has_gradients(shape) else shape
    blocks = [_with_gradients(b, node) for b, node in zip(tensor, nodes, strict=True)]
    return TensorMap(tensor.keys, blocks, tensor.info())


def _checked(function: Callable[..., TensorMap]) -> Callable[..., TensorMap]:
    """The same function; raises where JAX would narrow what it gives."""

    def checked(**parameters: TensorBlock) -> TensorMap:
        tensor = function(**parameters)
        if metatensor_kind(tensor):  # before JAX says that it is no type of its own
            raise _not_a_map(type_of(tensor))
        if isinstance(tensor, TensorMap):
            for block in tensor:
                check_not_narrowed(block.dtype)
        return tensor

    return checked


def _not_a_map(given: str) -> TypeError:
    return TypeError(
        f"the function must return a metatensor_jax TensorMap, not {given}"
    )


def _check_result(tensor: Any, parameters: Mapping[str, TensorBlock]) -> None:
    if not isinstance(tensor, TensorMap):
        is_array = isinstance(tensor, jax.ShapeDtypeStruct)
        given = "an array" if is_array else type_of(tensor, qualified=True)
        raise _not_a_map(given)
    check_values(tensor)
    for block in tensor:
        for name in set(block.gradients_list()) & set(parameters):
            raise MetatensorError(
                f"the result has stored gradients with respect to '{name}' already: "
                f"see `remove_gradients(tensor, '{name}')`, or `connect_gradients` to "
                "make them derivatives"
            )


def _has_gradients(tensor: TensorMap) -> bool:
    return any(block.gradients_list() for block in tensor)


class _Output(NamedTuple):
    """One array of a function, and what each of its rows depends on."""

    n_rows: int
    components: tuple[Labels, ...]
    n_properties: int
    patterns: dict[str, Pattern]

    @classmethod
    def of(cls, block: TensorBlock, patterns: dict[str, Pattern]) -> _Output:
        components = tuple(block.components)
        return cls(len(block), components, len(block.properties), patterns)

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (*map(len, self.components), self.n_properties)

    def gradient(self, name: str) -> _Output:
        """One of its gradients, as an output that can be differentiated again."""
        pattern = self.patterns[name]
        components = (*pattern.components, *self.components)
        nested = {
            other: of_gradient(inner, pattern, components)
            for other, inner in self.patterns.items()
        }
        return _Output(len(pattern.parents), components, self.n_properties, nested)


class _Node(NamedTuple):
    """Values, and their gradients by parameter."""

    values: Any
    gradients: dict[str, tuple[Pattern, _Node]]


Function = Callable[[Arrays], list[Any]]


def _derivatives(
    function: Function, arrays: Arrays, outputs: Sequence[_Output], order: int
) -> list[_Node]:
    """The values of each output, with their gradients to some order."""
    if order == 0:
        return [_Node(values, {}) for values in function(arrays)]
    if order == 1:
        values, jacobians = _jacobians(function, arrays, outputs)
        below = iter([_Node(array, {}) for array in jacobians])
    else:
        values = function(arrays)
        first = [out.gradient(name) for out in outputs for name in out.patterns]

        def derivative(arrays: Arrays) -> list[Any]:
            return _jacobians(function, arrays, outputs)[1]

        below = iter(_derivatives(derivative, arrays, first, order - 1))
    return [
        _Node(v, {name: (p, next(below)) for name, p in out.patterns.items()})
        for v, out in zip(values, outputs, strict=True)
    ]


def _with_gradients(block: TensorBlock, node: _Node) -> TensorBlock:
    gradients = dict(block.gradients())
    for name, (pattern, below) in node.gradients.items():
        bare = TensorBlock._make(
            below.values,
            pattern.samples,
            (*pattern.components, *block.components),
            block.properties,
            {},
        )
        gradients[name] = _with_gradients(bare, below)
    return TensorBlock(
        node.values, block.samples, block.components, block.properties, gradients
    )


def _jacobians(
    function: Function, arrays: Arrays, outputs: Sequence[_Output]
) -> tuple[list[Any], list[Any]]:
    """The values, and for each output and each parameter the rows of its gradient."""
    reverse = _row_colors(outputs)
    n_reverse = sum(
        _count(colors) * math.prod(out.row_shape)
        for colors, out in zip(reverse, outputs, strict=True)
    )
    n_components = {name: math.prod(x.shape[1:]) for name, x in arrays.items()}
    is_real = all(not jnp.iscomplexobj(x) for x in jax.eval_shape(function, arrays))
    if is_real and n_reverse < sum(n_components.values()):
        return _by_reverse_passes(function, arrays, outputs, reverse)
    forward = {name: _entry_colors(name, len(x), outputs) for name, x in arrays.items()}
    n_forward = sum(_count(forward[name]) * n_components[name] for name in arrays)
    if is_real and n_reverse < n_forward:
        return _by_reverse_passes(function, arrays, outputs, reverse)
    return _by_forward_passes(function, arrays, outputs, forward)


def _count(colors: np.ndarray) -> int:
    return int(colors.max()) + 1 if len(colors) else 0


def _row_colors(outputs: Sequence[_Output]) -> list[np.ndarray]:
    """For each output: rows of the same color depend on different entries."""
    colors = []
    for out in outputs:
        patterns = list(out.patterns.values())
        groups = _same([p.groups and p.groups.rows for p in patterns])
        if groups is not None:
            colors.append(rank_in_group(groups))
            continue
        columns, offset = [], 0
        for pattern in patterns:
            columns.append(pattern.entries + offset)
            offset += int(pattern.entries.max(initial=-1)) + 1
        rows = np.concatenate([pattern.parents for pattern in patterns])
        colors.append(color_rows(rows, np.concatenate(columns), out.n_rows))
    return colors


def _entry_colors(name: str, n: int, outputs: Sequence[_Output]) -> np.ndarray:
    """No row of any output depends on two entries of the same color."""
    patterns = [out.patterns[name] for out in outputs]
    if not patterns:
        return np.zeros(n, np.int64)
    groups = _same([p.groups and p.groups.entries for p in patterns])
    if groups is not None:
        return rank_in_group(groups)
    offsets = np.cumsum([0, *(out.n_rows for out in outputs)])
    rows = [p.parents + offset for p, offset in zip(patterns, offsets, strict=False)]
    entries = np.concatenate([p.entries for p in patterns])
    return color_rows(entries, np.concatenate(rows), n)


def _same(groups: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The groups that all have in common: no coloring is needed for these."""
    first = groups[0]
    same = all(g is not None and np.array_equal(g, first) for g in groups)  # type: ignore[arg-type]
    return first if same else None


def _by_reverse_passes(
    function: Function,
    arrays: Arrays,
    outputs: Sequence[_Output],
    colors: Sequence[np.ndarray],
) -> tuple[list[Any], list[Any]]:
    values, pull = jax.vjp(function, arrays)
    jacobians = []
    for i, (out, color) in enumerate(zip(outputs, colors, strict=True)):
        n_elements = math.prod(out.row_shape)

        def one(index: Any, i: int = i, color: Any = color, n: int = n_elements) -> Any:
            cotangents = [jnp.zeros_like(v) for v in values]
            cotangents[i] = _seed(index, color, n, values[i])
            return pull(cotangents)[0]

        n_colors = _count(color)
        passes = _run_passes(one, n_colors * n_elements)
        for name, pattern in out.patterns.items():
            n_components = math.prod(arrays[name].shape[1:])
            shape = (n_colors, n_elements, len(arrays[name]), n_components)
            of_each = passes[name].reshape(shape)
            rows = of_each[color[pattern.parents], :, pattern.entries]
            rows = jnp.moveaxis(rows, 1, -1).astype(values[i].dtype)
            jacobians.append(_as_gradient(rows, pattern, out))
    return values, jacobians


def _by_forward_passes(
    function: Function,
    arrays: Arrays,
    outputs: Sequence[_Output],
    colors: Mapping[str, np.ndarray],
) -> tuple[list[Any], list[Any]]:
    values, push = jax.linearize(function, arrays)
    passes, n_components = {}, {}
    for name, color in colors.items():
        n = n_components[name] = math.prod(arrays[name].shape[1:])

        def one(index: Any, name: str = name, color: Any = color, n: int = n) -> Any:
            tangents = {other: jnp.zeros_like(x) for other, x in arrays.items()}
            tangents[name] = _seed(index, color, n, arrays[name])
            return push(tangents)

        passes[name] = _run_passes(one, _count(color) * n)
    jacobians = []
    for i, out in enumerate(outputs):
        for name, pattern in out.patterns.items():
            shape = (_count(colors[name]), n_components[name], *values[i].shape)
            of_each = passes[name][i].reshape(shape)
            rows = of_each[colors[name][pattern.entries], :, pattern.parents]
            jacobians.append(_as_gradient(rows, pattern, out))
    return values, jacobians


def _seed(index: Any, colors: np.ndarray, n: int, like: Any) -> Any:
    """One at one element of each row of one color; zero elsewhere."""
    rows = (colors == index // max(n, 1))[:, None]
    elements = (np.arange(n) == index % max(n, 1))[None, :]
    return (rows & elements).astype(like.dtype).reshape(like.shape)


def _as_gradient(rows: Any, pattern: Pattern, out: _Output) -> Any:
    components = map(len, pattern.components)
    return rows.reshape((len(pattern.parents), *components, *out.row_shape))


#: so many passes run at once: each needs the memory of one
_AT_ONCE = 64


def _run_passes(one: Callable[[Any], Any], n: int) -> Any:
    """All passes, stacked; a single one needs no batching."""
    if n == 1:
        return jax.tree.map(lambda x: x[None], one(0))
    if n <= _AT_ONCE:
        return jax.vmap(one)(jnp.arange(n))
    return jax.lax.map(one, jnp.arange(n), batch_size=_AT_ONCE)
