"""Saving and restoring models, with what their labels say.

The file is a ZIP archive: ``model.json`` names everything that is in it, and each array
is a ``.npy`` member, as in ``.mts`` files.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.lib import format as npy

from .._types.arrays import is_tracer
from .._types.errors import MetatensorError
from .._types.labels import Labels
from .._version import __version__
from ..io._archive import Archive
from ..io._atomic import AnyPath, as_path, replaced_file
from ..io._source import opened
from ..layout import Layout
from ._names import Named, is_whole, named_leaves, one_by_one, together
from ._static import is_plain, named_static

_FORMAT = "metatensor_jax model"
_VERSION = 1
#: a model has fewer names than that; more are a damaged file
_MAX_HEADER = 1 << 28


def save(file: AnyPath, model: Any) -> None:
    """Save a model to a file, which is there as a whole or not at all.

    Arrays are saved with their dtypes, labels with their entries, those of maps and
    blocks as well, numbers, text and layouts as they are. Functions, such as
    activations, are not saved: :func:`load` takes them from the model that it is given.
    Random keys are saved as well.

    :param file: a path; ``.mjm`` is the usual ending
    :param model: any Equinox module, or another pytree, such as
        ``{"model": model, "optimizer": state, "layout": layout, "step": 100}``
    :raises MetatensorError: a traced model

    >>> import tempfile
    >>> import equinox as eqx
    >>> import metatensor_jax as mts
    >>> from metatensor_jax import learn
    >>> keys = mts.Labels("center_type", [[1], [8]])
    >>> model = learn.Linear(keys, 2, 1, key=jax.random.key(0))
    >>> other = learn.Linear(keys, 2, 1, key=jax.random.key(1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     learn.save(f"{folder}/model.mjm", model)
    ...     restored = learn.load(f"{folder}/model.mjm", other)
    >>> bool(eqx.tree_equal(restored, model))
    True
    """
    header: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "metatensor_jax": __version__,
        **{section: {} for section in _SECTIONS},
    }
    arrays: list[np.ndarray] = []
    each = one_by_one(model)
    for name, value, _ in (*named_leaves(each), *named_static(each)):
        section, entry = _section(value), value
        if section == "labels":
            if not value.is_static:
                raise MetatensorError(
                    f"the labels {name} are traced: they are no model"
                )
            entry = {"names": value.names, "values": value.values.tolist()}
        elif section == "layouts":
            entry = value.to_json()
        elif section == "arrays":
            entry = {"member": len(arrays), **_described(value)}
            arrays.append(_as_numpy(name, value))
        elif section is None and not callable(value):
            raise MetatensorError(
                f"{name} is a {type(value).__name__}, which can not be saved: make it "
                "an array, a number, text, or a static field"
            )
        if section is not None:
            header[section][name] = entry
    with replaced_file(file) as out, zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model.json", json.dumps(header, indent=1))
        for i, array in enumerate(arrays):
            archive.writestr(f"arrays/{i}.npy", _encoded(array))


def load(file: AnyPath, like: Any) -> Any:
    """A model with what :func:`save` has put into a file.

    Everything has to be there, and to fit: names, shapes, dtypes, labels, and what
    static fields say in plain values (``bool``, ``int``, ``float``, ``str``, None,
    tuples of them) or labels; functions are not compared. What belongs to a key of a
    module goes to this key, also where keys are in another order. The blocks of maps
    must have their order.

    :param file: a path
    :param like: a model of the same structure, with any weights; it stays as it is.
        Arrays can be ``jax.ShapeDtypeStruct``, as ``equinox.filter_eval_shape`` gives
        them.
    :raises MetatensorError: keys, labels, names, shapes, dtypes or static fields that
        are others
    :raises ValueError: a file that is damaged, or that is something else
    """
    path, each = as_path(file), one_by_one(like)
    try:
        with opened(path) as (source, name):
            archive = Archive(source, name)
            header = _read_header(archive)
            leaves, static = list(named_leaves(each)), list(named_static(each))
            parts = [*leaves, *static]
            _check_labels(parts, header["labels"])  # first: names follow from keys
            _check_names(parts, header)
            _check_static(static, header)
            restored = [_restored(leaf, header, archive) for leaf in leaves]
    except MetatensorError as error:
        error.add_note(f"in the file {str(path)!r}")
        raise
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is no file that `learn.save` wrote, or it is damaged: "
            f"{error}"
        ) from error
    structure = jax.tree.structure(each, is_leaf=is_whole)
    return together(jax.tree.unflatten(structure, restored), like)


# --- arrays --------------------------------------------------------------------------


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct))


def _is_random_key(value: Any) -> bool:
    return bool(jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key))


def _described(value: Any) -> dict[str, Any]:
    return {"shape": list(value.shape), "dtype": str(value.dtype)}


def _as_numpy(name: str, value: Any) -> np.ndarray:
    if isinstance(value, jax.ShapeDtypeStruct):
        raise MetatensorError(f"there are no numbers in {name}, only their shape")
    if is_tracer(value):
        raise MetatensorError(
            f"{name} is an array of a program that is being traced: save models "
            "outside of `jax.jit`"
        )
    return np.asarray(jax.random.key_data(value) if _is_random_key(value) else value)


def _encoded(array: np.ndarray) -> bytes:
    if array.dtype.kind == "V":  # such as bfloat16, whose name is in the header
        array = array.view(f"u{array.dtype.itemsize}")
    out = io.BytesIO()
    npy.write_array(
        out, np.ascontiguousarray(array).reshape(array.shape), (1, 0), False
    )
    return out.getvalue()


def _read_array(content: memoryview) -> np.ndarray:
    return npy.read_array(io.BytesIO(content), allow_pickle=False)


def _decoded(archive: Archive, member: int, like: Any) -> Any:
    array = archive.take(f"arrays/{member}.npy", _read_array)
    if _is_random_key(like):
        bits = jax.numpy.asarray(array)
        return jax.random.wrap_key_data(bits, impl=str(jax.random.key_impl(like)))
    array = array.view(like.dtype) if array.dtype != like.dtype else array
    if isinstance(like, (np.ndarray, np.generic)):
        return array[()] if isinstance(like, np.generic) else array
    sharding = getattr(like, "sharding", None)
    return jax.device_put(array, sharding)


# --- checks --------------------------------------------------------------------------


def _check_size(content: memoryview, size: int) -> None:
    """Of a list of names that another program has compressed."""
    if size > _MAX_HEADER:
        raise ValueError("the list of names is too long")


def _read_header(archive: Archive) -> Mapping[str, Any]:
    header = archive.take("model.json", lambda x: json.loads(bytes(x)), _check_size)
    if header.get("format") != _FORMAT:
        raise ValueError("this is no file that `learn.save` wrote")
    if header["version"] > _VERSION:
        raise MetatensorError(
            f"this file has version {header['version']} and was written by "
            f"metatensor_jax {header['metatensor_jax']}; this one reads up to version "
            f"{_VERSION}"
        )
    return header


_SECTIONS = ("arrays", "labels", "layouts", "values")


def _section(value: Any) -> str | None:
    """Where a leaf is listed in the header; None for what is not saved."""
    if isinstance(value, Labels):
        return "labels"
    if isinstance(value, Layout):
        return "layouts"
    if _is_array(value):
        return "arrays"
    return "values" if is_plain(value) else None


def _check_names(parts: list[Named], header: Mapping[str, Any]) -> None:
    wanted = {(_section(x.value), x.name) for x in parts if _section(x.value)}
    there = {(section, name) for section in _SECTIONS for name in header[section]}
    missing = sorted(name for _, name in wanted - there)
    unused = sorted(name for _, name in there - wanted)
    if missing or unused:
        raise MetatensorError(
            "the model in the file is another one: it "
            + " and ".join(
                f"{what} {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
                for what, names in (("lacks", missing), ("has besides", unused))
                if names
            )
        )


def _restored(leaf: Named, header: Mapping[str, Any], archive: Archive) -> Any:
    name, value, _ = leaf
    section = _section(value)
    if section is None:
        return value
    saved = header[section][name]
    if isinstance(value, Labels):
        return value
    if isinstance(value, Layout):
        return Layout.from_json(saved)
    if section == "values":
        if type(saved) is not type(value):
            raise MetatensorError(
                f"{name} is {value!r} in the model, but {saved!r} in the file"
            )
        return saved
    if saved != {"member": saved["member"], **_described(value)}:
        raise MetatensorError(
            f"{name} is {value.dtype}{list(value.shape)} in the model, but "
            f"{saved['dtype']}{saved['shape']} in the file"
        )
    return _decoded(archive, saved["member"], value)


def _labels_of(saved: Mapping[str, Any]) -> Labels:
    names, values = saved["names"], saved["values"]
    return Labels(names, np.array(values, np.int32).reshape(len(values), len(names)))


def _check_static(static: list[Named], header: Mapping[str, Any]) -> None:
    """What is not restored must be the same; labels are known to be so."""
    for name, value, _ in static:
        if isinstance(value, Labels):
            continue
        is_layout = isinstance(value, Layout)
        saved = header["layouts" if is_layout else "values"][name]
        # text tells apart 1, 1.0 and true, and NaN is the same as NaN
        if json.dumps(value.to_json() if is_layout else value) != json.dumps(saved):
            shown = Layout.from_json(saved) if is_layout else _with_tuples(saved)
            raise MetatensorError(
                f"{name} is {value!r} in the model, but {shown!r} in the file"
            )


def _with_tuples(saved: Any) -> Any:
    """A plain value as it was before it was saved."""
    return tuple(map(_with_tuples, saved)) if isinstance(saved, list) else saved


def _check_labels(parts: list[Named], of_file: Mapping[str, Any]) -> None:
    for name, labels, is_keys in parts:
        if not isinstance(labels, Labels) or name not in of_file:
            continue
        saved = _labels_of(of_file[name])
        same = labels == saved
        if is_keys and not same and labels.names == saved.names:
            same = len(labels) == len(saved) == len(labels.intersection(saved))
        if not same:
            raise MetatensorError(
                f"the labels {name} are\n{labels}\nin the model, but\n{saved}\n"
                "in the file"
            )
