"""The reference has every public name, and pages name nothing that there is not."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import metatensor_jax as mts

DOCS = Path(__file__).parent.parent / "docs"
#: what users import, and what that needs
MODULES = {
    "metatensor_jax": [],
    "metatensor_jax.atomistic": ["equinox"],
    "metatensor_jax.autodiff": [],
    "metatensor_jax.interop": [],
    "metatensor_jax.interop.ase": ["ase"],
    "metatensor_jax.interop.metatrain": ["ase"],
    "metatensor_jax.interop.orbitals": [],
    "metatensor_jax.interop.sklearn": ["sklearn"],
    "metatensor_jax.io": [],
    "metatensor_jax.layout": [],
    "metatensor_jax.learn": ["equinox", "optax"],
    "metatensor_jax.learn.data": ["equinox", "optax"],
    "metatensor_jax.learn.nn": ["equinox", "optax"],
    "metatensor_jax.o3": [],
    "metatensor_jax.operations": [],
    "metatensor_jax.sharding": [],
}
#: how a name is documented
_ENTRY = re.compile(r"^\.\. auto(?:class|exception|function):: (\S+)$", re.MULTILINE)
#: names in the text of pages, and what their first parts stand for
_IN_TEXT = re.compile(r"`(\w+)\.((?:\w+\.)*\w+)")
ALIASES = {
    "mts": "metatensor_jax",
    "learn": "metatensor_jax.learn",
    "nn": "metatensor_jax.learn.nn",
    "o3": "metatensor_jax.o3",
    "structures": "metatensor_jax.interop.ase",
    "eqx": "equinox",
    "optax": "optax",
    "jax": "jax",
    "metatensor": "metatensor",
    "torch": "torch",
    **{name: f"metatensor_jax.{name}" for name in mts.__all__ if name[0].isupper()},
    "block": "metatensor_jax.TensorBlock",
    "labels": "metatensor_jax.Labels",
    "store": "metatensor_jax.Store",
    "tensor": "metatensor_jax.TensorMap",
}


def documented() -> list[str]:
    """The full names in the reference, as they are written."""
    pages = sorted((DOCS / "reference").glob("*.rst"))
    return [name for page in pages for name in _ENTRY.findall(page.read_text())]


def needed(name: str) -> list[str]:
    """What the module of a full name needs."""
    module = name if name in MODULES else name.rpartition(".")[0]
    return MODULES[module]


def resolved(name: str) -> Any:
    """What a full name stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def public(module: ModuleType) -> Iterator[str]:
    """The public names of a module, other modules left out.

    Without ``__all__``, these are what it hands on (``import x as x``) or, if that is
    nothing, what it defines.
    """
    handed_on = re.findall(r"\b(\w+) as \1\b", Path(module.__file__ or "").read_text())
    defined = [
        name
        for name, value in vars(module).items()
        if callable(value) and value.__module__ == module.__name__
    ]
    for name in getattr(module, "__all__", handed_on or defined):
        value = getattr(module, name)
        if not name.startswith("_") and not isinstance(value, ModuleType):
            yield name


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there(name: str) -> None:
    for package in MODULES[name]:
        pytest.importorskip(package)
    known = {
        id(resolved(entry))
        for entry in documented()
        if not any(_is_missing(package) for package in needed(entry))
    }
    module = importlib.import_module(name)
    names = list(public(module))
    assert names
    missing = [x for x in names if id(getattr(module, x)) not in known]
    assert missing == [], f"{name}: add these to a page in docs/reference/"


def _is_missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def test_modules_are_all() -> None:
    """Modules that users import by their name are in the list above."""
    found = {
        f"metatensor_jax.{name}"
        for name in mts.__all__
        if isinstance(getattr(mts, name), ModuleType)
    }
    assert found <= set(MODULES)


def test_nothing_is_there_twice() -> None:
    assert [name for name, n in Counter(documented()).items() if n > 1] == []


#: what the example of another name shows
SHOWN_BY = {
    "metatensor_jax.GradientCheck": "metatensor_jax.check_gradients",
    "metatensor_jax.GradientReport": "metatensor_jax.check_gradients",
    "metatensor_jax.Move": "metatensor_jax.move_rows",
    "metatensor_jax.PaddedBatch": "metatensor_jax.Layout",
    "metatensor_jax.StackedMap": "metatensor_jax.stack_blocks",
    "metatensor_jax.load_labels": "metatensor_jax.save",
    "metatensor_jax.interop.metatrain.Dataset": (
        "metatensor_jax.interop.metatrain.read_dataset"
    ),
    "metatensor_jax.atomistic.Neighbors": "metatensor_jax.atomistic.Systems",
    "metatensor_jax.atomistic.RadialBasis": "metatensor_jax.atomistic.Gto",
    "metatensor_jax.learn.Epoch": "metatensor_jax.learn.fit",
    "metatensor_jax.learn.Fitted": "metatensor_jax.learn.fit",
    "metatensor_jax.learn.Parts": "metatensor_jax.learn.featurize",
    "metatensor_jax.learn.Restored": "metatensor_jax.learn.Checkpoints",
    "metatensor_jax.learn.check_metadata": "metatensor_jax.learn.metadata",
    "metatensor_jax.learn.load": "metatensor_jax.learn.save",
}


@pytest.mark.parametrize("name", documented())
def test_what_is_there_has_a_text_and_an_example(name: str) -> None:
    for package in needed(name):
        pytest.importorskip(package)
    value = resolved(name)
    assert value.__doc__
    if not (isinstance(value, type) and issubclass(value, Exception)):
        assert ">>>" in resolved(SHOWN_BY.get(name, name)).__doc__


PAGES = sorted({*DOCS.rglob("*.md")} - {*DOCS.glob("notebooks/**/*")})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_name_what_there_is(page: Path) -> None:
    for first, attributes in _IN_TEXT.findall(page.read_text()):
        if first not in ALIASES or attributes.endswith(("py", "md")):
            continue
        path = ALIASES[first]
        is_class = path.rpartition(".")[2][0].isupper()
        try:
            owner = resolved(path) if is_class else pytest.importorskip(path)
            reduce(_attribute, attributes.split("."), owner)
        except AttributeError:
            pytest.fail(f"{page.name} has `{first}.{attributes}`, which there is not")


def _attribute(owner: Any, name: str) -> Any:
    if isinstance(owner, property):  # what it gives is not known here
        return owner
    try:
        return getattr(owner, name)
    except AttributeError:
        if not isinstance(owner, ModuleType):
            raise
    try:
        return importlib.import_module(f"{owner.__name__}.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(name) from error
