"""References by short names: `Layout.pad` in a text of another module is found, too."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode


def _find(
    app: Sphinx, env: Any, node: pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """The one name of the reference that ends in the one that is meant."""
    if node.get("refdomain") != "py":
        return None
    objects = env.domains["py"].objects
    ending = "." + node["reftarget"]
    found = [name for name in objects if name.endswith(ending)]
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    page = node["refdoc"]
    return make_refnode(app.builder, page, entry.docname, entry.node_id, text, found[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """For Sphinx."""
    app.connect("missing-reference", _find)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
