"""Many modules as few arrays: those that are alike are held, and run, as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._run.functions import StaticValue, exact_structure
from ..._types.errors import MetatensorError
from ...layout._items import items_of
from ._calling import is_stateful

Module = Callable[..., Any]

#: from how many modules that are alike on a ModuleMap holds them as one. A jitted call
#: takes some 4 µs for each array of the model, of its gradients, and of the state of
#: the optimizer, which is more than the product of a small block takes.
MANY = 32


class StackedModules(eqx.Module, Sequence[Module]):
    """A sequence of modules, in which those that are alike are held as one.

    Modules are alike if they differ in nothing but the values of their arrays. Each of
    these arrays becomes one, with a new first axis for the modules, and so do its
    derivatives: an optimizer sees a few arrays, rather than some for each block.

    :param modules: the modules

    >>> layers = [eqx.nn.Linear(3, 2, key=jax.random.key(i)) for i in range(4)]
    >>> stacked = StackedModules(layers)
    >>> [array.shape for array in jax.tree.leaves(stacked)]
    [(4, 2, 3), (4, 2)]
    >>> bool(eqx.tree_equal(stacked[3], layers[3]))
    True
    """

    groups: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    stacks: tuple[Any, ...]

    def __init__(self, modules: Sequence[Module]) -> None:
        modules = list(modules)
        self.groups = alike(modules)
        self.stacks = tuple(
            [_stack([modules[i] for i in members]) for members in self.groups]
        )

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> list[Module]: ...

    def __getitem__(self, index: int | slice) -> Module | list[Module]:
        """One of the modules, with the parameters that it has now."""
        if isinstance(index, slice):
            return list(self)[index]
        at = range(len(self))[index]
        for members, stack in zip(self.groups, self.stacks, strict=True):
            if at in members:
                if len(members) == 1:
                    return stack
                _check_is_one(stack, len(members))
                return pick(stack, members.index(at))
        raise IndexError(f"there are {len(self)} modules, no module {index}")

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def __iter__(self) -> Iterator[Module]:
        modules: list[Any] = [None] * len(self)
        for members, stack in zip(self.groups, self.stacks, strict=True):
            for i, module in zip(members, _unstack(stack, len(members)), strict=True):
                modules[i] = module
        return iter(modules)

    def with_module(self, index: int, module: Module) -> StackedModules:
        """The same with another module, which is like the one in its place.

        :raises MetatensorError: a module that is not like it
        """
        modules = list(self)
        modules[index] = module
        if alike(modules) != self.groups:
            raise MetatensorError(
                f"the module for position {index} differs from the one that is there "
                "in more than the values of its arrays: make a new ModuleMap"
            )
        return self.like(modules)

    def like(self, modules: Sequence[Module]) -> StackedModules:
        """These modules, held together as those of this sequence are."""
        stacks = [_stack([modules[i] for i in members]) for members in self.groups]
        return eqx.tree_at(lambda x: x.stacks, self, tuple(stacks))

    def of_blocks(self, wanted: Sequence[int]) -> list[tuple[Any, list[int]]]:
        """The modules of blocks: stacks of modules, and which blocks each is for.

        :param wanted: the position of the module of each block
        """
        group_of = {i: g for g, members in enumerate(self.groups) for i in members}
        blocks: defaultdict[int, list[int]] = defaultdict(list)
        for block, i in enumerate(wanted):
            blocks[group_of[i]].append(block)
        return [
            (self._some_of(g, [wanted[block] for block in members]), members)
            for g, members in blocks.items()
        ]

    def _some_of(self, group: int, wanted: list[int]) -> Any:
        """A stack of some modules of a group; all of them in order cost nothing."""
        members, stack = self.groups[group], self.stacks[group]
        if len(members) == 1:
            stack = _stack([stack], keep_one=False)
        if list(members) == wanted:
            return stack
        return pick(stack, np.array([members.index(i) for i in wanted]))


def alike(modules: Sequence[Module]) -> tuple[tuple[int, ...], ...]:
    """The positions of the modules that are alike, in groups."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for i, module in enumerate(modules):
        if is_stateful(module):  # what marks its state is its own
            groups[i].append(i)
            continue
        kind = kind_of(module)
        try:
            groups[kind].append(i)
        except (TypeError, ValueError):  # something in it can not be compared
            groups[i].append(i)
    return tuple([tuple(members) for members in groups.values()])


def kind_of(module: Module) -> Any:
    """Equal for modules that differ in the values of their arrays only."""
    arrays, rest = eqx.partition(module, is_array)
    shapes = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(arrays)]
    leaves, structure = jax.tree.flatten(rest)
    constants = tuple(map(StaticValue.of, leaves))
    return exact_structure(structure), constants, tuple(shapes)


def is_array(x: Any) -> bool:
    """Is this a parameter: an array of JAX or NumPy, or the shape of one?"""
    return eqx.is_array(x) or isinstance(x, (np.ndarray, jax.ShapeDtypeStruct))


def pick(stack: Any, rows: Any) -> Any:
    """One of the modules of a stack, or a stack of some of them."""
    arrays, rest = eqx.partition(stack, is_array)
    with jax.transfer_guard_host_to_device("allow"):  # of row numbers
        return eqx.combine(jax.tree.map(lambda x: x[rows], arrays), rest)


def _stack(modules: Sequence[Module], keep_one: bool = True) -> Any:
    """Modules that are alike as one; a single one stays what it is."""
    if keep_one and len(modules) == 1:
        return modules[0]
    arrays = [eqx.filter(module, is_array) for module in modules]
    rest = eqx.filter(modules[0], is_array, inverse=True)
    return eqx.combine(jax.tree.map(_stack_arrays, *arrays), rest)


def _stack_arrays(*arrays: Any) -> Any:
    first = arrays[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(arrays), *first.shape), first.dtype)
    of_numpy = all(isinstance(x, np.ndarray) for x in arrays)
    return np.stack(arrays) if of_numpy else jnp.stack(arrays)


def _check_is_one(stack: Any, n: int) -> None:
    """Raise if these are the modules of several models, such as of an ensemble."""
    for x in jax.tree.leaves(eqx.filter(stack, is_array)):
        if x.shape[:1] != (n,):
            raise MetatensorError(
                f"there are {n} modules, but an array of them has shape {x.shape}: "
                "take one model of an ensemble first, "
                "`jax.tree.map(lambda x: x[i], model)` on its arrays"
            )


def _unstack(stack: Any, n: int) -> list[Any]:
    if n == 1:
        return [stack]
    _check_is_one(stack, n)
    arrays, rest = eqx.partition(stack, is_array)
    leaves, structure = jax.tree.flatten(arrays)
    rows = zip(*map(items_of, leaves), strict=True) if leaves else [()] * n
    return [eqx.combine(jax.tree.unflatten(structure, own), rest) for own in rows]
