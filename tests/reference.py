"""Reference implementations for the tests of rows: slow, and simple enough to trust.

Two views of a block with stored gradients:

- :class:`Smooth` is a known function of parameters, to second order. It gives the
  block with its derivatives stored, and can be evaluated anywhere, so what an
  operation stores can be compared with the derivatives that JAX finds.
- :func:`rows_of` turns a block into a list of :class:`Row`: each has its values and
  its gradient rows by label. Moving rows means moving these objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import metatensor_jax as mts

# === functions of parameters =======================================================


class Parameter(NamedTuple):
    """What to differentiate with respect to: ``n`` entries with components."""

    n: int
    components: tuple[int, ...]
    #: sample names after "sample"; none for a single entry
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.n * int(np.prod(self.components))


PARAMETERS = {
    "cell": Parameter(1, (2, 2), ()),
    "positions": Parameter(3, (3,), ("atom",)),
    "strain": Parameter(2, (), ("index",)),
}
ENDS = np.cumsum([parameter.size for parameter in PARAMETERS.values()]).tolist()
SIZE = ENDS[-1]
#: where each parameter is in the vector of all of them
WHERE = {
    name: slice(end - parameter.size, end)
    for (name, parameter), end in zip(PARAMETERS.items(), ENDS, strict=True)
}

Tree = Mapping[str, Sequence[str]]  # parameters, and those of their nested gradients


class Smooth(NamedTuple):
    """``x(t) = x + first t + t second t / 2``, for each row of a block."""

    values: np.ndarray  # (rows, *components, properties)
    first: np.ndarray  # (SIZE, rows, *components, properties)
    second: np.ndarray  # (SIZE, SIZE, rows, *components, properties), symmetric
    present: np.ndarray  # (SIZE, rows): is there a gradient row
    present2: np.ndarray  # (SIZE, SIZE, rows): is there a nested gradient row
    tree: Tree
    seed: int

    @classmethod
    def random(
        cls,
        n: int,
        shape: Sequence[int],
        tree: Tree,
        density: float = 0.6,
        seed: int = 0,
        dtype: Any = np.float64,
    ) -> Smooth:
        """Random coefficients, where ``density`` of the gradient rows are there."""
        rng = np.random.default_rng(seed)

        def normal(*lead: int) -> np.ndarray:
            values = 0.5 * rng.normal(size=(*lead, n, *shape))
            if np.dtype(dtype).kind == "c":
                values = values + 0.5j * rng.normal(size=values.shape)
            return values

        # All elements of one label are there together: repeat a draw per label.
        label = np.concatenate(
            [
                (10 * i + np.arange(p.n)).repeat(p.size // p.n)
                for i, p in enumerate(PARAMETERS.values())
            ]
        )
        first_of_label = np.searchsorted(label, label)
        name_of = [name for name, p in PARAMETERS.items() for _ in range(p.size)]
        on = rng.random((SIZE, n))[first_of_label] < density
        on &= np.array([name in tree for name in name_of])[:, None]
        pairs = rng.random((SIZE, SIZE, n))[first_of_label][:, first_of_label]
        pairs = np.maximum(pairs, pairs.swapaxes(0, 1)) < density
        stored = np.array([[q in tree.get(p, ()) for q in name_of] for p in name_of])
        pairs &= (stored | stored.T)[..., None]
        # A nested gradient row needs the row that it is a gradient of.
        pairs &= on[:, None] | ~stored[..., None]
        pairs &= on[None, :] | ~stored.T[..., None]
        tail = (1,) * len(shape)
        second = normal(SIZE, SIZE)
        return cls(
            normal().astype(dtype),
            (normal(SIZE) * on.reshape(*on.shape, *tail)).astype(dtype),
            (
                (second + second.swapaxes(0, 1)) * pairs.reshape(*pairs.shape, *tail)
            ).astype(dtype),
            on,
            pairs & stored[..., None],
            tree,
            seed,
        )

    def at(self, theta: Any) -> Any:
        """The rows at these parameters (a vector with ``SIZE`` elements)."""
        return _at(self.values, self.first, self.second, theta)

    def block(self) -> mts.TensorBlock:
        """The rows at zero, with their derivatives; gradient rows in any order."""
        rng = np.random.default_rng(self.seed)
        n, *components, n_properties = self.values.shape
        axes = [mts.Labels.range(f"m_{i}", size) for i, size in enumerate(components)]
        properties = mts.Labels.range("property", n_properties)
        gradients = {}
        for p in self.tree:
            found = dense_rows(self.present[WHERE[p]], p)
            order = rng.permutation(len(found))
            found = [found[i] for i in order]
            nested = {}
            for q in self.tree[p]:
                nested[q] = self._nested(p, q, found, axes, properties, rng)
            dense = by_label(self.first[WHERE[p]], p)
            gradients[p] = mts.TensorBlock(
                _stack([dense[i, r] for i, r in found], dense.shape[2:], dense.dtype),
                _labels(p, found),
                [*_extra(p, ""), *axes],
                properties,
                nested,
            )
        samples = mts.Labels.range("row", n)
        return mts.TensorBlock(self.values, samples, axes, properties, gradients)

    def _nested(
        self,
        p: str,
        q: str,
        parents: Sequence[tuple[int, int]],
        axes: Sequence[mts.Labels],
        properties: mts.Labels,
        rng: np.random.Generator,
    ) -> mts.TensorBlock:
        present = self.present2[WHERE[p], WHERE[q]]
        first_p, first_q = _first_element(p), _first_element(q)
        found = [
            (k, s)
            for k, (i, r) in enumerate(parents)
            for s in range(PARAMETERS[q].n)
            if present[first_p[r], first_q[s], i]
        ]
        found = [found[i] for i in rng.permutation(len(found))]
        dense = by_labels(self.second[WHERE[p], WHERE[q]], p, q)
        rows = [dense[(*parents[k], s)] for k, s in found]
        return mts.TensorBlock(
            _stack(rows, dense.shape[3:], dense.dtype),
            _labels(q, found),
            # A name can stand only once in a block.
            [*_extra(q, "_again" if p == q else ""), *_extra(p, ""), *axes],
            properties,
        )


def _at(values: Any, first: Any, second: Any, theta: Any) -> Any:
    theta = theta.astype(values.dtype)
    linear = jnp.tensordot(theta, first, 1)
    return (
        values + linear + jnp.tensordot(theta, jnp.tensordot(theta, second, 1), 1) / 2
    )


def _first_element(p: str) -> list[int]:
    parameter = PARAMETERS[p]
    return [r * parameter.size // parameter.n for r in range(parameter.n)]


def dense_rows(present: np.ndarray, p: str) -> list[tuple[int, int]]:
    """All (row, entry of ``p``) that are present."""
    return [
        (i, r)
        for i in range(present.shape[1])
        for r, element in enumerate(_first_element(p))
        if present[element, i]
    ]


def by_label(derivative: np.ndarray, p: str) -> np.ndarray:
    """From ``(elements of p, rows, ...)`` to ``(rows, entry, *components, ...)``."""
    parameter = PARAMETERS[p]
    shape = (parameter.n, *parameter.components, *derivative.shape[1:])
    return np.moveaxis(derivative.reshape(shape), 1 + len(parameter.components), 0)


def by_labels(derivative: np.ndarray, p: str, q: str) -> np.ndarray:
    """To ``(rows, entry of p, entry of q, *components of q, *of p, ...)``."""
    of_p = np.stack([by_label(part, q) for part in derivative])
    # (elements of p, rows, entry of q, *components of q, ...)
    parameter = PARAMETERS[p]
    n_c = len(parameter.components)
    of_p = of_p.reshape(parameter.n, *parameter.components, *of_p.shape[1:])
    rows, entry_q = 1 + n_c, 2 + n_c
    c_q = [3 + n_c + i for i in range(len(PARAMETERS[q].components))]
    c_p = [1 + i for i in range(n_c)]
    rest = range(3 + n_c + len(c_q), of_p.ndim)
    return of_p.transpose(rows, 0, entry_q, *c_q, *c_p, *rest)


def _stack(rows: Sequence[np.ndarray], shape: Any, dtype: Any) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, *shape), dtype)


def _labels(p: str, rows: Sequence[tuple[int, int]]) -> mts.Labels:
    names = PARAMETERS[p].names
    values = np.array(rows, np.int32).reshape(-1, 2)
    return mts.Labels(["sample", *names], values[:, : 1 + len(names)])


def _extra(p: str, suffix: str) -> list[mts.Labels]:
    sizes = PARAMETERS[p].components
    return [mts.Labels.range(f"{p}_{i}{suffix}", n) for i, n in enumerate(sizes)]


@partial(jax.jit, static_argnums=0)
def _derivatives(function: Callable[..., Any], coefficients: Any, args: Any) -> Any:
    def y(theta: Any) -> Any:
        rows = [_at(*parts, theta) for parts in coefficients]
        return jax.vmap(lambda *row: function(*row, *args))(*rows)

    real = jnp.finfo(coefficients[0][0].dtype).dtype
    theta = jnp.zeros(SIZE, real)
    first = jax.jacfwd(y)
    return y(theta), first(theta), jax.jacfwd(first)(theta)


def derivatives(
    function: Callable[..., Any], inputs: Sequence[Smooth], args: Any = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What JAX finds for ``function`` of each row: values, first and second order.

    The axes of the parameters come first: ``(rows, ...)``, ``(SIZE, rows, ...)`` and
    ``(SIZE, SIZE, rows, ...)``.
    """
    coefficients = [(x.values, x.first, x.second) for x in inputs]
    values, first, second = _derivatives(function, coefficients, args)
    first, second = np.asarray(first), np.asarray(second)
    second = np.moveaxis(second, (-2, -1), (0, 1))
    return np.asarray(values), np.moveaxis(first, -1, 0), second


def densify(block: mts.TensorBlock, p: str, q: str | None = None) -> np.ndarray:
    """A gradient, or a nested one, with all rows; as :func:`by_label` gives them."""
    gradient = block.gradient(p)
    tail = gradient.shape[1:]
    labels = [tuple(row) for row in _with_entry(gradient.samples)]
    if q is None:
        out = np.zeros((len(block), PARAMETERS[p].n, *tail), gradient.dtype)
        for label, values in zip(labels, np.asarray(gradient.values), strict=True):
            out[label] = values
        return out
    nested = gradient.gradient(q)
    sizes = (len(block), PARAMETERS[p].n, PARAMETERS[q].n)
    out = np.zeros((*sizes, *nested.shape[1:]), nested.dtype)
    rows = _with_entry(nested.samples)
    for (k, s), values in zip(rows, np.asarray(nested.values), strict=True):
        out[(*labels[k], s)] = values
    return out


def _with_entry(samples: mts.Labels) -> np.ndarray:
    """(sample, entry); a parameter without names has one entry, 0."""
    rows = np.asarray(samples.values)
    return np.hstack([rows, np.zeros((len(rows), 2 - rows.shape[1]), np.int32)])


def assert_close(actual: Any, expected: Any, eps: float = 200.0) -> None:
    """Equal to rounding: ``eps`` is in units of the last place of the largest."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if expected.size == 0:
        return
    if expected.dtype.kind not in "fc":
        np.testing.assert_array_equal(actual, expected)
        return
    scale = max(1.0, float(np.nanmax(np.abs(expected))))
    atol = eps * scale * float(np.finfo(expected.dtype).eps)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def known_tree(inputs: Sequence[Smooth], linear: bool) -> dict[str, set[str]]:
    """What is known of a result: nothing that one of the inputs does not store.

    The second derivative of a function that is not linear takes the first ones, too.
    """
    common = set.intersection(*(set(x.tree) for x in inputs))
    tree = {p: set.intersection(*(set(x.tree[p]) for x in inputs)) for p in common}
    return tree if linear else {p: nested & common for p, nested in tree.items()}


def assert_derivatives(
    result: mts.TensorBlock,
    function: Callable[..., Any],
    inputs: Sequence[Smooth],
    args: Any = (),
    linear: bool = False,
    n_constants: int = 0,
) -> None:
    """The stored gradients of ``result`` are the derivatives of ``function``.

    :param n_constants: so many of the inputs, the last ones, are plain arrays
    """
    values, first, second = derivatives(function, inputs, args)
    assert_close(result.values, values)
    tree = known_tree(inputs[: len(inputs) - n_constants], linear)
    assert set(result.gradients_list()) == set(tree)
    for p in tree:
        assert_close(densify(result, p), by_label(first[WHERE[p]], p))
        assert set(result.gradient(p).gradients_list()) == tree[p]
        for q in tree[p]:
            expected = by_labels(second[WHERE[p], WHERE[q]], p, q)
            assert_close(densify(result, p, q), expected)
            assert result.gradient(p).gradient(q).gradients_list() == []


# === rows as objects ===============================================================


class Row(NamedTuple):
    """One row of a block, and its gradient rows by parameter and label."""

    values: np.ndarray
    gradients: dict[str, dict[tuple[int, ...], Row]]


def rows_of(block: mts.TensorBlock) -> list[Row]:
    """The rows of a block; a gradient row that is padding belongs to none."""
    values = np.asarray(block.values)
    rows = [Row(row, {name: {} for name in block.gradients_list()}) for row in values]
    for name, gradient in block.gradients():
        labels = np.asarray(gradient.samples.values).tolist()
        for (parent, *label), row in zip(labels, rows_of(gradient), strict=True):
            if parent == mts.Labels.PADDING:
                assert set(label) <= {mts.Labels.PADDING}
                continue
            assert tuple(label) not in rows[parent].gradients[name], "not unique"
            rows[parent].gradients[name][tuple(label)] = row
    return rows


def real_rows(block: mts.TensorBlock) -> list[Row]:
    """The same without the rows that are padding themselves."""
    padding = np.asarray(block.samples.values)[:, 0] == mts.Labels.PADDING
    return [row for row, pad in zip(rows_of(block), padding, strict=True) if not pad]


def add(a: Row, b: Row) -> Row:
    """The sum of two rows; a gradient row that one of them has not is zero there."""
    gradients: dict[str, dict[tuple[int, ...], Row]] = {}
    for name in sorted({*a.gradients, *b.gradients}):
        merged = dict(a.gradients.get(name, {}))
        for label, row in b.gradients.get(name, {}).items():
            merged[label] = add(merged[label], row) if label in merged else row
        gradients[name] = merged
    return Row(a.values + b.values, gradients)


def empty_row(block: mts.TensorBlock, fill_value: Any = 0) -> Row:
    """A row that nothing goes to."""
    values = np.full(block.shape[1:], fill_value, block.dtype)
    return Row(values, {name: {} for name in block.gradients_list()})


def beside(rows: Sequence[Row | None], widths: Sequence[int], fill_value: Any) -> Row:
    """Rows side by side; None for one that is not there. At least one is."""
    there = next(row for row in rows if row is not None)
    shape, dtype = there.values.shape[:-1], there.values.dtype
    values = [
        np.full((*shape, width), fill_value, dtype) if row is None else row.values
        for row, width in zip(rows, widths, strict=True)
    ]
    gradients = {}
    for name in there.gradients:
        of_rows = [{} if row is None else row.gradients[name] for row in rows]
        labels = {label for of_row in of_rows for label in of_row}
        gradients[name] = {
            label: beside([of_row.get(label) for of_row in of_rows], widths, 0)
            for label in labels
        }
    return Row(np.concatenate(values, -1), gradients)


def assert_rows(actual: Sequence[Row], expected: Sequence[Row], eps: float = 0) -> None:
    """The same rows, with the same labels of gradient rows; ``eps`` as above."""
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        if eps:
            assert_close(a.values, b.values, eps)
        else:
            assert a.values.dtype == b.values.dtype
            np.testing.assert_array_equal(a.values, b.values)
        assert a.gradients.keys() == b.gradients.keys()
        for name in a.gradients:
            of_a, of_b = a.gradients[name], b.gradients[name]
            assert of_a.keys() == of_b.keys()
            assert_rows([of_a[k] for k in of_b], list(of_b.values()), eps)


def validate(block: mts.TensorBlock) -> None:
    """Build the block again from its parts: that checks all of them."""
    gradients = dict(block.gradients())
    for gradient in gradients.values():
        validate(gradient)
    samples = block.samples
    if samples.is_static:
        samples = mts.Labels(samples.names, samples.values)
    mts.TensorBlock(
        block.values, samples, block.components, block.properties, gradients
    )


# === padding =======================================================================


def padded(block: mts.TensorBlock, extra: int = 2) -> mts.TensorBlock:
    """The same block with traced samples, and padding rows of ones at its end.

    Ones, because what padding rows hold must not matter; they are no zeros, so that a
    row that is added where it does not belong shows.
    """
    gradients = {
        name: padded(gradient, extra + 1) for name, gradient in block.gradients()
    }
    values = np.asarray(block.values)
    labels = np.asarray(block.samples.values)
    more = np.ones((extra, *values.shape[1:]), values.dtype)
    padding = np.full((extra, labels.shape[1]), mts.Labels.PADDING, np.int32)
    return mts.TensorBlock(
        np.concatenate([values, more]),
        mts.Labels.traced(block.samples.names, np.concatenate([labels, padding])),
        block.components,
        block.properties,
        gradients,
    )
