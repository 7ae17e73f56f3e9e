"""The familiar training loop, with nothing hidden."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax

from .._types.errors import MetatensorError
from ._checkpoints import Checkpoints
from .nn import trainable

Loss = Callable[[Any, Any], jax.Array]


class Epoch(NamedTuple):
    """What is known after one epoch.

    :param loss: the mean over its batches, each with the weights before its step
    :param validation: the mean loss of the validation batches, if there are any
    :param rate: the learning rate, if the optimizer says it
        (``optax.inject_hyperparams``)
    :param seconds: how long it took, compilation included
    """

    loss: float
    validation: float | None
    rate: float | None
    seconds: float


class Fitted(NamedTuple):
    """The result of :func:`fit`.

    :param model: the one with the smallest validation loss, the last one without
        validation
    :param last: the model after the last step, and the state of the optimizer with it
    :param history: one :class:`Epoch` for each
    """

    model: Any
    last: Any
    state: Any
    history: list[Epoch]

    def plot(self, ax: Any = None) -> Any:
        """The losses by epoch, on axes of matplotlib; new ones if None.

        Needs matplotlib.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        ax.semilogy([epoch.loss for epoch in self.history], label="training")
        if self.history and self.history[0].validation is not None:
            values: Any = [epoch.validation for epoch in self.history]
            ax.semilogy(values, label="validation")
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.legend()
        return ax


def fit(
    model: Any,
    batches: Iterable[Any] | Callable[[int], Iterable[Any]],
    loss: Loss,
    optimizer: optax.GradientTransformation | optax.MultiSteps,
    *,
    epochs: int,
    validation: Iterable[Any] = (),
    patience: int | None = None,
    state: Any = None,
    checkpoints: Checkpoints | None = None,
    progress: bool = True,
) -> Fitted:
    """Train a model: the loop that one writes by hand, and a little around it.

    Without validation, it stands for ::

        params, static = eqx.partition(model, learn.trainable(model))
        state = optimizer.init(params)


        @jax.jit
        def step(params, state, batch):
            value, grads = jax.value_and_grad(
                lambda params: loss(eqx.combine(params, static), batch)
            )(params)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, value


        for epoch in range(epochs):
            for batch in batches:
                params, state, value = step(params, state, batch)

    Batches of one structure (:meth:`Layout.pad` makes them) share one program.

    :param model: an Equinox module; it stays as it is. What :func:`trainable` leaves
        out is not trained.
    :param batches: what an epoch goes through: a list, a loader, or a function of the
        number of the epoch, for another order in each
    :param loss: of the model and a batch; a number
    :param optimizer: of Optax. One that looks at the loss (``optax.lbfgs``, which tries
        several steps on the same batch, ``optax.contrib.reduce_on_plateau``) is given
        it: ``update`` gets ``value=``, ``grad=`` and ``value_fn=`` as well.
    :param epochs: how many times all batches are seen, at most
    :param validation: batches whose mean loss is computed after each epoch
    :param patience: stop after so many epochs without a smaller validation loss
    :param state: of the optimizer, to go on from: ``Fitted.state``
    :param checkpoints: where to save after each epoch, with the validation loss as
        metric, and what to go on from if something is there already. Then the result
        is the same, bit for bit, as without the interruption, if the batches of an
        epoch follow from its number.
    :param progress: show a bar with the losses
    :raises MetatensorError: an epoch without a batch, ``patience`` without validation,
        or checkpoints of another model
    :raises FloatingPointError: a loss that is not finite

    >>> import jax.numpy as jnp
    >>> def loss(model, batch):
    ...     x, y = batch
    ...     return jnp.mean((jax.vmap(model)(x) - y) ** 2)
    >>> x = jnp.linspace(-1, 1, 8).reshape(-1, 1)
    >>> linear = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    >>> fitted = fit(
    ...     linear, [(x, 3 * x)], loss, optax.sgd(0.5), epochs=200, progress=False
    ... )
    >>> round(float(fitted.model.weight[0, 0]), 1), len(fitted.history)
    (3.0, 200)
    """
    validation = list(validation)
    if patience is not None and len(validation) == 0:
        raise MetatensorError(
            "`patience` counts epochs without a smaller validation loss: give "
            "`validation` batches"
        )
    if state is None:
        state = optimizer.init(eqx.filter(model, trainable(model)))
    reached = _Reached(model, state, best=model, history=[])
    if checkpoints is not None:
        reached = _resumed(checkpoints, reached)
    model, state, best, history = reached
    params, static = eqx.partition(model, trainable(model))
    update = _update_of(optimizer)

    @eqx.filter_jit
    def value_of(params: Any, batch: Any) -> jax.Array:
        return _checked(loss(eqx.combine(params, static), batch))

    @eqx.filter_jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = eqx.filter_value_and_grad(value_of)(params, batch)
        seen = {"value": value, "grad": grads, "value_fn": lambda x: value_of(x, batch)}
        updates, state = update(grads, state, params, **seen)
        return eqx.apply_updates(params, updates), state, value

    bar = _bar(len(history), epochs, progress)
    for number in range(len(history), epochs):
        if patience is not None and _waited(history) >= patience:
            break
        start, values = time.perf_counter(), []
        for batch in batches(number) if callable(batches) else batches:
            params, state, value = step(params, state, batch)
            values.append(value)
        training = _mean(values, f"epoch {number}")
        checked = None
        if len(validation):
            checks = [value_of(params, batch) for batch in validation]
            checked = _mean(checks, f"the validation after epoch {number}")
        seconds = time.perf_counter() - start
        history.append(Epoch(training, checked, _rate(state), seconds))
        bar.show(history[-1])
        model = eqx.combine(params, static)
        best = model if _waited(history) == 0 else best
        if checkpoints is not None:
            reached = _Reached(model, state, best, history)
            checkpoints.save(number + 1, reached.tree(), checked)
    bar.close()
    return Fitted(best, model, state, history)


def _waited(history: Sequence[Epoch]) -> int:
    """How many epochs have passed since the best one; 0 without validation."""
    values = [epoch.validation for epoch in history if epoch.validation is not None]
    return len(values) - 1 - int(np.argmin(values)) if values else 0


class _Reached(NamedTuple):
    """All that the loop goes on from after an epoch."""

    model: Any
    state: Any
    best: Any
    history: list[Epoch]

    def tree(self) -> dict[str, Any]:
        """As it is saved: the history, which becomes longer, as text."""
        return {**self._asdict(), "history": json.dumps(self.history)}


def _resumed(checkpoints: Checkpoints, begin: _Reached) -> _Reached:
    """The last checkpoint; ``begin`` if there is none."""
    found = checkpoints.latest(begin.tree())
    if found is None:
        return begin
    history = [Epoch(*values) for values in json.loads(found.tree["history"])]
    return _Reached(**{**found.tree, "history": history})


def _update_of(
    optimizer: optax.GradientTransformation | optax.MultiSteps,
) -> Callable[..., tuple[Any, Any]]:
    """Its ``update``, which may be given what only some optimizers look at."""
    if isinstance(optimizer, optax.MultiSteps):  # hands it on to the one that it holds
        return optimizer.update
    return optax.with_extra_args_support(optimizer).update


def _checked(value: Any) -> jax.Array:
    """The loss, which must be one number."""
    shape = getattr(value, "shape", None)
    if shape != ():
        found = type(value).__name__ if shape is None else f"an array of shape {shape}"
        raise MetatensorError(f"the loss must be one number, but it is {found}")
    return value


def _mean(values: Sequence[jax.Array], what: str) -> float:
    if len(values) == 0:
        raise MetatensorError(
            f"there was no batch in {what}: an iterator is empty after its first "
            "epoch, give a list or a function of the epoch"
        )
    mean = float(np.mean(jax.device_get(values)))
    if not np.isfinite(mean):
        raise FloatingPointError(
            f"the loss of {what} is {mean}: try a smaller learning rate, or look for "
            "the operation with `jax.debug_nans(True)`"
        )
    return mean


def _rate(state: Any) -> float | None:
    """What ``optax.inject_hyperparams`` says."""
    found = getattr(state, "hyperparams", {}).get("learning_rate")
    return None if found is None else float(found)


class _Bar:
    """A bar of tqdm that shows losses."""

    def __init__(self, done: int, epochs: int) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(initial=done, total=epochs, unit="epoch")

    def show(self, epoch: Epoch) -> None:
        named = {"loss": epoch.loss, "validation": epoch.validation, "rate": epoch.rate}
        shown = {name: f"{x:.3g}" for name, x in named.items() if x is not None}
        self._bar.set_postfix(shown)
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


class _NoBar:
    def show(self, epoch: Epoch) -> None:
        """Nothing is shown."""

    def close(self) -> None:
        """Nothing is open."""


def _bar(done: int, epochs: int, progress: bool) -> _Bar | _NoBar:
    return _Bar(done, epochs) if progress else _NoBar()
