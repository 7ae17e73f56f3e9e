"""The two primitives that carry every operation: ``map_rows`` and ``move_rows``.

The rows of a block are its samples. A gradient block is a block as well, and its first
sample column, ``"sample"``, names the row of the values that a row is a gradient of. So
all there is to know about gradients is bookkeeping of rows, and follows from these two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .._evaluate import as_map, evaluate, only_block
from .._plan.cut import plan_cut
from .._plan.draft import DraftMap
from .._plan.map import match_blocks, plan_map_rows
from .._plan.move import Arrangement, Piece, plan_move
from .._plan.once import Once
from .._plan.push import RowFunction
from .._plan.rows import traced_labels
from .._run.functions import row_type
from .._run.ops import Given, Slot
from .._types.arrays import is_tracer
from .._types.block import TensorBlock
from .._types.context import in_block
from .._types.errors import MetatensorError
from .._types.foreign import type_of
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .checks import check_ours

OrderOfRows = Callable[[np.ndarray], np.ndarray]


# --- functions of rows ---------------------------------------------------------------


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

    for each parameter that all of the inputs have gradients for. A gradient row that an
    input does not have is zero there; of a gradient that it does not have at all,
    nothing is known, and so the result has none. (Give what is constant as an array.)
    The same holds for gradients of gradients. A function whose result is boolean or
    integer has no derivative, and its result no gradients.

    :param function: takes one row of each input, with shape ``(*components,
        properties)``, then ``args``; gives one row of the result. Outside of
        ``jax.jit`` it runs as ``jax.vmap`` of it does, anew at each call: give
        ``jax.jit(function)`` to have it compiled.
    :param inputs: blocks with the same samples; or maps with the same keys, whose
        blocks have the same samples. All but the first can also be a plain array with
        one row per sample, without gradients (for maps: a list of them).
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
        maps = [as_map(x) if isinstance(x, TensorBlock) else [x] for x in inputs]
        axes = None if components is None else [components]
        result = map_rows(
            function,
            *maps,
            args=args,
            linear=linear,
            rearranges=rearranges,
            components=axes,
            properties=properties,
        )
        return only_block(result)
    per_block = isinstance(function, list) or isinstance(args, list)
    n = len(first) if per_block else 1
    given = [
        Given(
            _of_block(function, i),
            _of_block(args, i),
            linear if callable(linear) else None,
        )
        for i in range(n)
    ]
    f = RowFunction(
        Slot(0),
        linear=Slot(0, is_linear_part=True) if callable(linear) else linear,
        rearranges=rearranges,
        dtype=None if rearranges or linear else _result_dtype(given, inputs),
    )
    result = evaluate(
        plan_map_rows,
        *inputs,
        given=given,
        f=f,
        components=_for_each_block(components, len(first), tuple),
        properties=_for_each_block(properties, len(first)),
        one_slot=not per_block,
    )
    _check_one_dtype({block.dtype for block in result})
    return result


def _first_input(inputs: Sequence[Any]) -> Any:
    for i, x in enumerate(inputs[1:], 1):
        check_ours(x, f"inputs[{i}]")
    if not inputs or not isinstance(inputs[0], (TensorBlock, TensorMap)):
        given = type_of(inputs[0]) if inputs else "nothing"
        raise TypeError(
            f"the first input of map_rows must be a TensorMap or a TensorBlock, not "
            f"{given}"
        )
    return inputs[0]


def _of_block(value: Any, i: int) -> Any:
    """What is the same for all blocks of a map, or a list with one item for each."""
    return value[i] if isinstance(value, list) else value


def _for_each_block(
    labels: Any, n: int, kind: Callable[[Any], Any] | None = None
) -> Any:
    """Labels for each block, as a key of plans."""
    if labels is None:
        return None
    items = [_of_block(labels, i) for i in range(n)]
    return tuple([kind(item) if kind else item for item in items])


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

    :param block: the block, or a map
    :param source: its rows, in the order in which they are moved; all of them if None.
        A row past the end stands for a row that is not there. (For a map: one index
        per block.)
    :param destination: which row of the result each of these is added to; if None,
        they follow those of the move before. (For a map: one index per block.)
    """

    block: Any
    source: Any = None
    destination: Any = None


def move_rows(
    moves: Sequence[Move],
    samples: Any,
    *,
    properties: Any = None,
    arrangement: Arrangement = "end to end",
    fill_value: float = 0.0,
    order_gradients: OrderOfRows | None = None,
) -> Any:
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
    is_block = isinstance(moves[0].block, TensorBlock)
    if is_block:
        moves = [
            Move(as_map(block), _listed(source), _listed(destination))
            for block, source, destination in moves
        ]
        samples = [samples]
        properties = None if properties is None else [properties]
    inputs: list[Any] = []
    names = [labels._names for labels in samples]
    if not all(labels.is_static for labels in samples):
        inputs.append([labels.values for labels in samples])
        samples = [None] * len(samples)
    places = [
        (_places(move.source, inputs), _places(move.destination, inputs))
        for move in moves
    ]
    result = evaluate(
        plan_moves,
        *[move.block for move in moves],
        *inputs,
        places=places,
        names=names,
        samples=samples,
        properties=properties,
        arrangement=arrangement,
        fill_value=fill_value,
        order=order_gradients,
    )
    return only_block(result) if is_block else result


def _listed(index: Any) -> Any:
    return None if index is None else [index]


def _places(indices: Any, inputs: list[Any]) -> Any:
    """Row numbers: those that are data become one more input, named by its number."""
    if indices is None:
        return None
    if not any(is_tracer(index) for index in indices):
        return [np.asarray(index) for index in indices]
    inputs.append(list(map(jax.numpy.asarray, indices)))
    return len(inputs) - 1


def plan_moves(
    *inputs: Any,
    places: Sequence[tuple[Any, Any]],
    names: Sequence[tuple[str, ...]],
    samples: Sequence[Labels | None],
    properties: Sequence[Labels] | None,
    **options: Any,
) -> DraftMap:
    """The plan of :func:`move_rows`.

    :param inputs: maps, then row numbers that are data, by their numbers in ``places``.
        Before these, samples that are data, whose labels are None.
    """
    maps, indices = inputs[: len(places)], inputs[len(places) :]
    known = [
        traced_labels(own, indices[0][i]) if labels is None else labels
        for i, (own, labels) in enumerate(zip(names, samples, strict=True))
    ]
    once, blocks = Once(), []
    for i in range(len(maps[0].blocks)):
        pieces = []
        for tensor, of_map in zip(maps, places, strict=True):
            index = [indices[x] if isinstance(x, int) else x for x in of_map]
            pieces.append(
                Piece(tensor.blocks[i], *[None if x is None else x[i] for x in index])
            )
        columns = None if properties is None else properties[i]
        blocks.append(plan_move(pieces, known[i], columns, once=once, **options))
    return DraftMap(maps[0].keys, blocks, maps[0].info)


def cut_rows(block: TensorBlock, lengths: Sequence[int]) -> list[TensorBlock]:
    """Cut a block into runs of rows: each run is a block, with its gradients.

    This is :func:`move_rows` to many blocks at once, in a time that does not grow with
    their number times the rows.

    :param lengths: how many rows each run has; all together as many as the block

    >>> p = Labels.range("p", 1)
    >>> x = TensorBlock(np.arange(3.0).reshape(3, 1), Labels.range("s", 3), [], p)
    >>> [run.values.tolist() for run in cut_rows(x, [1, 2])]
    [[[0.0]], [[1.0], [2.0]]]
    """
    return only_block(evaluate(_plan_runs, as_map(block), lengths=list(lengths)))


def _plan_runs(tensor: DraftMap, lengths: Sequence[int]) -> list[DraftMap]:
    runs = plan_cut(tensor.blocks[0], lengths)
    return [DraftMap(tensor.keys, [run]) for run in runs]
