"""connect_gradients: what JAX takes from stored gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from jax.test_util import check_grads

import metatensor_jax as mts

XYZ = mts.Labels.range("xyz", 3)
ONE = mts.Labels.single()
ATOMS = mts.Labels(["system", "atom"], [[0, 0], [0, 1], [1, 0]])
CENTERS = mts.Labels(["system", "atom"], [[0, 0], [0, 1], [1, 0], [1, 7]])
#: which atom (of the same system) each gradient row is with respect to
PAIRS = [(0, 0), (0, 1), (1, 1), (2, 0), (3, 0)]


def positions_block(values: Any) -> mts.TensorBlock:
    return mts.TensorBlock(values, ATOMS, [XYZ], ONE)


def strain_block(values: Any) -> mts.TensorBlock:
    components = [mts.Labels.range("xyz_1", 3), mts.Labels.range("xyz_2", 3)]
    return mts.TensorBlock(values, mts.Labels.range("system", 2), components, ONE)


def features(
    components: tuple[int, ...] = (), second_order: bool = False, seed: int = 0
) -> mts.TensorMap:
    """A map with gradients with respect to positions and strain."""
    rng = np.random.default_rng(seed)
    own = [mts.Labels.range(f"m_{i}", n) for i, n in enumerate(components)]
    properties = mts.Labels.range("p", 2)
    shape = (*components, 2)
    rows = [[i, CENTERS.values[i, 0], atom] for i, atom in PAIRS]
    positions = mts.TensorBlock(
        rng.normal(size=(len(rows), 3, *shape)),
        mts.Labels(["sample", "system", "atom"], rows),
        [XYZ, *own],
        properties,
    )
    if second_order:
        # symmetric: (row of the first, atom of the second), within one center
        pairs = [
            [k, rows[other][1], rows[other][2]]
            for k in range(len(rows))
            for other in range(len(rows))
            if rows[other][0] == rows[k][0]
        ]
        hessian = rng.normal(size=(len(rows), len(rows), 3, 3, *shape))
        hessian = hessian + np.swapaxes(np.swapaxes(hessian, 0, 1), 2, 3)
        index = [
            (k, next(j for j, r in enumerate(rows) if r[0] == rows[k][0] and r[2] == a))
            for k, _, a in pairs
        ]
        nested = mts.TensorBlock(
            np.stack([hessian[i, j] for i, j in index]),
            mts.Labels(["sample", "system", "atom"], pairs),
            [mts.Labels.range("xyz", 3).rename("xyz", "xyz_b"), XYZ, *own],
            properties,
        )
        positions = positions.with_gradient("positions_b", nested)
    strain = mts.TensorBlock(
        rng.normal(size=(3, 3, 3, *shape)),
        mts.Labels("sample", [[0], [1], [3]]),
        [mts.Labels.range("xyz_1", 3), mts.Labels.range("xyz_2", 3), *own],
        properties,
    )
    block = mts.TensorBlock(
        rng.normal(size=(4, *shape)),
        CENTERS,
        own,
        properties,
        {"positions": positions}
        if second_order
        else {"positions": positions, "strain": strain},
    )
    return mts.TensorMap(ONE, [block])


def dense_jacobian(tensor: mts.TensorMap, name: str, samples: mts.Labels) -> np.ndarray:
    """d values[i, ...] / d parameter[a, ...], written out with loops."""
    block = tensor.block()
    gradient = block.gradient(name)
    n_extra = len(gradient.components) - len(block.components)
    extra = gradient.shape[1 : 1 + n_extra]
    dense = np.zeros((len(block), len(samples), *extra, *block.shape[1:]))
    for values, entry in zip(gradient.values, gradient.samples, strict=True):
        parent = block.samples[entry["sample"]]
        named = {**dict(zip(parent.names, parent, strict=True))}
        named |= dict(zip(entry.names, entry, strict=True))
        a = samples.position([named[n] for n in samples.names])
        assert a is not None
        dense[entry["sample"], a] += values
    return dense


@pytest.mark.parametrize("components", [(), (2,), (2, 3)])
def test_jacobians_are_the_stored_gradients(components: tuple[int, ...]) -> None:
    with enable_x64(True):
        tensor = features(components)

        def values(positions: Any, strain: Any) -> Any:
            connected = mts.connect_gradients(
                tensor,
                positions=positions_block(positions),
                strain=strain_block(strain),
            )
            return connected.block().values

        at = np.zeros((3, 3, 1)), np.zeros((2, 3, 3, 1))
        np.testing.assert_array_equal(values(*at), tensor.block().values)
        for transform in (jax.jacfwd, jax.jacrev):
            jacobians = jax.jit(transform(values, argnums=(0, 1)))(*at)
            names = [("positions", ATOMS), ("strain", mts.Labels.range("system", 2))]
            for jacobian, (name, samples) in zip(jacobians, names, strict=True):
                expected = dense_jacobian(tensor, name, samples)
                n_values = tensor.block().values.ndim
                # (values, parameter) to (sample, entry, extra, components, properties)
                moved = np.moveaxis(
                    np.asarray(jacobian)[..., 0],
                    range(n_values, jacobian.ndim - 1),
                    range(1, jacobian.ndim - n_values),
                )
                np.testing.assert_allclose(moved, expected, rtol=1e-14)


def test_second_derivatives_are_the_stored_ones() -> None:
    with enable_x64(True):
        tensor = features(second_order=True)
        inner = tensor.block().gradient("positions").gradient("positions_b")

        def energy(a: Any, b: Any) -> Any:
            components = [mts.Labels.range("xyz_b", 3)]
            other = mts.TensorBlock(b, ATOMS, components, ONE)
            gradient = mts.TensorMap(ONE, [tensor.block().gradient("positions")])
            connected = mts.connect_gradients(gradient, positions_b=other)
            return (connected.block().values * a).sum()

        weights = np.random.default_rng(1).normal(size=(len(PAIRS), 3, 2))
        mixed = jax.grad(lambda b: energy(weights, b))(np.zeros((3, 3, 1)))
        expected = np.zeros((3, 3))
        for values, entry in zip(inner.values, inner.samples, strict=True):
            a = ATOMS.position([entry["system"], entry["atom"]])
            expected[a] += np.einsum("bxp,xp->b", values, weights[entry["sample"]])
        np.testing.assert_allclose(mixed[..., 0], expected, rtol=1e-13)


def test_hessian_of_a_quadratic_feature() -> None:
    """x = r^T H r / 2 for one atom: the stored second order is the Hessian."""
    with enable_x64(True):
        hessian = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 4.0]])
        r = np.array([0.3, -0.2, 0.7])
        p = mts.Labels.range("p", 1)
        atom = mts.Labels("atom", [[5]])
        rows = mts.Labels(["sample", "atom"], [[0, 5]])
        # the two directions have to have different names in one block
        second = mts.TensorBlock(
            hessian[None, :, :, None], rows, [XYZ.rename("xyz", "xyz_2"), XYZ], p
        )
        first = mts.TensorBlock((hessian @ r)[None, :, None], rows, [XYZ], p)
        value = np.array([[r @ hessian @ r / 2]])
        block = mts.TensorBlock(value, atom, [], p)

        def connected(first_block: mts.TensorBlock, r: Any) -> Any:
            tensor = mts.TensorMap(ONE, [block.with_gradient("positions", first_block)])
            parameter = mts.TensorBlock(r, atom, [XYZ], ONE)
            result = mts.connect_gradients(tensor, positions=parameter)
            return jnp.sin(result.block().values).sum()

        at = r[None, :, None]
        gradient = jax.grad(lambda r: connected(first, r))(at)
        np.testing.assert_allclose(gradient[0, :, 0], np.cos(value[0]) * (hessian @ r))
        with pytest.raises(mts.MetatensorError, match="with respect to 'positions'"):
            jax.hessian(lambda r: connected(first, r))(at)

        with_second = first.with_gradient("positions", second)
        x, dx = value[0, 0], hessian @ r
        expected = np.cos(x) * hessian - np.sin(x) * np.outer(dx, dx)
        for transform in (jax.hessian, lambda f: jax.jacfwd(jax.jacfwd(f))):
            result = jax.jit(transform(lambda r: connected(with_second, r)))(at)
            np.testing.assert_allclose(result.reshape(3, 3), expected, rtol=1e-14)


def test_gradients_of_a_nonlinear_model_under_vmap_and_jit() -> None:
    with enable_x64(True):
        tensor = features()

        def energy(positions: Any) -> Any:
            block = positions_block(positions)
            connected = mts.connect_gradients(tensor, positions=block)
            return (jnp.tanh(connected.block().values) ** 2).sum()

        at = np.zeros((3, 3, 1))
        expected = jax.grad(energy)(at)
        stored = mts.map_rows(lambda x: jnp.tanh(x) ** 2, tensor).block()
        by_atom = np.zeros((3, 3))
        gradient = stored.gradient("positions")
        for values, entry in zip(gradient.values, gradient.samples, strict=True):
            by_atom[ATOMS.position([entry["system"], entry["atom"]])] += values.sum(-1)
        np.testing.assert_allclose(expected[..., 0], by_atom, rtol=1e-13)
        batch = np.stack([at, at, at])
        of_batch = jax.jit(jax.vmap(jax.grad(energy)))(batch)
        np.testing.assert_allclose(of_batch[2], expected, rtol=1e-14)
        # linear in the stored gradients, so the tangent map can be checked as well
        check_grads(lambda g: (jax.grad(energy)(at) * g).sum(), (at,), 2)


def test_parameters_are_blocks() -> None:
    with pytest.raises(TypeError, match="'positions' must be a TensorBlock"):
        mts.connect_gradients(features(), positions=np.zeros((3, 3)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="at least one parameter"):
        mts.connect_gradients(features())


def test_what_is_not_connected_stays_stored() -> None:
    tensor = features()
    with enable_x64(True):
        block = positions_block(np.zeros((3, 3, 1)))
        connected = mts.connect_gradients(tensor, positions=block)
    assert connected.block().gradients_list() == ["strain"]


BAD = [
    (
        "no such gradient",
        lambda: {"cell": positions_block(np.zeros((3, 3, 1)))},
        "gradients with respect to 'cell' in this block",
    ),
    (
        "other components",
        lambda: {"positions": strain_block(np.zeros((2, 3, 3, 1)))},
        r"'positions', \[\('xyz_1', 3\), \('xyz_2', 3\)\], do not fit to those of its "
        r"stored gradients, \[\('xyz', 3\)\]",
    ),
    (
        "an atom that is not there",
        lambda: {
            "positions": mts.TensorBlock(
                np.zeros((1, 3, 1)),
                mts.Labels(["system", "atom"], [[0, 0]]),
                [XYZ],
                ONE,
            )
        },
        r"'positions' of \{'system': 0, 'atom': 1\}, which is not among",
    ),
    (
        "samples that the gradients do not have",
        lambda: {
            "positions": mts.TensorBlock(
                np.zeros((1, 3, 1)), mts.Labels.range("image", 1), [XYZ], ONE
            )
        },
        r"have the dimensions \['image'\]",
    ),
    (
        "a dimension that the gradients have is lacking",
        lambda: {
            "positions": mts.TensorBlock(
                np.zeros((2, 3, 1)), mts.Labels.range("atom", 2), [XYZ], ONE
            )
        },
        r"have the dimensions \['system'\], but the samples of the parameter do not",
    ),
    (
        "several properties",
        lambda: {
            "positions": mts.TensorBlock(
                np.zeros((3, 3, 2)), ATOMS, [XYZ], mts.Labels.range("p", 2)
            )
        },
        "must have a single property, got 2",
    ),
]


@pytest.mark.parametrize(
    ("parameters", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_parameters(parameters: Any, message: str) -> None:
    with enable_x64(True), pytest.raises(mts.MetatensorError, match=message):
        mts.connect_gradients(features(), **parameters())


def test_components_are_matched_by_name():
    """featomic's strain gradients have xyz_2 before xyz_1."""
    x = features()
    one, two = strain_block(np.zeros((2, 3, 3, 1))).components
    turned = [mts.Labels(two.names, two.values), mts.Labels(one.names, one.values)]
    with enable_x64():
        strain = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 1)))

        def weigh(values: Any, components: Any) -> Any:
            samples = mts.Labels.range("system", 2)
            block = mts.TensorBlock(values, samples, components, ONE)
            connected = mts.connect_gradients(x, strain=block)
            return sum((b.values**3).sum() for b in connected)

        straight = np.asarray(jax.grad(weigh)(strain, [one, two]))
        swapped = np.asarray(jax.grad(weigh)(strain, turned))
    np.testing.assert_allclose(swapped, np.swapaxes(straight, 1, 2), rtol=1e-12)
    assert not np.allclose(swapped, straight)
