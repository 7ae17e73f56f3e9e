"""What Torch's modules have and these have not, and what to use instead."""

from __future__ import annotations

import equinox as eqx
import jax

#: names of ``metatensor.learn.nn``, and of Torch
_NAMES = {
    "Module": "`equinox.Module`: labels and maps can be its fields",
    "Parameter": "an array in a field of an `equinox.Module`",
    "requires_grad": "`jax.grad`, which chooses what to differentiate, and `Buffer`",
}
_MEMBERS = {
    "buffers": "`equinox.partition(model, trainable(model))`",
    "compile": "`equinox.filter_jit(model)`",
    "eval": "`equinox.nn.inference_mode(model)`",
    "forward": "the module itself, `model(tensor)`",
    "load_state_dict": "`metatensor_jax.learn.load`",
    "named_parameters": "`jax.tree_util.tree_leaves_with_path(model)`",
    "parameters": "`equinox.filter(model, trainable(model))`",
    "register_buffer": "`Buffer` in a field of an `equinox.Module`",
    "requires_grad_": "`jax.grad`, which chooses what to differentiate, and `Buffer`",
    "state_dict": "`metatensor_jax.learn.save`",
    "to": "`jax.device_put(model, device)`, and `dtype=` where it is made",
    "train": "`equinox.nn.inference_mode(model, False)`",
    "zero_grad": "`jax.grad`, which gives gradients and keeps none",
}


def absent_name(module: str, name: str) -> AttributeError:
    """The error for a name that a module of Python does not have.

    >>> print(absent_name("metatensor_jax.learn.nn", "Dropout"))
    module 'metatensor_jax.learn.nn' has no attribute 'Dropout': use
    `ModuleMap.from_module(in_keys, equinox.nn.Dropout(...))`
    """
    return _error(f"module '{module}'", name, _NAMES.get(name) or _counterpart(name))


def absent_member(kind: str, name: str) -> AttributeError:
    """The error for a member that an Equinox module does not have.

    >>> print(absent_member("Linear", "forward"))
    'Linear' object has no attribute 'forward': use the module itself, `model(tensor)`
    """
    return _error(f"'{kind}' object", name, _MEMBERS.get(name))


def _error(what: str, name: str, instead: str | None) -> AttributeError:
    hint = "" if instead is None else f": use {instead}"
    return AttributeError(f"{what} has no attribute '{name}'{hint}")


def _counterpart(name: str) -> str | None:
    """Equinox's layer of this name, or JAX's function, for classes of ``torch.nn``."""
    if name.startswith("_") or not name[:1].isupper():
        return None
    if hasattr(eqx.nn, name):
        return f"`ModuleMap.from_module(in_keys, equinox.nn.{name}(...))`"
    for function in dir(jax.nn):
        if function.replace("_", "") == name.lower():
            return f"`ModuleMap.from_module(in_keys, jax.nn.{function})`"
    return None
