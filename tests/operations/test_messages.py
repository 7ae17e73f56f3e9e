"""Each error of the operations: its type, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from structures import Size, Structure, traced

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, NotEqualError, TracedLabelsError

PLAIN = Structure("plain", [Size(2, 2), Size(2, 2)])
WITH_COMPONENT = Structure("component", [Size(2, 2), Size(2, 2)], (2,))
WITH_GRADIENT = Structure("gradient", [Size(2, 2), Size(2, 2)], (), {"cell": ()}, 1.0)
TREE = {"positions": ("cell",), "cell": ()}
NESTED = Structure("nested", [Size(2, 2)] * 2, (), TREE, 1.0)

x = PLAIN.input().stored()
c = WITH_COMPONENT.input().stored()
g = WITH_GRADIENT.input().stored()
n = NESTED.input().stored()
block = x.block_by_id(0)
wide = Structure("wide", [Size(2, 3), Size(2, 3)]).input().stored()
long = Structure("long", [Size(3, 2), Size(3, 2)]).input().stored()
single = Structure("single", [Size(2, 2)]).input().stored()
empty = Structure("empty", []).input().stored()
renamed = mts.rename_dimension(x, "samples", "atom", "center")
reordered = mts.slice(x, "samples", [1, 0])
integers = mts.TensorMap(g.keys, [b.to("int32") for b in g])


def _with_gradient(samples: Labels, components: list[Labels], name: str = "g") -> Any:
    """``x`` with a gradient that has these labels."""

    def change(block: mts.TensorBlock) -> mts.TensorBlock:
        shape = (len(samples), *map(len, components), len(block.properties))
        gradient = mts.TensorBlock(
            np.ones(shape), samples, components, block.properties
        )
        return block.with_gradient(name, gradient)

    return mts.TensorMap(x.keys, [change(block) for block in x])


xyz = [Labels.range("xyz", 3)]
by_atom = _with_gradient(Labels(["sample", "atom"], [[0, 0]]), xyz)
by_index = _with_gradient(Labels(["sample", "index"], [[0, 0]]), xyz)
by_matrix = _with_gradient(Labels(["sample", "atom"], [[0, 0]]), [Labels.range("m", 2)])
by_other = _with_gradient(Labels(["sample", "atom"], [[0, 0]]), xyz, "h")


def without_derivatives(tensor: mts.TensorMap) -> mts.TensorMap:
    """A map with the same values, and gradients that are zero."""
    blocks = [
        zeros.with_values(block.values)
        for zeros, block in zip(mts.zeros_like(tensor), tensor, strict=True)
    ]
    return mts.TensorMap(tensor.keys, blocks)


def compiled(function: Callable[..., Any], *tensors: mts.TensorMap) -> Any:
    """Call a compiled function with maps that have traced samples."""
    return jax.jit(function)(*[traced(t.to("float32", "jax")) for t in tensors])


MESSAGES: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    # --- the type of arguments ---
    "not_a_map": (
        lambda: mts.abs(block),
        TypeError,
        ["`A` must be a metatensor_jax TensorMap, not metatensor_jax.block.TensorB"],
    ),
    "not_a_block": (
        lambda: mts.sort_block(x),
        TypeError,
        ["`block` must be a metatensor_jax TensorBlock, not"],
    ),
    "not_labels": (
        lambda: mts.filter_blocks(x, [0]),
        TypeError,
        ["`keys` must be a metatensor_jax Labels, not builtins.list"],
    ),
    "not_a_number": (
        lambda: mts.add(x, "1"),
        TypeError,
        ["`B` must be a metatensor_jax TensorMap or a number, not builtins.str"],
    ),
    "an_array": (
        lambda: mts.multiply(x, np.ones(3)),
        TypeError,
        ["`B` must be", "or a number, not numpy.ndarray", "3"],
    ),
    "pow_of_a_map": (
        lambda: mts.pow(x, x),
        TypeError,
        ["`B` must be a number, not metatensor_jax.tensor.TensorMap"],
    ),
    "join_of_a_map": (
        lambda: mts.join(x, "samples"),
        TypeError,
        ["`tensors` must be a list or a tuple, not TensorMap"],
    ),
    "join_of_blocks": (
        lambda: mts.join([x, block], "samples"),
        TypeError,
        ["`tensors[1]` must be a metatensor_jax TensorMap"],
    ),
    "split_by_labels": (
        lambda: mts.split(x, "samples", Labels("system", [[0]])),
        TypeError,
        ["`selections` must be a list of Labels or of positions, not Labels"],
    ),
    "slice_by_mask": (
        lambda: mts.slice(x, "samples", np.array([True, False])),
        TypeError,
        ["a selection must be Labels, or a list or 1D array of positions, not ndarray"],
    ),
    "block_from_list": (
        lambda: mts.block_from_array([1.0]),
        TypeError,
        ["`array` must be an array, not list"],
    ),
    "integers": (
        lambda: mts.pow(integers, 2),
        TypeError,
        ["can not push the gradients with respect to 'cell'", "int32", ".to(dtype=fl"],
    ),
    # --- names and options ---
    "axis": (
        lambda: mts.slice(x, "keys", [0]),
        MetatensorError,
        ["`axis` must be either 'samples' or 'properties', not 'keys'"],
    ),
    "axis_of_dimensions": (
        lambda: mts.append_dimension(x, "components", "new", 0),
        MetatensorError,
        ["`axis` must be either 'keys' or 'samples' or 'properties', not 'components'"],
    ),
    "axes_of_sort": (
        lambda: mts.sort(x, ["rows"]),
        MetatensorError,
        ["`axes` must be 'all' or some of", "not 'rows'"],
    ),
    "check": (
        lambda: mts.equal_metadata(x, x, check="rows"),
        MetatensorError,
        ["`check` must be 'all' or some of", "not 'rows'"],
    ),
    "different_keys": (
        lambda: mts.join([x, x], "samples", different_keys="all"),
        MetatensorError,
        ["`different_keys` must be one of ('error', 'intersection', 'union'), not 'a"],
    ),
    "nothing_to_join": (
        lambda: mts.join([], "samples"),
        MetatensorError,
        ["provide at least one TensorMap for joining"],
    ),
    "sample_name": (
        lambda: mts.sum_over_samples(x, "center"),
        MetatensorError,
        ["'center' is not one of the sample names ['system', 'atom']"],
    ),
    "property_name": (
        lambda: mts.var_over_properties(x, ["m"]),
        MetatensorError,
        ["'m' is not one of the property names ['n', 'l']"],
    ),
    "selection_name": (
        lambda: mts.slice(x, "samples", Labels("center", [[0]])),
        MetatensorError,
        ["invalid selection: 'center' is not one of the samples dimensions"],
    ),
    "position_twice": (
        lambda: mts.slice(x, "properties", [0, 0]),
        MetatensorError,
        ["positions in a selection must be unique: [0 0]"],
    ),
    "position_out_of_range": (
        lambda: mts.slice(x, "samples", [5]),
        IndexError,
        ["position 5 is out of range for 2 samples"],
    ),
    "out_samples_names": (
        lambda: mts.sum_over_samples(x, "atom", out_samples=Labels.range("s", 3)),
        MetatensorError,
        ["`out_samples` must have the names that are left, ['system'], not ['s']"],
    ),
    "out_samples_missing": (
        lambda: mts.sum_over_samples(x, "atom", out_samples=Labels.range("system", 1)),
        MetatensorError,
        ["(system=1) is not one of the `out_samples`"],
    ),
    "remove_gradient": (
        lambda: mts.remove_gradients(x, ["cell"]),
        MetatensorError,
        ["can not remove the gradient with respect to 'cell': this block has none"],
    ),
    "keep_gradient": (
        lambda: mts.zeros_like(g, gradients="positions"),
        MetatensorError,
        ["can not find gradients with respect to 'positions'", "['cell']"],
    ),
    "array_axes": (
        lambda: mts.block_from_array(np.ones((2, 3)), ["a", "b", "c"]),
        MetatensorError,
        ["an array with shape (2, 3) does not have one axis for each", "['a', 'b', 'c"],
    ),
    "one_hot_dimension": (
        lambda: mts.one_hot(x.keys, x.keys),
        MetatensorError,
        ["`dimension` must have a single dimension, got ['a', 'b']"],
    ),
    "one_hot_value": (
        lambda: mts.one_hot(x.keys, Labels("a", [[0]])),
        MetatensorError,
        ["a=1 is present in the labels, but not among the possible values [0]"],
    ),
    # --- moving keys ---
    "key_name": (
        lambda: x.keys_to_samples("z"),
        MetatensorError,
        ["'z' is not part of the keys of this map: ['a', 'b']"],
    ),
    "key_entries": (
        lambda: x.keys_to_samples(Labels("a", [[0]])),
        MetatensorError,
        ["`keys_to_move` of keys_to_samples must not contain entries, got 1"],
    ),
    "no_keys": (
        lambda: empty.keys_to_properties("a"),
        MetatensorError,
        ["there are no keys to move in a map without blocks"],
    ),
    "component_name": (
        lambda: c.components_to_properties("m"),
        MetatensorError,
        ["'m' is not one of the components ['component_0']"],
    ),
    # --- maps that differ ---
    "keys_of_arithmetic": (
        lambda: mts.add(x, single),
        NotEqualError,
        ["inputs to 'add' should have the same keys, but they have", "and"],
    ),
    "keys_of_join": (
        lambda: mts.join([x, single], "samples"),
        NotEqualError,
        ["inputs to 'join' should have the same keys", "see `different_keys=`"],
    ),
    "keys_of_map_rows": (
        lambda: mts.map_rows(jnp.add, x, single),
        NotEqualError,
        ["inputs should have the same keys, but they differ"],
    ),
    "number_of_components": (
        lambda: mts.subtract(x, c),
        NotEqualError,
        ["'subtract' should have the same number of components", "[] and ['component"],
    ),
    "number_of_properties": (
        lambda: mts.divide(x, wide),
        NotEqualError,
        ["'divide' should have the same properties, but there are 2 and 3 entries"],
    ),
    "number_of_samples": (
        lambda: mts.multiply(x, long),
        NotEqualError,
        ["'multiply' should have the same samples, but there are 2 and 3 entries of"],
    ),
    "sample_names": (
        lambda: mts.add(x, renamed),
        NotEqualError,
        ["the names differ: ['system', 'atom'] and ['system', 'center']"],
    ),
    "order_of_samples": (
        lambda: mts.add(x, reordered),
        NotEqualError,
        ["entry 0 is (system=1, atom=0) and (system=0, atom=2)", "in another order"],
    ),
    "parameters": (
        lambda: mts.add(x, g),
        NotEqualError,
        ["'add' should have the same gradient parameters, but they have [] and ['cell"],
    ),
    "gradient_components": (
        lambda: mts.add(by_atom, by_matrix),
        NotEqualError,
        ["gradients with respect to 'g' should have the same components in all inputs"],
    ),
    "gradient_sample_names": (
        lambda: mts.add(by_atom, by_index),
        NotEqualError,
        ["'g' should have the same sample names in all inputs", "['sample', 'index']"],
    ),
    "samples_of_map_rows": (
        lambda: mts.map_rows(jnp.add, x, reordered),
        NotEqualError,
        ["inputs should have the same samples in the same order, but they differ"],
    ),
    "join_parameters": (
        lambda: mts.join([by_atom, by_other], "samples", add_dimension="map"),
        NotEqualError,
        ["'join' should have the same gradient parameters, but they have ['g'] and ['"],
    ),
    "join_sample_names": (
        lambda: mts.join([x, renamed], "samples"),
        NotEqualError,
        ["inputs to 'join' should have the same sample names, but they have"],
    ),
    "join_duplicates": (
        lambda: mts.join([x, x], "properties"),
        MetatensorError,
        ["can not join along properties", "use `add_dimension=` to tell the inputs a"],
    ),
    "beside_without_gradient": (
        lambda: mts.move_rows(
            [mts.Move(by_atom.block_by_id(0)), mts.Move(block)],
            block.samples,
            properties=Labels.range("p", 4),
            arrangement="side by side",
        ),
        NotEqualError,
        ["blocks side by side must all have gradients with respect to 'g'"],
    ),
    # --- linear algebra ---
    "dot_gradients": (
        lambda: mts.dot(x, g),
        MetatensorError,
        ["`tensor_2` of 'dot' should have neither components nor gradients", "['cell"],
    ),
    "dot_components": (
        lambda: mts.dot(x, c),
        MetatensorError,
        [
            "`tensor_2` of 'dot' should have neither components",
            "['component_0'] and []",
        ],
    ),
    "solve_square": (
        lambda: mts.solve(wide, wide),
        MetatensorError,
        ["'solve' needs as many equations as unknowns, but there are 2 and 3: see `ls"],
    ),
    "solve_samples": (
        lambda: mts.solve(x, reordered),
        NotEqualError,
        ["inputs to 'solve' should have the same samples"],
    ),
    # --- comparison ---
    "equal_dtype": (
        lambda: mts.equal_raise(x, x.to("float32")),
        NotEqualError,
        ["blocks for key (a=0, b=0) are different: dtypes differ: float64 and float32"],
    ),
    "equal_values": (
        lambda: mts.equal_block_raise(block, block.with_values(block.values + 1)),
        NotEqualError,
        [
            "values are not equal",
            "at sample (system=1, atom=0), property",
            "4 of 4 dif",
        ],
    ),
    "allclose_gradient": (
        lambda: mts.allclose_raise(g, without_derivatives(g)),
        NotEqualError,
        ["values are not allclose", " of the gradient with respect to 'cell'"],
    ),
    # --- traced samples ---
    "traced_out_samples": (
        lambda: compiled(lambda t: mts.mean_over_samples(t, "atom"), x),
        TracedLabelsError,
        ["a reduction over samples without `out_samples=` needs the values of the la"],
    ),
    "traced_out_samples_not_a_range": (
        lambda: compiled(
            lambda t: mts.sum_over_samples(
                t, "atom", out_samples=Labels("system", [[1], [0]])
            ),
            x,
        ),
        MetatensorError,
        ["`out_samples` of traced samples must be like `Labels.range(name, n)`"],
    ),
    "traced_slice": (
        lambda: compiled(lambda t: mts.slice(t, "samples", [1, 0]), g),
        TracedLabelsError,
        ["selecting rows with gradients needs the values of the labels [sample]"],
    ),
    "traced_cut": (
        lambda: compiled(lambda t: mts.split(t, "samples", [[0], [1]]), x),
        TracedLabelsError,
        ["cutting a block into runs needs the values of the labels [system, atom]"],
    ),
    "traced_sort": (
        lambda: compiled(lambda t: mts.sort(t, "samples"), x),
        TracedLabelsError,
        ["sorting samples needs the values of the labels [system, atom]"],
    ),
    "traced_unique": (
        lambda: compiled(lambda t: mts.unique_metadata(t, "samples", "atom"), x),
        TracedLabelsError,
        ["unique_metadata needs the values of the labels [system, atom]"],
    ),
    "traced_dot": (
        lambda: compiled(mts.dot, x, x),
        TracedLabelsError,
        ["the samples of `tensor_2` in 'dot' needs the values"],
    ),
    "traced_nested": (
        lambda: compiled(lambda t: mts.pow(t, 2), n),
        TracedLabelsError,
        ["taking rows with gradients of gradients needs the values of the labels"],
    ),
}


@pytest.fixture(autouse=True)
def _double():
    with enable_x64(True):
        yield


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name):
    call, kind, texts = MESSAGES[name]
    with pytest.raises(kind) as error:
        call()
    assert type(error.value) is kind
    for text in texts:
        assert text in str(error.value)
