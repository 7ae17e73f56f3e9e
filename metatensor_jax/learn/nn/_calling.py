"""How a module is called: what it sees of a row, and whether with a key and a state."""

from __future__ import annotations

import abc
import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._types.errors import MetatensorError

#: the axes of the rows of a block, for modules that reduce over them
AXES = ("samples", "components")


class RowModule(eqx.Module):
    """A module that sees a whole row: all components of one sample together.

    Inside of a :class:`ModuleMap`, other modules see the components one by one. This is
    the base for those that have to see them together, such as norms over components.
    ``__call__`` takes a row with shape ``(*components, properties)``, and gives one
    with the same components. It may take ``key=``.

    >>> import metatensor_jax as mts
    >>> from metatensor_jax.learn.nn import ModuleMap
    >>> class LengthTimes(RowModule):
    ...     def __call__(self, row):
    ...         return row * jnp.sqrt(jnp.sum(row**2, axis=0, keepdims=True))
    >>> block = mts.block_from_array(jnp.array([[[3.0], [4.0]]]))
    >>> tensor = mts.TensorMap(mts.Labels.single(), [block])
    >>> ModuleMap(tensor.keys, [LengthTimes()])(tensor).block().values.tolist()
    [[[15.0], [20.0]]]
    """

    @abc.abstractmethod
    def __call__(self, row: jax.Array) -> Any:
        """The row that becomes of this one."""


class Bound(RowModule):
    """A module together with its state: a function of a row, as others are.

    :param module: the module
    :param state: what it needs of an ``equinox.nn.State``; how it changes is forgotten
    """

    module: Any
    state: eqx.nn.State

    def __call__(self, row: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The row that becomes of this one."""
        return on_row(self.module, row, fresh(self.state), key)[0]


class Keyed(RowModule):
    """A module together with a random key: a function of a row, as others are."""

    module: Any
    key: jax.Array

    def __call__(self, row: jax.Array) -> jax.Array:
        """The row that becomes of this one."""
        return on_row(self.module, row, key=self.key)[0]


def on_row(
    module: Any,
    row: jax.Array,
    state: eqx.nn.State | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, eqx.nn.State | None]:
    """What a module makes of one sample, and of the state.

    All components have the same key, so that dropout takes a property away with all of
    its components, and commutes with rotations.

    :param row: shape ``(*components, properties)``
    """
    if isinstance(module, RowModule):
        return _call(module, row, state, key)

    def of_vector(vector: jax.Array) -> tuple[jax.Array, eqx.nn.State | None]:
        result, new_state = _call(module, vector, state, key)
        return jnp.atleast_1d(result), new_state

    if state is not None:
        return _of_named_components(of_vector, row)
    apply = lambda vector: of_vector(vector)[0]  # noqa: E731
    for _ in range(row.ndim - 1):
        apply = jax.vmap(apply)
    return apply(row), None


def _of_named_components(of_vector: Any, row: jax.Array) -> Any:
    """The same, with a name for the components: what changes a state is a mean of them.

    There always is one axis with this name, whatever components the row has.
    """
    name = AXES[1]
    if row.ndim == 1:
        once = jax.vmap(of_vector, None, None, axis_name=name, axis_size=1)
        return once(row)
    vectors = row.reshape(-1, row.shape[-1])
    result, state = jax.vmap(of_vector, 0, (0, None), axis_name=name)(vectors)
    return result.reshape(*row.shape[:-1], result.shape[-1]), state


def _call(
    module: Any, x: jax.Array, state: eqx.nn.State | None, key: jax.Array | None
) -> tuple[jax.Array, eqx.nn.State | None]:
    """Call a module with what it takes of all this."""
    options = {} if key is None or not takes_key(module) else {"key": key}
    if not is_stateful(module):
        return module(x, **options), state
    if state is None:
        raise MetatensorError(
            f"{type(module).__name__} has a state: make it with "
            "`model, state = equinox.nn.make_with_state(make)(...)`, and give it, "
            "`tensor, state = model(tensor, state)`"
        )
    return module(x, state, **options)


def fresh(state: eqx.nn.State) -> eqx.nn.State:
    """The same state, which can be used: Equinox voids the one that was."""
    return jax.tree.map(lambda x: x, state)


def takes_key(module: Any) -> bool:
    """Does a module take ``key=``, as those of Equinox do?

    >>> takes_key(eqx.nn.Dropout()), takes_key(jnp.tanh)
    (True, False)
    """
    try:
        parameters = inspect.signature(module).parameters
    except (TypeError, ValueError):  # functions that are not Python's
        return False
    found = parameters.get("key")
    return found is not None and found.kind is not inspect.Parameter.POSITIONAL_ONLY


def is_stateful(module: Any) -> bool:
    """Does a module need an ``equinox.nn.State``?

    >>> is_stateful(eqx.nn.BatchNorm(2, "samples", mode="batch"))
    True
    """
    ends = (eqx.nn.StateIndex, Bound)
    leaves = jax.tree.leaves(module, is_leaf=lambda x: isinstance(x, ends))
    return any(isinstance(leaf, eqx.nn.StateIndex) for leaf in leaves)


def row_keys(key: jax.Array, block: int, n_rows: int) -> jax.Array:
    """A random key for each row of a block: the same, whatever else there is.

    :param block: the position of its module
    """
    own = jax.random.fold_in(key, block)
    return jax.vmap(jax.random.fold_in, (None, 0))(own, jnp.arange(n_rows))


def typed_key(key: jax.Array) -> jax.Array:
    """A random key as an array of keys, also if it is one of the old kind.

    :raises MetatensorError: something that is not one key
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.shape != ():
        raise MetatensorError(
            f"`key` must be one random key, `jax.random.key(seed)`, got an array of "
            f"them with shape {key.shape}"
        )
    return key
