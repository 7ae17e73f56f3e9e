"""Stored gradients whose labels do not fit are an error, never a guess."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorBlock, TensorMap

XYZ, P, ONE = Labels.range("xyz", 3), Labels.range("p", 1), Labels.single()
ATOMS = Labels(["system", "atom"], [[3, 0], [3, 1], [5, 0]])
ROWS = ["sample", "system", "atom"]
#: each atom by itself, and the first by the second
RIGHT = [[0, 3, 0], [0, 3, 1], [1, 3, 1], [2, 5, 0]]


def _labels(names: Any, rows: Any, traced: bool = False) -> Labels:
    rows = np.array(rows, np.int32).reshape(-1, len(names))
    return Labels.traced(names, rows) if traced else Labels(names, rows)


def _random(
    samples: Labels, components: Sequence[Labels] = (), gradients: Any = None
) -> TensorBlock:
    shape = (len(samples), *map(len, components), 1)
    values = np.random.default_rng(len(samples)).normal(size=shape).astype("f4")
    return TensorBlock(values, samples, list(components), P, gradients)


def features(
    rows: Any = RIGHT,
    nested: Any = (),
    names: Sequence[str] = ROWS,
    samples: Labels = ATOMS,
    traced: bool = False,
) -> TensorMap:
    """Of each atom, with gradients and gradients of these."""
    second = _random(_labels(names, nested, traced), [XYZ.rename("xyz", "xyz_2"), XYZ])
    gradient = _random(_labels(names, rows, traced), [XYZ], {"positions": second})
    samples = _labels(samples.names, samples.values, traced)
    return TensorMap(ONE, [_random(samples, [], {"positions": gradient})])


def positions(values: Any = None, samples: Labels = ATOMS) -> TensorBlock:
    values = np.zeros((len(samples), 3, 1), "f4") if values is None else values
    return TensorBlock(values, samples, [XYZ], ONE)


def forces(tensor: TensorMap, **options: Any) -> Any:
    def total(x: Any) -> Any:
        connected = mts.connect_gradients(tensor, positions=positions(x), **options)
        return connected.block().values.sum()

    return jax.grad(total)(positions().values)


# === systems =======================================================================

OTHER = [[0, 3, 0], [0, 3, 1], [1, 3, 1], [2, 3, 1]]
SECOND = [[0, 3, 0], [3, 3, 0]]
MESSAGES = [
    (
        features(OTHER),
        "the gradient with respect to 'positions' has a row (sample=2, system=3, "
        "atom=1), but sample 2 of the values is (system=5, atom=0): a gradient row "
        "belongs to the 'system' of its sample. If systems were computed one by one, "
        "number them in the gradient samples as well as in the samples, before they "
        "are joined",
    ),
    (
        features(nested=SECOND),
        "has a row (sample=3, system=3, atom=0), but sample 3 of the values is "
        "(system=5, atom=0): a gradient row belongs to the 'system' of its sample",
    ),
]


@pytest.mark.parametrize(("tensor", "message"), MESSAGES)
def test_a_gradient_of_another_system(tensor: TensorMap, message: str) -> None:
    """Forces ended on the atoms of another molecule."""

    def function(positions: TensorBlock) -> TensorMap:
        return mts.remove_gradients(tensor)

    kept = TensorBlock(
        np.zeros((3, 1), "f4"),
        ATOMS,
        [],
        P,
        {"volume": _random(_labels(["sample"], []))},
    )
    kept = kept.with_gradient("positions", tensor.block().gradient("positions"))
    for call in (
        lambda: forces(tensor),
        lambda: jax.jit(lambda: forces(tensor))(),
        lambda: mts.check_gradients(tensor, function, positions=positions()),
        lambda: mts.connect_gradients(
            TensorMap(ONE, [kept]),
            volume=TensorBlock(np.zeros((1, 1), "f4"), ONE, [], ONE),
        ),
    ):
        with pytest.raises(MetatensorError, match=re.escape(message)):
            call()


def test_declared_gradients_of_another_system() -> None:
    def function(positions: TensorBlock) -> TensorMap:
        return TensorMap(ONE, [TensorBlock(positions.values[:, 0], ATOMS, [], P)])

    def compute(samples: Labels) -> TensorMap:
        sparsity = {"positions": samples}
        return mts.compute_gradients(function, sparsity=sparsity, positions=positions())

    compute(_labels(ROWS, RIGHT))
    with pytest.raises(MetatensorError, match=re.escape(MESSAGES[0][1])):
        compute(_labels(ROWS, OTHER))


def test_sparsity_of_other_samples() -> None:
    """Its rows would be those of other samples of the result."""

    def function(positions: TensorBlock) -> TensorMap:
        return TensorMap(ONE, [TensorBlock(positions.values[:, 0], ATOMS, [], P)])

    turned = _labels(ATOMS.names, ATOMS.values[[1, 0, 2]])
    with pytest.raises(
        MetatensorError, match="`sparsity` must have the samples of the"
    ):
        mts.compute_gradients(
            function, sparsity=features(samples=turned), positions=positions()
        )


def test_another_name_for_systems() -> None:
    tensor = mts.rename_dimension(features(OTHER), "samples", "system", "image")
    atoms = ATOMS.rename("system", "image")

    def connect(**options: Any) -> TensorMap:
        at = positions(samples=atoms)
        return mts.connect_gradients(tensor, positions=at, **options)

    connect()
    with pytest.raises(MetatensorError, match="belongs to the 'image' of its sample"):
        connect(system="image")
    with pytest.raises(MetatensorError, match="belongs to the 'image' of its sample"):
        mts.check_gradients(
            tensor,
            lambda positions: mts.remove_gradients(tensor),
            positions=positions(samples=atoms),
            system="image",
        )


def test_a_parameter_that_is_called_system() -> None:
    for function in (
        lambda **p: mts.connect_gradients(features(), **p),
        lambda **p: mts.compute_gradients(lambda **_: features(), **p),
        lambda **p: mts.check_gradients(lambda **_: features(), **p),
    ):
        with pytest.raises(TypeError, match="a parameter needs another name"):
            function(system=positions(), positions=positions())


def test_pairs_may_be_of_another_atom_and_totals_of_any_system() -> None:
    """The system alone has to be that of the sample."""
    assert np.isfinite(forces(features())).all()
    gradient = _random(_labels(ROWS, [[0, 3, 1], [0, 5, 0]]), [XYZ])
    total = TensorMap(ONE, [_random(ONE, [], {"positions": gradient})])
    found = forces(total)
    np.testing.assert_array_equal(found[1:], np.asarray(gradient.values))


# === traced labels =================================================================

PADDING = Labels.PADDING
PADDED = [[PADDING] * 3, *RIGHT, [PADDING] * 3]
TRACED_ATOMS = _labels(ATOMS.names, [*ATOMS.values.tolist(), [PADDING] * 2], True)


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
@pytest.mark.parametrize("how", ["eager", "jit", "disable_jit"])
@pytest.mark.parametrize(
    ("rows", "nested", "is_wrong"),
    [(PADDED, (), False), ([*OTHER, [PADDING] * 3], (), True)],
)
def test_in_a_program(
    arrays: str, how: str, rows: Any, nested: Any, is_wrong: bool
) -> None:
    """The same outside of jit, where padding was an index out of range."""
    tensor = features(rows, nested, traced=True)
    x = positions(np.zeros((4, 3, 1), "f4"), TRACED_ATOMS)
    if arrays == "jax":
        tensor, x = jax.tree.map(jnp.asarray, (tensor, x))

    def gradient(tensor: TensorMap, x: TensorBlock) -> Any:
        def total(values: Any) -> Any:
            at = x.with_values(values)
            connected = mts.connect_gradients(tensor, positions=at)
            return (connected.block().values ** 2).sum()

        return jax.grad(total)(x.values)

    with jax.disable_jit() if how == "disable_jit" else contextlib.nullcontext():
        found = (jax.jit(gradient) if how == "jit" else gradient)(tensor, x)
    if is_wrong:
        assert np.isnan(found).all()
        return
    values = tensor.block().values
    static = features(RIGHT).block()
    slopes = np.asarray(tensor.block().gradient("positions").values)[1:-1]
    expected = np.zeros((4, 3, 1), np.float32)
    for slope, (sample, system, atom) in zip(slopes, RIGHT, strict=True):
        at = static.samples.position((system, atom))
        expected[at] += 2 * slope * np.asarray(values)[sample]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_traced_gradient_of_a_gradient_of_another_system() -> None:
    def hessian(nested: Any) -> Any:
        tensor = features(RIGHT, nested, traced=True)

        def total(x: Any) -> Any:
            connected = mts.connect_gradients(tensor, positions=positions(x))
            return connected.block().values.sum()

        return jax.jit(lambda x: (jax.grad(total)(x), jax.hessian(total)(x)))(
            positions().values
        )

    for nested, is_wrong in (
        ([[0, 3, 0], [3, 5, 0], [PADDING] * 3], False),
        ([*SECOND, [PADDING] * 3], True),
    ):
        first, second = hessian(nested)
        assert np.isfinite(first).all()
        assert np.isnan(second).any() == is_wrong


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
def test_check_gradients_of_a_padded_batch(arrays: str) -> None:
    """Outside of a program, so what does not fit raises."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 3, 1))
    rows = [[i, *row] for i, row in enumerate(ATOMS.values.tolist())]
    gradient = TensorBlock(weights, Labels(ROWS, rows), [XYZ], P)
    block = TensorBlock(np.zeros((3, 1)), ATOMS, [], P, {"positions": gradient})
    at = TensorBlock(np.zeros((3, 3, 1)), ATOMS, [XYZ], ONE)
    maps = {"x": TensorMap(ONE, [block]), "positions": TensorMap(ONE, [at])}
    capacities = {"x": {"samples": 5, "positions": 7}, "positions": {"samples": 5}}
    padded = mts.Layout.from_capacities(maps, capacities, 4).pad(maps)

    with enable_x64():
        if arrays == "jax":
            padded = jax.tree.map(jnp.asarray, padded)

        def function(positions: TensorBlock) -> TensorMap:
            values = np.asarray(positions.values)
            sums = np.full((5, 1), np.nan)
            sums[:3] = (values[:3] * weights).sum(1)
            return TensorMap(ONE, [padded["x"].block().with_values(sums)])

        tensor = function(padded["positions"].block())
        x = padded["positions"].block()
        assert mts.check_gradients(tensor, function, positions=x, atol=1e-9).ok
        wrong = Labels.traced(x.samples.names, np.asarray(x.samples.values) + 9)
        other = TensorBlock(x.values, wrong, [XYZ], ONE)
        with pytest.raises(
            MetatensorError, match="names an entry that is not among the"
        ):
            mts.check_gradients(tensor, function, positions=other)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            OTHER,
            "the row (sample=2, system=3, atom=1) of a stored gradient with "
            "respect to 'positions', which is of the sample (system=5, atom=0), names",
        ),
        (
            [*RIGHT, [-1, 3, 9]],
            "the row (sample=-1, system=3, atom=9) of a stored "
            "gradient with respect to 'positions', which is of no sample, names",
        ),
    ],
)
def test_check_gradients_says_which_traced_row_it_is(rows: Any, message: str) -> None:
    tensor = features(rows, traced=True)
    with pytest.raises(MetatensorError, match=re.escape(message)):
        mts.check_gradients(tensor, lambda positions: tensor, positions=positions())


# === components ====================================================================

STORED = np.arange(9, dtype="f4").reshape(1, 3, 3, 1)
COMPONENTS: dict[Any, Any] = {
    ("xyz_2", "xyz_1"): STORED[0, ..., 0],
    ("xyz_1", "xyz_2"): STORED[0, ..., 0].T,
    ("xyz_1", "xyz_3"): None,
    ("xyz", "xyz_1"): None,
    ("a", "b"): None,
    ("xyz_1",): None,
}


@pytest.mark.parametrize(("names", "expected"), COMPONENTS.items())
def test_components_are_matched_by_name(names: Sequence[str], expected: Any) -> None:
    """Other names were matched by their place: a transposed stress."""
    own = [Labels.range("xyz_2", 3), Labels.range("xyz_1", 3)]
    systems = Labels.range("system", 1)
    gradient = TensorBlock(STORED, Labels("sample", [[0]]), own, P)
    block = TensorBlock(np.zeros((1, 1), "f4"), systems, [], P, {"strain": gradient})
    tensor = TensorMap(ONE, [block])
    components = [Labels.range(name, 3) for name in names]
    at = np.zeros((1, *map(len, components), 1), "f4")

    def strain(values: Any) -> TensorBlock:
        return TensorBlock(values, systems, components, ONE)

    def total(values: Any) -> Any:
        connected = mts.connect_gradients(tensor, strain=strain(values))
        return connected.block().values.sum()

    def function(strain: TensorBlock) -> TensorMap:
        order = [names.index("xyz_2"), names.index("xyz_1")]
        values = np.transpose(np.asarray(strain.values)[0, ..., 0], order)
        energy = (values * STORED[0, ..., 0]).sum().reshape(1, 1).astype("f4")
        return TensorMap(ONE, [TensorBlock(energy, systems, [], P)])

    if expected is not None:
        np.testing.assert_array_equal(jax.grad(total)(at)[0, ..., 0], expected)
        assert mts.check_gradients(tensor, function, strain=strain(at)).ok
        return
    sizes = [(name, 3) for name in names]
    for call in (
        lambda: jax.grad(total)(at),
        lambda: mts.check_gradients(tensor, lambda strain: tensor, strain=strain(at)),
    ):
        with pytest.raises(MetatensorError) as error:
            call()
        assert f"the components of the parameter 'strain', {sizes}" in str(error.value)
        assert "[('xyz_2', 3), ('xyz_1', 3)]" in str(error.value)


def test_components_with_other_entries() -> None:
    other = TensorBlock(
        np.zeros((3, 3, 1), "f4"), ATOMS, [Labels("xyz", [[1], [2], [3]])], ONE
    )
    with pytest.raises(MetatensorError, match="must have the same entries"):
        mts.connect_gradients(features(), positions=other)


@pytest.mark.parametrize(
    ("own", "stored", "is_right"),
    [
        ("xyz", "xyz_2", True),
        ("xyz", "xyz_3", False),
        ("xyz", "xyz_b", False),
        ("m", "xyz", True),
        ("m", "xyz_2", False),
    ],
)
def test_names_that_the_values_have(own: str, stored: str, is_right: bool) -> None:
    """``_2`` is added where a name is taken, and nowhere else."""
    components = [Labels.range(stored, 3), Labels.range(own, 3)]
    gradient = _random(_labels(ROWS, RIGHT), components)
    block = _random(ATOMS, components[1:], {"positions": gradient})
    tensor = TensorMap(ONE, [block])
    if is_right:
        mts.connect_gradients(tensor, positions=positions())
        return
    with pytest.raises(MetatensorError, match="do not fit to those of its stored grad"):
        mts.connect_gradients(tensor, positions=positions())


def test_names_of_a_second_derivative() -> None:
    def renamed(name: str) -> TensorMap:
        gradient = features().block().gradient("positions")
        inner = gradient.gradient("positions")
        inner = TensorBlock(
            inner.values, inner.samples, [Labels.range(name, 3), XYZ], P
        )
        bare = mts.remove_gradients_block(gradient)
        block = mts.remove_gradients_block(features().block())
        gradient = bare.with_gradient("positions", inner)
        return TensorMap(ONE, [block.with_gradient("positions", gradient)])

    mts.connect_gradients(renamed("xyz_2"), positions=positions())
    with pytest.raises(MetatensorError, match=r"\[\('abc', 3\)\], after which come"):
        mts.connect_gradients(renamed("abc"), positions=positions())


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("own", ["m", "m_3"])
def test_names_do_not_depend_on_the_order_of_components(
    own: str, order: int, traced: bool
) -> None:
    """A name got the suffix that another component had when it came before that."""
    systems = Labels.range("system", 2)
    weights = np.random.default_rng(0).normal(size=(2, 3))

    def at(values: Any, names: Sequence[str]) -> TensorBlock:
        sizes = {"m": 2, "m_2": 3}
        components = [Labels.range(name, sizes[name]) for name in names]
        return TensorBlock(values, systems, components, ONE)

    def exact(x: Any) -> Any:
        sums = jnp.exp(jnp.einsum("skl,kl->s", x, weights))
        return jnp.stack([sums, sums**2], axis=1)[..., None]

    def function(x: TensorBlock) -> TensorMap:
        axes = [Labels.range(own, 2)]
        return TensorMap(ONE, [TensorBlock(exact(x.values[..., 0]), systems, axes, P)])

    with enable_x64():
        x = 0.1 * np.random.default_rng(1).normal(size=(2, 2, 3))
        names = ["m", "m_2"]
        stored = mts.compute_gradients(function, order=order, x=at(x[..., None], names))
        if order == 1:
            assert mts.check_gradients(stored, function, x=at(x[..., None], names)).ok
        if traced:
            capacities = _capacities(stored.block())
            layout = mts.Layout.from_capacities(stored, capacities, 4)
            stored = layout.pad(stored).tensors

        def total(x: Any, turned: bool) -> Any:
            values = x.transpose(0, 2, 1) if turned else x
            block = at(values[..., None], names[::-1] if turned else names)
            connected = mts.connect_gradients(stored, x=block)
            return connected.block().values.sum()

        for derivative in (jax.grad, jax.hessian)[:order]:
            expected = derivative(lambda x: exact(x).sum())(x)
            for turned in (False, True):
                found = jax.jit(derivative(total), static_argnums=1)(x, turned)
                np.testing.assert_allclose(found, expected, rtol=1e-12)


# === one entry for all systems =====================================================


def _temperature(values: Any) -> TensorBlock:
    return TensorBlock(values, ONE, [], P)


def _powers(t: TensorBlock) -> TensorMap:
    """t^3 and 2 t^3."""
    values = jnp.array([[1.0], [2.0]]) * jnp.asarray(t.values) ** 3
    samples = Labels("system", [[4], [6]])
    return TensorMap(ONE, [TensorBlock(values, samples, [], P)])


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_one_entry_for_all_systems(order: int, traced: bool) -> None:
    with enable_x64():
        t = _temperature(np.array([[2.0]]))
        stored = mts.compute_gradients(_powers, order=order, t=t)
        assert stored.block().gradient("t").samples.names == ["sample"]
        again = mts.compute_gradients(_powers, order=order, sparsity=stored, t=t)
        assert again == stored

        def function(t: TensorBlock) -> TensorMap:
            return mts.compute_gradients(_powers, order=order, t=t)

        assert mts.check_gradients(function, t=t).ok
        if traced:
            stored = mts.Layout.from_capacities(
                stored, _capacities(stored.block()), 3
            ).pad(stored)
            stored = stored.tensors

        def total(values: Any) -> Any:
            connected = mts.connect_gradients(stored, t=_temperature(values))
            return connected.block().values.sum()

        at = jnp.array([[2.0]])
        assert jax.grad(total)(at).item() == 36
        assert jax.jit(jax.grad(total))(at).item() == 36
        if order == 2:
            assert jax.hessian(total)(at).item() == 36


def _capacities(block: TensorBlock, path: str = "samples") -> dict[str, int]:
    found = {path: len(block) + 2}
    for name, gradient in block.gradients():
        below = name if path == "samples" else f"{path}/{name}"
        found |= _capacities(gradient, below)
    return found


def test_one_entry_has_no_dimensions() -> None:
    gradient = _random(_labels(["sample", "system"], [[0, 3]]))
    tensor = TensorMap(ONE, [_random(ATOMS, [], {"t": gradient})])
    with pytest.raises(MetatensorError, match=r"have the dimensions \['system'\], but"):
        mts.connect_gradients(tensor, t=_temperature(np.zeros((1, 1), "f4")))


# === numbers =======================================================================


def _in(tensor: TensorMap, dtype: str, arrays: str) -> TensorMap:
    return tensor.to(dtype=dtype).to(arrays=arrays)


@pytest.mark.parametrize("arrays", ["numpy", "jax"])
@pytest.mark.parametrize("of_parameter", ["float32", "float64"])
@pytest.mark.parametrize("of_values", ["float32", "float64", "complex64", "complex128"])
def test_dtypes(of_values: str, of_parameter: str, arrays: str) -> None:
    with enable_x64():
        tensor = _in(features(), of_values, arrays)
        x = positions().to(dtype=of_parameter).to(arrays=arrays)

        def total(values: Any) -> Any:
            at = x.with_values(values)
            connected = mts.connect_gradients(tensor, positions=at).block()
            assert connected.values.dtype == of_values
            return connected.values.real.sum()

        found = jax.grad(total)(jnp.asarray(x.values))
        assert found.dtype == of_parameter
        np.testing.assert_allclose(found, forces(features()), rtol=1e-6)


def test_64_bits_are_not_narrowed() -> None:
    wide, narrow = features().to(dtype="float64"), features()
    x = positions().to(dtype="float64")
    flat = TensorMap(ONE, [_random(ATOMS).to(dtype="float64")])
    calls: list[Callable[[], Any]] = [
        lambda: mts.connect_gradients(wide, positions=positions()),
        lambda: mts.connect_gradients(narrow, positions=x),
        lambda: mts.compute_gradients(lambda positions: flat, positions=positions()),
        lambda: mts.compute_gradients(lambda positions: flat, positions=x),
    ]
    for call in calls:
        with (
            enable_x64(False),
            pytest.raises(TypeError, match="is float64, but JAX is"),
        ):
            call()
        with enable_x64():
            call()


def test_integers_have_no_derivatives() -> None:
    gradient = TensorBlock(np.ones((1, 1), int), Labels("sample", [[0]]), [], P)
    block = TensorBlock(np.ones((3, 1), int), ATOMS, [], P, {"t": gradient})
    with pytest.raises(TypeError, match="can not take derivatives of int64 values"):
        mts.connect_gradients(
            TensorMap(ONE, [block]), t=_temperature(np.ones((1, 1), "f4"))
        )


# === maps that are stacked for vmap ================================================


def test_stacked_maps() -> None:
    tensor, x = features(), positions()
    twice, both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), (tensor, x))
    flat = TensorMap(ONE, [_random(ATOMS)])
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), flat)
    for call in (
        lambda: mts.connect_gradients(twice, positions=x),
        lambda: mts.connect_gradients(tensor, positions=both),
        lambda: mts.compute_gradients(lambda positions: stacked, positions=x),
        lambda: mts.compute_gradients(lambda positions: flat, positions=both),
        lambda: mts.check_gradients(twice, lambda positions: tensor, positions=x),
        lambda: mts.check_gradients(tensor, lambda positions: tensor, positions=both),
    ):
        with pytest.raises(MetatensorError, match=r"of \d axes. .* `jax.vmap`"):
            call()

    def connect(tensor: TensorMap, x: TensorBlock) -> Any:
        return mts.connect_gradients(tensor, positions=x).block().values

    np.testing.assert_array_equal(
        jax.vmap(connect)(twice, both)[1], tensor.block().values
    )


# === check_gradients ===============================================================


def test_check_gradients_finds_blocks_by_their_key() -> None:
    """Blocks were taken by their place: the differences were those of another one."""
    rows = [[i, *row] for i, row in enumerate(ATOMS.values.tolist())]

    def block(factor: float, x: TensorBlock) -> TensorBlock:
        slope = np.full((3, 3, 1), factor, "f4")
        gradient = TensorBlock(slope, Labels(ROWS, rows), [XYZ], P)
        values = factor * np.asarray(x.values).sum(1)
        return TensorBlock(values, ATOMS, [], P, {"positions": gradient})

    def function(positions: TensorBlock, order: Sequence[int] = (2, 1)) -> TensorMap:
        blocks = [block(float(k), positions) for k in order]
        return TensorMap(Labels("k", np.array(order)[:, None]), blocks)

    tensor = function(positions(), (1, 2))
    assert mts.check_gradients(tensor, function, positions=positions()).ok
    with pytest.raises(
        MetatensorError, match=r"the block \(k=1\) is not among the res"
    ):
        mts.check_gradients(
            tensor, lambda positions: function(positions, (2,)), positions=positions()
        )

    def other(positions: TensorBlock) -> TensorMap:
        return mts.rename_dimension(function(positions), "properties", "p", "q")

    with pytest.raises(MetatensorError, match="components and properties of block"):
        mts.check_gradients(tensor, other, positions=positions())
