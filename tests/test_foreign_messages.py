"""Objects of metatensor that are given to us by mistake: what each function says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from builders import Gradient, block, tensor
from scripted import metatensor_torch

import metatensor_jax as mts
from metatensor_jax import Labels
from metatensor_jax.interop import to_metatensor
from metatensor_jax.learn import nn

core: Any = pytest.importorskip("metatensor")

x, b, s = tensor(), block(), block().samples
p = mts.block_from_array(np.ones((1, 1), np.float32))
module = eqx.nn.Linear(2, 1, key=jax.random.key(0))
mapped = nn.ModuleMap(x.keys, [module] * 3)

#: how each gets a map, a block or labels of metatensor, by the kind of object
CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    # constructors
    "values": ("TensorBlock", lambda t: mts.TensorBlock(t, s, [], b.properties)),
    "samples": ("Labels", lambda t: mts.TensorBlock(b.values, t, [], b.properties)),
    "component": ("Labels", lambda t: mts.TensorBlock(b.values, s, [t], b.properties)),
    "properties": ("Labels", lambda t: mts.TensorBlock(b.values, s, [], t)),
    "gradient": ("TensorBlock", lambda t: b.with_gradient("g", t)),
    "with_values": ("TensorBlock", b.with_values),
    "keys": ("Labels", lambda t: mts.TensorMap(t, [b])),
    "blocks": ("TensorBlock", lambda t: mts.TensorMap(Labels.single(), [t])),
    "selection": ("Labels", x.block),
    "selected blocks": ("Labels", x.blocks),
    "union": ("Labels", s.union),
    "select": ("Labels", s.select),
    # operations
    "map": ("TensorMap", mts.abs),
    "block": ("TensorBlock", mts.sort_block),
    "map for block": ("TensorMap", mts.sort_block),
    "operand": ("TensorMap", lambda t: mts.add(x, t)),
    "operator": ("TensorMap", lambda t: x + t),
    "join": ("TensorMap", lambda t: mts.join([x, t], "samples")),
    "join_blocks": ("TensorBlock", lambda t: mts.join_blocks([t], "samples")),
    "slice": ("TensorMap", lambda t: mts.slice(t, "samples", [0])),
    "slice by": ("Labels", lambda t: mts.slice(x, "samples", t)),
    "split by": ("Labels", lambda t: mts.split(x, "samples", [t])),
    "split": ("Labels", lambda t: mts.split(x, "samples", t)),
    "filter_blocks": ("Labels", lambda t: mts.filter_blocks(x, t)),
    "keys_to_samples": ("Labels", x.keys_to_samples),
    "keys_to_properties": ("Labels", x.keys_to_properties),
    "map_rows": ("TensorMap", lambda t: mts.map_rows(jax.numpy.sin, t)),
    "map_rows, second": ("TensorMap", lambda t: mts.map_rows(jax.numpy.add, x, t)),
    "move_rows": ("TensorBlock", lambda t: mts.move_rows([mts.Move(t)], s)),
    "block_from_array": ("TensorBlock", mts.block_from_array),
    "equal": ("TensorMap", lambda t: mts.equal(x, t)),
    # derivatives
    "connect": ("TensorMap", lambda t: mts.connect_gradients(t, x=p)),
    "connect by": ("TensorBlock", lambda t: mts.connect_gradients(x, x=t)),
    "compute by": ("TensorBlock", lambda t: mts.compute_gradients(lambda x: x, x=t)),
    "compute": ("TensorMap", lambda t: mts.compute_gradients(lambda x: t, x=p)),
    "check": ("TensorMap", lambda t: mts.check_gradients(t, lambda x: x, x=p)),
    # batches
    "fit": ("TensorMap", lambda t: mts.Layout.fit([t], systems=2)),
    "fit by name": ("TensorMap", lambda t: mts.Layout.fit([{"a": t}], systems=2)),
    "pad": ("TensorMap", lambda t: mts.Layout.fit([x], systems=2).pad(t)),
    "unpad": ("TensorMap", lambda t: mts.Layout.fit([x], systems=2).unpad(t)),
    "stack": ("TensorMap", mts.stack_blocks),
    # files
    "save map": ("TensorMap", mts.io.save_buffer),
    "save block": ("TensorBlock", mts.io.save_buffer),
    "save labels": ("Labels", mts.io.save_buffer),
    # modules
    "module": ("TensorMap", mapped),
    "in_keys": ("Labels", lambda t: nn.ModuleMap(t, [module] * 3)),
    "out_properties": ("Labels", lambda t: nn.ModuleMap(x.keys, [module] * 3, t)),
    "each of them": ("Labels", lambda t: nn.ModuleMap(x.keys, [module] * 3, [t] * 3)),
    "linear": (
        "Labels",
        lambda t: nn.Linear(x.keys, 2, out_properties=t, key=jax.random.key(0)),
    ),
    "linear keys": ("Labels", lambda t: nn.Linear(t, 2, 2, key=jax.random.key(0))),
    "stacked modules": (
        "TensorMap",
        nn.ModuleMap(x.keys, nn.StackedModules([module] * 3)),
    ),
    # and the other way
    "to_metatensor": ("TensorMap", to_metatensor),
}


def given(kind: str, package: Any) -> Any:
    if package == "torch":
        metatensor_torch()
    ours = {"TensorMap": x, "TensorBlock": block(gradients={"g": Gradient()})}
    return to_metatensor(ours.get(kind, s), package=package)


@pytest.mark.parametrize("package", ["core", "torch"])
@pytest.mark.parametrize("name", CALLS)
def test_the_message_names_the_function(name: str, package: str):
    kind, call = CALLS[name]
    with pytest.raises(TypeError) as error:
        call(given(kind, package))
    module = "metatensor" if package == "core" else "metatensor.torch"
    assert str(error.value).endswith(
        f"{module}.{kind}: convert it with `metatensor_jax.interop.from_metatensor(x)`"
    )


def test_classes_of_the_same_name_are_not_mistaken():
    class TensorMap:
        """Not metatensor's."""

    with pytest.raises(TypeError, match=r"not test_foreign_messages.TensorMap$"):
        mts.abs(TensorMap())  # type: ignore[arg-type]


def test_classes_that_are_derived():
    class Mine(core.Labels):
        pass

    with pytest.raises(TypeError, match=r"from_metatensor\(x\)`$"):
        mts.TensorMap(Mine(["k"], np.zeros((1, 1), np.int32)), [b])
