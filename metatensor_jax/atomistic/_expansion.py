"""Spherical expansion: the density of neighbors, in radial functions and harmonics."""

from __future__ import annotations

import functools
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types.block import TensorBlock
from .._types.conversion import check_not_narrowed
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._types.tensor import TensorMap
from ._harmonics import solid_harmonics
from ._radial import RadialBasis, RadialTable
from ._systems import Systems


class SphericalExpansion(eqx.Module):
    r"""The density of neighbors of each atom, in radial functions and harmonics.

    .. math:: c_{i a n l m} = \sum_{j \in a} f_c(r_{ij}) \, I_{nl}(r_{ij}) \,
        Y_l^m(\hat r_{ij})

    over the neighbors of type a, the atom itself among them. The result has featomic's
    keys and labels: ``o3_lambda``, ``o3_sigma``, ``center_type`` and ``neighbor_type``;
    samples ``[system, atom]``, the component ``o3_mu``, properties ``[n]``. It is
    differentiable with respect to positions and cells.

    :param cutoff: the radius of environments, in Å
    :param max_angular: the largest degree l
    :param radial: the radial functions
    :param density_width: :math:`\sigma` of the Gaussians, in Å
    :param smoothing_width: over which distance :math:`f_c` goes to zero before the
        cutoff, as a cosine, in Å

    >>> from ase.build import molecule
    >>> from metatensor_jax.atomistic import Gto
    >>> systems = Systems.from_ase(molecule("H2O"), 3.0, dtype="float32")
    >>> expansion = SphericalExpansion(3.0, 2, Gto(max_radial=3), 0.4)
    >>> expansion(systems).block(o3_lambda=2, center_type=8, neighbor_type=1).shape
    (1, 5, 4)
    """

    cutoff: float = eqx.field(static=True)
    max_angular: int = eqx.field(static=True)
    radial: RadialBasis = eqx.field(static=True)
    density_width: float = eqx.field(static=True)
    smoothing_width: float = eqx.field(static=True)

    def __init__(
        self,
        cutoff: float,
        max_angular: int,
        radial: RadialBasis,
        density_width: float,
        smoothing_width: float = 0.5,
    ) -> None:
        for name, value in (("cutoff", cutoff), ("density_width", density_width)):
            if not value > 0:
                raise MetatensorError(f"`{name}` must be above 0 Å, not {value}")
        if not 0 <= smoothing_width <= cutoff:
            raise MetatensorError(
                f"`smoothing_width` must be from 0 Å to the cutoff of {cutoff} Å, not "
                f"{smoothing_width}"
            )
        if max_angular < 0:
            raise MetatensorError(
                f"`max_angular` must be at least 0, not {max_angular}"
            )
        self.cutoff, self.max_angular = float(cutoff), int(max_angular)
        self.radial, self.density_width = radial, float(density_width)
        self.smoothing_width = float(smoothing_width)

    @property
    def properties(self) -> Labels:
        """Of all blocks."""
        return Labels.range("n", self.radial.size)

    def __call__(self, systems: Systems) -> TensorMap:
        """Expand the neighbors of all atoms.

        :param systems: with the neighbors of a cutoff that is as large, or larger
        :raises MetatensorError: neighbors of a smaller cutoff
        """
        self.check(systems)
        check_not_narrowed(systems.positions.dtype)
        keys, blocks = [], []
        of_blocks = zip(self.blocks_of(systems), _expand(self, systems), strict=True)
        for (degree, center, neighbor), values in of_blocks:
            keys.append((degree, 1, center, neighbor))
            # the same labels for all blocks of a type, which need not be compared then
            samples, components = systems.samples[center], [_component(degree)]
            blocks.append(TensorBlock(values, samples, components, self.properties))
        return TensorMap(Labels(_KEYS, np.array(keys).reshape(-1, 4)), blocks)

    def blocks_of(self, systems: Systems) -> list[tuple[int, int, int]]:
        """Degree, center type and neighbor type of each block of the result."""
        types = systems.types
        return list(product(range(self.max_angular + 1), types, types))

    def check(self, systems: Systems) -> None:
        """Raise unless systems have all neighbors within the cutoff."""
        if systems.cutoff < self.cutoff:
            raise MetatensorError(
                f"the neighbors of these systems are those within {systems.cutoff} Å, "
                f"but the cutoff is {self.cutoff} Å"
            )

    def of_atoms(self, systems: Systems, neighbor_type: int) -> list[jax.Array]:
        """The coefficients of all atoms as bare arrays, for neighbors of one type.

        :returns: for each degree, shape ``(atoms, 2 l + 1, properties)``
        """
        positions, cells = jnp.asarray(systems.positions), jnp.asarray(systems.cells)
        neighbors = systems.neighbors[neighbor_type]
        system = jnp.asarray(systems.system)
        vectors, is_there = neighbors.vectors(positions, cells, system)
        square = jnp.sum(vectors**2, axis=-1)
        is_zero = square == 0  # where a root has no derivative
        distance = jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))
        weight = jnp.where(is_there, self._smoothing(distance), 0)
        radial = self._radial_integrals(distance) * weight[..., None, None]
        harmonics = solid_harmonics(vectors, self.max_angular)
        return [
            jnp.einsum("akm,akn->amn", of_degree, radial[:, :, degree])
            for degree, of_degree in enumerate(harmonics)
        ]

    def _smoothing(self, distance: jax.Array) -> jax.Array:
        """From 1 to 0 at the cutoff."""
        if self.smoothing_width == 0:
            return jnp.where(distance < self.cutoff, 1.0, 0.0).astype(distance.dtype)
        x = (distance - self.cutoff) / self.smoothing_width + 1
        return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(x, 0, 1)))

    def _radial_integrals(self, distance: jax.Array) -> jax.Array:
        """Over :math:`r^l`; shape ``(atoms, room, degrees, properties)``."""
        arguments = self.radial, self.cutoff, self.density_width, self.max_angular
        table = _table(*arguments)
        x = distance / table.step
        at = jnp.clip(x.astype(np.int32), 0, table.n_points - 1)
        x = (x - at.astype(x.dtype))[..., None]
        c = jnp.asarray(table.coefficients.astype(distance.dtype))[at]
        value = c[..., 0, :] + x * (
            c[..., 1, :] + x * (c[..., 2, :] + x * c[..., 3, :])
        )
        return value.reshape(*distance.shape, self.max_angular + 1, self.radial.size)


@eqx.filter_jit
def _expand(expansion: SphericalExpansion, systems: Systems) -> list[jax.Array]:
    """The values of all blocks, as one program, also outside of one."""
    of_atoms = {t: expansion.of_atoms(systems, t) for t in systems.types}
    return [
        rows_of(of_atoms[neighbor][degree], jnp.asarray(systems.rows[center]))
        for degree, center, neighbor in expansion.blocks_of(systems)
    ]


_KEYS = ["o3_lambda", "o3_sigma", "center_type", "neighbor_type"]

#: quadrature takes a second, and is the same for equal hyper-parameters
_table = functools.lru_cache(RadialTable.of)


def _component(degree: int) -> Labels:
    return Labels("o3_mu", np.arange(-degree, degree + 1)[:, None])


def rows_of(values: jax.Array, rows: jax.Array) -> jax.Array:
    """Of the atoms of one type; zero for atoms that there are not."""
    if values.shape[0] == 0:
        return jnp.zeros((rows.shape[0], *values.shape[1:]), values.dtype)
    return jnp.take(values, rows, axis=0, mode="fill", fill_value=0)
