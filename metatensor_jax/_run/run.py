"""How programs run: the one place where that is decided.

- Inside a program of the user (some array is a tracer), operations are traced, like any
  JAX code.
- Outside, on a host whose memory is JAX's as well, NumPy moves rows, and functions of
  rows run together: few programs for many blocks. Arrays that were only moved stay what
  they were, NumPy's or JAX's.
- Outside, on an accelerator, all operations are one compiled program.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.core import eval_context

from .._types.arrays import is_tracer, read_only
from .._types.conversion import check_not_narrowed, is_extended
from .batch import Batch, _compiled
from .functions import (
    combine,
    forget,
    identity,
    is_fixed,
    is_fixed_static,
    partition,
    plain,
)
from .ops import Given, Map, Op, Slot
from .program import Level, Program

Array = Any  # of NumPy or JAX


def run(
    program: Program, arrays: Sequence[Array], given: Sequence[Given] = ()
) -> list[Array]:
    """The results of a program.

    :param arrays: those that it is about
    :param given: functions of the caller, and their arguments, by the number of slots
    """
    args = jax.tree.leaves([g.args for g in given])
    if _any_tracer(arrays) or _any_tracer(args):
        check_wide([*arrays, *_floats(args)])
        return _trace(program, arrays, given)
    is_math = any(not op.moves for op in program.ops)
    if is_math or not all(map(_is_numpy, arrays)):
        check_wide([*arrays, *_floats(args)])
    if not is_on_host([*arrays, *(x for x in args if isinstance(x, jax.Array))]):
        return _on_device(program, arrays, given)
    if all(map(_is_fixed, given)):
        with outside_of_programs():
            return _on_host(program, arrays, given)
    return _on_host(program, arrays, given)


def clear_caches() -> None:
    """Forget all compiled programs of this library."""
    forget()
    for compiled in (_compiled, _compiled_program):
        compiled.clear_cache()  # type: ignore[attr-defined]


@contextmanager
def outside_of_programs() -> Iterator[None]:
    """For math on data that is known, also while a program around it is traced.

    It stays known. And `jax.transfer_guard` does not hold here: it is for transfers
    that the user does not know of, while moves and row functions take their indices
    from the host, whoever calls them.
    """
    with eval_context(), jax.transfer_guard_host_to_device("allow"):
        yield


# --- which way -----------------------------------------------------------------------


def is_on_host(arrays: Iterable[Array]) -> bool:
    """Can NumPy read all of this without moving it?"""
    if jax.default_backend() != "cpu":
        return False
    arrays = list(arrays)
    if any(is_extended(a.dtype) for a in arrays):
        return False  # NumPy has no random keys
    devices = jax.devices()
    if len(devices) == 1:
        return True
    if jax.config.jax_default_device is not None:  # type: ignore[attr-defined]
        return False  # where results belong is up to JAX
    default = {devices[0]}
    return all(isinstance(a, np.ndarray) or a.devices() == default for a in arrays)


def check_wide(arrays: Iterable[Array]) -> None:
    """Raise if JAX would narrow one of these."""
    for dtype in {array.dtype for array in arrays}:
        check_not_narrowed(dtype)


def _is_numpy(array: Array) -> bool:
    return isinstance(array, np.ndarray)


def _any_tracer(arrays: Iterable[Any]) -> bool:
    return any(is_tracer(x) for x in arrays)


def _floats(leaves: Iterable[Any]) -> list[np.ndarray]:
    """Arrays that can not be narrowed, other than those of indices."""
    arrays = (x for x in leaves if isinstance(x, np.ndarray) and x.ndim)
    return [x for x in arrays if x.dtype.kind in "fc"]


def _is_fixed(given: Given) -> bool:
    functions = [given.function, given.linear_part or given.function]
    return all(map(is_fixed, functions)) and is_fixed_static(partition(given.args)[1])


# --- the ways ------------------------------------------------------------------------


def _trace(
    program: Program, arrays: Sequence[Array], given: Sequence[Given]
) -> list[Array]:
    """Step by step, as a part of the program that is being traced.

    What only moves NumPy arrays is no part of it: they stay known.
    """
    given = [Given(g.function, plain(g.args), g.linear_part) for g in given]
    values = list(arrays)
    for op, reads in zip(program.ops, program.reads, strict=True):
        inputs = [values[i] for i in reads]
        op = _bound(op, given)
        if op.moves and all(map(_is_numpy, inputs)):
            values.append(read_only(op.read(*inputs)))
        else:
            values.append(op.trace(*inputs))
    return [values[i] for i in program.results]


def _on_device(
    program: Program, arrays: Sequence[Array], given: Sequence[Given]
) -> list[Array]:
    """One compiled program, if its functions can not change.

    What only moves NumPy arrays is no part of it: that is NumPy's.
    """
    if not all(map(_is_fixed, given)):
        with jax.transfer_guard_host_to_device("allow"):
            return _trace(program, arrays, given)
    values: list[Any] = [*arrays, *[None] * len(program.ops)]
    ops, steps, used = [], [], set()
    for i, (op, reads) in enumerate(zip(program.ops, program.reads, strict=True)):
        at, inputs = program.n_given + i, [values[j] for j in reads]
        if op.moves and all(map(_is_numpy, inputs)):
            values[at] = read_only(_bound(op, given).read(*inputs))
        else:
            ops.append(_bound(op, given).in_program())
            steps.append((at, reads))
            used.update(reads)
    wanted = tuple([n for n in program.results if values[n] is None])
    if not wanted:
        return [values[n] for n in program.results]
    needed = tuple(sorted(n for n in used if values[n] is not None))
    with outside_of_programs():
        results = _compiled_program(
            *partition(ops), [values[n] for n in needed], (needed, tuple(steps), wanted)
        )
    for n, result in zip(wanted, results, strict=True):
        values[n] = result
    return [values[n] for n in program.results]


def _bound(op: Op, given: Sequence[Given]) -> Op:
    return op.bind(given) if isinstance(op, Map) else op


@functools.partial(jax.jit, static_argnums=(1, 3))
def _compiled_program(
    dynamic: list[Any], static: Any, arrays: list[Array], order: Any
) -> list[Array]:
    """The operations, in this order.

    :param order: the numbers of the arrays, those of the result of each operation and
        of what it reads, and those of the results
    """
    ops: list[Op] = combine(dynamic, static)
    needed, steps, wanted = order
    values = dict(zip(needed, arrays, strict=True))
    for op, (at, reads) in zip(ops, steps, strict=True):
        values[at] = op.trace(*[values[i] for i in reads])
    return [values[i] for i in wanted]


def _on_host(
    program: Program, arrays: Sequence[Array], given: Sequence[Given]
) -> list[Array]:
    """Moves by NumPy, and functions of rows together."""
    _keep_freed_memory()
    values = [x if isinstance(x, np.ndarray) else np.asarray(x) for x in arrays]
    values += [None] * len(program.ops)  # type: ignore[list-item]
    # what nothing was done to but moves stays what it was
    stays = [*map(_is_numpy, arrays), *[False] * len(program.ops)]
    for level in program.levels:
        for i in level.moves:
            reads, at = program.reads[i], program.n_given + i
            op = _bound(program.ops[i], given)
            values[at] = op.read(*[values[j] for j in reads])
            stays[at] = all(stays[j] for j in reads)
        for i, array in _functions_of(level, program, values, given):
            values[program.n_given + i] = array
    return _as_they_were(program, arrays, values, stays)


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep memory that is freed, rather than give it back.

    That of Linux returns it to the system, to fetch it again page by page, beyond twice
    the largest array that was freed before, which was at most this large. Nothing is
    written, so this takes no memory. Measured: ``keys_to_samples`` of 80 blocks with
    gradients takes 7.9 ms rather than 18, ``keys_to_properties`` 8.5 rather than 14.
    """
    np.empty(31 << 20, np.uint8)


def _functions_of(
    level: Level, program: Program, values: Sequence[Any], given: Sequence[Given]
) -> Iterator[tuple[int, Any]]:
    """The functions of rows of one level, and their results."""
    together: defaultdict[Any, list[int]] = defaultdict(list)
    keys = [_key_of(g) for g in given]
    for i in level.functions:
        op, slot = program.ops[i], program.slots[i]
        rows = tuple([(values[j].shape[1:], values[j].dtype) for j in program.reads[i]])
        own = None if slot is None else keys[slot.index]
        together[_signature(op, slot), own, rows].append(i)
    for members in together.values():
        inputs = [[values[j] for j in program.reads[i]] for i in members]
        key = (tuple(members), tuple([x.dtype for x in inputs[0]]))
        batch = program.batches.get(key)
        if batch is None:
            ops: Any = [program.ops[i] for i in members]
            batch = program.batches[key] = Batch(ops, inputs)
        op: Any = _bound(program.ops[members[0]], given)
        yield from zip(members, batch.run(op, inputs), strict=True)


def _signature(op: Any, slot: Slot | None) -> Any:
    """Functions with equal ones, of equal rows, can run as one."""
    args = identity(partition(op.args)[0]) if op.args else ()
    # the function of a slot is a part of the key of what the caller gives
    function = op.function if slot is None else _shape_of(op.function)
    return function, args, op.row_shape


def _shape_of(function: Any) -> Any:
    """A derivative of a slot, without the number of the slot."""
    if isinstance(function, Slot):
        return function.is_linear_part
    return type(function), function.active, function.n_extra, _shape_of(function.of)


def _key_of(given: Given) -> Any:
    """Equal where the caller gives the same."""
    dynamic, static = partition(given.args)
    functions = given.function, given.linear_part
    try:
        hash((functions, static))
    except TypeError:  # something that is no key: told apart by itself
        return id(given)
    return functions, static, identity(dynamic)


def _as_they_were(
    program: Program,
    arrays: Sequence[Array],
    values: Sequence[Any],
    stays: Sequence[bool],
) -> list[Array]:
    """The results: NumPy's where nothing but moves was done to NumPy's."""
    results: list[Array] = [None] * len(program.results)
    moving: list[int] = []
    for at, number in enumerate(program.results):
        if number < program.n_given:
            results[at] = arrays[number]
        elif is_tracer(values[number]):
            results[at] = values[number]
        elif stays[number]:
            results[at] = read_only(values[number])
        else:
            moving.append(at)
    put = jax.device_put([values[program.results[at]] for at in moving])
    for at, array in zip(moving, put, strict=True):
        results[at] = array
    return results
