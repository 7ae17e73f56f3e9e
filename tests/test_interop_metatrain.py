"""Data sets for metatrain: what is written is read back, and what can not be, is said.

That metatrain reads the same, and trains on it, is tested in ``with_metatrain/``.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metatensor_jax as mts

ase = pytest.importorskip("ase")

from frames import copper, known, salt  # noqa: E402
from systems import molecule  # noqa: E402

from metatensor_jax.interop import ase as structures  # noqa: E402
from metatensor_jax.interop.metatrain import (  # noqa: E402
    read_dataset,
    write_dataset,
)

FORMATS = ["data.zip", "data.traj", "data.xyz", "data"]
RNG = np.random.default_rng(0)


def crystals() -> list[Any]:
    """Two crystals of different sizes, with all that frames can know."""
    made = []
    for seed, frame in enumerate([copper(), salt(), copper(seed=5)]):
        rng = np.random.default_rng(seed)
        n = len(frame)
        (frame,) = known(
            frame,
            energy=float(rng.normal()),
            forces=rng.normal(size=(n, 3)),
            stress=rng.normal(size=6),
        )
        frame.info["dipole"] = rng.normal(size=3)
        frame.info["temperature"] = 300.0 + seed
        matrix = rng.normal(size=(3, 3))
        frame.info["polarizability"] = matrix + matrix.T
        frame.set_array("charges", rng.normal(size=n))
        made.append(frame)
    return made


def targets(frames: Any, spherical: bool, **options: Any) -> dict[str, mts.TensorMap]:
    made = {
        "energy": structures.energies(frames, ["positions", "strain"], **options),
        "mtt::dipole": structures.tensors(frames, "dipole", 1, **options),
        "mtt::alpha": structures.tensors(frames, "polarizability", 2, **options),
        "mtt::charges": structures.tensors(frames, "charges", 0, per="atom", **options),
    }
    if spherical:
        made["mtt::alpha"] = structures.tensors(
            frames, "polarizability", 2, basis="spherical", **options
        )
    return made


def extra(frames: Any, **options: Any) -> dict[str, mts.TensorMap]:
    return {"mtt::t": structures.tensors(frames, "temperature", 0, **options)}


def in_layout(tensor: mts.TensorMap) -> mts.TensorMap:
    """With the gradient samples of metatrain."""
    block = tensor.block(0)
    if not block.has_gradient("positions"):
        return tensor
    gradient = block.gradient("positions")
    renamed = mts.TensorBlock(
        gradient.values,
        gradient.samples.remove("system"),
        gradient.components,
        gradient.properties,
    )
    return with_gradients(tensor, {**dict(block.gradients()), "positions": renamed})


def with_gradients(tensor: mts.TensorMap, gradients: Any) -> mts.TensorMap:
    """With these in the place of those that the only block has."""
    block = tensor.block()
    changed = mts.TensorBlock(
        block.values, block.samples, block.components, block.properties, gradients
    )
    return mts.TensorMap(tensor.keys, [changed])


def double(tensor: mts.TensorMap) -> mts.TensorMap:
    """The only block in 64 bits, as NumPy."""
    block = tensor.block()
    wide = mts.TensorBlock(
        np.asarray(block.values, np.float64),
        block.samples,
        block.components,
        block.properties,
    )
    gradients = {
        name: gradient.with_values(np.asarray(gradient.values, np.float64))
        for name, gradient in block.gradients()
    }
    return with_gradients(mts.TensorMap(tensor.keys, [wide]), gradients)


# === there and back ================================================================


@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back(name: str, tmp_path: Path, x64: bool) -> None:
    frames = crystals()
    given, more = targets(frames, spherical=name != "data"), extra(frames)
    section = write_dataset(tmp_path / name, frames, given, more)
    again = read_dataset(json.loads(json.dumps(section)))
    single = name == "data"
    rtol = 2e-6 if single else 1e-14
    assert list(again.targets) == list(given)
    for key, tensor in given.items():
        found = again.targets[key]
        assert found.dtype == (np.float32 if single else np.float64)
        expected = in_layout(tensor)
        if single:
            # names of properties are not stored
            found = double(found)
            if key != "energy":
                called = [key.removeprefix("mtt::")]
                assert found.block().properties.names == called
                found = mts.rename_dimension(
                    found, "properties", called[0], *expected.block().properties.names
                )
        mts.allclose_raise(found, expected, rtol=rtol, atol=rtol)
    temperature = again.extra_data["mtt::t"].block().values[:, 0].tolist()
    assert temperature == [300.0, 301.0, 302.0]
    digits = {"data.xyz": 1e-8, "data": 1e-6}.get(name, 0)
    for ours, before in zip(again.frames, frames, strict=True):
        np.testing.assert_array_equal(ours.numbers, before.numbers)
        np.testing.assert_allclose(ours.positions, before.positions, atol=digits)
        np.testing.assert_allclose(ours.cell.array, before.cell.array, atol=digits)
        assert ours.pbc.all()


def test_forces_and_stress_are_those_of_the_frames(tmp_path: Path) -> None:
    frames = crystals()
    for name in FORMATS:
        given = {"energy": structures.energies(frames, ["positions", "strain"])}
        dataset = read_dataset(write_dataset(tmp_path / name, frames, given))
        again = structures.with_energies(dataset.frames, dataset.targets["energy"])
        for found, frame in zip(again, frames, strict=True):
            rtol = 1e-5 if name == "data" else 1e-7
            np.testing.assert_allclose(
                found.get_forces(), frame.get_forces(), rtol=rtol
            )
            np.testing.assert_allclose(
                found.get_stress(), frame.get_stress(), rtol=rtol
            )


def test_rows_come_in_the_order_of_frames_and_atoms(tmp_path: Path) -> None:
    """Maps may have their rows in any order, some gradient rows missing."""
    frames = [molecule("H2O"), molecule("HCN", 1)]
    samples = mts.Labels("system", [[7], [3]])
    rows = [[0, 7, 2], [1, 3, 0]]
    gradient = mts.TensorBlock(
        np.arange(6.0).reshape((2, 3, 1)),
        mts.Labels(["sample", "system", "atom"], rows),
        [mts.Labels.range("xyz", 3)],
        mts.Labels.range("energy", 1),
    )
    block = mts.TensorBlock(
        np.array([[70.0], [30.0]]),
        samples,
        [],
        gradient.properties,
        {"positions": gradient},
    )
    energy = mts.TensorMap(mts.Labels.single(), [block])
    section = write_dataset(
        tmp_path / "a.zip", frames, {"energy": energy}, systems=[3, 7]
    )
    found = read_dataset(section).targets["energy"].block()
    assert found.samples == mts.Labels.range("system", 2)
    assert found.values[:, 0].tolist() == [30.0, 70.0]
    stored = found.gradient("positions")
    assert stored.samples.values.tolist() == [[i, a] for i in (0, 1) for a in range(3)]
    expected = np.zeros((6, 3))
    expected[0], expected[5] = [3, 4, 5], [0, 1, 2]
    np.testing.assert_array_equal(stored.values[..., 0], expected)


def test_an_archive_tells_all_itself(tmp_path: Path) -> None:
    frames = crystals()
    path = tmp_path / "data.zip"
    write_dataset(path, frames, targets(frames, True), extra(frames))
    everything = read_dataset(path)
    assert sorted(everything.targets) == [
        "energy",
        "mtt::alpha",
        "mtt::charges",
        "mtt::dipole",
        "mtt::t",
    ]
    with zipfile.ZipFile(path) as archive:
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_arrays_of_a_folder_stay_on_disk(tmp_path: Path) -> None:
    frames = crystals()
    section = write_dataset(tmp_path / "data", frames, extra(frames))
    values = read_dataset(section).targets["mtt::t"].block().values
    assert not values.flags.owndata
    assert isinstance(values.base, np.memmap)


def test_options(tmp_path: Path) -> None:
    """What metatrain is told about each kind of map."""
    frames = crystals()
    given = {
        **targets(frames, True),
        "mtt::per_atom": structures.tensors(frames, "charges", 0, per="atom"),
    }
    section = write_dataset(
        tmp_path / "a.zip", frames, given, units={"mtt::dipole": "e*A"}
    )
    options = section["targets"]
    assert options["energy"] == {
        "quantity": "energy",
        "sample_kind": "system",
        "type": "scalar",
        "num_subtargets": 1,
        "forces": True,
        "stress": True,
        "unit": "eV",
    }
    irreps = [{"o3_lambda": 0, "o3_sigma": 1}, {"o3_lambda": 2, "o3_sigma": 1}]
    assert options["mtt::alpha"]["type"] == {"spherical": {"irreps": irreps}}
    assert options["mtt::dipole"]["type"] == {"cartesian": {"rank": 1}}
    assert options["mtt::dipole"]["unit"] == "e*A"
    assert options["mtt::per_atom"]["sample_kind"] == "atom"


def test_blocks_with_different_numbers_of_properties(tmp_path: Path) -> None:
    keys = mts.Labels(["o3_lambda", "o3_sigma"], [[0, 1], [1, 1]])
    blocks = [
        mts.TensorBlock(
            np.zeros((1, 2 * l + 1, n)),
            mts.Labels.range("system", 1),
            [mts.Labels("o3_mu", np.arange(-l, l + 1)[:, None])],
            mts.Labels.range("n", n),
        )
        for l, n in [(0, 2), (1, 3)]
    ]
    given = {"mtt::a": mts.TensorMap(keys, blocks)}
    section = write_dataset(tmp_path / "a.zip", [molecule("H2O")], given)
    assert section["targets"]["mtt::a"]["type"]["spherical"]["irreps"] == [
        {"o3_lambda": 0, "o3_sigma": 1, "num": 2},
        {"o3_lambda": 1, "o3_sigma": 1, "num": 3},
    ]


# === what can not be written =======================================================


def energy_of(frames: Any, **by: Any) -> mts.TensorMap:
    values = np.zeros((len(frames), 1))
    block = mts.TensorBlock(
        values,
        mts.Labels.range("system", len(frames)),
        [],
        mts.Labels.range("energy", 1),
        by,
    )
    return mts.TensorMap(mts.Labels.single(), [block])


def refused(path: Path, *args: Any, match: str, **kwargs: Any) -> None:
    before = sorted(path.parent.iterdir())
    with pytest.raises(mts.MetatensorError, match=match):
        write_dataset(path, *args, **kwargs)
    assert sorted(path.parent.iterdir()) == before


def test_messages_about_maps(tmp_path: Path) -> None:
    frames, path = [molecule("H2O"), molecule("HCN")], tmp_path / "a.zip"
    energy = energy_of(frames)
    refused(path, [], {}, match="there are no frames")
    refused(path, frames, {"a/b": energy}, match="can not be called 'a/b'")
    refused(path, frames, {"system": energy}, match="can not be called 'system'")
    refused(
        path, frames, {"energy": energy}, {"energy": energy}, match="and extra data"
    )
    refused(
        path, frames, {"energy": energy}, units={"e": "eV"}, match=r"units for \['e'\]"
    )
    refused(
        path,
        frames[:1],
        {"energy": energy},
        match="of 'energy' must have one row .* but 0 are missing and 1 are of others",
    )
    with pytest.raises(TypeError, match="'energy' must be a TensorMap, not int"):
        write_dataset(path, frames, {"energy": 3})  # type: ignore[dict-item]
    complex_values = mts.TensorMap(
        energy.keys, [energy.block().with_values(np.array([[1j], [1j]]))]
    )
    with pytest.raises(TypeError, match=r"must hold real numbers.*not complex"):
        write_dataset(path, frames, {"energy": complex_values})


def test_messages_about_layouts(tmp_path: Path) -> None:
    frames, path = [molecule("H2O")], tmp_path / "a.zip"
    energy = energy_of(frames)
    pairs = mts.append_dimension(energy, "samples", "pair", 0)
    refused(path, frames, {"mtt::a": pairs}, match=r"must be \[system\] or")
    keys = mts.append_dimension(energy, "keys", "center_type", 1)
    refused(path, frames, {"mtt::a": keys}, match="must have the key `_`")
    volume = mts.TensorBlock(
        np.zeros((1, 1)),
        mts.Labels("sample", [[0]]),
        [],
        mts.Labels.range("energy", 1),
    )
    refused(
        path,
        frames,
        {"energy": energy_of(frames, volume=volume)},
        match=r"with respect to \['positions', 'strain'\] in metatrain, not",
    )
    other = mts.rename_dimension(
        energy_of(frames, volume=volume), "properties", "energy", "e"
    )
    refused(path, frames, {"mtt::e": other}, match="only energies have some")


def test_messages_about_folders(tmp_path: Path) -> None:
    frames, path = crystals(), tmp_path / "data"
    many = targets(frames, True)
    refused(path, frames, many, match="'mtt::alpha' is a spherical tensor")
    dipole = {"mtt::dipole": many["mtt::dipole"]}
    refused(path, frames, {}, dipole, match="must be scalars, but 'mtt::dipole'")
    refused(path, frames, {"mtt::x": many["energy"]}, match="not make a name of a file")
    twice = {"energy": many["energy"], "mtt::energy": many["energy"]}
    refused(path, frames, twice, match="two files 'energy'")
    taken = {"energy": many["energy"], "mtt::energy_forces": many["mtt::dipole"]}
    refused(path, frames, taken, match=r"two files 'energy_forces\.bin'")
    atoms = [ase.Atoms("H"), ase.Atoms("O")]
    refused(path, atoms, {"energy": energy_of(atoms)}, match="2 systems and as many")
    strain = mts.TensorBlock(
        np.ones((1, 3, 3, 1)),
        mts.Labels("sample", [[0]]),
        [mts.Labels.range(f"xyz_{i}", 3) for i in (1, 2)],
        mts.Labels.range("energy", 1),
    )
    water = [molecule("H2O")]
    refused(
        path, water, {"energy": energy_of(water, strain=strain)}, match="cell no volume"
    )
    odd = molecule("H2O")
    odd.pbc = True
    refused(path, [odd], {"energy": energy_of(water)}, match="is periodic along")
    block = energy_of(water).block().with_values(np.array([[1e39]]))
    large = mts.TensorMap(energy_of(water).keys, [block])
    refused(path, water, {"energy": large}, match="too large for 32 bits")
    path.mkdir()
    (path / "notes").write_text("mine")
    refused(path, frames, dipole, match="is there already and not empty")


# === what can not be read ==========================================================


def test_messages_about_sections(tmp_path: Path) -> None:
    with pytest.raises(mts.MetatensorError, match=r"is no \.zip file"):
        read_dataset(tmp_path / "data")
    with pytest.raises(TypeError, match="must be a path or a section"):
        read_dataset([{}])  # type: ignore[arg-type]
    with pytest.raises(mts.MetatensorError, match="indices"):
        read_dataset({"systems": "a.zip", "targets": {}, "indices": [0]})
    frames = crystals()
    section = write_dataset(tmp_path / "data.xyz", frames, extra(frames))
    section["targets"]["mtt::t"]["read_from"] = str(tmp_path / "data.xyz")
    with pytest.raises(mts.MetatensorError, match=r"is not in an \.mts file"):
        read_dataset(section)


def test_messages_about_damage(tmp_path: Path) -> None:
    frames = crystals()
    section = write_dataset(tmp_path / "data", frames, extra(frames))
    section["targets"]["mtt::t"]["num_subtargets"] = 2
    with pytest.raises(mts.MetatensorError, match=r"has 12 bytes, but .* need 24"):
        read_dataset(section)
    virial = {**section["targets"]["mtt::t"], "num_subtargets": 1, "virial": True}
    with pytest.raises(mts.MetatensorError, match="has the option `virial`"):
        read_dataset({**section, "targets": {"mtt::t": virial}})
    path = tmp_path / "data.zip"
    section = write_dataset(path, frames, extra(frames))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for member, message in [
        ("1/mtt::t.mts", r"'1/mtt::t\.mts' in .* is no map in an array"),
        ("2/system.mta", r"'2/system\.mta' in .* is no structure of metatomic"),
    ]:
        with zipfile.ZipFile(tmp_path / "damaged.zip", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, b"nothing" if name == member else content)
        with pytest.raises(mts.MetatensorError, match=message):
            read_dataset(tmp_path / "damaged.zip")
    section["targets"]["mtt::other"] = {}
    with pytest.raises(mts.MetatensorError, match="must have 'mtt::other' for each"):
        read_dataset(section)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(mts.MetatensorError, match="is no ZIP archive"):
        read_dataset(path)
