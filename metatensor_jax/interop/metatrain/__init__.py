r"""Data sets for metatrain, and those that it writes. Needs the extra ``interop``.

metatrain trains and evaluates models on data sets in three formats. The name of the
path says which one: :func:`write_dataset` and :func:`read_dataset` go by the same rules
as metatrain.

======================= ================================================ ==============
path                    what is there                                    numbers
======================= ================================================ ==============
``data.zip``            a file for each system and each map: any         64 bits
                        targets
a folder, ``data/``     arrays to be memory-mapped: scalars and          **32 bits**
                        Cartesian tensors only
``data.xyz``,           structures, and an ``.mts`` file beside them     64 bits,
``.extxyz``, ``.traj``  for each map: any targets                        see below
======================= ================================================ ==============

Extended XYZ files have eight decimals of each position; ``.traj`` has all of them.

Targets are maps with one row for each system (``[system]``) or for each atom
(``[system, atom]``), as :func:`metatensor_jax.interop.ase.energies` and
:func:`~metatensor_jax.interop.ase.tensors` make them:

- *energies*: the key ``_``, no components, one property called ``energy``. They alone
  can have gradients: ``positions`` (minus the forces) and ``strain`` (the stress times
  the volume). metatrain wants the rows of all atoms, in order, with the samples
  ``[sample, atom]``; they are written like that, and rows that are not stored are zero.
- *scalars*: the key ``_``, no components, any properties;
- *Cartesian* tensors: the key ``_``, the component ``xyz``, or ``xyz_1``, ``xyz_2``,
  ... for higher ranks;
- *spherical* tensors: the keys ``o3_lambda``, ``o3_sigma``, the component ``o3_mu``.

Extra data (for losses and models that take more than structures) are maps like these.
In metatrain's files, systems are numbered 0, 1, ..., and numbers are floating-point.

Nothing here imports metatrain or PyTorch.
"""

from ._dataset import read_dataset as read_dataset, write_dataset as write_dataset
from ._parts import Dataset as Dataset

__all__ = ["Dataset", "read_dataset", "write_dataset"]

Dataset.__module__ = __name__
