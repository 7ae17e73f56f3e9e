"""jaxlib computes what it should, and who has one that does not is told so."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts
from metatensor_jax._versions import warn_of_wrong_results

ROOT = Path(__file__).parent.parent


def of_rows(values: Any) -> mts.TensorMap:
    samples = mts.Labels.range("sample", len(values))
    properties = mts.Labels.range("property", values.shape[1])
    block = mts.TensorBlock(values, samples, [], properties)
    return mts.TensorMap(mts.Labels.single(), [block])


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_many_rows(dtype: str, is_compiled: bool, arrays: str) -> None:
    """jaxlib 0.10.2 gave wrong rows, jax-ml/jax #39103."""
    rng = np.random.default_rng(0)
    x, matrix = (rng.normal(size=(n, 3)).astype(dtype) for n in (32_769, 3))

    def lengths(tensor: mts.TensorMap) -> Any:
        def squared_length(row: Any) -> Any:
            return jnp.sum((jnp.asarray(matrix) @ row) ** 2, keepdims=True)

        one = mts.Labels.single()
        return mts.map_rows(squared_length, tensor, properties=one).block().values

    with enable_x64(dtype == "float64"):
        tensor = of_rows(x).to(arrays=arrays)
        given = (jax.jit(lengths) if is_compiled else lengths)(tensor)
    wanted = ((x.astype("float64") @ matrix.T) ** 2).sum(axis=1, keepdims=True)
    rtol = 64 * np.finfo(dtype).eps  # all terms are positive
    np.testing.assert_allclose(given, wanted, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_known_rows_in_a_program(arrays: str) -> None:
    """jaxlib 0.5.3 to 0.8.1 took the wrong entries, jax-ml/jax #33479."""
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    tensor = of_rows(x).to(arrays=arrays)

    @jax.jit
    def of_number(number: Any) -> Any:
        def take(row: Any, number: Any) -> Any:
            return row[jnp.arange(6)] + 1 + 0 * number

        return mts.map_rows(take, tensor, args=(number,)).block().values

    np.testing.assert_array_equal(of_number(np.float32(2)), x + 1)


GOOD = ">=0.8.2,!=0.10.2,<0.13"
FIX = f"Install another one, `pip install 'jax{GOOD}' 'jaxlib{GOOD}'`"
MANY_ROWS = (
    "gives wrong rows, on CPUs, where small products are summed for each of more than "
    "16384 rows (https://github.com/jax-ml/jax/issues/39103). "
) + FIX
KNOWN_ROWS = (
    "takes the wrong entries, on CPUs, where a compiled function indexes the rows of "
    "data that is known when it is compiled "
    "(https://github.com/jax-ml/jax/issues/33479). "
) + FIX


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("0.5.3", KNOWN_ROWS),
        ("0.7.2", KNOWN_ROWS),
        ("0.8.1", KNOWN_ROWS),
        ("0.10.2", MANY_ROWS),
        ("0.10.2.dev20260701+cpu", MANY_ROWS),
    ],
)
def test_a_bad_version(
    monkeypatch: pytest.MonkeyPatch, version: str, message: str
) -> None:
    monkeypatch.setattr(jaxlib.version, "__version__", version)
    with pytest.warns(RuntimeWarning) as warned:
        warn_of_wrong_results()
    assert [str(w.message) for w in warned] == [f"jaxlib {version} {message}"]


@pytest.mark.parametrize(
    "version", ["0.4.38", "0.5.1", "0.8.2", "0.9.0.1", "0.10.1", "0.11.0", "0.12.0.1"]
)
def test_a_good_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(jaxlib.version, "__version__", version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_wrong_results()


def test_the_line_that_imports_is_named() -> None:
    # JAX itself would refuse the version if it were there first
    code = """
import jax, jaxlib.version
jaxlib.version.__version__ = "0.10.2"
import metatensor_jax
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    (line,) = re.findall(r".*RuntimeWarning.*", result.stderr)
    assert line.startswith(f"<string>:4: RuntimeWarning: jaxlib 0.10.2 {MANY_ROWS}")


def test_the_project_asks_for_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pyproject.toml excludes is what we warn of, and stays in its range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = dict(
        re.findall(r"^(jax|jaxlib)(\W.*)", "\n".join(project["dependencies"]), re.M)
    )
    assert ranges["jax"] == ranges["jaxlib"]
    assert set(GOOD.split(",")[1:]) <= set(ranges["jaxlib"].split(","))
    for version in re.findall(r"!=([\d.]+)", ranges["jaxlib"]):
        monkeypatch.setattr(jaxlib.version, "__version__", version)
        with pytest.warns(RuntimeWarning, match="jaxlib"):
            warn_of_wrong_results()
