"""Code of pages in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

INTEROP = Path(__file__).parent.parent / "docs" / "interop"


def fences(page: Path, kinds: str = "python") -> list[tuple[str, str]]:
    """The kind and the code of each fence of these kinds, ``python|bash``."""
    return re.findall(rf"^```({kinds})\n(.*?)^```", page.read_text(), re.S | re.M)


def run_page(name: str) -> dict[str, Any]:
    """Run all Python of a page on exchange, and give the names that it defines."""
    page = INTEROP / name
    names: dict[str, Any] = {}
    codes = fences(page)
    assert codes
    for _, code in codes:
        exec(compile(code, str(page), "exec"), names)
    return names
