"""The two primitives that carry every operation: ``map_rows`` and ``move_rows``.

The rows of a block are its samples. A gradient block is a block as well, and its first
sample column, ``"sample"``, names the row of the values that a row is a gradient of. So
all there is to know about gradients is bookkeeping of rows, and follows from these two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, overload

import jax
import numpy as np

from .._evaluate import as_map, evaluate, only_block
from .._host.packing import first_duplicate
from .._plan.cut import plan_cut
from .._plan.draft import DraftMap
from .._plan.follow import OrderOfRows
from .._plan.map import key_order, match_blocks, plan_map_rows
from .._plan.move import Arrangement, Piece, plan_move
from .._plan.once import Once
from .._plan.push import RowFunction
from .._plan.rows import traced_labels
from .._run.functions import Given, row_type
from .._run.ops import Slot
from .._types.arrays import Array, is_tracer
from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import check_ours, check_type, checked_fill

# --- functions of rows ---------------------------------------------------------------


_Blocks = TypeVar("_Blocks", TensorBlock, TensorMap)
#: a function of rows, of any number of them: it gives one array
RowFunctionLike = Callable[..., Any]


def map_rows(
    function: RowFunctionLike | list[RowFunctionLike],
    first: _Blocks,
    /,
    *others: _Blocks | Array | Sequence[Array],
    args: tuple[Any, ...] | list[tuple[Any, ...]] = (),
    linear: bool | RowFunctionLike | list[RowFunctionLike] = False,
    rearranges: bool = False,
    components: Sequence[Labels] | Sequence[Sequence[Labels]] | None = None,
    properties: Labels | Sequence[Labels] | None = None,
) -> _Blocks:
    r"""Apply a function to each row of blocks that share their samples.

    With :math:`y_i = f(x_i)`, the stored gradients of the result are

    .. math::
        \frac{\partial y_i}{\partial r} =
        \mathrm{d}f(x_i) \left[ \frac{\partial x_i}{\partial r} \right]

    for each parameter that all of the inputs have gradients for. A gradient row that an
    input does not have is zero there; of a gradient that it does not have at all,
    nothing is known, and so the result has none. (Give what is constant as an array.)
    The same holds for gradients of gradients. A function whose result is boolean or
    integer has no derivative, and its result no gradients.

    :param function: takes one row of each input, with shape ``(*components,
        properties)``, then ``args``; gives one row of the result. Outside of
        ``jax.jit`` it runs as ``jax.vmap`` of it does, anew at each call: give
        ``jax.jit(function)`` to have it compiled.
    :param first: a block, or a map
    :param others: blocks with the same samples; or maps with the same keys, whose
        blocks have the same samples; or a plain array with one row per sample, without
        gradients (for maps: a list of them)
    :param args: what ``function`` takes besides rows. Python values in there stay what
        they are.
    :param linear: ``function`` is linear in the rows of all blocks together, so that
        its derivative does not need these rows. For an affine function: its linear
        part.
    :param rearranges: ``function`` only puts the elements of its one row in other
        places: it is linear, works on the last axes of arrays with any number of axes
        before, and on NumPy arrays as well as on JAX's. Then NumPy arrays stay such.
    :param components: components of the result; those of the first input if None
    :param properties: properties of the result; those of the first input if None

    For maps, ``function``, ``args``, ``linear`` (if it is a function), ``components``
    and ``properties`` can be lists with one item for each block.

    :raises MetatensorError: a list with more or fewer items than there are blocks
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
    _check_is_data(first)
    inputs = (first, *others)
    for i, other in enumerate(others, 1):
        check_ours(other, f"inputs[{i}]")
    if isinstance(first, TensorBlock):
        maps: Any = [as_map(x) if isinstance(x, TensorBlock) else [x] for x in inputs]
        result = map_rows(
            function,
            *maps,
            args=args,
            linear=linear,
            rearranges=rearranges,
            components=components,
            properties=properties,
        )
        return only_block(result)
    for other in others:
        if not isinstance(other, TensorMap):
            _of_each("arrays beside a map", other, first.keys)
    has_part = _has_linear_part(linear)
    given = _given(function, args, linear if has_part else None, first.keys)
    f = RowFunction(
        Slot(0),
        linear=Slot(0, is_linear_part=True) if has_part else bool(linear),
        rearranges=rearranges,
        dtype=None if rearranges or linear else _result_dtype(given, inputs),
    )
    result = evaluate(
        plan_map_rows,
        *inputs,
        given=given,
        f=f,
        components=_components_of_each(components, first.keys),
        properties=_properties_of_each(properties, first.keys),
        one_slot=not any(isinstance(x, list) for x in (function, args, linear)),
    )
    _check_one_dtype({block.dtype for block in result})
    return result


def _check_is_data(first: object) -> None:
    if not isinstance(first, (TensorBlock, TensorMap)):
        raise TypeError(
            "the first input of map_rows must be a TensorMap or a TensorBlock, not "
            f"{type_of(first)}"
        )


def _of_each(name: str, items: Any, keys: Labels) -> Any:
    """These items, which must be one for each block."""
    if len(items) != len(keys):
        raise MetatensorError(
            f"{name}: there must be one item for each of the {len(keys)} blocks, got "
            f"{len(items)}"
        )
    return items


def _has_linear_part(linear: Any) -> bool:
    """Is a function said to be affine, with this linear part?"""
    functions = linear if isinstance(linear, list) else [linear]
    if all(map(callable, functions)):
        return True
    if isinstance(linear, (bool, int, np.bool_, type(None))):
        return False
    raise TypeError(
        "`linear` of map_rows must be True, False, a function, or a list of functions, "
        f"not {linear!r}"
    )


def _given(function: Any, args: Any, linear_part: Any, keys: Labels) -> list[Given]:
    """What is given for all blocks together, or a list with one item for each."""
    named = {"`function`": function, "`args`": args, "`linear`": linear_part}
    lists = {name: x for name, x in named.items() if isinstance(x, list)}
    if not lists:
        return [Given(function, args, linear_part)]
    for name, items in lists.items():
        _of_each(name, items, keys)
    return [
        Given(*[x[i] if isinstance(x, list) else x for x in named.values()])
        for i in range(len(keys))
    ]


def _components_of_each(components: Any, keys: Labels) -> Any:
    if components is None:
        return None
    if all(isinstance(labels, Labels) for labels in components):
        return (tuple(components),) * len(keys)
    return tuple(map(tuple, _of_each("`components`", components, keys)))


def _properties_of_each(properties: Any, keys: Labels) -> Any:
    if properties is None:
        return None
    if isinstance(properties, Labels):
        return (properties,) * len(keys)
    return tuple(_of_each("`properties`", properties, keys))


def _result_dtype(given: Sequence[Given], inputs: Sequence[Any]) -> Any:
    """What functions of rows give, where that matters: is there a derivative?"""
    first = inputs[0]
    if not any(block.gradients for block in first._structure.blocks):
        return None
    dtypes: dict[Any, Any] = {}
    for i, blocks in enumerate(match_blocks(*inputs)):
        g = given[i if len(given) > 1 else 0]
        arrays = [x.values if isinstance(x, TensorBlock) else x for x in blocks]
        rows = tuple([(tuple(x.shape[1:]), x.dtype) for x in arrays])
        if (id(g), rows) not in dtypes:
            with in_block(first.keys, i):
                dtypes[id(g), rows] = row_type(g.function, rows, g.args).dtype
    _check_one_dtype(set(dtypes.values()))
    return next(iter(dtypes.values()))


def _check_one_dtype(dtypes: set[Any]) -> None:
    if len(dtypes) > 1:
        raise MetatensorError(
            "all blocks of a map have the same dtype, but the row functions give "
            f"{sorted(map(str, dtypes))}: convert their results"
        )


# --- moves of rows -------------------------------------------------------------------


class Move(NamedTuple):
    """Where rows of a block go.

    Of several maps, the blocks of the same key go together. For a map there is one
    index per block, in the order of its blocks; samples and properties of the result
    are in the order of the first map.

    :param block: the block, or a map
    :param source: its rows, in the order in which they are moved; all of them if None.
        A row past the end stands for a row that is not there.
    :param destination: which row of the result each of these is added to; if None,
        they follow those of the move before. Rows whose destination is outside of the
        result are dropped.
    """

    block: TensorBlock | TensorMap
    source: Array | Sequence[Array] | None = None
    destination: Array | Sequence[Array] | None = None


@overload
def move_rows(
    moves: Sequence[Move],
    samples: Labels,
    *,
    properties: Labels | None = None,
    arrangement: Arrangement = "end to end",
    fill_value: float = 0.0,
    order_gradients: OrderOfRows | None = None,
) -> TensorBlock: ...


@overload
def move_rows(
    moves: Sequence[Move],
    samples: Sequence[Labels],
    *,
    properties: Sequence[Labels] | None = None,
    arrangement: Arrangement = "end to end",
    fill_value: float = 0.0,
    order_gradients: OrderOfRows | None = None,
) -> TensorMap: ...


def move_rows(
    moves: Sequence[Move],
    samples: Labels | Sequence[Labels],
    *,
    properties: Labels | Sequence[Labels] | None = None,
    arrangement: Arrangement = "end to end",
    fill_value: float = 0.0,
    order_gradients: OrderOfRows | None = None,
) -> TensorBlock | TensorMap:
    r"""Gather rows, add rows up, lay rows end to end or side by side.

    With :math:`y_i = \sum_{j \to i} x_j`, the stored gradients of the result are
    :math:`\partial y_i / \partial r = \sum_{j \to i} \partial x_j / \partial r`:
    gradient rows go where the rows they belong to go, and those that end up with the
    same label are added up.

    :param moves: the rows, and where they go, see :class:`Move`. Either each of them
        has a destination, or none.
    :param samples: labels of the rows of the result (for maps: one per block)
    :param properties: properties of the result, those of the first block if None (for
        maps: one per block)
    :param arrangement: ``"end to end"``: the rows of all moves are rows of the result.
        ``"side by side"``: the rows of each move are columns (properties) of the
        result, and different moves may go to the same rows.
    :param fill_value: for values of the result that no row goes to, when side by side
        or with sources past the end. Gradients are zero there.
    :param order_gradients: gives the order of gradient rows from the values of their
        labels. If None, they are in the order of the input, or sorted if added up.

    NumPy arrays are moved by NumPy and give NumPy arrays, JAX arrays give JAX arrays.

    >>> p = Labels.range("p", 1)
    >>> x = TensorBlock(np.array([[1.0], [2.0], [4.0]]), Labels.range("s", 3), [], p)
    >>> taken = move_rows([Move(x, source=np.array([2, 0]))], Labels("s", [[2], [0]]))
    >>> taken.values.tolist()
    [[4.0], [1.0]]
    >>> added = move_rows(
    ...     [Move(x, destination=np.array([0, 1, 0]))], Labels.range("t", 2)
    ... )
    >>> added.values.tolist()
    [[5.0], [2.0]]
    """
    if len(moves) == 0:
        raise MetatensorError("give at least one Move: there are no rows to move")
    for i, move in enumerate(moves):
        check_ours(move.block, f"moves[{i}].block")
    options = {
        "arrangement": arrangement,
        "fill_value": checked_fill(fill_value, moves[0].block.dtype),
        "order": order_gradients,
    }
    if not isinstance(moves[0].block, TensorBlock):
        return _move_maps(moves, samples, properties, **options)
    of_maps: Any = [
        Move(as_map(block), _listed(source), _listed(destination))  # type: ignore[arg-type]
        for block, source, destination in moves
    ]
    columns = _listed(properties)
    return only_block(_move_maps(of_maps, [samples], columns, **options))


def _listed(value: Any) -> Any:
    """For the block of a map with one block."""
    return None if value is None else [value]


class _Data(NamedTuple):
    """Arrays that are data, one for each block: this input of the plan."""

    number: int


def _move_maps(
    moves: Sequence[Move], samples: Any, properties: Any, **options: Any
) -> TensorMap:
    inputs: list[Any] = [move.block for move in moves]
    keys = inputs[0].keys
    _of_each("`samples`", samples, keys)
    if properties is not None:
        _of_each("`properties`", properties, keys)
    values = [labels.values for labels in samples]
    places = [
        [_rows_of_each(x, keys, inputs) for x in (move.source, move.destination)]
        for move in moves
    ]
    if options["arrangement"] == "side by side":
        for _, destination in places:
            _check_not_added(destination)
    is_static = all(labels.is_static for labels in samples)
    return evaluate(
        _plan_moves,
        *inputs,
        *([] if is_static else [values]),
        places=places,
        samples=samples if is_static else [labels._names for labels in samples],
        properties=properties,
        **options,
    )


def _rows_of_each(indices: Any, keys: Labels, inputs: list[Any]) -> Any:
    """Row numbers for each block, known ones or one more input."""
    if indices is None:
        return None
    _of_each("the rows of a Move", indices, keys)
    if any(is_tracer(index) for index in indices):
        inputs.append(list(map(jax.numpy.asarray, indices)))
        return _Data(len(inputs) - 1)
    indices = [np.asarray(index) for index in indices]
    for index in indices:
        if index.dtype.kind not in "iu" and index.size:
            raise TypeError(
                f"rows to move are row numbers, not {index.dtype}: use "
                "`numpy.flatnonzero(mask)` for a mask"
            )
    return indices


def _check_not_added(destination: Any) -> None:
    for index in destination if isinstance(destination, list) else []:
        repeated = first_duplicate(index[:, None])
        if repeated is not None:
            raise MetatensorError(
                "rows side by side can not be added up, but several go to row "
                f"{index[repeated]} of the result"
            )


def _plan_moves(
    *inputs: Any,
    places: Sequence[Sequence[Any]],
    samples: Sequence[Any],
    properties: Sequence[Labels] | None,
    **options: Any,
) -> DraftMap:
    """The plan of :func:`move_rows`.

    :param inputs: maps, then row numbers that are data, then samples that are data
    :param samples: labels, or only their names
    """
    if not all(isinstance(labels, Labels) for labels in samples):
        pairs = zip(samples, inputs[-1], strict=True)
        samples = [traced_labels(names, values) for names, values in pairs]
    indices = [
        [inputs[x.number] if isinstance(x, _Data) else x for x in of_move]
        for of_move in places
    ]
    maps, keys = inputs[: len(places)], inputs[0].keys
    orders = [key_order(keys, tensor.keys) for tensor in maps]
    once, blocks = Once(), []
    for i in range(len(keys)):
        pieces = []
        for tensor, order, of_move in zip(maps, orders, indices, strict=True):
            at = order[i]
            rows = [None if x is None else x[at] for x in of_move]
            pieces.append(Piece(tensor.blocks[at], *rows))
        columns = None if properties is None else properties[i]
        blocks.append(plan_move(pieces, samples[i], columns, once=once, **options))
    return DraftMap(keys, blocks, inputs[0].info)


def cut_rows(block: TensorBlock, lengths: Sequence[int]) -> list[TensorBlock]:
    """Cut a block into runs of rows: each run is a block, with its gradients.

    This is :func:`move_rows` to many blocks at once, in a time that does not grow with
    their number times the rows.

    :param lengths: how many rows each run has; all together as many as the block
    :raises MetatensorError: other lengths

    >>> p = Labels.range("p", 1)
    >>> x = TensorBlock(np.arange(3.0).reshape(3, 1), Labels.range("s", 3), [], p)
    >>> [run.values.tolist() for run in cut_rows(x, [1, 2])]
    [[[0.0]], [[1.0], [2.0]]]
    """
    check_type(block, "block", TensorBlock)
    lengths = [int(n) for n in lengths]
    if min(lengths, default=0) < 0 or sum(lengths) != len(block):
        raise MetatensorError(
            f"the lengths of runs must add up to the {len(block)} rows of the block, "
            f"but {lengths} are {sum(lengths)}"
        )
    return only_block(evaluate(_plan_runs, as_map(block), lengths=lengths))


def _plan_runs(tensor: DraftMap, lengths: Sequence[int]) -> list[DraftMap]:
    runs = plan_cut(tensor.blocks[0], lengths)
    return [DraftMap(tensor.keys, [run]) for run in runs]
