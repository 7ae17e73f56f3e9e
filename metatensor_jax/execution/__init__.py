"""The device half: tasks, which are math on rows, and how they run.

A plan (``rows``) is a block or map whose leaves are tasks. :func:`execute` replaces
each task by its array, in one of three ways:

- Inside a user's program (some leaf is a tracer) a task is traced, like any JAX code.
- Called eagerly on host data, row functions of many blocks run as few programs: rows
  that want the same function and have the same shape are laid end to end, filled up to
  a round number, and cut apart afterwards. So new labels of similar sizes compile
  nothing new. Moving rows is NumPy's, and gives NumPy arrays for NumPy arrays.
- Called eagerly on an accelerator, all tasks are one compiled program.

Eager calls that see the same labels again run by a plan that is kept (``_kept.py``).
NumPy moves large data on several threads (``_workers.py``).

Index arrays and scalars are arguments of these programs, never constants in them.
"""

from ._kept import (
    ArrayTypes as ArrayTypes,
    KeptFunctions as KeptFunctions,
    is_hashable as is_hashable,
    is_repeatable as is_repeatable,
    kept as kept,
    types_of as types_of,
    with_slots as with_slots,
)
from ._programs import (
    combine as combine,
    partition as partition,
    round_up as round_up,
)
from ._run import (
    execute as execute,
    holds_tracer as holds_tracer,
    is_on_host as is_on_host,
    staying_on_host as staying_on_host,
)
from ._tasks import (
    CutTask as CutTask,
    GatherTask as GatherTask,
    Index as Index,
    MapTask as MapTask,
    PlaceTask as PlaceTask,
    Rows as Rows,
    ScatterTask as ScatterTask,
)
from ._traced import (
    find_traced as find_traced,
    follow_traced as follow_traced,
    merge_traced as merge_traced,
    real_rows as real_rows,
)
