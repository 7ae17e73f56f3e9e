"""``python -m metatensor_jax``: what it prints, and its exit codes."""

import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxlib.version
import numpy as np
import pytest
from builders import Gradient, block, enable_x64, tensor
from files import DTYPES, NESTED
from sparse import ROWS, WIDTH, sparse_map
from test_io_parts import bytes_read, needs_proc

import metatensor_jax as mts
from metatensor_jax import Labels, TensorMap
from metatensor_jax._cli import check
from metatensor_jax._cli.main import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture) -> Run:
    """Runs a command; gives its exit code and what it printed."""

    def call(*arguments: Any) -> tuple[int, str]:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert bool(printed.err) == (code == 2)
        assert printed.err.count("\n") == (code == 2)
        return code, printed.err if code == 2 else printed.out

    return call


def saved(folder: Path, data: Any, name: str = "x.mts") -> Path:
    mts.save(folder / name, data)
    return folder / name


def compressed(path: Path) -> Path:
    """The same file, compressed."""
    with zipfile.ZipFile(path) as old:
        members = [(name, old.read(name)) for name in old.namelist()]
    to = path.with_name("compressed.mts")
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in members:
            new.writestr(name, content)
    return to


# --- show --------------------------------------------------------------------------

MAP = tensor((3, 0), (2,), gradients=NESTED, dtype="float64", info={"näme": "a\x1b[1m"})
SHOWN = """\
of values
keys: o3_lambda, center_type (2 blocks)
info näme: a\\x1b[1m
block 0 (o3_lambda=0, center_type=0): float64 (3, 2, 2), 96 B
    samples: system, atom (3)
    components: component_0 (2)
    properties: property (2)
    gradient positions: float64 (2, 3, 2, 2), 192 B
        samples: sample, other (2)
        components: positions_0_0 (3), component_0 (2)
        properties: property (2)
        gradient cell: float64 (1, 3, 3, 3, 2, 2), 864 B
            samples: sample, other (1)
"""


def test_show_a_map(tmp_path: Path, run: Run):
    code, text = run("show", saved(tmp_path, MAP))
    assert code == 0
    assert text.startswith(f"{tmp_path}/x.mts: ")
    assert "a map with 1.2 kB of values\n" in text
    assert SHOWN in text
    assert "block 1 (o3_lambda=1, center_type=0): float64 (0, 2, 2), 0 B" in text


def test_show_a_compressed_map(tmp_path: Path, run: Run):
    data = mts.zeros_like(tensor((400,), dtype="float64", keys=Labels.single()))
    code, text = run("show", compressed(saved(tmp_path, data.with_info("a", "b"))))
    assert code == 0
    assert "of values, which take" in text
    plain = run("show", tmp_path / "x.mts")[1]
    assert text.split("\n")[1:] == plain.split("\n")[1:]


def test_show_a_block_and_labels(tmp_path: Path, run: Run):
    code, text = run("show", saved(tmp_path, block(gradients=NESTED)))
    assert (code, text.count("gradient ")) == (0, 2)
    assert ", a block with " in text
    code, text = run("show", saved(tmp_path, Labels(["a", "b"], [[0, 1]])))
    assert (code, text) == (0, f"{tmp_path}/x.mts: 136 B, labels\nentries: a, b (1)\n")


def test_show_long_headers(tmp_path: Path, run: Run):
    names = [f"a_dimension_with_a_long_name_{i}" for i in range(200)]
    labels = Labels(names, np.arange(200)[None])
    assert names[-1] in run("show", saved(tmp_path, labels))[1]
    data = mts.TensorBlock(np.ones((1, 1)), labels, [], Labels.single())
    path = saved(tmp_path, data)
    assert names[-1] in run("show", path)[1]
    assert names[-1] in run("show", compressed(path))[1]


def test_show_says_how_many_blocks_are_left_out(tmp_path: Path, run: Run):
    data = TensorMap(Labels.range("k", 30), [block()] * 30)
    path = saved(tmp_path, data)
    text = run("show", path)[1]
    assert "block 19 (k=19)" in text
    assert "block 20" not in text
    assert text.endswith("and 10 blocks more, see --max-blocks\n")
    assert "block 29 (k=29)" in run("show", path, "--max-blocks", 30)[1]
    assert run("show", path, "--max-blocks", 29)[1].endswith(
        "1 block more, see --max-blocks\n"
    )


@needs_proc
def test_show_reads_no_values(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "x.mts"
    sparse_map(path, monkeypatch)
    start, before = time.perf_counter(), bytes_read()
    code, text = run("show", path)
    assert bytes_read() - before < 100_000
    assert time.perf_counter() - start < 5
    assert code == 0
    assert "10.0 GB, a map with 10.0 GB of values\n" in text
    assert f"block 1 (k=6): float64 ({ROWS}, {WIDTH}), 10.0 GB\n" in text


# --- diff --------------------------------------------------------------------------


def test_no_differences(tmp_path: Path, run: Run):
    path = saved(tmp_path, MAP)
    for other in (path, compressed(path)):
        assert run("diff", path, other) == (0, "no differences\n")


def differences(folder: Path, run: Run, a: Any, b: Any, *options: Any) -> list[str]:
    paths = saved(folder, a, "a.mts"), saved(folder, b, "b.mts")
    code, text = run("diff", *paths, *options)
    assert code == (text != "no differences\n")
    return text.splitlines() if code else []


def with_values(data: TensorMap, change: Callable[[np.ndarray], None]) -> TensorMap:
    """The map with other values of its first block."""
    first, *others = data.blocks()
    values = np.array(first.values)
    change(values)
    blocks = [first.with_values(values), *others]
    return TensorMap(data.keys, blocks, dict(data.info()))


def test_values_that_differ(tmp_path: Path, run: Run):
    def change(values: np.ndarray) -> None:
        values[...] = 1.0
        values[1, 0, 1] = 1.25
        values[2, 1, 0] = 3.5

    a = with_values(MAP, lambda values: values.fill(1.0))
    b = with_values(MAP, change)
    sample = MAP.block(0).samples[2].print()
    where = f"sample {sample}, component (component_0=1), property (property=0)"
    assert differences(tmp_path, run, a, b) == [
        "block (o3_lambda=0, center_type=0): 2 of 12 values differ, at most by 2.5: "
        f"1.0 and 3.5 at {where}"
    ]
    assert len(differences(tmp_path, run, a, b, "--atol", 0.25)) == 1
    assert differences(tmp_path, run, a, b, "--atol", 2.5) == []
    assert differences(tmp_path, run, a, b, "--rtol", 0.75) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_difference_is_found(tmp_path: Path, run: Run, dtype: str):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (5000, 1000)).astype(dtype)  # compared in pieces
    y = x.copy()
    y[4000, 7] = not x[4000, 7] if dtype == "bool" else x[4000, 7] + np.array(5, dtype)
    parts = [mts.block_from_array(array) for array in (x, y)]
    (line,) = differences(tmp_path, run, *parts)
    by = 1 if dtype == "bool" else 5
    assert line == (
        f"block: 1 of 5000000 values differ, at most by {by}: {x[4000, 7].item()} and "
        f"{y[4000, 7].item()} at sample (sample=4000), property (property=7)"
    )


def test_numbers_that_are_no_ordinary_ones(tmp_path: Path, run: Run):
    x = np.array([[np.nan, np.inf, -np.inf, 0.0, 1.0]])
    y = np.array([[np.nan, np.inf, -np.inf, -0.0, np.nan]])
    a, b = mts.block_from_array(x), mts.block_from_array(y)
    (line,) = differences(tmp_path, run, a, b, "--atol", 1e9)
    assert "1 of 5 values differ, at most by inf: 1.0 and nan" in line
    assert differences(tmp_path, run, b, b) == []
    big = [mts.block_from_array(np.array([[2**62 + i]])) for i in range(2)]
    (line,) = differences(tmp_path, run, *big)
    assert f"{2**62} and {2**62 + 1} at sample" in line


def test_gradients_that_differ(tmp_path: Path, run: Run):
    gradients = {"x": Gradient((3,), [0, 1], {"y": Gradient((), [1])})}
    a = block(gradients=gradients, dtype="float64")
    gradient = a.gradient("x")
    inner = gradient.gradient("y")
    other = gradient.with_gradient("y", inner.with_values(inner.values + 1))
    (line,) = differences(tmp_path, run, a, a.with_gradient("x", other))
    assert line.startswith("block, gradient x, gradient y: ")
    assert "values differ, at most by 1: " in line
    plain = mts.remove_gradients_block(a)
    assert differences(tmp_path, run, plain, a) == ["block, gradient x: only in B"]


def test_keys_labels_and_info_that_differ(tmp_path: Path, run: Run):
    parts = [block(3), block(3), block(3)]
    a = TensorMap(Labels("k", [[0], [1], [2]]), parts, {"x": "1", "y": "2"})
    b = TensorMap(Labels("k", [[7], [0], [1]]), parts, {"x": "3", "z": "2"})
    assert differences(tmp_path, run, a, b) == [
        "info x: '1' in A, '3' in B",
        "info y: '2' in A, nothing in B",
        "info z: nothing in A, '2' in B",
        "keys: 1 entry only in A, (k=2)",
        "keys: 1 entry only in B, (k=7)",
    ]
    b = TensorMap(Labels("k", [[0], [2], [1]]), parts)
    assert differences(tmp_path, run, mts.TensorMap(a.keys, parts), b) == [
        "keys: the same entries in another order, from entry 1 on, (k=1) in A, (k=2) "
        "in B"
    ]
    b = TensorMap(Labels("q", [[0], [2], [1]]), parts)
    assert differences(tmp_path, run, mts.TensorMap(a.keys, parts), b) == [
        "keys: the names are k in A, q in B"
    ]


def test_axes_and_dtypes_that_differ(tmp_path: Path, run: Run):
    x = np.ones((6, 2))
    properties = Labels.range("p", 2)
    a = mts.TensorBlock(x, Labels.range("s", 6), [], properties)
    b = mts.TensorBlock(x, Labels("s", np.arange(2, 8)[:, None]), [], properties)
    assert differences(tmp_path, run, a, b.to("float32")) == [
        "block: the dtype is float64 in A, float32 in B",
        "block, samples: 2 entries only in A, (s=0), (s=1)",
        "block, samples: 2 entries only in B, (s=6), (s=7)",
    ]
    b = mts.TensorBlock(
        x[:, :1, None], Labels.range("s", 6), [Labels.range("c", 1)], Labels.single()
    )
    assert differences(tmp_path, run, a, b) == [
        "block: 0 components in A, 1 component in B"
    ]
    assert differences(tmp_path, run, a, a.to("float32")) == [
        "block: the dtype is float64 in A, float32 in B"
    ]


def test_files_of_different_kinds(tmp_path: Path, run: Run):
    assert differences(tmp_path, run, MAP, block()) == ["kind: map in A, block in B"]
    labels = Labels.range("a", 2), Labels.range("a", 7)
    assert differences(tmp_path, run, *labels) == [
        "labels: 5 entries only in B, (a=2), (a=3), (a=4) and 2 more"
    ]


# --- errors ------------------------------------------------------------------------


def test_files_that_can_not_be_read(tmp_path: Path, run: Run):
    good, bad = saved(tmp_path, MAP), tmp_path / "bad.mts"
    code, text = run("show", tmp_path / "missing.mts")
    assert (code, "No such file" in text) == (2, True)
    bad.write_bytes(good.read_bytes()[:-1])
    for command in (["show", bad], ["diff", good, bad], ["diff", bad, good]):
        code, text = run(*command)
        assert code == 2
        assert text.startswith(f"error: can not load '{bad}': it is truncated")
    bad.write_bytes(good.read_bytes().replace(b"keys.npy", b"k\x1b\x07s.npy"))
    code, text = run("show", bad)
    assert (code, text.isprintable() or text[:-1].isprintable()) == (2, True)


@pytest.mark.parametrize("members", [[], ["readme.txt"]])
def test_archives_of_something_else(tmp_path: Path, run: Run, members: list[str]):
    """An archive without members was taken for labels."""
    good, other = saved(tmp_path, MAP), tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        for name in members:
            archive.writestr(name, "text")
    expected = f"error: can not load '{other}': it is a ZIP archive without the member"
    for command in (["show", other], ["diff", good, other]):
        code, text = run(*command)
        assert (code, text.startswith(expected)) == (2, True)
    with pytest.raises(ValueError, match="it is an archive, as maps and blocks are"):
        mts.load_labels(other)


def test_damaged_values_are_seen_by_diff(tmp_path: Path, run: Run):
    data = mts.block_from_array(np.full((2, 2), 0.1))
    good, bad = saved(tmp_path, data), tmp_path / "bad.mts"
    bad.write_bytes(good.read_bytes().replace(data.values[:1].tobytes(), bytes(16)))
    assert run("show", bad)[0] == 0
    code, text = run("diff", good, bad)
    assert (code, "'values.npy' is damaged" in text) == (2, True)


@pytest.mark.parametrize("arguments", [[], ["show"], ["diff", "a"], ["other"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: python -m metatensor_jax" in capsys.readouterr().err


def test_the_module_runs(tmp_path: Path):
    path = saved(tmp_path, MAP)
    command = [sys.executable, "-m", "metatensor_jax"]
    done = subprocess.run([*command, "show", path], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"keys: o3_lambda" in done.stdout
    # to a reader that is gone, and in an alphabet without umlauts
    shell = f"{' '.join(command)} show {path} | true; exit ${{PIPESTATUS[0]}}"
    gone = subprocess.run(["bash", "-c", shell], capture_output=True, check=False)
    assert gone.stderr == b""
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    ascii_only = subprocess.run(
        [*command, "show", path], capture_output=True, env=environment, check=False
    )
    assert b"info n\\xe4me" in ascii_only.stdout


# --- check -------------------------------------------------------------------------


@pytest.mark.parametrize("is_64_bit", [False, True])
def test_check(run: Run, is_64_bit: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(check, "wrong_results", list)  # of the jaxlib of this test
    with enable_x64(is_64_bit):
        code, text = run("check")
    assert code == 0
    assert f"mode: {64 if is_64_bit else 32}-bit" in text
    assert text.count("\ngood: ") == len(check.KNOWN_ANSWERS) == 5
    assert f"jaxlib {jaxlib.version.__version__}" in text
    assert "device: cpu (cpu 0)" in text
    assert "WRONG" not in text


def test_check_says_what_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(check.KNOWN_ANSWERS, "sums over samples", lambda: 0.5)
    monkeypatch.setitem(check.KNOWN_ANSWERS, "a file", lambda: 1 / 0)
    code, text = run("check")
    assert code == 1
    assert "\nWRONG: sums over samples (error 0.5)\n" in text
    assert "\nWRONG: a file: ZeroDivisionError: division by zero\n" in text


def test_check_knows_bad_versions(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxlib.version, "__version__", "0.10.2")
    code, text = run("check")
    assert code == 1
    assert "\nWRONG: jaxlib 0.10.2 gives wrong rows" in text


def test_check_without_a_device(run: Run, monkeypatch: pytest.MonkeyPatch):
    def none() -> None:
        raise RuntimeError("no platform\nat all")

    monkeypatch.setattr(check.jax, "devices", none)
    code, text = run("check")
    assert code == 1
    assert text.endswith("WRONG: no device can be used: no platform at all\n")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.001])
def test_errors_of_answers(wrong: float):
    assert check._error(np.array([1.0, wrong]), np.ones(2)) > check._TOLERANCE
    assert check._error(np.ones(3), np.ones(2)) == np.inf
    assert check._error(np.ones(2, np.float32), np.ones(2)) == 0
