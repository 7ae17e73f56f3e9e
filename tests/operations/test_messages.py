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
bools = x.to("bool")
three = Structure("three", [Size(2, 2)] * 2, (3,)).input().stored()
other_keys = mts.rename_dimension(x, "keys", "a", "c")
# the blocks of this map, which are merged when keys move, have different components
uneven = mts.TensorMap(x.keys, [c.block_by_id(0), three.block_by_id(1)])


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


def narrow(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function while JAX has 32 bits only."""
    with enable_x64(False):
        return function(*args)


def traced_gradients(tensor: mts.TensorMap) -> mts.TensorMap:
    """A map where the samples of gradients are data, but those of values are not."""

    def change(block: mts.TensorBlock) -> mts.TensorBlock:
        data = dict(traced(mts.TensorMap(Labels.single(), [block])).block().gradients())
        axes = block.samples, block.components, block.properties
        return mts.TensorBlock(block.values, *axes, data)

    return mts.TensorMap(tensor.keys, [change(block) for block in tensor])


def compiled(function: Callable[..., Any], *tensors: mts.TensorMap) -> Any:
    """Call a compiled function with maps that have traced samples."""
    return jax.jit(function)(*[traced(t.to("float32", "jax")) for t in tensors])


MESSAGES: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    # --- the type of arguments ---
    "not_a_map": (
        lambda: mts.abs(block),
        TypeError,
        [
            "`A` must be a metatensor_jax TensorMap, not metatensor_jax.TensorB",
            "lock: for single blocks see the functions that end with `_block`",
        ],
    ),
    "not_a_map_to_compare": (
        lambda: mts.equal(x, block),
        TypeError,
        ["`tensor_2` must be a metatensor_jax TensorMap, not metatensor_jax.Te"],
    ),
    "not_a_block_to_compare": (
        lambda: mts.allclose_block_raise(block, x),
        TypeError,
        ["`block_2` must be a metatensor_jax TensorBlock, not metatensor_jax."],
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
        ["`B` must be a number, not metatensor_jax.TensorMap"],
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
        ["`array` must be an array (of ", "), not builtins.list: take `numpy.array"],
    ),
    "integers": (
        lambda: mts.divide(integers, integers),
        TypeError,
        ["can not push the gradients with respect to 'cell'", "int32", ".to(dtype=fl"],
    ),
    "random_integers": (
        lambda: mts.random_uniform_like(integers, key=jax.random.key(0)),
        TypeError,
        ["random numbers from 0 to 1 are no int32"],
    ),
    "sum_of_bools": (
        lambda: mts.sum_over_samples(bools, ["atom", "system"]),
        TypeError,
        ["can not add up bool values: convert them first"],
    ),
    "narrowed": (
        lambda: narrow(mts.add, x, 1.0),
        TypeError,
        [
            "the data is float64, but JAX is in its 32-bit mode and would narrow it to "
            "float32. Enable 64 bits, `jax.config.update('jax_enable_x64', True)`, or "
            "convert with `.to(dtype='float32')`"
        ],
    ),
    "narrowed_random": (
        lambda: narrow(lambda: mts.random_uniform_like(x, key=jax.random.key(0))),
        TypeError,
        ["the data is float64, but JAX is in its 32-bit mode"],
    ),
    "narrowed_system": (
        lambda: narrow(mts.solve, x, x),
        TypeError,
        ["the data is float64, but JAX is in its 32-bit mode"],
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
    "axis_of_join": (
        lambda: mts.join([x, x], "keys"),
        MetatensorError,
        ["`axis` must be either 'samples' or 'properties', not 'keys'"],
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
    "no_blocks_to_join": (
        lambda: mts.join_blocks([], "samples"),
        MetatensorError,
        ["provide at least one TensorBlock for joining"],
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
    "selection_of_keys": (
        lambda: mts.filter_blocks(x, Labels("z", [[0]])),
        MetatensorError,
        [
            "'z' in the selection is not one of the dimensions ['a', 'b'] of these "
            "labels"
        ],
    ),
    "new_values": (
        lambda: mts.append_dimension(x, "samples", "new", [1, 2, 3]),
        MetatensorError,
        [
            "the values of the new dimension 'new' must be a 1D array with one value "
            "for each of the 2 entries, got shape (3,)"
        ],
    ),
    "new_name": (
        lambda: mts.insert_dimension(x, "properties", 0, "n", 0),
        MetatensorError,
        ["the names of labels must be unique, got 'n' multiple times in ['n', 'n', 'l"],
    ),
    "new_index": (
        lambda: mts.insert_dimension(x, "keys", 3, "new", 0),
        IndexError,
        ["can not insert a dimension at 3: these labels have 2 dimensions"],
    ),
    "permutation": (
        lambda: mts.permute_dimensions(x, "keys", [0, 0]),
        MetatensorError,
        ["`dimensions_indexes` must have each index from 0 to 1 once, got [0, 0] for "],
    ),
    "not_unique_without": (
        lambda: mts.remove_dimension(x, "keys", "a"),
        MetatensorError,
        ["labels can not have the same entry multiple times: (b=0) is at row 1 and be"],
    ),
    "dimension_to_rename": (
        lambda: mts.rename_dimension(x, "samples", "center", "atom"),
        MetatensorError,
        ["'center' not found in the dimensions of these labels: ['system', 'atom']"],
    ),
    "dimension_of_metadata": (
        lambda: mts.unique_metadata(x, "properties", "m"),
        MetatensorError,
        ["'m' not found in the dimensions of these labels: ['n', 'l']"],
    ),
    "gradient_of_metadata": (
        lambda: mts.unique_metadata_block(block, "samples", "atom", gradient="cell"),
        MetatensorError,
        ["can not find gradients with respect to 'cell' in this block, it has none"],
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
    "keys_of_components": (
        lambda: uneven.keys_to_samples("a"),
        NotEqualError,
        [
            "inputs to 'keys_to_samples' should have the same components, but there "
            "are 2 and 3 entries of ['component_0']",
            "in the blocks for keys (a=0, b=0) and (a=1, b=0)",
        ],
    ),
    "keys_of_component_columns": (
        lambda: uneven.keys_to_properties("a"),
        NotEqualError,
        ["inputs to 'keys_to_properties' should have the same components, but there"],
    ),
    # --- maps that differ ---
    "keys_of_arithmetic": (
        lambda: mts.add(x, single),
        NotEqualError,
        [
            "inputs to 'add' should have the same keys, but they have\nLabels",
            "and\nLabels",
            "(a=1, b=0) is only in the first",
        ],
    ),
    "keys_of_comparison": (
        lambda: mts.equal_metadata_raise(single, x),
        NotEqualError,
        [
            "to 'equal_metadata' should have the same keys",
            "(a=1, b=0) is only in the s",
        ],
    ),
    "key_names": (
        lambda: mts.dot(x, other_keys),
        NotEqualError,
        ["the same keys, but they have", "names differ: ['a', 'b'] and ['c', 'b']"],
    ),
    "keys_of_join": (
        lambda: mts.join([x, single], "samples"),
        NotEqualError,
        [
            "inputs to 'join' should have the same keys, but they have\nLabels",
            "(a=1, b=0) is only in the first: see `different_keys=`",
        ],
    ),
    "key_names_of_join": (
        lambda: mts.join([x, other_keys], "samples", different_keys="union"),
        NotEqualError,
        ["the names differ: ['a', 'b'] and ['c', 'b']: see `different_keys=`"],
    ),
    "keys_of_map_rows": (
        lambda: mts.map_rows(jnp.add, x, single),
        NotEqualError,
        ["inputs should have the same keys, but they differ"],
    ),
    "number_of_components": (
        lambda: mts.subtract(x, c),
        NotEqualError,
        [
            "for the block (a=0, b=0)",
            "inputs to 'subtract' should have "
            "the same number of components, but they have [] and ['component_0']",
        ],
    ),
    "entries_of_components": (
        lambda: mts.multiply(c, three),
        NotEqualError,
        ["should have the same components, but there are 2 and 3 entries of ['compon"],
    ),
    "number_of_properties": (
        lambda: mts.divide(x, wide),
        NotEqualError,
        [
            "for the block (a=0, b=0)",
            "inputs to 'divide' should have "
            "the same properties, but there are 2 and 3 entries of ['n', 'l']",
        ],
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
    "entries": (
        lambda: mts.add(
            x,
            mts.append_dimension(
                mts.remove_dimension(x, "samples", "atom"), "samples", "atom", [0, 1]
            ),
        ),
        NotEqualError,
        [
            "should have the same samples, but entry 1 is (system=0, atom=2) and "
            "(system=0"
        ],
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
        [
            "for the block (",
            "inputs should have the same samples in the same order, but entry 0 is ",
            "they are the same in another order",
        ],
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
    "join_samples": (
        lambda: mts.join([x, reordered], "properties"),
        NotEqualError,
        [
            "for the block (a=0, b=0)",
            "inputs to 'join' should have the "
            "same samples, but entry 0 is (system=1, atom=0) and (system=0, atom=2)",
        ],
    ),
    "join_blocks_samples": (
        lambda: mts.join_blocks([block, reordered.block_by_id(0)], "properties"),
        NotEqualError,
        ["inputs to 'join' should have the same samples, but entry 0 is"],
    ),
    "join_duplicates": (
        lambda: mts.join([x, x], "properties"),
        MetatensorError,
        ["joining along properties: use `add_dimension=` to tell the inputs apart"],
    ),
    "join_same_name": (
        lambda: mts.join([x, x], "samples", add_dimension="atom"),
        MetatensorError,
        [
            "the names of labels must be unique, got 'atom' multiple times in ['system'"
            ", 'atom', 'atom']",
            "joining along samples: use another name to tell the inputs apart",
        ],
    ),
    # --- the row primitives ---
    "row_shape": (
        lambda: mts.map_rows(jnp.sum, x),
        MetatensorError,
        [
            "the row function gives rows with shape (), but the components and "
            "properties of the result have (2,): see `components=` and `properties=`"
        ],
    ),
    "negative_row": (
        lambda: mts.move_rows([mts.Move(block, np.array([-1]))], Labels("s", [[0]])),
        IndexError,
        ["rows to move can not be negative: -1"],
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
        [
            "for the block (a=0, b=0)",
            "inputs to 'solve' should "
            "have the "
            "same samples, but entry 0 is (system=1, atom=0) and (system=0, atom=2)",
        ],
    ),
    "solve_gradient_samples": (
        lambda: mts.lstsq(by_atom, by_index, None),
        NotEqualError,
        [
            "inputs to 'lstsq' should have the same samples, but the names differ: "
            "['sample', 'atom'] and ['sample', 'index']",
            "of the gradient with respect to 'g'",
        ],
    ),
    "dot_properties": (
        lambda: mts.dot(x, wide),
        NotEqualError,
        [
            "for the block (a=0, b=0)",
            "inputs to 'dot' should have the "
            "same properties, but there are 2 and 3 entries of ['n', 'l']",
        ],
    ),
    # --- comparison ---
    "equal_dtype": (
        lambda: mts.equal_raise(x, x.to("float32")),
        NotEqualError,
        ["for the block (a=0, b=0)", "dtypes differ: float64 and float32"],
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
        ["values are not allclose", "of the gradient with respect to 'cell'"],
    ),
    "equal_parameters": (
        lambda: mts.equal_metadata_raise(x, g),
        NotEqualError,
        [
            "for the block (a=0, b=0)",
            "inputs to 'equal_metadata' "
            "should "
            "have the same gradient parameters, but they have [] and ['cell']",
        ],
    ),
    "equal_gradient_samples": (
        lambda: mts.equal_raise(by_atom, by_index),
        NotEqualError,
        [
            "for the block (a=0, b=0)",
            "inputs to 'equal' should "
            "have the "
            "same samples, but the names differ: ['sample', 'atom'] and ['sample', 'in"
            "dex']",
            "of the gradient with respect to 'g'",
        ],
    ),
    "equal_data_samples": (
        lambda: mts.equal_block_raise(*[traced(t).block(0) for t in (x, reordered)]),
        NotEqualError,
        [
            "inputs to 'equal' should have the same samples, but entry 0 is (system=1, "
            "atom=0) and (system=0, atom=2), they are the same in another order"
        ],
    ),
    # --- traced values ---
    "equal_traced": (
        lambda: compiled(mts.equal, x, x),
        TypeError,
        [
            "'equal' compares data, but here it is traced: it is only known when the "
            "program runs. Compare maps outside of `jax.jit`, `jax.grad` and the like, "
            "or their arrays inside, as with `jnp.array_equal(a.values, b.values)`"
        ],
    ),
    "equal_block_traced": (
        lambda: jax.jit(mts.equal_block)(block, block),
        TypeError,
        ["'equal' compares data, but here it is traced"],
    ),
    "equal_raise_traced": (
        lambda: jax.jit(mts.equal_raise)(x, x),
        TypeError,
        ["'equal' compares data, but here it is traced"],
    ),
    "equal_operator_traced": (
        lambda: jax.jit(lambda a, b: a == b)(x, x),
        TypeError,
        ["'equal' compares data, but here it is traced"],
    ),
    "allclose_traced": (
        lambda: jax.jit(mts.allclose)(x, x),
        TypeError,
        ["'allclose' compares data, but here it is traced"],
    ),
    "allclose_block_raise_traced": (
        lambda: jax.vmap(mts.allclose_block_raise)(
            *[block.with_values(jnp.asarray(block.values))] * 2
        ),
        TypeError,
        ["'allclose' compares data, but here it is traced"],
    ),
    # --- traced samples ---
    "traced_out_samples": (
        lambda: compiled(lambda t: mts.mean_over_samples(t, "atom"), x),
        TracedLabelsError,
        [
            "in 'mean_over_samples'",
            "a reduction over samples without `out_samples=` (that of a padded batch "
            "is `batch.out_samples`) needs the values of the labels [system, atom], b",
            "Do this step before the labels are traced (before padding, and outside of "
            "`jax.jit`), or make them static with `Labels(labels.names, numpy.asarray(",
        ],
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
        [
            "in 'slice'",
            "selecting rows with gradients needs the values of the labels "
            "[sample], but these are traced",
        ],
    ),
    "traced_slice_by_labels": (
        lambda: compiled(lambda t: mts.slice(t, "samples", Labels("atom", [[0]])), x),
        TracedLabelsError,
        ["in 'slice'", "Labels.select needs the values of the labels [system, atom]"],
    ),
    "traced_slice_block": (
        lambda: jax.jit(lambda t: mts.slice_block(t, "samples", [1, 0]))(
            traced(g).block(0)
        ),
        TracedLabelsError,
        ["in 'slice'", "selecting rows with gradients needs the values"],
    ),
    "traced_split_by_labels": (
        lambda: compiled(
            lambda t: mts.split(t, "samples", [Labels("atom", [[i]]) for i in (0, 1)]),
            x,
        ),
        TracedLabelsError,
        [
            "in 'split'",
            "splitting samples needs the values of the labels [system, atom]",
        ],
    ),
    "traced_cut_gradients": (
        lambda: mts.split(traced_gradients(g), "samples", [[0], [1]]),
        TracedLabelsError,
        [
            "in 'split'",
            "cutting a block into runs needs the values of the labels [sample]",
        ],
    ),
    "traced_join": (
        lambda: compiled(
            lambda t, u: mts.join([t, u], "properties", add_dimension="i"), g, g
        ),
        TracedLabelsError,
        ["in 'join'", "comparing labels needs the values of the labels [sample]"],
    ),
    "traced_keys_to_properties": (
        lambda: compiled(lambda t: t.keys_to_properties("a"), x),
        TracedLabelsError,
        [
            "in 'keys_to_properties'",
            "keys_to_properties needs the values of the labels [sys",
        ],
    ),
    "traced_beside": (
        lambda: jax.jit(
            lambda index: mts.move_rows(
                [mts.Move(block, index)], block.samples, arrangement="side by side"
            )
        )(np.array([1, 0])),
        TracedLabelsError,
        [
            "laying rows side by side at traced places needs the values of the "
            "labels [sy"
        ],
    ),
    "traced_cut": (
        lambda: compiled(lambda t: mts.split(t, "samples", [[0], [1]]), x),
        TracedLabelsError,
        [
            "in 'split'",
            "cutting a block into runs needs the values of the labels [system",
        ],
    ),
    "traced_sort": (
        lambda: compiled(lambda t: mts.sort(t, "samples"), x),
        TracedLabelsError,
        ["in 'sort'", "sorting samples needs the values of the labels [system, atom]"],
    ),
    "traced_sort_gradients": (
        lambda: mts.sort(traced_gradients(g), "samples"),
        TracedLabelsError,
        [
            "in 'sort'",
            "selecting rows with gradients needs the values of the labels [samp",
        ],
    ),
    "traced_sort_gradients_in_order": (
        lambda: mts.sort(traced_gradients(mts.sort(g)), "samples"),
        TracedLabelsError,
        ["in 'sort'", "ordering gradients needs the values of the labels [sample]"],
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
        [
            "in 'pow'",
            "taking rows with gradients of gradients needs the values of the "
            "labels [sample]",
        ],
    ),
    "traced_nested_product": (
        lambda: compiled(mts.multiply, n, n),
        TracedLabelsError,
        ["in 'multiply'", "taking rows with gradients of gradients needs the values"],
    ),
    "traced_nested_abs": (
        lambda: compiled(mts.abs, n),
        TracedLabelsError,
        ["in 'abs'", "taking rows with gradients of gradients needs the values"],
    ),
    "traced_nested_variance": (
        lambda: compiled(
            lambda t: mts.var_over_samples(
                t, "atom", out_samples=Labels.range("system", 2)
            ),
            n,
        ),
        TracedLabelsError,
        [
            "in 'var_over_samples'",
            "selecting rows with gradients needs the values",
        ],
    ),
    "traced_nested_deviation": (
        lambda: compiled(lambda t: mts.std_over_properties(t, "n"), n),
        TracedLabelsError,
        [
            "in 'std_over_properties'",
            "taking rows with gradients of gradients needs the",
        ],
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
    said = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    for text in texts:
        assert text in said
