"""SOAP power spectrum: invariant correlations of two neighbors."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._expansion import SphericalExpansion, rows_of
from ._systems import Systems


class SoapPowerSpectrum(eqx.Module):
    r"""Correlations of pairs of neighbors that do not change when systems rotate.

    .. math:: p_{i a_1 a_2 l n_1 n_2} = \frac{(-1)^l s}{\sqrt{2 l + 1}} \sum_m
        c_{i a_1 n_1 l m} \, c_{i a_2 n_2 l m}

    of the coefficients of a :class:`SphericalExpansion`, with :math:`s = \sqrt 2` for
    two types of neighbors and 1 for one: A. P. Bartók, R. Kondor and G. Csányi, Phys.
    Rev. B 87, 184115 (2013). The result has featomic's keys, ``center_type``,
    ``neighbor_1_type`` and ``neighbor_2_type`` (not smaller than the first), and its
    properties ``[l, n_1, n_2]``.

    :param expansion: the spherical expansion

    >>> from ase.build import molecule
    >>> from metatensor_jax.atomistic import Gto
    >>> systems = Systems.from_ase(molecule("H2O"), 3.0, dtype="float32")
    >>> soap = SoapPowerSpectrum(SphericalExpansion(3.0, 2, Gto(max_radial=3), 0.4))
    >>> soap(systems).block(center_type=8, neighbor_1_type=1, neighbor_2_type=8).shape
    (1, 48)
    """

    expansion: SphericalExpansion

    @property
    def properties(self) -> Labels:
        """Of all blocks."""
        degrees, n = self.expansion.max_angular + 1, self.expansion.radial.size
        values = np.indices((degrees, n, n)).reshape(3, -1).T
        return Labels(["l", "n_1", "n_2"], values)

    def __call__(self, systems: Systems) -> TensorMap:
        """The power spectrum of all atoms.

        :param systems: with the neighbors of a cutoff that is as large, or larger
        :raises MetatensorError: neighbors of a smaller cutoff
        """
        self.expansion.check(systems)
        check_not_narrowed(systems.positions.dtype)
        keys, properties = self.blocks_of(systems), self.properties
        blocks = [
            TensorBlock(values, systems.samples[center], [], properties)
            for (center, _, _), values in zip(
                keys, _power_spectrum(self, systems), strict=True
            )
        ]
        return TensorMap(Labels(_KEYS, np.array(keys, np.int32).reshape(-1, 3)), blocks)

    def blocks_of(self, systems: Systems) -> list[tuple[int, int, int]]:
        """Center type and types of both neighbors of each block of the result."""
        pairs = combinations_with_replacement(systems.types, 2)
        return [(t, *pair) for t, pair in product(systems.types, pairs)]


@eqx.filter_jit
def _power_spectrum(soap: SoapPowerSpectrum, systems: Systems) -> list[jax.Array]:
    """The values of all blocks, as one program, also outside of one."""
    of_types = {t: soap.expansion.of_atoms(systems, t) for t in systems.types}
    products = {}
    for one, other in combinations_with_replacement(systems.types, 2):
        scale = 1.0 if one == other else np.sqrt(2.0)
        products[one, other] = scale * _products(of_types[one], of_types[other])
    return [
        rows_of(products[one, other], jnp.asarray(systems.rows[center]))
        for center, one, other in soap.blocks_of(systems)
    ]


_KEYS = ["center_type", "neighbor_1_type", "neighbor_2_type"]


def _products(one: list[jax.Array], other: list[jax.Array]) -> jax.Array:
    """Summed over m, for all degrees: shape ``(atoms, properties)``."""
    parts = []
    for degree, (a, b) in enumerate(zip(one, other, strict=True)):
        factor = (-1) ** degree / np.sqrt(2.0 * degree + 1)
        product = factor * jnp.einsum("amn,amk->ank", a, b)
        parts.append(product.reshape(a.shape[0], a.shape[2] * b.shape[2]))
    return jnp.concatenate(parts, axis=1)
