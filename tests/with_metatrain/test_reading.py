"""What we write is what metatrain's own code reads, and the other way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from runs import mtt

import metatensor_jax as mts
from metatensor_jax.interop import ase as structures
from metatensor_jax.interop.metatrain import read_dataset, write_dataset

pytest.importorskip("metatrain", exc_type=ImportError)

# metatrain and PyTorch warn of their own future; that is not ours to change
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

FORMATS = ["data.zip", "data.traj", "data"]


def crystals() -> list[Any]:
    """Crystals of one and of several atoms, without any symmetry."""
    made = []
    for seed, cubic in enumerate([True, False, True, True]):
        rng = np.random.default_rng(seed)
        frame = bulk("Cu", cubic=cubic)
        frame.set_cell(frame.cell.array + 0.2 * rng.normal(size=(3, 3)))
        frame.rattle(0.1, seed=seed)
        frame.calc = EMT()
        for name, shape in [("dipole", 3), ("field", 3), ("alpha", (3, 3))]:
            frame.info[name] = rng.normal(size=shape)
        frame.info["t"] = rng.normal()
        frame.set_array("charges", rng.normal(size=len(frame)))
        made.append(frame)
    return made


def maps(frames: Any, spherical: bool) -> tuple[Any, Any]:
    """Targets and extra data, of all kinds."""
    targets = {
        "energy": structures.energies(frames, ["positions", "strain"]),
        "mtt::dipole": structures.tensors(frames, "dipole", 1),
        "mtt::alpha": structures.tensors(frames, "alpha", 2),
        "mtt::charges": structures.tensors(frames, "charges", 0, per="atom"),
    }
    if spherical:
        targets["mtt::lambda"] = structures.tensors(
            frames, "alpha", 2, basis="spherical", symmetric=False
        )
    return targets, {"mtt::t": structures.tensors(frames, "t", 0)}


def read_by_metatrain(section: Any) -> tuple[Any, Any, Any]:
    """Its data set, and what it knows of targets and extra data."""
    from metatrain.utils.data import get_dataset
    from metatrain.utils.omegaconf import expand_dataset_config
    from omegaconf import OmegaConf

    (options,) = expand_dataset_config(OmegaConf.create([section]))
    return get_dataset(options)


@pytest.mark.parametrize("name", FORMATS)
def test_metatrain_reads_what_we_write(name: str, tmp_path: Path) -> None:
    frames = crystals()
    targets, extra = maps(frames, spherical=name != "data")
    section = write_dataset(tmp_path / name, frames, targets, extra)
    dataset, infos, extra_infos = read_by_metatrain(section)
    assert len(dataset) == len(frames)
    assert set(infos) == set(targets)
    assert set(extra) <= set(extra_infos)
    assert infos["energy"].gradients == ["positions", "strain"]
    single = name == "data"
    for i, frame in enumerate(frames):
        sample = dataset[i]
        close = {"rtol": 1e-5 if single else 1e-12, "atol": 1e-5 if single else 1e-12}
        system = sample["system"]
        assert system.types.tolist() == frame.numbers.tolist()
        np.testing.assert_allclose(system.positions, frame.positions, **close)
        np.testing.assert_allclose(system.cell, frame.cell.array, **close)
        energy = sample["energy"].block()
        found = {
            "energy": energy.values.item(),
            "forces": -energy.gradient("positions").values[..., 0].numpy(),
            "strain": energy.gradient("strain").values[0, ..., 0].numpy(),
        }
        stress = frame.get_stress(voigt=False)
        np.testing.assert_allclose(
            found["energy"], frame.calc.results["energy"], **close
        )
        np.testing.assert_allclose(found["forces"], frame.get_forces(), **close)
        np.testing.assert_allclose(
            found["strain"], stress * frame.get_volume(), **close
        )
        for target, known in [
            ("mtt::dipole", frame.info["dipole"]),
            ("mtt::alpha", frame.info["alpha"]),
            ("mtt::charges", frame.arrays["charges"]),
            ("mtt::t", frame.info["t"]),
        ]:
            values = sample[target].block().values.numpy().squeeze()
            np.testing.assert_allclose(values, np.squeeze(known), **close)
        if not single:
            blocks = sample["mtt::lambda"].blocks()
            ours = [block.values[i] for block in targets["mtt::lambda"]]
            for block, values in zip(blocks, ours, strict=True):
                np.testing.assert_allclose(block.values[0], values, **close)


@pytest.mark.parametrize("name", ["data.zip", "data"])
def test_we_read_what_metatrain_writes(name: str, tmp_path: Path) -> None:
    """Its writers, with structures and maps that it has read from us."""
    from metatrain.utils.data.writers import DiskDatasetWriter, MemmapWriter

    frames = crystals()
    targets, _ = maps(frames, spherical=name != "data")
    section = write_dataset(tmp_path / "ours.zip", frames, targets)
    dataset, _, _ = read_by_metatrain(section)
    writer_class = DiskDatasetWriter if name.endswith(".zip") else MemmapWriter
    writer = writer_class(str(tmp_path / name))
    for i in range(len(frames)):
        sample = dataset[i]
        of_system = {
            target: _alone(mts.interop.from_metatensor(sample[target]))
            for target in targets
        }
        writer.write([sample["system"]], of_system)
    writer.finish()
    section["systems"]["read_from"] = str(tmp_path / name)
    if name == "data":
        gradients = {part: {"key": f"energy_{part}"} for part in ("forces", "stress")}
        section["targets"]["energy"].update(gradients)
    again, ours = read_dataset(section), read_dataset(tmp_path / "ours.zip")
    close = {"rtol": 1e-5, "atol": 1e-5} if name == "data" else {"rtol": 1e-12}
    for frame, expected in zip(again.frames, frames, strict=True):
        np.testing.assert_allclose(frame.positions, expected.positions, **close)
        np.testing.assert_allclose(frame.cell.array, expected.cell.array, **close)
    for target, tensor in ours.targets.items():
        for key, block in tensor.items():
            found = again.targets[target].block(key)
            assert found.samples == block.samples
            assert found.components == block.components
            np.testing.assert_allclose(found.values, block.values, **close)
            assert found.gradients_list() == block.gradients_list()
            for parameter, gradient in block.gradients():
                stored = found.gradient(parameter)
                assert stored.samples == gradient.samples
                assert stored.components == gradient.components
                np.testing.assert_allclose(stored.values, gradient.values, **close)


def _alone(tensor: mts.TensorMap) -> Any:
    """The map of one system, which is number 0 for metatrain's writers."""
    blocks = []
    for block in tensor:
        rows = block.samples.values.copy()
        rows[:, 0] = 0
        blocks.append(
            mts.TensorBlock(
                block.values,
                mts.Labels(block.samples.names, rows),
                block.components,
                block.properties,
                dict(block.gradients()),
            )
        )
    alone = mts.TensorMap(tensor.keys, blocks)
    return mts.interop.to_metatensor(alone, package="torch", copy=True)


def test_training_on_files_of_structures(tmp_path: Path) -> None:
    """Spherical matrices, among them a pseudovector, and per-atom Cartesian vectors."""
    frames = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        frame = molecule("H2O")
        frame.rattle(0.1, seed=seed)
        frame.info["alpha"] = rng.normal(size=(3, 3))
        frame.set_array("spin", rng.normal(size=(3, 3)))
        frames.append(frame)
    targets = {
        "mtt::alpha": structures.tensors(
            frames, "alpha", 2, basis="spherical", symmetric=False
        ),
        "mtt::spin": structures.tensors(frames, "spin", 1, per="atom"),
    }
    section = write_dataset(tmp_path / "water.xyz", frames, targets)
    architecture = {
        "name": "soap_bpnn",
        "model": {"soap": {"max_angular": 2, "max_radial": 2}},
        "training": {"num_epochs": 1, "batch_size": 4},
    }
    options = {
        "architecture": architecture,
        "training_set": section,
        "validation_set": 0.25,
        "test_set": 0.0,
        "final_eval": False,
    }
    (tmp_path / "options.yaml").write_text(json.dumps(options))
    (tmp_path / "eval.yaml").write_text(json.dumps(section))
    mtt("mtt train options.yaml", tmp_path)
    mtt(
        "mtt eval model.pt eval.yaml --extensions-dir extensions --batch-size 5 "
        "--no-warm-up --output out.mts",
        tmp_path,
    )
    for name, target in targets.items():
        predicted = mts.load(tmp_path / f"out_{name}.mts")
        assert predicted.keys == target.keys
        for key, block in target.items():
            found = predicted.block(key)
            assert found.samples == block.samples
            assert found.components == block.components
    again = structures.with_tensors(
        frames, "alpha", mts.load(tmp_path / "out_mtt::alpha.mts")
    )
    assert again[0].info["alpha"].shape == (3, 3)
