"""Energies of frames by a JAX function of features that are computed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from ..._types.block import TensorBlock
from ..._types.conversion import check_not_narrowed
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ...autodiff import connect_gradients
from ...layout import Layout, PaddedBatch
from ...operations.checks import check_type
from ._energies import ENERGY, check_gradients_known, energy_map
from ._frames import Frames
from ._parameters import parameters
from ._results import one_for_each

Maps = dict[str, TensorMap]


class FeaturePotential:
    """Energies that are a JAX function of features which another program computes.

    Calling it with frames computes features, pads them with a ``Layout``, and runs one
    compiled program: energies, and their derivatives through the stored gradients of
    the features (:func:`metatensor_jax.connect_gradients`). The result is what
    :func:`energies` gives for data: energies with the gradients ``positions`` and
    ``strain``. The layout has room for more neighbors than there are at first, so that
    dynamics is compiled once; when it does not suffice, there is a larger one.

    :param energy: takes features and the labels of all systems, ``[system]``; gives a
        map with one block, one property, and these samples (``out_samples=systems`` in
        sums). It is called while JAX traces it, so what else it uses is a constant.
    :param features: takes frames, and gives a map whose samples have ``system`` (the
        number of a frame in the list), with all gradients that are asked for. Its keys
        and properties should not depend on the frames.
    :param gradients: which gradients to take: ``"positions"``, ``"strain"``
    :param room: make room for so many times the rows of the features

    >>> import metatensor_jax as mts
    >>> from ase import Atoms
    >>> from metatensor_jax.interop.ase import FeaturePotential, parameters
    >>> def squares(frames):  # of the distance to the origin, with their gradient
    ...     block = parameters(frames, "positions", dtype="float32")["positions"]
    ...     atoms, p, single = block.samples, block.properties, mts.Labels.single()
    ...     rows = [(i, *row) for i, row in enumerate(atoms.values)]
    ...     samples = mts.Labels(["sample", "system", "atom"], rows)
    ...     slope = mts.TensorBlock(2 * block.values, samples, block.components, p)
    ...     values = (block.values**2).sum(axis=1)
    ...     squared = mts.TensorBlock(values, atoms, [], p, {"positions": slope})
    ...     return mts.TensorMap(single, [squared])
    >>> def energy(features, systems):  # springs of 1 eV/Å² to the origin
    ...     of_atoms = mts.multiply(features, 0.5)
    ...     return mts.sum_over_samples(of_atoms, "atom", out_samples=systems)
    >>> spring = FeaturePotential(energy, squares, ["positions"])
    >>> tensor = spring([Atoms("H", [[0, 0, 2.0]]), Atoms("H2", [[0, 3.0, 0]] * 2)])
    >>> tensor.block().values.tolist()
    [[2.0], [9.0]]
    >>> tensor.block().gradient("positions").values[0, :, 0].tolist()
    [0.0, 0.0, 2.0]
    """

    def __init__(
        self,
        energy: Callable[[TensorMap, Labels], TensorMap],
        features: Callable[[list[Atoms]], TensorMap],
        gradients: Collection[str] = ("positions", "strain"),
        *,
        room: float = 4 / 3,
    ) -> None:
        check_gradients_known(gradients)
        if not room >= 1:
            raise MetatensorError(f"`room` must be at least 1, not {room}")
        self.features = features
        self.gradients = tuple(gradients)
        self.room = room
        self._layout: Layout | None = None
        self._evaluate = jax.jit(partial(_evaluate, energy, self.gradients))

    def __call__(self, frames: Sequence[Atoms]) -> TensorMap:
        """Energies, and their gradients.

        :raises MetatensorError: no frame; positions that are not finite; features
            without the gradients that are asked for; a function that gives anything but
            one energy for each system
        :raises TypeError: features that are no map, or in 64 bits if JAX is in its
            32-bit mode
        """
        numbered = Frames.some(frames)
        maps = self._maps(numbered)
        layout = self._layout_for(maps, len(numbered.frames))
        batch = layout.pad(maps)
        unpadded = layout.unpad(self._evaluate(batch), batch.systems)
        assert isinstance(unpadded, TensorMap)
        return unpadded

    def _maps(self, numbered: Frames) -> Maps:
        """All that the program depends on, and the labels of what it gives."""
        features = self.features(numbered.frames)
        check_type(features, "features(frames)", TensorMap)
        dtype = features.dtype
        if dtype is None:
            raise MetatensorError("the features of these frames have no blocks at all")
        check_not_narrowed(dtype)  # which `jax.jit` would do
        blocks = {}
        if self.gradients:
            blocks = parameters(numbered.frames, *self.gradients, dtype=dtype)
        maps = {name: TensorMap(Labels.single(), [b]) for name, b in blocks.items()}
        zeros = {name: np.zeros_like(b.values[..., 0]) for name, b in blocks.items()}
        energies = np.zeros(len(numbered.frames), dtype)
        return {
            **maps,
            "features": features,
            "energies": energy_map(numbered, energies, zeros),
        }

    def _layout_for(self, maps: Maps, n_systems: int) -> Layout:
        if self._layout is None or not _fits(self._layout, maps, n_systems):
            capacities = _capacities(maps, self.gradients, self.room)
            self._layout = Layout.from_capacities(maps, capacities, n_systems)
        return self._layout


def _fits(layout: Layout, maps: Maps, n_systems: int) -> bool:
    if n_systems > layout.systems:
        return False
    try:
        layout.bucket(maps)
    except MetatensorError:  # too many rows, or another block
        return False
    return True


def _capacities(maps: Maps, gradients: Sequence[str], room: float) -> dict[str, Any]:
    """Rows of features and of atoms have room to spare, those of systems do not.

    What is computed for the parameters gets the labels of ``energies``: both have the
    same room.
    """
    energies = maps["energies"].block()
    rows = {"strain": len(energies)}
    if "positions" in gradients:
        n_atoms = len(energies.gradient("positions"))
        rows["positions"] = max(1, math.ceil(room * n_atoms))
    rows = {name: rows[name] for name in gradients}
    return {
        "features": _roomy(maps["features"], room),
        "energies": {"samples": len(energies), **rows},
        **{name: {"samples": n} for name, n in rows.items()},
    }


def _roomy(tensor: TensorMap, room: float) -> dict[str, list[int]]:
    """Room for samples and gradients of each block."""
    capacities: dict[str, list[int]] = {}

    def add(path: str, block: TensorBlock) -> None:
        n = max(1, math.ceil(room * len(block)))
        capacities.setdefault(path or "samples", []).append(n)
        for name, gradient in block.gradients():
            add(f"{path}/{name}" if path else name, gradient)

    for block in tensor:
        add("", block)
    return capacities


def _evaluate(
    energy: Callable[[TensorMap, Labels], TensorMap],
    gradients: Sequence[str],
    batch: PaddedBatch,
) -> TensorMap:
    blocks = {name: batch[name].block() for name in gradients}

    def total(values: dict[str, Any]) -> tuple[Any, Any]:
        given: dict[str, Any] = {
            name: blocks[name].with_values(x) for name, x in values.items()
        }
        features = batch["features"]
        if given:
            features = connect_gradients(features, **given)
        energies = one_for_each(energy(features, batch.out_samples), batch.out_samples)
        return energies.sum(), energies

    at = {name: jnp.asarray(block.values) for name, block in blocks.items()}
    by, energies = jax.grad(total, has_aux=True)(at)
    labels = batch["energies"].block()
    stored = {
        name: labels.gradient(name).with_values(x.astype(energies.dtype))
        for name, x in by.items()
    }
    block = TensorBlock(energies, labels.samples, [], ENERGY, stored)
    return TensorMap(Labels.single(), [block])
