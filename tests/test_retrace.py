"""What explain_retrace says, and that ``jax.jit`` does just that."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, tensor
from programs import on_two_devices

import metatensor_jax as mts

Labels = mts.Labels
SAME = "nothing differs: both share one compiled program"
LAYOUT = "pad both with one `Layout`"
SAME_AXES = "give both the same ones before (see Labels in `keys_to_properties`)"
P = Labels.range("p", 1)


def n_programs(a: Any, b: Any) -> int:
    """How many programs JAX makes for the two."""
    traces = []

    @jax.jit
    def function(x: Any) -> Any:
        traces.append(1)
        return [jnp.sum(leaf) for leaf in jax.tree.leaves(x)]

    for argument in (a, b, a, b):
        function(argument)
    return len(traces)


def of_keys(keys: Labels, n_properties: int = 1) -> mts.TensorMap:
    blocks = [block(2, (), n_properties, seed=i) for i in range(len(keys))]
    return mts.TensorMap(keys, blocks)


def of_samples(
    samples: Labels, dtype: Any = np.float32, **axes: Any
) -> mts.TensorBlock:
    components, properties = axes.get("components", []), axes.get("properties", P)
    shape = (len(samples), *map(len, components), len(properties))
    return mts.TensorBlock(np.ones(shape, dtype), samples, components, properties)


def traced(samples: Labels) -> mts.TensorBlock:
    labels = Labels.traced(samples.names, jnp.asarray(samples.values))
    return of_samples(labels)


def with_gradient(
    name: str, samples: Labels, inner: tuple[str, Labels] | None = None
) -> mts.TensorBlock:
    gradient = of_samples(samples)
    if inner is not None:
        gradient = gradient.with_gradient(inner[0], of_samples(inner[1]))
    return of_samples(Labels.range("s", 2)).with_gradient(name, gradient)


A = Labels(["system", "atom"], [[0, 0], [0, 1]])
ROWS = Labels(["sample", "atom"], [[0, 0], [1, 3]])
OTHER_ROWS = Labels(["sample", "atom"], [[0, 0], [1, 4]])

# two arguments, and all that is said of them
DIFFERENT = {
    "a key is missing": lambda: (
        of_keys(Labels("center_type", [[1], [6]])),
        of_keys(Labels("center_type", [[1], [8], [9]])),
        "keys are missing: only the first has ['(center_type=6)'], only the second "
        "['(center_type=8)', '(center_type=9)']; pad both with one `Layout`, which has "
        "the keys of all data",
    ),
    "keys in another order": lambda: (
        of_keys(Labels("center_type", [[1], [6]])),
        of_keys(Labels("center_type", [[6], [1]])),
        "the keys are the same in another order; see `sort`",
    ),
    "names of keys": lambda: (
        of_keys(Labels("center_type", [[1]])),
        of_keys(Labels("species", [[1]])),
        "the names of the keys differ: ['center_type'] and ['species']",
    ),
    "info": lambda: (
        tensor((2,), info={"units": "eV", "name": "x"}),
        tensor((2,), info={"name": "x"}),
        "the info differs, {'units': 'eV'}; info is static, leave it out of batches",
    ),
    "number of samples": lambda: (
        of_samples(Labels.range("s", 2)),
        of_samples(Labels.range("s", 4)),
        "samples: there are 2 and 4 entries of ['s'], the first that only one has is "
        f"(s=2); {LAYOUT}",
    ),
    "number and entries of samples": lambda: (
        of_samples(A),
        of_samples(Labels(["system", "atom"], [[0, 0], [7, 1], [7, 2]])),
        "samples: there are 2 and 3 entries of ['system', 'atom'], the first that "
        f"differs is (system=0, atom=1) and (system=7, atom=1); {LAYOUT}",
    ),
    "entries of samples": lambda: (
        of_samples(A),
        of_samples(Labels(["system", "atom"], [[0, 0], [0, 5]])),
        "samples: entry 1 is (system=0, atom=1) and (system=0, atom=5); " + LAYOUT,
    ),
    "names of samples": lambda: (
        of_samples(A),
        of_samples(Labels(["system", "pair"], A.values)),
        "samples: the names differ: ['system', 'atom'] and ['system', 'pair']; "
        + LAYOUT,
    ),
    "traced samples with other room": lambda: (
        traced(Labels.range("s", 2)),
        traced(Labels.range("s", 3)),
        f"samples: there is room for 2 and 3; {LAYOUT} and bucket",
    ),
    "names of traced samples": lambda: (
        traced(A),
        traced(Labels(["system", "pair"], A.values)),
        "samples: the names differ: ['system', 'atom'] and ['system', 'pair']",
    ),
    "static and traced": lambda: (
        of_samples(A),
        traced(A),
        f"samples: one is static, the other traced; {LAYOUT}",
    ),
    "properties": lambda: (
        of_samples(A, properties=Labels("n", [[0], [1]])),
        of_samples(A, properties=Labels("n", [[0], [2]])),
        f"properties: entry 1 is (n=1) and (n=2); {SAME_AXES}",
    ),
    "components": lambda: (
        of_samples(A, components=[Labels.range("xyz", 3)]),
        of_samples(A, components=[Labels.range("abc", 3)]),
        f"components: the names differ: ['xyz'] and ['abc']; {SAME_AXES}",
    ),
    "number of components": lambda: (
        of_samples(A, components=[Labels.range("xyz", 3)]),
        of_samples(A),
        "there are 1 and 0 components",
    ),
    "dtype": lambda: (
        of_samples(A),
        of_samples(A, np.float16),
        "values: the dtypes are float32 and float16; convert one, "
        "`.to(dtype='float32')`",
    ),
    "a gradient is missing": lambda: (
        with_gradient("positions", ROWS),
        with_gradient("strain", ROWS),
        "the gradients are ['positions'] and ['strain']; see `remove_gradients`",
    ),
    "samples of a gradient": lambda: (
        with_gradient("positions", ROWS),
        with_gradient("positions", OTHER_ROWS),
        "gradient 'positions', samples: entry 1 is (sample=1, atom=3) and (sample=1, "
        f"atom=4); {LAYOUT}",
    ),
    "samples of a gradient of a gradient": lambda: (
        with_gradient("positions", ROWS, ("strain", ROWS)),
        with_gradient("positions", ROWS, ("strain", OTHER_ROWS)),
        "gradient 'positions', gradient 'strain', samples: entry 1 is (sample=1, "
        f"atom=3) and (sample=1, atom=4); {LAYOUT}",
    ),
    "a block of a map": lambda: (
        of_keys(Labels("center_type", [[1]]), 1),
        of_keys(Labels("center_type", [[1]]), 2),
        "block (center_type=1), properties: there are 1 and 2 entries of ['property'], "
        f"the first that only one has is (property=1); {SAME_AXES}",
    ),
    "in containers": lambda: (
        {"x": [of_samples(A)], "y": np.ones(2, "f4")},
        {"x": [of_samples(Labels.range("s", 1))], "y": np.ones(3, "f4")},
        "['x'][0]: samples: the names differ: ['system', 'atom'] and ['s']; "
        f"{LAYOUT}\n['y']: the shapes are (2,) and (3,); {LAYOUT}",
    ),
    "containers": lambda: (
        [np.ones(2, "f4")],
        (np.ones(2, "f4"),),
        "the containers differ: PyTreeDef([*]) and PyTreeDef((*,))",
    ),
    "keys of a dict": lambda: (
        {"x": of_samples(A)},
        {"y": of_samples(A)},
        "the containers differ: PyTreeDef({'x': *}) and PyTreeDef({'y': *})",
    ),
    "a map and a block": lambda: (
        of_keys(Labels("center_type", [[1]])),
        of_samples(A),
        "one is a TensorMap, the other a TensorBlock",
    ),
    "a map and an array": lambda: (
        [of_samples(A)],
        [np.ones((2, 1), "f4")],
        "[0]: one is a TensorBlock, the other a ndarray",
    ),
    "labels": lambda: (
        Labels.range("s", 2),
        Labels.range("t", 2),
        f"the names differ: ['s'] and ['t']; {LAYOUT}",
    ),
    "shapes of arrays": lambda: (
        np.ones((2, 1), "f4"),
        np.ones((2, 3), "f4"),
        f"the shapes are (2, 1) and (2, 3); {LAYOUT}",
    ),
    "dtypes of arrays": lambda: (
        np.ones(2, "f4"),
        np.ones(2, "i4"),
        "the dtypes are float32 and int32; convert one, `.to(dtype='float32')`",
    ),
    "a number and an array": lambda: (
        1.0,
        jnp.float32(1),
        "one counts as a Python number, the other as an array (weak type); use "
        "`jnp.asarray(x, dtype)` for both",
    ),
    "None and an array": lambda: (
        [None],
        [np.ones(1, "f4")],
        "the containers differ: PyTreeDef([None]) and PyTreeDef([*])",
    ),
}

EQUAL = {
    "a map and itself": lambda: (tensor((2, 3)),) * 2,
    "equal labels of their own": lambda: (tensor((2, 3)), tensor((2, 3), seed=4)),
    "equal gradients": lambda: tuple(
        tensor((2, 3), gradients={"positions": Gradient(rows=[0, 1])}, seed=seed)
        for seed in range(2)
    ),
    "NumPy and JAX arrays": lambda: (tensor((2,)), tensor((2,)).to(arrays="jax")),
    "traced labels of other systems": lambda: (
        traced(A),
        traced(Labels(["system", "atom"], [[5, 0], [6, 1]])),
    ),
    "a padded batch": lambda: tuple(map(_layout().pad, _batches())),
    "containers": lambda: ({"x": [tensor((2,)), 1.0]}, {"x": [tensor((2,)), 2.0]}),
    "numbers": lambda: (1.0, 2.5),
    "no array at all": lambda: ([], []),
    "labels": lambda: (Labels.range("s", 2), Labels("s", [[0], [1]])),
}


def _batches() -> list[mts.TensorMap]:
    return [
        mts.TensorMap(Labels.single(), [of_samples(Labels(["system", "atom"], rows))])
        for rows in ([[3, 0], [3, 1], [4, 0]], [[7, 0]])
    ]


def _layout() -> mts.Layout:
    return mts.Layout.fit(_batches(), systems=2)


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_named_and_makes_two_programs(name: str) -> None:
    a, b, text = DIFFERENT[name]()
    assert mts.explain_retrace(a, b) == text
    assert mts.explain_retrace(b, a) != SAME
    assert n_programs(a, b) == 2


@pytest.mark.parametrize("name", EQUAL)
def test_where_nothing_differs_there_is_one_program(name: str) -> None:
    a, b = EQUAL[name]()
    assert mts.explain_retrace(a, b) == SAME
    assert n_programs(a, b) == 1


def test_all_differences_are_named() -> None:
    gradients = {"positions": Gradient(rows=[0])}
    a = tensor((2, 2), gradients=gradients, info={"a": "1"})
    b = tensor((2, 3), n_properties=[1, 2])
    lines = mts.explain_retrace(a, b).split("\n")
    assert [line.split(":")[0].split(";")[0] for line in lines] == [
        "the info differs, {'a'",
        "block (o3_lambda=0, center_type=0), properties",
        "block (o3_lambda=0, center_type=0), the gradients are ['positions'] and []",
        "block (o3_lambda=1, center_type=0), samples",
        "block (o3_lambda=1, center_type=0), the gradients are ['positions'] and []",
    ]
    assert n_programs(a, b) == 2


def test_bits_that_jit_drops_are_no_difference(x64: bool) -> None:
    """Without 64-bit types, float64 arrays become float32 at the call."""
    a, b = np.ones(2, "f4"), np.ones(2, "f8")
    assert n_programs(a, b) == (2 if x64 else 1)
    text = "the dtypes are float32 and float64; convert one, `.to(dtype='float32')`"
    assert mts.explain_retrace(a, b) == (text if x64 else SAME)


def test_static_arguments_are_constants() -> None:
    """A string, or a function, is no data: ``eqx.filter_jit`` compiles for each."""
    text = mts.explain_retrace({"kind": "sum"}, {"kind": "mean"})
    assert text == "['kind']: 'sum' and 'mean' are constants of the programs"
    assert mts.explain_retrace(["sum", 1], ["sum", 2]) == SAME
    eqx = pytest.importorskip("equinox")
    traces = []

    @eqx.filter_jit
    def function(x: Any) -> Any:
        traces.append(1)

    for kind in ("sum", "mean", "sum"):
        function({"kind": kind})
    assert len(traces) == 2


def test_batches_of_several_buckets_differ_in_room() -> None:
    large, small = _batches()
    layout = mts.Layout.fit([large, small], systems=2, buckets=2)
    a, b = layout.pad(large), layout.pad(small)
    text = mts.explain_retrace(a, b)
    assert f"samples: there is room for 3 and 2; {LAYOUT} and bucket" in text
    assert n_programs(a, b) == 2


def test_stacked_maps() -> None:
    """Their metadata is static as well."""
    a, b = (mts.stack_blocks(tensor((2, n))) for n in (2, 3))
    assert n_programs(a, b) == 2
    text = mts.explain_retrace(a, b)
    assert "block (o3_lambda=1, center_type=0), samples: there are 2 and 3" in text
    assert mts.explain_retrace(a, a) == SAME


_TWO_DEVICES = """
import jax, jax.numpy as jnp, metatensor_jax as mts
a, b = (jax.device_put(jnp.ones(2), device) for device in jax.devices())
text = mts.explain_retrace(a, b)
assert text.startswith("they are placed as ") and " and " in text, text
assert mts.explain_retrace(a, a + 1).startswith("nothing differs")
f = jax.jit(lambda x: 2 * x)
f(a), f(b), f(a)
print(f._cache_size())
"""


def test_other_devices() -> None:
    assert on_two_devices(_TWO_DEVICES).split() == ["2"]
