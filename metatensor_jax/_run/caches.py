"""What is kept from call to call, and how all of it is forgotten."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

_Function = TypeVar("_Function", bound=Callable[..., Any])

_forget: list[Callable[[], None]] = []


def forget_with(clear: Callable[[], None]) -> None:
    """Register how something that is kept is forgotten."""
    _forget.append(clear)


def compiled(function: _Function, **options: Any) -> _Function:
    """``jax.jit``, whose programs :func:`forget` forgets as well."""
    jitted: Any = jax.jit(function, **options)
    forget_with(jitted.clear_cache)
    return jitted


def remembered(size: int) -> Callable[[_Function], _Function]:
    """``functools.lru_cache`` of so many results, which :func:`forget` empties."""

    def remember(function: _Function) -> _Function:
        cached: Any = functools.lru_cache(size)(function)
        forget_with(cached.cache_clear)
        return cached

    return remember


def forget() -> None:
    """Forget all that is kept."""
    for clear in _forget:
        clear()
