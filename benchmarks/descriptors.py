"""Descriptors from positions: beside featomic, with derivatives, and growing systems.

The settings are those of the metatensor ecosystem's article: max_radial 6, max_angular
6, a cutoff of 5.5 Å with a smooth part of 0.5 Å, Gaussians of 0.3 Å. Neighbors are
found anew in each call of featomic, and are not part of our times: they are beside it.

    python benchmarks/descriptors.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import ase
import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk, molecule
from featomic import SoapPowerSpectrum as FeatomicSoap, SphericalExpansion as Featomic
from timing import exponent, verdict

from metatensor_jax.atomistic import (
    Gto,
    SoapPowerSpectrum,
    SphericalExpansion,
    Systems,
)

CUTOFF, WIDTH, SIGMA, MAX = 5.5, 0.5, 0.3, 6
EXPANSION = SphericalExpansion(CUTOFF, MAX, Gto(MAX), SIGMA, WIDTH)
SOAP = SoapPowerSpectrum(EXPANSION)
OPTIONS = {
    "cutoff": {
        "radius": CUTOFF,
        "smoothing": {"type": "ShiftedCosine", "width": WIDTH},
    },
    "density": {"type": "Gaussian", "width": SIGMA},
    "basis": {
        "type": "TensorProduct",
        "max_angular": MAX,
        "radial": {"type": "Gto", "max_radial": MAX},
    },
}


def silicon(n: int) -> ase.Atoms:
    atoms = bulk("Si", "diamond", 5.43, cubic=True) * (n, n, n)
    atoms.rattle(0.05, seed=0)
    return atoms


def molecular(n: int) -> ase.Atoms:
    """Acetic acid on a grid, with the density of a molecular crystal."""
    one = molecule("CH3COOH")
    one.set_cell([4.4, 4.4, 4.4])
    one.set_pbc(True)
    atoms = one * (n, n, n)
    atoms.rattle(0.05, seed=0)
    return atoms


def best(call: Callable[[], Any], rounds: int) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)


def compare(name: str, atoms: ase.Atoms, rounds: int) -> None:
    systems = Systems.from_ase(atoms, CUTOFF, dtype=np.float32)
    positions, n = jnp.asarray(systems.positions), len(atoms)

    def values(calculator: Any) -> Callable[[jax.Array], Any]:
        @jax.jit
        def call(positions: jax.Array) -> Any:
            tensor = calculator(systems.with_positions(positions))
            return [block.values for block in tensor]

        return call

    @jax.jit
    @jax.value_and_grad
    def energy_and_forces(positions: jax.Array) -> jax.Array:
        tensor = SOAP(systems.with_positions(positions))
        return sum((jnp.tanh(b.values).sum() for b in tensor), jnp.zeros(()))

    expansion, soap = values(EXPANSION), values(SOAP)
    per_atom = {
        "neighbors by vesin": lambda: Systems.from_ase(atoms, CUTOFF),
        "expansion": lambda: expansion(positions),
        "SOAP": lambda: soap(positions),
        "SOAP, energy and forces": lambda: energy_and_forces(positions),
        "featomic: expansion": lambda: Featomic(**OPTIONS).compute(atoms),
        "featomic: SOAP": lambda: FeatomicSoap(**OPTIONS).compute(atoms),
    }
    times = {what: best(call, rounds) for what, call in per_atom.items()}
    print(f"\n{name}, {n} atoms, in ms for each atom")
    for what, time_of in times.items():
        print(f"    {what:28s}{1e3 * time_of / n:9.4f}")
    ratio = times["SOAP"] / times["featomic: expansion"]
    print(f"    to featomic's expansion {ratio:.2f},", verdict("1", ratio <= 1))
    ratio = times["SOAP, energy and forces"] / times["SOAP"]
    print(f"    with forces / values {ratio:.2f},", verdict("3", ratio <= 3))


def growth(sizes: list[int]) -> None:
    counts, times = [], []
    for n in sizes:
        atoms = silicon(n)
        systems = Systems.from_ase(atoms, CUTOFF, dtype=np.float32)
        call = jax.jit(lambda s: [x.sum() for x in EXPANSION.of_atoms(s, 14)])
        counts.append(len(atoms))
        times.append(best(lambda c=call, s=systems: c(s), 2))
        print(f"    {counts[-1]:8d} atoms {1e3 * times[-1] / counts[-1]:9.4f} ms each")
    found = exponent(counts, times)
    print(f"    n^{found:.2f},", verdict("n^1.15", found <= 1.15))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds = 3 if quick else 10
    compare("silicon", silicon(4), rounds)
    compare("a molecular crystal", molecular(4), rounds)
    print("\nexpansion of silicon")
    growth([3, 5, 8] if quick else [3, 5, 8, 12, 18, 23])


if __name__ == "__main__":
    main()
