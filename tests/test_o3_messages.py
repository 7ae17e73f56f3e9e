"""What rotations say of that which they can not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rotations import XYZ, matrices, message, one_block, spherical

import metatensor_jax as mts
from metatensor_jax import o3

pytest.importorskip("wigners")


def test_matrices_that_are_not_orthogonal() -> None:
    wrong = np.stack([np.eye(3), np.diag([1.0, 1.0, 1.5])])
    text = message(lambda: o3.rotate(spherical(), wrong))
    assert "differ from those of the identity by up to 1.2" in text
    assert "the first matrices[1] is" in text
    assert "not angles or strains" in text
    assert "matrix is" in message(
        lambda: o3.rotate(spherical(), np.full((3, 3), np.nan))
    )


@pytest.mark.parametrize("shape", [(3,), (4, 4), (2, 3), (1, 2, 3, 3)])
def test_matrices_of_another_shape(shape: tuple[int, ...]) -> None:
    given = np.zeros(shape)
    if shape[-2:] == (3, 3):
        given[...] = np.eye(3)
    assert str(shape) in message(lambda: o3.rotate(spherical(), given))


@pytest.mark.parametrize("given", [np.eye(3) * 1j, np.eye(3) > 0])
def test_matrices_of_another_dtype(given: Any) -> None:
    text = message(lambda: o3.rotate(spherical(), given), TypeError)
    assert f"must be real numbers, not {given.dtype}" in text


def test_too_few_matrices() -> None:
    text = message(lambda: o3.rotate(spherical(), matrices(2)))
    assert "2 matrices, for the systems 0 to 1" in text
    assert "'system' go from 0 to 2" in text


def test_samples_without_systems() -> None:
    tensor = mts.rename_dimension(spherical(), "samples", "system", "structure")
    tensor = mts.remove_gradients(tensor)
    text = message(lambda: o3.rotate(tensor, matrices(3)))
    assert "have no dimension 'system'" in text
    o3.rotate(tensor, matrices(3), system="structure")


def test_unknown_components() -> None:
    tensor = one_block(mts.Labels.range("direction", 3))
    text = message(lambda: o3.rotate(tensor, np.eye(3)))
    assert "how the component 'direction' turns" in text
    assert "`components={'direction': 'vector'}`" in text
    wrong: Any = {"direction": "tensor"}
    text = message(lambda: o3.rotate(tensor, np.eye(3), components=wrong))
    assert "got 'tensor' for 'direction'" in text


def test_components_with_other_entries() -> None:
    tensor = one_block(mts.Labels.range("xyz", 2))
    text = message(lambda: o3.rotate(tensor, np.eye(3)))
    assert "should be [0, 1, 2] for x, y and z, but they are [0, 1]" in text
    tensor = one_block(mts.Labels.range("o3_mu", 3))
    text = message(lambda: o3.rotate(tensor, np.eye(3)))
    assert "should go from -l to l, but they are [0, 1, 2]" in text


def test_degrees_that_are_elsewhere() -> None:
    mu = o3.spherical_components(1)
    wrong = one_block(mu, names=("o3_lambda",), key=(2,))
    text = message(lambda: o3.rotate(wrong, np.eye(3)))
    assert "the key has o3_lambda=2" in text
    assert "should have 5 entries, but it has 3" in text
    moved = mts.remove_gradients(spherical(((1, 1),))).components_to_properties("o3_mu")
    text = message(lambda: o3.rotate(moved, np.eye(3)))
    assert "['o3_mu'] are in the properties" in text
    flat = mts.rename_dimension(moved, "properties", "o3_mu", "m")
    text = message(lambda: o3.rotate(flat, np.eye(3)))
    assert "the key has o3_lambda=1" in text
    assert "but there is none" in text


def test_parities_that_are_none() -> None:
    tensor = one_block(names=("o3_sigma",), key=(0,))
    assert "`o3_sigma` must be 1" in message(lambda: o3.rotate(tensor, np.eye(3)))
    block = tensor.block()
    text = message(lambda: o3.rotate_block(block, np.eye(3), o3_sigma=2))
    assert "got 2" in text


def test_integers() -> None:
    tensor = one_block(XYZ).to(dtype=np.int32)
    text = message(lambda: o3.rotate(tensor, np.eye(3)), TypeError)
    assert "can not rotate int32 values" in text


def test_double_precision_is_not_narrowed() -> None:
    tensor = one_block(XYZ).to(dtype=np.float64)
    text = message(lambda: o3.rotate(tensor, np.eye(3)), TypeError)
    assert "jax_enable_x64" in text
