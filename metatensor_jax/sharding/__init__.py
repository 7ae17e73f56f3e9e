"""Several devices: one padded batch for each of them, or one system over all of them.

- :func:`data_mesh`: all devices, along one axis.
- :func:`shard`: one batch for each device, as one pytree; :func:`unshard`, and back.
- :func:`deal`, :func:`plan_epoch`: which systems each device gets, the same in each
  process; :func:`shard_batch` makes the batches of the own devices from a store.
- :func:`shard_samples`: one map over all devices, for what does not fit on one.

A step that is written for one batch runs on all devices by ``jax.vmap`` inside of
``jax.jit``: the first axis of its batches is the devices, so each works on its own, and
what is added up over the devices is all that travels. A mean is over the systems of all
devices, of which some can have fewer: add up sums and counts, and divide once.
"""

from ._batches import shard as shard, shard_batch as shard_batch, unshard as unshard
from ._mesh import data_mesh as data_mesh, positions as positions
from ._plan import deal as deal, plan_epoch as plan_epoch
from ._samples import shard_samples as shard_samples

__all__ = [
    "data_mesh",
    "deal",
    "plan_epoch",
    "positions",
    "shard",
    "shard_batch",
    "shard_samples",
    "unshard",
]
