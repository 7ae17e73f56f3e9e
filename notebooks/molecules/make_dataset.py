"""Makes ``molecules.xyz``: the dipoles and polarizabilities that the notebook learns.

The molecules of ASE's collection G2 (J. Chem. Phys. 1997, 106, 1063) that consist of H,
C, N and O, have three atoms or more and no unpaired electrons. Not ozone and singlet
methylene: their ground states have more than one determinant, which GFN2-xTB can not
describe. Of each molecule there are some structures: atoms are moved at random, by
0.05 Å in each direction, and the molecule is turned at random, so that the file prefers
no direction.

GFN2-xTB (J. Chem. Theory Comput. 2019, 15, 1652) through tblite. The polarizability is
the derivative of the dipole by an electric field, a central difference of two fields of
0.001 atomic units in each direction. It is symmetrized; how much that changed is
printed.

Units in the file: positions in Å, ``dipole`` in e·Å, and ``polarizability`` as a volume
(divided by 4πε₀), in Å³. ``name`` is what the molecule is called in the collection.

Needs ``ase`` and ``tblite``; takes half a minute on one core. With ``--check``, nothing
is written, and dipoles and polarizabilities of some structures are compared with finite
differences of the energy.
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.collections import g2
from ase.units import Bohr
from scipy.spatial.transform import Rotation
from tblite.interface import Calculator
from tqdm import tqdm

LEFT_OUT = ["O3", "CH2_s1A1d"]
N_STRUCTURES = 14  # of each molecule
RATTLE = 0.05  # Å, standard deviation of each coordinate
FIELD = 1e-3  # atomic units
DIGITS = 6  # the last ones are noise of the differences
SEED = 3


def names() -> list[str]:
    """The molecules, in the order of the alphabet."""

    def is_chosen(atoms: Atoms) -> bool:
        closed_shell = not atoms.get_initial_magnetic_moments().any()
        return len(atoms) > 2 and closed_shell and set(atoms.symbols) <= set("HCNO")

    return sorted(x for x in g2.names if is_chosen(g2[x]) and x not in LEFT_OUT)


def make_structures() -> list[Atoms]:
    """All structures, without dipoles."""
    rng = np.random.default_rng(SEED)
    structures = []
    for name in names():
        for turn in Rotation.random(N_STRUCTURES, rng):
            molecule = g2[name]
            moves = rng.normal(scale=RATTLE, size=molecule.positions.shape)
            positions = turn.apply(molecule.positions + moves)
            structures.append(Atoms(molecule.numbers, positions, info={"name": name}))
    return structures


def in_field(atoms: Atoms, field: np.ndarray) -> tuple[float, np.ndarray]:
    """The energy and the dipole in a uniform field, all in atomic units."""
    calculator = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / Bohr)
    calculator.set("verbosity", 0)
    calculator.set("accuracy", 0.01)
    calculator.add("electric-field", [float(x) for x in field])
    result = calculator.singlepoint()
    return result["energy"], result["dipole"]


def dipole_and_polarizability(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """In atomic units; the polarizability is not symmetrized."""
    _, dipole = in_field(atoms, np.zeros(3))
    slopes = []
    for field in FIELD * np.eye(3):
        plus, minus = (in_field(atoms, f)[1] for f in (field, -field))
        slopes.append((plus - minus) / (2 * FIELD))
    return dipole, np.array(slopes)


def compute(structures: list[Atoms]) -> None:
    """Add dipoles and polarizabilities."""
    asymmetry = 0.0
    for atoms in tqdm(structures):
        dipole, polarizability = dipole_and_polarizability(atoms)
        difference = np.abs(polarizability - polarizability.T).max()
        asymmetry = max(asymmetry, difference * Bohr**3)
        atoms.info["dipole"] = (dipole * Bohr).round(DIGITS)
        symmetric = (polarizability + polarizability.T) / 2
        # flat, as extended XYZ files have matrices
        atoms.info["polarizability"] = (symmetric.ravel() * Bohr**3).round(DIGITS)
    print(f"polarizabilities were symmetric within {asymmetry:.1e} Å³")


def check(structures: list[Atoms]) -> None:
    """Print dipoles and polarizabilities beside differences of the energy."""
    for atoms in structures:
        dipole, polarizability = dipole_and_polarizability(atoms)
        zero, _ = in_field(atoms, np.zeros(3))
        print(f"{atoms.info['name']:20} computed  finite difference (atomic units)")
        for i, field in enumerate(FIELD * np.eye(3)):
            plus, minus = (in_field(atoms, f)[0] for f in (field, -field))
            first = -(plus - minus) / (2 * FIELD)
            second = -(plus + minus - 2 * zero) / FIELD**2
            print(f"  dipole           {dipole[i]:10.5f} {first:10.5f}")
            print(f"  polarizability   {polarizability[i, i]:10.5f} {second:10.5f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="finite differences")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("molecules.xyz")
    )
    options = parser.parse_args()
    structures = make_structures()
    if options.check:
        check(structures[::200])
    else:
        compute(structures)
        ase.io.write(options.output, structures, format="extxyz")
