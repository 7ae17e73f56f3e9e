"""The two primitives: ``map_rows`` and ``move_rows``. This is the host half.

The rows of a block are its samples. A gradient block is a block as well, and its first
sample column, ``"sample"``, names the row of the values that a row is a gradient of. So
everything there is to know about gradients is bookkeeping of rows, and is written here,
once:

- :func:`map_rows` applies a function to each row. Its gradients follow from the chain
  rule, which JAX has (``jax.jvp``): a gradient row of the result is the function "jvp
  of f", of the row that it is a gradient of and of the stored gradient row. That is a
  function of rows again, so gradients of gradients come from the same few lines.
- :func:`move_rows` gathers rows, adds them up, lays them end to end or side by side.
  That is linear, so gradient rows move along with the rows they belong to.

Labels are read here, and index arrays come out; what these do to data is in
``execution.py``. A plan is a block whose leaves are tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .block import TensorBlock
from .errors import NotEqualError, TracedLabelsError
from .execution import (
    CutTask,
    GatherTask,
    Index,
    MapTask,
    Rows,
    ScatterTask,
    execute,
    follow_traced,
    merge_traced,
)
from .labels import Labels
from .packing import unique_rows
from .tensor import TensorMap


class _Operand(NamedTuple):
    """A block whose rows are yet to be taken."""

    rows: Rows
    samples: Labels
    components: tuple[Labels, ...]
    properties: Labels
    gradients: Mapping[str, _Operand]

    @classmethod
    def of(cls, block: TensorBlock) -> _Operand:
        """All rows of this block."""
        structure = block._structure
        gradients = {name: cls.of(gradient) for name, gradient in block.gradients()}
        return cls(
            Rows(block.values),
            block.samples,
            structure.components,
            structure.properties,
            gradients,
        )

    @classmethod
    def of_array(cls, array: Any, samples: Labels) -> _Operand:
        """One row of an array per sample, without gradients."""
        return cls(Rows(array), samples, (), samples, {})

    @property
    def parents(self) -> Any:
        """For a gradient: the row of the values that each row is a gradient of."""
        return self.samples.values[:, 0]


def _parameters(operands: Iterable[_Operand]) -> list[str]:
    """All parameters that there are gradients for."""
    return sorted({name for operand in operands for name in operand.gradients})


# === map_rows ======================================================================


def map_rows(
    function: Any,
    *inputs: Any,
    args: Any = (),
    linear: bool = False,
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
    :param linear: ``function`` is linear in all its rows together, so that its
        derivative does not need the rows themselves
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
    first = inputs[0]
    if isinstance(first, TensorBlock):
        return execute(
            plan_map(function, inputs, args, linear, rearranges, components, properties)
        )
    plans = []
    for i, blocks in enumerate(match_blocks(*inputs)):
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
    linear: bool = False,
    rearranges: bool = False,
    components: Sequence[Labels] | None = None,
    properties: Labels | None = None,
) -> TensorBlock:
    """The plan of :func:`map_rows` for blocks: a block whose leaves are tasks."""
    first = _Operand.of(blocks[0])
    operands = [first]
    for block in blocks[1:]:
        if isinstance(block, TensorBlock):
            operands.append(_Operand.of(block))
            _check_same_samples(first.samples, operands[-1].samples)
        else:
            operands.append(_Operand.of_array(block, first.samples))
    if components is None:
        components = first.components
    if properties is None:
        properties = first.properties
    mapping = _Mapping(args, linear, rearranges, properties)
    return mapping.plan(function, operands, first.samples, tuple(components))


class _Mapping(NamedTuple):
    """What stays the same while ``map_rows`` walks down the gradients."""

    args: tuple[Any, ...]
    linear: bool
    rearranges: bool
    properties: Labels

    def plan(
        self,
        function: Callable[..., Any],
        operands: Sequence[_Operand],
        samples: Labels,
        components: tuple[Labels, ...],
    ) -> TensorBlock:
        """The values, and the gradients with respect to each parameter."""
        rows = tuple([x.rows for x in operands])
        task = MapTask(function, rows, self.args, self.rearranges)
        gradients = {
            name: self.push(name, function, operands, components)
            for name in _parameters(operands)
        }
        return TensorBlock._make(task, samples, components, self.properties, gradients)

    def push(
        self,
        name: str,
        function: Callable[..., Any],
        operands: Sequence[_Operand],
        components: tuple[Labels, ...],
    ) -> TensorBlock:
        """The gradient with respect to one parameter, by the chain rule."""
        active = tuple(name in x.gradients for x in operands)
        moving = [x for x in operands if name in x.gradients]
        extra = _extra_components(name, moving)
        tangents, samples = _align(name, [x.gradients[name] for x in moving])
        if self.rearranges:
            pushed: Callable[..., Any] = function
            inputs = tangents
        elif self.linear:
            zeros = tuple(
                None if name in x.gradients else (x.rows.row_shape, x.rows.array.dtype)
                for x in operands
            )
            pushed = _PushedLinear(function, zeros, len(extra))
            inputs = tangents
        else:
            _check_differentiable(name, moving)
            parents, kept = samples.values[:, 0], _parameter_tree(tangents)
            primals = [_take(x, parents, kept) for x in operands]
            pushed = _Pushed(function, active, len(extra))
            inputs = [*primals, *tangents]
        return self.plan(pushed, inputs, samples, (*extra, *components))


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

    :param zeros: the shape and dtype of each row without a gradient, otherwise None
    """

    function: Callable[..., Any]
    zeros: tuple[tuple[tuple[int, ...], Any] | None, ...]
    n_extra: int

    def __call__(self, *inputs: Any) -> Any:
        n_tangents = self.zeros.count(None)
        tangents, args = inputs[:n_tangents], inputs[n_tangents:]

        def push(*rows: Any) -> Any:
            moving = iter(rows)
            all_rows = (
                next(moving) if zero is None else jnp.zeros(*zero)
                for zero in self.zeros
            )
            return self.function(*all_rows, *args)

        return _over_extra(push, self.n_extra)(*tangents)


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
            "inputs should have the same samples in the same order, but they differ:\n"
            f"{a}\nand\n{b}"
        )


def _check_differentiable(name: str, operands: Sequence[_Operand]) -> None:
    for operand in operands:
        dtype = operand.rows.array.dtype
        if not jnp.issubdtype(dtype, np.inexact):
            raise TypeError(
                f"can not push the gradients with respect to '{name}' through a "
                f"function of {dtype} values: convert them with `.to(dtype=float)`"
            )


def _extra_components(name: str, operands: Sequence[_Operand]) -> tuple[Labels, ...]:
    """The components that the gradients of all inputs have before their own."""
    extras = []
    for x in operands:
        components = x.gradients[name].components
        extras.append(components[: len(components) - len(x.components)])
    if any(extra != extras[0] for extra in extras[1:]):
        names = [[labels.names[0] for labels in extra] for extra in extras]
        raise NotEqualError(
            f"gradients with respect to '{name}' should have the same components in "
            f"all inputs, but they have {names}"
        )
    return extras[0]


def _parameter_tree(operands: Sequence[_Operand]) -> dict[str, Any]:
    """The parameters that there are gradients for, all the way down.

    The rows that gradients are pushed along need their own gradients for these only:
    otherwise each level would give rise to one more, without an end.
    """
    return {
        name: _parameter_tree(
            [x.gradients[name] for x in operands if name in x.gradients]
        )
        for name in _parameters(operands)
    }


def _take(x: _Operand, index: Index, kept: Mapping[str, Any]) -> _Operand:
    """Some rows of a block, with those of its gradients that are in ``kept``."""
    gradients = {
        name: _take_gradient(x.gradients[name], index, kept[name])
        for name in kept
        if name in x.gradients
    }
    return x._replace(rows=x.rows.take(index), gradients=gradients)


def _take_gradient(x: _Operand, index: Index, kept: Mapping[str, Any]) -> _Operand:
    if not x.samples.is_static or not isinstance(index, np.ndarray):
        raise TracedLabelsError(
            "taking rows with gradients of gradients", x.samples._names
        )
    new_parents, rows = join_rows(index, x.parents)
    values = np.column_stack([new_parents, x.samples.values[rows, 1:]])
    samples = Labels._make(x.samples._names, values.astype(np.int32))
    return _take(x, rows, kept)._replace(samples=samples)


def join_rows(index: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs ``(i, j)`` with ``index[i] == parents[j]``, in order of ``i``."""
    order = np.argsort(parents, kind="stable")
    starts = np.searchsorted(parents, index, "left", order)
    counts = np.searchsorted(parents, index, "right", order) - starts
    i = np.repeat(np.arange(len(index)), counts)
    steps = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    return i, order[np.repeat(starts, counts) + steps]


def _align(name: str, gradients: Sequence[_Operand]) -> tuple[list[_Operand], Labels]:
    """The gradients of several inputs, with the rows of all of them."""
    samples = gradients[0].samples
    if all(x.samples is samples or x.samples == samples for x in gradients[1:]):
        return list(gradients), samples
    for x in gradients[1:]:
        if x.samples.names != samples.names:
            raise NotEqualError(
                f"gradients with respect to '{name}' should have the same sample names "
                f"in all inputs, but they have {samples.names} and {x.samples.names}"
            )
        samples = samples.union(x.samples)
    return [_spread(x, samples) for x in gradients], samples


def _spread(x: _Operand, samples: Labels) -> _Operand:
    """A gradient whose rows are a part of ``samples``, with zeros for the others."""
    rows = samples.select(x.samples)
    index = np.full(len(samples), len(x.samples))
    index[rows] = np.arange(len(rows))
    gradients = {}
    for name, gradient in x.gradients.items():
        values = gradient.samples.values.copy()
        values[:, 0] = rows[values[:, 0]]
        moved = Labels._make(gradient.samples._names, values)
        gradients[name] = gradient._replace(samples=moved)
    return x._replace(
        rows=x.rows.take(index, fill=True), samples=samples, gradients=gradients
    )


# === move_rows =====================================================================


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


class _Piece(NamedTuple):
    operand: _Operand
    source: Index | None
    destination: Index | None

    @property
    def n_rows(self) -> int:
        rows = self.operand.rows
        return rows.n_rows if self.source is None else len(self.source)


Arrangement = Literal["end to end", "side by side"]
OrderOfRows = Callable[[np.ndarray], np.ndarray]


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
    first = moves[0].block
    if isinstance(first, TensorBlock):
        plan = plan_move(
            moves, samples, properties, arrangement, fill_value, order_gradients
        )
        return execute(plan)
    options = (arrangement, fill_value, order_gradients)
    plans = []
    for i in range(len(first)):
        of_block = [
            Move(
                move.block.block_by_id(i),
                None if move.source is None else move.source[i],
                None if move.destination is None else move.destination[i],
            )
            for move in moves
        ]
        columns = None if properties is None else properties[i]
        plans.append(plan_move(of_block, samples[i], columns, *options))
    return execute(TensorMap._make(first.keys, plans, first._structure.info))


def plan_move(
    moves: Sequence[Move],
    samples: Labels,
    properties: Labels | None = None,
    arrangement: Arrangement = "end to end",
    fill_value: float = 0.0,
    order_gradients: OrderOfRows | None = None,
) -> TensorBlock:
    """The plan of :func:`move_rows` for blocks: a block whose leaves are tasks."""
    pieces = []
    for block, source, destination in moves:
        operand = _Operand.of(block)
        if source is not None and _is_everything(source, operand.rows.n_rows):
            source = None
        pieces.append(_Piece(operand, source, destination))
    columns = pieces[0].operand.properties if properties is None else properties
    if arrangement == "side by side":
        return _plan_beside(pieces, samples, columns, fill_value)
    return _plan_along(pieces, samples, columns, fill_value, order_gradients)


def _is_everything(index: Index, n: int) -> bool:
    return (
        isinstance(index, np.ndarray)
        and len(index) == n
        and (n == 0 or (index[0] == 0 and bool(np.all(index == np.arange(n)))))
    )


def _plan_along(
    pieces: Sequence[_Piece],
    samples: Labels,
    properties: Labels,
    fill_value: Any,
    order: OrderOfRows | None,
) -> TensorBlock:
    """Rows end to end, or added to their destinations."""
    rows = tuple([_taken(piece) for piece in pieces])
    added = pieces[0].destination is not None
    if added:
        task = _added(rows, [piece.destination for piece in pieces], len(samples))
    elif len(rows) == 1 and rows[0].index is None:
        task = rows[0].array
    else:
        task = GatherTask(rows, fill_value=fill_value)
    gradients = {}
    for name in _parameters(piece.operand for piece in pieces):
        followers, new_samples = _follow(name, pieces, len(samples))
        if added:
            followers, new_samples = _merge(followers, new_samples)
        merged = _end_to_end(new_samples)
        if order is not None and len(followers) == 1:
            followers, merged = _reorder(followers[0], merged, order)
        gradients[name] = _plan_along(followers, merged, properties, 0, order)
    components = pieces[0].operand.components
    return TensorBlock._make(task, samples, components, properties, gradients)


def _plan_beside(
    pieces: Sequence[_Piece], samples: Labels, properties: Labels, fill_value: Any
) -> TensorBlock:
    """Rows side by side: each piece is some columns of the result."""
    rows = tuple([_placed(piece, len(samples)) for piece in pieces])
    gradients = {}
    for name in _parameters(piece.operand for piece in pieces):
        in_place = [
            piece
            if piece.destination is not None
            else piece._replace(destination=np.arange(piece.n_rows))
            for piece in pieces
        ]
        missing = [piece for piece in pieces if name not in piece.operand.gradients]
        if missing:
            raise NotEqualError(
                f"blocks side by side must all have gradients with respect to '{name}'"
            )
        followers, new_samples = _follow(name, in_place, len(samples))
        if _all_same(new_samples):
            followers = [piece._replace(destination=None) for piece in followers]
            new_samples = new_samples[:1]
        else:
            followers, new_samples = _merge(followers, new_samples)
        gradients[name] = _plan_beside(followers, new_samples[0], properties, 0)
    components = pieces[0].operand.components
    task = GatherTask(rows, axis=-1, fill_value=fill_value)
    return TensorBlock._make(task, samples, components, properties, gradients)


def _taken(piece: _Piece) -> Rows:
    """The rows of a piece, in the order of its source."""
    rows, source = piece.operand.rows, piece.source
    if source is None:
        return rows
    past_the_end = not isinstance(source, np.ndarray) or bool(
        np.any(source >= rows.n_rows)
    )
    return rows.take(source, fill=past_the_end)


def _placed(piece: _Piece, n_rows: int) -> Rows:
    """The rows of a piece, each at its destination among ``n_rows``."""
    if piece.destination is None:
        return _taken(piece)
    n = piece.operand.rows.n_rows
    index = np.full(n_rows, n)
    index[piece.destination] = np.arange(n) if piece.source is None else piece.source
    if _is_everything(index, n):
        return piece.operand.rows
    return piece.operand.rows.take(index, fill=bool(np.any(index >= n)))


def _added(rows: tuple[Rows, ...], destinations: Sequence[Index], n: int) -> Any:
    """Rows added to their destinations; taken from there if none is shared."""
    known = all(isinstance(index, np.ndarray) for index in destinations)
    if known and sum(map(len, destinations)) == n:
        position = np.concatenate(destinations)
        order = np.full(n, -1)
        if n == 0 or position.min() >= 0:
            order[position] = np.arange(n)
            if order.min(initial=0) >= 0:
                return GatherTask(rows, order=order)
    return ScatterTask(rows, tuple(destinations), n, _in_order(destinations))


def _in_order(destinations: Sequence[Index]) -> bool:
    """Is it known that the destinations do not decrease?"""
    last = -1
    for index in destinations:
        if not isinstance(index, np.ndarray):
            return False
        if len(index) == 0:
            continue
        if index[0] < last or bool(np.any(index[1:] < index[:-1])):
            return False
        last = index[-1]
    return True


def _follow(
    name: str, pieces: Sequence[_Piece], n_rows: int
) -> tuple[list[_Piece], list[Labels]]:
    """The gradient rows that belong to the rows of each piece, and their new labels."""
    offset = 0
    followers, new_samples = [], []
    for piece in pieces:
        gradient = piece.operand.gradients.get(name)
        if gradient is not None:
            source, samples = _follow_one(piece, gradient, offset, n_rows)
            followers.append(_Piece(gradient, source, None))
            new_samples.append(samples)
        offset += piece.n_rows
    return followers, new_samples


def _follow_one(
    piece: _Piece, gradient: _Operand, offset: int, n_rows: int
) -> tuple[Index | None, Labels]:
    source, destination = piece.source, piece.destination
    names = gradient.samples._names
    n_parents = piece.operand.rows.n_rows
    traced = destination is not None and not isinstance(destination, np.ndarray)
    if not gradient.samples.is_static or traced:
        if source is not None:
            raise TracedLabelsError("selecting rows with gradients", names)
        values = follow_traced(gradient.samples.values, n_parents, offset, destination)
        return None, Labels._make(names, values, static=False)
    if source is None and destination is None:
        rows, parents = None, gradient.parents + np.int32(offset)
    else:
        target = np.arange(offset, offset + piece.n_rows)
        if destination is not None:
            target = destination
        rows, parents = _find_followers(source, target, gradient.parents, n_parents)
        inside = (parents >= 0) & (parents < n_rows)
        if not bool(np.all(inside)):
            rows, parents = np.arange(len(inside)) if rows is None else rows, parents
            rows, parents = rows[inside], parents[inside]
    values = gradient.samples.values
    values = (values if rows is None else values[rows]).copy()
    values[:, 0] = parents
    return rows, Labels._make(names, values)


def _find_followers(
    source: np.ndarray | None, target: np.ndarray, parents: np.ndarray, n_parents: int
) -> tuple[np.ndarray | None, np.ndarray]:
    """Which gradient rows follow their parents, and the new row of each parent."""
    if source is None:
        return None, target[parents]
    inside = source < n_parents
    source, target = source[inside], target[inside]
    new_row = np.full(n_parents, -1)
    new_row[source] = target
    if np.count_nonzero(new_row >= 0) == len(source):
        moved = new_row[parents]
        rows = np.flatnonzero(moved >= 0)
        return (None if len(rows) == len(parents) else rows), moved[rows]
    i, rows = join_rows(source, parents)  # some rows are there several times
    return rows, target[i]


def _all_same(samples: Sequence[Labels]) -> bool:
    return all(labels == samples[0] for labels in samples[1:])


def _merge(
    pieces: Sequence[_Piece], samples: Sequence[Labels]
) -> tuple[list[_Piece], list[Labels]]:
    """Give rows with the same label the same destination."""
    names = samples[0]._names
    if all(labels.is_static for labels in samples):
        rows = np.concatenate([labels.values for labels in samples])
        first, destinations = unique_rows(rows)
        merged = Labels._make(names, rows[first])
    else:
        rows = jnp.concatenate([labels.values for labels in samples])
        values, destinations = merge_traced(rows)
        merged = Labels._make(names, values, static=False)
    ends = np.cumsum([len(labels) for labels in samples])
    pieces = [
        piece._replace(destination=destinations[end - len(labels) : end])
        for piece, labels, end in zip(pieces, samples, ends, strict=True)
    ]
    return pieces, [merged]


def _reorder(
    piece: _Piece, samples: Labels, order_of: OrderOfRows
) -> tuple[list[_Piece], Labels]:
    order = order_of(samples.values)
    source = order if piece.source is None else piece.source[order]
    ordered = Labels._make(samples._names, samples.values[order])
    return [piece._replace(source=source)], ordered


def _end_to_end(samples: Sequence[Labels]) -> Labels:
    if len(samples) == 1:
        return samples[0]
    names = samples[0]._names
    values = [labels.values for labels in samples]
    if all(labels.is_static for labels in samples):
        return Labels._make(names, np.concatenate(values))
    return Labels._make(names, jnp.concatenate(values), static=False)


# === cutting =======================================================================


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
    return [execute(plan) for plan in plan_cut(block, lengths)]


def plan_cut(block: TensorBlock, lengths: Sequence[int]) -> list[TensorBlock]:
    """The plan of :func:`cut_rows`: blocks whose leaves are tasks."""
    ends = np.cumsum(np.asarray(lengths, np.int64))
    return _plan_cut(
        _Operand.of(block), ends, block.samples.values, np.arange(len(block))
    )


def _plan_cut(
    x: _Operand, ends: np.ndarray, labels: np.ndarray, order: np.ndarray
) -> list[TensorBlock]:
    """Runs of the rows ``order``; ``labels`` are what they are called afterwards."""
    if not x.samples.is_static:
        raise TracedLabelsError("cutting a block into runs", x.samples._names)
    in_order = _is_everything(order, x.rows.n_rows)
    gradients = {
        name: _plan_cut_gradient(gradient, ends, order)
        for name, gradient in x.gradients.items()
    }
    plans = []
    stops = ends.tolist()
    for i, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        if in_order:
            task: Any = CutTask(x.rows.array, start, stop)
        else:
            task = GatherTask((x.rows.take(order[start:stop]),))
        samples = Labels._make(x.samples._names, labels[start:stop])
        own = {name: runs[i] for name, runs in gradients.items()}
        plans.append(TensorBlock._make(task, samples, x.components, x.properties, own))
    return plans


def _plan_cut_gradient(
    x: _Operand, ends: np.ndarray, order: np.ndarray
) -> list[TensorBlock]:
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    parents = position[x.parents]  # in the order in which the parents are cut
    by_parent = np.argsort(parents, kind="stable")
    parents = parents[by_parent]
    run = np.searchsorted(ends, parents, side="right")
    labels = x.samples.values[by_parent]
    labels[:, 0] = parents - np.concatenate([[0], ends])[run]
    return _plan_cut(x, np.searchsorted(parents, ends), labels, by_parent)
