"""connect_gradients: derivatives of stored gradients, and of those that stay stored."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import enable_x64

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap

ONE, P = Labels.single(), Labels.range("p", 2)
SYSTEMS = Labels.range("system", 2)
ATOMS = Labels(["system", "atom"], [[0, 0], [0, 1], [1, 0]])
OF_SYSTEM = np.array([0, 0, 1])
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(3, 3, 2)), RNG.normal(size=(2, 2, 2))
AT = 0.3 * RNG.normal(size=(3, 3)), 0.3 * RNG.normal(size=(2, 2))
#: what the axes of the values, of a and of b are called
NAMES = {
    "no component": (None, "xyz", "uvw"),
    "all names differ": ("m", "xyz", "uvw"),
    "a and b have the same": ("m", "xyz", "xyz"),
    "all have the same": ("xyz", "xyz", "xyz"),
    "a suffix that is none": ("xyz", "xyz_2", "xyz"),
}
Path = tuple[str, ...]
AB, BA = ("a", "b"), ("b", "a")
#: which second derivatives are not stored
STORED: dict[str, Collection[Path]] = {
    "both orders": (),
    "b in a": (BA,),
    "a in b": (AB,),
}


def exact(a: Any, b: Any, n: int | None = None) -> Any:
    """An exponential function of atoms and systems: (system, p), or (system, n, p)."""
    exponent = (
        jnp.zeros((2, 2)).at[OF_SYSTEM].add(jnp.einsum("ikp,ik->ip", WEIGHTS[0], a))
    )
    x = jnp.exp(exponent + jnp.einsum("skp,sk->sp", WEIGHTS[1], b))
    return x if n is None else jnp.stack([(i + 1) * x ** (i + 1) for i in range(n)], 1)


class Case:
    """A map of this function, with some of its derivatives.

    :param names: of components: of the values, of a, of b
    :param without: what is not stored
    """

    def __init__(self, names: str, without: Collection[Path], traced: bool = False):
        own, *self.names = NAMES[names]
        self.own = [] if own is None else [Labels.range(own, 3)]
        self.n = None if own is None else 3
        at = {"a": self.a(AT[0]), "b": self.b(AT[1])}
        compute = functools.partial(mts.compute_gradients, self.values, order=2)
        full = jax.jit(lambda at: compute(**at))(at)
        block = _without(full.block(), without, ())
        self.tensor = TensorMap(ONE, [_traced(block) if traced else block])

    def values(self, a: TensorBlock, b: TensorBlock) -> TensorMap:
        x = exact(a.values[..., 0], b.values[..., 0], self.n)
        return TensorMap(ONE, [TensorBlock(x, SYSTEMS, self.own, P)])

    def a(self, values: Any) -> TensorBlock:
        return TensorBlock(
            values[..., None], ATOMS, [Labels.range(self.names[0], 3)], ONE
        )

    def b(self, values: Any) -> TensorBlock:
        components = [Labels.range(self.names[1], 2)]
        return TensorBlock(values[..., None], SYSTEMS, components, ONE)

    def loss(self, a: Any) -> Any:
        """Of the values and of what stays stored, after an operation."""
        connected = mts.connect_gradients(self.tensor, a=self.a(a))
        block = mts.multiply(connected, connected).block()
        assert block.gradients_list() == ["b"]
        slopes = block.gradient("b")
        # b is of its own system: a row for each, in their order
        return jnp.sin(block.values).sum() + jnp.cos(slopes.values).sum()

    def of_values(self, a: Any) -> Any:
        """Of the values alone."""
        connected = mts.connect_gradients(self.tensor, a=self.a(a))
        return jnp.sin(mts.multiply(connected, connected).block().values).sum()

    def exact_loss(self, a: Any) -> Any:
        """The same without anything stored."""

        def square(b: Any) -> Any:
            return exact(a, b, self.n) ** 2

        jacobian = jax.jacfwd(square)(AT[1])
        slopes = jnp.stack([jacobian[s][..., s, :] for s in range(2)])
        return jnp.sin(square(AT[1])).sum() + jnp.cos(slopes).sum()

    def exact_of_values(self, a: Any) -> Any:
        return jnp.sin(exact(a, AT[1], self.n) ** 2).sum()


def _without(block: TensorBlock, paths: Collection[Path], path: Path) -> TensorBlock:
    """Without these gradients, and without second derivatives of b by itself."""
    gradients = {
        name: _without(gradient, paths, (*path, name))
        for name, gradient in block.gradients()
        if (*path, name) not in (*paths, ("b", "b"))
    }
    axes = block.samples, block.components, block.properties
    return TensorBlock(block.values, *axes, gradients)


def _traced(block: TensorBlock) -> TensorBlock:
    """With one row of padding, in the gradients too."""
    values = np.asarray(block.values)
    values = np.concatenate([values, np.full_like(values[:1], 1)])
    rows = np.full((len(values), len(block.samples.names)), Labels.PADDING, np.int32)
    rows[:-1] = block.samples.values
    gradients = {name: _traced(gradient) for name, gradient in block.gradients()}
    samples = Labels.traced(block.samples.names, rows)
    return TensorBlock(values, samples, block.components, block.properties, gradients)


def _compare(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("without", STORED.values(), ids=list(STORED))
@pytest.mark.parametrize("names", NAMES)
def test_gradients_that_stay_stored_depend_on_the_others(
    names: str, without: Collection[Path]
) -> None:
    """They counted as constants: half of the derivative was missing."""
    with enable_x64(True):
        case = Case(names, without)
        expected = jax.jit(jax.grad(case.exact_loss))(AT[0])

        @jax.jit
        def program(a: Any) -> Any:
            ones = jnp.ones((3, 3))
            return jax.grad(case.loss)(a), jax.jvp(case.loss, (a,), (ones,))[1]

        gradient, slope = program(AT[0])
        _compare(gradient, expected)
        _compare(slope, expected.sum())
        if names == "no component":
            _compare(jax.grad(case.loss)(AT[0]), expected)


@pytest.mark.parametrize("without", STORED.values(), ids=list(STORED))
@pytest.mark.parametrize("transform", ["eager", "jit", "disable_jit"])
def test_the_same_with_traced_labels(transform: str, without: Collection[Path]) -> None:
    with enable_x64(True):
        case = Case("no component", without, traced=True)

        def loss(a: Any, tensor: Any) -> Any:
            connected = mts.connect_gradients(tensor, a=case.a(a)).block()
            slopes = connected.gradient("b")
            mask = jnp.asarray(slopes.mask)[:, None, None]
            second = jnp.asarray(slopes.samples.values)[:, 0] == 1
            weights = jnp.where(second, 3.0, 1.0)[:, None, None]
            return (jnp.where(mask, jnp.cos(slopes.values), 0.0) * weights).sum()

        def exact_loss(a: Any) -> Any:
            jacobian = jax.jacfwd(lambda b: exact(a, b))(AT[1])
            slopes = jnp.stack([jacobian[s, :, s] for s in range(2)])
            return (jnp.cos(slopes) * jnp.array([1.0, 3.0])[:, None, None]).sum()

        gradient = jax.grad(loss)
        expected = jax.grad(exact_loss)(AT[0])
        for tensor in (case.tensor, jax.tree.map(jnp.asarray, case.tensor)):
            if transform == "disable_jit":
                with jax.disable_jit():
                    found = gradient(AT[0], tensor)
            else:
                program = jax.jit(gradient) if transform == "jit" else gradient
                found = program(AT[0], tensor)
            _compare(found, expected)


# === what is not known =============================================================

UNKNOWN = (
    r"there is no stored gradient with respect to 'a' of the stored gradient by 'b' "
    r"\(nor the same in another order, for all of its rows\), .* connect 'b' as well"
)


@pytest.mark.parametrize("traced", [False, True])
def test_an_unknown_derivative_raises_where_it_is_needed(traced: bool) -> None:
    with enable_x64(True):
        case = Case("no component", (AB, BA), traced)
        for transform in (jax.grad, jax.hessian):
            with pytest.raises(mts.MetatensorError, match=UNKNOWN):
                jax.jit(transform(case.loss))(AT[0])
        if not traced:
            with pytest.raises(mts.MetatensorError, match=UNKNOWN):
                jax.grad(case.loss)(AT[0])
        # a forward pass does not know what is needed
        slope = jax.jit(lambda a: jax.jvp(case.loss, (a,), (jnp.ones((3, 3)),)))
        assert np.isnan(slope(AT[0])[1])


def test_an_unknown_derivative_that_nobody_needs() -> None:
    """That strain stays stored is no reason not to train on forces."""
    with enable_x64(True):
        case = Case("all names differ", (AB, BA))
        f, g = case.of_values, case.exact_of_values
        expected, hessian = jax.jit(lambda a: (jax.grad(g)(a), jax.hessian(g)(a)))(
            AT[0]
        )
        _compare(jax.grad(f)(AT[0]), expected)
        for first in (jax.grad, jax.jacfwd):
            _compare(jax.jit(first(f))(AT[0]), expected)
        for second in (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f))):
            _compare(jax.jit(second(f))(AT[0]), hessian)
        both = jax.jit(jax.vmap(jax.grad(f)))(np.stack([AT[0]] * 2))
        _compare(both[1], expected)
        stopped = lambda a: case.loss(jax.lax.stop_gradient(a)) + f(a)  # noqa: E731
        _compare(jax.jit(jax.grad(stopped))(AT[0]), expected)


@pytest.mark.parametrize("names", ["no component", "all have the same"])
@pytest.mark.parametrize("without", STORED.values(), ids=list(STORED))
def test_mixed_second_derivatives(names: str, without: Collection[Path]) -> None:
    """Of two connected parameters, stored in either order."""
    with enable_x64(True):
        case = Case(names, without)

        def values(a: Any, b: Any) -> Any:
            connected = mts.connect_gradients(case.tensor, a=case.a(a), b=case.b(b))
            assert connected.block().gradients_list() == []
            return jnp.sin(connected.block().values).sum()

        def exact_values(a: Any, b: Any) -> Any:
            return jnp.sin(exact(a, b, case.n)).sum()

        for inner, outer in ((0, 1), (1, 0)):
            for over in (jax.jacfwd, jax.jacrev):
                mixed, expected = (
                    jax.jit(over(jax.grad(f, inner), outer))(*AT)
                    for f in (values, exact_values)
                )
                _compare(mixed, expected)


def test_an_unknown_mixed_derivative() -> None:
    with enable_x64(True):
        case = Case("no component", (AB, BA))

        def values(a: Any, b: Any) -> Any:
            connected = mts.connect_gradients(case.tensor, a=case.a(a), b=case.b(b))
            return jnp.sin(connected.block().values).sum()

        for transform in (jax.jacfwd, jax.jacrev):
            with pytest.raises(mts.MetatensorError, match="derivative of higher order"):
                transform(jax.grad(values), 1)(*AT)
        # each alone is known
        hessian = jax.hessian(lambda a, b: jnp.sin(exact(a, b)).sum())
        _compare(jax.jit(jax.hessian(values))(*AT), jax.jit(hessian)(*AT))


# === one number, by hand ===========================================================


def exponential(
    rows: Any = ((0,),), nested: Callable[[str], bool] = lambda _: True
) -> TensorMap:
    """x = exp(r + 2 s) at 0, and the derivatives of it by r and s."""
    p = Labels.range("p", 1)

    def block(value: float, samples: Labels, gradients: Any) -> TensorBlock:
        return TensorBlock(np.array([[value]]), samples, [], p, gradients)

    def by(factors: str) -> float:
        return float(np.prod([{"r": 1.0, "s": 2.0}[f] for f in factors]))

    sample = Labels("sample", [[0]])
    firsts = {}
    for one in "rs":
        below = {
            two: block(by(one + two), sample, {}) for two in "rs" if nested(one + two)
        }
        firsts[one] = block(by(one), sample, below)
    if not rows:
        firsts["s"] = TensorBlock(np.zeros((0, 1)), Labels.empty("sample"), [], p)
    return TensorMap(ONE, [block(1.0, Labels.range("system", 1), firsts)])


def scalar(value: Any) -> TensorBlock:
    return TensorBlock(jnp.reshape(value, (1, 1)), Labels.range("system", 1), [], ONE)


def test_by_hand() -> None:
    """(d x^2 / d s)^2 = 16 exp(4 (r + 2 s)), and its derivative by r is 64."""
    with enable_x64(True):

        def squared_slope(r: Any, tensor: TensorMap) -> Any:
            connected = mts.connect_gradients(tensor, r=scalar(r))
            return (connected * connected).block().gradient("s").values[0, 0] ** 2

        for missing in ("", "rs", "sr"):
            tensor = exponential(nested=lambda path, m=missing: path not in (m, "ss"))
            value, slope = jax.value_and_grad(squared_slope)(0.0, tensor)
            assert (value, slope) == (16.0, 64.0)


def test_a_derivative_of_a_row_that_is_not_there() -> None:
    """The row is zero, but it does not stay zero: what is stored can not say so."""
    with enable_x64(True):
        tensor = exponential(rows=())

        def slope(r: Any) -> Any:
            connected = mts.connect_gradients(tensor, r=scalar(r)).block()
            return connected.values.sum() + connected.gradient("s").values.sum()

        with pytest.raises(mts.MetatensorError, match="for all of its rows"):
            jax.grad(slope)(0.0)
