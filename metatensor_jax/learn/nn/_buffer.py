"""Buffer: arrays of a model that are not trained."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import equinox as eqx
import jax

_Data = TypeVar("_Data")


class Buffer(eqx.Module, Generic[_Data]):
    r"""Holds arrays (or maps) of a model that are not trained.

    ``buffer.data`` is what it holds, behind ``jax.lax.stop_gradient``: derivatives by
    it are zero. An optimizer could still change it by weight decay, and so
    :func:`trainable` leaves it out:

    .. code-block:: python

        params, rest = eqx.partition(model, trainable(model))
        opt_state = optimizer.init(params)

    :param value: an array, a map, or any pytree of them

    >>> import jax.numpy as jnp
    >>> class Scaled(eqx.Module):
    ...     weight: jax.Array
    ...     unit: Buffer
    ...
    ...     def __call__(self, x):
    ...         return self.weight * self.unit.data * x
    >>> model = Scaled(jnp.array(2.0), Buffer(jnp.array(3.0)))
    >>> gradient = eqx.filter_grad(lambda model: model(1.0))(model)
    >>> float(gradient.weight), float(gradient.unit.data)
    (3.0, 0.0)
    """

    value: _Data

    @property
    def data(self) -> _Data:
        """What it holds; derivatives by it are zero."""
        return jax.tree.map(_stopped, self.value)


def trainable(model: Any) -> Any:
    """Which leaves of a model are trained: floating point arrays outside of buffers.

    This is a filter for ``equinox.partition`` and ``equinox.filter``, and a ``mask``
    for optimizers of Optax.

    :param model: any pytree
    :returns: the same pytree, of booleans

    >>> import jax.numpy as jnp
    >>> trainable({"w": jnp.ones(2), "n": 3, "b": Buffer(jnp.ones(2))})
    {'b': Buffer(value=False), 'n': False, 'w': True}
    """
    return jax.tree.map(_is_trained, model, is_leaf=_is_buffer)


def _is_trained(x: Any) -> Any:
    if _is_buffer(x):
        return jax.tree.map(lambda _: False, x)
    return eqx.is_inexact_array(x)


def _is_buffer(x: Any) -> bool:
    return isinstance(x, Buffer)


def _stopped(x: Any) -> Any:
    return jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x
