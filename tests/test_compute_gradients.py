"""compute_gradients: what JAX derives, stored with the right labels, in few passes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from hypothesis import given, strategies as st

import metatensor_jax as mts
from metatensor_jax.autodiff._coloring import color_rows

XYZ = mts.Labels.range("xyz", 3)
STRAIN = [mts.Labels.range("xyz_1", 3), mts.Labels.range("xyz_2", 3)]
ONE = mts.Labels.single()
SIZES = (2, 4, 1, 3)


# === a model with systems of different sizes ========================================


class Systems(NamedTuple):
    """Where the atoms are, and which of them meet."""

    atoms: mts.Labels
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Systems:
        rows = [[s, a] for s, n in enumerate(sizes) for a in range(n)]
        atoms = mts.Labels(["system", "atom"], np.array(rows, int).reshape(-1, 2))
        s = atoms.column("system")
        pairs = [
            (i, j)
            for i, j in itertools.permutations(range(len(rows)), 2)
            if s[i] == s[j]
        ]
        first, second = np.array(pairs, np.int32).reshape(-1, 2).T
        return cls(atoms, first, second)

    @property
    def n(self) -> int:
        return int(self.atoms.column("system").max(initial=-1)) + 1

    def energies(self, x: Any, strain: Any, n: int) -> Any:
        """Of each system, from pairs and single atoms: ``n`` of them."""
        r = self._strained(x, strain)
        of_pairs = jnp.exp(-((r[self.first] - r[self.second]) ** 2).sum(1))
        s = self.atoms.column("system")
        columns = [
            jax.ops.segment_sum(of_pairs ** (k + 1), s[self.first], self.n)
            + jax.ops.segment_sum(jnp.sin(r.sum(1) * (k + 1)), s, self.n)
            for k in range(n)
        ]
        return jnp.stack(columns, 1)

    def features(self, x: Any, strain: Any, rank: int) -> Any:
        """Of each atom: tensors of some rank, with two properties."""
        r = self._strained(x, strain)
        d = r[self.first] - r[self.second]
        columns = []
        for k in (1, 2):
            pair = jnp.exp(-k * (d**2).sum(1))
            alone = jnp.cos(r.sum(1) * k)
            for _ in range(rank):
                pair = jnp.einsum("i...,ia->i...a", pair, d)
                alone = jnp.einsum("i...,ia->i...a", alone, r)
            summed = jax.ops.segment_sum(pair, self.first, len(self.atoms))
            columns.append(summed + alone)
        return jnp.stack(columns, -1)

    def _strained(self, x: Any, strain: Any) -> Any:
        s = self.atoms.column("system")
        return x + jnp.einsum("iab,ib->ia", strain[s], x)

    def positions(self, values: Any) -> mts.TensorBlock:
        return mts.TensorBlock(values[..., None], self.atoms, [XYZ], ONE)

    def strain(self, values: Any) -> mts.TensorBlock:
        systems = mts.Labels.range("system", self.n)
        return mts.TensorBlock(values[..., None], systems, STRAIN, ONE)

    def at(self, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
        """Positions and strain."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(len(self.atoms), 3)).astype(dtype)
        return x, rng.normal(size=(self.n, 3, 3), scale=0.1).astype(dtype)

    def parameters(self, dtype: Any = np.float64) -> dict[str, mts.TensorBlock]:
        x, strain = self.at(dtype)
        return {"positions": self.positions(x), "strain": self.strain(strain)}

    def block(self, kind: str, x: Any, strain: Any) -> mts.TensorBlock:
        """A kind of result as a block."""
        if kind.startswith("energy"):
            values = self.energies(x, strain, int(kind[-1]))
            samples, components = mts.Labels.range("system", self.n), []
        else:
            values = self.features(x, strain, int(kind[-1]))
            samples = self.atoms
            components = [mts.Labels.range(f"m_{i}", 3) for i in range(int(kind[-1]))]
        properties = mts.Labels.range("p", values.shape[-1])
        return mts.TensorBlock(values, samples, components, properties)

    def function(self, *kinds: str) -> Callable[..., mts.TensorMap]:
        """A map with a block of each kind, from positions and strain."""

        def function(
            positions: mts.TensorBlock, strain: mts.TensorBlock | None = None
        ) -> mts.TensorMap:
            x = positions.values[..., 0]
            still = jnp.zeros((self.n, 3, 3), x.dtype)
            s = still if strain is None else strain.values[..., 0]
            blocks = [self.block(kind, x, s) for kind in kinds]
            return mts.TensorMap(mts.Labels.range("kind", len(kinds)), blocks)

        return function


SYSTEMS = Systems.of(SIZES)
KINDS = ("energy 1", "energy 2", "rank 0", "rank 1", "rank 2")


def compute(function: Callable[..., Any], **parameters: Any) -> mts.TensorMap:
    """Compiled, which is faster here than one operation after the other."""
    options = {
        name: parameters.pop(name)
        for name in ("order", "sparsity", "system")
        if name in parameters
    }
    program = jax.jit(lambda p: mts.compute_gradients(function, **options, **p))
    return program(parameters)


@functools.cache
def stored(kind: str) -> mts.TensorBlock:
    """A result with gradients by positions and strain, in double precision."""
    return compute(SYSTEMS.function(kind), **SYSTEMS.parameters()).block()


def entry_of(
    parameter: mts.TensorBlock, known: dict[str, int], row: mts.LabelsEntry
) -> tuple[int, dict[str, int]]:
    """The sample of a parameter that a gradient row is of, found by names."""
    known = {**known, **dict(zip(row.names, map(int, row), strict=True))}
    entry = parameter.samples.position([known[n] for n in parameter.samples.names])
    assert entry is not None
    return entry, known


def named(labels: mts.Labels, i: int) -> dict[str, int]:
    return dict(zip(labels.names, map(int, labels.entry(i)), strict=True))


def dense(block: mts.TensorBlock, name: str, parameter: mts.TensorBlock) -> np.ndarray:
    """d values[i, ...] / d parameter[a, c]: ``(i, a, *c, ...)``, zero if not stored."""
    gradient = block.gradient(name)
    out = np.zeros((len(block), len(parameter), *gradient.shape[1:]), gradient.dtype)
    for row, values in zip(gradient.samples, np.asarray(gradient.values), strict=True):
        i = int(row["sample"])
        entry, _ = entry_of(parameter, named(block.samples, i), row)
        out[i, entry] += values
    return out


def dense_second(
    block: mts.TensorBlock,
    one: tuple[str, mts.TensorBlock],
    other: tuple[str, mts.TensorBlock],
) -> np.ndarray:
    """``(i, a of one, b of other, *components of other, *components of one, ...)``."""
    gradient = block.gradient(one[0])
    nested = gradient.gradient(other[0])
    shape = (len(block), len(one[1]), len(other[1]), *nested.shape[1:])
    out = np.zeros(shape, nested.dtype)
    for row, values in zip(nested.samples, np.asarray(nested.values), strict=True):
        above = gradient.samples.entry(int(row["sample"]))
        i = int(above["sample"])
        a, known = entry_of(one[1], named(block.samples, i), above)
        b, _ = entry_of(other[1], known, row)
        out[i, a, b] += values
    return out


def dense_jacobian(jacobian: Any, n_axes: int) -> np.ndarray:
    """From JAX's ``(*values, a, *c)`` to ``(i, a, *c, ...)``."""
    jacobian = np.asarray(jacobian)
    n_parameter = jacobian.ndim - n_axes
    return np.moveaxis(
        jacobian, range(n_axes, jacobian.ndim), range(1, 1 + n_parameter)
    )


def assert_close(actual: Any, expected: Any, rtol: float = 1e-13) -> None:
    """Relative to the largest element."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * scale)


# === derivatives ===================================================================


@pytest.mark.parametrize(
    "kinds", [*((kind,) for kind in KINDS), ("energy 2", "energy 1")]
)
def test_first_order_is_the_jacobian(kinds: tuple[str, ...]) -> None:
    # in the mode that is not the cheaper one
    is_energy = kinds[0].startswith("energy")
    transform = jax.jacfwd if is_energy else jax.jacrev
    with enable_x64(True):
        parameters = SYSTEMS.parameters()
        tensor = compute(SYSTEMS.function(*kinds), **parameters)
        for kind, block in zip(kinds, tensor, strict=True):

            def bare(x: Any, strain: Any, kind: str = kind) -> Any:
                values = SYSTEMS.block(kind, x, strain).values
                return values, values

            program = jax.jit(transform(bare, argnums=(0, 1), has_aux=True))
            jacobians, values = program(*SYSTEMS.at())
            assert_close(block.values, values)
            for by, jacobian in zip(parameters.items(), jacobians, strict=True):
                expected = dense_jacobian(jacobian, values.ndim)
                assert_close(dense(block, *by), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_first_order_by_finite_differences(kind: str) -> None:
    with enable_x64(True):
        parameters = SYSTEMS.parameters()
        function = jax.jit(SYSTEMS.function(kind))
        tensor = mts.TensorMap(mts.Labels.range("kind", 1), [stored(kind)])
        report = mts.check_gradients(tensor, function, **parameters)
        assert [check.parameters for check in report.checks] == [
            ("positions",),
            ("strain",),
        ]


@pytest.mark.parametrize("kind", ["energy 2", "rank 1"])
def test_second_order_is_the_hessian(kind: str) -> None:
    systems = Systems.of((2, 1, 3))
    with enable_x64(True):
        parameters = systems.parameters()
        block = compute(systems.function(kind), order=2, **parameters).block()

        def bare(at: dict[str, Any]) -> Any:
            return systems.block(kind, at["positions"], at["strain"]).values

        at = dict(zip(parameters, systems.at(), strict=True))
        first, second = jax.jit(
            lambda at: (jax.jacrev(bare)(at), jax.hessian(bare)(at))
        )(at)
        n = block.values.ndim
        for p, q in itertools.product(parameters.items(), repeat=2):
            assert_close(dense(block, *p), dense_jacobian(first[p[0]], n))
            # (*values, a, *c, b, *d) to (i, a, b, *d, *c, ...)
            hessian = np.asarray(second[p[0]][q[0]])
            n_p = at[p[0]].ndim
            a, c = n, range(n + 1, n + n_p)
            b, d = n + n_p, range(n + n_p + 1, hessian.ndim)
            expected = hessian.transpose(0, a, b, *d, *c, *range(1, n))
            assert_close(dense_second(block, p, q), expected, 1e-12)


def test_second_order_by_finite_differences() -> None:
    systems = Systems.of((2, 1))
    with enable_x64(True):
        parameters = systems.parameters()
        function = jax.jit(
            lambda **p: mts.compute_gradients(systems.function("energy 1"), **p)
        )
        tensor = compute(systems.function("energy 1"), order=2, **parameters)
        report = mts.check_gradients(tensor, function, **parameters)
        assert {check.parameters for check in report.checks} == {
            ("positions",),
            ("strain",),
            ("positions", "positions"),
            ("strain", "positions"),
            ("positions", "strain"),
            ("strain", "strain"),
        }


def test_a_function_of_jax_and_operations_with_stored_gradients() -> None:
    """Stored gradients by something else stay, and are what a plain call gives."""
    with enable_x64(True):
        x = mts.TensorBlock(
            jnp.array([[2.0], [3.0]]), mts.Labels.range("a", 2), [], ONE
        )
        rows = mts.Labels("sample", [[0], [1]])

        def function(x: mts.TensorBlock) -> mts.TensorMap:
            by_y = mts.TensorBlock(5 * x.values, rows, [], ONE)
            return mts.TensorMap(ONE, [x.with_gradient("y", by_y)]) ** 2

        block = mts.compute_gradients(function, x=x).block()
        assert set(block.gradients_list()) == {"x", "y"}
        # d(x^2)/dy = 2 x dx/dy
        np.testing.assert_array_equal(block.gradient("y").values, [[40.0], [90.0]])
        dense_x = dense(block, "x", x)[..., 0]
        np.testing.assert_array_equal(dense_x, np.diag([4.0, 6.0]))


# === labels ========================================================================


def test_labels_of_energies() -> None:
    """One gradient row per atom, in order; strain has one entry per system."""
    with enable_x64(True):
        parameters = SYSTEMS.parameters()
        tensor = compute(SYSTEMS.function("energy 2"), **parameters)
        block = tensor.block()
        assert tensor.keys == mts.Labels.range("kind", 1)
        assert block.samples == mts.Labels.range("system", 4)
        assert block.gradients_list() == ["positions", "strain"]
        atoms = SYSTEMS.atoms.values
        positions, strain = block.gradient("positions"), block.gradient("strain")
        expected = mts.Labels(["sample", "system", "atom"], np.c_[atoms[:, 0], atoms])
        assert positions.samples == expected
        assert positions.components == [XYZ]
        assert strain.samples == mts.Labels.range("sample", 4)
        assert strain.components == STRAIN
        assert positions.properties == strain.properties == block.properties


def test_labels_of_features() -> None:
    """Each atom depends on all atoms of its system."""
    systems = Systems.of((1, 2))
    with enable_x64(True):
        parameters = systems.parameters()
        block = compute(systems.function("rank 1"), **parameters).block()
        expected = [[0, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 0], [2, 1, 1]]
        positions = block.gradient("positions")
        assert positions.samples == mts.Labels(["sample", "system", "atom"], expected)
        assert positions.components == [XYZ, mts.Labels.range("m_0", 3)]
        assert block.gradient("strain").samples == mts.Labels.range("sample", 3)


def test_labels_of_second_order() -> None:
    """A gradient of a gradient: ``sample`` is the gradient row, names end in ``_2``."""
    systems = Systems.of((1, 2))
    with enable_x64(True):
        parameters = systems.parameters()
        block = compute(systems.function("energy 1"), order=2, **parameters).block()

        def nested(one: str, other: str) -> mts.TensorBlock:
            return block.gradient(one).gradient(other)

        both = nested("positions", "positions")
        rows = [[0, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 0], [2, 1, 1]]
        assert both.samples == mts.Labels(["sample", "system", "atom"], rows)
        assert both.components == [XYZ.rename("xyz", "xyz_2"), XYZ]
        mixed = nested("positions", "strain")
        assert mixed.samples == mts.Labels.range("sample", 3)
        assert mixed.components == [*STRAIN, XYZ]
        mixed = nested("strain", "positions")
        rows = [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
        assert mixed.samples == mts.Labels(["sample", "system", "atom"], rows)
        assert mixed.components == [XYZ, *STRAIN]
        assert nested("strain", "strain").samples == mts.Labels.range("sample", 2)
        names = [c.names for c in nested("strain", "strain").components]
        assert names == [["xyz_1_2"], ["xyz_2_2"], ["xyz_1"], ["xyz_2"]]


def test_components_that_the_values_have_are_renamed() -> None:
    """A dipole has the component xyz itself."""
    with enable_x64(True):
        x = SYSTEMS.at()[0]

        def dipole(positions: mts.TensorBlock) -> mts.TensorMap:
            moment = jax.ops.segment_sum(
                positions.values**3, SYSTEMS.atoms.column("system"), SYSTEMS.n
            )
            systems = mts.Labels.range("system", SYSTEMS.n)
            return mts.TensorMap(ONE, [mts.TensorBlock(moment, systems, [XYZ], ONE)])

        tensor = compute(dipole, positions=SYSTEMS.positions(x), order=2)
        gradient = tensor.block().gradient("positions")
        names = [c.names[0] for c in gradient.components]
        assert names == ["xyz_2", "xyz"]
        expected = 3 * x[:, :, None] ** 2 * np.eye(3)
        assert_close(gradient.values[..., 0], expected)
        nested = gradient.gradient("positions")
        assert [c.names[0] for c in nested.components] == ["xyz_3", "xyz_2", "xyz"]


def test_keys_info_and_values_are_the_functions() -> None:
    with enable_x64(True):
        x = SYSTEMS.positions(SYSTEMS.at()[0])
        function = SYSTEMS.function("energy 1", "energy 2")

        def with_info(positions: mts.TensorBlock) -> mts.TensorMap:
            return function(positions).with_info("units", "eV")

        tensor = compute(with_info, positions=x)
        assert tensor.info() == {"units": "eV"}
        assert tensor.keys == mts.Labels.range("kind", 2)
        bare = jax.jit(with_info)(x)
        for block, expected in zip(tensor, bare, strict=True):
            assert_close(block.values, expected.values, 1e-14)


# === which entries =================================================================


def near(positions: mts.TensorBlock) -> mts.TensorMap:
    """Of each atom, from itself and the atom after it in the same system."""
    x = positions.values[..., 0]
    s = SYSTEMS.atoms.column("system")
    follows = np.array([i + 1 < len(s) and s[i + 1] == s[i] for i in range(len(s))])
    after = jnp.concatenate([x[1:], x[:1]]) * follows[:, None].astype(x.dtype)
    value = jnp.sin((x * jnp.exp(after)).sum(1))[:, None]
    block = mts.TensorBlock(value, SYSTEMS.atoms, [], ONE)
    return mts.TensorMap(ONE, [block])


def near_samples() -> mts.Labels:
    s, a = SYSTEMS.atoms.values.T
    rows = [[i, s[i], a[i]] for i in range(len(s))]
    rows += [[i, s[i], a[i] + 1] for i in range(len(s) - 1) if s[i + 1] == s[i]]
    return mts.Labels(["sample", "system", "atom"], rows)


@pytest.mark.parametrize("form", ["labels", "list", "map"])
def test_declared_sparsity(form: str) -> None:
    """The declared rows in their order, equal to those of the full pattern."""
    with enable_x64(True):
        x = SYSTEMS.positions(SYSTEMS.at()[0])
        samples = near_samples()
        shape = (len(samples), 3, 1)
        gradient = mts.TensorBlock(np.zeros(shape), samples, [XYZ], ONE)
        block = mts.TensorBlock(
            np.zeros((len(SYSTEMS.atoms), 1)), SYSTEMS.atoms, [], ONE
        )
        sparsity = {
            "labels": {"positions": samples},
            "list": {"positions": [samples]},
            "map": mts.TensorMap(ONE, [block.with_gradient("positions", gradient)]),
        }[form]
        full = compute(near, positions=x).block()
        sparse = compute(near, positions=x, sparsity=sparsity).block()
        assert sparse.gradient("positions").samples == samples
        assert len(full.gradient("positions").samples) > len(samples)
        expected = dense(full, "positions", x)
        assert_close(dense(sparse, "positions", x), expected)


def test_declared_sparsity_of_second_order() -> None:
    with enable_x64(True):
        x = SYSTEMS.positions(SYSTEMS.at()[0])
        sparsity = {"positions": near_samples()}
        full = compute(near, positions=x, order=2).block()
        sparse = compute(near, positions=x, order=2, sparsity=sparsity).block()
        by = ("positions", x)
        assert_close(dense_second(sparse, by, by), dense_second(full, by, by))


def test_one_parameter_declared_and_one_not() -> None:
    with enable_x64(True):
        x, strain = SYSTEMS.at()
        parameters = {
            "positions": SYSTEMS.positions(x),
            "strain": SYSTEMS.strain(strain),
        }

        def function(
            positions: mts.TensorBlock, strain: mts.TensorBlock
        ) -> mts.TensorMap:
            block = near(positions).block()
            s = SYSTEMS.atoms.column("system")
            trace = jnp.trace(strain.values[s, ..., 0], axis1=1, axis2=2)
            return mts.TensorMap(
                ONE, [block.with_values(block.values * trace[:, None])]
            )

        sparsity = {"positions": near_samples()}
        full = compute(function, **parameters).block()
        sparse = compute(function, sparsity=sparsity, **parameters).block()
        assert sparse.gradient("strain").samples == full.gradient("strain").samples
        for by in parameters.items():
            assert_close(dense(sparse, *by), dense(full, *by))


def test_sparsity_map_with_keys_in_another_order() -> None:
    """Blocks were taken by their place: derivatives had the labels of another block."""
    with enable_x64(True):
        x = mts.TensorBlock(np.array([[2.0], [3.0]]), mts.Labels.range("a", 2), [], ONE)

        def function(x: mts.TensorBlock) -> mts.TensorMap:
            swapped = x.with_values(x.values[::-1] ** 2)
            blocks = [x.with_values(x.values**2), swapped]
            return mts.TensorMap(mts.Labels("k", [[0], [1]]), blocks)

        def declared(rows: Any) -> mts.TensorBlock:
            samples = mts.Labels(["sample", "a"], rows)
            gradient = mts.TensorBlock(np.zeros((2, 1)), samples, [], ONE)
            return x.with_gradient("x", gradient)

        blocks = [declared([[0, 1], [1, 0]]), declared([[0, 0], [1, 1]])]
        sparsity = mts.TensorMap(mts.Labels("k", [[1], [0]]), blocks)
        tensor = mts.compute_gradients(function, x=x, sparsity=sparsity)
        for k, expected in enumerate(
            [np.diag([4.0, 6.0]), np.diag([6.0, 4.0])[:, ::-1]]
        ):
            found = dense(tensor.block(k=k), "x", x)[..., 0]
            np.testing.assert_array_equal(found, expected)


def test_without_systems_all_depends_on_all() -> None:
    with enable_x64(True):
        x = mts.TensorBlock(
            np.array([[1.0], [2.0], [3.0]]), mts.Labels.range("a", 3), [], ONE
        )

        def function(x: mts.TensorBlock) -> mts.TensorMap:
            values = jnp.stack([x.values.prod(), (x.values**2).sum()])[:, None]
            samples = mts.Labels.range("b", 2)
            return mts.TensorMap(ONE, [mts.TensorBlock(values, samples, [], ONE)])

        gradient = compute(function, x=x).block().gradient("x")
        rows = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
        assert gradient.samples == mts.Labels(["sample", "a"], rows)
        expected = [6.0, 3.0, 2.0, 2.0, 4.0, 6.0]
        np.testing.assert_allclose(gradient.values[:, 0], expected)


def test_another_name_for_systems() -> None:
    with enable_x64(True):
        x = SYSTEMS.at()[0]
        atoms = SYSTEMS.atoms.rename("system", "frame")

        def function(positions: mts.TensorBlock) -> mts.TensorMap:
            values = SYSTEMS.energies(
                positions.values[..., 0], jnp.zeros((SYSTEMS.n, 3, 3)), 1
            )
            frames = mts.Labels.range("frame", SYSTEMS.n)
            return mts.TensorMap(ONE, [mts.TensorBlock(values, frames, [], ONE)])

        at = mts.TensorBlock(x[..., None], atoms, [XYZ], ONE)
        by_frame = compute(function, positions=at, system="frame").block()
        by_all = compute(function, positions=at).block()
        n = len(atoms)
        assert len(by_frame.gradient("positions")) == n
        assert len(by_all.gradient("positions")) == n * SYSTEMS.n
        expected = dense(by_all, "positions", at)
        assert_close(dense(by_frame, "positions", at), expected)


def test_a_total_over_systems_by_an_entry_per_system() -> None:
    """The dimension was left out, so all gradient rows had the same label."""
    with enable_x64(True):
        systems = mts.Labels.range("system", 3)
        x = mts.TensorBlock(np.array([[1.0], [2.0], [3.0]]), systems, [], ONE)

        def function(x: mts.TensorBlock) -> mts.TensorMap:
            total = (x.values**2).sum(0)[None]
            return mts.TensorMap(ONE, [mts.TensorBlock(total, ONE, [], ONE)])

        gradient = mts.compute_gradients(function, x=x).block().gradient("x")
        rows = [[0, 0], [0, 1], [0, 2]]
        assert gradient.samples == mts.Labels(["sample", "system"], rows)
        np.testing.assert_array_equal(gradient.values, [[2.0], [4.0], [6.0]])


def test_a_parameter_with_a_single_entry() -> None:
    with enable_x64(True):
        scale = mts.TensorBlock(np.array([[2.0]]), ONE, [], ONE)

        def function(scale: mts.TensorBlock) -> mts.TensorMap:
            values = scale.values * jnp.array([[1.0], [5.0]])
            samples = mts.Labels.range("system", 2)
            return mts.TensorMap(ONE, [mts.TensorBlock(values, samples, [], ONE)])

        gradient = (
            mts.compute_gradients(function, scale=scale).block().gradient("scale")
        )
        assert gradient.samples == mts.Labels.range("sample", 2)
        np.testing.assert_array_equal(gradient.values, [[1.0], [5.0]])


def test_gradients_are_found_again_by_connect_gradients() -> None:
    """The two bridges invert each other."""
    with enable_x64(True):
        parameters = SYSTEMS.parameters()
        tensor = mts.TensorMap(ONE, [stored("rank 1")])

        def again(**p: mts.TensorBlock) -> mts.TensorMap:
            return mts.connect_gradients(tensor, **p)

        connected = compute(again, **parameters)
        for by in parameters.items():
            expected = dense(tensor.block(), *by)
            assert_close(dense(connected.block(), *by), expected, 1e-14)


# === transformations ===============================================================


def test_under_vmap() -> None:
    with enable_x64(True):
        x = SYSTEMS.at()[0]
        batch = np.stack([x, 2 * x, x - 1])
        function = SYSTEMS.function("energy 1")

        def of_values(x: Any) -> mts.TensorMap:
            return mts.compute_gradients(function, positions=SYSTEMS.positions(x))

        gradients = jax.jit(jax.vmap(of_values))(batch)
        single = jax.jit(of_values)
        for i in range(3):
            found = gradients.block().gradient("positions").values[i]
            expected = single(batch[i]).block().gradient("positions").values
            assert_close(found, expected)


def test_grad_of_a_loss_of_stored_gradients() -> None:
    """Forces as stored gradients in a loss: trained by JAX in reverse."""
    with enable_x64(True):
        x, strain = SYSTEMS.at()
        target = np.random.default_rng(1).normal(size=x.shape)

        def of_stored(width: Any) -> Any:
            def function(positions: mts.TensorBlock) -> mts.TensorMap:
                at = positions.values[..., 0]
                values = SYSTEMS.energies(at * width, jnp.zeros_like(strain), 1)
                samples = mts.Labels.range("system", SYSTEMS.n)
                return mts.TensorMap(ONE, [mts.TensorBlock(values, samples, [], ONE)])

            positions = SYSTEMS.positions(x)
            tensor = mts.compute_gradients(function, positions=positions)
            forces = tensor.block().gradient("positions").values[..., 0]
            return ((forces - target) ** 2).sum()

        def bare(width: Any) -> Any:
            forces = jax.grad(
                lambda x: SYSTEMS.energies(x * width, jnp.zeros_like(strain), 1).sum()
            )(x)
            return ((forces - target) ** 2).sum()

        found = jax.jit(jax.value_and_grad(of_stored))(0.8)
        expected = jax.jit(jax.value_and_grad(bare))(0.8)
        assert_close(found[0], expected[0])
        assert_close(found[1], expected[1], 1e-12)


def test_eager_is_the_same() -> None:
    systems = Systems.of((2, 1))
    with enable_x64(True):
        parameters = systems.parameters()
        function = systems.function("energy 1")
        eager = mts.compute_gradients(function, **parameters)
        jitted = compute(function, **parameters)
        assert jax.tree.structure(eager) == jax.tree.structure(jitted)
        for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
            assert_close(a, b)


def test_compiled_once_for_new_values() -> None:
    with enable_x64(True):
        traced = 0
        function = SYSTEMS.function("energy 1")

        @jax.jit
        def program(positions: mts.TensorBlock) -> mts.TensorMap:
            nonlocal traced
            traced += 1
            return mts.compute_gradients(function, positions=positions)

        x = SYSTEMS.at()[0]
        for shift in (0.0, 1.0, 2.0):
            program(SYSTEMS.positions(x + shift))
        assert traced == 1


# === precision and dtypes ==========================================================


def test_single_precision(x64: bool) -> None:
    """float32 stays float32, with 64-bit types on or off."""
    parameters = SYSTEMS.parameters(np.float32)
    for kind in ("energy 1", "rank 1"):
        block = compute(SYSTEMS.function(kind), **parameters).block()
        with enable_x64(True):
            exact = stored(kind)
        for by in parameters.items():
            assert block.dtype == block.gradient(by[0]).dtype == np.float32
            assert_close(dense(block, *by), dense(exact, *by), 3e-6)


def test_double_precision_needs_64_bit_types() -> None:
    with enable_x64(False), pytest.raises(TypeError) as error:
        mts.compute_gradients(SYSTEMS.function("energy 1"), **SYSTEMS.parameters())
    assert str(error.value) == (
        "the data is float64, but JAX is in its 32-bit mode and would narrow it to "
        "float32. Enable 64 bits, `jax.config.update('jax_enable_x64', True)`, or "
        "convert with `.to(dtype='float32')`"
    )


def test_values_of_another_precision_than_the_parameters() -> None:
    """Gradients have the dtype of the values."""
    with enable_x64(True):
        for kind in ("energy 1", "rank 1"):  # one in reverse mode, one in forward mode
            x = SYSTEMS.positions(SYSTEMS.at()[0])
            function = SYSTEMS.function(kind)

            def single(positions: mts.TensorBlock, function: Any = function) -> Any:
                return function(positions).to(dtype=np.float32)

            block = compute(single, positions=x).block()
            expected = compute(function, positions=x).block()
            assert block.gradient("positions").dtype == np.float32
            expected = dense(expected, "positions", x)
            assert_close(dense(block, "positions", x), expected, 1e-6)


def test_complex_results() -> None:
    """Values that are complex functions of real parameters."""
    systems = Systems.of((2, 1))
    with enable_x64(True):
        parameters = systems.parameters()
        real = systems.function("energy 2")

        def rotated(**p: mts.TensorBlock) -> mts.TensorMap:
            block = real(**p).block()
            phase = jax.lax.complex(jnp.zeros_like(block.values), block.values)
            return mts.TensorMap(ONE, [block.with_values(jnp.exp(phase))])

        block = compute(rotated, order=2, **parameters).block()
        of_real = compute(real, order=2, **parameters).block()
        assert block.gradient("positions").dtype == np.complex128
        y = np.asarray(of_real.values)
        for p, q in itertools.product(parameters.items(), repeat=2):
            a, b = dense(of_real, *p), dense(of_real, *q)
            row = lambda d, n: y.reshape(len(y), *[1] * n, *y.shape[1:])  # noqa: E731
            phase = row(y, a.ndim - y.ndim)
            assert_close(dense(block, *p), 1j * np.exp(1j * phase) * a)
            # d2 = exp(i y) (i y'' - y' y'), with the axes (i, a, b, *d, *c, ...)
            n_p, n_q = p[1].values.ndim - 2, q[1].values.ndim - 2
            n_in = y.ndim - 1
            outer = a.reshape(len(y), len(p[1]), 1, *[1] * n_q, *a.shape[2:])
            other = b.reshape(
                len(y), 1, len(q[1]), *b.shape[2 : 2 + n_q], *[1] * n_p, *y.shape[1:]
            )
            second = dense_second(of_real, p, q)
            phase = row(y, second.ndim - 1 - n_in)
            expected = np.exp(1j * phase) * (1j * second - outer * other)
            assert_close(dense_second(block, p, q), expected)


# === empty =========================================================================


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", ["energy 1", "rank 1"])
def test_no_atoms(kind: str, order: int) -> None:
    """The number of components was inferred from nothing: division by zero."""
    systems = Systems.of(())
    with enable_x64(True):
        x = systems.positions(np.zeros((0, 3)))
        tensor = mts.compute_gradients(systems.function(kind), order=order, positions=x)
        gradient = tensor.block().gradient("positions")
        assert gradient.shape == (0, 3, *tensor.block().shape[1:])
        assert gradient.samples == mts.Labels.empty(["sample", "system", "atom"])


def test_a_system_without_atoms() -> None:
    """The same with rows of values."""
    with enable_x64(True):
        atoms = mts.Labels.empty(["system", "atom"])
        x = mts.TensorBlock(np.zeros((0, 3, 1)), atoms, [XYZ], ONE)

        def function(positions: mts.TensorBlock) -> mts.TensorMap:
            values = jnp.ones((2, 1)) + positions.values.sum()
            samples = mts.Labels.range("system", 2)
            return mts.TensorMap(ONE, [mts.TensorBlock(values, samples, [], ONE)])

        block = mts.compute_gradients(function, positions=x).block()
        assert block.gradient("positions").shape == (0, 3, 1)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (3, 0, 2)])
def test_values_without_elements(shape: tuple[int, ...]) -> None:
    """No samples, no properties, a component without entries."""
    with enable_x64(True):
        x = mts.TensorBlock(np.ones((3, 1)), mts.Labels.range("system", 3), [], ONE)
        components = [mts.Labels.range("c", n) for n in shape[1:-1]]

        def function(x: mts.TensorBlock) -> mts.TensorMap:
            samples = mts.Labels.range("system", shape[0])
            values = jnp.zeros(shape) * x.values.sum()
            properties = mts.Labels.range("p", shape[-1])
            block = mts.TensorBlock(values, samples, components, properties)
            return mts.TensorMap(ONE, [block])

        block = mts.compute_gradients(function, x=x).block()
        assert block.gradient("x").shape == shape


def test_no_blocks() -> None:
    with enable_x64(True):
        empty = mts.TensorMap(mts.Labels.empty(["k"]), [])
        for order in (1, 2):
            x = SYSTEMS.positions(SYSTEMS.at()[0])
            tensor = mts.compute_gradients(lambda x: empty, order=order, x=x)
            assert len(tensor) == 0
            assert tensor.keys == empty.keys


def test_blocks_with_and_without_samples() -> None:
    """An empty block beside a full one."""
    with enable_x64(True):
        x = SYSTEMS.positions(SYSTEMS.at()[0])
        full = SYSTEMS.function("rank 1")

        def function(positions: mts.TensorBlock) -> mts.TensorMap:
            block = full(positions).block()
            none = mts.TensorBlock(
                block.values[:0],
                mts.Labels.empty(["system", "atom"]),
                block.components,
                block.properties,
            )
            return mts.TensorMap(mts.Labels.range("k", 2), [none, block])

        tensor = compute(function, positions=x)
        assert tensor.block(k=0).gradient("positions").shape == (0, 3, 3, 2)
        expected = compute(full, positions=x).block()
        found = dense(tensor.block(k=1), "positions", x)
        assert_close(found, dense(expected, "positions", x))


# === errors ========================================================================

COLUMN = mts.Labels.range("system", 2)


def parameter(values: Any, samples: mts.Labels = COLUMN) -> mts.TensorBlock:
    return mts.TensorBlock(values, samples, [], mts.Labels.range("p", values.shape[-1]))


def identity(x: mts.TensorBlock) -> mts.TensorMap:
    return mts.TensorMap(ONE, [x])


def call(function: Any = identity, x: Any = None, **options: Any) -> Any:
    x = parameter(np.ones((2, 1), np.float32)) if x is None else x
    return lambda: mts.compute_gradients(function, x=x, **options)


def twice(x: mts.TensorBlock) -> mts.TensorMap:
    return mts.compute_gradients(identity, x=x)


def traced_samples(x: mts.TensorBlock) -> mts.TensorMap:
    samples = mts.Labels.traced("system", jnp.array([[0], [1]], jnp.int32))
    return mts.TensorMap(ONE, [parameter(x.values, samples)])


ERRORS = [
    (
        lambda: mts.compute_gradients(identity),
        TypeError,
        "compute_gradients needs at least one parameter, by its name",
    ),
    (
        call(x=np.ones((2, 1))),
        TypeError,
        "the parameter 'x' must be a TensorBlock, whose labels say which entry is "
        "which, not ndarray",
    ),
    (
        call(x=parameter(np.ones((2, 3), np.float32))),
        mts.MetatensorError,
        "the parameter 'x' must have a single property, got 3",
    ),
    (
        call(order=3),
        mts.MetatensorError,
        "`order` must be 1 or 2, not 3",
    ),
    (
        call(x=parameter(np.ones((2, 1), np.int32))),
        TypeError,
        "can not take derivatives by 'x', whose values are int32: they must be real "
        "floating point numbers",
    ),
    (
        call(x=parameter(np.ones((2, 1), np.complex64))),
        TypeError,
        "can not take derivatives by 'x', whose values are complex64: they must be "
        "real floating point numbers",
    ),
    (
        call(lambda x: {"energy": x}),
        TypeError,
        "the function must return a metatensor_jax TensorMap, not builtins.dict",
    ),
    (
        call(lambda x: x),
        TypeError,
        "the function must return a metatensor_jax TensorMap, not "
        "metatensor_jax.TensorBlock",
    ),
    (
        call(lambda x: mts.TensorMap(ONE, [x.with_values(x.values.astype(int))])),
        TypeError,
        "can not take derivatives of int32 values: convert them with "
        "`.to(dtype=float)`",
    ),
    (
        call(twice),
        mts.MetatensorError,
        "the result has stored gradients with respect to 'x' already: see "
        "`remove_gradients(tensor, 'x')`, or `connect_gradients` to make them "
        "derivatives",
    ),
    (
        call(sparsity={"x": mts.Labels("row", [[0]])}),
        mts.MetatensorError,
        "the first dimension of the declared gradient samples of 'x' must be "
        "'sample', got ['row']",
    ),
    (
        call(sparsity={"x": mts.Labels("sample", [[0], [2]])}),
        mts.MetatensorError,
        "the declared gradient samples of 'x' must be of the rows 0 to 1 of the "
        "values, but they go from 0 to 2",
    ),
    (
        call(sparsity={"x": mts.Labels("sample", [[-1]])}),
        mts.MetatensorError,
        "the declared gradient samples of 'x' must be of the rows 0 to 1 of the "
        "values, but they go from -1 to -1",
    ),
    (
        call(sparsity={"x": mts.Labels(["sample", "system"], [[0, 1]])}),
        mts.MetatensorError,
        "the gradient with respect to 'x' has a row (sample=0, system=1), but sample 0 "
        "of the values is (system=0): a gradient row belongs to the 'system' of its "
        "sample. If systems were computed one by one, number them in the gradient "
        "samples as well as in the samples, before they are joined",
    ),
    (
        call(
            sparsity={"x": mts.Labels(["sample", "system"], [[0, 7]])},
            function=lambda x: mts.TensorMap(
                ONE, [parameter(x.values, mts.Labels.range("row", 2))]
            ),
        ),
        mts.MetatensorError,
        "a stored gradient is with respect to 'x' of {'system': 7}, which is not "
        "among the samples of the parameter:\n" + str(COLUMN),
    ),
    (
        call(sparsity={"x": mts.Labels(["sample", "atom"], [[0, 0]])}),
        mts.MetatensorError,
        "the stored gradients with respect to 'x' have the dimensions ['atom'], but "
        "the samples of the parameter do not: ['system']",
    ),
    (
        call(
            x=parameter(np.ones((2, 1), np.float32), mts.Labels.range("image", 2)),
            function=lambda x: mts.TensorMap(ONE, [parameter(x.values)]),
            sparsity={"x": mts.Labels("sample", [[0]])},
        ),
        mts.MetatensorError,
        "the samples of the parameter 'x' have the dimensions ['image'], but the "
        "stored gradients have ['system']",
    ),
    (call(traced_samples), mts.TracedLabelsError, "'compute_gradients'"),
    (
        call(
            x=parameter(
                np.ones((2, 1), np.float32),
                mts.Labels.traced("system", np.array([[0], [1]], np.int32)),
            ),
            function=lambda x: mts.TensorMap(ONE, [parameter(x.values)]),
        ),
        mts.TracedLabelsError,
        "'compute_gradients'",
    ),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), ERRORS)
def test_errors(wrong: Callable[[], Any], kind: type, message: str) -> None:
    with pytest.raises(kind) as error:
        wrong()
    if kind is mts.TracedLabelsError:
        assert "compute_gradients" in str(error.value)
    else:
        assert str(error.value) == message


def test_a_function_that_gives_an_array() -> None:
    with pytest.raises(TypeError, match="must return a metatensor_jax TensorMap, not"):
        call(lambda x: x.values)()


# === passes ========================================================================


def count_passes(
    mode: str, systems: Systems, function: Callable[..., Any], **options: Any
) -> int:
    """How often derivatives by positions go through a function.

    :param mode: ``"forward"`` or ``"reverse"``; JAX raises if it is the other one
    """
    passes = 0

    def count(_: Any) -> None:
        nonlocal passes
        passes += 1

    def derivative(x: Any) -> Any:
        jax.debug.callback(count, x.sum())
        return x

    def watch(x: Any) -> Any:
        return x

    if mode == "forward":
        watch = jax.custom_jvp(watch)
        watch.defjvp(lambda x, dx: (x[0], derivative(dx[0])))
    else:
        watch = jax.custom_vjp(watch)
        watch.defvjp(lambda x: (x, None), lambda _, dx: (derivative(dx),))

    def watched(positions: mts.TensorBlock) -> mts.TensorMap:
        return function(positions.with_values(watch(positions.values)))

    x = systems.positions(systems.at()[0])
    jax.block_until_ready(compute(watched, positions=x, **options))
    jax.effects_barrier()
    return passes


@pytest.mark.parametrize(("kind", "n"), [("energy 1", 1), ("energy 2", 2)])
def test_energies_take_one_reverse_pass_per_property(kind: str, n: int) -> None:
    with enable_x64(True):
        for sizes in [(3, 2), (3, 2, 4, 1, 2, 2, 3)]:
            systems = Systems.of(sizes)
            assert count_passes("reverse", systems, systems.function(kind)) == n


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, of inner programs as well."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def program_of(function: Callable[..., Any], **parameters: Any) -> Any:
    options = {"order": parameters.pop("order", 1)}
    return jax.make_jaxpr(lambda p: mts.compute_gradients(function, **options, **p))(
        parameters
    )


def largest_array(program: Any) -> int:
    sizes = [
        v.aval.size
        for equation in equations(program.jaxpr)
        for v in [*equation.invars, *equation.outvars]
        if hasattr(v.aval, "size")
    ]
    return max([*sizes, *(np.size(c) for c in program.consts)])


@pytest.mark.parametrize("kind", ["energy 1", "energy 2", "rank 0", "rank 1"])
@pytest.mark.parametrize("order", [1, 2])
def test_work_grows_with_the_number_of_systems(kind: str, order: int) -> None:
    """Twice as many systems: arrays of twice the size, not of four times."""
    with enable_x64(True):
        largest = []
        for n in (8, 16):
            systems = Systems.of([3] * n)
            x = systems.positions(systems.at()[0])
            program = program_of(systems.function(kind), positions=x, order=order)
            largest.append(largest_array(program))
        assert largest[1] == 2 * largest[0]


def test_a_single_pass_is_not_batched() -> None:
    """The energies' pass works on arrays of the shapes that they have anyway."""
    with enable_x64(True):
        systems = Systems.of([3] * 8)
        x = systems.positions(systems.at()[0])
        program = program_of(systems.function("energy 1"), positions=x)
        sines = [e for e in equations(program.jaxpr) if e.primitive.name == "cos"]
        assert {e.outvars[0].aval.shape for e in sines} == {(24,)}
        assert largest_array(program) == 24 * 3 * 3  # the strain of each atom


@pytest.mark.parametrize("sizes", [(2, 4), (2, 4, 1, 3, 4, 2)])
@pytest.mark.skipif(
    jax.__version_info__ < (0, 5), reason="`jax.linearize` dropped callbacks"
)
def test_features_take_a_pass_per_coordinate_of_the_largest_system(
    sizes: tuple[int, ...],
) -> None:
    """Three for each atom of the largest system, for any number of systems."""
    with enable_x64(True):
        systems = Systems.of(sizes)
        n = count_passes("forward", systems, systems.function("rank 2"))
        assert n == 3 * max(sizes)


def test_declared_sparsity_takes_fewer_passes() -> None:
    """Four atoms share a system, but only two of them an entry."""
    with enable_x64(True):
        sparsity = {"positions": near_samples()}
        assert count_passes("reverse", SYSTEMS, near) == 4
        assert count_passes("reverse", SYSTEMS, near, sparsity=sparsity) == 2


def test_more_passes_than_run_at_once() -> None:
    """A system of 30 atoms: 90 forward passes, in two rounds."""
    with enable_x64(True):
        systems = Systems.of((30,))
        x = systems.positions(systems.at()[0] * 3)
        block = compute(systems.function("rank 2"), positions=x).block()

        def bare(at: Any) -> Any:
            return systems.features(at, jnp.zeros((1, 3, 3)), 2)

        jacobian = jax.jit(jax.jacfwd(bare))(systems.at()[0] * 3)
        expected = dense_jacobian(jacobian, 4)
        assert_close(dense(block, "positions", x), expected)


# === colors ========================================================================


@st.composite
def patterns(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Elements of a sparse matrix in any order, some of them twice."""
    n_rows, n_columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    element = st.tuples(st.integers(0, n_rows - 1), st.integers(0, n_columns - 1))
    elements = np.array(draw(st.lists(element, max_size=40)), int).reshape(-1, 2)
    return elements[:, 0], elements[:, 1] * draw(st.sampled_from([1, 7])), n_rows


@given(patterns())
def test_rows_that_share_a_column_differ_in_color(
    pattern: tuple[np.ndarray, np.ndarray, int],
) -> None:
    rows, columns, n_rows = pattern
    colors = color_rows(rows, columns, n_rows)
    assert colors.shape == (n_rows,)
    for column in set(columns.tolist()):
        met = sorted(set(rows[columns == column].tolist()))
        assert len(set(colors[met].tolist())) == len(met)
    absent = np.setdiff1d(np.arange(n_rows), rows)
    assert (colors[absent] == 0).all()
    # all colors up to the last one are used
    assert set(colors.tolist()) | {0} == set(range(int(colors.max()) + 1))
    np.testing.assert_array_equal(colors, color_rows(rows, columns, n_rows))


@given(patterns())
def test_no_row_has_a_color_that_it_could_do_without(
    pattern: tuple[np.ndarray, np.ndarray, int],
) -> None:
    """Greedy: a row of a color met a row of each color before."""
    rows, columns, n_rows = pattern
    colors = color_rows(rows, columns, n_rows)
    for row in range(n_rows):
        shared = np.isin(columns, columns[rows == row])
        met = set(colors[rows[shared & (rows != row)]].tolist())
        assert set(range(int(colors[row]))) <= met


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_colors_of_systems_are_as_many_as_the_largest_has_rows(
    sizes: list[tuple[int, int]],
) -> None:
    """Rows of a system all meet: (rows, columns) of each system."""
    rows, columns, n_rows, n_columns = [], [], 0, 0
    for n, m in sizes:
        inside = np.indices((n, m)).reshape(2, -1)
        rows += [inside[0] + n_rows]
        columns += [inside[1] + n_columns]
        n_rows, n_columns = n_rows + n, n_columns + m
    order = np.random.default_rng(0).permutation(sum(map(len, rows)))
    flat = [
        np.concatenate([*parts, np.zeros(0, int)])[order] for parts in (rows, columns)
    ]
    colors = color_rows(*flat, n_rows)
    needed = max((n for n, m in sizes if m), default=1 if n_rows else 0)
    assert len(set(colors.tolist())) == max(needed, min(1, n_rows))
