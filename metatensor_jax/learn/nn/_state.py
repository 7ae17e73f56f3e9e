"""Modules with a state: how they and their state go through the blocks of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax

from ..._types.block import TensorBlock
from ..._types.conversion import check_not_narrowed
from ..._types.entry import LabelsEntry
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ._calling import AXES, Bound, fresh, is_stateful, on_row, row_keys
from ._options import module_of, result_properties

if TYPE_CHECKING:
    from ._module_map import ModuleMap


def apply_with_state(
    module_map: ModuleMap,
    tensor: TensorMap,
    state: eqx.nn.State,
    key: jax.Array | None,
) -> tuple[TensorMap, eqx.nn.State]:
    """The result of a ``ModuleMap``, and the state after all blocks in their order.

    With the state that it has, a module is a function of a row as any other. Only what
    mixes rows, such as the mean over a batch, runs on all rows of a block together.
    """
    state = fresh(state)
    modules = list(module_map.modules)
    mixed: dict[int, TensorBlock] = {}
    for i, (entry, block) in enumerate(tensor.items()):
        at = module_of(module_map.in_keys, entry)
        module = modules[at]
        if not is_stateful(module):
            continue
        own = _own_state(state, module, entry)
        modules[at] = Bound(module, own)
        keys = None if key is None else row_keys(key, at, len(block))
        values, new = _on_all_rows(module, block.values, own, keys)
        if len(block):  # the mean over no rows is not a number
            state = state.update(new)
        if _mixes_rows(module, block.values, own, key):
            _check_can_mix(block, entry)
            labels = module_map.out_properties
            properties = result_properties(
                values.shape[-1], None if labels is None else labels[at]
            )
            mixed[i] = TensorBlock(values, block.samples, block.components, properties)
    bound = eqx.tree_at(lambda x: x.modules, module_map, modules)
    return _with_blocks(bound, tensor, mixed, key), state


def _own_state(state: eqx.nn.State, module: Any, entry: LabelsEntry) -> eqx.nn.State:
    try:
        return state.substate(module)
    except KeyError:
        raise MetatensorError(
            f"the state has nothing for the module of the block {entry.print()}: both "
            "must come from one call of `equinox.nn.make_with_state`"
        ) from None


def _on_all_rows(
    module: Any, values: Any, state: eqx.nn.State, keys: jax.Array | None
) -> tuple[jax.Array, eqx.nn.State]:
    check_not_narrowed(values.dtype)

    def of_row(row: jax.Array, key: jax.Array | None) -> Any:
        return on_row(module, row, fresh(state), key)

    axes = (0, None if keys is None else 0)
    try:
        return jax.vmap(of_row, axes, (0, None), axis_name=AXES[0])(values, keys)
    except ValueError as error:
        error.add_note(
            f"what changes the state must be a mean over the axes {AXES}, such as in "
            f"`equinox.nn.BatchNorm(size, {AXES})`"
        )
        raise


def _mixes_rows(
    module: Any, values: Any, state: eqx.nn.State, key: jax.Array | None
) -> bool:
    """Does the result for a row depend on other rows?"""
    row = jax.ShapeDtypeStruct(values.shape[1:], values.dtype)
    try:
        eqx.filter_eval_shape(on_row, module, row, state, key)
    except NameError:  # JAX's error where the name of an axis is not known
        return True
    return False


def _check_can_mix(block: TensorBlock, entry: LabelsEntry) -> None:
    if block.gradients_list():
        raise MetatensorError(
            f"the module of the block {entry.print()} mixes its rows, so the stored "
            f"gradients with respect to {block.gradients_list()} do not follow. Take "
            "them away (`remove_gradients`), differentiate with `jax.grad`, or use "
            "`equinox.nn.inference_mode`"
        )
    if not block.samples.is_static:
        raise MetatensorError(
            f"the module of the block {entry.print()} mixes its rows, and would count "
            "the padding of a batch among them. Use it before padding, or in "
            "`equinox.nn.inference_mode`; `LayerNorm` does not mix rows"
        )


def _with_blocks(
    module_map: ModuleMap,
    tensor: TensorMap,
    known: dict[int, TensorBlock],
    key: jax.Array | None,
) -> TensorMap:
    """Apply the modules to all blocks but those whose result is known."""
    if not known:
        return module_map(tensor, key=key)
    rest = [i for i in range(len(tensor)) if i not in known]
    keys = Labels(tensor.keys.names, tensor.keys.values[rest])
    others = module_map(TensorMap(keys, [tensor.block(i) for i in rest]), key=key)
    blocks = {**known, **dict(zip(rest, others.blocks(), strict=True))}
    return TensorMap(
        tensor.keys, [blocks[i] for i in range(len(tensor))], tensor.info()
    )
