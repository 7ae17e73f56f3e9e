"""check_gradients: right gradients pass, and what is wrong with others is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts

XYZ = mts.Labels.range("xyz", 3)
ONE = mts.Labels.single()
P = mts.Labels(["n", "k"], [[0, 0], [4, 2]])
ATOMS = mts.Labels(["system", "atom"], [[0, 0], [0, 1], [7, 0], [7, 1], [7, 2]])
KEYS = mts.Labels(["center_type"], [[1], [8]])
#: two systems, five atoms: the system's row, for each atom
OF_SYSTEM = np.array([0, 0, 1, 1, 1])
SYSTEMS = mts.Labels("system", [[0], [7]])
ROWS = mts.Labels(["sample", "system", "atom"], np.c_[OF_SYSTEM, ATOMS.values])

Change = Callable[[mts.TensorBlock], mts.TensorBlock]


def at(dtype: Any = np.float64) -> mts.TensorBlock:
    values = np.random.default_rng(0).normal(size=(5, 3, 1)).astype(dtype)
    return mts.TensorBlock(values, ATOMS, [XYZ], ONE)


def energies(
    positions: mts.TensorBlock, order: int = 1, change: Change = lambda block: block
) -> mts.TensorMap:
    """Sums of sines and of squared sums, by NumPy, with gradients worked out by hand.

    :param change: of the gradient by positions in the block of oxygen
    """
    x = positions.values[..., 0]
    waves = np.array([1.0, 2.0], x.dtype)
    totals = np.zeros((2, 3), x.dtype)
    np.add.at(totals, OF_SYSTEM, x)
    blocks = []
    for block in range(2):
        values = (totals**2).sum(1)[:, None] * waves
        np.add.at(values, OF_SYSTEM, np.sin(x.sum(1)[:, None] * waves))
        slope = 2 * totals[OF_SYSTEM][..., None] * waves
        slope += (np.cos(x.sum(1)[:, None] * waves) * waves)[:, None]
        gradient = mts.TensorBlock(slope, ROWS, [XYZ], P)
        if order == 2:
            gradient = gradient.with_gradient("positions", hessian(x, waves))
        if block == 1:
            gradient = change(gradient)
        energy = mts.TensorBlock(values, SYSTEMS, [], P)
        blocks.append(energy.with_gradient("positions", gradient))
    return mts.TensorMap(KEYS, blocks)


def hessian(x: np.ndarray, waves: np.ndarray) -> mts.TensorBlock:
    rows, values = [], []
    for i in range(5):
        for j in np.flatnonzero(OF_SYSTEM[i] == OF_SYSTEM).tolist():
            rows.append([i, *ATOMS.values[j]])
            block = 2 * np.eye(3, dtype=x.dtype)[..., None] * waves
            if i == j:
                block = block - np.sin(x[i].sum() * waves) * waves**2
            values.append(block)
    return mts.TensorBlock(
        np.stack(values),
        mts.Labels(["sample", "system", "atom"], rows),
        [XYZ.rename("xyz", "xyz_2"), XYZ],
        P,
    )


def replaced(index: Any, factor: float = 1.0, plus: float = 0.0) -> Change:
    """An element times a factor, and something added."""

    def change(block: mts.TensorBlock) -> mts.TensorBlock:
        values = block.values.copy()
        values[index] = values[index] * factor + plus
        return block.with_values(values)

    return change


def without_row(row: int) -> Change:
    def change(block: mts.TensorBlock) -> mts.TensorBlock:
        keep = np.arange(len(block)) != row
        samples = mts.Labels(block.samples.names, block.samples.values[keep])
        return mts.TensorBlock(block.values[keep], samples, block.components, P)

    return change


def swapped(a: int, b: int) -> Change:
    """The gradients of two atoms, each with the label of the other."""

    def change(block: mts.TensorBlock) -> mts.TensorBlock:
        order = np.arange(len(block))
        order[[a, b]] = order[[b, a]]
        return block.with_values(block.values[order])

    return change


def in_gradient(change: Change) -> Change:
    """Change the gradient of a block."""

    def of_block(block: mts.TensorBlock) -> mts.TensorBlock:
        changed = change(block.gradient("positions"))
        bare = mts.remove_gradients_block(block)
        return bare.with_gradient("positions", changed)

    return of_block


def check(change: Change, order: int = 1, **options: Any) -> mts.GradientReport:
    def function(positions: mts.TensorBlock) -> mts.TensorMap:
        return energies(positions, order, change)

    return mts.check_gradients(function, positions=at(), **options)


# === right =========================================================================


@pytest.mark.parametrize("order", [1, 2])
def test_right_gradients_pass(order: int) -> None:
    report = check(lambda block: block, order)
    assert report.ok
    paths = [("positions",), ("positions", "positions")][:order]
    found = [(c.key, c.parameters) for c in report.checks]
    keys = ["(center_type=1)", "(center_type=8)"]
    assert found == [(key, path) for key in keys for path in paths]
    for c in report.checks:
        assert c.ok
        assert c.n_wrong == 0
        assert 0 < c.error <= c.tolerance
        assert abs(c.stored - c.expected) == pytest.approx(c.error)


def test_rows_in_any_order() -> None:
    def shuffled(block: mts.TensorBlock) -> mts.TensorBlock:
        order = np.array([3, 0, 4, 2, 1])
        samples = mts.Labels(block.samples.names, block.samples.values[order])
        return mts.TensorBlock(block.values[order], samples, [XYZ], P)

    assert check(shuffled).ok


def test_the_tolerance_is_close_to_the_error() -> None:
    """1e-6 of the largest gradient: what is hundred times smaller is not seen."""
    largest = np.abs(energies(at()).block(1).gradient("positions").values).max()
    wrong = check(replaced((3, 1, 0), plus=3e-6 * largest), raises=False)
    assert not wrong.ok
    assert check(replaced((3, 1, 0), plus=1e-8 * largest)).ok


# === wrong =========================================================================


def assert_named(
    report: mts.GradientReport, sample: str, entry: str, component: str, column: str
) -> None:
    """The worst element is this one, of oxygen; the block of hydrogen is right."""
    assert not report.ok
    assert [c.ok for c in report.checks if c.key == "(center_type=1)"] == [True] * (
        len(report.checks) // 2
    )
    worst = report.worst
    assert worst.key == "(center_type=8)"
    found = (worst.sample, worst.entry, worst.component, worst.column)
    assert found == (sample, entry, component, column)


def test_a_wrong_sign() -> None:
    report = check(replaced((3, 1, 0), factor=-1.0), raises=False)
    right = energies(at()).block(1).gradient("positions").values[3, 1, 0]
    assert_named(report, "(system=7)", "(system=7, atom=1)", "(xyz=1)", "(n=0, k=0)")
    assert report.worst.n_wrong == 1
    assert report.worst.stored == -right
    assert report.worst.expected == pytest.approx(right, rel=1e-7)
    assert report.worst.error == pytest.approx(2 * abs(right), rel=1e-6)


def test_one_wrong_column() -> None:
    report = check(replaced((0, 2, 1), plus=0.01), raises=False)
    assert_named(report, "(system=0)", "(system=0, atom=0)", "(xyz=2)", "(n=4, k=2)")
    assert report.worst.n_wrong == 1
    assert report.worst.error == pytest.approx(0.01, rel=1e-3)


def test_a_missing_row() -> None:
    """It counts as zero."""
    right = energies(at()).block(1).gradient("positions").values[4]
    c, p = np.unravel_index(np.argmax(np.abs(right)), right.shape)
    report = check(without_row(4), raises=False)
    column = ("(n=0, k=0)", "(n=4, k=2)")[p]
    assert_named(report, "(system=7)", "(system=7, atom=2)", f"(xyz={c})", column)
    assert report.worst.n_wrong == 6
    assert report.worst.stored == 0
    assert report.worst.expected == pytest.approx(right[c, p], rel=1e-7)


def test_two_atoms_in_each_others_place() -> None:
    values = energies(at()).block(1).gradient("positions").values
    report = check(swapped(2, 4), raises=False)
    assert report.worst.sample == "(system=7)"
    assert report.worst.entry in ("(system=7, atom=0)", "(system=7, atom=2)")
    assert report.worst.n_wrong == 2 * np.count_nonzero(values[2] != values[4])
    largest = np.abs(values[2] - values[4]).max()
    assert report.worst.error == pytest.approx(largest, rel=1e-6)


def test_a_wrong_gradient_of_a_gradient() -> None:
    """Named with the gradient row that it is a gradient of."""
    # row 3 of the Hessian: atom 1 by atom 1, of system 0
    report = check(in_gradient(replaced((3, 0, 2, 1), plus=0.5)), 2, raises=False)
    sample = "(sample=0, system=0, atom=1)"
    component = "(xyz_2=0), (xyz=2)"
    assert_named(report, sample, "(system=0, atom=1)", component, "(n=4, k=2)")
    assert report.worst.parameters == ("positions", "positions")
    assert report.worst.n_wrong == 1
    # the first order is right
    assert [c.ok for c in report.checks] == [True, True, True, False]


def test_a_missing_row_of_a_gradient_of_a_gradient() -> None:
    report = check(in_gradient(without_row(1)), 2, raises=False)
    assert report.worst.parameters == ("positions", "positions")
    assert report.worst.sample == "(sample=0, system=0, atom=0)"
    assert report.worst.entry == "(system=0, atom=1)"


def test_nan() -> None:
    """The tolerance was NaN as well: all elements of the block counted as wrong."""
    report = check(replaced((3, 1, 0), plus=np.nan), raises=False)
    assert_named(report, "(system=7)", "(system=7, atom=1)", "(xyz=1)", "(n=0, k=0)")
    assert np.isnan(report.worst.stored)
    assert np.isfinite(report.worst.tolerance)
    assert report.worst.n_wrong == 1


def test_nan_beside_another_wrong_gradient() -> None:
    """The worst was the block without NaN."""
    wrong = energies(at())
    blocks = []
    for block, plus in zip(wrong, [0.1, np.nan], strict=True):
        blocks.append(in_gradient(replaced((3, 1, 0), plus=plus))(block))
    for order in ([0, 1], [1, 0]):
        tensor = mts.TensorMap(
            mts.Labels("k", [[i] for i in order]), [blocks[i] for i in order]
        )

        def function(positions: mts.TensorBlock, keys: Any = tensor.keys) -> Any:
            return mts.TensorMap(keys, energies(positions).blocks())

        report = mts.check_gradients(tensor, function, raises=False, positions=at())
        assert report.worst.key == "(k=1)"
        assert str(report).startswith("block (k=1)")


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity(value: float) -> None:
    """The tolerance was infinite as well, so anything passed."""
    report = check(replaced((3, 1, 0), plus=value), raises=False)
    assert_named(report, "(system=7)", "(system=7, atom=1)", "(xyz=1)", "(n=0, k=0)")
    assert report.worst.n_wrong == 1


def test_values_that_become_nan() -> None:
    """Beside a parameter where the function is not defined: at the end of a domain."""
    x = mts.TensorBlock(np.array([[1e-4], [2.0]]), mts.Labels.range("a", 2), [], ONE)

    def root(x: mts.TensorBlock) -> mts.TensorMap:
        with np.errstate(invalid="ignore"):
            values = np.sqrt(x.values)
        rows = mts.Labels(["sample", "a"], [[0, 0], [1, 1]])
        gradient = mts.TensorBlock(0.5 / values, rows, [], ONE)
        return mts.TensorMap(ONE, [x.with_values(values).with_gradient("x", gradient)])

    report = mts.check_gradients(root, x=x, raises=False)
    assert not report.ok
    assert report.worst.entry == "(a=0)"
    assert np.isnan(report.worst.expected)
    assert mts.check_gradients(root, x=x, step=1e-6, rtol=1e-4).ok


# === the report ====================================================================


def test_raises_with_the_report() -> None:
    with pytest.raises(mts.NotEqualError) as error:
        check(replaced((3, 1, 0), plus=1.0))
    report = check(replaced((3, 1, 0), plus=1.0), raises=False)
    lines = str(error.value).split("\n")
    assert lines[0] == "gradients differ from finite differences:"
    assert "\n".join(lines[1:]) == str(report)
    assert len(lines) == 3
    worst = report.worst
    assert lines[1] == (
        "block (center_type=8), by positions: 1 elements differ; the worst is 1 "
        f"(tolerance {worst.tolerance:.2g}), stored {worst.stored:.6g}, finite "
        f"difference {worst.expected:.6g} at (system=7), by (system=7, atom=1), "
        "(xyz=1), (n=0, k=0)"
    )
    assert lines[2].startswith("block (center_type=1), by positions: ok; the worst is ")


def test_the_text_of_a_second_order() -> None:
    report = check(in_gradient(replaced((3, 0, 2, 1), plus=0.5)), 2, raises=False)
    text = str(report).split("\n")[0]
    start = "block (center_type=8), by positions and positions: 1 elements differ; "
    assert text.startswith(start)
    assert text.endswith(
        "at (sample=0, system=0, atom=1), by (system=0, atom=1), (xyz_2=0), (xyz=2), "
        "(n=4, k=2)"
    )


def test_reports_are_frozen() -> None:
    report = check(lambda block: block)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.checks = ()  # type: ignore[misc]
    assert isinstance(report.checks, tuple)
    assert all(isinstance(c, mts.GradientCheck) for c in report.checks)


# === options =======================================================================


def quartic(scale: float = 1.0, slope: float = 4.0) -> Callable[..., mts.TensorMap]:
    def function(x: mts.TensorBlock, y: mts.TensorBlock | None = None) -> mts.TensorMap:
        rows = mts.Labels(["sample", "a"], [[0, 0], [1, 1]])
        by_x = mts.TensorBlock(slope * x.values**3 * scale, rows, [], ONE)
        values = x.values**4 * scale
        gradients = {"x": by_x}
        if y is not None:
            values = values + y.values[:1]
            rows = mts.Labels(["sample", "b"], [[0, 3], [1, 3]])
            gradients["y"] = mts.TensorBlock(np.ones((2, 1)), rows, [], ONE)
        block = mts.TensorBlock(values, x.samples, [], ONE, gradients)
        return mts.TensorMap(ONE, [block])

    return function


def column(*values: float, name: str = "a", first: int = 0) -> mts.TensorBlock:
    samples = mts.Labels(name, [[first + i] for i in range(len(values))])
    return mts.TensorBlock(np.array(values)[:, None], samples, [], ONE)


def test_the_step_is_a_number_or_one_for_each_parameter() -> None:
    """Seen by the function; both the step and half of it, to both sides."""
    seen: dict[str, set[float]] = {"x": set(), "y": set()}

    def function(x: mts.TensorBlock, y: mts.TensorBlock) -> mts.TensorMap:
        seen["x"] |= set(np.round(x.values[:, 0] - [1.0, 2.0], 12).tolist())
        seen["y"] |= set(np.round(y.values[:, 0] - 5.0, 12).tolist())
        return quartic()(x, y)

    parameters = {"x": column(1.0, 2.0), "y": column(5.0, name="b", first=3)}
    mts.check_gradients(function, step={"x": 0.01, "y": 0.5}, **parameters)
    assert seen["x"] == {0.0, 0.01, -0.01, 0.005, -0.005}
    assert seen["y"] == {0.0, 0.5, -0.5, 0.25, -0.25}
    seen["x"].clear()
    seen["y"].clear()
    mts.check_gradients(function, step=0.2, **parameters)
    assert seen["x"] == seen["y"] == {0.0, 0.2, -0.2, 0.1, -0.1}


def test_the_default_step_is_used_where_a_mapping_has_none() -> None:
    """A KeyError that named only the parameter."""
    parameters = {"x": column(1.0, 2.0), "y": column(5.0, name="b", first=3)}
    assert mts.check_gradients(quartic(), step={"x": 0.01}, **parameters).ok


def test_extrapolation_is_exact_for_a_polynomial_of_fourth_degree() -> None:
    """The error of a central difference of x^4 is 4 x h^2; extrapolated it is none."""
    report = mts.check_gradients(quartic(), step=0.5, x=column(1.0, 2.0))
    assert report.worst.error < 1e-12


def test_atol_is_in_units_of_the_gradients() -> None:
    wrong = quartic(slope=4.1)
    x = column(1.0, 2.0)
    assert not mts.check_gradients(wrong, raises=False, x=x).ok
    # the largest error is 0.1 x^3
    assert not mts.check_gradients(wrong, raises=False, atol=0.79, x=x).ok
    assert mts.check_gradients(wrong, atol=0.81, x=x).ok


def test_rtol_is_relative_to_the_largest_stored_gradient() -> None:
    wrong = quartic(slope=4.1)
    x = column(1.0, 2.0)
    ratio = 0.1 / 4.1
    assert not mts.check_gradients(wrong, raises=False, rtol=0.99 * ratio, x=x).ok
    assert mts.check_gradients(wrong, rtol=1.01 * ratio, x=x).ok


def test_rounding_of_large_values_is_tolerated() -> None:
    """Values of 1e9 with gradients of 4: the differences carry noise of 1e-4."""

    def function(x: mts.TensorBlock) -> mts.TensorMap:
        block = quartic()(x).block()
        return mts.TensorMap(ONE, [block.with_values(block.values + 1e9)])

    assert mts.check_gradients(function, x=column(1.0, 1.0)).ok


def test_single_precision(x64: bool) -> None:
    """The same gradients at float32: right ones pass, wrong ones do not."""

    def function(positions: mts.TensorBlock) -> mts.TensorMap:
        assert positions.dtype == np.float32
        return energies(positions)

    report = mts.check_gradients(function, positions=at(np.float32))
    assert report.worst.tolerance < 0.1
    largest = np.abs(energies(at()).block(1).gradient("positions").values).max()

    def wrong(positions: mts.TensorBlock) -> mts.TensorMap:
        change = replaced((3, 1, 0), plus=0.02 * float(largest))
        return energies(positions, 1, change)

    report = mts.check_gradients(wrong, positions=at(np.float32), raises=False)
    assert_named(report, "(system=7)", "(system=7, atom=1)", "(xyz=1)", "(n=0, k=0)")


def test_jax_arrays_stay_jax_arrays() -> None:
    with enable_x64(True):

        def function(x: mts.TensorBlock) -> mts.TensorMap:
            assert isinstance(x.values, jax.Array)
            return jax.jit(quartic())(x)

        x = column(1.0, 2.0).to(arrays="jax")
        assert mts.check_gradients(function, x=x).ok


def test_complex_values() -> None:
    def function(x: mts.TensorBlock, factor: complex = 1.0) -> mts.TensorMap:
        values = np.exp(1j * x.values)
        rows = mts.Labels(["sample", "a"], [[0, 0], [1, 1]])
        gradient = mts.TensorBlock(factor * 1j * values, rows, [], ONE)
        return mts.TensorMap(ONE, [x.with_values(values).with_gradient("x", gradient)])

    x = column(1.0, 2.0)
    assert mts.check_gradients(function, x=x).ok
    report = mts.check_gradients(lambda x: function(x, -1j), x=x, raises=False)
    assert report.worst.n_wrong == 2
    assert report.worst.error == pytest.approx(2**0.5, rel=1e-6)


def test_a_map_and_a_function() -> None:
    """Stored once, compared with a function that stores nothing."""
    bare = jax.jit(lambda x: mts.remove_gradients(quartic()(x)))
    with enable_x64(True):
        x = column(1.0, 2.0)
        report = mts.check_gradients(quartic()(x), bare, x=x)
        assert report.ok
        wrong = mts.check_gradients(quartic(slope=5.0)(x), bare, x=x, raises=False)
        assert wrong.worst.stored == 40.0
        assert wrong.worst.expected == pytest.approx(32.0)


def test_only_the_given_parameters_are_compared() -> None:
    def function(x: mts.TensorBlock) -> mts.TensorMap:
        block = quartic()(x).block()
        other = mts.TensorBlock(
            np.full((1, 1), np.nan), mts.Labels("sample", [[0]]), [], ONE
        )
        return mts.TensorMap(ONE, [block.with_gradient("cell", other)])

    report = mts.check_gradients(function, x=column(1.0, 2.0))
    assert [c.parameters for c in report.checks] == [("x",)]


def test_with_what_compute_gradients_stores() -> None:
    """As in a user's test of a function of their own."""
    with enable_x64(True):

        def function(positions: mts.TensorBlock) -> mts.TensorMap:
            x = positions.values[..., 0]
            values = jax.numpy.exp(-(x**2)).sum(1)[:, None]
            return mts.TensorMap(ONE, [mts.TensorBlock(values, ATOMS, [], ONE)])

        mts.check_gradients(
            jax.jit(
                lambda positions: mts.compute_gradients(function, positions=positions)
            ),
            positions=at(),
        )


# === empty =========================================================================


def no_rows(n: int = 2) -> Callable[..., mts.TensorMap]:
    """A constant, whose gradient has no rows."""

    def function(positions: mts.TensorBlock) -> mts.TensorMap:
        rows = mts.Labels.empty(["sample", "system", "atom"])
        gradient = mts.TensorBlock(np.zeros((0, 3, 1)), rows, [XYZ], ONE)
        block = mts.TensorBlock(np.ones((n, 1)), mts.Labels.range("system", n), [], ONE)
        return mts.TensorMap(ONE, [block.with_gradient("positions", gradient)])

    return function


@pytest.mark.parametrize("n", [2, 0])
def test_a_gradient_without_rows(n: int) -> None:
    """It could not be reshaped."""
    report = mts.check_gradients(no_rows(n), positions=at())
    assert report.ok
    assert report.worst.error == 0


def test_a_gradient_without_rows_that_should_have_some() -> None:
    def function(positions: mts.TensorBlock) -> mts.TensorMap:
        block = no_rows()(positions).block()
        return mts.TensorMap(
            ONE, [block.with_values(block.values * positions.values[0, 0])]
        )

    report = mts.check_gradients(function, positions=at(), raises=False)
    assert report.worst.entry == "(system=0, atom=0)"
    assert report.worst.n_wrong == 2


def test_a_parameter_without_entries() -> None:
    none = mts.TensorBlock(
        np.zeros((0, 3, 1)), mts.Labels.empty(["system", "atom"]), [XYZ], ONE
    )
    assert mts.check_gradients(no_rows(), positions=none).ok


def test_no_blocks() -> None:
    empty = mts.TensorMap(mts.Labels.empty("k"), [])
    report = mts.check_gradients(lambda x: empty, x=column(1.0))
    assert report.ok
    assert report.checks == ()
    assert str(report) == ""


# === errors ========================================================================


def test_samples_that_change() -> None:
    """A neighbor that leaves the cutoff: the row is not there on one side."""

    def function(x: mts.TensorBlock) -> mts.TensorMap:
        inside = np.flatnonzero(x.values[:, 0] <= 2.0)
        samples = mts.Labels("a", inside[:, None])
        rows = mts.Labels(["sample", "a"], np.c_[np.arange(len(inside)), inside])
        gradient = mts.TensorBlock(np.ones((len(inside), 1)), rows, [], ONE)
        block = mts.TensorBlock(x.values[inside], samples, [], ONE)
        return mts.TensorMap(ONE, [block.with_gradient("x", gradient)])

    with pytest.raises(mts.MetatensorError) as error:
        mts.check_gradients(function, x=column(1.0, 2.0))
    assert str(error.value) == (
        "the samples of block (_=0) change with 'x', so there are no finite "
        "differences: they were\nLabels\n    a\n    0\n    1\nand become\nLabels\n"
        "    a\n    0\ntake a smaller `step`, or other values"
    )


def test_gradient_samples_that_change() -> None:
    """For gradients of gradients these have to stay as well, for others they do not."""

    def function(positions: mts.TensorBlock, order: int = 1) -> mts.TensorMap:
        tensor = energies(positions, order)
        if (positions.values == at().values).all():
            return tensor
        row = [i for i in range(5) if i != 4]
        blocks = []
        for block in mts.remove_gradients(tensor):
            samples = mts.Labels(ROWS.names, ROWS.values[row])
            gradient = mts.TensorBlock(np.zeros((4, 3, 2)), samples, [XYZ], P)
            blocks.append(block.with_gradient("positions", gradient))
        return mts.TensorMap(tensor.keys, blocks)

    assert mts.check_gradients(function, positions=at()).ok
    with pytest.raises(mts.MetatensorError, match=r"the samples of block .* change"):
        mts.check_gradients(lambda positions: function(positions, 2), positions=at())


ERRORS = [
    (
        lambda: mts.check_gradients(quartic()),
        TypeError,
        "check_gradients needs at least one parameter, by its name",
    ),
    (
        lambda: mts.check_gradients(quartic(), x=np.ones((2, 1))),
        TypeError,
        "the parameter 'x' must be a TensorBlock, whose labels say which entry is "
        "which, not ndarray",
    ),
    (
        lambda: mts.check_gradients(
            quartic(),
            x=mts.TensorBlock(np.ones((2, 2)), mts.Labels.range("a", 2), [], P),
        ),
        mts.MetatensorError,
        "the parameter 'x' must have a single property, got 2",
    ),
    (
        lambda: mts.check_gradients(quartic()(column(1.0, 2.0)), x=column(1.0, 2.0)),
        TypeError,
        "to check a TensorMap, give the function it is the result of as well",
    ),
    (
        lambda: mts.check_gradients(quartic(), quartic(), x=column(1.0, 2.0)),
        TypeError,
        "the first of two arguments must be a TensorMap",
    ),
    (
        lambda: mts.check_gradients(
            quartic()(column(1.0, 2.0)),
            lambda x: quartic()(x),
            x=column(1.0, 2.0, name="b"),
        ),
        mts.MetatensorError,
        "the samples of the parameter 'x' have the dimensions ['b'], but the stored "
        "gradients have ['a']",
    ),
    (
        lambda: mts.check_gradients(
            quartic()(column(1.0, 2.0)), quartic(), x=column(1.0)
        ),
        mts.MetatensorError,
        "a stored gradient is with respect to 'x' of {'a': 1}, which is not among the "
        "samples of the parameter:\nLabels\n    a\n    0",
    ),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), ERRORS)
def test_errors(wrong: Callable[[], Any], kind: type, message: str) -> None:
    with pytest.raises(kind) as error:
        wrong()
    assert str(error.value) == message


def test_no_stored_gradient() -> None:
    with pytest.raises(mts.MetatensorError, match="gradients with respect to 'y'"):
        mts.check_gradients(lambda y: quartic()(y), y=column(1.0, 2.0))


def test_components_of_another_size() -> None:
    """The wrong third component was not looked at, since the parameter has two."""

    def function(positions: mts.TensorBlock) -> mts.TensorMap:
        values = np.zeros((5, 3, 1))
        values[..., 0] = [[1.0, 1.0, 9.0]]
        gradient = mts.TensorBlock(values, ROWS, [XYZ], ONE)
        total = np.zeros((2, 1))
        np.add.at(total, OF_SYSTEM, positions.values.sum(1))
        block = mts.TensorBlock(total, SYSTEMS, [], ONE)
        return mts.TensorMap(ONE, [block.with_gradient("positions", gradient)])

    two = mts.TensorBlock(np.zeros((5, 2, 1)), ATOMS, [mts.Labels.range("xyz", 2)], ONE)
    with pytest.raises(mts.MetatensorError, match="components of the parameter"):
        mts.check_gradients(function, positions=two)
