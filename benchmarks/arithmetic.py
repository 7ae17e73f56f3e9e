"""Operations on maps of many small blocks, and finding these: times and targets.

By hand means the same math on lists of arrays, as one program under jit, and a dict of
blocks for the look-up. See ``operations.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import metatensor
import metatensor.operations as theirs
import numpy as np
from timing import (
    CPU,
    WALL,
    Bare,
    Times,
    Variant,
    build,
    heading,
    measure,
    report,
    with_gradient,
)

import metatensor_jax as ours

SIZES = (64, 512)  # blocks
ROWS = (10, 60)  # rows of a block
N_PROPERTIES = 8
#: calls until eager ones are as fast as they get: after twenty, their results come
#: from a program that is made for them
WARM = 30
KEY_NAMES = ["o3_lambda", "center_type", "neighbor_type"]

Arrays = list[tuple[Any, ...]]  # for each block its values, and its gradients if any


def binary() -> None:
    """Add and multiply, called eagerly on NumPy and JAX arrays, and under jit."""
    for n_blocks in SIZES:
        for per_row in (0, 2):
            with_or_without = "with gradients" if per_row else "no gradients"
            heading(f"{n_blocks} blocks, {with_or_without}")
            for name in ("add", "multiply"):
                _compare(name, n_blocks, per_row)


def _blocks(n_blocks: int, per_row: int, seed: int) -> list[Bare]:
    """Blocks of different sizes, with the same labels for each seed."""
    rng = np.random.default_rng(seed)
    sizes = np.random.default_rng(0).permutation(
        np.linspace(*ROWS, n_blocks).astype(int)
    )
    blocks = []
    for n in sizes.tolist():
        row = np.arange(n, dtype=np.int32)
        samples = np.stack([row // 4, row % 4], 1)
        bare = Bare(rng.random((n, N_PROPERTIES)), samples)
        blocks.append(with_gradient(bare, 4, per_row, seed) if per_row else bare)
    return blocks


def _keys(n_blocks: int) -> list[tuple[int, int, int]]:
    return [(i // 64, i // 8 % 8, i % 8) for i in range(n_blocks)]


def _compare(name: str, n_blocks: int, per_row: int) -> None:
    pair = [_blocks(n_blocks, per_row, seed) for seed in (1, 2)]
    keys = _keys(n_blocks)
    parents = [
        None if bare.gradient_samples is None else bare.gradient_samples[:, 0]
        for bare in pair[0]
    ]

    def maps(types: Any) -> tuple[Any, Any]:
        a, b = (build(types, KEY_NAMES, keys, bares) for bares in pair)
        return a, b

    def on_device() -> tuple[Any, Any]:
        a, b = (tensor.to(arrays="jax") for tensor in maps(ours))
        return a, b

    our_call = _on_pair(getattr(ours, name))
    their_call = _on_pair(getattr(theirs, name))
    by_hand = jax.jit(_by_hand(name, parents))

    def arrays() -> tuple[Arrays, Arrays]:
        a, b = ([tuple(bare.arrays) for bare in bares] for bares in pair)
        return a, b

    def arrays_on_device() -> tuple[Arrays, Arrays]:
        a, b = jax.tree.map(jnp.asarray, arrays())
        return a, b

    from_numpy = measure(
        Variant(our_call, lambda: maps(ours)),
        Variant(their_call, lambda: maps(metatensor)),
        Variant(by_hand, arrays),
        clock=WALL,
        rounds=WARM,
    )
    report(f"{name}, eager, NumPy arrays", from_numpy, speedup=5)
    jitted = measure(
        Variant(jax.jit(our_call), on_device),
        None,
        Variant(by_hand, arrays_on_device),
        clock=WALL,
        rounds=25,
    )
    from_jax = measure(Variant(our_call, on_device), clock=WALL, rounds=WARM)
    eager = Times(from_jax.ours, from_numpy.theirs, jitted.by_hand)
    report(f"{name}, eager, JAX arrays", eager, speedup=5)
    report(f"{name}, under jit", jitted, overhead=1.2)


def _on_pair(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda pair: function(*pair)


def _by_hand(name: str, parents: list[Any]) -> Callable[[Any], Any]:
    """The operation, and the product rule, on lists of arrays."""

    def block(a: Any, b: Any, at: Any) -> Any:
        if name == "add":
            return [x + y for x, y in zip(a, b, strict=True)]
        product = [a[0] * b[0]]
        if at is not None:
            product.append(a[1] * b[0][at][:, None] + a[0][at][:, None] * b[1])
        return product

    def program(pair: Any) -> Any:
        return [block(*of_block) for of_block in zip(*pair, parents, strict=True)]

    return program


def lookup() -> None:
    """All blocks of a map, one after the other."""
    n_blocks = 512
    heading(f"all of {n_blocks} blocks, one after the other")
    bares, keys = _blocks(n_blocks, 0, 0), _keys(n_blocks)
    by_key = dict(zip(keys, bares, strict=True))
    as_dicts = [dict(zip(KEY_NAMES, key, strict=True)) for key in keys]
    our_map, their_map = (
        build(types, KEY_NAMES, keys, bares) for types in (ours, metatensor)
    )

    def all_by_key(argument: Any) -> list[Any]:
        tensor, entries = argument
        return [tensor.block(entry) for entry in entries]

    def by_hand(entries: Any) -> list[Any]:
        return [by_key[entry].values for entry in entries]

    def tuples_of(dicts: Any) -> list[Any]:
        return [by_key[tuple(key.values())].values for key in dicts]

    for name, by_library, hand in (
        (
            "by key, a LabelsEntry",
            [(tensor, list(tensor.keys)) for tensor in (our_map, their_map)],
            Variant(by_hand, lambda: keys),
        ),
        (
            "by key, a dict",
            [(tensor, as_dicts) for tensor in (our_map, their_map)],
            Variant(tuples_of, lambda: as_dicts),
        ),
    ):
        both = [Variant(all_by_key, lambda pair=pair: pair) for pair in by_library]
        report(name, measure(*both, hand, clock=CPU, rounds=30), speedup=5)

    def items(tensor: Any) -> list[Any]:
        return [block for _, block in tensor.items()]

    times = measure(
        Variant(items, lambda: our_map),
        Variant(items, lambda: their_map),
        Variant(lambda _: [bare.values for _, bare in by_key.items()]),
        clock=CPU,
        rounds=30,
    )
    report("items()", times, speedup=5)
