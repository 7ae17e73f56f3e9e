"""map_rows: a function of each row, with the chain rule for stored gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import Tracer

from .._types.block import TensorBlock
from .._types.entry import saying_where
from .._types.errors import NotEqualError
from .._types.labels import Labels, first_difference
from .._types.structure import MapStructure
from .._types.tensor import TensorMap
from ..execution import (
    ArrayTypes,
    KeptFunctions,
    execute,
    holds_tracer,
    is_hashable,
    is_repeatable,
    types_of,
    with_slots,
)
from ._operands import Operand
from ._push import Mapping


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

    >>> import jax.numpy as jnp
    >>> import numpy as np
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
    if isinstance(args, list) or not is_hashable(function):
        return None
    if not all(isinstance(x, TensorMap) and x._structure.is_static for x in inputs):
        return None
    leaves = [leaf for tensor in inputs for leaf in tensor._leaves]
    hides_tracer = holds_tracer(function) or any(
        isinstance(x, Tracer) for x in jax.tree.leaves(args)
    )
    if hides_tracer or not is_repeatable(leaves):
        return None
    structures = tuple([tensor._structure for tensor in inputs])
    plan = _kept_plan(function, linear, structures, types_of(leaves))
    return plan.run(leaves, args)


@functools.lru_cache(maxsize=64)
def _kept_plan(
    function: Callable[..., Any],
    linear: bool | Callable[..., Any],
    structures: tuple[MapStructure, ...],
    types: ArrayTypes,
) -> KeptFunctions:
    """What to do with maps of these structures, whose arrays have these shapes."""
    inputs = with_slots(structures, types)
    first, plans = inputs[0], []
    for i, blocks in enumerate(match_blocks(*inputs)):
        with saying_where(first.keys.entry(i)):
            plans.append(plan_map(function, blocks, (), linear))
    tensor = TensorMap._make(first.keys, plans, first._structure.info)
    tensor._structure.digest  # noqa: B018 - all results share it
    return KeptFunctions(tensor)


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
    if not is_hashable(function):  # a module: its arrays are data of the program
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
    mapping = Mapping(args, linear, rearranges, properties)
    return mapping.plan(function, operands, first.samples, tuple(components))


def _apply_last(*inputs: Any) -> Any:
    *given, function = inputs
    return function(*given)


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
