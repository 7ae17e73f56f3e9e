r"""Structures of ASE to maps, and maps back to structures. Needs the extra ``interop``.

There and back, for a list of ``ase.Atoms``, the frames:

- :func:`samples` and :func:`parameters`: the labels of systems and atoms; positions,
  strain and cells as :func:`metatensor_jax.connect_gradients` takes them.
- :func:`energies`: with forces and stress as stored gradients;
  :func:`with_energies`: back to frames.
- :func:`tensors`: charges, dipoles, polarizabilities, Cartesian or spherical;
  :func:`with_tensors`: back to frames.
- :class:`Potential` and :class:`FeaturePotential`: energies of a JAX function, compiled
  once, with their derivatives; :class:`Calculator`: an ASE calculator around these.

Units are ASE's, and nothing is converted: Å, eV, eV/Å for forces, eV/Å³ for stress, the
elementary charge and e·Å for dipoles. Signs, with the volume :math:`V` of the cell:

.. math::
    \nabla_r E = -F \qquad \nabla_\varepsilon E = V \sigma = -W

for the forces :math:`F`, the stress :math:`\sigma` (positive where the cell would
shrink, as in ASE) and the virial :math:`W`. The strain acts on columns, positions and
vectors of the cell alike, :math:`r \to (1 + \varepsilon) r`, and is zero. Its
components are ``xyz_1`` and ``xyz_2``, those of featomic (which has them in the other
order; components are matched by name) and of metatrain.

Systems are numbered as the frames are, 0, 1, ...; ``systems=`` gives them other
numbers, for frames that are a part of a larger data set.

What is read from frames is NumPy, in 64 bits unless ``dtype`` says otherwise: total
energies lose their meaning in 32 bits, so subtract what is common to all first.
"""

from ._calculator import Calculator as Calculator
from ._energies import energies as energies
from ._feature_potential import FeaturePotential as FeaturePotential
from ._frames import samples as samples
from ._parameters import parameters as parameters
from ._potential import Potential as Potential
from ._predictions import with_energies as with_energies, with_tensors as with_tensors
from ._tensors import tensors as tensors

__all__ = [
    "Calculator",
    "FeaturePotential",
    "Potential",
    "energies",
    "parameters",
    "samples",
    "tensors",
    "with_energies",
    "with_tensors",
]

# reprs and tracebacks name the place where users find the classes
for _class in (Calculator, FeaturePotential, Potential):
    _class.__module__ = __name__
