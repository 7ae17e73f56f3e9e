"""Training that is killed again and again, and always goes on.

Run by ``test_learn_checkpoints.py``, in a process of its own: it starts its children by
a fork, as importing JAX for each would take longer than all else; it computes nothing
itself, so no thread of JAX is there when it forks.

    python tests/kill_training.py FOLDER by_hand|fit KILLS

prints a JSON object: how many children were killed (``kills``), how many steps all of
them took (``steps``), and a digest of what came out (``result``).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import numpy as np
import optax

import metatensor_jax as mts
from metatensor_jax import learn

SEED, EPOCHS, STEPS, EVERY = 5, 40, 8, 3
KEYS = mts.Labels("center_type", [[1], [8]])
N_SYSTEMS, BATCH = 16, 2
Took = Callable[[], None]


def store() -> mts.Store:
    """Systems of one to four atoms, with a feature and an energy."""
    rng = np.random.default_rng(SEED)
    types = [rng.choice([1, 8], size=rng.integers(1, 5)) for _ in range(N_SYSTEMS)]
    system = np.repeat(np.arange(N_SYSTEMS), [len(x) for x in types])
    atom = np.concatenate([np.arange(len(x)) for x in types])
    blocks = []
    for (one,) in KEYS.values.tolist():
        rows = np.flatnonzero(np.concatenate(types) == one)
        samples = mts.Labels(["system", "atom"], np.stack([system, atom], 1)[rows])
        values = rng.normal(size=(len(rows), 3)).astype("f4")
        blocks.append(
            mts.TensorBlock(values, samples, [], mts.Labels.range("feature", 3))
        )
    values = rng.normal(size=(N_SYSTEMS, 1)).astype("f4")
    systems = mts.Labels.range("system", N_SYSTEMS)
    energy = mts.TensorBlock(values, systems, [], mts.Labels.range("energy", 1))
    return mts.Store.from_maps(
        {
            "features": mts.TensorMap(KEYS, blocks),
            "energy": mts.TensorMap(mts.Labels.single(), [energy]),
        }
    )


def batches(
    data: mts.Store, epoch: int, took: Took, first: int = 0
) -> Iterator[mts.PaddedBatch]:
    """The batches of an epoch from one of them on."""
    layout = data.layout(systems=BATCH)
    order = np.random.default_rng([SEED, epoch]).permutation(N_SYSTEMS)
    for own in order.reshape(STEPS, BATCH)[first:]:
        yield data.batch(own, layout)
        took()


def loss(model: learn.Linear, batch: mts.PaddedBatch) -> jax.Array:
    atoms = model(batch["features"]).keys_to_samples("center_type")
    energy = mts.sum_over_samples(
        atoms, ["atom", "center_type"], out_samples=batch.out_samples
    )
    return learn.mean_squared(energy, batch["energy"])


def begin() -> tuple[learn.Linear, optax.GradientTransformation]:
    energy = mts.Labels.range("energy", 1)
    key = jax.random.key(SEED)
    return learn.Linear(KEYS, 3, out_properties=energy, key=key), optax.adam(0.01)


def by_hand(folder: Path, took: Took) -> Any:
    """Checkpoints in the middle of epochs; noise from a key that is saved."""
    model, optimizer = begin()
    data, checkpoints = store(), learn.Checkpoints(folder)

    @eqx.filter_jit
    def step(run: dict[str, Any], batch: mts.PaddedBatch) -> dict[str, Any]:
        key, own = jax.random.split(run["key"])
        noise = 0.01 * jax.random.uniform(own)
        grads = eqx.filter_grad(loss)(run["model"], batch)
        grads = jax.tree.map(lambda g: g + noise, grads)
        updates, state = optimizer.update(grads, run["state"])
        model = eqx.apply_updates(run["model"], updates)
        return {"model": model, "state": state, "key": key}

    state = optimizer.init(eqx.filter(model, eqx.is_array))
    run = {"model": model, "state": state, "key": jax.random.key(1)}
    found = checkpoints.latest(run)
    done, run = (found.step, found.tree) if found else (0, run)
    for epoch in range(done // STEPS, EPOCHS):
        for batch in batches(data, epoch, took, first=done % STEPS):
            run = step(run, batch)
            done += 1
            if done % EVERY == 0:
                checkpoints.save(done, run)
    return run["model"], run["state"], jax.random.key_data(run["key"])


def fit(folder: Path, took: Took) -> Any:
    model, optimizer = begin()
    data = store()
    fitted = learn.fit(
        model,
        lambda epoch: batches(data, epoch, took),
        loss,
        optimizer,
        epochs=EPOCHS,
        validation=[data.batch([0, 1])],
        checkpoints=learn.Checkpoints(folder, best="min"),
        progress=False,
    )
    known = [(x.loss, x.validation) for x in fitted.history]
    return fitted.model, fitted.last, fitted.state, np.array(known)


def child(how: str, folder: Path, pipe: int) -> None:
    """Train, and say so at each step; at the end, say what came out."""

    def took() -> None:
        os.write(pipe, b".")
        time.sleep(0.002)

    with jax.numpy_dtype_promotion("standard"):  # Optax mixes types of numbers
        result = {"by_hand": by_hand, "fit": fit}[how](folder, took)
    digest = hashlib.sha256()
    for array in jax.tree.leaves(eqx.filter(result, eqx.is_array)):
        digest.update(np.asarray(array).tobytes())
    os.write(pipe, b"=" + digest.hexdigest().encode())


def killed(pipe: BinaryIO, process: int, chance: random.Random) -> int:
    """Kill a child some time after some step; how many steps that were."""
    steps = chance.randrange(1, 2 * STEPS)
    for _ in range(steps):
        assert pipe.read(1) == b"."
    time.sleep(chance.uniform(0, 0.01))
    os.kill(process, signal.SIGKILL)
    return steps


def main() -> None:
    folder, how, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    chance, steps, done = random.Random(0), 0, b""
    for i in range(kills + 1):
        reads, writes = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                child(how, folder, writes)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writes)
        with os.fdopen(reads, "rb", buffering=0) as pipe:
            if i < kills:
                steps += killed(pipe, process, chance)
            done = pipe.read()
        steps += done.count(b".")
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status) if i < kills else status == 0
    result = done.partition(b"=")[2].decode()
    print(json.dumps({"kills": kills, "steps": steps, "result": result}))


if __name__ == "__main__":
    main()
