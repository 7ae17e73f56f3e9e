"""Large moves on several threads: the same results, errors and settings as on one."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, assert_same, tensor
from programs import output_of

import metatensor_jax as mts
from metatensor_jax.execution import GatherTask, Rows, _workers
from metatensor_jax.execution._workers import read_all
from metatensor_jax.operations import map_rows

LARGE = (40_000, 3, 60_000, 1_000, 80_000)  # rows of 32 bytes; some tasks are small


@pytest.fixture
def threads(monkeypatch):
    """Two threads, whatever the machine has."""
    monkeypatch.setattr(_workers, "_N_THREADS", 2)


def _tasks(sizes=LARGE) -> list[GatherTask]:
    rng = np.random.default_rng(0)
    arrays = [rng.random((n, 4)) for n in sizes]
    return [GatherTask((Rows(a, rng.permutation(len(a))),)) for a in arrays]


def test_results_are_in_order(threads):
    tasks = _tasks()
    assert sum(task.n_bytes for task in tasks) > _workers._MUCH > 0
    for result, task in zip(read_all(tasks), tasks, strict=True):
        np.testing.assert_array_equal(result, task.read())
        (rows,) = task.pieces
        np.testing.assert_array_equal(result, rows.array[rows.index])


def test_little_is_read_at_once(threads, monkeypatch):
    monkeypatch.delattr(_workers, "_pool")
    assert len(read_all(_tasks((3, 1_000)))) == 2
    assert read_all([]) == []
    many_small = _tasks([500] * 500)
    assert sum(task.n_bytes for task in many_small) > _workers._MUCH
    assert len(read_all(many_small)) == 500
    monkeypatch.setattr(_workers, "_N_THREADS", 1)
    assert len(read_all(_tasks())) == 5


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_moves_of_keys(threads, arrays, monkeypatch):
    gradients = {"t": Gradient((3,), range(4_000))}
    keys = mts.Labels(["a", "b"], [[0, 0], [0, 1], [1, 0], [1, 1]])
    x = tensor([9_000] * 4, (3,), 4, gradients, keys=keys).to(arrays=arrays)
    moves = [lambda: x.keys_to_samples("b"), lambda: x.keys_to_properties("b")]
    moved = [move() for move in moves]
    monkeypatch.setattr(_workers, "_MUCH", 1 << 40)
    for move, result in zip(moves, moved, strict=True):
        for one, other in zip(move(), result, strict=True):
            assert_same(one, other)


class _Fails:
    """A large task that can not be done."""

    n_bytes = 1 << 30

    def arrays(self) -> list:
        return []

    def read(self) -> np.ndarray:
        raise OSError("no more memory")


def test_errors_come_from_the_call(threads):
    tasks = _tasks()
    with pytest.raises(OSError, match="no more memory"):
        read_all([*tasks, _Fails()])  # type: ignore[list-item]
    assert len(read_all(tasks)) == len(tasks)


class _Slow:
    """A large task that takes a while."""

    n_bytes = 1 << 29
    n_running = 0

    def arrays(self) -> list:
        return []

    def read(self) -> np.ndarray:
        _Slow.n_running += 1
        time.sleep(0.2)
        _Slow.n_running -= 1
        return np.zeros(0)


def test_nothing_goes_on_after_an_error(threads):
    with pytest.raises(OSError, match="no more memory"):
        read_all([_Fails(), _Slow(), _Slow(), _Slow()])  # type: ignore[list-item]
    assert _Slow.n_running == 0


def test_functions_are_not_called_in_other_threads(threads):
    """JAX's settings belong to a thread: results had another dtype there."""
    x = mts.block_from_array(np.full((200_000, 4), 1 / 3))
    x = mts.TensorMap(mts.Labels.range("key", 2), [x, x])
    seen = []

    def turn(row):
        seen.append(threading.current_thread())
        return row[..., ::-1]

    map_rows(turn, x, rearranges=True)
    assert set(seen) == {threading.current_thread()}


class _Pending:
    """Data that is still computed."""

    is_ready = False
    shape, dtype = (200_000, 4), np.dtype(np.float64)

    def __len__(self) -> int:
        return 200_000

    def __array_namespace__(self):
        return jnp

    def block_until_ready(self) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.is_ready = True

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        assert self.is_ready
        return np.ones(self.shape)


def test_threads_do_not_wait_for_data(threads):
    """A callback that moves rows waited for threads that waited for the callback."""
    index = np.arange(200_000)[::-1]
    tasks = [GatherTask((Rows(_Pending(), index),)) for _ in range(2)]
    for result in read_all(tasks):
        assert result.all()


def test_settings_of_numpy_hold(threads):
    x = mts.block_from_array(np.full((100_000, 8), 3e38, np.float32))
    x = mts.TensorMap(mts.Labels.range("key", 2), [x, x])
    with np.errstate(over="ignore"):
        assert np.isinf(mts.sum_over_samples(x, "sample")[0].values).all()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        mts.sum_over_samples(x, "sample")


def test_several_callers_at_once(threads):
    tasks = _tasks()
    expected = [task.read() for task in tasks]
    with ThreadPoolExecutor(8) as callers:
        for results in callers.map(lambda _: read_all(tasks), range(40)):
            for result, one in zip(results, expected, strict=True):
                np.testing.assert_array_equal(result, one)


_TOTAL = """
import atexit, os
import numpy as np
import metatensor_jax as mts
from metatensor_jax.execution import _workers
_workers._N_THREADS = 2
x = mts.block_from_array(np.random.default_rng(0).random((200_000, 4)))
x = mts.TensorMap(mts.Labels.range("key", 2), [x, x])
def total():
    moved = mts.slice(x, "samples", np.arange(150_000)[::-1])
    return sum(block.values.sum() for block in moved)
before = total()
assert _workers._pool.cache_info().currsize == 1
"""
_FORKS = """
child = os.fork()
if child == 0:
    os._exit(int(total() != before))
assert os.waitpid(child, 0)[1] == 0
assert total() == before
"""
_ENDS = "atexit.register(lambda: print(total() == before))"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_forked_processes_have_threads_of_their_own():
    output_of(_TOTAL + _FORKS)


def test_the_end_of_the_process_needs_no_threads():
    assert output_of(_TOTAL + _ENDS).split() == ["True"]
