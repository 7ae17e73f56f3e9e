"""The modules of `learn.nn`, each made once, and equivariant features to give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import metatensor_jax as mts
from metatensor_jax.learn import nn

#: scalars, vectors, pseudovectors and pseudoscalars
KEYS = mts.Labels(["o3_lambda", "o3_sigma"], [[0, 1], [1, 1], [1, -1], [0, -1]])
ATOMS = mts.Labels(["system", "atom"], [[s, a] for s in (0, 4) for a in range(3)])
OF_SYSTEM = np.array([0, 0, 0, 1, 1, 1])
XYZ = mts.Labels.range("xyz", 3)
P = mts.Labels.range("n", 3)
N = len(P)
#: the order of real spherical harmonics: y, z, x
YZX = np.array([1, 2, 0])


def positions(dtype: Any = np.float64) -> mts.TensorBlock:
    values = np.random.default_rng(3).normal(size=(len(ATOMS), 3, 1))
    return mts.TensorBlock(values.astype(dtype), ATOMS, [XYZ], mts.Labels.single())


def features(positions: mts.TensorBlock) -> mts.TensorMap:
    """Sums over the atoms of a system, which turn with it."""
    x = jnp.asarray(positions.values)[..., 0]
    same = jnp.asarray(OF_SYSTEM[:, None] == OF_SYSTEM[None]).astype(x.dtype)
    apart = x[:, None] - x[None]
    squares = jnp.sum(apart**2, -1)
    widths = jnp.asarray([0.2, 0.4, 0.7], x.dtype)
    waves = jnp.exp(-squares[..., None] * jnp.broadcast_to(widths, (6, 6, 3)))
    waves = waves * same[..., None]
    scalars = jnp.sum(waves, 1)[:, None]
    # the origin is a place of its own, so that vectors are not all in a plane
    far = jnp.sum(same[..., None] * x[None], 1, keepdims=True)
    vectors = jnp.einsum("ijn,ijc->icn", waves, apart)
    vectors = vectors + jnp.einsum("ijn,ijc->icn", waves**2, (x[None] - far) * 0.3)
    others = jnp.roll(vectors, 1, axis=-1) + x[..., None]
    pseudo = jnp.cross(vectors, others, axis=1)
    pseudoscalars = jnp.sum(jnp.roll(vectors, 2, axis=-1) * pseudo, 1, keepdims=True)
    values = scalars, vectors[:, YZX], pseudo[:, YZX], pseudoscalars
    return mts.TensorMap(KEYS, [_block(x) for x in values])


def _block(values: jax.Array) -> mts.TensorBlock:
    n = values.shape[1]
    mu = mts.Labels("o3_mu", np.arange(n)[:, None] - n // 2)
    return mts.TensorBlock(values, ATOMS, [mu], P)


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed)


def mlps(dtype: Any) -> list[Any]:
    keys = jax.random.split(key(), len(KEYS))
    return [eqx.nn.MLP(N, N, 4, 1, jnp.tanh, dtype=dtype, key=k) for k in keys]


def moved(module: Any) -> Any:
    """Parameters away from where they start, such as biases that are zero."""
    rng = np.random.default_rng(0)

    def move(x: Any) -> Any:
        return x + jnp.asarray(rng.normal(size=x.shape), x.dtype)

    params, rest = eqx.partition(module, nn.trainable(module))
    return eqx.combine(jax.tree.map(move, params), rest)


def standardize(dtype: Any) -> nn.Standardize:
    # fitted to something else than it is used on
    maps = [features(positions(np.float32)), features(positions(np.float32)) * 0.5]
    as_numpy = [tensor.to(arrays="numpy").to(dtype=dtype) for tensor in maps]
    return nn.Standardize.fit(as_numpy)


def sequential(dtype: Any) -> nn.Sequential:
    return nn.Sequential(
        KEYS,
        nn.EquivariantLinear(KEYS, N, 4, dtype=dtype, key=key(18)),
        nn.InvariantLayerNorm(KEYS, 4, dtype=dtype),
        nn.EquivariantTransformation([jnp.tanh] * len(KEYS), KEYS, 4),
        nn.EquivariantLinear(KEYS, 4, out_properties=P, dtype=dtype, key=key(2)),
    )


#: by name: makes the module for features of this dtype
CASES: dict[str, Callable[[Any], Any]] = {
    "ModuleMap": lambda dtype: nn.ModuleMap(KEYS, mlps(dtype), P),
    "Linear": lambda dtype: nn.Linear(KEYS, N, 2, dtype=dtype, key=key()),
    "EquivariantLinear": lambda dtype: nn.EquivariantLinear(
        KEYS, N, out_properties=P, dtype=dtype, key=key()
    ),
    "LayerNorm": lambda dtype: nn.LayerNorm(KEYS, N, dtype=dtype),
    "LayerNorm without mean": lambda dtype: nn.LayerNorm(
        KEYS, N, bias=False, mean=False, dtype=dtype
    ),
    "InvariantLayerNorm": lambda dtype: nn.InvariantLayerNorm(KEYS, [N], dtype=dtype),
    "ReLU": lambda dtype: nn.ReLU(KEYS),
    "SiLU": lambda dtype: nn.SiLU(KEYS),
    "Tanh": lambda dtype: nn.Tanh(KEYS),
    "InvariantReLU": lambda dtype: nn.InvariantReLU(KEYS),
    "InvariantSiLU": lambda dtype: nn.InvariantSiLU(KEYS, P),
    "InvariantTanh": lambda dtype: nn.InvariantTanh(KEYS),
    "EquivariantTransformation": lambda dtype: nn.EquivariantTransformation(
        mlps(dtype), KEYS, N
    ),
    "Sequential": sequential,
    "Standardize": standardize,
}
#: those that commute with rotations
EQUIVARIANT = [
    "EquivariantLinear",
    "InvariantLayerNorm",
    "InvariantReLU",
    "InvariantSiLU",
    "InvariantTanh",
    "EquivariantTransformation",
    "Sequential",
    "Standardize",
]


def made(name: str, dtype: Any = np.float32) -> Any:
    """The module, with parameters away from where they start."""
    return moved(CASES[name](jnp.dtype(dtype)))
