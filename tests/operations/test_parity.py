"""The same results as metatensor-operations, wherever these are right.

Left out, because finite differences say otherwise: mean, variance and standard
deviation over samples with sparse gradients, and property reductions of blocks with
components.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from builders import enable_x64
from case import Case, two
from cases import CASES
from structures import STRUCTURES, Structure

import metatensor_jax as mts

core = pytest.importorskip("metatensor")
# it raises an ImportError of its own where it is missing
pytest.importorskip("metatensor.operations", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _double():
    with enable_x64(True):
        yield


# --- to metatensor and back --------------------------------------------------------


def labels_to_core(labels: mts.Labels) -> Any:
    return core.Labels(labels.names, np.array(labels.values))


def to_core(value: Any) -> Any:
    """The same object of metatensor; other things stay what they are."""
    if isinstance(value, mts.TensorMap):
        blocks = [to_core(block) for block in value]
        return core.TensorMap(labels_to_core(value.keys), blocks)
    if isinstance(value, mts.TensorBlock):
        block = core.TensorBlock(
            values=np.array(value.values),
            samples=labels_to_core(value.samples),
            components=[labels_to_core(labels) for labels in value.components],
            properties=labels_to_core(value.properties),
        )
        for name, gradient in value.gradients():
            block.add_gradient(name, to_core(gradient))
        return block
    if isinstance(value, mts.Labels):
        return labels_to_core(value)
    if isinstance(value, (list, tuple)):
        return type(value)(to_core(item) for item in value)
    return value


class _Core:
    """Stands for ``metatensor_jax`` where a case is called: metatensor's functions."""

    Labels = mts.Labels
    TensorMap = core.TensorMap
    TensorBlock = core.TensorBlock

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(core, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            converted = {k: to_core(v) for k, v in kwargs.items()}
            return function(*map(to_core, args), **converted)

        return call


def assert_same_labels(actual: mts.Labels, expected: Any, what: str) -> None:
    assert actual.names == expected.names, what
    np.testing.assert_array_equal(actual.values, np.asarray(expected.values), what)


def assert_same_block(actual: mts.TensorBlock, expected: Any, what: str = "") -> None:
    """The same labels, the same values, the same gradients.

    Samples are in the same order; those of gradients can be in another one.
    """
    order = np.arange(len(expected.samples))
    if what:
        order = np.lexsort(np.asarray(expected.samples.values).T[::-1])
        mine = np.lexsort(np.asarray(actual.samples.values).T[::-1])
        actual = mts.slice_block(actual, "samples", mine)
    assert actual.samples.names == expected.samples.names
    rows = np.asarray(expected.samples.values)[order]
    np.testing.assert_array_equal(actual.samples.values, rows, f"samples{what}")
    assert_same_labels(actual.properties, expected.properties, f"properties{what}")
    assert len(actual.components) == len(expected.components)
    pairs = zip(actual.components, expected.components, strict=True)
    for mine, its in pairs:
        assert_same_labels(mine, its, f"components{what}")
    values = np.asarray(expected.values)[order]
    assert actual.shape == values.shape
    np.testing.assert_allclose(actual.values, values, rtol=1e-12, atol=1e-13)
    assert sorted(actual.gradients_list()) == sorted(expected.gradients_list())
    for name, gradient in actual.gradients():
        its = expected.gradient(name)
        assert_same_block(gradient, its, f" of the gradient of '{name}'{what}")


def assert_same_result(actual: Any, expected: Any) -> None:
    if isinstance(actual, list):
        assert len(actual) == len(expected)
        for mine, its in zip(actual, expected, strict=True):
            assert_same_result(mine, its)
    elif isinstance(actual, mts.TensorBlock):
        assert_same_block(actual, expected)
    else:
        assert_same_labels(actual.keys, expected.keys, "keys")
        for mine, its in zip(actual, expected, strict=True):
            assert_same_block(mine, its)


# --- what can be compared ----------------------------------------------------------

#: no such argument or feature there
ABSENT = {
    "random_uniform_like": "it takes no key",
    "keys_to_properties_entries": "labels are passed to a method of the map",
}


def _is_comparable(case: Case, structure: Structure) -> bool:
    name = case.name
    if not case.suits(structure) or case.undefined or name in ABSENT:
        return False
    if structure.dtype != "float64" or structure.is_nested:
        return False
    if structure.name == "no_blocks" and not case.name.startswith(FOR_NO_BLOCKS):
        return False  # it asks the first block for its names
    if structure.name == "no_properties" and name.startswith(NEED_PROPERTIES):
        return False  # it can not reshape or sort them
    if "out_samples" in name or (name, structure.name) in DIFFERENT:
        return False
    if "over_properties" in name and structure.components:
        return False
    if name == "keys_to_samples_fill" and structure.tree:
        return False  # it fills gradients as well, but a constant has none
    sparse = structure.tree and structure.density < 1
    return not (
        sparse and name.startswith(("mean", "var", "std")) and "over_samples" in name
    )


NEED_PROPERTIES = ("pow", "abs", "sort", "multiply", "divide", "operators")
FOR_NO_BLOCKS = ("add_number", "multiply_number", "pow", "abs", "zeros_like", "detach")
DIFFERENT = {
    # it sorts positions, but for samples only
    *(("slice_properties_at", name) for name in STRUCTURES),
    # rows of gradients are not taken as equations there if the values are not square
    ("solve", "square_with_gradient"),
}

PAIRS = [
    pytest.param(case, structure, id=f"{case}-{structure.name}")
    for case in CASES
    for structure in STRUCTURES.values()
    if case.upstream and _is_comparable(case, structure)
]


@pytest.mark.parametrize(("case", "structure"), PAIRS)
def test_same_as_metatensor(case, structure, monkeypatch):
    inputs = case.stored(structure)
    if case.inputs is two:  # it wants the gradient rows of both to be the same
        inputs = [inputs[0], jax.tree.map(lambda x: 2 * x + 1, inputs[0])]
    actual = case.call(*inputs)
    # the case calls `mts.operation(...)`: here that is metatensor's
    for module in ("case", "cases"):
        monkeypatch.setattr(f"{module}.mts", _Core())
    assert_same_result(actual, case.call(*[to_core(x) for x in inputs]))
