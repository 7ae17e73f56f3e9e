"""Functions that the caller gives: which of them may be compiled, and told apart how.

A compiled program is the function as it was when it was traced. So only what can not
change is compiled: functions of libraries, and pytrees (such as Equinox's modules) of
arrays, plain values and such functions. All else runs as ``jax.vmap`` of it does, each
time anew: its result is always that of the function as it is, and nothing keeps it.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._types.conversion import check_not_narrowed
from .derivatives import Pushed, PushedLinear

_LIBRARIES = (
    "_operator",
    "equinox",
    "jax",
    "jaxlib",
    "metatensor_jax",
    "numpy",
    "operator",
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.dtype)
_ARRAYS = (np.ndarray, np.generic, jax.Array)


@dataclasses.dataclass(frozen=True)
class Number:
    """A Python number that is an argument of a compiled program, with its weak type.

    Other Python values are constants of a program.
    """

    value: Any


class Constant:
    """A value that is a constant of a program: equal where nothing can differ.

    ``1``, ``1.0`` and ``True`` are equal in Python, and so are ``0.0`` and ``-0.0``.
    """

    __slots__ = ("_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        exact = repr(value) if isinstance(value, (float, complex)) else value
        self._key = type(value), exact

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def partition(args: Any) -> tuple[list[Any], Any]:
    """What a program takes as data, and the rest."""
    leaves, structure = jax.tree.flatten(args, is_leaf=_is_number)
    dynamic = [x.value if _is_number(x) else x for x in leaves if _is_data(x)]
    rest = [None if _is_data(x) else Constant(x) for x in leaves]
    return dynamic, (structure, tuple(rest))


def combine(dynamic: Sequence[Any], static: Any) -> Any:
    """The inverse of :func:`partition`; numbers are what they stand for."""
    structure, rest = static
    data = iter(dynamic)
    return structure.unflatten([next(data) if x is None else x.value for x in rest])


def plain(args: Any) -> Any:
    """The arguments as a function takes them."""
    return combine(*partition(args)) if args else args


def identity(dynamic: Sequence[Any]) -> tuple[Any, ...]:
    """Equal for data that is the same: by identity, single numbers by value."""
    return tuple([_identity(x) for x in dynamic])


def _identity(x: Any) -> Any:
    if isinstance(x, jax.Array) and x.ndim == 0 and x.is_fully_addressable:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return id(x)
        return x.weak_type, str(x.dtype), np.asarray(x).tobytes()
    if (isinstance(x, np.ndarray) and x.ndim > 0) or isinstance(x, jax.Array):
        return id(x)
    array = np.asarray(x)
    return type(x), str(array.dtype), array.tobytes()


def is_fixed(function: Any) -> bool:
    """Can it be known that this function will always do the same?"""
    if isinstance(function, (Pushed, PushedLinear)):
        return is_fixed(function.of)
    if _root(type(function)) == "metatensor_jax" and dataclasses.is_dataclass(function):
        return True
    if _root(function) not in _LIBRARIES:
        return False
    return _is_of_module(function) or _holds_nothing(function)


def _holds_nothing(function: Any) -> bool:
    """Is it a plain function, such as a lambda of a library, without a closure?"""
    if not isinstance(function, FunctionType):
        return False
    return not (
        function.__closure__ or function.__defaults__ or function.__kwdefaults__
    )


def is_fixed_static(static: Any) -> bool:
    """The same for what :func:`partition` has found to be no data."""
    structure, rest = static
    values = all(x is None or _is_fixed_leaf(x.value) for x in rest)
    return values and _is_fixed_structure(structure)


def _is_fixed_leaf(value: Any) -> bool:
    """Not a number: there would be a program for each of them."""
    is_number = isinstance(value, (int, float, complex)) and not isinstance(value, bool)
    return not is_number and _is_fixed_value(value)


#: what was found to be fixed. It lasts anyway, so nothing is kept by this
_fixed_structures: set[Any] = set()
_MANY_STRUCTURES = 1024


def _is_fixed_structure(structure: Any) -> bool:
    try:
        if structure in _fixed_structures:
            return True
    except TypeError:  # something in it is no key: there is no program for it
        return False
    fixed = _is_fixed_tree(structure)
    if fixed:
        if len(_fixed_structures) >= _MANY_STRUCTURES:
            _fixed_structures.clear()
        _fixed_structures.add(structure)
    return fixed


def _is_fixed_tree(structure: Any) -> bool:
    node = structure.node_data()
    if node is None:
        return True
    kind, metadata = node
    return (
        _is_of_library(kind)
        and _is_fixed_value(metadata)
        and all(_is_fixed_tree(child) for child in structure.children())
    )


def _is_fixed_value(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_fixed_value, value))
    if isinstance(value, list):  # of the names of a dict
        return all(map(_is_fixed_value, value))
    if isinstance(value, (*_PLAIN, ModuleType)):
        return True
    if not callable(value) and _root(type(value)) in _LIBRARIES:
        return True  # such as labels, or a sentinel
    if isinstance(value, type):
        return _is_of_module(value)
    return is_fixed(value)


def _is_of_library(kind: Any) -> bool:
    """A container, or a module of Equinox: classes of the user can change."""
    return _root(kind) in (*_LIBRARIES, "builtins", "collections") and _is_of_module(
        kind
    )


def _root(value: Any) -> str:
    return str(getattr(value, "__module__", "")).partition(".")[0]


def _is_of_module(value: Any) -> bool:
    """Does a module hold this under its name, so that it lasts?"""
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    found: Any = module
    own = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    for name in str(own).split("."):
        found = getattr(found, name, None)
    return found is value


def _is_number(x: Any) -> bool:
    return isinstance(x, Number)


def _is_data(x: Any) -> bool:
    return isinstance(x, (*_ARRAYS, Number))


Function = Callable[..., Any]


def row_type(
    function: Function, rows: tuple[tuple[tuple[int, ...], Any], ...], args: Any = ()
) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what a function gives of rows, without running it.

    :param rows: shape and dtype of each row
    """
    if not args and is_fixed(function):
        return _fixed_type(function, rows)
    return _find_type(function, rows, args)


@functools.lru_cache(maxsize=1024)
def _fixed_type(function: Function, rows: Any) -> jax.ShapeDtypeStruct:
    return _find_type(function, rows, ())


def _find_type(function: Function, rows: Any, args: Any) -> jax.ShapeDtypeStruct:
    for _, dtype in rows:
        check_not_narrowed(dtype)  # before JAX warns of it, and goes on
    given = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in rows]
    args = plain(args)
    return jax.eval_shape(lambda *x: function(*x, *args), *given)


def forget() -> None:
    """Forget what was found of functions."""
    _fixed_structures.clear()
    _fixed_type.cache_clear()
