"""Stored gradients and autodiff, against the same math written by hand.

Connecting: the derivative of values by positions, from stored gradients, forwards
(``jax.jvp``) and in reverse (``jax.grad`` of a loss); by hand these are a contraction
and a segment sum, with index arrays made before. Computing: gradients of energies and
of features; by hand ``jax.vjp``, and ``jax.jacfwd`` mapped over systems of one size.
All of it is under ``jit``, in float64, on the CPU.

    python benchmarks/gradients.py [connect compute]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import WALL, Bare, Variant, heading, measure, report, with_gradient

import metatensor_jax as mts

N_ATOMS = 20  # of each system; a gradient row for each of them, for each atom
N_PROPERTIES = 64
TARGET = 1.5
XYZ = mts.Labels.range("xyz", 3)
ONE = mts.Labels.single()


# === connect =======================================================================


class Data(NamedTuple):
    """A block with gradients, as arrays and as a map; and a direction of positions."""

    bare: Bare
    tensor: mts.TensorMap
    atoms: mts.Labels
    positions: Any
    direction: Any


def connect() -> None:
    """Forwards and in reverse, with static labels and with traced ones."""
    for n_rows, components in ((20_000, ()), (200_000, ()), (20_000, (3,))):
        data = _data(n_rows, components)
        what = f" x {components[0]}" if components else ""
        heading(f"connect, {n_rows} gradient rows x 3{what} x {N_PROPERTIES}")
        for labels in ("static", "traced"):
            for mode in ("forward", "reverse"):
                times = measure(
                    Variant(*_ours(mode, data, labels)),
                    None,
                    Variant(*_by_hand(mode, data, labels)),
                    clock=WALL,
                    rounds=15,
                )
                report(f"{mode}, {labels} labels", times, overhead=TARGET)


def _data(n_rows: int, components: tuple[int, ...]) -> Data:
    rng = np.random.default_rng(0)
    n = n_rows // N_ATOMS
    row = np.arange(n, dtype=np.int32)
    samples = np.stack([row // N_ATOMS, row % N_ATOMS], 1)
    values = rng.random((n, *components, N_PROPERTIES))
    bare = with_gradient(Bare(values, samples), N_ATOMS, N_ATOMS)
    atoms = mts.Labels(["system", "atom"], samples)
    tensor = _map(bare, mts.Labels)
    positions, direction = rng.random((2, n, 3))
    data = (tensor.to(arrays="jax"), atoms, *map(jnp.asarray, (positions, direction)))
    return Data(bare, *data)


def _map(bare: Bare, labels: Callable[..., mts.Labels]) -> mts.TensorMap:
    components = [mts.Labels.range("m", n) for n in bare.values.shape[1:-1]]
    properties = mts.Labels.range("n", N_PROPERTIES)
    gradient = mts.TensorBlock(
        bare.gradient,
        labels(["sample", "system", "atom"], bare.gradient_samples),
        [XYZ, *components],
        properties,
    )
    samples = labels(["system", "atom"], bare.samples)
    block = mts.TensorBlock(bare.values, samples, components, properties)
    return mts.TensorMap(ONE, [block.with_gradient("positions", gradient)])


def _loss(values: Any) -> Any:
    return (values**2).sum()


def _ours(mode: str, data: Data, labels: str) -> tuple[Any, Any]:
    tensor, atoms = data.tensor, data.atoms
    if labels == "traced":
        tensor = _map(data.bare, mts.Labels.traced).to(arrays="jax")
        atoms = mts.Labels.traced(atoms.names, jnp.asarray(atoms.values))

    def values(tensor: mts.TensorMap, atoms: mts.Labels, x: Any) -> Any:
        block = mts.TensorBlock(x[..., None], atoms, [XYZ], ONE)
        return mts.connect_gradients(tensor, positions=block).block().values

    def forward(inputs: Any) -> Any:
        tensor, atoms, x, direction = inputs
        return jax.jvp(lambda x: values(tensor, atoms, x), (x,), (direction,))

    def reverse(inputs: Any) -> Any:
        tensor, atoms, x, _ = inputs
        return jax.grad(lambda x: _loss(values(tensor, atoms, x)))(x)

    run = jax.jit(forward if mode == "forward" else reverse)
    return run, lambda: (tensor, atoms, data.positions, data.direction)


def _by_hand(mode: str, data: Data, labels: str) -> tuple[Any, Any]:
    assert data.bare.gradient_samples is not None
    parents, system, atom = data.bare.gradient_samples.T
    index = parents, system * N_ATOMS + atom
    n = len(data.positions)
    ones = [1] * (data.bare.values.ndim - 1)

    def forward(inputs: Any, index: Any) -> Any:
        values, gradient, _, direction = inputs
        parents, entries = index
        # an einsum does the same, and takes longer: twice as long for many rows
        weights = direction[entries].reshape(*gradient.shape[:2], *ones)
        rows = (gradient * weights).sum(1)
        return values, jax.ops.segment_sum(rows, parents, n)

    def reverse(inputs: Any, index: Any) -> Any:
        values, gradient, _, _ = inputs
        parents, entries = index
        slope = jax.grad(_loss)(values)
        rows = (gradient * slope[parents][:, None]).sum(tuple(range(2, gradient.ndim)))
        return jax.ops.segment_sum(rows, entries, n)

    run = forward if mode == "forward" else reverse
    inputs = data.bare.values, data.bare.gradient, data.positions, data.direction
    arrays = tuple(map(jnp.asarray, inputs))
    if labels == "traced":
        on_device = tuple(map(jnp.asarray, index))
        return jax.jit(lambda given: run(*given)), lambda: (arrays, on_device)
    return jax.jit(lambda given: run(given, index)), lambda: arrays


# === compute =======================================================================


def compute() -> None:
    """Energies and features of systems of 20 atoms, from all pairs."""
    for n_systems in (10, 200):
        heading(f"compute, {n_systems} systems of {N_ATOMS} atoms")
        x = np.random.default_rng(0).normal(size=(n_systems, N_ATOMS, 3))
        for name, bare, by_hand in (
            ("energies, against a vjp", _energies, _vjp),
            ("features, against jacfwd per system", _features, _jacfwd),
        ):
            times = measure(
                Variant(*_stored(bare, x)),
                None,
                Variant(jax.jit(by_hand), lambda x=x: jnp.asarray(x)),
                clock=WALL,
                rounds=15,
            )
            report(name, times, overhead=TARGET)


def _distances(x: Any) -> Any:
    """Of all pairs of atoms of each system, and each atom's own position."""
    d = x[:, :, None] - x[:, None]
    return (d**2).sum(-1)


def _energies(x: Any) -> Any:
    """One for each system."""
    return jnp.exp(-_distances(x)).sum((1, 2))[:, None]


def _features(x: Any) -> Any:
    """Four for each atom."""
    widths = jnp.arange(1.0, 5.0)
    squares = _distances(x)[..., None]
    return jnp.exp(-squares * widths.reshape(1, 1, 1, -1)).sum(2)


def _stored(bare: Callable[[Any], Any], x: np.ndarray) -> tuple[Any, Any]:
    n_systems = len(x)
    system, atom = np.indices((n_systems, N_ATOMS)).reshape(2, -1)
    atoms = mts.Labels(["system", "atom"], np.stack([system, atom], 1))
    is_energy = bare is _energies
    samples = mts.Labels.range("system", n_systems) if is_energy else atoms

    def function(positions: mts.TensorBlock) -> mts.TensorMap:
        values = bare(positions.values.reshape(n_systems, N_ATOMS, 3))
        values = values.reshape(len(samples), -1)
        properties = mts.Labels.range("p", values.shape[1])
        return mts.TensorMap(ONE, [mts.TensorBlock(values, samples, [], properties)])

    @jax.jit
    def run(x: Any) -> Any:
        block = mts.TensorBlock(x.reshape(-1, 3, 1), atoms, [XYZ], ONE)
        block = mts.compute_gradients(function, positions=block).block()
        return [block.values, block.gradient("positions").values]

    return run, lambda: jnp.asarray(x)


def _vjp(x: Any) -> Any:
    values, pull = jax.vjp(_energies, x)
    return [values, pull(jnp.ones_like(values))[0]]


def _jacfwd(x: Any) -> Any:
    def of_system(x: Any) -> Any:
        return _features(x[None])[0]

    # (systems, atoms, properties, atoms, 3) to (systems, atoms, atoms, 3, properties)
    jacobians = jax.vmap(jax.jacfwd(of_system))(x)
    return [_features(x), jnp.moveaxis(jacobians, 2, -1)]


PARTS = {function.__name__: function for function in (connect, compute)}


def main() -> None:
    """Measure and print everything, or some parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    names = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no such part: {unknown}, there are {list(PARTS)}")
    jax.config.update("jax_enable_x64", True)
    print("milliseconds; the best of several rounds")
    for name in names:
        PARTS[name]()


if __name__ == "__main__":
    main()
