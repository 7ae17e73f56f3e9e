"""map_rows: a function of each row, with the chain rule for stored gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..block import TensorBlock
from ..entry import saying_where
from ..errors import NotEqualError
from ..execution import (
    Index,
    MapTask,
    Recipe,
    Slot,
    execute,
    follow_traced,
    is_repeatable,
    merge_traced,
    real_rows,
)
from ..labels import Labels, first_difference
from ..structure import MapStructure
from ..tensor import TensorMap
from ._operands import Operand, parameters_of, take_rows


def map_rows(
    function: Any,
    *inputs: Any,
    args: Any = (),
    linear: bool | Callable[..., Any] = False,
    rearranges: bool = False,
    components: Any = None,
    properties: Any = None,
) -> Any:
    r"""Apply a function to each row of blocks that share their samples.

    With :math:`y_i = f(x_i)`, the stored gradients of the result are

    .. math::
        \frac{\partial y_i}{\partial r} =
        \mathrm{d}f(x_i) \left[ \frac{\partial x_i}{\partial r} \right]

    for each parameter that any of the inputs has a gradient for. A gradient row that
    an input does not have is zero there. The same holds for gradients of gradients.

    :param function: takes one row of each input, with shape ``(*components,
        properties)``, then ``args``; gives one row of the result. It is compiled once
        per function object: use one at module level, not a new closure at each call.
    :param inputs: blocks with the same samples; or maps with the same keys, whose
        blocks have the same samples. All but the first can also be a plain array with
        one row per sample, without gradients (for maps: a list of them).
    :param args: what ``function`` takes besides rows. Arrays and numbers in there are
        arguments of the compiled program, anything else is a constant in it.
    :param linear: ``function`` is linear in the rows of all blocks together, so that
        its derivative does not need these rows. For an affine function: its linear
        part.
    :param rearranges: ``function`` only puts the elements of its one row in other
        places: it is linear, works on the last axes of arrays with any number of axes
        before, and on NumPy arrays as well as on JAX's. Then NumPy arrays stay such.
    :param components: components of the result; those of the first input if None
    :param properties: properties of the result; those of the first input if None

    For maps, ``function``, ``args``, ``components`` and ``properties`` can be lists
    with one item for each block.

    :raises NotEqualError: inputs that differ in their keys or samples, or in the
        components of a gradient
    :raises TracedLabelsError: inputs whose traced gradient samples are not the same

    >>> s, p = Labels.range("s", 2), Labels.range("p", 1)
    >>> x = TensorBlock(np.array([[1.0], [3.0]], np.float32), s, [], p)
    >>> dx = TensorBlock(np.array([[10]], np.float32), Labels("sample", [[1]]), [], p)
    >>> y = map_rows(jnp.square, x.with_gradient("t", dx))
    >>> y.values.tolist(), y.gradient("t").values.tolist()
    ([[1.0], [9.0]], [[60.0]])
    """
    first = _first_input(inputs)
    if isinstance(first, TensorBlock):
        return execute(
            plan_map(function, inputs, args, linear, rearranges, components, properties)
        )
    if components is None and properties is None and not rearranges:
        repeated = _map_again(function, inputs, args, linear)
        if repeated is not None:
            return repeated
    plans = []
    for i, blocks in enumerate(match_blocks(*inputs)):
        with saying_where(first.keys.entry(i)):
            plan = plan_map(
                _of_block(function, i),
                blocks,
                _of_block(args, i),
                linear,
                rearranges,
                _of_block(components, i),
                _of_block(properties, i),
            )
        plans.append(plan)
    return execute(TensorMap._make(first.keys, plans, first._structure.info))


def _first_input(inputs: Sequence[Any]) -> Any:
    if not inputs or not isinstance(inputs[0], (TensorBlock, TensorMap)):
        given = type(inputs[0]).__name__ if inputs else "nothing"
        raise TypeError(
            f"the first input of map_rows must be a TensorMap or a TensorBlock, not "
            f"{given}"
        )
    return inputs[0]


def _map_again(
    function: Any, inputs: Sequence[Any], args: Any, linear: Any
) -> TensorMap | None:
    """The result by a plan that is kept, if these inputs and arguments allow it."""
    if (
        isinstance(args, list)
        or isinstance(function, list)
        or not _is_hashable(function)
    ):
        return None
    if not all(isinstance(x, TensorMap) and x._structure.is_static for x in inputs):
        return None
    leaves = [leaf for tensor in inputs for leaf in tensor._leaves]
    if not is_repeatable(function, leaves, args):
        return None
    structures = tuple([tensor._structure for tensor in inputs])
    arrays = tuple([(leaf.shape, leaf.dtype) for leaf in leaves])
    return _recipe(function, linear, structures, arrays).run(leaves, args)


@functools.lru_cache(maxsize=64)
def _recipe(
    function: Callable[..., Any],
    linear: bool | Callable[..., Any],
    structures: tuple[MapStructure, ...],
    arrays: tuple[tuple[tuple[int, ...], Any], ...],
) -> Recipe:
    """What to do with maps of these structures, whose arrays have these shapes."""
    slots = (Slot(i, *array) for i, array in enumerate(arrays))
    inputs = [
        TensorMap._unflatten(structure, islice(slots, structure.offsets[-1]))
        for structure in structures
    ]
    first, plans = inputs[0], []
    for i, blocks in enumerate(match_blocks(*inputs)):
        with saying_where(first.keys.entry(i)):
            plans.append(plan_map(function, blocks, (), linear))
    tensor = TensorMap._make(first.keys, plans, first._structure.info)
    tensor._structure.digest  # noqa: B018 - all results share it
    return Recipe(tensor)


def _of_block(value: Any, i: int) -> Any:
    """What is the same for all blocks of a map, or a list with one item for each."""
    return value[i] if isinstance(value, list) else value


def match_blocks(*tensors: Any) -> list[tuple[Any, ...]]:
    """The blocks of several maps with the same keys, in the order of the first.

    A list in the place of a map has its items in that order already.
    """
    first = tensors[0]
    columns: list[Any] = [first.blocks()]
    for other in tensors[1:]:
        if isinstance(other, list):
            columns.append(other)
        elif other.keys is first.keys or other.keys == first.keys:
            columns.append(other.blocks())
        else:
            order = _key_order(first.keys, other.keys)
            columns.append(other.blocks_by_id(order))
    return list(zip(*columns, strict=True))


def _key_order(keys: Labels, others: Labels) -> Any:
    """Where each of ``keys`` stands in ``others``, which must have the same entries."""
    if keys.names == others.names and len(keys) == len(others):
        order = others.select(keys)
        if len(order) == len(keys):
            return order
    raise NotEqualError(
        f"inputs should have the same keys, but they differ:\n{keys}\nand\n{others}"
    )


def plan_map(
    function: Callable[..., Any],
    blocks: Sequence[Any],
    args: tuple[Any, ...] = (),
    linear: bool | Callable[..., Any] = False,
    rearranges: bool = False,
    components: Sequence[Labels] | None = None,
    properties: Labels | None = None,
) -> TensorBlock:
    """The plan of :func:`map_rows` for blocks: a block whose leaves are tasks."""
    if not _is_hashable(function):  # a module: its arrays are data of the program
        function, args = _apply_last, (*args, function)
    first = Operand.of(blocks[0])
    operands = [first]
    for block in blocks[1:]:
        if isinstance(block, TensorBlock):
            operands.append(Operand.of(block))
            _check_same_samples(first.samples, operands[-1].samples)
        else:
            operands.append(Operand.of_array(block, first.samples))
    if components is None:
        components = first.components
    if properties is None:
        properties = first.properties
    mapping = _Mapping(args, linear, rearranges, properties)
    return mapping.plan(function, operands, first.samples, tuple(components))


def _is_hashable(function: Callable[..., Any]) -> bool:
    try:
        hash(function)
    except TypeError:
        return False
    return True


def _apply_last(*inputs: Any) -> Any:
    *given, function = inputs
    return function(*given)


class _Mapping(NamedTuple):
    """What stays the same while ``map_rows`` walks down the gradients."""

    args: tuple[Any, ...]
    linear: bool | Callable[..., Any]
    rearranges: bool
    properties: Labels

    def plan(
        self,
        function: Callable[..., Any],
        operands: Sequence[Operand],
        samples: Labels,
        components: tuple[Labels, ...],
        n_primals: int = 0,
    ) -> TensorBlock:
        """The values, and the gradients with respect to each parameter.

        :param n_primals: so many of the operands are there as primals, for the
            gradients that come after them
        """
        rows = tuple([x.rows for x in operands])
        if not (samples.is_static or self.rearranges):
            rows = tuple([real_rows(x, samples.values) for x in rows])
        axes = [*components, self.properties]
        row_shape = tuple([len(labels) for labels in axes])
        task = MapTask(function, rows, self.args, row_shape, self.rearranges)
        gradients = {
            name: self.push(name, function, operands, components, n_primals)
            for name in parameters_of(operands)
        }
        return TensorBlock._make(task, samples, components, self.properties, gradients)

    def push(
        self,
        name: str,
        function: Callable[..., Any],
        operands: Sequence[Operand],
        components: tuple[Labels, ...],
        n_primals: int,
    ) -> TensorBlock:
        """The gradient with respect to one parameter, by the chain rule."""
        active = tuple(name in x.gradients for x in operands)
        moving = [x for x in operands if name in x.gradients]
        extra = _extra_components(name, moving, sum(active[:n_primals]))
        tangents, samples = _align(name, [x.gradients[name] for x in moving])
        n_primals = 0
        if self.rearranges:
            pushed: Callable[..., Any] = function
            inputs = tangents
        elif self.linear is not False:
            linear_part = function if self.linear is True else self.linear
            inputs, kinds = _linear_inputs(name, operands, tangents, samples)
            pushed = _PushedLinear(linear_part, kinds, len(extra))
        else:
            _check_differentiable(name, moving)
            parents, kept = samples.values[:, 0], _parameter_tree(tangents)
            primals = [take_rows(x, parents, kept) for x in operands]
            pushed = _Pushed(function, active, len(extra))
            inputs = [*primals, *tangents]
            n_primals = len(primals)
        below = self._replace(linear=True) if callable(self.linear) else self
        return below.plan(pushed, inputs, samples, (*extra, *components), n_primals)


@dataclass(frozen=True)
class _Pushed:
    """The derivative of a row function, in the direction of gradient rows.

    :param function: of as many rows as ``active`` is long
    :param active: which of the rows have a gradient
    :param n_extra: how many component axes the gradients have before the rows' own
    """

    function: Callable[..., Any]
    active: tuple[bool, ...]
    n_extra: int

    def __call__(self, *inputs: Any) -> Any:
        n = len(self.active)
        primals, tangents = inputs[:n], inputs[n : n + sum(self.active)]
        args = inputs[n + len(tangents) :]

        def of_active(*rows: Any) -> Any:
            moving = iter(rows)
            return self.function(
                *(
                    next(moving) if active else primal
                    for active, primal in zip(self.active, primals, strict=True)
                ),
                *args,
            )

        at = tuple(x for x, active in zip(primals, self.active, strict=True) if active)
        push = _over_extra(lambda *rows: jax.jvp(of_active, at, rows)[1], self.n_extra)
        return push(*tangents)


@dataclass(frozen=True)
class _PushedLinear:
    """The same for a function that is linear in its rows: it is its own derivative.

    :param kinds: of each row, what it is in the derivative: ``"moving"`` if it has a
        gradient, ``"constant"`` for coefficients, otherwise the shape and dtype of zero
    """

    function: Callable[..., Any]
    kinds: tuple[Any, ...]
    n_extra: int

    def __call__(self, *inputs: Any) -> Any:
        n_moving, n_constant = map(self.kinds.count, ("moving", "constant"))
        tangents, rest = inputs[:n_moving], inputs[n_moving:]
        constants, args = rest[:n_constant], rest[n_constant:]

        def push(*rows: Any) -> Any:
            given = {"moving": iter(rows), "constant": iter(constants)}
            all_rows = (
                next(given[kind]) if kind in given else jnp.zeros(*kind)
                for kind in self.kinds
            )
            return self.function(*all_rows, *args)

        return _over_extra(push, self.n_extra)(*tangents)


def _linear_inputs(
    name: str,
    operands: Sequence[Operand],
    tangents: Sequence[Operand],
    samples: Labels,
) -> tuple[list[Operand], tuple[Any, ...]]:
    """What the derivative of a linear function takes, and what each input is there."""
    parents = samples.values[:, 0]
    constants = [take_rows(x, parents, {}) for x in operands if x.is_constant]
    kinds = [
        "moving"
        if name in x.gradients
        else "constant"
        if x.is_constant
        else (x.rows.row_shape, x.rows.array.dtype)
        for x in operands
    ]
    return [*tangents, *constants], tuple(kinds)


def _over_extra(function: Callable[..., Any], n_extra: int) -> Callable[..., Any]:
    for _ in range(n_extra):
        function = jax.vmap(function)
    return function


def _check_same_samples(a: Labels, b: Labels) -> None:
    if a is b:
        return
    if a.is_static and b.is_static:
        same = a == b
    else:  # a layout lines them up; their values can not be compared here
        same = a.names == b.names and len(a) == len(b)
    if not same:
        raise NotEqualError(
            "inputs should have the same samples in the same order, but "
            f"{_difference(a, b)}"
        )


def _difference(a: Labels, b: Labels) -> str:
    if a.is_static and b.is_static:
        return first_difference(a, b)
    return f"there are {len(a)} and {len(b)}, of {a.names} and {b.names}"


def _check_differentiable(name: str, operands: Sequence[Operand]) -> None:
    for operand in operands:
        dtype = operand.rows.array.dtype
        if not jnp.issubdtype(dtype, np.inexact):
            raise TypeError(
                f"can not push the gradients with respect to '{name}' through a "
                f"function of {dtype} values: convert them with `.to(dtype=float)`"
            )


def _extra_components(
    name: str, operands: Sequence[Operand], n_primals: int
) -> tuple[Labels, ...]:
    """The components that the gradients of all inputs have before their own.

    Those of primals have the same entries, and can have other names: one block can not
    have the names of its gradients in gradients of these again.
    """
    extras = []
    for x in operands:
        components = x.gradients[name].components
        extras.append(components[: len(components) - len(x.components)])
    primals, tangents = extras[:n_primals], extras[n_primals:]
    same_names = all(extra == tangents[0] for extra in tangents[1:])
    if not (same_names and all(_same_entries(x, tangents[0]) for x in primals)):
        shown = [[(labels.names[0], len(labels)) for labels in x] for x in extras]
        raise NotEqualError(
            f"gradients with respect to '{name}' should have the same components in "
            f"all inputs, but they have {shown}"
        )
    return tangents[0]


def _same_entries(a: Sequence[Labels], b: Sequence[Labels]) -> bool:
    return [x.values.tolist() for x in a] == [x.values.tolist() for x in b]


def _parameter_tree(operands: Sequence[Operand]) -> dict[str, Any]:
    """The parameters that there are gradients for, all the way down.

    The rows that gradients are pushed along need their own gradients for these only:
    otherwise each level would give rise to one more, without an end.
    """
    return {
        name: _parameter_tree(
            [x.gradients[name] for x in operands if name in x.gradients]
        )
        for name in parameters_of(operands)
    }


def _align(name: str, gradients: Sequence[Operand]) -> tuple[list[Operand], Labels]:
    """The gradients of several inputs, with the rows of all of them."""
    samples = gradients[0].samples
    for x in gradients[1:]:
        if x.samples.names != samples.names:
            raise NotEqualError(
                f"gradients with respect to '{name}' should have the same sample names "
                f"in all inputs, but they have {samples.names} and {x.samples.names}"
            )
    if not all(x.samples.is_static for x in gradients):
        return _align_traced(gradients)
    if all(x.samples is samples or x.samples == samples for x in gradients[1:]):
        return list(gradients), samples
    for x in gradients[1:]:
        samples = samples.union(x.samples)
    aligned = [_spread(x, samples.select(x.samples), samples) for x in gradients]
    return aligned, samples


def _align_traced(gradients: Sequence[Operand]) -> tuple[list[Operand], Labels]:
    """The same for rows that are data: there is room for all of them to differ."""
    samples = gradients[0].samples
    if all(x.samples.values is samples.values for x in gradients[1:]):
        return list(gradients), samples
    rows = jnp.concatenate([x.samples.values for x in gradients])
    values, places = merge_traced(rows)
    samples = Labels._make(samples._names, values, static=False)
    ends = np.cumsum([len(x.samples) for x in gradients])
    parts = jnp.split(places, ends[:-1])
    return [
        _spread(x, p, samples) for x, p in zip(gradients, parts, strict=True)
    ], samples


def _spread(x: Operand, places: Index, samples: Labels) -> Operand:
    """A gradient whose rows are at ``places`` of ``samples``, zero for the others."""
    n = len(x.samples)
    gradients = {
        name: gradient._replace(
            samples=_move_parents(gradient.samples, places, n, samples)
        )
        for name, gradient in x.gradients.items()
    }
    if samples.is_static:
        index = np.full(len(samples), n)
        index[places] = np.arange(n)
    else:
        index = jnp.full(len(samples), n, np.int32)
        index = index.at[places].set(jnp.arange(n, dtype=np.int32), mode="drop")
    rows = x.rows.take(index, fill=True)
    return x._replace(rows=rows, samples=samples, gradients=gradients)


def _move_parents(nested: Labels, places: Index, n: int, samples: Labels) -> Labels:
    if not samples.is_static:
        values = follow_traced(nested.values, n, 0, places, len(samples))
        return Labels._make(nested._names, values, static=False)
    values = nested.values.copy()
    values[:, 0] = places[values[:, 0]]
    return Labels._make(nested._names, values)
