"""Three routes to forces and virials, on real molecules and crystals.

- propagate: stored gradients follow through operations and modules;
- connect: ``jax.grad`` of what is computed from ``connect_gradients``;
- differentiate: ``jax.grad``, or ``compute_gradients``, of a model that is all JAX.

All give the same derivatives by positions and by strain, for energies and for dipoles.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64
from systems import ONE, XYZ, crystal, hypers, molecule, moved, parameters

import metatensor_jax as mts

pytest.importorskip("ase")
eqx = pytest.importorskip("equinox")

from metatensor_jax.learn import ModuleMap  # noqa: E402

OUT = mts.Labels.range("out", 1)
MU = mts.Labels("o3_mu", [[-1], [0], [1]])
CUTOFF = 3.5
PARAMETERS = ("positions", "strain")
TARGETS = ("linear energy", "energy", "linear dipole", "dipole")

Features = Mapping[str, mts.TensorMap]


# === systems =======================================================================


@functools.cache
def frames_of(name: str) -> tuple[Any, ...]:
    if name == "molecules":
        names = ["CH3CH2OH", "C6H6", "H2O"]
        return tuple(molecule(n, seed) for seed, n in enumerate(names))
    return (crystal("NaCl", "rocksalt", 5.0, seed=4),)


# === features by featomic ==========================================================


def by_featomic(frames: Sequence[Any], gradients: Sequence[str] = ()) -> Features:
    """Power spectra, and expansions of the density in scalars and vectors."""
    featomic = pytest.importorskip("featomic")
    options = hypers(CUTOFF)

    def compute(calculator: Any) -> mts.TensorMap:
        computed = calculator(**options).compute(
            list(frames), gradients=list(gradients)
        )
        return mts.TensorMap.load_buffer(computed.save_buffer())

    pairs = ["neighbor_1_type", "neighbor_2_type"]
    power = compute(featomic.SoapPowerSpectrum).keys_to_properties(pairs)
    expansion = compute(featomic.SphericalExpansion)
    expansion = expansion.keys_to_properties("neighbor_type")
    scalars, vectors = (
        mts.remove_dimension(
            mts.remove_dimension(
                mts.filter_blocks(expansion, mts.Labels("o3_lambda", [[o3_lambda]])),
                "keys",
                "o3_lambda",
            ),
            "keys",
            "o3_sigma",
        )
        for o3_lambda in (0, 1)
    )
    return {"invariants": power, "scalars": scalars, "vectors": vectors}


# === features by JAX ===============================================================


class Neighbors(NamedTuple):
    """Pairs of atoms, with the shift from the second's cell to its image."""

    types: np.ndarray
    system: np.ndarray
    first: np.ndarray
    second: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, frames: Sequence[Any]) -> Neighbors:
        first, second, shift = [], [], []
        offset = 0
        for frame in frames:
            n, cell = len(frame), np.array(frame.cell)
            reach = range(-3, 4) if frame.pbc.any() else range(1)
            for image in itertools.product(reach, repeat=3):
                for i, j in itertools.product(range(n), repeat=2):
                    d = frame.positions[j] + image @ cell - frame.positions[i]
                    if (i != j or any(image)) and np.linalg.norm(d) < CUTOFF:
                        first.append(offset + i)
                        second.append(offset + j)
                        shift.append(image @ cell)
            offset += n
        return cls(
            np.concatenate([frame.numbers for frame in frames]),
            np.repeat(np.arange(len(frames)), [len(frame) for frame in frames]),
            np.array(first, np.int32),
            np.array(second, np.int32),
            np.array(shift),
        )

    def density(self, x: Any, strain: Any) -> tuple[Any, Any]:
        """Sums over neighbors of Gaussians of the distance: scalars and vectors.

        Shapes: (atoms, 1, properties) and (atoms, 3, properties), where the properties
        go over the types of neighbors and centers of Gaussians.
        """
        d = x[self.second] + self.shift.astype(x.dtype) - x[self.first]
        d = d + jnp.einsum("ia,iab->ib", d, strain[self.system[self.first]])
        r = jnp.sqrt((d**2).sum(1))
        smooth = 0.5 * (1 + jnp.cos(jnp.pi * r / CUTOFF))
        columns = []
        for neighbor, center in itertools.product(np.unique(self.types), (1.0, 2.0)):
            of_type = (self.types[self.second] == neighbor).astype(x.dtype)
            columns.append(jnp.exp(-((r - center) ** 2)) * smooth * of_type)
        scalars = jnp.stack(columns, 1)[:, None]
        unit = (d / r[:, None])[:, (1, 2, 0)]
        n = len(self.types)
        return (
            jax.ops.segment_sum(scalars, self.first, n),
            jax.ops.segment_sum(scalars * unit[..., None], self.first, n),
        )


def by_jax(
    neighbors: Neighbors, positions: mts.TensorBlock, strain: mts.TensorBlock
) -> Features:
    """The density as maps, with a block for each type of atom."""
    arrays = neighbors.density(positions.values[..., 0], strain.values[..., 0])
    kinds = np.unique(neighbors.types)
    keys = mts.Labels("center_type", kinds[:, None])

    def split(array: Any, components: list[mts.Labels]) -> mts.TensorMap:
        properties = mts.Labels.range("n", array.shape[-1])
        blocks = []
        for kind in kinds:
            rows = np.flatnonzero(neighbors.types == kind)
            samples = mts.Labels(["system", "atom"], positions.samples.values[rows])
            blocks.append(mts.TensorBlock(array[rows], samples, components, properties))
        return mts.TensorMap(keys, blocks)

    scalars, vectors = arrays
    return {
        "invariants": split(scalars[:, 0], []),
        "scalars": split(scalars, [mts.Labels("o3_mu", [[0]])]),
        "vectors": split(vectors, [MU]),
    }


# === models ========================================================================


class Model(NamedTuple):
    """Gives energies or dipoles of systems.

    :param name: one of ``TARGETS``
    :param modules: applied to the invariants of each atom
    :param weights: for each block, of vectors and of scalars
    """

    name: str
    modules: ModuleMap
    weights: list[tuple[Any, Any]]

    @classmethod
    def of(cls, name: str, features: Features, dtype: Any) -> Model:
        modules, weights = [], []
        invariants, scalars = features["invariants"], features["scalars"]
        rng = np.random.default_rng(0)
        for i, (block, scalar) in enumerate(zip(invariants, scalars, strict=True)):
            n, key = len(block.properties), jax.random.key(i)
            if name.startswith("linear"):
                modules.append(eqx.nn.Linear(n, 1, dtype=dtype, key=key))
            else:
                mlp = eqx.nn.MLP(n, 1, 8, 1, jnp.tanh, dtype=dtype, key=key)
                modules.append(mlp)
            of_block = rng.normal(size=(2, len(scalar.properties), 1)).astype(dtype)
            weights.append((of_block[0], of_block[1]))
        return cls(name, ModuleMap(invariants.keys, modules, OUT), weights)

    def __call__(self, features: Features) -> mts.TensorMap:
        of_atoms = self._of_atoms(features)
        of_types = mts.sum_over_samples(of_atoms, "atom")
        of_types = of_types.keys_to_samples("center_type")
        return mts.sum_over_samples(of_types, "center_type")

    def _of_atoms(self, features: Features) -> mts.TensorMap:
        if self.name.endswith("energy"):
            return self.modules(features["invariants"])
        vectors = features["vectors"]
        if self.name == "linear dipole":
            weights = [(w,) for w, _ in self.weights]
            return mts.map_rows(
                _project, vectors, args=weights, linear=True, properties=OUT
            )
        return mts.map_rows(
            _gate, vectors, features["scalars"], args=self.weights, properties=OUT
        )


def _project(vector: Any, weight: Any) -> Any:
    return vector @ weight


def _gate(vector: Any, scalar: Any, weight: Any, of_scalar: Any) -> Any:
    """Equivariant features times a nonlinear function of invariant ones."""
    return (vector @ weight) * jnp.tanh(scalar @ of_scalar)


# === routes ========================================================================

#: by parameter; the axes are (entries, *components of the parameter, *(o3_mu))
Derivatives = dict[str, np.ndarray]


def models_of(features: Features, dtype: Any) -> dict[str, Model]:
    return {target: Model.of(target, features, dtype) for target in TARGETS}


def stored_derivatives(
    tensor: mts.TensorMap, blocks: Mapping[str, mts.TensorBlock]
) -> Derivatives:
    """What is stored, at the entries of the parameters."""
    block = tensor.block()
    result = {}
    for name, parameter in blocks.items():
        gradient = block.gradient(name)
        rows = np.asarray(gradient.values)
        total = np.zeros((len(parameter), *rows.shape[1:-1]), rows.dtype)
        for row, values in zip(gradient.samples, rows, strict=True):
            parent = block.samples.entry(int(row["sample"]))
            named = dict(zip(parent.names, map(int, parent), strict=True))
            named |= dict(zip(row.names, map(int, row), strict=True))
            entry = [named[n] for n in parameter.samples.names]
            total[parameter.samples.position(entry)] += values[..., 0]
        result[name] = total
    return result


def jax_derivatives(
    function: Callable[..., dict[str, mts.TensorMap]],
    blocks: Mapping[str, mts.TensorBlock],
) -> dict[str, Derivatives]:
    """By ``jax.jacrev`` of sums over systems: each depends on its own entries."""

    def totals(arrays: Mapping[str, Any]) -> dict[str, Any]:
        given = {n: blocks[n].with_values(arrays[n][..., None]) for n in blocks}
        outputs = function(**given)
        return {t: y.block().values.sum(0)[..., 0] for t, y in outputs.items()}

    at = {name: jnp.asarray(block.values[..., 0]) for name, block in blocks.items()}
    jacobians = jax.jit(jax.jacrev(totals))(at)
    return {
        target: {
            # the components of the target come last
            name: np.moveaxis(np.asarray(j), range(j.ndim - at[name].ndim), -1)
            if j.ndim > at[name].ndim
            else np.asarray(j)
            for name, j in of_target.items()
        }
        for target, of_target in jacobians.items()
    }


def apply(models: Mapping[str, Model], features: Features) -> dict[str, mts.TensorMap]:
    return {target: model(features) for target, model in models.items()}


def propagate(
    models: Mapping[str, Model],
    features: Features,
    blocks: Mapping[str, mts.TensorBlock],
) -> dict[str, Derivatives]:
    """The first route."""
    program = jax.jit(lambda features: apply(models, features))
    outputs = program(dict(features))
    return {t: stored_derivatives(y, blocks) for t, y in outputs.items()}


def connect(
    models: Mapping[str, Model],
    features: Features,
    blocks: Mapping[str, mts.TensorBlock],
) -> dict[str, Derivatives]:
    """The second route."""

    def function(**given: mts.TensorBlock) -> dict[str, mts.TensorMap]:
        connected = {
            name: mts.connect_gradients(tensor, **given)
            for name, tensor in features.items()
        }
        return apply(models, connected)

    return jax_derivatives(function, blocks)


def assert_same(
    found: Mapping[str, Derivatives],
    expected: Mapping[str, Derivatives],
    eps: float = 200.0,
) -> None:
    """To rounding: ``eps`` is in units of the last place of the largest element."""
    assert found.keys() == expected.keys() == set(TARGETS)
    for target, name in itertools.product(TARGETS, PARAMETERS):
        one, other = found[target][name], expected[target][name]
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        scale = float(np.abs(other).max())
        assert scale > 1e-3
        atol = eps * scale * float(np.finfo(one.dtype).eps)
        np.testing.assert_allclose(
            one, other, rtol=0, atol=atol, err_msg=f"{target} by {name}"
        )


def assert_symmetric(found: Mapping[str, Derivatives], frames: Sequence[Any]) -> None:
    """Moving all atoms of a system changes nothing; nor does it turn an energy."""
    starts = np.cumsum([0, *(len(frame) for frame in frames)])
    for target, derivatives in found.items():
        forces = derivatives["positions"]
        eps = 500 * float(np.finfo(forces.dtype).eps)
        for s, (start, end) in enumerate(itertools.pairwise(starts)):
            of_system, virial = forces[start:end], derivatives["strain"][s]
            atol = eps * max(np.abs(of_system).max(), np.abs(virial).max())
            np.testing.assert_allclose(of_system.sum(0), 0, atol=atol)
            if target.endswith("energy"):
                np.testing.assert_allclose(virial, virial.T, atol=atol)


@functools.cache
def stored_by_featomic(systems: str) -> Features:
    return by_featomic(frames_of(systems), PARAMETERS)


#: the compiler takes its time: not all combinations
CASES = [
    (systems, dtype)
    for systems in ("molecules", "crystal")
    for dtype in (np.float64, np.float32)
]


@pytest.mark.parametrize(("systems", "dtype"), CASES)
def test_two_routes_from_features_of_featomic(systems: str, dtype: Any) -> None:
    with enable_x64(dtype == np.float64):
        frames = frames_of(systems)
        blocks = parameters(frames, dtype, PARAMETERS)
        features = {
            name: tensor.to(dtype=dtype)
            for name, tensor in stored_by_featomic(systems).items()
        }
        models = models_of(features, dtype)
        stored = propagate(models, features, blocks)
        assert_same(connect(models, features, blocks), stored)
        assert_symmetric(stored, frames)


@pytest.mark.parametrize(("systems", "dtype"), CASES)
def test_all_routes_from_features_of_jax(systems: str, dtype: Any) -> None:
    with enable_x64(dtype == np.float64):
        frames = frames_of(systems)
        neighbors = Neighbors.of(frames)
        blocks = parameters(frames, dtype, PARAMETERS)

        def stored_features(blocks: Any) -> Features:
            """The density, with gradients by ``compute_gradients``."""
            return {
                name: mts.compute_gradients(
                    lambda name=name, **given: by_jax(neighbors, **given)[name],
                    **blocks,
                )
                for name in ("invariants", "scalars", "vectors")
            }

        features = jax.jit(stored_features)(blocks)
        models = models_of(features, dtype)

        def all_jax(**given: mts.TensorBlock) -> dict[str, mts.TensorMap]:
            return apply(models, by_jax(neighbors, **given))

        expected = jax_derivatives(all_jax, blocks)
        stored = propagate(models, features, blocks)
        assert_same(stored, expected)
        assert_same(connect(models, features, blocks), expected)
        assert_symmetric(stored, frames)

        @jax.jit
        def compute(blocks: Any) -> dict[str, mts.TensorMap]:
            return {
                target: mts.compute_gradients(
                    lambda model=model, **given: model(by_jax(neighbors, **given)),
                    **blocks,
                )
                for target, model in models.items()
            }

        computed = compute(blocks)
        of_each = {t: stored_derivatives(y, blocks) for t, y in computed.items()}
        assert_same(of_each, expected)


# === finite differences ============================================================


@pytest.mark.parametrize("target", ["energy", "dipole"])
@pytest.mark.parametrize("systems", ["molecules", "crystal"])
def test_finite_differences_through_featomic(systems: str, target: str) -> None:
    """The first route, against featomic and the model at other positions."""
    with enable_x64(True):
        frames = frames_of(systems)[-1:]
        features = by_featomic(frames, PARAMETERS)
        model = Model.of(target, features, np.float64)
        program = jax.jit(lambda features: model(features))

        def function(**given: mts.TensorBlock) -> mts.TensorMap:
            return program(dict(by_featomic(moved(frames, given))))

        tensor = program(dict(features))
        blocks = parameters(frames, np.float64, PARAMETERS)
        report = mts.check_gradients(tensor, function, **blocks)
        assert len(report.checks) == 2


def test_finite_differences_of_the_density() -> None:
    """The descriptor of these tests itself, and the model of it, for a crystal."""
    with enable_x64(True):
        frames = frames_of("crystal")
        neighbors = Neighbors.of(frames)
        blocks = parameters(frames, np.float64, PARAMETERS)
        features = by_jax(neighbors, **blocks)
        model = Model.of("dipole", features, np.float64)

        def function(**moved: mts.TensorBlock) -> mts.TensorMap:
            return model(by_jax(neighbors, **moved))

        program = jax.jit(lambda p: mts.compute_gradients(function, **p))
        mts.check_gradients(lambda **p: program(p), **blocks)


# === traced labels =================================================================


def traced(tensor: mts.TensorMap) -> mts.TensorMap:
    """The same map, with samples that are data."""

    def of_block(block: mts.TensorBlock) -> mts.TensorBlock:
        samples = mts.Labels.traced(block.samples.names, block.samples.values)
        return mts.TensorBlock(
            block.values,
            samples,
            block.components,
            block.properties,
            {name: of_block(gradient) for name, gradient in block.gradients()},
        )

    return mts.TensorMap(tensor.keys, [of_block(block) for block in tensor])


@pytest.mark.parametrize("missing", [False, True])
def test_connected_with_traced_samples(missing: bool) -> None:
    """As with static ones; an atom that the parameter lacks makes NaN, not zeros."""
    with enable_x64(True):
        frames = frames_of("molecules")[-1:]
        features = by_featomic(frames, ["positions"])["vectors"]
        x = parameters(frames, np.float64, PARAMETERS)["positions"]

        def values_of(tensor: mts.TensorMap, atoms: mts.Labels) -> Any:
            def values(x: Any) -> Any:
                block = mts.TensorBlock(x, atoms, [XYZ], ONE)
                connected = mts.connect_gradients(tensor, positions=block)
                return [jnp.tanh(block.values) for block in connected]

            return values

        rows = x.samples.values.copy()
        if missing:
            rows[1, 1] = 7
        atoms = mts.Labels.traced(x.samples.names, rows)
        for jacobian in (jax.jacfwd, jax.jacrev):

            @jax.jit
            def program(
                tensor: Any, atoms: Any, at: Any, jacobian: Any = jacobian
            ) -> Any:
                return jacobian(values_of(tensor, atoms))(at)

            found = program(traced(features), atoms, x.values)
            if missing:
                assert all(np.isnan(j).any() for j in found)
                continue
            expected = jax.jit(jacobian(values_of(features, x.samples)))(x.values)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)
