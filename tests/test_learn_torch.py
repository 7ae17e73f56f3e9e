"""The same numbers as metatensor-learn, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts

eqx = pytest.importorskip("equinox")
torch = pytest.importorskip("torch")
core = pytest.importorskip("metatensor")
# not `metatensor.learn`: in a process that imports metatensor-torch, this is a module
# with the classes of TorchScript
theirs = pytest.importorskip("metatensor_learn").nn

from modules import KEYS, N, P, features, positions  # noqa: E402 (needs equinox)

from metatensor_jax.learn import nn  # noqa: E402

KEY = jax.random.key(0)
ZERO = mts.Labels("o3_lambda", [[0]])


def to_core(labels: mts.Labels) -> Any:
    return core.Labels(labels.names, np.array(labels.values))


def to_torch(x: mts.TensorMap) -> Any:
    """The same map, with Torch's arrays, and labels that metatensor-learn can use."""
    blocks = []
    for b in x:
        values = torch.tensor(np.asarray(b.values))
        components = [to_core(c) for c in b.components]
        samples, properties = to_core(b.samples), to_core(b.properties)
        blocks.append(core.TensorBlock(values, samples, components, properties))
    return core.TensorMap(to_core(x.keys), blocks)


def linear(dtype: Any, **options: Any) -> tuple[Any, Any]:
    return (
        nn.Linear(KEYS, N, 2, dtype=dtype, key=KEY, **options),
        lambda dtype: theirs.Linear(to_core(KEYS), N, 2, dtype=dtype, **options),
    )


def tanh_after(linear: Any) -> Any:
    """A layer and an activation, on rows of any shape."""
    return torch.nn.Sequential(linear, torch.nn.Tanh())


def transformation(dtype: Any) -> tuple[Any, Any]:
    keys = jax.random.split(KEY, len(KEYS))
    layers = [eqx.nn.Linear(N, N, dtype=dtype, key=key) for key in keys]
    modules = [eqx.nn.Sequential([x, eqx.nn.Lambda(jnp.tanh)]) for x in layers]
    return (
        nn.EquivariantTransformation(modules, KEYS, N, out_properties=[P] * 4),
        lambda dtype: theirs.EquivariantTransformation(
            [tanh_after(torch.nn.Linear(N, N, dtype=dtype)) for _ in range(4)],
            to_core(KEYS),
            N,
            out_properties=[to_core(P)] * 4,
        ),
    )


def sequential(dtype: Any) -> tuple[Any, Any]:
    return (
        nn.Sequential(
            KEYS,
            nn.EquivariantLinear(KEYS, N, 4, dtype=dtype, key=KEY),
            nn.InvariantTanh(KEYS),
            nn.EquivariantLinear(KEYS, 4, out_properties=P, dtype=dtype, key=KEY),
        ),
        lambda dtype: theirs.Sequential(
            to_core(KEYS),
            theirs.EquivariantLinear(to_core(KEYS), N, 4, dtype=dtype),
            theirs.InvariantTanh(to_core(KEYS)),
            theirs.EquivariantLinear(
                to_core(KEYS), 4, out_properties=[to_core(P)] * 4, dtype=dtype
            ),
        ),
    )


def norm(name: str, **options: Any) -> Callable[[Any], tuple[Any, Any]]:
    return lambda dtype: (
        getattr(nn, name)(KEYS, N, dtype=dtype, **options),
        lambda dtype: getattr(theirs, name)(to_core(KEYS), N, dtype=dtype, **options),
    )


def activation(name: str, *labels: Any) -> Callable[[Any], tuple[Any, Any]]:
    """:param labels: properties for each key, and invariant keys"""
    in_core = [
        [to_core(x) for x in one] if isinstance(one, list) else to_core(one)
        for one in labels
    ]
    return lambda dtype: (
        getattr(nn, name)(KEYS, *labels),
        lambda dtype: getattr(theirs, name)(to_core(KEYS), *in_core),
    )


def equivariant_linear(**options: Any) -> Callable[[Any], tuple[Any, Any]]:
    """Of invariants that are chosen by some of the dimensions."""
    return lambda dtype: (
        nn.EquivariantLinear(
            KEYS, [N] * 4, [1, 2, 3, 4], None, ZERO, dtype=dtype, key=KEY, **options
        ),
        lambda dtype: theirs.EquivariantLinear(
            to_core(KEYS),
            [N] * 4,
            [1, 2, 3, 4],
            None,
            to_core(ZERO),
            dtype=dtype,
            **options,
        ),
    )


CASES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "Linear": linear,
    "Linear without bias": lambda dtype: linear(dtype, bias=False),
    "EquivariantLinear": equivariant_linear(),
    "EquivariantLinear, one bias": equivariant_linear(bias=[False, True]),
    "LayerNorm": norm("LayerNorm"),
    "LayerNorm, eps": norm("LayerNorm", eps=0.1, bias=False),
    "LayerNorm, not affine": norm("LayerNorm", elementwise_affine=False),
    "LayerNorm, no mean": norm("LayerNorm", mean=False),
    "InvariantLayerNorm": norm("InvariantLayerNorm"),
    "ReLU": activation("ReLU"),
    "SiLU": activation("SiLU"),
    "Tanh": activation("Tanh", [P] * 4),
    "InvariantReLU": activation("InvariantReLU"),
    "InvariantSiLU": activation("InvariantSiLU", [P] * 4),
    "InvariantTanh": activation("InvariantTanh", [P] * 4, ZERO),
    "EquivariantTransformation": transformation,
    "Sequential": sequential,
}


def copy_weights(ours: Any, module: Any) -> Any:
    """Random weights, the same for both; theirs are in the order of ours."""
    rng = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(eqx.filter(ours, eqx.is_array))
    parameters = list(module.parameters())
    assert [x.shape for x in leaves] == [tuple(p.shape) for p in parameters]
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            values = rng.normal(size=tuple(parameter.shape))
            parameter.copy_(torch.tensor(values))
            leaves[i] = jnp.asarray(values, leaves[i].dtype)
    rest = eqx.filter(ours, eqx.is_array, inverse=True)
    return eqx.combine(jax.tree.unflatten(structure, leaves), rest)


@pytest.mark.parametrize("name", CASES)
def test_same_as_metatensor_learn(name: str, x64: bool) -> None:
    dtype = np.float64 if x64 else np.float32
    ours, make = CASES[name](jnp.dtype(dtype))
    module = make(torch.float64 if x64 else torch.float32)
    x = features(positions(dtype))
    y = copy_weights(ours, module)(x)
    expected = module(to_torch(x))
    assert y.keys.names == list(expected.keys.names)
    for key, block in y.items():
        other = expected.block(to_core(mts.Labels(key.names, [tuple(key)])))
        rtol = 1e-12 if x64 else 2e-5
        values = other.values.detach().numpy()
        np.testing.assert_allclose(block.values, values, rtol=rtol, atol=rtol)
        assert block.properties.names == list(other.properties.names)
        np.testing.assert_array_equal(block.properties.values, other.properties.values)
        assert [c.names for c in block.components] == [["o3_mu"]]


def test_derivatives_are_the_same() -> None:
    """By weights and by the features, of an equivariant model."""
    with enable_x64(True):
        ours, make = CASES["Sequential"](jnp.dtype(np.float64))
        module = make(torch.float64)
        x = features(positions(np.float64))
        model = copy_weights(ours, module)
        given = to_torch(x)
        for block in given:
            block.values.requires_grad_()

        def loss(model: Any, x: mts.TensorMap) -> jax.Array:
            return sum(jnp.sum(b.values**2) for b in model(x))

        sum((b.values**2).sum() for b in module(given)).backward()
        by_weights = jax.tree.leaves(eqx.filter_grad(loss)(model, x))
        by_features = jax.tree.leaves(jax.grad(loss, 1)(model, x))
        wanted = [p.grad for p in module.parameters()]
        wanted += [b.values.grad for b in given]
        for mine, its in zip(by_weights + by_features, wanted, strict=True):
            np.testing.assert_allclose(mine, its.numpy(), rtol=1e-10, atol=1e-12)
