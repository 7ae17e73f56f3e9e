"""Every operation is asked the same questions, on every structure that suits it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.monitoring
import numpy as np
import pytest
import reference
from builders import assert_same, enable_x64
from case import Case
from cases import ANSWERS, CASES
from jax.test_util import check_grads
from reference import PARAMETERS, SIZE, WHERE, assert_close
from structures import STRUCTURES, Structure, blocks_of, convert, traced

import metatensor_jax as mts
from metatensor_jax import operations

METHODS = ["keys_to_samples", "keys_to_properties", "components_to_properties"]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def _quick_compiler() -> Iterator[None]:
    # hundreds of programs run once each, on a few numbers
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def on(*names: str) -> Any:
    """Ask the question of every case, on those of these structures that suit it."""
    pairs = [
        pytest.param(case, STRUCTURES[name], id=f"{case}-{name}")
        for case in CASES
        for name in names or STRUCTURES
        if case.suits(STRUCTURES[name]) and fits_dtype(case, STRUCTURES[name].dtype)
    ]
    return pytest.mark.parametrize(("case", "structure"), pairs)


def fits_dtype(case: Case, dtype: Any) -> bool:
    """Does the operation make sense for this dtype?"""
    return np.dtype(dtype).kind not in case.not_for


def structure_for(case: Case, dtype: str = "float64") -> Structure:
    """One small structure that suits a case and a dtype."""
    names = ["small", "one_component", "square_with_gradient"]
    if dtype == "int32":  # gradients of integers go through linear functions only
        names = ["no_gradients", "plain_component", "square"]
    return next(STRUCTURES[name] for name in names if case.suits(STRUCTURES[name]))


def on_jax(case: Case, structure: Structure) -> list[mts.TensorMap]:
    """The inputs of a case, with JAX arrays."""
    return [x.to(arrays="jax") for x in case.stored(structure)]


def assert_close_maps(actual: Any, expected: Any) -> None:
    """The same structure, and the same numbers up to rounding."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        assert_close(a, b)


# --- the table itself --------------------------------------------------------------


def test_every_operation_is_in_the_table():
    names = {name for name in vars(operations) if not name.startswith("_")}
    public = {name for name in names if callable(getattr(operations, name))}
    # the primitives have tests of their own
    public -= {"NotEqualError", "Move", "cut_rows", "map_rows", "move_rows"}
    tested = {name for case in CASES for name in case.operations} | set(ANSWERS)
    assert tested == public | {f"TensorMap.{name}" for name in METHODS}


def test_every_case_has_its_own_name():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


# --- eager, compiled, mapped -------------------------------------------------------


@on("mixed", "square")
def test_compiled_equals_eager(case, structure):
    inputs = on_jax(case, structure)
    compiled = jax.jit(case.call)(*inputs)
    eager = case.call(*inputs)
    for block in blocks_of(eager):
        reference.validate(block)
    assert jax.tree.structure(compiled) == jax.tree.structure(eager)
    if not case.undefined:
        assert_close_maps(compiled, eager)


@contextlib.contextmanager
def _compilations() -> Iterator[list[str]]:
    """The programs that are compiled."""
    seen: list[str] = []
    _LISTENING.append(seen)
    try:
        yield seen
    finally:
        _LISTENING.clear()


#: who wants to know; older versions of JAX can not unregister a listener
_LISTENING: list[list[str]] = []


def _listen(event: str, duration: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        for seen in _LISTENING:
            seen.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)


@on("mixed", "square")
def test_a_second_call_compiles_nothing(case, structure):
    first, second = on_jax(case, structure), on_jax(case, structure)
    case.call(*first)
    with _compilations() as seen:
        case.call(*second)
    assert not seen


def test_compilations_are_counted():
    with _compilations() as seen:
        jax.jit(lambda x: 3 * x + 1)(np.ones(17))
    assert len(seen) == 1


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_mapped_over_stacked_maps_equals_a_loop(case):
    inputs = case.stored(structure_for(case))
    scaled = [jax.tree.map(lambda x: 1.25 * x, tensor) for tensor in inputs]
    stacked = jax.tree.map(lambda *x: np.stack(x), inputs, scaled)
    together = jax.jit(jax.vmap(case.call))(*stacked)
    for i, each in enumerate([inputs, scaled]):
        part = jax.tree.map(lambda x, i=i: x[i], together)
        expected = case.call(*each)
        assert jax.tree.structure(part) == jax.tree.structure(expected)
        if not case.constant:
            assert_close_maps(part, expected)


@on("mixed", "no_properties", "no_blocks")
def test_of_single_blocks(case, structure):
    if case.of_block is None:
        pytest.skip("there is no form for blocks")
    inputs = case.stored(structure)
    of_blocks = [case.of_block(*blocks) for blocks in zip(*inputs, strict=True)]
    of_map = case.call(*inputs)
    if isinstance(of_map, list):
        of_map = [list(parts) for parts in zip(*of_map, strict=True)]
    for block, expected in zip(of_blocks, of_map, strict=True):
        assert jax.tree.structure(block) == jax.tree.structure(expected)
        if not case.undefined:
            assert_same(block, expected)


# --- derivatives -------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_autodiff_agrees_with_finite_differences(case):
    if not case.autodiff or case.undefined:
        pytest.skip("the result does not depend on the input")
    inputs = on_jax(case, structure_for(case))
    leaves, tree = jax.tree.flatten(inputs)

    @jax.jit
    def values(leaves: Any) -> Any:
        return jax.tree.leaves(case.call(*jax.tree.unflatten(tree, leaves)))

    check_grads(values, (leaves,), order=1, eps=1e-4)
    if not case.linear:
        check_grads(values, (leaves,), order=2, modes=["rev"], eps=1e-4)


def test_detached_values_have_no_derivative():
    x = STRUCTURES["sparse"].input().stored().to(arrays="jax")
    for detach in (mts.detach, lambda x: [mts.detach_block(block) for block in x]):
        total = lambda x, detach=detach: sum(  # noqa: E731
            leaf.sum() for leaf in jax.tree.leaves(detach(x))
        )
        assert all(not leaf.any() for leaf in jax.tree.leaves(jax.grad(total)(x)))


def _direction(p: str, seed: int) -> np.ndarray:
    """A random direction in the space of one parameter."""
    u = np.zeros(SIZE)
    u[WHERE[p]] = np.random.default_rng(seed).normal(size=PARAMETERS[p].size)
    return u


def _along(dense: np.ndarray, p: str, u: np.ndarray) -> np.ndarray:
    """Contract the axes (rows, entries, components of p) of a derivative with u."""
    shape = (PARAMETERS[p].n, *PARAMETERS[p].components)
    axes = range(len(shape))
    return np.tensordot(
        dense, u[WHERE[p]].reshape(shape), axes=([1 + i for i in axes], list(axes))
    )


def _along_both(
    dense: np.ndarray, p: str, q: str, u: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """The same for axes (rows, entries of p, of q, components of q, of p)."""
    once = _along(np.moveaxis(dense, 1, -1), q, v)  # (rows, components of p, ..., p)
    return _along(np.moveaxis(once, -1, 1), p, u)


@on("dense", "sparse", "several", "two_components", "nested", "complex", "no_samples")
def test_stored_gradients_agree_with_finite_differences(case, structure):
    if not case.derives:
        pytest.skip("what is stored is not the derivative of the values")
    inputs = case.arguments(structure)
    result = blocks_of(case.call(*[x.stored() for x in inputs]))

    def at(theta: np.ndarray) -> list[np.ndarray]:
        blocks = blocks_of(case.call(*[x.at(theta) for x in inputs]))
        for block, stored in zip(blocks, result, strict=True):
            assert block.samples == stored.samples
            assert block.properties == stored.properties
        return [np.asarray(block.values) for block in blocks]

    for p in structure.tree:
        u, h = _direction(p, 1), 1e-5
        slopes = [(b - a) / (2 * h) for a, b in zip(at(-h * u), at(h * u), strict=True)]
        for block, slope in zip(result, slopes, strict=True):
            _assert_near(_along(reference.densify(block, p), p, u), slope, 1e-7)
    for p, q in _pairs(structure):
        u, v, h = _direction(p, 1), _direction(q, 2), 3e-4
        corners = zip(
            at(h * (u + v)),
            at(h * (u - v)),
            at(h * (v - u)),
            at(-h * (u + v)),
            strict=True,
        )
        bends = [(a - b - c + d) / (4 * h * h) for a, b, c, d in corners]
        for block, bend in zip(result, bends, strict=True):
            dense = reference.densify(block, p, q)
            _assert_near(_along_both(dense, p, q, u, v), bend, 1e-5)


def _pairs(structure: Structure) -> list[tuple[str, str]]:
    return [(p, q) for p, inner in structure.tree.items() for q in inner]


def _assert_near(actual: np.ndarray, expected: np.ndarray, atol: float) -> None:
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol * scale)


# --- data --------------------------------------------------------------------------

DTYPES = ["float32", "float64", "complex64", "complex128", "int32"]


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("arrays", ["numpy", "jax"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(case, dtype, arrays):
    if not fits_dtype(case, dtype):
        pytest.skip("the operation makes no sense for this dtype")
    stored = case.stored(structure_for(case, dtype))
    result = case.call(*[convert(x, dtype, arrays) for x in stored])
    leaves = jax.tree.leaves(result)
    assert {leaf.dtype for leaf in leaves} == {case.dtype(np.dtype(dtype))}
    kind = np.ndarray if case.moves and arrays == "numpy" else jax.Array
    assert all(isinstance(leaf, kind) for leaf in leaves)


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_nothing_is_narrowed_in_silence(case, dtype):
    if not fits_dtype(case, dtype):
        pytest.skip("the operation makes no sense for this dtype")
    stored = case.stored(structure_for(case, dtype))
    inputs = [convert(x, dtype) for x in stored]
    with enable_x64(False):
        if case.moves:
            result = case.call(*inputs)
            assert all(x.dtype == dtype for x in jax.tree.leaves(result))
            assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(result))
        else:
            with pytest.raises(TypeError, match="would narrow it"):
                case.call(*inputs)


@on("groups", "complete", "square")
def test_a_nan_spreads_to_what_depends_on_it_only(case, structure):
    if case.undefined or case.solves:
        pytest.skip("nobody promises anything")
    inputs = [x.to("float32") for x in case.stored(structure)]
    if structure.name != "groups" and case.name.startswith(("var", "std")):
        pytest.skip("the variance of one number is 0, whatever it is, but not for NaN")
    for i in range(len(inputs[0])):
        for position in (0, -1):
            _check_nan(case, inputs, i, position)


def _check_nan(case: Case, inputs: list[mts.TensorMap], i: int, position: int) -> None:
    first, *others = inputs

    def result(factor: float) -> list[np.ndarray]:
        block = first.block_by_id(i)
        values = np.array(block.values)
        values.reshape(-1)[position] *= factor
        blocks = first.blocks()
        blocks[i] = block.with_values(values)
        changed = mts.TensorMap(first.keys, blocks)
        return [np.asarray(x) for x in jax.tree.leaves(case.call(changed, *others))]

    triples = zip(result(1.0), result(1.375), result(np.nan), strict=True)
    for before, after, with_nan in triples:
        np.testing.assert_array_equal(np.isnan(with_nan), before != after)


# --- traced samples ----------------------------------------------------------------


def _needs(case: Case, structure: Structure) -> str | None:
    needed = case.needs_samples
    if needed is None and structure.tree:
        needed = case.needs_gradient_samples
    if needed is None and structure.is_nested:
        needed = case.needs_nested_samples
    return needed


@on("no_gradients", "sparse", "mixed")
def test_traced_samples(case, structure):
    inputs = on_jax(case, structure)
    compiled, arguments = jax.jit(case.call), [traced(x) for x in inputs]
    needed = _needs(case, structure)
    if needed is not None:
        with pytest.raises(mts.TracedLabelsError) as error:
            compiled(*arguments)
        assert needed in str(error.value)
        assert "Do this step before the labels are traced" in str(error.value)
        return
    actual, expected = blocks_of(compiled(*arguments)), blocks_of(case.call(*inputs))
    if case.undefined:
        return
    if case.name == "keys_to_samples":  # what is data can not be sorted by
        unsorted = [x.keys_to_samples("a", sort_samples=False) for x in inputs]
        expected = blocks_of(unsorted)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one.samples.values, other.samples.values)
        assert one.samples.names == other.samples.names
        assert one.properties == other.properties
        rows = reference.rows_of(one), reference.rows_of(other)
        reference.assert_rows(*rows, eps=200)


def test_dot_with_traced_rows_of_the_first_map():
    a, b = STRUCTURES["sparse"].input().stored(), STRUCTURES["no_gradients"].input()
    b = b.stored()
    compiled = jax.jit(lambda x: mts.dot(x, b))(traced(a.to(arrays="jax")))
    for one, other in zip(compiled, mts.dot(a, b), strict=True):
        rows = reference.rows_of(one), reference.rows_of(other)
        reference.assert_rows(*rows, eps=200)


# --- nothing there -----------------------------------------------------------------


@on("no_samples", "no_properties", "no_blocks")
def test_empty_blocks(case, structure):
    inputs = case.stored(structure)
    result = blocks_of(case.call(*inputs))
    for block in result:
        reference.validate(block)
    if result and not case.undefined:
        assert {block.dtype for block in result} == {np.dtype("float64")}
