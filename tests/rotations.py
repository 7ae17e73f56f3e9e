"""Maps that turn, and what they are turned: row by row, from the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import metatensor_jax as mts
from metatensor_jax import o3

XYZ = mts.Labels.range("xyz", 3)
#: so far may results be from others, for numbers of about 1
TOLERANCE = {np.dtype(np.float32): 5e-6, np.dtype(np.float64): 1e-13}


def matrices(n: int | None = None, seed: int = 0, improper: bool = True) -> Any:
    """Random ones in double precision; the first is improper if any may be."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n or 1, 3, 3)))
    q *= np.linalg.det(q)[:, None, None]
    if improper:
        q[::2] *= -1
    return q if n else q[0]


def spherical(
    keys: tuple[tuple[int, int], ...] = ((0, -1), (1, 1), (3, -1)),
    *,
    systems: tuple[int, ...] = (0, 0, 1, 2),
    dtype: Any = np.float32,
    seed: int = 0,
) -> mts.TensorMap:
    """A map of these degrees and parities, with gradients and one of a gradient."""
    rng = np.random.default_rng(seed)
    n, p = len(systems), mts.Labels.range("p", 2)
    samples = mts.Labels(
        ["system", "atom"], np.array([systems, range(n)], np.int32).T.reshape(n, 2)
    )
    blocks = []

    def block(labels: mts.Labels, axes: list[mts.Labels], **gradients: Any) -> Any:
        shape = (len(labels), *map(len, axes), len(p))
        values = rng.normal(size=shape).astype(dtype)
        return mts.TensorBlock(values, labels, axes, p, gradients)

    for degree, _ in keys:
        mu, rows = o3.spherical_components(degree), max(n - 1, 0)
        of_rows = mts.Labels(["sample", "atom"], [[0, 0]])
        inner = block(of_rows, [mts.Labels.range("xyz_2", 3), XYZ, mu])
        parents = np.arange(rows, dtype=np.int32)[::-1]
        ofs = mts.Labels(["sample", "atom"], np.stack([parents, parents], 1))
        positions = block(ofs, [XYZ, mu], **({"positions": inner} if rows else {}))
        charge = block(ofs, [mu])
        gradients = {"positions": positions, "charge": charge}
        blocks.append(block(samples, [mu], **gradients))
    return mts.TensorMap(mts.Labels(["o3_lambda", "o3_sigma"], list(keys)), blocks)


def by_hand(tensor: mts.TensorMap, given: np.ndarray) -> mts.TensorMap:
    """Row by row, in double precision."""
    blocks = []
    for key, block in tensor.items():
        degree, sigma = int(key["o3_lambda"]), int(key["o3_sigma"])
        systems = block.samples.column("system")

        def turned(
            part: mts.TensorBlock, of_rows: Any, d: int = degree, s: int = sigma
        ) -> mts.TensorBlock:
            rows = []
            for row, system in zip(np.asarray(part.values), of_rows, strict=True):
                r = given if given.ndim == 2 else given[system]
                row = np.einsum("mn,...np->...mp", o3.wigner_d(d, r), row)
                for axis in range(len(part.components) - 1):
                    row = np.moveaxis(np.tensordot(r, row, (1, axis)), 0, axis)
                rows.append(row)
            sign = np.sign(np.linalg.det(given))
            factor = (sign if sign.ndim == 0 else sign[of_rows]) ** (s == -1)
            rows_array = np.array(rows).reshape(part.values.shape)
            factor = np.reshape(factor, (-1,) + (1,) * (rows_array.ndim - 1))
            values = (rows_array * factor).astype(part.dtype)
            gradients = {
                name: turned(inner, of_rows[inner.samples.column("sample")])
                for name, inner in part.gradients()
            }
            return mts.TensorBlock(
                values, part.samples, part.components, part.properties, gradients
            )

        blocks.append(turned(block, systems))
    return mts.TensorMap(tensor.keys, blocks)


def assert_close(actual: mts.TensorMap, expected: mts.TensorMap) -> None:
    """The same labels, and values that differ by rounding."""
    mts.equal_metadata_raise(actual, expected)
    assert actual.dtype == expected.dtype
    tolerance = TOLERANCE[np.dtype(expected.dtype)]
    for one, other in zip(actual, expected, strict=True):
        for (_, a), (_, b) in zip(one._walk(), other._walk(), strict=True):
            np.testing.assert_allclose(a.values, b.values, rtol=0, atol=tolerance)


def one_block(
    *components: mts.Labels, names: tuple[str, ...] = (), key: tuple[int, ...] = ()
) -> mts.TensorMap:
    shape = (1, *map(len, components), 1)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    samples, p = mts.Labels.range("system", 1), mts.Labels.range("p", 1)
    block = mts.TensorBlock(values, samples, components, p)
    keys = mts.Labels(list(names), [key]) if names else mts.Labels.single()
    return mts.TensorMap(keys, [block])


def message(of: Callable[[], Any], kind: type[Exception] = mts.MetatensorError) -> str:
    with pytest.raises(kind) as info:
        of()
    return str(info.value)
