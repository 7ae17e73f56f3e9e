"""Maps in the layout that metatrain wants, and the options that describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ..._types.block import TensorBlock
from ..._types.conversion import is_inexact
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ..ase._energies import COMPONENTS, ENERGY
from ..ase._frames import XYZ, Frames
from ..ase._results import by_positions, by_strain
from ._parts import Entry, Options, Parts

_CARTESIAN = "the key `_` and the components [], [xyz] or [xyz_1, xyz_2, ...]"
_SPHERICAL = "the keys `o3_lambda`, `o3_sigma` and the component [o3_mu]"


def parts_of(
    frames: Sequence[Atoms],
    targets: Mapping[str, TensorMap],
    extra_data: Mapping[str, TensorMap],
    units: Mapping[str, str],
    systems: Sequence[int] | None,
) -> Parts:
    """All that is to be written; raise unless metatrain can take it."""
    given = Frames.of(frames, systems)
    if not given.frames:
        raise MetatensorError("there are no frames, and metatrain has no empty data")
    both = sorted(set(targets) & set(extra_data))
    if both:
        raise MetatensorError(f"these are targets and extra data: {both}")
    unknown = sorted(set(units) - set(targets) - set(extra_data))
    if unknown:
        raise MetatensorError(
            f"there are units for {unknown}, but only the maps "
            f"{[*targets, *extra_data]}"
        )
    made = [
        {name: _entry(given, name, tensor, units) for name, tensor in maps.items()}
        for maps in (targets, extra_data)
    ]
    return Parts(Frames.of(given.frames, None), *made)


def _entry(
    given: Frames, name: str, tensor: TensorMap, units: Mapping[str, str]
) -> Entry:
    if not isinstance(tensor, TensorMap):
        raise TypeError(f"'{name}' must be a TensorMap, not {type(tensor).__name__}")
    if "/" in name or name in ("", "system"):
        raise MetatensorError(f"a map can not be called '{name}' in a data set")
    options = _described(name, tensor)
    is_energy = options["quantity"] == "energy"
    options["unit"] = units.get(name, "eV" if is_energy else "")
    numbered = Frames.of(given.frames, None)
    per_atom = options["sample_kind"] == "atom"
    wanted, labels = (
        numbers.atom_labels() if per_atom else numbers.system_labels()
        for numbers in (given, numbered)
    )
    blocks = []
    for key, block in tensor.items():
        what = f"the block {key.print()} of '{name}'"
        rows = _rows(what, block.samples, wanted)
        gradients = _gradients(given, block, rows) if is_energy else {}
        if not is_energy and block.gradients_list():
            raise MetatensorError(
                f"{what} has the gradients {block.gradients_list()}, but in metatrain "
                "only energies have some: one for each system, with the property "
                f"'energy'. These are {options['sample_kind']} samples with the "
                f"properties {block.properties.names}"
            )
        values = _double(what, block)[rows]
        blocks.append(
            TensorBlock(values, labels, block.components, block.properties, gradients)
        )
    return Entry(TensorMap(tensor.keys, blocks, tensor.info()), options)


# --- what it is ----------------------------------------------------------------------


def _described(name: str, tensor: TensorMap) -> Options:
    """The options of a target: what metatrain has to know before it reads it."""
    samples = {tuple(block.samples.names) for block in tensor}
    kinds = {("system",): "system", ("system", "atom"): "atom"}
    if len(samples) != 1 or not samples <= set(kinds):
        raise MetatensorError(
            f"the samples of '{name}' must be [system] or [system, atom], not "
            f"{sorted(samples)}"
        )
    kind = kinds[samples.pop()]
    sizes = [len(block.properties) for block in tensor]
    same = len(set(sizes)) == 1
    type_ = _type(name, tensor, None if same else sizes)
    is_energy = (
        type_ == "scalar" and kind == "system" and tensor.block(0).properties == ENERGY
    )
    options: Options = {
        "quantity": "energy" if is_energy else "",
        "sample_kind": kind,
        "type": type_,
        "num_subtargets": sizes[0] if same else 1,
    }
    if is_energy:
        there = tensor.block(0).gradients_list()
        options["forces"] = "positions" in there
        options["stress"] = "strain" in there
    return options


def _type(name: str, tensor: TensorMap, sizes: list[int] | None) -> Any:
    """The field ``type``; ``sizes`` if the numbers of properties differ."""
    components = [[axis.names[0] for axis in block.components] for block in tensor]
    axes = [axis for block in tensor for axis in block.components]
    if tensor.keys == Labels.single():
        rank = len(components[0])
        wanted = ["xyz"] if rank == 1 else [f"xyz_{i + 1}" for i in range(rank)]
        if components[0] == wanted and all(
            np.array_equal(axis.values, XYZ.values) for axis in axes
        ):
            return {"cartesian": {"rank": rank}} if rank else "scalar"
    elif tensor.keys.names == ["o3_lambda", "o3_sigma"] and len(tensor):
        degrees = tensor.keys.column("o3_lambda").tolist()
        mus = [Labels("o3_mu", np.arange(-l, l + 1)[:, None]) for l in degrees]
        if all(
            list(block.components) == [mu]
            for block, mu in zip(tensor, mus, strict=True)
        ):
            return {"spherical": {"irreps": _irreps(tensor.keys, sizes)}}
    raise MetatensorError(
        f"'{name}' must have {_CARTESIAN}; or {_SPHERICAL}, with 2 lambda + 1 entries. "
        f"It has the keys\n{tensor.keys}\nand the components {components}"
    )


def _irreps(keys: Labels, sizes: list[int] | None) -> list[dict[str, int]]:
    irreps = [
        {"o3_lambda": degree, "o3_sigma": sigma}
        for degree, sigma in keys.values.tolist()
    ]
    if sizes is not None:
        irreps = [
            {**irrep, "num": size} for irrep, size in zip(irreps, sizes, strict=True)
        ]
    return irreps


# --- rows ----------------------------------------------------------------------------


def _rows(what: str, samples: Labels, wanted: Labels) -> np.ndarray:
    """For each of the wanted samples, its row; raise unless there are just these."""
    rows = samples.select(wanted)
    if not len(rows) == len(wanted) == len(samples):
        raise MetatensorError(
            f"{what} must have one row for each of the frames or their atoms, but "
            f"{len(wanted.difference(samples))} are missing and "
            f"{len(samples.difference(wanted))} are of others\nneeded: {wanted}\n"
            f"there: {samples}\nIf the frames are a part of a data set, give their "
            "numbers with systems="
        )
    return rows


def _double(what: str, block: TensorBlock) -> np.ndarray:
    """The values as metatrain wants them: real, with 64 bits."""
    values = np.asarray(block.values)
    if values.dtype.kind not in "biuf" and not (
        is_inexact(values.dtype) and values.dtype.kind != "c"
    ):
        raise TypeError(
            f"{what} must hold real numbers, as all of metatrain's data, not "
            f"{values.dtype}"
        )
    return values.astype(np.float64)


def _gradients(
    given: Frames, block: TensorBlock, rows: np.ndarray
) -> dict[str, TensorBlock]:
    """Those of energies, for all atoms in order."""
    unknown = sorted(set(block.gradients_list()) - set(COMPONENTS))
    if unknown:
        raise MetatensorError(
            f"energies have gradients with respect to {list(COMPONENTS)} in metatrain, "
            f"not {unknown}"
        )
    dense: dict[str, tuple[np.ndarray, Labels]] = {}
    if block.has_gradient("positions"):
        of_atoms = Frames.of(given.frames, None).position_labels().remove("system")
        dense["positions"] = by_positions(given, block, rows), of_atoms
    if block.has_gradient("strain"):
        of_systems = Labels.range("sample", len(rows))
        dense["strain"] = by_strain(block)[rows], of_systems
    return {
        name: TensorBlock(values[..., None], samples, COMPONENTS[name], ENERGY)
        for name, (values, samples) in dense.items()
    }
