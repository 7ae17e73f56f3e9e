"""Which JAX there is, and whether it computes what it should."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np

from .. import autodiff, io, operations
from .._types.arrays import Array
from .._types.block import TensorBlock
from .._types.labels import Labels
from .._types.tensor import TensorMap
from .._version import __version__
from .._versions import wrong_results

#: of answers in float32, relative
_TOLERANCE = 1e-5


def report() -> Iterator[tuple[bool, str]]:
    """Line by line: is it good, and what it says.

    Nothing here is drawn by chance, and all answers are known in closed form, or from
    NumPy in float64.
    """
    yield True, f"metatensor_jax {__version__}"
    yield True, f"Python {platform.python_version()}, {sys.platform}"
    yield True, f"NumPy {np.__version__}"
    yield True, f"JAX {jax.__version__}, jaxlib {jaxlib.version.__version__}"
    bits = 8 * jax.dtypes.canonicalize_dtype(np.float64).itemsize
    yield True, f"mode: {bits}-bit"
    for wrong in wrong_results():
        yield False, f"WRONG: {wrong}"
    try:
        devices = jax.devices()
    except RuntimeError as error:
        yield False, f"WRONG: no device can be used: {' '.join(str(error).split())}"
        return
    for device in devices:
        yield True, f"device: {device.device_kind} ({device.platform} {device.id})"
    for question, answer in KNOWN_ANSWERS.items():
        yield _ask(question, answer)


def _ask(question: str, answer: Callable[[], float]) -> tuple[bool, str]:
    """Is an answer right?"""
    # accelerators may round products more coarsely, if they are not told
    precision = None if jax.default_backend() == "cpu" else "highest"
    try:
        with jax.default_matmul_precision(precision):  # type: ignore[arg-type]
            error = answer()
    except Exception as error:  # whatever it is, it is no answer
        text = " ".join(str(error).split())[:200]
        return False, f"WRONG: {question}: {type(error).__name__}: {text}"
    is_good = error < _TOLERANCE
    return is_good, f"{'good' if is_good else 'WRONG'}: {question} (error {error:.1g})"


def _error(given: object, wanted: np.ndarray) -> float:
    """The largest relative error; infinite if a number is not finite."""
    array = np.asarray(given, np.float64)
    if array.shape != wanted.shape or not np.isfinite(array).all():
        return float("inf")
    scale = np.maximum(np.abs(wanted), 1.0)
    return float((np.abs(array - wanted) / scale).max(initial=0.0))


def _of_rows(values: np.ndarray) -> TensorMap:
    samples = Labels.range("sample", len(values))
    properties = Labels.range("property", values.shape[1])
    block = TensorBlock(values, samples, [], properties)
    return TensorMap(Labels.single(), [block])


def _products() -> float:
    """More rows than jaxlib 0.10.2 could do, jax-ml/jax #39103."""
    x = np.sin(np.arange(3 * 32_769, dtype=np.float32)).reshape(-1, 3)
    matrix = np.cos(np.arange(9, dtype=np.float32)).reshape(3, 3)

    @jax.jit
    def lengths(rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)

    wanted = ((x.astype(np.float64) @ matrix.astype(np.float64).T) ** 2).sum(axis=1)
    return _error(lengths(jnp.asarray(x)), wanted)


def _constants() -> float:
    """What jaxlib 0.5.3 to 0.8.1 took from the wrong places, jax-ml/jax #33479."""
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    tensor = _of_rows(x)

    @jax.jit
    def plus_one(number: jax.Array) -> Array:
        def take(row: jax.Array, number: jax.Array) -> jax.Array:
            return row[jnp.arange(6)] + 1 + 0 * number

        return operations.map_rows(take, tensor, args=(number,)).block().values

    return _error(plus_one(jnp.float32(2)), x.astype(np.float64) + 1)


def _sums() -> float:
    """Sums over samples, in and outside of a program: 0 + 1 + ... + (n - 1)."""
    n, systems = 1000, 7
    sizes = np.arange(systems * n, dtype=np.int32)
    samples = Labels(["system", "atom"], np.stack([sizes // n, sizes % n], axis=1))
    values = (sizes % n).astype(np.float32)[:, None]
    block = TensorBlock(values, samples, [], Labels.range("property", 1))
    tensor = TensorMap(Labels.single(), [block])

    def total(tensor: TensorMap) -> TensorMap:
        return operations.sum_over_samples(tensor, "atom")

    wanted = np.full((systems, 1), n * (n - 1) / 2)
    results = [total(tensor), jax.jit(total)(tensor)]
    return max(_error(result.block().values, wanted) for result in results)


def _gradients() -> float:
    """Stored gradients of x ** 3, and those of ``jax.grad`` through them: 3 x ** 2."""
    x = np.linspace(-2, 2, 9, dtype=np.float32)[:, None]
    features = _of_rows(x)
    one = features.block()
    rows = Labels(["sample", "atom"], np.stack([np.arange(9)] * 2, axis=1))
    unit = TensorBlock(np.ones((9, 1), np.float32), rows, [], one.properties)
    features = TensorMap(features.keys, [one.with_gradient("x", unit)])
    cubes = operations.map_rows(lambda row: row**3, features).block()
    atoms = Labels(["atom"], np.arange(9)[:, None])

    def total(values: jax.Array) -> jax.Array:
        at = TensorBlock(values, atoms, [], Labels.single())
        connected = autodiff.connect_gradients(features, x=at)
        return jnp.sum(connected.block().values ** 3)

    wanted = 3 * x.astype(np.float64) ** 2
    stored = _error(cubes.gradient("x").values, wanted)
    return max(stored, _error(jax.grad(total)(jnp.asarray(x)), wanted))


def _files() -> float:
    """A map to the bytes of a file, and back."""
    tensor = _of_rows(np.arange(6, dtype=np.float64).reshape(3, 2))
    return 0.0 if io.load_buffer(io.save_buffer(tensor)) == tensor else float("inf")


#: what is asked, and a function that gives the error of the answer
KNOWN_ANSWERS: dict[str, Callable[[], float]] = {
    "products of 32,769 rows": _products,
    "entries of constants in a program": _constants,
    "sums over samples": _sums,
    "gradients, stored and by jax.grad": _gradients,
    "a file": _files,
}
