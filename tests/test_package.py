"""The package as a whole: what a newcomer sees first, and what it needs."""

from __future__ import annotations

import fnmatch
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import metatensor_jax as mts

ROOT = Path(__file__).parent.parent
OMISSIONS = tomllib.loads((ROOT / "docs" / "api_omissions.toml").read_text())[
    "omission"
]

# A finder that refuses what the bare installation does not have
_WITHOUT_EXTRAS = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ImportError(name + " is an extra")

sys.meta_path.insert(0, Refuse())
import metatensor_jax
print(metatensor_jax.__version__)
"""


def test_the_core_imports_without_any_extra() -> None:
    refused = {"equinox", "optax", "metatensor", "torch", "featomic", "ase", "wigners"}
    refused |= {"pandas", "polars", "sklearn", "xarray"}
    code = _WITHOUT_EXTRAS.replace("{refused}", repr(refused))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    assert result.stdout.strip() == mts.__version__


def test_importing_starts_no_device() -> None:
    code = (
        "import metatensor_jax, jax\n"
        "jax.config.update('jax_platforms', 'no_such_platform')\n"
        "metatensor_jax.Labels.range('a', 2)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=False)
    assert result.returncode == 0


def test_readme_examples_run() -> None:
    pytest.importorskip("equinox")
    codes = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(codes) == 3
    names: dict[str, Any] = {}
    for code in codes:
        exec(compile(code, "README.md", "exec"), names)
    derivative = names["jax"].grad(names["of_positions"])(names["positions"])
    np.testing.assert_allclose(names["stored"][..., 0], derivative, rtol=1e-6)
    assert np.isfinite(names["error"])
    predicted = mts.sum_over_samples(names["model"](names["features"]), "atom")
    mts.allclose_raise(names["predicted"], predicted)


def test_readme_states_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command}" in readme
        assert re.search(rf"^{command}:", makefile, re.M)


def _public_modules() -> list[ModuleType]:
    pytest.importorskip("equinox")
    import metatensor_jax.learn

    learn = metatensor_jax.learn
    own = [mts, mts.operations, mts.io, mts.o3, mts.interop, mts.sharding]
    return [*own, learn, learn.nn]


def test_all_that_is_public_has_a_docstring() -> None:
    missing = []
    for module in _public_modules():
        for name, value in vars(module).items():
            if name.startswith("_") or not callable(value):
                continue
            if not inspect.getdoc(value):
                missing.append(f"{module.__name__}.{name}")
            if not inspect.isclass(value):
                continue
            for member, method in vars(value).items():
                is_method = callable(method) or isinstance(method, property)
                if member.startswith("_") or not is_method:
                    continue
                if not inspect.getdoc(getattr(value, member)):
                    missing.append(f"{module.__name__}.{name}.{member}")
    assert missing == []


def _omitted(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, omission["name"]) for omission in OMISSIONS)


def _upstream() -> dict[str, object]:
    """The public functions and classes of metatensor that are installed."""
    names = {}
    for module in ("metatensor", "metatensor.io", "metatensor.operations"):
        # metatensor.operations raises an ImportError of its own where it is missing
        upstream = pytest.importorskip(module, exc_type=ImportError)
        for name, value in vars(upstream).items():
            if name.startswith("_") or not (
                inspect.isclass(value) or inspect.isfunction(value)
            ):
                continue
            if value.__module__.startswith("metatensor"):
                names[f"{module}.{name}"] = value
    return names


def _find(path: str) -> object:
    value: object = mts
    for part in path.split(".")[1:]:
        value = getattr(value, part, None)
    return value if value is not None else getattr(mts, path.split(".")[-1], None)


def test_metatensors_names_are_here() -> None:
    missing = [n for n in _upstream() if _find(n) is None and not _omitted(n)]
    assert missing == []


def test_metatensors_members_are_here() -> None:
    missing = []
    for path, value in _upstream().items():
        ours = _find(path)
        if not inspect.isclass(value) or ours is None or issubclass(value, Exception):
            continue
        for member in vars(value):
            full = f"{path}.{member}"
            if not (member.startswith("_") or hasattr(ours, member) or _omitted(full)):
                missing.append(full)
    assert missing == []


def test_metatensors_parameters_are_here() -> None:
    different = []
    for path, value in _upstream().items():
        ours = _find(path)
        if not inspect.isfunction(value) or ours is None:
            continue
        mine = list(inspect.signature(ours).parameters)  # type: ignore[arg-type]
        theirs = inspect.signature(value).parameters
        wanted = [name for name in theirs if not _omitted(f"{path}({name})")]
        if mine[: len(wanted)] != wanted:
            different.append(f"{path}: {mine} for {wanted}")
    assert different == []
