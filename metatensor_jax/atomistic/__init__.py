"""From positions to properties: labelled descriptors of atoms. Needs ``atomistic``.

- :class:`Systems`: structures and their neighbors, as arrays that a program takes.
- :class:`Room`: batches of systems that share one program.
- :class:`SphericalExpansion`: the density of neighbors, with featomic's labels.
- :class:`SoapPowerSpectrum`: invariant correlations of pairs of neighbors.
- :class:`Gto`, :class:`LaplacianEigenstates`: radial functions.

Lengths are in Å. All of it is differentiable with respect to positions and cells.
"""

from ._expansion import SphericalExpansion as SphericalExpansion
from ._harmonics import solid_harmonics as solid_harmonics
from ._neighbors import Neighbors as Neighbors
from ._power_spectrum import SoapPowerSpectrum as SoapPowerSpectrum
from ._radial import (
    Gto as Gto,
    LaplacianEigenstates as LaplacianEigenstates,
    RadialBasis as RadialBasis,
)
from ._room import Room as Room
from ._systems import Systems as Systems
