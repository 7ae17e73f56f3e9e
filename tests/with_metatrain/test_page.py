"""The page on metatrain runs: its Python here, its commands as a user would."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import mtt

import metatensor_jax as mts
from metatensor_jax.interop import ase as structures

pytest.importorskip("metatrain", exc_type=ImportError)

PAGE = Path(__file__).parent.parent.parent / "docs" / "interop" / "metatrain.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codes = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    assert [kind for kind, _ in codes].count("bash") == 2
    names: dict[str, Any] = {}
    for kind, code in codes:
        if kind == "python":
            exec(compile(code, str(PAGE), "exec"), names)
            continue
        for command in code.strip().splitlines():
            assert command.startswith("mtt ")
            mtt(command, tmp_path)
    _check(
        tmp_path / "ethanol.pt",
        mts.load(tmp_path / "predictions_energy.mts"),
        names["molecules"],
    )
    _check(
        tmp_path / "metals.pt",
        names["predictions"].targets["energy"],
        names["predictions"].frames,
    )


def _check(model: Path, energies: mts.TensorMap, frames: list[Any]) -> None:
    """Predictions are those that the model makes for ASE."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that are not ours
        from metatomic_ase import MetatomicCalculator

        calculator = MetatomicCalculator(
            str(model), extensions_directory=str(model.parent / "extensions")
        )
        predicted = structures.with_energies(frames, energies)
        for frame, found in list(zip(frames, predicted, strict=True))[::5]:
            frame.calc = calculator
            np.testing.assert_allclose(
                found.get_potential_energy(), frame.get_potential_energy(), rtol=1e-5
            )
            _check_close(found.get_forces(), frame.get_forces())
            if frame.pbc.all():
                _check_close(found.get_stress(), frame.get_stress())


def _check_close(found: np.ndarray, expected: np.ndarray) -> None:
    """The model computes in 32 bits."""
    scale = np.abs(expected).max()
    assert scale > 1e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * scale)
