"""Makes ``ethanol-500K.xyz``: the trajectory that the demo learns.

Ethanol (ASE's ``CH3CH2OH``) in the gas phase, GFN2-xTB (J. Chem. Theory Comput. 2019,
15, 1652) through tblite with its default accuracy, Langevin dynamics at 500 K with
a time step of 0.5 fs and a friction of 0.02 / fs. After 1 ps of equilibration one
frame is kept every 25 fs.

Units in the file are ASE's: positions in Å, energies in eV, forces in eV/Å.

Needs ``ase`` and ``tblite``; takes some minutes on one core. The noise is seeded, but
floating-point rounding differs between machines and grows along a trajectory, so
another machine gives other frames of the same ensemble.
"""

import argparse
from pathlib import Path

import ase.io
import ase.units
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tblite.ase import TBLite
from tqdm import tqdm

TEMPERATURE = 500.0  # K
TIME_STEP = 0.5  # fs
FRICTION = 0.02  # 1 / fs
EQUILIBRATION = 2000  # steps
STRIDE = 50  # steps between the frames that are kept
SEED = 20


def snapshot(atoms: Atoms) -> Atoms:
    """A copy of ``atoms`` with its energy and forces, and without its calculator."""
    frame = Atoms(atoms.numbers, atoms.positions)
    frame.calc = SinglePointCalculator(
        frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces()
    )
    return frame


def run(n_frames: int) -> list[Atoms]:
    """Molecular dynamics of one ethanol molecule; ``n_frames`` of its frames."""
    rng = np.random.default_rng(SEED)
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=rng)
    dynamics = Langevin(
        atoms,
        TIME_STEP * ase.units.fs,
        temperature_K=TEMPERATURE,
        friction=FRICTION / ase.units.fs,
        rng=rng,
    )
    dynamics.run(EQUILIBRATION)
    frames = []
    for _ in tqdm(range(n_frames), desc="frames"):
        dynamics.run(STRIDE)
        frames.append(snapshot(atoms))
    return frames


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=800)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("ethanol-500K.xyz")
    )
    options = parser.parse_args()
    ase.io.write(options.output, run(options.frames), format="extxyz")
