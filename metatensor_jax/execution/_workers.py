"""Tasks read by NumPy, on several threads where there is much to move.

NumPy lets other threads run while it copies.
"""

from __future__ import annotations

import contextvars
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import jax
import numpy as np

from .._types.arrays import is_jax
from ._tasks import Task


def read_all(tasks: Sequence[Task]) -> list[np.ndarray]:
    """The result of each task, by NumPy."""
    sizes = [task.n_bytes for task in tasks]
    large = [i for i, size in enumerate(sizes) if size >= _LARGE]
    n_threads = min(_N_THREADS, len(large))
    if n_threads < 2 or sum(sizes[i] for i in large) < _MUCH:
        return [task.read() for task in tasks]
    results: dict[int, np.ndarray] = {}

    def read(some: Sequence[int]) -> None:
        for i in some:
            results[i] = tasks[i].read()

    # no thread waits for data, which may need another move: of a callback, say
    jax.block_until_ready([a for t in tasks for a in t.arrays() if is_jax(a)])
    # the largest ones are dealt out first, so that all threads get about as much
    large.sort(key=lambda i: -sizes[i])
    hands = [large[first::n_threads] for first in range(n_threads)]
    try:  # each with a copy of the context: `numpy.errstate` is a part of it
        jobs = [_pool().submit(contextvars.copy_context().run, read, x) for x in hands]
    except RuntimeError:  # no more threads, as the interpreter shuts down
        return [task.read() for task in tasks]
    try:
        read(sorted({*range(len(tasks))} - {*large}))
        for job in jobs:
            job.result()
    finally:  # nothing goes on after an error
        for job in jobs:
            job.cancel()
        wait(jobs)
    return [results[i] for i in range(len(tasks))]


#: bytes of a task for another thread, and of all of these: it takes as long to hand a
#: task over as to move some 100 kB, and many small ones wait for the interpreter's lock
_LARGE, _MUCH = 1 << 16, 1 << 22


def _n_cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_N_THREADS = min(_n_cores(), 8)  # more would wait for the memory


@functools.cache
def _pool() -> ThreadPoolExecutor:
    # The C library of Linux returns what is freed to the system, page by page, beyond
    # twice the largest array that was freed before, which was at most this large. So it
    # keeps some more from now on. (Nothing is written, so this takes no memory.)
    np.empty(31 << 20, np.uint8)
    return ThreadPoolExecutor(_N_THREADS, "metatensor_jax")


if hasattr(os, "register_at_fork"):  # a forked process has the pool, but no threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
