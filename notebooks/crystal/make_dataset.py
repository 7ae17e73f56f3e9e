"""Makes ``nacl.xyz``: the crystals that the notebook learns.

Rock salt in cells of 32 and of 64 atoms, GFN1-xTB (J. Chem. Theory Comput. 2017, 13,
1989) through tblite. Each cell is strained at random by some percent, then each atom
moved at random: by 0.03 Å in some structures, up to 0.16 Å in others (as at 300 K). The
first structure of each size is the ideal crystal.

tblite samples the Brillouin zone at its center only, so cells have to be large and
round: here the images of an atom are at least 9.5 Å apart. Then the force on a single
displaced ion differs by less than 4 % between the sizes, and the stress of the ideal
crystal by less than 0.1 GPa. Energies per atom still differ, by 15 meV, and should be
taken relative to the ideal crystal of the same size.

Units in the file are ASE's: positions in Å, energies in eV, forces in eV/Å, stress in
eV/Å³ (positive when the crystal would like to shrink).

Needs ``ase`` and ``tblite``; takes about five minutes on one core. With ``--check``,
nothing is written, and forces and stress of two structures are compared with finite
differences of the energy.
"""

import argparse
from pathlib import Path

import ase.io
import ase.units
import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.calculators.singlepoint import SinglePointCalculator
from tblite.ase import TBLite
from tqdm import tqdm

LATTICE_CONSTANT = 5.48  # Å, about where GFN1-xTB has no pressure
# vectors of the cells, in lattice constants, and how many structures
CELLS = [([[-1, 1, 1], [1, -1, 1], [1, 1, -1]], 160), (2 * np.eye(3), 40)]
STRAIN = 0.015  # standard deviation of each strain
RATTLE = 0.03, 0.16  # Å, standard deviation of each coordinate: from, to
SEED = 7


def compute(atoms: Atoms, accuracy: float = 1.0) -> Atoms:
    """A copy of ``atoms`` with its energy, forces and stress."""
    atoms = atoms.copy()
    # a new calculator each time: no structure starts from the density of another
    atoms.calc = TBLite(method="GFN1-xTB", accuracy=accuracy, verbosity=0)
    result = atoms.copy()
    result.calc = SinglePointCalculator(
        result,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(),
        stress=atoms.get_stress(),
    )
    return result


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """A copy of ``atoms`` with all vectors ``r`` replaced by ``r + r @ strain``."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def distorted(ideal: Atoms, rng: np.random.Generator) -> Atoms:
    """A copy of ``ideal`` with a random cell and random displacements."""
    strain = rng.normal(scale=STRAIN, size=(3, 3))
    atoms = strained(ideal, (strain + strain.T) / 2)
    atoms.positions += rng.normal(
        scale=rng.uniform(*RATTLE), size=atoms.positions.shape
    )
    return atoms


def make_structures() -> list[Atoms]:
    """All structures, without energies."""
    rng = np.random.default_rng(SEED)
    cubic = bulk("NaCl", "rocksalt", a=LATTICE_CONSTANT, cubic=True)
    structures = []
    for cell, n in CELLS:
        ideal = make_supercell(cubic, cell)
        structures += [ideal, *(distorted(ideal, rng) for _ in range(n - 1))]
    return structures


def check(structures: list[Atoms], step: float = 1e-3) -> None:
    """Print forces and stress beside finite differences of the energy."""

    def energy(atoms: Atoms) -> float:
        return compute(atoms, accuracy=0.01).get_potential_energy()

    def slope(plus: Atoms, minus: Atoms) -> float:
        return (energy(plus) - energy(minus)) / (2 * step)

    for atoms in structures:
        result = compute(atoms, accuracy=0.01)
        print(f"{len(atoms)} atoms          computed  finite difference")
        for atom, axis in [(0, 0), (5, 1), (31, 2)]:
            shift = np.zeros_like(atoms.positions)
            shift[atom, axis] = step
            plus, minus = atoms.copy(), atoms.copy()
            plus.positions += shift
            minus.positions -= shift
            force = result.get_forces()[atom, axis]
            print(f"  force (eV/Å)    {force:10.5f} {-slope(plus, minus):10.5f}")
        for i, j in [(0, 0), (1, 2), (2, 2)]:
            strain = np.zeros((3, 3))
            strain[i, j] = step
            expected = slope(strained(atoms, strain), strained(atoms, -strain))
            expected /= atoms.get_volume() * ase.units.GPa
            stress = result.get_stress(voigt=False)[i, j] / ase.units.GPa
            print(f"  stress (GPa)    {stress:10.5f} {expected:10.5f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="finite differences")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("nacl.xyz")
    )
    options = parser.parse_args()
    if options.check:
        structures = make_structures()
        check([structures[1], structures[-1]])
    else:
        structures = [compute(atoms) for atoms in tqdm(make_structures())]
        ase.io.write(options.output, structures, format="extxyz")
