"""Functions that the caller gives: which of them may be compiled, and told apart how.

A compiled program is the function as it was when it was traced. So only what can not
change is compiled: functions of libraries, and pytrees (such as Equinox's modules) of
arrays, plain values and such functions. All else runs as ``jax.vmap`` of it does, each
time anew: its result is always that of the function as it is, and nothing keeps it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types.arrays import native
from .._types.conversion import check_not_narrowed
from .caches import forget_with, remembered
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


@dataclasses.dataclass(frozen=True)
class Number:
    """A Python number that is an argument of a compiled program, with its weak type.

    Other Python values are constants of a program.
    """

    value: Any


_DATA = (np.ndarray, np.generic, jax.Array, Number)


class StaticValue(NamedTuple):
    """A value that is a constant of a program: equal where nothing can differ.

    ``1``, ``1.0`` and ``True`` are equal in Python, and so are ``0.0`` and ``-0.0``.
    Objects can be equal by a rule of their own, so each is equal to itself only.
    """

    value: Any
    kind: type
    exact: str | int

    @classmethod
    def of(cls, value: Any) -> StaticValue:
        """This value."""
        is_plain = isinstance(value, _PLAIN)
        return cls(value, type(value), repr(value) if is_plain else id(value))


def exact_structure(structure: Any) -> Any:
    """A key for the structure of a pytree: equal only where nothing can differ."""
    node = structure.node_data()
    if node is None:
        return None
    kind, metadata = node
    children = tuple(map(exact_structure, structure.children()))
    return kind, _exact_metadata(metadata), children


def _parts(value: Any) -> tuple[Any, ...] | None:
    """What a container of metadata holds; None if it is none."""
    if isinstance(value, (tuple, list, frozenset)):  # a list of the names of a dict
        return tuple(value)
    is_plain = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if is_plain and type(value).__hash__ is None:  # what Equinox 0.13.0 makes
        return tuple([getattr(value, x.name) for x in dataclasses.fields(value)])
    return None


def _exact_metadata(value: Any) -> Any:
    parts = _parts(value)
    if parts is not None:
        return type(value), tuple(map(_exact_metadata, parts))
    # classes of libraries, such as labels, say rightly when they are equal
    is_known = not isinstance(value, _PLAIN) and _root(type(value)) in _LIBRARIES
    return value if is_known and not callable(value) else StaticValue.of(value)


def partition(args: Any) -> tuple[list[Any], Any]:
    """What a program takes as data, and the rest."""
    leaves, structure = jax.tree.flatten(args)
    dynamic, rest = [], []
    for x in leaves:
        is_data = isinstance(x, _DATA)
        if is_data:
            dynamic.append(native(x.value if isinstance(x, Number) else x))
        rest.append(None if is_data else StaticValue.of(x))
    return dynamic, (structure, tuple(rest))


def combine(dynamic: Sequence[Any], static: Any) -> Any:
    """The inverse of :func:`partition`; numbers are what they stand for."""
    structure, rest = static
    data = iter(dynamic)
    return structure.unflatten([next(data) if x is None else x.value for x in rest])


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


class Given:
    """A function that the caller gives, and what it takes besides rows.

    :param function: it takes rows, and ``args``
    :param linear_part: of an affine function
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        linear_part: Callable[..., Any] | None = None,
    ) -> None:
        self.function, self.linear_part = function, linear_part
        self.given_args = args
        #: what it takes besides rows: data, and the rest
        self.dynamic, self.static = partition(args)
        #: it can be compiled
        self.is_fixed = is_fixed(function) and _is_fixed_static(self.static)
        if linear_part is not None:
            self.is_fixed &= is_fixed(linear_part)

    @property
    def args(self) -> Any:
        """What it takes besides rows, as it takes it: a :class:`Number` is a number."""
        return combine(self.dynamic, self.static)

    def key(self) -> Any:
        """Equal where the caller gives the same: for what can change, only itself."""
        if not self.is_fixed:
            return id(self)
        return self.function, self.linear_part, self.static, identity(self.dynamic)


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
    # `functools.wraps` gives a function the name of another module
    home = str(function.__globals__.get("__name__"))
    if home.partition(".")[0] not in _LIBRARIES:
        return False
    return not (
        function.__closure__ or function.__defaults__ or function.__kwdefaults__
    )


#: what was found to be fixed. It lasts anyway, so nothing is kept by this
_fixed: set[Any] = set()
_MANY = 1024


def _is_fixed_static(static: Any) -> bool:
    """:func:`is_fixed` for what :func:`partition` has found to be no data."""
    try:
        if static in _fixed:
            return True
    except (TypeError, ValueError):  # something in it is no key: there is no program
        return False
    structure, rest = static
    values = all(x is None or _is_fixed_leaf(x.value) for x in rest)
    if not (values and _is_fixed_tree(structure)):
        return False
    if len(_fixed) >= _MANY:
        _fixed.clear()
    _fixed.add(static)
    return True


def _is_fixed_leaf(value: Any) -> bool:
    """Not a number: there would be a program for each of them."""
    is_number = isinstance(value, (int, float, complex)) and not isinstance(value, bool)
    return not is_number and _is_fixed_value(value)


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
    parts = _parts(value)
    if parts is not None:
        return all(map(_is_fixed_value, parts))
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


@remembered(1024)
def _fixed_type(function: Function, rows: Any) -> jax.ShapeDtypeStruct:
    return _find_type(function, rows, ())


def _find_type(function: Function, rows: Any, args: Any) -> jax.ShapeDtypeStruct:
    for _, dtype in rows:
        check_not_narrowed(dtype)  # before JAX warns of it, and goes on
    structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in rows]
    return jax.eval_shape(lambda *x: function(*x, *args), *structs)


forget_with(_fixed.clear)
