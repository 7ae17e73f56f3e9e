"""Plans: what is to be done to the arrays of maps, and what the results are called.

A plan is made from labels, and from the shapes and dtypes of arrays, so it serves all
maps that have these. The plans made last are kept, in the one cache of plans: calls
often see the same labels again, frame by frame or epoch by epoch, and then planning
takes longer than doing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from .._run.caches import forget_with
from .._run.program import Node, Program
from .._types.structure import MapStructure
from .draft import DraftMap, draft_map


class Spec(NamedTuple):
    """All that a planner knows of an array.

    :param same_as: the number of the first array of this input that is the same object,
        if that is another one: traced labels that several blocks share
    """

    shape: tuple[int, ...]
    dtype: Any
    same_as: int | None = None


#: the static half of a map and its arrays, or arrays alone
Input = tuple[MapStructure | None, tuple[Spec, ...]]
Planner = Callable[..., DraftMap | list[DraftMap]]


class Plan(NamedTuple):
    """What is done to arrays, and the static halves of the maps that they become.

    :param is_list: the result is a list of maps, not one map
    """

    program: Program
    structures: tuple[MapStructure, ...]
    is_list: bool


def make_plan(
    planner: Planner, inputs: Sequence[Input], options: tuple[tuple[str, Any], ...]
) -> Plan:
    """Ask a planner.

    :param planner: takes drafts of maps, or nodes for arrays alone, and options by name
    """
    data: list[Node] = []
    drafts = []
    for structure, specs in inputs:
        nodes: list[Node] = []
        for shape, dtype, same_as in specs:
            nodes.append(Node(shape, dtype) if same_as is None else nodes[same_as])
        data += nodes
        drafts.append(nodes if structure is None else draft_map(structure, iter(nodes)))
    result = planner(*drafts, **dict(options))
    maps = result if isinstance(result, list) else [result]
    leaves = [node for draft in maps for node in draft.leaves()]
    structures = tuple([draft.structure() for draft in maps])
    return Plan(Program(data, leaves), structures, isinstance(result, list))


def plan_for(
    planner: Planner, inputs: tuple[Input, ...], options: tuple[tuple[str, Any], ...]
) -> Plan:
    """The plan that is kept for these inputs and options, or a new one."""
    # equal numbers of other types are other options: `True` is not 1
    kinds = tuple([type(value) for _, value in options])
    key = planner, inputs, options, kinds
    if not _is_worth_keeping(inputs) or not _is_key(key):
        return make_plan(planner, inputs, options)
    plan = _kept.get(key)
    if plan is None:
        plan = make_plan(planner, inputs, options)
        _kept.put(key, plan)
    return plan


def _is_key(value: Any) -> bool:
    """Not with options such as arrays of positions."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


#: rows of all arrays together: planning takes a time for each block, which matters
#: little for large ones; and the labels and row numbers of these take memory
_MANY_ROWS = 200_000
#: so many plans are kept, those that were used last
_N_PLANS = 64


def _is_worth_keeping(inputs: Sequence[Input]) -> bool:
    shapes = [spec.shape for _, specs in inputs for spec in specs]
    return sum([shape[0] for shape in shapes if shape]) <= _MANY_ROWS


class _Kept:
    """A cache of a bounded number of plans, for several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._plans: OrderedDict[Hashable, Plan] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Plan | None:
        """The plan that is kept under this key."""
        with self._lock:
            plan = self._plans.get(key)
            if plan is not None:
                self._plans.move_to_end(key)
            return plan

    def put(self, key: Hashable, plan: Plan) -> None:
        """Keep a plan, and forget the one that was not used for longest."""
        with self._lock:
            self._plans[key] = plan
            if len(self._plans) > self._size:
                self._plans.popitem(last=False)

    def clear(self) -> None:
        """Forget all plans."""
        with self._lock:
            self._plans.clear()

    def __len__(self) -> int:
        return len(self._plans)


_kept = _Kept(_N_PLANS)
forget_with(_kept.clear)
