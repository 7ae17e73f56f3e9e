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

from ._cut import cut_rows as cut_rows
from ._equations import equations as equations, filled_up as filled_up
from ._map import map_rows as map_rows, match_blocks as match_blocks
from ._move import Move as Move, move_rows as move_rows, plan_move as plan_move
from ._operands import end_to_end as end_to_end, join_rows as join_rows
from ._take import take_properties as take_properties, take_samples as take_samples
