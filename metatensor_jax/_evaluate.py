"""The door between maps and plans: where labels and arrays part, and meet again.

Every operation that makes rows of others goes through :func:`evaluate`. It splits maps
into their labels, which a planner reads, and their arrays, which the plan is run on.
(What compares maps, gives them other labels, or solves linear systems, does not move
rows, and does not come here.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._plan.plan import Plan, Planner, Spec, plan_for
from ._run.caches import forget
from ._run.functions import Given
from ._run.run import run
from ._types.arrays import native
from ._types.block import TensorBlock
from ._types.labels import Labels
from ._types.tensor import TensorMap

_ONE = Labels.single()
_ONE.digest  # noqa: B018 - once, rather than at each look into the cache


def evaluate(
    planner: Planner, *inputs: Any, given: Sequence[Given] = (), **options: Any
) -> Any:
    """The map that a planner plans, or the list of maps.

    :param planner: a function of a module; it takes drafts of the inputs, and options
    :param inputs: maps; or lists of arrays, which it takes as nodes
    :param given: functions of the caller, which no plan holds: only their slots
    :param options: all else that the plan depends on
    """
    arrays: list[Any] = []
    parts = []
    for x in inputs:
        if isinstance(x, TensorMap):
            structure, leaves = x._structure, x._leaves
        else:
            structure, leaves = None, list(map(native, x))
        arrays += leaves
        if structure is None or structure.is_static:
            specs = [Spec(leaf.shape, leaf.dtype) for leaf in leaves]
        else:
            specs = _with_shared(list(leaves))
        parts.append((structure, tuple(specs)))
    plan = plan_for(planner, tuple(parts), tuple(options.items()))
    return _filled(plan, run(plan.program, arrays, given))


def _with_shared(leaves: list[Any]) -> list[Spec]:
    """Specs that say which arrays are there twice: traced labels of several blocks."""
    first: dict[int, int] = {}
    specs = []
    for i, leaf in enumerate(leaves):
        at = first.setdefault(id(leaf), i)
        specs.append(Spec(leaf.shape, leaf.dtype, None if at == i else at))
    return specs


def as_map(block: TensorBlock) -> TensorMap:
    """A map with a single block."""
    return TensorMap._make(_ONE, [block])


def only_block(result: Any) -> Any:
    """The block of such a map, also of each in a list of them."""
    if isinstance(result, list):
        return [only_block(tensor) for tensor in result]
    return result.block_by_id(0)


def _filled(plan: Plan, arrays: list[Any]) -> Any:
    """The maps of a plan, with their arrays."""
    maps, start = [], 0
    for structure in plan.structures:
        stop = start + structure.offsets[-1]
        maps.append(TensorMap._unflatten(structure, arrays[start:stop]))
        start = stop
    return maps if plan.is_list else maps[0]


def clear_caches() -> None:
    """Forget all plans and compiled programs that this library keeps.

    At most 64 plans are kept, each for the labels of up to 200,000 rows: a few
    megabytes for the largest. Compiled programs are kept by JAX, for functions of
    libraries and for Equinox modules; a function of yours is never compiled, nor kept.
    ``jax.clear_caches()`` forgets programs as well, those of all libraries.

    >>> import metatensor_jax as mts
    >>> mts.clear_caches()
    """
    forget()
