"""How programs run: the one place where that is decided.

- Inside a program of the user (some array is a tracer), operations are traced, like any
  JAX code.
- Outside, on a host whose memory is JAX's as well, NumPy moves rows, and functions of
  rows run together: few programs for many blocks. Arrays that were only moved stay what
  they were, NumPy's or JAX's.
- Outside, on an accelerator, all operations are one compiled program, unless a function
  of the user is among them: that is never compiled, and runs step by step.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer, eval_context

from .._types.arrays import is_tracer, read_only
from .._types.conversion import check_fits, check_not_narrowed, is_extended
from .batch import Batch
from .caches import compiled
from .functions import Given, combine, partition
from .ops import MapRows, Op
from .program import Level, Program

Array = Any  # of NumPy or JAX


def run(
    program: Program, arrays: Sequence[Array], given: Sequence[Given] = ()
) -> list[Array]:
    """The results of a program.

    :param arrays: those that it is about
    :param given: functions of the caller, and their arguments, by the number of slots
    """
    args = [x for g in given for x in g.dynamic]
    data = [*arrays, *(x for x in args if isinstance(x, jax.Array))]
    is_traced = _any_of(Tracer, data)
    if is_traced or program.has_functions or _any_of(jax.Array, arrays):
        _check_wide(data)
        for x in args:
            check_fits(x)
    if is_traced:
        return _in_program(program, arrays, given)
    if not is_on_host(data):
        return _on_device(program, arrays, given)
    if all(g.is_fixed for g in given):
        with outside_of_programs():
            return _on_host(program, arrays, given)
    return _on_host(program, arrays, given)


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


def is_on_host(arrays: Sequence[Array]) -> bool:
    """Can NumPy read all of this without moving it?"""
    if jax.default_backend() != "cpu":
        return False
    if any(map(is_extended, {array.dtype for array in arrays})):
        return False  # NumPy has no random keys
    devices = jax.devices()
    if len(devices) == 1:
        return True
    if jax.config.jax_default_device is not None:  # type: ignore[attr-defined]
        return False  # where results belong is up to JAX
    default = {devices[0]}
    return all(isinstance(a, np.ndarray) or a.devices() == default for a in arrays)


def _any_of(kind: type, values: Iterable[Any]) -> bool:
    return any(issubclass(found, kind) for found in set(map(type, values)))


def _check_wide(arrays: Iterable[Array]) -> None:
    """Raise if JAX would narrow one of these."""
    for dtype in {array.dtype for array in arrays}:
        check_not_narrowed(dtype)


# --- the ways ------------------------------------------------------------------------


def _in_program(
    program: Program,
    arrays: Sequence[Array],
    given: Sequence[Given],
    is_compiled: bool = False,
) -> list[Array]:
    """As a part of the program that is being traced, or as a program.

    What only moves NumPy arrays is no part of it: that is NumPy's, and stays known.
    """
    values: list[Any] = [*arrays, *[None] * len(program.ops)]
    ops, steps = [], []
    for i, (op, reads) in enumerate(zip(program.ops, program.reads, strict=True)):
        at, inputs = program.n_data + i, [values[j] for j in reads]
        if op.by_numpy and all(isinstance(x, np.ndarray) for x in inputs):
            values[at] = read_only(_bound(op, given).read(*inputs))
        else:
            ops.append(_bound(op, given, is_compiled).in_program())
            steps.append((at, reads))
    wanted = tuple([n for n in program.results if values[n] is None])
    read = {n for _, reads in steps for n in reads}
    needed = tuple(sorted(n for n in read if values[n] is not None))
    known, wiring = [values[n] for n in needed], _Wiring(needed, tuple(steps), wanted)
    if is_compiled and wanted:
        results = _compiled_program(*partition(ops), known, wiring)
    else:
        results = _in_order(ops, known, wiring)
    for n, result in zip(wanted, results, strict=True):
        values[n] = result
    return [values[n] for n in program.results]


class _Wiring(NamedTuple):
    """Which arrays operations read and make, by their numbers in the program.

    :param needed: those that are there
    :param steps: of each operation, the number of its result and of what it reads
    :param wanted: the results
    """

    needed: tuple[int, ...]
    steps: tuple[tuple[int, tuple[int, ...]], ...]
    wanted: tuple[int, ...]


def _in_order(
    ops: Sequence[Op], arrays: Sequence[Array], wiring: _Wiring
) -> list[Array]:
    """The operations, one after the other."""
    values = dict(zip(wiring.needed, arrays, strict=True))
    for op, (at, reads) in zip(ops, wiring.steps, strict=True):
        values[at] = op.trace(*[values[i] for i in reads])
    return [values[i] for i in wiring.wanted]


def _bound(op: Op, given: Sequence[Given], as_given: bool = False) -> Op:
    return op.bind(given, as_given) if isinstance(op, MapRows) else op


def _on_device(
    program: Program, arrays: Sequence[Array], given: Sequence[Given]
) -> list[Array]:
    """One compiled program, if its functions can not change."""
    if all(g.is_fixed for g in given):
        with outside_of_programs():
            return _in_program(program, arrays, given, is_compiled=True)
    with jax.transfer_guard_host_to_device("allow"):
        return _in_program(program, arrays, given)


@functools.partial(compiled, static_argnums=(1, 3))
def _compiled_program(
    dynamic: list[Any], static: Any, arrays: list[Array], wiring: _Wiring
) -> list[Array]:
    return _in_order(combine(dynamic, static), arrays, wiring)


def _on_host(
    program: Program, arrays: Sequence[Array], given: Sequence[Given]
) -> list[Array]:
    """Moves by NumPy, and functions of rows together."""
    _keep_freed_memory()
    values: list[Any] = [*map(np.asarray, arrays), *[None] * len(program.ops)]
    # what nothing was done to but moves stays what it was
    stays = [own is x for own, x in zip(values, arrays, strict=False)]
    stays += [False] * len(program.ops)
    for level in program.levels:
        for i in level.moves:
            reads, at = program.reads[i], program.n_data + i
            op = _bound(program.ops[i], given)
            values[at] = op.read(*[values[j] for j in reads])
            stays[at] = all(map(stays.__getitem__, reads))
        for i, array in _functions_of(level, program, values, given):
            values[program.n_data + i] = array
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
    keys = [g.key() for g in given] if level.functions else []
    for i in level.functions:
        slot, signature = program.signatures[i]
        own = None if slot is None else keys[slot.index]
        rows = [(values[j].shape[1:], values[j].dtype) for j in program.reads[i]]
        together[signature, own, tuple(rows)].append(i)
    for members in together.values():
        inputs = [[values[j] for j in program.reads[i]] for i in members]
        key = (tuple(members), tuple([x.dtype for x in inputs[0]]))
        batch = program.batches.get(key)
        if batch is None:
            ops: Any = [program.ops[i] for i in members]
            batch = program.batches[key] = Batch(ops, inputs)
        slot, _ = program.signatures[members[0]]
        own = None if slot is None else given[slot.index]
        yield from zip(members, batch.run(own, inputs), strict=True)


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
        if number < program.n_data:
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
