"""Energies of frames by a JAX function of positions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from numpy.typing import DTypeLike

from ..._types.block import TensorBlock
from ..._types.conversion import check_not_narrowed
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ...autodiff import compute_gradients
from ._energies import ENERGY, check_gradients_known
from ._frames import Frames, types_of
from ._parameters import parameters
from ._results import one_for_each

BOTH = ("positions", "strain")


class Potential:
    r"""Energies that are a JAX function of positions, with forces and stress.

    Calling it with frames gives what :func:`energies` gives for data: a map of energies
    with the gradients ``positions`` and ``strain``, taken by
    :func:`metatensor_jax.compute_gradients` in one reverse pass. It is compiled once
    for frames with the same numbers of atoms: positions, cells and types are data.

    :param energy: takes three blocks by their names: ``positions`` and ``cell`` as
        :func:`parameters` makes them (strained; vectors along which a frame is not
        periodic are zero), and ``types``, the atomic numbers. It gives a map with one
        block, one property, and a row for each system. It is called while JAX traces
        it, so what else it uses is a constant.
    :param gradients: which gradients to take
    :param dtype: of what it takes; JAX's default if None

    >>> import metatensor_jax as mts
    >>> from ase import Atoms
    >>> from metatensor_jax.interop.ase import Potential
    >>> def springs(positions, cell, types):  # of 1 eV/Å² to the origin
    ...     values = (0.5 * positions.values**2).sum(axis=1)
    ...     properties = mts.Labels.range("energy", 1)
    ...     block = mts.TensorBlock(values, positions.samples, [], properties)
    ...     of_atoms = mts.TensorMap(mts.Labels.single(), [block])
    ...     return mts.sum_over_samples(of_atoms, "atom")
    >>> spring = Potential(springs)
    >>> tensor = spring([Atoms("H", [[0, 0, 2.0]]), Atoms("H2", [[0, 3.0, 0]] * 2)])
    >>> tensor.block().values.tolist()
    [[2.0], [9.0]]
    >>> tensor.block().gradient("positions").values[0, :, 0].tolist()
    [0.0, 0.0, 2.0]
    """

    def __init__(
        self,
        energy: Callable[..., TensorMap],
        gradients: Collection[str] = BOTH,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        check_gradients_known(gradients)
        self.dtype = dtype
        self._evaluate = jax.jit(partial(_differentiate, energy, tuple(gradients)))

    def __call__(self, frames: Sequence[Atoms]) -> TensorMap:
        """Energies, and their gradients.

        :raises MetatensorError: no frame; positions or cells that are not finite; a
            function that gives anything but one energy for each system
        :raises TypeError: a ``dtype`` of 64 bits, if JAX is in its 32-bit mode
        """
        numbered = Frames.some(frames)
        dtype = self.dtype or jnp.zeros(()).dtype
        check_not_narrowed(dtype)  # which `jax.jit` would do
        blocks = parameters(frames, *BOTH, "cell", dtype=dtype)
        types = TensorBlock(
            types_of(numbered)[:, None],
            numbered.atom_labels(),
            [],
            Labels.range("type", 1),
        )
        return self._evaluate(blocks, types)


def _differentiate(
    energy: Callable[..., TensorMap],
    gradients: Sequence[str],
    blocks: Mapping[str, TensorBlock],
    types: TensorBlock,
) -> TensorMap:
    def strained(**given: TensorBlock) -> TensorMap:
        now = {**blocks, **given}
        strain, atoms = now["strain"].values[..., 0], now["positions"]
        system = np.repeat(np.arange(len(strain)), _sizes(atoms.samples, len(strain)))
        positions = _deformed(atoms.values[:, None], strain[system])[:, 0]
        cell = _deformed(now["cell"].values, strain)
        of_systems = energy(
            positions=atoms.with_values(positions),
            cell=now["cell"].with_values(cell),
            types=types,
        )
        samples = now["strain"].samples
        values = one_for_each(of_systems, samples)
        return TensorMap(Labels.single(), [TensorBlock(values, samples, [], ENERGY)])

    at: dict[str, Any] = {name: blocks[name] for name in gradients}
    return compute_gradients(strained, **at) if at else strained()


def _deformed(vectors: Any, strain: Any) -> Any:
    """Vectors with the shape (n, k, 3, 1), after a strain for each n."""
    moved = jnp.einsum("nij,nkj->nki", strain, vectors[..., 0], precision="highest")
    return vectors + moved[..., None]


def _sizes(atoms: Labels, n_systems: int) -> np.ndarray:
    return np.bincount(atoms.column("system"), minlength=n_systems)
