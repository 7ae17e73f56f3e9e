"""Which systems each device gets: numbers alone, the same in each process."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from .._types.errors import MetatensorError

#: stands where a device has fewer systems than there is room for
NONE = -1


def deal(
    systems: Sequence[int] | np.ndarray,
    n_devices: int,
    room: int | None = None,
    *,
    rows: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Deal out the systems of one batch to devices.

    :param systems: positions of systems in a store, or any numbers from 0 on
    :param n_devices: how many devices there are
    :param room: how many systems a device has room for; as many as it takes if None
    :param rows: how many rows each of these systems has, such as
        ``store.counts()[systems]``. The largest are dealt first, each to the device
        with the fewest rows, so that smaller capacities suffice. If None, systems are
        dealt one by one in turn, and numbers of systems differ by at most 1.
    :returns: a row for each device, of ``room`` systems; -1 for none
    :raises MetatensorError: more systems than there is room for, negative numbers,
        ``rows`` that are not one for each system

    >>> deal([7, 3, 5, 4, 9], 2)
    array([[ 7,  5,  9],
           [ 3,  4, -1]], dtype=int32)
    >>> deal([7, 3, 5, 4, 9], 2, rows=[10, 2, 3, 4, 1])
    array([[ 7,  9, -1],
           [ 4,  5,  3]], dtype=int32)
    """
    systems = np.asarray(systems, np.int32)
    n = len(systems)
    _check_positive(n_devices=n_devices)
    room = max(-(-n // n_devices), 1) if room is None else room
    _check_positive(room=room)
    if n > n_devices * room:
        raise MetatensorError(
            f"{n} systems do not fit on {n_devices} devices with room for {room} each"
        )
    if n and systems.min() < 0:
        raise MetatensorError(
            f"`systems` must be positions, from 0 on; one is {systems.min()}"
        )
    if rows is None:
        return _in_turn(systems, n_devices, room)
    rows = np.asarray(rows)
    if rows.shape != (n,):
        raise MetatensorError(
            f"`rows` must be one number for each of the {n} systems, got the shape "
            f"{rows.shape}"
        )
    return _largest_first(systems, n_devices, room, rows)


def plan_epoch(
    n_systems: int,
    n_devices: int,
    systems: int,
    *,
    seed: int,
    epoch: int = 0,
    drop_last: bool = False,
) -> np.ndarray:
    """Which systems each device gets in each step of an epoch, in random order.

    The order follows from the seed and the epoch, whatever the version of NumPy. So all
    processes make the same plan, and none has to be told.

    :param n_systems: of the data set
    :param n_devices: of all processes
    :param systems: how many a device has room for, ``systems`` of the layout
    :param seed: at least 0
    :param epoch: at least 0; each has another order
    :param drop_last: leave out a last step with fewer systems, rather than deal them
        out as evenly as they go
    :returns: positions of systems, of shape (steps, devices, systems); -1 for none
    :raises MetatensorError: numbers that are too small, no step at all

    >>> plan_epoch(5, 2, 2, seed=0).shape
    (2, 2, 2)
    >>> (plan_epoch(5, 2, 2, seed=0)[-1] >= 0).sum(axis=1)  # one is left at the end
    array([1, 0])
    """
    _check_positive(n_systems=n_systems, n_devices=n_devices, systems=systems)
    if seed < 0 or epoch < 0:
        raise MetatensorError(
            f"`seed` and `epoch` must be at least 0, not {seed} and {epoch}"
        )
    # the generators of NumPy may change what they make of these bits; the bits stay
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(n_systems)
    order = np.argsort(bits, kind="stable")
    of_step = n_devices * systems
    if drop_last and n_systems < of_step:
        raise MetatensorError(
            f"a step has {of_step} systems, {systems} for each of {n_devices} devices, "
            f"and there are {n_systems}: without `drop_last`, this is one step"
        )
    n_steps = n_systems // of_step if drop_last else -(-n_systems // of_step)
    starts = range(0, n_steps * of_step, of_step)
    return np.stack(
        [deal(order[at : at + of_step], n_devices, systems) for at in starts]
    )


def _in_turn(systems: np.ndarray, n_devices: int, room: int) -> np.ndarray:
    table = np.full(n_devices * room, NONE, np.int32)
    table[: len(systems)] = systems
    return np.ascontiguousarray(table.reshape(room, n_devices).T)


def _largest_first(
    systems: np.ndarray, n_devices: int, room: int, rows: np.ndarray
) -> np.ndarray:
    """Each to the device with the fewest rows so far, if there is room.

    R. L. Graham, SIAM J. Appl. Math. 17, 416 (1969).
    """
    table = np.full((n_devices, room), NONE, np.int32)
    devices = [(0, 0, device) for device in range(n_devices)]  # rows, systems
    for i in np.argsort(-rows, kind="stable").tolist():
        n_rows, at, device = heapq.heappop(devices)
        table[device, at] = systems[i]
        if at + 1 < room:
            heapq.heappush(devices, (n_rows + int(rows[i]), at + 1, device))
    return table


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise MetatensorError(f"`{name}` must be at least 1, not {number}")
