"""Blocks as X and y of scikit-learn, and its estimators on maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, tensor
from files import assert_same_bits

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorBlock, TensorMap

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metatensor_jax.interop.sklearn import EstimatorMap, from_sklearn, to_sklearn

TARGET = Labels.range("energy", 1)


def features(sizes: Any = (6, 5), **options: Any) -> TensorMap:
    return tensor(sizes, n_properties=3, dtype="float64", **options)


def targets(inputs: TensorMap, n: int = 1) -> TensorMap:
    """Known linear functions of the features."""
    blocks = []
    for i, one in enumerate(inputs):
        values = np.asarray(one.values) @ np.arange(3 * n).reshape(3, n) + i
        blocks.append(TensorBlock(values, one.samples, [], Labels.range("energy", n)))
    return TensorMap(inputs.keys, blocks)


# === blocks ========================================================================


def test_a_block_is_an_array_with_names():
    samples = Labels("system", [[4], [2]])
    components, properties = [Labels.range("xyz", 2)], Labels(["n", "l"], [[3, 1]])
    values = np.arange(4.0).reshape(2, 2, 1)
    made = to_sklearn(TensorBlock(values, samples, components, properties))
    assert made.data.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert np.shares_memory(made.data, values)
    assert made.feature_names.tolist() == ["xyz=0,n=3,l=1", "xyz=1,n=3,l=1"]
    assert made.samples == samples
    assert "target" not in made


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize(
    ("components", "n"), [((), 1), ((), 3), ((3,), 1), ((3, 2), 2)]
)
def test_targets_come_back(components: tuple[int, ...], n: int, dtype: str, x64: bool):
    ours = block(4, components, n, dtype=dtype)
    made = to_sklearn(block(4), ours)
    n_columns = int(np.prod(components)) * n
    assert made.target.shape == ((4,) if n_columns == 1 else (4, n_columns))
    assert len(made.target_names) == n_columns
    back = from_sklearn(made.target, ours)
    assert_same_bits(back.values, ours.values)
    assert mts.equal_block(back, ours)
    column = np.asarray(made.target).reshape(4, -1)
    assert mts.equal_block(from_sklearn(column, ours), ours)


def test_values_of_jax():
    ours = block(4).to("jax")
    assert_same_bits(to_sklearn(ours).data, np.asarray(ours.values))


def test_nothing():
    assert to_sklearn(block(0)).data.shape == (0, 2)
    assert to_sklearn(block(4, n_properties=0)).data.shape == (4, 0)
    assert from_sklearn(np.zeros((0, 2)), block(0)).shape == (0, 2)


# === maps ==========================================================================


@pytest.mark.parametrize("n", [1, 2])
def test_an_estimator_for_each_block(n: int, x64: bool):
    inputs = features()
    outputs = targets(inputs, n)
    model = EstimatorMap(Ridge(alpha=1e-10))
    assert model.fit(inputs, outputs) is model
    predicted = model.predict(inputs)
    assert predicted.dtype == np.float64
    for found, expected, one in zip(predicted, outputs, inputs, strict=True):
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
        assert found.samples == one.samples
        assert found.properties == expected.properties
    # which is what scikit-learn gives for each block by itself
    alone = Ridge(alpha=1e-10).fit(
        np.asarray(inputs.block_by_id(1).values),
        np.asarray(outputs.block_by_id(1).values),
    )
    expected = alone.predict(np.asarray(inputs.block_by_id(1).values))
    found = np.asarray(predicted.block_by_id(1).values)
    np.testing.assert_allclose(found, expected.reshape(5, n))
    assert model.keys_ == inputs.keys
    assert [type(one) for one in model.estimators_] == [Ridge, Ridge]


def test_targets_in_another_order():
    inputs = features()
    outputs = targets(inputs)
    turned = TensorMap(
        Labels(outputs.keys.names, outputs.keys.values[::-1]), outputs.blocks()[::-1]
    )
    first = EstimatorMap(Ridge()).fit(inputs, outputs).predict(inputs)
    second = EstimatorMap(Ridge()).fit(inputs, turned).predict(inputs)
    assert mts.equal(first, second)


def test_other_samples_and_some_of_the_keys():
    inputs = features()
    model = EstimatorMap(Ridge()).fit(inputs, targets(inputs))
    other = features((2,), seed=5)
    predicted = model.predict(other)
    assert predicted.keys == other.keys
    assert predicted.block().samples == other.block().samples


@pytest.mark.parametrize("sizes", [(0, 5), (0, 0), ()])
def test_no_samples_have_no_predictions(sizes: tuple[int, ...]):
    inputs = features()
    model = EstimatorMap(Ridge()).fit(inputs, targets(inputs))
    predicted = model.predict(features(sizes))
    assert [one.shape for one in predicted] == [(n, 1) for n in sizes]
    assert predicted.property_names == (["energy"] if sizes else [])


def test_predictions_have_the_dtype_of_the_estimator():
    inputs = features().to(dtype="float32")
    outputs = targets(inputs)
    classes = TensorMap(
        outputs.keys, [one.with_values(np.ones(one.shape, int)) for one in outputs]
    )
    model = EstimatorMap(DummyClassifier()).fit(inputs, classes)
    predicted = model.predict(features((0, 2)).to(dtype="float32"))
    assert predicted.dtype == np.int64
    assert predicted.block_by_id(1).values.tolist() == [[1], [1]]


def test_it_is_an_estimator():
    inputs = features()
    model = EstimatorMap(make_pipeline(StandardScaler(), Ridge(alpha=2.0)))
    copied = clone(model)
    assert copied.estimator is not model.estimator
    assert copied.get_params()["estimator__ridge__alpha"] == 2.0
    copied.set_params(estimator__ridge__alpha=3.0)
    fitted = copied.fit(inputs, targets(inputs))
    assert [one[-1].alpha for one in fitted.estimators_] == [3.0, 3.0]
    # the estimator itself is not fitted, and neither is the one that was cloned
    for one in (model, clone(fitted)):
        with pytest.raises(NotFittedError):
            one.predict(inputs)
    assert repr(clone(EstimatorMap(Ridge()))) == "EstimatorMap(estimator=Ridge())"


# === what can not be ===============================================================


def fitted() -> EstimatorMap:
    inputs = features()
    return EstimatorMap(Ridge()).fit(inputs, targets(inputs))


def with_gradients() -> TensorMap:
    return features(gradients={"x": Gradient()})


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "gradients": (
        lambda: to_sklearn(block(gradients={"x": Gradient()})),
        MetatensorError,
        r"does not know of stored gradients, .*\['x'\]: remove them, `mts.remove_grad",
    ),
    "gradients of targets": (
        lambda: to_sklearn(block(), block(gradients={"x": Gradient()})),
        MetatensorError,
        "does not know of stored gradients",
    ),
    "gradients of maps": (
        lambda: EstimatorMap(Ridge()).fit(with_gradients(), targets(features())),
        MetatensorError,
        r"(?s)stored gradients.*for the block \(o3_lambda=0, center_type=0\)",
    ),
    "gradients in predict": (
        lambda: fitted().predict(with_gradients()),
        MetatensorError,
        "stored gradients",
    ),
    "other samples": (
        lambda: to_sklearn(block(4), block(4, first_system=1)),
        mts.NotEqualError,
        "inputs to 'to_sklearn' should have the same samples, but entry 0 is",
    ),
    "a map": (
        lambda: to_sklearn(tensor()),  # type: ignore[arg-type]
        TypeError,
        "`data` must be a metatensor_jax TensorBlock, not metatensor_jax.TensorMap",
    ),
    "padded": (
        lambda: to_sklearn(block(traced=True)),
        mts.TracedLabelsError,
        "undo the padding first",
    ),
    "traced": (
        lambda: jax.jit(lambda x: to_sklearn(x).data)(block().to("jax")),
        TypeError,
        "to_sklearn needs data, but the values of the block are traced",
    ),
    "bfloat16": (
        lambda: to_sklearn(block(dtype=jnp.bfloat16)),
        MetatensorError,
        "scikit-learn does not have the dtype bfloat16",
    ),
    "another shape": (
        lambda: from_sklearn(np.ones((3, 2)), block(4)),
        MetatensorError,
        r"the shape \(3, 2\), but there are 4 samples and 2 columns",
    ),
    "too few axes": (
        lambda: from_sklearn(np.ones(4), block(4)),
        MetatensorError,
        r"the shape \(4,\), but there are 4 samples and 2 columns",
    ),
    "like": (
        lambda: from_sklearn(np.ones(4), Labels.range("n", 4)),  # type: ignore[arg-type]
        TypeError,
        "`like` must be a metatensor_jax TensorBlock",
    ),
    "other keys": (
        lambda: EstimatorMap(Ridge()).fit(features(), targets(features((6,)))),
        mts.NotEqualError,
        r"should have the same keys.*\n",
    ),
    "key that was not fitted": (
        lambda: fitted().predict(features((1, 1, 1))),
        MetatensorError,
        r"there is no estimator for \(o3_lambda=0, center_type=1\), those that were",
    ),
    "other properties": (
        lambda: fitted().predict(tensor((2,), n_properties=2)),
        MetatensorError,
        "properties of those of `fit`, but there are 2 and 3 entries",
    ),
    "other components": (
        lambda: fitted().predict(features((2,), components=(2,))),
        MetatensorError,
        r"have the components \['component_0'\], but those of `fit` had \[\]",
    ),
    "arrays": (
        lambda: EstimatorMap(Ridge()).fit(np.ones((2, 1)), np.ones(2)),  # type: ignore[arg-type]
        TypeError,
        "`features` must be a metatensor_jax TensorMap",
    ),
    "no samples": (
        lambda: EstimatorMap(Ridge()).fit(features((0,)), targets(features((0,)))),
        ValueError,
        r"(?s)0 sample.*for the block \(o3_lambda=0, center_type=0\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as error:
        call()
    assert type(error.value) is kind
